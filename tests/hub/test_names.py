"""How models of a hub are named: references, and what is told from a folder."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.model import hub
from fasp_core.model.hub import HubRef, ref_of
from fasp_core.model.spec import ModelSpec
from pages.backend import demo, folders
from pages.session import recipe

WORD = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
PART = st.text(string.ascii_letters + string.digits + "-_.+=,@é", min_size=1, max_size=9).filter(
    lambda s: s not in (".", "..")
)
REVISION = st.one_of(
    PART, st.builds("/".join, st.lists(PART, min_size=2, max_size=4)), st.builds("refs/pr/{}".format, st.integers(1))
)


@given(WORD, WORD, st.one_of(st.just(""), REVISION), st.lists(PART, max_size=3))
def test_a_reference_is_read_as_it_is_written(org: str, name: str, revision: str, folder: list[str]) -> None:
    ref = HubRef(f"{org}/{name}", revision, "/".join(folder))
    if not revision and "@" in str(ref):
        return  # a folder with an @ is named with a revision
    assert HubRef.parse(str(ref)) == ref


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("gpt2", ("gpt2", "", "")),
        ("org/name", ("org/name", "", "")),
        ("org/name@step1000", ("org/name", "step1000", "")),
        ("org/name/checkpoint-500", ("org/name", "", "checkpoint-500")),
        ("org/name@v1.0/sub/folder", ("org/name", "v1.0", "sub/folder")),
        ("org/name@refs/pr/3", ("org/name", "refs/pr/3", "")),
        ("org/name@refs/pr/3/sub", ("org/name", "refs/pr/3", "sub")),
        ("org/name@feature%2Fx", ("org/name", "feature/x", "")),
        ("gpt2@main/onnx", ("gpt2", "main", "onnx")),
    ],
)
def test_examples(text: str, parts: tuple[str, str, str]) -> None:
    assert HubRef.parse(text) == HubRef(*parts)
    assert str(HubRef.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "@main",
        "org/name@",
        "org/name@main/",
        "a b/c",
        "org/name@../x",
        "org/name/../x",
        "org/name//x",
        "org/name@x/..",
        "org--x/name",
        "org/name@a b",
        "org/na\x00me",
        "/etc/passwd",
        "org/name@x\ny",
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InputError):
        HubRef.parse(text)


@pytest.mark.parametrize(
    "text", ["https://huggingface.co/org/name", "hf://org/name", "https://hf.co/org/name/tree/main"]
)
def test_an_address_is_told_how_to_name_it(text: str) -> None:
    with pytest.raises(InputError, match="'org/name'"):
        ref_of(text)


def test_a_folder_comes_before_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name" / "here").mkdir(parents=True)
    assert ref_of("org/name") is None
    assert ref_of("org/name/here") is None
    assert ref_of("org/name@main") == HubRef("org/name", "main")  # this is how the repository is named
    with pytest.raises(InputError, match="org/name@main/there"):
        ref_of("org/name/there")
    assert ref_of("org/other") == HubRef("org/other")


def test_ids_of_weights_lead_back() -> None:
    ref = HubRef("org/name", "a" * 40, "sub")
    assert hub.named_by(f"hub:{ref}") == ref
    assert hub.named_by("sha256:00") is None
    assert hub.pinned("org/name@main", f"hub:{ref}") == str(ref)
    assert hub.pinned("./folder", "sha256:00") == "./folder"


@pytest.mark.parametrize("name", ["org/name@step1000", "org/name/checkpoint-500", "org/name@refs/pr/1/sub"])
def test_names_in_links_demos_and_beside_the_folders_that_a_page_may_open(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe.Recipe(model=name, scorer=name, scorer_reading="sigmoid")
    assert recipe.read(made.query()) == ({"model": name, "scorer": name, "scorer_reading": "sigmoid"}, [])
    monkeypatch.setenv("FASP_FOLDERS", "none")
    folders.check_model(ModelSpec(name))  # no path
    monkeypatch.setenv("FASP_DEMO", "1")
    monkeypatch.setenv("FASP_DEMO_MODELS", f"built-in,{name}")
    demo.check_model(ModelSpec(name))
    demo.check_model(ModelSpec(name, commit="a" * 40))
    demo.check_model(ModelSpec(name, stamp="0" * 16))
    with pytest.raises(InputError):
        demo.check_model(ModelSpec("org/name"))
    found: dict[str, object] = {"scorer": name, "model": name}
    assert demo.left_out(found) == [f"scorer={name}"]


def test_a_folder_that_is_spelled_like_a_repository_stays_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASP_FOLDERS", "none")
    for name in ("org/name", "org/name/sub", "./org/name", "~/x"):
        with pytest.raises(InputError, match="FASP_FOLDERS"):
            folders.check_model(ModelSpec(name))
