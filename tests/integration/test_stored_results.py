"""What is read from the committed results stays as it was: keys, choices, claims, studies, reports, titles.

`stored_results.json` holds a hash of each. `python -m tests.integration.test_stored_results FOLDER` writes what is
hashed, so that two states of the code can be compared line by line; with `--record` it also writes the hashes again.
No model is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fasp_core.cli.main import main
from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model import loading
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring import entries, score_files
from fasp_core.storage.store import Store
from fasp_core.studies.additivity import additivity
from fasp_core.studies.robustness import robustness
from pages.backend.requests import Experiment, Load, Measure, OnePrompt, Score

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_name("stored_results.json")
AXES = ("race_ethnicity", "gender_and_sex", "religion")


def _said(run: Callable[[], int]) -> Any:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        status = run()
    assert status == 0
    return json.loads(out.getvalue())


def _entries() -> dict[str, str]:
    found = {}
    for header in sorted((ROOT / "cache").glob("*/built-in--*/entry.json")):
        digest = hashlib.sha256(json.dumps(json.loads(header.read_text()), sort_keys=True).encode())
        found[header.parent.relative_to(ROOT).as_posix()] = digest.hexdigest()
    return found


def _select(axis: str, method: str, reading: str) -> Any:
    table = entries.best(TextConfig(tokens=8192), BiasConfig(axis), loading.known_id(ModelSpec()), "built-in", Store())
    assert table is not None
    with tempfile.TemporaryDirectory() as folder:
        score_files.write_scores(table, {}, Path(folder) / "scores")
        command = ["select", "--scores", f"{folder}/scores", "--method", method, "--reading", reading, "--json"]
        found = _said(lambda: main([*command, "--gamma", ".3", "--alpha", ".05", "--force", "L0H0", "--lock", "L1H1"]))
    return json.loads(json.dumps(found).replace(folder, "FOLDER"))


def _report(axis: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.html"
        facts = _said(lambda: main(["report", "--axis", axis, "--no-measure", "--out", str(out), "--json"]))
        created, page = facts.pop("created"), out.read_text()
    del facts["file"]
    page = re.sub(rf"{re.escape(created)}[^<]*", "CREATED", page)
    scripts = re.split(r"(?<=</script>)", page)
    return {"facts": facts, "page": "".join(part for part in scripts if len(part) < 1_000_000).split("\n")}  # no Plotly


def _titles() -> list[Any]:
    spec, config, text = ModelSpec(), BiasConfig("race_ethnicity"), TextConfig(tokens=2048)
    sets = PruneSet.parse("L0H3,L2H1")
    requests = [
        Load(spec),
        Experiment(spec, Score.title, (config, text)),
        Measure(spec, sets, EvalConfig(config, text)),
        Experiment(spec, "Joint search", ("race_ethnicity",)),
        Experiment(spec, "Do effects add up?", (additivity.Plan("race_ethnicity"),)),
        Experiment(spec, "Other measures of bias", (robustness.Plan("race_ethnicity"),)),
        Experiment(spec, OnePrompt.title, (sets,)),
    ]
    return [[asked.title, asked.model, asked.settings()] for asked in requests]


def results() -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, what gives the result) of everything that is compared."""
    yield "entries", _entries
    for axis in AXES:
        yield f"report {axis}", lambda axis=axis: _report(axis)
        for method in ("fasp", "bias-only", "magnitude"):
            for reading in ("neutral", "counted"):
                name = f"select {axis} {method} {reading}"
                yield name, lambda axis=axis, method=method, reading=reading: _select(axis, method, reading)
    for axis, reading in (("race_ethnicity", "neutral"), ("gender_and_sex", "neutral")):
        command = ["compare", "--axis", axis, "--reading", reading, "--json"]
        yield f"compare {axis} {reading}", lambda command=command: _said(lambda: main(command))
    for limit in (".1", ".08"):
        command = ["compare", "--axis", "race_ethnicity", "--max-ppl", limit, "--outcome", "--json"]
        yield f"outcome {limit}", lambda command=command: _said(lambda: main(command))
    for axis in AXES:
        command = ["prompts", "--axis", axis, "--split", "test", "--per-group", "5", "--list", "--json"]
        yield f"prompts {axis}", lambda command=command: _said(lambda: main(command))
    yield "additivity", lambda: _said(lambda: main(["study", "additivity", "--axis", "race_ethnicity", "--json"]))
    yield "robustness", lambda: _said(lambda: main(["study", "robustness", "--axis", "race_ethnicity", "--json"]))
    options = ["--gamma", ".3", "--alpha", ".05", "--prompts", "450", "--tokens", "2048", "--json"]
    yield "transfer", lambda: _said(lambda: main(["study", "transfer", *options]))
    yield "truth", lambda: _said(lambda: main(["study", "truth", "--json"]))
    command = ["study", "divisions", "--axis", "race_ethnicity", "--json"]
    for more in ((), ("--choose", "cautious"), ("--choose", "gains", "--precision", "bfloat16")):
        yield f"divisions {more[1] if more else 'mean'}", lambda more=more: _said(lambda: main([*command, *more]))
    yield "titles", _titles


def as_text(found: Any) -> str:
    """The same bytes for the same result: keys sorted, no spaces that depend on a version."""
    return json.dumps(found, sort_keys=True, indent=1, ensure_ascii=False)


def hashed(text: str) -> str:
    """A hash that the last digits, in which processors differ, do not change."""
    text = re.sub(r"bdata[^,}]*", "", text)  # Plotly's arrays, whose numbers stand elsewhere
    text = re.sub(r"-?\d+\.\d{6,}(e-?\d+)?", lambda found: f"{float(found[0]):.5g}", text)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def committed(folder: Path) -> Iterator[None]:
    """The repository's results in a cache of their own, and no model."""
    for kind in ("scores", "experiments", "words"):
        for entry in (ROOT / "cache" / kind).glob("built-in--*"):
            shutil.copytree(entry, folder / kind / entry.name)
    never = mock.Mock(side_effect=AssertionError("a model is loaded"))
    with mock.patch.dict(os.environ, {"FASP_CACHE": str(folder)}), mock.patch.object(loading, "load", never):
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with committed(tmp_path_factory.mktemp("cache")):
        yield


SLOW = {  # what others of their kind stand for in the default tier
    "report gender_and_sex",
    "report religion",
    "outcome .08",
    "outcome .1",
    "transfer",
    *(f"select {axis} magnitude {reading}" for axis in AXES for reading in ("neutral", "counted")),
}
RESULTS = [pytest.param(*pair, id=pair[0], marks=[pytest.mark.slow] * (pair[0] in SLOW)) for pair in results()]


@pytest.mark.parametrize(("name", "found"), RESULTS)
def test_as_recorded(name: str, found: Callable[[], Any], cache: None) -> None:
    assert hashed(as_text(found())) == json.loads(RECORD.read_text())[name], (
        "see how it differs by the command at the top of this file"
    )


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    digests = {}
    with tempfile.TemporaryDirectory() as own, committed(Path(own)):
        for label, give in results():
            print(label, file=sys.stderr)
            said = as_text(give())
            (out / f"{label.replace(' ', '-')}.json").write_text(said)
            digests[label] = hashed(said)
    if "--record" in sys.argv:
        RECORD.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")
