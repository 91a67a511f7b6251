"""How a model is asked: the chat, as text and tokens, where the person's name stands, and what modules see of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fasp_core.errors import InputError
from fasp_core.lazy import nn, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.studies.contexts.scenarios import Scenario

if TYPE_CHECKING:
    from torch import Tensor

K = TypeVar("K")


def ask(lm: LanguageModel, scenario: Scenario, person: str) -> tuple[str, list[int]]:
    """The chat that ends where the model's answer goes on: as text, and as token ids.

    Raises
    ------
    InputError
        The model has no chat template.
    """
    if not getattr(lm.tokenizer, "chat_template", None):
        raise InputError(f"{lm.name} has no chat template: an audit needs an instruct model, such as 'built-in'.")
    chat = [{"role": "user", "content": scenario.ask(person)}]
    text = lm.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + scenario.opening
    return text, lm.tokens(text)  # the template has written what stands around them


@contextmanager
def inputs_of(lm: LanguageModel, modules: Mapping[K, nn.Module]) -> Iterator[Callable[[list[int]], dict[K, Tensor]]]:
    """A pass over token ids that gives the first input of each of some modules, [1, T, in]; nobody else runs then."""
    seen: dict[K, Tensor] = {}

    def watch(place: K) -> Any:
        return lambda _module, args: seen.update({place: args[0]})

    def read(ids: list[int]) -> dict[K, Tensor]:
        lm.model.base_model(torch.tensor([ids], device=lm.device), use_cache=False)
        return {place: seen.pop(place) for place in list(seen)}

    with lm.lock, ExitStack() as hooks:
        for place, module in modules.items():
            hooks.callback(module.register_forward_pre_hook(watch(place)).remove)
        yield read


def name_places(lm: LanguageModel, text: str, name: str) -> list[int]:
    """Places of the tokens that overlap with the name, wherever it stands in the text.

    Raises
    ------
    InputError
        The tokenizer does not say where tokens stand in the text.
    """
    if not getattr(lm.tokenizer, "is_fast", False):
        raise InputError(
            f"The tokenizer of {lm.name} does not say where tokens stand in a text: use first-order effects."
        )
    offsets = lm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    starts, at = [], text.find(name)
    while at >= 0:
        starts.append(at)
        at = text.find(name, at + len(name))
    spans = [(s, s + len(name)) for s in starts]
    return [i for i, (a, b) in enumerate(offsets) if any(a < end and b > start for start, end in spans)]
