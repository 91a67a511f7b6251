"""Which results rest on noise, and that each says on which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fasp_core.forward import noise
from fasp_core.metrics.meters import BiasConfig, result_key
from fasp_core.model.identity import ModelId
from fasp_core.storage.store import Store

CACHE = Path(__file__).parents[3] / "cache"
MODEL = ModelId("sha256:0", "float32")


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [({}, False), ({"steps": 1}, False), ({"steps": 2}, True), ({"measure": "sampled"}, True)],
)
def test_sampled_results_say_which_noise(settings: dict[str, Any], drawn: bool) -> None:
    key = result_key(BiasConfig("age", n_prompts=20, **settings), MODEL)
    assert ("noise" in key) == drawn
    assert noise.version(key) == (noise.VERSION if drawn else 1)
    assert noise.before(key) == {name: value for name, value in key.items() if name != "noise"}


def test_what_is_committed_and_rests_on_earlier_noise() -> None:
    """Claims, for their sampled part, and the matrix of contexts; what was drawn since says so, and all else takes the
    next word as it is."""
    store = Store(CACHE)
    entries = [entry for kind in ("scores", "experiments", "words") for entry in store.entries(kind)]
    assert len(entries) > 30
    drawn = [e for e in entries if e.config.get("experiment") in ("outcome", "contexts")]
    before = [e.config["experiment"] for e in drawn if noise.version(e.config) == 1]
    assert sorted(before) == ["contexts", "outcome", "outcome"]
    assert {noise.version(e.config) for e in drawn} <= {1, noise.VERSION}
    for entry in entries:
        if entry not in drawn and noise.version(entry.config) != noise.VERSION:
            asked = _settings({**entry.config, "gains": {}})  # the steps of gains are Adam's
            assert {value for name, value in asked if name == "steps"} <= {1}
            assert "sampled" not in {value for name, value in asked if name == "measure"}


def _settings(config: Any) -> list[tuple[str, Any]]:
    """All names and plain values, however deep."""
    if isinstance(config, dict):
        plain = [(name, value) for name, value in config.items() if not isinstance(value, dict | list)]
        return plain + [pair for value in config.values() for pair in _settings(value)]
    return [pair for value in config for pair in _settings(value)] if isinstance(config, list) else []
