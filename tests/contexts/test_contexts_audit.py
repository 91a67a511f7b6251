"""Audits of tiny models: who is asked what, what is kept, and a planted difference between names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.contexts import audit, scenarios
from fasp_core.studies.contexts.audit import AuditConfig, Replies
from fasp_core.studies.contexts.chats import ask
from fasp_core.studies.contexts.scenarios import Scenario
from tests.support.contexts import FILE, instruct_lm

CONFIG = AuditConfig(samples=3, tokens=4)
WORLD = scenarios.parse(FILE, "rooms.toml")
HOUSE, TREE = WORLD.scenarios


@pytest.fixture
def lm() -> LanguageModel:
    return instruct_lm()


def test_the_chat_ends_with_the_opening(lm: LanguageModel) -> None:
    text, ids = ask(lm, HOUSE, "red")
    assert text == "We The house of red is . My$"
    assert ids == lm.tokenizer(text).input_ids


def test_everybody_is_asked_and_nothing_twice(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    first = audit.audit(lm, HOUSE, WORLD, CONFIG, store)
    assert first.people == tuple((name, group) for group in ("one", "two") for name in WORLD.groups[group])
    assert [len(row) for row in first.texts] == [3] * 7
    assert all(text.startswith("$") for row in first.texts for text in row)
    pruned = audit.audit(lm, HOUSE, WORLD, CONFIG, store, PruneSet.parse("L0H1,L1N0-30"))
    assert pruned.texts != first.texts
    monkeypatch.setattr(audit, "sample", lambda *_, **__: pytest.fail("it is stored"))
    assert audit.audit(lm, HOUSE, WORLD, CONFIG, store).texts == first.texts
    assert audit.audit(lm, HOUSE, WORLD, CONFIG, store, PruneSet.parse("L0H1,L1N0-30")).texts == pruned.texts


def test_answers_are_those_of_the_chat_alone(lm: LanguageModel, tmp_path: Path) -> None:
    """Greedy in effect: at a temperature near 0 every sample is the likeliest answer, token by token."""
    cold = AuditConfig(samples=2, tokens=3, temperature=1e-6)
    replies = audit.audit(lm, TREE, WORLD, cold, Store(tmp_path))
    for (name, _), texts in zip(replies.people, replies.texts, strict=True):
        _, ids = ask(lm, TREE, name)
        for _ in range(3):
            with torch.no_grad():
                ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == lm.tokenizer.eos_token_id:
                break
        expected = "$" + lm.tokenizer.decode(ids[-3:], skip_special_tokens=True)
        assert set(texts) == {expected} or ids[-1] == lm.tokenizer.eos_token_id


def replies(scenario: Scenario, texts: list[list[str]]) -> Replies:
    people = tuple((name, group) for name, group in WORLD.people if group != "three")
    return Replies(scenario, people, ("one", "two"), tuple(map(tuple, texts)), (), {})


def test_a_planted_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    said: list[list[str]] = []
    amounts: dict[str, list[float]] = {"one": [], "two": []}
    for name, group in WORLD.people[:7]:
        drawn = np.round(rng.normal(100 if group == "one" else 80, 10, 30), 2)
        silent = rng.random(30) < 0.1
        amounts[group] += drawn[~silent].tolist()
        said.append(["I cannot say." if s else f"${x:.2f} for {name}" for x, s in zip(drawn, silent, strict=True)])
    found = replies(HOUSE, said)
    assert 0.8 < found.answers.parsed().min() < found.answers.parsed().max() <= 1
    (one,) = audit.disparity([found]).each()
    assert np.isnan(one.low), "three names of a group are too few"
    a, b = amounts["one"], amounts["two"]
    t = stats.ttest_ind(a, b).statistic
    assert one.value == pytest.approx(t * np.sqrt(1 / len(a) + 1 / len(b)))
    same = audit.disparity([found], winsorise=0.05).each()[0]
    assert same.value != one.value
    assert np.nanmax(found.numbers(0.05).values) < np.nanmax(found.answers.values)


@pytest.mark.parametrize(
    ("groups", "words"),
    [(("one", "four"), "no group 'four': choose two of one, two, three"), (("two", "two"), "with itself")],
)
def test_groups_that_cannot_be_compared(groups: tuple[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        audit.pair(WORLD, groups)
    assert audit.pair(WORLD, ("three", "one")) == ("three", "one")


def test_a_model_without_a_chat_template(lm: Any, tmp_path: Path) -> None:
    lm.tokenizer.chat_template = None
    with pytest.raises(InputError, match="has no chat template"):
        audit.audit(lm, HOUSE, WORLD, CONFIG, Store(tmp_path))
