"""The examples for structlog, OpenTelemetry and Prometheus."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from example_files import example
from garbage import collect
from log_settings import logging_as_before

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitBreakerConfig, CircuitBreakerRegistry, RetryPolicy
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
    with logging_as_before():
        yield


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
        "event": "circuit 'payments': closed -> open: 1 failure in a row (threshold 1)",
        "level": "warning",
        "logger": "circuit_breaker",
        "request": "7a",
        "circuit_name": "payments",
        "old_state": "closed",
        "new_state": "open",
        "reason": "1 failure in a row (threshold 1)",
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
        ("retry.scheduled", {"attempt": 0, "delay_s": 0.1, "error": "ConnectionError"}),
        (
            "circuit.changed",
            {
                "circuit": "payments",
                "old_state": "closed",
                "new_state": "open",
                "reason": "2 failures in a row (threshold 2)",
            },
        ),
        ("retry.scheduled", {"attempt": 1, "delay_s": 0.2, "error": "ConnectionError"}),
        ("circuit.rejected", {"circuit": "payments", "retry_after_s": 29.8}),
        ("retry.gave_up", {"attempts": 3, "reason": "CircuitOpenError is not retried"}),
        ("bulkhead.rejected", {"bulkhead": "reports", "active": 0, "queued": 0}),
    ]


def test_without_a_span_nothing_happens(clock: FakeClock) -> None:
    pytest.importorskip("opentelemetry", reason="needs the extra test")
    breaker = CircuitBreaker("payments", listeners=[example("with_opentelemetry").trace_events], clock=clock)
    try_each(lambda: breaker.call(fail))
    assert breaker.stats.failure_count == 1


# Metrics


class Watch:
    """A breaker, a bulkhead and a retry policy with something to tell, and what reads it."""

    def __init__(self, clock: FakeClock, *listeners: Any, name: str = "payments") -> None:
        self.clock = clock
        config = CircuitBreakerConfig(failure_threshold=3, slow_call_duration_s=1)
        self.breaker = CircuitBreaker(name, config, listeners=listeners, clock=clock)
        self.bulkhead = Bulkhead("reports", max_concurrent=1, listeners=listeners)
        self.retries = RetryPolicy(2, sleep=clock.sleep, clock=clock, jitter=False, listeners=listeners)

    def happen(self) -> None:
        self.breaker.call(self.clock.advance, 1.5)
        try_each(self.retries(self.breaker(fail)), lambda: self.breaker.call(int))
        with self.bulkhead:
            try_each(lambda: self.bulkhead.call(int))


HAPPENED = {
    ("circuit_calls", "success"): 1,
    ("circuit_calls", "failure"): 3,
    ("circuit_calls", "ignored"): 0,
    ("circuit_calls", "rejected"): 1,
    ("circuit_slow_calls",): 1,
    ("circuit_shadow_rejected",): 0,
    ("circuit_opened",): 1,
    ("circuit_latency_seconds",): 1.5,
    ("bulkhead_calls", "accepted"): 1,
    ("bulkhead_calls", "rejected"): 1,
    ("bulkhead_calls", "timed_out"): 0,
    ("bulkhead_wait_seconds",): 0,
    ("circuit_state", "closed"): 0,
    ("circuit_state", "open"): 1,
    ("circuit_state", "half_open"): 0,
    ("bulkhead_active",): 0,
    ("bulkhead_queued",): 0,
    ("bulkhead_max_concurrent",): 1,
    ("retry_attempts",): 2,
    ("retry_calls", "recovered"): 0,
    ("retry_calls", "gave_up"): 1,
    ("retry_sleep_seconds",): 0.1 + 0.2,
}


@pytest.fixture
def watch(clock: FakeClock, request: pytest.FixtureRequest) -> Watch:
    return Watch(clock, name=request.node.name)


def collected(metrics: Any, *names: str) -> dict[tuple[str, ...], float]:
    """Return the values about these circuits and bulkheads, by metric and labels but for the name."""
    return {
        (metric, *labels[1:]): value
        for metric, by_labels in metrics.collect().items()
        for labels, value in by_labels.items()
        if labels[0] in names
    }


def test_the_metrics_say_what_happened(watch: Watch) -> None:
    metrics = example("resilience_metrics").Metrics(bulkheads=[watch.bulkhead], policies={"orders": watch.retries})
    watch.happen()
    assert collected(metrics, watch.breaker.name, "reports", "orders") == pytest.approx(HAPPENED)


def test_every_metric_has_its_labels_and_a_description(watch: Watch) -> None:
    module = example("resilience_metrics")
    values = module.Metrics(bulkheads=[watch.bulkhead], policies={"orders": watch.retries}).collect()
    assert list(values) == list(module.METRICS)
    for name, by_labels in values.items():
        metric = module.METRICS[name]
        assert metric.name == name
        assert metric.description.endswith(".")
        assert {len(labels) for labels in by_labels} == {len(metric.labels)}


def test_an_object_without_metrics_is_an_error() -> None:
    class Thing:
        def snapshot(self) -> int:
            return 5

    with pytest.raises(TypeError, match="no metrics for a int"):
        example("resilience_metrics").Metrics(policies={"thing": Thing()}).collect()


def test_a_counter_never_goes_back_though_a_breaker_is_reset_or_gone(clock: FakeClock) -> None:
    metrics = example("resilience_metrics").Metrics(label=lambda name: name.partition(":")[0])
    breakers = CircuitBreakerRegistry(clock=clock)
    breakers["tenant:1"].call(int)
    breakers["tenant:2"].call(int)
    assert collected(metrics, "tenant")["circuit_calls", "success"] == 2
    breakers["tenant:1"].reset()
    assert collected(metrics, "tenant")["circuit_calls", "success"] == 2
    breakers["tenant:1"].call(int)
    assert collected(metrics, "tenant")["circuit_calls", "success"] == 3
    del breakers
    collect()
    again = CircuitBreaker("tenant:1")
    assert collected(metrics, "tenant")["circuit_calls", "success"] == 3
    again.call(int)
    assert collected(metrics, "tenant")["circuit_calls", "success"] == 4


def test_breakers_of_one_label_are_added_up(clock: FakeClock) -> None:
    metrics = example("resilience_metrics").Metrics()
    twins = [CircuitBreaker("twins", CircuitBreakerConfig(failure_threshold=1), clock=clock) for _ in range(2)]
    twins[0].record_failure()
    values = collected(metrics, "twins")
    assert [values["circuit_state", state] for state in ("closed", "open", "half_open")] == [1, 1, 0]
    assert values["circuit_calls", "failure"] == 1


# Prometheus


@pytest.fixture
def registry() -> Any:
    return pytest.importorskip("prometheus_client", reason="needs the extra test").CollectorRegistry()


def test_prometheus_reads_the_snapshots_when_it_asks(watch: Watch, registry: Any) -> None:
    recipe = example("with_prometheus")
    recipe.Snapshots(
        example("resilience_metrics").Metrics(bulkheads=[watch.bulkhead], policies={"orders": watch.retries}), registry
    )
    watch.happen()

    def sample(name: str, **labels: str) -> float | None:
        value: float | None = registry.get_sample_value(name, labels)
        return value

    circuit = watch.breaker.name
    assert sample("circuit_state", circuit=circuit, state="open") == 1
    assert sample("circuit_calls_total", circuit=circuit, outcome="failure") == 3
    assert sample("circuit_opened_total", circuit=circuit) == 1
    assert sample("bulkhead_calls_total", bulkhead="reports", outcome="rejected") == 1
    watch.breaker.reset()
    assert sample("circuit_state", circuit=circuit, state="open") == 0
    assert sample("circuit_calls_total", circuit=circuit, outcome="failure") == 3


def test_the_listener_counts_latencies_and_retries(clock: FakeClock, registry: Any) -> None:
    watch = Watch(clock, example("with_prometheus").Listener(registry))
    watch.happen()
    labels = {"circuit": "payments", "outcome": "success"}
    assert registry.get_sample_value("circuit_call_seconds_sum", labels) == 1.5
    assert registry.get_sample_value("circuit_call_seconds_bucket", {**labels, "le": "1.0"}) == 0
    assert registry.get_sample_value("circuit_call_seconds_count", {**labels, "outcome": "failure"}) == 3
    labels = {"function": f"{__name__}.fail", "error": "ConnectionError"}
    assert registry.get_sample_value("retry_scheduled_total", labels) == 2
    assert registry.get_sample_value("retry_gave_up_total", labels) == 1


# OpenTelemetry


def test_opentelemetry_reads_the_snapshots_when_it_collects(watch: Watch) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra test")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    metrics = example("resilience_metrics").Metrics(bulkheads=[watch.bulkhead], policies={"orders": watch.retries})
    example("with_opentelemetry").export(metrics, provider.get_meter("circuit_breaker"))
    watch.happen()
    data = reader.get_metrics_data()
    assert data is not None
    read: dict[tuple[str, ...], float] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            name, *rest = (str(value) for value in dict(point.attributes or {}).values())
            if name in (watch.breaker.name, "reports", "orders"):
                read[metric.name, *rest] = point.value  # type: ignore[union-attr]
    provider.shutdown()
    assert read == pytest.approx(HAPPENED)
