"""A hub on this machine and a client that asks it, with a cache of its own; and tiny models to put there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from tests.hub.server import Hub, files_of, serving
from tests.support.tiny import TOKENS, tiny_model, tiny_tokenizer

LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub, asked by this process."""
    with serving() as served:
        ask(monkeypatch, served.url, tmp_path / "hf")
        yield served


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


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models and classifiers as local folders: two of the same shape, one in shards, and two classifiers."""
    root = tmp_path_factory.mktemp("models")
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


@pytest.fixture
def files(folders: dict[str, Path]) -> dict[str, dict[str, bytes]]:
    """The same as files of repositories."""
    return {name: files_of(path) for name, path in folders.items()}
