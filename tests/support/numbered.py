"""A tiny instruct model whose words are digits and what stands around numbers, so that its answers hold some."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import wrap
from fasp_core.model.spec import ModelSpec
from tests.support.contexts import TEMPLATE

_AROUND = ("Ġto", "Ġfor", "Ġthe", "Ġhouse", "Ċ", ".", ",", "k", "%", "Ġred", "Ġblue", "We", "My", "$")
TOKENS = ("<unk>", "<eos>", *map(str, range(6)), *_AROUND)
NUMBERED = """
[contexts.rooms]
unit = "dollars"
opening = "$"
question = "the {item} for {name}"
scenarios = ["house"]
[groups]
one = ["red", "the"]
two = ["blue", "My"]
"""


@cache
def _tokenizer() -> Any:
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    out = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>")
    out.chat_template = TEMPLATE
    return out


def numbered_lm(seed: int = 0, spread: float = 0.25, kind: str = "llama") -> LanguageModel:
    """A model of 22 words with seeded weights."""
    sizes = {"vocab_size": len(TOKENS), "bos_token_id": None, "eos_token_id": 1, "pad_token_id": None}
    config: Any = transformers.LlamaConfig(
        **sizes,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    if kind == "gpt_neo":  # its attention takes no mask of one's own
        config = transformers.GPTNeoConfig(
            **sizes,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            max_position_embeddings=256,
            attention_types=[[["global", "local"], 1]],
            window_size=4,
            intermediate_size=48,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            offset = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0
            parameter.copy_(offset + spread * torch.randn(parameter.shape, generator=noise))
    spec = ModelSpec(f"numbered-{kind}", device="cpu")
    return wrap(model.eval(), _tokenizer(), spec, f"numbered:{kind}:{seed}:{spread}")


def padded(lm: LanguageModel) -> LanguageModel:
    """The model with a token to pad and to end by that its tokenizer alone knows: the embedding was not resized."""
    lm.tokenizer = copy.deepcopy(lm.tokenizer)
    lm.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    lm.model.generation_config.eos_token_id = [1, lm.tokenizer.pad_token_id]
    return lm
