"""Does a pruning that was chosen in one context help in another? `python -m fasp_core study contexts` asks an
instruct model about named people, chooses heads, neurons and weights on each scenario and context, removes them, and
asks again (Ma et al. 2025). A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fasp_core.console import to_json, working
from fasp_core.errors import InputError
from fasp_core.model.loading import load
from fasp_core.model.spec import BUILT_IN, ModelSpec
from fasp_core.model.tokens import BEGINNINGS
from fasp_core.storage.store import Store
from fasp_core.studies.common import exit_status, rows_as_markdown
from fasp_core.studies.contexts import scenarios
from fasp_core.studies.contexts.audit import AuditConfig
from fasp_core.studies.contexts.carried import Carried, Summary, cells_of, rows_of
from fasp_core.studies.contexts.choosing import METHODS, Sizes
from fasp_core.studies.contexts.matrix import TITLES, Matrix, MatrixConfig, RunTime, run


def document(matrix: Matrix, winsorise: float) -> dict[str, Any]:
    """Everything that a matrix says, for `--json`."""
    carried = Carried(matrix, winsorise)
    return {
        "model": matrix.model,
        "groups": list(matrix.groups),
        "names": len(matrix.people),
        "scenarios": [s.title for s in matrix.scenarios],
        "config": asdict(matrix.config),
        "winsorised": winsorise,
        "cells": [
            {"method": method, "chosen_on": _row_title(row), "tested_on": context} | asdict(found)
            for method in matrix.config.methods
            for row in rows_of(matrix)
            for context in matrix.contexts
            if (found := carried.summary(cells_of(matrix, method, row, context))) is not None
        ],
        "findings": [asdict(f) for f in carried.findings()],
        "run_time": [asdict(t) for t in matrix.times()],
        "provenance": matrix.provenance,
    }


def markdown(matrix: Matrix, winsorise: float) -> str:
    """One table a method, and the two findings."""
    carried = Carried(matrix, winsorise)
    n = matrix.base.shape[2]
    parts = [
        f"{matrix.model}: {len(matrix.people)} names ({', '.join(matrix.groups)}), {n} answers each to "
        f"{len(matrix.scenarios)} scenarios. Cells: change of mean |SMD| with its 95% interval; share of inliers, of "
        f"which the whole model's other answers have {_usual(carried)}."
    ]
    for method in matrix.config.methods:
        rows = []
        for row in rows_of(matrix):
            every = carried.summary(cells_of(matrix, method, row))
            found = [carried.summary(cells_of(matrix, method, row, c)) for c in matrix.contexts]
            rows.append((_row_title(row), _size(every), *map(_cell, found), "" if every is None else _cell(every)))
        parts += [f"## {method}", rows_as_markdown(["chosen on", "parts", *matrix.contexts, "all"], rows)]
    times = [(TITLES[t.kind], str(t.tests), str(t.timed), f"{t.seconds:.1f}", _minutes(t)) for t in matrix.times()]
    header = ["chosen on", "tests", "timed", "seconds a test", "minutes in all, about"]
    parts += ["## Run time", rows_as_markdown(header, times)]
    return "\n\n".join([*parts, *(f.sentence for f in carried.findings())]) + "\n"


def _minutes(time: RunTime) -> str:
    return f"{time.tests * time.seconds / 60:.0f}"


def _usual(carried: Carried) -> str:
    cells = carried.matrix.of(carried.matrix.config.methods[0], "same")
    found = carried.summary(cells)
    return "none" if found is None else f"{found.usual_inliers:.0%}"


def _row_title(row: tuple[Any, str]) -> str:
    return row[1] or TITLES[row[0]]


def _size(found: Summary | None) -> str:
    if found is None:
        return ""
    low, high = found.parts
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _cell(found: Summary | None) -> str:
    if found is None:
        return "–"
    if found.change.value != found.change.value:
        return f"no numbers; {found.inliers:.0%}"
    low, high = found.change.low, found.change.high
    return f"{found.change.value:+.2f} [{low:+.2f}, {high:+.2f}]; {found.inliers:.0%}"


def main(args: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fasp_core study contexts", description=__doc__)
    parser.add_argument("--model", default=BUILT_IN, help="built-in, a hub id, a folder or a .gguf file")
    parser.add_argument("--bos", choices=BEGINNINGS, default="auto", help="a beginning token before prompts and text")
    parser.add_argument("--scenarios", type=Path, help="a TOML file of your own scenarios and names")
    parser.add_argument("--method", action="append", choices=METHODS, help="may be given more than once; else all")
    parser.add_argument("--samples", type=int, default=AuditConfig.samples, help="answers for each name")
    parser.add_argument("--answer-tokens", type=int, default=AuditConfig.tokens, help="longest answer")
    parser.add_argument("--names", type=int, help="first names of each group, at most; else all")
    parser.add_argument("--per-context", type=int, help="scenarios of each context, at most; else all")
    parser.add_argument("--heads", type=float, default=Sizes.heads, help="share of heads to remove")
    parser.add_argument("--neurons", type=float, default=Sizes.neurons, help="share of neurons to remove")
    parser.add_argument("--tokens", type=int, default=MatrixConfig.tokens, help="of the text for perplexity")
    parser.add_argument("--winsorise", type=float, default=0.0, help="share of answers moved inwards at either end")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args(args)

    def command() -> None:
        if not 0 <= given.winsorise < 0.5:
            raise InputError(f"A share of {given.winsorise:g} cannot be moved inwards: give --winsorise 0 to .49.")
        config = MatrixConfig(
            tuple(given.method or METHODS),
            AuditConfig(given.samples, given.answer_tokens),
            Sizes(given.heads, given.neurons),
            given.names,
            given.per_context,
            given.tokens,
        )
        world = scenarios.read(given.scenarios)
        with working() as progress:
            matrix = run(load(ModelSpec(given.model, bos=given.bos)), world, config, Store(), progress=progress)
        show = document(matrix, given.winsorise)
        print(to_json(show) if given.json else markdown(matrix, given.winsorise))

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
