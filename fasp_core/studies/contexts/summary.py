"""What a matrix of contexts says: as one document, and as Markdown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fasp_core.studies.answers.distributions import Distributions
from fasp_core.studies.common import paragraphs, table
from fasp_core.studies.contexts.cells import Matrix
from fasp_core.studies.contexts.costing import SetCosts
from fasp_core.studies.contexts.findings import findings
from fasp_core.studies.contexts.generalisation import Carried, Summary, cells_of, rows_of, told
from fasp_core.studies.contexts.settings import TITLES


def document(matrix: Matrix, winsorise: float, costs: SetCosts | None = None) -> dict[str, Any]:
    """Everything that a matrix says, for `--json`."""
    carried = Carried(matrix, winsorise, costs=costs)
    return {
        "model": matrix.model,
        "groups": list(matrix.groups),
        "names": len(matrix.people),
        "scenarios": [s.title for s in matrix.scenarios],
        "config": asdict(matrix.config),
        "winsorised": winsorise,
        "covered": covered(matrix),
        "cells": [
            {"method": method, "chosen_on": _row_title(row), "tested_on": context} | asdict(found)
            for method in matrix.config.methods
            for row in rows_of(matrix)
            for context in matrix.contexts
            if (found := carried.summary(cells_of(matrix, method, row, context))) is not None
        ],
        "findings": [asdict(f) | {"sentence": f.sentence} for f in findings(carried)],
        "run_time": [asdict(t) for t in matrix.times()],
        "provenance": matrix.provenance,
    }


def markdown(matrix: Matrix, winsorise: float, costs: SetCosts | None = None) -> str:
    """One table a method, and the findings; with `costs`, below each table what its sets take from the model."""
    carried = Carried(matrix, winsorise, costs=costs)
    answers = "exact answers" if matrix.config.exact else f"{matrix.config.audit.samples} answers each"
    parts = [
        f"{matrix.model}: {len(matrix.people)} names ({', '.join(matrix.groups)}), {answers} to "
        f"{len(matrix.scenarios)} scenarios. Cells: change of mean |SMD| with its 95% interval; share of inliers"
        f"{_usual(carried)}."
        + (f" The outermost {winsorise:.3g} of answers at either end is moved inwards." if winsorise else "")
        + followed(matrix)
    ]
    for method in matrix.config.methods:
        rows = []
        for row in rows_of(matrix):
            every = carried.summary(cells_of(matrix, method, row))
            found = [carried.summary(cells_of(matrix, method, row, c)) for c in matrix.contexts]
            total = "" if every is None else _cell(every)
            rows.append(" | ".join([_row_title(row), _size(every), *map(_cell, found), total]))
        parts += [f"## {method}", table(" | ".join(["chosen on", "parts", *matrix.contexts, "all"]), rows)]
        if costs is not None and (every := carried.summary(matrix.of(method))) is not None and every.costs is not None:
            parts.append(f"Its sets cost, on average: {every.costs.said}.")
    times = (
        f"{TITLES[t.kind]} | {t.tests} | {t.timed} | {t.seconds:.1f} | {t.tests * t.seconds / 60:.0f}"
        for t in matrix.times()
    )
    parts += ["## Run time", table("chosen on | tests | timed | seconds a test | minutes in all, about", times)]
    return paragraphs([*parts, *(f.sentence for f in findings(carried))])


def covered(matrix: Matrix) -> dict[str, float]:
    """Share of the probability of the whole model's answers that was followed to an end, by context; {} of samples."""
    shares: dict[str, list[float]] = {}
    for scenario, found in zip(matrix.scenarios, matrix.base, strict=True):
        if isinstance(found, Distributions):
            shares.setdefault(scenario.context, []).append(float(found.covered.mean()))
    return {context: sum(of) / len(of) for context, of in shares.items()}


def followed(matrix: Matrix) -> str:
    """A sentence on that, to be put behind another; "" of samples."""
    if matrix.config.exact is None:
        return ""
    shares = ", ".join(f"{share:.0%} ({context})" for context, share in covered(matrix).items())
    return (
        f" Of the probability of the whole model's answers this was followed until the number was settled: {shares}; "
        f"the rest is estimated by {matrix.config.exact.draws} draws a name, whose noise is in the intervals."
    )


def _usual(carried: Carried) -> str:
    cells = carried.matrix.of(carried.matrix.config.methods[0], "same")
    found = carried.summary(cells)
    if found is None or found.usual_inliers != found.usual_inliers:
        return ""
    return f", of which the whole model has {found.usual_inliers:.0%}"


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
    return f"{told(found.change)}; {found.inliers:.0%}"
