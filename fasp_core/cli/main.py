"""The command line: `python -m fasp_core COMMAND`, put together of one module a command.

Results go to stdout, as text or with --json as one JSON document; logs and progress bars go to stderr. The exit
status is 0 only on success, 2 for bad input with one line that says how to fix it, 130 after Ctrl-C.

Commands import what they need when they run: torch takes seconds, and help, `prompts` and `select` do without.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from fasp_core.cli.audit import audit
from fasp_core.cli.command import Said, command
from fasp_core.cli.compare import compare
from fasp_core.cli.evaluate import evaluate
from fasp_core.cli.export import export
from fasp_core.cli.gains import gains, repair
from fasp_core.cli.listing import models, prompts
from fasp_core.cli.plan import plan
from fasp_core.cli.report import report
from fasp_core.cli.score import score
from fasp_core.cli.scorecard import scorecard
from fasp_core.cli.search import search
from fasp_core.cli.select import select
from fasp_core.cli.studies import carrying, trust
from fasp_core.cli.suites import suites
from fasp_core.cli.utility import utility
from fasp_core.cli.why.explain import explain
from fasp_core.console import log
from fasp_core.errors import InputError

PROGRAM = "python -m fasp_core"
COMMANDS: tuple[Callable[..., Said], ...] = (
    models,
    prompts,
    score,
    select,
    evaluate,
    utility,
    scorecard,
    suites,
    compare,
    search,
    gains,
    repair,
    explain,
    audit,
    export,
    report,
    plan,
)
STUDIES: tuple[Callable[..., Said], ...] = (
    trust.additivity,
    trust.robustness,
    carrying.transfer,
    trust.truth,
    trust.agreement,
    carrying.divisions,
    carrying.settle,
    carrying.contexts,
    trust.costs,
    trust.ablations,
    carrying.axes,
    trust.strengths,
)


def _version(asked: bool) -> None:
    if asked:
        from fasp_core.model.provenance import VERSION

        print(f"fasp-studio {VERSION}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
study = typer.Typer(help="Studies of how far the numbers can be trusted; a study that was stopped goes on.")


@app.callback()
def program(version: Version = False) -> None:
    """Prune attention heads of causal language models for fairness, and see what it costs."""


for function in COMMANDS:
    command(app)(function)
for function in STUDIES:
    command(study)(function)
app.add_typer(study, name="study")


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; errors that the reader can fix become one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # not every terminal knows every prompt's letters
    try:
        status = typer.main.get_command(app).main(args=args, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except InputError as error:
        log(f"Error: {error}")
        return 2
    except TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else PROGRAM
        what = error.format_message().replace("Value error, ", "").rstrip(".")
        log(f"Error: {what}: see '{path} --help'.")
        return 2
    except BrokenPipeError:  # the reader, such as 'head', has closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if status == 130:
        log("Stopped. What was measured is kept: the same command goes on from there.")
    return int(status or 0)
