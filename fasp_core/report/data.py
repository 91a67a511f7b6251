"""The scores and the set as data files: CSV, Parquet and JSON, as the commands `score` and `select` write them."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from fasp_core.console import to_json
from fasp_core.data.text import TextConfig
from fasp_core.heads import prune_files
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import Selection
from fasp_core.lazy import pd
from fasp_core.metrics.meters import BiasConfig
from fasp_core.report.gather import asked_prompts
from fasp_core.scoring import score_files
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.tasks.utility import Utility


def frame(table: ImpactTable, selection: Selection) -> pd.DataFrame:
    """One row a head: the columns of `score --out`, and 0 or 1 for `removed`, `critical` and `by_hand`."""
    out = table.frame()
    for name, heads in (
        ("removed", selection.pruned),
        ("critical", selection.critical),
        ("by_hand", (*selection.forced, *selection.locked)),
    ):
        out[name] = [int(flat in set(heads)) for flat in range(len(out))]
    return out


def csv(rows: pd.DataFrame) -> bytes:
    return rows.to_csv(index=False).encode()


def parquet(rows: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    rows.to_parquet(out, engine="pyarrow")
    return out.getvalue()


def scores_json(
    table: ImpactTable, config: BiasConfig, text: TextConfig, rows: pd.DataFrame, chosen: dict[str, Any]
) -> bytes:
    """Where the scores come from and how far they can be trusted (scores.json), the rows, and the set."""
    asked = replace(config, n_prompts=asked_prompts(table))
    about = score_files.describe_scores(table, asked, text)
    return _bytes(about | {"scores": rows.to_dict("records"), "set": chosen})


def tasks_csv(found: Utility) -> bytes:
    """One row a task: its numbers under the names of `utility --json`, ends of intervals as `_low` and `_high`."""
    rows = []
    for name, task in found.as_dict()["tasks"].items():
        nats, by_bytes = task.pop("likelihood"), task.pop("by_bytes")
        row = {"task": name, **task, **{f"nats_{key}": value for key, value in nats.items()}}
        row["points_by_bytes"] = None if by_bytes is None else by_bytes["points"]
        for key in [key for key in row if key.endswith("interval")]:
            row[f"{key}_low"], row[f"{key}_high"] = row.pop(key) or (None, None)
        rows.append(row)
    return csv(pd.DataFrame(rows))


def tasks_json(found: Utility) -> bytes:
    """As `utility --json`."""
    return _bytes(found.as_dict())


def set_json(
    selection: Selection, parts: PruneSet, *, model: str, axis: str, reading: str
) -> tuple[dict[str, Any], bytes]:
    """The set as `select --out` writes it: as a document, and as a file."""
    found = prune_files.document(selection, parts, model=model, axis=axis, reading=reading)
    return found, _bytes(found)


def _bytes(document: dict[str, Any]) -> bytes:
    return to_json(document).encode() + b"\n"
