"""A text file that changes while it is measured: nothing is stored under the key of what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import perplexity
from fasp_core.metrics.measurements import perplexity_of
from fasp_core.metrics.repeated import tokens_of
from fasp_core.scoring.estimate import ppl_preview
from fasp_core.scoring.exact import ppl_impacts
from fasp_core.scoring.learned.repair import products
from fasp_core.storage.store import Store
from tests.support.tiny import tiny_lm, tiny_text

HEADS = PruneSet.parse("L0H1")
MEASURES: dict[str, Callable[..., Any]] = {
    "a set": lambda lm, text, store: perplexity_of(lm, HEADS, text, store),
    "tokens": lambda lm, text, store: tokens_of(lm, HEADS, text, store),
    "preview": ppl_preview,
    "impacts": ppl_impacts,
    "products": products,
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_text_that_changes_after_its_key(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cut = tmp_path / "text.txt", perplexity.token_windows
    path.write_text(tiny_text(150))
    text, store = TextConfig(str(path), tokens=100), Store(tmp_path / "cache")

    def change_and_cut(*args: Any) -> Any:
        path.write_text(tiny_text(150, seed=1))
        return cut(*args)

    monkeypatch.setattr(perplexity, "token_windows", change_and_cut)
    with pytest.raises(InputError, match=f"The text '{path}' was changed meanwhile: run this again"):
        MEASURES[name](tiny_lm("llama"), text, store)
    assert not [file for file in store.root.rglob("*") if file.suffix in (".json", ".safetensors", ".parquet")]
    MEASURES[name](tiny_lm("llama"), text, store)  # of what it is now
