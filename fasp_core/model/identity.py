"""Which model gave a result: the part of every key that tells one model's numbers from another's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import Any

_NAMELESS = re.compile(r"(^|[:@])(None)?(/|$)")  # a hash or a commit that was not there, put into an id


@dataclass(frozen=True)
class ModelId:
    """What shapes a model's numbers beside what it is asked.

    Attributes
    ----------
    weights : names the weights: a hash of the files, or the repository and commit of a hub.
    dtype : precision of weights and passes.
    bos : what begins every prompt and every window of text, such as "<bos>", or that it was left out ("no <bos>");
        "" where the tokenizer adds nothing and nothing was asked for.
    rules : how else texts are read and ended, where that is not what an end token of the tokenizer or config says.
    ablation : what heads that are taken out become, where that is not zero.
    longest : longest window of text that the model takes, in tokens; no part of a key. None: of any length.
    device : kind of device, such as "cuda", where passes have 16 bits: each kind rounds them in its own way. Empty in
        float32, in which kinds agree to far less than what is measured.

    Raises
    ------
    ValueError
        The weights have no name: results of two models would share one key.
    """

    weights: str
    dtype: str = "float32"
    bos: str = ""
    rules: str = ""
    device: str = ""
    ablation: str = ""
    longest: int | None = field(default=None, compare=False, metadata={"key": False})

    def __post_init__(self) -> None:
        if _NAMELESS.search(self.weights) or not self.dtype:
            raise ValueError(f"a model without an identity: {self}")

    @property
    def begun(self) -> bool:
        """Whether texts begin with a token of the tokenizer's."""
        return bool(self.bos) and not self.bos.startswith("no ")

    @property
    def whole(self) -> ModelId:
        """Of results in which no head is taken out: how that is done does not shape them."""
        return replace(self, ablation="")

    @staticmethod
    def kind(device: str, dtype: str) -> str:
        """The field `device` of a model on a kind of device."""
        return "" if dtype == "float32" else device

    def key(self) -> dict[str, Any]:
        """What a result's key holds of the model. A later field is there only where it is set, so that keys stay."""
        return {name: value for name, value in self.wanted().items() if value is not None}

    def wanted(self) -> dict[str, Any]:
        """The same with None for what a key must not hold, to look for entries with (`Store.find`)."""
        named = [field.name for field in fields(self) if field.metadata.get("key", True)]
        return {name: getattr(self, name) or None for name in named}
