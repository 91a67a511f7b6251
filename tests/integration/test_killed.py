"""Work that is killed at any moment goes on to the same result, and nobody ever reads half of one."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.export.writing import read_result
from fasp_core.storage.entry import Entry
from fasp_core.storage.store import Contents, Store
from tests.support.killed import COMMANDS, WRITES, Nursery, Reader, nursery
from tests.support.worlds import write_model

AXIS_WORDS = ("red", "green", "old")


def made(i: int) -> Contents:
    """What a writer writes, see `tests.support.killed.WRITES`."""
    return {"arrays": {"x": np.full(20_000, i), "i": np.array(i)}, "meta": {"i": i}}


def whole(entry: Entry) -> bool:
    i, x = entry.config["i"], entry.arrays["x"]
    return bool(entry.meta["i"] == i and x.shape == (20_000,) and (x == i).all())


def kill_writers(root: Path, kills: int, longest: float, caplog: pytest.LogCaptureFixture) -> str:
    """Writers of entries and parts, killed at moments drawn with a seed; a reader reads all the time."""
    caplog.set_level(logging.WARNING, "fasp_core.storage.store")
    draw = random.Random(0)
    with nursery(WRITES) as work:
        reader = Reader(root, "scores", whole)
        for seed in range(kills):
            assert work.run(root, seed, kill_after=draw.uniform(0, longest))[0] == -9
        reader.stop()
    store = Store(root)
    entries, partial = store.entries("scores"), list((root / "partial").iterdir())
    assert not reader.wrong
    assert reader.reads > 0
    assert not (root / "damaged").exists()
    for folder in partial:  # of entries that were not finished: whole parts, or none yet
        for path in folder.glob("[!.]*"):
            i = int(path.stem.removeprefix("part-"))
            found = store.parts("scores", {"i": i}).load(path.stem)
            assert found is not None
            assert (found["x"] == i).all()
            assert whole(store.compute("scores", {"i": i}, lambda i=i: made(i)))  # the lock of the killed one is free
    assert not caplog.records
    return f"{work.kills} kills: {len(entries)} entries, {len(partial)} unfinished; {reader.reads} reads meanwhile"


def test_writers_that_are_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert kill_writers(tmp_path, 12, 0.1, caplog).startswith("12 kills")


@pytest.mark.slow
def test_writers_that_are_killed_a_hundred_times(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    print("store:", kill_writers(tmp_path, 100, 0.3, caplog))


# commands


@pytest.fixture(scope="module")
def work() -> Iterator[Nursery]:
    with nursery(COMMANDS) as made:
        yield made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with room for the usual windows, and an axis."""
    folder = tmp_path_factory.mktemp("killed")
    write_model(folder / "tiny", n_layers=5)
    config = json.loads((folder / "tiny" / "config.json").read_text())
    (folder / "tiny" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    rows = [
        f"{start} {group} {who} {verb} {end}.,{group}"
        for start in ("The", "My")
        for group in AXIS_WORDS
        for who in ("person", "man", "woman", "friend")
        for verb in ("is", "was")
        for end in ("kind", "bad", "ugly", "tall", "young")
    ]
    (folder / "axis.csv").write_text("text,group\n" + "\n".join(rows) + "\n")
    return folder


def contents(root: Path, kinds: tuple[str, ...]) -> dict[str, Any]:
    """All numbers of the entries below a cache, by kind and digest."""
    store = Store(root)
    found = {}
    for kind in kinds:
        for header in store.entries(kind):
            entry = store.load(kind, header.config)
            assert entry is not None
            tables = {name: entry.read(name) for name in entry.files if name.endswith(".parquet")}
            arrays = {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in entry.arrays.items()}
            meta = {name: value for name, value in entry.meta.items() if name != "provenance"}
            found[kind, entry.path.name[-16:]] = arrays, tables, meta
    return found


def interrupted(work: Nursery, args: list[Any], seconds: float, kills: int, draw: random.Random) -> int:
    """Start a command and kill it, up to so many times, then let it end; how often it was killed."""
    killed = 0
    for _ in range(kills):
        status, _ = work.run(*args, kill_after=draw.uniform(0, seconds))
        if status == 0:
            return killed
        assert status == -9
        killed += 1
    assert work.run(*args)[0] == 0
    return killed


def check_command(
    work: Nursery,
    args: list[Any],
    start: Path | None,
    kinds: tuple[str, ...],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    rounds: int,
    kills: int,
    name: str,
) -> None:
    """Rounds of kills, each on a cache of its own that ends with the numbers of an undisturbed run."""
    caplog.set_level(logging.WARNING, "fasp_core.storage.store")

    def cache(name: str) -> Path:
        if start is not None:
            shutil.copytree(start, tmp_path / name)
        return tmp_path / name

    status, seconds = work.run(*args, "--cache", cache("whole"))
    assert status == 0
    wanted, draw, total, reads = contents(tmp_path / "whole", kinds), random.Random(name), 0, 0
    assert wanted
    for turn in range(rounds):
        root = cache(f"{turn}")
        reader = Reader(root, kinds[0], lambda entry: True)
        total += interrupted(work, [*args, "--cache", root], seconds, kills, draw)
        reader.stop()
        reads += reader.reads
        assert not reader.wrong
        assert contents(root, kinds) == wanted
        assert not (root / "damaged").exists()
        assert not list((root / "partial").rglob("*.safetensors"))
    assert not caplog.records
    print(f"{name}: {total} kills in {rounds} rounds; {seconds:.1f} s undisturbed; {reads} reads meanwhile; equal bits")


def scoring(place: Path, *more: Any) -> list[Any]:
    out = ("--out", place / "out", "--device", "cpu")
    return ["score", "--model", place / "tiny", "--axis", place / "axis.csv", *out, *more]


@pytest.mark.slow
def test_scoring_that_is_killed(work: Nursery, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    args = scoring(place, "--prompts", 60, "--tokens", 2048)
    check_command(work, args, None, ("scores", "words"), tmp_path, caplog, rounds=5, kills=8, name="score")


@pytest.mark.slow
def test_a_comparison_that_is_killed(
    work: Nursery, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = tmp_path / "scored"
    assert work.run(*scoring(place, "--estimator", "exact", "--cache", start))[0] == 0
    args = ["compare", "--model", place / "tiny", "--axis", place / "axis.csv", "--run", "--device", "cpu"]
    kinds = ("measured", "experiments")
    check_command(work, args, start, kinds, tmp_path, caplog, rounds=4, kills=8, name="compare --run")


@pytest.mark.slow
def test_an_export_that_is_killed(work: Nursery, place: Path, tmp_path: Path) -> None:
    """The folder is not there, or whole; numbers of a whole one are those of an undisturbed export."""

    def args(out: Path) -> list[Any]:
        return ["export", "--model", place / "tiny", "--heads", "L0H1,L1H2,L3H0-1", "--out", out, "--device", "cpu"]

    def files(folder: Path) -> dict[str, bytes]:
        timed = {"export.json", "README.md"}  # they say how fast the models were, and when
        return {f.name: f.read_bytes() for f in folder.iterdir() if f.name not in timed}

    assert work.run(*args(tmp_path / "whole"))[0] == 0
    status, seconds = work.run(*args(tmp_path / "again"))  # the first one warms up the disk
    assert status == 0
    wanted, draw, kills, made = files(tmp_path / "whole"), random.Random("export"), 0, 0
    for turn in range(40):
        out = tmp_path / f"{turn % 4}" / "out"
        status, _ = work.run(*args(out), kill_after=draw.uniform(0, seconds))
        kills += status == -9
        if out.exists():  # it came to its end, or was killed after that
            assert files(out) == wanted
            assert read_result(out) is not None
            made += 1
            shutil.rmtree(out)
    for turn in range(4):
        assert work.run(*args(tmp_path / f"{turn}" / "out"))[0] == 0
        assert files(tmp_path / f"{turn}" / "out") == wanted
    print(f"export: {kills} kills, {made} folders there and whole; {seconds:.1f} s undisturbed; equal bytes")
