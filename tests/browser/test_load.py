"""Twenty readers on one server, readers that leave, and half an hour of use. Figures are printed."""

from __future__ import annotations

import os
import random
import statistics
import time
import urllib.parse
from collections.abc import Generator
from pathlib import Path

import pytest

from fasp_core.heads.prune_set import PruneSet
from fasp_core.storage.store import Store
from tests.browser.conftest import Reader, prepared_cache, serving
from tests.browser.crowd import AXIS, Memory, alone

pytestmark = [pytest.mark.browser, pytest.mark.slow]
READERS = 20
PATIENCE = 60 * READERS  # seconds: the last of them waits for all before it, on a busy machine too
MINUTES = float(os.environ.get("FASP_SOAK_MINUTES", "30"))
SMALL = (90, 512)  # prompts and tokens of a quick measurement
LIVE = (210, 1024)
CHANGES = READERS + READERS // 2
PLACES = """() => { window.most = 0; setInterval(() => {
    for (const one of document.querySelectorAll('[data-testid="stProgress"]'))
        window.most = Math.max(window.most, Number(one.textContent.match(/waiting, (\\d+) before this one/)?.[1] ?? 0));
}, 200); }"""  # the longest queue that a reader is told of from now on


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return prepared_cache(tmp_path / "cache")


@pytest.fixture
def server(cache: Path) -> Generator[str]:
    with serving(cache) as url:
        yield url


def address(url: str, heads: str, size: tuple[int, int]) -> str:
    query = {"method": "hand", "axis": AXIS, "prune": heads, "prompts": size[0], "tokens": size[1]}
    return f"{url}/?{urllib.parse.urlencode(query)}"


def heads_of(reader: Reader) -> str:
    """The set in the address."""
    query = urllib.parse.parse_qs(urllib.parse.urlparse(reader.page.url).query)
    return query.get("prune", [""])[0]


def test_twenty_readers_each_get_their_own_numbers(
    server: str, cache: Path, browser: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pairs open the same set; then all change theirs at once, half of them again before they have an answer."""
    draw = random.Random(1)
    sets = [PruneSet.parse(",".join(f"L{draw.randrange(30)}H{draw.randrange(9)}" for _ in range(3))) for _ in range(10)]
    began = time.monotonic()
    with Memory(server) as memory:
        readers = [
            Reader(browser, address(server, sets[i // 2].format(), LIVE), width=1280, height=900)
            for i in range(READERS)
        ]
        opened = [reader.measured(PATIENCE) for reader in readers]
        assert opened[::2] == opened[1::2], "two readers of the same set see the same"
        one_visit = time.monotonic() - began

        wanted = [sets[i // 2].heads for i in range(READERS)]
        for reader in readers:
            reader.page.evaluate(PLACES)
        for again in (False, True):
            for i, reader in enumerate(readers):
                if again and i % 2:
                    continue
                layer, head = next(
                    (a, b)
                    for a, b in ((draw.randrange(30), draw.randrange(9)) for _ in range(99))
                    if (a, b) not in wanted[i]
                )
                reader.click_head(layer, head)
                wanted[i] |= {(layer, head)}
        changed = time.monotonic()
        for reader, heads in zip(readers, wanted, strict=True):
            reader.wait_said(f"By hand: {len(heads)} pruned.")
            assert PruneSet.parse(heads_of(reader)).heads == heads
        shown = [reader.measured(PATIENCE) for reader in readers]
        waited = time.monotonic() - changed
        places = [reader.page.evaluate("() => window.most") for reader in readers]
        errors = [error for reader in readers for error in reader.errors]
    assert not errors, errors
    assert max(places) > 1, "somebody had to wait, and was told for how many"

    right = [alone(PruneSet(frozenset(heads)).format(), *LIVE, tmp_path / "alone") for heads in wanted]
    assert shown == right
    first = [alone(sets[i // 2].format(), *LIVE, tmp_path / "alone") for i in range(READERS)]
    assert opened == first
    runs = [entry for entry in Store(cache).entries("measured") if entry.path.name.startswith("built-in--ppl")]
    assert len(runs) <= 1 + len(sets) + CHANGES, "what two ask for is measured once"
    with capsys.disabled():
        print(
            f"\n{READERS} readers: all measured {one_visit:.0f} s after the first came; {CHANGES} changes, all "
            f"measured {waited:.0f} s after the last; longest queue told {max(places)}; "
            f"{len(runs)} sets measured for {READERS + CHANGES} requests; "
            f"memory {memory.seen[0][1]:,.0f} MiB at first, {max(m for _, m in memory.seen):,.0f} at most; "
            f"all {2 * READERS} pairs of numbers as alone"
        )
    # a model of 0.5 GB in float32, its block inputs, and twenty sessions
    assert max(m for _, m in memory.seen) < 4096


def test_a_closed_browser_frees_its_place(
    server: str, cache: Path, browser: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three large measurements are given up with their tabs, and a small one comes through."""
    warm = Reader(browser, address(server, "L20H0", SMALL))
    warm.measured()
    large = [f"L{i}H0,L{i}H5" for i in range(3)]
    leaving = [Reader(browser, address(server, heads, (900, 4096))) for heads in large]
    leaving[0].page.wait_for_function("() => document.body.innerText.includes('Measuring')")
    for reader in leaving:
        reader.close()
    began = time.monotonic()
    staying = Reader(browser, address(server, "L29H1", SMALL))
    assert staying.measured() == alone("L29H1", *SMALL, tmp_path / "alone")
    waited = time.monotonic() - began
    time.sleep(20)  # as long as one of them could have gone on unseen
    measured = {entry.config.get("heads") for entry in Store(cache).entries("measured")}
    done = [heads for heads in large if heads in measured]
    with capsys.disabled():
        print(f"\nclosed browsers: {len(done)} of 3 large ones done; the small one was there after {waited:.0f} s")
    assert "L29H1" in measured
    assert not set(done) & set(large[1:]), "those that waited behind tabs that were closed were never begun"


def test_half_an_hour_of_use(server: str, browser: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four readers who change sets, look at other pages, leave and come back; memory does not go on growing."""
    draw = random.Random(2)
    pages = ("Compare methods", "Transfer between biases", "Take home", "Check the assumptions")
    readers: list[Reader] = []

    def come() -> Reader:
        heads = ",".join(f"L{draw.randrange(30)}H{draw.randrange(9)}" for _ in range(3))
        return Reader(browser, address(server, heads, SMALL))

    acts = 0
    with Memory(server) as memory:
        readers = [come() for _ in range(4)]
        end = time.monotonic() + 60 * MINUTES
        while time.monotonic() < end:
            i = draw.randrange(len(readers))
            reader = readers[i]
            what = draw.random()
            if what < 0.7:
                reader.click_head(draw.randrange(30), draw.randrange(9))
            elif what < 0.9:
                reader.page.get_by_role("link", name=draw.choice(pages)).click()
                reader.page.wait_for_timeout(2000)
                reader.page.get_by_role("link", name="Explore heads").click()
                reader.wait_heads()
            else:
                assert not reader.errors, reader.errors
                reader.close()
                readers[i] = come()
            acts += 1
            if acts % 25 == 0:
                reader = readers[i]
                reader.measured()
                reader.wait_said("pruned.")
                heads = heads_of(reader)
                assert reader.measured() == alone(heads, *SMALL, tmp_path / "alone"), heads
    curve = [statistics.median(memory.between(i / 6, (i + 1) / 6)) for i in range(6)]
    with capsys.disabled():
        print(
            f"\n{MINUTES:g} minutes, {acts} acts of 4 readers; MiB in each sixth: "
            + ", ".join(f"{mib:,.0f}" for mib in curve)
            + f"; at most {max(m for _, m in memory.seen):,.0f}"
        )
    assert curve[-1] < 1.1 * max(curve[1:3]) + 50, curve
