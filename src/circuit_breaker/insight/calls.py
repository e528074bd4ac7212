"""The calls of a log as columns of numbers: of the whole log, and of each circuit that saw a part of them."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from operator import add
from typing import Final

SUCCESS: Final = 0
FAILURE: Final = 1
IGNORED: Final = 2

_IS_SUCCESS: Final = bytes(code == SUCCESS for code in range(256))
_IS_FAILURE: Final = bytes(code == FAILURE for code in range(256))
_IS_ANSWER: Final = bytes(code != IGNORED for code in range(256))


class Calls:
    """Calls in the order in which they began; times are seconds since the first call of the log.

    Attributes:
        begin: when each call began.
        took: how many seconds it took.
        outcome: SUCCESS, FAILURE or IGNORED.
    """

    __slots__ = ("begin", "outcome", "took")

    def __init__(self, begin: array[float], took: array[float], outcome: bytearray) -> None:
        self.begin = begin
        self.took = took
        self.outcome = outcome

    def __len__(self) -> int:
        return len(self.begin)

    def at(self, moment: float) -> int:
        """Return the number of the first call that began at this moment or later."""
        return bisect_left(self.begin, moment)

    def between(self, begin: float, end: float) -> tuple[int, int]:
        """Return which calls began in this time, both moments included, as a range of call numbers."""
        return bisect_left(self.begin, begin), bisect_right(self.begin, end)

    def failures(self) -> bytes:
        """Return 1 for each call that failed, 0 for each other one."""
        return bytes(self.outcome).translate(_IS_FAILURE)

    def cut(self, first: int, last: int) -> Calls:
        """Return the calls from number `first` up to number `last`, that one left out."""
        return Calls(self.begin[first:last], self.took[first:last], self.outcome[first:last])


class Circuit:
    """The calls that one breaker would have seen, and the order in which they end.

    The order is that of the ends, then of the beginnings. A call's place in it is called its rank.

    Attributes:
        calls: in the order of their beginnings.
        ends: when they end, in the order of the ends.
        order: the number of the call of each rank; `rank` is the reverse.
        successes: how many calls of a lower rank succeeded, for each rank and for the end.
    """

    __slots__ = ("_marks", "calls", "ends", "order", "rank", "successes")

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        ends = array("d", map(add, calls.begin, calls.took))
        self.order = array("i", sorted(range(len(calls)), key=ends.__getitem__))
        self.ends = array("d", map(ends.__getitem__, self.order))
        self.rank = array("i", bytes(len(calls) * self.order.itemsize))
        for rank, call in enumerate(self.order):
            self.rank[call] = rank
        succeeded = map(calls.outcome.translate(_IS_SUCCESS).__getitem__, self.order)
        self.successes = array("i", accumulate(succeeded, initial=0))
        self._marks: dict[float, Sequence[int]] = {}

    def answers(self) -> Sequence[int]:
        """Return how many calls of a lower rank were no ignored ones, for each rank and for the end."""
        outcome = self.calls.outcome
        if IGNORED not in outcome:
            return range(len(outcome) + 1)
        return array("i", accumulate(map(outcome.translate(_IS_ANSWER).__getitem__, self.order), initial=0))

    def marks(self, slow_s: float = inf) -> Sequence[int]:
        """Return the ranks of all failures, and of successes that took this long or longer."""
        if slow_s not in self._marks:
            outcome, took = self.calls.outcome, self.calls.took
            if slow_s == inf:
                ranks = [rank for rank, call in enumerate(self.order) if outcome[call] == FAILURE]
            else:
                ranks = [
                    rank
                    for rank, call in enumerate(self.order)
                    if outcome[call] == FAILURE or (outcome[call] == SUCCESS and took[call] >= slow_s)
                ]
            self._marks[slow_s] = array("i", ranks)
        return self._marks[slow_s]


@dataclass
class Log:
    """What was read.

    Attributes:
        title: the names of the files.
        start: the wall-clock time at which the first call began, in seconds since the epoch.
        calls: all calls that were made.
        circuits: the same calls, for each circuit that saw a part of them.
        holes: stretches of time in which a breaker rejected calls, so that nobody knows how these would have ended.
        rejected: how many calls it rejected.
        notes: what a reader of any figure must know about the reading.
    """

    title: str
    start: float
    calls: Calls
    circuits: list[Circuit]
    holes: list[tuple[float, float]] = field(default_factory=list)
    rejected: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def length_s(self) -> float:
        """The seconds from the beginning of the first call to that of the last."""
        return self.calls.begin[-1]
