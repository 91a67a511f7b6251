"""Do the same heads carry bias on every axis, and does a set chosen on one lower the gaps of others?

`python -m fasp_core study transfer` takes the stored validation scores of all axes of a model, correlates them
over heads (experiment 2 of the FASP paper, see `correlation`), chooses a FASP set on each axis, and measures every set
on the test prompts of every axis (experiment 3, see `crossed`). A run that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fasp_core.data.holistic_bias import axis_names
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.identity import ModelId
from fasp_core.scoring import entries
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.store import Store
from fasp_core.studies.common import paragraphs, table
from fasp_core.studies.transfer.correlation import KINDS, Correlations, correlate, frames, resample
from fasp_core.studies.transfer.every_axis import Cell, Transfer, TransferConfig, statement

SCORED_TOKENS = 8192


def scored_axes(model_id: ModelId, store: Store) -> tuple[str, ...]:
    """HolisticBias axes of which there are exact or refined scores of the expected measure, on validation prompts."""
    wanted = {"score": "bias", **model_id.wanted(), "measure": "expected", "split": "valid"}
    found = store.find(entries.KIND, wanted, lambda entry: entry.config["estimator"] in entries.SURE)
    held = {entry.config["axis"] for entry in found}
    return tuple(axis for axis in axis_names() if axis in held)


def stored_scores(
    axes: Sequence[str] | None, model_id: ModelId, model: str, store: Store, tokens: int = SCORED_TOKENS
) -> dict[str, ImpactTable]:
    """Scores of each axis on the most prompts that there are; of all axes that have some if none are named.

    Raises
    ------
    InputError
        An axis without scores, or fewer than two axes.
    """
    found = {}
    for axis in axes or scored_axes(model_id, store):
        table = entries.best(TextConfig(tokens=tokens), BiasConfig(axis), model_id, model, store)
        if table is None and axes:
            raise InputError(
                f"There are no scores of {axis} with {tokens} tokens: run 'python -m fasp_core score --model {model} "
                f"--axis {axis} --tokens {tokens} --estimator refined --out DIR' first."
            )
        if table is not None:
            found[axis] = table
    if len(found) < 2:
        raise InputError("Transfer needs scores of two axes: score another one with 'python -m fasp_core score'.")
    return found


def correlations(
    tables: Mapping[str, ImpactTable], reading: str = "neutral", gamma: float = TransferConfig.gamma
) -> Correlations:
    """Experiment 2 from stored scores."""
    known = {axis: frames(table.bias) for axis, table in tables.items()}
    return correlate(resample(tables, reading, known), tables, reading, gamma, known)


# --- the command ---


def markdown(found: Correlations, result: Transfer | None) -> str:
    """Tables for a document. Numbers in brackets are 95% intervals."""
    parts = [
        f"## Experiment 2: correlation of z_bias over heads, {found.reading}, gamma {found.gamma:g}",
        table(
            "axis | prompts | groups | heads pruned | on prompts | gap, ×10⁻³ | p | reliability, all | prunable",
            (
                f"{a.axis} | {a.prompts} | {a.groups} | {a.exact['all']} of {a.heads['all']} | {a.checked} | "
                f"{1e3 * a.gap:.2f} | {a.noise_p:.4f} | {a.reliability['all']['spearman']:.2f} | "
                f"{a.reliability['prunable']['spearman']:.2f}"
                for a in found.axes
            ),
        ),
        f"Intervals are over heads and prompts ({found.resamples} resamples of both). Frames that axes share have the "
        "same weight in both, and the last column is what noise in common adds to Pearson's r.",
    ]
    for kind in KINDS:
        rows = (
            f"{p.one}, {p.other} | {p.heads} | {p.n} | {p.r.text()} | {p.ceiling:.2f} | {p.corrected.text()} | "
            f"{p.shared:.3f}"
            for p in found.pairs
            if p.kind == kind
        )
        parts.append(table(f"{kind.title()} | heads | n | r | ceiling | r / ceiling | shared noise", rows))
    return paragraphs(parts if result is None else [*parts, *_measured(result)])


def _measured(result: Transfer) -> Iterator[str]:
    c = result.config
    yield (
        f"## Experiment 3: FASP sets on test prompts (gamma {c.gamma:g}, alpha {c.alpha:g}, chosen by {c.reading} "
        "validation scores)"
    )
    costs = ((s, s.perplexity) for s in result.sets)
    yield table(
        "chosen on | heads | perplexity",
        (f"{s.axis} | {s.size} | {p.base:.2f} → {p.pruned:.2f} ({p.relative:+.1%})" for s, p in costs),
    )
    for reading in next(iter(result.bases.values())):
        bases = [result.bases[axis][reading] for axis in result.axes]
        lines = [["gap before, ×10⁻³ (p)", *(f"{1e3 * b.gap:.2f} ({b.noise_p:.3f})" for b in bases)]]
        lines += [[one, *(_cell(c) for c in result.of(reading) if c.chosen_on == one)] for one in result.axes]
        yield f"### {reading}: relative change of the gap"
        yield table(" | ".join(["chosen on \\ measured on", *result.axes]), map(" | ".join, lines))
        yield f"{statement(result, reading)} {statement(result, reading, own=True)}"


def _cell(cell: Cell) -> str:
    ends = cell.change.relative_interval
    interval = "" if ends is None else f" [{ends[0]:+.0%}, {ends[1]:+.0%}]"
    return f"{cell.change.relative:+.0%}{interval}" + ("" if cell.outcome in ("fell", "rose") else f", {cell.outcome}")
