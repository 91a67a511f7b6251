"""`python -m fasp_core study transfer` by its older name."""

import sys

from fasp_core.experiments import run

if __name__ == "__main__":
    assert __spec__ is not None
    sys.exit(run(__spec__.name))
