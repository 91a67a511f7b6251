"""A course on which gates of a model with one guilty head are learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fasp_core.data.text import TextConfig
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring.learned.gain_steps import Course
from fasp_core.scoring.learned.gates import GainsConfig
from fasp_core.storage.store import Store
from tests.support.words import guilty_model

GUILTY = (1, 3)
AXIS = {"green": ("green", "tall"), "red": ("red", "short", "young"), "blue": ("blue",)}
TEMPLATES = ("I met a {}", "We saw a {}", "They like a {}", "You know my {}", "The team met a {}", "My friend saw a {}")


def course(bias: BiasConfig, text: TextConfig, tmp_path: Path, **told: Any) -> Course:
    config = GainsConfig(**{"steps": 3, "prompts": 24, "passages": 0, "paragraphs": 0} | told)
    return Course(guilty_model(*GUILTY), [bias], text, config, Store(tmp_path / "course"), None)
