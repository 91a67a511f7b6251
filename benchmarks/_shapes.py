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


def random_llama(spec: ModelSpec, weights: str = "random", tokenizer: Any = None, **config: Any) -> LanguageModel:
    """A Llama with seeded random weights.

    Parameters
    ----------
    spec : its name and device. `weights`: names the weights.
    config : settings of its config.
    """
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
    return wrap(model.to(pick_device(spec.device)), tokenizer, spec, weights)


def random_built_in(device: str = "cpu", **smaller: Any) -> LanguageModel:
    """Random weights of the built-in model's shape but for some settings, with no tokenizer."""
    spec = ModelSpec("random weights of the built-in model's shape", device=device)
    return random_llama(spec, **BUILT_IN | {"bos_token_id": None, "eos_token_id": None} | smaller)
