"""Commands of the command line, run in this process, and the prompts that they are tried on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from fasp_core.cli.main import main

Ran = tuple[int, str, str]  # exit status, stdout, stderr
Run = Callable[..., Ran]
PEOPLE = ("person", "man", "woman", "child", "friend", "team")
ENDS = ("kind", "nice", "good", "bad", "ugly", "short", "tall", "young", "old", "blue")


def runner(capsys: pytest.CaptureFixture[str], *first: object, last: Iterable[object] = ()) -> Run:
    """What runs a command of these words, with others between `first` and `last`."""

    def run(*args: object) -> Ran:
        capsys.readouterr()
        status = main([str(a) for a in (*first, *args, *last)])
        return status, *capsys.readouterr()

    return run


def refused(ran: Ran, *words: str) -> None:
    """Status 2, an empty stdout and one line on stderr which holds these words."""
    status, out, err = ran
    assert (status, out) == (2, ""), err
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1
    assert err.endswith(".\n")
    for word in words:
        assert word in err


def write_sentences(
    path: Path,
    starts: Iterable[str] = ("The", "My"),
    groups: Iterable[str] = ("red", "green", "old"),
    people: Iterable[str] = PEOPLE,
    ends: Iterable[str] = ENDS,
) -> list[str]:
    """Prompts such as "My red friend was nice.", group by group; the rows that were written."""
    rows = [
        f"{start} {group} {who} {verb} {end}.,{group}"
        for start in starts
        for group in groups
        for who in people
        for verb in ("is", "was")
        for end in ends
    ]
    path.write_text("\n".join(["text,group", *rows]) + "\n")
    return rows


ROOT = Path(__file__).resolve().parents[2]


def outside(*args: object, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(command(*args), capture_output=True, text=True, env=env(cache), cwd=ROOT)


def command(*args: object) -> list[str]:
    """The words by which a command is started."""
    return [sys.executable, "-m", "fasp_core", *map(str, args)]


def env(cache: Path) -> dict[str, str]:
    """The environment of a command with a cache of its own."""
    return {**os.environ, "FASP_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
