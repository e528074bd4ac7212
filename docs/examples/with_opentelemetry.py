"""OpenTelemetry: refusals, retries and state changes as events of the span in which they happen."""

from __future__ import annotations

from opentelemetry import trace

from circuit_breaker import BulkheadRejected, CallRejected, RetryScheduled, StateChanged


def trace_events(event: object) -> None:
    """Tell the current span; a listener for breakers, bulkheads, registries and retry policies."""
    span = trace.get_current_span()  # listeners are called where the call is made, so this is the caller's
    if not span.is_recording():
        return
    match event:
        case StateChanged(name, old, new, reason):
            span.add_event(
                "circuit.changed",
                {"circuit": name, "old_state": old.value, "new_state": new.value, "reason": reason},
            )
        case CallRejected(name, retry_after_s):
            known = {} if retry_after_s is None else {"retry_after_s": retry_after_s}
            span.add_event("circuit.refused", {"circuit": name, **known})
        case BulkheadRejected(name, active, queued):
            span.add_event("bulkhead.refused", {"bulkhead": name, "active": active, "queued": queued})
        case RetryScheduled(attempt, delay_s, error, _):
            kind = "bad value" if error is None else type(error).__name__  # its text may hold secrets
            span.add_event("retry", {"attempt": attempt, "delay_s": delay_s, "error": kind})
