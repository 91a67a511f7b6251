"""Disks that are full, read-only, gone, or written by others: one clear message, and nothing computed is lost."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.cli.main import main
from fasp_core.data.text import SCORE_TEXT
from fasp_core.errors import InputError
from fasp_core.export.writing import export
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.scoring import entries
from fasp_core.storage.entry import DamagedEntry, Entry, NotWritable
from fasp_core.storage.fallback import MAX_BYTES, Shelf
from fasp_core.storage.keys import digest
from fasp_core.storage.store import Contents, Store
from fasp_core.studies.compare import compare, outcome, searching
from tests.support.fakes import MadeUp, Studio, add_claim, add_comparison, made_up_lm
from tests.support.tiny import tiny_lm
from tests.support.worlds import write_axis, write_model, write_text

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"a": 1}
AXIS = "race_ethnicity"


def contents(x: float = 1.0) -> Contents:
    table = pd.DataFrame({"head": ["L0H0"], "z": [x]})
    return {"arrays": {"x": np.full(30_000, x)}, "tables": {"heads": table}, "meta": {"made": {"seconds": 1.5}}}


def right(entry: Entry | None, x: float = 1.0) -> bool:
    return (
        entry is not None
        and bool((entry.arrays["x"] == x).all())
        and entry.table("heads").equals(contents(x)["tables"]["heads"])
        and entry.meta == {"made": {"seconds": 1.5}}
    )


@dataclass
class Held:
    fields: Any


class Disk:
    """A file system of 2 MB of its own, that can be full, read-only, and well again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"

    def fill(self) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)

    def heal(self) -> None:
        subprocess.run(["mount", "-o", "remount,rw", self.folder], check=True)
        (self.folder / "ballast").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no command mount")
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    yield Disk(folder)
    subprocess.run(["umount", "-l", folder], check=True)


FAULTS: dict[str, Callable[[Disk], None]] = {"full": Disk.fill, "read-only": Disk.read_only}
REASONS = {"full": "No space left on device", "read-only": "Read-only file system"}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_written_is_there_and_is_written_later(
    disk: Disk, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.WARNING)
    store = Store(disk.cache)
    assert right(store.compute("scores", {"a": 0}, lambda: contents(0.0)), 0.0)
    assert store.trouble is None
    FAULTS[fault](disk)
    made: list[int] = []

    def work() -> Contents:
        store.parts("scores", CONFIG).save("part", {"x": np.ones(3000)})
        made.append(1)
        return contents()

    assert right(store.compute("scores", CONFIG, work, label="mine"))
    other = Store(disk.cache)  # another reader of this process
    assert right(other.compute("scores", CONFIG, work))
    assert right(other.load("scores", CONFIG))
    assert [e.config["a"] for e in other.entries("scores")] == [0, 1]
    assert other.read("scores", CONFIG, lambda entry: entry.meta["made"]["seconds"]) == 1.5
    assert made == [1]
    (message,) = {r.getMessage() for r in caplog.records}
    assert str(disk.cache) in message
    assert REASONS[fault] in message
    assert "make room there, or name another folder with FASP_CACHE" in message
    assert other.trouble is not None
    with pytest.raises(NotWritable):
        store.save("scores", {"a": 2}, **contents())
    disk.heal()
    assert right(store.load("scores", {"a": 0}), 0.0)  # nothing that was there is lost
    store.compute("scores", {"a": 3}, contents)  # there is room again: both are written
    assert (store.trouble, other.trouble) == (None, None)
    assert not store._shelf.all()
    assert right(other.load("scores", CONFIG))
    names = sorted(p.name for p in (disk.cache / "scores").iterdir())
    assert f"mine--{digest(CONFIG)}" in names
    assert len(names) == 3
    assert not list((disk.cache / "partial").glob("*/*"))


@pytest.mark.parametrize("fault", ["full", pytest.param("read-only", marks=pytest.mark.slow)])
def test_the_command_score_ends_well(
    disk: Disk, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    write_model(tmp_path / "tiny")
    write_text(tmp_path, 300)
    write_axis(tmp_path / "axis.csv", ("man", "woman"), groups=("red", "old"))
    args = ["score", "--model", "tiny", "--axis", "axis.csv", "--text", "text.txt", "--tokens", "200", "--window", "50"]
    args = [str(tmp_path / a) if (tmp_path / a).exists() else a for a in args] + ["--split", "all", "--device", "cpu"]
    assert main([*args, "--cache", str(tmp_path / "well"), "--out", str(tmp_path / "a")]) == 0
    FAULTS[fault](disk)
    capsys.readouterr()
    assert main([*args, "--cache", str(disk.cache), "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a" / "scores.csv").read_bytes() == (tmp_path / "b" / "scores.csv").read_bytes()
    disk.heal()
    assert not list(disk.folder.rglob("entry.json"))


def test_export_to_a_full_disk_leaves_nothing(disk: Disk) -> None:
    disk.fill()
    with pytest.raises(InputError, match=r"cannot be written .*: make room there, or name another folder"):
        export(tiny_lm("llama"), PruneSet.of([(0, 1)]), disk.folder / "out")
    assert [p.name for p in disk.folder.iterdir()] == ["ballast"]


NOBODY = """
import os, sys
import numpy as np
from fasp_core.storage.store import Store
store = Store(sys.argv[1])
os.setresuid(65534, 65534, 65534)
assert (store.load("scores", {"a": 0}).arrays["x"] == 0).all()
entry = store.compute("scores", {"a": 1}, lambda: {"arrays": {"x": np.ones(3)}})
assert (entry.arrays["x"] == 1).all()
assert Store(sys.argv[1]).load("scores", {"a": 1}) is not None
print(store.trouble)
"""


@pytest.mark.skipif(not hasattr(os, "setresuid") or os.geteuid() != 0, reason="only root becomes another user")
def test_a_user_who_may_only_read() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        store = Store(Path(folder) / "cache")
        store.compute("scores", {"a": 0}, lambda: contents(0.0))
        done = subprocess.run(
            [sys.executable, "-c", NOBODY, store.root], capture_output=True, text=True, cwd=ROOT, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "Permission denied" in done.stdout
        assert len(done.stderr.strip().splitlines()) == 1
        assert [p.name[-16:] for p in (store.root / "scores").iterdir()] == [digest({"a": 0})]


def test_memory_for_what_cannot_be_written_has_an_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fasp_core.storage.fallback.MAX_BYTES", 700_000)
    assert MAX_BYTES > 1e8
    shelf, store = Shelf(), Store(tmp_path)
    made = [
        store._made(store.path("scores", {"a": i}), "scores", {"a": i}, {"arrays": contents()["arrays"]})
        for i in range(4)
    ]
    for entry, files in made:
        shelf.put(entry, files)
    assert [e.config["a"] for e, _ in shelf.all()] == [2, 3]


# gone, moved


def test_a_cache_that_is_deleted_or_moved_meanwhile(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    store = Store(root)
    entry = store.compute("scores", CONFIG, contents)
    loaded = store.load("scores", CONFIG)
    root.rename(tmp_path / "elsewhere")
    assert right(entry)
    assert right(loaded)  # what was read stays read
    assert store.load("scores", CONFIG) is None
    assert store.entries("scores") == []
    assert right(Store(tmp_path / "elsewhere").load("scores", CONFIG))

    def work() -> Contents:
        store.parts("scores", CONFIG).save("a", {"x": np.ones(2)})
        shutil.rmtree(root)  # while the lock is held
        store.parts("scores", CONFIG).save("b", {"x": np.ones(2)})
        return contents()

    assert right(store.compute("scores", CONFIG, work))
    assert right(Store(root).load("scores", CONFIG))
    assert store.trouble is None


# damage


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_damage_to_any_file_is_mended(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        entry = store.compute("scores", CONFIG, contents)
        for path in data.draw(st.lists(st.sampled_from(sorted(entry.path.iterdir())), min_size=1, unique=True)):
            raw = bytearray(path.read_bytes())
            at = data.draw(st.integers(0, len(raw) - 1))
            what = data.draw(st.sampled_from(["cut", "flip", "gone"]))
            if what == "cut":
                path.write_bytes(raw[:at])
            elif what == "flip":
                raw[at] ^= 1 << data.draw(st.integers(0, 7))
                path.write_bytes(raw)
            else:
                path.unlink()
        assert right(entry)  # made here, so it is in memory
        found = store.load("scores", CONFIG)
        assert found is None or right(found)  # white space of a header does not count
        assert right(store.compute("scores", CONFIG, contents))
        assert right(Store(folder).load("scores", CONFIG))


# other versions


def without(store: Store, entry: Entry, what: str, name: str) -> Store:
    """A store with one entry in place of another, which lacks a field."""
    root = store.root.parent / f"without-{entry.path.name[-16:]}-{what}-{name}"
    tables = {
        n.removesuffix(".parquet"): entry.table(n.removesuffix(".parquet")) for n in entry.files if "parquet" in n
    }
    kept: dict[str, Mapping[str, Any]] = {"arrays": entry.arrays, "tables": tables, "meta": entry.meta}
    kept[what] = {n: value for n, value in kept[what].items() if n != name}
    shutil.copytree(store.root, root)
    shutil.rmtree(root / entry.kind / entry.path.name)
    other = Store(root)
    other.save(entry.kind, entry.config, label="other", **kept)  # type: ignore[arg-type]
    return other


def check_fields(store: Store, entry: Entry, read: Callable[[Store], Any], optional: set[str]) -> None:
    """`read` finds nothing wherever a field is lacking, sets the entry aside, and never fails."""
    names = {
        "arrays": list(entry.arrays),
        "tables": [n.removesuffix(".parquet") for n in entry.files if n.endswith(".parquet")],
        "meta": list(entry.meta),
    }
    assert read(store) is not None
    seen = 0
    for what, fields in names.items():
        for name in set(fields) - optional:
            other = without(store, entry, what, name)
            assert not read(other), (what, name)
            (aside,) = (other.root / "damaged").iterdir()
            assert aside.name.startswith(entry.kind)
            seen += 1
        for name in optional & set(fields):
            assert read(without(store, entry, what, name)), name
    assert seen


@pytest.fixture
def studio(tmp_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    return Studio(tmp_cache, monkeypatch)


@pytest.mark.parametrize("read", [entries.load, entries.best])
def test_scores_of_another_version(studio: Studio, caplog: pytest.LogCaptureFixture, read: Any) -> None:
    studio.add_scores(AXIS)
    lm, config = made_up_lm(), BiasConfig(AXIS)
    for key, optional in (
        (ppl_key(SCORE_TEXT, lm.id), set[str]()),
        (entries.bias_key(config, lm.id), {"n_layers", "n_heads"}),
    ):
        entry = studio.store.load(entries.KIND, key)
        assert entry is not None

        def find(store: Store) -> Any:
            return read(SCORE_TEXT, config, lm.id, lm.name, store)

        check_fields(studio.store, entry, find, optional)
    assert "it lacks 'exact', so another version of this program wrote it" in caplog.text


@pytest.mark.slow
def test_comparisons_claims_and_searches_of_another_version(studio: Studio) -> None:
    world = MadeUp(studio.add_scores(AXIS), strength=10)
    plan = {"gammas": (0.2, 0.4), "alphas": (0.02, 0.05), "seeds": 2, "prompts": 180, "tokens": 640}
    found = add_comparison(studio.store, AXIS, world, **plan)
    config = outcome.ClaimConfig(prompts=180, tokens=640, sampled_prompts=90, samples=2)
    claim = add_claim(studio.store, AXIS, world, found, config=config)
    lm = made_up_lm()
    known = (lm.id, AXIS, "neutral")
    for entry in studio.store.entries(compare.KIND):
        if entry.config["experiment"] == "compare":
            check_fields(
                studio.store, entry, lambda store: compare.stored(*known, store, ""), {"valid_blocks", "test_blocks"}
            )
        else:
            optional = {"expected_blocks", "sampled_blocks", "notes"}
            check_fields(
                studio.store, entry, lambda store: outcome.stored_claim(*known, claim.candidate, store, ""), optional
            )
    # configs that lack settings, or have others: not those that are asked for, and in nobody's way
    stored = studio.store.entries(compare.KIND)
    for entry in stored:
        for name in {"plan", "measured", "candidates", "candidate", "claim", "prompts"} & set(entry.config):
            fewer = {n: value for n, value in entry.config.items() if n != name}
            studio.store.save(entry.kind, fewer)
        if "plan" in entry.config:
            studio.store.save(entry.kind, {**entry.config, "plan": {**entry.config["plan"], "later": 1}})
    studio.store.save(compare.KIND, {"experiment": "search", **lm.id.key(), "axis": AXIS})
    assert compare.stored(*known, studio.store, "") is not None
    assert outcome.stored_claim(*known, claim.candidate, studio.store, "") is not None
    assert searching.stored(lm.id, AXIS, studio.store, "neutral") == []


def test_fields_of_an_entry_can_be_copied(tmp_path: Path) -> None:
    fields = Store(tmp_path).save("scores", CONFIG, **contents()).meta
    for copied in (
        copy.deepcopy(fields),
        pickle.loads(pickle.dumps(fields)),
        asdict(Held(fields))["fields"],
        {**fields},
    ):
        assert copied == fields == {"made": {"seconds": 1.5}}
        with pytest.raises((KeyError, DamagedEntry)):
            copied["made"]["other"]


def test_what_is_made_of_another_version_is_made_anew(tmp_path: Path) -> None:
    store, made = Store(tmp_path), []

    def work() -> Contents:
        made.append(1)
        return contents()

    store.save("scores", CONFIG, arrays={"y": np.ones(2)}, meta={"made": {}})
    for form in (
        lambda entry: entry.arrays["x"][0],
        lambda entry: entry.table("heads")["z"][0],
        lambda entry: entry.meta["made"]["seconds"] - 0.5,
    ):
        assert store.made("scores", CONFIG, work, form) == 1.0
    assert made == [1]
    (aside,) = (tmp_path / "damaged").iterdir()
    header = json.loads((aside / "entry.json").read_text())
    assert header["meta"] == {"made": {}}  # nothing is deleted
