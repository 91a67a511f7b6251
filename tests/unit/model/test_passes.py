"""Too little memory, and numbers that are none: each path against itself with all the memory that it wants."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasp_core.data.text import TextConfig, TokenWindows, token_windows
from fasp_core.export import checking
from fasp_core.forward.ablation import masked
from fasp_core.forward.attention import pattern
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.forward.sampling import GenerationConfig, sample_ids
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.expected import measure_expected
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter, meter
from fasp_core.metrics.perplexity import measure_nll
from fasp_core.metrics.token_toxicity import completions
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import OutOfMemory, is_out_of_memory, two
from fasp_core.model.packing import pack_equal
from fasp_core.model.passes import NotFinite, in_halves
from fasp_core.scoring.baselines import gradient, magnitude
from fasp_core.scoring.estimate import first_order_rows
from fasp_core.scoring.exact import bias_impacts, ppl_impacts
from fasp_core.scoring.pool import pool
from fasp_core.scoring.preview import gauss_newton
from fasp_core.storage.store import Store
from fasp_core.studies.contexts.localise import log_p_gradients
from fasp_core.studies.robustness.likelihood import Sentences, log_likelihood_effects, log_likelihoods
from tests.support.tiny import HEADS, tiny_lm, tiny_text, token_rows

LAYERS = 3
REMOVED = PruneSet.of([(0, 1), (2, 3)])
ERRORS: dict[str, BaseException] = {  # what the allocators of torch and NumPy say
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free."),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB, max allowed: 9.07 GB)."),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "windows": RuntimeError(
        "[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."
    ),
    "numpy": MemoryError("Unable to allocate 4.00 GiB for an array"),
}


class Room:
    """Watches what goes into the blocks of a model, and refuses more than `most` tokens in one pass."""

    def __init__(self, lm: LanguageModel, most: int | None = None, error: BaseException = ERRORS["cuda"]) -> None:
        self.most, self.error = most, error
        self.sizes: list[int] = []
        self.refused = 0
        for block in lm.blocks:
            block.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, _block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        size = hidden.shape[0] * hidden.shape[1]
        if self.most is not None and size > self.most:
            self.refused += 1
            raise self.error
        self.sizes.append(size)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Looking through all objects for what a failed pass left takes a while, and tiny models leave next to nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fasp_core.model.passes.free", lambda: None)
        patch.setattr("fasp_core.metrics.cached_runner.free", lambda: None)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    (folder / "text.txt").write_text(tiny_text(260))
    people, ends = ("person", "man", "woman", "friend"), ("kind", "bad", "ugly", "tall", "young")
    rows = [f"The {group} {who} is {end}.,{group}" for group in ("red", "old") for who in people for end in ends]
    (folder / "axis.csv").write_text("text,group\n" + "\n".join(rows) + "\n")
    return folder


def axis(place: Path, **more: Any) -> BiasConfig:
    return BiasConfig(str(place / "axis.csv"), split="all", n_prompts=40, **more)


def text(place: Path) -> TextConfig:
    return TextConfig(str(place / "text.txt"), tokens=240, window=40, stride=40)


def gauge(lm: LanguageModel, place: Path) -> ExpectedMeter:
    found = meter(lm, axis(place), Store(place / "words"))
    assert isinstance(found, ExpectedMeter)
    return found


def windows(lm: LanguageModel, place: Path) -> TokenWindows:
    return token_windows(lm, text(place))


def sampled(lm: LanguageModel, place: Path) -> Any:
    prompts = ["The red man is", "My old friend is", "The tall woman was", "I saw the"]
    return sample_ids(lm, prompts, GenerationConfig(samples=5, tokens=6))


def on_a_desk(lm: LanguageModel, place: Path) -> Any:
    runner, g, text = CachedRunner(lm), gauge(lm, place), windows(lm, place)
    rows = [runner.expected(g.packs, g.worth, heads) for heads in (PruneSet(), REMOVED, PruneSet.of([(2, 0)]))]
    sums = [runner.nll(text, heads).sums for heads in (PruneSet(), REMOVED)]
    return np.concatenate([np.ravel(x) for x in (*rows, *sums)])


def sentences() -> Sentences:
    rows = [[1, *row] for row in token_rows(10, 7, seed=3).tolist()]
    return Sentences(rows, [np.full((2, 7), 0.5) for _ in rows])


def bias_of_heads(lm: LanguageModel, place: Path, **more: Any) -> Any:
    with tempfile.TemporaryDirectory() as cache:
        return bias_impacts(lm, axis(place, **more), Store(cache)).ablated


def ppl_of_heads(lm: LanguageModel, place: Path) -> Any:
    with tempfile.TemporaryDirectory() as cache:
        found = ppl_impacts(lm, text(place), Store(cache))
    return np.concatenate([found.sums.ravel(), found.gradient])


def pooled(lm: LanguageModel, place: Path) -> Any:
    generation = GenerationConfig(samples=2, tokens=4)
    with tempfile.TemporaryDirectory() as cache:
        return pool(lm, axis(place, measure="sampled", generation=generation), Store(cache)).log_ratios


def answers(lm: LanguageModel, place: Path) -> Any:
    rows = token_rows(6, 4, seed=5).tolist()
    return np.concatenate([np.ravel(x) for x in log_p_gradients(lm, [1, 2, 3], rows, [1.0, -2, 3, 1, 1, 2], 0.7)])


PATHS: dict[str, Callable[[LanguageModel, Path], Any]] = {
    "perplexity": lambda lm, place: measure_nll(lm, windows(lm, place), rows=4).sums,
    "expected": lambda lm, place: measure_expected(lm, gauge(lm, place).packs, gauge(lm, place).worth),
    "expected, equal lengths": lambda lm, place: measure_expected(
        lm, pack_equal(gauge(lm, place).rows), gauge(lm, place).worth
    ),
    "sampled": sampled,
    "desk": on_a_desk,
    "sweep of perplexity": ppl_of_heads,
    "sweep of bias": bias_of_heads,
    "sweep of sampled bias": lambda lm, place: bias_of_heads(
        lm, place, measure="sampled", generation=GenerationConfig(samples=2, tokens=3)
    ),
    "first order": lambda lm, place: np.concatenate([np.ravel(x) for x in first_order_rows(lm, gauge(lm, place))]),
    "preview": lambda lm, place: gauss_newton(lm, windows(lm, place), rows=4).z_nats,
    "pool": pooled,
    "sentences": lambda lm, place: log_likelihoods(lm, sentences()),
    "effects on sentences": lambda lm, place: log_likelihood_effects(lm, sentences())[1],
    "answers": answers,
    "words": lambda lm, place: [p for p, _ in completions(lm, "The", [8, 9, 10, 11], {8: "a", 9: "b"})],
}
WHOLE = {"words"}  # divided by their caller, and last
LONG = {"sweep of sampled bias", "pool", "effects on sentences"}
RUNS = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in PATHS]


@pytest.mark.parametrize("path", RUNS[:-1])
def test_half_the_memory_gives_the_same_numbers(place: Path, path: str) -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    room = Room(lm)
    gauge(lm, place)  # the worth of words is measured once
    room.sizes.clear()
    wanted = np.asarray(PATHS[path](lm, place), dtype=np.float64)
    room.most = max(room.sizes) // 2
    found = np.asarray(PATHS[path](lm, place), dtype=np.float64)
    assert room.refused > 0
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-6)
    assert all(not m._forward_pre_hooks for m in map(lm.out_proj, range(LAYERS)))


@pytest.mark.parametrize("path", RUNS)
def test_no_memory_at_all_ends_in_a_sentence(place: Path, path: str) -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    gauge(lm, place)
    room = Room(lm, most=0)
    run, said = PATHS[path], r"not enough memory on cpu for even .*: load the model in bfloat16, take shorter texts"
    if path in WHOLE:
        run = lambda lm, _place: in_halves(lm, lambda ids: PATHS[path](lm, place), [8, 9], two, "a word")  # noqa: E731
    with pytest.raises(OutOfMemory, match=said):
        run(lm, place)
    assert room.refused > 0
    assert lm.lock.acquire(timeout=1)
    lm.lock.release()


@pytest.mark.parametrize("kind", ERRORS)
def test_every_allocator_is_understood(place: Path, kind: str) -> None:
    lm = tiny_lm("gpt2", n_layers=LAYERS)
    wanted = measure_nll(lm, windows(lm, place), rows=4)
    room = Room(lm, 80, ERRORS[kind])
    found = measure_nll(lm, windows(lm, place), rows=4)
    assert room.refused == 1  # of six windows of 40 tokens, four and then two at a time
    np.testing.assert_allclose(found.sums, wanted.sums, rtol=1e-5)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_pass_through(place: Path, error: BaseException) -> None:
    lm = tiny_lm("gpt2", n_layers=LAYERS)
    assert not is_out_of_memory(error)
    room = Room(lm, 0, error)
    with pytest.raises(type(error)):
        measure_nll(lm, windows(lm, place))
    assert room.refused == 1


def test_a_desk_gives_up_what_it_keeps_before_it_divides(place: Path) -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    g, runner = gauge(lm, place), CachedRunner(lm)
    before = runner.expected(g.packs, g.worth, PruneSet())
    assert runner._groups
    budget, room = runner.budget, Room(lm)
    largest = max(p.ids.numel() for p in g.packs)
    failed: list[int] = []

    def once(*_: Any) -> None:  # as where the states that are kept take the room
        if not failed:
            failed.append(1)
            raise ERRORS["mps"]

    handle = lm.blocks[-1].register_forward_pre_hook(once)
    np.testing.assert_array_equal(runner.expected(g.packs, g.worth, PruneSet()), before)
    handle.remove()
    assert (failed, max(room.sizes), runner.budget) == ([1], largest, budget // 2)
    np.testing.assert_array_equal(runner.expected(g.packs, g.worth, PruneSet()), before)


def test_a_sweep_stays_divided(place: Path) -> None:
    """A batch that did not fit for one head is not tried whole for the next."""
    lm = tiny_lm("llama", n_layers=LAYERS)
    g = gauge(lm, place)
    room = Room(lm, most=max(p.ids.numel() for p in g.packs) - 1)
    bias_of_heads(lm, place)
    assert room.refused <= 2 * len(g.packs)  # once each in the sweep, not once for each of 12 heads


def test_export_is_timed_on_the_rows_that_fit() -> None:
    lm, other = tiny_lm("llama"), tiny_lm("llama", seed=1)
    Room(lm, 2 * checking.LENGTH)
    timed = checking.speed(lm, other.model, lambda *_: None)
    assert (timed.batch, timed.length) == (2, checking.LENGTH)
    Room(lm, 0)
    with pytest.raises(OutOfMemory, match="a row of tokens"):
        checking.speed(lm, other.model, lambda *_: None)
    with pytest.raises(OutOfMemory, match="a comparison of both models"):
        checking.largest_difference(lm, other.model, PruneSet(), [[1, 2]], lambda *_: None)


def test_attention_that_does_not_fit() -> None:
    lm = tiny_lm("gpt2")
    Room(lm, 0)
    with pytest.raises(OutOfMemory, match="the attention of a single prompt"):
        pattern(lm, "The red man", 0)
    assert lm.model.config._attn_implementation != "eager"


# numbers that are none


@contextmanager
def broken(lm: LanguageModel, block: int, value: float = float("nan")) -> Iterator[None]:
    """One weight of a block's MLP is no number."""
    weight = lm.mlp_out(block).weight
    before = weight.data[0, 0].clone()
    weight.data[0, 0] = value
    try:
        yield
    finally:
        weight.data[0, 0] = before


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
@pytest.mark.parametrize("path", RUNS)
def test_a_broken_weight_is_named_on_every_path(place: Path, path: str, value: float) -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    gauge(lm, place)
    with broken(lm, 1, value), pytest.raises(NotFinite) as caught:
        PATHS[path](lm, place)
    said = str(caught.value)
    assert said.startswith("tiny-llama in float32 gave numbers that are not finite in ")
    assert "block 1" in said
    assert "weights may be damaged" in said
    PATHS[path](lm, place)  # no false alarm, and nothing broken was kept


def test_the_heads_that_were_off_are_named(place: Path) -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    with broken(lm, 2), masked(lm, PruneSet()), pytest.raises(NotFinite, match="first in block 2: its weights"):
        measure_nll(lm, windows(lm, place))
    with broken(lm, 2), pytest.raises(NotFinite, match="the NLL of a text, first in block 2, with L0H1,L2H3 removed: "):  # noqa: SIM117
        with masked(lm, REMOVED):
            measure_nll(lm, windows(lm, place))
    everything = PruneSet.of((layer, head) for layer in range(9) for head in range(0, HEADS, 2))
    said = str(NotFinite("x", "y").under(everything.format()))
    assert len(said) < 120
    assert "and others removed" in said


def test_a_head_that_alone_makes_the_numbers_finite(place: Path) -> None:
    """Removed, a head does no harm: its input is multiplied by 0, but NaN times 0 is NaN, and that is said."""
    lm = tiny_lm("llama", n_layers=LAYERS)
    lm.out_proj(1).weight.data[0, 0] = float("inf")
    with pytest.raises(NotFinite, match="first in block 1, with L1H0 removed"), masked(lm, PruneSet.of([(1, 0)])):
        measure_nll(lm, windows(lm, place))


def test_float16_that_overflows_is_told_of_its_mend(place: Path) -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    lm.mlp_out(1).weight.data *= 3e5
    assert np.isfinite(measure_nll(lm, windows(lm, place)).sums).all()  # float32 has room for it
    lm.model.to(torch.float16)
    with pytest.raises(NotFinite, match=r"in float16 .* in block 1: load it in float32 or bfloat16"):
        measure_nll(lm, windows(lm, place))
    lm.model.to(torch.bfloat16)
    with pytest.raises(NotFinite, match=r"in bfloat16 .*: load it in float32"):
        measure_nll(lm, windows(lm, place))  # what float16 made infinite stays so


def test_weights_attention_and_embeddings_that_are_no_numbers(place: Path) -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    lm.out_proj(1).weight.data[0, 9] = float("nan")
    with pytest.raises(NotFinite, match="the weights of L1H1: "):
        magnitude(lm)
    lm = tiny_lm("llama", n_layers=LAYERS)
    lm.model.get_input_embeddings().weight.data[:, 0] = float("inf")
    with pytest.raises(NotFinite, match="the attention of layer 0, before the first block: "):
        pattern(lm, "The red man", 0)
    with pytest.raises(NotFinite, match="the log-probability of a text, before the first block"):
        gradient(lm, windows(lm, place))
    lm = tiny_lm("llama", n_layers=LAYERS)
    lm.model.lm_head.weight.data[3] = float("nan")
    with pytest.raises(NotFinite, match="the logits of a continuation, after the last block"):
        sampled(lm, place)


def test_nothing_that_is_no_number_is_stored(place: Path, tmp_path: Path) -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    store = Store(tmp_path)
    with broken(lm, 1), pytest.raises(NotFinite):
        ppl_impacts(lm, text(place), store)
    assert not store.entries("scores")
    assert np.isfinite(ppl_impacts(lm, text(place), store).sums).all()


def test_checks_cost_no_pass(place: Path) -> None:
    lm = tiny_lm("llama", n_layers=LAYERS)
    packs = [p for p in pack_equal(gauge(lm, place).rows)]
    room = Room(lm)
    for p in packs:
        final_hidden(lm, p)
    plain = len(room.sizes)
    room.sizes.clear()
    measure_expected(lm, packs, gauge(lm, place).worth)
    assert len(room.sizes) == plain
