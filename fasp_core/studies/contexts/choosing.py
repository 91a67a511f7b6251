"""From what scenarios say of each part to the parts that are removed.

What one scenario says are its `Clues`, made from the unpruned model. A set that is to serve several scenarios is made
of parts that all of them name: by methods with a score, the k parts whose worst rank over the scenarios is best (that
is, the intersection of the scenarios' top-r sets, with r as large as it takes); by methods with a set difference
between groups, the intersection of the scenarios' sets, of whatever size it comes to (Ma et al. 2025, arXiv
2502.07771).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fasp_core.errors import InputError
from fasp_core.forward import noise
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Store
from fasp_core.studies.contexts import localise, slopes, weights
from fasp_core.studies.contexts.audit import HOW, AuditConfig, Exact, Replies, Report
from fasp_core.studies.contexts.removal import Removal
from fasp_core.studies.contexts.scenarios import by_turns

if TYPE_CHECKING:
    from torch import Tensor

Method = Literal[
    "heads-effect",
    "heads-attention",
    "heads-random",
    "neurons-effect",
    "neurons-activation",
    "neurons-random",
    "weights-wanda",
    "weights-effect",
    "weights-random",
    "weights-effect-random",
]
METHODS: tuple[Method, ...] = get_args(Method)
USUAL = tuple(m for m in METHODS if "weights-effect" not in m)  # takes exact answers, and thrice the model's memory
BESIDE: dict[Method, Method] = {  # whose sets random ones are as large as
    "heads-random": "heads-effect",
    "neurons-random": "neurons-effect",
    "weights-random": "weights-wanda",
    "weights-effect-random": "weights-effect",
}
KIND = "clues"
EFFECTS_KEPT = 0.005  # of all weights, those whose removal lowers the difference most


@dataclass(frozen=True)
class Sizes:
    """How much is removed, as shares of all parts.

    Attributes
    ----------
    heads, neurons : that methods with a score choose, at most.
    unit_top, unit_other : neurons by activation: in the top share for the first group and not for the other.
    weight_top, weight_other : the same for the weights of each projection, by Wanda; by effect the first, of all
        weights.
    """

    heads: float = 0.05
    neurons: float = 0.0025
    unit_top: float = 0.05
    unit_other: float = 0.05
    weight_top: float = 0.01
    weight_other: float = 0.01

    def __post_init__(self) -> None:
        if not all(0 < share < 1 for share in asdict(self).values()):
            raise InputError("Shares of parts lie between 0 and 1, both left out.")

    def of(self, method: Method) -> tuple[float, ...]:
        """Those that a method goes by."""
        if kind_of(method) == "weights":
            return (self.weight_top,) if "effect" in method else (self.weight_top, self.weight_other)
        return (self.unit_top, self.unit_other) if method == "neurons-activation" else (getattr(self, kind_of(method)),)

    def of_equal_parameters(self, lm: LanguageModel) -> Sizes:
        """Shares of neurons and of weights by effect that hold as many parameters as the heads, but for rounding."""
        goal = max(1, int(self.heads * lm.n_layers * lm.n_heads)) * lm.head_parameters()
        units = lm.n_layers * lm.n_neurons
        neurons = max(1, round(goal / lm.neuron_parameters()))
        return replace(self, neurons=(neurons + 0.5) / units, weight_top=goal / weights.count(lm))


def kind_of(method: Method) -> str:
    """`heads`, `neurons` or `weights`."""
    return method.split("-")[0]


@dataclass(frozen=True, eq=False)
class Clues:
    """What one scenario says of each part, from the unpruned model. What no method asked for is missing.

    Attributes
    ----------
    arrays : `heads-effect` and `heads-attention` [L, H], `neurons-effect` [L, F]: larger is chosen first;
        `neurons-activation` [2, L, F], one for each group; `weights-effect` ids (`weights.split`) of those whose
        removal lowers the difference, to first order, best first, at most `EFFECTS_KEPT` of all.
    norms : for each group, [in] norm of the inputs of each projection.
    gap : difference of the groups' mean log numbers; nan unless an effect was asked for.
    """

    arrays: dict[str, NDArray[Any]]
    norms: tuple[dict[weights.Place, Tensor], ...]
    gap: float
    _weights: dict[Sizes, dict[weights.Place, Tensor]] = field(default_factory=dict, repr=False)

    def standing_out(self, lm: LanguageModel, sizes: Sizes) -> dict[weights.Place, Tensor]:
        """Weights that stand out for the first group; found once."""
        if sizes not in self._weights:
            first, second = self.norms
            self._weights[sizes] = weights.stands_out(lm, first, second, sizes.weight_top, sizes.weight_other)
        return self._weights[sizes]


def clues(
    lm: LanguageModel,
    replies: Replies | Exact,
    config: AuditConfig,
    methods: Sequence[Method],
    store: Store,
    progress: Report | None = None,
    half: tuple[int, int] | None = None,
    halvings: int = 1,
) -> Clues:
    """What a scenario's answers and chats say; stored, each kind by itself.

    Parameters
    ----------
    half : of the names, of exact answers: which halving and which half, as `halves.half` has them; None: all.
    halvings : of the names. Effects on all names and on both halves in each of these are found together.

    Raises
    ------
    InputError
        The tokenizer does not say where the name stands, or there is no such method.
    """
    arrays: dict[str, NDArray[Any]] = {}
    norms: tuple[dict[weights.Place, Tensor], ...] = ()
    gap = float("nan")
    label = f"{slug(lm.name)}--{slug(replies.scenario.context)}-{slug(replies.scenario.name)}"
    by_group = [[name for name, group in replies.people if group == g] for g in replies.groups]

    def in_half(codes: NDArray[np.int64], halving: int, h: int) -> NDArray[np.bool_]:
        return np.asarray(by_turns(codes, halving) == h)

    def mine(names: list[str]) -> list[str]:
        chosen = np.ones(len(names), bool) if half is None else in_half(np.zeros(len(names), np.int64), *half)
        return [name for name, kept in zip(names, chosen, strict=True) if kept]

    names = [mine(found) for found in by_group]
    everybody = [name for mine in names for name in mine]
    key = {
        **lm.id.key(),
        "scenario": asdict(replies.scenario),
        "template": lm.tokenizer.chat_template,
    }

    def kept(what: str, work: Any, names: Any = names, **more: Any) -> dict[str, NDArray[Any]]:
        asked = {**key, "names": names, "what": what, **more}
        return store.compute(KIND, asked, lambda: {"arrays": work()}, label=label).arrays

    drawn: dict[str, Any] = {"sampling": asdict(config), "noise": noise.VERSION}
    if isinstance(replies, Exact):
        drawn = {"sampling": asdict(config.sampling), "exact": asdict(replies.limits), "how": HOW}
    effects_of = "effects"
    if isinstance(replies, Exact):
        effects_of += ", halves beside" if halvings == 1 else f", {halvings} halvings beside"

    def titled(halving: int, h: int) -> str:
        return f" of half {h}" + (f", halving {halving}" if halving else "")

    of_half = "" if half is None else titled(*half)

    def effects() -> dict[str, NDArray[Any]]:
        if not isinstance(replies, Exact):
            return _reductions(localise.effects(lm, replies, config.temperature, progress))
        people, groups = replies.people, (replies.groups[0], replies.groups[1])
        found = slopes.effects(lm, replies.scenario, people, groups, config.sampling, replies.limits, progress)
        out = _reductions(found)
        for halving, h in np.ndindex(halvings, 2):
            part = _reductions(found.of(in_half(found.codes, halving, h)))
            out |= {name + titled(halving, h): array for name, array in part.items()}
        return out

    def lowering() -> dict[str, NDArray[Any]]:
        if not isinstance(replies, Exact):
            raise InputError("Weights by effect need exact answers: leave out samples, or this method.")
        people, groups = replies.people, (replies.groups[0], replies.groups[1])
        codes = np.array([groups.index(group) for _, group in people])
        parts = {titled(halving, h): in_half(codes, halving, h) for halving, h in np.ndindex(halvings, 2)}
        found = slopes.weight_effects(
            lm, replies.scenario, people, groups, config.sampling, replies.limits, progress, list(parts.values())
        )
        titles = ("", *parts)
        return {f"weights{title}": _lowering(*one) for title, one in zip(titles, found, strict=True)}

    for method in dict.fromkeys(BESIDE.get(m, m) for m in methods):
        if method in ("heads-effect", "neurons-effect"):
            found = kept(effects_of, effects, by_group, **drawn)
            arrays[method], gap = found[kind_of(method) + of_half], float(found["gap" + of_half][0])
        elif method == "heads-attention":
            found = kept(
                "attention", lambda: {"mean": localise.attention_to_name(lm, replies.scenario, everybody).mean(0)}
            )
            arrays[method] = found["mean"]
        elif method == "neurons-activation":
            found = kept(
                "activation",
                lambda: {str(g): localise.activation(lm, replies.scenario, names[g]).mean(0) for g in (0, 1)},
            )
            arrays[method] = np.stack([found["0"], found["1"]])
        elif method == "weights-effect":
            arrays[method] = kept(f"{effects_of}, of all weights", lowering, by_group, **drawn)[f"weights{of_half}"]
        elif method == "weights-wanda":
            norms = _norms(lm, replies, names, kept)
        else:
            raise InputError(f"There is no method '{method}': choose of {', '.join(METHODS)}.")
    return Clues(arrays, norms, gap)


def _reductions(found: localise.Effects) -> dict[str, NDArray[Any]]:
    return {kind: found.reduction(kind) for kind in ("heads", "neurons")} | {"gap": np.array([found.gap])}


def _lowering(changes: dict[weights.Place, Tensor], gap: float) -> NDArray[np.int64]:
    """Ids of the weights that are kept, best first. No values: the effects of all weights are as large as the model."""
    falls = -np.sign(gap) * torch.cat(list(changes.values()))
    best = falls.topk(int(np.ceil(EFFECTS_KEPT * len(falls))))
    return np.asarray(best.indices[best.values > 0].numpy())


def _norms(lm: LanguageModel, replies: Replies | Exact, names: list[list[str]], kept: Any) -> tuple[Any, ...]:
    def work() -> dict[str, NDArray[Any]]:
        return {
            f"{g}|{layer}|{name}": norm.numpy()
            for g in (0, 1)
            for (layer, name), norm in weights.input_norms(lm, replies.scenario, names[g]).items()
        }

    out: tuple[dict[weights.Place, Tensor], ...] = ({}, {})
    for key, norm in kept("norms", work).items():
        g, layer, name = key.split("|")
        out[int(g)][int(layer), name] = torch.from_numpy(norm)
    return out


def choose(
    lm: LanguageModel, method: Method, said: Sequence[Clues], sizes: Sizes, seed: int = 0, size: int | None = None
) -> Removal:
    """The parts that all scenarios of `said` name.

    Parameters
    ----------
    seed : of random sets. They hold as many parts as the same scenarios' set of the method in `BESIDE`, of weights as
        many in each projection.
    size : how many heads or neurons that set holds, where it is known: then random ones need nothing said.
    """
    kind = kind_of(method)
    if method in BESIDE and size is not None and kind != "weights":
        return _at_random(lm, kind, size, seed)
    like = choose(lm, BESIDE[method], said, sizes) if method in BESIDE else None
    if kind == "weights":
        if like is not None:
            return Removal(weights=_shuffled(lm, like.weights, seed))
        if method == "weights-effect":
            count = max(1, round(sizes.weight_top * weights.count(lm)))
            return Removal(weights=weights.split(lm, _lowering_all([c.arrays[method] for c in said], count)))
        return Removal(weights=_named_by_all([c.standing_out(lm, sizes) for c in said]))
    if like is not None:
        return _at_random(lm, kind, len(like), seed)
    shape = _shape(lm, kind)
    count = max(1, int(getattr(sizes, kind) * shape[0] * shape[1]))
    if method == "neurons-activation":
        by_group = [c.arrays[method] for c in said]
        named = [set(localise.stands_out(a[0], a[1], sizes.unit_top, sizes.unit_other)) for a in by_group]
        parts = sorted(set.intersection(*named))
    else:
        parts = [divmod(int(i), shape[1]) for i in common_top([c.arrays[method] for c in said], count)]
    return Removal(PruneSet.of(**{kind: parts}))


def _shape(lm: LanguageModel, kind: str) -> tuple[int, int]:
    return lm.n_layers, lm.n_heads if kind == "heads" else lm.n_neurons


def _at_random(lm: LanguageModel, kind: str, size: int, seed: int) -> Removal:
    layers, wide = _shape(lm, kind)
    flat = np.random.default_rng(seed).permutation(layers * wide)[:size]
    return Removal(PruneSet.of(**{kind: [divmod(int(i), wide) for i in flat]}))


def common_top(scores: Sequence[NDArray[Any]], count: int) -> NDArray[np.int64]:
    """Flat ids of the parts whose worst rank over all score arrays is best; of equals, the better mean rank and then
    the earlier part. A score of nan or below 0 is no reason to remove a part, so fewer than `count` may come."""
    from scipy import stats  # a second to import: help and choices do without

    ranks = np.stack([stats.rankdata(-np.nan_to_num(s.ravel(), nan=-np.inf), method="min") for s in scores])
    wanted = np.all([s.ravel() > 0 for s in scores], axis=0)
    order = _worst_first_to_last(ranks)[: max(count, 0)]
    return np.asarray(order[wanted[order]], dtype=np.int64)


def _worst_first_to_last(ranks: NDArray[Any]) -> NDArray[np.int64]:
    """Columns of [scenarios, n] ranks by the worst of each, then by the mean, then by their order."""
    return np.lexsort((np.arange(ranks.shape[1]), ranks.mean(0), ranks.max(0)))


def _lowering_all(said: Sequence[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """The `count` ids whose worst rank over some orders is best, of those that are in all of them."""
    common = said[0]
    for ids in said[1:]:
        common = np.intersect1d(common, ids, assume_unique=True)
    ranks = np.stack([np.argsort(ids)[np.searchsorted(np.sort(ids), common)] for ids in said])
    return common[_worst_first_to_last(ranks)[:count]]


def _named_by_all(found: Sequence[dict[weights.Place, Tensor]]) -> dict[weights.Place, Tensor]:
    """Weights that every scenario names."""
    out = found[0]
    for other in found[1:]:
        out = {place: at[torch.isin(at, other[place])] for place, at in out.items()}
    return {place: at for place, at in out.items() if len(at)}


def _shuffled(lm: LanguageModel, chosen: weights.Chosen, seed: int) -> dict[weights.Place, Tensor]:
    rng = np.random.default_rng(seed)
    places = weights.projections(lm)
    out = {}
    for place, at in sorted(chosen.items()):
        size = len(weights.flat(places[place]))
        out[place] = torch.from_numpy(np.sort(rng.choice(size, len(at), replace=False))).to(at.device)
    return out
