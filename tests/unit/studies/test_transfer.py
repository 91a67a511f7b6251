"""Transfer between axes, against SciPy, loops and planted cases."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fasp_core import gap
from fasp_core.data import text
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.gap import Change
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.metrics import perplexity
from fasp_core.metrics.measurements import perplexity_of, toxicity_of
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.perplexity import perplexity_change
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.impact_table import BiasImpacts, ImpactTable
from fasp_core.scoring.score import prunable
from fasp_core.storage.store import Store
from fasp_core.studies.transfer import correlation, every_axis, transfer
from fasp_core.studies.transfer.correlation import KINDS, around, correlate, frames, over_heads, resample
from fasp_core.studies.transfer.every_axis import TransferConfig, choose
from tests.support.fakes import MADE, make_table
from tests.support.oracles import gap_by_hand
from tests.support.tiny import tiny_lm, tiny_text
from tests.support.worlds import PEOPLE, use_scorer, write_axis

seeds = st.integers(0, 10_000)
N_HEADS = 6  # a layer
GAP = 0.1  # between the two groups of planted axes: so large that no head turns it over


def planted(
    axis: str, effect: np.ndarray, noise: np.ndarray, blocks: int = 60, exact: np.ndarray | None = None
) -> ImpactTable:
    """Scores of two groups in blocks; removing head h takes `effect[h]` [N] plus `noise` [N, blocks] off the gap.

    The gap of two groups is the difference of their means, so z_bias is effect + the mean noise of the blocks.
    """
    layers = len(effect) // N_HEADS
    made = make_table(layers, N_HEADS)
    codes = np.tile([0, 1], blocks)
    base = np.repeat(np.random.default_rng(0).uniform(0.2, 0.3, blocks), 2) + GAP * codes
    push = -(effect[:, None] + noise).repeat(2, axis=1) * codes  # [N, n]
    return replace(
        made,
        bias=BiasImpacts(
            "expected",
            axis,
            "valid",
            "scorer",
            ("neutral", "counted"),
            np.stack([base, base]),
            np.stack([base + push, base + 2 * push], axis=1),
            codes,
            ("a", "b"),
            MADE,
            blocks=np.repeat(np.arange(blocks), 2),
            exact=exact,
        ),
    )


# --- correlations


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(4, 20), st.integers(2, 4))
def test_correlations_are_those_of_scipy_in_every_resample(seed: int, n: int, axes: int) -> None:
    rng = np.random.default_rng(seed)
    names = "abcd"[:axes]
    z = {name: rng.integers(-3, 4, n) + 0.0 for name in names}  # with ties
    drawn = {name: z[name][:, None] + rng.integers(-1, 2, (n, 7)) for name in names}
    ids = rng.permutation(n)[: max(4, n // 2)]
    for kind, reference in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
        found = over_heads(z, drawn, ids, kind)  # type: ignore[arg-type]
        assert list(found) == [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        for (a, b), estimate in found.items():
            x, y = z[a][ids], z[b][ids]
            if np.ptp(x) and np.ptp(y):
                assert estimate.value == pytest.approx(reference(x, y).statistic)
            else:
                assert math.isnan(estimate.value)
                assert math.isnan(estimate.low)
            unit = [correlation.standardized(drawn[name], kind) for name in (a, b)]
            for i, r in enumerate((unit[0] * unit[1]).sum(0)):
                one, other = drawn[a][:, i], drawn[b][:, i]
                if np.ptp(one) and np.ptp(other):
                    assert r == pytest.approx(reference(one, other).statistic)
                else:
                    assert math.isnan(r)


def test_an_interval_has_the_spread_of_the_resamples_wherever_they_lie() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 0.1, 5000)
    low, moved = around(0.5, np.tanh(0.1 + z)), around(0.5, np.tanh(0.4 + z))
    assert moved.low == pytest.approx(low.low)
    assert np.arctanh(moved.high) - np.arctanh(0.5) == pytest.approx(0.196, abs=0.01)
    assert around(1.0, np.ones(50)).low == pytest.approx(1.0)
    assert math.isnan(around(0.5, np.full(3, np.nan)).low)


@pytest.mark.parametrize("reliability", [(0.9, 0.8), (0.6, 0.7)])
def test_axes_that_share_exactly_their_guilty_heads_correlate_at_their_ceiling(
    reliability: tuple[float, float],
) -> None:
    """The same true effects and independent noise of known size: without it the correlation is 1."""
    rng = np.random.default_rng(3)
    n, blocks = 300, 60
    effect = rng.normal(0, 0.001, n)
    tables = {}
    for axis, whole in zip(("one", "other"), reliability, strict=True):
        of_mean = 0.001 * math.sqrt(1 / whole - 1)
        tables[axis] = planted(axis, effect, rng.normal(0, of_mean * math.sqrt(blocks), (n, blocks)), blocks)
    found = correlate(resample(tables, "neutral"), tables, "neutral", gamma=0.1)
    for kind in KINDS:
        for heads, count in (("all", n), ("prunable", n - n // 10)):
            p = found.pair("other", "one", heads, kind)
            assert p.n == count
            assert p.ceiling == pytest.approx(math.sqrt(reliability[0] * reliability[1]), abs=0.06)
            assert p.r.value == pytest.approx(p.ceiling, abs=0.08)
            assert p.corrected.value == pytest.approx(1, abs=0.1)
            assert p.corrected.low <= 1 <= p.corrected.high
            assert p.corrected.low > 0.8
            assert p.r.shown
            assert p.shared == pytest.approx(0, abs=0.05)


def test_axes_with_guilty_heads_of_their_own_show_nothing() -> None:
    rng = np.random.default_rng(4)
    tables = {
        axis: planted(axis, rng.normal(0, 0.001, 120), rng.normal(0, 0.003, (120, 60))) for axis in ("one", "other")
    }
    found = correlate(resample(tables, "neutral"), tables, "neutral")
    assert not any(p.r.shown for p in found.pairs)
    assert all(p.ceiling > 0.7 for p in found.pairs)


def test_noise_that_axes_share_through_their_frames_is_told() -> None:
    """No true effect at all, the same noise in the same frames: all of r is shared noise."""
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.01, (120, 60))
    tables = {axis: planted(axis, np.zeros(120), noise) for axis in ("one", "other")}
    labels = [f"frame {b}" for b in range(60) for _ in range(2)]
    shared = correlate(resample(tables, "neutral", dict.fromkeys(tables, labels)), tables, "neutral")
    apart = correlate(resample(tables, "neutral"), tables, "neutral", known={"one": None})
    assert shared.pair("one", "other", "all", "pearson").shared == pytest.approx(1, abs=0.1)
    assert apart.pair("one", "other", "all", "pearson").shared == pytest.approx(0, abs=0.1)
    assert not any(a.in_frames for a in apart.axes)
    effects = resample(tables, "neutral", dict.fromkeys(tables, labels))
    assert np.array_equal(effects["one"].drawn, effects["other"].drawn)


def test_blocks_are_resampled_whole_even_if_their_prompts_have_other_frames() -> None:
    """What a sentence does cancels in its block; taken apart it would be noise."""
    rng = np.random.default_rng(6)
    table = planted("one", rng.normal(0, 0.001, 60), np.zeros((60, 60)))
    mixed = [f"frame {i}" for i in range(120)]
    drawn = resample({"one": table, "other": table}, "neutral", {"one": mixed})["one"].drawn
    assert drawn == pytest.approx(np.repeat(table.bias.z_bias("neutral")[:, None], drawn.shape[1], 1))


def test_a_result_says_how_far_scores_can_be_trusted() -> None:
    rng = np.random.default_rng(7)
    exact = rng.random(60) < 0.4
    tables = {
        "one": planted("one", rng.normal(0, 0.001, 60), rng.normal(0, 0.02, (60, 60)), exact=exact),
        "other": planted("other", rng.normal(0, 0.001, 60), rng.normal(0, 0.001, (60, 60))),
    }
    found = correlate(resample(tables, "counted"), tables, "counted", gamma=0.3)
    one, other = found.axes
    free = prunable(tables["one"], 0.3)
    assert (one.exact, one.heads) == ({"all": exact.sum(), "prunable": exact[free].sum()}, {"all": 60, "prunable": 42})
    assert other.exact == {"all": 60, "prunable": 42}
    assert (one.groups, one.prompts) == (2, 120)
    assert one.gap == pytest.approx(GAP)
    for kind in KINDS:
        p = found.pair("one", "other", "prunable", kind)
        whole = [t.bias.reliability("counted", free, kind).whole for t in tables.values()]
        assert p.ceiling == pytest.approx(math.sqrt(max(whole[0], 0) * max(whole[1], 0)))
        assert (p.ceiling < correlation.LEAST_CEILING) == math.isnan(p.corrected.value)
    assert any(math.isnan(p.corrected.value) for p in found.pairs)
    frame = found.frame()
    assert len(frame) == 4
    row = frame[(frame.heads == "prunable") & (frame.correlation == "pearson")].iloc[0]
    assert row["r"] == pytest.approx(found.pair("one", "other", "prunable", "pearson").r.value)
    assert row["reliability 1"] == pytest.approx(tables["one"].bias.reliability("counted", free, "pearson").whole)
    assert row["exact heads 1"] == exact[free].sum()


def test_what_cannot_be_correlated_is_said() -> None:
    table = planted("one", np.arange(12) * 1e-4, np.zeros((12, 60)))
    with pytest.raises(InputError, match="score another axis"):
        resample({"one": table}, "neutral")
    with pytest.raises(InputError, match="one model"):
        resample({"one": table, "other": planted("other", np.zeros(18), np.zeros((18, 60)))}, "neutral")
    with pytest.raises(InputError, match="no reading 'sampled'"):
        resample({"one": table, "other": table}, "sampled")
    tables = {"one": table, "other": table}
    with pytest.raises(InputError, match=r"Only 2 heads .* lower gamma"):
        correlate(resample(tables, "neutral"), tables, "neutral", gamma=0.9)


def test_the_strongest_heads_are_those_far_out_on_both_axes() -> None:
    z = np.array([0.1, -5, 0.2, 3, 0, 0.1]) * 1e-3
    tables = {axis: planted(axis, scale * z, np.zeros((6, 60))) for axis, scale in (("one", 1), ("other", -3))}
    e = resample(tables, "neutral")
    assert correlation.strongest(e["one"], e["other"], range(6), 2) == [1, 3]
    assert correlation.strongest(e["one"], e["other"], [0, 2, 4], 2) == [2, 0]


def test_frames_are_those_of_the_prompts_that_were_scored() -> None:
    """Drawn again from the number of prompts alone; an axis that is drawn otherwise has none."""
    prompts = BiasConfig("nationality", n_prompts=44).prompts()
    codes, names = gap.group_codes(prompts.groups)
    n = len(codes)
    scored = replace(
        planted("nationality", np.zeros(6), np.zeros((6, 60))).bias,
        base=np.zeros((2, n)),
        ablated=np.zeros((6, 2, n)),
        codes=codes,
        groups=names,
        blocks=np.array(prompts.blocks),
    )
    found = frames(scored)
    assert found is not None
    assert list(found) == [f"{t}\n{noun}" for t, noun in zip(prompts.templates, prompts.nouns, strict=True)]
    assert frames(replace(scored, codes=codes[::-1])) is None
    assert frames(replace(scored, axis="csv")) is None
    other = frames(replace(scored, split="test"))
    assert other is None or not set(other) & set(found)


# --- sets


def change(interval: tuple[float, float], relative: tuple[float, float] | None) -> Change:
    return Change(1.0, 0.5, -0.5, interval, -0.5, relative, 100, 0.95, 1000)


def test_sets_are_those_of_fasp_by_each_axis() -> None:
    rng = np.random.default_rng(9)
    tables = {axis: planted(axis, rng.normal(0, 0.001, 60), np.zeros((60, 60))) for axis in ("one", "other")}
    sets = choose(tables, TransferConfig(gamma=0.5, alpha=0.1))
    for axis, table in tables.items():
        assert sets[axis].flat(N_HEADS) == list(select(table.head_scores("neutral"), "fasp", 0.5, 0.1).pruned)
    assert sets["one"] != sets["other"]
    with pytest.raises(InputError, match="raise alpha"):
        choose(tables, TransferConfig(alpha=0.001))


CONFIG = TransferConfig(alpha=0.2, n_prompts=40, tokens=64)
SETS_OF: dict[str, PruneSet] = {}  # by axis, one of which is a file
SETS = (PruneSet.of([(0, 1), (1, 2)]), PruneSet.of([(0, 1), (1, 0), (1, 3)]))
Ran = tuple[LanguageModel, Store, every_axis.Measured, list[int]]


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Generator[Ran]:
    """A run on a tiny model that was stopped half way, then finished: its result, and passes of three runs."""
    folder = tmp_path_factory.mktemp("transfer")
    with pytest.MonkeyPatch.context() as patch:
        use_scorer(patch)
        patch.setattr(text, "load_text", lambda source: tiny_text(200))
        yield _run(folder)
    perplexity._text_digest.cache_clear()  # of a text that is no longer there


def _run(folder: Path) -> Ran:
    axes = (write_axis(folder / "own.csv", PEOPLE), "nationality")  # one without blocks, one with
    SETS_OF.update(zip(axes, SETS, strict=True))
    lm, store = tiny_lm("llama"), Store(folder / "cache")
    lm.model.config.max_position_embeddings = 512  # a window of the text; rotary positions have no end
    calls: list[int] = []
    lm.model.base_model.register_forward_pre_hook(lambda *_: calls.append(1))

    def stop(done: float, total: float, _text: str) -> None:
        assert total == 3 * (1 + 2)
        if done >= 5:
            raise Stopped

    with pytest.raises(Stopped):
        every_axis.run(lm, SETS_OF, CONFIG, store, stop)
    passes = [len(calls)]
    result = every_axis.run(lm, SETS_OF, CONFIG, store)
    passes.append(len(calls) - passes[0])
    every_axis.run(lm, SETS_OF, CONFIG, store)
    passes.append(len(calls) - sum(passes))
    return lm, store, result, passes


def test_a_run_that_was_stopped_goes_on_and_the_result_needs_no_model(measured: Ran) -> None:
    lm, store, result, passes = measured
    fresh = tiny_lm("llama")
    fresh.model.config.max_position_embeddings = 512
    calls: list[int] = []
    fresh.model.base_model.register_forward_pre_hook(lambda *_: calls.append(1))
    for subject in (PruneSet(), *SETS):
        perplexity_of(fresh, subject, TextConfig(tokens=64), store)
        for axis in SETS_OF:
            toxicity_of(fresh, subject, CONFIG.bias(axis), store)
    assert not calls, "each measurement is stored by itself"
    assert min(passes[:2]) > 0
    assert passes[2] == 0
    again = every_axis.find(SETS_OF, CONFIG, lm.id, store)
    assert again is not None
    assert asdict(every_axis.judge(again)) == asdict(every_axis.judge(result))
    assert every_axis.find(SETS_OF, replace(CONFIG, reading="counted"), lm.id, store) is None
    (entry,) = store.entries(every_axis.KIND)
    assert entry.path.name.startswith("tiny-llama--transfer-neutral-")
    assert "--alpha 0.2 --prompts 40 --tokens 64" in result.provenance["command"]


def test_every_cell_is_the_change_of_that_axis_under_that_set(measured: Ran) -> None:
    lm, store, result, _ = measured
    found = every_axis.judge(result)
    assert found.axes == tuple(SETS_OF)
    assert len(found.cells) == 2 * 2 * 2
    base_nll, _ = perplexity_of(lm, PruneSet(), TextConfig(tokens=64), store)
    for s in found.sets:
        nll, _ = perplexity_of(lm, SETS_OF[s.axis], TextConfig(tokens=64), store)
        assert s.perplexity == perplexity_change(base_nll, nll)
        assert (s.heads, s.size) == (SETS_OF[s.axis].format(), len(SETS_OF[s.axis]))
    for cell in found.cells:
        before, after = (
            toxicity_of(lm, heads, CONFIG.bias(cell.measured_on), store)
            for heads in (PruneSet(), SETS_OF[cell.chosen_on])
        )
        values = [side.row(cell.reading).astype(np.float32).astype(np.float64) for side in (before, after)]
        gaps = [gap_by_hand(side.tolist(), before.groups) for side in values]
        assert (cell.change.base, cell.change.pruned) == pytest.approx(gaps, abs=1e-12)
        expected = gap.paired_gap_changes(values[0], [values[1]], before.groups, blocks=before.blocks or None)[0]
        assert bool(before.blocks) == (cell.measured_on == "nationality")
        assert cell.change.interval == pytest.approx(expected.interval)
        assert cell.change.relative_interval == pytest.approx(expected.relative_interval)
        assert cell.change.n == len(before.groups)
        assert cell.noise_p == found.bases[cell.measured_on][cell.reading].noise_p
    assert [(c.chosen_on, c.measured_on) for c in found.of("counted")] == [(a, b) for a in SETS_OF for b in SETS_OF]
    assert found.in_common(*SETS_OF) == 1
    frame = found.frame()
    assert len(frame) == 8
    assert set(frame.outcome) <= set(every_axis.OUTCOMES)
    assert frame["change"].tolist() == [c.change.change for c in found.cells]


def test_the_sentence_counts_every_cell_once(measured: Ran) -> None:
    found = every_axis.judge(measured[2])
    outcomes = {"fell": (0.01, (-0.8, -0.2)), "rose": (0.01, (0.2, 0.8)), "no gap": (0.5, (0.2, 0.8))}
    wanted = iter(("fell", "rose", "no gap", "fell"))
    cells = [
        replace(c, noise_p=outcomes[o][0], change=change(outcomes[o][1], outcomes[o][1]))
        for c, o in zip(found.of("neutral"), wanted, strict=True)
    ]
    told = replace(found, cells=tuple(cells))
    assert every_axis.statement(told, "neutral") == (
        "Of 2 measurements of a set on another axis: in 0 the gap fell, in 1 it rose, in 0 no change was shown, in 1 "
        "there is no gap above noise to begin with."
    )
    assert every_axis.statement(told, "neutral", own=True).endswith(
        "on the axis that it was chosen on: in 2 the gap fell, in 0 it rose, in 0 no change was shown."
    )
    shown = transfer.markdown(two_axes(), found)
    assert "## Experiment 2" in shown
    assert shown.count("\n| nationality |") == 4  # scores, cost, and a row of each reading


# --- the command


def two_axes() -> correlation.Correlations:
    rng = np.random.default_rng(10)
    axes = ("age", "nationality")
    tables = {axis: planted(axis, rng.normal(0, 0.001, 60), np.zeros((60, 60))) for axis in axes}
    return correlate(resample(tables, "neutral"), tables, "neutral")
