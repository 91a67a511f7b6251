"""What is done on a page as a command line, of the same model in every respect."""

from __future__ import annotations

from fasp_core.model.provenance import line, model_options
from fasp_core.model.spec import ModelSpec
from pages.backend.engine import engine


def command(spec: ModelSpec, *words: object) -> str:
    """The program's words for a model that is known, and the options that name it."""
    return line(*words, *model_options(spec, engine().models.identity(spec).weights))
