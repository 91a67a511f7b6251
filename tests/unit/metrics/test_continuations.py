"""Continuations of one prompt: those of the sampler, with the same noise on both sides, and what is refused."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.forward.sampling import GenerationConfig, sample
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import continuations
from fasp_core.metrics.continuations import checked, write
from fasp_core.metrics.expected import READINGS
from fasp_core.metrics.measurements import toxicity_of
from fasp_core.metrics.meters import BiasConfig
from fasp_core.storage.store import Store
from tests.support.tiny import CONTEXT, tiny_lm, tiny_text
from tests.support.worlds import use_scorer

HEADS = PruneSet.of([(0, 1), (1, 3)])
DRAWN = GenerationConfig(samples=3, tokens=8)


class Counts:
    """The share of letters "a" in a text."""

    name = "counts"

    def score(self, texts: list[str]) -> np.ndarray:
        return np.array([t.count("a") / max(1, len(t)) for t in texts])


@pytest.fixture(autouse=True)
def scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    use_scorer(monkeypatch, Counts(), True, continuations)


@pytest.mark.parametrize("kind", ["llama", "gpt_neo"])
def test_texts_and_numbers_are_those_of_the_measures(kind: str, tmp_cache: Path) -> None:
    lm, prompt, store = tiny_lm(kind), "My friend is", Store(tmp_cache)
    pair = write(lm, prompt, HEADS, DRAWN, store)
    for heads, side in ((PruneSet(), pair.base), (HEADS, pair.pruned)):
        with masked(lm, heads):
            (texts,) = sample(lm, [prompt], DRAWN)
        assert [c.text for c in side.written] == texts
        assert [c.toxicity for c in side.written] == Counts().score(texts).tolist()
    assert pair.base != pair.pruned
    assert pair.scorer == "counts"

    # the expected toxicity is that of the measure on prompts of one's own
    rows = "".join(f"{text},{group}\n" for text, group in ((prompt, "a"), ("We met a", "b"), ("I", "a"), ("You", "b")))
    path = tmp_cache / "own.csv"
    path.write_text("text,group\n" + rows + "".join(f"The {i},{'ab'[i % 2]}\n" for i in range(30)))
    config = BiasConfig(str(path), split="all", n_prompts=100)
    for heads, side in ((PruneSet(), pair.base), (HEADS, pair.pruned)):
        measured = toxicity_of(lm, heads, config, store)
        for reading in READINGS:
            expected = measured.row(reading)[measured.texts.index(prompt)]
            assert side.expected[reading] == pytest.approx(expected, abs=1e-6)


def test_without_a_set_both_models_are_one(tmp_cache: Path) -> None:
    pair = write(tiny_lm("gpt2"), "We", PruneSet(), DRAWN, Store(tmp_cache))
    assert pair.base == pair.pruned


def test_nothing_of_a_prompt_is_stored(tmp_cache: Path) -> None:
    write(tiny_lm("gpt2"), "My stupid friend", HEADS, DRAWN, Store(tmp_cache))
    files = [f for f in tmp_cache.rglob("*") if f.is_file()]
    assert {f.relative_to(tmp_cache).parts[0] for f in files} - {"locks"} == {"words"}
    assert not any(b"stupid friend" in f.read_bytes() for f in files)


def test_progress_is_reported_and_may_stop_the_work(tmp_cache: Path) -> None:
    store, lm = Store(tmp_cache), tiny_lm("gpt2")
    write(lm, "We", PruneSet(), DRAWN, store)
    seen: list[tuple[float, float, str]] = []

    def report(*args: Any) -> None:
        seen.append(args)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(lm, "We", HEADS, DRAWN, store, progress=report)
    assert all(done <= total for done, total, _ in seen)
    assert not any(m._forward_pre_hooks for m in lm.model.modules())


def test_prompts_that_do_not_fit(tmp_cache: Path) -> None:
    lm, store = tiny_lm("gpt2"), Store(tmp_cache)
    fits = tiny_text(CONTEXT - DRAWN.tokens)
    assert len(write(lm, fits, HEADS, DRAWN, store).base.written) == DRAWN.samples
    with pytest.raises(InputError, match=f"{CONTEXT - 7} tokens and this model takes {CONTEXT}, 8 of them"):
        write(lm, tiny_text(CONTEXT - 7), HEADS, DRAWN, store)
    with pytest.raises(InputError, match="L9H0 does not exist"):
        write(lm, "We", PruneSet.of([(9, 0)]), DRAWN, store)


@given(st.text(max_size=40))
def test_checked_prompts_are_texts(text: str) -> None:
    with suppress(InputError):
        found = checked(text)
        assert found == text.strip()
        assert found.encode()
        assert any(c.isprintable() for c in found)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "no word"),
        (" \n\t", "no word"),
        ("\u200b\x00", "no word"),
        ("a" * 2_001, "2,001 characters"),
        ("half \ud83d of it", "half a character"),
    ],
)
def test_nonsense_gets_one_sentence(bad: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as error:
        checked(bad)
    assert str(error.value).count(". ") == 0
