"""What a model's files say of themselves, looked at before anything is built from them.

Loaders believe what a file says, and pass over what they do not know. A config of a few bytes can name a billion
layers, an index can name files of other folders; an adapter beside a model is not applied, and a setting that a loader
does not read changes the numbers without a word. So what is there is held against what is said, and what would change
numbers and is not read is refused by its name.

`check_names` and `check_config` need no files: a hub repository can be asked before it is downloaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from fasp_core.errors import InputError
from fasp_core.model.architectures import architecture_named
from fasp_core.model.file_heads import Tensor, check_start, settings, tensors

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
ADAPTER = "adapter_config.json"
SMALL = (  # files that loaders read beside weights, *.model and templates
    CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "vocab.bpe", "bpe.codes", "chat_template.json",
)  # fmt: skip
MAX_LAYERS = 1_000
TIMES = 8  # numbers that a model may have for each that its files hold: 4-bit weights lie packed in 32-bit ones
SPARE = 100_000_000  # and beside that, for masks and tables that are computed
# models of images and text whose text model is read by itself: for text alone they give its numbers
WRAPPERS = ("gemma3", "llava", "llava_next", "llava_onevision", "mistral3", "vipllava", "internvl")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_ATTENTION = (None, "eager", "sdpa", "flex_attention")
_OF_BLOCK = re.compile(r"(^|\.)(layers|h)\.\d+\.|lora_")  # a tensor of a block, or of an adapter
_TABLE = re.compile(r"(attn|attention)\.bias$|masked_bias$|inv_freq$|vision|visual|projector")  # computed, or of images
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model")
_ROPE = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "su")
ROTARY = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt_neox", "phi3")  # that turn queries and keys
# the model types that read a setting; the others pass over it
_READS = {
    "sliding_window": ("mistral", "qwen2", "qwen3", "gemma3_text", "phi3"),
    "rope": ROTARY,
    "final_logit_softcapping": ("gemma3_text",),
}
_NEUTRAL = {  # settings of other architectures, and the value at which they change nothing
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "logit_scale": 1.0,
    "logits_scaling": 1.0,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": None,
    "use_bidirectional_attention": False,
}


def check_names(names: Collection[str], name: str, base: str | None = None) -> None:
    """That the files of a folder or of a hub repository are those of one whole model that can be read.

    Parameters
    ----------
    names : the files beside each other, without folders; those with a "/" are passed over.
    name : the folder or repository, for messages.
    base : the model that an adapter among them says it belongs to, if that is known.

    Raises
    ------
    InputError
        There is an adapter, only pickled weights or only GGUF files, a shard or the tokenizer is missing, or there are
        two sets of weights.
    """
    here = sorted(n for n in names if "/" not in n)
    if any(n.startswith(("adapter_config.", "adapter_model.")) for n in here):
        of = f" '{base}'" if base else ""
        raise InputError(
            f"'{name}' holds an adapter ({ADAPTER}), which is not applied here: merge the adapter into its base{of} "
            "first (peft's merge_and_unload(), then save_pretrained) and give the folder of the merged model."
        )
    weights = [n for n in here if n.endswith(".safetensors")]
    ggufs = [n for n in here if n.lower().endswith(".gguf")]
    if ggufs and not (weights and CONFIG in here):
        raise InputError(
            f"'{name}' holds its weights as GGUF: name the file, in a folder '{name}/{ggufs[0]}'; one of a hub "
            f"is fetched first, with 'hf download {name} {ggufs[0]}', which prints its path."
        )
    if not weights and (pickled := [n for n in here if n.lower().endswith(_PICKLED)]):
        raise InputError(
            f"'{name}' holds its weights only as {pickled[0]}, and pickled weights are not read, since that can run "
            "code: where you trust them, load them with transformers and save them with save_pretrained(folder), which "
            "writes safetensors."
        )
    if CONFIG not in here or not weights:
        lacks = f"there is no {CONFIG}" if weights else "there are no .safetensors weights"
        raise InputError(
            f"'{name}' holds no model: it needs config.json, tokenizer files and .safetensors weights, and {lacks}."
        )
    _check_sets(here, weights, name)
    if not any(n in here for n in _TOKENIZERS) and not ("vocab.json" in here and "merges.txt" in here):
        raise InputError(
            f"'{name}' holds no tokenizer: it needs tokenizer.json, tokenizer.model, or vocab.json with merges.txt; "
            "copy the tokenizer files of the model that it was made from into it."
        )


def _check_sets(here: Collection[str], weights: Collection[str], name: str) -> None:
    """One set of weights, and all of it: `model.safetensors`, or shards with their index."""
    shards = {m[0]: (int(m[1]), int(m[2])) for m in map(_SHARD.fullmatch, weights) if m}
    totals = sorted({of for _, of in shards.values()})
    if SINGLE in weights and (INDEX in here or shards):
        other = INDEX if INDEX in here else min(shards)
        raise InputError(f"'{name}' holds two sets of weights, {SINGLE} and {other}: keep the files of one of them.")
    if len(totals) > 1:
        raise InputError(
            f"'{name}' holds shards of two sets of weights, of {totals[0]} and of {totals[1]} files: keep those of one."
        )
    for of in totals:
        lost = [f"model-{i:05d}-of-{of:05d}.safetensors" for i in range(1, of + 1)] if of <= len(shards) + 999 else []
        if lost := [shard for shard in lost if shard not in shards]:
            raise InputError(f"'{name}' lacks {lost[0]}{_more(lost)}: download the missing weights.")
    if shards and INDEX not in here:
        raise InputError(f"'{name}' holds shards of weights without {INDEX}: download that file as well.")
    if SINGLE not in weights and INDEX not in here:
        raise InputError(
            f"'{name}' holds weights called {min(weights)}, and what is read is {SINGLE}, or shards with {INDEX}: use "
            "the model in the form that transformers saves."
        )


def check_index(index: Mapping[str, Any], names: Collection[str], name: str) -> dict[str, str]:
    """The file of each tensor, by the index of shards; all of them lie beside it.

    Raises
    ------
    InputError
        The index names a file of another folder, one that is not there, or not all that are.
    """
    named = index.get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(n, str) and n == os.path.basename(n) for n in named.values()):
        raise InputError(f"'{name}/{INDEX}' names files outside its folder: use the model as it was published.")
    if lost := sorted(set(named.values()) - set(names)):
        raise InputError(f"'{name}' lacks {lost[0]}{_more(lost)}, which {INDEX} names: download the missing weights.")
    if left := sorted(n for n in names if _SHARD.fullmatch(n) and n not in named.values()):
        raise InputError(f"'{name}/{INDEX}' does not name {left[0]}: use index and weights of one model.")
    return named


def check_config(config: Mapping[str, Any], name: str, tensors: int | None = None, numbers: int | None = None) -> None:
    """That a config, as it is written, asks for no more than there is, and for nothing that is not read.

    Parameters
    ----------
    tensors, numbers : how many the weights hold; None where that is not known yet.

    Raises
    ------
    InputError
        More layers than `MAX_LAYERS` or than tensors, a model far larger than its weights, attention by code from
        elsewhere, heads that were pruned before, quantised weights, or a setting that changes numbers and is not read.
    """
    nested = config.get("text_config")
    text = nested if isinstance(nested, dict) else {}
    _check_origin(config, text, name)
    inner = {**config, **text}
    limit = MAX_LAYERS if tensors is None else min(MAX_LAYERS, tensors)
    kinds = inner.get("attention_types")  # GPT-Neo: [[["global", "local"], 12]]
    layers = [held[key] for held in (config, text) for key in LAYERS if key in held]
    layers += [pair[-1] for pair in kinds if isinstance(pair, list) and pair] if isinstance(kinds, list) else []
    if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= limit for n in layers):
        raise InputError(
            f"The config of '{name}' names layers that its weights do not have: use it as it was published."
        )
    asked = [held.get(key) for held in (config, text) for key in ("attn_implementation", "_attn_implementation")]
    if any(kind not in _ATTENTION for kind in asked):
        raise InputError(f"The config of '{name}' asks for attention by code from elsewhere: remove that line of it.")
    if "model_type" in inner:
        architecture_named(str(inner["model_type"]))
    _check_read(inner, str(config.get("model_type")), name)
    if numbers is not None and (wanted := _wanted(config)) is not None and wanted > TIMES * numbers + SPARE:
        raise InputError(
            f"The config of '{name}' is that of a model of {wanted:,} numbers and its weights hold {numbers:,}: use "
            "both as they were published."
        )


def _check_origin(config: Mapping[str, Any], text: Mapping[str, Any], name: str) -> None:
    """What was done to the weights before: pruned, quantised, put into a model of images."""
    if pruned := config.get("pruned_heads") or text.get("pruned_heads"):
        pairs = pruned.items() if isinstance(pruned, dict) else ()
        heads = [f"L{layer}H{h}" for layer, gone in pairs for h in (gone if isinstance(gone, list) else ())]
        raise InputError(
            f"The heads of pruned_heads in the config of '{name}' are gone from its weights, and transformers 5 cannot "
            "load such a model: give the model as it was before, with these heads pruned here"
            + (f" (--heads {','.join(heads)})." if heads else ".")
        )
    for key in ("quantization_config", "compression_config"):
        if quantised := config.get(key) or text.get(key):
            how = quantised if isinstance(quantised, dict) else {}
            bits = any("4bit" in k or "8bit" in k for k in how)
            method = how.get("quant_method") or ("bitsandbytes" if bits else "by a method that it does not name")
            raise InputError(
                f"The weights of '{name}' are quantised ({method}; see {key} in its config), which is not read here: "
                "use the model before it was quantised, or a GGUF of it."
            )
    if text and config.get("model_type") not in WRAPPERS:
        raise InputError(
            f"'{name}' is of the type '{config.get('model_type')}', a model around a text model, which is not taken "
            f"out of it here (only of {', '.join(WRAPPERS)}): load it with transformers, and save its text model and "
            "tokenizer with save_pretrained."
        )


def _check_read(config: Mapping[str, Any], outer: str, name: str) -> None:
    """Settings that change numbers are read by the model's type, or by the `outer` one around it, or refused."""
    kind = str(config.get("model_type"))
    for key, neutral in _NEUTRAL.items():
        if (value := config.get(key)) not in (None, neutral) and outer not in _READS.get(key, ()):
            raise InputError(
                f"The config of '{name}' sets {key} to {value}, which is not read for models of the type '{outer}': "
                "use the model as it was published."
            )
    window, positions = config.get("sliding_window"), config.get("max_position_embeddings")
    used = config.get("use_sliding_window") is not False and kind not in _READS["sliding_window"]
    if isinstance(window, int) and used and not (isinstance(positions, int) and window >= positions):
        raise InputError(
            f"The config of '{name}' sets sliding_window to {window}, which is not read for models of the type "
            f"'{kind}': use the model as it was published."
        )
    for key, rope in _rotary(config):
        scaled = rope.get("rope_type", rope.get("type", "default"))
        if scaled not in _ROPE or (scaled != "default" and kind not in _READS["rope"]):
            raise InputError(
                f"The config of '{name}' scales its rotary embeddings by '{scaled}' ({key}), which is not read for "
                f"models of the type '{kind}': use the model as it was published."
            )


def _rotary(config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The settings of rotary embeddings in a config; those of Gemma 3 stand by kind of layer."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for key in ("rope_scaling", "rope_parameters"):
        held = config.get(key)
        if isinstance(held, dict):
            nested = [(f"{key}.{at}", one) for at, one in held.items() if isinstance(one, dict)]
            found += nested or [(key, held)]
    return found


def check_folder(folder: Path, weights: Iterable[Path]) -> None:
    """That a folder holds one whole model, that its config fits the weights beside it, and that its files are its own.

    Raises InputError, which names the file.
    """
    names = _names(folder)
    base = settings(folder / ADAPTER).get("base_model_name_or_path") if ADAPTER in names else None
    config = settings(folder / CONFIG) if CONFIG in names else {}
    check_config(config, str(folder))  # what it is, before what it lacks
    check_names(names, str(folder), base if isinstance(base, str) else None)
    for path in (folder / n for n in names if n in SMALL or n.endswith(".model")):
        check_start(path)
    held = {path.name: tensors(path) for path in weights}
    if INDEX in names:
        for tensor, file in check_index(settings(folder / INDEX), names, str(folder)).items():
            if tensor not in held.get(file, ()):
                raise InputError(f"'{folder / file}' lacks {tensor}, which {INDEX} names: download both again.")
    _check_tensors(folder, held)
    counts = [tensor.numbers for file in held.values() for tensor in file.values()]
    check_config(config, str(folder), len(counts), sum(counts))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"'{folder}' cannot be read ({error.strerror}): check who may read it.") from error


def _check_tensors(folder: Path, held: Mapping[str, Mapping[str, Tensor]]) -> None:
    """No tensor in two shards, and none that is packed."""
    found: dict[str, str] = {}
    for file, parts in held.items():
        for tensor, told in parts.items():
            if _SHARD.fullmatch(file) and found.setdefault(tensor, file) != file:
                raise InputError(
                    f"'{folder}' holds {tensor} in {found[tensor]} and in {file}: use shards of one model."
                )
            if told.dtype.startswith(("F8", "F4", "F6")) or tensor.endswith((".qweight", ".weight_packed", ".SCB")):
                raise InputError(
                    f"The weights of '{folder}' are quantised ({tensor} in {file}), which is not read here: use the "
                    "model before it was quantised, or a GGUF of it."
                )


def _more(lost: list[str]) -> str:
    return f" and {len(lost) - 1} more" if len(lost) > 1 else ""


def _wanted(config: Mapping[str, Any]) -> int | None:
    """Parameters and tables of the model that a config describes, built without memory; None if it cannot be built."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        given = {name: value for name, value in config.items() if name not in ("model_type", "quantization_config")}
        built = AutoConfig.for_model(str(config.get("model_type")), **given)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(built, trust_remote_code=False)
        return sum(int(t.numel()) for held in (model.parameters(), model.buffers()) for t in held)
    except Exception:  # the loader will say what is wrong with it
        return None


def text_of(config: Any) -> tuple[Any, dict[str, str] | None]:
    """A transformers config's text model, and how its weights are called in the whole; (itself, None) if it is one."""
    text = config.get_text_config()
    if text is config:
        return config, None
    text.tie_word_embeddings = config.tie_word_embeddings
    return text, {
        r"^(model\.)?language_model\.lm_head\.": "lm_head.",
        r"^language_model\.model\.": "model.",
        r"^(model\.)?language_model\.": "model.",
    }


def check_loaded(loading: Mapping[str, Any]) -> None:
    """That the weights and the model are of one shape, by what a loader says of them.

    Weights that a file lacks would be random numbers, and those that the model has no place for would be left out; a
    model of either kind still runs.

    Raises ValueError where they are not.
    """
    if lost := loading.get("missing_keys"):
        raise ValueError(f"the weights lack {min(lost)}")
    if wrong := loading.get("mismatched_keys"):
        key, there, wanted = min(wrong)
        raise ValueError(f"{key} is of shape {list(there)} in the weights and {list(wanted)} by the config")
    if left := [key for key in loading.get("unexpected_keys", ()) if _OF_BLOCK.search(key) and not _TABLE.search(key)]:
        raise ValueError(f"the weights hold {min(left)}, for which the config has no place")
