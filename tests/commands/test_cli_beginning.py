"""How texts begin and how long their windows are, on the command line: chosen, told, and refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from tests.support.commands import Run, runner, write_sentences
from tests.support.tiny import CONTEXT, TOKENS, tiny_model, tiny_text, tiny_tokenizer
from tests.support.worlds import write_model

BOS = "The"  # any token of the tiny tokenizer may begin texts


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer begins every text, a text of 300 tokens, and an axis of two groups."""
    folder = tmp_path_factory.mktemp("beginning")
    tiny_model("gpt2").save_pretrained(folder / "begun")
    raw = type(tiny_tokenizer()._tokenizer).from_str(tiny_tokenizer()._tokenizer.to_str())
    raw.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, TOKENS.index(BOS))])
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="<eos>", bos_token=BOS).save_pretrained(
        folder / "begun"
    )
    write_model(folder / "plain", "gpt2")
    (folder / "text.txt").write_text(tiny_text(300))
    rows = write_sentences(folder / "axis.csv", ("My",), ("red", "green"), ends=("kind", "nice", "good", "bad", "ugly"))
    long = "I" + " a" * (CONTEXT + 5)
    (folder / "long.csv").write_text("\n".join(["text,group", *rows, f'"{long}",red', f'"{long} is",green']) + "\n")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "cache"))
    return runner(capsys)


def options(place: Path, model: str, axis: str = "axis.csv") -> list[str]:
    said = ["--model", str(place / model), "--axis", str(place / axis), "--device", "cpu", "--prompts", "24"]
    return [*said, "--text", str(place / "text.txt"), "--tokens", "256"]


def evaluated(run: Run, place: Path, model: str, *more: str) -> dict[str, Any]:
    status, out, err = run("evaluate", *options(place, model), "--heads", "L0H1", "--json", *more)
    assert not status, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_beginning_is_chosen_and_told(run: Run, place: Path) -> None:
    found = {bos: evaluated(run, place, "begun", "--bos", bos, "--window", "32") for bos in ("auto", "yes", "no")}
    ppl = {bos: f["perplexity"] for bos, f in found.items()}
    assert ppl["auto"] == ppl["yes"]
    assert ppl["auto"]["base"] != ppl["no"]["base"]
    assert (ppl["auto"]["tokens"], ppl["no"]["tokens"]) == (256, 248)
    assert ppl["auto"]["windows"] == f"windows of 32 tokens after {BOS}"
    assert ppl["no"]["windows"] == "windows of 32 tokens without a beginning token"
    assert [found[bos]["provenance"]["bos"] for bos in ("auto", "no")] == [BOS, f"no {BOS}"]
    assert found["auto"]["readings"] != found["no"]["readings"]  # prompts begin so, too
    plain = evaluated(run, place, "plain", "--window", "32")
    assert plain["perplexity"]["base"] == ppl["no"]["base"]  # the same weights and ids
    status, out, _ = run("evaluate", *options(place, "begun"), "--heads", "L0H1")
    assert not status
    assert (
        f"perplexity on 256 tokens, in windows of {CONTEXT - 1} tokens (as many as this model takes) after {BOS}" in out
    )


def test_the_usual_window_shrinks_and_a_named_one_is_refused(run: Run, place: Path, tmp_path: Path) -> None:
    found = evaluated(run, place, "plain")["perplexity"]
    assert (found["text"]["window"], found["text"]["stride"]) == (CONTEXT, CONTEXT)
    assert found == evaluated(run, place, "plain", "--window", str(CONTEXT))["perplexity"]
    told = f"Error: Windows of {CONTEXT + 1} tokens do not fit: this model takes at most {CONTEXT}"
    more = ("--window", str(CONTEXT + 1))
    for command in (["evaluate", "--heads", "L0H1"], ["score", "--out", str(tmp_path / "scores")]):
        status, _, err = run(*command, *options(place, "plain"), *more)
        assert (status, err.splitlines()[-1][: len(told)]) == (2, told)
        assert "--window" in err
    status, _, err = run("evaluate", *options(place, "begun"), "--heads", "L0H1", "--window", str(CONTEXT))
    assert (status, f"at most {CONTEXT - 1} after {BOS}" in err) == (2, True)
    plan = ("plan", "--config", place / "plain", "--axis", place / "axis.csv", "--json")
    assert json.loads(run(*plan)[1])["window"] == CONTEXT
    assert run(*plan, *more)[0] == 2


def test_scores_tell_it_and_are_kept_apart(run: Run, place: Path, tmp_path: Path) -> None:
    base = {}
    for bos in ("auto", "no"):
        out = tmp_path / bos
        status, text, err = run("score", *options(place, "begun"), "--out", out, "--bos", bos, "--estimator", "refined")
        assert not status, err
        about = json.loads((out / "scores.json").read_text())["perplexity"]
        base[bos] = about["base"]
        assert about["text"]["window"] == CONTEXT - (bos == "auto")
        assert f"in {about['windows']}" in text
    assert base["auto"] != base["no"]


@pytest.mark.parametrize("command", ["compare", "search", "report"])
def test_a_command_that_is_advised_begins_alike(run: Run, place: Path, tmp_path: Path, command: str) -> None:
    out = ("--out", str(tmp_path / "r.html")) if command == "report" else ()
    asked = ("--model", place / "begun", "--axis", place / "axis.csv", "--device", "cpu", "--bos", "no", *out)
    status, _, err = run(command, *asked)
    assert status == 2
    assert f"--model {place / 'begun'} --bos no --axis" in err


def test_a_tokenizer_without_a_beginning(run: Run, place: Path) -> None:
    status, _, err = run("evaluate", *options(place, "plain"), "--heads", "L0H1", "--bos", "yes")
    assert (status, err.splitlines()[-1]) == (
        2,
        "Error: This model's tokenizer has no beginning token: leave --bos at auto, or say no.",
    )


@pytest.mark.parametrize("measure", ["expected", "sampled"])
def test_a_prompt_that_does_not_fit_is_one_sentence(run: Run, place: Path, measure: str) -> None:
    asked = [*options(place, "plain", "long.csv"), "--heads", "L0H1", "--measure", measure, "--split", "all"]
    asked[asked.index("24")] = "200"
    status, _, err = run("evaluate", *asked)
    room = ", 20 of them for the continuation" if measure == "sampled" else ""
    last = err.splitlines()[-1]
    assert status == 2
    assert last.startswith("Error: The prompt ")
    assert f"tokens and this model takes {CONTEXT}{room}: shorten it." in last
