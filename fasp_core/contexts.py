"""`python -m fasp_core study contexts` by its older name."""

import sys

if __name__ == "__main__":
    from fasp_core.cli.main import main

    sys.exit(main(["study", "contexts", *sys.argv[1:]]))
