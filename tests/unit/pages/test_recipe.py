"""What a link carries against a plain table of values, and steps against a list of them."""

from __future__ import annotations

import random
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.data.holistic_bias import axis_names
from fasp_core.heads.prune_set import PruneSet
from pages.session.recipe import ALL_METHODS, LONGEST, METHOD_TITLES, PROMPTS, TOKENS, Recipe, Trail, fits, read

parts = st.frozensets(st.tuples(st.integers(0, 29), st.integers(0, 8)), max_size=20)
recipes = st.builds(
    Recipe,
    model=st.sampled_from(["built-in", "some/model", "/a folder/with & signs?"]),
    axis=st.sampled_from(axis_names()),
    reading=st.sampled_from(["neutral", "counted"]),
    method=st.sampled_from(ALL_METHODS),
    gamma=st.integers(0, 100).map(lambda x: x / 100),
    alpha=st.integers(0, 80).map(lambda x: x / 200),
    protect=st.sampled_from(["perplexity", "task", "worse"]),
    limit=st.integers(1, 30),
    lambada_points=st.integers(0, 200).map(lambda x: x / 2),
    task_points=st.integers(0, 1000).map(lambda x: x / 10),
    seed=st.integers(0, 999),
    neurons=parts.map(lambda p: PruneSet(neurons=p).format()),
    ablation=st.sampled_from(["zero", "mean"]),
    strength=st.floats(0, 1).map(lambda x: round(x, 2)),
    prune=parts.map(lambda p: PruneSet(p).format()),
    keep=parts.map(lambda p: PruneSet(p).format()),
    split=st.sampled_from(["valid", "test"]),
    prompts=st.sampled_from(PROMPTS),
    tokens=st.sampled_from(TOKENS),
)


@given(recipes)
def test_a_link_carries_all_of_it(recipe: Recipe) -> None:
    query = dict(parse_qsl(urlencode(recipe.query()), keep_blank_values=True))
    found, left_out = read(query)
    assert Recipe(**found) == recipe  # type: ignore[arg-type]
    assert left_out == []


def some(count: int, layers: int, width: int) -> list[tuple[int, int]]:
    return random.Random(0).sample([(layer, i) for layer in range(layers) for i in range(width)], count)


@pytest.mark.parametrize("count", [1300, 2500, 20_000])
def test_a_link_of_many_parts_is_read_or_said_to_be_too_long(count: int) -> None:
    """Heads and neurons of large models, without ranges."""
    neurons = PruneSet(neurons=frozenset(some(count, 80, 28_672)))
    heads = PruneSet(frozenset(some(count // 5, 80, 64)))
    recipe = Recipe(neurons=neurons.format(), prune=heads.format())
    found, left_out = read(recipe.query())
    assert fits(recipe.query()) == (not left_out) == (count < 20_000)
    assert left_out or Recipe(**found) == recipe  # type: ignore[arg-type]


def test_a_link_is_no_longer_than_a_server_reads() -> None:
    parts = ",".join(f"L{layer}H{head}" for layer in range(60) for head in range(0, 128, 2))
    assert len(parts) < LONGEST
    assert fits({"prune": parts})
    assert not fits({"prune": parts, "keep": parts})


def test_what_is_as_at_first_is_not_in_the_link() -> None:
    assert Recipe().query() == {}
    assert Recipe(alpha=0.1, prune="L0H3").query() == {"alpha": "0.1", "prune": "L0H3"}


def test_links_with_titles_are_still_read() -> None:
    found, left_out = read({"method": "bias only", "reading": "identity terms scored", "axis": "race ethnicity"})
    assert found == {"method": "bias-only", "reading": "counted", "axis": "race_ethnicity"}
    assert not left_out
    for method, title in METHOD_TITLES.items():
        assert read({"method": title})[0] == {"method": method}


@pytest.mark.parametrize(
    "written",
    [
        "axis=nowhere",
        "method=",
        "gamma=abc",
        "gamma=nan",
        "gamma=1.01",
        "alpha=-0.1",
        "alpha=0.5",
        "protect=both",
        "limit=0",
        "limit=2.5",
        "lambada_points=-1",
        "task_points=101",
        "seed=-1",
        "seed=٣",
        "prompts=211",
        "tokens=1e3",
        "strength=1.5",
        "split=train",
        "dtype=int3",
        "model=",
        "neurons=L0H1",
        "prune=L0N1",
        "keep=L2H4-1",
        "prune=<script>",
        "neurons=L0N0-999999",
    ],
)
def test_nonsense_is_left_out_and_named(written: str) -> None:
    name, value = written.split("=")
    found, left_out = read({name: value, "seed" if name != "seed" else "limit": "7", "utm_source": "elsewhere"})
    assert name not in found
    assert len(found) == 1
    assert left_out == [written]


@given(st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["undo", "redo"])), max_size=40))
def test_any_history_of_steps(acts: list[int | str]) -> None:
    """Against a list of recipes and a place in it."""
    trail, steps, place = Trail(), [Recipe()], 0
    trail = trail.moved(Recipe())
    for act in acts:
        if act == "undo":
            trail, place = trail.back(), max(place - 1, 0)
        elif act == "redo":
            trail, place = trail.forth(), min(place + 1, len(steps) - 1)
        else:
            to = Recipe(seed=int(act))
            trail = trail.moved(to)
            if to != steps[place]:
                steps, place = [*steps[: place + 1], to], place + 1
        assert trail.now == steps[place]
        assert (len(trail.past), len(trail.future)) == (place, len(steps) - 1 - place)


def test_how_a_set_is_measured_is_no_step() -> None:
    assert Recipe(split="test", prompts=900, tokens=512).of_set() == Recipe()
    assert Recipe(prune="L0H1").of_set() != Recipe()
