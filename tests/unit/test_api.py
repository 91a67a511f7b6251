"""The ten lines of the documentation run as they stand, on a tiny model; and `import fasp_core` stays quick."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasp_core as fasp
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.storage.store import Store
from tests.support.worlds import write_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tiny(tmp_path: Path, tmp_cache: Path) -> str:
    """A folder with a tiny model, as a user would name it."""
    folder = write_model(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))  # rotary: no weights
    return str(folder)


def test_the_example_runs(tiny: str, capsys: Any) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "example.md").read_text("utf-8"), re.S)
    code = "".join(blocks)
    assert code.count('"built-in"') == 1
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    names: dict[str, Any] = {}
    exec(code.replace('"built-in"', repr(tiny)), names)
    said = capsys.readouterr().out
    assert len(names["chosen"].heads) == int(0.05 * 8)
    assert f"perplexity {names['result'].perplexity.base:.2f}" in said
    assert f"{names['result'].readings['neutral'].base.n} test prompts" in said


def test_the_short_way_is_the_long_one(tiny: str, tmp_cache: Path) -> None:
    lm = fasp.load(tiny, device="cpu")
    table = fasp.score(lm, "age", prompts=90, tokens=256, estimator="exact")
    assert table.bias.exact.all()
    chosen = fasp.select(table, gamma=0.25, alpha=0.25)
    scores = table.head_scores("neutral")
    assert scores.z_ppl is not None
    assert scores.z_bias is not None
    free = [h for h in range(8) if h not in set(np.argsort(-scores.z_ppl, kind="stable")[:2])]
    assert set(chosen.pruned) == set(sorted(free, key=lambda h: -scores.z_bias[h])[:2])
    short = fasp.evaluate(lm, chosen, "age", prompts=90, tokens=256)
    config = EvalConfig(BiasConfig("age", split="test", n_prompts=90), TextConfig(tokens=256))
    long = evaluate(lm, PruneSet.of(chosen.heads), config, Store(tmp_cache / "other"))
    assert short.perplexity.pruned == pytest.approx(long.perplexity.pruned, rel=1e-5)
    assert short.readings["counted"].gap.change == pytest.approx(long.readings["counted"].gap.change, rel=1e-4)
    text = ",".join(f"L{layer}H{head}" for layer, head in chosen.heads)
    assert fasp.evaluate(lm, text, "age", prompts=90, tokens=256).prune_set == short.prune_set


def test_bad_input_is_told() -> None:
    with pytest.raises(InputError, match="neither a folder nor a hub id"):
        fasp.load("/no/such/model")
    with pytest.raises(AttributeError, match="prune"):
        fasp.prune  # noqa: B018


def test_the_import_is_quick() -> None:
    code = "import sys, fasp_core; assert {'load', 'evaluate'} <= {*dir(fasp_core)}; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "numpy", "transformers", "pandas"):
        assert f"'{heavy}'" not in loaded


def test_documentation_links_lead_somewhere() -> None:
    for path in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text("utf-8")):
            assert target.startswith("http") or (path.parent / target).exists(), f"{path.name}: {target}"
