"""An export for readers of transformers 4.5x: the fields that these look at, and whether they read the same model.

transformers 5 writes rotary embeddings as `rope_parameters` and names a tokenizer class of its own. Version 4.57 reads
neither: it takes the usual base and no scaling, silently, and does not know the class. What it reads is written beside.
Sources: `configuration_*.py`, `modeling_rope_utils.py` and `tokenization_utils_base.py` of 4.57.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fasp_core.model.model_files import ROTARY

OLDER = "4.57"
TOKENIZER = "PreTrainedTokenizerFast"  # reads tokenizer.json as it is, in all versions
_BASES = {"gemma3_text": 1_000_000.0}  # that 4.57 takes where none is named; otherwise 10,000
_IGNORED = ("type", "rope_type", "rope_theta", "partial_rotary_factor")


def write_older(folder: Path) -> None:
    """Add to `config.json` and `tokenizer_config.json` what readers before version 5 look at."""
    path = folder / "config.json"
    settings = json.loads(path.read_bytes())
    _save(path, settings | older_fields(settings))
    path = folder / "tokenizer_config.json"
    if path.is_file() and (folder / "tokenizer.json").is_file():
        named = json.loads(path.read_bytes())
        named["tokenizer_class"] = TOKENIZER
        if isinstance(
            extra := named.pop("extra_special_tokens", None), list
        ):  # 4.57 reads a list under this name alone
            named["additional_special_tokens"] = extra
        elif extra:
            named["extra_special_tokens"] = extra
        for key in ("backend", "is_local", "local_files_only"):  # of the machine that wrote it
            named.pop(key, None)
        _save(path, named)


def _save(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def older_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fields beside those of a config.json of version 5."""
    kind, added = settings["model_type"], {"torch_dtype": settings["dtype"]} if "dtype" in settings else {}
    rope = settings.get("rope_parameters")
    if kind not in ROTARY or not isinstance(rope, dict):
        return added
    if kind == "gemma3_text":
        local = rope["sliding_attention"]
        added["rope_local_base_freq"] = local["rope_theta"]
        rope = rope["full_attention"]
    base, part = rope["rope_theta"], rope.get("partial_rotary_factor")
    if kind == "gpt_neox":
        added |= {"rotary_emb_base": base, "rotary_pct": 0.25 if part is None else part}
    else:
        added |= {"rope_theta": base} | ({} if part is None else {"partial_rotary_factor": part})
    scaling = {key: value for key, value in rope.items() if key not in _IGNORED}
    how = rope.get("rope_type", "default")
    if how == "default":
        return added
    if kind == "phi3":  # which takes these three and no other
        grows = scaling.get("attention_factor")
        scaling = {"type": how, "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
        if grows is not None and not math.isclose(grows, _attention(scaling, settings), rel_tol=1e-6):
            scaling["attention_factor"] = grows  # refused there, which is better than another model
    else:
        scaling = {"rope_type": how, **scaling}
        if how == "longrope":  # read beside the scaling
            added["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
            scaling.setdefault("attention_factor", _attention(rope, settings))
    return added | {"rope_scaling": scaling}


def differs(settings: Mapping[str, Any]) -> str:
    """Why version 4.57 would read another model, or none, from a config.json; "" if it reads the same.

    What is compared is what each version would compute rotary embeddings from, by the fields that it reads and the
    defaults that it takes; all other fields have one name and one meaning in both.
    """
    kind = settings["model_type"]
    if kind not in ROTARY:
        return ""
    rope = settings["rope_parameters"]
    nested = (
        {"full": rope["full_attention"], "local": rope["sliding_attention"]}
        if kind == "gemma3_text"
        else {"full": rope}
    )
    usual = _BASES.get(kind, 10_000.0)
    scaling = settings.get("rope_scaling") or {}
    base, part = ("rotary_emb_base", "rotary_pct") if kind == "gpt_neox" else ("rope_theta", "partial_rotary_factor")
    found = {
        "full": {
            **scaling,
            "rope_theta": settings.get(base, usual),
            "partial_rotary_factor": settings.get(part, 0.25 if kind == "gpt_neox" else 1.0),
        }
    }
    if kind == "gemma3_text":
        found["local"] = {"rope_theta": settings.get("rope_local_base_freq", 10_000.0)}
    for place, now in nested.items():
        if _meant(now, settings, kind) != _meant(found[place], settings, kind):
            return f"transformers {OLDER} would compute its rotary embeddings in another way"
    if kind == "phi3" and "attention_factor" in scaling:
        return f"transformers {OLDER} refuses rotary embeddings of Phi-3 that grow by a factor of their own"
    return ""


def versions(folder: Path) -> dict[str, str]:
    """The version of transformers that is here, the older one whose fields are looked at, and how that one differs."""
    import transformers

    settings = json.loads((folder / "config.json").read_bytes())
    return {"loaded": transformers.__version__, "fields": OLDER, "differs": differs(settings)}


def _meant(rope: Mapping[str, Any], settings: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What rotary embeddings are computed from, with defaults filled in."""
    how = rope.get("rope_type", rope.get("type", "default"))
    found = {key: value for key, value in rope.items() if key not in _IGNORED and value is not None}
    found |= {"how": how, "base": float(rope["rope_theta"]), "part": float(rope.get("partial_rotary_factor") or 1.0)}
    if kind == "gpt_neox":
        found["part"] = float(rope.get("partial_rotary_factor") or 0.25)
    if how == "longrope":
        original = settings.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
        found |= {
            "original_max_position_embeddings": original,
            "attention_factor": round(_attention(rope, settings), 6),
        }
        found.pop("factor", None)  # only by way of the attention's factor
    return found


def _attention(rope: Mapping[str, Any], settings: Mapping[str, Any]) -> float:
    """By how much long rotary embeddings grow, as both versions infer it."""
    if (given := rope.get("attention_factor")) is not None:
        return float(given)
    original = settings.get("original_max_position_embeddings") or rope["original_max_position_embeddings"]
    factor = rope.get("factor") or settings["max_position_embeddings"] / original
    return 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))
