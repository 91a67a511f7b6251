"""Names that older results give for commands: `python -m fasp_core.experiments.X` is `python -m fasp_core study X`."""

import sys


def run(module: str) -> int:
    """Run the study that the last part of a module's name is, with this process's options; the exit status."""
    from fasp_core.cli.main import main

    return main(["study", module.rpartition(".")[2], *sys.argv[1:]])
