"""The commands that give a report again."""

from __future__ import annotations

from pathlib import Path

from fasp_core.data.holistic_bias import axis_names
from fasp_core.data.text import BOLD, TextConfig
from fasp_core.defaults import SCORE_TOKENS
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.provenance import line, model_options
from fasp_core.report.gather import Asked, Facts, asked_prompts


def commands(facts: Facts) -> list[tuple[str, str]]:
    """(what it does, command line), in the order in which they are run."""
    asked, scores = facts.asked, facts.table.bias
    out = [
        (
            f"Score every head ({len(scores.codes):,} validation prompts). What is stored already is not made again.",
            line(
                "score", *_model(facts), *_axis(asked), "--estimator", scores.estimator,
                "--prompts", asked_prompts(facts.table), *_text(facts), *_task(facts), "--out", "scores",
            ),
        )
    ]  # fmt: skip
    if asked.method is not None:
        seed = ("--seed", asked.seed) if asked.method == "random" else ()
        share = ("--gamma", f"{asked.gamma:g}", "--alpha", f"{asked.alpha:g}", *_protect(asked))
        chosen = ("--method", asked.method, *share, *seed, *_told(asked, facts), "--reading", asked.reading)
        out.append(
            (
                "Choose the heads, and keep the set as a file.",
                line("select", "--scores", "scores", *chosen, "--out", "set.json"),
            )
        )
    out.append(("Measure the set and write this report.", report_command(asked, facts)))
    if facts.able is not None and not asked.items:
        tasks = ("--tasks", ",".join(facts.able.tasks), "--items", facts.able.asked)
        out.append(
            (
                "Ask what it is still able to do.",
                line("utility", *_model(facts), "--heads", asked.parts.format(), *tasks),
            )
        )
    if facts.card is not None and not asked.scorecard:
        out.append(("Fill its scorecard.", line("scorecard", *_model(facts), "--heads", asked.parts.format())))
    if facts.comparison is not None:
        limit = asked.limits.options().split()
        for what, more in (("Compare the methods.", ()), ("What may be claimed of its choice.", ("--outcome",))):
            out.append(
                (
                    what,
                    line("compare", *_model(facts), *_axis(asked), "--reading", asked.reading, *limit, *more, "--run"),
                )
            )
    return out


def report_command(asked: Asked, facts: Facts) -> str:
    """The command that makes the same report."""
    if asked.method is None:
        chosen: tuple[object, ...] = ("--heads", asked.parts.format())
    else:
        chosen = ("--method", asked.method, "--gamma", f"{asked.gamma:g}", "--alpha", f"{asked.alpha:g}")
        chosen += _protect(asked)
        chosen += ("--seed", asked.seed) if asked.method == "random" else ()
        chosen += _told(asked, facts)
        if facts.by_hand != asked.by_hand or asked.parts.others:
            chosen += ("--heads", asked.parts.format())
    measured: tuple[object, ...] = (
        *asked.limits.options().split(),
        "--prompts",
        asked.prompts,
        "--tokens",
        asked.tokens,
    )
    measured += () if asked.measure else ("--no-measure",)
    measured += ("--utility", "--items", asked.items) if asked.items else ()
    measured += ("--scorecard",) if asked.scorecard else ()
    where = (*_model(facts), *_axis(asked), "--reading", asked.reading)
    return line("report", *where, *chosen, *measured, "--out", "report.html")


def _protect(asked: Asked) -> tuple[str, ...]:
    """What heads were critical by, where that is not perplexity."""
    return () if asked.protect == "perplexity" else ("--protect", asked.protect)


def _task(facts: Facts) -> tuple[object, ...]:
    """What else was scored, where the choice looked at it."""
    task = facts.table.task
    if task is None or facts.asked.protect == "perplexity":
        return ()
    exact = ("--task-exact", task.removed_on) if task.removed_on else ()
    return ("--task", "lambada", "--task-items", task.passages, *exact)


def _told(asked: Asked, facts: Facts) -> tuple[str, ...]:
    """What the method was told."""
    out: tuple[str, ...] = ()
    for name, heads in (("--force", asked.by_hand.prune), ("--lock", asked.by_hand.keep)):
        if heads:
            out += (name, PruneSet.from_flat(heads, facts.table.n_heads).format())
    return out


def _model(facts: Facts) -> tuple[str, ...]:
    return model_options(facts.asked.spec, facts.model_id.weights)


def _text(facts: Facts) -> tuple[object, ...]:
    """The text of the scores, where it is not the usual one; a person's own is named as a file."""
    source, tokens, window = facts.table.ppl.text
    out: tuple[object, ...] = () if source == BOLD else ("--text", "text.txt" if source == "file" else source)
    out += ("--tokens", tokens) if tokens not in (0, SCORE_TOKENS) else ()
    return out + (("--window", window) if window not in (0, TextConfig.window) else ())


def _axis(asked: Asked) -> tuple[str, str]:
    """A person's own prompts are named by the file alone: it lies in another place for every reader."""
    return "--axis", asked.axis if asked.axis in axis_names() else f"{Path(asked.title).name}.csv"
