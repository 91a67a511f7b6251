"""What the documents name is there."""

from __future__ import annotations

import ast
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "cache").glob("*.md")])
TOPS = ("fasp_core", "pages")  # below which rooms lie


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_of_code_that_a_document_names_exist(document: Path) -> None:
    tops = ("app.py", "fasp_core", "fasp_studio", "pages", "tests", "benchmarks")
    code = [f"/{path.relative_to(ROOT)}" for top in tops for path in [ROOT / top, *(ROOT / top).rglob("*.py")]]
    named = re.findall(r"`([\w/.]+\.py)`", document.read_text(encoding="utf-8"))
    missing = [name for name in named if not any(path.endswith(f"/{name}") for path in code)]
    assert not missing


def test_packages_and_their_names_that_the_concepts_name_exist() -> None:
    """Such as `gap/` and `gap.gap_stats`."""
    text = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    packages = set(re.findall(r"`([\w/]+)/`", text))
    assert packages
    assert not {p for p in packages if not any((ROOT / top / p / "__init__.py").is_file() for top in TOPS)}
    names = {name for name in re.findall(r"`([a-z_]\w*(?:\.\w+)+)`", text) if not name.endswith(".py")}
    assert names
    for name in names:
        pkgutil.resolve_name(f"fasp_core.{name}")


def test_the_picture_at_the_head_of_readme_moves_and_is_small() -> None:
    """It is made by `python -m benchmarks._moving`."""
    (name,) = re.findall(
        r"!\[[^]]+\]\((docs/pictures/[\w.-]+\.gif)\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    assert (ROOT / name).stat().st_size < 2_000_000
    with Image.open(ROOT / name) as picture:
        assert picture.n_frames > 40
        assert picture.info["loop"] == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_examples_in_python_name_what_is_there(document: Path) -> None:
    """Each name that a block of code imports, and each attribute of a module that it uses."""
    for block in re.findall(r"```python\n(.*?)```", document.read_text("utf-8"), re.S):
        tree, known = ast.parse(block), dict[str, Any]()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fasp_core"):
                for name in node.names:
                    known[name.asname or name.name] = pkgutil.resolve_name(f"{node.module}.{name.name}")
            elif isinstance(node, ast.Import):
                mine = [name for name in node.names if name.name.startswith("fasp_core")]
                known |= {name.asname or name.name: import_module(name.name) for name in mine}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
                assert hasattr(known[node.value.id], node.attr), f"{node.value.id}.{node.attr}"
