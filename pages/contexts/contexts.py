"""Contexts: what an instruct model answers about people of two groups, and whether pruning carries over."""

from __future__ import annotations

import streamlit as st

from fasp_core import defaults
from fasp_core.model.spec import ModelSpec
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.contexts import matrix, scenarios
from fasp_core.studies.contexts.audit import AuditConfig
from fasp_core.studies.contexts.cells import MatrixConfig
from fasp_core.studies.contexts.scenarios import Scenarios
from pages.backend import demo
from pages.backend.commands import command
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.contexts import audit
from pages.contexts import matrix as contexts_matrix
from pages.shell import sidebar, start
from pages.widgets import background, scoring, uploads
from pages.widgets.markdown import code

WINSORISE = (0.0, 0.01, 0.05, 0.1)


def page() -> None:
    """Draw the page from the top; what takes minutes is a job that is only looked at here."""
    st.title("Does it carry over to other contexts?", anchor=False)
    st.caption(
        "An instruct model is asked for numbers about named people: an offer, a rate, hours, a share of income. First "
        "names stand for groups, and everything else is the same, so a difference between the groups is the model's. "
        "Then heads, neurons or weights are removed that carry the difference in one context, and the model is asked "
        "again in others (after Ma et al. 2025).",
        help="Ma et al. (2025), Breaking Down Bias: [arXiv 2502.07771](https://arxiv.org/abs/2502.07771)",
    )
    with st.sidebar:
        spec = sidebar.model()
    if not scoring.known(spec):
        return
    with st.sidebar:
        world = _world()
        winsorise = st.select_slider(
            "Outermost answers moved inwards",
            WINSORISE,
            defaults.WINSORISE,
            format_func=lambda x: "none" if not x else f"{x:.0%} at either end",
            key="contexts winsorise",
            help="Winsorising: a few answers such as $1,000,000 would otherwise decide the means. It is done within "
            "each scenario, for both groups and each model together.",
        )
    carries, asked = st.tabs(["Chosen on one, tested on another", "Audit"])
    with carries:
        _matrices(spec, world, float(winsorise))
    with asked:
        audit.draw(spec, world, float(winsorise))


def _world() -> Scenarios:
    """The scenarios that come with the program, or the reader's."""
    if demo.current() is not None:
        return scenarios.read()
    given = uploads.opened(
        "Scenarios of your own (TOML)",
        "contexts file",
        type="toml",
        max_upload_size=1,
        help="Groups, names, contexts and questions, as in `fasp_core/studies/contexts/scenarios.toml`: copy and "
        "change it.",
    )
    if given is None:
        return scenarios.read()
    name, content = given
    return scenarios.of_bytes(content, name)


def _matrices(spec: ModelSpec, world: Scenarios, winsorise: float) -> None:
    """The stored matrices, and the offer to make one."""
    found = engine().results.matrices(spec)
    if not found:
        _offer(spec, world, "Nothing was run with this model yet")
        return
    chosen = 0
    if len(found) > 1:
        titles = [f"{i + 1}. {contexts_matrix.title(one)}" for i, one in enumerate(found)]
        chosen = st.selectbox("Run", range(len(found)), format_func=titles.__getitem__)
    costs = engine().results.set_costs(spec, found[chosen])
    st.fragment(start.told(contexts_matrix.draw))(found[chosen], winsorise, costs)
    with st.expander("Run another one"):
        _offer(spec, world, "Another matrix")


def _offer(spec: ModelSpec, world: Scenarios, title: str) -> None:
    kind, left, middle, right = st.columns(4)
    how = contexts_matrix.HOW
    exact = kind.selectbox("Answers", tuple(how), format_func=how.__getitem__, key="matrix how") == "exact"
    names = left.select_slider("Names of each group", (4, 8, 16, 32), 8, key="matrix names")
    items = middle.select_slider("Scenarios of each context", (1, 2, 3, 10), 2, key="matrix scenarios")
    samples = 4
    if not exact:
        samples = right.select_slider("Answers for each name", (2, 3, 4, 8, 16), 4, key="matrix samples")
    given = AuditConfig() if exact else AuditConfig(samples, 6)
    config = MatrixConfig(audit=given, names=names, scenarios=items, tokens=256, exact=ExactConfig() if exact else None)
    sets = len(config.methods) * len(matrix.settings(world.smaller(names, items).scenarios))
    answers = sets * 2 * names
    seconds = answers * (contexts_matrix.EXACT_SECONDS if exact else samples * contexts_matrix.SECONDS)
    told = f"{answers:,} distributions" if exact else f"{answers * samples:,} answers"
    sampled = () if exact else ("--samples", samples, "--answer-tokens", 6)
    given_file = uploads.name("contexts file")
    own = () if given_file is None else ("--scenarios", given_file)
    background.offer(
        Experiment(spec, "Contexts", (repr(config), repr(world))),
        lambda lm, store, progress: matrix.run(lm, world, config, store, progress=progress),
        title=title,
        about=f"{len(config.methods)} ways to choose heads, neurons or weights, {sets} sets in all: each is removed "
        f"and the model answers again, {told}. With the built-in model on two cores that takes about "
        f"{background.duration(seconds)}; a GPU takes a fraction of it. What was answered is "
        "kept, and a cancelled run goes on where it was. On the command line: "
        + code(
            command(
                spec, "study", "contexts", *own, "--names", names, "--per-context", items, *sampled, "--tokens", 256
            )
        )
        + ".",
        button="Run",
    )


start.told(page)()
