"""Models with random weights, for machines that have no network and none of the data packages."""

from __future__ import annotations

from typing import Any

import torch

from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import pick_device, wrap
from fasp_core.model.spec import ModelSpec

BUILT_IN = {  # the built-in model's shape
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def random_built_in(device: str = "cpu", **smaller: Any) -> LanguageModel:
    """Random weights of the built-in model's shape, with no tokenizer.

    Parameters
    ----------
    smaller : settings of the config to replace.
    """
    import transformers

    config = transformers.LlamaConfig(**(BUILT_IN | smaller), bos_token_id=None, eos_token_id=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
    spec = ModelSpec("random weights of the built-in model's shape", device=device)
    return wrap(model.to(pick_device(device)), None, spec, "random")
