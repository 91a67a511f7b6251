"""What a card and the command line say of heads that are scaled."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from fasp_core.cli.export import text as told_by_command
from fasp_core.export import card
from fasp_core.export.writing import export
from fasp_core.heads.prune_set import PruneSet
from tests.support.tiny import tiny_lm


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ("L0H1*0.5,L1H2*1.2", "with 2 heads scaled"),
        ("L0H0,L0H1*0.5", "without 1 head, with 1 head scaled"),
        ("L0H0,L0N5", "without 1 head and 1 neuron"),
        ("", "as it is"),
    ],
)
def test_scaled_heads_are_told_of(tmp_path: Path, parts: str, said: str) -> None:
    d = export(tiny_lm("llama"), PruneSet.parse(parts), tmp_path / "out").as_dict()
    text, gains = (tmp_path / "out" / "README.md").read_text(), parts.count("*")
    assert d["scaled"]["heads"] == gains
    assert f" {said}. Written by" in text
    assert f" {said}\n" in told_by_command(d)
    assert ("nothing was trained" in text) == (not gains)
    assert ("pruned" in ModelCard(text).data.to_dict()["tags"]) == ("L0H0" in parts)
    for place in (text.lower(), told_by_command(d)):
        assert (f"scaled: {card.told(gains, 0)}" in place) == bool(gains)
        assert "without nothing" not in place
