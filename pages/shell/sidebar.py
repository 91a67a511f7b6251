"""The settings of a page: what is looked at, what is pruned, how it is measured.

What widgets begin with, and what a link says of them, is put into the session by `shared` before any is drawn; so they
have no defaults of their own, and keep their values on pages that do not draw them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from fasp_core.data.classifiers import READINGS as CLASSIFIER_READINGS
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import PROTECTS
from fasp_core.metrics.expected import READINGS
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.devices import passed_over
from fasp_core.model.spec import BUILT_IN, BUILT_IN_TITLE, DTYPES, ModelSpec
from fasp_core.scoring.manual_edits import HAND
from fasp_core.storage.stamps import stamp
from fasp_core.studies.compare.limits import Limits
from fasp_core.studies.compare.plan import SEARCH
from pages.backend import demo, folders
from pages.backend.engine import engine, scheduler
from pages.session import shared
from pages.session.recipe import (
    ABLATION_TITLES,
    ALL_METHODS,
    ALPHA,
    BOS_TITLES,
    GAINS,
    GAMMA,
    METHOD_TITLES,
    OFFLINE,
    PROMPTS,
    PROTECT_TITLES,
    READING_TITLES,
    SPLIT_TITLES,
    TOKENS,
)
from pages.shell import axis as axes
from pages.shell import limits
from pages.widgets import glossary, left_out
from pages.widgets.markdown import escape_markdown

__all__ = ["ALPHA", "GAMMA", "METHOD_TITLES", "READING_TITLES", "SPLIT_TITLES", "Settings"]

SLIDERS = {"gamma": (1.0, 0.01), "alpha": (0.4, 0.005), "strength": (1.0, 0.01)}  # ends and steps
KEPT: dict[str, Any] = {"persist_state": "session"}  # a widget keeps its value on pages that do not draw it


@dataclass(frozen=True)
class Settings:
    """Everything that the sidebar says."""

    spec: ModelSpec
    axis: str
    axis_title: str
    reading: str
    method: str
    gamma: float
    alpha: float
    seed: int
    split: str
    prompts: int
    tokens: int
    limits: Limits = field(default_factory=Limits)  # of the search alone
    neurons: PruneSet = field(default_factory=PruneSet)  # and gains, beside whatever heads are chosen
    scorer: str = OFFLINE
    label: str | None = None
    scorer_reading: str | None = None  # of a classifier's labels
    protect: str = PROTECTS[0]  # what FASP's critical heads are critical by
    strength: float = 1.0  # of learned gains alone

    @property
    def scoring(self) -> BiasConfig:
        """The scores that the grids show: always validation prompts."""
        return self._by_scorer(BiasConfig(self.axis))

    @property
    def evaluation(self) -> EvalConfig:
        """What a change is measured on."""
        return EvalConfig(
            self._by_scorer(BiasConfig(self.axis, split=self.split, n_prompts=self.prompts)),
            TextConfig(tokens=self.tokens),
        )

    def sampled(self, prompts: int, length: int) -> EvalConfig:
        """The sampled measure on the same split."""
        generation = GenerationConfig(tokens=length)
        return EvalConfig(
            self._by_scorer(BiasConfig(self.axis, self.split, prompts, measure="sampled", generation=generation)),
            TextConfig(tokens=self.tokens),
        )

    def written(self, prompts: int, steps: int, samples: int) -> EvalConfig:
        """Each of the words that both models write, on the same split."""
        drawn = GenerationConfig(samples)
        return EvalConfig(
            self._by_scorer(
                BiasConfig(self.axis, self.split, prompts, measure="written", generation=drawn, steps=steps)
            ),
            TextConfig(tokens=self.tokens),
        )

    def _by_scorer(self, config: BiasConfig) -> BiasConfig:
        if self.scorer == OFFLINE:
            return config
        read = replace(config, scorer=self.scorer, label=self.label, scorer_reading=self.scorer_reading)
        return replace(read, scorer_stamp=stamp(self.scorer))


def draw(front: DeltaGenerator | None = None) -> Settings:
    """Draw the sidebar and read it; method and reading go to `front` where a page has a place for them.

    Such a page has the instrument, whose slider is the only one for the strength of learned gains there.
    """
    with st.sidebar:
        spec = model()
        axis, axis_title = axes.choose()
        told = st.container()
        with front or st.container():
            read = reading(horizontal=front is not None)
        judge = scorer()
        st.divider()
        with front or st.container():
            method = _method()
        seed, limited, by, power = 0, Limits(), PROTECTS[0], 1.0
        if method == GAINS:
            critical, pruned = st.session_state["gamma"], st.session_state["alpha"]
            power = st.session_state["strength"] if front is not None else strength()
        else:
            critical, pruned = gamma(disabled=method != "fasp"), alpha(disabled=method == HAND)
            by = protect(spec, disabled=method != "fasp")
        if method == SEARCH:
            percent = st.slider(
                "Perplexity at most … % up",
                1,
                30,
                key="limit",
                persist_state="session",
                help="On validation text. The search keeps to this limit and to α.",
            )
            limited = limits.draw(percent / 100)
        if method in ("random", SEARCH):
            seed = int(
                st.number_input(
                    "Seed", 0, 999, key="seed", persist_state="session", help="Another seed draws differently."
                )
            )
        neurons = _neurons()
        st.divider()
        split = st.segmented_control(
            "Measure on",
            tuple(SPLIT_TITLES),
            required=True,
            key="split",
            persist_state="session",
            format_func=SPLIT_TITLES.__getitem__,
            help="Choose on validation prompts; look at test prompts once the choice is made. The scores were made "
            "on validation prompts, so a reduction measured there flatters the choice.",
        )
        with st.expander("Sample sizes"):
            prompts = st.select_slider(
                "Prompts",
                demo.upto(PROMPTS, "prompts"),
                key="prompts",
                persist_state="session",
                help="Balanced over groups and templates.",
            )
            tokens = st.select_slider(
                "Tokens for perplexity", demo.upto(TOKENS, "tokens"), key="tokens", persist_state="session"
            )
    settings = Settings(
        spec,
        axis,
        axis_title,
        read,
        method,
        critical,
        pruned,
        seed,
        str(split or "valid"),
        int(prompts),
        int(tokens),
        limited,
        neurons,
        *judge,
        by,
        power,
    )
    with told:
        left_out.tell(settings.scoring, settings.evaluation.bias)
    return settings


def _method() -> str:
    return st.selectbox(
        "Method",
        ALL_METHODS,
        format_func=METHOD_TITLES.__getitem__,
        key="method",
        persist_state="session",
        width=200,
        help="FASP spares the critical heads and prunes those whose removal lowers the gap most. The joint search "
        "measures sets and learns how heads interact. “Learned gains” scale every head. “By hand only” prunes what you "
        "name and nothing else. The others are baselines, which spare none.",
    )


def _neurons() -> PruneSet:
    """Neurons that go as well, and heads that are scaled; what cannot be read is told, and nothing is changed."""
    with st.expander("Neurons and gains"):
        written = st.text_input(
            "Neurons to remove, heads to scale",
            key="neurons",
            persist_state="session",
            placeholder="L5N17,L6N0-9,L2H1*0.4",
            help="Neurons are the hidden units of MLPs, written as L5N17. A head's output is multiplied by a gain from "
            "0 to 1.5, written as L2H1*0.4; a head that is pruned stays so. Both are measured with the pruned heads; "
            "estimates and grids know pruned heads alone.",
        )
        try:
            found = PruneSet.parse(written or "")
        except InputError as error:
            st.error(escape_markdown(error), icon=":material/error:")
            return PruneSet()
        if found.heads:
            st.error(
                "Only neurons and gains stand here, such as L5N17 and L2H1*0.4: click heads in the grids.",
                icon=":material/error:",
            )
        return found.others


def reading(horizontal: bool = False) -> str:
    """Which words count as toxic."""
    return st.radio(
        "Reading of toxicity",
        READINGS,
        format_func=READING_TITLES.__getitem__,
        key="reading",
        horizontal=horizontal,
        persist_state="session",
        help=glossary.text("reading", more="Toxicity scorers dislike words such as 'gay', whatever the sentence says."),
    )


def scorer() -> tuple[str, str | None, str | None]:
    """Which scorer, which of its labels, and how they are read."""
    if demo.current() is not None:
        return OFFLINE, None, None
    with st.expander("Scorer"):
        source = st.text_input(
            "Toxicity scorer",
            key="scorer",
            persist_state="session",
            help="offline comes with the program. Or a classifier of texts: a hub id (unitary/unbiased-toxic-roberta, "
            "or org/name@revision), or a folder. Scores are made again for each. Compare methods, Transfer, joint "
            "searches, learned gains, scorecards and reports use the offline one.",
        )
        source = (source or "").strip() or OFFLINE
        label = st.text_input(
            "Label", key="label", persist_state="session", placeholder="toxicity or toxic", disabled=source == OFFLINE
        )
        options = ("", *CLASSIFIER_READINGS)
        read = st.selectbox(
            "Labels are",
            options,
            key="scorer_reading",
            persist_state="session",
            format_func=lambda o: {"": "as its config says", "sigmoid": "independent (sigmoid)"}.get(
                o, "competing (softmax)"
            ),
            disabled=source == OFFLINE,
            help="Independent if a text may have several of them, as in Jigsaw's data; competing if it has one.",
        )
    if source == OFFLINE:
        return OFFLINE, None, None
    folders.check_source(source)
    return source, (label or "").strip() or None, read or None


def gamma(key: str = "gamma", **how: Any) -> float:
    """Share of heads that are never pruned; `how` is what else the slider takes."""
    title, hint = "γ  share of heads that are critical", glossary.text("gamma", "critical head")
    end, step = SLIDERS["gamma"]
    return st.slider(title, 0.0, end, step=step, key=key, help=hint, **(KEPT | how))


def protect(spec: ModelSpec, disabled: bool) -> str:
    """What FASP's critical heads are critical by; perplexity while nothing else is known of the heads."""
    known = engine().results.task(spec) is not None
    chosen = st.selectbox(
        "Protect by",
        PROTECTS,
        format_func=PROTECT_TITLES.__getitem__,
        key="protect",
        persist_state="session",
        disabled=disabled or not known,
        help=glossary.text("critical head", "z_task"),
    )
    if not known and not disabled:
        st.caption(
            "Protected by perplexity: what heads are worth for last words is not known of this model yet. It can be "
            "scored on “Explore heads”, below the grids."
        )
    return str(chosen) if known and not disabled else PROTECTS[0]


def alpha(key: str = "alpha", more: str = "Heads that are pruned by hand count.", **how: Any) -> float:
    """Share of heads to prune; `more` is said of it."""
    title, hint = "α  share of heads to prune", glossary.text("alpha", more=more)
    end, step = SLIDERS["alpha"]
    return st.slider(title, 0.0, end, step=step, format="%.3f", key=key, help=hint, **(KEPT | how))


def strength() -> float:
    """Of learned gains."""
    hint = "0 is the unpruned model, 1 the gains as learned; between them every gate is 1 + s (g − 1)."
    end, step = SLIDERS["strength"]
    return st.slider("Strength of the gains", 0.0, end, step=step, key="strength", help=hint, **KEPT)


def model() -> ModelSpec:
    """Which model, on which device, in which precision. The first widgets of every page that has a model."""
    shared.arrive()
    source = st.selectbox(
        "Model",
        demo.models([BUILT_IN]),
        accept_new_options=demo.current() is None,
        format_func=lambda name: BUILT_IN_TITLE if name == BUILT_IN else name,  # whole in a narrow sidebar
        key="model",
        persist_state="session",
        help="The built-in model needs no download. Or type a hub id (openai-community/gpt2, org/name@revision, "
        "org/name/folder), a folder, a .gguf file.",
    )
    if demo.current() is not None:
        return ModelSpec(demo.allowed(source or BUILT_IN))
    with st.expander("Device, precision, beginnings"):
        device = st.selectbox("Device", shared.DEVICES, key="device", persist_state="session")
        if "torch" in sys.modules and (note := passed_over(device)) is not None:  # the first maps wait for no import
            st.caption(escape_markdown(note))
        dtype = st.selectbox(
            "Precision",
            DTYPES,
            key="dtype",
            persist_state="session",
            help="The rounding of 16-bit numbers is larger than what many heads are worth: scores need float32.",
        )
        bos = st.selectbox(
            "Beginning token",
            tuple(BOS_TITLES),
            format_func=BOS_TITLES.__getitem__,
            key="bos",
            persist_state="session",
            help="The token that some models are always started with, such as <bos>. Automatic: as the model's own "
            "tokenizer does. It stands before every prompt and "
            "every window of text for perplexity, and is never scored itself.",
        )
        ablation = st.selectbox(
            "A pruned head becomes",
            tuple(ABLATION_TITLES),
            format_func=ABLATION_TITLES.__getitem__,
            key="ablation",
            persist_state="session",
            help="Zero takes away what a head does for every text alike, too. Its mean output over a calibration text "
            "keeps that; scores and measurements are then other ones, and an export holds the means as biases.",
        )
        if (address := scheduler()) is not None:
            st.caption(f"Scoring and comparisons run on the cluster at {address}.")
    source = source or BUILT_IN
    pins: dict[str, str] = st.session_state.setdefault("commits", {})
    if source not in pins:  # this reader begins to look at it
        engine().models.renew(source)
    spec = engine().models.pinned(ModelSpec(source, dtype, device, bos, pins.get(source, ""), ablation))
    if spec.commit:
        pins[source] = spec.commit  # a branch that moves meanwhile is another model
    return spec
