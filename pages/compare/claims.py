"""What may be claimed of a set: the sentence, every measure of it, its colour, and what is missing for a success."""

from __future__ import annotations

import streamlit as st

from fasp_core import defaults
from fasp_core.compute.jobs import Progress
from fasp_core.errors import InputError
from fasp_core.gap.claims import Verdict
from fasp_core.gap.measures import Measure
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.compare import settled as study
from fasp_core.studies.compare import wider
from fasp_core.studies.compare.limits import Limits
from fasp_core.studies.compare.outcome import Claim
from fasp_core.studies.compare.settled import Plan, Settled
from fasp_core.studies.compare.wider import Sample
from fasp_core.tasks import files, utility
from fasp_core.tasks.utility import Utility
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.compare import within_limits
from pages.compare.compared import Settings, milli, noise_of, percent, span
from pages.shell.sidebar import READING_TITLES
from pages.widgets import background, tasks
from pages.widgets.drawing import finding
from pages.widgets.markdown import escape_markdown

SHOWN = {
    "no gap": "no gap to begin with",
    "fell": "the gap fell",
    "rose": "the gap rose",
    "unclear": "no reduction shown",
}
COLOURS = {"green": "green", "amber": "orange", "red": "red"}
TASKS_SPENT = "some ten minutes with the built-in model on two cores"
WRITTEN_SPENT = "about half an hour with the built-in model on two cores"
SETTLED_SPENT = "three to five hours with the built-in model on two cores"


def draw(settings: Settings, claim: Claim) -> None:
    """The sentence that may be quoted, what stands against it, and all that was measured."""
    good = claim.shown and not claim.cautions()
    finding(claim.verdict.colour == "green", f"#### {claim.sentence()}")
    for caution in claim.cautions():
        st.warning(caution, icon=":material/warning:")
    st.dataframe(table(_in_order(claim.measures, claim.reading), claim.reading), hide_index=True, height="content")
    whole(claim.verdict)
    within_limits.spent(claim)
    p = claim.perplexity
    within = (claim.limits or Limits(claim.max_ppl)).text()
    ends = ", ".join(f"{x:.2f}" for x in p.ppl_interval)
    st.caption(
        f"Measured once, on test prompts and on text that no choice was made on{', and all measures agree' * good}. "
        f"Gaps in thousandths, with 95% intervals of the change; *noise* is the mean gap of shuffled groups, p how "
        f"often they give one as large as the unpruned model's. Perplexity {p.base:.2f} → {p.pruned:.2f} [{ends}], "
        f"{percent(p.relative, 1)}, on {p.tokens:,} tokens. The set was chosen as {claim.candidate.title}, "
        f"{within} on validation."
    )
    if claim.able is not None:
        st.markdown("**What it takes from common tasks**")
        tasks.table(claim.able)
    if claim.able is None or not claim.able.holds(defaults.TASKS, defaults.TASK_ITEMS):
        _offer_tasks(settings, claim)
    if not any(m.name == "written" for m in claim.measures):
        _offer_written(settings, claim)


def _in_order(measures: tuple[Measure, ...], reading: str) -> list[Measure]:
    """The reading of the choice first, sampled texts last; within templates in that reading alone."""
    kept = [m for m in measures if m.name != "within templates" or m.reading == reading]
    return sorted(kept, key=lambda m: (m.name == "sampled", m.reading != reading))


def table(measures: list[Measure], reading: str) -> pd.DataFrame:
    """One row a measure of the gap."""
    return pd.DataFrame(
        {
            "measure": m.name
            + ("" if m.name == "sampled" else f", {READING_TITLES[m.reading]}")
            + " (chosen by)" * (m.name == "next word" and m.reading == reading and m.split == "test"),
            "judge": m.judge,
            "prompts": f"{m.prompts:,} {m.split}",
            "continuations": f"{m.continuations:,} a side" if m.continuations else "next word",
            "gap": f"{milli(m.change.base)} → {milli(m.change.pruned)}",
            "change": f"{percent(m.change.relative)} {span(m.change.relative_interval)}",
            "noise": noise_of(m.noise, m.p),
            "what it shows": SHOWN[m.finding],
        }
        for m in measures
    )


def whole(found: Verdict) -> None:
    """The colour of a claim, and what is missing for a success as a whole."""
    parts = "".join(f"\n- {escape_markdown(part)}" for part in (*found.wrong, *found.missing))
    st.markdown(f":{COLOURS[found.colour]}-badge[{found.colour}] **{found.title()}**{parts}")


def _offer_tasks(settings: Settings, claim: Claim) -> None:
    heads = PruneSet.from_flat(claim.candidate.heads, claim.n_heads)
    names, items = ", ".join(map(tasks.title, defaults.TASKS)), defaults.TASK_ITEMS
    try:
        files.folder()
    except InputError as error:
        st.info(escape_markdown(str(error)), icon=":material/info:")
        return

    def work(lm: LanguageModel, store: Store, progress: Progress) -> Utility:
        samples = [files.sample(task, items) for task in defaults.TASKS]
        return utility.utility(lm, heads, samples, 0, items, store, progress)

    background.offer(
        Experiment(settings.spec, "What the set can still do", (heads, defaults.TASKS, items)),
        work,
        title="What can the set still do?",
        about=f"Not measured yet for this set: both models on the same {items} items of each of {names}. Mean "
        f"perplexity shows little of what is lost there. That takes {TASKS_SPENT}; a cancelled run goes on where it "
        "was.",
        button="Ask both models",
    )


def _offer_written(settings: Settings, claim: Claim) -> None:
    sample, heads = Sample(settings.axis), claim.candidate.heads
    background.offer(
        Experiment(settings.spec, "What both models write", (sample, heads)),
        lambda lm, store, progress: wider.measure(lm, heads, sample, store, progress),
        title="What do both models go on to write?",
        about=f"Not measured yet for this set: the expected toxicity of each of {sample.steps} words that either model "
        f"writes after a prompt, in {sample.written:,} continuations a side, with the same noise. That takes "
        f"{WRITTEN_SPENT}; a cancelled run goes on where it was.",
        button="Measure what they write",
    )


def settled(settings: Settings) -> None:
    """A set that was chosen on half of the sentences and people, on the other half."""
    plan = Plan(settings.axis, f"{settings.reading} direct", max_ppl=settings.max_ppl)
    st.subheader("On new sentences and new people", anchor=False)
    try:
        found = engine().results.settled(settings.spec, plan)
    except InputError as error:  # groups of a single descriptor cannot be divided
        st.info(escape_markdown(str(error)), icon=":material/info:")
        return
    if found is not None:
        _settled(found)
    if found is None or found.left:
        title = "Not settled yet for this axis and limit"
        if found is not None:
            title = "Not measured yet: " + "; ".join(sample.title for sample in found.left)
        background.offer(
            Experiment(settings.spec, "New sentences and new people, as written", (plan,)),
            lambda lm, store, progress: study.run(lm, plan, store, progress),
            title=title,
            about="A set is chosen on half of the sentence templates and half of the descriptors, by the joint search "
            f"on expected toxicity over {plan.steps} words after contexts that all groups share. Then it is measured "
            "on sentences and people that the choice never saw: next word, within templates, "
            f"{plan.written:,} written and {plan.sampled:,} scored continuations a side. That takes {SETTLED_SPENT}; a "
            "cancelled run goes on where it was.",
            button="Choose and measure" if found is None else "Measure the rest",
        )


def _settled(found: Settled) -> None:
    plan, p = found.plan, found.perplexity
    reading = plan.reading.split()[0]
    whole(found.verdict)
    st.dataframe(table(_in_order(found.measures, reading), reading), hide_index=True, height="content")
    chosen = " → ".join(milli(gap) for gap in (found.gaps[0], found.gaps[2]))
    st.caption(
        f"{len(found.heads)} heads, found by {'FASP' if found.method == 'fasp' else 'joint search'} on {plan.scored} "
        f"validation prompts of half of the templates and descriptors (division {plan.division}), by expected toxicity "
        f"over {plan.steps} words at equal contexts ({chosen}; FASP's best {milli(found.gaps[1])}, in thousandths). "
        f"Test prompts: *seen* are new prompts of that half, *new both* have new templates and new descriptors. "
        f"Perplexity {p.base:.2f} → {p.pruned:.2f}, {percent(p.relative, 1)}, on {p.tokens:,} tokens."
    )
    st.code(PruneSet.from_flat(found.heads, found.n_heads).format(), language=None, wrap_lines=True)
