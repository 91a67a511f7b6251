"""Values of prompts with their groups and blocks: kept together, stored and read, compared as the parts would be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.gap import PromptRows, gap_stats, paired_gap_changes, paired_mean_change
from fasp_core.gap.further import further_stats


def drawn(seed: int, in_blocks: bool = True, models: int = 3) -> tuple[PromptRows, list[str], list[int]]:
    rng = np.random.default_rng(seed)
    groups = sorted(rng.choice(list("abcdefgh"), 3, replace=False).tolist())
    labels = rng.permuted(np.tile(groups, (8, 1)), axis=1).ravel().tolist()
    blocks = (7 + 2 * (np.arange(24) // 3)).tolist()  # neither from 0 on, nor without holes
    return PromptRows.of(rng.random((models, 2, 24)), labels, blocks if in_blocks else ()), labels, blocks


@given(st.integers(0, 999), st.booleans(), st.sampled_from(["", "test_", "age "]))
def test_what_is_stored_reads_back(seed: int, in_blocks: bool, name: str) -> None:
    rows, labels, _ = drawn(seed, in_blocks)
    assert rows.labels == labels
    arrays = rows.stored(name)
    assert set(arrays) == {f"{name}codes", *([f"{name}blocks"] if in_blocks else [])}
    again = PromptRows.read(rows.values.astype(np.float32), arrays, json.loads(json.dumps(rows.groups)), name)
    assert (again.labels, again.groups, again.n, again.units) == (labels, rows.groups, 24, rows.units)
    np.testing.assert_allclose(again.values, rows.values, atol=1e-7)
    assert (again.blocks is None) is not in_blocks
    assert again.blocks is None or np.array_equal(again.blocks, rows.blocks)


@pytest.mark.parametrize("in_blocks", [True, False])
def test_comparisons_are_those_of_the_parts(in_blocks: bool) -> None:
    whole, labels, blocks = drawn(3, in_blocks)
    given_blocks = blocks if in_blocks else None
    rows = whole[:, 1]
    assert rows.units == (len(set(blocks)) if in_blocks else 24)
    base, *others = rows.values
    assert rows.stats() == gap_stats(base, labels, blocks=given_blocks)
    assert rows[1:].stats() == gap_stats(others[0], labels, blocks=given_blocks)
    assert repr(rows.further_stats()) == repr(further_stats(base, labels, blocks=given_blocks))
    assert rows.changes() == paired_gap_changes(base, others, labels, blocks=given_blocks)
    assert rows.mean_changes() == [paired_mean_change(base, other, labels, blocks=given_blocks) for other in others]
    assert rows.gaps() == pytest.approx([gap_stats(row, labels, resamples=0).gap for row in rows.values])
    again = rows[0].beside(rows.values[1:])
    np.testing.assert_array_equal(again.values, rows.values)
    paired = PromptRows.paired(base, others, rows.codes, given_blocks)
    np.testing.assert_array_equal(paired.values, rows.values)
    assert paired.stats().noise_p == rows.stats().noise_p


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="second group"):
        PromptRows.of([[0.1, 0.2]], ["a", "a"])
    with pytest.raises(InputError, match="Blocks must be one whole number"):
        PromptRows.of([[0.1, 0.2]], ["a", "b"], [1])
    with pytest.raises(InputError, match="do not fit 2 prompts"):
        PromptRows.paired([0.1, 0.2], [[0.1, 0.2, 0.3]], [0, 1])
