"""Scorers against the packages behind them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fasp_core.data import classifiers, scorers
from fasp_core.errors import InputError
from fasp_core.metrics.meters import scorer_for


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


# classifiers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "you", "are", "kind", "bad", "dog", "##s", "the", "runs"]
TEXTS = ["you are bad", "the dog runs", "dogs", "you", "the kind dogs are bad bad bad", "what ?"]
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a tiny seeded classifier and returns its folder."""
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertModel,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    def write(
        labels: Sequence[str] = ("toxic", "insult", "threat"),
        problem: str | None = "multi_label_classification",
        seed: int = 0,
        kind: str = "bert",
        **options: Any,
    ) -> Path:
        torch.manual_seed(seed)
        tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        folder = tmp_path / f"{kind}-{seed}"
        options = {"pad_token": "[PAD]", "unk_token": "[UNK]", **options}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options).save_pretrained(folder)
        shape: dict[str, Any] = {
            "vocab_size": len(WORDS),
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "max_position_embeddings": 12,
            "pad_token_id": 0,
            "initializer_range": 1.0,
        }
        answers = {"id2label": dict(enumerate(labels)), "problem_type": problem, **shape}
        model = {
            "bert": lambda: BertForSequenceClassification(BertConfig(**answers)),
            "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**answers)),
            "headless": lambda: BertModel(BertConfig(**shape)),
        }[kind]()
        model.save_pretrained(folder)
        return folder

    return write


@pytest.mark.parametrize(
    ("labels", "problem", "label", "reading"),
    [
        (["insult", "toxic", "threat"], "multi_label_classification", "toxic", "sigmoid"),
        (["neutral", "Toxic"], None, "Toxic", "softmax"),
        (["neutral", "hate", "other"], "single_label_classification", "hate", "softmax"),
        (["LABEL_0"], None, "LABEL_0", "sigmoid"),
    ],
)
def test_classifier_agrees_with_the_pipeline(
    save: Save, labels: list[str], problem: str | None, label: str, reading: str
) -> None:
    from transformers import pipeline

    folder = save(labels, problem)
    ask = None if label.lower() == "toxic" else label.upper()
    scorer = scorers.make_scorer(str(folder), ask, batch_size=4)
    classify: Any = pipeline("text-classification", model=str(folder), top_k=None, device="cpu")
    answers = classify(TEXTS)
    expected = [{a["label"]: a["score"] for a in answer}[label] for answer in answers]
    np.testing.assert_allclose(scorer.score(TEXTS), expected, atol=1e-6)
    assert np.ptp(expected) > 0.01  # the texts do differ
    assert f"{folder.name} label {label} ({reading}) @" in scorer.name


def test_batches_do_not_matter(save: Save) -> None:
    folder = str(save())
    texts = [*TEXTS * 3, ""]
    one, many = (scorers.ClassifierScorer(folder, batch_size=size) for size in (1, 7))
    np.testing.assert_allclose(one.score(texts), many.score(texts), atol=1e-6)
    np.testing.assert_allclose(many.score(texts[::-1]), many.score(texts)[::-1], atol=1e-6)
    np.testing.assert_array_equal(many.score(["", " "]), many.score([".", "."]))


@pytest.mark.parametrize(("kind", "room"), [("bert", 12), ("roberta", 11)])  # RoBERTa's padding takes one place
def test_long_texts_are_cut_at_the_models_room(save: Save, kind: str, room: int) -> None:
    scorer = scorers.ClassifierScorer(str(save(kind=kind)))
    cut, short = ("dog " * (room - 1) + "you", "dog " * (room - 2) + "you")
    scores = scorer.score([cut + " are kind" * 20, cut, short])
    assert scores[0] == pytest.approx(scores[1], abs=1e-7)
    assert abs(scores[1] - scores[2]) > 1e-4


def test_a_tokenizers_own_limit_is_kept(save: Save) -> None:
    scorer = scorers.ClassifierScorer(str(save(model_max_length=3)))
    scores = scorer.score(["the dog runs bad", "the dog runs", "the dog"])
    assert scores[0] == pytest.approx(scores[1], abs=1e-7)
    assert abs(scores[1] - scores[2]) > 1e-4


def test_without_padding_texts_go_one_by_one(save: Save) -> None:
    padded = scorers.ClassifierScorer(str(save()))
    scorer = scorers.ClassifierScorer(str(save(pad_token=None)))
    np.testing.assert_allclose(scorer.score(TEXTS), padded.score(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "label", "chosen"),
    [
        (["severe_toxicity", "toxicity", "toxic"], None, "toxicity"),
        (["non-toxic", "toxic"], None, "toxic"),
        (["clean", "TOXIC_CONTENT"], None, "TOXIC_CONTENT"),
        (["toxic", "Insult"], "insult", "Insult"),
    ],
)
def test_label_is_found(save: Save, labels: list[str], label: str | None, chosen: str) -> None:
    assert f" label {chosen} (" in scorers.ClassifierScorer(str(save(labels)), label).name


@pytest.mark.parametrize(
    ("labels", "label"), [(["LABEL_0", "LABEL_1"], None), (["toxic", "fine"], "rude"), (["nontoxic"], None)]
)
def test_missing_label_is_an_input_error_that_lists_the_labels(
    save: Save, labels: list[str], label: str | None
) -> None:
    with pytest.raises(InputError, match=", ".join(labels)):
        scorers.ClassifierScorer(str(save(labels)), label)


def test_name_follows_the_weights(save: Save) -> None:
    first, second = (scorers.ClassifierScorer(str(save(seed=seed))).name for seed in (0, 1))
    again = scorers.ClassifierScorer(str(save(seed=0))).name
    assert first == again
    assert first.split("@")[1] != second.split("@")[1]


def test_unusable_classifiers_are_input_errors(save: Save, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a folder nor a hub id"):
        scorers.make_scorer(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="lacks trained weights"):
        scorers.make_scorer(str(save(kind="headless")))
    with pytest.raises(InputError, match="unbounded"):
        scorers.make_scorer(str(save(["toxic"], "regression")))


def test_a_loaded_classifier_does_not_change_with_its_file(save: Save) -> None:
    scorer = scorers.ClassifierScorer(str(folder := save()))
    before = scorer.score(TEXTS)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-4000, os.SEEK_END)
        file.write(b"\0" * 4000)
    np.testing.assert_array_equal(scorer.score(TEXTS), before)
    assert scorers.ClassifierScorer(str(folder)).name != scorer.name


def test_a_folder_is_loaded_again_when_its_files_change(save: Save) -> None:
    folder = save()
    first = scorer_for(str(folder))
    assert scorer_for(str(folder)) is first
    save(seed=1).joinpath("model.safetensors").replace(folder / "model.safetensors")
    assert scorer_for(str(folder)).name == scorers.make_scorer(str(folder)).name != first.name


def test_a_classifier_that_changes_while_it_is_loaded(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, digest = save(), classifiers._digest

    def digest_and_change(of: Path) -> str:
        found = digest(of)
        (of / "config.json").write_text((of / "config.json").read_text() + " ")
        return found

    monkeypatch.setattr(classifiers, "_digest", digest_and_change)
    with pytest.raises(InputError, match="were changed meanwhile"):
        scorers.ClassifierScorer(str(folder))


def test_pickled_weights_are_refused(save: Save) -> None:
    import torch
    from safetensors.torch import load_file

    folder = save()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        scorers.ClassifierScorer(str(folder))


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
