"""`python -m fasp_core study additivity` by its older name."""

from fasp_core.experiments import run

if __name__ == "__main__":
    run("additivity")
