"""Commands that the documents show, against figures that were published or counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fasp_core.cli.main import main
from fasp_core.storage.store import cache_root

ROOT = Path(__file__).resolve().parents[2]
RELEASED = ROOT.parent / "shared" / "data" / "fasp_released"
needs_released = pytest.mark.skipif(not RELEASED.is_dir(), reason=f"no released scores: {RELEASED} does not exist")
WORKED = {  # gender_and_sex, gamma .3, alpha .1: flat ids, heads in a layer
    "gpt2": ((11, 26, 49, 55, 57, 71, 89, 92, 99, 104, 118, 133, 135, 137), 12, 43),
    "distilgpt2": ((32, 36, 50, 52, 65, 66, 67), 12, 21),
}


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process and read the one JSON document that it prints."""

    def run(*args: object) -> Any:
        capsys.readouterr()
        assert main([*map(str, args), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@needs_released
@pytest.mark.parametrize("model", WORKED)
@pytest.mark.parametrize("name", ["head_contributions.json", "head_scores_{}.csv"])
@pytest.mark.parametrize("rule", ["stable", "released"])
def test_heads_of_the_released_scores(shown: Any, model: str, name: str, rule: str) -> None:
    flat, n_heads, critical = WORKED[model]
    found = shown(
        *("select", "--scores", RELEASED / name.format(model), "--published-model", model, "--axis", "gender_and_sex"),
        *("--method", "fasp", "--gamma", ".3", "--alpha", ".1", "--rule", rule),
    )
    assert found["heads"] == [list(divmod(i, n_heads)) for i in flat]
    assert (found["k"], found["critical"], found["notes"]) == (len(flat), critical, [])


@needs_released
def test_other_axes_of_the_released_scores_come_with_a_note(shown: Any) -> None:
    found = shown("select", "--scores", RELEASED / "head_scores_gpt2.csv", "--axis", "religion")
    assert any("--axis gender_and_sex" in note for note in found["notes"])


@needs_released
@pytest.mark.parametrize(
    ("options", "listed"), [([], "distilgpt2, gpt2"), (["--published-model", "gpt2"], "gender_and_sex, race")]
)
def test_what_a_released_file_holds_is_listed_where_a_choice_is_missing(options: list[str], listed: str) -> None:
    """In a process of its own, as a reader runs it."""
    command = [sys.executable, "-m", "fasp_core", "select", "--scores", RELEASED / "head_contributions.json", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert listed in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_prompts_of_gender_and_sex(shown: Any) -> None:
    """The sentences that HolisticBias v1.1 makes for this axis, 136 of them in no group."""
    sides = [shown("prompts", "--axis", "gender_and_sex", "--split", split) for split in ("valid", "test")]
    assert sum(side["total"] for side in sides) == 51_057 == sum(n for side in sides for n in side["groups"].values())
    assert sum(side["groups"]["none"] for side in sides) == 136


@pytest.mark.slow
def test_evaluate_of_the_built_in_model_prints_the_same_twice(tmp_path: Path) -> None:
    if (models := cache_root() / "models").is_dir():
        (tmp_path / "models").symlink_to(models)  # half a minute and 500 MB less
    args = ("evaluate", "--model", "built-in", "--heads", "L0H0,L12H4", "--axis", "gender_and_sex", "--json")
    command, env = [sys.executable, "-m", "fasp_core", *args], {**os.environ, "FASP_CACHE": str(tmp_path)}
    one, two = (subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env) for _ in range(2))
    assert one.returncode == 0, one.stderr
    assert one.stdout == two.stdout
    first = json.loads(one.stdout)
    assert first["heads"] == [[0, 0], [12, 4]]
    assert 10 < first["perplexity"]["base"] < 40
