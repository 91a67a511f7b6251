"""Prompts and text that gates are learned on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fasp_core.data import passages as passages_of
from fasp_core.data import prompts as prompts_of
from fasp_core.data.prompt_set import PromptSet
from fasp_core.data.text import TextConfig
from fasp_core.metrics import meters
from fasp_core.metrics.meters import BiasConfig
from tests.support.made.courses import AXIS, TEMPLATES
from tests.support.tiny import WORDS, tiny_text
from tests.support.words import TableScorer
from tests.support.worlds import use_scorer, write_text


@pytest.fixture
def bias(monkeypatch: pytest.MonkeyPatch) -> BiasConfig:
    """Prompts that say which template and descriptor they are made of."""
    use_scorer(monkeypatch, TableScorer(), complete=False)
    rows = [
        (f"{template.format(word)} {noun}", group, template, word, noun)
        for template in TEMPLATES
        for noun in WORDS[1:40]
        for group, words in AXIS.items()
        for word in words
    ]
    made = PromptSet("colors", "all", *map(tuple, zip(*rows, strict=True)))
    for module in (meters, prompts_of):
        monkeypatch.setattr(module, "resolve_axis", lambda _axis: made)
    monkeypatch.setattr(meters, "axis_names", lambda: ("colors",))
    return BiasConfig("colors", "valid", 60)


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_text(tmp_path, 200, tokens=150, window=48, stride=48)


@pytest.fixture
def paragraphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages_of, "documents", lambda split: tuple(tiny_text(40, seed) for seed in range(8)))
