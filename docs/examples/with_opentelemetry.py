"""OpenTelemetry: metrics that are read from snapshots, and events in the spans of the calls that they concern."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from resilience_metrics import METRICS, Metric, Metrics

from circuit_breaker import BulkheadRejected, CallRejected, RetryGaveUp, RetryScheduled, StateChanged


def export(metrics: Metrics, meter: Meter) -> None:
    """Let a meter read the snapshots whenever its reader collects; calls stay as fast as they were."""
    for metric in METRICS.values():
        make: Any = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
        make(metric.name, callbacks=[partial(_observe, metrics, metric)], description=metric.description)


def _observe(metrics: Metrics, metric: Metric, options: CallbackOptions) -> Iterator[Observation]:
    for labels, value in metrics.collect()[metric.name].items():
        yield Observation(value, dict(zip(metric.labels, labels, strict=True)))


def trace_events(event: object) -> None:
    """Add an event to the current span; a listener for breakers, bulkheads, registries and retry policies."""
    span = trace.get_current_span()  # listeners are called where the call is made, so this is the caller's span
    if not span.is_recording():
        return
    match event:
        case StateChanged(circuit_name=name, old_state=old, new_state=new, reason=reason):
            changed = {"circuit": name, "old_state": old.value, "new_state": new.value, "reason": reason}
            span.add_event("circuit.changed", changed)
        case CallRejected(circuit_name=name, retry_after_s=retry_after_s):
            known = {} if retry_after_s is None else {"retry_after_s": retry_after_s}
            span.add_event("circuit.rejected", {"circuit": name, **known})
        case BulkheadRejected(bulkhead_name=name, active_count=active, queued_count=queued):
            span.add_event("bulkhead.rejected", {"bulkhead": name, "active": active, "queued": queued})
        case RetryScheduled(attempt=attempt, delay_s=delay_s, error=error):
            kind = "bad value" if error is None else type(error).__name__  # its text may hold secrets
            span.add_event("retry.scheduled", {"attempt": attempt, "delay_s": delay_s, "error": kind})
        case RetryGaveUp(attempts=attempts, reason=reason):
            span.add_event("retry.gave_up", {"attempts": attempts, "reason": reason})
