"""A model of few positions whose tokenizer begins texts, on the page: real jobs, nothing made up."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from pages.backend.engine import Engine, engine
from pages.backend.requests import Score
from pages.session import recipe
from pages.session.recipe import Recipe
from tests.support.fakes import use_engine
from tests.support.running import opened
from tests.support.tiny import tiny_model, tiny_tokenizer

POSITIONS = 40


@pytest.fixture
def folder(tmp_path: Path, tmp_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    monkeypatch.delenv("FASP_DEMO", raising=False)
    use_engine(monkeypatch, Engine())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer()._tokenizer, unk_token="<unk>", eos_token="<eos>", bos_token="I"
    )
    model = tiny_model("gpt2")
    model.config.n_positions = POSITIONS
    model.transformer.wpe.weight.data = model.transformer.wpe.weight.data[:POSITIONS]
    path = tmp_path / "short"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    yield path
    for job in engine().jobs():
        job.cancel()
        job.wait(20)


@pytest.mark.parametrize("bos", ["auto", pytest.param("yes", marks=pytest.mark.slow)])
def test_scores_and_measurements_come_without_a_setting(folder: Path, bos: str) -> None:
    spec = ModelSpec(str(folder), device="cpu", bos=bos)
    longest = POSITIONS - (bos == "yes")
    engine().score(Score(spec, BiasConfig("gender_and_sex", n_prompts=60))).wait(120)
    known = engine().models.facts(spec)
    assert known is not None
    assert (known.id.longest, known.id.begun) == (longest, bos == "yes")
    table = engine().results.scores(spec, BiasConfig("gender_and_sex", n_prompts=60))
    assert table is not None
    assert table.ppl.provenance["longest_window"] == longest
    assert engine().results.scores(ModelSpec(str(folder), device="cpu", bos="no"), BiasConfig("gender_and_sex")) is None
    asked = {"model": str(folder), "device": "cpu", "axis": "gender_and_sex", "bos": bos}
    at = opened(**asked, details="About these numbers")
    assert at.selectbox(key="bos").value == bos
    after = "after I" if bos == "yes" else "without a beginning token"
    told = f"windows of {longest} tokens (as many as this model takes) {after}"
    assert told in "\n".join(str(node.value) for node in at.main.markdown)


def test_a_link_carries_the_beginning_only_where_it_is_not_the_usual() -> None:
    assert "bos" not in Recipe().query()
    assert Recipe(bos="no").query() == {"bos": "no"}
    assert recipe.read({"bos": "yes"}) == ({"bos": "yes"}, [])
    assert recipe.read({"bos": "perhaps"}) == ({}, ["bos=perhaps"])
