"""Results that are kept on disk, as a list to look through, with what made each; and the removal of one."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasp_core.errors import InputError
from fasp_core.storage.store import Entry, Store

KINDS = ("scores", "experiments")
SHIPPED = "built-in"  # the model whose results come with the program


@dataclass(frozen=True)
class Kept:
    """A stored result.

    Attributes
    ----------
    path : its folder, of which `name` is the last part.
    what : "scores", or which experiment.
    model, created, device, command : as its provenance says; "" where that is silent.
    seconds : how long it took; None if that is not known.
    size : bytes on disk.
    settings : what shaped it, as names and short values.
    removable : False for results of the built-in model. They come with the program, and nothing tells those that were
        made here from them.
    """

    path: Path
    kind: str
    what: str
    model: str
    created: str
    seconds: float | None
    device: str
    command: str
    size: int
    settings: dict[str, str]
    removable: bool

    @property
    def name(self) -> str:
        return self.path.name


def kept(store: Store, kinds: Iterable[str] = KINDS) -> list[Kept]:
    """All stored results of these kinds, the latest first. Reads headers only."""
    found = [_kept(entry) for kind in kinds for entry in store.entries(kind)]
    return sorted(found, key=lambda one: (one.created, one.name), reverse=True)


def remove(store: Store, one: Kept) -> None:
    """Delete a stored result; whoever asks for it next computes it again.

    Raises
    ------
    InputError
        It comes with the program, does not lie in this store, or cannot be deleted.
    """
    if not one.removable:
        raise InputError(f"'{one.name}' is a result of the built-in model, which comes with the program: it stays.")
    if one.path.parent != store.root / one.kind or one.kind not in KINDS:
        raise InputError(f"'{one.name}' does not lie in the results of {store.root}: nothing was deleted.")
    aside = one.path.parent / f".tmp-{uuid.uuid4().hex}"  # gone at once for all readers, and swept if this ends here
    try:
        os.rename(one.path, aside)
        shutil.rmtree(aside)
    except FileNotFoundError:
        store.forget(one.path)  # in memory alone, or another reader was first
    except OSError as error:
        raise InputError(
            f"'{one.name}' could not be deleted ({error.strerror or error}): check who may write in {store.root}."
        ) from error


def _kept(entry: Entry) -> Kept:
    meta, config = (said if isinstance(said, Mapping) else {} for said in (entry.meta, entry.config))
    made = meta.get("provenance")
    made = made if isinstance(made, Mapping) else {}
    model = str(made.get("model") or meta.get("model") or "")
    seconds = made.get("seconds")
    what = str(config.get("experiment") or f"scores: {config.get('score') or entry.kind}")
    return Kept(
        path=entry.path,
        kind=entry.kind,
        what=what,
        model=model,
        created=str(made.get("created") or ""),
        seconds=float(seconds) if isinstance(seconds, int | float) and abs(seconds) < 1e12 else None,
        device=str(made.get("device") or ""),
        command=str(made.get("command") or ""),
        size=sum(size for _, size in entry.files.values()),
        settings=short(config),
        removable=model != SHIPPED and not entry.path.name.startswith(f"{SHIPPED}--"),
    )


def short(config: Mapping[str, Any], longest: int = 60) -> dict[str, str]:
    """Settings that can be said in a few words, those inside others by their own names; the rest is left out."""
    said: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            said |= {inner: text for inner, text in short(value, longest).items() if inner not in config}
        elif value is not None and value != "" and not isinstance(value, bytes):
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            if 0 < len(text) <= longest and "{" not in text and "[" not in text:
                said[name.replace("_", " ")] = text
    return said
