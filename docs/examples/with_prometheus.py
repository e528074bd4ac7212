"""Prometheus: how long calls take and how often they are retried, told by listeners as it happens."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from circuit_breaker import CallFinished, RetryScheduled


class Latencies:
    """A listener for breakers and retry policies: what cannot be read from a snapshot afterwards."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._seconds = Histogram(
            "circuit_call_seconds", "How long calls took.", ["circuit", "outcome"], registry=registry
        )
        self._retries = Counter("retries", "Attempts after the first.", ["error"], registry=registry)

    def __call__(self, event: object) -> None:
        match event:
            case CallFinished(name, outcome, latency_ms, _):
                self._seconds.labels(name, outcome.value).observe(latency_ms / 1_000)
            case RetryScheduled(_, _, error, _):
                self._retries.labels("" if error is None else type(error).__name__).inc()
