"""Models in memory, shared by every reader of the app, and what is known of those that are not."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from fasp_core.errors import InputError
from fasp_core.metrics import calibration
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.model import hub, loading
from fasp_core.model.devices import one_name
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import free
from fasp_core.model.spec import BUILT_IN, BUILT_IN_SHAPE, ModelSpec
from fasp_core.storage import locks
from fasp_core.storage.stamps import stamp
from fasp_core.storage.store import Store
from pages.backend import demo, folders

KEEP_MODELS = 2
RENEW = 5  # seconds for which an answer of a hub is new


@dataclass(frozen=True)
class Facts:
    """What is known of a model: enough to find its scores and to draw its heads."""

    id: ModelId
    n_layers: int
    n_heads: int


class Models:
    """Loaded models, at most `KEEP_MODELS`; facts of every one that was ever loaded; commits that names stand for.

    Parameters
    ----------
    load : loads a model.
    """

    def __init__(self, load: Callable[[ModelSpec], LanguageModel] = loading.load) -> None:
        self._load = load
        self._loaded: OrderedDict[ModelSpec, CachedRunner] = OrderedDict()  # by `named`
        self._lock = threading.Lock()  # held for moments; a load holds the turn of its model
        self._turns: dict[ModelSpec, threading.Lock] = {}
        self._facts: dict[ModelSpec, Facts] = {}  # small, and outlives the models
        self._commits: dict[str, str] = {}  # what names of a hub meant when it was last asked
        self._asked: dict[str, float] = {}  # when that was

    def runner(self, spec: ModelSpec) -> CachedRunner:
        """The loaded model with what is kept of its latest measurements. Ask in a job: loading takes seconds.

        Raises
        ------
        InputError
            It cannot be loaded, or a browser may not ask for it.
        """
        demo.check_model(spec)
        folders.check_model(spec)
        if (there := self._there(spec)) is not None:
            return there
        with self._lock:
            turn = self._turns.setdefault(self.named(spec), threading.Lock())
        with locks.turn(turn):  # others are loaded, and asked, meanwhile
            return self._there(spec) or self._fresh(self.pinned(spec))

    def _there(self, spec: ModelSpec) -> CachedRunner | None:
        name = self.named(spec)
        with self._lock:
            if (found := self._loaded.get(name)) is not None:
                self._loaded.move_to_end(name)
            return found

    def _fresh(self, spec: ModelSpec) -> CachedRunner:
        self._make_room(KEEP_MODELS - 1)  # first: memory may not hold one more
        lm = calibration.ready(self._load(spec), Store())
        if lm.spec.commit:
            self._commits.setdefault(spec.source, lm.spec.commit)
        name, made = replace(self.named(spec), commit=lm.spec.commit), CachedRunner(lm)
        self._make_room(KEEP_MODELS - 1)  # others may have been loaded meanwhile
        with self._lock:
            self._loaded[name] = made
            self._facts[name] = Facts(lm.id, lm.n_layers, lm.n_heads)
        return made

    def _make_room(self, left: int) -> None:
        with self._lock:
            gone = [self._loaded.popitem(last=False) for _ in range(len(self._loaded) - left)]
        if gone:
            gone.clear()
            free()

    def get(self, spec: ModelSpec) -> LanguageModel:
        """The loaded model; as `runner`."""
        return self.runner(spec).lm

    def facts(self, spec: ModelSpec) -> Facts | None:
        """What is known without waiting; None while the model has yet to be loaded."""
        if (known := loading.known_id(spec)) is not None:
            return Facts(known, *BUILT_IN_SHAPE)
        return self._facts.get(self.named(spec))

    def identity(self, spec: ModelSpec) -> ModelId:
        """Which model it is, where that is known, as where there are scores."""
        known = self.facts(spec)
        assert known is not None
        return known.id

    def pinned(self, spec: ModelSpec) -> ModelSpec:
        """The same with the commit that a name of a hub stands for, where it was loaded once, or with the state in
        which a folder's or a file's content is: another one is another model."""
        if spec.commit or spec.stamp or spec.source == BUILT_IN:
            return spec
        return replace(spec, commit=self._commits.get(spec.source, ""), stamp=stamp(spec.source))

    def named(self, spec: ModelSpec) -> ModelSpec:
        """As `pinned`, with the one name of its device: however these are asked for, the model is the same."""
        spec = self.pinned(spec)
        try:
            return replace(spec, device=one_name(spec.device))
        except InputError:  # no such device, which loading tells
            return spec

    def renew(self, source: str) -> None:
        """Ask the hub what a name means by now, for a reader who begins to look at it.

        Others go on with the commit that they have. Whoever asks waits 2 seconds at most; then the answer serves the
        next.
        """
        if source in self._commits and time.monotonic() - self._asked.get(source, -RENEW) >= RENEW:
            self._asked[source] = time.monotonic()
            asking = threading.Thread(target=self._renew, args=(source,), name="hub", daemon=True)
            asking.start()
            asking.join(2)

    def _renew(self, source: str) -> None:
        with suppress(InputError):  # no answer: it means what it meant
            ref = hub.ref_of(source)
            if ref is not None and (found := hub.resolve(ref)).local is None:
                self._commits[source] = found.origin.revision
