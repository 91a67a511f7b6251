"""Heads whose place is taken by constants, against models that were changed by hand, on every architecture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from fasp_core.data.text import TextConfig, token_windows
from fasp_core.errors import InputError
from fasp_core.export import checking
from fasp_core.export.checking import Speed
from fasp_core.export.writing import export
from fasp_core.forward.ablation import gated, masked
from fasp_core.forward.sweep import sweep_heads
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import calibration
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.perplexity import measure_nll, token_nll
from fasp_core.model.architectures import columns
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from tests.support.tiny import KINDS, tiny_lm, tiny_text, token_rows
from tests.support.worlds import write_model

LAYERS = 2
SETS = ("L0H1", "L0H0-3,L1H2", "L0H1*0.4,L1H0,L1H3*1.3")
NO_PLACE = ("gptj", "mistral", "qwen2", "phi3")


@pytest.fixture(autouse=True)
def short_text(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    path = tmp_path_factory.mktemp("text") / "calibration.txt"
    path.write_text(tiny_text(100, seed=5))
    text = TextConfig(str(path), 100, window=40, stride=40)
    monkeypatch.setattr(calibration, "TEXT", text)
    return text


def with_means(lm: LanguageModel, folder: Path, how: str = "mean") -> LanguageModel:
    return calibration.ready(replace(lm, spec=replace(lm.spec, ablation=how)), Store(folder))


@torch.no_grad()
def logits(model: Any, ids: Tensor) -> Tensor:
    out: Tensor = model(ids).logits
    return out


@contextmanager
def by_hand(lm: LanguageModel, parts: PruneSet, constants: np.ndarray) -> Iterator[None]:
    """What projections give, corrected at their output: W_h (c - x_h) (1 - g) is added for each head."""

    def correct(module: nn.Module, args: Any, out: Tensor, layer: int) -> Tensor:
        weight, d = columns(module), lm.head_dim
        for head, gate in enumerate(parts.gates(lm.n_layers, lm.n_heads)[layer].tolist()):
            part = slice(head * d, (head + 1) * d)
            missing = torch.tensor(constants[layer, head]) - args[0][..., part]
            out = out + (1 - gate) * (missing @ weight[:, part].T)
        return out

    with ExitStack() as stack:
        for layer in range(lm.n_layers):
            stack.callback(lm.out_proj(layer).register_forward_hook(partial(correct, layer=layer)).remove)
        yield


def means_by_hand(lm: LanguageModel, text: TextConfig) -> np.ndarray:
    seen: list[list[Tensor]] = [[] for _ in range(lm.n_layers)]
    with ExitStack() as stack, torch.no_grad():
        for layer in range(lm.n_layers):
            hook = partial(lambda layer, _module, args: seen[layer].append(args[0][:, 1:].reshape(-1)), layer)
            stack.callback(lm.out_proj(layer).register_forward_pre_hook(hook).remove)
        for ids, _ in token_windows(lm, text).batches:
            for row in ids:
                lm.model(row[None])
    return np.stack([torch.cat(x).view(-1, lm.n_heads, lm.head_dim).double().mean(0).numpy() for x in seen])


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_becomes_its_mean_output(kind: str, short_text: TextConfig, tmp_path: Path) -> None:
    plain = tiny_lm(kind, n_layers=LAYERS)
    lm = with_means(plain, tmp_path)
    means = means_by_hand(plain, short_text)
    assert lm.constants is not None
    np.testing.assert_allclose(lm.constants.numpy(), means, atol=1e-5)
    ids = token_rows(2, 11)
    for text in SETS:
        parts = PruneSet.parse(text)
        with by_hand(plain, parts, means.astype(np.float32)):
            expected = logits(plain.model, ids)
        with masked(lm, parts):
            found = logits(lm.model, ids)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        with masked(plain, parts):
            assert (found - logits(plain.model, ids)).abs().max() > 1e-2  # it is not zero that took its place


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_drawn_output_is_that_of_one_token_for_all_heads(kind: str, short_text: TextConfig, tmp_path: Path) -> None:
    plain = tiny_lm(kind, n_layers=LAYERS)
    lm, again, other = (with_means(plain, tmp_path / how[-1], how) for how in ("resample", "resample-0", "resample-1"))
    assert lm.constants is not None
    assert again.constants is not None
    assert other.constants is not None
    assert torch.equal(lm.constants, again.constants)
    assert not torch.equal(lm.constants, other.constants)
    seen: list[Tensor] = []
    hook = plain.out_proj(1).register_forward_pre_hook(lambda _module, args: seen.append(args[0][0, 1:]))
    for ids, _ in token_windows(plain, short_text).batches:
        for row in ids:
            logits(plain.model, row[None])
    hook.remove()
    rows = torch.cat(seen).view(-1, plain.n_heads, plain.head_dim)
    assert any(torch.equal(row, lm.constants[1]) for row in rows)


@pytest.mark.parametrize("together", [1, 4])
def test_sweeps_and_kept_passes_take_heads_out_in_the_same_way(together: int, tmp_path: Path) -> None:
    lm, ids = with_means(tiny_lm("llama", n_layers=LAYERS), tmp_path), token_rows(2, 9)

    def read(batch: Any, hidden: Tensor) -> np.ndarray:
        return token_nll(lm, hidden, batch).numpy()

    for flat, (found,) in sweep_heads(lm, [ids], read, together=together):
        with masked(lm, PruneSet() if flat < 0 else PruneSet.from_flat([flat], lm.n_heads)):
            expected = -torch.log_softmax(logits(lm.model, ids), -1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    runner, windows = CachedRunner(lm), token_windows(lm, calibration.TEXT)
    for text in ("L1H0", "L0H1,L1H0", "", "L1H0,L1H2*0.5"):
        with masked(lm, PruneSet.parse(text)):
            expected_nll = measure_nll(lm, windows)
        np.testing.assert_allclose(runner.nll(windows, PruneSet.parse(text)).sums, expected_nll.sums, rtol=1e-6)


def test_gradients_of_gates_are_differences(tmp_path: Path) -> None:
    lm, ids = with_means(tiny_lm("llama", n_layers=LAYERS), tmp_path), token_rows(1, 7)

    def loss(gates: Tensor) -> Tensor:
        with gated(lm, gates):
            found: Tensor = lm.model(ids).logits.double().logsumexp(-1).sum()
        return found

    gates = torch.full((LAYERS, lm.n_heads), 0.7, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(gates), gates)
    for at in ((0, 1), (1, 3)):
        step = torch.zeros_like(gates)
        step[at] = 1e-2
        with torch.no_grad():
            slope = (loss(gates + step) - loss(gates - step)) / 2e-2
        assert float(gradient[at]) == pytest.approx(float(slope), rel=2e-2, abs=2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_holds_the_means(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "speed", lambda *_: Speed(1.0, 1.0, 1.0, 1.0, 1, 1, 1, "cpu", "float32", 1))
    spec = ModelSpec(str(write_model(tmp_path / "model", kind, n_layers=LAYERS)), device="cpu", ablation="mean")
    lm = calibration.ready(load(spec), Store(tmp_path / "store"))
    if kind in NO_PLACE:
        with pytest.raises(InputError, match="has no bias at the output of attention"):
            export(lm, PruneSet.parse("L0H1"), tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    ids = token_rows(2, 11)
    for i, text in enumerate(("L0H0-1,L1H2-3", "L0H1*0.4,L0N3,L1H0,L1H3*1.3")):
        parts = PruneSet.parse(text)
        done = export(lm, parts, tmp_path / f"out-{i}")
        assert done.check.difference <= 1e-4
        assert "--ablation mean" in done.command
        assert "mean outputs of these heads" in (done.folder / "README.md").read_text()
        model = AutoModelForCausalLM.from_pretrained(str(done.folder)).eval()
        with masked(lm, parts):
            torch.testing.assert_close(logits(model, ids), logits(lm.model, ids), atol=1e-4, rtol=1e-4)
    plain = export(lm, PruneSet(), tmp_path / "whole")  # no head is taken out: nothing has to be folded
    assert plain.after.parameters == plain.before.parameters


def test_what_cannot_be_exported_so_is_said(tmp_path: Path) -> None:
    drawn = with_means(tiny_lm("llama"), tmp_path, "resample-3")
    with pytest.raises(InputError, match="are for scores and measurements"):
        export(drawn, PruneSet.parse("L0H1"), tmp_path / "out")
    unknown = replace(drawn, constants=None)
    with pytest.raises(InputError, match="not known in this process"), masked(unknown, PruneSet.parse("L0H1")):
        pass


def test_only_what_takes_heads_out_has_another_name() -> None:
    spec = ModelSpec("tiny-llama")
    plain = tiny_lm("llama")
    lm = replace(plain, spec=replace(spec, ablation="mean"))
    assert plain.id.key() == lm.id.whole.key()
    assert "ablation" not in plain.id.key()
    assert lm.id.key() == {**plain.id.key(), "ablation": "mean"}
    for wrong in ("", "median", "resample-", "mean-2"):
        with pytest.raises(InputError, match="Heads cannot be taken out by"):
            ModelSpec(ablation=wrong)
