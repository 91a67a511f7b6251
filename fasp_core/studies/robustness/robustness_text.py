"""Results of `fasp_core.studies.robustness.robustness` as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fasp_core.console import percent
from fasp_core.gap.estimates import Estimate
from fasp_core.studies.common import rows_as_markdown
from fasp_core.studies.robustness.rival_measures import Robustness

DASH = "–"


def markdown(results: Iterable[Robustness]) -> str:
    """Tables for a document. Numbers in brackets are 95% intervals."""
    parts = []
    for r in results:
        parts += [
            f"## {r.axis}: FASP(γ {r.gamma:g}, α {r.alpha:g}), {r.k} of {r.eligible} prunable heads",
            r.outcome,
            " ".join(r.notes),
            "Measures, on what heads are chosen by:",
            rows_as_markdown(
                ["measure", "scores", "on", "bias of the whole model", "p of no bias", "reliability, prunable heads"],
                [
                    (s.measure.title, s.estimator, s.items, s.text, f"{s.p:.3f}", f"{s.reliability:.2f}")
                    for s in r.scored.values()
                ],
            ),
            "Heads shared by two measures’ sets above the diagonal, rank correlation below it:",
            rows_as_markdown(["", *(s.measure.title for s in r.scored.values())], list(_matrix(r))),
            "What each set does by each measure, on held-out items (relative, or percentage points of preference):",
            rows_as_markdown(*_effects(r)),
        ]
        if any(s.crows or s.ss for s in r.stereotypes):
            header = ["percent", "CrowS-Pairs", "whole sentences", "nats", "StereoSet ss", "lms", "icat"]
            rows = [
                (s.name, *(_text(e) for e in (s.crows, s.crows_whole, s.crows_nats, s.ss, s.lms, s.icat)))
                for s in r.stereotypes
            ]
            parts.append(rows_as_markdown(header, rows))
    return "\n\n".join(parts) + "\n"


def _matrix(r: Robustness) -> Iterable[Sequence[str]]:
    names = list(r.scored)
    for i, one in enumerate(names):
        cells = []
        for j, other in enumerate(names):
            if i == j:
                cells.append(DASH)
                continue
            a = r.agreement(one, other)
            cells.append(f"{a.shared} (p {a.p:.2g})" if j > i else a.spearman.text())
        yield [r.scored[one].measure.title, *cells]


def _effects(r: Robustness) -> tuple[list[str], list[list[str]]]:
    columns = list(dict.fromkeys(e.measured_by for e in r.effects))
    kinds = {name: r.scored[name].measure for name in columns}
    rows = [
        [
            s.name,
            f"{percent(s.perplexity.relative)}",
            *(r.effect(s.name.split(" = ")[0], name).text for name in columns),
        ]
        for s in r.sets
    ]
    return ["set chosen by", "perplexity", *(kinds[name].title for name in columns)], rows


def _text(e: Estimate | None) -> str:
    return DASH if e is None else e.text(1) if abs(e.value) >= 1 else e.text(2)
