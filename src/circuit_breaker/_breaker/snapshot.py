"""The totals of a breaker, and what it was at one moment."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any

from .._common.words import CircuitMode, CircuitState

__all__ = ["CircuitSnapshot", "CircuitStats"]


@dataclass
class CircuitStats:
    """Totals since the start or the last `reset()`.

    `last_failure_time` and `last_success_time` are wall-clock seconds since the epoch. `rejected_count` counts
    refused calls, `shadow_rejected_count` those that `SHADOW` let through, `slow_count` successes and failures that
    lasted `slow_call_duration_s` or longer. Latencies are those of successes and failures.
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
        """The share of failures among successes and failures; 0.0 when there are none."""
        answered = self.success_count + self.failure_count
        return self.failure_count / answered if answered else 0.0

    @property
    def avg_latency_ms(self) -> float:
        """The mean latency of successes and failures in milliseconds; 0.0 when there are none."""
        answered = self.success_count + self.failure_count
        return self.total_latency_ms / answered if answered else 0.0

    def record_success(self, latency_ms: float) -> None:
        """Count one success in these totals alone."""
        self.success_count += 1
        self.consecutive_failures = 0
        self.last_success_time = time.time()
        self.total_latency_ms += latency_ms

    def record_failure(self, latency_ms: float) -> None:
        """Count one failure in these totals alone."""
        self.failure_count += 1
        self.consecutive_failures += 1
        self.last_failure_time = time.time()
        self.total_latency_ms += latency_ms

    def reset(self) -> None:
        """Set every total to what it was at construction by default."""
        for total in fields(CircuitStats):
            setattr(self, total.name, total.default)


@dataclass(frozen=True)
class CircuitSnapshot:
    """What a breaker was at one moment.

    Attributes:
        state: what a caller meets.
        machine_state: what the machine is in; differs from `state` in `SHADOW`.
        window_calls: successes and failures in the window; `window_failures` and `window_slow` are among them.
        error_rate: share of failures in the window; 0.0 when it is empty. `slow_call_rate` likewise.
        retry_after_s: seconds until a probe may pass; 0.0 when calls are admitted, None when unknown.
        probes_in_flight: half-open permits that are out and not overdue.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain values that `json.dumps` takes; an infinite or unknown time is None."""
        return {key: _plain(value) for key, value in asdict(self).items()} | {
            "stats": {key: _plain(value) for key, value in asdict(self.stats).items()}
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return None if value == math.inf else value
