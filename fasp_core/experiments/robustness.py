"""`python -m fasp_core study robustness` by its older name."""

from fasp_core.experiments import run

if __name__ == "__main__":
    run("robustness")
