"""What a frame costs while a slider of the instrument is dragged, in a real browser: 270 heads and 5,120."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from benchmarks._browser import chromium
from benchmarks._common import machine, say
from fasp_core.figures.cells import cell_colors
from fasp_core.figures.theme import LIGHT
from fasp_core.metrics.perplexity import Nll
from fasp_core.scoring.impact_table import BiasImpacts, ImpactTable, PplImpacts
from pages.instrument.instrument import HERE, script
from pages.instrument.sent import Map, Rule, Shown, Strength, colors_of, effects

SHAPES = ((30, 9), (80, 64))
CASES = ("", "strength_")  # gamma and alpha in turn; the strength of learned gains, which moves every gate
PROMPTS, GROUPS = 720, 9

# A frame's whole work on the page's thread: the slider's event, choice, estimates, marks, and what the browser does
# with them until it has painted. The task after a frame's callback runs when the frame is done.
DRIVE = """async ([text, style, data, packed, frames]) => {
    const made = await import(URL.createObjectURL(new Blob([text], {type: 'text/javascript'})));
    document.body.replaceChildren();
    const host = document.body.appendChild(document.createElement('div')).attachShadow({mode: 'open'});
    host.append(Object.assign(document.createElement('style'), {textContent: style}));
    const start = await (await fetch(`data:;base64,${packed}`)).arrayBuffer();
    made.default({data: new Uint8Array(start), parentElement: host, setStateValue: () => {}});
    made.default({data: [data], parentElement: host, setStateValue: () => {}});
    const view = host.instrument, channel = new MessageChannel(), work = [], own = [], gaps = [];
    const frame = () => new Promise(done => requestAnimationFrame(done));
    let last = await frame();
    for (let i = 0; i < frames + 10; i++) {
        const name = data.strength ? 'strength' : i % 160 < 80 ? 'alpha' : 'gamma', at = 1 - Math.abs(i % 80 - 40) / 40;
        const now = await frame(), began = performance.now();
        const slider = view.top[name].input;
        slider.value = at * slider.max;
        slider.dispatchEvent(new Event('input'));
        view.frame();
        const ended = performance.now();
        await new Promise(done => { channel.port1.onmessage = done; channel.port2.postMessage(0); });
        if (i >= 10) { work.push(performance.now() - began); own.push(ended - began); gaps.push(now - last); }
        last = now;
    }
    return [work, own, gaps, view.marks.length];
}"""


def run(frames: int = 200, seed: int = 0) -> dict[str, Any]:
    """Milliseconds of a frame of a brisk drag: each slider in turn from one end to the other in 40 frames, and back.

    frame_p95_ms_N: work of a frame of N heads, until it is painted; 95% take no longer. frame_p50_ms_N: half of them.
    script_p95_ms_N: the script's part of that, whatever else the machine does to the browser's own.
    gap_p50_ms_N: from one frame to the next, which the screen's rate bounds below.
    strength_...: the same of the one slider of learned gains, a gate for each head, nothing of which is measured.

    Raises as `chromium`.
    """
    found: dict[str, Any] = {}
    style = (HERE / "instrument.css").read_text(encoding="utf-8")
    with chromium() as (browser, path):
        for (layers, heads), case in product(SHAPES, CASES):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto("about:blank")
            shown, packed = made_up(layers, heads, seed)
            if case:
                shown = learned(shown, seed)
            given = [script(), style, json.loads(json.dumps(shown.sent())), base64.b64encode(packed).decode(), frames]
            work, own, gaps, size = page.evaluate(DRIVE, given)
            for name, times, percent in (
                ("frame", work, 95),
                ("frame", work, 50),
                ("script", own, 95),
                ("gap", gaps, 50),
            ):
                found[f"{case}{name}_p{percent}_ms_{size}"] = float(np.percentile(times, percent))
            say(f"drag: {case}{size} heads, 95% of frames within {found[f'{case}frame_p95_ms_{size}']:.1f} ms")
            page.close()
    return {**found, "frames": frames, "prompts": PROMPTS, "browser": path, **machine()}


def learned(shown: Shown, seed: int = 0) -> Shown:
    """The same with learned gains as the method."""
    size = shown.layers * shown.heads
    gates = np.random.default_rng(seed).uniform(0.5, 1.3, size).round(6).tolist()
    rule = Rule(size, None, None, [], [])
    return replace(shown, rule=rule, strength=Strength(1.0, gates))


def made_up(layers: int, heads: int, seed: int = 0) -> tuple[Shown, bytes]:
    """What the page would send of a model with random scores."""
    rng = np.random.default_rng(seed)
    n = layers * heads
    sums, counts = rng.normal(200, 10, 16), np.full(16, 64)
    base = rng.uniform(0.002, 0.02, (1, PROMPTS))
    change = rng.normal(0, 1e-4, (n, 1, PROMPTS)).astype(np.float32)
    table = ImpactTable(
        "random",
        layers,
        heads,
        PplImpacts(Nll(sums, counts), sums + rng.normal(1, 2, (n, 16)), rng.random(n), rng.random(n), {}),
        BiasImpacts(
            "expected",
            "axis",
            "valid",
            "scorer",
            ("neutral",),
            base,
            base + change,
            np.arange(PROMPTS) % GROUPS,
            tuple(map(str, range(GROUPS))),
            {},
        ),
    )
    name, packed = effects(table, "neutral")
    scores = table.head_scores("neutral")
    drawn = [cell_colors(z, np.abs(z) * rng.random(n), LIGHT) for z in (table.ppl.z_ppl, table.bias.z_bias("neutral"))]
    shown = Shown(
        effects=name,
        layers=layers,
        heads=heads,
        method="FASP",
        rule=Rule.of(scores, "fasp", 0),
        gamma=0.3,
        alpha=0.05,
        sliders={"gamma": (1.0, 0.01, True), "alpha": (0.4, 0.005, True), "strength": (1.0, 0.01, True)},
        prune=[],
        keep=[],
        gains={},
        picked=[],
        means="toggle",
        order=None,
        texts=["perplexity: +0.000 ± 0.01 without it\ngap falls by +0.000 ± 0.01 thousandths without it"] * n,
        sure=None,
        maps=[Map(title, "", "", "", cells.colors, cells.ticks) for title, cells in zip("ab", drawn, strict=True)],
        base=(table.ppl.base.perplexity, 1000 * table.bias.gap("neutral").gap),
        taught=(1.1, 0.9),
        off=("±3%", "±12%"),
        learnt="",
        colors=colors_of(LIGHT),
        done=0,
    )
    return shown, packed
