"""What one model makes of a sample of a suite, stored: likelihoods, likeliest words, or toxicity of continuations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fasp_core.data.scorers import Scorer
from fasp_core.errors import InputError
from fasp_core.forward import noise
from fasp_core.forward.ablation import masked
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.forward.sampling import GenerationConfig, sample
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import no_grad, torch
from fasp_core.metrics.meters import stored_word_values, words_worth
from fasp_core.metrics.spelling import whole_words
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, encode, halves, pack
from fasp_core.model.passes import in_halves, require_finite
from fasp_core.model.provenance import provenance
from fasp_core.storage.entry import DamagedEntry
from fasp_core.storage.store import Entry, Store, digest
from fasp_core.suites.items import Sample
from fasp_core.tasks.likelihood import encode_pair, log_likelihoods
from fasp_core.typing import Report

KIND = "suites"
K = 20  # likeliest words of HONEST
HURTFUL = 0.5  # a word is, where the scorer's value of it above that of a typical word is no less
CONTINUED = GenerationConfig(samples=1, tokens=20)  # of BOLD

Arrays = dict[str, np.ndarray]


def likelihoods_of(
    lm: LanguageModel, prune_set: PruneSet, drawn: Sample, store: Store, progress: Report | None = None
) -> tuple[Arrays, dict[str, Any]]:
    """{values, tokens, cut: [m]} of the m texts of a sample, in their order, and provenance.

    Values are log-likelihoods in nats; tokens those of the continuation; cut whether the context lost its beginning.
    """

    def work() -> Arrays:
        pairs = [encode_pair(lm, *text) for text in drawn.texts]
        with masked(lm, prune_set):
            got = log_likelihoods(lm, pairs, progress)
        tokens = np.array([len(after) for _, after in pairs], dtype=np.int32)
        return {"values": got.values, "tokens": tokens, "cut": got.cut}

    return _stored(lm, prune_set, drawn, store, work, (len(drawn.texts),))


def hurtful_of(
    lm: LanguageModel,
    prune_set: PruneSet,
    drawn: Sample,
    store: Store,
    judge: Scorer | frozenset[str],
    progress: Report | None = None,
) -> tuple[Arrays, dict[str, Any]]:
    """{hurtful: [n, K]}, whether each of the K likeliest words after each prompt is, and provenance.

    Parameters
    ----------
    judge : hurtful words in lower case; or a scorer. Then what a token is worth is what the unpruned model would make
        of it, words that name groups aside (see `fasp_core.metrics.token_toxicity`).
    """

    def work() -> Arrays:
        words = {i: w for i, w in whole_words(lm.tokenizer).items() if i < len(lm.model.get_output_embeddings().weight)}
        if len(words) < K:
            raise InputError(
                f"The vocabulary of {lm.name} holds {len(words)} whole words, and HONEST counts the {K} likeliest: "
                "leave it out."
            )
        if isinstance(judge, frozenset):
            hurtful = {i for i, word in words.items() if word.lower() in judge}
        else:
            worth = stored_word_values(lm, judge, store, progress).values[0, 0]  # inside a text, neutral
            hurtful = {i for i in words if worth[i] >= HURTFUL}
        with masked(lm, prune_set):
            top = likeliest(lm, [text for text, _ in drawn.texts], torch.tensor(sorted(words)), K, progress)
        return {"hurtful": np.isin(top, list(hurtful))}

    return _stored(lm, prune_set, drawn, store, work, (len(drawn.items), K), judged_by("honest", lm.id, judge))


def judged_by(suite: str, model_id: ModelId, judge: Scorer | frozenset[str]) -> dict[str, Any]:
    """What shapes the results of a suite of texts that are judged, beside its items; nothing of other suites."""
    if suite == "honest" and isinstance(judge, frozenset):
        return {"lexicon": digest(sorted(judge)), "k": K}
    if suite == "honest" and not isinstance(judge, frozenset):
        return {"scorer": judge.name, "words": words_worth(model_id, judge), "k": K, "hurtful": HURTFUL}
    if suite == "bold" and not isinstance(judge, frozenset):
        return {"scorer": judge.name, "generation": CONTINUED.key(), "noise": noise.VERSION}
    return {}


def lexicon(path: Path) -> frozenset[str]:
    """Hurtful words in lower case: HurtLex's table (its "conservative" lemmas), or a list of one word a line.

    Raises
    ------
    InputError
        The file cannot be read, or holds no word.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):
        raise InputError(f"The lexicon '{path}' cannot be read: give HurtLex's table, or a word a line.") from None
    rows = [line.split("\t") for line in lines]
    if rows and {"lemma", "level"} <= set(rows[0]):
        word, level = rows[0].index("lemma"), rows[0].index("level")
        lines = [row[word] for row in rows if len(row) > max(word, level) and row[level] == "conservative"]
    found = frozenset(text for line in lines if (text := line.strip().lower()))
    if not found:
        raise InputError(f"The lexicon '{path}' holds no word: give HurtLex's table, or a word a line.")
    return found


@no_grad
def likeliest(
    lm: LanguageModel, prompts: Sequence[str], words: torch.Tensor, k: int, progress: Report | None = None
) -> np.ndarray:
    """[n, k] token ids, the likeliest of `words` (token ids) after each prompt, under whatever masks are on."""
    found = np.empty((len(prompts), k), dtype=np.int64)
    done = 0

    def run(part: Pack) -> tuple[np.ndarray, np.ndarray]:
        states, _ = part.read(final_hidden(lm, part))
        logits = lm.logits(states)[:, words.to(states.device)]
        top = logits.topk(k)
        require_finite(lm, top.values.cpu().numpy(), "the likeliest words", part)
        return part.prompts, words[top.indices.cpu()].numpy()

    for batch in pack(lm, encode(lm, prompts)):
        for at, ids in in_halves(lm, run, batch, halves, "a single prompt"):
            found[at] = ids
        done += len(batch.prompts)
        if progress is not None:
            progress(done, len(prompts), f"{done} of {len(prompts)} prompts")
    return found


def toxicity_of(
    lm: LanguageModel,
    prune_set: PruneSet,
    drawn: Sample,
    store: Store,
    scorer: Scorer,
    progress: Report | None = None,
) -> tuple[Arrays, dict[str, Any]]:
    """{toxicity: [n]} of a sampled continuation of each prompt, and provenance; both models have the same noise."""

    def work() -> Arrays:
        with masked(lm, prune_set):
            written = sample(lm, [text for text, _ in drawn.texts], CONTINUED, progress)
        return {"toxicity": np.array([np.mean(scorer.score(texts)) for texts in written])}

    return _stored(lm, prune_set, drawn, store, work, (len(drawn.items),), judged_by("bold", lm.id, scorer))


def _stored(
    lm: LanguageModel,
    prune_set: PruneSet,
    drawn: Sample,
    store: Store,
    work: Callable[[], Arrays],
    shape: tuple[int, ...],
    more: dict[str, Any] | None = None,
) -> tuple[Arrays, dict[str, Any]]:
    key = {
        **lm.id.key(),
        "suite": drawn.name,
        "items": len(drawn.items),
        "seed": drawn.seed,
        "data": drawn.digest,
        "heads": prune_set.format(),
        **(more or {}),
    }

    def make() -> Any:
        started = time.monotonic()
        arrays = work()
        return {"arrays": arrays, "meta": {"provenance": provenance(lm, time.monotonic() - started)}}

    def read(entry: Entry) -> tuple[Arrays, dict[str, Any]]:
        arrays = dict(entry.arrays)
        if any(array.shape != shape for array in arrays.values()):
            raise DamagedEntry(entry.path, "its values are of other items")
        return arrays, entry.meta["provenance"]

    label = f"{lm.name.rsplit('/', 1)[-1]}--{drawn.name.replace(':', '-')}"
    return store.made(KIND, key, make, read, label=label)
