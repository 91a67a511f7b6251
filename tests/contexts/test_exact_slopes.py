"""First-order effects on exact differences: against finite differences, and on a model with a planted bias."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from fasp_core.errors import InputError
from fasp_core.forward.ablation import gated
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.answers import exact
from fasp_core.studies.answers.distributions import Distributions
from fasp_core.studies.answers.exact import ExactConfig, Sampling, grow
from fasp_core.studies.answers.reading import Reader
from fasp_core.studies.contexts import audit, choosing, halves, scenarios, slopes, weights
from fasp_core.studies.contexts.cells import MatrixConfig
from fasp_core.studies.contexts.chats import ask
from fasp_core.studies.contexts.removal import Removal
from tests.support.numbered import NUMBERED, numbered_lm, padded

WORLD = scenarios.parse(NUMBERED, "rooms.toml")
(HOUSE,) = WORLD.scenarios
SAMPLING = Sampling(2, 0.8)
WHOLE = ExactConfig(covered=1 - 1e-12, nodes=1000, draws=1)
GROUPS = ("one", "two")


def totals(lm: LanguageModel) -> np.ndarray:
    """[names, 2] probability of a number, and the sum of log(1 + number)."""
    chats = [ask(lm, HOUSE, name) for name, _ in WORLD.people]
    return np.array([slopes._sums(t) for t in grow(lm, chats, Reader("dollars", ""), HOUSE.opening, SAMPLING, WHOLE)])


def test_an_open_text_is_worth_what_its_own_draws_found() -> None:
    """Weighted by their probability; those of a text that begins with it are not its own."""
    drawn = [("$15 for", 15.0, 0.2), ("$1 for", 1.0, 0.3), ("$12 for", 12.0, 0.1)]
    tree = exact.Tree(drawn=drawn, origins=["$15", "$1", "$1"], left=0.6)
    worth = slopes.Worth(tree, Reader("dollars", ""), 0.5, 2.0)
    expected = (0.3 * np.log1p(1.0) + 0.1 * np.log1p(12.0)) / 0.4
    assert worth.open("$1") == pytest.approx((expected - 0.5) / 2.0)
    assert worth.open("$15") == pytest.approx((np.log1p(15.0) - 0.5) / 2.0)
    assert worth.open("$7") == pytest.approx((np.log1p(7.0) - 0.5) / 2.0), "no draw: the number so far"


def gap(lm: LanguageModel) -> float:
    """Difference of the groups' mean log(1 + number), of answers with one."""
    return difference(totals(lm))


def difference(sums: np.ndarray) -> float:
    """Of the first two names' mean and that of the last two."""
    means = [part[:, 1].sum() / part[:, 0].sum() for part in (sums[:2], sums[2:])]
    return float(means[0] - means[1])


def first_of_each(sums: np.ndarray, whole: np.ndarray) -> float:
    """Difference of the first name of each group, whose distance from the group's mean in the whole model counts."""
    mean = [part[:, 1].sum() / part[:, 0].sum() for part in (whole[:2], whole[2:])]
    one, two = ((sums[i, 1] - m * sums[i, 0]) / whole[i, 0] for i, m in zip((0, 2), mean, strict=True))
    return float(one - two)


@pytest.mark.parametrize("kind", ["llama", "gpt_neo"])
def test_effects_of_weights_equal_finite_differences(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "LEAST", 0.0)
    lm = numbered_lm(kind=kind)
    lm.model = lm.model.double()
    half = np.array([True, False, True, False])
    (found, at_all), (of_half, at_half) = slopes.weight_effects(
        lm, HOUSE, WORLD.people, GROUPS, SAMPLING, WHOLE, parts=[half]
    )
    whole = totals(lm)
    assert at_all == pytest.approx(gap(lm), abs=1e-6)
    means = whole[[0, 2], 1] / whole[[0, 2], 0]
    assert at_half == pytest.approx(means[0] - means[1], abs=1e-6)
    places = weights.projections(lm)
    assert found.keys() == of_half.keys() == places.keys()
    assert not any(p.requires_grad for p in lm.model.parameters()), "as it was"
    for place in list(places)[::4]:
        weight = places[place].weight.data.view(-1)
        at = int(found[place].abs().argmax())  # where there is most to be wrong about
        before, ends = float(weight[at]), []
        step = 2e-3 * abs(before)
        for end in (before + step, before - step):
            weight[at] = end
            sums = totals(lm)
            ends.append((difference(sums), first_of_each(sums, whole)))
        weight[at] = before
        slopes_of = -before * (np.array(ends[0]) - ends[1]) / (2 * step)
        for changes, slope in zip((found, of_half), slopes_of, strict=True):
            assert float(changes[place][at]) == pytest.approx(slope, rel=1e-2, abs=1e-4)


def test_weights_by_effect_are_those_that_lower_the_difference_in_every_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "EFFECTS_KEPT", 0.02)
    lm, config, store = numbered_lm(), audit.AuditConfig(tokens=2, temperature=0.8), Store(tmp_path)
    world = scenarios.parse(NUMBERED.replace('["house"]', '["house", "red"]'), "rooms.toml")
    said, effects = [], []
    for scenario in world.scenarios:
        replies = audit.exactly(lm, scenario, audit.Following(world, config, WHOLE), store)
        said.append(choosing.clues(lm, replies, config, ["weights-effect"], store))
        effects += slopes.weight_effects(lm, scenario, world.people, GROUPS, config.sampling, WHOLE)
    few, many = (choosing.choose(lm, "weights-effect", said, choosing.Sizes(weight_top=t)) for t in (0.0005, 0.02))
    assert 0 < len(few) < len(many)
    places = [(place, i) for place, module in weights.projections(lm).items() for i in range(module.weight.numel())]
    tops = []
    for changes, gap_of in effects:
        falls = np.concatenate([-np.sign(gap_of) * change.numpy() for change in changes.values()])
        kept = int(np.ceil(0.02 * len(falls)))
        tops.append([places[i] for i in np.argsort(-falls)[:kept] if falls[i] > 0])
    common = set(tops[0]) & set(tops[1])

    def chosen(found: Removal) -> set[tuple[weights.Place, int]]:
        return {(place, i) for place, at in found.weights.items() for i in at.tolist()}

    assert chosen(many) == common
    ranks = {i: sorted((top.index(i) for top in tops), reverse=True) for i in common}
    best = chosen(few)
    assert len(best) == round(0.0005 * len(places))
    assert all(ranks[i] <= ranks[j] for i in best for j in common - best), "the worst rank, of equals the mean rank"
    with pytest.raises(InputError, match="at most that"):
        MatrixConfig(methods=("weights-effect",), sizes=choosing.Sizes(weight_top=0.05))
    drawn = audit.audit(lm, world.scenarios[0], world, config, store)
    with pytest.raises(InputError, match="need exact answers"):
        choosing.clues(lm, drawn, config, ["weights-effect"], store)


def test_halves_name_weights_of_their_own(tmp_path: Path) -> None:
    lm, config, store = numbered_lm(), audit.AuditConfig(tokens=2, temperature=0.8), Store(tmp_path)
    replies = audit.exactly(lm, HOUSE, audit.Following(WORLD, config, WHOLE), store)
    turns = [scenarios.by_turns(np.array([0, 0, 1, 1]), halving) for halving in (0, 1)]
    parts = [turn == h for turn in turns for h in (0, 1)]
    effects = slopes.weight_effects(lm, HOUSE, WORLD.people, GROUPS, SAMPLING, WHOLE, parts=parts)
    halves = (None, (0, 0), (0, 1), (1, 0), (1, 1))
    for which, (changes, gap_of) in zip(halves, effects, strict=True):
        said = choosing.clues(lm, replies, config, ["weights-effect"], store, half=which, halvings=2)
        falls = np.concatenate([-np.sign(gap_of) * change.numpy() for change in changes.values()])
        best = [i for i in np.argsort(-falls)[: int(np.ceil(choosing.EFFECTS_KEPT * len(falls)))] if falls[i] > 0]
        assert said.arrays["weights-effect"].tolist() == best


@pytest.mark.parametrize("kind", ["llama", "gpt_neo"])
def test_effects_equal_finite_differences(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "LEAST", 0.0)
    lm = numbered_lm(kind=kind)
    lm.model = lm.model.double()
    found = slopes.effects(lm, HOUSE, WORLD.people, GROUPS, SAMPLING, WHOLE)
    assert found.gap == pytest.approx(gap(lm), abs=1e-6)
    assert found.heads.shape == (4, lm.n_layers, lm.n_heads)
    before, half = totals(lm), found.of(scenarios.by_turns(found.codes) == 0)
    assert half.gap == pytest.approx(float(np.subtract(*(before[[0, 2], 1] / before[[0, 2], 0]))), abs=1e-6)
    for what, layer, part in (("heads", 0, 1), ("heads", 1, 2), ("neurons", 1, 5)):
        step, ends = 7e-3, []  # wide enough for probabilities in float32
        for gate in (1 + step, 1 - step):
            heads = torch.ones(lm.n_layers, lm.n_heads, dtype=torch.double)
            units = torch.ones(lm.n_neurons, dtype=torch.double)
            (heads[layer] if what == "heads" else units)[part] = gate
            with gated(lm, heads, {layer: units}):
                ends.append(totals(lm))
        slope = -(difference(ends[0]) - difference(ends[1])) / (2 * step)  # a removal moves a gate from 1 to 0
        assert found.change(what)[0][layer, part] == pytest.approx(slope, rel=1e-2, abs=2e-5)
        slope = -(first_of_each(ends[0], before) - first_of_each(ends[1], before)) / (2 * step)
        assert half.change(what)[0][layer, part] == pytest.approx(slope, rel=1e-2, abs=2e-5)
    assert np.abs(found.change("heads")[0]).max() > 1e-3


def test_tokens_beyond_the_embedding_have_no_effect() -> None:
    models = padded(numbered_lm()), numbered_lm()
    found, expected = (slopes.effects(lm, HOUSE, WORLD.people, GROUPS, SAMPLING, WHOLE) for lm in models)
    assert found.gap == expected.gap
    np.testing.assert_array_equal(found.heads, expected.heads)
    np.testing.assert_array_equal(found.neurons, expected.neurons)


@pytest.mark.parametrize("kind", ["llama", "gpt_neo"])
def test_sizes_of_equal_parameters(kind: str) -> None:
    """A set of each kind holds as many parameters as that of heads, to half a neuron."""
    lm, rng = numbered_lm(kind=kind), np.random.default_rng(0)
    sizes = choosing.Sizes(heads=0.25).of_equal_parameters(lm)
    whole = sum(m.weight.numel() for m in weights.projections(lm).values())
    scores: dict[str, np.ndarray] = {"weights-effect": rng.permutation(whole)}
    scores |= {"heads-effect": rng.random((lm.n_layers, lm.n_heads)), "neurons-effect": rng.random((2, lm.n_neurons))}
    said = choosing.Clues(scores, (), 1.0)
    heads, neurons = (choosing.choose(lm, m, [said], sizes).parameters(lm) for m in ("heads-effect", "neurons-effect"))
    assert heads == 2 * lm.head_parameters()
    assert abs(neurons - heads) <= lm.neuron_parameters() / 2
    assert sizes.weight_top == pytest.approx(heads / whole)
    chosen = choosing.choose(lm, "weights-effect", [said], sizes)
    assert chosen.parameters(lm) == heads
    flat = [i for place, m in weights.projections(lm).items() for i in product([place], range(m.weight.numel()))]
    assert {flat[i] for i in scores["weights-effect"][:heads]} == {
        (place, i) for place, at in chosen.weights.items() for i in at.tolist()
    }


def mean_log_gap(found: Distributions, members: np.ndarray) -> float:
    """Name by name."""
    means = []
    for group in (0, 1):
        mass = total = 0.0
        for value, share, name in zip(found.values, found.masses, found.names, strict=True):
            if members[name] and found.codes[name] == group and np.isfinite(value):
                mass += share
                total += share * np.log1p(value)
        means.append(total / mass)
    return means[0] - means[1]


@pytest.mark.parametrize("which", [None, 0, 1])
def test_the_first_parts_take_the_effect_that_their_removal_has(which: int | None, tmp_path: Path) -> None:
    lm, store = numbered_lm(), Store(tmp_path)
    config = audit.AuditConfig(tokens=2, temperature=0.8)
    asks = halves.Whole(lm, WORLD, config, ExactConfig(nodes=8, draws=2), store, GROUPS, by_removal=2)
    plain = replace(asks, by_removal=0)
    methods: tuple[choosing.Method, ...] = ("heads-effect", "neurons-effect")
    (said, first_order) = (w.clues(HOUSE, methods, None) for w in (asks, plain))
    found, before = (s.whole if which is None else s.halves[0][which] for s in (said, first_order))
    following = audit.Following(WORLD, config, asks.exact, GROUPS)
    base = audit.exactly(lm, HOUSE, following, store).found
    members = np.ones(4, bool) if which is None else scenarios.by_turns(base.codes) == which
    for kind in ("heads", "neurons"):
        scores, exact_scores = before.arrays[f"{kind}-effect"], found.arrays[f"{kind}-effect"]
        before_first, now_first = (np.argsort(-x.ravel(), kind="stable")[:2] for x in (scores, exact_scores))
        removed = np.flatnonzero(exact_scores.ravel() != scores.ravel())
        assert {i for i in before_first if scores.ravel()[i] > 0} <= set(removed)
        assert {i for i in now_first if exact_scores.ravel()[i] > 0} <= set(removed), "all that is first was removed"
        for i in removed:
            part = PruneSet.of(**{kind: [divmod(int(i), scores.shape[1])]})
            after = audit.exactly(lm, HOUSE, following, store, part).found
            falls = abs(mean_log_gap(base, members)) - abs(mean_log_gap(after, members))
            assert exact_scores.ravel()[i] == pytest.approx(falls)


def test_a_matrix_by_removal_is_another_one(tmp_path: Path) -> None:
    plain = MatrixConfig(methods=("heads-effect",), exact=ExactConfig(nodes=4, draws=2))
    assert "by_removal" not in plain.key(), "those of earlier versions are found"
    assert replace(plain, by_removal=3).key()["by_removal"] == 3
    for wrong in ({"by_removal": -1}, {"by_removal": 2, "exact": None}):
        with pytest.raises(InputError, match="Parts are chosen by their removal"):
            replace(plain, **wrong)
