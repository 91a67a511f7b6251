"""Models small enough for a test, one of each supported architecture, with weights that make every head matter.

A freshly initialised model barely uses its attention: a wrong mask would hide below any tolerance. So all
parameters, biases and norms included, are drawn again with a spread at which removing one head moves the logits.
"""

from __future__ import annotations

from functools import cache
from itertools import cycle, islice
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import wrap
from fasp_core.model.spec import ModelSpec

STARTS = ("I", "We", "They", "The", "My", "You")
_SPELLED = (
    "a the my your friend person man woman child people team house tree river song day book red green blue tall short "
    "young old met saw like know hate help is am are was were have has nice kind good bad stupid idiot fool ugly and "
    "or with in of to very not"
)
WORDS = tuple(_SPELLED.split())
TOKENS = ("<unk>", "<eos>", *STARTS, *(f"Ġ{word}" for word in WORDS), ".", ",", "Ċ", "s")
VOCAB = 80  # a little more than the tokens: embeddings are often padded
CONTEXT = 256
HIDDEN = 32
HEADS = 4

_SPECIAL = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": None}
_SIZES = {
    **_SPECIAL,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_attention_heads": HEADS,
    "vocab_size": VOCAB,
    "max_position_embeddings": CONTEXT,
}
_GPT2_SIZES = {**_SPECIAL, "n_embd": HIDDEN, "n_head": HEADS, "vocab_size": VOCAB, "n_positions": CONTEXT}

# "opt_post_norm" is built like OPT-350M: no final norm, and a projection between blocks and unembedding
KINDS = (
    "gpt2",
    "gpt_neo",
    "gptj",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma3_text",
    "opt",
    "opt_post_norm",
    "gpt_neox",
    "phi3",
)
HEAD_DIMS = dict.fromkeys(KINDS, HIDDEN // HEADS) | {"qwen3": 16, "gemma3_text": 16}
KV_HEADS = dict.fromkeys(KINDS, HEADS) | dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3"), 2)

# where parts lie in the models that are spread over devices
OUTSIDE = {  # what is not a block, by kind
    "llama": ("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"),
    "gpt2": ("transformer.wte", "transformer.wpe", "transformer.drop", "transformer.ln_f", "lm_head"),
    "opt_post_norm": (
        "model.decoder.embed_tokens",
        "model.decoder.embed_positions",
        "model.decoder.project_in",
        "model.decoder.project_out",
        "lm_head",
    ),
}
BLOCKS = {"llama": "model.layers", "gpt2": "transformer.h", "opt_post_norm": "model.decoder.layers"}


def tiny_config(kind: str, n_layers: int = 2) -> Any:
    """The transformers config of a tiny model; sliding and local windows are 4 tokens."""
    llama = {**_SIZES, "num_hidden_layers": n_layers, "num_key_value_heads": 2}
    opt = {
        **_SPECIAL,
        "hidden_size": HIDDEN,
        "ffn_dim": 48,
        "num_hidden_layers": n_layers,
        "num_attention_heads": HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT,
    }
    sliding = list(islice(cycle(["sliding_attention", "full_attention"]), n_layers))
    local = [[[name], 1] for name in islice(cycle(["global", "local"]), n_layers)]
    build: dict[str, Any] = {
        "gpt2": lambda: transformers.GPT2Config(**_GPT2_SIZES, n_layer=n_layers),
        "gpt_neo": lambda: transformers.GPTNeoConfig(
            **_SPECIAL,
            hidden_size=HIDDEN,
            num_layers=n_layers,
            num_heads=HEADS,
            vocab_size=VOCAB,
            max_position_embeddings=CONTEXT,
            attention_types=local,
            window_size=4,
            intermediate_size=48,
        ),
        "gptj": lambda: transformers.GPTJConfig(**_GPT2_SIZES, n_layer=n_layers, rotary_dim=4),
        "llama": lambda: transformers.LlamaConfig(**llama),
        "mistral": lambda: transformers.MistralConfig(**llama, sliding_window=4),
        "qwen2": lambda: transformers.Qwen2Config(**llama),
        "qwen3": lambda: transformers.Qwen3Config(**llama, head_dim=16),
        "gemma3_text": lambda: transformers.Gemma3TextConfig(
            **llama, head_dim=16, sliding_window=4, layer_types=sliding, final_logit_softcapping=5.0
        ),
        "opt": lambda: transformers.OPTConfig(**opt, word_embed_proj_dim=HIDDEN),
        "opt_post_norm": lambda: transformers.OPTConfig(**opt, word_embed_proj_dim=16, do_layer_norm_before=False),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**_SIZES, num_hidden_layers=n_layers),
        "phi3": lambda: transformers.Phi3Config(**llama),
    }
    return build[kind]()


@cache
def tiny_tokenizer() -> Any:
    """Whole words as tokens, spaces marked by "Ġ" as in byte-level BPE."""
    vocab = {token: i for i, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>")


def tiny_model(kind: str, seed: int = 0, n_layers: int = 2) -> Any:
    """A transformers causal language model with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(tiny_config(kind, n_layers))
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            offset = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0  # a norm's weights
            parameter.copy_(offset + 0.25 * torch.randn(parameter.shape, generator=noise))
    return model.eval()


def tiny_lm(kind: str, seed: int = 0, n_layers: int = 2, device: str = "cpu") -> LanguageModel:
    """A tiny model of one of `KINDS` as the program holds it; each call gives one of its own."""
    spec = ModelSpec(f"tiny-{kind}", device=device)
    model = tiny_model(kind, seed, n_layers).to(device)
    return wrap(model, tiny_tokenizer(), spec, f"tiny:{kind}:{n_layers}:{seed}")


def tiny_text(n_tokens: int, seed: int = 0) -> str:
    """Text of exactly `n_tokens` tokens: sentences of words in no meaningful order."""
    draws = torch.randint(len(WORDS), (n_tokens,), generator=torch.Generator().manual_seed(seed)).tolist()
    parts = [STARTS[draws[0] % len(STARTS)]]
    parts += ["." if i % 9 == 8 else f" {WORDS[d]}" for i, d in enumerate(draws[1:], start=1)]
    return "".join(parts)


def token_rows(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """[rows, length] random token ids."""
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))
