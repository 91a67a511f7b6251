"""Classifiers of texts as scorers: against transformers' own pipeline, with labels, limits and files of many kinds."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fasp_core.data import classifiers, scorers
from fasp_core.errors import InputError
from fasp_core.metrics.meters import scorer_for

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


def test_scores_that_are_no_numbers_are_told_and_not_kept(save: Save, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save()
    held = load_file(folder / "model.safetensors")
    held["bert.embeddings.word_embeddings.weight"][WORDS.index("bad")] = float("nan")
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    cached = scorers.CachedScorer(scorers.make_scorer(str(folder)), tmp_path / "kept")
    assert cached.score(["you", "dogs"]).size == 2
    with pytest.raises(InputError, match=rf"not finite numbers \({folder.name} label toxic .*, on cpu\)"):
        cached.score(["the dog", "you are bad"])
    with sqlite3.connect(tmp_path / "kept" / "scores.sqlite") as store:
        assert store.execute("SELECT count(*) FROM scores").fetchone() == (2,)
    store.close()


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
