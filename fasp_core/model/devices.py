"""Devices: which one can be used, how much suits a pass on it, in what precision it multiplies, and its name."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasp_core.errors import InputError, first_line

if TYPE_CHECKING:  # seconds to import
    import torch

SPREAD = "spread"  # a model's blocks over several devices
_DRIVER = Path("/proc/driver/nvidia/version")


# --- which ---


def pick_device(name: str = "auto") -> torch.device:
    """A device that computes: a small product is tried on it.

    "auto" and "spread" take a CUDA device, else MPS, else the CPU; `passed_over` says which of them did not compute.

    Raises
    ------
    InputError
        The device that is named is unknown, is not present on this machine, or does not compute.
    """
    import torch

    if name in ("auto", SPREAD):
        return next((torch.device(kind) for kind in _present() if _fault(kind) is None), torch.device("cpu"))
    if (why := _fault(name)) is not None:
        reason = "" if why.startswith("Expected one of") else f" ({why.rstrip('.')})"  # torch lists all that it knows
        raise InputError(f"The device '{name}' cannot be used here{reason}: choose auto, cpu, cuda, mps or spread.")
    return torch.device(name)


def passed_over(name: str = "auto") -> str | None:
    """A sentence about a GPU that is here but does not compute, so that "auto" takes another device; None: no such."""
    faults = [(kind, why) for kind in _present() if (why := _fault(kind)) is not None]
    if name not in ("auto", SPREAD) or not faults:
        return None
    kind, why = faults[0]
    return (
        f"The device '{kind}' is here but does not compute, so {pick_device(name)} is used: update its driver, or "
        f"install a PyTorch that supports it. ({why.rstrip('.')})"
    )


def one_name(name: str) -> str:
    """The device behind a name: "auto", "cuda" and "cuda:0" may all be "cuda:0". Spread models stay "spread"."""
    if name == SPREAD:
        return name
    device = pick_device(name)
    return "cpu" if device.type == "cpu" else f"{device.type}:{device.index or 0}"


def _present() -> list[str]:
    import torch

    return [
        kind
        for kind, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
        if there
    ]


_computes: set[str] = set()  # devices on which a product succeeded


def _fault(name: str) -> str | None:
    """Why a device does not compute, in a line; None if it does."""
    import torch

    if name in _computes:
        return None
    try:
        x = torch.ones(8, 8, device=torch.device(name))
        right = float((x @ x).sum()) == 512
    except (RuntimeError, AssertionError) as error:  # which torch raises for whatever is wrong with a device
        return first_line(error)
    if not right:
        return "a product of two small matrices came out wrong"
    _computes.add(name)
    return None


# --- how much ---


@dataclass(frozen=True)
class Sizes:
    """How much goes into one pass, in tokens unless said otherwise. What does not fit into memory is halved.

    Attributes
    ----------
    tree : of a tree of prompts; its attention costs the square of that.
    prompts : of prompts of one length side by side.
    windows, swept : windows of text, measured once, and with every head ablated.
    backward : with a backward pass, which keeps what every block made.
    continuations : rows that are sampled, or differentiated (`drawn_back`), side by side.
    """

    tree: int
    prompts: int
    windows: int
    swept: int
    backward: int
    continuations: int
    drawn_back: int


# A few hundred tokens fill all cores, and what they make stays in the cache: more at once is slower.
CPU = Sizes(tree=384, prompts=800, windows=1, swept=2, backward=400, continuations=256, drawn_back=16)
_SIZES = {
    "cpu": CPU,
    # A pass is a thousand kernels or more, each of which takes 5 to 10 microseconds to launch: below some thousand
    # tokens that is what one waits for. Memory is shared with all else that the machine does.
    "mps": Sizes(tree=1024, prompts=4096, windows=4, swept=8, backward=1024, continuations=256, drawn_back=32),
    # The same, with memory of its own.
    "cuda": Sizes(tree=2048, prompts=8192, windows=8, swept=16, backward=2048, continuations=1024, drawn_back=64),
}


def sizes(device: torch.device) -> Sizes:
    """What suits a device; one of an unknown kind is taken for a GPU."""
    return _SIZES.get(device.type, _SIZES["cuda"])


# --- how ---


def full_precision() -> None:
    """Let float32 products be float32 products from here on in this process.

    With TF32, which some settings allow, a factor has 10 bits: that moves perplexity by as much as many heads do.
    """
    import torch

    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def facts(devices: set[torch.device]) -> dict[str, Any]:
    """JSON-ready: names of the GPUs among these devices, their driver, and the precision of float32 products there.

    Nothing for the CPU alone.
    """
    import torch

    gpus = sorted((d for d in devices if d.type not in ("cpu", "meta")), key=str)
    if not gpus:
        return {}
    found: dict[str, Any] = {"float32_products": torch.get_float32_matmul_precision()}
    if gpus[0].type == "cuda":
        found["gpu"] = [torch.cuda.get_device_name(d) for d in gpus]
        found["driver"] = _driver()
        found["cuda"] = torch.version.cuda or f"ROCm {torch.version.hip}"
    elif gpus[0].type == "mps":
        found["gpu"] = [platform.processor() or platform.machine()]
        found["driver"] = f"macOS {platform.mac_ver()[0]}"
    else:
        found["gpu"] = [str(d) for d in gpus]
    return found


def _driver() -> str:
    """Version of NVIDIA's driver, where the system tells it."""
    try:
        found = re.search(r"\d+\.\d+(\.\d+)?", _DRIVER.read_text())
    except OSError:
        found = None
    return found[0] if found else "unknown"
