"""No code of the project runs what it reads: no pickle, no eval, no shell, no code from a model's repository.

The syntax trees of all modules are walked. Whatever stands in `ALLOWED` says why it is no such thing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("fasp_core", "fasp_studio", "pages", "benchmarks")
FILES = ["app.py", *sorted(p.relative_to(ROOT).as_posix() for place in PLACES for p in (ROOT / place).rglob("*.py"))]

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "yaml", "xml", "code", "ctypes"}
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
METHODS = {
    "os.system", "os.popen", "os.execv", "os.execvp", "os.spawnv", "torch.load", "yaml.load", "yaml.unsafe_load",
    "pd.read_pickle", "pandas.read_pickle", "importlib.import_module", "runpy.run_path", "runpy.run_module",
    "subprocess.getoutput", "subprocess.getstatusoutput", "tarfile.open", "zipfile.ZipFile", "shutil.unpack_archive",
}  # fmt: skip
RAW = {"st.html", "st.iframe", "components.html", "components.declare_component", "Markup", "markupsafe.Markup"}
NOT = {"shell", "trust_remote_code", "allow_pickle", "unsafe_allow_html", "unsafe_allow_javascript"}  # but False

ALLOWED = {
    ("benchmarks/__main__.py", "importlib.import_module"): "the benchmarks that the file lists",
    ("pages/take_home/checkpoint.py", "zipfile.ZipFile"): "writes an archive; none is unpacked",
    ("pages/shell/around.py", "st.html"): "a fixed style sheet",
    ("pages/explore/explore.py", "st.html"): "a fixed style sheet",
    ("pages/explore/texts.py", "st.html"): "made by figures.texts, which escapes every text",
    ("pages/explore/writes.py", "st.html"): "the same",
    (
        "pages/presentation/presentation.py",
        "st.html",
    ): "a fixed style sheet; markup of its own that escapes all",
    ("pages/shell/tour.py", "st.html"): "a fixed script that sets the cookie of the tour",
    ("pages/shell/tour.py", "unsafe_allow_javascript"): "the same fixed script",
    ("fasp_core/report/page.py", "Markup"): "Plotly's own script, fixed scripts, charts of escaped JSON",
}


def name_of(node: ast.expr) -> str:
    """`a.b.c` as it is written; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = name_of(node.value)
        return f"{inner or '?'}.{node.attr}"
    return ""


@cache
def tree_of(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text("utf-8"))


def dangers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What a module does that may run what it reads, or put it on a page as it is, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.split(".")[0] in MODULES:
                    yield name.split(".")[0], node.lineno
        if not isinstance(node, ast.Call):
            continue
        called = name_of(node.func)
        if called in CALLS or called in METHODS:
            if called == "torch.load" and any(
                k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
                for k in node.keywords
            ):
                continue
            yield called, node.lineno
        if called in RAW:
            yield called, node.lineno
        for keyword in node.keywords:
            constant = keyword.value.value if isinstance(keyword.value, ast.Constant) else "?"
            if keyword.arg in NOT and constant is not False:
                yield keyword.arg, node.lineno
            if keyword.arg in ("use_safetensors", "autoescape") and constant is not True:
                yield keyword.arg, node.lineno


@pytest.mark.parametrize("file", FILES)
def test_no_module_runs_what_it_reads(file: str) -> None:
    found = dangers(tree_of(file))
    assert [f"{file}:{line} {what}" for what, line in found if (file, what) not in ALLOWED] == []


def test_every_exception_is_needed() -> None:
    found = {(file, what) for file in FILES for what, _ in dangers(tree_of(file))}
    assert set(ALLOWED) <= found


def test_models_are_loaded_without_code_and_without_pickles() -> None:
    """Every call of a loader that could run a repository's code says that it must not."""
    seen = 0
    for file in FILES:
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.Call) and name_of(node.func).endswith((".from_pretrained", ".from_config")):
                said = {k.arg for k in node.keywords}
                spread = [k.value for k in node.keywords if k.arg is None]
                loader = name_of(node.func).split(".")[0]
                if loader.startswith("Auto") and not spread:
                    assert "trust_remote_code" in said, f"{file}:{node.lineno}"
                    seen += 1
    assert seen >= 4


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "import os\nos.system('x')",
        "subprocess.run('x', shell=True)",
        "subprocess.run('x', shell=flag)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "AutoModel.from_pretrained(p, use_safetensors=False)",
        "np.load(p, allow_pickle=True)",
        "st.markdown(x, unsafe_allow_html=True)",
        "st.html(x)",
        "yaml.load(x)",
        "jinja2.Environment(autoescape=False)",
    ],
)
def test_the_walk_sees(source: str) -> None:
    assert list(dangers(ast.parse(source)))


def test_the_walk_passes_what_is_safe() -> None:
    safe = "torch.load(p, weights_only=True)\nsubprocess.run(['x'])\nf(trust_remote_code=False, use_safetensors=True)\n"
    assert list(dangers(ast.parse(safe + "import json\nst.markdown(x)\nnp.load(p)"))) == []
