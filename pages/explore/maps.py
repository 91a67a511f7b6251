"""The instrument of this page: what it shows of the scores and the set, and what its acts do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from fasp_core.errors import InputError
from fasp_core.figures.cells import cell_colors
from fasp_core.figures.theme import Theme, theme_of
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import PROTECTS
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import HAND, ManualEdits, how, how_bias, impacts
from fasp_core.scoring.taught import Change
from fasp_core.studies.compare.plan import SEARCH
from pages.explore import editing, estimates, grid_options
from pages.explore.estimates import Estimated
from pages.explore.grids import chosen_in, picked
from pages.instrument import instrument
from pages.instrument.sent import Act, Map, Rule, Shown, Step, Strength, colors_of, effects
from pages.session import shared
from pages.session.recipe import GAINS
from pages.shell import learned
from pages.shell.current import Current
from pages.shell.sidebar import METHOD_TITLES, READING_TITLES, SLIDERS, Settings
from pages.widgets import glossary

_EFFECTS = "effects of heads"  # in the session: the last ones that were packed, and of what


def draw(settings: Settings, table: ImpactTable, now: Current) -> None:
    """Maps, sliders and estimates; an act changes the recipe."""
    name, packed = _packed(table, settings.reading)
    gaining = {layer * table.n_heads + head: gain for layer, head, gain in settings.neurons.gains}
    options, theme = grid_options.read(), theme_of(st.context.theme.type == "dark")
    guess = estimates.of(settings, table, now)
    singly = replace(guess, strengths=None)  # what a hand does to heads beside
    order = grid_options.order(options, table, settings.reading)
    shown = Shown(
        effects=name,
        layers=table.n_layers,
        heads=table.n_heads,
        method=METHOD_TITLES[settings.method],
        rule=_rule(settings, table, now),
        gamma=settings.gamma,
        alpha=settings.alpha,
        sliders={
            "gamma": (*SLIDERS["gamma"], settings.method == "fasp"),
            "alpha": (*SLIDERS["alpha"], settings.method not in (GAINS, HAND)),
            "strength": (*SLIDERS["strength"], settings.method == GAINS),
        },
        prune=sorted(now.by_hand.prune),
        keep=sorted(now.by_hand.keep),
        gains=gaining,
        picked=sorted(picked(table.n_layers * table.n_heads)),
        means=editing.MEANT[editing.meaning()],
        order=None if order is None else order.tolist(),
        texts=impacts(table, settings.reading, table.bias.standard_errors(settings.reading)),
        sure=_sure(settings, table, now),
        maps=_maps(settings, table, options, theme),
        base=(table.ppl.base.perplexity, 1000 * table.bias.gap(settings.reading).gap),
        taught=guess.taught.factors,
        off=_off(guess.taught.off),
        learnt=f"Estimates: effects of single heads, multiplied; a scaled head counts by how far it is closed. "
        f"{_told(singly, settings.reading)}",
        colors=colors_of(theme),
        done=instrument.done(),
        strength=_strength(settings, guess),
    )
    instrument.draw(shown, packed, lambda act: _act(settings, table.n_heads, act))


def _strength(settings: Settings, guess: Estimated) -> Strength | None:
    """What the script draws of learned gains, and estimates them by; None where there are none."""
    if settings.method != GAINS or (found := learned.learned(settings)) is None:
        return None
    gates, known = np.round(found.gates.ravel(), 6).tolist(), guess.strengths
    if known is None:
        return Strength(settings.strength, gates)
    at, nats, gap = known.line(settings.reading).T.tolist()
    told = _told(replace(guess, alone=True), settings.reading)
    more = "Heads that a hand sets otherwise count beside, as single heads."
    learnt = f"Estimates: straight lines between strengths {', '.join(f'{s:g}' for s in at)}. {told} {more}"
    return Strength(settings.strength, gates, at, nats, gap, _off(known.off(settings.reading)), learnt)


def _off(errors: Change) -> tuple[str, str]:
    return estimates.off(errors[0]), estimates.off(errors[1])


def _told(guess: Estimated, reading: str) -> str:
    ppl, gap = (estimates.said(guess, reading, which) for which in (0, 1))
    return f"Perplexity {ppl}; gap {gap}."


def _act(settings: Settings, n_heads: int, act: Act | Step) -> None:
    """Take over what a hand has done, as a step that can be undone; or go back or forth.

    Whatever else has changed since the page was drawn stays: acts that come together each know the others.
    """
    if isinstance(act, Step):
        (shared.undo if act.by < 0 else shared.redo)()
        return
    source = settings.spec.source
    if act.head is not None:
        st.session_state[f"clicked head {source}"] = act.head  # taken away by the view of one head
    moved: dict[str, Any] = {name: getattr(act, name) for name in SLIDERS if getattr(act, name) is not None}
    by_hand = act.on(shared.by_hand(source))
    if act.gains:
        at = replace(settings, strength=float(moved.get("strength", st.session_state["strength"])))
        moved["neurons"], by_hand = _scaled(at, n_heads, act.gains, by_hand)
    shared.tell(source, by_hand, moved)


def _scaled(settings: Settings, n_heads: int, gains: dict[int, float], by_hand: ManualEdits) -> tuple[str, ManualEdits]:
    """Neurons and gains after some are set, and what is set by hand: a head is kept that was learned to be scaled."""
    known = _others()
    own = {gain[:2]: gain[2] for gain in known.gains}
    learnt = learned.prune_set(settings).gains if settings.method == GAINS else ()
    usual = {(layer, head): round(gain, 6) for layer, head, gain in learnt}
    for head, gain in gains.items():
        place = divmod(head, n_heads)
        own.pop(place, None)
        if gain == (1 if head in by_hand.prune | by_hand.keep else usual.get(place, 1)):
            continue
        if gain == 1:
            by_hand = by_hand.set([head], False)
        else:
            own[place] = gain
    return PruneSet(neurons=known.neurons, gains=frozenset((*at, g) for at, g in own.items())).format(), by_hand


def _others() -> PruneSet:
    """Neurons and gains as they stand, not as the page was drawn."""
    try:
        return PruneSet.parse(str(st.session_state.get("neurons") or "")).others
    except InputError:  # the sidebar tells it
        return PruneSet()


def _rule(settings: Settings, table: ImpactTable, now: Current) -> Rule:
    if settings.method in (SEARCH, GAINS, HAND):
        return Rule.fixed(now.choose(type(now.by_hand)()))
    by = settings.protect if table.task is not None else PROTECTS[0]
    return Rule.of(table.head_scores(settings.reading, by), settings.method, settings.seed)


def _maps(settings: Settings, table: ImpactTable, options: grid_options.GridOptions, theme: Theme) -> list[Map]:
    bias, ppl, reading = table.bias, table.ppl, settings.reading
    said = READING_TITLES.get(reading, reading)
    found = [
        (
            ("Impact on perplexity", "orange: the head helps language modelling", glossary.text("z_ppl")),
            f"{ppl.base.tokens:,} tokens, {how(ppl.exact, 'preview from gradients')}",
            (ppl.z_ppl, ppl.se_ppl, ppl.base.perplexity),
            ("Δ perplexity", 1.0),
        ),
        (
            ("Impact on bias", "orange: the head adds bias", glossary.text("z_bias")),
            f"{len(bias.codes):,} validation prompts, {how_bias(bias)}, {said}",
            (bias.z_bias(reading), bias.standard_errors(reading), bias.gap(reading).gap),
            ("Δ gap, ×10⁻³", 1000.0),
        ),
    ]
    if grid_options.third() and table.task is not None:
        task = table.task
        found.append(
            (
                ("Impact on last words", "orange: the head helps", glossary.text("z_task")),
                task.said,
                (task.z_task, task.se_task, float(task.base.mean())),
                ("Δ nats a word", 1.0),
            )
        )
    maps = []
    for (title, note, hint), how_made, (values, errors, whole), plain in found:
        shown, shown_errors, unit = grid_options.shown(options, values, errors, whole, plain)
        drawn = cell_colors(shown, shown_errors, theme, options.scale, options.doubt)
        more = f"{how_made}. {drawn.note}".strip()
        maps.append(Map(title, note, f"{hint}\n{more}".replace("**", ""), unit, drawn.colors, drawn.ticks))
    return maps


def _sure(settings: Settings, table: ImpactTable, now: Current) -> list[int | None] | None:
    found = chosen_in(settings, table, now.selection)
    if found is None:
        return None
    return [None if np.isnan(share) else round(100 * share) for share in found]


def _packed(table: ImpactTable, reading: str) -> tuple[str, bytes]:
    """Made once for scores and a reading: they are some hundred kilobytes."""
    kept = st.session_state.get(_EFFECTS)
    if kept is None or kept[0] is not table or kept[1] != reading:
        kept = (table, reading, effects(table, reading))
        st.session_state[_EFFECTS] = kept
    found: tuple[str, bytes] = kept[2]
    return found
