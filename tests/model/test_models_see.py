"""What a model must not overlook: an event too many. The library loses what a listener raises, so this is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from breaker_players import Ending
from clocks import Clock
from test_breaker_model import BreakerModel
from test_bulkhead_model import BulkheadModel
from test_together_model import TogetherModel

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitBreakerConfig, CircuitMode, RetryPolicy

RETRIES: dict[str, Any] = {
    "max_retries": 1,
    "backoff_base": 0.0,
    "backoff_multiplier": 1.0,
    "backoff_max": 0.0,
    "jitter": False,
    "retryable_exceptions": None,
    "max_elapsed_s": None,
    "retry_result": None,
    "retry_after": None,
    "retry_after_max_s": 1.0,
}


def breaker_model() -> tuple[Any, Callable[[Any], object]]:
    model = BreakerModel()
    model.begin(CircuitBreakerConfig(), CircuitMode.AUTO, listened=True)
    model.call(0.0, 0, "call", (), Ending("down"))
    return model, model.real.heard.append


def bulkhead_model() -> tuple[Any, Callable[[Any], object]]:
    model = BulkheadModel()
    model.begin(1, 0, 0.0)
    model.acquire(inside_loop=False)
    return model, model.heard.append


def together_model() -> tuple[Any, Callable[[Any], object]]:
    model = TogetherModel()
    model.begin(RETRIES, CircuitBreakerConfig(), 1, listened=True)
    model.call("decorator", [(0.0, "down"), (0.0, "good")])
    return model, model.hear


def a_foreign_state_change(listener: Callable[[Any], object]) -> None:
    CircuitBreaker("other", listeners=[listener]).mode = CircuitMode.FORCED_OPEN


def a_foreign_success(listener: Callable[[Any], object]) -> None:
    CircuitBreaker("other", listeners=[listener], clock=Clock()).call(int)


def a_foreign_rejection(listener: Callable[[Any], object]) -> None:
    assert not Bulkhead("other", 0, listeners=[listener]).acquire()


def a_foreign_retry(listener: Callable[[Any], object]) -> None:
    policy = RetryPolicy(1, 0.0, sleep=lambda seconds: None, listeners=[listener])
    with pytest.raises(LookupError):
        policy.call({}.__getitem__, "key")


@pytest.mark.parametrize("make", [breaker_model, bulkhead_model, together_model])
@pytest.mark.parametrize("plant", [a_foreign_state_change, a_foreign_success, a_foreign_rejection, a_foreign_retry])
def test_model_finds_an_unexpected_event(
    make: Callable[[], tuple[Any, Callable[[Any], object]]], plant: Callable[[Callable[[Any], object]], None]
) -> None:
    model, listener = make()
    try:
        model.compare()
        plant(listener)
        with pytest.raises(AssertionError):
            model.compare()
    finally:
        model.agreed = False
        model.teardown()
