"""The Celery example, in eager mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("celery", reason="needs the extra recipes: pip install -e .[test,recipes]")

import celery
from example_files import example

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitMode, CircuitOpenError
from circuit_breaker.testing import FakeClock

recipe = example("with_celery")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    config = CircuitBreakerConfig(failure_threshold=2, success_threshold=1, reset_timeout_s=60)
    return CircuitBreaker("payments", config, clock=clock)


@pytest.fixture
def app() -> Iterator[Any]:
    app = celery.Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def waits(clock: FakeClock) -> Iterator[list[float]]:
    """Let the time pass for which a task is put off; eager mode comes back at once."""
    waits: list[float] = []

    def put_off(reason: Any, **rest: Any) -> None:
        waits.append(reason.when)
        clock.advance(reason.when)

    celery.signals.task_retry.connect(put_off)
    yield waits
    celery.signals.task_retry.disconnect(put_off)


def test_a_task_waits_until_the_circuit_may_admit_it(app: Any, breaker: CircuitBreaker, waits: list[float]) -> None:
    charged = []

    @app.task(base=recipe.CircuitTask)
    def charge(cents: int) -> int:
        with breaker:
            charged.append(cents)
            return cents

    breaker.record_failure()
    breaker.record_failure()
    assert charge.apply([1250]).get() == 1250
    assert charged == [1250]
    assert len(waits) == 1
    assert 60 <= waits[0] <= 90


def test_a_circuit_that_cannot_tell_is_asked_again_after_a_while(
    app: Any, breaker: CircuitBreaker, waits: list[float]
) -> None:
    @app.task(base=recipe.CircuitTask, bind=True)
    def charge(self: Any) -> Any:
        if self.request.retries == 2:
            breaker.mode = CircuitMode.AUTO
        return breaker.call(lambda: self.request.retries)

    breaker.mode = CircuitMode.FORCED_OPEN
    assert charge.apply().get() == 2
    assert all(30 <= wait <= 45 for wait in waits)


def test_it_waits_only_so_often(app: Any, breaker: CircuitBreaker, waits: list[float]) -> None:
    class Impatient(recipe.CircuitTask):  # type: ignore[misc, name-defined]
        max_waits = 5

    @app.task(base=Impatient)
    def charge() -> None:
        breaker.call(int)

    breaker.mode = CircuitMode.FORCED_OPEN
    with pytest.raises(CircuitOpenError):
        charge.apply().get()
    assert len(waits) == 5


def test_a_failure_is_a_failure(app: Any, breaker: CircuitBreaker, waits: list[float]) -> None:
    @app.task(base=recipe.CircuitTask)
    def charge() -> None:
        with breaker:
            raise ConnectionError("down")

    with pytest.raises(ConnectionError):
        charge.apply().get()
    assert waits == []
    assert breaker.stats.failure_count == 1


def test_called_as_a_function_it_raises_the_refusal(app: Any, breaker: CircuitBreaker) -> None:
    @app.task(base=recipe.CircuitTask)
    def charge() -> None:
        breaker.call(int)

    breaker.mode = CircuitMode.FORCED_OPEN
    with pytest.raises(CircuitOpenError):
        charge()
