"""Results of `fasp_core.studies.robustness.robustness` as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fasp_core.console import percent
from fasp_core.gap.estimates import Estimate
from fasp_core.studies.common import paragraphs, table
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
            table(
                "measure | scores | on | bias of the whole model | p of no bias | reliability, prunable heads",
                (
                    f"{s.measure.title} | {s.estimator} | {s.items} | {s.text} | {s.p:.3f} | {s.reliability:.2f}"
                    for s in r.scored.values()
                ),
            ),
            "Heads shared by two measures’ sets above the diagonal, rank correlation below it:",
            table(_joined("", [s.measure.title for s in r.scored.values()]), _matrix(r)),
            "What each set does by each measure, on held-out items (relative, or percentage points of preference):",
            _effects(r),
        ]
        if any(s.crows or s.ss for s in r.stereotypes):
            header = "percent | CrowS-Pairs | whole sentences | nats | StereoSet ss | lms | icat"
            rows = (
                _joined(s.name, map(_text, (s.crows, s.crows_whole, s.crows_nats, s.ss, s.lms, s.icat)))
                for s in r.stereotypes
            )
            parts.append(table(header, rows))
    return paragraphs(parts)


def _matrix(r: Robustness) -> Iterator[str]:
    names = list(r.scored)

    def cell(i: int, j: int) -> str:
        if i == j:
            return DASH
        a = r.agreement(names[i], names[j])
        return f"{a.shared} (p {a.p:.2g})" if j > i else a.spearman.text()

    for i, one in enumerate(names):
        yield _joined(r.scored[one].measure.title, (cell(i, j) for j in range(len(names))))


def _effects(r: Robustness) -> str:
    columns = list(dict.fromkeys(e.measured_by for e in r.effects))
    rows = (
        _joined(s.name, [percent(s.perplexity.relative), *(r.effect(s.name.split(" = ")[0], c).text for c in columns)])
        for s in r.sets
    )
    return table(_joined("set chosen by | perplexity", (r.scored[name].measure.title for name in columns)), rows)


def _joined(first: str, cells: Iterable[str]) -> str:
    return " | ".join([first, *cells])


def _text(e: Estimate | None) -> str:
    return DASH if e is None else e.text(1) if abs(e.value) >= 1 else e.text(2)
