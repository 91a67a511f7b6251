"""How far scores of several seeds can be trusted: closed forms, SciPy and brute force, and the released rows.

The tests on released data need reference data that is not part of the repository, and are skipped without it.
"""

from __future__ import annotations

import csv
import json
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import correlation as pearson_of
from statistics import mean

import numpy as np
import pytest
from scipy import stats

from fasp_core import released
from fasp_core.heads.selection import HeadScores, select
from fasp_core.released import SeedRows

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "fasp_released"
JSON = FOLDER / "head_contributions.json"
needs_data = pytest.mark.skipif(not JSON.is_file(), reason=f"no released scores: {JSON} does not exist")


def rows(scores: np.ndarray) -> SeedRows:
    return SeedRows(tuple(str(i + 1) for i in range(len(scores))), scores, np.zeros_like(scores))


def simulated(n: int, seeds: int, reliability: float, seed: int) -> np.ndarray:
    """[S, n] normal scores of which one seed has this intraclass correlation."""
    rng = np.random.default_rng(seed)
    return np.sqrt(reliability) * rng.normal(size=n) + np.sqrt(1 - reliability) * rng.normal(size=(seeds, n))


# --- released rows, read here by other means ---


@cache
def cells(model: str, axis: str) -> dict[tuple[int, int], float]:
    """(head from 0, seed) -> bias of the validation rows."""
    with (FOLDER / f"head_scores_{model}.csv").open(newline="") as file:
        return {
            (int(row["Head id"]) - 1, int(row["Seed"])): float(row["Bias"])
            for row in csv.DictReader(file)
            if row["Split"] == "valid" and row["Group"] == axis
        }


@cache
def prunable(model: str, gamma: float = 0.3) -> list[int]:
    ppl = json.loads(JSON.read_text())[model]["cont_to_ppl"]
    by_ppl = sorted(range(len(ppl)), key=lambda head: (-ppl[head], head))
    return sorted(by_ppl[int(gamma * len(ppl)) :])


def between_seeds(model: str, axis: str, heads: list[int]) -> float:
    held = cells(model, axis)
    whole = [head for head in heads if all((head, seed) in held for seed in (1, 2, 3))]
    columns = {seed: [held[head, seed] for head in whole] for seed in (1, 2, 3)}
    return mean(pearson_of(columns[a], columns[b]) for a, b in combinations((1, 2, 3), 2))


@needs_data
@pytest.mark.parametrize(("model", "known"), [("gpt2", 0.14), ("distilgpt2", 0.13)])
def test_gender_scores_of_prunable_heads_hardly_agree_between_seeds(model: str, known: float) -> None:
    file = released.read(FOLDER / f"head_scores_{model}.csv")
    found = file.seed_rows(model, "gender_and_sex")
    assert found is not None
    assert found.seeds == ("1", "2", "3")
    free = prunable(model)
    part = released.agreement(found, free)
    assert part.pearson.value == pytest.approx(known, abs=0.005)
    assert part.pearson.value == pytest.approx(between_seeds(model, "gender_and_sex", free), abs=1e-12)
    everything = released.agreement(found)
    assert everything.pearson.value > 0.6  # a few wrecked models make all seeds agree
    assert (everything.heads, part.heads) == (found.bias.shape[1], len(free))


@needs_data
@pytest.mark.parametrize("model", ["gpt2", "distilgpt2"])
def test_every_axis_as_counted_from_the_rows(model: str) -> None:
    """Those with missing rows too: only heads with all seeds count."""
    file = released.read(FOLDER / f"head_scores_{model}.csv")
    for axis in file.axes(model):
        found = file.seed_rows(model, axis)
        assert found is not None
        part = released.agreement(found, prunable(model), resamples=50)
        assert part.pearson.value == pytest.approx(between_seeds(model, axis, prunable(model)), abs=1e-12)
        held = cells(model, axis)
        assert np.isfinite(found.bias).sum() == len(held)


@needs_data
def test_which_released_rankings_are_noise() -> None:
    """At gamma .3: of gpt2's five axes only gender_and_sex is above noise, and its interval is far below .5."""
    file = released.read(FOLDER / "head_scores_gpt2.csv")
    noise = {}
    for axis in file.axes("gpt2"):
        found = file.seed_rows("gpt2", axis)
        assert found is not None
        noise[axis] = released.agreement(found, prunable("gpt2")).noise
    assert [axis for axis, is_noise in noise.items() if not is_noise] == ["gender_and_sex"]


@needs_data
def test_race_and_gender_agree_only_over_heads_that_wreck_the_model() -> None:
    scores = {axis: released.read(JSON).head_scores("gpt2", axis) for axis in ("gender_and_sex", "race_ethnicity")}
    gender, race = (scores[axis].z_bias for axis in scores)
    assert gender is not None
    assert race is not None
    whole = released.correlation(gender, race, kind="pearson")
    part = released.correlation(gender, race, prunable("gpt2"), kind="pearson")
    assert whole.value == pytest.approx(0.78, abs=0.005)
    assert part.value == pytest.approx(0.07, abs=0.005)
    assert not part.shown
    assert whole.shown


@needs_data
def test_places_in_the_worked_example() -> None:
    """The chosen heads are the authors' 14; what single seeds choose is counted here by sorting."""
    file = released.read(FOLDER / "head_scores_gpt2.csv")
    selection = select(file.head_scores("gpt2", "gender_and_sex"), "fasp", 0.3, 0.1)
    found = file.seed_rows("gpt2", "gender_and_sex")
    assert found is not None
    places = released.places(found, selection)
    assert places.chosen == selection.pruned == (11, 26, 49, 55, 57, 71, 89, 92, 99, 104, 118, 133, 135, 137)
    held, free = cells("gpt2", "gender_and_sex"), prunable("gpt2")
    alone = [set(sorted(free, key=lambda head: (held[head, seed], head))[:14]) for seed in (1, 2, 3)]
    assert places.in_seeds.tolist() == [sum(head in chosen for chosen in alone) for head in range(144)]
    assert places.in_every_seed == tuple(sorted(set.intersection(*alone)))
    assert places.by_chance == pytest.approx(101 * (14 / 101) ** 3)
    assert set(places.sure) <= set(places.chosen)


# --- against SciPy, closed forms and brute force ---


def test_agreement_is_the_mean_over_pairs() -> None:
    scores = simulated(40, 4, 0.4, 0)
    scores[1, 5] = np.nan
    found = released.agreement(rows(scores), resamples=20)
    kept = np.delete(scores, 5, axis=1)
    pairs = list(combinations(kept, 2))
    assert (found.heads, found.seeds) == (39, 4)
    assert found.pearson.value == pytest.approx(np.mean([stats.pearsonr(a, b)[0] for a, b in pairs]))
    assert found.spearman.value == pytest.approx(np.mean([stats.spearmanr(a, b)[0] for a, b in pairs]))


def test_intraclass_correlation_of_a_published_table() -> None:
    """Shrout and Fleiss, Psychological Bulletin 86 (1979): six targets, four judges; ICC(3,1) .71, ICC(3,4) .91."""
    judges = np.array([[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2], [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]], dtype=float)
    found = released.agreement(rows(judges), resamples=20)
    assert found.icc.value == pytest.approx(0.71, abs=0.005)
    assert found.mean_icc.value == pytest.approx(0.91, abs=0.005)
    # the interval of McGraw and Wong for the same table, as R's psych::ICC prints it
    assert (found.icc.low, found.icc.high) == pytest.approx((0.34, 0.95), abs=0.005)
    assert (found.mean_icc.low, found.mean_icc.high) == pytest.approx((0.68, 0.99), abs=0.01)


@pytest.mark.parametrize("reliability", [0.0, 0.3])
def test_intervals_cover(reliability: float) -> None:
    """Of 95% intervals over simulated models, about 95% hold the true correlation."""
    inside = {"pearson": 0, "icc": 0}
    for seed in range(120):
        found = released.agreement(rows(simulated(60, 3, reliability, seed)), resamples=200, seed=seed)
        for kind in inside:
            ends = getattr(found, kind)
            inside[kind] += ends.low <= reliability <= ends.high
    assert inside["icc"] >= 107
    assert inside["pearson"] >= 104  # percentiles of a bootstrap are a little narrow


def test_reliability_of_the_mean_is_what_two_means_of_other_seeds_show() -> None:
    """Spearman-Brown and the intraclass correlation against the correlation of two independent means."""
    two = simulated(20_000, 6, 0.2, 1)
    truth = np.corrcoef(two[:3].mean(0), two[3:].mean(0))[0, 1]
    found = released.agreement(rows(two[:3]), resamples=4)
    assert found.mean_pearson.value == pytest.approx(truth, abs=0.03)
    assert found.mean_icc.value == pytest.approx(truth, abs=0.03)


def test_share_of_resamples_against_the_normal_distribution() -> None:
    """One head against a crowd that is known well: the chance that normal noise carries it over the cut."""
    rng = np.random.default_rng(0)
    n, noise = 2000, 0.1
    scores = rng.normal(0, noise, (3, n)) + np.where(np.arange(n) < 200, -5.0, 0.0)
    scores[:, 300] = np.array([-5.1, -5.0, -4.9]) + 5 - 0.15  # its mean is -.15
    selection = select(HeadScores(1, n, np.zeros(n), -scores.mean(0)), "bias-only", alpha=201 / n)
    found = released.places(rows(scores), selection, resamples=400)
    assert found.noise == pytest.approx(noise, rel=0.03)
    assert found.share[:200].min() == 1.0
    assert found.pooled_se[0] == pytest.approx(noise / np.sqrt(3), rel=0.03)
    # its rivals are the lowest of 1,799 means that are moved again: two draws of noise each
    best = (stats.norm.rvs(scale=noise / np.sqrt(3), size=(400, 1), random_state=1) - 0.15) < (
        scores.mean(0)[np.r_[200:300, 301:n]]
        + stats.norm.rvs(scale=noise / np.sqrt(3), size=(400, n - 201), random_state=2)
    ).min(1, keepdims=True)
    assert found.share[300] == pytest.approx(best.mean(), abs=0.08)


def test_heads_beyond_noise_where_there_is_nothing_but_noise() -> None:
    """The numbers that noise alone would give, against simulation."""
    sure, every = [], []
    for seed in range(60):
        scores = simulated(120, 3, 0.0, seed)
        selection = select(HeadScores(10, 12, np.zeros(120), -scores.mean(0)), "bias-only", alpha=0.1)
        found = released.places(rows(scores), selection, resamples=200, seed=seed)
        sure.append(len(found.sure))
        every.append(len(found.in_every_seed))
    assert np.mean(every) == pytest.approx(found.by_chance, abs=4 * np.sqrt(found.by_chance / 60))
    assert np.mean(sure) == pytest.approx(found.sure_by_chance, abs=4 * np.sqrt(found.sure_by_chance / 60))
