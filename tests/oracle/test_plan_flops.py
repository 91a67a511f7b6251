"""The count of operations against PyTorch's own, of sweeps that really run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fasp_core.compute import shards
from fasp_core.compute.shards import CUTS, cut
from fasp_core.errors import InputError
from fasp_core.metrics import work
from fasp_core.metrics.expected import TokenToxicity
from fasp_core.metrics.work import Prompts, Sweep, Windows
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import pack
from fasp_core.scoring import plan
from fasp_core.scoring.plan import Batch, busiest, shape_of, sweep_flops, text_batches
from tests.support.tiny import KINDS, tiny_config, tiny_lm, token_rows

LAYERS = 2


def counted(lm: LanguageModel, sweep: Sweep) -> float:
    """FLOPs as PyTorch counts them; plain attention, whose products it knows on every device."""
    lm.model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        list(sweep.run(lm))
    return float(counter.get_total_flops())


def worth() -> TokenToxicity:
    return TokenToxicity(
        torch.rand(80, 4, generator=torch.Generator().manual_seed(1)), torch.zeros(80, dtype=torch.bool)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_over_text(kind: str) -> None:
    lm, heads = tiny_lm(kind, n_layers=LAYERS), (-1, 1, 6)
    batches = [Windows(token_rows(2, 24), np.ones(2, dtype=int)), Windows(token_rows(1, 9), np.ones(1, dtype=int))]
    costs = [Batch(2, 24, 46), Batch(1, 9, 8)]
    found = counted(lm, Sweep(heads, tuple(batches)))
    assert sweep_flops(shape_of(tiny_config(kind, LAYERS)), costs, heads) == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neo"])
def test_a_sweep_over_prompts(kind: str) -> None:
    lm, w = tiny_lm(kind, n_layers=LAYERS), worth()
    packs = pack(lm, token_rows(12, 7).tolist() + token_rows(5, 9).tolist())
    costs = [Batch(len(p.ids), p.ids.shape[1], len(p.prompts), 4) for p in packs]
    heads = (5, 6)  # above the lowest layer, and without the whole model
    found = counted(lm, Sweep(heads, tuple(Prompts(p, w) for p in packs)))
    assert sweep_flops(shape_of(tiny_config(kind, LAYERS)), costs, heads) == pytest.approx(found, rel=0.02)


def test_shares_of_workers_are_what_their_shards_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "RUN", 4)
    lm, shape = tiny_lm("llama", n_layers=3), shape_of(tiny_config("llama", 3))
    batches = [Windows(token_rows(2, 16, seed), np.ones(2, dtype=int)) for seed in range(2)]
    costs = [Batch(2, 16, 30)] * 2
    heads = list(range(-1, lm.size))
    pieces = cut(heads, range(2), 3, 4, CUTS * 2)
    each = [counted(lm, Sweep(flats, tuple(batches[b] for b in those))) for flats, those in pieces]
    assert sum(each) / 2 <= busiest(shape, costs, 2) * 1.02
    assert busiest(shape, costs, 2) <= sum(each) / 2 + max(each) * 1.02
    assert busiest(shape, costs, 1) < sum(each)  # one worker cuts nothing, so it makes no pass twice


def test_text_is_cut_as_scoring_cuts_it() -> None:
    assert text_batches(1030, 512) == [Batch(2, 512, 1022), Batch(1, 6, 5)]
    assert text_batches(1025, 512) == [Batch(2, 512, 1022)]  # a single token has nothing before it
    assert sum(b.tokens for b in text_batches(8192, 512)) == 8192


# facts about models that are written elsewhere


@pytest.mark.parametrize(
    ("name", "parameters", "heads"),
    # sizes of the released checkpoints (their index files: 13,476,831,232 and 137,953,296,384 bytes of 16-bit weights)
    [("llama-2-7b", 6_738_415_616, 1024), ("llama-2-70b", 68_976_648_192, 5120)],
)
def test_shapes_of_known_models(name: str, parameters: int, heads: int) -> None:
    shape = shape_of(plan.read_config(Path(__file__).parents[2] / "docs" / "configs" / f"{name}.json"))
    assert (shape.parameters, shape.size) == (parameters, heads)


def test_memory_and_gpus_by_hand() -> None:
    config = plan.read_config(Path(__file__).parents[2] / "docs" / "configs" / "llama-2-70b.json")
    asked = plan.Asked("race_ethnicity", tokens=1024, dtype="float16", gpus=(1, 8, 64))
    found = plan.plan(shape_of(config), asked)
    assert found["memory"]["float16"]["weights"] == 2 * 68_976_648_192
    assert found["memory"]["float16"]["gpus_a_worker"] == 2  # 138 GB do not lie in 72, and do in twice 72
    assert found["memory"]["float32"]["gpus_a_worker"] == 4
    assert {count: t["workers"] for count, t in found["gpus"].items()} == {"1": 1, "8": 4, "64": 32}
    assert found["gpus"]["1"]["blocks_wait_in_main_memory"]
    assert found["spread"]
    assert found["gpus"]["64"]["seconds"] < found["gpus"]["8"]["seconds"] / 6
    half = plan.plan(shape_of(config), replace(asked, tflops=50.0))
    assert half["gpus"]["8"]["seconds"] == pytest.approx(2 * found["gpus"]["8"]["seconds"])


def test_a_rate_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("llama")
    seen: list[Any] = []
    real = work.sweep_heads
    monkeypatch.setattr(work, "sweep_heads", lambda *args: seen.append(args) or real(*args))
    ticks = iter(range(100))
    monkeypatch.setattr(plan.time, "perf_counter", lambda: float(next(ticks)))  # each run takes one second
    rate = plan.measured_rate(config, "float32", torch.device("cpu"), window=16, repeats=2)
    assert len(seen) == 2
    config.num_hidden_layers = 1
    lm = seen[0][0]
    assert rate * 1e12 == pytest.approx(
        counted(lm, Sweep((0, 1, 2), (Windows(token_rows(2, 16), np.ones(2, dtype=int)),))), rel=0.02
    )


# the page in the docs


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from fasp_core.cli.main import main

    root = Path(__file__).parents[2]
    page = (root / "docs" / "scale.md").read_text()
    blocks = re.findall(r"    \$ python -m fasp_core (plan .*)\n\n((?:    .*\n|\n)+)", page)
    assert len(blocks) >= 2
    for command, shown in blocks:
        arguments = [str(root / a) if a.startswith("docs/") else a for a in command.split()]
        assert main(arguments) == 0
        printed = capsys.readouterr().out
        assert "\n".join(line.removeprefix("    ") for line in shown.strip("\n").split("\n")).strip() == printed.strip()


@pytest.mark.parametrize("path", ["none.json", "~nobody-of-this-name/x"])
def test_a_config_that_is_not_there_is_told(path: str) -> None:
    with pytest.raises(InputError, match="There is no config"):
        plan.read_config(path)
