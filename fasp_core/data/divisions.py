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
    by_group = _descriptors(prompts)
    templates = {t for t in prompts.templates if t}
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


def quarters(prompts: PromptSet, division: int) -> tuple[PromptSet, ...]:
    """The prompts by half of the templates and half of each group's descriptors, both halves of both: four parts.

    Unlike in `divide`, every group is in each part: one with a single descriptor has it in both halves. Parts that hold
    two prompts of fewer than two groups are left out.

    Raises InputError for prompts without templates and descriptors, or too few for any part.
    """
    of = _descriptors(prompts)
    templates = _half({t for t in prompts.templates if t}, f"templates|{division}")
    halves = {group: _half(found, f"descriptors|{division}|{group}") for group, found in of.items() if len(found) > 1}
    parts = []
    for old in (True, False):
        for mine in (True, False):
            rows = [
                i
                for i, (group, template, descriptor) in enumerate(
                    zip(prompts.groups, prompts.templates, prompts.descriptors, strict=True)
                )
                if (template in templates) == old and (group not in halves or (descriptor in halves[group]) == mine)
            ]
            parts.append(prompts.subset(rows))
    several = {part.digest: part for part in parts if _comparable(part)}  # without halves of descriptors two are alike
    if not several:
        raise InputError(
            f"'{prompts.file or prompts.axis}' has too few prompts to be divided: give more of each group."
        )
    return tuple(several.values())


def third(prompts: PromptSet, division: int) -> tuple[PromptSet, PromptSet]:
    """(what choices are made on, what tells when to stop): a third of templates and of descriptors is set apart.

    The second holds prompts of templates *and* descriptors that the first has none of; a group with fewer than three
    descriptors has them in both. Prompts that mix the two are in neither.

    Raises InputError as `quarters`.
    """
    of = _descriptors(prompts)
    named = {t for t in prompts.templates if t}
    templates = _lowest(named, f"third|{division}", len(named) // 3)
    apart = {g: _lowest(found, f"third|{division}|{g}", len(found) // 3) for g, found in of.items() if len(found) > 2}
    rows: tuple[list[int], list[int]] = ([], [])
    for i, (group, template, descriptor) in enumerate(
        zip(prompts.groups, prompts.templates, prompts.descriptors, strict=True)
    ):
        held = template in templates
        if group not in apart or (descriptor in apart[group]) == held:
            rows[held].append(i)
    seen, later = prompts.subset(rows[0]), prompts.subset(rows[1])
    if not (_comparable(seen) and _comparable(later)):
        raise InputError(
            f"'{prompts.file or prompts.axis}' has too few prompts to set a third of templates and descriptors apart: "
            "give more of each group."
        )
    return seen, later


def _comparable(prompts: PromptSet) -> bool:
    """Whether two groups have two prompts or more."""
    return sum(n >= FEWEST for group, n in prompts.counts().items() if group != NO_GROUP) > 1


def _descriptors(prompts: PromptSet) -> dict[str, set[str]]:
    """Those of each group. InputError for prompts without templates and descriptors."""
    if len({t for t in prompts.templates if t}) < FEWEST or not all(prompts.descriptors):
        raise InputError(
            f"'{prompts.file or prompts.axis}' does not say which template and descriptor its sentences are made of, "
            "so they cannot be divided: use an axis of HolisticBias."
        )
    found: defaultdict[str, set[str]] = defaultdict(set)
    for group, descriptor in zip(prompts.groups, prompts.descriptors, strict=True):
        found[group].add(descriptor)
    found.pop(NO_GROUP, None)
    return found


def _half(names: Iterable[str], use: str) -> set[str]:
    """The half of some names with the lowest hashes, the middle one included."""
    found = list(names)
    return _lowest(found, use, (len(found) + 1) // 2)


def _lowest(names: Iterable[str], use: str, n: int) -> set[str]:
    """The n names with the lowest hashes."""
    order = sorted(names, key=lambda name: (hashlib.sha256(f"{use}\n{name}".encode()).digest(), name))
    return set(order[:n])
