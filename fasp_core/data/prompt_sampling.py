"""Which prompts are for choosing (validation) and which for measuring (test), and which few of them are used.

A toxicity gap compares groups, so groups are compared in the same sentence frames, on either side of the split.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from dataclasses import replace

from fasp_core.data import groups as names_of
from fasp_core.data.prompt_set import NO_GROUP, PromptSet
from fasp_core.errors import InputError

VALIDATION_ONE_IN = 5
FEWEST, FEWEST_OWN = 20, 2  # prompts of a group that is measured; a person's own groups count, however small
_OF_SPLIT = {"valid": "validation ", "test": "test ", "all": ""}


def _hash(use: str, seed: int, text: str) -> int:
    """A number below 2^64 that is the same on every machine; `use` keeps splits and samples independent."""
    return int.from_bytes(hashlib.sha256(f"{use}\n{seed}\n{text}".encode()).digest()[:8], "big")


def split(prompts: PromptSet, which: str, seed: int = 0) -> PromptSet:
    """The validation prompts (about 20%), the test prompts (the others) or all.

    What is split are frames, a template with a noun: all sentences of a frame go to one side. So every frame of
    a side holds sentences of all groups, and the test sentences are in frames that no choice was made on. A
    sentence that was made from no template is a frame of its own. The side depends on the frame and the seed alone,
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
    that every group can fill, in an order that depends on the seed, then what else a group has. The sample of n
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
