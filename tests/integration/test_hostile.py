"""Hostile input to everything that reads: refused in one sentence, soon, without a trace outside the cache."""

from __future__ import annotations

import gc
import json
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasp_core import released
from fasp_core.data import prompts, text
from fasp_core.errors import LONGEST, InputError
from fasp_core.heads import prune_files
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model import loading, model_files
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring import score_files
from fasp_core.storage import catalog, keys, store, tabular
from fasp_core.storage.store import HEADER, DamagedEntry, Store
from fasp_core.studies.contexts import numbers, scenarios
from pages.explore import named
from pages.session import recipe
from tests.fuzz import readers
from tests.fuzz.__main__ import Hang, many, one, room, sentence, shares
from tests.fuzz.guided import CANARY, grow
from tests.fuzz.guided import READERS as GUIDED
from tests.fuzz.readers import READERS, SCENARIOS, Reader

ROOT = Path(__file__).resolve().parents[2]
INPUTS = 100_000  # of the slow run, at least
QUICK = 100  # of a cheap reader
RELEASED = "Group,Bias,Model,Head id,Seed,Split,PPL\n"


# --- many inputs, made from valid ones ---


@pytest.mark.parametrize("name", READERS)
def test_every_reader_stands_hostile_input(name: str) -> None:
    count = max(5, QUICK * READERS[name].weight // 100)
    assert many(name, count)["found"] == {}


@pytest.mark.slow
def test_a_hundred_thousand_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, whose memory is bounded; the figures are those of docs/security.md."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--inputs", str(INPUTS)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=3500,
    )
    assert done.stdout, done.stderr[-2000:]
    told = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n{told['inputs']:,} hostile inputs in {told['seconds']:,.0f} s, {told['megabytes']} MB more memory")
        for name, found in told["readers"].items():
            print(f"  {name}: {found['inputs']:,} in {found['seconds']} s, the slowest {found['slowest']} s")
    assert {name: one["found"] for name, one in told["readers"].items() if one["found"]} == {}
    assert told["inputs"] >= INPUTS
    assert told["megabytes"] < 1500
    assert done.returncode == 0


@pytest.mark.slow
def test_inputs_that_grow_by_the_branches_they_reach(capsys: pytest.CaptureFixture[str]) -> None:
    """The figures are those of docs/security.md."""
    pytest.importorskip("atheris")
    told = {name: grow(name, 20_000, 0) for name in GUIDED}
    with capsys.disabled():
        print(f"\n{sum(one['inputs'] for one in told.values()):,} inputs, kept where they reach a new branch")
        for name, one_told in told.items():
            first, last = one_told["branches"]
            print(f"  {name}: branches {first} -> {last}, {one_told['kept']} kept, {one_told['seconds']} s")
    assert {name: one["found"] for name, one in told.items() if one["found"]} == {}


@pytest.mark.slow  # the oracle of the test above
def test_a_fault_behind_branches_is_found() -> None:
    pytest.importorskip("atheris")
    told = grow(CANARY, 50_000, 0)
    assert told["branches"][1] > told["branches"][0]
    (wrong,) = told["found"]
    assert wrong.startswith("KeyError at canary.py")
    assert bytes.fromhex(told["found"][wrong])[:3] == b"fuz"
    with pytest.raises(RuntimeError, match="KeyError"):
        grow("no such reader", 10, 0)


def test_shares_add_up() -> None:
    assert INPUTS <= sum(shares(INPUTS).values()) < INPUTS + len(READERS)


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda _: _raise(KeyError("x")), "KeyError at "),
        (lambda _: _raise(InputError("no mend")), "no sentence"),
        (lambda _: [None for _ in iter(int, 1)], "longer than"),
        (lambda given: Path(given, "..", "..", "out").open("w").close(), "written outside: open "),
        (lambda given: os.mkdir(Path(given).parent.parent / "made"), "written outside: os.mkdir "),
        (lambda _: subprocess.run(["true"], check=True), "written outside: subprocess.Popen "),
        (lambda _: os.system("true"), "written outside: os.system "),
        (lambda given: Path(given, "in").write_text("x"), ""),
        (lambda _: _raise(InputError("It is wrong: mend it.")), ""),
    ],
)
def test_what_the_watch_sees(read: Any, told: str, tmp_path: Path) -> None:
    """The oracle of the tests above: it must see what they say is not there."""
    inside = tmp_path / "outer" / "inner"
    inside.mkdir(parents=True)
    found = one(Reader(lambda *_: "", read), str(inside), inside, limit=0.2)
    assert found.startswith(told)
    assert bool(found) == bool(told)


def test_inputs_repeat() -> None:
    with room() as folder:
        for name in ("links", "prompts (CSV)", "set files"):
            first, again = (READERS[name].make(Random("7"), folder) for _ in range(2))
            assert first == again
            assert first != READERS[name].make(Random("8"), folder)


# --- by structure: whatever JSON, TOML, a table or a link can say ---

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(readers.mutate.TEXTS)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def in_one_sentence(work: Any) -> None:
    assert one(Reader(lambda *_: "", lambda _: work()), "", Path.cwd()) == ""


@FEW
@given(st.dictionaries(st.text(max_size=20), st.dictionaries(st.text(max_size=20), st.lists(LEAVES) | TREES)) | TREES)
def test_any_json_as_released_scores(tree: Any) -> None:
    in_one_sentence(lambda: released.read_bytes(json.dumps(tree).encode(), "scores.json"))


@FEW
@given(st.lists(st.fixed_dictionaries({name: TREES for name in ("name", "model", "parts", "chosen")}), max_size=4))
def test_any_json_as_saved_sets(rows: Any) -> None:
    in_one_sentence(lambda: named.from_json(json.dumps({"prune sets": rows}).encode(), {}))


@FEW
@given(st.lists(st.lists(st.text(alphabet=st.characters(), max_size=12), max_size=4), max_size=8))
def test_any_table_as_prompts(rows: list[list[str]]) -> None:
    lines = ["text,group", *(",".join(f'"{cell}"' for cell in row) for row in rows)]
    in_one_sentence(lambda: prompts.from_csv("\n".join(lines), "own"))


@FEW
@given(
    st.fixed_dictionaries(
        {}, optional={name: st.text() | st.sampled_from(readers.mutate.TEXTS) for name in recipe.NAMES}
    )
)
def test_any_link(query: dict[str, str]) -> None:
    found, left_out = recipe.read(query)
    assert len(found) + len(left_out) == len(query)
    assert all("\n" not in part and "\r" not in part for part in left_out)


# --- what was found, one by one ---


@pytest.mark.parametrize(
    "message", ["half \ud800 a letter.", "two\nlines\r\n.", "a\0b\x1b[31m.", "x" * 10_000 + ": mend it.", "plain."]
)
def test_messages_can_be_shown(message: str) -> None:
    said = str(InputError(message))
    assert said.isprintable()
    assert len(said) <= LONGEST + 2
    assert said.endswith(message[-1])
    said.encode()


def test_a_model_that_writes_digits_for_ever_is_read_at_once() -> None:
    """The pattern went back over every digit for each of them: 800 digits took 12 s, 1600 twice as often as that."""
    assert one(Reader(lambda *_: "", lambda t: numbers.parse(t, "hours")), "9" * 100_000, Path.cwd(), 2.0) == ""
    assert numbers.parse("5-10k", "dollars") == 7500.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("scenarios = [", "x = " + "9" * 5000 + "\nscenarios = ["), "is no valid TOML"),
        (("scenarios = [", "x = " + "[" * 2000 + "\nscenarios = ["), "is no valid TOML"),
        (('unit = "dollars"', 'unit = ["dollars"]'), "choose dollars"),
        (('unit = "dollars"', "unit = {a = 1}"), "choose dollars"),
        (('unit = "dollars"', "unit = 0x" + "f" * 9000), "choose dollars"),
        (('opening = "', "#" + "x" * scenarios.MAX_BYTES + '\nopening = "'), "at most 256 KB"),
    ],
)
def test_scenarios_that_raised(change: tuple[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        scenarios.parse(SCENARIOS.replace(*change), "own.toml")
    assert sentence(str(error.value)) == ""


def test_scenarios_with_half_a_character() -> None:
    with pytest.raises(InputError, match="surrogates not allowed"):
        scenarios.parse(SCENARIOS.replace("What", "What\udc49", 1), "own.toml")


def test_a_title_of_ten_thousand_digits_is_none() -> None:
    """In hexadecimal it is read, and no text can be made of it."""
    found = scenarios.parse(SCENARIOS.replace('title = "Purchases"', "title = 0x" + "f" * 9000), "own.toml")
    assert found.contexts == {"purchases": "purchases"}


def test_names_by_the_ten_thousand_take_no_minutes() -> None:
    """Each name was counted in the whole list."""
    names = json.dumps([f"n{i:x}" for i in range(20_000)])
    with pytest.raises(InputError, match="names 20,002 people"):
        scenarios.parse(SCENARIOS.replace('["Jamal", "Lakisha"]', names), "own.toml")


def test_a_file_of_scenarios_without_an_end() -> None:
    with pytest.raises(InputError, match="at most 256 KB"):
        scenarios.read("/dev/zero")


@pytest.mark.parametrize("name", ["x" * 5000, "~no-such-user/x", "~/a\0b", "a\0b", "\ud800", "", "/"])
def test_texts_of_no_name(name: str) -> None:
    with pytest.raises(InputError, match="There is no text"):
        text.load_text(name)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~/a\0b", "\ud800"])
def test_score_folders_and_models_of_no_name(name: str) -> None:
    with pytest.raises(InputError):
        score_files.open_scores(Path(name), "fasp")
    with pytest.raises(InputError):
        loading.load(ModelSpec(name, device="cpu"))


def test_a_cache_of_an_unknown_user_is_a_folder_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASP_CACHE", "~no-such-user/cache")
    assert store.cache_root() == Path("~no-such-user/cache").absolute()


@pytest.mark.parametrize("about", [10**400, -(10**400)])
def test_figures_beyond_any_number_in_a_score_folder(about: int, tmp_path: Path) -> None:
    pd.DataFrame(readers.SCORES).to_csv(tmp_path / "scores.csv", index=False)
    told = {
        "axis": ["age"],
        "gap": {"neutral": {"noise_p": about}},
        "reliability": {"neutral": {"prunable": {"halves": about}}},
    }
    (tmp_path / "scores.json").write_text(json.dumps(told))
    opened = score_files.open_scores(tmp_path, "fasp", axis="age")
    assert opened.axis == "age"
    assert opened.notes == ()


def test_a_small_parquet_file_of_many_numbers(tmp_path: Path) -> None:
    """Two equal columns of 15 million rows take some ten kilobytes each."""
    import pyarrow as pa
    from pyarrow import parquet

    column = pa.chunked_array([pa.array([0] * 100_000, pa.int8())] * 150)
    parquet.write_table(pa.table({"layer": column, "head": column}), tmp_path / "scores.parquet", compression="zstd")
    assert (tmp_path / "scores.parquet").stat().st_size < 200_000
    with pytest.raises(InputError, match="30,000,000 cells"):
        score_files.open_scores(tmp_path, "fasp")


@pytest.mark.parametrize(
    "row",
    [
        lambda i: f"age,1,own,100000,{i},valid,1",  # a seed of its own each
        lambda i: f"age,1,own{i},100000,1,valid,1",  # a model
        lambda i: f"age{i},1,own,100000,1,valid,1",  # an axis
        lambda i: f"age,1,own{i},1,1,valid,1",  # a model of one head
    ],
)
def test_short_rows_that_ask_for_gigabytes(row: Any) -> None:
    """Each row of a new seed, model or axis made an array of all heads: 5 MB asked for hundreds of gigabytes."""
    raw = (RELEASED + "\n".join(map(row, range(3000)))).encode()
    assert len(raw) < 140_000
    gc.collect()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more models, axes and seeds than any file"):
            released.read_bytes(raw, "a.csv")
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_columns_that_come_twice() -> None:
    """The later one was taken, without a word."""
    raw = RELEASED.replace("PPL", "PPL,Bias") + "age,1,own,1,1,valid,5,2\n"
    with pytest.raises(InputError, match="the column 'Bias' more than once"):
        released.read_bytes(raw.encode(), "a.csv")


@pytest.mark.parametrize("name", ["\ud800", "x" * 300, "a\nb"])
def test_names_that_no_page_can_show(name: str) -> None:
    with pytest.raises(InputError, match="names of at most 200 letters"):
        released.read_bytes(json.dumps({name: {"cont_to_ppl": [1.0]}}).encode(), "a.json")
    raw = f'{RELEASED}age,1,"{name}\0",1,1,valid,5\n'.encode("utf-8", "replace")
    with pytest.raises(InputError, match="'Model' holds no name"):
        released.read_bytes(raw, "a.csv")
    one_set = {"name": "a", "model": name, "parts": "L0H1", "chosen": name}
    with pytest.raises(InputError, match="A set in this file"):
        named.from_json(json.dumps({"prune sets": [one_set]}).encode(), {})


def test_numbers_of_thousands_of_digits_are_not_read() -> None:
    raw = '{"own": {"cont_to_ppl": [' + "9" * 4000 + "]}}"
    with pytest.raises(InputError, match="a number of 4,000 digits"):
        released.read_bytes(raw.encode(), "a.json")


def test_saved_sets_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty sets of a million neurons each were kept side by side."""
    monkeypatch.setattr(named, "MAX_PARTS", 1000)
    rows = [{"name": f"s{i}", "model": "m", "parts": f"L{i}N0-399", "chosen": ""} for i in range(3)]
    with pytest.raises(InputError, match="more than 1,000 parts"):
        named.from_json(json.dumps({"prune sets": rows}).encode(), {})
    with pytest.raises(InputError, match="not a file of prune sets"):
        named.from_json(b'{"prune sets": ' + b"[" * 100_000, {})


def test_saved_sets_may_begin_with_a_byte_order_mark() -> None:
    raw = b"\xef\xbb\xbf" + json.dumps(readers.NAMED).encode()
    assert len(named.from_json(raw, {})) == 4


@pytest.mark.parametrize("lines", ["a,b\n" * 2_001, "a,b" + "," * tabular.MAX_COLUMNS + "\n"], ids=["rows", "columns"])
def test_prompts_have_a_bound(lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MAX_PROMPTS", 2_000)
    with pytest.raises(InputError, match="2,000 rows or 1,000 columns"):
        prompts.from_csv("text,group\n" + lines, "own")


def test_lines_of_ten_megabytes() -> None:
    long = "x" * 10_000_000
    with pytest.raises(InputError, match="is larger than 10,000,000 bytes"):
        prompts.from_csv(f"text,group\n{long},a", "own")
    with pytest.raises(InputError, match="not valid CSV"):
        released.read_bytes(f"{RELEASED}{long}".encode(), "a.csv")
    with pytest.raises(InputError, match="is not a head"):
        PruneSet.parse(long)
    with pytest.raises(InputError, match="larger than 1 MB"):
        prune_files.read(long.encode(), "a.txt")
    found, left_out = recipe.read({"prune": long})
    assert not found
    assert len(left_out[0]) < 60


def test_a_link_cannot_leave_the_line_on_which_it_is_told() -> None:
    """A blank line ends Markdown's code, and what followed it was a picture from anywhere."""
    _, (told,) = recipe.read({"gamma": "a\n\n![x](http://a.example/b.png)"})
    assert "\n" not in told


# --- the store: a header that was changed under a seal that fits ---


def sealed(folder: Path, **changes: Any) -> Path:
    made = Store(folder).save("scores", {"a": 1}, tables={"t": pd.DataFrame({"x": [1]})}, meta={"provenance": {}})
    header = json.loads((made.path / HEADER).read_bytes()) | changes
    header.pop("sha256")
    header["sha256"] = store.sha256(keys.canonical(header))
    (made.path / HEADER).write_text(json.dumps(header))
    return made.path


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300, "..", "", "../../secret", "t.pickle", "entry.json"])
def test_entries_that_name_files_as_no_one_writes_them(name: str, tmp_path: Path) -> None:
    sealed(tmp_path, files={name: {"sha256": "0", "bytes": 1}})
    assert Store(tmp_path).entries("scores") == []
    assert Store(tmp_path).load("scores", {"a": 1}) is None


def test_entries_nested_deeper_than_a_digest_goes(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(480):
        deep = [deep]
    sealed(tmp_path, config={"a": deep})
    assert Store(tmp_path).entries("scores") == []


@pytest.mark.parametrize("meta", [[], {"provenance": "none"}, {"provenance": {"seconds": 10**400}}, {"provenance": []}])
def test_results_of_strange_provenance_are_listed(meta: Any, tmp_path: Path) -> None:
    sealed(tmp_path, meta=meta)
    (found,) = catalog.kept(Store(tmp_path))
    assert found.seconds is None
    assert found.model == ""


@pytest.mark.parametrize(("name", "ask"), [("t.parquet", lambda e: e.table("t")), (store.ARRAYS, lambda e: e.arrays)])
def test_files_that_fit_their_seal_and_are_no_tables(name: str, ask: Any, tmp_path: Path) -> None:
    path = sealed(tmp_path, files={name: {"sha256": store.sha256(b"junk"), "bytes": 4}})
    (path / name).write_bytes(b"junk")
    (entry,) = Store(tmp_path).entries("scores")
    with pytest.raises(DamagedEntry):
        ask(entry)


def test_a_part_nested_beyond_reading_is_removed(tmp_path: Path) -> None:
    parts = Store(tmp_path).parts("scores", {"a": 1})
    parts.save("one", {"a": pd.Series([1.0]).to_numpy()})
    assert parts.load("one") is not None
    raw = b"[" * 100_000
    (parts.folder / "one.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    assert parts.load("one") is None
    assert parts.names() == set()


# --- models ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, raw in readers._saved().items():
        (tmp_path / name).write_bytes(raw)
    return tmp_path


def load(path: Path) -> str:
    """The sentence with which a model is refused; "" if it is loaded."""
    try:
        loading.load(ModelSpec(str(path), device="cpu"))
    except InputError as error:
        return str(error) if sentence(str(error)) == "" else f"no sentence: {error}"
    return ""


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_hidden_layers": 10**9}, "names layers that its weights do not have"),
        ({"num_hidden_layers": "2"}, "names layers that its weights do not have"),
        ({"num_hidden_layers": -1}, "names layers that its weights do not have"),
        ({"model_type": "gpt_neo", "attention_types": [[["global"], 10**9]]}, "names layers that its weights"),
        ({"intermediate_size": 2**40}, "its weights hold"),
        ({"vocab_size": 10**10}, "its weights hold"),
        ({"attn_implementation": "somebody/kernel"}, "attention by code from elsewhere"),
        ({"_attn_implementation": "somebody/kernel"}, "attention by code from elsewhere"),
    ],
)
def test_configs_that_ask_for_more_than_there_is(settings: dict[str, Any], told: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | settings))
    assert told in load(folder)


def test_a_folder_whose_index_names_files_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / model_files.INDEX).write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    assert "names files outside its folder" in load(folder)


def test_weights_that_are_no_files(folder: Path) -> None:
    os.mkfifo(folder / "z.safetensors")  # reading it would never end
    assert "is no file" in load(folder)
    (folder / "z.safetensors").unlink()
    (folder / "z.safetensors").mkdir()
    assert "is no file" in load(folder)


@pytest.mark.parametrize("shape", [[2**40], [-1], ["a"], [2**30, 2**30], None, [0.5]])
def test_headers_of_more_numbers_than_bytes(shape: Any, folder: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    assert "is no whole safetensors file" in load(folder)


def test_code_beside_a_model_is_not_run(folder: Path) -> None:
    """`auto_map` names a module of the folder; transformers would import it where remote code is trusted."""
    (folder / "own.py").write_text(
        f"open({str(folder / 'ran')!r}, 'w').close()\nclass Config: pass\nclass Model: pass\n"
    )
    config = json.loads((folder / "config.json").read_bytes())
    own = {"auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config | own))
    load(folder)
    assert not (folder / "ran").exists()


def gguf(folder: Path, find: bytes, change: bytes) -> Path:
    raw = readers._gguf()
    at = raw.index(find) + len(find)
    (folder / "a.gguf").write_bytes(raw[:at] + change + raw[at + len(change) :])
    return folder / "a.gguf"


def test_a_gguf_array_that_goes_on_behind_the_file(tmp_cache: Path, tmp_path: Path) -> None:
    """The reader found nothing there, took it for a number of no bytes, and went on for 2^60 of them."""
    path = gguf(tmp_path, b"tokenizer.ggml.token_type", struct.pack("<IIQ", 9, 0, 2**60))
    assert "goes on behind its end" in load(path)


def test_a_gguf_file_of_a_billion_layers(tmp_cache: Path, tmp_path: Path) -> None:
    assert "names layers" in load(gguf(tmp_path, b"llama.block_count", struct.pack("<II", 4, 10**9)))


def test_a_gguf_file_that_does_not_say_its_layers(tmp_cache: Path, tmp_path: Path) -> None:
    raw = readers._gguf().replace(b"llama.block_count", b"llama.block_cound")
    (tmp_path / "a.gguf").write_bytes(raw)
    assert "how many layers" in load(tmp_path / "a.gguf")


def test_the_untouched_ones_are_taken(folder: Path, tmp_cache: Path) -> None:
    """So that the tests above can fail."""
    assert load(folder) == ""
    (folder / "a.gguf").write_bytes(readers._gguf())
    assert load(folder / "a.gguf") == ""


def test_a_hang_is_not_caught_by_readers() -> None:
    assert not issubclass(Hang, Exception)
