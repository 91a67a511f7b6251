"""Interactions of two heads against models in which they are known: one formula, and one layer worked out in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from scipy.special import expit

from fasp_core.data.text import token_windows
from fasp_core.gap import PromptRows
from fasp_core.metrics.meters import BiasConfig, meter
from fasp_core.model.loading import wrap
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.exact import bias_impacts, ppl_impacts
from fasp_core.storage.store import Store
from fasp_core.studies.additivity import additivity
from fasp_core.studies.additivity.additivity import Plan
from fasp_core.studies.additivity.interactions import NATS, PROMPTWISE, SUMMED, MeasuredSets, analyse
from tests.support.tiny import VOCAB, tiny_tokenizer
from tests.support.worlds import use_scorer, write_axis, write_text

WIDTH, HEADS = 8, 2
GATES = {(): (1, 1), (0,): (0, 1), (1,): (1, 0), (0, 1): (0, 0)}


@pytest.mark.parametrize(("w1", "w2"), [(1.0, 0.5), (2.0, 2.0), (1.0, -0.4)])
def test_a_model_of_one_formula(w1: float, w2: float) -> None:
    """Toxicity is a logistic function of u plus what each head says of group b, so the gap is a difference of two."""
    u, n = -1.0, 20

    def gap(g1: float, g2: float) -> float:
        return float(abs(expit(u + w1 * g1 + w2 * g2) - expit(u)))

    codes = np.tile([0, 1], n)
    rows = {heads: np.where(codes == 1, expit(u + w1 * g[0] + w2 * g[1]), expit(u)) for heads, g in GATES.items()}
    counts = np.full(4, 64.0)
    nats = {
        heads: counts * (3 + 0.1 * (1 - g[0]) + 0.3 * (1 - g[1]) + 0.05 * (g == (0, 0))) for heads, g in GATES.items()
    }
    found = MeasuredSets(
        axis="axis",
        model="formula",
        n_heads=2,
        readings=("neutral",),
        kinds=("strong pair", "FASP"),
        sets=((0, 1), (0, 1)),
        heads=(0, 1),
        base=PromptRows(rows[()][None], codes, ("a", "b"), np.repeat(np.arange(n), 2)),
        single=np.stack([rows[0,], rows[1,]])[:, None],
        toxicity=np.stack([rows[0, 1]] * 2)[:, None],
        counts=counts,
        base_nats=nats[()],
        single_nats=np.stack([nats[0,], nats[1,]]),
        nats=np.stack([nats[0, 1]] * 2),
        provenance={},
    )
    result = analyse(found)
    toxicity, perplexity = result.quantities["neutral"], result.quantities[NATS]
    assert toxicity.base == pytest.approx(gap(1, 1))
    (pair,) = toxicity.pairs
    assert pair.alone == pytest.approx((gap(0, 1) - gap(1, 1), gap(1, 0) - gap(1, 1)))
    assert pair.measured.value == pytest.approx(-gap(1, 1))
    assert pair.interaction.value == pytest.approx(gap(1, 1) - gap(0, 1) - gap(1, 0))
    assert pair.interaction.low == pytest.approx(pair.interaction.high)  # no noise, no interval
    (point,) = toxicity.sets
    added = expit(u + w2) + expit(u + w1) - expit(u + w1 + w2)  # of group b, prompt by prompt
    assert point.predicted[PROMPTWISE].value == pytest.approx(abs(added - expit(u)) - gap(1, 1))
    assert point.predicted[SUMMED].value == pytest.approx(gap(0, 1) + gap(1, 0) - 2 * gap(1, 1))
    assert perplexity.pairs[0].interaction.value == pytest.approx(0.05)


# --- one layer of two heads ---


class Scorer:
    name = "made-up"

    def score(self, texts: Any) -> np.ndarray:
        return np.array([0.9 if set(t.split()) & {"bad", "stupid", "hate"} else 0.1 for t in texts])


def two_heads() -> Any:
    """GPT-2 of one layer and two heads whose MLP adds nothing."""
    config = transformers.GPT2Config(
        n_embd=WIDTH, n_head=HEADS, n_layer=1, vocab_size=VOCAB, n_positions=64, eos_token_id=1, bos_token_id=None
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            offset = 1.0 if name.endswith(("ln_1.weight", "ln_f.weight")) else 0.0
            parameter.copy_(offset + 0.4 * torch.randn(parameter.shape, generator=noise))
        model.transformer.h[0].mlp.c_proj.weight.zero_()
        model.transformer.h[0].mlp.c_proj.bias.zero_()
    return model


class Worked:
    """The same model in NumPy: log-probabilities are softmax(W norm(x + g_1 o_1 + g_2 o_2 + b)), the gates g given."""

    def __init__(self, model: Any) -> None:
        self.w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}

    def log_p(self, ids: np.ndarray, gates: tuple[int, int]) -> np.ndarray:
        """[T, V]"""
        w, t = self.w, len(ids)
        x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][:t]
        a = self.norm(x, "h.0.ln_1")
        qkv = a @ w["transformer.h.0.attn.c_attn.weight"] + w["transformer.h.0.attn.c_attn.bias"]
        q, k, v = np.split(qkv, 3, axis=1)
        out = x + w["transformer.h.0.attn.c_proj.bias"]
        for head, gate in enumerate(gates):
            at = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            weights = q[:, at] @ k[:, at].T / np.sqrt(WIDTH / HEADS)
            weights = np.where(np.tril(np.ones((t, t))) > 0, weights, -np.inf)
            weights = np.exp(weights - weights.max(1, keepdims=True))
            weights /= weights.sum(1, keepdims=True)
            out = out + gate * (weights @ v[:, at]) @ w["transformer.h.0.attn.c_proj.weight"][at]
        logits = self.norm(out, "ln_f") @ w["transformer.wte.weight"].T
        return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)))

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centered = x - x.mean(1, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(1, keepdims=True) + 1e-5)
        return np.asarray(scaled * self.w[f"transformer.{name}.weight"] + self.w[f"transformer.{name}.bias"])


def test_two_heads_worked_out_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_scorer(monkeypatch, Scorer())
    lm = wrap(two_heads(), tiny_tokenizer(), ModelSpec("two heads", device="cpu"), "two-heads")
    nouns, verbs = ("man", "dog", "child", "team", "tree"), ("met", "saw")
    axis = write_axis(tmp_path / "own.csv", nouns, verbs, groups=("blue", "tall"))
    text = write_text(tmp_path, 150, tokens=120, window=40, stride=40)
    plan = Plan(axis, 720, 120, text, sizes=(1, 2), nested=1)
    store, config = Store(tmp_path / "store"), BiasConfig(axis)
    ppl_impacts(lm, text, store)
    bias_impacts(lm, config, store)
    result = additivity.run(lm, plan, store)

    worked, gauge = Worked(lm.model), meter(lm, config, store)
    windows = token_windows(lm, text)
    groups = np.array(config.prompts().groups)
    worth = gauge.worth.values.double().numpy()  # type: ignore[union-attr]

    def nats(gates: tuple[int, int]) -> float:
        rows = [row for ids, _ in windows.batches for row in ids.numpy()]
        each = [-worked.log_p(row, gates)[np.arange(len(row) - 1), row[1:]] for row in rows]
        return float(np.concatenate(each).mean())

    def gap(gates: tuple[int, int], reading: int) -> float:
        rows = gauge.rows  # type: ignore[union-attr]
        p = np.exp([worked.log_p(np.array(ids), gates)[-1] for ids in rows])
        toxicity = p @ worth[:, reading]
        return float(sum(abs(toxicity.mean() - toxicity[groups == g].mean()) for g in set(groups)))

    for name in (NATS, "neutral", "counted"):
        reading = ("neutral", "counted").index(name) if name != NATS else 0
        value = {heads: nats(g) if name == NATS else gap(g, reading) for heads, g in GATES.items()}
        quantity = result.quantities[name]
        interaction = value[0, 1] - value[0,] - value[1,] + value[()]
        assert quantity.base == pytest.approx(value[()], rel=1e-4)
        (pair,) = quantity.pairs
        assert (pair.first, pair.second) == ("L0H0", "L0H1")
        assert pair.alone == pytest.approx((value[0,] - value[()], value[1,] - value[()]), abs=3e-6, rel=1e-3)
        assert pair.measured.value == pytest.approx(value[0, 1] - value[()], abs=3e-6, rel=1e-3)
        assert pair.interaction.value == pytest.approx(interaction, abs=3e-6, rel=1e-2)
        assert abs(interaction) > 1e-4, "an interaction that is there"
        both = next(point for point in quantity.sets if point.size == 2)
        assert both.measured.value == pytest.approx(pair.measured.value, abs=1e-6)
        assert both.predicted[SUMMED].value == pytest.approx(sum(pair.alone), abs=1e-6)
