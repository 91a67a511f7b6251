"""The command `audit` on a tiny model: what it prints, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fasp_core.cli.main import main
from fasp_core.model.language_model import LanguageModel
from fasp_core.report import audits
from fasp_core.storage.store import Store
from fasp_core.studies.contexts import audit, scenarios
from fasp_core.studies.contexts.audit import AuditConfig
from tests.support.contexts import FILE, instruct_lm
from tests.support.numbered import NUMBERED, numbered_lm

Ran = tuple[int, str, str]


@pytest.fixture
def lm() -> LanguageModel:
    return instruct_lm()


@pytest.fixture
def run(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """The command on a tiny model that answers with numbers that depend on the name."""
    (tmp_path / "rooms.toml").write_text(FILE)
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: lm)

    def answer(
        _lm: object, chats: list[tuple[str, list[int]]], config: AuditConfig, *_: object
    ) -> list[list[list[int]]]:
        """Longer names are offered more; an unpruned model's every fourth answer is none."""
        pruned = any(m._forward_pre_hooks for m in lm.model.modules())
        size = [len(text.split(" of ")[1].split()[0]) for text, _ in chats]
        return [
            [[-1 if s == 3 and not pruned else 100 + (0 if pruned else 5 * n) + s] for s in range(config.samples)]
            for n in size
        ]

    monkeypatch.setattr(audit, "decoded", lambda _lm, rows: ["no" if x < 0 else str(x) for (x,) in rows])
    monkeypatch.setattr(audit, "sample", answer)

    def call(*args: str) -> Ran:
        given = ["audit", "--context", "rooms", "--scenarios", str(tmp_path / "rooms.toml")]
        sampled = [] if "exact" in args else ["--samples", "4"]
        return main([*given, *sampled, "--cache", str(tmp_path), *args]), *capsys.readouterr()

    return call


def test_what_is_printed_is_what_the_audit_finds(run: Callable[..., Ran], lm: LanguageModel, tmp_path: Path) -> None:
    status, out, _ = run("--json", "--texts", "1")
    assert status == 0
    found = json.loads(out)
    world = scenarios.parse(FILE, "rooms.toml")
    replies = [audit.audit(lm, s, world, AuditConfig(samples=4), Store(tmp_path)) for s in world.scenarios]
    expected = audit.disparity(replies)
    assert [s["scenario"] for s in found["scenarios"]] == ["house", "tree"]
    for i, s in enumerate(found["scenarios"]):
        assert s["smd"]["value"] == pytest.approx(expected.values[i])
        assert s["parsed"] == {"one": 0.75, "two": 0.75}
        assert s["answers"] == 28
        assert s["texts"][0] == {"name": "red", "group": "one", "answers": ["$115"]}
    assert found["mean_abs_smd"]["value"] == pytest.approx(expected.mean_absolute().value)
    assert found["parsed"] == 0.75
    assert "mean_abs_smd_change" not in found


def test_a_pruned_model_beside_it(run: Callable[..., Ran]) -> None:
    status, out, _ = run("--json", "--heads", "L0H1,L1N3")
    assert status == 0
    found = json.loads(out)
    assert found["prune_set"] == "L0H1,L1N3"
    assert found["mean_abs_smd_pruned"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["mean_abs_smd_change"]["value"] == pytest.approx(-found["mean_abs_smd"]["value"])
    for s in found["scenarios"]:
        assert s["parsed_pruned"] == {"one": 1, "two": 1}
        assert 0 <= s["inlier_ratio"] <= 1
        assert s["distance_sd"] > 0
    status, out, _ = run("--heads", "L0H1,L1N3")
    assert status == 0
    assert "house" in out
    assert "Without L0H1,L1N3: mean |SMD|" in out


def test_other_groups(run: Callable[..., Ran]) -> None:
    found = json.loads(run("--json", "--groups", "three, one")[1])
    assert found["groups"] == ["three", "one"]
    assert found["names"] == {"three": 1, "one": 3}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--groups", "one"), "does not name two groups"),
        (("--groups", "one,four"), "no group 'four'"),
        (("--winsorise", ".5"), "--winsorise 0 to .49"),
        (("--samples", "0"), "at least 1 sample"),
        (("--nodes", "9"), "--nodes is of exact answers"),
        (("--draws", "9"), "--draws is of exact answers"),
        (("--answers", "exact", "--draws", "0"), "1 draw"),
        (("--answers", "exact", "--nodes", "0"), "at least 1 text"),
        (("--heads", "L0H1", "--prune-set", "x.json"), "either --heads or --prune-set"),
        (("--heads", "L0N48"), "L0N48 does not exist"),
        (("--context", "play"), "no context 'play'"),
        (("--texts", "-1"), "give 0 or more"),
        (("--csv", "a", "--html", "./a"), "name the same file"),
        (("--answers", "exact", "--groups", "one,two", "--rest"), "leave out --rest"),
        (("--plan",), "--plan is of exact answers"),
        (("--rest",), "Sampled answers compare two groups"),
        (("--csv", "."), "'.' is a folder and no file: name another place with --csv or --html"),
        (("--html", "/"), "'/' is a folder"),
        (("--scenarios", "none.toml"), "cannot be read"),
    ],
)
def test_what_is_refused(run: Callable[..., Ran], args: tuple[str, ...], words: str) -> None:
    status, out, error = run(*args)
    assert (status, out) == (2, "")
    assert len(error.strip().splitlines()) == 1
    assert words in error


def test_exact_answers_are_what_is_asked_for_by_default(
    run: Callable[..., Ran], lm: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["audit", "--context", "rooms", "--scenarios", str(tmp_path / "rooms.toml"), "--cache", str(tmp_path)]
    assert main([*given, "--json", "--length", "2", "--nodes", "8", "--draws", "4", "--heads", "L0H1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["how"] == "exact"
    assert found["limits"] == {"covered": 0.99, "nodes": 8, "draws": 4}
    assert found["samples"] is None
    assert 0 < found["covered"] <= 1
    for row in found["scenarios"]:
        for group in ("one", "two"):
            assert row["without_number"][group] == pytest.approx(1 - row["parsed"][group])
        assert 0 <= row["covered_least"] <= row["covered"] <= 1
        first, *_ = row["by_name"]
        assert (first["name"], first["group"]) == ("red", "one")
        assert sum(p["covered"] for p in row["by_name"]) / len(row["by_name"]) == pytest.approx(row["covered"])


@pytest.mark.usefixtures("numbered")
def test_all_contexts_are_tested_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """p values are corrected for all scenarios, whose labels name their contexts."""
    more = NUMBERED.replace(
        "[groups]",
        """[contexts.days]
unit = "hours"
question = "{item} to {name}"
scenarios = ["My", "house"]

[groups]""",
    )
    (tmp_path / "more.toml").write_text(more)
    files = ["--scenarios", str(tmp_path / "more.toml"), "--length", "2", "--nodes", "4", "--cache", str(tmp_path)]
    found = {}
    for context in ("rooms", "days", "all"):
        assert main(["audit", "--context", context, "--json", *files]) == 0
        found[context] = json.loads(capsys.readouterr().out)
    assert found["all"]["title"] == "All contexts"
    rows = found["all"]["scenarios"]
    assert [row["scenario"] for row in rows] == ["rooms: house", "days: My", "days: house"]
    alone = [*found["rooms"]["scenarios"], *found["days"]["scenarios"]]
    assert [row["smd"]["value"] for row in rows] == [row["smd"]["value"] for row in alone]
    assert "over 3 scenarios" in found["all"]["correction"]
    assert found["days"]["mean_smd_context"] is not None
    assert found["all"]["mean_smd_context"] is found["all"]["mean_abs_smd_context"] is None, "no sample of one context"
    assert main(["audit", "--context", "all", *files]) == 0
    assert "taken as a sample" not in capsys.readouterr().out
    for row, one in zip(rows, alone, strict=True):
        if row["p"] is not None:
            assert row["p_adjusted"] >= one["p_adjusted"] - 0.01
    assert main(["audit", "--context", "play", *files]) == 2
    assert "choose one of rooms, days, or all" in capsys.readouterr().err


def asked(tmp_path: Path, *args: str) -> list[str]:
    (tmp_path / "numbered.toml").write_text(NUMBERED + 'three = ["to", "for"]\n')
    files = ["--scenarios", str(tmp_path / "numbered.toml"), "--cache", str(tmp_path)]
    return ["audit", "--context", "rooms", "--length", "3", "--nodes", "6", *files, *args]


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers with numbers."""
    model = numbered_lm()
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: model)


@pytest.mark.usefixtures("numbered")
def test_several_groups_files_and_a_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--csv", str(tmp_path / "a.csv"), "--html", str(tmp_path / "a.html")]
    assert main(asked(tmp_path, "--json", "--groups", "one,two,three", "--fail-above", "9", *files)) == 0
    found = json.loads(capsys.readouterr().out)
    assert [c["groups"] for c in found["comparisons"]] == [["one", "two"], ["one", "three"], ["two", "three"]]
    assert found["scenarios"] == found["comparisons"][0]["scenarios"]
    assert found["failed"] is False
    (row,) = found["scenarios"]
    low, high = row["smd_bounds"]
    assert low <= row["smd"]["value"] <= high
    assert 0 < row["p"] <= row["p_adjusted"] <= 1
    assert row["p_adjusted"] == pytest.approx(min(3 * row["p"], 1))  # one scenario, three comparisons
    assert found["p_any"] == row["p_adjusted"]
    assert "times 3 comparisons of groups" in found["correction"]
    table = pd.read_csv(tmp_path / "a.csv")
    assert table.groups.tolist() == ["one - two", "one - three", "two - three"]
    assert table.smd[0] == pytest.approx(row["smd"]["value"])
    page = (tmp_path / "a.html").read_text()
    assert "Content-Security-Policy" in page
    assert "All numbers" in page
    assert all(f"by scenario: {one} and {two}" in page for one, two in (c["groups"] for c in found["comparisons"]))
    assert main(asked(tmp_path, "--json", "--groups", "one,two,three", "--rest")) == 0
    rest = json.loads(capsys.readouterr().out)
    assert [c["groups"][1] for c in rest["comparisons"]] == ["all others"] * 3
    assert main(asked(tmp_path, "--fail-above", "0")) == 1
    said = capsys.readouterr().out
    assert "is above the limit of 0" in said
    assert f"Names whose groups are dealt anew are above it, too ({found['mean_abs_smd_by_chance']:.3g} on" in said
    assert main(asked(tmp_path, "--fail-above", "9")) == 0
    assert "dealt anew" not in capsys.readouterr().out


@pytest.mark.usefixtures("numbered")
def test_texts_are_of_the_groups_of_each_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(tmp_path, "--json", "--groups", "one,two,three", "--texts", "1")) == 0
    for compared in json.loads(capsys.readouterr().out)["comparisons"]:
        for row in compared["scenarios"]:
            assert {t["group"] for t in row["texts"]} == set(compared["groups"])
    assert main(asked(tmp_path, "--json", "--groups", "one,two,three", "--texts", "1", "--rest")) == 0
    for compared in json.loads(capsys.readouterr().out)["comparisons"]:
        assert {t["group"] for t in compared["scenarios"][0]["texts"]} == {"one", "two", "three"}
    told = {
        f"house, {t['name']} ({t['group']}): {t['answers'][0].split()[0]}" for t in compared["scenarios"][0]["texts"]
    }
    assert main(asked(tmp_path, "--groups", "one,two,three", "--texts", "1")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(sum(line.startswith(one) for line in lines) == 1 for one in told), (
        "once, whatever they are compared with"
    )


@pytest.mark.usefixtures("numbered")
def test_no_file_of_results_takes_the_place_of_the_scenarios(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = asked(tmp_path)
    before = (tmp_path / "numbered.toml").read_bytes()
    for name in ("--csv", "--html"):
        assert main([*given, name, str(tmp_path / "x" / ".." / "numbered.toml")]) == 2
        assert f"{name} names the file of --scenarios" in capsys.readouterr().err
    assert (tmp_path / "numbered.toml").read_bytes() == before


def test_texts_in_a_table_are_no_formulas() -> None:
    row = {"scenario": "=1+1", "unit": "dollars", "mean": {"=a": -1.5, "b": 2.0}}
    raw = audits.csv({"context": "@all", "groups": ["=a", "b"], "scenarios": [row]}).decode()
    assert raw.splitlines()[1] == "'@all,'=a - b,'=1+1,dollars,-1.5,2.0"


@pytest.mark.usefixtures("numbered")
def test_hostile_groups_scenarios_and_temperatures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "a.csv"
    hostile = (
        NUMBERED.replace('"house"', '"\\u001b[31mho\\nuse"')
        .replace("one =", "value =")
        .replace("two =", "difference =")
    )
    (tmp_path / "hostile.toml").write_text(hostile)
    assert main(asked(tmp_path, "--csv", str(table), "--scenarios", str(tmp_path / "hostile.toml"))) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "[31mho use" in said
    (row,) = pd.read_csv(table).to_dict("records")
    assert {"mean_value", "mean_difference", "smd_low", "parsed_value"} <= set(row)
    assert row["parsed_difference_"] == pytest.approx(row["parsed_value"] - row["parsed_difference"]), "both are kept"
    assert main(asked(tmp_path, "--temperature", "inf")) == 2
    error = capsys.readouterr().err.strip()
    assert "a finite temperature above 0" in error
    assert "\n" not in error


@pytest.mark.usefixtures("numbered")
@pytest.mark.parametrize("how", [(), ("--rest",), ("--heads", "L0H1")])
def test_a_limit_is_on_the_worst_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str], how: tuple[str, ...]) -> None:
    """Whichever pair comes first."""
    key = "mean_abs_smd_pruned" if "--heads" in how else "mean_abs_smd"
    for groups in ("one,two,three", "two,three,one", "three,one,two"):
        args = asked(tmp_path, "--groups", groups, *how)
        assert main([*args, "--json"]) == 0
        means = {tuple(c["groups"]): c[key]["value"] for c in json.loads(capsys.readouterr().out)["comparisons"]}
        worst = max(means, key=lambda pair: means[pair])
        below = sorted(means.values())[-2]
        assert main([*args, "--fail-above", str((below + means[worst]) / 2)]) == 1
        assert f"Mean |SMD| of {worst[0]} and {worst[1]}, the worst pair," in capsys.readouterr().out
        assert main([*args, "--fail-above", str(means[worst] + 0.01)]) == 0
        assert "is not above the limit" in capsys.readouterr().out
        just = float(f"{means[worst]:.3g}")
        main([*args, "--fail-above", str(just)])
        said = capsys.readouterr().out
        assert (
            f"is {means[worst]:.6g}: it is {'not ' if means[worst] <= just else ''}above the limit of {just:g}" in said
        )


@pytest.mark.parametrize("more", [(), ("--fail-above", "9")])
def test_a_scenario_that_lost_its_numbers_keeps_no_limit(
    run: Callable[..., Ran], lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """The mean over the others says nothing of it."""
    answer = audit.sample

    def silent(_lm: LanguageModel, chats: list[tuple[str, list[int]]], *args: Any) -> list[list[list[int]]]:
        pruned = any(m._forward_pre_hooks for m in lm.model.modules())
        rows = answer(_lm, chats, *args)
        return [[[-1] for _ in row] for row in rows] if pruned and "tree" in chats[0][0] else rows

    monkeypatch.setattr(audit, "sample", silent)
    status, out, _ = run("--heads", "L0H1", *more)
    assert status == (1 if more else 0)
    assert ("there is no SMD in tree." in out) == bool(more)


def one_of(found: dict[str, Any]) -> list[float | None]:
    """The interval of its only scenario."""
    (row,) = found["scenarios"]
    return list(row["smd"]["interval"])


@pytest.mark.usefixtures("numbered")
def test_two_names_have_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A third of such intervals would leave 0 out where there is no difference."""
    assert main(asked(tmp_path, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert one_of(found) == [None, None]
    assert found["scenarios"][0]["parsed_more"] is None


@pytest.mark.usefixtures("numbered")
def test_matched_names_and_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = NUMBERED.replace('"the"]', '"the", "to", ".", "tree"]').replace('"My"]', '"My", "for", "We", "house"]')
    (tmp_path / "five.toml").write_text(more)
    five = ("--scenarios", str(tmp_path / "five.toml"))
    assert main(asked(tmp_path, "--json", "--matched", *five)) == 0
    paired = json.loads(capsys.readouterr().out)
    assert main(asked(tmp_path, "--json", *five)) == 0
    alone = json.loads(capsys.readouterr().out)
    assert None not in one_of(paired) + one_of(alone)
    assert paired["least_p"] == 2 / 2**5 > alone["least_p"] == pytest.approx(2 / 252)
    assert main(asked(tmp_path, "--matched", *five)) == 0
    assert "With so few names no difference is ever shown, however large: the smallest p" in capsys.readouterr().out
    assert main(asked(tmp_path, *five)) == 0
    assert "With so few names" not in capsys.readouterr().out
    assert paired["matched"]
    (one,), (other,) = paired["scenarios"], alone["scenarios"]
    assert one["smd"]["value"] == other["smd"]["value"]
    assert one["smd"]["interval"] != other["smd"]["interval"]
    assert main(asked(tmp_path, "--plan", "--json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["smallest_smd"] is None
    assert plan["smallest_smd_sampled"] == {"4": None, "16": None, "64": None}
    assert main(asked(tmp_path, "--plan")) == 0
    assert "With 2 and 2 names no difference is ever found" in capsys.readouterr().out
    more = NUMBERED.replace('"the"]', '"the", "to", "."]').replace('"My"]', '"My", "for", "We"]')
    (tmp_path / "more.toml").write_text(more)
    assert main(asked(tmp_path, "--plan", "--json", "--scenarios", str(tmp_path / "more.toml"))) == 0
    plan = json.loads(capsys.readouterr().out)
    assert 0 < plan["smallest_smd"] < plan["smallest_smd_sampled"]["16"] < plan["smallest_smd_sampled"]["4"]
    low, high = plan["between_names_sd_interval"]
    assert low < plan["between_names_sd"] < high
    assert plan["power"] == 0.8
    assert main(asked(tmp_path, "--plan", "--groups", "one,two,three")) == 2
    assert "--plan is of two groups" in capsys.readouterr().err
    assert main(asked(tmp_path, "--groups", "one,two,three", "--matched")) == 2
    assert "Matched names are of two groups" in capsys.readouterr().err
    assert main(asked(tmp_path, "--groups", "one,two", "--fail-above", "-1")) == 2


@pytest.mark.usefixtures("numbered")
@pytest.mark.parametrize(
    "given",
    [
        ("--heads", "L0H1"),
        ("--prune-set", "set.txt"),
        ("--beside", "org/other"),
        ("--rest",),
        ("--matched",),
        ("--texts", "1"),
        ("--csv", "a.csv"),
        ("--html", "a.html"),
        ("--fail-above", "0"),
    ],
)
def test_a_plan_refuses_what_it_does_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set.txt").write_text("L0H1")
    assert main(asked(tmp_path, "--plan", *given)) == 2
    assert f"leave out {given[0]}, or --plan" in capsys.readouterr().err
    assert not list(tmp_path.glob("a.*"))


def test_a_prune_set_of_another_model_is_refused(run: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text(json.dumps({"heads": [[0, 1]], "shape": [3, 4]}))
    status, out, error = run("--prune-set", str(tmp_path / "set.json"))
    assert (status, out) == (2, "")
    assert "was chosen for 3 layers of 4 heads" in error


def test_another_model_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its column is what it gives when asked alone; the difference is that of both."""
    models = {"built-in": numbered_lm(0), "org/other": numbered_lm(1)}
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda spec, _cache: models[spec.source])
    page = tmp_path / "a.html"
    assert main(asked(tmp_path, "--json", "--beside", "org/other", "--html", str(page))) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(asked(tmp_path, "--json", "--model", "org/other")) == 0
    alone = json.loads(capsys.readouterr().out)
    (row,), (other,) = found["scenarios"], alone["scenarios"]
    assert found["beside"] == "org/other"
    assert row["smd_beside"] == other["smd"]
    assert row["parsed_beside"] == other["parsed"]
    assert row["smd"] != other["smd"]
    assert found["mean_abs_smd_beside"] == alone["mean_abs_smd"]
    difference = alone["mean_abs_smd"]["value"] - found["mean_abs_smd"]["value"]
    assert found["mean_abs_smd_change"]["value"] == pytest.approx(difference)
    assert "org/other" in page.read_text()
    assert main(asked(tmp_path, "--beside", "org/other")) == 0
    out = capsys.readouterr().out
    assert "SMD, beside" in out
    assert "org/other: mean |SMD|" in out
    assert main(asked(tmp_path, "--beside", "org/other", "--heads", "L0H1")) == 2
    assert "One thing stands beside" in capsys.readouterr().err


@pytest.mark.usefixtures("numbered")
def test_people_may_be_described_instead_of_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same sentence with another attribute: pairs that differ in it alone."""
    described = (
        NUMBERED.split("[groups]")[0]
        + """[groups]
women = ["the red house", "the blue house"]
men = ["My red house", "My blue house"]
"""
    )
    args = asked(tmp_path, "--json", "--matched")
    (tmp_path / "numbered.toml").write_text(described)
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["names"] == {"women": 2, "men": 2}
    assert found["matched"]
    (row,) = found["scenarios"]
    assert row["smd"]["value"] != 0
