"""The fixtures of all tests."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clocks import Clock
from ways import BREAKER, Way

from circuit_breaker._breaker import open_blocks as _blocks
from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common.words import CircuitState

# Where Ctrl-C is ignored, as in the background of a shell, tests that send it to themselves, or to a child, which
# inherits that, would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Take what is loaded by now out of the garbage collector's sight, so that tests which collect are quick."""
    gc.collect()
    if hasattr(gc, "freeze"):  # not in PyPy
        gc.freeze()


def pytest_sessionfinish() -> None:
    if hasattr(gc, "unfreeze"):
        gc.unfreeze()


@pytest.fixture(autouse=True)
def no_block_left_open() -> Iterator[None]:
    """Keep a block that a test leaves open from the next test."""
    yield
    _blocks.stack.set(None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Callable[..., CircuitBreaker]:
    """Make a breaker on the fake clock; what is no setting of its own goes into its configuration."""

    def make(name: str = "api", **settings: Any) -> CircuitBreaker:
        own = {key: settings.pop(key) for key in ("mode", "listeners") if key in settings}
        return CircuitBreaker(name, CircuitBreakerConfig(**settings), clock=clock, **own)

    return make


@pytest.fixture
def probing(make: Callable[..., CircuitBreaker], clock: Clock) -> Callable[..., CircuitBreaker]:
    """Make a breaker that is half-open, with one permit, and closes at one success."""

    def probing(**settings: Any) -> CircuitBreaker:
        breaker = make(**{"failure_threshold": 1, "success_threshold": 1, "half_open_max_calls": 1, **settings})
        breaker.record_failure()
        clock.advance(breaker.config.reset_timeout_s)
        assert breaker.state is CircuitState.HALF_OPEN
        breaker.stats.reset()
        return breaker

    return probing


@pytest.fixture(params=BREAKER)
def way(request: pytest.FixtureRequest) -> Way:
    """Each way of making one guarded call in turn: `way(breaker, body)` gives what the body returns."""
    return BREAKER[request.param]
