"""The totals of a breaker as one object that people keep: it computes when it is read."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import fields
from threading import RLock
from typing import Any

from .._common import checks
from .._common.words import Outcome
from .machine import Machine
from .snapshot import CircuitStats


class LiveStats(CircuitStats):
    """The present totals of one breaker; `copy()` gives those of one moment, an attribute only itself."""

    def __init__(self, machine: Machine, lock: RLock, clock: Callable[[], float]) -> None:
        self._machine = machine
        self._lock = lock
        self._clock = clock
        self._dates: dict[float, float] = {}  # of the readings of that clock that were shown last

    def copy(self) -> CircuitStats:
        """Return plain totals of this moment."""
        wall, now = time.time(), self._clock()
        with self._lock:
            return self.copy_locked(wall, now)

    def copy_locked(self, wall: float, now: float) -> CircuitStats:
        """Return plain totals; the two clocks, read at once, date them. What has been shown once keeps its date."""
        stats = self._machine.stats()
        shown, self._dates = self._dates, {}
        for name in ("last_failure_time", "last_success_time"):
            at: float | None = getattr(stats, name)
            if at is not None:
                self._dates[at] = shown.get(at, wall + (at - now))
                setattr(stats, name, self._dates[at])
        return stats

    def record_success(self, latency_ms: float) -> None:
        """Count one success in the totals; it ends the streak, and is no answer of a call: no window holds it."""
        self._count(Outcome.SUCCESS, latency_ms)

    def record_failure(self, latency_ms: float) -> None:
        """Count one failure in the totals and the streak; `CircuitBreaker.record_failure` is what opens the circuit."""
        self._count(Outcome.FAILURE, latency_ms)

    def reset(self) -> None:
        """Begin all totals and the streak of failures anew; the circuit stays as it is."""
        with self._lock:
            self._machine.zero()

    def _count(self, outcome: Outcome, latency_ms: float) -> None:
        latency_ms = checks.latency("latency_ms", latency_ms)
        now = self._clock()
        with self._lock:
            self._machine.count_by_hand(outcome, now, latency_ms)

    def __repr__(self) -> str:
        return repr(self.copy())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CircuitStats):
            return NotImplemented
        return self.copy() == (other.copy() if isinstance(other, LiveStats) else other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copy.copy, (self.copy(),)


def _total(name: str) -> property:
    return property(lambda self: getattr(self.copy(), name))


for _name in (*(field.name for field in fields(CircuitStats)), "error_rate", "avg_latency_ms"):
    setattr(LiveStats, _name, _total(_name))
