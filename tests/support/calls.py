"""Calls that succeed and calls that fail."""

from __future__ import annotations

import pytest
from failures import Down, raising

from circuit_breaker import CircuitBreaker


def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.call(int)


def fail(breaker: CircuitBreaker, times: int = 1, error: BaseException | None = None) -> None:
    for _ in range(times):
        expected = Down() if error is None else error
        with pytest.raises(BaseException) as raised:
            breaker.call(raising(expected))
        assert raised.type is type(expected)
