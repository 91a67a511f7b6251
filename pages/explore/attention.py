"""What a head does: where it looks in a prompt, beside what its removal was found to do."""

from __future__ import annotations

import numpy as np
import streamlit as st

from fasp_core.figures import Words, attention_map, attention_maps
from fasp_core.forward.attention import Pattern
from fasp_core.heads.prune_set import PruneSet
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import how_removed
from pages.explore import looking, prompt_choice
from pages.shell.sidebar import READING_TITLES, Settings

PAGE = 16  # small pictures at once
CAVEAT = (
    "Attention weights say where a head looks, not what it makes of what it finds there: they are no proof of what the "
    "head does to the output (Jain and Wallace 2019, [Attention is not Explanation](https://aclanthology.org/N19-1357/"
    "), NAACL). The impacts are measured by removing the head."
)


def draw(settings: Settings, table: ImpactTable, heads: PruneSet) -> None:
    """The tab: a head and a prompt, the head's pattern and facts, and its layer."""
    flat = _head(settings, table, heads)
    prompt = prompt_choice.choose(settings)
    if prompt is None:
        return
    layer, head = divmod(flat, table.n_heads)
    request = looking.Look(settings.spec, prompt, layer)
    job = looking.latest("attention", request, looking.look_job)
    if not looking.ready(job, "attention", "Looking"):
        return
    found = job.result
    name, off, dark = f"L{layer}H{head}", (layer, head) in heads.heads, st.context.theme.type == "dark"
    row = st.container(horizontal=True, gap="medium")  # wraps on a narrow page
    left, right = row.container(width=600), row.container(width=360)
    with left:
        st.plotly_chart(
            attention_map(
                found.weights[head],
                found.labels,
                Words(f"Where {name} looks" + (" (removed)" if off else ""), "Unpruned model.", dark=dark),
            ),
            theme=None,
            key="attention map",
            alt=f"Attention pattern of {name}, {len(found.labels)} by {len(found.labels)} tokens.",
        )
    with right:
        st.markdown(_impacts(settings, table, flat))
        st.markdown(_looks(found, head))
        if off:
            st.info(
                f"{name} is removed at present: wherever it looks, its output is multiplied by zero.",
                icon=":material/block:",
            )
        if len(found.labels) < found.tokens:
            st.info(
                f"The first {len(found.labels)} of {found.tokens} tokens are shown. What comes later does not change "
                "them, for a token sees only what stands before it.",
                icon=":material/content_cut:",
            )
        st.caption(CAVEAT)
    if st.toggle(f"All heads of layer {layer}", key="attention all", persist_state="session"):
        _layer(settings, found, heads, layer, head, dark)


def _head(settings: Settings, table: ImpactTable, heads: PruneSet) -> int:
    """The head that is looked at: the one last clicked or chosen, at first the one of the set that adds most bias."""
    key, clicked = f"attention head {settings.spec.source}", f"clicked head {settings.spec.source}"
    usual = strongest(table, heads, settings.reading)
    if (last := st.session_state.get(clicked)) is not None:
        st.session_state[key] = last
    elif st.session_state.get(key) in (None, st.session_state.get(f"{key} usual")):
        st.session_state[key] = usual
    st.session_state[f"{key} usual"] = usual
    size = table.n_layers * table.n_heads
    chosen = st.selectbox(
        "Head",
        range(size),
        format_func=lambda flat: "L{}H{}".format(*divmod(flat, table.n_heads)),
        key=key,
        filter_mode="contains",
        persist_state="session",
        width=220,
        help="At first the head of the current set that adds most bias; a click on a grid chooses another.",
    )
    st.session_state.pop(clicked, None)  # not before: a run that a newer one cuts short here has shown nothing
    return chosen


def strongest(table: ImpactTable, heads: PruneSet, reading: str) -> int:
    """Flat id of the head that adds most bias: of the set, or of the model if the set has none."""
    effects = table.bias.z_bias(reading)
    among = heads.flat(table.n_heads) or range(table.n_layers * table.n_heads)
    return max(among, key=lambda flat: (effects[flat], -flat))


def _impacts(settings: Settings, table: ImpactTable, flat: int) -> str:
    """Both impacts of a head with their standard errors, how they were found, and on how much."""
    ppl, scores = table.ppl, table.bias
    exact = scores.exact is None or bool(scores.exact[flat])
    return (
        "**{}** · z_ppl **{:+.3f}**{}{} · z_bias **{:+.3f}**{} ×10⁻³{}. ".format(
            "L{}H{}".format(*divmod(flat, table.n_heads)),
            ppl.z_ppl[flat],
            _error(ppl.se_ppl[flat]),
            "" if ppl.exact[flat] else " (preview)",
            1000 * scores.z_bias(settings.reading)[flat],
            _error(1000 * scores.standard_errors(settings.reading)[flat]),
            how_removed(scores) if exact else ", first-order estimate",
        )
        + f"Change of perplexity ({ppl.base.tokens:,} tokens) and fall of the toxicity gap ({len(scores.codes):,} "
        f"validation prompts, {READING_TITLES.get(settings.reading, settings.reading)}) when the head is removed, "
        "± one standard error."
    )


def _error(se: float) -> str:
    return f" ± {se:.2g}" if np.isfinite(se) else ""


def _looks(found: Pattern, head: int) -> str:
    facts = found.facts(head)
    if not facts.places:
        return "The prompt has one token, which can look at itself alone."
    return (
        f"Attention on the first token **{facts.on_first:.0%}** · mean distance back **{facts.distance:.1f} tokens** · "
        f"entropy **{facts.entropy:.2f} bits** of {facts.most:.2f}. Means over the {facts.places} tokens after the "
        "first. Much attention on the first token often means that a head found nothing to look at (an attention sink)."
    )


def _layer(settings: Settings, found: Pattern, heads: PruneSet, layer: int, head: int, dark: bool) -> None:
    """All heads of the layer, small, a page at a time where they are many."""
    n = len(found.weights)
    starts, first = range(0, n, PAGE), head // PAGE * PAGE
    if len(starts) > 1:
        first = st.selectbox(
            "Heads",
            starts,
            index=head // PAGE,
            format_func=lambda start: f"{start} to {min(start + PAGE, n) - 1}",
            key=f"attention page {settings.spec.source} {layer} {head}",
            width=220,
        )
    those = range(first, min(first + PAGE, n))
    names = [f"L{layer}H{h}" + (" · removed" if (layer, h) in heads.heads else "") for h in those]
    st.plotly_chart(
        attention_maps(
            found.weights[those.start : those.stop], found.labels, names, chosen=head - those.start, dark=dark
        ),
        theme=None,
        key="attention layer",
        alt=f"Attention patterns of the heads {those.start} to {those.stop - 1} of layer {layer}.",
    )
