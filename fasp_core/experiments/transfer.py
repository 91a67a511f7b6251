"""`python -m fasp_core study transfer` by its older name."""

from fasp_core.experiments import run

if __name__ == "__main__":
    run("transfer")
