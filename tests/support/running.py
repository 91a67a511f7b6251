"""Running a page without a browser, and reading what stands on it."""

from __future__ import annotations

import base64
import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from streamlit.testing.v1 import AppTest

from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.spec import BUILT_IN, BUILT_IN_SHAPE

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "app.py"
AXIS = "race_ethnicity"  # that pages begin with
N_HEADS = BUILT_IN_SHAPE[1]
HAND = f"by_hand {BUILT_IN}"


def run(at: AppTest) -> AppTest:
    """Run the page again; whatever it raises fails the test."""
    for box in at.selectbox:  # AppTest forgets options that were typed in
        if box.key == "model" and box.value != BUILT_IN and box.value not in box.options:
            box.options.append(str(box.value))
    at.run()
    assert not at.exception, [e.value for e in at.exception]
    return at


def opened(page: str = "explore", query: dict[str, str] | None = None, **state: Any) -> AppTest:
    """A page of the app as it first appears, with an address and some session state already there."""
    at = AppTest.from_file(APP, default_timeout=120)
    at.session_state["arrived"] = True  # else a demo begins with the presentation
    if page != "explore":
        at.switch_page(f"pages/{page}/{page}.py")
    for name, value in (query or {}).items():
        at.query_params[name] = value
    for name, value in state.items():
        at.session_state[name] = value
    return run(at)


def bars(at: AppTest) -> list[str]:
    """What the progress bars say."""
    found: Any = at.get("progress")
    return [bar.text for bar in found]


def exploring(**state: Any) -> AppTest:
    """The page "Explore heads" with five heads of the built-in model chosen."""
    return opened(**{"alpha": 0.02, "gamma": 0.3, **state})


def change(at: AppTest, **values: Any) -> AppTest:
    """Set widgets by key, and look at what comes of it."""
    for key, value in values.items():
        node: Any = at.get_by_key(key)
        if key == "model" and value not in node.options:
            node.options.append(value)
        node.set_value(value)
    return run(at)


def press(at: AppTest, which: str) -> AppTest:
    """Press the one button of this label, of those on the main page first; or one whose key is this or begins so."""
    on_main, everywhere = ([b for b in buttons if b.label == which] for buttons in (at.main.button, at.button))
    assert len(on_main) <= 1
    ([*on_main, *everywhere] or [b for b in at.button if (b.key or "").startswith(which)])[0].click()
    return run(at)


def said(at: AppTest) -> str:
    """All prose of the main page."""
    main = at.main
    kinds = (main.subheader, main.caption, main.markdown, main.info, main.success, main.warning, main.error)
    return "\n".join(str(node.value) for nodes in kinds for node in nodes)


def texts(at: AppTest) -> str:
    """All prose, sidebar and popovers included, and what is shown as plain text or code."""
    kinds = (at.markdown, at.caption, at.text, at.info, at.error, at.warning, at.code)
    return "\n".join(str(node.value) for nodes in kinds for node in nodes)


def labels(at: AppTest) -> list[str]:
    """Labels of all buttons."""
    return [button.label for button in at.button]


def metric(at: AppTest, label: str) -> Any:
    """The one metric whose label begins so."""
    (found,) = (m for m in at.metric if m.label.startswith(label))
    return found


def metrics(at: AppTest) -> dict[str, str]:
    """Values of all metrics by label."""
    return {m.label: m.value for m in at.metric}


def removed(at: AppTest) -> int:
    """How many heads the page says are removed."""
    match = re.fullmatch(r"(\d+) of \d+ heads", metric(at, "Removed").value)
    assert match is not None
    return int(match[1])


def requested(at: AppTest) -> PruneSet:
    """The set that the page has asked to measure."""
    heads = at.session_state["job main"].key.heads
    assert isinstance(heads, PruneSet)
    return heads


def charts(at: AppTest) -> list[dict[str, Any]]:
    """Specifications of the charts."""
    found: Any = at.get("plotly_chart")
    return [json.loads(chart.proto.spec) for chart in found]


def array_of(values: Any) -> np.ndarray:
    """Numbers of a trace, in whichever form Plotly sends them."""
    if not isinstance(values, dict):
        return np.array(values, dtype=float)
    shape = [int(n) for n in str(values.get("shape", -1)).split(",")]
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).reshape(shape).astype(float)


def instrument(at: AppTest) -> dict[str, Any]:
    """What the instrument's script was given."""
    found: Any = at.get("bidi_component")
    sent = [json.loads(one.proto.json) for one in found if one.proto.json]
    (shown,) = (one[0] for one in sent if isinstance(one, list))
    return dict(shown)


def marked(at: AppTest, *names: str) -> set[tuple[int, int]]:
    """(layer, head) of those that the instrument is to mark so: pruned, pruned by hand, kept by hand."""
    shown = instrument(at)
    rule, prune, keep = shown["rule"], set(shown["prune"]), set(shown["keep"])
    chosen: list[int] = [head for head in rule["found"] if head not in prune | keep]
    if rule["cost"] is not None:
        protected = math.floor(Fraction(str(shown["gamma"])) * rule["size"]) if rule["protect"] else 0
        spared = {*(rule["protect"] or [])[:protected], *prune, *keep}
        left = math.floor(Fraction(str(shown["alpha"])) * rule["size"]) - len(prune)
        chosen = [head for head in rule["cost"] if head not in spared][: max(left, 0)]
    heads = {"pruned": set(chosen), "pruned by hand": prune, "kept by hand": keep}
    return {divmod(head, shown["heads"]) for name in names for head in heads[name]}
