"""The file of a prune set: what it says, and how any bytes are read as one or refused. Pure functions.

One form for the app, the command line and Python: the JSON document of `select --out`, or a shorter one of sets that
were learned. Read is also a plain text of parts, such as `L0H3,L2H1-4`, and a bare JSON list of [layer, head] pairs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import MAX_HEADS, PruneSet
from fasp_core.heads.selection import PROTECTS, Selection
from fasp_core.storage import tabular

MAX_BYTES = 1_000_000
MAX_NEURON = 1_000_000  # hidden units of a layer
Shape = tuple[int, int]  # (layers, heads in a layer)


@dataclass(frozen=True)
class PruneFile:
    """What a file holds.

    Attributes
    ----------
    shape : of the model that the set was chosen for; None where the file does not say.
    model, axis, reading, method, ablation, notes : as the file has them, None or empty where it does not say.
    """

    parts: PruneSet
    shape: Shape | None = None
    model: str | None = None
    axis: str | None = None
    reading: str | None = None
    method: str | None = None
    ablation: str | None = None
    notes: tuple[str, ...] = ()


def document(
    chosen: Selection,
    parts: PruneSet | None = None,
    *,
    model: str | None = None,
    axis: str | None = None,
    reading: str | None = None,
    notes: Iterable[str] = (),
) -> dict[str, Any]:
    """What `select --out` writes.

    Parameters
    ----------
    parts : what is removed, if that is not what the method chose: heads changed by hand, neurons.
    """
    picked = PruneSet.of(chosen.heads)
    parts = picked if parts is None else parts
    said = [*chosen.notes, *notes]
    forced, locked = (PruneSet.from_flat(told, chosen.n_heads).heads for told in (chosen.forced, chosen.locked))
    for pruned, kept in ((forced, locked), (parts.heads - picked.heads, picked.heads - parts.heads)):
        for words, heads in (("Pruned", pruned), ("Kept", kept)):
            if heads:
                said.append(f"{words} by hand: {PruneSet(heads).format()}.")
    out: dict[str, Any] = {
        "heads": [list(head) for head in parts],
        "prune_set": parts.format(),
        "k": len(parts.heads),
        "requested_k": chosen.requested_k,
        "critical": len(chosen.critical),
        "critical_heads": [list(divmod(flat, chosen.n_heads)) for flat in chosen.critical],
        "n_heads": chosen.n_layers * chosen.n_heads,
        "shape": [chosen.n_layers, chosen.n_heads],
        "method": chosen.method,
        "gamma": chosen.gamma,
        "alpha": chosen.alpha,
        "rule": chosen.rule,
        "seed": chosen.seed,
        "model": model,
        "axis": axis,
        "reading": reading,
        "notes": said,
    }
    if chosen.protect != PROTECTS[0]:
        out["protect"] = chosen.protect
    for name, more in (("neurons", parts.neurons), ("gains", parts.gains)):
        if more:
            out[name] = [list(one) for one in sorted(more)]
    return out


def learned(parts: PruneSet, shape: Shape, **told: str | None) -> dict[str, Any]:
    """What `gains --out` and `repair --out` write.

    Parameters
    ----------
    told : model, axis, reading, method, ablation.
    """
    return {"prune_set": parts.format(), "shape": list(shape), **told}


def read(raw: bytes, name: str, shape: Shape | None = None) -> PruneFile:
    """A prune set from the bytes of a file.

    Parameters
    ----------
    name : of the file, for messages.
    shape : of the model that it is meant for; None does not look.

    Raises
    ------
    InputError
        More than 1 MB, no JSON and no text of heads, or heads that this model does not have.
    """
    if len(raw) > MAX_BYTES:
        raise InputError(f"'{name}' is larger than {MAX_BYTES // 1_000_000} MB: it is no prune set.")
    try:
        text = tabular.decode(raw, "It")
        content = json.loads(text) if text.lstrip()[:1] in ("{", "[") else text
        found = _read(content)
    except InputError as error:
        raise InputError(f"In '{name}': {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(
            f"'{name}' holds no prune set: give a file made by 'select --out', or a text such as L0H3,L2H1-4."
        ) from error
    if shape is not None:
        check(found, shape, name)
    return found


def check(found: PruneFile, shape: Shape, name: str) -> None:
    """That a set is one of a model's.

    Raises InputError where it is not.
    """
    if found.shape not in (None, shape):
        assert found.shape is not None
        raise InputError(
            f"'{name}' was chosen for {found.shape[0]} layers of {found.shape[1]} heads, and this model has {shape[0]} "
            f"of {shape[1]}: score this model and choose from its own scores."
        )
    try:
        found.parts.gates(*shape)
    except InputError as error:
        raise InputError(f"In '{name}': {error}") from error
    beyond = sorted(n for n in found.parts.neurons if n[0] >= shape[0])
    if beyond:
        raise InputError(
            f"In '{name}': L{beyond[0][0]}N{beyond[0][1]} does not exist: this model has layers 0 to {shape[0] - 1}."
        )


def _read(content: Any) -> PruneFile:
    if isinstance(content, str):
        return PruneFile(PruneSet.parse(content))
    if isinstance(content, list):
        content = {"heads": content}
    if "heads" in content:
        parts = PruneSet.of(_pairs(content["heads"], MAX_HEADS), _pairs(content.get("neurons", []), MAX_NEURON))
        if gains := content.get("gains"):  # as text, so that one place says what a gain may be
            scaled = PruneSet.parse(",".join(f"L{layer:d}H{head:d}*{gain:.4f}" for layer, head, gain in gains))
            if both := sorted(parts.heads & {(layer, head) for layer, head, _ in scaled.gains}):
                raise InputError(f"{PruneSet.of(both[:1]).format()} is both removed and scaled: name it once.")
            parts = PruneSet(parts.heads | scaled.heads, parts.neurons, scaled.gains)
    else:
        parts = PruneSet.parse(content["prune_set"])
    shape = content.get("shape")
    notes = content.get("notes", [])
    return PruneFile(
        parts,
        None if shape is None else (_whole(shape[0], MAX_HEADS), _whole(shape[1], MAX_HEADS)),
        _text(content.get("model")),
        _text(content.get("axis")),
        _text(content.get("reading")),
        _text(content.get("method")),
        _text(content.get("ablation")),
        tuple(filter(None, map(_text, notes))) if isinstance(notes, list) else (),
    )


def _pairs(listed: Collection[Any], limit: int) -> list[tuple[int, int]]:
    return [(_whole(layer, MAX_HEADS), _whole(part, limit)) for layer, part in listed]


def _whole(value: object, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
        raise ValueError
    return value


def _text(value: object) -> str | None:
    """Text that can be shown: JSON can hold half characters, and any length."""
    return value[:300].encode("utf-8", "replace").decode() if isinstance(value, str) else None
