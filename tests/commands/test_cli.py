"""The command line: what reaches stdout, how bad input ends, and that its figures are those of the files it wrote."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from fasp_core.cli.main import main
from fasp_core.console import one_line
from fasp_core.heads.prune_set import PruneSet
from tests.support.commands import Run, command, env, outside, refused, runner, write_sentences
from tests.support.tiny import HEADS, tiny_text
from tests.support.worlds import write_model

LAYERS = 3
N = LAYERS * HEADS
EXACT = ("--estimator", "exact")
ROOT = Path(__file__).resolve().parents[2]
Scored = tuple[Path, Path, dict[str, Any]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, a text and an axis of three groups."""
    folder = tmp_path_factory.mktemp("cli")
    write_model(folder / "tiny", n_layers=LAYERS)
    (folder / "text.txt").write_text(tiny_text(700))
    write_sentences(folder / "axis.csv")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in this process."""
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "cache"))
    return runner(capsys)


def common(place: Path, n: int = 60) -> list[str]:
    """Options of the small model, text and axis."""
    return [
        *("--model", str(place / "tiny"), "--axis", str(place / "axis.csv"), "--prompts", str(n), "--device", "cpu"),
        *("--text", str(place / "text.txt"), "--tokens", "600", "--window", "100"),
    ]


@pytest.fixture(scope="module")
def scored(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """(folder of scores, cache, document on stdout)"""
    base = tmp_path_factory.mktemp("scored")
    out = io.StringIO()
    with redirect_stdout(out):
        status = main(
            ["score", *common(place), *EXACT, "--out", str(base / "s"), "--cache", str(base / "cache"), "--json"]
        )
    assert status == 0
    return base / "s", base / "cache", json.loads(out.getvalue())


def rows_of(folder: Path) -> list[dict[str, float]]:
    with (folder / "scores.csv").open(newline="") as handle:
        return [{k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(handle)]


# --- figures ---


def test_score_writes_the_three_files_and_says_the_same_on_stdout(scored: Scored) -> None:
    folder, _, document = scored
    assert sorted(p.name for p in folder.iterdir()) == ["scores.csv", "scores.json", "scores.parquet"]
    assert json.loads((folder / "scores.json").read_text()) == {k: v for k, v in document.items() if k != "files"}
    assert (document["n_layers"], document["n_heads"], document["split"]) == (LAYERS, HEADS, "valid")
    assert document["groups"] == {"green": 20, "old": 20, "red": 20}
    assert document["perplexity"]["tokens"] == 600 - 6  # the first token of each window has no context
    assert document["reliability"]["neutral"]["prunable"]["heads"] == N - math.floor(0.3 * N)
    for reading in ("neutral", "counted"):
        assert {"gap", "interval", "noise_gap", "noise_p"} <= set(document["gap"][reading])
    assert [(r["layer"], r["head"]) for r in rows_of(folder)] == [divmod(i, HEADS) for i in range(N)]


def by_hand(rows: list[dict[str, float]], method: str, gamma: float, k: int, reading: str) -> tuple[list[int], int]:
    """Selection written as a person would do it with a pencil: sort, cut, sort."""
    flat = list(range(len(rows)))
    critical = sorted(flat, key=lambda i: (-rows[i]["z_nats"], i))[: math.floor(gamma * len(rows) + 1e-9)]
    cost = {
        "fasp": lambda i: -rows[i][f"z_bias_{reading}"],
        "bias-only": lambda i: -rows[i][f"z_bias_{reading}"],
        "ppl-only": lambda i: rows[i]["z_nats"],
        "magnitude": lambda i: rows[i]["magnitude"],
        "gradient": lambda i: rows[i]["gradient"],
    }[method]
    free = [i for i in flat if method != "fasp" or i not in critical]
    return sorted(sorted(free, key=lambda i: (cost(i), i))[:k]), len(critical) if method == "fasp" else 0


@pytest.mark.parametrize("method", ["fasp", "bias-only", "ppl-only", "magnitude", "gradient"])
@pytest.mark.parametrize("reading", ["neutral", "counted"])
def test_selected_heads_are_those_of_the_csv(scored: Scored, run: Run, method: str, reading: str) -> None:
    folder, _, _ = scored
    for source in (folder, folder / "scores.csv", folder / "scores.parquet", folder / "scores.json"):
        args = ("--method", method, "--gamma", 0.3, "--alpha", 0.25, "--reading", reading, "--json")
        status, out, err = run("select", "--scores", source, *args)
        assert (status, err) == (0, "")
        found = json.loads(out)
        expected, critical = by_hand(rows_of(folder), method, 0.3, 3, reading)
        assert found["heads"] == [list(divmod(i, HEADS)) for i in expected]
        assert (found["k"], found["critical"], found["n_heads"]) == (3, critical, N)
        assert PruneSet.parse(found["prune_set"]) == PruneSet.of(found["heads"])
        assert len(found["critical_heads"]) == critical
        assert not {tuple(h) for h in found["heads"]} & {tuple(h) for h in found["critical_heads"]} or not critical


def test_default_reading_is_neutral(scored: Scored, run: Run) -> None:
    _, out, _ = run("select", "--scores", scored[0], "--json")
    assert json.loads(out)["reading"] == "neutral"


def test_a_second_score_run_reads_and_computes_nothing(
    scored: Scored,
    place: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, cache, _ = scored

    def never(*_: object) -> None:
        raise AssertionError("swept again")

    monkeypatch.setattr("fasp_core.metrics.work.sweep_heads", never)
    status, _, _ = run("score", *common(place), *EXACT, "--out", tmp_path / "again", "--cache", cache)
    assert status == 0
    for name in ("scores.csv", "scores.parquet", "scores.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_evaluate_repeats_itself_in_other_processes_and_caches(place: Path, tmp_path: Path, run: Run) -> None:
    args = ("evaluate", *common(place), "--heads", "L0H0,L2H1", "--json")
    first = outside(*args, cache=tmp_path / "a")
    assert first.returncode == 0, first.stderr
    assert run(*args, "--cache", tmp_path / "a")[1] == first.stdout
    documents = [json.loads(out) for out in (first.stdout, run(*args, "--cache", tmp_path / "b")[1])]
    for document in documents:
        assert document.pop("provenance")["weights"].startswith("sha256:")
    assert documents[0] == documents[1]
    assert documents[0]["perplexity"]["change_nats"] != 0


@pytest.mark.slow  # four runs; tests/integration/test_killed.py and those of stores kill smaller things
def test_a_killed_score_goes_on_to_the_same_result(place: Path, tmp_path: Path, run: Run) -> None:
    write_model(tmp_path / "deep", n_layers=8)
    args = ["score", *common(place), *EXACT, "--model", tmp_path / "deep"]
    killed = subprocess.Popen(command(*args, "--out", tmp_path / "killed"), env=env(tmp_path / "a"), cwd=ROOT)
    parts = tmp_path / "a" / "partial"
    while killed.poll() is None and len(list(parts.glob("*/head-*.safetensors"))) < 5:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in parts.glob("*/head-*.safetensors")}
    assert 5 <= len(finished) < 32
    assert list((tmp_path / "killed").iterdir()) == []

    # a finished head is read, not computed again: one with other values shows up in the scores
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    some = sorted((tmp_path / "b" / "partial").glob("*/head-*.safetensors"))
    shutil.copy(some[0], some[1])
    scores = {}
    for name in ("a", "b", "c"):  # "c" begins with nothing
        status, _, err = run(*args, "--out", tmp_path / name / "out", "--cache", tmp_path / name)
        assert status == 0, err
        scores[name] = (tmp_path / name / "out" / "scores.csv").read_bytes()
    assert scores["a"] == scores["c"] != scores["b"]


# --- stdout and stderr ---


def test_commands_without_a_model_do_not_import_torch(scored: Scored) -> None:
    script = f"""
import sys
from fasp_core.cli.main import main
for args in (["--help"], ["score", "--help"], ["--version"], ["prompts", "--axis", "religion"],
             ["select", "--scores", {str(scored[0])!r}]):
    assert main(args) == 0, args
    assert not {{"torch", "transformers", "pandas", "scipy"}} & set(sys.modules), args
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_models(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("models", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["built_in"] | {"package": "", "installed": True} == {
        "name": "built-in",
        "title": "SmolLM2-135M-Instruct",
        "n_layers": 30,
        "n_heads": 9,
        "license": "Apache-2.0",
        "package": "",
        "installed": True,
        "converted": False,  # the cache is empty
    }
    assert {"gpt2", "llama"} <= {a["model_type"] for a in found["supported"]}
    text = run("models")[1]
    assert all(a["title"] in text for a in found["supported"])


def test_what_libraries_print_goes_to_stderr(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from fasp_core.model import loading

    load = loading.load

    def chatty(*args: Any) -> Any:
        print("a warning of some library")
        return load(*args)

    monkeypatch.setattr(loading, "load", chatty)
    status, out, err = run("evaluate", *common(place), "--heads", "L0H0", "--json")
    assert (status, json.loads(out)["prune_set"]) == (0, "L0H0")
    assert "a warning of some library" in err


def test_sampled_measure_with_continuations(place: Path, tmp_path: Path, run: Run) -> None:
    options = [*common(place, 6), "--measure", "sampled", "--samples", 2, "--length", 4]
    args = ["evaluate", *options, "--heads", "L0H0-3,L1H0-3", "--continuations", 3]
    status, out, err = run(*args, "--json")
    found = json.loads(out)
    assert (status, found["measure"], list(found["readings"])) == (0, "sampled", ["sampled"])
    assert len(found["continuations"]) == 3
    assert found["continuations"][0]["continuation_base"] != found["continuations"][0]["continuation_pruned"]
    assert "offensive" in err
    text = run(*args)[1]
    assert one_line(found["continuations"][0]["continuation_base"]) in text
    assert run(*[*args[:-1], 0])[2] == ""

    status, out, err = run("score", *options, "--out", tmp_path / "s", "--json")
    assert (status, json.loads(out)["readings"], err) == (0, ["sampled"], "")
    _, out, _ = run("select", "--scores", tmp_path / "s", "--json")
    assert json.loads(out)["reading"] == "sampled"


def test_scores_say_how_far_and_how_texts_were_written(place: Path, tmp_path: Path, run: Run) -> None:
    options = [*common(place, 6), "--measure", "written", "--steps", 3, "--samples", 2]
    status, out, _ = run("score", *options, "--out", tmp_path / "s", "--json")
    found = json.loads(out)
    assert (status, found["steps"], found["readings"]) == (0, 3, ["neutral", "counted"])
    assert (found["generation"]["samples"], found["generation"]["tokens"]) == (2, 3)


def test_texts_for_people(scored: Scored, place: Path, tmp_path: Path, run: Run) -> None:
    folder, cache, document = scored
    out = run("score", *common(place), *EXACT, "--out", tmp_path / "s", "--cache", cache)[1]
    assert f"{document['gap']['neutral']['gap']:.3g}" in out
    assert str(tmp_path / "s" / "scores.parquet") in out
    out = run("select", "--scores", folder, "--alpha", 0.25, "--out", tmp_path / "set.json")[1]
    assert "3 heads to remove" in out
    found = json.loads(run("evaluate", *common(place), "--prune-set", tmp_path / "set.json", "--json")[1])
    out = run("evaluate", *common(place), "--prune-set", tmp_path / "set.json")[1]
    assert f"{found['perplexity']['pruned']:.3g}" in out
    for group in ("green", "old", "red"):
        assert f"{found['readings']['counted']['groups'][group]['pruned']:.3g}" in out


def test_progress_is_on_stderr_alone(place: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("tqdm.tqdm.__init__", _at_once(__import__("tqdm").tqdm.__init__))
    status, out, err = run("score", *common(place, 6), *EXACT, "--out", tmp_path / "s", "--json")
    assert (status, json.loads(out)["n_layers"]) == (0, LAYERS)
    assert f"perplexity: {N} of {N} heads" in err
    assert f"bias on {place / 'axis.csv'}: {N} of {N} heads" in err
    assert err.split("\r")[-2].strip() == err.split("\r")[-1] == ""  # wiped at the end


def _at_once(init: Any) -> Any:
    def patched(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **{**kwargs, "delay": 0, "mininterval": 0})

    return patched


# --- bad input ---


def test_bad_values_of_select(scored: Scored, run: Run) -> None:
    folder, _, _ = scored
    for args, words in {
        ("--gamma", "1.5"): ["gamma", "0 to 1"],
        ("--gamma", "nan"): ["gamma", "0 to 1"],
        ("--alpha", "-0.1"): ["alpha", "0 to 1"],
        ("--reading", "sampled"): ["neutral, counted"],
        ("--published-model", "gpt2"): ["leave out"],
        ("--axis", "age"): ["axis.csv", "leave --axis out"],
        ("--method", "random", "--seed", "-1"): ["seed"],
        ("--force", "L0N3"): ["no neurons"],
        ("--force", "L0H3*0.4,L1H0"): ["without gains"],
        ("--lock", "L0H3*1,L1H0"): ["without gains"],
        ("--rule", "released", "--gamma", "1"): ["stable"],
    }.items():
        refused(run("select", "--scores", folder, *args), *words)


@pytest.mark.parametrize("out", [".", "/", "folder"])
def test_a_file_that_is_a_folder(
    scored: Scored, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    refused(run("select", "--scores", scored[0], "--out", out), f"'{out}' is a folder", "--out")


def test_lowered_k_is_told(scored: Scored, run: Run) -> None:
    status, out, _ = run("select", "--scores", scored[0], "--gamma", 0.9, "--alpha", 0.5, "--json")
    found = json.loads(out)
    assert (status, found["k"], found["requested_k"]) == (0, N - 10, 6)
    assert any("not critical" in note for note in found["notes"])


# --- prune sets ---


def test_a_prune_set_of_another_model_is_refused(place: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text('{"heads": [[0, 1]], "shape": [12, 12]}')
    refused(run("evaluate", *common(place), "--prune-set", tmp_path / "set.json"), "12 layers of 12 heads")


# --- files ---


def test_files_are_replaced_all_or_not_at_all(
    scored: Scored,
    place: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk at the last file leaves the folder as it was."""
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "scores.csv").write_text("before")
    real, done = os.fsync, []

    def full(handle: int) -> None:
        done.append(handle)
        if len(done) == 3:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr("fasp_core.storage.atomic.os.fsync", full)
    refused(run("score", *common(place), *EXACT, "--out", folder, "--cache", scored[1]), "No space left", "--out")
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("scores.csv", "before")]


def test_a_folder_that_cannot_be_made_is_seen_before_the_work(place: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    refused(run("score", *common(place), "--out", tmp_path / "file" / "s"), "--out")
    refused(run("score", *common(place), "--out", tmp_path / "file"), "--out")
    assert not (tmp_path / "cache").exists()


def test_ctrl_c_says_that_what_was_measured_is_kept(
    place: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fasp_core.scoring.exact.magnitude", stop)
    status, out, err = run("score", *common(place), "--out", tmp_path / "s")
    assert (status, out) == (130, "")
    assert "What was measured is kept" in err.splitlines()[-1]
    assert len(list((tmp_path / "cache" / "partial").glob("*/head-*.safetensors"))) == N
