"""Which files and folders of this machine a browser may name, and where those go that it brings.

A page takes the path of a model or of a score file from whoever sees it. Such a path may lead below these folders
alone: those that the environment variable `FASP_FOLDERS` names, with the separator of paths between them; without it
the user's own folder, the one the app was started in, that of temporary files, and the cache. `FASP_FOLDERS=none`
allows none. A demo allows only models that it names. The command line, which its own user types, may name any.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from fasp_core.errors import InputError
from fasp_core.model.spec import BUILT_IN, ModelSpec
from fasp_core.storage.atomic import atomic_write
from fasp_core.storage.store import cache_root
from pages.backend import demo

VARIABLE = "FASP_FOLDERS"


def allowed() -> tuple[Path, ...]:
    """The folders below which a file may lie, with no links in their names."""
    named = os.environ.get(VARIABLE)
    if named is None:
        places = [os.path.expanduser("~"), os.getcwd(), tempfile.gettempdir(), str(cache_root())]
    else:
        places = [place for place in named.split(os.pathsep) if place.strip() and place.strip() != "none"]
    return tuple(Path(os.path.realpath(os.path.expanduser(place.strip()))) for place in places)


def check(path: str | os.PathLike[str]) -> None:
    """Refuse a path that leads elsewhere, `..` and links followed; whether anything is there makes no difference.

    Raises
    ------
    InputError
        It does, or this is a demo.
    """
    text = os.fspath(path)
    if demo.current() is not None:
        raise InputError(demo.READ_ONLY)
    try:
        real = Path(os.path.realpath(os.path.expanduser(text)))
    except (ValueError, OSError):  # what cannot be a path, and opens nothing
        real = Path(os.sep)
    if not any(real.is_relative_to(folder) for folder in allowed()):
        raise InputError(
            f"'{text}' lies outside the folders that this app may open for a page: name them with the variable "
            f"{VARIABLE} when it is started, or use the command line."
        )


def check_model(spec: ModelSpec) -> None:
    """Refuse a model whose name is a path outside the folders. A hub id is none, as long as no such folder is here.

    Raises
    ------
    InputError
        As `check`.
    """
    if spec.source != BUILT_IN and demo.current() is None:  # a demo has a list of its own
        check_source(spec.source)


def check_source(source: str) -> None:
    """Refuse the name of a model or scorer that is a path outside the folders; see `check_model`."""
    path = source if "\0" in source else os.path.expanduser(source)
    named = source.lower().endswith(".gguf") or os.path.isabs(path) or source.startswith((".", "~"))
    if named or ("\0" not in path and os.path.lexists(path)):
        check(path)
    elif "@" not in source and source.count("/") > 1 and os.path.lexists(inner := "/".join(source.split("/")[:2])):
        check(inner)  # a folder here that is spelled like a repository


def keep_upload(content: bytes, name: str) -> Path:
    """An uploaded table as a file of its own name, in a folder of the cache that is named by its content.

    Raises
    ------
    InputError
        The cache cannot be written, or this is a demo.
    """
    demo.check_writing()
    stem = re.sub(r"[^\w ()+-]+", "_", Path(name.replace("\\", "/")).stem).strip(" _")[:40] or "prompts"
    path = cache_root() / "uploads" / hashlib.sha256(content).hexdigest()[:16] / f"{stem}.csv"
    if not path.exists():
        atomic_write({path: content}, "make room there, or name another folder with FASP_CACHE")
    return path
