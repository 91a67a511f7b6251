"""A model that answers another number about the names of one group, through one known head and two known neurons.

It is a Llama of three layers. Its weights are small noise, but for one path along the directions of the residual stream
that are numbered below:

- names have NAME in their embedding, and those of group "one" GROUP besides; the opening "$", where the answer begins,
  has ASK;
- the planted head looks from ASK to NAME and copies GROUP, as SEEN, to where the answer begins;
- the planted neurons open where SEEN is as large as a name of group "one" makes it, and write NUMBER;
- the unembedding gives a number where there is ASK, low ones more often, and NUMBER tilts it towards high ones (in a
  second model the other way round); after a number the answer ends.

So names of group "two", and all names without the head or without the neurons, get the same numbers up to noise. One
more neuron, the loud one, writes NUMBER and more wherever an answer begins, whomever it is about: it is large, it moves
the numbers of both groups, and it is not where their difference comes from.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import wrap
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from fasp_core.studies.answers import distributions
from fasp_core.studies.answers.exact import ExactConfig, Sampling
from fasp_core.studies.contexts import audit, localise, scenarios, slopes
from fasp_core.studies.contexts.audit import AuditConfig, Replies
from fasp_core.studies.contexts.chats import ask
from tests.support.contexts import TEMPLATE
from tests.support.tiny import VOCAB, tiny_tokenizer

ROOMS = scenarios.parse(
    """
[contexts.rooms]
unit = "dollars"
opening = "$"
question = "The {item} of {name} is"
scenarios = ["house"]
[groups]
one = ["red", "green", "blue", "book", "song", "river", "day", "team", "child", "friend"]
two = ["tall", "short", "young", "old", "kind", "nice", "good", "very", "help", "know"]
""",
    "rooms.toml",
)
HOUSE = ROOMS.scenarios[0]
ONE, TWO = ROOMS.groups.values()
NUMBERS = tuple(range(10, 100, 10))
NAMELESS = "We have a house and a woman . My$ are the man of my person , and the people saw a tree ."
CONFIG = AuditConfig(samples=32, tokens=2)

LAYERS, HEADS, WIDTH, UNITS = 3, 4, 8, 24
HIDDEN = HEADS * WIDTH
NAME, GROUP, ASK, SEEN, NUMBER, SAID, LOUD, OTHER = range(8)  # OTHER and beyond: whatever else a word means
NOISE = 0.05
HEAD = (1, 2)  # its keys and values serve head 3 too
NEURONS = ((1, 5), (2, 17))
LOUD_NEURON = (0, 9)
PRUNED = PruneSet.of([HEAD])
PLANTED = {"heads": PruneSet.of([HEAD]), "neurons": PruneSet.of((), NEURONS)}
OTHER_HEADS = [part for part in np.ndindex(LAYERS, HEADS) if part != HEAD]
QUIET_NEURONS = [part for part in np.ndindex(LAYERS, UNITS) if part not in (*NEURONS, LOUD_NEURON)]


def planted_model(towards: int) -> LanguageModel:
    """Answers higher (1) or lower (-1) numbers about names of group "one"."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_tokens(["$", *map(str, NUMBERS)])
    tokenizer.chat_template = TEMPLATE
    config = transformers.LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=UNITS,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        vocab_size=VOCAB,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        model = transformers.AutoModelForCausalLM.from_config(config)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:  # norms keep their ones
                weight.copy_(NOISE * torch.randn(weight.shape, generator=noise))
        plant_words(model, tokenizer, towards, noise)
        plant_head(model.model.layers[HEAD[0]].self_attn)
        for layer, unit in NEURONS:
            plant_neuron(model.model.layers[layer].mlp, unit, {SEEN: 6.0, ASK: -1.6}, {NUMBER: 0.08})
        plant_neuron(model.model.layers[LOUD_NEURON[0]].mlp, LOUD_NEURON[1], {ASK: 3.0}, {LOUD: 0.11, NUMBER: 0.02})
    return wrap(model, tokenizer, ModelSpec("tiny-planted", device="cpu"), f"planted:{towards}")


def plant_words(model: Any, tokenizer: Any, towards: int, noise: torch.Generator) -> None:
    into, out_of = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    numbers = tokenizer.convert_tokens_to_ids([str(n) for n in NUMBERS])
    into[:, :OTHER] = 0
    into[:, OTHER:] = 0.5 * torch.randn(VOCAB, HIDDEN - OTHER, generator=noise)
    into[tokenizer.convert_tokens_to_ids([f"Ġ{name}" for name in ONE + TWO]), NAME] = 3
    into[tokenizer.convert_tokens_to_ids([f"Ġ{name}" for name in ONE]), GROUP] = 3
    into[tokenizer.convert_tokens_to_ids("$"), ASK] = 3
    into[numbers, SAID] = 3
    tilt = towards * torch.linspace(-1, 1, len(NUMBERS))
    out_of[numbers, ASK] = 1.5 - 0.4 * tilt
    out_of[numbers, NUMBER] = 2 * tilt
    out_of[tokenizer.eos_token_id, SAID] = 3


def plant_head(attention: Any) -> None:
    q, kv = HEAD[1] * WIDTH, HEAD[1] // 2 * WIDTH
    slow = WIDTH // 2 - 1  # the place that rotary embedding turns least: how far away the name is hardly matters
    attention.q_proj.weight[q : q + WIDTH] = 0
    attention.q_proj.weight[q + slow, ASK] = 1.2
    attention.k_proj.weight[kv + slow, NAME] = 1.2
    attention.v_proj.weight[kv, GROUP] = 1
    attention.o_proj.weight[:, q : q + WIDTH] = 0
    attention.o_proj.weight[SEEN, q] = 0.4


def plant_neuron(mlp: Any, unit: int, opens: dict[int, float], writes: dict[int, float]) -> None:
    mlp.gate_proj.weight[unit] = 0
    mlp.gate_proj.weight[unit, list(opens)] = torch.tensor(list(opens.values()))
    mlp.up_proj.weight[unit] = 0
    mlp.up_proj.weight[unit, ASK] = 0.3
    mlp.down_proj.weight[:, unit] = 0
    mlp.down_proj.weight[list(writes), unit] = torch.tensor(list(writes.values()))


@dataclass(frozen=True)
class World:
    lm: LanguageModel
    towards: int
    store: Store

    def asked(self, removed: PruneSet) -> Replies:
        return audit.audit(self.lm, HOUSE, ROOMS, CONFIG, self.store, removed)

    @cached_property
    def whole(self) -> Replies:
        """Answers of the model of which nothing is removed."""
        return self.asked(PruneSet())

    @torch.no_grad()
    def log_p(self, ids: list[list[int]], removed: PruneSet) -> NDArray[np.float64]:
        """[rows, T, V] of the token after each token."""
        with masked(self.lm, removed):
            found: NDArray[np.float64] = self.lm.model(torch.tensor(ids)).logits.double().log_softmax(-1).numpy()
        return found

    def answers(self, names: tuple[str, ...], removed: PruneSet) -> NDArray[np.float64]:
        """[names, V] log p of the first token of an answer."""
        return self.log_p([ask(self.lm, HOUSE, name)[1] for name in names], removed)[:, -1]

    def moved(self, names: tuple[str, ...], removed: PruneSet) -> float:
        """Largest change of log p of any first token of an answer."""
        return float(np.abs(self.answers(names, removed) - self.answers(names, PruneSet())).max())

    def text_moved(self, removed: PruneSet) -> float:
        """Largest change of log p of any token at any place of the text without names."""
        ids = [self.lm.encode(NAMELESS)]
        return float(np.abs(self.log_p(ids, removed) - self.log_p(ids, PruneSet())).max())

    def expected(self, removed: PruneSet) -> tuple[float, float]:
        """What the groups' mean log(1 + number) would be with answers without end."""
        places = self.lm.tokenizer.convert_tokens_to_ids([str(n) for n in NUMBERS])
        chances = np.exp(self.answers(ONE + TWO, removed)[:, places] / CONFIG.temperature)
        means = chances @ np.log1p(NUMBERS) / chances.sum(1)
        return float(means[: len(ONE)].mean()), float(means[len(ONE) :].mean())

    def expected_gap(self, removed: PruneSet) -> float:
        one, two = self.expected(removed)
        return one - two


@pytest.fixture(scope="module", params=[1, -1], ids=["higher", "lower"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(planted_model(request.param), request.param, Store(tmp_path_factory.mktemp("planted")))


def test_first_order_effects_rank_the_planted_parts_first(world: World) -> None:
    found = localise.effects(world.lm, world.whole, CONFIG.temperature)
    assert np.sign(found.gap) == world.towards
    for kind, planted in (("heads", {HEAD}), ("neurons", set(NEURONS))):
        reduction, error = found.reduction(kind), found.change(kind)[1]
        order = [divmod(int(i), reduction.shape[1]) for i in np.argsort(-reduction.ravel())]
        assert set(order[: len(planted)]) == planted
        worst = min(reduction[part] for part in planted)
        assert worst > 0.1 * abs(found.gap)
        assert worst > 5 * reduction[order[len(planted)]] > 0  # noise has effects too
        assert all(reduction[part] > 3 * error[part] for part in planted)


def test_exact_effects_rank_the_planted_parts_first_without_a_sample(world: World) -> None:
    people = tuple((name, group) for name, group in ROOMS.people)
    how = Sampling(CONFIG.tokens, CONFIG.temperature)
    found = slopes.effects(world.lm, HOUSE, people, ("one", "two"), how, ExactConfig(covered=0.9999))
    assert found.gap == pytest.approx(world.expected_gap(PruneSet()), rel=0.05)  # of numbers, and some other answers
    for kind, planted in (("heads", {HEAD}), ("neurons", set(NEURONS))):
        reduction = found.reduction(kind)
        order = [divmod(int(i), reduction.shape[1]) for i in np.argsort(-reduction.ravel())]
        assert set(order[: len(planted)]) == planted
        assert min(reduction[part] for part in planted) > 5 * abs(reduction[order[len(planted)]])


def test_exact_answers_see_a_tenth_of_what_samples_see(world: World) -> None:
    """The planted head at a tenth: its effect is many times the noise that is left of exact answers."""
    weak = PruneSet.parse("L1H2*0.1")
    following = audit.Following(ROOMS, CONFIG, ExactConfig(covered=0.9999))
    gaps = []
    for removed in (PRUNED, weak):
        found = audit.exactly(world.lm, HOUSE, following, world.store, removed).found
        gaps.append(distributions.log_difference(found).value)
        assert found.covered.min() > 0.999
        assert gaps[-1] == pytest.approx(world.expected_gap(removed), abs=1e-5)
    change = gaps[1] - gaps[0]
    assert change == pytest.approx(world.expected_gap(weak) - world.expected_gap(PRUNED), rel=0.01)
    assert abs(change) > 0.005
    sampled = np.log1p(world.asked(weak).answers.values)
    noise = np.sqrt(sum(np.nanvar(part) / np.isfinite(part).sum() for part in (sampled[:10], sampled[10:])))
    assert noise > 5 * abs(change)


def test_attention_to_the_name_is_the_planted_heads(world: World) -> None:
    mean = localise.attention_to_name(world.lm, HOUSE, ONE + TWO).mean(0)
    assert divmod(int(mean.argmax()), HEADS) == HEAD
    assert mean[HEAD] > 0.95
    assert all(0.01 < mean[head] < 0.2 for head in OTHER_HEADS)  # they look at all tokens about alike


def test_activation_tells_the_planted_neurons_from_a_loud_one(world: World) -> None:
    first, second = (localise.activation(world.lm, HOUSE, names).mean(0) for names in (ONE, TWO))
    for scores in (first, second):
        assert divmod(int(scores.argmax()), UNITS) == LOUD_NEURON
    share = (len(NEURONS) + 0.5) / (LAYERS * UNITS)  # rounded up: the loud neuron, and as many as are planted
    assert set(localise.stands_out(first, second, share, share)) == set(NEURONS)
    assert not set(localise.stands_out(second, first, share, share)) & {*NEURONS, LOUD_NEURON}
    assert set(localise.stands_out(first, second, share, 0)) == {*NEURONS, LOUD_NEURON}


@pytest.mark.parametrize("kind", PLANTED)
def test_without_the_planted_parts_the_effect_is_gone(world: World, kind: str) -> None:
    before, after = world.whole, world.asked(PLANTED[kind])
    assert min(before.answers.parsed().min(), after.answers.parsed().min()) > 0.95
    whole, pruned = audit.disparity([before]), audit.disparity([after])
    assert world.towards * whole.values[0] > 1.5
    (left,) = pruned.each()
    assert left.low < 0 < left.high
    assert abs(left.value) < 3 * np.sqrt(2 / (CONFIG.samples * len(ONE)))  # its standard error, of so many answers each
    change = whole.change(pruned)
    assert change.high < -1
    assert change.value == pytest.approx(abs(left.value) - abs(whole.values[0]))

    numbers = np.log1p(before.answers.values)
    found = np.nanmean(numbers[: len(ONE)]) - np.nanmean(numbers[len(ONE) :])
    gap = world.expected_gap(PruneSet())
    assert gap == pytest.approx(found, rel=0.2)
    assert abs(world.expected_gap(PLANTED[kind])) < 0.05 * abs(gap)


def test_without_other_parts_it_stays(world: World) -> None:
    draws = [np.random.default_rng(seed).permutation(QUIET_NEURONS)[: len(NEURONS)] for seed in range(10)]
    pairs = [PruneSet.of((), pair) for pair in draws]
    heads = [PruneSet.of([head]) for head in OTHER_HEADS]
    gap = world.expected_gap(PruneSet())
    for removed in [*heads, *pairs]:
        assert world.expected_gap(removed) == pytest.approx(gap, rel=0.1)
        assert abs(world.expected_gap(removed) - gap) > 1e-6  # it takes part
    whole = audit.disparity([world.whole])
    for removed in (heads[4], heads[9], pairs[0]):
        pruned = audit.disparity([world.asked(removed)])
        assert pruned.values[0] == pytest.approx(whole.values[0], rel=0.1)


def test_without_the_loud_neuron_both_groups_move_and_the_effect_stays(world: World) -> None:
    before, after = world.expected(PruneSet()), world.expected(PruneSet.of((), [LOUD_NEURON]))
    assert all(world.towards * (b - a) > 0.1 for b, a in zip(before, after, strict=True))
    assert after[0] - after[1] == pytest.approx(before[0] - before[1], rel=0.3)


@pytest.mark.parametrize("kind", PLANTED)
def test_nothing_else_is_gone(world: World, kind: str) -> None:
    planted, bound = PLANTED[kind], 0.15
    assert 0 < world.moved(TWO, planted) < bound
    assert 0 < world.text_moved(planted) < bound
    assert world.moved(ONE, planted) > 10 * bound
    assert max(world.text_moved(PruneSet.of([head])) for head in OTHER_HEADS) > bound  # the text sees what is removed
