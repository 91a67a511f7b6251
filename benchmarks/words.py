"""Time of the values of words: completions stored, by need, or all made; and how it grows with the vocabulary.

`python -m benchmarks words --json`
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models

from benchmarks._common import about, memory, say
from benchmarks._shapes import random_llama
from fasp_core.data import holistic_bias
from fasp_core.data.scorers import Scorer
from fasp_core.metrics.completing import CONTEXTS, DEEPER, KEPT, MORE, TOP, Words, complete_all
from fasp_core.metrics.meters import scorer_for, stored_completions, stored_word_values
from fasp_core.metrics.spelling import JOINTS
from fasp_core.metrics.token_toxicity import Vocabulary, WordScores, word_values
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store

SIZES = (30_000, 60_000, 120_000, 260_000)
KNOWN = 0.07  # share of scorers' words, whole or begun, among the words that a larger vocabulary has more
LETTERS = "abdeghiklmnoprstuvz"


def run(
    lm: LanguageModel | None = None,
    scorer: Scorer | None = None,
    store: Store | None = None,
    sizes: Sequence[int] = SIZES,
    width: int = 64,
    sample: int = 48,
    timed: int = 1024,
) -> dict[str, Any]:
    """Seconds for the built-in model, the exponent of time in the vocabulary, and differences from the definition.

    Parameters
    ----------
    sizes : of the vocabularies that the exponent is fitted over: this model's tokens in their order, then words of
        random syllables, with a share `KNOWN` of the scorer's words and their beginnings.
    width : of the random model that has them; its blocks hold as much beside the unembedding as Gemma 3 270M's. The
        exponent is that of processor time, which other programs on the machine disturb less.
    sample : tokens worth something whose value is taken from the definition, by whole passes in float64.
    timed : tokens that all completed is timed on; the time of all is extrapolated.
    """
    lm, scorer, store = lm or load(ModelSpec()), scorer or scorer_for("offline"), store or Store()
    neutral, spelled = holistic_bias.identity_words(), Vocabulary.of(lm)
    known = stored_completions(lm, store)
    started, worked = time.perf_counter(), time.process_time()
    values = word_values(lm, scorer, neutral, known=lambda: known)
    seconds, busy = time.perf_counter() - started, time.process_time() - worked
    say(f"words: {seconds:.1f} s with stored completions")

    started, worked = time.perf_counter(), time.process_time()
    some = word_values(lm, scorer, neutral, by_need=True)
    by_need, by_need_busy = time.perf_counter() - started, time.process_time() - worked
    say(f"words: {by_need:.1f} s by need")
    rng = random.Random(0)
    drawn = [rng.sample(group, min(timed // 2, len(group))) for group in spelled.groups]
    started = time.perf_counter()
    complete_all(lm, drawn, spelled.pieces)
    share = sum(map(len, spelled.groups)) / sum(map(len, drawn))
    whole = (time.perf_counter() - started) * share
    say(f"words: {whole:.0f} s for all, extrapolated")

    worth_something = np.flatnonzero(values.values[1, 1]).tolist()
    tokens = rng.sample(worth_something, min(sample, len(worth_something)))
    exact = defined(lm, scorer, spelled, tokens)
    growth = [grown(lm, scorer, size, width) for size in sizes]
    sizes, times = ([row[name] for row in growth] for name in ("words", "processor_seconds"))
    slope = np.polyfit(np.log(sizes), np.log(times), 1)[0]
    kept = stored_word_values(lm, scorer, store)
    return {
        "seconds_built_in": seconds,
        "exponent_vocabulary": float(slope),
        "max_abs_diff": float(max(abs(values.values[1, 1, i] - exact[i]) for i in tokens)),
        "max_abs_diff_of": f"{len(tokens)} tokens worth something, against whole passes in float64",
        "max_abs_diff_stored": float(np.abs(values.values - kept.values).max()),
        "seconds_by_need": by_need,
        "processor_seconds": {"built_in": busy, "by_need": by_need_busy},
        "by_need": {
            "left_out": some.n_left_out,
            "of": len(spelled.words),
            "differ": int((np.abs(some.values - values.values)[1, 1] > 1e-5).sum()),
            "max_abs_diff": float(np.abs(some.values - values.values).max()),
            "largest_left_out_in_sample": some.largest_left_out,
            "largest_inexact_in_sample": some.largest_inexact,
            "seen_of_vocabulary": some.n_seen,
        },
        "seconds_all": whole,
        "all_timed_on": sum(map(len, drawn)),
        "growth": growth,
        "peak_bytes": memory()[1],
        **about(lm),
    }


def defined(lm: LanguageModel, scorer: Scorer, spelled: Vocabulary, tokens: Iterable[int]) -> dict[int, float]:
    """Counted values of tokens by the definition: whole passes in float64, a token at a time."""
    model = copy.deepcopy(lm.model).double()
    pieces = sorted(spelled.pieces)

    def after(context: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return torch.as_tensor(model(torch.tensor([context], device=lm.device)).logits[0, -1].softmax(-1).cpu())

    found: dict[int, Words] = {}
    for token in tokens:
        word = spelled.words[token]
        start = [*lm.encode(CONTEXTS[token not in spelled.marked]), token]
        chances = after(start)[pieces]
        p, which = chances.topk(min(TOP, len(pieces)))
        mass, shares = float(chances.sum()), [(q, pieces[i]) for q, i in zip(p.tolist(), which.tolist(), strict=True)]
        shares = [(q, piece) for q, piece in shares if q >= KEPT]
        whole = sum(q for q, _ in shares)
        found[token] = [(word, 1 - mass if shares else 1.0)]
        for q, piece in shares:
            path = [piece]
            while q >= DEEPER and len(path) <= MORE:
                further = after([*start, *path])[pieces]
                if float(further.sum()) <= 0.5:
                    break
                path.append(pieces[int(further.argmax())])
            text = (word + "".join(spelled.pieces[u] for u in path)).rstrip(JOINTS)
            found[token].append((text, mass * q / whole))
    worth = WordScores(scorer, spelled.marked.values())
    worth.ask([*spelled.words.values(), *(word for words in found.values() for word, _ in words)])
    value = worth.values()
    return {token: sum(p * value[word] for word, p in words) for token, words in found.items()}


def grown(lm: LanguageModel, scorer: Scorer, size: int, width: int) -> dict[str, Any]:
    """Seconds by need with a vocabulary of `size` words."""
    other = random_model(vocabulary(lm, scorer, size), width)
    started, worked = time.perf_counter(), time.process_time()
    found = word_values(other, scorer, by_need=True)
    seconds, busy = time.perf_counter() - started, time.process_time() - worked
    say(f"words: {seconds:.1f} s with {size:,} words")
    left = found.n_words - found.n_left_out
    return {"words": size, "completed": left, "seconds": seconds, "processor_seconds": busy}


def vocabulary(lm: LanguageModel, scorer: Scorer, size: int) -> list[str]:
    """The first tokens of a model's vocabulary, and words beyond."""
    rng = random.Random(0)
    own = lm.tokenizer.get_vocab()
    found = dict.fromkeys(sorted(own, key=lambda token: own[token])[:size])
    known = sorted(word for word in getattr(scorer, "knows", ["word"]) if word.isalpha() and word.isascii())
    while len(found) < size:
        word = "".join(rng.choice(LETTERS) for _ in range(rng.randint(4, 9)))
        if rng.random() < KNOWN:
            word = rng.choice(known)
            word = rng.choice([word, word.capitalize(), word.upper(), word[: rng.randint(2, max(2, len(word)))]])
        found[f"Ġ{word}" if rng.random() < 0.6 else word] = None
    return list(found)


def random_model(tokens: Sequence[str], width: int) -> LanguageModel:
    """A model of random weights over a vocabulary."""
    vocab = {token: i for i, token in enumerate(tokens)}
    words = Tokenizer(models.WordLevel(vocab, unk_token=tokens[0]))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token=tokens[0])
    return random_llama(
        ModelSpec("random", device="cpu"),
        f"random:{len(tokens)}:{width}",
        tokenizer,
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=128 * width,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=0,
    )
