"""The examples for structlog, OpenTelemetry and Prometheus."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from example_files import example

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitBreakerConfig, RetryPolicy
from circuit_breaker.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def fail() -> None:
    raise ConnectionError("the password is 1234")


def try_each(*calls: object) -> None:
    for call in calls:
        try:
            call()  # type: ignore[operator]
        except Exception:
            pass


# structlog


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("_logging_as_before")
def test_the_lines_of_the_library_look_like_those_of_the_application(clock: FakeClock) -> None:
    structlog = pytest.importorskip("structlog", reason="needs the extra recipes: pip install -e .[test,recipes]")
    stream = io.StringIO()
    example("with_structlog").configure(stream)
    try:
        breaker = CircuitBreaker("payments", CircuitBreakerConfig(failure_threshold=1), clock=clock)
        with structlog.contextvars.bound_contextvars(request="7a"):
            try_each(lambda: breaker.call(fail))
            structlog.get_logger("shop").info("no payment", cents=1250)
        theirs, ours = [json.loads(line) for line in stream.getvalue().splitlines()]
    finally:
        structlog.reset_defaults()
    assert theirs.pop("timestamp") <= ours.pop("timestamp")
    assert theirs == {
        "event": "circuit 'payments': closed -> open: 1 failures in a row (threshold 1)",
        "level": "warning",
        "logger": "circuit_breaker",
        "request": "7a",
        "circuit_name": "payments",
        "old_state": "closed",
        "new_state": "open",
        "reason": "1 failures in a row (threshold 1)",
    }
    assert ours == {"event": "no payment", "level": "info", "logger": "shop", "request": "7a", "cents": 1250}


# OpenTelemetry


def test_a_span_tells_what_happened_in_it(clock: FakeClock) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra test")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    trace_events = example("with_opentelemetry").trace_events
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    listeners = [trace_events]
    breaker = CircuitBreaker("payments", CircuitBreakerConfig(failure_threshold=2), listeners=listeners, clock=clock)
    retries = RetryPolicy(5, sleep=clock.sleep, clock=clock, jitter=False, listeners=listeners)
    full = Bulkhead("reports", max_concurrent=0, listeners=listeners)
    with provider.get_tracer("test").start_as_current_span("order"):
        try_each(lambda: retries.call(breaker.call, fail), lambda: full.call(int))
    provider.shutdown()
    (span,) = exporter.get_finished_spans()
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("retry", {"attempt": 0, "delay_s": 0.1, "error": "ConnectionError"}),
        (
            "circuit.changed",
            {
                "circuit": "payments",
                "old_state": "closed",
                "new_state": "open",
                "reason": "2 failures in a row (threshold 2)",
            },
        ),
        ("retry", {"attempt": 1, "delay_s": 0.2, "error": "ConnectionError"}),
        ("circuit.refused", {"circuit": "payments", "retry_after_s": 29.8}),
        ("bulkhead.refused", {"bulkhead": "reports", "active": 0, "queued": 0}),
    ]


def test_without_a_span_nothing_happens(clock: FakeClock) -> None:
    pytest.importorskip("opentelemetry", reason="needs the extra test")
    breaker = CircuitBreaker("payments", listeners=[example("with_opentelemetry").trace_events], clock=clock)
    try_each(lambda: breaker.call(fail))
    assert breaker.stats.failure_count == 1


# Prometheus


def test_latencies_and_retries_are_counted(clock: FakeClock) -> None:
    prometheus_client = pytest.importorskip("prometheus_client", reason="needs the extra test")
    registry = prometheus_client.CollectorRegistry()
    listener = example("with_prometheus").Latencies(registry)
    breaker = CircuitBreaker("payments", listeners=[listener], clock=clock)
    retries = RetryPolicy(2, sleep=clock.sleep, clock=clock, listeners=[listener])
    breaker.call(clock.advance, 1.5)
    try_each(lambda: retries.call(breaker.call, fail))
    labels = {"circuit": "payments", "outcome": "success"}
    assert registry.get_sample_value("circuit_call_seconds_sum", labels) == 1.5
    assert registry.get_sample_value("circuit_call_seconds_bucket", {**labels, "le": "1.0"}) == 0
    assert registry.get_sample_value("circuit_call_seconds_count", {**labels, "outcome": "failure"}) == 3
    assert registry.get_sample_value("retries_total", {"error": "ConnectionError"}) == 2
