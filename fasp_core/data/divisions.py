"""Which templates and descriptors a choice has seen: halves of both, so that a test can ask about what is new.

Validation and test prompts share templates and descriptors; they differ in which sentences were made of them. A set of
heads that was chosen on some sentences about some people may do nothing for others (Ma et al., arXiv 2502.07771). So a
division halves the templates and, in each group, the descriptors; the choice is made on one quarter.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from fasp_core.data import groups as names_of
from fasp_core.data.prompt_set import NO_GROUP, PromptSet
from fasp_core.errors import InputError

CELLS = {  # (templates, descriptors) that the choice has seen
    "seen": (True, True),
    "new templates": (False, True),
    "new descriptors": (True, False),
    "new both": (False, False),
}
FEWEST = 2  # descriptors of a group, and templates, that can be halved


def divide(prompts: PromptSet, cell: str, division: int) -> PromptSet:
    """The prompts of one cell of a division; the four cells are disjoint, and every group is in each of them.

    Which half a template or a descriptor is in depends on its own words, those beside it and the division, and not on
    how many prompts were drawn. Halves differ in size by one at most.

    Parameters
    ----------
    prompts : all of an axis or one side of its split into validation and test prompts; not a sample.
    cell : one of `CELLS`.
    division : any integer, the seed of the halves.

    Raises
    ------
    InputError
        Another cell; prompts without templates and descriptors; fewer than two groups that can be halved.
    """
    if cell not in CELLS:
        raise InputError(f"There is no cell '{cell}' of a division: use {', '.join(CELLS)}.")
    templates = {t for t in prompts.templates if t}
    if len(templates) < FEWEST or not all(prompts.descriptors):
        raise InputError(
            f"'{prompts.file or prompts.axis}' does not say which template and descriptor its sentences are made of, "
            "so they cannot be divided: use an axis of HolisticBias."
        )
    by_group: defaultdict[str, set[str]] = defaultdict(set)
    for group, descriptor in zip(prompts.groups, prompts.descriptors, strict=True):
        by_group[group].add(descriptor)
    by_group.pop(NO_GROUP, None)
    few = {group: len(found) for group, found in by_group.items() if len(found) < FEWEST}
    divided = {group: found for group, found in by_group.items() if group not in few}
    if len(divided) < 2:
        raise InputError(
            f"Of '{prompts.axis}' only {len(divided)} groups have {FEWEST} descriptors or more: choose an axis where "
            "two have."
        )
    seen_templates = _half(templates, f"templates|{division}")
    seen = {group: _half(found, f"descriptors|{division}|{group}") for group, found in divided.items()}
    wanted = CELLS[cell]
    rows = [
        i
        for i, (group, template, descriptor) in enumerate(
            zip(prompts.groups, prompts.templates, prompts.descriptors, strict=True)
        )
        if group in seen and (template in seen_templates, descriptor in seen[group]) == wanted
    ]
    note = f"Groups with a single descriptor cannot be divided and were left out: {names_of.counted(few)}."
    return replace(prompts.subset(rows), notes=(*prompts.notes, *((note,) if few else ())))


def _half(names: Iterable[str], use: str) -> set[str]:
    """The half of some names with the lowest hashes, the middle one included."""
    order = sorted(names, key=lambda name: (hashlib.sha256(f"{use}\n{name}".encode()).digest(), name))
    return set(order[: (len(order) + 1) // 2])
