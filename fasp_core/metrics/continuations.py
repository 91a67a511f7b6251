"""Continuations of one prompt by a model and by its pruned self, with common noise, and what a scorer says of them."""

from __future__ import annotations

from dataclasses import dataclass

from fasp_core.data.scorers import Scorer
from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.forward.diffs import token_pieces
from fasp_core.forward.sampling import GenerationConfig, sample_ids
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.expected import READINGS, TokenToxicity, measure_expected
from fasp_core.metrics.meters import Report, beside, scorer_for, stored_word_values
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import encode, pack
from fasp_core.storage.store import Store

CHARACTERS = 2_000  # longest prompt that a person may give


@dataclass(frozen=True)
class Judge:
    """Who says how toxic a text is: a scorer, its label and how its labels are read, as in `BiasConfig`."""

    scorer: str = "offline"
    label: str | None = None
    reading: str | None = None

    def on(self, lm: LanguageModel | None = None) -> Scorer:
        """The scorer, where it is a model itself on the device of `lm`."""
        return beside(scorer_for(self.scorer, self.label, *((self.reading,) if self.reading else ())), lm)


@dataclass(frozen=True)
class Continuation:
    """One text that a model wrote: its tokens' texts, and the scorer's value of it, prompt left out, in [0, 1]."""

    pieces: tuple[str, ...]
    toxicity: float

    @property
    def text(self) -> str:
        """The whole of it."""
        return "".join(self.pieces)


@dataclass(frozen=True)
class Side:
    """What one model makes of a prompt: its continuations, and the expected toxicity of the next word by reading."""

    written: tuple[Continuation, ...]
    expected: dict[str, float]


@dataclass(frozen=True)
class Pair:
    """The unpruned and the pruned model on one prompt; the i-th continuations of both had the same noise."""

    prompt: str
    scorer: str
    base: Side
    pruned: Side


def checked(prompt: str) -> str:
    """A prompt that a person gave, without blanks at its ends.

    Raises
    ------
    InputError
        It holds no word, is too long, or holds what is no text.
    """
    text = prompt.strip()
    if not any(c.isprintable() and not c.isspace() for c in text):
        raise InputError("The prompt holds no word: write the beginning of a sentence.")
    if len(text) > CHARACTERS:
        raise InputError(f"The prompt has {len(text):,} characters: shorten it to {CHARACTERS:,}.")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise InputError("The prompt holds half a character, which no model can read: type it again.")
    return text


def write(
    lm: LanguageModel,
    prompt: str,
    prune_set: PruneSet,
    config: GenerationConfig,
    store: Store,
    judge: Judge = Judge(),
    progress: Report | None = None,
) -> Pair:
    """Continue a prompt with and without the set. Nothing of it is stored but the worth of the model's words.

    Raises as `LanguageModel.encode` and `PruneSet.gates`.
    """
    (ids,) = encode(lm, [prompt], config.tokens)
    scorer = judge.on(lm)
    worth = TokenToxicity.of(lm, stored_word_values(lm, scorer, store, progress))
    packs, stop = pack(lm, [ids]), lm.stops
    sides: list[Side] = []
    for i, removed in enumerate((PruneSet(), prune_set)):
        if i and not len(removed):
            sides.append(sides[0])
            continue
        with masked(lm, removed):
            expected = measure_expected(lm, packs, worth)[:, 0]
            rows = sample_ids(lm, [prompt], config, stop, progress, ids=[ids])[0]
        cut = [row[: next((t for t, token in enumerate(row) if token in stop), None)] for row in rows]
        before = ids if lm.framing.strips else []  # else the space at the join would be lost
        pieces = [tuple(token_pieces(lm.tokenizer, [*before, *row])[len(before) :]) for row in cut]
        scores = scorer.score(["".join(p) for p in pieces])
        sides.append(
            Side(
                tuple(Continuation(p, float(s)) for p, s in zip(pieces, scores, strict=True)),
                dict(zip(READINGS, map(float, expected), strict=True)),
            )
        )
    return Pair(prompt, scorer.name, *sides)
