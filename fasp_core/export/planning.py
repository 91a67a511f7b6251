"""What can really go and what can only be zeroed, so that plain transformers loads the result: PruneSet -> Plan.

All layers share one number of heads and one width of the MLP, so what goes is what every layer can spare. Where a
layer loses more than that, the places left over hold zeros. Heads that share keys and values form a group; a smaller
model has `g` groups of `r` heads, and a layer fits if its groups, each cut into pieces of at most `r` kept heads, are
at most `g` pieces. Removing whole groups and removing as many heads of each group are the two plain cases of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fasp_core.export.layouts import LAYOUTS, Shape, config_of
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.architectures import architecture_named
from fasp_core.model.language_model import LanguageModel


@dataclass(frozen=True)
class Places:
    """What the places of a smaller layer hold, in order: parts of the whole layer, or zeros.

    Attributes
    ----------
    old : the part of the whole layer that each place is made of.
    zero : whether it holds zeros instead.
    """

    old: tuple[int, ...]
    zero: tuple[bool, ...]

    def unchanged(self, size: int) -> bool:
        """Whether they are the `size` places of the whole layer as it is."""
        return self.old == tuple(range(size)) and not any(self.zero)


@dataclass(frozen=True)
class Plan:
    """A smaller model of the same architecture, and where each of its parts comes from.

    Attributes
    ----------
    before, after : sizes of every layer.
    heads, kv_heads, neurons : one `Places` a layer.
    gone, zeroed : the removed parts that have no place any more, and those whose place holds zeros. In a layer with
        both it is a convention which ones are which: of neither is a weight left.
    reasons : why something is only zeroed, one sentence each; empty where nothing is.
    """

    removed: PruneSet
    before: Shape
    after: Shape
    heads: tuple[Places, ...]
    kv_heads: tuple[Places, ...]
    neurons: tuple[Places, ...]
    gone: PruneSet
    zeroed: PruneSet
    reasons: tuple[str, ...]

    @property
    def scaled(self) -> PruneSet:
        """The heads whose columns of the output projection are multiplied."""
        return PruneSet(gains=self.removed.gains)

    @property
    def smaller(self) -> bool:
        """Whether anything really goes."""
        return self.after != self.before


def plan(lm: LanguageModel, removed: PruneSet) -> Plan:
    """What exporting `lm` without `removed` comes to. Reads the config and no weights.

    Raises as `PruneSet.gates`.
    """
    removed.gates(lm.n_layers, lm.n_heads)
    removed.neuron_gates(lm.n_layers, lm.n_neurons)
    shape = Shape(lm.n_heads, lm.n_kv_heads, lm.n_neurons)
    return plan_sizes(lm.model.config, removed, lm.n_layers, shape, lm.head_dim)


def weights_saved(lm: LanguageModel, planned: Plan) -> int:
    """Weights that really go, biases not counted: what can be said before anything is written."""
    before, after = planned.before, planned.after
    of_head = 2 * lm.head_dim * int(lm.model.config.hidden_size)  # q and output, or k and v
    fewer = before.heads - after.heads + before.kv_heads - after.kv_heads
    return lm.n_layers * (fewer * of_head + (before.neurons - after.neurons) * lm.neuron_parameters())


def plan_sizes(config: Any, removed: PruneSet, n_layers: int, before: Shape, head_dim: int) -> Plan:
    """`plan` from a transformers config and the model's sizes; all parts of `removed` exist."""
    kept = _kept_heads(removed, n_layers, before)
    after, reasons = before, []
    layout = LAYOUTS[config.model_type]
    if removed.neurons:
        most = max(before.neurons - sum(layer == at for at, _ in removed.neurons) for layer in range(n_layers))
        after = Shape(before.heads, before.kv_heads, max(most, 1))
    if removed.heads and layout.fewer_heads:
        neurons = after.neurons

        def loads(groups: int, each: int) -> bool:
            return config_of(config, Shape(groups * each, groups, neurons), head_dim) is not None

        groups, each = _fit(kept, before, loads)
        after = Shape(groups * each, groups, neurons)
    laid = [_lay(groups, before, after) for groups in kept]
    if removed.neurons:
        neurons_laid = [_lay_neurons(removed, layer, before.neurons, after.neurons) for layer in range(n_layers)]
    else:
        neurons_laid = [Places(tuple(range(before.neurons)), (False,) * before.neurons)] * n_layers
    zeroed = PruneSet.of(_zeroed(heads for heads, _ in laid), _zeroed(neurons_laid))
    if zeroed.heads:
        reasons.append(_why_heads(config, kept, before, after))
    if zeroed.neurons:
        reasons.append(_why_neurons(removed, n_layers, before, after))
    return Plan(
        removed,
        before,
        after,
        tuple(heads for heads, _ in laid),
        tuple(kv for _, kv in laid),
        tuple(neurons_laid),
        PruneSet(removed.heads - zeroed.heads, removed.neurons - zeroed.neurons),
        zeroed,
        tuple(reasons),
    )


Groups = list[list[int]]  # of one layer: the heads kept in each group


def _kept_heads(removed: PruneSet, n_layers: int, shape: Shape) -> list[Groups]:
    each = shape.heads // shape.kv_heads
    return [
        [[h for h in range(g * each, (g + 1) * each) if (layer, h) not in removed.heads] for g in range(shape.kv_heads)]
        for layer in range(n_layers)
    ]


def _fit(kept: list[Groups], before: Shape, loads: Callable[[int, int], bool]) -> tuple[int, int]:
    """(groups, heads of each): the fewest weights that hold all layers, with no more groups than before.

    q and output weights go with the number of heads, k and v weights with the number of groups. More groups than before
    would make the cache of keys and values larger.
    """
    groups, each = before.kv_heads, before.heads // before.kv_heads
    best, least = (groups, each), groups * (each + 1)
    for r in range(each, 0, -1):
        need = max(1, *(sum(-(-len(group) // r) for group in layer) for layer in kept))
        for g in range(need, groups + 1):
            if g * (r + 1) >= least:
                break
            if loads(g, r):
                best, least = (g, r), g * (r + 1)
                break
    return best


def _lay(kept: Groups, before: Shape, after: Shape) -> tuple[Places, Places]:
    """Places of a layer's heads, and of its keys and values. Order is kept, so that nothing moves needlessly."""
    old_each, each = before.heads // before.kv_heads, after.heads // after.kv_heads
    spare = [[h for h in range(g * old_each, (g + 1) * old_each) if h not in held] for g, held in enumerate(kept)]
    pieces = [(g, held[i : i + each]) for g, held in enumerate(kept) for i in range(0, len(held), each)]
    unused = [g for g, held in enumerate(kept) if not held]
    pieces += [(g, []) for g in unused[: after.kv_heads - len(pieces)]]
    pieces += [(0, []) for _ in range(after.kv_heads - len(pieces))]
    pieces.sort(key=lambda piece: (piece[0], piece[1] or [before.heads]))
    filled = []
    for g, held in pieces:  # its own removed heads first
        own, spare[g] = spare[g][: each - len(held)], spare[g][each - len(held) :]
        filled.append((g, held, own))
    rest = [h for group in spare for h in group]
    heads: list[tuple[int, bool]] = []
    for _, held, own in filled:
        more, rest = rest[: each - len(held) - len(own)], rest[each - len(held) - len(own) :]
        heads += sorted([(h, False) for h in held] + [(h, True) for h in (*own, *more)])
    return (
        Places(tuple(h for h, _ in heads), tuple(zero for _, zero in heads)),
        Places(tuple(g for g, _ in pieces), tuple(not held for _, held in pieces)),
    )


def _lay_neurons(removed: PruneSet, layer: int, before: int, after: int) -> Places:
    """The first removed neurons go, the last ones stay as zeros."""
    off = sorted(unit for at, unit in removed.neurons if at == layer)
    gone = set(off[: before - after])
    zero = set(off[before - after :])
    old = tuple(unit for unit in range(before) if unit not in gone)
    return Places(old, tuple(unit in zero for unit in old))


def _zeroed(layers: Iterable[Places]) -> list[tuple[int, int]]:
    return [
        (layer, old)
        for layer, places in enumerate(layers)
        for old, zero in zip(places.old, places.zero, strict=True)
        if zero
    ]


def _why_heads(config: Any, kept: list[Groups], before: Shape, after: Shape) -> str:
    title = architecture_named(config.model_type).title
    if not LAYOUTS[config.model_type].fewer_heads:
        return (
            f"A model of the type {title} divides its hidden size among its heads, so that with fewer of them the "
            "others would get another width: removed heads are zeroed and keep their places."
        )
    rule = "All layers have one number of heads"
    if before.heads != before.kv_heads:
        rule += ", in equal groups that share keys and values"
    free_groups, free_each = _fit(kept, before, lambda *_: True)
    refused = (
        f"; {free_groups * free_each} would do, but transformers does not load a model of the type {title} and hidden "
        f"size {config.hidden_size} with that many"
        if (free_groups, free_each) != _sizes(after)
        else ""
    )
    if after.heads < before.heads:
        return f"{rule}: each gets {after.heads} of {before.heads}, and places left over hold zeros{refused}."
    full = [i for i, layer in enumerate(kept) if _fit([layer], before, lambda *_: True) == _sizes(before)]
    if full:
        return f"{rule}, and {_layers(full, len(kept))} with fewer: removed heads are zeroed."
    return f"{rule}, and what one layer can spare does not fit all others: removed heads are zeroed{refused}."


def _why_neurons(removed: PruneSet, n_layers: int, before: Shape, after: Shape) -> str:
    rule = "All layers have one width of the MLP"
    if after.neurons < before.neurons:
        return f"{rule}: each gets {after.neurons:,} of {before.neurons:,} neurons, and places left over hold zeros."
    whole = sorted(set(range(n_layers)) - {layer for layer, _ in removed.neurons})
    return f"{rule}, and {_layers(whole, n_layers)} with fewer: removed neurons are zeroed."


def _sizes(shape: Shape) -> tuple[int, int]:
    return shape.kv_heads, shape.heads // shape.kv_heads


def _layers(numbers: list[int], of: int) -> str:
    """`layer 3 cannot do`, `layers 0-4, 7 cannot do`, `no layer can do`."""
    if len(numbers) == of:
        return "no layer can do"
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    written = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"layer{'s' if len(numbers) > 1 else ''} {written} cannot do"
