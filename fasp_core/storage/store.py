"""Results on disk, named by a hash of everything that shaped them.

Scores of all heads take minutes to hours, and several processes (the app, the command line, a benchmark)
share them. So an entry is written whole or not at all, is checked on every load, and a damaged one is set
aside and computed again. Tables are Parquet, arrays safetensors, the rest JSON: nothing read can run code. What
cannot be written stays in memory, where all readers of this process find it (`fallback.py`).

    cache/scores/built-in--race_ethnicity--1a2b3c4d5e6f7a8b/   entry.json, arrays.safetensors, tables as Parquet
    cache/partial/scores-1a2b3c4d5e6f7a8b/                      finished parts of unfinished work
    cache/damaged/, cache/locks/                                entries set aside; one lock file an entry
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import filelock

from fasp_core.lazy import pd
from fasp_core.storage import fallback, keys, locks
from fasp_core.storage.atomic import write_synced
from fasp_core.storage.entry import ARRAYS, DamagedEntry, Entry, LackingEntry, NotWritable, read_header, sha256
from fasp_core.storage.keys import canonical, checked, digest, plain, slug
from fasp_core.storage.parts import Arrays, Parts, safetensors_of

HEADER = "entry.json"
RESERVED = {"damaged", "locks", "partial"}
STALE_SECONDS = 24 * 3600.0  # temporary folders this old are of a process that was killed

T = TypeVar("T")
_FILE = re.compile(r"[a-z0-9_-]{1,80}\.(parquet|safetensors)")  # what `save` writes beside the header
logger = logging.getLogger(__name__)


class Contents(TypedDict, total=False):
    """What an entry holds: tables and arrays by name, and anything that JSON can say."""

    tables: Mapping[str, pd.DataFrame]
    arrays: Arrays
    meta: Mapping[str, Any]


def cache_root(path: str | Path | None = None) -> Path:
    """The cache folder: `path`, else the variable FASP_CACHE, else a checkout's `cache/` or the user's cache folder."""
    around = Path(__file__).resolve().parents[2]
    default = around / "cache"
    if not (around / "pyproject.toml").is_file():  # installed: what lies around is no place for results
        default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fasp-studio"
    named = os.path.expanduser(path or os.environ.get("FASP_CACHE") or default)  # unlike Path's, it never raises
    return Path(named).absolute()


def _holds(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(config.get(name) == value for name, value in wanted.items())


class Store:
    """Results below one folder, `cache_root(root)`, which need not exist yet."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = cache_root(root)
        self._shelf = fallback.shelf(self.root)

    @property
    def trouble(self) -> str | None:
        """Why results are in memory alone, in a sentence; None when all that this process made is written."""
        return self._shelf.trouble

    def path(self, kind: str, config: Any, label: str = "") -> Path:
        """Folder of an entry: where it lies, or would lie. The label is for people; the digest finds it."""
        if kind in RESERVED:
            raise ValueError(f"'{kind}' is a folder of the store itself: choose another kind.")
        folder, name = self.root / checked(kind), digest(config)
        found = sorted(folder.glob(f"*{name}"))
        return found[0] if found else folder / f"{slug(label)}--{name}".removeprefix("--")

    def load(self, kind: str, config: Any) -> Entry | None:
        """The entry, or None. A damaged one is moved to `damaged/` (where the cache can be written)."""
        path = self.path(kind, config)
        return self._verified(path) or self._shelf.get(path)

    def read(self, kind: str, config: Any, form: Callable[[Entry], T]) -> T | None:
        """What `form` makes of the entry, or None; one that it refuses or cannot read is set aside."""
        if (entry := self.load(kind, config)) is None:
            return None
        try:
            return form(entry)
        except (DamagedEntry, KeyError) as error:  # KeyError: of a table's columns
            self._set_aside(entry.path, error.why if isinstance(error, DamagedEntry) else f"it lacks {error}")
            self._shelf.drop(entry.path)
            return None

    def save(
        self,
        kind: str,
        config: Any,
        *,
        label: str = "",
        **contents: Unpack[Contents],
    ) -> Entry:
        """Write an entry whole, or leave a healthy one that is already there as it is.

        Raises `NotWritable` where the disk does not take it.

        Parameters
        ----------
        kind, label : folder, and readable beginning of the entry's name
        config : everything that shaped the result, see `digest`
        tables : table names -> data frames with columns that Parquet knows
        arrays : array names -> numeric or boolean arrays; float128, complex128, text and objects raise
        meta : JSON values to go with it (provenance, seconds, notes); finite numbers only
        """
        target = self.path(kind, config, label)
        if (entry := self._verified(target)) is not None:
            return entry
        entry = self._write_entry(*self._made(target, kind, config, contents))
        self._catch_up()
        return entry

    def keep(self, kind: str, config: Any, *, label: str = "", **contents: Unpack[Contents]) -> Entry:
        """As `save`, but what cannot be written stays in memory until something can be; `trouble` says why."""
        try:
            return self.save(kind, config, label=label, **contents)
        except NotWritable as error:
            self._shelf.note(error)
        entry, files = self._made(self.path(kind, config, label), kind, config, contents)
        self._shelf.put(entry, files)
        return entry

    def forget(self, path: Path) -> None:
        """Drop an entry that is in memory alone."""
        self._shelf.drop(path)

    def _catch_up(self) -> None:
        """Write what could not be written before."""
        for entry, files in self._shelf.all():
            try:
                self._write_entry(entry, files)
            except NotWritable as error:
                return self._shelf.note(error)
            self._shelf.drop(entry.path)
            self.parts(entry.kind, entry.config).clear()
        self._shelf.trouble = None

    def _made(
        self,
        target: Path,
        kind: str,
        config: Any,
        contents: Contents,
    ) -> tuple[Entry, dict[str, bytes]]:
        """An entry that is not on disk yet, and all files of it."""
        files = {f"{checked(name)}.parquet": _parquet(table) for name, table in contents.get("tables", {}).items()}
        if arrays := contents.get("arrays"):
            files[ARRAYS] = safetensors_of(arrays)
        header = {
            "format": keys.FORMAT_VERSION,
            "kind": kind,
            "config": plain(config),
            "meta": plain(contents.get("meta", {})),
            "files": {name: {"sha256": sha256(raw), "bytes": len(raw)} for name, raw in files.items()},
        }
        header["sha256"] = sha256(canonical(header))
        entry = read_header(target, header, dict(files))
        files[HEADER] = json.dumps(header, indent=2, allow_nan=False).encode() + b"\n"
        return entry, files

    def _write_entry(self, entry: Entry, files: Mapping[str, bytes]) -> Entry:
        target = entry.path
        temporary = target.parent / f".tmp-{uuid.uuid4().hex}"  # beside the target: a rename stays atomic
        try:
            temporary.mkdir(parents=True)
            _sweep(target.parent)
            for name, raw in files.items():
                write_synced(temporary / name, raw)
            _sync_folder(temporary)
            return self._place(temporary, entry)
        except OSError as error:
            raise NotWritable(self.root, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # nothing is left of it after a rename

    def entries(self, kind: str) -> list[Entry]:
        """All readable entries of a kind, by name. Only headers are read; damaged ones are left out."""
        found = []
        for path in sorted((self.root / checked(kind)).glob("[!.]*/")):
            try:
                found.append(_open(path))
            except (DamagedEntry, OSError) as error:
                logger.warning("%s", error)
        found += [entry for entry, _ in self._shelf.all() if entry.kind == kind]
        return [entry for entry in found if entry is not None]

    def find(self, kind: str, wanted: Mapping[str, Any], fits: Callable[[Entry], bool] = lambda _: True) -> list[Entry]:
        """Those of `entries` whose config holds all of `wanted`, None for what it must not hold, and that fit.

        Entries of another version are left out.
        """
        found = []
        for entry in self.entries(kind):
            with suppress(LackingEntry, KeyError, TypeError):  # TypeError: of settings that are not known here
                if isinstance(entry.config, Mapping) and _holds(entry.config, wanted) and fits(entry):
                    found.append(entry)
        return found

    def compute(self, kind: str, config: Any, work: Callable[[], Contents], *, label: str = "") -> Entry:
        """The entry, made by `work` if there is none. Of several processes that ask at once, one works.

        Where the folder cannot be written the work is done all the same, see `keep`.

        Parameters
        ----------
        work : returns what `save` takes; its `parts`, if it made any, are removed once the entry is saved
        """
        if (entry := self.load(kind, config)) is not None:
            return entry
        with self._locked(kind, config):
            if (entry := self.load(kind, config)) is None:
                entry = self.keep(kind, config, label=label, **work())
                if self._shelf.get(entry.path) is None:
                    self.parts(kind, config).clear()
            return entry

    def made(
        self, kind: str, config: Any, work: Callable[[], Contents], form: Callable[[Entry], T], *, label: str = ""
    ) -> T:
        """What `form` makes of the entry of `compute`; an entry of another version is set aside and made again."""
        found = self.read(kind, config, form)
        return form(self.compute(kind, config, work, label=label)) if found is None else found

    def parts(self, kind: str, config: Any) -> Parts:
        """Finished parts of unfinished work, so that an interrupted sweep goes on where it was."""
        return Parts(self.root / "partial" / f"{checked(kind)}-{digest(config)}", self._shelf, self.root)

    def _verified(self, path: Path) -> Entry | None:
        try:
            entry = _open(path)
            if entry is not None:
                entry.held.update({name: entry.read(name) for name in entry.files})
            return entry
        except DamagedEntry as error:
            self._set_aside(path, error.why)
        except OSError as error:  # a passing trouble of the disk is no reason to move the entry
            logger.warning("The cache entry %s cannot be read (%s).", path, error)
        return None

    def _set_aside(self, path: Path, damage: str) -> None:
        target = self.root / "damaged" / f"{path.parent.name}-{path.name}-{time.time_ns()}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(path, target)
        except FileNotFoundError:
            pass  # another process has just moved it
        except OSError as error:
            logger.warning("The cache entry %s is damaged (%s) and stays there (%s).", path, damage, error)
        else:
            logger.warning("The cache entry %s was damaged (%s) and now lies in %s.", path, damage, target)

    def _place(self, temporary: Path, entry: Entry, tries: int = 3) -> Entry:
        try:
            os.rename(temporary, entry.path)
        except OSError:
            if (theirs := self._verified(entry.path)) is not None:  # another process was first
                return theirs
            if tries == 1:
                raise
            return self._place(temporary, entry, tries - 1)  # a damaged one, now set aside, was in the way
        _sync_folder(entry.path.parent)
        return entry

    @contextmanager
    def _locked(self, kind: str, config: Any) -> Iterator[None]:
        lock = filelock.FileLock(self.root / "locks" / f"{checked(kind)}-{digest(config)}.lock")
        try:
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            locks.acquire(lock)
        except OSError as error:  # another process may do the same work then, which does no harm
            self._shelf.note(NotWritable(self.root, error))
        try:
            yield
        finally:
            lock.release()


def _header(path: Path) -> bytes | None:
    """None if nothing is there. Entries come whole: one that is placed meanwhile is found at the second look."""
    for again in (True, False):
        try:
            return (path / HEADER).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if not os.path.lexists(path):
                break
            if not again:
                raise DamagedEntry(path, f"{HEADER} is missing") from error
    return None


def _open(path: Path) -> Entry | None:
    """Header of the entry at `path`; None if nothing is there or its format is another one."""
    if (raw := _header(path)) is None:
        return None
    try:
        header = json.loads(raw)
        seal = header.pop("sha256")
        if sha256(canonical(header)) != seal:  # of content, not bytes: git may change the line ends
            raise DamagedEntry(path, f"{HEADER} has changed")
        if header["format"] != keys.FORMAT_VERSION:
            if header["format"] > keys.FORMAT_VERSION:
                logger.warning("The cache entry %s is of a newer version of this program: ignored.", path)
            return None
        entry = read_header(path, header)
    except DamagedEntry:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedEntry(path, f"{HEADER} cannot be read") from error
    try:
        misplaced = path.parent.name != entry.kind or not path.name.endswith(digest(entry.config))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedEntry(path, f"{HEADER} cannot be read") from error
    if misplaced or not all(_FILE.fullmatch(name) for name in entry.files):
        raise DamagedEntry(path, "its name is not that of its content")
    return entry


def _parquet(table: pd.DataFrame) -> bytes:
    raw = table.to_parquet(None, engine="pyarrow", compression="zstd")
    assert isinstance(raw, bytes)  # it is, without a path
    return raw


def _sync_folder(folder: Path) -> None:
    """As far as the file system can: some that are mounted from elsewhere have no such call for folders."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                raise
        finally:
            os.close(handle)


def _sweep(folder: Path) -> None:
    for path in folder.glob(".tmp-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
