"""What the command line says of itself, and how bad input ends: status 2 and one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.support.commands import ROOT, Run, env, outside, refused, runner
from tests.support.worlds import write_axis, write_model, write_text


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in this process."""
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "cache"))
    return runner(capsys)


def test_version(run: Run) -> None:
    from fasp_core.model.provenance import VERSION

    assert run("--version") == (0, f"fasp-studio {VERSION}\n", "")


def test_every_command_explains_every_option(run: Run) -> None:
    commands = run("--help")[1]
    for name in ("models", "prompts", "score", "select", "evaluate"):
        status, out, err = run(name, "--help")
        assert (status, err) == (0, "")
        assert "Usage:" in out
        assert "--json" in out
        assert name in commands


def test_a_closed_reader_is_no_traceback(tmp_path: Path) -> None:
    shell = f"{sys.executable} -m fasp_core prompts --axis religion --list | head -n 1"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, cwd=ROOT, env=env(tmp_path))
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["Missing command", "--help"]),
        (["prune"], ["prune"]),
        (["prompts"], ["--axis"]),
        (["prompts", "--axis", "gender"], ["gender_and_sex"]),
        (["prompts", "--axis", "nowhere.csv"], ["nowhere.csv"]),
        (["prompts", "--axis", "age", "--split", "train"], ["valid", "test", "all"]),
        (["prompts", "--axis", "age", "--per-group", "0"], ["at least 1"]),
        (["prompts", "--axis", "age", "--per-group", "many"], ["--per-group"]),
        (["models", "--verbose"], ["--verbose"]),
        (["select", "--scores", "nowhere"], ["nowhere"]),
        (["select", "--scores", "nowhere", "--method", "best"], ["ppl-only"]),
        (["evaluate", "--axis", "age"], ["--heads", "--prune-set"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--prune-set", "x"], ["either"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--continuations", "2"], ["sampled"]),
        (["evaluate", "--axis", "age", "--heads", "head 7"], ["L0H3"]),
        (["evaluate", "--axis", "age", "--heads", "L30H0"], ["L30H0", "layers 0 to 29"]),
        (["evaluate", "--axis", "age", "--prune-set", "nowhere.json"], ["nowhere.json"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--device", "abacus"], ["cpu"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--label", "rude"], ["label"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--text", "no.txt"], ["no.txt"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--tokens", "0"], ["tokens"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--prompts", "0"], ["prompt"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--model", "./nothing"], ["./nothing", "folder that is"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--measure", "sampled", "--samples", "0"], ["sample"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--samples", "4"], ["expected", "--samples", "written or"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--length", "8"], ["expected", "--length"]),
        (["score", "--axis", "age", "--out", "s", "--measure", "written", "--length", "8"], ["written", "--length"]),
        (["score", "--axis", "age", "--out", "s", "--measure", "sampled", "--steps", "5"], ["sampled", "--steps"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--measure", "written", "--contexts", "2"], ["--contexts"]),
        (["score", "--axis", "age", "--out", "s", "--scored", "prompt+continuation"], ["expected", "--scored"]),
        (["explain", "--axis", "age", "--heads", "L0H0", "--samples", "2"], ["expected", "--samples"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--scored", "prompt"], ["prompt+continuation"]),
        (["evaluate", "--axis", "age", "--heads", "L0H0", "--dtype", "int8"], ["bfloat16"]),
        (["score", "--axis", "age"], ["--out"]),
        (["score", "--axis", "age", "--out", "s", "--estimator", "second-order"], ["exact", "refined", "replay"]),
        (["score", "--axis", "age", "--out", "s", "--estimator", "replay"], ["--measure sampled"]),
        (["score", "--axis", "age", "--out", "s", "--estimator", "refined", "--measure", "sampled"], ["expected"]),
        (["score", "--axis", "age", "--out", "s", "--measure", "written", "--estimator", "replay"], ["exact"]),
        (["score", "--axis", "age", "--out", "s", "--until-reliability", "1.5"], ["between 0 and 1"]),
        (["score", "--axis", "age", "--out", "s", "--until-reliability", ".9", "--max-minutes", "0"], ["minutes"]),
        (["score", "--axis", "age", "--out", "s", "--steps", "0"], ["steps"]),
        (["score", "--axis", "age", "--out", "s", "--model", "x.gguf"], ["x.gguf"]),
    ],
)
def test_bad_input(
    args: list[str], words: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run(*args), *words)


def test_bad_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    for args in (["prompts", "--axis", "x"], ["select", "--scores", "y"], ["evaluate", "--axis", "age"]):
        done = outside(*args, cache=tmp_path)
        refused((done.returncode, done.stdout, done.stderr))


@pytest.mark.parametrize(
    "content",
    [
        "layer,head,z_nats,z_bias_neutral\n0,0,1,1\n0,2,1,1\n",  # a head is missing
        "layer,head,z_nats,z_bias_neutral\n0,0,1,1\n0,0,1,1\n",  # one is there twice
        "layer,head,z_nats,z_bias_neutral\n0,0,1,1\n0,0.5,1,1\n",
        "layer,head,z_nats,z_bias_neutral\n0,0,1,1\n0,1,1,many\n",
        "layer,head,z_nats,z_bias_neutral\n0,0,1,1\n0,1,,1\n",  # no score
        "layer,head,z_nats,z_bias_neutral\n",
        "layer,head,z_nats,z_bias_neutral\n0,99999999999999999999,1,1\n",
        "layer,head,z_nats\n0,0,1\n0,1,1\n",  # no bias
        "some,other,table\n1,2,3\n",
        "",
    ],
)
def test_unusable_scores(content: str, run: Run, tmp_path: Path) -> None:
    for name in ("scores.csv", "scores.parquet", "scores.txt"):
        (tmp_path / name).write_text(content)
        refused(run("select", "--scores", tmp_path / name))
    (tmp_path / "scores.parquet").unlink()
    refused(run("select", "--scores", tmp_path))
    refused(run("select", "--scores", tmp_path / "cache"))


def test_a_model_whose_weights_hold_a_missing_number(run: Run, tmp_path: Path) -> None:
    file = write_model(tmp_path / "tiny") / "model.safetensors"
    held = load_file(file)
    held["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(held, file, {"format": "pt"})
    text = write_text(tmp_path, 200)
    axis = write_axis(tmp_path / "axis.csv", ("man", "woman"), groups=("red", "old"))
    args = ("--axis", axis, "--text", text.source, "--tokens", 100, "--window", 50, "--split", "all", "--device", "cpu")
    ran = run("evaluate", "--model", tmp_path / "tiny", "--heads", "L0H1", *args)
    refused(ran, "gave numbers that are not finite", "first in block 1", "weights may be damaged")
