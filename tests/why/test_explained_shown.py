"""How a split change is shown: sentence, tables and the part of a report, from numbers that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fasp_core.data.text import TextConfig
from fasp_core.gap import PromptRows
from fasp_core.gap.parts import Parts
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig, left_out
from fasp_core.metrics.perplexity import Nll, perplexity_change
from fasp_core.report import page, tables
from fasp_core.storage.store import Store
from fasp_core.studies.explain.explain import MOST_LEFT_OUT, Explained, Without, leave_out
from fasp_core.studies.explain.plan import Plan, movers
from tests.support.made.report import asked, facts, small_table

SET = PruneSet.parse("L0H1,L1H2*0.5,L2H0")


def parts(values: list[float], shown: list[int], base: float, miss: float = 0.0) -> Parts:
    v = np.array(values)
    return Parts(
        base, base + v.sum() - miss, v, np.stack([v - 1e-4, v + 1e-4], -1), np.full(len(v), 5e-5), np.array(shown)
    )


def split(spoils: bool = True, miss: float = 0.0) -> Explained:
    gap = parts([-0.004, 0.001 if spoils else -0.001, -0.002], [-1, 1 if spoils else -1, -1], 0.018, miss)
    text = Nll(np.array([100.0, 120.0]), np.array([64, 64]))
    rows = PromptRows.of(np.array([[0.1, 0.2, 0.3, 0.5], [0.1, 0.2, 0.3, 0.4]]), ["a", "b", "a", "b"])
    left = leave_out(movers(SET), [1] if spoils else [])
    kept = PruneSet.parse("L0H1,L2H0")
    without = tuple(
        Without(some, kept, rows.changes()[0], perplexity_change(text, replace(text, sums=text.sums + 1)))
        for some in left
    )
    plan = Plan(SET, BiasConfig("race_ethnicity", n_prompts=90), TextConfig())
    return Explained(plan, gap, parts([0.01, 0.002, 0.003], [1, 0, 0], 3.0), without, 90, 10, 1024, 2, {})


def test_a_sentence_names_the_largest_part_and_what_spoils() -> None:
    assert split().sentence() == (
        "3 heads move the gap from 18.00 to 13.00 thousandths; the largest part is L0H1's, -4.00 [-4.10, -3.90]; "
        "L1H2*0.5 raises it beyond noise, and leaving it out changes it by -50.00."
    )
    assert split(spoils=False).sentence().endswith("no head's part raises the gap beyond noise.")
    assert split().notes == left_out(BiasConfig("race_ethnicity", n_prompts=90))
    *_, note = split(miss=0.001).notes
    assert "25% of the largest part of the gap: raise --nodes above 5" in note


def test_where_every_head_spoils_leaving_all_out_is_the_unpruned_model() -> None:
    found = split()
    all_spoil = replace(found, gap=parts([0.0005, 0.001, 0.0005], [1, 1, 1], 0.018))
    assert all_spoil.sentence().endswith(
        "L1H2*0.5, L0H1, L2H0 raise it beyond noise, and leaving all of them out changes it by -2.00."
    )
    heads = PruneSet.parse("L0H1")
    alone = replace(found, plan=replace(found.plan, prune_set=heads), gap=parts([0.002], [1], 0.018), without=())
    assert alone.sentence().endswith("L0H1 raises it beyond noise, and leaving it out changes it by -2.00.")


def test_tables_and_the_report_hold_every_number(tmp_path: Path) -> None:
    found = split()
    table = tables.explained_table(found)
    assert table.names == ["L0H1", "L2H0", "L1H2*0.5", "sum of the parts", "measured change", "quadrature error"]
    assert table.rows[0] == ("L0H1", "-4.000 [-4.100, -3.900]", "+10.000 [+9.900, +10.100]", "")
    assert table.rows[2][3] == "spoils the set"
    assert table.rows[4][1:3] == ("-5.000", "+15.000")
    without = tables.without_table(found)
    assert without.rows[0][0] == "L1H2*0.5"
    shown = page.explained(found, "name")
    assert len(shown["charts"]) == 2
    assert shown["sentence"] == found.sentence()
    assert page.explained(split(spoils=False), "name")["without"] is None
    made = facts(Store(tmp_path), asked(), small_table())
    assert "spoils the set" not in page.html(made)
    document = page.html(replace(made, explained=found))
    assert all(cell in document for row in table.rows for cell in row)


def test_heads_are_left_out_one_by_one_and_together_but_never_the_whole_set() -> None:
    every = movers(SET)
    assert [some.format() for some in leave_out(every, [2, 0])] == ["L2H0", "L0H1", "L0H1,L2H0"]
    assert [some.format() for some in leave_out(every, [1])] == ["L1H2*0.5"]
    assert leave_out(every, []) == []
    assert leave_out(every[:1], [0]) == []
    assert len(leave_out(every, [0, 1, 2])) == 3, "not all of them"
    assert MOST_LEFT_OUT == 6
