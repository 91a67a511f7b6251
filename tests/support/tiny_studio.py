"""The app's surroundings with a tiny model that really runs."""

from __future__ import annotations

from typing import Any

from fasp_core.model.spec import ModelSpec
from tests.support.fakes import Studio
from tests.support.tiny import tiny_lm

SOURCE = "tiny llama"


class TinyStudio(Studio):
    """Measurements are made up; whatever else is asked of a model is asked of a real one, if a tiny one."""

    def load(self, spec: ModelSpec) -> Any:
        if spec.source != SOURCE:
            return super().load(spec)
        lm = tiny_lm("llama")
        lm.spec = spec
        return lm
