"""Repositories of a hub: how they are named, looked at and fetched.

The hub is asked once which commit a name means, and which files that commit has; what cannot be used is refused then.
Every file comes from that one commit and is read from the hub's own cache on this disk, so that a loader asks nobody.
No code of a repository is run, no pickled weights are fetched, and no service is asked to convert them.

Without a network, or with HF_HUB_OFFLINE=1, the cache answers: `refs/` says which commit a name meant last, and
`snapshots/<commit>/` holds its files.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fasp_core.errors import InputError
from fasp_core.model.hub_errors import Unreachable, explained
from fasp_core.model.model_files import CONFIG, INDEX, SINGLE, SMALL, check_index
from fasp_core.storage import locks
from fasp_core.storage.atomic import atomic_write

PREFIX = "hub:"  # of the id of weights that a hub names
SECONDS = 10  # that a hub may be silent
TRIES = {"GET": 20, "HEAD": 3}  # requests for one file: downloads that were cut go on
COMMIT = re.compile(r"[0-9a-f]{40}")
_REFS = re.compile(r"(refs/[^/]+/[^/]+)(?:/(.*))?")  # a pull request: refs/pr/1
_ADDRESS = re.compile(r"(?:hf|https?)://(?:[\w.]*huggingface\.co/|hf\.co/|models/)?([^/\s]+/[^/\s?#]+).*")
_READ = (".model", ".jinja")  # of the small files, beside those that are named in `SMALL`
_lock = threading.RLock()  # one download at a time: the limits are those of the session that all share


@dataclass(frozen=True)
class HubRef:
    """A model of a hub: `org/name`, `org/name@revision`, `org/name/sub/folder`, `org/name@revision/sub/folder`.

    Raises InputError for a name that can be none of a hub.

    Attributes
    ----------
    repo : "org/name", or "name" alone, as the hub's oldest are called.
    revision : a branch, a tag, a commit, or refs/pr/1 of a pull request; "" is the main branch. A "/" in the name of a
        branch is written %2F.
    subfolder : where in the repository the model lies; "" is its root.
    """

    repo: str
    revision: str = ""
    subfolder: str = ""

    def __post_init__(self) -> None:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        whole = f"{self.repo}@{self.revision}/{self.subfolder}"
        try:
            validate_repo_id(self.repo)
        except HFValidationError as error:
            raise InputError(f"'{self.repo}' is no name of a repository: name it as org/name.") from error
        parts = self.subfolder.split("/") if self.subfolder else []
        parts += self.revision.split("/") if self.revision else []
        if any(p in ("", ".", "..") or not p.isprintable() or re.search(r"[\\\s?#%:*~^\[]", p) for p in parts):
            raise InputError(f"'{whole}' names no revision and folder of a repository: write org/name@revision/folder.")
        if self.subfolder and not self.revision and "/" not in self.repo:
            raise InputError(
                f"A folder of '{self.repo}' is named with its revision: {self.repo}@main/{self.subfolder}."
            )

    @classmethod
    def parse(cls, text: str) -> HubRef:
        """The reference that `str` writes."""
        repo, at, rest = text.partition("@")
        if not at:
            parts = text.split("/", 2)
            return cls("/".join(parts[:2]), "", parts[2] if len(parts) > 2 else "")
        if match := _REFS.fullmatch(rest):
            revision, folder = match[1], match[2]
        else:
            revision, _, folder = rest.partition("/")
            folder = folder or None if rest == revision else folder
        if not revision or folder == "":
            raise InputError(f"'{text}' ends too early: write org/name@revision, or org/name@revision/folder.")
        return cls(repo, unquote(revision), folder or "")

    def __str__(self) -> str:
        match = _REFS.fullmatch(self.revision)
        revision = self.revision if match and match[2] is None else quote(self.revision, safe="@+=,;!$&'()")
        return self.repo + (f"@{revision}" if revision else "") + (f"/{self.subfolder}" if self.subfolder else "")

    @property
    def commit(self) -> str:
        """The commit, where the name is a whole one, else ""."""
        return self.revision if COMMIT.fullmatch(self.revision) else ""

    def at(self, commit: str) -> HubRef:
        """The same place in one commit."""
        return replace(self, revision=commit)


@dataclass(frozen=True)
class Resolved:
    """What a name means now.

    Attributes
    ----------
    ref : as it was named.
    origin : the repository by its present name, the commit and the folder in it.
    names : files of that folder, those of folders below it with a "/".
    note : what of it was not as expected: the repository has another name, or the hub did not answer; or "".
    local : where the files of the commit lie, if the hub was not asked.
    """

    ref: HubRef
    origin: HubRef
    names: tuple[str, ...]
    note: str = ""
    local: Path | None = None

    @property
    def id(self) -> str:
        """Names the weights: the same whichever name led to the commit, and another for each folder."""
        return f"{PREFIX}{self.origin}"


def ref_of(source: str) -> HubRef | None:
    """The reference that a source is; None if it is a folder of this machine, which comes before a repository.

    Raises
    ------
    InputError
        It is neither, or might be both: a folder that is not there inside one that is.
    """
    path = source if "\0" in source else os.path.expanduser(source)
    if os.path.isdir(path):  # unlike Path.is_dir, False for whatever cannot be a path
        return None
    try:
        if os.path.isabs(path) or source.startswith((".", "~")):
            raise InputError("A path is no name of a hub.")
        ref = HubRef.parse(source)
    except InputError as error:
        on_hub = _ADDRESS.fullmatch(source)
        mend = f"'{on_hub[1]}'" if on_hub else "an id such as 'openai-community/gpt2' or 'openai-community/gpt2@main'"
        raise InputError(
            f"'{source}' is neither a folder nor a hub id: give {mend}, or a folder that is here."
        ) from error
    if ref.subfolder and not ref.revision and os.path.isdir(ref.repo):
        raise InputError(
            f"There is a folder '{ref.repo}' here without '{ref.subfolder}': check the path, or name the hub's with "
            f"its revision, '{ref.at('main')}'."
        )
    return ref


def pinned(source: str, weights: str) -> str:
    """The name that gives the same weights for good: with the commit, where they are of a hub."""
    return weights.removeprefix(PREFIX) if weights.startswith(PREFIX) else source


def named_by(weights: str) -> HubRef | None:
    """Repository, commit and folder that an id of weights holds; None if they are of no hub."""
    return HubRef.parse(weights.removeprefix(PREFIX)) if weights.startswith(PREFIX) else None


def resolve(ref: HubRef) -> Resolved:
    """Ask the hub, or without a network the cache, which commit a name means and which files it has.

    Raises
    ------
    InputError
        There is no such repository or revision, it may not be read, or neither hub nor cache answers; the message says
        what to do.
    """
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode():
        return _cached(ref, "HF_HUB_OFFLINE is set")
    try:
        with _patience(ref):
            found = HfApi().model_info(ref.repo, revision=ref.revision or None, timeout=SECONDS)
    except Unreachable as error:
        try:
            known = _cached(ref, error.reason)
        except InputError:
            raise error from None
        return replace(
            known, note=f"{error.reason}: '{ref}' is used as it was fetched before, at commit {known.origin.revision}."
        )
    commit, repo = found.sha, str(found.id or ref.repo)
    if not commit or not isinstance(commit, str):
        raise InputError(f"The hub names no commit of '{ref}': check HF_ENDPOINT, or download the model to a folder.")
    try:
        origin = HubRef(repo, commit, ref.subfolder)
    except InputError:  # some mirrors give a repository no name
        origin = ref.at(commit)
    note = "" if origin.repo == ref.repo else f"'{ref.repo}' is called '{origin.repo}' by now: use that name."
    names = [s.rfilename for s in found.siblings or ()]
    return Resolved(ref, origin, _below(names, ref.subfolder), note)


def _below(names: Collection[str], folder: str) -> tuple[str, ...]:
    start = f"{folder}/" if folder else ""
    return tuple(sorted(n.removeprefix(start) for n in names if n.startswith(start)))


def _cached(ref: HubRef, why: str) -> Resolved:
    """The same from the cache alone. `why` the hub is not asked, for the message."""
    own = _storage(ref.repo)
    commit = ref.commit
    with suppress(OSError):
        commit = commit or (own / "refs" / (ref.revision or "main")).read_text().strip()
    if not commit and re.fullmatch("[0-9a-f]{7,39}", ref.revision):  # the beginning of a commit
        found = [path.name for path in own.glob(f"snapshots/{ref.revision}*")]
        commit = found[0] if len(found) == 1 else ""
    places = [own / "snapshots" / commit, *own.parent.glob(f"models--*/snapshots/{commit}")] if commit else []
    place = next((path for path in places if path.is_dir()), None)
    if place is None:
        raise InputError(
            f"'{ref}' is not in the cache of this machine ({own.parent}), and the hub is not asked ({why}): fetch it "
            f"once with a network ('hf download {ref.repo}'), or set HF_HOME to where it lies."
        )
    origin = HubRef(place.parents[1].name.removeprefix("models--").replace("--", "/"), commit, ref.subfolder)
    names = [path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()]
    return Resolved(ref, origin, _below(names, ref.subfolder), local=place)


def fetch(
    found: Resolved, check: Callable[[Collection[str], str], None], config: Callable[[Path], None] | None = None
) -> Path:
    """The folder on this disk with config, tokenizer and safetensors of what was resolved. Fetches what is not there.

    Parameters
    ----------
    check : refuses, by the names of its files, what is no whole model; given those names and the reference.
    config : refuses what its config says, before weights are fetched.

    Raises
    ------
    InputError
        As both raise, or the files cannot be fetched or kept; the message says what to do.
    """
    name, here = str(found.ref), [n for n in found.names if "/" not in n]
    if not found.names:
        what = f"has no folder '{found.ref.subfolder}' in this revision" if found.ref.subfolder else "is empty"
        raise InputError(f"The repository '{found.ref.repo}' {what}: check the name '{name}'.")
    if CONFIG not in here and (
        inner := sorted({n.rpartition("/")[0] for n in found.names if n.endswith(f"/{CONFIG}")})
    ):
        raise InputError(
            f"'{name}' holds no model itself, but in its folders {', '.join(inner[:8])}: name one of them, such as "
            f"'{_joined(found.ref, inner[0])}'."
        )
    try:
        check(here, name)
    except InputError as error:
        if found.local is None:
            raise
        raise InputError(
            f"The cache of this machine may hold only a part of '{name}' ({found.local}): fetch the whole of it once "
            f"with a network. ({error})"
        ) from error
    if config is not None:
        config(_file(found, CONFIG))
    small = [n for n in here if n in (*SMALL, "README.md") or n.endswith(_READ)]
    small += [n for n in found.names if n.startswith("additional_chat_templates/") and n.endswith(_READ)]
    for file in small:  # before the weights: where these are, all is
        _file(found, file)
    place = _file(found, CONFIG).parent
    for file in _weights(found, here, name):
        _file(found, file)
    if found.local is None:
        _remember(found)
    return place


def _joined(ref: HubRef, folder: str) -> HubRef:
    return replace(ref, subfolder=f"{ref.subfolder}/{folder}".strip("/"))


def _weights(found: Resolved, names: Collection[str], name: str) -> list[str]:
    from fasp_core.model.file_heads import settings

    if SINGLE in names:
        return [SINGLE]
    return sorted(set(check_index(settings(_file(found, INDEX)), names, name).values()))


def _file(found: Resolved, file: str) -> Path:
    """A file of the commit on this disk."""
    from huggingface_hub import hf_hub_download

    path = f"{found.origin.subfolder}/{file}".strip("/")
    if found.local is not None:
        return found.local / path
    locks.check()
    with _patience(found.ref, path):
        return Path(hf_hub_download(found.origin.repo, path, revision=found.origin.revision, etag_timeout=SECONDS))


def dataset_file(repo: str, file: str) -> Path:
    """A file of a data set, as the hub has it now; without a network, as it was fetched before.

    Raises InputError, which says what to do.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    def got(local: bool) -> Path:
        return Path(hf_hub_download(repo, file, repo_type="dataset", etag_timeout=SECONDS, local_files_only=local))

    try:
        with _patience(HubRef(repo), file, "datasets/"):
            get_hf_file_metadata(hf_hub_url(repo, file, repo_type="dataset"), timeout=SECONDS)  # which tries once
            return got(local=False)
    except Unreachable as error:
        try:
            return got(local=True)
        except OSError:
            raise error from None


def _remember(found: Resolved) -> None:
    """Note in the cache what the name meant, as the hub's own client does: without a network it means the same."""
    if found.ref.commit:
        return
    for repo in {found.ref.repo, found.origin.repo}:
        path = _storage(repo) / "refs" / (found.ref.revision or "main")
        with suppress(InputError):  # a cache that cannot be written serves as it is
            atomic_write({path: found.origin.revision.encode()})


def _storage(repo: str) -> Path:
    """Where the hub's client keeps a repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


@contextmanager
def _patience(ref: HubRef, file: str = "", kind: str = "") -> Iterator[None]:
    """Requests of the hub's client end soon, whatever the hub does; what goes wrong is told in a sentence.

    The client waits as long as a busy hub asks it to, and tries again for minutes where it is silent.
    """
    from huggingface_hub.utils import get_session, hf_raise_for_status

    asked: Counter[tuple[str, str]] = Counter()

    def before(request: Any) -> None:
        limits = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {name: SECONDS for name in ("connect", "read", "write", "pool")} | {
            name: min(SECONDS, seconds) for name, seconds in limits.items() if seconds is not None
        }
        asked[request.method, str(request.url)] += 1
        if asked[request.method, str(request.url)] > TRIES.get(request.method, 3):
            raise InputError(f"The download of '{file}' of '{ref}' was cut off again and again: try again later.")

    def after(response: Any) -> None:
        if response.status_code == 429 or response.status_code >= 500:
            hf_raise_for_status(response)

    with locks.turn(_lock):
        session = get_session()
        usual = session.event_hooks
        session.event_hooks = {
            "request": [*usual.get("request", ()), before],
            "response": [*usual.get("response", ()), after],
        }
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # the client raises a dozen kinds
            raise explained(error, ref.repo, ref.revision, file, kind) from error
        finally:
            with suppress(RuntimeError):  # a session that was closed
                session.event_hooks = usual
