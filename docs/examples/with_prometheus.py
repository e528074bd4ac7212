"""Prometheus: metrics that are read from snapshots when it asks, and those that only a listener can count."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from resilience_metrics import METRICS, Metrics

from circuit_breaker import CallFinished, RetryGaveUp, RetryScheduled


class Snapshots(Collector):
    """A collector that reads the snapshots whenever Prometheus asks; calls stay as fast as they were."""

    def __init__(self, metrics: Metrics, registry: CollectorRegistry = REGISTRY) -> None:
        self._metrics = metrics
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        for name, by_labels in self._metrics.collect().items():
            metric = METRICS[name]
            family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            samples = family(name, metric.description, labels=metric.labels)
            for labels, value in by_labels.items():
                samples.add_metric(labels, value)
            yield samples


class Listener:
    """A listener for breakers and retry policies: it counts what no snapshot has, and each event costs a little."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._seconds = Histogram(
            "circuit_call_seconds", "How long calls took.", ["circuit", "outcome"], registry=registry
        )
        self._retries = Counter("retry_scheduled", "Retries.", ["function", "error"], registry=registry)
        self._gave_up = Counter(
            "retry_gave_up", "Calls that failed for good.", ["function", "error"], registry=registry
        )

    def __call__(self, event: object) -> None:
        match event:
            case CallFinished(circuit_name=name, outcome=outcome, latency_ms=latency_ms):
                self._seconds.labels(name, outcome.value).observe(latency_ms / 1000)
            case RetryScheduled(error=error, function=function):
                self._retries.labels(function or "", _kind(error)).inc()
            case RetryGaveUp(error=error, function=function):
                self._gave_up.labels(function or "", _kind(error)).inc()


def _kind(error: BaseException | None) -> str:
    """Return the type of an error; its text may hold secrets, and has no bound."""
    return "bad value" if error is None else type(error).__name__
