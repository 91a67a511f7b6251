"""Reports about made-up measurements, the parser that reads them, and measurements put where the app looks for them."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from fasp_core.data.text import SCORE_TEXT
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import measurements
from fasp_core.metrics.measurements import KIND
from fasp_core.metrics.meters import BiasConfig, result_key
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.spec import ModelSpec
from fasp_core.report import gather
from fasp_core.scoring import entries
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.store import Store
from tests.support.fakes import MADE, MadeUp, made_up_lm, make_table, stand_in

SHAPE = (3, 4)
AXIS = "nationality"
NASTY = "<script>alert(1)</script>"
BREAKS = "\"'></style></title>\n</script><img src=x onerror=alert(2)>&amp;"


def small_lm(source: str = "small", n_layers: int = SHAPE[0], n_heads: int = SHAPE[1]) -> Any:
    """A model that nobody has stored anything about."""
    return stand_in(ModelSpec(source), f"made-up:{source}", n_layers, n_heads)


def small_table(groups: tuple[str, ...] | None = None) -> ImpactTable:
    """Scores of the small model; groups by other names if they are given."""
    table = make_table(*SHAPE)
    return table if groups is None else replace(table, bias=replace(table.bias, groups=groups))


TOP = PruneSet.from_flat(np.argsort(-small_table().bias.z_bias("neutral"))[:3], SHAPE[1])  # lowers the gap most


def asked(**more: Any) -> gather.Asked:
    """What a report on the small model is asked for: the set that lowers the gap most, unless told otherwise."""
    base = gather.Asked(ModelSpec("small"), AXIS, AXIS, "neutral", TOP, alpha=0.25)
    return replace(base, **more)


def facts(store: Store, asked: gather.Asked, table: ImpactTable, world: MadeUp | None = None, lm: Any = None) -> Any:
    """Gathered with `world` in place of a model."""
    world = world or MadeUp(table)
    lm = lm or small_lm(asked.spec.source)
    with ExitStack() as stack:
        stack.enter_context(patch.object(measurements, "perplexity_of", world.perplexity_of))
        stack.enter_context(patch.object(measurements, "toxicity_of", world.toxicity_of))
        return gather.gather(asked, table, lm.id, store, lambda: lm)


def nasty(store: Store, tmp_path: Path) -> gather.Facts:
    """A report whose model, axis and groups have names that are markup."""
    names = (NASTY, BREAKS.replace("\n", " "), "b</script>")
    lines = ["text,group"]
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        lines += [f'"They say {i} {name.replace(chr(34), "")} things.",{quoted}' for i in range(60)]
    (tmp_path / "nasty.csv").write_text("\n".join(lines) + "\n")
    title = f"{NASTY}{BREAKS}"
    wanted = asked(spec=ModelSpec(f"org/{NASTY}{BREAKS}"), axis=str(tmp_path / "nasty.csv"), title=title)
    made: gather.Facts = facts(store, wanted, small_table(names))
    return made


def add_measured(store: Store, asked: gather.Asked, table: ImpactTable) -> None:
    """Store what a report on the built-in model measures, as if it had been measured."""
    world, lm, config = MadeUp(table), made_up_lm(), asked.evaluation
    for parts in (PruneSet(), asked.parts):
        named = {"heads": parts.format()}
        nll, _ = world.perplexity_of(lm, parts, config.text, store)
        text = ppl_key(config.text, lm.id) | {"score": ""} | named
        arrays = {"sums": nll.sums, "counts": nll.counts.astype(np.int32)}
        store.save(KIND, text, arrays=arrays, meta={"provenance": MADE})
        toxicity = world.toxicity_of(lm, parts, config.bias, store)
        prompts = result_key(config.bias, lm.id) | named
        store.save(KIND, prompts, arrays={"values": toxicity.values}, meta={"provenance": MADE})


def add_report_example(store: Store) -> PruneSet:
    """Measurements of FASP's set on nationality (γ 0.3, α 0.02) by the stored scores, as a report asks for them."""
    axis = "nationality"
    lm = made_up_lm()
    table = entries.best(SCORE_TEXT, BiasConfig(axis), lm.id, lm.name, store)
    assert table is not None
    chosen = gather.origin(gather.Asked(ModelSpec(), axis, axis, "neutral", PruneSet(), "fasp", 0.3, 0.02), table)
    parts = PruneSet.of(chosen.heads)
    add_measured(store, gather.Asked(ModelSpec(), axis, axis, "neutral", parts, "fasp", 0.3, 0.02), table)
    return parts


class Read(HTMLParser):
    """What a browser would make of a report, as far as a test asks.

    Attributes
    ----------
    tags : (name, attributes) of every element, in order.
    text : all text that is shown; `said` that of elements with an id.
    tables : by class, the rows of cells; `rows` the same by (class, name of the row).
    scripts : the contents of scripts that run, and `charts` the JSON blocks.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.said: dict[str, str] = {}
        self.commands: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.rows: dict[tuple[str, str], list[str]] = {}
        self.scripts: list[str] = []
        self.charts: list[str] = []
        self.style = ""
        self._raw: list[str] | None = None
        self._open: list[tuple[str, list[str] | None]] = []
        self._table = ""
        self._row: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        kind = found.get("class") or ""
        if tag == "table":
            self._table = kind
            self.tables.setdefault(kind, [])
        if tag == "tr":
            self._row = []
            if found.get("data-row") is not None:
                self.rows[self._table, str(found["data-row"])] = self._row
            self.tables[self._table].append(self._row)
        sink: list[str] | None = None
        if tag in ("script", "style", "td", "th") or found.get("id") or kind in ("command", "say caution"):
            sink = []
        if tag not in ("meta", "br", "link", "img", "input", "hr"):
            self._open.append((f"{tag} {found.get('id') or kind} {found.get('type') or ''}", sink))

    def handle_data(self, data: str) -> None:
        inside = [sink for _, sink in self._open if sink is not None]
        for sink in inside:
            sink.append(data)
        if not any(name.startswith(("script", "style")) for name, _ in self._open):
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        name, sink = self._open.pop()
        assert name.split()[0] == tag, f"{name} is closed by {tag}"
        if sink is None:
            return
        content = "".join(sink)
        if tag == "script":
            (self.charts if "application/json" in name else self.scripts).append(content)
        elif tag == "style":
            self.style += content
        elif tag in ("td", "th"):
            self._row.append(content)
        elif name.startswith("pre command"):
            self.commands.append(content)
        else:
            self.said.setdefault(name.split()[1], content)


def numbers(text: str) -> list[float]:
    """All numbers in a text."""
    return [float(x.replace(",", "")) for x in re.findall(r"[-+]?(?:\d[\d,]*)?\.?\d+(?:e[+-]?\d+)?", text)]
