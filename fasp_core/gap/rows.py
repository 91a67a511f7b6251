"""Values of prompts together with the group and the block of each: what every comparison of models is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasp_core.gap.comparison import Change, GapStats, gap_stats, paired_gap_changes, paired_mean_change
from fasp_core.gap.further import FurtherStats, further_stats
from fasp_core.gap.gaps import checked, gap, group_codes
from fasp_core.gap.resampling import block_index
from fasp_core.typing import Codes, Floats


@dataclass(frozen=True, eq=False)
class PromptRows:
    """Values of the same n prompts under several models, the unpruned one first.

    Attributes
    ----------
    values : [M, ..., n] such as the toxicity of each prompt under each of M models, in each reading.
    codes : [n] group of each prompt.
    groups : names of the groups, by code.
    blocks : [n] block of each prompt, see `fasp_core.data.prompts.PromptSet`; None if the prompts are in none.
    """

    values: Floats
    codes: Codes
    groups: tuple[str, ...]
    blocks: Codes | None = None

    @classmethod
    def of(cls, values: ArrayLike, labels: Sequence[str], blocks: ArrayLike | None = None) -> PromptRows:
        """From the group's name of each prompt; no blocks, or an empty sequence of them, mean that there are none.

        Raises as `group_codes` and `block_index`.
        """
        codes, names = group_codes(labels)
        none = blocks is None or np.size(blocks) == 0
        return cls(
            np.asarray(values, dtype=np.float64), codes, names, None if none else block_index(blocks, codes.size)
        )

    @classmethod
    def paired(
        cls, base: ArrayLike, others: ArrayLike, codes: ArrayLike, blocks: ArrayLike | None = None
    ) -> PromptRows:
        """The unpruned model's values [n] and those of others [M, n]; groups are called by their codes.

        Raises as `gap` and `block_index`.
        """
        whole, group = checked(base, codes, ndim=1)
        rest, _ = checked(others, group, ndim=2)
        names = tuple(map(str, range(int(group.max()) + 1)))
        return cls(np.concatenate([whole[None], rest]), group, names, block_index(blocks, group.size))

    @classmethod
    def read(
        cls, values: ArrayLike, arrays: Mapping[str, NDArray[Any]], groups: Sequence[str], name: str
    ) -> PromptRows:
        """From the arrays of an entry, where `stored` has put groups and blocks under the same `name`."""
        blocks = arrays.get(f"{name}blocks")
        codes = arrays[f"{name}codes"].astype(np.int64)
        return cls(
            np.asarray(values, dtype=np.float64),
            codes,
            tuple(groups),
            None if blocks is None else blocks.astype(np.int64),
        )

    def stored(self, name: str) -> dict[str, NDArray[Any]]:
        """Groups and blocks as arrays of an entry, `NAMEcodes` and `NAMEblocks`; the groups' names go elsewhere."""
        found: dict[str, NDArray[Any]] = {f"{name}codes": self.codes.astype(np.int32)}
        return found if self.blocks is None else found | {f"{name}blocks": self.blocks.astype(np.int32)}

    @property
    def n(self) -> int:
        """How many prompts."""
        return self.codes.size

    @property
    def labels(self) -> list[str]:
        """[n] group name of each prompt."""
        return [self.groups[code] for code in self.codes]

    @property
    def units(self) -> int:
        """How many blocks are resampled, or prompts where they are in none."""
        return self.n if self.blocks is None else len(np.unique(self.blocks))

    def __getitem__(self, at: Any) -> PromptRows:
        """Other rows of the same prompts: `values[at]`."""
        return replace(self, values=self.values[at])

    def beside(self, others: ArrayLike) -> PromptRows:
        """These values [n], then those of M other models [M, n] on the same prompts."""
        return replace(self, values=np.concatenate([self.values[None], others]))

    def gaps(self) -> Floats:
        """[M, ...] gap of every row."""
        return gap(self.values, self.codes)

    def stats(self) -> GapStats:
        """The unpruned model's gap, of values [M, n]; see `gap_stats`."""
        return gap_stats(self.values[0], self.labels, blocks=self.blocks)

    def further_stats(self) -> FurtherStats:
        """The same with further statistics."""
        return further_stats(self.values[0], self.labels, blocks=self.blocks)

    def changes(self) -> list[Change]:
        """[M - 1] change of the gap under each other model, of values [M, n]; all on the same resamples."""
        return paired_gap_changes(self.values[0], list(self.values[1:]), self.labels, blocks=self.blocks)

    def mean_changes(self) -> list[Change]:
        """[M - 1] the same of the mean over all prompts."""
        return [paired_mean_change(self.values[0], row, self.labels, blocks=self.blocks) for row in self.values[1:]]
