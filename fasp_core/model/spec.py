"""Which model is meant, and how: `ModelSpec`, and what is known of the built-in one before it is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fasp_core.errors import InputError
from fasp_core.lazy import torch
from fasp_core.model.tokens import BEGINNINGS

BUILT_IN = "built-in"
BUILT_IN_TITLE = "SmolLM2-135M-Instruct"
BUILT_IN_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BUILT_IN_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_FORM = 2  # raised where GGUF files are read in another way than before
BUILT_IN_SHAPE = (30, 9)  # layers, heads: known before the model is loaded
BUILT_IN_BOS, BUILT_IN_POSITIONS = "<|im_start|>", 8192  # its tokenizer adds none by itself
ABLATIONS = ("zero", "mean", "resample")  # what a head's output becomes where it is taken out
_ABLATION = re.compile(r"zero|mean|resample(-[0-9]{1,4})?")
DTYPES = ("float32", "bfloat16", "float16")


def dtype_of(name: str) -> torch.dtype:
    """torch's dtype of one of `DTYPES`."""
    found: torch.dtype = getattr(torch, name)
    return found


@dataclass(frozen=True)
class ModelSpec:
    """What to load and how.

    Attributes
    ----------
    source : "built-in", a local folder, a path that ends in ".gguf", or a model of a hub as `hub.HubRef` writes it
        ("openai-community/gpt2", "EleutherAI/pythia-70m@step1000").
    dtype : "float32" (default: differences of perplexity between heads are smaller than bfloat16's rounding),
        "bfloat16" or "float16".
    device : "auto" (cuda, else mps, else cpu), a torch device string, or "spread": the blocks over all GPUs of this
        machine and, where these are full, its main memory.
    bos : the token that begins every prompt and window of text: "auto" (as the model's tokenizer does), "yes" or "no".
    commit : of a model of a hub, which commit its name stands for; "" lets the hub say. A loaded model's spec has it.
    ablation : what a head's output becomes where it is taken out: "zero"; "mean", its mean over a calibration text;
        "resample", its output at one token drawn from that text ("resample-7" is draw 7, by itself it is draw 0).
    stamp : of a folder or a .gguf file, which state of its files is meant (`storage.stamps`); "" takes any. A
        loaded model's spec has none.
    """

    source: str = BUILT_IN
    dtype: str = "float32"
    device: str = "auto"
    bos: str = "auto"
    commit: str = ""
    ablation: str = ABLATIONS[0]
    stamp: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"Unknown dtype '{self.dtype}': choose one of {', '.join(DTYPES)}.")
        if self.bos not in BEGINNINGS:
            raise InputError(f"A beginning token cannot be '{self.bos}': choose one of {', '.join(BEGINNINGS)}.")
        if _ABLATION.fullmatch(self.ablation) is None:
            raise InputError(
                f"Heads cannot be taken out by '{self.ablation}': choose one of {', '.join(ABLATIONS)}; resample-7 is "
                "another draw."
            )
        if not self.source.strip():
            raise InputError("No model is named: give 'built-in', a hub id, a local folder or a .gguf file.")
