"""The commands `study ...`, their older names, and what every way of asking takes where nothing is named."""

from __future__ import annotations

import inspect
import json
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from scipy import stats

from fasp_core import api, defaults
from fasp_core.cli.main import app, main
from fasp_core.heads.selection import select
from fasp_core.model.loading import known_id
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.score import prunable
from fasp_core.storage.store import Store
from fasp_core.studies.transfer import transfer
from pages.session.recipe import Recipe
from tests.support.fakes import keep_scores, make_table

ROOT = Path(__file__).resolve().parents[2]
GROUP: Any = typer.main.get_command(app)
OLDER = {
    "fasp_core.contexts": "contexts",
    **{f"fasp_core.experiments.{n}": n for n in ("additivity", "agreement", "robustness", "transfer", "truth")},
}


def recorded() -> list[list[str]]:
    """Command lines that committed results name, those of tests and helpers aside, which name no command."""
    found = set()
    for header in (ROOT / "cache").glob("*/built-in--*/entry.json"):
        made = json.loads(header.read_text())["meta"].get("provenance", {}).get("command", "")
        words = shlex.split(made)[2:]
        if words and (words[0] in OLDER or (words[1:2] and words[1] in GROUP.commands)):
            found.add(tuple(words))
    return [list(words) for words in sorted(found)]


@pytest.mark.parametrize("words", recorded(), ids=lambda words: " ".join(words)[:80])
def test_commands_of_stored_results_are_still_understood(words: list[str]) -> None:
    module, *rest = words
    group, name = (GROUP.commands["study"], OLDER[module]) if module in OLDER else (GROUP, rest.pop(0))
    group.commands[name].make_context(name, rest)


@pytest.mark.parametrize("module", OLDER)
def test_older_names_run_the_same_command(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for options, status in ((["--help"], 0), (["--nothing"], 2)):
        assert main(["study", OLDER[module], *options]) == status
        said.append(capsys.readouterr())
        monkeypatch.setattr("sys.argv", [module, *options])
        with pytest.raises(SystemExit, match=str(status)):
            runpy.run_module(module, run_name="__main__")
        assert capsys.readouterr() == said.pop()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["robustness", "--axis", "own.csv"], "choose one of"),
        (["contexts", "--winsorise", ".5"], "--winsorise 0 to .49"),
        (["contexts", "--method", "heads-luck"], "Choose one or more methods of"),
        (["contexts", "--equal-parameters", "--neurons", ".1"], "leave out --neurons"),
        (["contexts", "--equal-parameters", "--weights", ".1"], "leave out --weights"),
        (["contexts", "--weights", "1"], "Shares of parts lie between 0 and 1"),
        (["contexts", "--answers", "sampled", "--nodes", "8"], "--nodes is of exact answers"),
        (["contexts", "--answers", "sampled", "--draws", "8"], "--draws is of exact answers"),
        (["contexts", "--answers", "exact", "--samples", "8"], "--samples is of sampled answers"),
        (["truth", "--axis", "age", "--prompts", "12"], "--estimator exact --prompts 12"),
        (["additivity", "--tokens", "100000"], "use at most as many"),
        (["additivity", "--axis", "race_ethnicity"], "python -m fasp_core score"),
        (["robustness", "--axis", "race_ethnicity"], "python -m fasp_core score"),
    ],
)
def test_what_is_refused(args: list[str], words: str, tmp_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["study", *args])
    out, err = capsys.readouterr()
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert words in err


def given(function: Any) -> dict[str, Any]:
    """What a function or a command takes where an argument is not named."""
    if isinstance(function, str):
        return {option.name: option.default for option in GROUP.commands[function].params}
    return {name: p.default for name, p in inspect.signature(function).parameters.items()}


def test_command_line_python_and_app_take_the_same() -> None:
    recipe = Recipe()
    for found in (given("select"), given("report"), given(api.select), given(select), vars(recipe)):
        assert (found["method"] or "fasp", found["gamma"], found["alpha"]) == ("fasp", defaults.GAMMA, defaults.ALPHA)
    for found in (given("compare"), given("search"), given("report")):
        assert found["max_ppl"] == recipe.limit / 100 == defaults.MAX_PPL
    for found in (given("evaluate"), given("report")):
        assert (found["n_prompts"], found["tokens"]) == (defaults.TEST_PROMPTS, defaults.TEST_TOKENS)
    assert given(api.evaluate)["prompts"] == defaults.TEST_PROMPTS
    assert given(api.evaluate)["tokens"] == recipe.tokens == defaults.TEST_TOKENS
    assert given(api.score)["tokens"] == given("score")["tokens"] == given("plan")["tokens"] == defaults.SCORE_TOKENS
    assert given(api.score)["estimator"] == defaults.ESTIMATOR


@pytest.mark.parametrize(("more", "by"), [((), "refined"), (("--measure", "sampled"), "exact")])
def test_scores_are_by_the_estimator_that_fits_the_measure(
    more: tuple[str, ...], by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def check(estimator: str, measure: str) -> None:
        asked.append((estimator, measure))
        raise KeyboardInterrupt

    monkeypatch.setattr("fasp_core.scoring.score.check", check)
    assert main(["score", "--axis", "age", "--out", str(tmp_path), *more]) == 130
    assert asked == [(by, more[-1] if more else "expected")]


def test_the_command_reads_the_scores_that_there_are(tmp_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["study", "transfer", "--only-correlations", "--json", "--gamma", "0.4"]
    assert main(args) == 2
    assert "score another one" in capsys.readouterr().err
    store = Store()
    keep_scores(store, "age", make_table(30, 9, n=90, seed=1))
    keep_scores(store, "religion", make_table(30, 9, n=90, seed=2), estimator="first-order")  # a preview does not count
    assert main(args) == 2
    keep_scores(store, "nationality", make_table(30, 9, n=90, seed=3), estimator="refined")
    capsys.readouterr()
    assert main(args) == 0
    document = json.loads(capsys.readouterr().out)
    assert [a["axis"] for a in document["correlations"]["axes"]] == ["age", "nationality"]
    assert document["transfer"] is None
    (found,) = (p for p in document["correlations"]["pairs"] if (p["heads"], p["kind"]) == ("prunable", "pearson"))
    tables = transfer.stored_scores(None, known_id(ModelSpec()), "built-in", store)
    z = [t.bias.z_bias("neutral")[prunable(t, 0.4)] for t in tables.values()]
    assert found["n"] == 270 - 108
    assert found["r"]["value"] == pytest.approx(stats.pearsonr(*z).statistic)
    capsys.readouterr()
    assert main([*args, "--axis", "age", "--axis", "religion"]) == 2
    assert "no scores of religion" in capsys.readouterr().err
