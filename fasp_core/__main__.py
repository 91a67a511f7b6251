"""`python -m fasp_core`."""

import sys

from fasp_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
