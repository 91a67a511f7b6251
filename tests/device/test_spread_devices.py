"""Every step of the engine with a model's blocks on two devices, and loaded from a folder onto one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from fasp_core.errors import InputError
from fasp_core.export import checking
from fasp_core.export.writing import export
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model import loading
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.studies.contexts import weights
from tests.support import pretend
from tests.support.steps import STEPS, Bench, assert_same, small_worlds
from tests.support.tiny import BLOCKS, OUTSIDE
from tests.support.worlds import write_model

DEVICES = [f"{pretend.NAME}:0", f"{pretend.NAME}:1"]
QUICK = ("magnitude", "contexts: attention", "contexts: activation", "contexts: sets", "export")


@contextmanager
def placing(kind: str, blocks: list[str]) -> Iterator[None]:
    """Spread models have their blocks where `blocks` says, and all else on the first device."""
    places = dict.fromkeys(OUTSIDE[kind], DEVICES[0]) | {f"{BLOCKS[kind]}.{i}": at for i, at in enumerate(blocks)}
    with pytest.MonkeyPatch.context() as patch:
        for module in (loading, checking):
            patch.setattr(
                module, "spread_options", lambda spec: {"device_map": places} if spec.device == "spread" else {}
            )
        yield


@pytest.fixture(
    scope="module",
    params=[pytest.param("llama"), *(pytest.param(k, marks=pytest.mark.slow) for k in ("gpt2", "opt_post_norm"))],
)
def both(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Bench]]:
    root = tmp_path_factory.mktemp(request.param)
    with pretend.rules(), small_worlds(root), placing(request.param, DEVICES):
        folder = write_model(root / "model", request.param)
        here, there = (
            load(ModelSpec(str(folder), device="cpu")),
            load(ModelSpec(str(folder), device="spread")),
        )
        assert [{str(p.device) for p in block.parameters()} for block in there.blocks] == [{d} for d in DEVICES]
        yield Bench(here, root / "cpu"), Bench(there, root / "spread")


@pytest.mark.parametrize("step", [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in STEPS])
def test_two_devices_give_the_numbers_of_the_cpu(both: tuple[Bench, Bench], step: str) -> None:
    here, there = both
    assert_same(STEPS[step](there), STEPS[step](here))


def test_what_waits_in_main_memory_is_refused_where_it_would_be_missed(tmp_path: Path) -> None:
    with pretend.rules(), placing("llama", [DEVICES[0], "cpu"]):
        lm = load(ModelSpec(str(write_model(tmp_path / "model")), device="spread"))
        assert lm.mlp_out(1).weight.is_meta
        if (maps := Path("/proc/self/maps")).exists():  # else who writes into the file changes them
            assert str(tmp_path / "model") not in maps.read_text()
        with pytest.raises(InputError, match="lies partly in main memory cannot be exported"):
            export(lm, PruneSet.parse("L0H1"), tmp_path / "export")
        place, at = (1, "mlp.down_proj"), torch.tensor([0])
        with pytest.raises(InputError, match="Single weights cannot be removed"), weights.without(lm, {place: at}):
            pass


def test_a_folder_is_loaded_onto_a_device(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    with pretend.rules(), small_worlds(tmp_path):
        lm = load(ModelSpec(str(folder), device=pretend.NAME))
        assert {p.device.type for p in lm.model.parameters()} == {pretend.NAME}
        here = load(ModelSpec(str(folder), device="cpu"))
        for step in ("nll", "export"):
            found = [STEPS[step](Bench(m, tmp_path / f"{i}")) for i, m in enumerate((lm, here))]
            assert_same(found[0], found[1])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3_text"])
@pytest.mark.parametrize("step", STEPS)
def test_16_bits(kind: str, dtype: str, step: str, tmp_path: Path) -> None:
    with pretend.rules(), small_worlds(tmp_path):
        folder = write_model(tmp_path / "model", kind)
        here, there = (load(ModelSpec(str(folder), dtype, device)) for device in ("cpu", pretend.NAME))
        found = STEPS[step](Bench(there, tmp_path / "device"))
        assert_same(found, STEPS[step](Bench(here, tmp_path / "cpu")), rounding=0)
