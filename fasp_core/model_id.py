"""Which model gave a result: the part of every key that tells one model's numbers from another's."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

_NAMELESS = re.compile(r"(^|[:@])(None)?(/|$)")  # a hash or a commit that was not there, put into an id


@dataclass(frozen=True)
class ModelId:
    """What shapes a model's numbers beside what it is asked.

    Attributes
    ----------
    weights : names the weights: a hash of the files, or the repository and commit of a hub.
    dtype : precision of weights and passes.

    Raises
    ------
    ValueError
        The weights have no name: results of two models would share one key.
    """

    weights: str
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if _NAMELESS.search(self.weights) or not self.dtype:
            raise ValueError(f"a model without an identity: {self}")

    def key(self) -> dict[str, Any]:
        """What a result's key holds of the model. A later field is there only where it is set, so that keys stay."""
        return {name: value for name, value in self.wanted().items() if value is not None}

    def wanted(self) -> dict[str, Any]:
        """The same with None for what a key must not hold, to look for entries with (`Store.find`)."""
        return {field.name: getattr(self, field.name) or None for field in fields(self)}
