"""The pruned model as a checkpoint: what will shrink, the export in the background, and what came of it."""

from __future__ import annotations

import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import streamlit as st

from fasp_core.errors import InputError
from fasp_core.export import card, checking, writing
from fasp_core.export.planning import Plan, plan, weights_saved
from fasp_core.export.writing import export, read_result
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ModelSpec, dtype_of
from fasp_core.storage.keys import digest, slug
from fasp_core.storage.store import cache_root
from pages.backend import demo
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.shell import start
from pages.widgets import background, scoring
from pages.widgets.drawing import download

FOLDER = "exports"  # below the cache
MAX_ZIP = 300_000_000  # bytes: a browser gets it through the server's memory
MAX_LISTED = 400  # characters
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")


@start.told
def draw(spec: ModelSpec, heads: PruneSet) -> None:
    """What exporting the model without `heads` comes to, the offer to do it, and its result.

    The server writes below the cache's folder `exports`, whatever the browser sends.
    """
    st.markdown(
        "The model without the removed parts as a folder that plain transformers loads, with tokenizer and model card. "
        "It is as small as it can be without code of its own: what all layers can spare really goes, the rest is "
        "zeroed."
    )
    if demo.current() is not None:
        st.info(demo.READ_ONLY, icon=":material/lock:")
        return
    if not len(heads):
        st.info("Nothing is removed: choose heads or neurons first.", icon=":material/info:")
        return
    if not scoring.load(spec):
        return
    with st.spinner("Loading the model"):  # again, if others have taken its place
        lm = engine().models.get(spec)
    planned = plan(lm, heads)
    _planned(lm, planned)
    made_of = {"weights": lm.weights_id, "dtype": spec.dtype, "parts": heads.format(), "ablation": lm.id.ablation}
    key = digest(made_of)
    name = st.text_input(
        "Name of the folder",
        f"{slug(spec.source)}-{key}",
        key=f"checkpoint folder {key}",
        max_chars=80,
        help=f"The server writes it into `{cache_root() / FOLDER}`. Letters, digits, hyphens and underscores.",
    )
    folder = folder_of(name)
    found = read_result(folder)
    if found is not None and _same(found, lm, heads):
        _result(found, folder)
        return
    writing.check_free(folder)
    most = lm.n_parameters * dtype_of(spec.dtype).itemsize
    background.offer(
        Experiment(spec, "Export", (folder.name, heads)),
        lambda lm, _store, progress: export(lm, heads, folder, progress),
        title="Write the checkpoint",
        about=f"At most {card.megabytes(most)} are written, loaded back with plain transformers, compared with the "
        f"masked model on {len(checking.PROMPTS)} prompts, and timed beside the whole model. The folder is there only "
        "if all of this went well. With the built-in model on two cores it takes about a minute.",
        button="Write it",
        kept="Nothing is left of it.",
    )
    with st.expander("On the command line"):
        st.code(card.command(lm, heads, folder, writing.PRUNE_SET), language="sh", wrap_lines=True)


def folder_of(name: str) -> Path:
    """The folder below the cache's `exports` that a reader's name stands for.

    Raises
    ------
    InputError
        It is a path, or holds anything but letters, digits, hyphens and underscores.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            "A folder's name has letters, digits, hyphens and underscores, 80 at most, and begins with a letter or "
            "digit: change it."
        )
    return cache_root() / FOLDER / name


def _planned(lm: LanguageModel, planned: Plan) -> None:
    """What will go and what will be zeroed, from the config alone."""
    gone, zeroed = planned.gone, planned.zeroed
    before, after = planned.before, planned.after
    saved = weights_saved(lm, planned)
    lines = []
    if len(gone):
        sizes = [
            f"{old:,} → {new:,} {what}"
            for old, new, what in (
                (before.heads, after.heads, "heads"),
                (before.kv_heads, after.kv_heads, "key and value heads"),
                (before.neurons, after.neurons, "neurons"),
            )
            if old != new
        ]
        lines.append(
            f"**Really goes:** {card.told(len(gone.heads), len(gone.neurons))}, about {saved:,} of "
            f"{lm.n_parameters:,} parameters ({saved / lm.n_parameters:.1%}). Each layer: {', '.join(sizes)}."
        )
    else:
        lines.append("**Really goes:** nothing. The checkpoint is as large and as slow as the whole model.")
    if len(zeroed):
        lines.append(
            f"**Only zeroed:** {card.told(len(zeroed.heads), len(zeroed.neurons))}: {_listed(zeroed.format())}."
        )
        lines += [f"Why: {reason}" for reason in planned.reasons]
    if len(planned.scaled):
        lines.append(f"**Scaled:** {card.told(len(planned.scaled), 0)}, by multiplying columns of output projections.")
    st.markdown("\n".join(f"- {line}" for line in lines))


def _same(found: dict[str, Any], lm: LanguageModel, heads: PruneSet) -> bool:
    """Whether a folder holds what would be written."""
    made = found.get("provenance")
    return (
        found.get("weights") == lm.weights_id
        and found.get("prune_set") == heads.format()
        and isinstance(made, dict)
        and made.get("dtype") == lm.spec.dtype
        and made.get("ablation", "") == lm.id.ablation  # left out for zero
    )


def _result(found: dict[str, Any], folder: Path) -> None:
    """Sizes before and after, the check, and how to get at it."""
    before, after = found["size"]["before"], found["size"]["after"]
    speed = found["tokens_per_second"]
    st.success(f"The checkpoint is written. {card.compared(found['check'])}", icon=":material/check_circle:")
    rows = [
        ("parameters", f"{before['parameters']:,}", f"{after['parameters']:,}"),
        ("parameters that are not zero", f"{before['nonzero']:,}", f"{after['nonzero']:,}"),
        (f"weights in {speed['dtype']}", *(card.megabytes(size["bytes"]) for size in (before, after))),
        ("tokens read a second", f"{speed['before']:,.0f}", f"{speed['after']:,.0f}"),
    ]
    st.dataframe(pd.DataFrame(rows, columns=["", "before", "after"]), hide_index=True)
    st.caption(card.timed(speed))
    st.markdown("It lies on the machine that runs this app:")
    st.code(str(folder), language=None)
    st.code(
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(folder)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})",
        language="python",
    )
    total = sum(path.stat().st_size for path in _files(folder))
    if total < MAX_ZIP:
        label = f"Download as zip ({card.megabytes(total)})"
        download(label, lambda: zipped(folder), f"{folder.name}.zip", "application/zip")
    else:
        half = " In bfloat16 it would be half as large." if speed["dtype"] == "float32" else ""
        st.caption(
            f"{card.megabytes(total)} are too much for a download in the browser (the limit is "
            f"{card.megabytes(MAX_ZIP)}): copy the folder.{half}"
        )


def zipped(folder: Path) -> bytes:
    """The folder's files as one zip, put together on disk. Weights hardly compress, so nothing is compressed."""
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for path in _files(folder):
                archive.write(path, f"{folder.name}/{path.name}")
        file.seek(0)
        return file.read()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())


def _listed(parts: str) -> str:
    return parts if len(parts) <= MAX_LISTED else f"{parts[: parts.rindex(',', 0, MAX_LISTED)]} and more"
