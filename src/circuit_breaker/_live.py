"""The totals of a breaker as one object that people keep: it computes when it is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from threading import RLock
from typing import Any

from ._machine import Machine
from ._models import CircuitStats, Outcome


def dated(stats: CircuitStats, now: float) -> CircuitStats:
    """Turn the clock readings of a fresh copy into seconds since the epoch; `now` is a reading of that clock."""
    wall = time.time() - now
    if stats.last_failure_time is not None:
        stats.last_failure_time += wall
    if stats.last_success_time is not None:
        stats.last_success_time += wall
    return stats


class LiveStats(CircuitStats):
    """The present totals of one breaker; `copy()` gives those of one moment, an attribute only itself."""

    def __init__(self, machine: Machine, lock: RLock, clock: Callable[[], float]) -> None:
        self._machine = machine
        self._lock = lock
        self._clock = clock

    def copy(self) -> CircuitStats:
        """Return plain totals of this moment."""
        now = self._clock()
        with self._lock:
            stats = self._machine.stats()
        return dated(stats, now)

    def record_success(self, latency_ms: float) -> None:
        """Count one success in the totals alone; `CircuitBreaker.record_success` is what the circuit listens to."""
        self._count(Outcome.SUCCESS, latency_ms)

    def record_failure(self, latency_ms: float) -> None:
        """Count one failure in the totals alone; `CircuitBreaker.record_failure` is what the circuit listens to."""
        self._count(Outcome.FAILURE, latency_ms)

    def reset(self) -> None:
        """Begin all totals and the streak of failures anew; the circuit stays as it is."""
        with self._lock:
            self._machine.zero()

    def _count(self, outcome: Outcome, latency_ms: float) -> None:
        now = self._clock()
        with self._lock:
            self._machine.count(outcome, now, latency_ms, False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CircuitStats):
            return NotImplemented
        return self.copy() == (other.copy() if isinstance(other, LiveStats) else other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.copy().__reduce_ex__(protocol)


def _total(name: str) -> property:
    return property(lambda self: getattr(self.copy(), name))


for _field in fields(CircuitStats):
    setattr(LiveStats, _field.name, _total(_field.name))
