"""Which recent results were failures, and which were slow: of the last N calls, or of the last N seconds.

A window is a chain of marks from the oldest to the newest. A mark holds the totals of its period at one moment; what
the window holds is the present totals less those at the last mark outside of it. A window of calls has a mark for each
bad answer, so good answers cost it nothing; a window of time has one for each bucket in which there were answers.

The closed state links marks, under the lock. All else here is done without a lock: marks do not change once they are
linked, and from an older mark every newer one is reached.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from math import inf
from typing import Final, TypeAlias

from .rules import WindowCounts

BUCKETS: Final = 30


class Mark:
    """The totals of a period once the answers up to `position` were in: the number of an answer, or of a bucket."""

    __slots__ = ("after", "answers", "failures", "position", "slow")

    after: Mark | None
    answers: int
    failures: int
    position: int
    slow: int


def _first_mark() -> Mark:
    """Return the mark that a window begins with: nothing is before it."""
    mark = Mark()
    mark.after = None
    mark.position = mark.answers = mark.failures = mark.slow = 0
    return mark


class _Marks:
    """The chain of marks.

    Attributes:
        size: over how many positions the window goes.
        start: how many answers there were in its period when the window began.
        first: the last mark outside of the window, as far as anybody has looked.
        newest: where the next mark is linked.
    """

    __slots__ = ("first", "newest", "start")

    size: int

    def __init__(self) -> None:
        self.first = self.newest = _first_mark()
        self.start = 0

    def _last_outside(self, first: Mark, limit: int, answers: int) -> Mark:
        """Return the last mark at or before this position, from an earlier one on; older ones are dropped.

        `answers`: how many there were when the totals were read. A mark that was linked later is not looked at.
        """
        mark = first
        while (after := mark.after) is not None and after.position <= limit and after.answers <= answers:
            mark = after
        self.first = mark
        return mark


class CallWindow(_Marks):
    """The last `size` results, exactly. Only failures and slow calls take memory."""

    __slots__ = ("size",)

    bucket = 0  # all results are in one
    marks_bad_answers: Final = True

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def bucket_at(self, now: float) -> int:
        """Return the bucket of a moment."""
        return 0

    def end_of(self, bucket: int) -> float:
        """Return when a bucket ends."""
        return inf

    def counts(self, first: Mark, now: float, answers: int, failures: int, slow: int, streak: int) -> WindowCounts:
        """Return what the window holds once the totals are these; `first` was read together with them."""
        outside = self._last_outside(first, answers - self.size, answers)
        calls = min(answers - self.start, self.size)
        return WindowCounts(calls, failures - outside.failures, slow - outside.slow, streak)


class TimeWindow(_Marks):
    """The answers of the last `length_s` seconds, in thirtieths of it: the present one and the 29 before.

    So an answer counts no longer than `length_s`, and at least 29 thirtieths of it. At most 31 marks are kept.
    """

    __slots__ = ("_origin", "_width_s", "bucket")

    size = BUCKETS

    marks_bad_answers: Final = False

    def __init__(self, length_s: float, now: float) -> None:
        super().__init__()
        self._width_s = length_s / BUCKETS
        self._origin = now
        self.bucket = 0

    def end_of(self, bucket: int) -> float:
        """Return when a bucket ends."""
        return self._origin + (bucket + 1) * self._width_s

    def bucket_at(self, now: float) -> int:
        """Return the bucket of a moment. It is never before an earlier one, even if the clock steps back."""
        return max(self.bucket, int(min((now - self._origin) / self._width_s, sys.maxsize)))

    def counts(self, first: Mark, now: float, answers: int, failures: int, slow: int, streak: int) -> WindowCounts:
        """Return what the window holds now, when the totals are these; `first` was read together with them."""
        limit = self.bucket_at(now) - BUCKETS
        if self.bucket <= limit:
            return WindowCounts(consecutive_failures=streak)
        outside = self._last_outside(first, limit, answers)
        return WindowCounts(answers - outside.answers, failures - outside.failures, slow - outside.slow, streak)


Window: TypeAlias = CallWindow | TimeWindow
Seen: TypeAlias = tuple[Window, Mark]  # a window, and its `first` of the moment at which the totals were read


def new_window(size: int | timedelta, now: float) -> Window:
    """Return an empty window of this size."""
    return TimeWindow(size.total_seconds(), now) if isinstance(size, timedelta) else CallWindow(size)
