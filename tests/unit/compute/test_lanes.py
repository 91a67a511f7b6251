"""Lanes side by side, what they remember of jobs, and owners that leave without a word."""

from __future__ import annotations

import gc
import weakref

import pytest

from fasp_core.compute.jobs import AWAY, Cancelled, Lane, Progress
from fasp_core.compute.lanes import Lanes
from fasp_core.errors import InputError
from tests.support.lanes import LONG, Work, ended, never

# what is remembered


def test_what_ended_is_remembered_and_can_go_on() -> None:
    lanes, work = Lanes(), Work("whole")
    job = lanes.get("m").submit("key", work)
    work.until_started()
    work.progress(1, 4, "first of four")
    work.progress(1, 4, "first of four")
    assert lanes.past() == []
    job.cancel()
    work.finish(job)
    (past,) = lanes.past()
    assert (past.lane, past.key, past.state, past.log, past.error) == ("m", "key", "cancelled", ("first of four",), "")
    again = lanes.again(past)
    assert again.wait(LONG)
    assert again.result == "whole"
    (done,) = lanes.past()  # in the place of the one that was cancelled
    assert (done.state, done.work) == ("done", None)
    with pytest.raises(InputError, match="start it there"):
        lanes.again(done)
    lanes.forget(done.number)
    assert lanes.past() == []


@pytest.mark.parametrize(
    ("error", "told"), [(InputError("Name a model."), "Name a model."), (ValueError("/home/me/secret"), "(ValueError)")]
)
def test_a_failure_is_remembered_in_a_sentence(error: Exception, told: str) -> None:
    def fail(progress: Progress) -> None:
        raise error

    lanes = Lanes()
    assert lanes.get("m").submit("key", fail).wait(LONG)
    (past,) = lanes.past()
    assert past.state == "failed"
    assert told in past.error
    assert "secret" not in past.error
    assert past.work is fail


def test_what_was_overtaken_is_not_remembered() -> None:
    lanes, work = Lanes(), Work()
    lanes.get("m").submit("first", work)
    work.until_started()
    lanes.get("m").submit("old", never, owner="a")
    new = lanes.get("m").submit("new", lambda progress: None, owner="a")
    work.finish(new)
    assert [one.key for one in lanes.past()] == ["new", "first"]


def test_memory_is_bounded_and_holds_no_results() -> None:
    class Big:
        pass

    lanes = Lanes(make=lambda: Lane(keep=1), memory=3)
    for i in range(5):
        job = lanes.get("m").submit(i, lambda progress: Big())
        assert job.wait(LONG)
        if i == 2:
            alive = weakref.ref(job.result)
    ended(lanes.get("m"))
    del job
    gc.collect()
    assert len(lanes.past()) == 3
    assert alive() is None


# owners that leave without a word


def test_what_nobody_waits_for_any_more_frees_the_lane() -> None:
    """The owners of a running job and of one that waits leave; only after a while are both given up."""
    now, there = [100.0], {"gone", "goes too", "stays"}
    lane = Lane(clock=lambda: now[0], here=there.__contains__)
    work = Work()
    running = lane.submit("long", work, owner="gone")
    waiting = lane.submit("never", never, owner="goes too")
    shared = lane.submit("both", lambda progress: "both", owner="also goes")
    lane.submit("both", never, owner="stays")
    work.until_started()
    there -= {"gone", "goes too"}
    for seconds in (1.0, AWAY - 1):
        now[0] += seconds
        work.progress.check()
        assert (running.state, waiting.state) == ("running", "waiting")
    now[0] += 2
    with pytest.raises(Cancelled):
        work.progress.check()
    assert waiting.state == "cancelled"
    work.finish(running, shared)
    assert running.state == "cancelled"
    assert shared.result == "both"


def test_who_comes_back_in_time_finds_the_work_going_on() -> None:
    now, there = [100.0], set[str]()
    lane = Lane(clock=lambda: now[0], here=there.__contains__)
    work = Work()
    job = lane.submit("long", work, owner="one")
    nobodys = lane.submit("kept", lambda progress: "kept")
    work.until_started()
    for seconds, present in ((1.0, False), (AWAY - 1, True), (2.0, False), (AWAY - 1, False)):
        now[0] += seconds
        there.clear()
        there.update({"one"} if present else ())
        work.progress.check()
    work.finish(job, nobodys)
    assert job.result == "value"
    assert nobodys.result == "kept"
