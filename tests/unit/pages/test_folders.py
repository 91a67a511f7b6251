"""Which paths a browser may name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fasp_core.errors import InputError
from fasp_core.model.spec import ModelSpec
from pages.backend import folders
from pages.backend.engine import engine
from pages.released import shown

OUTSIDE = ["/etc", "/etc/passwd", "/proc/self/environ", "/", "//etc/passwd", "/etc/../etc", "/dev/zero"]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder that is allowed, beside others."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret.json").write_text("{}")
    monkeypatch.delenv("FASP_DEMO", raising=False)
    monkeypatch.setenv(folders.VARIABLE, str(tmp_path / "in"))
    return tmp_path / "in"


@pytest.mark.parametrize("path", OUTSIDE)
def test_by_default_the_system_is_out_of_reach(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(folders.VARIABLE, raising=False)
    monkeypatch.delenv("FASP_DEMO", raising=False)
    with pytest.raises(InputError, match="outside the folders"):
        folders.check(path)
    with pytest.raises(InputError, match="outside the folders"):
        engine().models.runner(ModelSpec(path))
    for own in (Path.home() / "model", Path.cwd() / "x.gguf", "~/model", "model"):
        folders.check(own)


def test_links_and_dots_lead_nowhere(inside: Path) -> None:
    (inside / "link").symlink_to(inside.parent / "out")
    (inside / "link.json").symlink_to(inside.parent / "out" / "secret.json")
    (inside / "loop").symlink_to(inside / "loop")
    folders.check(inside / "a" / ".." / "b")
    for path in ("../out/secret.json", "link/secret.json", "link.json", "a/../../out", "link"):
        with pytest.raises(InputError, match="outside the folders"):
            folders.check(inside / path)
        with pytest.raises(InputError, match="outside the folders"):
            engine().models.runner(ModelSpec(str(inside / path)))
    with pytest.raises(InputError, match="outside the folders"):
        folders.check(str(inside) + "-beside")


@pytest.mark.parametrize("path", ["a\0b", "~no-such-user/x", "\ud800", ""])
def test_what_cannot_be_a_path_is_none(path: str, inside: Path) -> None:
    with pytest.raises(InputError, match="outside the folders"):
        folders.check(path)


def test_relative_names_are_paths_where_such_a_folder_is(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id may be the name of a folder below the one in which the app was started."""
    monkeypatch.chdir(inside.parent)
    folders.check_model(ModelSpec("gpt2"))  # no such folder: a hub id
    folders.check_model(ModelSpec("in"))
    for source in ("out", "./gpt2", "../gpt2", "~/gpt2", "x.gguf", "org/x.gguf"):
        with pytest.raises(InputError, match="outside the folders"):
            folders.check_model(ModelSpec(source))


def test_none_allows_none_and_the_built_in_model_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(folders.VARIABLE, "none")
    folders.check_model(ModelSpec())
    for path in (Path.home(), Path.cwd(), *OUTSIDE):
        with pytest.raises(InputError, match="outside the folders"):
            folders.check(path)


def test_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(folders.VARIABLE, os.pathsep.join(["~/models", str(tmp_path), " "]))
    folders.check("~/models/x")
    folders.check(tmp_path)
    with pytest.raises(InputError, match="outside"):
        folders.check("~/other")


def test_a_demo_opens_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASP_DEMO", "1")
    with pytest.raises(InputError, match="read-only"):
        folders.check(tmp_path)
    with pytest.raises(InputError, match="other models only"):
        engine().models.runner(ModelSpec(str(tmp_path)))


def test_files_of_scores_by_their_path(inside: Path) -> None:
    with pytest.raises(InputError, match="outside the folders"):
        shown._from_path(inside.parent / "out" / "secret.json")
    with pytest.raises(InputError, match="There is no file"):
        shown._from_path(inside / "none.json")
