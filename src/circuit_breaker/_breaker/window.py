"""Which recent answers were failures, and which were slow: among the last N calls, or in the last so much time.

The caller numbers the answers from 1, and tells a window of the bad ones alone, so a good one costs it nothing: what is
among the last N follows from the numbers, and what is of the last so much time from totals noted when a bucket ends.
"""

from __future__ import annotations

import sys
from collections import deque
from math import inf
from typing import Final, NamedTuple

BUCKETS: Final = 30


class Counts(NamedTuple):
    """What a window holds."""

    calls: int = 0
    failures: int = 0
    slow: int = 0

    @property
    def error_rate(self) -> float:
        """The share of failures; 0.0 of nothing."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def slow_call_rate(self) -> float:
        """The share of slow calls; 0.0 of nothing."""
        return self.slow / self.calls if self.calls else 0.0


class CallWindow:
    """The last `size` answers, exactly; its memory grows with the bad ones alone."""

    __slots__ = ("_failures", "_size", "_slow", "_start")

    until: Final = inf

    def __init__(self, size: int, start: int) -> None:
        self._size = size
        self._start = start  # answers up to this number are not among them
        most = min(size, sys.maxsize)
        self._failures: deque[int] = deque(maxlen=most)
        self._slow: deque[int] = deque(maxlen=most)

    def add(self, now: float, number: int, failed: bool, slow: bool) -> None:
        """Note that the answer of this number, the newest, is a failure, slow, both or neither."""
        if failed:
            self._failures.append(number)
        if slow:
            self._slow.append(number)

    def counts(self, now: float, number: int) -> Counts:
        """Return what the window holds once this number of answers is in."""
        self._forget(self._failures, number)
        self._forget(self._slow, number)
        return Counts(min(number - self._start, self._size), len(self._failures), len(self._slow))

    def has_failures(self, now: float, number: int) -> bool:
        """Tell whether there is a failure in it; it changes nothing, and needs no lock."""
        out = number - self._size
        return max(self._failures.copy(), default=out) > out

    def _forget(self, numbers: deque[int], newest: int) -> None:
        while numbers and numbers[0] <= newest - self._size:
            numbers.popleft()


class _Mark(NamedTuple):
    """The totals before the first answer of a bucket."""

    bucket: int
    answers: int
    failures: int
    slow: int


class TimeWindow:
    """The answers of the last `length_s` seconds, in thirtieths of it: the present one and the 29 before.

    So an answer counts no longer than `length_s`, and at least 29 thirtieths of it. At most 31 marks are kept, however
    long the time and however many the answers.
    """

    __slots__ = ("_failures", "_marks", "_origin", "_slow", "_width_s", "until")

    def __init__(self, length_s: float, start: int, now: float) -> None:
        self._width_s = length_s / BUCKETS
        self._origin = now
        self._failures = 0
        self._slow = 0
        self._marks = deque([_Mark(0, start, 0, 0)])
        self.until = now + self._width_s  # before this instant a good answer needs no telling

    def add(self, now: float, number: int, failed: bool, slow: bool) -> None:
        """Note an answer of the present bucket; its number is the newest."""
        self._turn(now, number - 1)
        self._failures += failed
        self._slow += slow

    def counts(self, now: float, number: int) -> Counts:
        """Return what the window holds now that this number of answers is in."""
        self._turn(now, number)
        first = self._marks[0]
        return Counts(number - first.answers, self._failures - first.failures, self._slow - first.slow)

    def has_failures(self, now: float, number: int) -> bool:
        """Tell whether there is a failure in it; it changes nothing, and needs no lock."""
        oldest = self._bucket(now) - BUCKETS
        return any(self._failures > mark.failures for mark in self._marks.copy() if mark.bucket > oldest)

    def _turn(self, now: float, answers: int) -> None:
        """Begin the bucket that `now` falls into, if it is a later one; forget those before the window."""
        if now < self.until:
            return
        bucket = self._bucket(now)
        if bucket > self._marks[-1].bucket:
            self._marks.append(_Mark(bucket, answers, self._failures, self._slow))
            while self._marks[0].bucket <= bucket - BUCKETS:
                self._marks.popleft()
        self.until = self._origin + (bucket + 1) * self._width_s

    def _bucket(self, now: float) -> int:
        return int(min((now - self._origin) / self._width_s, sys.maxsize))
