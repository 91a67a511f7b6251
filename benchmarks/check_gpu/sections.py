"""The sections of the check: each a function of a `Bench` that returns what it found, JSON-ready.

What a section returns under `wrong` are sentences; an empty list is a section that is well.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._common import machine
from benchmarks._shapes import BUILT_IN, random_built_in
from fasp_core.errors import InputError
from fasp_core.forward import sweep
from fasp_core.forward.noise import gumbel, keys, uniforms, words_of
from fasp_core.forward.recorded_pass import ResumablePass, final_hidden
from fasp_core.forward.sweep import sweep_heads
from fasp_core.metrics.expected import TokenToxicity, read_expected
from fasp_core.metrics.work import Windows
from fasp_core.model import devices, loading
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import OutOfMemory, free
from fasp_core.model.packing import Pack, pack
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring import plan

TOLERANCE = 1e-3  # of tiny models' numbers, relative to the largest of a result
CLOSE = 1e-4  # nats a token, and units of toxicity, of the built-in shape
DRAWS = ("sampled", "pool", "evaluate", "write", "contexts", "search")  # another last bit may draw another word
SMALL = {  # for trying the check itself
    "hidden_size": 36,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "vocab_size": 640,
    "max_position_embeddings": 256,
}


@dataclass(frozen=True)
class Bench:
    """Where and how large.

    Attributes
    ----------
    device : is compared with the CPU.
    small : tiny sizes, so that the check itself can be tried on a CPU.
    """

    device: torch.device
    small: bool

    def model(self, device: torch.device | None = None) -> LanguageModel:
        """The built-in model where its package is, else random weights of its shape."""
        where = str(device or self.device)
        if not self.small:
            try:
                return loading.load(ModelSpec(device=where))
            except (InputError, ImportError, OSError):  # the package, or what reads it, is not there
                pass
        return random_built_in(where, **(SMALL if self.small else {}))

    def tokens(self, rows: int, length: int, vocab: int) -> torch.Tensor:
        return torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(0))

    def text(self, lm: LanguageModel, rows: int = 2) -> tuple[list[Pack], Any]:
        """Windows of made-up tokens, read as NLL."""
        ids = self.tokens(rows, 24 if self.small else 512, self.vocab(lm))
        return Windows.packs(lm, [Windows(ids, np.ones(rows, dtype=int))])

    def prompts(self, lm: LanguageModel) -> tuple[list[Pack], Any]:
        """Prompts that share beginnings, as trees, read as expected toxicity."""
        n, vocab = 6 if self.small else 24, self.vocab(lm)
        ends = self.tokens(n, 6, vocab).tolist()
        rows = [[*start, *end] for start in self.tokens(n, 4, vocab).tolist() for end in ends]
        values = torch.rand(len(lm.model.get_output_embeddings().weight), 4, generator=torch.Generator().manual_seed(1))
        worth = TokenToxicity(values, torch.zeros(len(values), dtype=torch.bool)).on(lm.device)
        return pack(lm, rows), lambda part, hidden: read_expected(lm, hidden, part, worth)

    @staticmethod
    def vocab(lm: LanguageModel) -> int:
        return len(lm.model.get_output_embeddings().weight)

    def done(self) -> None:
        """Wait for what is under way."""
        torch.zeros(1, device=self.device).item()


def environment(bench: Bench) -> dict[str, Any]:
    """GPU, driver, versions, and in what precision float32 is multiplied before and after the program's own setting."""
    import transformers

    before = torch.get_float32_matmul_precision()
    devices.full_precision()
    found = {**machine(), "transformers": transformers.__version__, "device": str(bench.device)}
    found |= devices.facts({bench.device})
    if bench.device.type == "cuda":
        p = torch.cuda.get_device_properties(bench.device)
        found |= {"memory_gb": p.total_memory / 1e9, "capability": f"{p.major}.{p.minor}"}
    found |= {"precision_found": before, "allow_tf32": torch.backends.cuda.matmul.allow_tf32}
    tf32 = found["allow_tf32"] or torch.get_float32_matmul_precision() != "highest"
    return found | {"wrong": ["float32 products may run in TF32"] if tf32 else []}


def kinds(bench: Bench) -> dict[str, Any]:
    """Every step of the engine on a tiny model of each kind, on the device and on the CPU."""
    from tests.support import steps, tiny

    names, until, left_out = tiny.KINDS, time.monotonic() + 0.8 * SECTIONS["kinds"][1], []
    table: dict[str, dict[str, float]] = {}
    wrong: list[str] = []
    missing: dict[str, str] = {}
    others: list[str] = []
    for kind in names[:1] if bench.small else names:
        if time.monotonic() > until:
            left_out.append(kind)
            continue
        with tempfile.TemporaryDirectory() as folder, steps.small_worlds(Path(folder)):
            here = steps.Bench(tiny.tiny_lm(kind), Path(folder) / "cpu")
            there = steps.Bench(tiny.tiny_lm(kind, device=str(bench.device)), Path(folder) / "device")
            for name, step in list(steps.STEPS.items())[:: 6 if bench.small else 1]:
                try:
                    expected = step(here)
                except Exception as error:  # not the device's fault: data or a package is missing
                    missing[name] = _first_line(error)
                    continue
                try:
                    apart, unlike = difference(step(there), expected)
                except Exception as error:
                    wrong.append(f"{kind}, {name}: {_first_line(error)}")
                    continue
                drawn = any(word in name for word in DRAWS)
                table.setdefault(name, {})[kind] = apart
                if (apart > TOLERANCE or unlike) and drawn:
                    others.append(f"{kind}, {name}")
                elif apart > TOLERANCE or unlike:
                    wrong.append(f"{kind}, {name}: differs by {apart:.2g}{' and in kind' if unlike else ''}")
    return {
        "tolerance": TOLERANCE,
        "largest_difference": {name: max(row.values()) for name, row in table.items()},
        "kinds": len(next(iter(table.values()), {})),
        "kinds_left_out": left_out,
        "other_draws": others,
        "cannot_run_here": missing,
        "wrong": wrong,
    }


def resumed(bench: Bench) -> dict[str, Any]:
    """Passes that are resumed at a block against whole ones."""
    lm = bench.model()
    ids, apart = bench.tokens(2, 24 if bench.small else 256, bench.vocab(lm)), {}
    with torch.no_grad():
        whole = final_hidden(lm, ids)
        for layer in sorted({0, lm.n_layers // 2, lm.n_layers - 1}):
            apart[str(layer)] = float((ResumablePass(lm, ids, layer).resume() - whole).abs().max() / whole.abs().max())
    wrong = [f"resumed at block {layer}: {x:.2g}" for layer, x in apart.items() if x > 1e-5]
    return {"model": lm.name, "relative_difference": apart, "wrong": wrong}


def attention(bench: Bench) -> dict[str, Any]:
    """Which of PyTorch's attention kernels run: grouped heads, with and without a mask, in 32 and 16 bits."""
    found: dict[str, str] = {}
    for dtype in (torch.float32, torch.bfloat16):
        lm = random_built_in(str(bench.device), **(SMALL if bench.small else {"num_hidden_layers": 2}))
        lm.model.to(dtype)
        for name, (packs, _) in (("text", bench.text(lm)), ("tree", bench.prompts(lm))):
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
                final_hidden(lm, packs[0])
            names = {event.key for event in seen.key_averages() if "scaled_dot_product" in event.key}
            names.discard("aten::scaled_dot_product_attention")
            found[f"{name}, {str(dtype).removeprefix('torch.')}"] = ", ".join(sorted(names)) or "none seen"
    plain = [name for name, kernels in found.items() if "_math" in kernels and "float32" in name]
    return {"kernels": found, "wrong": [f"attention is not fused: {name}" for name in plain]}


def rows(bench: Bench) -> dict[str, Any]:
    """Heads of a layer as rows of one pass against one by one, over all layers."""
    lm, out, wrong = bench.model(), {}, []
    for name, make in (("text", bench.text), ("prompts", bench.prompts)):
        packs, read = make(lm)
        taken, found = {}, {}
        for way, together in (("one_by_one", 1), ("rows", lm.n_heads)):
            for _ in range(2):  # the second time counts
                began = time.perf_counter()
                found[way] = {flat: np.concatenate(r) for flat, r in sweep_heads(lm, packs, read, (), together)}
                taken[way] = time.perf_counter() - began
        apart = max(float(np.abs(found["rows"][flat] - values).max()) for flat, values in found["one_by_one"].items())
        per = 64 if name == "text" else 1  # sums of 64 tokens
        out[name] = {
            "seconds_one_by_one": taken["one_by_one"],
            "seconds_rows": taken["rows"],
            "ratio": taken["one_by_one"] / taken["rows"],
            "equal_bits": apart == 0,
            "max_abs_diff": apart / per,
        }
        if apart / per > CLOSE:
            wrong.append(f"rows give other numbers of {name}: {apart / per:.2g}")
    return {
        "model": lm.name,
        "heads": lm.size,
        "at_once": sweep.at_once(lm, bench.text(lm)[0][0]),
        **out,
        "wrong": wrong,
    }


def rate(bench: Bench) -> dict[str, Any]:
    """`plan --measure`: TFLOP/s that the device keeps up on a block of the built-in shape and of Llama-2-7B."""
    import transformers

    shapes = {"built-in": transformers.LlamaConfig(**BUILT_IN | (SMALL if bench.small else {}))}
    if not bench.small:
        shapes["llama-2-7b"] = plan.read_config(Path(__file__).parents[2] / "docs" / "configs" / "llama-2-7b.json")
    window = 24 if bench.small else 512
    dtypes = ("float32",) if bench.small else ("float32", "bfloat16")
    found = {
        f"{name}, {dtype}": plan.measured_rate(config, dtype, bench.device, window)
        for name, config in shapes.items()
        for dtype in dtypes
    }
    return {"tflops": found, "assumed": plan.ASSUMED, "wrong": []}


def memory(bench: Bench) -> dict[str, Any]:
    """A sweep while other tensors fill the device more and more: passes are halved, and numbers stay."""
    if bench.device.type != "cuda":
        return {"skipped": "only a CUDA device tells how much memory it has left", "wrong": []}
    lm = bench.model()
    packs, read = bench.text(lm, rows=16)
    heads = set(range(lm.size)) - set(range(lm.n_heads))  # those of the first layer are swept

    def run() -> dict[int, np.ndarray]:
        return {flat: np.concatenate(r) for flat, r in sweep_heads(lm, packs, read, {-1, *heads})}

    expected, out, wrong = run(), [], []
    free()
    before = torch.cuda.memory_allocated(bench.device)
    for room in (4.0, 2.0, 1.0, 0.5, 0.25, 0.12, 0.06):
        torch.cuda.empty_cache()
        left = torch.cuda.mem_get_info(bench.device)[0] - int(room * 1e9)
        ballast = torch.empty(max(left, 0), dtype=torch.uint8, device=bench.device)
        torch.cuda.reset_peak_memory_stats(bench.device)
        try:
            found = run()
        except OutOfMemory:
            out.append({"room_gb": room, "fits": False})
            break
        finally:
            peak = torch.cuda.max_memory_allocated(bench.device) - len(ballast) - before
            del ballast
            free()
        apart = max(float(np.abs(found[flat] - values).max()) for flat, values in expected.items()) / 64
        out.append({"room_gb": room, "fits": True, "peak_gb": peak / 1e9, "max_abs_diff": apart})
        if apart > CLOSE:
            wrong.append(f"with {room:g} GB of room numbers differ by {apart:.2g}")
    kept = torch.cuda.memory_allocated(bench.device) - before
    if kept > 1 << 20:
        wrong.append(f"{kept / 1e6:.0f} MB are still held after memory had ended")
    return {"model": lm.name, "rooms": out, "kept_mb": kept / 1e6, "wrong": wrong}


def sampling(bench: Bench) -> dict[str, Any]:
    """Bits of the noise, and what noise and the offline scorer take of the time of sampling."""
    from benchmarks.noise import share_of_noise
    from fasp_core.data.scorers import make_scorer

    key, vocab = keys(0, ["a", "b"], range(3), 2)[:, 1], 700 if bench.small else 262_144
    same = torch.equal(
        uniforms(key.to(bench.device), words_of(vocab, bench.device)).cpu(), uniforms(key, words_of(vocab, "cpu"))
    )
    apart = float((gumbel(key, vocab, bench.device).cpu() - gumbel(key, vocab, "cpu")).abs().max())
    lm, (n, steps) = bench.model(), (4, 2) if bench.small else (256, 20)
    share, step = share_of_noise(lm, n, steps)
    wrong = [] if same else ["uniforms are other bits than on the CPU: they are made there"]
    wrong += [f"noise differs by {apart:.2g}"] if apart > 1e-4 else []
    found = {"noise_equal_bits": same, "gumbel_max_abs_diff": apart, "rows": n, "step_seconds": step}
    try:
        scorer = make_scorer("offline")
        scorer.score(["a text"])
        began = time.perf_counter()
        scorer.score([f"what somebody wrote, number {i}" for i in range(n)])
        found["scorer_share"] = (scoring := time.perf_counter() - began) / (scoring + step * steps)
    except (InputError, ImportError) as error:
        found["scorer_share"] = f"not measured: {_first_line(error)}"
    return found | {"noise_share": share, "model": lm.name, "wrong": wrong}


SECTIONS: dict[str, tuple[Callable[[Bench], dict[str, Any]], int]] = {  # and seconds, less than eight minutes in all
    "environment": (environment, 30),
    "kinds": (kinds, 170),
    "resumed": (resumed, 40),
    "attention": (attention, 30),
    "rows": (rows, 60),
    "rate": (rate, 50),
    "memory": (memory, 50),
    "sampling": (sampling, 40),
}


def difference(found: Any, expected: Any) -> tuple[float, bool]:
    """Largest difference of numbers, relative to the largest of their array; whether anything else differs."""
    if isinstance(expected, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(expected):
            return 0.0, True
        pairs = [difference(a, b) for a, b in zip(found, expected, strict=True)]
        return max((x for x, _ in pairs), default=0.0), any(unlike for _, unlike in pairs)
    if not hasattr(expected, "shape") and not isinstance(expected, float):
        return 0.0, bool(found != expected)
    a, b = (np.asarray(x.cpu() if isinstance(x, torch.Tensor) else x) for x in (found, expected))
    if a.shape != b.shape or a.dtype.kind not in "fiub":
        return 0.0, a.shape != b.shape or not np.array_equal(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return 0.0, True
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    return (float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12)) if a.size else 0.0), False


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0][:200]}"
