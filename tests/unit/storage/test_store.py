"""Results on disk survive bad bytes, bad timing and bad disks."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from hypothesis.extra import numpy as hnp

from fasp_core.errors import InputError
from fasp_core.storage import keys
from fasp_core.storage.keys import digest, slug
from fasp_core.storage.store import Contents, DamagedEntry, Entry, Store, cache_root

CONFIG = {"model": "built-in", "gamma": 0.3, "heads": [[0, 3], [1, 2]]}
ROOT = Path(__file__).resolve().parents[3]


@dataclasses.dataclass(frozen=True)
class Score:
    axis: str
    gamma: float
    heads: tuple[tuple[int, int], ...]


def contents() -> Contents:
    return {
        "tables": {"heads": pd.DataFrame({"head": ["L0H0", "L0H1"], "z_ppl": [0.5, -0.25]})},
        "arrays": {"scores": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "meta": {"ppl": 24.1, "versions": {"numpy": np.__version__}},
    }


def equal(entry: Entry) -> bool:
    want = contents()
    return (
        entry.table("heads").equals(want["tables"]["heads"])
        and np.array_equal(entry.arrays["scores"], want["arrays"]["scores"])
        and entry.meta == want["meta"]
        and entry.config == CONFIG
    )


def files_below(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


# digests


def test_digest_is_sha256_of_canonical_json() -> None:
    text = b'{"config":{"axis":"r\\u00e9ligion","gamma":0.3,"heads":[[0,3],[1,2]]},"format":1}'
    expected = hashlib.sha256(text).hexdigest()[:16]
    assert digest({"heads": [[0, 3], [1, 2]], "gamma": 0.3, "axis": "réligion"}) == expected
    assert digest(Score("réligion", 0.3, ((0, 3), (1, 2)))) == expected
    heads = ((np.int8(0), 3), [1, np.uint64(2)])
    assert digest({"gamma": np.float64(0.3), "axis": "réligion", "heads": heads}) == expected


json_values = hs.recursive(
    hs.none() | hs.booleans() | hs.integers() | hs.floats(allow_nan=False, allow_infinity=False) | hs.text(),
    lambda inner: hs.lists(inner, max_size=3) | hs.dictionaries(hs.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(hs.dictionaries(hs.text(), json_values, max_size=4))
def test_digest_depends_on_content_alone(config: dict[str, Any]) -> None:
    turned = dict(reversed(config.items()))
    assert digest(config) == digest(turned) == digest(json.loads(json.dumps(config)))
    assert digest({**config, "one more": 1}) != digest(config) or config.get("one more") == 1
    assert re.fullmatch("[0-9a-f]{16}", digest(config))


def test_digest_tells_types_apart() -> None:
    values: list[Any] = [1, 1.0, "1", True, None, [1], {"1": 1}, ""]
    assert len({digest({"a": value}) for value in values}) == len(values)


@pytest.mark.parametrize(
    "value",
    [{1, 2}, Path("a"), b"a", object(), {1: "a"}, np.arange(2), np.datetime64("2026-01-01"), 1j, Score,
     np.timedelta64(1, "s"), np.complex64(1)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_digest_refuses_other_types(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be part of a config"):
        digest({"nested": [value]})


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf")])
def test_digest_refuses_numbers_that_are_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": value})


def test_cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "elsewhere"))
    assert cache_root() == Store().root == tmp_path / "elsewhere"
    assert cache_root(tmp_path) == tmp_path
    monkeypatch.setenv("FASP_CACHE", "")
    assert cache_root() == ROOT / "cache"


# round trips


def test_round_trip_and_layout(store: Store) -> None:
    assert store.load("scores", CONFIG) is None
    assert not store.root.exists()  # asking leaves no trace
    saved = store.save("scores", CONFIG, label="Built-in--race_ethnicity (é)", **contents())
    assert saved.path == store.root / "scores" / f"built-in--race_ethnicity--{digest(CONFIG)}"
    assert {p.name for p in saved.path.iterdir()} == {"entry.json", "heads.parquet", "arrays.safetensors"}
    assert len(files_below(store.root)) == 3
    loaded = store.load("scores", CONFIG)
    assert loaded is not None
    assert equal(loaded)
    assert equal(saved)
    assert loaded == saved
    assert loaded.kind == "scores"
    header = json.loads((saved.path / "entry.json").read_text())
    for file, facts in header["files"].items():
        raw = (saved.path / file).read_bytes()
        assert facts == {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    assert store.load("other", CONFIG) is None
    assert store.load("scores", {**CONFIG, "gamma": 0.5}) is None


array_types = hnp.scalar_dtypes().filter(lambda t: t.kind in "biuf" and t.itemsize <= 8)


@settings(max_examples=20, deadline=None)
@given(
    hs.dictionaries(
        hs.text("abc.XYZé", min_size=1, max_size=5),
        hnp.arrays(array_types, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)),
        max_size=3,
    ),
    hs.sampled_from([lambda a: a, np.transpose, lambda a: a[..., ::-2] if a.ndim else a, np.asfortranarray]),
)
def test_arrays_come_back_as_they_were(arrays: dict[str, Any], view: Callable[[Any], Any]) -> None:
    arrays = {name: view(array) for name, array in arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        parts = store.parts("scores", CONFIG)
        parts.save("part", arrays)
        for back in (store.save("scores", CONFIG, arrays=arrays).arrays, parts.load("part")):
            assert back is not None
            assert back.keys() == arrays.keys()
            for name, array in arrays.items():
                assert back[name].dtype == array.dtype.newbyteorder("=")
                np.testing.assert_array_equal(back[name], array)


@settings(max_examples=20, deadline=None)
@given(hs.lists(hs.tuples(hs.integers(-(2**63), 2**63 - 1), hs.floats(), hs.text() | hs.none(), hs.booleans())))
def test_tables_come_back_as_they_were(rows: list[Any]) -> None:
    table = pd.DataFrame(rows, columns=["layer", "z", "text", "critical"])
    table = table.astype({"layer": "int64", "z": "float64", "text": "str", "critical": "bool"})
    with tempfile.TemporaryDirectory() as folder:
        back = Store(folder).save("scores", CONFIG, tables={"heads": table}).table("heads")
    pd.testing.assert_frame_equal(back, table)


def test_arrays_of_text_or_objects_leave_nothing(store: Store) -> None:
    for array in (np.array(["a"]), np.array([None]), np.array([1j], np.complex128)):
        with pytest.raises(Exception, match="dtype"):
            store.save("scores", CONFIG, arrays={"x": array})
    with pytest.raises(ValueError, match="JSON"):
        store.save("scores", CONFIG, meta={"se": float("nan")})
    assert files_below(store.root) == set()


def test_a_healthy_entry_stays(store: Store) -> None:
    first = store.save("scores", CONFIG, label="first", meta={"by": 1})
    again = store.save("scores", CONFIG, label="second", meta={"by": 2})
    assert again.path == first.path
    assert again.meta == {"by": 1}
    assert len(list((store.root / "scores").iterdir())) == 1


def test_entries_lists_headers(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    assert store.entries("scores") == []
    for gamma in (0.5, 0.1, 0.3):
        store.save("scores", {"gamma": gamma}, label=f"g{gamma}", **contents())
    (store.root / "scores" / ".gitkeep").touch()
    (store.root / "scores" / "note.txt").touch()
    (store.root / "scores" / ".tmp-1").mkdir()
    found = store.entries("scores")
    assert [entry.config["gamma"] for entry in found] == [0.1, 0.3, 0.5]
    assert caplog.records == []
    (found[0].path / "heads.parquet").write_bytes(b"PAR1")
    (found[1].path / "entry.json").write_text("{")
    assert [entry.config["gamma"] for entry in store.entries("scores")] == [0.1, 0.5]
    with pytest.raises(DamagedEntry, match="delete that folder"):
        found[0].table("heads")
    (found[2].path / "arrays.safetensors").unlink()
    with pytest.raises(DamagedEntry, match="missing"):
        _ = found[2].arrays
    with pytest.raises(DamagedEntry, match="lacks 'absent'"):
        found[2].table("absent")


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", "A", "a.b", "a b", "a\n", "é", "x" * 81])
def test_names_stay_inside_the_folder(store: Store, name: str) -> None:
    for call in (
        lambda: store.load(name, CONFIG),
        lambda: store.entries(name),
        lambda: store.parts(name, CONFIG),
        lambda: store.parts("scores", CONFIG).save(name, {}),
        lambda: store.save("scores", CONFIG, tables={name: pd.DataFrame()}),
    ):
        with pytest.raises(ValueError, match="cannot name a file"):
            call()
    for kind in ("damaged", "locks", "partial"):
        with pytest.raises(ValueError, match="another kind"):
            store.load(kind, CONFIG)


@given(hs.text())
def test_slug(text: str) -> None:
    assert re.fullmatch("([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)?", slug(text))
    assert slug(slug(text)) == slug(text)
    assert slug("HuggingFaceTB/SmolLM2 135M") == "huggingfacetb-smollm2-135m"


# damage


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"}"),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256))),
    "other json": lambda path: path.write_bytes(b'[{"format": 1}]'),
    "deleted": Path.unlink,
    "folder": as_folder,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["entry.json", "heads.parquet", "arrays.safetensors"])
def test_damage_is_set_aside_and_computed_again(
    store: Store, caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    path = store.save("scores", CONFIG, label="l", **contents()).path
    DAMAGES[damage](path / file)
    assert store.load("scores", CONFIG) is None
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("fasp_core.storage.store", logging.WARNING)
    (aside,) = (store.root / "damaged").iterdir()
    assert str(aside) in record.getMessage()
    assert aside.name.startswith(f"scores-l--{digest(CONFIG)}-")
    assert not path.exists()
    assert equal(store.compute("scores", CONFIG, contents, label="l"))
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("old", "new"), [("24.1", "24.2"), ('"gamma": 0.3', '"gamma": 0.4'), ("ppl", "pql")])
def test_a_changed_number_in_the_header_is_seen(store: Store, old: str, new: str) -> None:
    path = store.save("scores", CONFIG, **contents()).path / "entry.json"
    text = path.read_text()
    path.write_text(text.replace("\n", "\r\n"))
    assert store.load("scores", CONFIG) is not None  # line ends may change on the way through git
    assert old in text
    path.write_text(text.replace(old, new))
    assert store.load("scores", CONFIG) is None


def test_save_replaces_a_damaged_entry_under_any_label(store: Store) -> None:
    path = store.save("scores", CONFIG, label="a", **contents()).path
    flip(path / "heads.parquet")
    assert equal(store.save("scores", CONFIG, label="b", **contents()))
    assert len(list((store.root / "scores").iterdir())) == 1


def test_a_misplaced_entry_is_damaged(store: Store) -> None:
    path = store.save("scores", CONFIG, **contents()).path
    for kind, config in (("scores", {"gamma": 0.5}), ("other", CONFIG)):
        target = store.path(kind, config)
        target.parent.mkdir(exist_ok=True)
        os.rename(path, target)
        assert store.load(kind, config) is None
        assert not target.exists()
        path = store.save("scores", CONFIG, **contents()).path


def seal(header: dict[str, Any]) -> dict[str, Any]:
    body = {key: value for key, value in header.items() if key != "sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return {**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def test_other_formats_are_absent_not_damaged(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.save("scores", CONFIG, **contents()).path
    header = json.loads((path / "entry.json").read_text())
    assert seal(header) == header
    (path / "entry.json").write_text(json.dumps(seal({**header, "format": 99})))
    assert store.load("scores", CONFIG) is None
    assert "newer version" in caplog.text
    assert path.exists()
    (path / "entry.json").write_text(json.dumps(header))
    monkeypatch.setattr(keys, "FORMAT_VERSION", 2)
    assert store.load("scores", CONFIG) is None
    assert store.entries("scores") == []
    assert store.save("scores", CONFIG).path != path  # each format has its own
    monkeypatch.undo()
    found = store.load("scores", CONFIG)
    assert found is not None
    assert found.path == path


def test_a_header_cannot_reach_outside_its_folder(store: Store) -> None:
    path = store.save("scores", CONFIG).path
    outside = store.root / "outside"
    outside.write_bytes(b"x")
    header = json.loads((path / "entry.json").read_text())
    header["files"] = {"../../outside": {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}}
    (path / "entry.json").write_text(json.dumps(seal(header)))
    assert store.load("scores", CONFIG) is None
    assert not path.exists()


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


def test_two_threads_at_once(store: Store) -> None:
    entered, go, asked = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Contents:
        entered.set()
        assert go.wait(30)
        return contents()

    def second() -> Entry:
        return store.compute("scores", CONFIG, lambda: pytest.fail("computed twice"), check=asked.set)

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(store.compute, "scores", CONFIG, slow)
        assert entered.wait(30)
        two = pool.submit(second)
        assert asked.wait(30)  # it waits, and is asked whether to go on waiting
        go.set()
        assert equal(one.result(30))
        assert equal(two.result(30))


def test_waiting_for_another_process_can_be_given_up(store: Store) -> None:
    (store.root / "locks").mkdir(parents=True)

    def give_up() -> None:
        raise KeyboardInterrupt

    with (
        filelock.FileLock(store.root / "locks" / f"scores-{digest(CONFIG)}.lock"),
        pytest.raises(KeyboardInterrupt),
    ):
        store.compute("scores", CONFIG, lambda: pytest.fail("worked in vain"), check=give_up)
    assert equal(store.compute("scores", CONFIG, contents, check=give_up))


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


LOOP = """
parts = store.parts("scores", {"i": 1})
for i in range(10**9):
    parts.save(f"part-{i % 7}", {"x": np.full(50_000 + i, i), "i": np.array(i)})
    print(i, flush=True)
"""


@pytest.mark.parametrize("turns", [1, 9, 30])
def test_parts_survive_a_killed_process(store: Store, turns: int) -> None:
    process = start(LOOP, store.root)
    assert process.stdout is not None
    for _ in range(turns):
        process.stdout.readline()
    process.kill()
    process.communicate(timeout=60)
    parts = store.parts("scores", {"i": 1})
    assert {f"part-{i}" for i in range(min(turns, 7))} <= parts.names()
    for name in parts.names():
        part = parts.load(name)
        assert part is not None
        i = int(part["i"])
        assert part["x"].shape == (50_000 + i,)
        assert (part["x"] == i).all()
        assert name == f"part-{i % 7}"


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


def test_damaged_parts_are_warned_of(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    parts = store.parts("scores", CONFIG)
    parts.folder.mkdir(parents=True)
    headers = [b"[]", b'{"__metadata__":"x"}', b'{"__metadata__":{}}', b"{", b"\xff"]
    garbage = [b"", os.urandom(100), *(len(header).to_bytes(8, "little") + header for header in headers)]
    for raw in garbage:
        (parts.folder / "a.safetensors").write_bytes(raw)
        assert parts.load("a") is None
    assert [record.name for record in caplog.records] == ["fasp_core.storage.parts"] * len(garbage)
