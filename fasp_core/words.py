"""The scorer's value of every token that begins a word: the value of the word that the model would make of it.

A next-word distribution is one over tokens, and a token need not be a word: "Ġnig" begins "nigerian", "Ġfag" may go
on with "got". So a token's value is the expected value of the *completed* word, over the completions that the base
model itself gives in a neutral context:

    a(v) = P(word ends | v) value(v) + sum_u P(u | v) value(v u ...)

`u` are the likeliest pieces that may follow; what follows them is the likeliest path. The same completions hold for
every prompt and every pruned model: what is measured is which words a model begins.

A word's value counts from the scorer's floor f, its value of a typical word (the median over the vocabulary's whole
words), as clip((score - f) / (1 - f), 0, 1). Otherwise a sum over words would mostly measure how probable it is that
a word follows at all.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasp_core.errors import InputError
from fasp_core.models import LanguageModel
from fasp_core.passes import in_halves, require_finite, two
from fasp_core.toxicity import Scorer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTEXTS = ("The next word is", 'The next word is "')  # any part of speech may follow; the quote starts afresh
KEPT = 0.01  # least probability of a piece that is followed up
DEEPER = 0.05  # least probability of a piece whose own continuation is asked for
MORE = 3  # pieces after that one, at most
BATCH = 512  # tokens completed at once
CHUNK = 128  # rows whose logits exist at once

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")  # letters, with apostrophes or hyphens inside
PIECE = re.compile(r"['’-]|['’-]?[^\W\d_]+(?:['’-][^\W\d_]+)*['’-]?")  # a doubled hyphen is a dash and ends a word
JOINTS = "'’-"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # SentencePiece's spelling of a byte

Words = list[tuple[str, float]]  # what a token becomes, with probabilities that sum to 1
Report = Callable[[float, float, str], None]  # (done, total, what is going on)


@dataclass(frozen=True, eq=False)
class WordValues:
    """The value of every token of a vocabulary, above the scorer's floor.

    Attributes
    ----------
    values : [2, 2, V] float32 in [0, 1], read-only; 0 for tokens that begin no word. First the place: 0 `mid`, only
        tokens with the mark of a word's beginning begin one; 1 `fresh` (see `fresh_after`), unmarked letters do too.
        Then the reading: 0 neutral, with 0 for identity words; 1 counted.
    floor : the scorer's value of a typical word, in [0, 1].
    n_words, n_neutral : tokens that begin a word in a fresh place, and those that are neutral words by themselves.
    n_completed : those of them that may go on (with probability above .05).
    digest : 16 hex digits of the values and the scorer's name; names cache entries.
    """

    values: NDArray[np.float32]
    floor: float
    n_words: int
    n_neutral: int
    n_completed: int
    digest: str


def word_values(
    lm: LanguageModel,
    scorer: Scorer,
    neutral_words: frozenset[str] = frozenset(),
    *,
    complete: bool = True,
    top: int = 6,
    progress: Report | None = None,
) -> WordValues:
    """Score every token that begins a word by the words that the model, as it is, completes it to.

    Parameters
    ----------
    lm : without masks. Its tokenizer is byte-level BPE, SentencePiece or WordPiece.
    scorer : asked once for every different word.
    neutral_words : words, in any letter case, whose value is 0 in the neutral reading; so are their possessives and
        hyphened words made of them alone.
    complete : False takes each token as a whole word: no model pass.
    top : completing pieces kept for a token, the likeliest.

    Returns
    -------
    WordValues of length V, the largest of the embedding's rows (it may be padded), `len(tokenizer)` and the highest
    token id + 1.

    Raises
    ------
    InputError
        The tokenizer does not mark where words begin.
    """
    texts, mark = _texts(lm.tokenizer)
    marked = whole_words(lm.tokenizer)
    unmarked = {} if mark == "##" else {i: text for i, text in texts.items() if WORD.fullmatch(text)}
    singles = marked | unmarked
    becomes: dict[int, Words] = {i: [(word, 1.0)] for i, word in singles.items()}
    n_completed = 0
    if complete:
        n_rows = lm.model.get_output_embeddings().weight.shape[0]  # tokens beyond have no embedding
        pieces = {i: text for i, text in texts.items() if i < n_rows and PIECE.fullmatch(text)}
        usable = [[i for i in group if i < n_rows] for group in (marked, unmarked)]
        done, total = 0, sum(map(len, usable))
        for context, ids in zip(CONTEXTS, usable, strict=True):
            for start in range(0, len(ids), BATCH):
                part = ids[start : start + BATCH]

                def run(ids: list[int], context: str = context) -> list[tuple[float, Words]]:
                    return completions(lm, context, ids, pieces, top)

                completed = chain.from_iterable(in_halves(lm, run, part, two, "the completions of a single word"))
                for i, (go_on, found) in zip(part, completed, strict=True):
                    becomes[i] = [((singles[i] + rest).rstrip(JOINTS), p) for rest, p in found]
                    n_completed += go_on > 0.05
                done += len(part)
                if progress is not None:
                    progress(done, total, f"completing words: {done} of {total}")

    words = list(dict.fromkeys([*singles.values(), *(word for found in becomes.values() for word, _ in found)]))
    score = dict(zip(words, scorer.score(words).tolist(), strict=True)) if words else {}
    floor = float(np.median([score[word] for word in marked.values()])) if marked else 0.0
    value = {word: min(max((s - floor) / (1 - floor), 0.0), 1.0) if floor < 1 else 0.0 for word, s in score.items()}
    lowered = frozenset(word.lower() for word in neutral_words)
    hushed = {word for word in words if _is_neutral(word, lowered)}

    values = np.zeros((2, 2, _vocab_size(lm)), dtype=np.float32)
    for i, found in becomes.items():
        means = [sum(p * value[w] for w, p in found if w not in hushed), sum(p * value[w] for w, p in found)]
        values[0 if i in marked else 1 :, :, i] = np.clip(means, 0, 1)
    values.setflags(write=False)  # the digest must stay true
    digest = hashlib.sha256(f"{scorer.name}\0".encode() + values.tobytes()).hexdigest()[:16]
    n_neutral = sum(word in hushed for word in singles.values())
    return WordValues(values, floor, len(singles), n_neutral, n_completed, digest)


@torch.no_grad()
def completions(
    lm: LanguageModel, context: str, ids: Sequence[int], pieces: dict[int, str], top: int = 6
) -> list[tuple[float, Words]]:
    """How the model goes on after `context` and each of the tokens `ids`.

    Parameters
    ----------
    pieces : {token id: spelling} of the tokens that continue a word. Any other token ends it.

    Returns
    -------
    For each token: the probability that its word goes on, and what is added to it, "" if nothing, with
    probabilities that sum to 1. Pieces that are not kept lend their probability to those that are; if none is
    kept, the word ends.
    """
    if not pieces:
        return [(0.0, [("", 1.0)]) for _ in ids]
    continuing = torch.tensor(sorted(pieces), device=lm.device)

    def step(cache: Any, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probability to go on [n], and the likeliest pieces, [n, top] probabilities and ids, after one more token."""
        cache.batch_select_indices(rows)  # on the CPU: a spread model's cache lies on several devices
        out = lm.model.base_model(tokens[:, None].to(lm.device), past_key_values=cache, use_cache=True)
        mass, p, best = [], [], []
        for hidden in out.last_hidden_state[:, -1].split(CHUNK):
            logits = lm.logits(hidden)
            chances = (logits[:, continuing] - logits.logsumexp(-1, keepdim=True)).exp()
            chance, which = chances.topk(min(top, len(continuing)))
            mass.append(chances.sum(-1))
            p.append(chance)
            best.append(continuing[which])
        going_on = torch.cat(mass).cpu()
        require_finite(lm, going_on.numpy(), "the completions of words", torch.tensor([lm.encode(context)]))
        return going_on, torch.cat(p).cpu(), torch.cat(best).cpu()

    with lm.lock:
        cache = copy.deepcopy(_context_cache(lm, context))
        mass, p, best = step(cache, torch.zeros(len(ids), dtype=torch.long), torch.tensor(ids))
        kept = p >= KEPT
        rests = [[pieces[int(u)] for u in row] for row in best]
        rows, columns = torch.nonzero(kept & (p >= DEEPER), as_tuple=True)
        places, tokens = list(zip(rows.tolist(), columns.tolist(), strict=True)), best[rows, columns]
        for _ in range(MORE):
            if not places:
                break
            go_on, _, next_best = step(cache, rows, tokens)
            rows = torch.nonzero(go_on > 0.5)[:, 0]
            places, tokens = [places[r] for r in rows.tolist()], next_best[rows, 0]
            for (i, j), token in zip(places, tokens.tolist(), strict=True):
                rests[i][j] += pieces[token]

    shares = torch.where(kept, p, 0).double()
    found: list[tuple[float, Words]] = []
    for m, row, rest in zip(mass.double().clamp(max=1).tolist(), shares.tolist(), rests, strict=True):
        whole = sum(row)
        ending = 1 - m if whole else 1.0
        words = [(text, m * share / whole) for text, share in zip(rest, row, strict=True) if share]
        found.append((m, [("", ending), *words]))
    return found


def _context_cache(lm: LanguageModel, context: str) -> Any:
    ids = torch.tensor([lm.encode(context)], device=lm.device)
    return lm.model.base_model(ids, use_cache=True).past_key_values


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokens that spell a whole word (letters, apostrophes or hyphens inside): {token id: word}, by id.

    A token is whole if it begins with the mark of a word's beginning: "Ġ" in byte-level BPE, "▁" in
    SentencePiece; in WordPiece, if it lacks the mark of a continuation, "##". Special tokens are not words.

    Raises
    ------
    InputError
        The tokenizer uses none of these marks.
    """
    texts, _ = _texts(tokenizer)
    return {i: text[1:] for i, text in texts.items() if text[:1] == " " and WORD.fullmatch(text[1:])}


def fresh_after(lm_or_tokenizer: LanguageModel | PreTrainedTokenizerBase) -> NDArray[np.bool_]:
    """[V] whether a word begins afresh after a token, even without a mark.

    So it is unless the token's text ends in a letter, digit, apostrophe or hyphen, or inside a character.

    Raises
    ------
    InputError
        The tokenizer does not mark where words begin.
    """
    tokenizer: Any = getattr(lm_or_tokenizer, "tokenizer", lm_or_tokenizer)
    texts, _ = _texts(tokenizer)
    fresh = np.zeros(_vocab_size(lm_or_tokenizer), dtype=bool)
    for i, text in texts.items():
        fresh[i] = not (text[-1:].isalnum() or (text[-1:] and text[-1:] in JOINTS))
    fresh[list(tokenizer.all_special_ids)] = True
    return fresh


def is_fresh(lm_or_tokenizer: LanguageModel | PreTrainedTokenizerBase, token_id: int) -> bool:
    """Whether a word begins afresh after this token; for many tokens, `fresh_after` reads the vocabulary once."""
    return bool(fresh_after(lm_or_tokenizer)[token_id])


def _vocab_size(lm_or_tokenizer: Any) -> int:
    tokenizer: Any = getattr(lm_or_tokenizer, "tokenizer", lm_or_tokenizer)
    model: Any = getattr(lm_or_tokenizer, "model", None)
    rows = model.get_output_embeddings().weight.shape[0] if hasattr(model, "get_output_embeddings") else 0
    return max(rows, len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))


def _is_neutral(word: str, neutral: frozenset[str]) -> bool:
    """Whether the word, its possessor or each of its hyphened parts is one of `neutral` (in lower case)."""
    word = word.lower()
    stem = re.sub(r"['’]s$", "", word)
    return word in neutral or stem in neutral or all(part in neutral for part in stem.split("-"))


def _texts(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[int, str], str]:
    """{token id: text} by id, a space before a word's beginning, and the mark in use.

    Left out are special tokens and those that are no whole characters.
    """
    vocab = tokenizer.get_vocab()
    uses = {mark: sum(token.startswith(mark) for token in vocab) for mark in ("Ġ", "▁", "##")}
    mark = max(uses, key=lambda m: uses[m])
    if not uses[mark]:
        raise InputError("This tokenizer does not mark where words begin: use the sampled measure of toxicity.")
    special = set(tokenizer.all_special_ids)
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
