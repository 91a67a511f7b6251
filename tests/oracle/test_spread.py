"""A model whose blocks lie apart (here: in main memory and on disk) gives the numbers of one that lies in one place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.forward.sampling import GenerationConfig, sample_ids
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.token_toxicity import completions
from fasp_core.model import loading
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring import score
from fasp_core.storage.store import Store
from tests.support.tiny import BLOCKS, OUTSIDE
from tests.support.worlds import use_scorer, write_axis, write_model, write_text

LAYERS = 3


@pytest.fixture(params=sorted(BLOCKS))
def both(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[LanguageModel, LanguageModel]:
    """The same folder loaded in one place, and with one block in memory and two on disk."""
    kind = request.param
    folder = write_model(tmp_path / "model", kind, n_layers=LAYERS)
    places = dict.fromkeys(OUTSIDE[kind], "cpu") | {
        f"{BLOCKS[kind]}.{i}": "cpu" if i == 1 else "disk" for i in range(LAYERS)
    }
    apart = {"device_map": places, "offload_folder": str(tmp_path / "offloaded")}
    monkeypatch.setattr(loading, "spread_options", lambda spec: apart if spec.device == "spread" else {})
    use_scorer(monkeypatch, complete=False)
    plain, spread = load(ModelSpec(str(folder), device="cpu")), load(ModelSpec(str(folder), device="spread"))
    weights = [[p.device.type for p in block.parameters()] for block in spread.blocks]
    assert [set(places) for places in weights] == [{"meta"}, {"cpu"}, {"meta"}]  # really elsewhere until they run
    assert plain.weights_id == spread.weights_id
    return plain, spread


def test_a_spread_model_gives_the_same_numbers(both: tuple[LanguageModel, LanguageModel], tmp_path: Path) -> None:
    text = write_text(tmp_path, 200, tokens=150, window=64, stride=48)
    config = BiasConfig(write_axis(tmp_path / "axis.csv", ("man", "tree")), split="all", n_prompts=18)
    tables = [
        score.score(lm, text, config, Store(tmp_path / f"store-{i}"), None, "refined") for i, lm in enumerate(both)
    ]
    for part, names in (("ppl", ("sums", "magnitude", "gradient")), ("bias", ("base", "ablated"))):
        for name in names:
            one, other = (getattr(getattr(table, part), name) for table in tables)
            assert np.array_equal(one, other), name
    subject = PruneSet.of([(0, 1), (2, 3)], [(1, 5)])
    found = [
        evaluate(lm, subject, EvalConfig(config, text), Store(tmp_path / f"desk-{i}"), None, CachedRunner(lm))
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
        whole, spread = (completions(lm, "The", [5, 6, 7], pieces) for lm in both)
    for (stop, ways), (other_stop, other_ways) in zip(whole, spread, strict=True):
        assert other_stop == pytest.approx(stop, rel=1e-5)
        assert [piece for piece, _ in other_ways] == [piece for piece, _ in ways]
        assert [p for _, p in other_ways] == pytest.approx([p for _, p in ways], rel=1e-5)


def test_spread_is_a_device(tmp_path: Path) -> None:
    assert loading.pick_device("spread") == loading.pick_device("auto")
    lm = load(ModelSpec(str(write_model(tmp_path / "model")), device="spread"))  # accelerate deals it out by itself
    if not torch.cuda.is_available():
        assert lm.device.type == "cpu"
    assert lm.size == 8
