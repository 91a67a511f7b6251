"""How a tokenizer spells: the text behind each token, and which tokens begin, are or continue a word.

Three marks tell where words begin: "Ġ" of byte-level BPE, "▁" of SentencePiece, and "##" of WordPiece, which marks what
continues one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fasp_core.errors import InputError
from fasp_core.model.language_model import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")  # letters, with apostrophes or hyphens inside
PIECE = re.compile(r"['’-]|['’-]?[^\W\d_]+(?:['’-][^\W\d_]+)*['’-]?")  # a doubled hyphen is a dash and ends a word
JOINTS = "'’-"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # SentencePiece's spelling of a byte


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokens that spell a whole word (letters, apostrophes or hyphens inside): {token id: word}, by id.

    A token is whole if it begins with the mark of a word's beginning: "Ġ" in byte-level BPE, "▁" in
    SentencePiece; in WordPiece, if it lacks the mark of a continuation, "##". Special tokens are not words.

    Raises as `token_texts`.
    """
    texts, _ = token_texts(tokenizer)
    return {i: text[1:] for i, text in texts.items() if text[:1] == " " and WORD.fullmatch(text[1:])}


def fresh_after(lm_or_tokenizer: LanguageModel | PreTrainedTokenizerBase) -> NDArray[np.bool_]:
    """[V] whether a word begins afresh after a token, even without a mark.

    So it is unless the token's text ends in a letter, digit, apostrophe or hyphen, or inside a character.

    Raises as `token_texts`.
    """
    tokenizer: Any = getattr(lm_or_tokenizer, "tokenizer", lm_or_tokenizer)
    texts, _ = token_texts(tokenizer)
    fresh = np.zeros(vocab_size(lm_or_tokenizer), dtype=bool)
    for i, text in texts.items():
        fresh[i] = not (text[-1:].isalnum() or (text[-1:] and text[-1:] in JOINTS))
    fresh[list(tokenizer.all_special_ids)] = True
    return fresh


def vocab_size(lm_or_tokenizer: Any) -> int:
    tokenizer: Any = getattr(lm_or_tokenizer, "tokenizer", lm_or_tokenizer)
    model: Any = getattr(lm_or_tokenizer, "model", None)
    rows = model.get_output_embeddings().weight.shape[0] if hasattr(model, "get_output_embeddings") else 0
    return max(rows, len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))


def token_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[int, str], str]:
    """{token id: text} by id, a space before a word's beginning, and the mark in use. Not to be changed.

    Left out are special tokens and those that are no whole characters.

    Raises
    ------
    InputError
        The tokenizer uses none of the marks.
    """
    special = frozenset(tokenizer.all_special_ids)
    state = (len(tokenizer), special)  # a vocabulary only ever grows
    if tokenizer not in _read or _read[tokenizer][0] != state:
        _read[tokenizer] = (state, _read_texts(tokenizer, special))
    return _read[tokenizer][1]


def _read_texts(tokenizer: PreTrainedTokenizerBase, special: frozenset[int]) -> tuple[dict[int, str], str]:
    vocab = tokenizer.get_vocab()
    uses = {mark: sum(token.startswith(mark) for token in vocab) for mark in ("Ġ", "▁", "##")}
    mark = max(uses, key=lambda m: uses[m])
    if not uses[mark]:
        raise InputError("This tokenizer does not mark where words begin: use the sampled measure of toxicity.")
    texts = {i: _text(token, mark) for token, i in sorted(vocab.items(), key=lambda item: item[1]) if i not in special}
    return {i: text for i, text in texts.items() if text is not None}, mark


def _text(token: str, mark: str) -> str | None:
    if mark == "##":
        return token[2:] if token.startswith(mark) else " " + token
    if mark == "▁":
        if byte := _BYTE_TOKEN.fullmatch(token):
            code = int(byte[1], 16)
            return chr(code) if code < 0x80 else None
        return " " + token[1:] if token.startswith(mark) else token
    if any(char not in _BYTES for char in token):
        return token  # added to the vocabulary as it is
    try:
        return bytes(_BYTES[char] for char in token).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _byte_alphabet() -> dict[str, int]:
    """The byte behind each character of byte-level BPE (GPT-2's encoder, Radford et al., 2019).

    Printable Latin-1 stands for itself; the other bytes follow, in their order, from U+0100 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(moved)}


_BYTES = _byte_alphabet()
_read: WeakKeyDictionary[Any, tuple[Any, tuple[dict[int, str], str]]] = WeakKeyDictionary()  # large ones take seconds
