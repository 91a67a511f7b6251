"""The rule of the instrument's script, run by the browser's own engine, against the rule in Python."""

from __future__ import annotations

import json
import struct
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import METHODS, PROTECTS, HeadScores, orders, select
from fasp_core.scoring.manual_edits import ManualEdits, apply_manual_edits, block, nothing
from fasp_core.scoring.taught import Taught
from pages.instrument.sent import effects
from tests.support.fakes import make_table

pytestmark = pytest.mark.browser
RULE = Path(__file__).resolve().parents[2] / "pages" / "instrument" / "rule.js"


@pytest.fixture
def page(browser: Any) -> Generator[Any]:
    """A blank page on which the functions of the script are `rule`."""
    page = browser.new_page()
    page.goto("about:blank")
    page.evaluate(
        """async text => { const url = URL.createObjectURL(new Blob([text], {type: 'text/javascript'}));
            window.rule = await import(url); }""",
        RULE.read_text(),
    )
    yield page
    page.close()


def random_case(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model with scores, many of them tied, shares of every kind, heads set by hand; and what Python makes of it."""
    layers, heads = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    n = layers * heads
    values = [rng.integers(-3, 4, n).astype(float) if rng.random() < 0.6 else rng.normal(size=n) for _ in range(5)]
    method = str(rng.choice(METHODS))
    by = str(rng.choice(PROTECTS)) if method == "fasp" else PROTECTS[0]
    scores = HeadScores(layers, heads, *values, protect=by)
    shares = [float(rng.choice([rng.integers(0, n + 1) / n, round(rng.random(), 2), rng.random()])) for _ in "ga"]
    hand = rng.choice([0, 1, 2], n, p=[0.8, 0.1, 0.1]) if rng.random() < 0.7 else np.zeros(n)
    told = ManualEdits(*(frozenset(np.flatnonzero(hand == which).tolist()) for which in (1, 2)))
    seed = int(rng.integers(0, 5))

    def choice(told: ManualEdits) -> Any:
        if found is not None:
            return apply_manual_edits(found, told)
        return select(scores, method, *shares, seed=seed, locked=told.keep, forced=told.prune)

    found = None
    if rng.random() < 0.1:  # a set that no order made, such as a search's
        ids = np.flatnonzero(rng.random(n) < 0.2).tolist()
        found = apply_manual_edits(nothing("hand", *shares, 0, layers, heads), ManualEdits(frozenset(ids)))
    rule: dict[str, Any] = {"size": n, "cost": None, "protect": None, "found": [], "critical": []}
    if found is None:
        rule["cost"], rule["protect"] = orders(scores, method, seed)
    else:
        rule["found"] = list(found.pruned)
    acted = rng.choice(n, int(rng.integers(1, min(n, 4) + 1)), replace=False).tolist()
    now, after = choice(told), told.toggle(acted, choice)
    corners = rng.integers(0, n, 2).tolist()
    case = {
        "rule": rule,
        "shares": shares,
        "prune": sorted(told.prune),
        "keep": sorted(told.keep),
        "acted": acted,
        "corners": corners,
        "columns": heads,
    }
    wanted = {
        "pruned": list(now.pruned),
        "critical": list(now.critical),
        "prune": sorted(after.prune),
        "keep": sorted(after.keep),
        "block": sorted(block(*corners, heads)),
    }
    return case, wanted


RUN = """cases => cases.map(({rule: r, shares: [gamma, alpha], prune, keep, acted, corners, columns}) => {
    const {choose, toggled, block, PRUNED, CRITICAL} = window.rule;
    const hand = {prune: new Set(prune), keep: new Set(keep)};
    const marksOf = hand => choose(r, gamma, alpha, hand).marks;
    const now = marksOf(hand);
    const ids = bit => [...now.keys()].filter(head => now[head] & bit);
    const after = toggled(hand, acted, marksOf);
    const sorted = heads => [...heads].sort((a, b) => a - b);
    const own = [...Array(r.size).keys()];
    return {pruned: ids(PRUNED), critical: ids(CRITICAL), prune: sorted(after.prune), keep: sorted(after.keep),
        block: sorted(block(...corners, columns, own, own))};
})"""


@pytest.mark.parametrize("cases", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_scripts_rule_is_that_of_select(page: Any, cases: int) -> None:
    """Ties, shares of every kind, locks and forces, every method; and what a click makes of them."""
    rng = np.random.default_rng(cases)
    pairs = [random_case(rng) for _ in range(cases)]
    found = page.evaluate(RUN, [case for case, _ in pairs])
    assert len(found) == cases
    wrong = [(case, wanted, one) for (case, wanted), one in zip(pairs, found, strict=True) if one != wanted]
    assert not wrong, f"{len(wrong)} of {cases} differ, such as {json.dumps(wrong[0])}"


def test_whole_heads_are_never_cut_short(page: Any) -> None:
    """Every share k / n gives k heads, and every two-digit decimal what it says."""
    wrong = page.evaluate(
        """() => { const bad = [];
            for (let n = 1; n <= 700; n++) for (let k = 0; k <= n; k++)
                if (window.rule.wholeHeads(k / n, n) !== k) bad.push([k, n]);
            for (let c = 0; c <= 100; c++) if (window.rule.wholeHeads(c / 100, 100) !== c) bad.push([c, 100]);
            return bad; }"""
    )
    assert wrong == []


ESTIMATE = """cases => cases.map(({effects, sets, taught}) => sets.map(([closed, start]) => {
    const {perplexity, gap} = window.rule.estimate(effects, Float64Array.from(closed), taught, start);
    return [perplexity, gap]; }))"""


def test_the_scripts_estimate_is_that_of_python(page: Any) -> None:
    """One set after the other, as they come in a drag, corrected by what measured sets teach; heads off and scaled."""
    rng = np.random.default_rng(0)
    cases, wanted = [], []
    for seed in range(20):
        table = make_table(3, 4, n=60, seed=seed)
        _, packed = effects(table, "neutral")
        (length,) = struct.unpack("<I", packed[:4])
        head = json.loads(packed[8 : 8 + length])
        steps = np.frombuffer(packed[8 + length :], "<i2").tolist()
        sets = [(np.zeros(12), (0.0, 0.0))]
        for _ in range(15):  # heads that are off, and gates from 0 to 1.5 beside them
            off = (rng.random(12) < rng.random()).astype(float)
            scaled = np.where(rng.random(12) < 0.5, 1 - rng.uniform(0, 1.5, 12), off)
            sets += [(off, (0.0, 0.0)), (scaled, tuple(rng.uniform(-0.1, 0.1, 2)))]
        taught = Taught((float(rng.uniform(0.5, 2)), float(rng.uniform(0.3, 1.5))))
        cases.append(
            {"effects": head | {"steps": steps}, "sets": [(c.tolist(), s) for c, s in sets], "taught": taught.factors}
        )
        wanted.append([table.estimate(dict(enumerate(closed)), "neutral", taught, start) for closed, start in sets])
    found = np.array(page.evaluate(ESTIMATE, cases))
    assert found == pytest.approx(np.array(wanted), rel=2e-3, abs=1e-6)


def test_gates_at_a_strength_and_what_stands_between_measured_ones(page: Any) -> None:
    """As in Python: learned gates, a head that is kept, one that is scaled by hand, one that is off; straight lines."""
    rng = np.random.default_rng(0)
    learned = rng.uniform(0, 1.5, 60).round(6)
    learned[[3, 4]] = 0.0, 1.0
    strengths = [0.0, *rng.uniform(0, 1, 20).round(2).tolist(), 1.0]
    gates = page.evaluate("([g, all]) => all.map(s => window.rule.gatesAt(g, s))", [learned.tolist(), strengths])
    for strength, found in zip(strengths, gates, strict=True):
        wanted = PruneSet.from_gates(np.clip(1 + strength * (learned[None] - 1), 0, 1.5)).gates(1, 60)[0]
        assert np.abs(np.array(found) - wanted).max() < 1.01e-4  # another rounding of halves
    assert gates[0] == [1] * 60
    assert gates[-1][3:5] == [0, 1]
    hand = page.evaluate(
        """g => [...window.rule.gatesOf(Uint8Array.from(g.map((_, i) => i === 5 ? window.rule.PRUNED : 0)), g,
            {keep: new Set([6, 7]), gains: {7: 0.4, 8: 0.3}})]""",
        gates[-1],
    )
    assert hand[5:9] == [0, 1, 0.4, 0.3]
    assert hand[9:] == gates[-1][9:]
    at, values = [0, 0.25, 0.5, 0.75, 1], [0, *rng.normal(size=4).tolist()]
    x = [0, *rng.random(50).tolist(), *at]
    lines = page.evaluate("([at, v, x]) => x.map(s => window.rule.between(at, v, s))", [at, values, x])
    assert lines == pytest.approx(np.interp(x, at, values))
