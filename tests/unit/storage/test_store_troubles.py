"""Disks that refuse, several processes and threads at once, processes that die, and parts of unfinished work."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from fasp_core.errors import InputError
from fasp_core.storage.store import Contents, Entry, Store
from tests.support.stored import CONFIG, contents, equal, files_below

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


# bad disks


def refuse(code: int) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("call", ["rename", "fsync", "mkdir"])
def test_a_disk_that_refuses(store: Store, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    monkeypatch.setattr(os, call, refuse(code))
    with pytest.raises(InputError, match="FASP_CACHE") as caught:
        store.save("scores", CONFIG, **contents())
    assert str(store.root) in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert files_below(store.root) == set()
    monkeypatch.undo()
    assert equal(store.save("scores", CONFIG, **contents()))


@pytest.mark.skipif(os.name != "posix", reason="folders are opened on POSIX alone")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EIO])
def test_a_file_system_that_syncs_files_alone(store: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """As some of SMB and FUSE; any other refusal is one."""
    synced = os.fsync

    def files_alone(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        synced(handle)

    monkeypatch.setattr(os, "fsync", files_alone)
    if code == errno.EIO:
        with pytest.raises(InputError, match="FASP_CACHE"):
            store.save("scores", CONFIG, **contents())
    else:
        assert equal(store.save("scores", CONFIG, **contents()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc/self/fd names the open files")
def test_bytes_are_on_the_disk_before_their_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def step(call: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def recorded(*args: Any) -> Any:
            steps.append(name(*args))
            return call(*args)

        return recorded

    monkeypatch.setattr(os, "fsync", step(os.fsync, lambda handle: Path(f"/proc/self/fd/{handle}").readlink().name))
    monkeypatch.setattr(os, "rename", step(os.rename, lambda old, new: "rename"))
    monkeypatch.setattr(os, "replace", step(os.replace, lambda old, new: "replace"))
    store.save("scores", CONFIG, **contents())
    *files, temporary, rename, folder = steps
    assert sorted(files) == ["arrays.safetensors", "entry.json", "heads.parquet"]
    assert temporary.startswith(".tmp-")
    assert (rename, folder) == ("rename", "scores")
    steps.clear()
    store.parts("scores", CONFIG).save("a", {"x": np.ones(3)})
    file, replace = steps
    assert file.startswith(".tmp-")
    assert replace == "replace"


@pytest.mark.parametrize("call", ["replace", "fsync", "mkdir"])
def test_a_disk_that_refuses_parts(store: Store, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    parts = store.parts("scores", CONFIG)
    monkeypatch.setattr(os, call, refuse(errno.ENOSPC))
    parts.save("a", {"x": np.ones(3)})
    assert store.trouble is not None
    assert "FASP_CACHE" in store.trouble
    assert parts.names() == set()
    assert files_below(store.root) == set()


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    store = Store(tmp_path / "cache")
    assert store.load("scores", CONFIG) is None
    assert store.entries("scores") == []
    assert store.parts("scores", CONFIG).load("a") is None
    assert store.parts("scores", CONFIG).names() == set()
    for call in (
        lambda: store.save("scores", CONFIG),
        lambda: store.save("scores", {"gamma": 1.0}),
    ):
        with pytest.raises(InputError, match="FASP_CACHE"):
            call()
    assert equal(store.compute("scores", CONFIG, contents))  # in memory


def test_reading_needs_no_writing(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = store.save("scores", CONFIG, **contents()).path
    other = store.save("scores", {"gamma": 1.0}).path
    (other / "entry.json").unlink()
    for call in ("rename", "replace", "mkdir", "unlink"):
        monkeypatch.setattr(os, call, refuse(errno.EROFS))
    entry = store.compute("scores", CONFIG, lambda: pytest.fail("computed again"))
    assert equal(entry)
    assert entry.path == path
    assert caplog.records == []
    assert store.load("scores", {"gamma": 1.0}) is None
    assert other.exists()
    assert "stays there" in caplog.text


def test_an_unreadable_file_is_not_moved(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = store.save("scores", CONFIG, **contents()).path
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse(errno.EMFILE))
        assert store.load("scores", CONFIG) is None
    assert "cannot be read" in caplog.text
    assert path.exists()
    assert store.load("scores", CONFIG) is not None


# several processes


PREAMBLE = """
import os, sys
import numpy as np
from fasp_core.storage.store import Store
store = Store(sys.argv[1])
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREAMBLE + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


RACE = """
print("ready", flush=True)
sys.stdin.readline()
for i in range(12):
    if sys.argv[2] == "save":
        store.save("scores", {"i": i}, arrays={"x": np.full(1000, i)}, meta={"by": os.getpid()})
    else:
        def work():
            os.write(log, b"%d\\n" % i)
            return {"arrays": {"x": np.full(1000, i)}}
        log = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        assert (store.compute("scores", {"i": i}, work).arrays["x"] == i).all()
"""


@pytest.mark.parametrize("verb", ["save", "compute"])
def test_two_processes_at_once(store: Store, tmp_path: Path, verb: str) -> None:
    log = tmp_path / "log"
    racers = [start(RACE, store.root, verb, log) for _ in range(2)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    assert [racer.communicate(timeout=60) and racer.returncode for racer in racers] == [0, 0]
    for i in range(12):
        entry = store.load("scores", {"i": i})
        assert entry is not None
        assert (entry.arrays["x"] == i).all()
    assert len(list((store.root / "scores").iterdir())) == 12  # no temporary folders either
    assert not (store.root / "damaged").exists()
    if verb == "compute":
        assert sorted(map(int, log.read_text().split())) == list(range(12))


def test_an_entry_that_comes_between_two_looks_is_not_damaged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header was not there a moment ago, and then its folder is: another process has just placed it."""
    path = store.save("scores", CONFIG, **contents()).path
    hidden, read = path.with_name(".elsewhere"), Path.read_bytes
    path.rename(hidden)

    def late(asked: Path) -> bytes:
        if hidden.exists():
            hidden.rename(path)
            raise FileNotFoundError(asked)
        return read(asked)

    monkeypatch.setattr(Path, "read_bytes", late)
    assert store.load("scores", CONFIG) is not None
    assert not (store.root / "damaged").exists()


def test_two_threads_at_once(store: Store) -> None:
    entered, go = threading.Event(), threading.Event()

    def slow() -> Contents:
        entered.set()
        assert go.wait(30)
        return contents()

    def second() -> Entry:
        return store.compute("scores", CONFIG, lambda: pytest.fail("computed twice"))

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(store.compute, "scores", CONFIG, slow)
        assert entered.wait(30)
        two = pool.submit(second)
        with pytest.raises(TimeoutError):  # it waits
            two.result(0.3)
        go.set()
        assert equal(one.result(30))
        assert equal(two.result(30))


def test_work_that_fails_leaves_no_entry_and_no_lock(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        store.compute("scores", CONFIG, lambda: {"meta": {"x": 1 // 0}})
    assert store.load("scores", CONFIG) is None
    assert equal(store.compute("scores", CONFIG, contents))


@pytest.mark.parametrize("moment", ["os.rename", "os.fsync"])
def test_a_process_that_dies_while_saving(store: Store, moment: str) -> None:
    code = f"{moment} = lambda *_: os._exit(9)\nstore.save('scores', {{'i': 1}}, arrays={{'x': np.ones(9)}})"
    process = start(code, store.root)
    process.communicate(timeout=60)
    assert process.returncode == 9
    (left,) = (store.root / "scores").iterdir()
    assert left.name.startswith(".tmp-")
    assert store.load("scores", {"i": 1}) is None
    assert store.entries("scores") == []
    store.save("scores", {"i": 1})
    assert left.exists()  # another process might still be writing it
    os.utime(left, (0, 0))
    store.save("scores", {"i": 2})
    assert not left.exists()


# parts


def test_parts(store: Store) -> None:
    parts = store.parts("scores", CONFIG)
    assert parts.names() == set()
    assert parts.load("a") is None
    for i in range(50):
        parts.save(f"l{i}h0", {"x": np.full(3, i)})
    parts.save("l7h0", {"x": np.full(3, -1)})
    assert store.parts("scores", CONFIG).names() == {f"l{i}h0" for i in range(50)}
    assert store.parts("scores", {"gamma": 0.5}).names() == set()
    part = parts.load("l7h0")
    assert part is not None
    assert part["x"].tolist() == [-1, -1, -1]
    parts.clear()
    parts.clear()
    assert parts.names() == set()
    parts.save("a", {})
    assert parts.load("a") == {}
    store.compute("scores", CONFIG, contents)
    assert parts.names() == set()  # the entry is there, its parts have served


@settings(max_examples=40, deadline=None)
@given(hs.data())
def test_any_damage_to_a_part_is_seen(data: hs.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parts = Store(folder).parts("scores", CONFIG)
        parts.save("a", {"x": np.arange(5.0), "y": np.array([True])})
        (path,) = parts.folder.iterdir()
        raw = bytearray(path.read_bytes())
        at = data.draw(hs.integers(0, len(raw) - 1))
        if data.draw(hs.booleans()):
            raw[at] ^= 1 << data.draw(hs.integers(0, 7))
        else:
            del raw[at:]
        path.write_bytes(raw)
        assert parts.load("a") is None
        assert parts.names() == set()


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EISDIR])
def test_parts_that_cannot_be_read_stay(
    store: Store, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts = store.parts("scores", CONFIG)
    parts.save("a", {"x": np.ones(2)})
    monkeypatch.setattr(Path, "read_bytes", refuse(code))
    assert parts.load("a") is None
    assert os.strerror(code) in caplog.text
    monkeypatch.undo()
    assert parts.load("a") is not None


def test_damaged_parts_are_warned_of(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    parts = store.parts("scores", CONFIG)
    parts.folder.mkdir(parents=True)
    headers = [b"[]", b'{"__metadata__":"x"}', b'{"__metadata__":{}}', b"{", b"\xff"]
    garbage = [b"", os.urandom(100), *(len(header).to_bytes(8, "little") + header for header in headers)]
    for raw in garbage:
        (parts.folder / "a.safetensors").write_bytes(raw)
        assert parts.load("a") is None
    assert [record.name for record in caplog.records] == ["fasp_core.storage.parts"] * len(garbage)
