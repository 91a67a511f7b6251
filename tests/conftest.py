"""What every test shares: no network, a cache of its own, a browser if there is one, and the outside data."""

from __future__ import annotations

import os

# transformers, huggingface_hub and torch read these when they are imported
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
# Threads of one operation wait for one another, and for long where a browser or another program has the processors.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from benchmarks._browser import find

hypothesis.settings.register_profile("untimed", hypothesis.settings(), deadline=None)  # a busy machine is late at times
hypothesis.settings.load_profile("untimed")
BROWSER_REQUIRED = os.environ.get("FASP_REQUIRE_BROWSER") == "1"
INSTALL_BROWSER = "brew install --cask chromium" if sys.platform == "darwin" else "sudo apt-get install chromium"
NO_BROWSER = f"no Chromium: install with '{INSTALL_BROWSER}'"


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium for `playwright`'s `executable_path`; the test is skipped where there is none."""
    return find() or pytest.skip(NO_BROWSER)


@pytest.fixture(autouse=True, scope="session")
def quick_disk() -> Generator[None]:
    """Stores do not wait for the platters, but for those of the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def tmp_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder that the test has to itself."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("FASP_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of reference data that lies beside the checkout and is not part of it."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} does not exist")
    return folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile` all browser tests go to one process, at first: they share a server, and wait a lot."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class BrowserFirst(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "browser" if nodeid.startswith("tests/browser/") else super()._split_scope(nodeid)

        def _assign_work_unit(self, node: Any) -> None:
            if "browser" in self.workqueue:
                self.workqueue.move_to_end("browser", last=False)
            super()._assign_work_unit(node)

    return BrowserFirst(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and not find():
        pytest.skip(NO_BROWSER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if BROWSER_REQUIRED and skipped and item.get_closest_marker("browser"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped although FASP_REQUIRE_BROWSER=1: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if any(NO_BROWSER in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(f"The browser tests were skipped. To run them, install Chromium: {INSTALL_BROWSER}")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where nothing may be skipped, a run in which no test ran is no success."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of pytest-xdist
        return
    ran = any(reporter.stats.get(kind) for kind in ("passed", "failed", "xfailed"))
    if BROWSER_REQUIRED and exitstatus == pytest.ExitCode.OK and not ran:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
