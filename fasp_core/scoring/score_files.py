"""The files that the command line writes and reads: score folders, released score files, prune sets.

A file may come from anyone, so its size is bounded, its numbers are checked, and what is wrong with it is said in
one sentence.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core import released as published
from fasp_core.console import to_json
from fasp_core.errors import InputError
from fasp_core.gap.claims import is_gap
from fasp_core.heads import prune_files
from fasp_core.heads.prune_files import PruneFile
from fasp_core.heads.prune_set import MAX_HEADS, PruneSet
from fasp_core.heads.selection import HeadScores
from fasp_core.storage import tabular
from fasp_core.storage.atomic import atomic_write

if TYPE_CHECKING:  # these import torch
    from fasp_core.data.text import TextConfig
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.scoring.impact_table import ImpactTable, TaskImpacts
    from fasp_core.scoring.score import Search

MAX_ABOUT = 1_000_000  # bytes of scores.json
MAX_CELLS = 20_000_000  # rows times columns of a Parquet file
_READ_BIAS = ("fasp", "bias-only")
_GENDER = "gender_and_sex"


@dataclass(frozen=True, eq=False)
class OpenedScores:
    """Scores of one model on one axis in one reading; what is not known of where they come from is None."""

    scores: HeadScores
    model: str | None
    axis: str | None
    reading: str | None
    notes: tuple[str, ...]
    estimator: str | None = None

    def protecting(self, protect: str) -> OpenedScores:
        """The same with heads that are critical by something else, and what that means for these scores."""
        if protect == self.scores.protect:
            return self
        notes = self.notes
        if self.estimator in ("refined", "two-phase"):
            notes += (
                f"Heads were removed for choices that protect by perplexity ({self.estimator} scores): of heads that "
                "are free otherwise, some have first-order scores. Score with --estimator exact to remove them all.",
            )
        return replace(self, scores=replace(self.scores, protect=protect), notes=notes)


def check_folder(out: Path) -> None:
    """Make the folder of the results, so that hours of work do not end at a full or read-only place.

    Raises InputError where that fails.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError(None, "Permission denied")
    except OSError as error:
        raise InputError(f"'{out}' cannot be written ({error.strerror}): name another folder with --out.") from error


# --- score folders ---


def describe_scores(
    impacts: ImpactTable, config: BiasConfig, text: TextConfig, search: Search | None = None
) -> dict[str, Any]:
    """What scores.json says: where the scores come from, and how far they can be trusted."""
    from fasp_core.data.text import fitting, said
    from fasp_core.scoring.score import GAMMA, prunable

    toxicity, ppl = impacts.bias, impacts.ppl
    text = fitting(text, ppl.provenance.get("longest_window"))
    reliability = {
        reading: {
            "all": _reliability(impacts, reading, None),
            "prunable": {"gamma": GAMMA, **_reliability(impacts, reading, prunable(impacts))},
        }
        for reading in toxicity.readings
    }
    sizes = np.bincount(toxicity.codes)
    drawn = {"sampled": config.generation, "written": config.drawn}.get(config.measure)
    return {
        "model": impacts.model,
        "weights": ppl.provenance.get("weights"),
        "n_layers": impacts.n_layers,
        "n_heads": impacts.n_heads,
        "estimator": toxicity.estimator,
        "heads_removed": len(toxicity.ablated) if toxicity.exact is None else int(toxicity.exact.sum()),
        "axis": config.axis,
        "split": config.split,
        "measure": config.measure,
        "scored": config.scored if config.measure == "sampled" else "next word",
        "steps": None if config.measure == "sampled" else config.steps,
        "scorer": toxicity.scorer,
        "readings": list(toxicity.readings),
        "prompts": int(sizes.sum()),
        "groups": {name: int(size) for name, size in zip(toxicity.groups, sizes, strict=True)},
        "notes": list(config.prompts().notes),
        "seed": config.seed,
        "generation": drawn.key() if drawn is not None else None,
        "perplexity": {
            "base": ppl.base.perplexity,
            "tokens": ppl.base.tokens,
            "text": asdict(text),
            "windows": said(text, ppl.provenance),
            "estimator": "exact" if ppl.exact.all() else "preview",
        },
        "gap": {reading: asdict(toxicity.gap(reading)) for reading in toxicity.readings},
        "reliability": reliability,
        # a gap that noise explains ranks nothing
        "ranked": {reading: is_gap(toxicity.gap(reading).noise_p) for reading in toxicity.readings},
        "until": asdict(search) if search is not None else None,
        "provenance": {"perplexity": ppl.provenance, "bias": toxicity.provenance},
        **({} if impacts.task is None else {"task": _task(impacts.task)}),
    }


def _task(task: TaskImpacts) -> dict[str, Any]:
    """What z_task was made on."""
    return {
        "name": "lambada",
        "split": "valid",
        "passages": task.passages,
        "passages_removed": task.removed_on,
        "estimator": task.estimator,
        "said": task.said,
        "nats_base": float(task.base.mean()),
        "provenance": task.provenance,
    }


def write_scores(impacts: ImpactTable, about: dict[str, Any], out: Path) -> list[str]:
    """Write scores.parquet, scores.csv and scores.json; their paths."""
    frame = impacts.frame()
    parquet = frame.to_parquet(None, engine="pyarrow")
    assert isinstance(parquet, bytes)  # it is, without a path
    files = {
        out / "scores.parquet": parquet,
        out / "scores.csv": frame.to_csv(index=False).encode(),
        out / "scores.json": to_json(about).encode() + b"\n",
    }
    atomic_write(files)
    return [str(path) for path in files]


def open_scores(
    path: Path,
    method: str,
    model: str | None = None,
    axis: str | None = None,
    reading: str | None = None,
    n_heads: int | None = None,
) -> OpenedScores:
    """Scores from a folder that `score` wrote, from one of its files, or from a file that the FASP authors released.

    Parameters
    ----------
    method : one that reads no bias needs no axis.
    model, n_heads : for released files, which hold several models and no shapes.
    axis : needed where a released file has several; checked against the folder's scores.json.
    reading : "neutral" (default, where there is one), "counted" or "sampled".

    Raises
    ------
    InputError
        The file is missing or unusable, or a choice is missing or not in it; the message lists what is.
    """
    file = _score_file(path)
    if file.suffix.lower() != ".parquet" and not _is_ours(file):
        return _open_released(file, method, model, axis, reading, n_heads)
    if model is not None or n_heads is not None:
        raise InputError(f"'{file}' holds one model: leave out --published-model and --n-heads.")
    return _open_ours(file, axis, reading)


def _score_file(path: Path) -> Path:
    if path.name == "scores.json":
        path = path.parent
    names = ("scores.parquet", "scores.csv")
    if os.path.isdir(path):  # unlike Path.is_dir, False for whatever cannot be a path
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise InputError(f"The folder '{path}' holds no {names[0]}: give one written by 'score --out', or a file.")
        path = found[0]
    if not os.path.isfile(path):
        raise InputError(f"There is no '{path}': give a folder written by 'score --out', or a score file.")
    if not os.access(path, os.R_OK):
        raise InputError(f"'{path}' cannot be read: check who may read it.")
    if path.stat().st_size > published.MAX_BYTES:
        raise InputError(f"'{path}' is larger than {published.MAX_BYTES // 1_000_000} MB: give a score file.")
    return path


def _is_ours(file: Path) -> bool:
    """Whether the header of a table is that of scores.csv."""
    if file.suffix.lower() not in tabular.ENDINGS:
        return False
    with file.open("rb") as handle, suppress(InputError):
        start = tabular.decode(handle.read(20_000), "It", "ignore")
        return bool(tabular.table(start, ("layer", "head")).column)
    return False


def _open_ours(file: Path, axis: str | None, reading: str | None) -> OpenedScores:
    columns = _columns(file)
    n_layers, n_heads, order = _shape(file, columns)
    readings = [
        name.removeprefix("z_bias_") for name in columns if name.startswith("z_bias_") and not name.endswith("_se")
    ]
    if reading is None:
        reading = "neutral" if "neutral" in readings else next(iter(readings), None)
    elif reading not in readings:
        raise InputError(f"'{file}' has no reading '{reading}': choose one of {', '.join(readings) or 'none'}.")
    about = _about(file)
    said = {name: text for name in ("axis", "model", "estimator") if isinstance(text := about.get(name), str)}
    if axis is not None and axis != said.get("axis", axis):
        raise InputError(f"'{file}' is about the axis {said['axis']}: leave --axis out, or score '{axis}' first.")

    def of(name: str) -> np.ndarray | None:
        return columns[name][order] if name in columns else None

    ppl = of("z_nats")  # the order of z_ppl, without its overflow
    scores = HeadScores(
        n_layers,
        n_heads,
        z_ppl=of("z_ppl") if ppl is None else ppl,
        z_bias=of(f"z_bias_{reading}"),
        magnitude=of("magnitude"),
        gradient=of("gradient"),
        z_task=of("z_task"),
    )
    notes = _doubts(about, reading)
    return OpenedScores(scores, said.get("model"), axis or said.get("axis"), reading, notes, said.get("estimator"))


def _columns(file: Path) -> dict[str, np.ndarray]:
    if file.suffix.lower() != ".parquet":
        return _table_columns(file)
    import pyarrow as pa
    from pyarrow import parquet

    try:  # neither ParquetFile nor to_pylist imports pandas, as their nearest kin do
        opened = parquet.ParquetFile(file)
        size = opened.metadata.num_rows * max(1, opened.metadata.num_columns)
        unpacked = sum(opened.metadata.row_group(i).total_byte_size for i in range(opened.metadata.num_row_groups))
        if size > MAX_CELLS or unpacked > published.MAX_BYTES:  # a few bytes can stand for billions of numbers
            raise ValueError(f"{size:,} cells")
        rows = opened.read()
        return {
            name: np.array(rows.column(name).cast(pa.float64()).to_pylist(), dtype=np.float64)  # None becomes NaN
            for name in rows.column_names
        }
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(f"'{file}' is not a table of scores ({error}): give one written by 'score'.") from error


def _table_columns(file: Path) -> dict[str, np.ndarray]:
    """Of scores.csv, also as a spreadsheet saves it: with semicolons or tabs, and decimal commas."""
    try:
        table = tabular.table(tabular.decode(file.read_bytes(), "The file"), ("layer", "head"), max_rows=MAX_HEADS)
        names = [name.lower() for name in table.header]
        rows = [row.cells + [""] * (len(names) - len(row.cells)) for row in table.rows()]
        mark = tabular.decimal_mark(cell for row in rows for cell in row)
        return {
            name: np.array([tabular.number(row[place], mark) for row in rows], dtype=np.float64)
            for place, name in enumerate(names)
        }
    except (OSError, ValueError, InputError) as error:
        raise InputError(f"'{file}' is not a table of scores ({error}): give one written by 'score'.") from error


def _shape(file: Path, columns: dict[str, np.ndarray]) -> tuple[int, int, np.ndarray]:
    """(layers, heads in a layer, row of each flat id)"""
    layer, head = (columns.get(name, np.empty(0)) for name in ("layer", "head"))
    if layer.size and np.isfinite([layer, head]).all():
        n_layers, n_heads = int(layer.max()) + 1, int(head.max()) + 1
        order = np.lexsort((head, layer))
        if n_layers * n_heads == layer.size and np.array_equal(
            np.stack([layer, head])[:, order], np.divmod(np.arange(layer.size), n_heads)
        ):
            return n_layers, n_heads, order
    raise InputError(f"'{file}' has not one row for each head, by layer and head from 0: give one written by 'score'.")


def _about(file: Path) -> dict[str, Any]:
    """The folder's scores.json; empty where there is none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        path = file.with_name("scores.json")
        if path.stat().st_size <= MAX_ABOUT and isinstance(about := json.loads(path.read_bytes()), dict):
            return about
    return {}


def _doubts(about: dict[str, Any], reading: str | None) -> tuple[str, ...]:
    """What the scores' own figures say against a choice made on them."""
    notes = []
    with suppress(KeyError, TypeError, OverflowError):
        chance = about["gap"][reading]["noise_p"]
        if not is_gap(chance):
            notes.append(
                f"Shuffled groups show a gap as large in {chance:.0%} of cases: it is not shown that there is one."
            )
    with suppress(KeyError, TypeError, OverflowError):
        halves = about["reliability"][reading]["prunable"]["halves"]
        if halves < 0.5:
            notes.append(
                f"The ranking of prunable heads hardly repeats: two halves of the prompts correlate {halves:.2f}."
            )
    return tuple(notes)


def _reliability(impacts: ImpactTable, reading: str, heads: list[int] | None) -> dict[str, Any]:
    try:
        return asdict(impacts.bias.reliability(reading, heads))
    except InputError as error:  # fewer than three heads
        return {"halves": None, "whole": None, "why": str(error)}


def _open_released(
    file: Path, method: str, model: str | None, axis: str | None, reading: str | None, n_heads: int | None
) -> OpenedScores:
    released = published.read(file)
    if reading not in (None, "sampled"):
        raise InputError(f"The released scores have no reading '{reading}', only 'sampled': leave --reading out.")
    if model is None:
        model = _only(released.models, f"'{file}' holds several models", "--published-model")
    notes: tuple[str, ...] = ()
    if method in _READ_BIAS:
        if axis is None and (axes := released.axes(model)):
            axis = _only(axes, f"'{file}' has several axes for {model}", "--axis")
        if axis not in (None, _GENDER):
            notes = (
                f"The authors' own runs used the scores of {_GENDER} on every axis (their flag is always true): "
                f"to repeat their lists, select with --axis {_GENDER}.",
            )
    try:
        scores = released.head_scores(model, axis, n_heads)
    except InputError as error:
        if n_heads is None and model not in published.SHAPES:
            raise InputError(f"{str(error).rstrip('.')}, with --n-heads.") from error
        raise
    return OpenedScores(scores, model, axis, "sampled", notes)


def _only(names: tuple[str, ...], several: str, option: str) -> str:
    if len(names) > 1:
        raise InputError(f"{several}: choose with {option} one of {', '.join(names)}.")
    return names[0]


# --- prune sets ---


def heads_of(text: str, n_layers: int, n_heads: int) -> frozenset[int]:
    """Flat ids of heads that are written down, such as `L0H3,L2H1-4`; blank: none.

    Raises as `PruneSet.parse` and `PruneSet.gates`, and InputError for a neuron or a gain.
    """
    named = PruneSet.parse(text)
    if named.neurons:
        raise InputError("A method chooses heads: name heads, such as L0H3, and no neurons.")
    if "*" in text:  # a gain of 1 leaves nothing named
        raise InputError("A method removes heads whole: name heads, such as L0H3, without gains.")
    named.gates(n_layers, n_heads)
    return frozenset(named.flat(n_heads))


def read_prune_set(path: Path) -> PruneFile:
    """What a file that `select --out` wrote holds, or a text file such as `L0H3,L2H1-4`.

    Raises
    ------
    InputError
        The file is missing, too large, or holds something else.
    """
    try:
        with path.open("rb") as handle:
            raw = handle.read(prune_files.MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"The prune set '{path}' cannot be read ({error.strerror}): give a file made by 'select --out'."
        ) from error
    return prune_files.read(raw, str(path))
