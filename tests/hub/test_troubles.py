"""What is said where a hub does not give what is asked of it: one sentence, soon, and never a token."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fasp_core.data import text
from fasp_core.errors import InputError
from fasp_core.model import hub as hubs
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from tests.support.hub import Hub, ask

SECRET = "hf_" + "another" * 4


def said(name: str) -> str:
    """The sentence, which comes within some seconds."""
    began = time.monotonic()
    with pytest.raises(InputError) as error:
        load(ModelSpec(name, device="cpu"))
    assert time.monotonic() - began < 20
    message = str(error.value)
    assert message.endswith((".", ")"))
    assert "Traceback" not in message
    assert SECRET not in message
    return message


LOGIN = r"'hf auth login'.*HF_TOKEN"
TROUBLES: list[tuple[str, dict[str, Any], str, str]] = [
    ("gated", {"access": "gated"}, "", rf"is gated: accept its terms .* at URL/org/name, then .*{LOGIN}"),
    (
        "not on the list",
        {"access": "denied"},
        SECRET,
        r"account of the token in use has no access \(403\): .*URL/org/name",
    ),
    ("private", {"access": "private"}, "", rf"or it is private: check the name; if it is private, .*{LOGIN}"),
    ("private, others' token", {"access": "private"}, SECRET, "of an account that may read it"),
    ("disabled", {"access": "disabled"}, "", "was disabled"),
    ("wrong token", {}, SECRET, rf"token for URL is not accepted \(401\): .*{LOGIN}"),
    ("asked too often", {"status": 429, "headers": {"Retry-After": "3600"}}, "", r"\(429\): try again in 3600 seconds"),
    ("asked too often, no time", {"status": 429}, "", r"\(429\): try again later"),
    ("fault", {"status": 503}, "", r"fault of its own \(503\): try again later"),
    ("no hub", {"status": 404}, "", r"no repository on URL.*check the name"),
    ("forbidden", {"status": 403}, "", r"may not be read with the token in use \(403\)"),
]


@pytest.mark.parametrize(("access", "token", "wanted"), [t[1:] for t in TROUBLES], ids=[t[0] for t in TROUBLES])
def test_a_sentence_says_what_to_do(
    hub: Hub,
    files: dict[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    access: dict[str, Any],
    token: str,
    wanted: str,
) -> None:
    hub.add("org/name", files["one"], **access)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    import re

    assert re.search(wanted.replace("URL", re.escape(hub.url)), said("org/name"))
    assert hub.fetched() == []


def test_what_is_not_there(hub: Hub, files: dict[str, dict[str, bytes]]) -> None:
    hub.add("org/name", files["one"])
    assert "'org/nobody' is no folder here and no repository" in said("org/nobody")
    assert "has no revision 'v2'" in said("org/name@v2")


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ({"access": "gated"}, "is gated: accept its terms"),
        ({"access": "denied"}, "has no access"),
        ({"status": 429, "headers": {"Retry-After": "3600"}}, "in 3600 seconds"),
        ({"status": 503}, "fault of its own"),
    ],
)
def test_files_may_be_refused_where_the_list_was_not(
    hub: Hub, files: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], wanted: str
) -> None:
    """As the public hub does: it tells everybody about a gated model, and gives its files to some."""
    repo = hub.add("org/name", files["one"])
    resolve = hubs.resolve

    def then(ref: hubs.HubRef) -> hubs.Resolved:
        found = resolve(ref)
        for name, value in how.items():
            setattr(repo, name, value)
        return found

    monkeypatch.setattr(hubs, "resolve", then)
    assert wanted in said("org/name")


def test_who_does_not_answer_is_given_up(
    files: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ask(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        assert "does not answer" in said("org/name")
    ask(monkeypatch, "http://no-such-host.invalid", tmp_path)
    assert "cannot be reached" in said("org/name")


def test_an_address_with_a_password_is_told_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, f"http://me:{SECRET}@127.0.0.1:9", tmp_path)
    assert "http://127.0.0.1:9" in said("org/name")


@pytest.mark.parametrize("letter", ["\n", "é", "\0"])
def test_a_token_with_odd_letters_is_not_shown(
    hub: Hub, files: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letter: str
) -> None:
    hub.add("org/name", files["one"])
    (tmp_path / "hf").mkdir(exist_ok=True)
    (tmp_path / "hf" / "token").write_text(f"{SECRET[:9]}{letter}{SECRET[9:]}")
    assert SECRET[9:] not in said("org/name")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk(
    hub: Hub, files: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    hub.add("org/name", files["one"])

    def full(*_: object, **__: object) -> None:
        raise OSError(number, "the reason")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    found = said("org/name")
    assert "cannot be written to the hub's cache" in found
    assert "HF_HOME" in found


def test_an_answer_of_another_kind(
    hub: Hub, files: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page to log in to a network, where an answer of the hub should be."""
    hub.add("org/name", files["one"], status=200, headers={"Content-Type": "text/html"})
    said("org/name")


@pytest.mark.parametrize("prepare", [lambda m, t: ask(m, "http://127.0.0.1:9", t), lambda m, t: ask(m, "x", t, True)])
def test_a_text_of_the_hub_has_the_same_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[..., None]
) -> None:
    prepare(monkeypatch, tmp_path)
    text._wikitext.cache_clear()
    with pytest.raises(InputError, match=r"use 'bold' or a local text file.*cannot be reached"):
        text.load_text("wikitext-2")
