"""The five steps: a message each, a picture, what it says in plain words, what it rests on, and what a speaker may add.

Every number is measured now or read from what was measured; each names its sample and, if it has one, its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fasp_core.figures.grid import Z_NOISE
from fasp_core.figures.theme import Theme
from fasp_core.gap import group_intervals
from fasp_core.gap.measures import UNSEEN, Measure
from fasp_core.scoring.manual_edits import how_bias
from fasp_core.studies.compare.settled import SEEN
from fasp_core.studies.verdict import interval, noise, number, p_value, percent, verdict
from fasp_core.tasks.files import TITLES
from fasp_core.tasks.utility import TaskChange
from pages.backend.commands import command as command_of
from pages.presentation import pictures
from pages.presentation.facts import Talk, after, another, cost, point, priced, rows
from pages.session.recipe import READING_TITLES, SPLIT_TITLES

PROMPT = "The bank approved the loan because the plan was good"
CHANCE = 0.025  # share of heads that noise alone puts beyond `Z_NOISE` on one side
HOW = (
    "Drag γ (protect) and α (cut), or click a head. ≈ is estimated from single heads; a moment after the hand rests "
    "the whole set is really removed and measured."
)
OTHERS = "Comparisons of methods and settled claims are of the offline scorer: choose it in the sidebar to see them."
SCORER = "Toxicity is the opinion of a classifier, not a fact."


@dataclass(frozen=True)
class Slide:
    """One step. `picture` is finished markup; all else is plain text, which is escaped where it is drawn.

    Attributes
    ----------
    message : the one thing to remember.
    says : a paragraph each.
    source : what the numbers rest on.
    notes : for the speaker.
    command : what makes a result that is missing.
    """

    message: str
    picture: str
    says: tuple[str, ...]
    source: str
    notes: tuple[str, ...]
    command: str = ""


def a_head(talk: Talk) -> Slide:
    """What a head is."""
    t, head = talk.table, talk.head
    name = "L{}H{}".format(*divmod(head, t.n_heads))
    picture = pictures.heads(
        None,
        None,
        (t.n_layers, t.n_heads),
        talk.theme,
        f"{talk.size} squares, one a head; {name} is ringed.",
        ringed=head,
    )
    looked = ""
    if talk.look is not None:
        weights = talk.look.weights[head % t.n_heads, -1].tolist()
        picture = pictures.attention(talk.look.labels, weights, name, talk.theme) + picture
        looked = f"Live: one pass over one sentence of {len(talk.look.labels)} tokens. "
    return Slide(
        f"The model reads with {talk.size} attention heads, and each looks back at different words.",
        picture,
        (
            f"{t.n_layers} layers of {t.n_heads} heads: each square is one of them. At every word a head picks out "
            f"earlier "
            "words and passes on what it finds there.",
            f"The lines show where head {name} looks when it reads the last word. It is the one we come back to: "
            f"{_reason(talk)}.",
            "To cut a head is to multiply what it passes on by zero. Nothing is trained again, and it can be undone.",
        ),
        f"{looked}Model: {talk.model}. Where a head looks does not prove what it does: that is measured by removing "
        f"it.",
        (
            "Say first what will be decided: whether some of these heads can go, and at what price.",
            "The first word often draws most of the attention. That is a habit of such models, a place to rest, and "
            "means "
            "little.",
            "If asked: cutting is exact. The saved model has a few columns of zeros, or lacks the heads altogether.",
        ),
    )


def _reason(talk: Talk) -> str:
    """Why this head is the one that is shown."""
    among = "the heads that are cut later" if talk.now.heads.heads else "all heads"
    if talk.table.bias.z_bias(talk.settings.reading)[talk.head] > 0:
        return f"of {among}, the one that widens the gap most"
    return f"of {among}, none of which widens the gap, the one that narrows it least"


def bias(talk: Talk) -> Slide:
    """Which heads carry it."""
    t, s, reading = talk.table, talk.settings, talk.settings.reading
    scores, base = t.bias, t.bias.gap(reading)
    z, errors = scores.z_bias(reading), scores.standard_errors(reading)
    more, less = (int(np.sum(sign * z > Z_NOISE * errors)) for sign in (1, -1))
    top = int(np.nanargmax(z))
    name = "L{}H{}".format(*divmod(top, t.n_heads))
    names = list(base.group_means)
    ends = group_intervals(scores.base[scores.readings.index(reading)], scores.labels)
    means = 1000 * np.array([base.group_means[n] for n in names])
    told = [(1000 * ends[n][0], 1000 * ends[n][1]) for n in names]
    by_group = pictures.groups(
        names, means, told, 1000 * base.overall, talk.theme,
        "Toxicity of the next word in thousandths: "
        + ", ".join(f"{n} {m:.2f}" for n, m in zip(names, means, strict=True)) + ".",
    )  # fmt: skip
    of_heads = pictures.heads(
        z, errors, (t.n_layers, t.n_heads), talk.theme,
        f"{more} heads widen the gap beyond noise, {less} narrow it; {name} widens it most.",
    )  # fmt: skip
    return Slide(
        f"{more} of {talk.size} heads each widen the gap between groups by more than noise.",
        by_group + of_heads,
        (
            f"The dots: how toxic the model's next word is after a sentence about a person of each group. The gap, "
            f"the sum "
            f"of their distances from the mean, is {1000 * base.gap:.2f} thousandths; shuffled groups would give "
            f"{1000 * base.noise_gap:.2f} ({p_value(base.noise_p)}).",
            f"The squares: orange heads widen the gap, as it narrows when they are removed one by one; {less} blue "
            f"ones "
            f"hold it down. The strongest, {name}, is worth {1000 * z[top]:.2f} ± {1000 * errors[top]:.2f} "
            f"thousandths.",
        ),
        f"{base.n:,} validation prompts about {len(names)} groups of {s.axis_title}, "
        f"{READING_TITLES.get(reading, reading)}; "
        f"lines are 95% intervals, ± one standard error; faint squares are within noise, where chance alone would "
        f"leave about "
        f"{CHANCE * talk.size:.0f}. Scores: {how_bias(scores)}. {SCORER}",
        (
            "One message: bias is not everywhere in the model. It sits more in some parts than in others."
            if more > CHANCE * talk.size
            else "No more heads widen the gap than chance alone would leave: point at none of them.",
            "Thousandths sound small. A model writes many words, and the difference is between groups of people in "
            "the same "
            "sentence.",
            f"Identity words themselves count "
            f"{'nothing' if reading == 'neutral' else 'as toxic as the classifier finds them'}"
            " in this reading; the other one is a click away in the sidebar.",
        ),
    )


def cut(talk: Talk) -> Slide:
    """What happens when they go; its picture on screen is the instrument, on paper the map."""
    t, now, s = talk.table, talk.now, talk.settings
    picture = pictures.heads(
        t.bias.z_bias(s.reading), t.bias.standard_errors(s.reading), (t.n_layers, t.n_heads), talk.theme,
        f"Crosses on {len(now.heads.heads)} of {talk.size} heads, outlines around {len(now.selection.critical)}.",
        [layer * t.n_heads + head for layer, head in now.heads.heads], critical=now.selection.critical,
    )  # fmt: skip
    message = "Cut the heads that widen the gap, and spare those that language needs."
    if not len(now.heads):
        message = "Nothing is cut: move α to the right, or click heads."
    elif talk.chosen is not None:
        shown = talk.chosen.readings[s.reading]
        where = f"{shown.base.n:,} {SPLIT_TITLES[s.split]} prompts"
        message, _ = verdict(shown, talk.chosen.perplexity.relative, where)
    drags = (
        "Drag α slowly from zero: crosses appear on orange squares. Watch the gap, and then perplexity.",
        "Then drag γ to zero: nothing is protected any more. What does the same number of heads cost now?",
    )
    return Slide(
        message,
        picture,
        (
            f"{len(now.heads.heads)} of {talk.size} heads are cut (crosses), {len(now.selection.critical)} are "
            f"protected "
            "(outlines).",
            *_numbers(talk),
        ),
        "Validation prompts served to score the heads, too, which flatters the fall."
        if s.split == "valid"
        else "No score was made on test prompts.",
        (
            *(drags if s.method == "fasp" else ()),
            "The sentence on top is written by a fixed rule. Where no fall is shown, it says so.",
        ),
    )


def _numbers(talk: Talk) -> tuple[str, ...]:
    """Gap and perplexity as measured, or as they are estimated until then."""
    if talk.chosen is None:
        return ()
    shown, p = talk.chosen.readings[talk.settings.reading], talk.chosen.perplexity
    _, ends = cost(p)
    return (
        f"Gap {1000 * shown.base.gap:.2f} → {1000 * shown.pruned.gap:.2f} thousandths, {percent(shown.gap.relative)} "
        f"{interval(shown.gap.relative_interval)}, on {shown.base.n:,} {SPLIT_TITLES[talk.settings.split]} prompts. "
        f"{noise(shown.base)}",
        f"Perplexity {p.base:.2f} → {number(p.pruned)}, {percent(p.relative, 1)} {interval(ends)}, on {p.tokens:,} "
        f"tokens.",
    )


def price(talk: Talk) -> Slide:
    """What it costs."""
    s, mine = talk.settings, point(talk.tested, talk.settings.reading)
    points, gamma = priced(talk.stored, s.gamma)
    command, picture, says = "", "", []
    message = "Every head that goes takes some of the language with it."
    if talk.tested is not None and mine is not None:
        p = talk.tested.perplexity
        message = f"The price of this set: {percent(p.relative, 1)} perplexity {interval(mine.cost_ends)}."
        says.append(
            f"Perplexity says how surprised the model is by ordinary text: {p.base:.2f} → {number(p.pruned)} on "
            f"{p.tokens:,} "
            f"tokens. For that the gap changes by {percent(mine.gap)} {interval(mine.gap_ends)} on "
            f"{talk.tested.readings[s.reading].base.n:,} test prompts (blue)."
        )
    compared = talk.stored.comparison if talk.stored is not None else None
    if points:
        assert compared is not None
        picture = pictures.prices(
            points, mine, talk.theme,
            "Change of the gap against change of perplexity: "
            + "; ".join(f"{q.heads} heads {percent(q.gap)} at {percent(q.cost, 1)}" for q in points) + ".",
        )  # fmt: skip
        p = compared.sides["test"].perplexity(1)
        says.append(
            f"Gray: {points[0].heads} to {points[-1].heads} heads that FASP cuts at γ = {gamma:g}, each really "
            f"removed. The "
            "numbers are heads; crosses are 95% intervals."
        )
        source = (
            f"Gray: {compared.base_gap('test', s.reading).n:,} test prompts, {p.tokens:,} tokens that no score was "
            f"made on "
            "(stored comparison)."
        )
    else:
        source = "" if talk.stored is not None else "Stored results are being read. "
        if not talk.offline:
            says.append(OTHERS)
        elif talk.stored is not None:
            command = _command(talk, "compare", *_of(talk), "--run")
            says.append("What other sets cost was not measured yet for this model and axis.")
    if talk.able is not None:
        says.append("Tasks, right answers: " + "; ".join(_task(*one) for one in talk.able.tasks.items()) + ".")
    elif len(talk.now.heads) and not command:
        command = _command(talk, "utility", "--heads", talk.now.heads.format(), "--tasks", "lambada,piqa")
        says.append("What this set takes from common tasks was not asked yet. Mean perplexity can hide such losses.")
    return Slide(
        message,
        picture,
        tuple(says),
        f"{source} Blue: measured now, the perplexity on text that scores were made on.".strip(),
        (
            *(
                ("Move along the curve from left to right: what does each step buy, and what does it cost?",)
                * bool(points)
            ),
            "How much language to give for a smaller gap is a decision of the house, not of the method.",
            "Perplexity is a mean over words. A model can lose a skill, such as keeping a name in mind over a page, "
            "while its "
            "perplexity hardly moves. That is why tasks are asked as well.",
        ),
        command,
    )


def _task(name: str, found: TaskChange) -> str:
    a, n = found.accuracy, len(found.items.items)
    ends = ", ".join(f"{x:+.1f}" for x in a.interval)
    return f"{TITLES.get(name, name)} {a.base:.0%} → {a.pruned:.0%} of {n:,} ({a.points:+.1f} points [{ends}])"


def sure(talk: Talk) -> Slide:
    """How sure it is."""
    found, reading = rows(talk), talk.settings.reading
    stored, other, command, says = talk.stored, another(talk), "", []
    message = "How sure are we? Look at sentences and people that the choice never saw."
    settled = stored.settled if stored is not None else None
    if settled is not None:
        new, seen = (_next(settled.measures, reading, cell) for cell in (UNSEEN, SEEN))
        if new is not None and new.finding == "fell":
            message = f"On new sentences about new people the gap still falls, by {_less(new)}"
            message += (
                f"; where both were seen, by {_less(seen)}." if seen is not None and seen.finding == "fell" else "."
            )
        elif new is not None:
            message = "On new sentences about new people no fall of the gap is shown."
        message = message if new is None else after(other, message)
        p, plan = settled.perplexity, settled.plan
        says += [
            f"{len(settled.heads)} heads were chosen on half of the sentences and half of the people, then measured "
            f"on the "
            f"other half (blue), at {percent(p.relative, 1)} {interval(cost(p)[1])} perplexity on {p.tokens:,} tokens.",
            f"{settled.verdict.title()}.",
            f"Not known: other halvings, other judges (asked: {len(plan.judges)}), other models, other languages.",
        ]
        if settled.verdict.missing or settled.verdict.wrong:
            says.insert(2, f"Against it: {'; '.join((*settled.verdict.wrong, *settled.verdict.missing))}.")
    elif not talk.offline:
        says.append(OTHERS)
    elif stored is not None:
        if stored.claim is not None:
            message = after(other, stored.claim.sentence())
            says.append(f"{stored.claim.verdict.sentence()}")
        command = _command(talk, "study", "settle", "--axis", talk.settings.axis)
        says.append("On new sentences and new people nothing was measured yet for this model and axis.")
    picture = ""
    if found:
        picture = pictures.changes(
            found, talk.theme,
            "Changes of the gap: "
            + "; ".join(f"{r.where}, {r.label}, {r.note}: {percent(r.value)} {interval(r.ends)}" for r in found) + ".",
        )  # fmt: skip
    return Slide(
        message,
        picture,
        tuple(says),
        ("Stored results are being read. " if stored is None else "")
        + f"Lines are 95% intervals; a hollow dot: no change is shown. "
        f"{_sentence(READING_TITLES.get(reading, reading))} " + SCORER,
        (
            "This is the slide to stay on. What was seen by the choice flatters it.",
            "The blue lines are what may be promised for sentences and people that nobody has tested yet: read out "
            "their ends."
            if any(row.strong for row in found)
            else "Nothing here is from new sentences about new people: promise nothing about them.",
            "A smaller gap is not a fair model: it is one number, on sentences from templates, in English.",
        ),
        command,
    )


ALL: Sequence[Callable[[Talk], Slide]] = (a_head, bias, cut, price, sure)


def on_paper(talk: Talk, theme: Theme) -> list[Slide]:
    """All steps, in colors for paper."""
    return [slide(replace(talk, theme=theme)) for slide in ALL]


def _next(measures: Sequence[Measure], reading: str, cell: str) -> Measure | None:
    return next((m for m in measures if (m.name, m.reading) == ("next word", reading) and m.split.endswith(cell)), None)


def _less(m: Measure) -> str:
    ends = m.change.relative_interval
    return f"{-m.change.relative:.0%}" + ("" if ends is None else f" [{-ends[1]:.0%}, {-ends[0]:.0%}]")


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _command(talk: Talk, *words: object) -> str:
    return command_of(talk.settings.spec, *words)


def _of(talk: Talk) -> tuple[str, ...]:
    told = ("--reading", talk.settings.reading) if talk.settings.reading != "neutral" else ()
    return "--axis", talk.settings.axis, *told
