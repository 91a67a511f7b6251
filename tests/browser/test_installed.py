"""A wheel, installed into an environment of its own, serves the app from any folder, with scores."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

import pytest

from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import cache_root
from tests.browser.conftest import ROOT, Reader

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_wheel_serves_the_app(browser: object, tmp_path: Path) -> None:
    load(ModelSpec())  # converted once, in the normal cache
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FASP_", "PYTHONPATH"))}
    run = {"check": True, "env": environment, "cwd": tmp_path, "capture_output": True}
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(source)], **run)  # type: ignore[call-overload]
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        "wheels",
        str(source),
    ]
    subprocess.run(build, **run)  # type: ignore[call-overload]
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "venv"], **run)  # type: ignore[call-overload]
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)], **run)  # type: ignore[call-overload]
    purelib = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    (purelib / "outer.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # the dependencies, to save time

    elsewhere, home = tmp_path / "elsewhere", tmp_path / "home"
    elsewhere.mkdir()
    (home / ".cache" / "fasp-studio").mkdir(parents=True)
    (home / ".cache" / "fasp-studio" / "models").symlink_to(cache_root() / "models")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [tmp_path / "venv" / "bin" / "fasp-studio", "--port", str(port)],
        cwd=elsewhere,
        env={**environment, "HOME": str(home), "XDG_CACHE_HOME": ""},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        for _ in range(240):
            try:
                assert urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=1).read() == b"ok"
                break
            except OSError:
                time.sleep(0.25)
        else:
            raise AssertionError((tmp_path / "log").read_text())
        reader = Reader(browser, f"http://localhost:{port}")
        reader.wait_points(270)
        assert "→" in reader.measured()[0]
        assert reader.page.evaluate("() => getComputedStyle(document.body).fontFamily").startswith("system-ui")
        assert not reader.errors, reader.errors
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert list(elsewhere.iterdir()) == []
    assert (home / ".cache" / "fasp-studio" / "measured").is_dir()
