"""What the models have found, each as short as it can be told."""

from __future__ import annotations

from unittest import mock

import pytest

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitMode


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_last_success_may_be_one_that_came_late(clock: Clock) -> None:
    breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=1), clock=clock)
    late = breaker.permit()
    breaker.record_failure()
    breaker.reset()
    breaker.record_success()
    with mock.patch("time.time", return_value=0.0):
        clock.now = 2000.0
        late.success()
        assert breaker.stats.last_success_time == 0.0
        breaker.mode = CircuitMode.FORCED_OPEN
        assert breaker.stats.last_success_time == 0.0
