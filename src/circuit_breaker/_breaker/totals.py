"""What a breaker counts: plain sums, and what people read of them.

A period counts what happens in it. When it ends, its sums are added to the totals of the machine, which also hold
what belongs to no period: late results, rejections, ignored results. Where totals were reset, what there was then is
kept, and subtracted when somebody reads. Inside, times are seconds, and moments are readings of the breaker's clock.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from math import inf
from typing import Any, Final, Protocol

from .._common import checks
from .._common.words import CircuitMode, CircuitState

__all__ = ["CircuitSnapshot", "CircuitStats", "SharedSnapshot"]

NEVER: Final = -inf  # when there was no success, or no failure, yet


class Tally:
    """Sums of successes and failures; slow calls are among both."""

    __slots__ = ("failures", "last_failure_at", "last_success_at", "latency_s", "slow", "successes")

    successes: int
    failures: int
    slow: int
    latency_s: float
    last_success_at: float
    last_failure_at: float

    def __init__(self) -> None:
        self.successes = 0
        self.failures = 0
        self.slow = 0
        self.latency_s = 0.0
        self.last_success_at = NEVER
        self.last_failure_at = NEVER


class Totals(Tally):
    """The sums of all periods that have ended, and of what belongs to none."""

    __slots__ = ("ignored", "opened", "rejected", "shadow_rejected")

    def __init__(self) -> None:
        super().__init__()
        self.ignored = 0
        self.rejected = 0
        self.opened = 0
        self.shadow_rejected = 0


ZERO: Final = Totals()  # what is subtracted if nothing was reset; it is never changed


@dataclass
class CircuitStats:
    """Totals of a breaker since it was made, or since the last `reset()`.

    Attributes:
        success_count: Calls that succeeded.
        failure_count: Calls that failed.
        consecutive_failures: Failures since the last success.
        last_failure_time: Date of the last failure, in seconds since 1970. None: there was none.
        last_success_time: Date of the last success, in seconds since 1970. None: there was none.
        total_latency_ms: Milliseconds that successes and failures took, added up.
        ignored_count: Calls that say nothing about the service, such as cancelled ones.
        rejected_count: Calls that were rejected.
        slow_count: Successes and failures that took `slow_call_duration_s` or longer.
        opened_count: How often the circuit opened: by a rule, by a failed probe or by `trip()`. `FORCED_OPEN` is not
            counted.
        shadow_rejected_count: Calls that would have been rejected, but the mode was `SHADOW`.
    """

    success_count: int = 0
    failure_count: int = 0
    consecutive_failures: int = 0
    last_failure_time: float | None = None
    last_success_time: float | None = None
    total_latency_ms: float = 0.0
    ignored_count: int = field(default=0, kw_only=True)
    rejected_count: int = field(default=0, kw_only=True)
    slow_count: int = field(default=0, kw_only=True)
    opened_count: int = field(default=0, kw_only=True)
    shadow_rejected_count: int = field(default=0, kw_only=True)

    @property
    def error_rate(self) -> float:
        """Share of failures among successes and failures, from 0.0 to 1.0. 0.0 if there are none."""
        answered = self.success_count + self.failure_count
        return self.failure_count / answered if answered else 0.0

    @property
    def avg_latency_ms(self) -> float:
        """Mean latency of successes and failures in milliseconds. 0.0 if there are none."""
        answered = self.success_count + self.failure_count
        return self.total_latency_ms / answered if answered else 0.0

    def record_success(self, latency_ms: float) -> None:
        """Count one success in these totals only; the circuit is not affected."""
        self.success_count += 1
        self.consecutive_failures = 0
        self.last_success_time = time.time()
        self.total_latency_ms += latency_ms

    def record_failure(self, latency_ms: float) -> None:
        """Count one failure in these totals only; the circuit is not affected."""
        self.failure_count += 1
        self.consecutive_failures += 1
        self.last_failure_time = time.time()
        self.total_latency_ms += latency_ms

    def reset(self) -> None:
        """Set every total back to its default, 0 or None."""
        for total in fields(CircuitStats):
            setattr(self, total.name, total.default)


@dataclass(frozen=True)
class SharedSnapshot:
    """What a breaker knows of the circuit that it shares with other processes.

    Attributes:
        link: "new": the store has not answered yet. "joined": this breaker follows the shared circuit. "away": the
            store does not answer or gives unusable answers, so this breaker decides by itself.
        open_for: For whom the circuit is open or half-open: "all" processes, or this "process" alone. None: it is
            closed.
        epoch: How many changes the shared circuit has had: openings, closings and orders. 0: none yet.
        since_s: Seconds since the last change. None: there was none.
        reason: Why it changed last, in words.
        by: The process that changed it last, as `host:pid`.
        probes_out: Probes that run now, in all processes together.
        heard_s: Seconds since the store answered last. None: never.
    """

    link: str
    open_for: str | None
    epoch: int
    since_s: float | None
    reason: str
    by: str
    probes_out: int
    heard_s: float | None


@dataclass(frozen=True)
class CircuitSnapshot:
    """A consistent copy of everything a breaker shows, at one moment.

    Attributes:
        name: The name of the breaker.
        state: What a caller meets.
        machine_state: The state of the circuit itself. It differs from `state` only in `SHADOW`, where callers always
            meet a closed circuit.
        mode: Who decides, see `CircuitMode`.
        stats: The totals.
        window_calls: Successes and failures in the window. While the circuit is open or half-open, these three figures
            show what the window held when it opened.
        window_failures: The failures among `window_calls`.
        window_slow: The slow calls among `window_calls`.
        error_rate: Share of failures in the window, from 0.0 to 1.0. 0.0 if it is empty.
        slow_call_rate: Share of slow calls in the window, from 0.0 to 1.0. 0.0 if it is empty.
        retry_after_s: Seconds until the circuit admits a probe. 0.0: it admits a call now. None: not known, because all
            probe slots are taken or the circuit is forced open.
        probes_in_flight: Probes that are running and not overdue.
        shared: What this process knows of the circuit in all processes. None: the breaker has no store.
        dropped_changes: State changes that listeners never got, because 1,000 others were waiting for them.
    """

    name: str
    state: CircuitState
    machine_state: CircuitState
    mode: CircuitMode
    stats: CircuitStats
    window_calls: int
    window_failures: int
    window_slow: int
    error_rate: float
    slow_call_rate: float
    retry_after_s: float | None
    probes_in_flight: int
    shared: SharedSnapshot | None = None
    dropped_changes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the same as a dict for JSON. An infinite or unknown time is None."""
        stats = {key: _plain(value) for key, value in asdict(self.stats).items()}
        return {key: _plain(value) for key, value in asdict(self).items()} | {"stats": stats}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return None if value in (inf, -inf) else value


class Source(Protocol):
    """Where the live totals come from: the machine."""

    @property
    def lock(self) -> Any: ...
    @property
    def period(self) -> Any: ...
    @property
    def totals(self) -> Totals: ...
    @property
    def start(self) -> Totals: ...
    def stats(self) -> CircuitStats: ...
    def count_by_hand(self, failed: bool, now: float, latency_s: float) -> None: ...
    def reset_totals(self) -> None: ...


class LiveStats(CircuitStats):
    """The live totals of one breaker. `copy()` returns totals of one moment; attributes are read one by one."""

    # Each attribute reads what it needs under the lock; see `Machine` for what stands there.

    def __init__(self, machine: Source, clock: Callable[[], float]) -> None:
        self._machine = machine
        self._clock = clock
        self._dates: dict[float, float] = {}  # of the moments that were shown last

    def copy(self) -> CircuitStats:
        """Return plain totals of this moment."""
        return self._dated(self._machine.stats(), time.time(), self._clock())

    def _dated(self, stats: CircuitStats, wall: float, now: float) -> CircuitStats:
        """Turn clock readings in these totals into dates, once, so that a shown date does not change."""
        shown = self._dates
        dates: dict[float, float] = {}
        for name in ("last_failure_time", "last_success_time"):
            at: float | None = getattr(stats, name)
            if at is not None:
                dates[at] = shown.get(at, wall + (at - now))
                setattr(stats, name, dates[at])
        self._dates = dates
        return stats

    def record_success(self, latency_ms: float) -> None:
        """Count one success in the totals and end the streak. It was not a call, so no window holds it."""
        self._machine.count_by_hand(False, self._clock(), checks.latency("latency_ms", latency_ms) / 1_000)

    def record_failure(self, latency_ms: float) -> None:
        """Count one failure in the totals and the streak; `CircuitBreaker.record_failure` is what opens the circuit."""
        self._machine.count_by_hand(True, self._clock(), checks.latency("latency_ms", latency_ms) / 1_000)

    def reset(self) -> None:
        """Set all totals and the streak to zero. The circuit stays as it is."""
        self._machine.reset_totals()

    def __repr__(self) -> str:
        return repr(self.copy())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CircuitStats):
            return NotImplemented
        return self.copy() == (other.copy() if isinstance(other, LiveStats) else other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copy.copy, (self.copy(),)

    # The attributes of `CircuitStats`, read-only.

    @property
    def success_count(self) -> int:  # type: ignore[override]
        machine = self._machine
        with machine.lock:
            count: int = machine.totals.successes + machine.period.successes - machine.start.successes
        return count

    @property
    def failure_count(self) -> int:  # type: ignore[override]
        machine = self._machine
        with machine.lock:
            count: int = machine.totals.failures + machine.period.failures - machine.start.failures
        return count

    @property
    def consecutive_failures(self) -> int:  # type: ignore[override]
        streak: int = self._machine.period.streak
        return streak

    @property
    def last_failure_time(self) -> float | None:  # type: ignore[override]
        return self.copy().last_failure_time

    @property
    def last_success_time(self) -> float | None:  # type: ignore[override]
        return self.copy().last_success_time

    @property
    def total_latency_ms(self) -> float:  # type: ignore[override]
        return self._machine.stats().total_latency_ms

    @property
    def ignored_count(self) -> int:  # type: ignore[override]
        return self._machine.stats().ignored_count

    @property
    def rejected_count(self) -> int:  # type: ignore[override]
        return self._machine.stats().rejected_count

    @property
    def slow_count(self) -> int:  # type: ignore[override]
        return self._machine.stats().slow_count

    @property
    def opened_count(self) -> int:  # type: ignore[override]
        return self._machine.stats().opened_count

    @property
    def shadow_rejected_count(self) -> int:  # type: ignore[override]
        return self._machine.stats().shadow_rejected_count

    @property
    def error_rate(self) -> float:
        """Share of failures among successes and failures, from 0.0 to 1.0. 0.0 if there are none."""
        machine = self._machine
        with machine.lock:
            failures = machine.totals.failures + machine.period.failures - machine.start.failures
            successes = machine.totals.successes + machine.period.successes - machine.start.successes
        answered = successes + failures
        return failures / answered if answered else 0.0

    @property
    def avg_latency_ms(self) -> float:
        """Mean latency of successes and failures in milliseconds. 0.0 if there are none."""
        return self._machine.stats().avg_latency_ms
