"""A report: that every figure is the measurement's, that it fetches nothing, and that names stay text."""

from __future__ import annotations

import datetime
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.data.text import SCORE_TEXT
from fasp_core.evaluation import Evaluation
from fasp_core.figures import export
from fasp_core.gap import claims
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.identity import ModelId
from fasp_core.model.spec import ModelSpec
from fasp_core.report import gather, page, repeat
from fasp_core.report.gather import asked_prompts
from fasp_core.scoring import entries
from fasp_core.scoring.manual_edits import ManualEdits, apply_manual_edits
from fasp_core.storage.store import Store
from fasp_core.studies.compare.limits import Limits
from fasp_core.studies.verdict import verdict
from fasp_core.tasks.last_words import half
from tests.support.fakes import MadeUp, add_claim, add_comparison, made_up_lm, make_table
from tests.support.made.report import AXIS, NASTY, TOP, Read, asked, facts, nasty, numbers, small_lm, small_table
from tests.support.made.tasks import put_answers, use_tasks

WHEN = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def found(store: Store) -> gather.Facts:
    made: gather.Facts = facts(store, asked(), small_table())
    return made


# --- figures ---


@pytest.mark.parametrize("reading", ["neutral", "counted"])
def test_every_figure_of_the_outcome_is_the_measurements(store: Store, reading: str) -> None:
    made = facts(store, asked(reading=reading), small_table())
    e: Evaluation = made.evaluation
    read = Read(page.html(made, WHEN))
    assert next(name for kind, name in read.rows if kind == "outcome") == reading
    for name, r in e.readings.items():
        what, gaps, change, noise, shows, on = read.rows["outcome", name]
        assert {"neutral": "masked", "counted": "scored"}.get(name, name) in what
        assert numbers(gaps) == pytest.approx([1000 * r.base.gap, 1000 * r.pruned.gap], abs=0.00501)
        ends = r.gap.relative_interval
        assert ends is not None
        assert numbers(change) == pytest.approx([100 * x for x in (r.gap.relative, *ends)], abs=0.501)
        assert numbers(noise.split(",")[0]) == pytest.approx([1000 * r.base.noise_gap], abs=0.00501)
        assert numbers(noise.split("=")[-1].split("<")[-1])[0] == pytest.approx(max(r.base.noise_p, 0.001), abs=0.0006)
        assert shows == page.tables.SHOWS[claims.finding(r.base, r.gap)]
        assert numbers(on) == [r.base.n] == [len(e.base.texts)]
        # the oracle: the gap as its definition reads, from the toxicity of every prompt
        for side, gap in ((e.base, r.base.gap), (e.pruned, r.pruned.gap)):
            values = side.row(name)
            means = {g: values[[x == g for x in side.groups]].mean() for g in set(side.groups)}
            assert gap == pytest.approx(sum(abs(values.mean() - m) for m in means.values()))
    p = e.perplexity
    _, both, change, *_, on = read.rows["outcome", "perplexity"]
    assert numbers(both) == pytest.approx([p.base, p.pruned], abs=0.00501)
    assert numbers(change) == pytest.approx([100 * x for x in (p.relative, *np.expm1(p.interval))], abs=0.0501)
    assert numbers(on) == [p.tokens]


def test_the_verdict_is_the_pages(found: gather.Facts) -> None:
    from pages.explore.measured import verdict as of_the_page

    assert of_the_page is verdict
    e = found.evaluation
    assert e is not None
    r = e.readings["neutral"]
    text, good = verdict(r, e.perplexity.relative, f"{r.base.n} test prompts")
    read = Read(page.html(found, WHEN))
    assert read.said["verdict"] == text
    assert good
    assert not found.claim
    counted = e.readings["counted"]
    assert verdict(counted, e.perplexity.relative, f"{counted.base.n} test prompts")[0] in read.text


def test_groups_and_heads_are_those_of_the_measurement(found: gather.Facts) -> None:
    read, e, table = Read(page.html(found, WHEN)), found.evaluation, found.table
    assert e is not None
    r = e.readings["neutral"]
    head, *rows = read.tables["groups"]
    assert head[:2] == ["group", "prompts"]
    assert sorted(row[0] for row in rows[:-1]) == sorted(r.base.group_means)
    for name, n, before, after in rows[:-1]:
        assert int(n) == r.base.group_sizes[name]
        assert float(before) == pytest.approx(1000 * r.base.group_means[name], abs=0.000501)
        assert float(after) == pytest.approx(1000 * r.pruned.group_means[name], abs=0.000501)
    assert [float(x) for x in rows[-1][2:]] == pytest.approx([1000 * r.base.overall, 1000 * r.pruned.overall], abs=5e-4)
    frame = table.frame().set_index(["layer", "head"])
    assert [name for kind, name in read.rows if kind == "heads"] == [f"L{a}H{b}" for a, b in TOP]
    for layer, h in found.asked.parts:
        row, true = read.rows["heads", f"L{layer}H{h}"], frame.loc[(layer, h)]
        assert numbers(row[1]) == pytest.approx([true.z_ppl, true.z_ppl_se], rel=0.06, abs=0.0006)
        for cell, name in zip(row[2:4], ("neutral", "counted"), strict=True):
            true_pair = [1000 * true[f"z_bias_{name}"], 1000 * true[f"z_bias_{name}_se"]]
            assert numbers(cell) == pytest.approx(true_pair, rel=0.06, abs=0.0006)
    assert read.said["set"] == TOP.format()
    assert f"{table.ppl.base.tokens:,} tokens" in read.text
    assert f"{len(table.bias.codes)} validation prompts" in read.text


def test_charts_are_the_figures_of_the_page(found: gather.Facts) -> None:
    read = Read(page.html(found, WHEN))
    charts = [json.loads(c) for c in read.charts]
    titles = [c["layout"]["title"]["text"] for c in charts]
    assert [t.split("<br>")[0].split(",")[0] for t in titles] == [
        *("Toxicity of each group", "Impact on perplexity", "Impact on bias", "Both impacts of every head"),
    ]
    assert all(c["layout"]["width"] == page.WIDTH and c["layout"]["height"] < 1000 for c in charts)


def test_many_groups_stand_in_several_charts_none_taller_than_a_sheet(store: Store, tmp_path: Path) -> None:
    rows = [f"Group {g:02} goes {i} times.,group {g:02}" for g in range(60) for i in range(30)]
    (tmp_path / "many.csv").write_text("text,group\n" + "\n".join(rows) + "\n")
    csv = str(tmp_path / "many.csv")
    read = Read(page.html(facts(store, asked(axis=csv, title="many"), small_table()), WHEN))
    charts = [json.loads(c)["layout"] for c in read.charts]
    assert sum("of 60 groups" in c["title"]["text"] for c in charts) == 3
    assert all(c["height"] < 1000 for c in charts)
    assert len(read.tables["groups"]) == 62


# --- what stands against a success ---


def test_an_artefact_is_no_success(store: Store) -> None:
    table = small_table()
    world = MadeUp(table, by="counted", fall={"neutral": -0.3, "counted": 0.9, "sampled": 0.0}, strength=3)
    strongest = int(np.argmax(table.bias.z_bias("counted")))
    parts = PruneSet.from_flat([strongest], table.n_heads)
    made = facts(store, asked(reading="counted", parts=parts), table, world)
    read = Read(page.html(made, WHEN))
    assert "The gap fell" in read.said["verdict"]
    assert "Not a success" in read.text
    assert not any("say good" in (a.get("class") or "") for _, a in read.tags)


def test_where_there_is_no_gap_none_is_claimed(store: Store) -> None:
    world = MadeUp(small_table(), spread=dict.fromkeys(("neutral", "counted", "sampled"), 0.0))
    read = Read(page.html(facts(store, asked(), small_table(), world), WHEN))
    assert read.said["verdict"].startswith("No gap is shown to begin with")
    assert not any("say good" in (a.get("class") or "") for _, a in read.tags)


@pytest.mark.parametrize("more", [{"measure": False}, {"parts": PruneSet()}])
def test_what_was_not_measured_is_said(store: Store, more: dict[str, Any]) -> None:
    def no_model() -> Any:
        raise AssertionError("nothing is to be measured")

    made = gather.gather(asked(**more), small_table(), ModelId("w"), store, no_model)
    read = Read(page.html(made, WHEN))
    assert read.said["missing"] == read.said["no-outcome"] != ""
    assert "outcome" not in read.tables
    assert "No comparison of methods is stored" in read.said["no-comparison"]
    assert "Estimate (effects of single heads added up, not measured)" in read.said["estimate"]
    assert ("--no-measure" in " ".join(read.commands)) == ("measure" in more)


# --- stored comparisons ---


@pytest.fixture
def compared(store: Store) -> tuple[gather.Facts, Any]:
    """A report on the built-in model's shape, with a comparison and its claim in the store."""
    from fasp_core.studies.compare.outcome import ClaimConfig

    lm = small_lm(made_up_lm().name, 30, 9)
    lm.weights_id, lm.id = made_up_lm().weights_id, made_up_lm().id
    table = make_table(30, 9, n=90)
    world = MadeUp(table, fall={"neutral": 0.9, "counted": 0.7, "sampled": 0.0})
    plan = {"gammas": (0.2, 0.4), "alphas": (0.02, 0.05), "seeds": 1, "prompts": 180, "tokens": 640}
    comparison = add_comparison(store, AXIS, world, **plan)
    claim = add_claim(store, AXIS, world, comparison, config=ClaimConfig(360, 1280, 90, 2, 4))
    parts = PruneSet.from_flat(claim.candidate.heads, 9)
    wanted = gather.Asked(ModelSpec(), AXIS, AXIS, "neutral", parts, prompts=90)
    return facts(store, wanted, table, world, lm), claim


def test_the_claim_is_the_pages_sentence_with_its_cautions(compared: tuple[gather.Facts, Any]) -> None:
    made, claim = compared
    read = Read(page.html(made, WHEN))
    assert read.said["claim"] == claim.sentence()
    assert claim.cautions()
    for caution in claim.cautions():
        assert caution in read.text
    assert claim.verdict.colour == "amber"
    assert f"amber: {claim.verdict.title()}" in read.text
    assert all(part in read.text for part in claim.verdict.missing)
    assert numbers(read.rows["claim", "within_templates"][1])[0] == pytest.approx(
        1000 * claim.within["neutral"].means[0], abs=0.00501
    )
    assert "It is the set of this report" in read.text
    assert f"{claim.change['sampled'].n * claim.config.samples:,} continuations a side" in read.text
    for name, change in claim.change.items():
        row = read.rows["claim", name]
        assert numbers(row[1]) == pytest.approx([1000 * change.base, 1000 * change.pruned], abs=0.00501)
        assert numbers(row[-1])[0] == change.n
    comparison = made.comparison
    assert comparison is not None
    fasp = next(row for row in read.tables["methods"] if row[0] == "FASP")
    best = page.tables.choose(comparison, "neutral", 0.1, ["fasp"])
    assert best is not None
    for cell, side in zip(fasp[3:5], ("valid", "test"), strict=True):
        change = comparison.change(best, side, "neutral")
        ends = change.relative_interval
        assert ends is not None
        assert numbers(cell) == pytest.approx([100 * x for x in (change.relative, *ends)], abs=0.501)
    assert f"{comparison.sides['test'].rows.n} prompts" in read.text
    assert any("--outcome" in line for line in read.commands)


def test_another_set_than_the_choice_is_told_apart(compared: tuple[gather.Facts, Any], store: Store) -> None:
    made, _ = compared
    other = replace(made, asked=replace(made.asked, parts=PruneSet.parse("L0H0")))
    assert "It is not the set of this report" in Read(page.html(other, WHEN)).text


def test_the_choice_keeps_to_all_limits_or_is_said_to_be_unknown(
    compared: tuple[gather.Facts, Any], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = compared
    use_tasks(tmp_path / "tasks", monkeypatch, 60)
    lm = small_lm(made_up_lm().name, 30, 9)
    lm.weights_id, lm.id = made_up_lm().weights_id, made_up_lm().id
    limited = replace(made.asked, limits=Limits(lambada_points=2.0), measure=False)
    unknown = facts(store, limited, made.table, lm=lm)
    assert (unknown.picked, unknown.claim) == (None, None)
    told = page.document(unknown, WHEN)
    assert told["unknown"].startswith(f"It is not known which set keeps to the limits ({limited.limits.text()})")
    read = Read(page.html(unknown, WHEN))
    assert read.said["unknown"] == told["unknown"]
    assert "not known" in read.tables["methods"][1][1]
    assert "--max-lambada-points 2" in " ".join(read.commands)
    assert made.picked is not None
    for heads in unknown.comparison.sets:
        lost = 3 * (heads == made.picked.heads)
        put_answers(store, lm.id, PruneSet.from_flat(heads, 9), half("lambada", "valid", 300), lost)
    known = facts(store, limited, made.table, lm=lm)
    assert known.unknown == ""
    assert known.picked is not None
    assert known.picked.heads != made.picked.heads
    assert limited.limits.text() in page.html(known, WHEN)


# --- what a file may hold ---


def test_names_stay_text(store: Store, tmp_path: Path) -> None:
    """Model, axis and group names that are markup: none of it becomes an element."""
    made = nasty(store, tmp_path)
    plain = page.html(replace(made, asked=replace(made.asked, title="t", spec=ModelSpec("m"))), WHEN)
    html = page.html(made, WHEN)
    read = Read(html)
    assert [t for t, _ in read.tags if t == "img"] == []
    elements = [[t for t, _ in one.tags if t != "span"] for one in (read, Read(plain))]  # a span for each word
    assert elements[0] == elements[1]
    assert read.scripts == [export.plotly_js(), export.DRAW]
    assert read.text.count(NASTY) > 5
    assert NASTY not in html
    assert "<img src=x" not in html
    assert all("<" not in chart for chart in read.charts)


def test_nothing_is_fetched(found: gather.Facts) -> None:
    """No element names a resource; addresses stand in links alone."""
    read = Read(page.html(found, WHEN))
    fetching = {"src", "srcset", "data", "poster", "background", "action", "formaction", "xlink:href"}
    for tag, attributes in read.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "img")
        assert not fetching & attributes.keys()
        assert "href" not in attributes or (tag == "a" and str(attributes["href"]).startswith("https://"))
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import|expression\(", read.style)
    (policy,) = (a["content"] for t, a in read.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


# --- how to repeat it ---


def test_the_commands_are_ones_that_the_program_knows(
    compared: tuple[gather.Facts, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line is taken by the command line as it stands, up to the work itself."""
    import typer.main

    from fasp_core.cli.main import app

    made, _ = compared
    group: Any = typer.main.get_command(app)
    told = ManualEdits(frozenset({0}), frozenset({1, 2}))
    by_hand = replace(made.asked, method="random", seed=3, spec=ModelSpec("a b/c", "bfloat16", "cpu"), by_hand=told)
    selection = gather.origin(replace(made.asked, method="random", alpha=0.25, seed=3, by_hand=told), made.table)
    other = replace(
        made, asked=by_hand, selection=apply_manual_edits(selection, gather.by_hand_to(selection, made.asked.parts))
    )
    limits = Limits(0.1, 2.0, 0.1, 3.0, items=50)
    for some in (made, other, replace(made, asked=replace(made.asked, limits=limits))):
        lines = [line for _, line in repeat.commands(some)]
        assert len(lines) == 5 - (some.asked.method is None)
        for line in lines:
            words = shlex.split(line)
            assert words[:3] == ["python", "-m", "fasp_core"]
            name, *rest = words[3:]
            context = group.commands[name].make_context(name, list(rest))
            assert context.params["axis"] == AXIS or name == "select"
            if name == "report":
                parsed = PruneSet.parse(context.params["heads"])
                assert parsed == some.asked.parts
                assert context.params["method"] == some.asked.method
                assert (context.params["model"], context.params["dtype"]) == (
                    some.asked.spec.source,
                    some.asked.spec.dtype,
                )


@pytest.mark.parametrize("axis", ["race_ethnicity", "nationality", "age"])
def test_the_command_asks_for_the_very_prompts_of_the_scores(axis: str) -> None:
    """Groups of unlike size: as many prompts as there are would ask for others."""
    kept, weights = Store(Path(__file__).resolve().parents[3] / "cache"), made_up_lm().id
    table = entries.best(SCORE_TEXT, BiasConfig(axis), weights, "built-in", kept)
    assert table is not None
    config = BiasConfig(axis, n_prompts=asked_prompts(table))
    again = entries.load(SCORE_TEXT, config, weights, "built-in", kept, table.bias.estimator)
    assert again is not None
    assert np.array_equal(again.bias.base, table.bias.base)


def test_hand_made_changes_are_named(store: Store) -> None:
    table = small_table()
    chosen = gather.origin(asked(method="fasp"), table)
    parts = PruneSet.of(chosen.heads).toggled(chosen.heads[0]).toggled((0, 0) if (0, 0) not in chosen.heads else (2, 3))
    made = facts(store, asked(method="fasp", gamma=0.3, alpha=0.25, parts=parts), table)
    read = Read(page.html(made, WHEN))
    setting = {row[0]: row[1] for row in read.tables["facts"]}
    assert setting["chosen by"] == "FASP, γ 0.3, α 0.25"
    assert f"kept L{chosen.heads[0][0]}H{chosen.heads[0][1]}" in setting["changed by hand"]
    assert "pruned by hand" in str(read.tables["heads"])
    assert any(f"--heads {parts.format()}" in line for line in read.commands)


def test_the_other_half_of_a_wrong_request_is_refused(store: Store) -> None:
    with pytest.raises(Exception, match="There is no reading 'loud'"):
        gather.gather(asked(reading="loud"), small_table(), ModelId("w"), store, small_lm)
    with pytest.raises(Exception, match="L9H0 does not exist"):
        gather.gather(asked(parts=PruneSet.parse("L9H0")), small_table(), ModelId("w"), store, small_lm)
