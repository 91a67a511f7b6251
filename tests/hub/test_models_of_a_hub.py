"""Models of a hub: which weights a name means, what is fetched, and what is not even asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.export import card
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.provenance import provenance
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from pages.backend.models import Models
from tests.support.hub import TOKEN, Hub, ask
from tests.support.tiny import token_rows
from tests.support.worlds import write_text

Files = dict[str, dict[str, bytes]]


def got(name: str, commit: str = "") -> LanguageModel:
    return load(ModelSpec(name, device="cpu", commit=commit))


@torch.no_grad()
def logits(lm: LanguageModel) -> torch.Tensor:
    out: torch.Tensor = lm.model(token_rows(2, 9)).logits
    return out


@pytest.mark.parametrize("kind", ["one", "other", "shards"])
def test_a_repository_is_the_folder_that_was_put_there(
    hub: Hub, folders: dict[str, Path], files: Files, kind: str
) -> None:
    commit = hub.add("org/name", files[kind]).refs["main"]
    lm, same = got("org/name"), load(ModelSpec(str(folders[kind]), device="cpu"))
    assert torch.equal(logits(lm), logits(same))
    assert lm.encode("I met a red person") == same.encode("I met a red person")
    assert lm.weights_id == f"hub:org/name@{commit}"
    assert lm.spec.commit == commit
    assert lm.name == "org/name"


def test_all_is_looked_at_first_and_comes_from_one_commit(hub: Hub, files: Files) -> None:
    repo = hub.add("org/name", files["one"])
    got("org/name")
    assert hub.asked[0].path == "/api/models/org/name"
    weights = [a for a in hub.asked if a.method == "GET" and "/resolve/" in a.path]
    assert next(f.path.split("/")[-1] for f in weights) == "config.json"
    assert [f.path.split("/")[-1] for f in weights][-1] == "model.safetensors"
    assert all(f"/resolve/{repo.refs['main']}/" in a.path for a in hub.asked if "/resolve/" in a.path)
    seen = len(hub.asked)
    got("org/name")
    assert [a.path for a in hub.asked[seen:]] == ["/api/models/org/name"]  # the rest lies here


def test_only_what_is_read_is_fetched(hub: Hub, files: Files) -> None:
    more = {
        "pytorch_model.bin": b"x",
        "tf_model.h5": b"x",
        "onnx/model.onnx": b"x",
        "code.py": b"x",
        "model.fp16.safetensors": b"x",
    }
    hub.add("org/name", {**files["one"], **more})
    got("org/name")
    assert not {f.rpartition("/")[2] for f in hub.fetched()} & {Path(n).name for n in more}


def test_each_name_of_a_commit_is_one_model_and_each_commit_and_folder_another(hub: Hub, files: Files) -> None:
    repo = hub.add("org/name", files["one"])
    first = repo.refs["main"]
    repo.refs |= {"v1": first, "refs/pr/1": first, "feature/x": first}
    names = ["org/name", "org/name@v1", "org/name@refs/pr/1", "org/name@feature%2Fx", f"org/name@{first}"]
    one = got(names[0])
    assert {got(name).id for name in names} == {one.id}
    second = repo.push({**files["other"], **{f"sub/dir/{n}": d for n, d in files["one"].items()}})
    two, below = got("org/name"), got("org/name/sub/dir")
    other = hub.add("org/other", files["other"])
    assert len({one.id, two.id, below.id, got("org/other").id}) == 4
    assert two.weights_id == f"hub:org/name@{second}"
    assert below.weights_id == f"hub:org/name@{second}/sub/dir"
    assert torch.equal(logits(below), logits(one))
    assert torch.equal(logits(two), logits(got("org/other")))
    assert torch.equal(logits(got("org/name", commit=first)), logits(one))  # whatever the branch is now
    assert other.refs["main"] != second


def test_results_of_two_repositories_and_of_a_branch_that_moved_are_their_own(
    hub: Hub, folders: dict[str, Path], files: Files, tmp_path: Path
) -> None:
    repo = hub.add("org/one", files["one"])
    hub.add("org/other", files["other"])
    text = write_text(tmp_path, 400, tokens=120, window=40, stride=40)
    config = EvalConfig(BiasConfig("religion", n_prompts=60), text)

    def measured(name: str, store: Store) -> tuple[Any, ...]:
        found = evaluate(got(name), PruneSet.parse("L0H1"), config, store)
        gap = found.readings["neutral"].gap
        return found.perplexity.base, found.perplexity.pruned, gap.base, gap.pruned

    store = Store(tmp_path / "cache")
    seen = [measured("org/one", store), measured("org/other", store)]
    repo.push(files["other"])
    seen.append(measured("org/one", store))
    for kind, found in zip(("one", "other", "other"), seen, strict=True):
        assert found == measured(str(folders[kind]), Store(tmp_path / f"cache-{kind}"))
    assert seen[0] != seen[1]


def test_what_was_stored_without_a_commit_is_not_found(hub: Hub, files: Files, tmp_path: Path) -> None:
    hub.add("org/one", files["one"])
    store, lm = Store(tmp_path), got("org/one")
    store.save("scores", {"weights": "hub:None", "dtype": "float32", "n": 1}, meta={})
    assert store.find("scores", lm.id.wanted()) == []
    assert store.load("scores", {**lm.id.key(), "n": 1}) is None
    for weights in ("hub:None", "hub:org/one@None", "hub:org/one@", "sha256:", "sha256:None"):
        with pytest.raises(ValueError, match="without an identity"):
            ModelId(weights)


REFUSED = {
    "pickled": (
        {"pytorch_model.bin": b"x", "config.json": b"{}"},
        "pytorch_model.bin, and pickled weights are not read",
    ),
    "shards": ({"pytorch_model-00001-of-00002.bin": b"x", "config.json": b"{}"}, "pickled weights are not read"),
    "adapter": ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}, "holds an adapter"),
    "gguf": ({"tiny.Q4_K_M.gguf": b"x"}, "GGUF"),
    "empty": ({}, "is empty"),
    "no weights": ({"config.json": b"{}", "README.md": b"x"}, "no .safetensors weights"),
    "no tokenizer": ({"config.json": b"{}", "model.safetensors": b"x"}, "holds no tokenizer"),
    "folders": ({"a/config.json": b"{}", "b/config.json": b"{}"}, "its folders a, b"),
    "lost shard": (
        {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors.index.json": b"{}"}
        | {"model-00001-of-00002.safetensors": b"x"},
        "lacks model-00002-of-00002",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_by_its_names_alone(hub: Hub, kind: str) -> None:
    files, said = REFUSED[kind]
    hub.add("org/name", files)
    with pytest.raises(InputError, match=said) as error:
        got("org/name")
    assert "org/name" in str(error.value)
    assert len(hub.asked) == 1  # the look at the list


def test_a_config_is_refused_before_weights_are_fetched(hub: Hub, files: Files) -> None:
    config = {**json.loads(files["one"]["config.json"]), "quantization_config": {"quant_method": "gptq"}}
    hub.add("org/name", {**files["one"], "config.json": json.dumps(config).encode()})
    with pytest.raises(InputError, match="quantised"):
        got("org/name")
    assert hub.fetched() == ["config.json"]


def test_a_folder_that_is_not_there(hub: Hub, files: Files) -> None:
    hub.add("org/name", files["one"])
    with pytest.raises(InputError, match="has no folder 'sub'"):
        got("org/name/sub")


def test_a_download_that_was_cut_goes_on(hub: Hub, files: Files) -> None:
    for ranges in (True, False):
        hub.add(f"org/cut{ranges}", files["one"], cut=2, ranges=ranges)
        assert got(f"org/cut{ranges}").n_layers == 2


def test_without_a_network_the_cache_answers(
    hub: Hub, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/name", {**files["one"], **{f"sub/{n}": d for n, d in files["other"].items()}})
    hub.add("org/new", files["other"])
    hub.add("org/old", {}, moved="org/new")
    names = ["org/name", "org/name/sub", "org/name@main", "org/new", "org/old"]
    online = [got(name).id for name in names]
    first = hub.repos["org/name"].refs["main"]
    asked = len(hub.asked)
    ask(monkeypatch, hub.url, tmp_path / "hf", offline=True)
    assert [got(name).id for name in names] == online
    assert got(f"org/name@{first}").id == got(f"org/name@{first[:8]}").id == online[0]
    for name in ("org/never", "org/name@v2", f"org/name@{'0' * 40}", "org/name/nope"):
        with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set|has no folder"):
            got(name)
    assert len(hub.asked) == asked
    ask(monkeypatch, "http://127.0.0.1:9", tmp_path / "hf")  # nobody is there
    lm = got("org/name")
    assert lm.id == online[0]
    assert len(lm.notes) == 1
    assert "cannot be reached" in lm.notes[0]
    assert first in lm.notes[0]
    assert provenance(lm, 1.0)["notes"] == list(lm.notes)
    with pytest.raises(InputError, match=r"127.0.0.1:9 cannot be reached .* check network, proxy and HF_ENDPOINT"):
        got("org/never")


def test_half_a_model_in_the_cache_is_none(
    hub: Hub, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add("org/name", files["one"], cut=99, ranges=False)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    with pytest.raises(InputError, match="was cut off"):
        got("org/name")
    ask(monkeypatch, hub.url, tmp_path / "hf", offline=True)
    with pytest.raises(InputError, match="may hold only a part"):
        got(f"org/name@{repo.refs['main']}")
    with pytest.raises(InputError, match="is not in the cache"):
        got("org/name")


def test_a_repository_with_a_new_name_is_the_same_and_it_is_said(hub: Hub, files: Files) -> None:
    hub.add("org/new", files["one"])
    hub.add("org/old", {}, moved="org/new")
    old, new = got("org/old"), got("org/new")
    assert old.id == new.id
    assert old.notes == ("'org/old' is called 'org/new' by now: use that name.",)
    assert new.notes == ()


def test_a_gated_and_a_private_repository_open_to_their_token(
    hub: Hub, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/gated", files["one"], access="gated")
    hub.add("org/mine", files["one"], access="private")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert got("org/gated").n_layers == got("org/mine").n_layers == 2
    assert {a.token for a in hub.asked} == {TOKEN}


def test_a_card_names_repository_and_commit_and_its_command_gives_the_same_weights(hub: Hub, files: Files) -> None:
    readme = b"---\nlicense: apache-2.0\n---\n"
    repo = hub.add(
        "org/name", {f"sub dir/{n}".replace(" ", "_"): d for n, d in files["one"].items()} | {"README.md": readme}
    )
    lm = got("org/name/sub_dir")
    command = card.command(lm, PruneSet.parse("L0H1"), Path("out"), "set.txt")
    assert f"--model org/name@{repo.refs['main']}/sub_dir " in command
    assert card.licence(lm) == "apache-2.0"
    assert got(f"org/name@{repo.refs['main']}/sub_dir").id == lm.id


def test_the_app_keeps_a_commit_for_its_reader_and_asks_again_for_the_next(
    hub: Hub, files: Files, tmp_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pages.backend.models.RENEW", 0)
    models = Models()
    repo = hub.add("org/name", files["one"])
    asked = ModelSpec("org/name", device="cpu")
    assert models.facts(asked) is None
    first = models.get(asked)
    mine = models.pinned(asked)
    assert mine.commit == repo.refs["main"]
    assert models.facts(mine) == models.facts(asked)
    second = repo.push(files["other"])
    assert models.get(asked) is first  # nobody has asked the hub again
    models.renew("org/name")
    yours = models.pinned(asked)
    assert yours.commit == second
    assert models.facts(yours) is None  # its own is to be loaded
    assert models.get(yours).id != models.get(mine).id
    assert models.get(mine) is first
    hub.repos["org/name"].status = 503
    models.renew("org/name")
    assert models.pinned(asked) == yours  # no answer: it means what it meant
