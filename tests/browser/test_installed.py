"""A wheel, installed into an environment of its own, serves the app from any folder, with scores."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import cache_root
from tests.browser.conftest import ROOT, Reader, serving

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_wheel_serves_the_app(browser: object, tmp_path: Path) -> None:
    load(ModelSpec())  # converted once, in the normal cache
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FASP_", "PYTHONPATH"))}

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, env=environment, cwd=tmp_path, capture_output=True)

    run("git", "clone", "-q", "--no-hardlinks", ROOT, "source")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "wheels", "./source")
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    run(sys.executable, "-m", "venv", "venv")
    run(tmp_path / "venv" / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", wheel)
    purelib = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    (purelib / "outer.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # the dependencies, to save time

    elsewhere, kept = tmp_path / "elsewhere", tmp_path / "home" / ".cache" / "fasp-studio"
    elsewhere.mkdir()
    kept.mkdir(parents=True)
    (kept / "models").symlink_to(cache_root() / "models")
    command = [tmp_path / "venv" / "bin" / "fasp-studio", "--port"]
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": ""}
    with serving(tmp_path, {**environment, **home}, command, elsewhere) as url:
        reader = Reader(browser, url)
        reader.wait_heads()
        assert "→" in reader.measured()[0]
        assert reader.page.evaluate("() => getComputedStyle(document.body).fontFamily").startswith("system-ui")
        assert not reader.errors, reader.errors
    assert list(elsewhere.iterdir()) == []
    assert (kept / "measured").is_dir()
