"""The report of "Take home": measured and written in the background, then a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from fasp_core import defaults
from fasp_core.compute.jobs import Progress
from fasp_core.errors import InputError
from fasp_core.evaluation import Evaluation
from fasp_core.figures.export import file_name
from fasp_core.model.language_model import LanguageModel
from fasp_core.report import gather, page
from fasp_core.report.page import summary
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import HAND, ManualEdits
from fasp_core.storage.store import Store
from fasp_core.studies.compare import compare
from fasp_core.studies.compare.plan import SEARCH
from fasp_core.studies.scorecard import scorecard
from fasp_core.tasks.answers import KIND as TASKS_KIND
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.session.recipe import GAINS, OFFLINE
from pages.shell import limits
from pages.shell.current import Current
from pages.shell.sidebar import Settings
from pages.widgets import background, tasks
from pages.widgets.drawing import download, finding

SPENT = "about a minute with the built-in model on two cores"


@dataclass(frozen=True)
class Written:
    """A finished report, and what it says at the top."""

    content: bytes
    told: dict[str, Any]
    evaluation: Evaluation | None


def draw(settings: Settings, table: ImpactTable, now: Current) -> None:
    """Offer to measure and write it; once it is there, the file."""
    if settings.scorer != OFFLINE:
        st.caption("Reports are of the offline scorer: choose it in the sidebar.")
        return
    asked = what(settings, now)
    name = f"report-{file_name(settings.axis_title)}.html"
    if not len(now.heads):
        st.caption("Nothing is removed, so there is nothing to measure. A report of the scores alone can be had.")
        without(asked, table, name)
        return
    left, middle, right = st.columns((1, 1, 1))
    prompts = left.select_slider(
        "Test prompts, at least", (450, 900, 1800, 5000), gather.PROMPTS, key="report prompts",
        help="Whatever the sidebar measures on, a report is about test prompts. 450 are those of a comparison of "
        "methods: what it has measured is taken over.",
    )  # fmt: skip
    tokens = middle.select_slider(
        "Tokens of held-out text", (1024, 2048, 4096, 8192), gather.TOKENS, key="report tokens",
        help="For perplexity, of a text that no score was made on.",
    )  # fmt: skip
    items = right.select_slider(
        "Items of each task", (0, 100, 300, 1000), 0, key="report items",
        help=f"Both models are asked {', '.join(map(tasks.title, defaults.TASKS))} too; 0 tells what is stored.",
    )  # fmt: skip
    asked = replace(asked, prompts=int(prompts), tokens=int(tokens), items=int(items))
    request = Experiment(settings.spec, "Report", (asked, _stored(asked)))
    job = background.job_of(request)
    if job is not None and job.state == "done":
        st.session_state["report measured"] = measured_as(settings, now), job.result.evaluation
        _done(job.result, name)
        return
    background.offer(
        request,
        lambda lm, store, progress: write(asked, table, lm, store, progress),
        title="No report on this set yet",
        about=f"One HTML file: the setting, both grids, the chosen heads, what the set does to **{asked.prompts:,} "
        f"test prompts** in both readings and to {asked.tokens:,} tokens of held-out text, the groups before and "
        f"after, tasks that were asked, {_card(asked)}, what a stored comparison of methods says, the limits, and the "
        "commands that repeat it. What was "
        f"measured before is taken over; otherwise it takes {SPENT} for 450 prompts. Look at test prompts once the "
        "choice is made: whoever measures many sets on them and keeps the best has chosen on test.",
        button="Measure and write the report",
    )
    if job is None or job.state not in ("waiting", "running"):
        without(asked, table, name)


def measured_as(settings: Settings, now: Current) -> tuple[object, ...]:
    """What the session keeps the latest report's measurement under."""
    return settings.spec, settings.axis, now.heads, settings.scorer


def _card(asked: gather.Asked) -> str:
    """What of a scorecard goes into the report."""
    card = scorecard.stored(engine().models.identity(asked.spec), asked.parts, Store())
    lines = 0 if card is None else len(card.lines)
    return f"the {lines} lines of its scorecard" if lines else "its scorecard (page Scorecard) once that is measured"


def what(settings: Settings, now: Current) -> gather.Asked:
    """The report's subject, as the command line would name it; sets of a joint search are lists there."""
    return gather.Asked(
        settings.spec,
        settings.axis,
        settings.axis_title,
        settings.reading,
        now.heads,
        None if settings.method in (SEARCH, GAINS, HAND) else settings.method,
        settings.gamma,
        settings.alpha,
        settings.seed if settings.method == "random" else 0,
        limits.of_session(settings.limits.max_ppl),
        by_hand=ManualEdits() if settings.method in (SEARCH, GAINS, HAND) else now.by_hand,
        protect=settings.protect,
    )


def write(asked: gather.Asked, table: ImpactTable, lm: LanguageModel, store: Store, progress: Progress) -> Written:
    """Measure and write; a job's work."""
    facts = gather.gather(asked, table, lm.id, store, lambda: lm, progress)
    progress(0, 1, "writing the report")
    return Written(page.html(facts).encode(), summary(facts), facts.evaluation)


def without(asked: gather.Asked, table: ImpactTable, name: str) -> None:
    """The report of what is known without running the model."""
    model_id = engine().models.identity(asked.spec)

    def make() -> bytes:
        def no_model() -> LanguageModel:
            raise InputError("This report measures nothing.")

        told = replace(asked, measure=False, items=0)
        return page.html(gather.gather(told, table, model_id, Store(), no_model)).encode()

    told = "It says that nothing was measured on test prompts."
    download("Write it without measuring", make, name, "text/html", key="report without", type="tertiary", help=told)


def _done(written: Written, name: str) -> None:
    told = written.told
    _, sentence, _ = told["verdicts"][0]
    finding(told["good"], sentence)
    for caution in told["cautions"]:
        st.warning(caution, icon=":material/warning:")
    label = f"Download the report (HTML, {len(written.content) / 1e6:.1f} MB)"
    download(label, written.content, name, "text/html", key="report file", type="primary")
    st.caption("It opens in any browser without a network, and prints on A4.")


def _stored(asked: gather.Asked) -> tuple[str, ...]:
    """The stored results that a report tells of: with others it is another report."""
    store = Store()
    header = compare.find(engine().models.identity(asked.spec), asked.axis, asked.reading, store)
    claims = [e.path.name for e in store.entries(compare.KIND) if e.config.get("experiment") == "outcome"]
    # answers that the report asks for itself must not make it another one
    able = None if asked.items else engine().results.able(asked.spec, asked.parts)
    answers = [] if able is None else [f"{name} {len(task.items.items)}" for name, task in able.tasks.items()]
    card = scorecard.stored(engine().models.identity(asked.spec), asked.parts, store)
    lines = [] if card is None else [f"{line.name} {line.sample}" for line in card.lines]
    spent = [e.path.name for e in store.entries(TASKS_KIND) if asked.limits.beyond_ppl and not asked.items]
    return (header.path.name if header is not None else "", *sorted(claims), *answers, *lines, *sorted(spent))
