"""Results on disk survive bad bytes, bad timing and bad disks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from hypothesis.extra import numpy as hnp

from fasp_core.storage import keys
from fasp_core.storage.keys import digest, slug
from fasp_core.storage.store import DamagedEntry, Store, cache_root
from tests.support.stored import CONFIG, contents, equal, files_below

ROOT = Path(__file__).resolve().parents[3]


@dataclasses.dataclass(frozen=True)
class Score:
    axis: str
    gamma: float
    heads: tuple[tuple[int, int], ...]


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
