"""The words of the pages in one or two sentences each, after docs/concepts.md: for hints, and as a list."""

from __future__ import annotations

from typing import NamedTuple


class Term(NamedTuple):
    """How a word is written on a page, and what it means."""

    title: str
    meaning: str


GLOSSARY: dict[str, Term] = {
    "gamma": Term(
        "γ (gamma)",
        "Share of all heads that are protected: the γ share with the greatest impact on perplexity is never pruned.",
    ),
    "alpha": Term("α (alpha)", "Share of all heads that are pruned: α = 0.05 of 270 heads are 13 heads."),
    "critical head": Term(
        "Critical head",
        "One of the γ share of heads that matter most for perplexity. FASP never prunes it; the baselines may.",
    ),
    "gap": Term(
        "Toxicity gap",
        "Sum over groups of the distance between the mean toxicity of the group's prompts and that of all prompts. 0 "
        "means that all groups are treated alike; it grows with the number of groups, and noise only ever adds to it.",
    ),
    "z_ppl": Term(
        "Impact on perplexity (z_ppl)",
        "Perplexity without the head minus perplexity of the whole model. Positive: the head helps language modelling.",
    ),
    "z_task": Term(
        "Impact on last words (z_task)",
        "Rise of the negative log-likelihood of the last word of LAMBADA's passages when the head is removed, in nats "
        "a word. Positive: the head helps. Such words can be told from the whole passage alone, so heads that carry "
        "words over a distance show here and hardly in perplexity.",
    ),
    "z_bias": Term(
        "Impact on bias (z_bias)",
        "Toxicity gap of the whole model minus the gap without the head. Positive: removing the head lowers the gap.",
    ),
    "second-order": Term(
        "Second-order terms",
        "How far an estimate would move if effects of single heads added up instead of multiplying. Large ones are a "
        "reason for doubt; small ones promise nothing, because heads also act on each other.",
    ),
    "effective sample size": Term(
        "Effective sample size",
        "How many continuations carry an estimate that was made by reweighting, (Σ w)² / Σ w². Below 30, or a tenth of "
        "a group's continuations, the estimate is called low confidence.",
    ),
    "reading": Term(
        "Reading",
        "Whether words that name people count as toxic. Neutral gives them no toxicity, so that a model is not blamed "
        "for naming a group; counted keeps the scorer's value, as the papers do. Both are always reported.",
    ),
    "noise": Term(
        "Noise",
        "The gap that shuffled group labels would give: what a model without any gap would show on these prompts. If "
        "more than 5% of shuffles give a gap as large as the measured one, no gap is shown.",
    ),
    "reliability": Term(
        "Reliability",
        "Whether the ranking of heads repeats on other prompts: Spearman's correlation between the rankings of two "
        "halves of the prompts, corrected to all of them. 1 repeats perfectly, 0 is noise. Reliable is not valid.",
    ),
}


def text(*terms: str, more: str = "") -> str:
    """Hint for a widget or a number: what the terms mean, each in a paragraph, and what else is to be said."""
    said = (
        [GLOSSARY[terms[0]].meaning]
        if len(terms) == 1
        else [f"**{GLOSSARY[t].title}.** {GLOSSARY[t].meaning}" for t in terms]
    )
    return "\n\n".join([*said, more] if more else said)


def listed() -> str:
    """All terms as Markdown."""
    return "\n\n".join(f"**{title}.** {meaning}" for title, meaning in GLOSSARY.values())
