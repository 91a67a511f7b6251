"""A hub on this machine: what the hub's client asks of one, for repositories made by tests; it counts every request.

And what is put there: tiny models and classifiers as folders.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
import torch
import transformers

from tests.support.tiny import TOKENS, tiny_model, tiny_tokenizer

TOKEN = "hf_" + "secret" * 5  # the one that opens what is gated or private
LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")


class Asked(NamedTuple):
    """A request: its method, its path without the query, and the token that came with it."""

    method: str
    path: str
    token: str


@dataclass
class Repo:
    """A repository and how it behaves.

    Attributes
    ----------
    commits : files by name, by commit.
    refs : commits by the names of branches, tags and refs/pr/1.
    access : "gated" (a token opens it), "denied" (gated, and not on the list), "private" or "disabled".
    status : answered to everything, where it is not 0, with `headers`.
    cut : how many downloads of weights end in the middle.
    ranges : whether a download can go on where it was.
    moved : the name that it has now.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    access: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    ranges: bool = True
    moved: str = ""

    def push(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        """A new commit on a branch; its name."""
        what = [(name, hashlib.sha1(data).hexdigest()) for name, data in sorted(files.items())]
        commit = hashlib.sha1(json.dumps([len(self.commits), what]).encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.refs[ref] = commit
        return commit


class Hub:
    """The repositories of a running server, and what it was asked."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[Asked] = []
        self.url = ""

    def add(self, name: str, files: Mapping[str, bytes] | None = None, **how: Any) -> Repo:
        """A repository with a first commit."""
        repo = self.repos[name] = Repo(**how)
        repo.push(files or {})
        return repo

    def fetched(self, name: str = "") -> list[str]:
        """Names of the files that were downloaded from a repository, in their order."""
        paths = [a.path for a in self.asked if a.method == "GET" and "/resolve/" in a.path]
        return [p.split("/resolve/")[1].split("/", 1)[1] for p in paths if p.startswith(f"/{name}")]


def files_of(folder: Path, under: str = "") -> dict[str, bytes]:
    """The files of a folder, as a repository has them."""
    return {f"{under}{p.relative_to(folder).as_posix()}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub for the time of the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def ask(monkeypatch: pytest.MonkeyPatch, url: str, home: Path, offline: bool = False) -> None:
    """Let the client of this process ask another hub, and keep what it gets in another place."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    close_session()


def model_folders(root: Path) -> dict[str, Path]:
    """Models and classifiers as local folders: two of the same shape, one in shards, and two classifiers."""
    for name, seed, options in (("one", 0, {}), ("other", 7, {}), ("shards", 0, {"max_shard_size": "20KB"})):
        model = tiny_model("llama", seed)
        model.config.max_position_embeddings = 1024  # of rotary embeddings as many as one likes: for windows of the app
        model.save_pretrained(root / name, **options)
        tiny_tokenizer().save_pretrained(root / name)
    for name, problem in (("scorer", "multi_label_classification"), ("unsaid", None)):
        config = transformers.BertConfig(
            vocab_size=len(TOKENS),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=32,
            id2label=dict(enumerate(LABELS)),
            label2id={label: i for i, label in enumerate(LABELS)},
            problem_type=problem,
            pad_token_id=1,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            model = transformers.BertForSequenceClassification(config)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.copy_(0.5 * torch.randn(parameter.shape))
        model.save_pretrained(root / name)
        tiny_tokenizer().save_pretrained(root / name)
    return {path.name: path for path in root.iterdir()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer()

    def _send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _fail(self, status: int, code: str, message: str) -> None:
        self._send(status, json.dumps({"error": message}).encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def _answer(self) -> None:
        path, token = self.path.split("?")[0], (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.hub.asked.append(Asked(self.command, path, token))
        about = re.fullmatch(r"/api/models/([^/]+(?:/[^/]+)?)/revision/(.+)|/api/models/([^/]+/[^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = (about[1] or about[3]) if about else file[1] if file else ""
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._fail(401 if name else 404, "RepoNotFound" if name else "", "Invalid username or password.")
        if repo.status:
            return self._send(repo.status, b"{}", repo.headers)
        if repo.moved:
            return self._send(307, b"", {"Location": self.path.replace(name, repo.moved)})
        if self._refused(repo, name, token):
            return None
        revision = unquote((about[2] or "main") if about else file[2] if file else "")
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            return self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if about:
            names = [{"rfilename": n} for n in sorted(repo.commits[commit])]
            return self._send(200, json.dumps({"id": name, "sha": commit, "siblings": names}).encode())
        assert file is not None
        return self._file(repo, commit, unquote(file[3]))

    def _refused(self, repo: Repo, name: str, token: str) -> bool:
        if repo.access == "gated" and token != TOKEN:
            self._fail(401, "GatedRepo", f"Access to model {name} is restricted. Please log in.")
        elif repo.access == "denied":
            self._fail(403, "GatedRepo", f"Access to model {name} is restricted and you are not in the list.")
        elif repo.access == "private" and token != TOKEN:
            self._fail(401, "RepoNotFound", "Invalid username or password.")
        elif repo.access == "disabled":
            self._fail(403, "", "Access to this resource is disabled.")
        elif token and token != TOKEN:
            self._fail(401, "", "Invalid credentials in Authorization header")
        else:
            return False
        return True

    def _file(self, repo: Repo, commit: str, name: str) -> None:
        data = repo.commits[commit].get(name)
        if data is None:
            return self._fail(404, "EntryNotFound", "Entry not found")
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") if repo.ranges else None
        part = data[int(wanted[1]) :] if wanted else data
        if wanted:
            headers["Content-Range"] = f"bytes {wanted[1]}-{len(data) - 1}/{len(data)}"
        if self.command == "GET" and name.endswith(".safetensors") and repo.cut > 0:
            repo.cut -= 1
            self.send_response(206 if wanted else 200)
            for key, value in {**headers, "Content-Length": str(len(part))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.close_connection = True
            return None
        return self._send(206 if wanted else 200, part, headers)
