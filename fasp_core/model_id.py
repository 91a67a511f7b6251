"""Which model gave a result: the part of every key that tells one model's numbers from another's."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ModelId:
    """What shapes a model's numbers beside what it is asked.

    Attributes
    ----------
    weights : names the weights: a hash of the files, or the repository and commit of a hub.
    dtype : precision of weights and passes.
    device : kind of device, such as "cuda", where passes have 16 bits: each kind rounds them in its own way. Empty in
        float32, in which kinds agree to far less than what is measured.

    Raises
    ------
    ValueError
        The weights have no name: results of two models would share one key.
    """

    weights: str
    dtype: str = "float32"
    device: str = ""

    def __post_init__(self) -> None:
        if not self.weights or "None" in self.weights.split(":") or not self.dtype:
            raise ValueError(f"a model without an identity: {self}")

    @classmethod
    def on(cls, device: str, weights: str, dtype: str) -> ModelId:
        """Of a model on a kind of device."""
        return cls(weights, dtype, "" if dtype == "float32" else device)

    def key(self) -> dict[str, Any]:
        """What a result's key holds of the model. A later field is there only where it is set, so that keys stay."""
        return {name: value for name, value in self.wanted().items() if value is not None}

    def wanted(self) -> dict[str, Any]:
        """The same with None for what a key must not hold, to look for entries with (`Store.find`)."""
        return {field.name: getattr(self, field.name) or None for field in fields(self)}
