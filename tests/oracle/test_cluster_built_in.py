"""The same scores of the built-in model by a cluster of processes, one of which is killed on the way."""

from __future__ import annotations

import pytest

pytest.importorskip("distributed", reason="no Dask: pip install -r requirements-cluster.txt")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_killed_worker_changes_no_byte() -> None:
    """A scheduler and two workers as processes on the loopback; one is killed when half of the heads are done."""
    from benchmarks import cluster

    found = cluster.run()
    print(found)
    assert found["same_bytes"] == {"one_worker": True, "two_workers": True, "one_killed": True}
    assert found["workers_killed"] == 1
    assert found["heads"] == 270
