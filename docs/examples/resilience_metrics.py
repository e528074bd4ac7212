"""The metrics of circuit breakers, bulkheads and retries, for with_prometheus.py and with_opentelemetry.py to export.

To add a metric, add it to METRICS and to the function that reads the snapshot it comes from.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import singledispatch
from typing import Any, Literal, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from circuit_breaker import (
    Bulkhead,
    BulkheadSnapshot,
    CircuitBreaker,
    CircuitSnapshot,
    CircuitState,
    RetryPolicy,
    RetrySnapshot,
)


class Metric(NamedTuple):
    """A metric by its name in Prometheus, which adds `_total` to a counter."""

    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    description: str


METRICS = {
    metric.name: metric
    for metric in (
        Metric("circuit_state", "gauge", ("circuit", "state"), "Circuit breakers in this state."),
        Metric("circuit_calls", "counter", ("circuit", "outcome"), "Calls by how they ended."),
        Metric("circuit_slow_calls", "counter", ("circuit",), "Successes and failures that were slow."),
        Metric("circuit_shadow_rejected", "counter", ("circuit",), "Calls that would have been rejected, in SHADOW."),
        Metric("circuit_opened", "counter", ("circuit",), "How often the circuit opened."),
        Metric("circuit_latency_seconds", "counter", ("circuit",), "Time that successes and failures took, added up."),
        Metric("bulkhead_active", "gauge", ("bulkhead",), "Callers inside."),
        Metric("bulkhead_queued", "gauge", ("bulkhead",), "Callers that wait."),
        Metric("bulkhead_max_concurrent", "gauge", ("bulkhead",), "Callers that may be inside at once."),
        Metric("bulkhead_calls", "counter", ("bulkhead", "outcome"), "Callers by how they were admitted or rejected."),
        Metric("bulkhead_wait_seconds", "counter", ("bulkhead",), "Time that callers have waited, added up."),
        Metric("retry_attempts", "counter", ("policy",), "Attempts after the first one of a call."),
        Metric("retry_calls", "counter", ("policy", "outcome"), "Calls whose first attempt failed, by how they ended."),
        Metric("retry_sleep_seconds", "counter", ("policy",), "Time slept before retries, added up."),
    )
}

Reading: TypeAlias = tuple[str, tuple[str, ...], float]  # name of the metric, values of its labels, value


@singledispatch
def read(snapshot: Any, name: str) -> Iterator[Reading]:
    """Yield what a snapshot says about the object of this name, which is the first label."""
    raise TypeError(f"there are no metrics for a {type(snapshot).__name__}")


@read.register
def _(snapshot: CircuitSnapshot, name: str) -> Iterator[Reading]:
    stats = snapshot.stats
    for state in CircuitState:
        yield "circuit_state", (name, state.value), snapshot.state is state
    yield "circuit_calls", (name, "success"), stats.success_count
    yield "circuit_calls", (name, "failure"), stats.failure_count
    yield "circuit_calls", (name, "ignored"), stats.ignored_count
    yield "circuit_calls", (name, "rejected"), stats.rejected_count
    yield "circuit_slow_calls", (name,), stats.slow_count
    yield "circuit_shadow_rejected", (name,), stats.shadow_rejected_count
    yield "circuit_opened", (name,), stats.opened_count
    yield "circuit_latency_seconds", (name,), stats.total_latency_ms / 1000


@read.register
def _(snapshot: BulkheadSnapshot, name: str) -> Iterator[Reading]:
    yield "bulkhead_active", (name,), snapshot.active_count
    yield "bulkhead_queued", (name,), snapshot.queued_count
    yield "bulkhead_max_concurrent", (name,), snapshot.max_concurrent
    yield "bulkhead_calls", (name, "accepted"), snapshot.accepted_count
    yield "bulkhead_calls", (name, "rejected"), snapshot.rejected_count - snapshot.timed_out_count
    yield "bulkhead_calls", (name, "timed_out"), snapshot.timed_out_count
    yield "bulkhead_wait_seconds", (name,), snapshot.total_wait_s


@read.register
def _(snapshot: RetrySnapshot, name: str) -> Iterator[Reading]:
    yield "retry_attempts", (name,), snapshot.retry_count
    yield "retry_calls", (name, "recovered"), snapshot.recovered_count
    yield "retry_calls", (name, "gave_up"), snapshot.gave_up_count
    yield "retry_sleep_seconds", (name,), snapshot.total_sleep_s


Seen: TypeAlias = dict[tuple[str, tuple[str, ...]], float]  # the counts of one object when it was last read


class Metrics:
    """The metrics of all circuit breakers of this process, and of bulkheads and retry policies, added up by label.

    A counter never goes back, though breakers disappear and are reset. May be shared by threads.

    Args:
        bulkheads: the bulkheads to show.
        policies: the retry policies to show, by the names to show them under.
        label: returns the label for a name. Give many breakers one label if there are thousands.
    """

    def __init__(
        self,
        *,
        bulkheads: Iterable[Bulkhead] = (),
        policies: Mapping[str, RetryPolicy] | None = None,
        label: Callable[[str], str] = str,
    ) -> None:
        named: list[tuple[str, Any]] = [(bulkhead.name, bulkhead) for bulkhead in bulkheads]
        named += (policies or {}).items()
        self._label = label
        self._lock = threading.Lock()  # guards the three below
        self._totals: defaultdict[str, defaultdict[tuple[str, ...], float]] = defaultdict(lambda: defaultdict(float))
        self._circuits: WeakKeyDictionary[CircuitBreaker, Seen] = WeakKeyDictionary()
        self._others: list[tuple[str, Any, Seen]] = [(name, owner, {}) for name, owner in named]

    def collect(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Return the value of each metric for each of its labels."""
        with self._lock:
            values: dict[str, dict[tuple[str, ...], float]] = {}
            for name, metric in METRICS.items():
                values[name] = self._totals[name] if metric.kind == "counter" else defaultdict(float)
            for owner_name, owner, seen in self._owners():
                for name, labels, value in read(owner.snapshot(), str(owner_name)):
                    increase = value
                    if METRICS[name].kind == "counter":
                        before = seen.get((name, labels), 0)
                        increase = value - before if value >= before else value  # less than before: it was reset
                        seen[name, labels] = value
                    values[name][self._label(labels[0]), *labels[1:]] += increase
            return {name: dict(by_labels) for name, by_labels in values.items()}

    def _owners(self) -> Iterator[tuple[str, Any, Seen]]:
        for breaker in CircuitBreaker.instances():
            yield breaker.name, breaker, self._circuits.setdefault(breaker, {})
        yield from self._others
