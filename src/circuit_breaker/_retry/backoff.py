"""How long to wait before a retry: arithmetic on numbers, nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf
from typing import Literal


class Backoff:
    """Delays that grow from one retry to the next up to a longest one, each spread by the jitter.

    `draw` gives a share from 0 to 1; what lies outside is taken as the nearer end, NaN as 0.
    """

    __slots__ = ("_base_s", "_draw", "_jitter", "_max_s", "_multiplier")

    def __init__(
        self, base_s: float, multiplier: float, max_s: float, jitter: bool | Literal["full"], draw: Callable[[], float]
    ) -> None:
        self._base_s = base_s
        self._multiplier = multiplier
        self._max_s = min(max_s, sys.float_info.max)
        self._jitter = jitter
        self._draw = draw

    def delay(self, n: int) -> float:
        """Return a delay before retry n, the first is 0: finite, never negative, NaN or above the longest one."""
        max_s = self._max_s
        try:
            exact = self._base_s * self._multiplier**n
        except OverflowError:  # of the power, or because n itself is beyond all floats
            exact = inf if self._base_s and self._multiplier > 1 else self._base_s
        if exact > max_s:
            exact = max_s
        if not self._jitter:
            return exact
        if self._jitter == "full":
            low, high = 0.0, exact
        else:
            low, high = 0.5 * exact, 1.5 * exact
            if high > max_s:
                high = max_s
        delay = low + (high - low) * float(self._draw())
        if not delay >= low:  # NaN included
            return low
        return delay if delay < high else high
