"""What the pictures of a report show, before anybody draws it: calls in bins of time, and states as stretches of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import inf
from operator import attrgetter
from typing import Final, NamedTuple

from ..._common.words import CircuitState
from ..calls import Calls
from ..outages import Outage
from ..replay import Course
from ..study import Findings

CLOSE_UPS: Final = 4
BANDS: Final = 6  # circuits shown of each setting
LEAST_MARGIN_S: Final = 10.0
MARGIN: Final = 0.15

DAY_S: Final = 86_400.0
STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, DAY_S)

_TIME: Final = attrgetter("at")


class Bins(NamedTuple):
    """Calls that began in stretches of time of the same length."""

    begin: float
    width_s: float
    good: list[int]
    bad: list[int]

    @property
    def end(self) -> float:
        """When the last one ends."""
        return self.begin + self.width_s * len(self.good)

    @property
    def most(self) -> int:
        """The most calls in one of them."""
        return max(1, *(good + bad for good, bad in zip(self.good, self.bad, strict=True)))


class Stretch(NamedTuple):
    """A circuit stayed in one state."""

    state: CircuitState
    begin: float
    end: float


class CloseUp(NamedTuple):
    """One outage, and a little before and after it; `number` is its number in the log, from 1."""

    number: int
    outage: Outage
    begin: float
    end: float


def bins(calls: Calls, outcomes: bytes, begin: float, end: float, number: int) -> Bins:
    """Return the calls of a time in `number` bins; `outcomes` has 1 for each bad call, 0 for each other one."""
    width_s = (end - begin) / number
    edges = [calls.at(begin + width_s * index) for index in range(number)] + [calls.between(begin, end)[1]]
    bad = [outcomes.count(1, first, last) for first, last in pairwise(edges)]
    good = [last - first - wrong for (first, last), wrong in zip(pairwise(edges), bad, strict=True)]
    return Bins(begin, width_s, good, bad)


def close_ups(findings: Findings) -> list[CloseUp]:
    """Return the outages with the most bad calls, in the order of time."""
    numbered = sorted(enumerate(findings.outages, 1), key=lambda one: one[1].slow + one[1].failed)[-CLOSE_UPS:]
    return [CloseUp(number, outage, *_frame(findings, number, outage)) for number, outage in sorted(numbered)]


def _frame(findings: Findings, number: int, outage: Outage) -> tuple[float, float]:
    """Return from when to when a close-up goes: until all have closed, unless that takes as long as the outage."""
    lasts_s = outage.end - outage.begin
    margin_s = max(LEAST_MARGIN_S, MARGIN * lasts_s)
    closed = [seconds for row in findings.rows for seconds in row.figures.fates[number - 1].closed_after_s]
    after_s = min(max((seconds for seconds in closed if seconds < inf), default=0.0), lasts_s)
    return max(0.0, outage.begin - margin_s), outage.end + margin_s + after_s


def stretches(courses: Sequence[Course], begin: float, end: float, shortest_s: float) -> list[list[Stretch]]:
    """Return the states of some of the circuits in a time, none shorter than a picture can show."""
    step = max(1, -(-len(courses) // BANDS))
    return [_stretches(course, begin, end, shortest_s * min(len(courses), BANDS)) for course in courses[::step]]


def _stretches(course: Course, begin: float, end: float, shortest_s: float) -> list[Stretch]:
    index = bisect_right(course.changes, begin, key=_TIME)
    state = course.changes[index - 1].new_state if index else CircuitState.CLOSED
    found: list[Stretch] = []
    since = begin
    for change in course.changes[index:]:
        if change.at >= end:
            break
        # What is too short to be seen is shown as what follows.
        if change.at - since >= shortest_s:
            found.append(Stretch(state, since, change.at))
            since = change.at
        state = change.new_state
    return [*found, Stretch(state, since, end)]


def ticks(begin: float, end: float, most: int) -> tuple[list[float], str]:
    """Return round wall-clock times between two, and how to write them."""
    step = next((step for step in STEPS_S if (end - begin) / step <= most), None)
    if step is None:
        step = DAY_S * (1 + int((end - begin) / DAY_S / most))
    first = -(-begin // step) * step
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < DAY_S else "%d %b"
    return [first + step * index for index in range(int((end - first) / step) + 1)], form
