"""Types that all rooms share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]  # numbers of groups, blocks, heads
Report = Callable[[float, float, str], None]  # (done, total, what is going on)
