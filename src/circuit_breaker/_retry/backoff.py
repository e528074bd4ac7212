"""How long to wait before a retry: arithmetic on numbers, nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf

# Any multiplier above 1 is beyond the largest float at this power, so a larger one changes nothing.
_ENOUGH = 2**63


def exact(n: int, base_s: float, multiplier: float, max_s: float) -> float:
    """Return `base_s * multiplier**n`, at most max_s; finite even where that power, or max_s, is not."""
    n = min(n, _ENOUGH)
    try:
        grown = base_s * multiplier**n
    except OverflowError:
        grown = _in_parts(n, base_s, multiplier)
    return min(grown, max_s, sys.float_info.max)


def _in_parts(n: int, base_s: float, multiplier: float) -> float:
    """Return the product though the power alone is beyond all floats; if even a quarter of it is, so is the product."""
    try:
        for part in range(4):
            base_s *= multiplier ** ((n + part) // 4)
        return base_s
    except OverflowError:
        return inf if base_s else 0.0


def spread(delay_s: float, max_s: float, full: bool, draw: Callable[[], float]) -> float:
    """Return an even draw from 0 to delay_s if full, else from half to one and a half of it, the range cut at max_s.

    `draw` gives a share from 0 to 1; what lies outside is taken as the nearer end, NaN as 0.
    """
    low, high = (0.0, delay_s) if full else (0.5 * delay_s, min(1.5 * delay_s, max_s, sys.float_info.max))
    share = min(max(0.0, float(draw())), 1.0)
    return min(low + (high - low) * share, high)
