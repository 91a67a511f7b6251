"""Scorers against the packages behind them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fasp_core.data import scorers
from fasp_core.errors import InputError
from fasp_core.metrics.token_toxicity import WordScores


class Counting:
    """A scorer that remembers what it was asked."""

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.asked: list[list[str]] = []

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        self.asked.append(list(texts))
        return np.array([value_of(text) for text in texts])


def value_of(text: str) -> float:
    return sum(map(ord, text)) % 97 / 97


# the offline scorer


@pytest.fixture(scope="module")
def offline() -> scorers.Scorer:
    return scorers.make_scorer("offline")


def test_offline_is_the_package(offline: scorers.Scorer) -> None:
    from profanity_check import predict_prob

    texts = ["You are a stupid idiot.", "the weather is fine", "Hello\nworld", "é"]
    scores = offline.score(texts)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, predict_prob(texts))
    assert scores[0] > 0.9 > 0.2 > scores[1]
    assert offline.name.startswith("alt-profanity-check 1.")


def test_an_early_end_is_no_less_toxic_than_an_unknown_word(offline: scorers.Scorer) -> None:
    assert offline.score([]).shape == (0,)
    scores = offline.score(["", "shit", " \n", "zxqv"])
    assert scores[0] == scores[2] == scores[3] > 0
    assert scores[1] > 0.9


def test_offline_scorer_dislikes_some_identity_words(offline: scorers.Scorer) -> None:
    found = scorers.scorer_self_bias(offline, ["straight", "gay"])
    assert [word for word, _ in found] == ["straight", "gay"]
    assert found[0][1] < 0.1 < 0.6 < found[1][1]


def test_offline_has_no_labels() -> None:
    with pytest.raises(InputError, match="label"):
        scorers.make_scorer("offline", label="toxic")


def test_self_bias_asks_one_neutral_sentence_a_word() -> None:
    scorer = Counting()
    assert scorers.scorer_self_bias(scorer, ["tall"]) == [("tall", value_of("My friend is a tall person."))]


# the cache


@given(st.lists(st.lists(st.text(max_size=4), max_size=8), max_size=4))
@example([["half a character: \ud800"]])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cache_changes_no_score_and_asks_once(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    inner, reader = Counting(), Counting()
    cached = scorers.CachedScorer(inner, folder)
    for texts in batches:
        assert cached.score(texts).tolist() == [value_of(text) for text in texts]
    asked = [text for call in inner.asked for text in call]
    assert len(asked) == len(set(asked)) == len({text for texts in batches for text in texts})
    later = scorers.CachedScorer(reader, folder)
    assert later.score(asked).tolist() == [value_of(text) for text in asked]
    assert reader.asked == []


def test_cache_keeps_scorers_apart(tmp_path: Path) -> None:
    other = Counting("another")
    scorers.CachedScorer(Counting(), tmp_path).score(["a"])
    scorers.CachedScorer(other, tmp_path).score(["a"])
    assert other.asked == [["a"]]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers, "MEMORY", 5)
    inner = Counting()
    cached = scorers.CachedScorer(inner)
    for start in range(0, 40, 3):
        texts = [str(i) for i in range(start, start + 3)]
        assert cached.score(["0", *texts]).tolist() == [value_of(t) for t in ["0", *texts]]
        assert len(cached._memory) <= 5
    assert cached.score([str(i) for i in range(9)]).size == 9
    assert len(cached._memory) <= 5


def test_cache_holds_more_texts_than_one_query_may(tmp_path: Path) -> None:
    texts = [str(i) for i in range(1234)]
    scorers.CachedScorer(Counting(), tmp_path).score(texts)
    reader = Counting()
    assert scorers.CachedScorer(reader, tmp_path).score(texts).tolist() == [value_of(t) for t in texts]
    assert reader.asked == []


@pytest.mark.parametrize("damage", [b"this is no database" * 99, None])
def test_damaged_store_is_set_aside(tmp_path: Path, damage: bytes | None) -> None:
    file = tmp_path / "scores.sqlite"
    scorers.CachedScorer(Counting(), tmp_path).score([str(i) for i in range(500)])
    whole = file.read_bytes()
    file.write_bytes(damage or whole[:100] + b"\xff" * (len(whole) - 100))
    cached = scorers.CachedScorer(Counting(), tmp_path)
    with pytest.warns(UserWarning, match=r"set aside as scores\.damaged"):
        assert cached.score(["7", "x"]).tolist() == [value_of("7"), value_of("x")]
    assert (tmp_path / "scores.damaged").exists()
    reader = Counting()
    assert scorers.CachedScorer(reader, tmp_path).score(["x"]).tolist() == [value_of("x")]
    assert reader.asked == []  # the new file works


def test_store_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="not kept"):
        scores = scorers.CachedScorer(Counting(), tmp_path / "file").score(["a"])
    assert scores.tolist() == [value_of("a")]


@pytest.mark.filterwarnings("error:.*set aside")
def test_a_text_may_be_stored_by_another_while_it_is_scored(tmp_path: Path) -> None:
    class Slow(Counting):
        def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
            scorers.CachedScorer(Counting(), tmp_path).score(texts)  # the other is faster
            return super().score(texts)

    assert scorers.CachedScorer(Slow(), tmp_path).score(["a"]).tolist() == [value_of("a")]


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    code = (
        "import sys, numpy\n"
        "from fasp_core.data.scorers import CachedScorer\n"
        "class Length:\n"
        "    name = 'length'\n"
        "    def score(self, texts): return numpy.array([len(t) / 9 for t in texts])\n"
        "first = int(sys.argv[1])\n"
        "for i in range(first, first + 60): CachedScorer(Length(), sys.argv[2]).score([str(i), str(i + 1)])\n"
    )
    root = Path(__file__).resolve().parents[3]
    both = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, first, str(tmp_path)], cwd=root)
        for first in ("0", "30")
    ]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    with sqlite3.connect(tmp_path / "scores.sqlite") as store:
        (count,) = store.execute("SELECT count(*) FROM scores").fetchone()
    store.close()
    assert count == 91  # 0 to 90, none lost, none twice


def test_any_scorer_is_asked_for_numbers() -> None:
    class Broken(Counting):
        def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
            return np.where(np.array(texts) == "the", np.nan, super().score(texts))

    for ask in (scorers.CachedScorer(Broken()).score, WordScores(Broken(), ["the", "dog"]).ask):
        with pytest.raises(InputError, match=r"not finite numbers \(counting\)"):
            ask(["dog", "the"])


# what is scored


@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), max_size=4))
def test_prompts_are_joined_only_on_demand(pairs: list[tuple[str, str]]) -> None:
    prompts, continuations = [p for p, _ in pairs], [c for _, c in pairs]
    assert scorers.join_for_scoring(prompts, continuations) == continuations
    joined = scorers.join_for_scoring(prompts, continuations, "prompt+continuation")
    assert len(joined) == len(pairs)
    assert not any("\n" in text for text in joined)
    assert joined == [text.lower() for text in joined]


def test_joining_by_example() -> None:
    assert scorers.join_for_scoring(["I am Deaf"], [" and\nHappy"], "prompt+continuation") == ["i am deaf and happy"]
    with pytest.raises(InputError, match="choose"):
        scorers.join_for_scoring(["a"], ["b"], "prompt")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 prompts do not match 1"):
        scorers.join_for_scoring(["a", "b"], ["c"])
