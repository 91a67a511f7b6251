"""A head whose bias shows only at the third word: shared contexts find it, and the next word does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasp_core.data.prompt_set import PromptSet
from fasp_core.metrics import meters
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring.score import score
from fasp_core.storage.store import Store
from tests.support.tiny import HEADS, STARTS
from tests.support.words import COLORS, TableScorer, late_model
from tests.support.worlds import use_scorer, write_text

FRAMES = [(start, verb, end) for start in STARTS[:3] for verb in ("met", "saw") for end in ("person", "house", "tree")]
ROWS = [(f"{s} {verb} a {color} {end}", color, i) for i, (s, verb, end) in enumerate(FRAMES) for color in COLORS]
LENGTH = 5  # tokens of every prompt


@pytest.mark.parametrize("estimator", ["exact", "first-order"])
@pytest.mark.parametrize("guilty", [(0, 2), (1, 3)])
def test_found_after_shared_contexts_alone(
    guilty: tuple[int, int], estimator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, groups, blocks = zip(*ROWS, strict=True)
    made = PromptSet("religion", "valid", texts, groups, *[("",) * len(ROWS)] * 3, blocks=blocks)
    monkeypatch.setattr(meters, "_prompts", lambda *_: made)
    use_scorer(monkeypatch, TableScorer(), complete=False)
    lm = late_model(*guilty, silent=LENGTH + 1)
    text, head = write_text(tmp_path, 60, tokens=50, window=32, stride=32), guilty[0] * HEADS + guilty[1]
    next_word = score(lm, text, BiasConfig("religion"), Store(tmp_path), estimator=estimator)
    later = score(lm, text, BiasConfig("religion", steps=3, contexts=6), Store(tmp_path), estimator=estimator)
    for reading in ("neutral", "neutral direct"):
        z = later.bias.z_bias(reading)
        assert int(z.argmax()) == head
        assert z[head] > 5 * np.abs(np.delete(z, head)).max()
    at_once = next_word.bias.z_bias("neutral")
    assert abs(at_once[head]) < 0.01 * later.bias.z_bias("neutral direct")[head]
    assert next_word.bias.gap("neutral").gap < 0.05 * later.bias.gap("neutral direct").gap
