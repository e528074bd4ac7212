"""A consistent reading of a machine, taken under its lock."""

from __future__ import annotations

from typing import NamedTuple

from .._common.words import CircuitMode
from .rules import WindowCounts
from .states import Book, Period
from .totals import NEVER, CircuitStats, Tally, Totals
from .window import Seen


class Reading(NamedTuple):
    """What there was at one moment: the period, what it had counted, and all totals."""

    period: Period
    mode: CircuitMode
    counted: Tally
    streak: int
    book: Book
    seen: Seen | None
    totals: Totals

    def stats(self) -> CircuitStats:
        """Return the totals as people read them; times in them are readings of the breaker's clock."""
        totals = self.totals
        return CircuitStats(
            totals.successes,
            totals.failures,
            self.streak,
            None if totals.last_failure_at == NEVER else totals.last_failure_at,
            None if totals.last_success_at == NEVER else totals.last_success_at,
            round(totals.latency_s * 1_000, 6),  # to the nanosecond, so that sums of whole milliseconds are whole
            ignored_count=totals.ignored,
            rejected_count=totals.rejected,
            slow_count=totals.slow,
            opened_count=totals.opened,
            shadow_rejected_count=totals.shadow_rejected,
        )

    def window_counts(self, now: float) -> WindowCounts:
        """Return what the window held; while the circuit is not closed, what it held when it opened."""
        return self.period.window_counts(self.counted, self.streak, self.seen, now)
