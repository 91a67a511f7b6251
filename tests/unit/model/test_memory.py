"""Memory that ends: halves hold everything once and in order, and a process that really has no more goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.model import passes
from fasp_core.model.memory import two
from fasp_core.model.packing import Pack, halves, pack_equal, pack_trees
from fasp_core.model.passes import in_halves
from tests.support.tiny import tiny_lm

ROOT = Path(__file__).resolve().parents[3]
MODEL = tiny_lm("gpt2")
FULL = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes.")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=7), min_size=1, max_size=12),
    st.booleans(),
    st.integers(1, 2),
)
def test_halves_of_a_pack_hold_its_prompts_in_order(rows: list[list[int]], trees: bool, steps: int) -> None:
    def told(pack: Pack) -> list[tuple[int, list[int], list[int]]]:
        """Prompt, its whole row, and the tokens that are read."""
        ids = pack.ids.reshape(-1).tolist()
        out = []
        for prompt, reads in zip(pack.prompts.tolist(), pack.reads.tolist(), strict=True):
            row, at = [], reads[-1]
            length = pack.ids.shape[1]
            while at >= 0 and len(row) < len(rows[prompt]):
                row.append(ids[at])
                at = at - 1 if pack.parents is None else int(pack.parents[at])
            assert pack.parents is not None or length == len(row)
            out.append((prompt, row[::-1], [ids[r] for r in reads]))
        return out

    for pack in (pack_trees if trees else pack_equal)(rows, steps):
        parts = halves(pack)
        assert [one for part in parts for one in told(part)] == told(pack)
        assert all(row == rows[prompt] and reads == row[-steps:] for prompt, row, reads in told(pack))
        sizes = [len(part.prompts) for part in parts]
        assert sizes == ([1] if len(pack.prompts) == 1 else [len(pack.prompts) // 2, -(-len(pack.prompts) // 2)])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_in_halves_runs_everything_once_and_in_order(n: int, most: int) -> None:
    ran: list[int] = []

    def run(batch: list[int]) -> list[int]:
        if len(batch) > most:
            raise FULL
        ran.append(len(batch))
        return batch

    with patch.object(passes, "free"):  # collects garbage at each failure: much, in a process that has run many tests
        found = in_halves(MODEL, run, list(range(n)), two, "an item")
    assert [i for part in found for i in part] == list(range(n))
    assert sum(ran) == n


REAL = """
import resource, sys
import numpy as np, torch
from fasp_core.metrics.perplexity import measure_nll, window_packs
from fasp_core.data.text import TokenWindows, TextConfig
from tests.support.tiny import tiny_lm, token_rows
torch.set_num_threads(1)
lm = tiny_lm("llama", n_layers=2)
ids = token_rows(int(sys.argv[1]), 250)
windows = TokenWindows(TextConfig(), ((ids, np.ones(len(ids), dtype=int)),), "x", ids.numel() - len(ids))
wanted = measure_nll(lm, windows, rows=4).sums
tried = []
lm.blocks[0].register_forward_pre_hook(lambda _, args: tried.append(len(args[0])))
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]),) * 2)
found = measure_nll(lm, windows, rows=len(ids)).sums
off = float((abs(found - wanted) / abs(wanted)).max())
print("rows tried:", *sorted(set(tried), reverse=True), "largest relative difference of a sum:", off)
assert max(tried) == len(ids) and min(tried) < len(ids)
np.testing.assert_allclose(found, wanted, rtol=1e-4)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited by Linux alone")
def test_memory_that_really_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REAL, "1024", str(200 * 2**20)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
