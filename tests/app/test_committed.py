"""What is committed for the built-in model fills the pages, and the README quotes it as it is. No model is loaded."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.cli.main import main
from fasp_core.data.divisions import CELLS
from fasp_core.defaults import WINSORISE
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from fasp_core.studies.compare import against_fasp, compare, front
from fasp_core.studies.compare.limits import Limits
from fasp_core.studies.compare.methods import Sample
from fasp_core.studies.contexts.choosing import USUAL
from fasp_core.studies.contexts.findings import findings
from fasp_core.studies.contexts.generalisation import Carried
from fasp_core.studies.contexts.generalisation import told as interval_of
from fasp_core.studies.contexts.settings import KINDS
from fasp_core.studies.transfer import divisions
from pages.backend.engine import Engine, engine
from tests.support.fakes import use_engine
from tests.support.made import OUTCOME_KEYS
from tests.support.running import ROOT, opened, said


@pytest.fixture(autouse=True)
def committed(tmp_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """The repository's results, in a cache of their own."""
    for kind in ("scores", "experiments", "words", "gains", "tasks"):
        for entry in (ROOT / "cache" / kind).glob("built-in--*"):
            shutil.copytree(entry, tmp_cache / kind / entry.name)
    use_engine(monkeypatch, Engine(load=lambda _: pytest.fail("a model is loaded")))
    yield
    for job in engine().jobs():
        job.cancel()
        job.wait(20)


def told(page: str, **state: Any) -> str:
    return said(opened(page, **state))


def claim(capsys: Any, *options: str) -> dict[str, Any]:
    command = ["compare", "--model", "built-in", "--axis", "race_ethnicity", "--outcome", "--json", *options]
    assert main(command) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def comparison_of(axis: str) -> compare.Comparison:
    """Of all methods and seeds that README speaks of."""
    found = compare.stored(engine().models.facts(ModelSpec()).id, axis, "neutral", Store(), "built-in")  # type: ignore[union-attr]
    assert found is not None
    assert {c.gamma for c in found.candidates if c.method == "fasp"} == {0.2, 0.3, 0.4, 0.5, 0.6, 0.7}
    assert {c.seed for c in found.candidates if c.method == "random"} >= set(range(5))
    return found


def readme() -> str:
    return " ".join((ROOT / "README.md").read_text("utf-8").split())


def test_the_claim_and_the_search_against_fasp(capsys: Any) -> None:
    """On one page, which is drawn once."""
    page = told("compare").replace("\\", "")
    assert "The choice, on validation" in page
    found = claim(capsys)
    assert found.keys() >= OUTCOME_KEYS
    assert (found["measure"], found["reading"]) == ("expected", "neutral")
    assert found["prompts"] >= 5000
    assert found["reduction_pct"] == pytest.approx(100 * (1 - found["gap_pruned"] / found["gap_base"]))
    low, high = found["interval_pct"]
    assert 0 < low < found["reduction_pct"] < high  # "reduced" needs an interval that is clear of zero
    assert found["measures"]["sampled"]["continuations_a_side"] >= 10_000
    assert found["sentence"] in readme()
    for sentence in (found["sentence"], *found["cautions"]):
        assert sentence in page
    stricter = claim(capsys, "--max-ppl", ".08")
    low, high = stricter["interval_pct"]
    assert f"{stricter['reduction_pct']:.0f}% [{low:.0f}%, {high:.0f}%]" in readme()

    comparison = comparison_of("race_ethnicity")
    against = against_fasp.versus(
        comparison, engine().results.searches(ModelSpec(), "race_ethnicity", "neutral"), "neutral", 0.1
    )
    assert against is not None
    assert len(against.runs) >= 5
    mean = against.mean
    assert (
        f"{mean.value:+.0%} [{mean.low:+.0%}, {mean.high:+.0%}]".replace("-", "−").replace("%,", ",").replace("%]", "]")
        in readme()
    )
    assert against.sentence() in page


def test_the_papers_axis_fills_the_page() -> None:
    comparison_of("gender_and_sex")
    assert "The choice, on validation" in told("compare", axis="gender_and_sex")


def test_transfer_fills_the_page() -> None:
    found = re.search(r"\*\*Of 42 measurements of a set on another axis: in (\d+) the gap fell", told("transfer"))
    assert found is not None
    assert f"on other axes in {found[1]} of 42" in readme()


@pytest.mark.parametrize("choose", ["mean", "gains"])
def test_divisions_are_quoted_and_fill_the_page(choose: str) -> None:
    precision = "bfloat16" if choose == "gains" else "float32"
    plan = divisions.Plan("race_ethnicity", choose=choose, precision=precision)
    found = divisions.find(plan, engine().models.facts(ModelSpec()).id, Store())  # type: ignore[union-attr]
    assert found is not None
    assert found.outcome in told("transfer", **{"divisions axis": "race_ethnicity", "divisions choose": choose})
    for cell in CELLS:
        quoted = []
        for reading in ("neutral", "counted"):
            one = found.cells[reading][cell]
            assert one.found == ("fell",) * 5
            ends = [f"{100 * end:.0f}".replace("-", "−") for end in (one.change.low, one.change.high)]
            change = f"{100 * one.change.value:.0f}% [{ends[0]}, {ends[1]}]".replace("-", "−")
            quoted.append(f"{1000 * np.mean(one.base):.2f} → {1000 * np.mean(one.pruned):.2f} | {change} |")
        name = "both new" if cell == "new both" else cell
        assert f"| {name} | {' '.join(quoted)}" in readme().replace("**", "")


@pytest.mark.parametrize(
    ("limits", "items", "named"),
    [
        (Limits(), 300, ("search", "fasp", "gains*1", "hard-concrete")),
        (Limits(0.05, lambada_points=2), 2000, ("search", "fasp", "gains*1", "gains-all")),
    ],
)
def test_methods_are_quoted(limits: Limits, items: int, named: tuple[str, ...]) -> None:
    """Each line of README's tables, as it is stored."""
    known = engine().models.facts(ModelSpec()).id  # type: ignore[union-attr]
    sample = Sample("race_ethnicity", items=items)
    found = front.stored(comparison_of("race_ethnicity"), limits, known, Store(), sample)
    assert set(found.methods) >= set(named)
    for name in named:
        one = found.methods[name]
        numbers = [
            f"{-one[key]:+.0f}% [{-one[ends][1]:+.0f}, {-one[ends][0]:+.0f}]"
            for key, ends in (
                ("reduction_pct", "interval_pct"),
                ("within_templates_reduction_pct", "within_templates_interval_pct"),
            )
        ]
        for key, ends, unit in (
            ("ppl_change_pct", "ppl_interval_pct", "%"),
            ("paragraphs_change_pct", "paragraphs_interval_pct", "%"),
            ("lambada_points", "lambada_interval", ""),
        ):
            numbers.append(f"{one[key]:+.1f}{unit} [{one[ends][0]:+.1f}, {one[ends][1]:+.1f}]")
        row = " | ".join(numbers).replace("-", "−")
        assert f"| {row} |" in readme(), name


def test_additivity_fills_the_page() -> None:
    assert "Not measured yet" not in told("assumptions").split("Would another measure")[0]


def test_robustness_fills_the_page() -> None:
    text = told("assumptions", assumption="Does the measure matter?")
    assert "Not measured yet" not in text
    found = re.search(
        r"VADER\) (\d+) .*CrowS-Pairs preference (\d+) .*StereoSet preference (\d+) .*VADER\) −(\d+)% ", text
    )
    assert found is not None
    sentiment, crows, stereoset, fall = found.groups()
    assert (
        f"shares {sentiment} of 13 heads with its choice by a sentiment gap (VADER), {crows} with that by CrowS-Pairs "
        f"and {stereoset} with that by StereoSet"
    ) in readme()
    assert f"the sentiment gap by {fall}%" in readme()


def test_contexts_fill_the_page() -> None:
    every, exact, parameters, sampled = engine().results.matrices(ModelSpec())
    assert (len(every.scenarios), len(every.people)) == (19, 64)
    assert every.config.exact is not None
    assert exact.config.exact is not None
    assert parameters.config.exact is not None
    assert set(sampled.config.methods) == set(USUAL)
    for found in (every, exact, parameters, sampled):
        assert set(found.contexts) == {"purchases", "services", "activities", "finance"}
    text = told("contexts")
    assert "Nothing was run" not in text
    for finding in findings(Carried(every, WINSORISE)):
        assert finding.verdict in text
    sentences = " ".join(finding.sentence for finding in findings(Carried(exact, WINSORISE))[:2])
    numbers = re.findall(r"[+-]\d\S* \[.*?\]", sentences)
    assert len(numbers) == 7
    carried = Carried(parameters, WINSORISE)
    numbers += re.findall(r"[+-]\d\S* \[.*?\]", findings(carried)[0].sentence)
    assert len(numbers) == 11
    for number in numbers:
        assert number.replace("-", "−") in readme()
    kept, cells = ({m: x(parameters.of(m)) for m in parameters.config.methods} for x in (carried.inliers, list))
    lost = carried.summary(cells["weights-effect"])
    assert lost is not None
    assert (
        f"leave {kept['heads-effect']:.0%}, {kept['neurons-effect']:.0%} and {kept['weights-effect']:.0%} of answers "
        f"in their usual range, as many at random {kept['heads-random']:.0%}, {kept['neurons-random']:.0%} and "
        f"{kept['weights-effect-random']:.0%}; without the weights {lost.left} of 20 tests have no numbers"
    ) in readme()


def test_readme_tells_what_all_contexts_say() -> None:
    """Its table, row by row, and the three findings below it."""
    every = engine().results.matrices(ModelSpec())[0]
    carried = Carried(every, WINSORISE, costs=engine().results.set_costs(ModelSpec(), every))
    for method in every.config.methods:
        whole = carried.summary(every.of(method))
        assert whole is not None
        row = [interval_of(whole.change)]
        for kind in KINDS:
            part = carried.summary(every.of(method, kind))
            assert part is not None
            row.append(interval_of(part.change))
        row += [f"{whole.inliers:.0%}", f"{whole.perplexity:+.1%}"]
        if whole.costs is not None:
            paragraphs, points = whole.costs.said.split(", LAMBADA ")
            row += [cost.split(" (")[0].removeprefix("paragraphs ") for cost in (paragraphs, points)]
        else:
            assert method.startswith("weights")
            row += ["", ""]
        assert " | ".join(row).replace("-", "−").rstrip(" |") in readme(), method
    for finding in findings(carried):
        for number in re.findall(r"[+-]\d\S* \[.*?\]", finding.sentence):
            assert number.replace("-", "−") in readme(), finding.verdict
    assert f"{len(every.cells)} tests" in readme()
    minutes = sum(t.tests * t.seconds for t in every.times()) / 60
    assert f"all together {minutes:.0f} minutes" in readme()


@pytest.mark.parametrize(("method", "whose"), [("fasp", "FASP's"), ("search", "The search's")])
def test_scorecards_fill_the_page(method: str, whose: str) -> None:
    text = told("scorecard", method=method, gamma=0.3, alpha=0.05)
    assert "not measured yet" not in text
    found = re.search(
        r"Of (\d+) measures (\d+) got better, (\d+) got worse, and of (\d+) no change can be told; 1 stayed as it was; "
        r"(\d+) tell",
        text,
    )
    assert found is not None
    measures, better, worse, unsure, nothing = found.groups()
    assert f"{whose} set: of {measures} measures {better} got better" in readme()
    assert f"{worse} got worse" in readme()
    assert f"of {unsure} no change can be told, the size stayed as it was, and {nothing} tell nothing" in readme()
