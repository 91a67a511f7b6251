"""Hostile input to everything that reads: refused in one sentence, soon, without a trace outside the cache."""

from __future__ import annotations

import gc
import json
import os
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
from fasp_core.model import loading
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring import score_files
from fasp_core.storage import store, tabular
from fasp_core.studies.answers import numbers
from fasp_core.studies.contexts import scenarios
from pages.explore import named
from pages.session import recipe
from tests.fuzz import readers
from tests.fuzz.__main__ import many, one, room, sentence, shares
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

FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


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
