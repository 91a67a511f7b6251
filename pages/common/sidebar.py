"""The settings of a page: what is looked at, what is pruned, how it is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import streamlit as st

from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig
from fasp_core.expected import READINGS
from fasp_core.experiments.compare import SEARCH
from fasp_core.generation import GenerationConfig
from fasp_core.masks import PruneSet
from fasp_core.measures import BiasConfig
from fasp_core.models import BUILT_IN, BUILT_IN_TITLE, DTYPES, ModelSpec
from fasp_core.prompts import axis_names, from_csv
from fasp_core.selection import METHODS
from fasp_core.text import TextConfig
from pages.common import demo, engine, glossary

GAMMA, ALPHA, MAX_PPL = 0.3, 0.05, 0.1  # shown at first
OWN_CSV = "my own prompts (CSV)"
READING_TITLES = {"neutral": "identity words neutral", "counted": "identity words counted"}
SPLIT_TITLES = {"valid": "validation", "test": "test"}
METHOD_TITLES = {
    "fasp": "FASP",
    "magnitude": "smallest weights",
    "gradient": "smallest gradients",
    "ppl-only": "perplexity only",
    "bias-only": "bias only",
    "random": "random",
    SEARCH: "joint search",
}


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
    max_ppl: float = MAX_PPL  # relative; of the search alone
    neurons: PruneSet = field(default_factory=PruneSet)  # removed beside whatever heads are chosen

    @property
    def scoring(self) -> BiasConfig:
        """The scores that the grids show: always validation prompts."""
        return BiasConfig(self.axis)

    @property
    def evaluation(self) -> EvalConfig:
        """What a change is measured on."""
        return EvalConfig(
            BiasConfig(self.axis, split=self.split, n_prompts=self.prompts), TextConfig(tokens=self.tokens)
        )

    def sampled(self, prompts: int, length: int) -> EvalConfig:
        """The sampled measure on the same split."""
        generation = GenerationConfig(tokens=length)
        return EvalConfig(
            BiasConfig(self.axis, self.split, prompts, measure="sampled", generation=generation),
            TextConfig(tokens=self.tokens),
        )


def draw() -> Settings:
    """Draw the sidebar and read it."""
    with st.sidebar:
        spec = model()
        axis, axis_title = choose_axis()
        read = reading()
        st.divider()
        method = st.selectbox(
            "Method",
            (*METHODS, SEARCH),
            format_func=METHOD_TITLES.__getitem__,
            key="method",
            bind="query-params",
            help="FASP spares the critical heads and prunes those whose removal lowers the gap most. The joint search "
            "measures sets and learns how heads interact. The others are baselines, which spare none.",
        )
        critical, pruned = gamma(disabled=method != "fasp"), alpha()
        seed, limit = 0, MAX_PPL
        if method == SEARCH:
            percent = st.slider(
                "Perplexity at most … % up",
                1,
                30,
                round(100 * MAX_PPL),
                key="limit",
                bind="query-params",
                help="On validation text. The search keeps to this limit and to α.",
            )
            limit = percent / 100
        if method in ("random", SEARCH):
            seed = int(st.number_input("Seed", 0, 999, 0, key="seed", help="Another seed draws differently."))
        neurons = _neurons()
        st.divider()
        split = st.segmented_control(
            "Measure on",
            ("valid", "test"),
            default="valid",
            required=True,
            key="split",
            format_func=SPLIT_TITLES.__getitem__,
            help="Choose on validation prompts; look at test prompts once the choice is made. The scores were made "
            "on validation prompts, so a reduction measured there flatters the choice.",
        )
        with st.expander("Sample sizes"):
            prompts = st.select_slider(
                "Prompts",
                demo.upto((90, 210, 450, 900), "prompts"),
                210,
                key="prompts",
                help="Balanced over groups and templates.",
            )
            tokens = st.select_slider(
                "Tokens for perplexity", demo.upto((512, 1024, 2048, 4096), "tokens"), 1024, key="tokens"
            )
    return Settings(
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
        limit,
        neurons,
    )


def _neurons() -> PruneSet:
    """Neurons that go as well; what cannot be read is told, and nothing is removed."""
    with st.expander("Neurons"):
        written = st.text_input(
            "Remove these as well",
            key="neurons",
            bind="query-params",
            placeholder="L5N17,L6N0-9",
            help="Neurons are the hidden units of MLPs, written as L5N17. They are measured with the heads; estimates "
            "and grids know heads alone.",
        )
        try:
            found = PruneSet.parse(written or "")
        except InputError as error:
            st.error(str(error), icon=":material/error:")
            return PruneSet()
        if found.heads:
            st.error("Only neurons stand here, such as L5N17: click heads in the grids.", icon=":material/error:")
        return PruneSet(neurons=found.neurons)


def reading() -> str:
    """Which words count as toxic."""
    return st.radio(
        "Reading of toxicity",
        READINGS,
        format_func=READING_TITLES.__getitem__,
        key="reading",
        bind="query-params",
        help=glossary.text("reading", more="Toxicity scorers dislike words such as 'gay', whatever the sentence says."),
    )


def gamma(disabled: bool = False) -> float:
    """Share of heads that are never pruned."""
    return st.slider(
        "γ  share of heads that are critical",
        0.0,
        1.0,
        GAMMA,
        0.01,
        key="gamma",
        bind="query-params",
        disabled=disabled,
        help=glossary.text("gamma", "critical head"),
    )


def alpha() -> float:
    """Share of heads to prune."""
    return st.slider(
        "α  share of heads to prune",
        0.0,
        0.4,
        ALPHA,
        0.005,
        format="%.3f",
        key="alpha",
        bind="query-params",
        help=glossary.text("alpha"),
    )


def model() -> ModelSpec:
    """Which model, on which device, in which precision."""
    source = st.selectbox(
        "Model",
        demo.models([BUILT_IN]),
        accept_new_options=demo.current() is None,
        format_func=lambda name: f"{BUILT_IN_TITLE} (built-in)" if name == BUILT_IN else name,
        key="model",
        help="The built-in model needs no download. Or type a hub id (openai-community/gpt2), a folder, a .gguf file.",
    )
    if demo.current() is not None:
        return ModelSpec(demo.allowed(source or BUILT_IN))
    with st.expander("Device and precision"):
        device = st.selectbox("Device", ("auto", "cpu", "cuda", "mps"), key="device")
        dtype = st.selectbox(
            "Precision",
            tuple(DTYPES),
            key="dtype",
            help="The rounding of 16-bit numbers is larger than what many heads are worth: scores need float32.",
        )
    return ModelSpec(source or BUILT_IN, dtype, device)


def choose_axis() -> tuple[str, str]:
    """Which axis, by name or as the path of a CSV file, and what people call it. Stops where there is no such file."""
    axis = st.selectbox(
        "Axis",
        (*axis_names(), *demo.unless(OWN_CSV)),
        index=axis_names().index("race_ethnicity"),
        format_func=axis_title,
        key="axis",
        bind="query-params",
        help="The demographic axis whose groups are compared. Prompts come from HolisticBias v1.1.",
    )
    if axis != OWN_CSV:
        return axis, axis_title(axis)
    upload = st.file_uploader("CSV with columns text, group", type="csv", key="csv")
    if upload is None:
        st.info(
            "Upload a CSV file with the columns `text` and `group`: one prompt a row. "
            "A fifth of the prompts is used to choose heads and the rest to test the choice.",
            icon=":material/upload:",
        )
        st.stop()
    content = upload.getvalue()
    try:
        from_csv(content, upload.name)
    except InputError as error:
        st.error(str(error))
        st.stop()
    return str(engine.keep_upload(content, upload.name)), Path(upload.name).stem


def axis_title(axis: str) -> str:
    """`race_ethnicity` as people read it."""
    return axis if axis == OWN_CSV else axis.replace("_", " ")
