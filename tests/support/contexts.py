"""A world of scenarios about the words of a tiny model, and a model that can be asked about it."""

from __future__ import annotations

import copy

from fasp_core.model.language_model import LanguageModel
from tests.support.tiny import tiny_lm

FILE = """
[contexts.rooms]
unit = "dollars"
opening = "$"
question = "The {item} of {name} is"
scenarios = ["house", "tree"]
[groups]
one = ["red", "blue", "green"]
two = ["tall", "short", "young", "old"]
three = ["kind"]
"""
TEMPLATE = "{% for m in messages %}We {{ m.content }} .{% endfor %}{% if add_generation_prompt %} My{% endif %}"


def instructed(lm: LanguageModel) -> LanguageModel:
    """The model with a tokenizer of its own, which knows how a chat is written."""
    lm.tokenizer = copy.deepcopy(lm.tokenizer)
    lm.tokenizer.chat_template = TEMPLATE
    return lm


def instruct_lm(kind: str = "llama") -> LanguageModel:
    """A tiny model that can be asked."""
    return instructed(tiny_lm(kind))
