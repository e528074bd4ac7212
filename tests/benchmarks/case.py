"""What a comparison consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from measures import Measure

FLOOR = "floor"
BY_HAND = "by hand"
US = "this library"

Subjects: TypeAlias = dict[str, Measure]


@dataclass(frozen=True)
class Case:
    """One thing to do, in several ways.

    Attributes:
        target: the most that each way of this library may cost, as a multiple of the yardstick; without one, in units.
        subjects: makes the ways, by name: those of this library begin with its name, the yardstick is one of them.
        yardstick: None: the figures stand for themselves.
        spread: the most that the dearest way of this library may cost, as a multiple of its cheapest.
        beats_peers: no peer may be faster.
        headline: what the table at the head of the page calls it, where only what readers want first is shown.
        slice_s: how long one way is measured before it is the turn of the next; 0: it is done once.
        rounds: how many rounds, as a share of what is usual.
    """

    name: str
    subjects: Callable[[], Subjects]
    target: float | None = None
    yardstick: str | None = FLOOR
    unit: str = "ns"
    spread: float | None = None
    beats_peers: bool = False
    headline: str | None = None
    slice_s: float = 0.0005
    rounds: float = 1.0


def ways(measure: Callable[[Any], Measure], subjects: dict[str, Any]) -> Subjects:
    """Measure each subject in the same way."""
    return {name: measure(subject) for name, subject in subjects.items()}
