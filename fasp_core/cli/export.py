"""Of the command `export`: a checkpoint that plain transformers loads, told as one document and as text for people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasp_core.console import Report, one_line, table
from fasp_core.errors import InputError

if TYPE_CHECKING:
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.model.language_model import LanguageModel
    from fasp_core.model.spec import ModelSpec


def document(
    spec: ModelSpec,
    subject: PruneSet,
    shape: tuple[int, int] | None,
    out: Path,
    cache: Path | None,
    load: Callable[[ModelSpec, Path | None], LanguageModel],
    progress: Report,
) -> dict[str, Any]:
    """What was written, and what was seen of it.

    Parameters
    ----------
    shape : (layers, heads in a layer) of the model that the set was chosen for, where that is known.

    Raises
    ------
    InputError
        The set is of another model, or the folder cannot be used; see also `fasp_core.export.writing.export`.
    """
    from fasp_core.export.writing import check_free, export
    from fasp_core.model.spec import BUILT_IN, BUILT_IN_SHAPE

    check_free(out)  # before a model is loaded
    if spec.source == BUILT_IN:
        subject.gates(*BUILT_IN_SHAPE)
    lm = load(spec, cache)
    if shape is not None and shape != (lm.n_layers, lm.n_heads):
        raise InputError(
            f"The prune set was chosen for {shape[0]} layers of {shape[1]} heads, and {spec.source} has {lm.n_layers} "
            f"of {lm.n_heads}: score this model and select from its own scores."
        )
    return export(lm, subject, out, progress).as_dict()


def text(d: dict[str, Any]) -> str:
    """What is gone, what is zeroed and why, sizes before and after, and where it lies."""
    from fasp_core.export.card import MB, compared, timed, told

    before, after, speed = d["size"]["before"], d["size"]["after"], d["tokens_per_second"]
    old, new = d["shape"]["before"], d["shape"]["after"]
    rows = [
        ["", "before", "after"],
        [f"heads of each of {d['layers']} layers", str(old["heads"]), str(new["heads"])],
        ["key and value heads of each", str(old["kv_heads"]), str(new["kv_heads"])],
        ["neurons of each MLP", f"{old['neurons']:,}", f"{new['neurons']:,}"],
        ["parameters", f"{before['parameters']:,}", f"{after['parameters']:,}"],
        ["parameters that are not zero", f"{before['nonzero']:,}", f"{after['nonzero']:,}"],
        [f"weights, MB in {speed['dtype']}", f"{before['bytes'] / MB:,.1f}", f"{after['bytes'] / MB:,.1f}"],
        ["tokens read a second", f"{speed['before']:,.0f}", f"{speed['after']:,.0f}"],
    ]
    return "\n".join(
        [
            f"{one_line(d['model'])} without {told(d['heads'], d['neurons'])}",
            *(
                f"{title}: {told(d[key]['heads'], d[key]['neurons'])}{_named(d[key]['parts'])}"
                for title, key in (("physically gone", "gone"), ("only zeroed", "zeroed"))
            ),
            *(f"  {reason}" for reason in d["reasons"]),
            "",
            table(rows),
            "",
            timed(speed),
            compared(d["check"]),
            f"wrote {one_line(d['folder'])}",
        ]
    )


def _named(parts: str) -> str:
    if not parts:
        return ""
    return f" ({parts if len(parts) <= 200 else parts[: parts.rindex(',', 0, 200)] + ' ...'})"
