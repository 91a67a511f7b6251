"""Names that older results give for commands: `python -m fasp_core.experiments.X` is `python -m fasp_core study X`."""

import sys
from typing import NoReturn


def run(study: str) -> NoReturn:
    """Run a study with this process's options, and end with its exit status."""
    from fasp_core.cli.main import main

    sys.exit(main(["study", study, *sys.argv[1:]]))
