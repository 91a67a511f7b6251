"""Single weights by Wanda's score with a set difference between groups (Ma et al. 2025; Sun et al. 2024, Wanda).

A weight's score on a group's prompts is |W_ij| * ||x_j||, with x_j input j of its own projection over all tokens of
those prompts. Chosen are weights in the top share of their projection for one group and not for the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fasp_core.errors import InputError
from fasp_core.lazy import nn, no_grad, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import present
from fasp_core.model.passes import double, on_host
from fasp_core.studies.contexts.chats import ask, inputs_of
from fasp_core.studies.contexts.scenarios import Scenario

if TYPE_CHECKING:
    from torch import Tensor

Place = tuple[int, str]  # layer, dotted name of the projection in its block
Chosen: TypeAlias = "Mapping[Place, Tensor]"  # flat positions in the projection's weight, as it is stored


def projections(lm: LanguageModel) -> dict[Place, nn.Module]:
    """Every projection of the blocks: attention and MLP, not norms."""
    return {
        (layer, name): module
        for layer, block in enumerate(lm.blocks)
        for name, module in block.named_modules()
        if isinstance(getattr(module, "weight", None), torch.Tensor) and module.weight.ndim == 2
    }


def count(lm: LanguageModel) -> int:
    """How many weights there are in all projections."""
    return sum(len(flat(module)) for module in projections(lm).values())


def split(lm: LanguageModel, ids: NDArray[np.int64]) -> dict[Place, Tensor]:
    """Flat positions by projection of ids, which count the weights of all projections one after the other."""
    out, start = {}, 0
    for place, module in projections(lm).items():
        end = start + len(flat(module))
        if len(mine := ids[(ids >= start) & (ids < end)]):
            out[place] = torch.from_numpy(np.sort(mine) - start)
        start = end
    return out


@no_grad
def input_norms(lm: LanguageModel, scenario: Scenario, names: Sequence[str]) -> dict[Place, Tensor]:
    """[in] float64 norm of each input of each projection, over all tokens of the scenario's chats about these names.

    On the CPU, wherever the projections lie.
    """
    places = projections(lm)
    squares = {place: torch.zeros(_inputs(module), dtype=torch.float64) for place, module in places.items()}
    with inputs_of(lm, places) as read:
        for name in names:
            seen = read(ask(lm, scenario, name)[1])
            for place, x in zip(seen, on_host(list(seen.values())), strict=True):
                squares[place] += x.reshape(-1, x.shape[-1]).double().square().sum(0)
    return {place: total.sqrt() for place, total in squares.items()}


@no_grad
def stands_out(
    lm: LanguageModel, first: Mapping[Place, Tensor], second: Mapping[Place, Tensor], share: float, other: float
) -> dict[Place, Tensor]:
    """Weights in the top `share` of their projection by the first norms and not in the top `other` by the second.

    Raises
    ------
    InputError
        A share that is not between 0 and 1.
    """
    if not (0 < share <= 1 and 0 <= other <= 1):
        raise InputError(f"Shares of {share:g} and {other:g} cannot be taken: give more than 0 and at most 1.")
    out = {}
    for place, module in projections(lm).items():
        with present(module):
            mine, theirs = (_top(_scores(module, n[place]), s) for n, s in ((first, share), (second, other)))
        out[place] = (mine & ~theirs).nonzero()[:, 0]
    return out


@contextmanager
def differentiable(lm: LanguageModel) -> Iterator[dict[Place, Tensor]]:
    """The weight of every projection, as leaves of a graph for the time of the `with` block. Raises as `without`."""
    found = {place: _here(module) for place, module in projections(lm).items()}
    with lm.lock:
        before = {place: weight.requires_grad for place, weight in found.items()}
        try:
            for weight in found.values():
                weight.requires_grad_(True)
            yield found
        finally:
            for place, weight in found.items():
                weight.requires_grad_(before[place])


@contextmanager
def without(lm: LanguageModel, chosen: Chosen) -> Iterator[None]:
    """The weights are 0 for the time of the `with` block, and bit for bit what they were after it.

    Raises
    ------
    InputError
        A part of the model waits in main memory, from where each pass fetches it again.
    """
    places = projections(lm)
    with lm.lock:
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        try:
            for place, at in chosen.items():
                weight = _here(places[place])
                flat = weight.data.view(-1)
                at = at.to(flat.device)
                kept.append((flat, at, flat[at].clone()))
                flat[at] = 0
            yield
        finally:
            for flat, at, values in kept:
                flat[at] = values


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def flat(module: nn.Module) -> Tensor:
    """[n] a projection's weight in the order in which it is stored."""
    return _weight(module).view(-1)


def _here(module: nn.Module) -> Tensor:
    """A projection's weight, if it does not wait elsewhere."""
    weight = _weight(module)
    if weight.is_meta:
        raise InputError(
            "Single weights cannot be removed from a model that lies partly in main memory: load it with "
            "--device cpu, or on GPUs that hold all of it."
        )
    return weight


def _inputs(module: nn.Module) -> int:
    return int(_weight(module).shape[1 if isinstance(module, nn.Linear) else 0])  # GPT-2's Conv1D keeps [in, out]


def _scores(module: nn.Module, norms: Tensor) -> Tensor:
    """Flat, in the order of the weight as it is stored."""
    size = double(_weight(module).detach().abs())
    norms = norms.to(size.device)
    return (size * (norms if isinstance(module, nn.Linear) else norms[:, None])).flatten()


def _top(scores: Tensor, share: float) -> Tensor:
    """Whether a weight is among the largest ceil(share * n)."""
    out = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    count = -int(-share * scores.numel() // 1)
    if count:
        out[scores.topk(count).indices] = True
    return out
