"""The colors of a grid of heads by themselves, for whoever draws the cells: the same as those of `head_grid`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fasp_core.figures.grid import Z_NOISE, scaled
from fasp_core.figures.theme import WASH, Theme, channels, vector
from fasp_core.typing import Floats


@dataclass(frozen=True)
class CellColors:
    """Colors of N heads.

    Attributes
    ----------
    colors : N times six hexadecimal digits, in flat order.
    ticks : labels of the color bar, and where on it they stand, from 0 (blue) to 1 (orange).
    note : owns up to colors that end before the values do; blank if they do not.
    """

    colors: str
    ticks: tuple[tuple[float, str], ...]
    note: str


def cell_colors(
    values: ArrayLike, se: ArrayLike, theme: Theme, scale: str = "linear", doubt: str = "veil"
) -> CellColors:
    """Colors of impacts [N] with standard errors [N]; `scale` and `doubt` as in `GridLook`. NaN has no score yet.

    Raises
    ------
    InputError
        As `vector`: not numbers, or not as many of one as of the other.
    """
    z = np.asarray(values, dtype=np.float64)
    errors = vector("se", se, z.size)
    shown, ends, note = scaled(z, "", scale)
    limit = float(ends["zmax"])
    mixed = _mixed((np.nan_to_num(shown) / limit + 1) / 2, theme)
    if doubt != "none":
        known = np.divide(np.abs(z), Z_NOISE * errors, out=np.ones(z.size), where=errors > 0)
        wash = WASH * (known < 1 if doubt == "veil" else 1 - np.clip(np.nan_to_num(known, nan=1.0), 0, 1))
        mixed += wash[:, None] * (np.array(channels(theme.neutral)) - mixed)
    mixed[np.isnan(z)] = channels(theme.missing)
    bar = ends["colorbar"]
    ticks = tuple(
        ((float(at) / limit + 1) / 2, str(text)) for at, text in zip(bar["tickvals"], bar["ticktext"], strict=True)
    )
    return CellColors(np.rint(mixed).astype(np.uint8).tobytes().hex(), ticks, note)


def _mixed(at: Floats, theme: Theme) -> Floats:
    """[N, 3] red, green and blue, 0 to 255, of places [N] on the scale, 0 to 1."""
    steps = np.array([channels(color) for color in theme.scale], dtype=np.float64)
    places = np.linspace(0, 1, len(steps))
    return np.stack([np.interp(at, places, steps[:, i]) for i in range(3)], axis=1)
