"""Halves of templates and descriptors: disjoint, complete, even, and stable."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.data.divisions import CELLS, divide, quarters, third
from fasp_core.data.prompt_sampling import sample, split
from fasp_core.data.prompt_set import NO_GROUP, PromptSet
from fasp_core.data.prompts import resolve_axis
from fasp_core.errors import InputError


def made(sizes: dict[str, int], templates: int, nouns: int = 3) -> PromptSet:
    rows = [
        (f"t{t} {group}{d} n{n}", group, f"t{t}", f"{group}{d}", f"n{n}")
        for t in range(templates)
        for group, size in sizes.items()
        for d in range(size)
        for n in range(nouns)
    ]
    texts, groups, *rest = zip(*rows, strict=True)
    return PromptSet("made", "all", texts, groups, *rest)


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(2, 9), min_size=2),
    st.integers(2, 9),
    st.integers(-3, 10**6),
)
def test_four_cells_are_all_of_it_and_share_nothing(sizes: dict[str, int], templates: int, division: int) -> None:
    prompts = made(sizes, templates)
    cells = {name: divide(prompts, name, division) for name in CELLS}
    assert sorted(text for cell in cells.values() for text in cell.texts) == sorted(prompts.texts)
    for attribute, one, other in (
        ("templates", "seen", "new templates"),
        ("descriptors", "seen", "new descriptors"),
        ("templates", "seen", "new both"),
        ("descriptors", "seen", "new both"),
    ):
        assert not set(getattr(cells[one], attribute)) & set(getattr(cells[other], attribute))
    for cell in cells.values():
        assert set(cell.groups) == set(sizes)
    halves = defaultdict(set)
    for group, descriptor in zip(cells["seen"].groups, cells["seen"].descriptors, strict=True):
        halves[group].add(descriptor)
    assert {group: len(found) for group, found in halves.items()} == {g: (n + 1) // 2 for g, n in sizes.items()}
    assert len(set(cells["seen"].templates)) == (templates + 1) // 2


def test_a_division_is_known_by_its_number_and_others_differ() -> None:
    prompts = made({"a": 6, "b": 6}, 8)
    assert divide(prompts, "seen", 1).texts == divide(prompts, "seen", 1).texts
    assert len({divide(prompts, "seen", i).texts for i in range(6)}) == 6


def test_sides_of_the_split_are_divided_alike() -> None:
    """A template that is new among the test prompts is new among the validation prompts too."""
    prompts = made({"a": 4, "b": 4}, 6)
    part = prompts.subset(range(0, len(prompts), 3))  # each template, group and descriptor with one noun
    assert set(divide(part, "new both", 5).texts) <= set(divide(prompts, "new both", 5).texts)


def test_a_group_of_one_descriptor_is_left_out_and_named() -> None:
    cell = divide(made({"a": 3, "b": 2, "only": 1}, 4), "new descriptors", 0)
    assert set(cell.groups) == {"a", "b"}
    assert "were left out: only (1)" in cell.notes[-1].replace("'", "")


@pytest.mark.parametrize(
    ("prompts", "cell", "says"),
    [
        (made({"a": 2, "b": 2}, 2), "other", "use seen, new templates"),
        (made({"a": 2, "b": 1}, 2), "seen", "only 1 groups"),
        (PromptSet("x", "all", ("A.", "B."), ("a", "b"), ("", ""), ("", ""), ("", "")), "seen", "cannot be divided"),
    ],
)
def test_what_cannot_be_divided_is_refused(prompts: PromptSet, cell: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        divide(prompts, cell, 0)


def test_an_axis_of_holistic_bias_has_enough_in_every_cell() -> None:
    prompts = resolve_axis("race_ethnicity")
    for name in CELLS:
        drawn = sample(divide(prompts, name, 0), 20, 0)
        assert len(drawn.counts()) >= 5
        assert drawn.blocks


@pytest.mark.parametrize("axis", ["race_ethnicity", "gender_and_sex", "religion"])
def test_every_group_is_in_every_part_of_an_axis(axis: str) -> None:
    pool = split(resolve_axis(axis), "valid")
    groups = set(pool.groups) - {NO_GROUP}
    for division in range(3):
        parts = quarters(pool, division)
        assert len(parts) == (
            2 if axis == "religion" else 4
        )  # whose groups are descriptors: templates alone are halved
        assert all(groups <= set(part.groups) for part in parts)
        seen, apart = third(pool, division)
        assert not set(seen.templates) & set(apart.templates)
        assert groups <= set(seen.groups) & set(apart.groups)
        for group in groups:
            of = [{d for d, g in zip(p.descriptors, p.groups, strict=True) if g == group} for p in (seen, apart)]
            every = {d for d, g in zip(pool.descriptors, pool.groups, strict=True) if g == group}
            assert len(of[0] & of[1]) == (len(every) if len(every) < 3 else 0)
            assert of[0] | of[1] == every
