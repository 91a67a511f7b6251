"""A model whose blocks lie apart (here: in main memory and on disk) gives the numbers of one that lies in one place."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.forward.sampling import GenerationConfig, sample_ids
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import meters
from fasp_core.metrics.cached_runner import Desk
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.token_toxicity import completions
from fasp_core.model import loading
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring import score
from fasp_core.storage.store import Store
from tests.support.tiny import STARTS, tiny_model, tiny_text, tiny_tokenizer

LAYERS = 3
OUTSIDE = {  # what is not a block, by kind
    "llama": ("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"),
    "gpt2": ("transformer.wte", "transformer.wpe", "transformer.drop", "transformer.ln_f", "lm_head"),
    "opt_post_norm": (
        "model.decoder.embed_tokens",
        "model.decoder.embed_positions",
        "model.decoder.project_in",
        "model.decoder.project_out",
        "lm_head",
    ),
}
BLOCKS = {"llama": "model.layers", "gpt2": "transformer.h", "opt_post_norm": "model.decoder.layers"}


class WordScorer:
    """A text is worth the length of its words."""

    name = "lengths"

    def score(self, texts: Any) -> np.ndarray:
        return np.array([sum(map(len, t.split())) / (len(t.split()) * 10) if t.split() else 0.0 for t in texts])


@pytest.fixture(params=sorted(BLOCKS))
def both(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[LanguageModel, LanguageModel]:
    """The same folder loaded in one place, and with one block in memory and two on disk."""
    kind, folder = request.param, tmp_path / "model"
    tiny_model(kind, n_layers=LAYERS).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    places = dict.fromkeys(OUTSIDE[kind], "cpu") | {
        f"{BLOCKS[kind]}.{i}": "cpu" if i == 1 else "disk" for i in range(LAYERS)
    }
    apart = {"device_map": places, "offload_folder": str(tmp_path / "offloaded")}
    monkeypatch.setattr(loading, "_spread", lambda: apart)
    monkeypatch.setattr(meters, "scorer_for", lambda _source, _label=None: WordScorer())
    monkeypatch.setattr(meters, "word_values", partial(meters.word_values, complete=False))
    plain, spread = load(ModelSpec(str(folder), device="cpu")), load(ModelSpec(str(folder), device="spread"))
    weights = [[p.device.type for p in block.parameters()] for block in spread.blocks]
    assert [set(places) for places in weights] == [{"meta"}, {"cpu"}, {"meta"}]  # really elsewhere until they run
    assert plain.weights_id == spread.weights_id
    return plain, spread


def test_a_spread_model_gives_the_same_numbers(both: tuple[LanguageModel, LanguageModel], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(tiny_text(200))
    rows = [f"{s} met a {g} {n},{g}" for s in STARTS for n in ("man", "tree") for g in ("blue", "red", "tall")]
    (tmp_path / "axis.csv").write_text("text,group\n" + "\n".join(rows))
    text = TextConfig(str(tmp_path / "text.txt"), tokens=150, window=64, stride=48)
    config = BiasConfig(str(tmp_path / "axis.csv"), split="all", n_prompts=18)
    tables = [
        score.score(lm, text, config, Store(tmp_path / f"store-{i}"), None, "refined") for i, lm in enumerate(both)
    ]
    for part, names in (("ppl", ("sums", "magnitude", "gradient")), ("bias", ("base", "ablated"))):
        for name in names:
            one, other = (getattr(getattr(table, part), name) for table in tables)
            assert np.array_equal(one, other), name
    subject = PruneSet.of([(0, 1), (2, 3)], [(1, 5)])
    found = [
        evaluate(lm, subject, EvalConfig(config, text), Store(tmp_path / f"desk-{i}"), None, Desk(lm))
        for i, lm in enumerate(both)
    ]
    assert found[0].perplexity == found[1].perplexity
    assert np.array_equal(found[0].pruned.values, found[1].pruned.values)


def test_a_spread_model_writes_the_same(both: tuple[LanguageModel, LanguageModel]) -> None:
    texts = ["I met a tall friend", "We saw", "They are"]
    written = [sample_ids(lm, texts, GenerationConfig(2, 4)) for lm in both]
    assert written[0] == written[1]
    pieces = {i: "s" for i in range(10, 20)}
    with torch.no_grad():
        assert completions(both[0], "The", [5, 6, 7], pieces) == completions(both[1], "The", [5, 6, 7], pieces)


def test_spread_is_a_device(tmp_path: Path) -> None:
    assert loading.pick_device("spread") == loading.pick_device("auto")
    folder = tmp_path / "model"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    lm = load(ModelSpec(str(folder), device="spread"))  # accelerate deals it out by itself
    if not torch.cuda.is_available():
        assert lm.device.type == "cpu"
    assert lm.size == 8
