"""What a tokenizer puts around a text, what ends one, and how written tokens become text again.

Every model is begun as its own tokenizer begins a text, found by encoding one: what stands in a config is not always
what is done. What a tokenizer adds after a text (an end, a separator) would say that nothing follows, so it is left
out wherever something is to follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fasp_core.errors import InputError

BEGINNINGS = ("auto", "yes", "no")
_PROBES = ("a", "The", "1", ".")  # some tokenizers know few words
_ENDS = ("eos", "eot", "eom", "eod", "end_of")  # how names of special tokens that end a text or a turn begin


@dataclass(frozen=True)
class Framing:
    """What stands around each text.

    Attributes
    ----------
    begin : ids before every prompt and every window of text.
    bos : these as text; "no <bos>" where the tokenizer would put <bos> and was told not to; else "".
    end : ids that the tokenizer would put after a text; they are left out.
    strips : whether text that is decoded by itself loses the space before its first word.
    """

    begin: tuple[int, ...] = ()
    bos: str = ""
    end: tuple[int, ...] = ()
    strips: bool = False


def framing(tokenizer: Any, beginning: str = "auto") -> Framing:
    """What one tokenizer puts around a text.

    Parameters
    ----------
    beginning : "auto" (as the tokenizer does), "yes" (its beginning token, also where it adds none) or "no".

    Raises
    ------
    InputError
        A beginning token is asked for and the tokenizer has none.
    """
    begin, end = _added(tokenizer)
    strips = _strips(tokenizer)
    if beginning == "no":
        return Framing((), f"no {_named(tokenizer, begin)}" if begin else "", end, strips)
    if beginning == "yes" and not begin:
        bos = getattr(tokenizer, "bos_token_id", None)
        if bos is None:
            raise InputError("This model's tokenizer has no beginning token: leave --bos at auto, or say no.")
        begin = (int(bos),)
    return Framing(begin, _named(tokenizer, begin), end, strips)


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text and nothing around it."""
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def stop_ids(tokenizer: Any, model: Any) -> tuple[frozenset[int], bool]:
    """Every token that ends a text or a turn, by tokenizer, config or generation config, and whether the generation
    config or a special token with a name of its own adds to what the end tokens of tokenizer and config are."""
    common = _ids(getattr(tokenizer, "eos_token_id", None)) | _ids(getattr(model.config, "eos_token_id", None))
    found = common | _ids(getattr(getattr(model, "generation_config", None), "eos_token_id", None))
    for name, token in dict(getattr(tokenizer, "special_tokens_map", None) or {}).items():
        if name.startswith(_ENDS) and isinstance(token, str):
            found |= _ids(tokenizer.convert_tokens_to_ids(token))
    return frozenset(found), found != common


def rules(tokenizer: Any, model: Any, framed: Framing) -> str:
    """What is done with texts beside what an end token of tokenizer or config says; "" for most models.

    It is a part of the model's identity, so that no result made otherwise is taken for one made so.
    """
    found = []
    if framed.end:
        found.append(f"no {_named(tokenizer, framed.end)} after a text")
    stops, more = stop_ids(tokenizer, model)
    if more:
        found.append(f"ends at {' '.join(map(str, sorted(stops)))}")
    if framed.strips:
        found.append("spaces before continuations kept")
    return "; ".join(found)


def continuation(tokenizer: Any, before: Sequence[int], ids: Sequence[int], strips: bool) -> str:
    """Tokens that were written after others, as text without special tokens, the space at the join included.

    Parameters
    ----------
    strips : see `Framing`; where nothing is stripped, `ids` are decoded by themselves.
    """

    def decoded(row: Sequence[int]) -> str:
        return str(tokenizer.decode(list(row), skip_special_tokens=True))

    if not strips or not before:
        return decoded(ids)
    head, whole = decoded(before), decoded([*before, *ids])
    return whole[len(head) :] if whole.startswith(head) else decoded(ids)


def _added(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that the tokenizer puts before and after a text."""
    for probe in _PROBES:
        whole, text = list(tokenizer(probe).input_ids), plain_ids(tokenizer, probe)
        if not text:
            continue
        for at in range(len(whole) - len(text) + 1):
            if whole[at : at + len(text)] == text:
                return tuple(map(int, whole[:at])), tuple(map(int, whole[at + len(text) :]))
    return (), ()


def _strips(tokenizer: Any) -> bool:
    for probe in _PROBES:
        ids = plain_ids(tokenizer, f"{probe} {probe}")
        if len(ids) > 1:
            cut = len(plain_ids(tokenizer, probe))
            head, tail, whole = (tokenizer.decode(part) for part in (ids[:cut], ids[cut:], ids))
            return bool(head + tail != whole)
    return False


def _named(tokenizer: Any, ids: Sequence[int]) -> str:
    return "".join(map(str, tokenizer.convert_ids_to_tokens(list(ids))))


def _ids(value: Any) -> set[int]:
    values = value if isinstance(value, list | tuple | set) else [value]
    return {int(v) for v in values if isinstance(v, int) and v >= 0}
