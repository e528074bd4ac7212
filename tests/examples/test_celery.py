"""The Celery example, in eager mode, and with a real worker that reads from a queue in memory."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

pytest.importorskip("celery", reason="needs the extra recipes: pip install -e .[test,recipes]")

import celery
from celery.contrib.testing.worker import start_worker
from example_files import example
from faulty_server import PATIENCE_S
from log_settings import logging_as_before

from circuit_breaker import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitMode,
    CircuitOpenError,
)
from circuit_breaker.testing import FakeClock

recipe = example("with_celery")


ENDS: SimpleQueue[Any] = SimpleQueue()


class Hurried(recipe.CircuitTask):  # type: ignore[misc, name-defined]
    """Waits for moments only, since a real worker does wait; tells how it ends.

    A backend does not tell for sure: a worker may note that it has put a task off after another has finished the task.
    """

    wait_s = 0.01
    longest_wait_s = 0.02

    def on_success(self, retval: Any, *rest: Any) -> None:
        ENDS.put(retval)

    def on_failure(self, exc: Exception, *rest: Any) -> None:
        ENDS.put(exc)


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

    @app.task(shared=False, base=recipe.CircuitTask)
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
    @app.task(shared=False, base=recipe.CircuitTask, bind=True)
    def charge(self: Any) -> int:
        if len(waits) == 2:
            breaker.mode = CircuitMode.AUTO
        return breaker.call(lambda: 1250)

    breaker.mode = CircuitMode.FORCED_OPEN
    assert charge.apply().get() == 1250
    assert all(30 <= wait <= 45 for wait in waits)


def test_a_circuit_that_stays_open_until_somebody_closes_it_is_asked_again_all_the_same(
    app: Any, breaker: CircuitBreaker, waits: list[float]
) -> None:
    @app.task(shared=False, base=recipe.CircuitTask)
    def charge() -> int:
        if waits:
            breaker.reset()
        return breaker.call(lambda: 1250)

    breaker.config = CircuitBreakerConfig(failure_threshold=2, reset_timeout_s=float("inf"))
    breaker.record_failure()
    breaker.record_failure()
    assert charge.apply().get() == 1250
    assert len(waits) == 1
    assert 900 <= waits[0] <= 1350


def test_a_full_bulkhead_is_waited_for_too(app: Any, waits: list[float]) -> None:
    reports = Bulkhead("reports", max_concurrent=0)

    @app.task(shared=False, base=recipe.CircuitTask)
    def report() -> int:
        if waits:
            reports.resize(1)
        return reports.call(lambda: 7)

    assert report.apply().get() == 7
    assert len(waits) == 1


def test_it_waits_only_so_often(app: Any, breaker: CircuitBreaker, waits: list[float]) -> None:
    class Impatient(recipe.CircuitTask):  # type: ignore[misc, name-defined]
        max_waits = 5

    @app.task(shared=False, base=Impatient)
    def charge() -> None:
        breaker.call(int)

    breaker.mode = CircuitMode.FORCED_OPEN
    with pytest.raises(CircuitOpenError):
        charge.apply().get()
    assert len(waits) == 5


def test_a_failure_is_a_failure(app: Any, breaker: CircuitBreaker, waits: list[float]) -> None:
    @app.task(shared=False, base=recipe.CircuitTask)
    def charge() -> None:
        with breaker:
            raise ConnectionError("down")

    with pytest.raises(ConnectionError):
        charge.apply().get()
    assert waits == []
    assert breaker.stats.failure_count == 1


def test_called_as_a_function_it_raises_the_rejection(app: Any, breaker: CircuitBreaker) -> None:
    @app.task(shared=False, base=recipe.CircuitTask)
    def charge() -> None:
        breaker.call(int)

    breaker.mode = CircuitMode.FORCED_OPEN
    with pytest.raises(CircuitOpenError):
        charge()


# With a worker


class Queue:
    """An app with one worker, which knows the tasks that are made while it runs."""

    def __init__(self) -> None:
        self.app = celery.Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
        self.app.conf.update(
            broker_transport_options={"polling_interval": 0.01},
            worker_timer_precision=0.01,
            worker_hijack_root_logger=False,
        )
        self.worker: Any = None

    def task(self, function: Any, **options: Any) -> Any:
        """Make a function a task."""
        task = self.app.task(bind=True, shared=False, **options)(function)
        self.worker.consumer.update_strategies()
        return task

    def run(self, task: Any, *args: Any, **options: Any) -> Any:
        """Send a task and return what it returns in the end."""
        task.apply_async(args, **options)
        end = ENDS.get(timeout=PATIENCE_S)
        if isinstance(end, Exception):
            raise end
        return end


@pytest.fixture(scope="module")
def queue() -> Iterator[Queue]:
    queue = Queue()
    worker = start_worker(queue.app, pool="solo", perform_ping_check=False, shutdown_timeout=PATIENCE_S)
    with logging_as_before(), worker as queue.worker:  # a worker sets the level of the root logger
        yield queue
    queue.app.close()


def test_a_worker_waits_and_keeps_the_arguments_the_id_and_the_headers(breaker: CircuitBreaker, queue: Queue) -> None:
    seen: list[tuple[Any, ...]] = []

    def charge_seven(self: Any, order: int, *, cents: int) -> int:
        seen.append((self.request.id, order, cents, self.request.headers["tenant"]))
        if len(seen) == 3:
            breaker.mode = CircuitMode.AUTO
        return breaker.call(lambda: cents)

    task = queue.task(charge_seven, base=Hurried)
    breaker.mode = CircuitMode.FORCED_OPEN
    assert queue.run(task, 7, kwargs={"cents": 1250}, headers={"tenant": "a"}, task_id="charge-7") == 1250
    assert seen == [("charge-7", 7, 1250, "a")] * 3


def test_a_worker_waits_only_so_often(breaker: CircuitBreaker, queue: Queue) -> None:
    class Impatient(Hurried):
        max_waits = 3

    tries: list[None] = []

    def charge_in_vain(self: Any) -> None:
        tries.append(None)
        breaker.call(int)

    task = queue.task(charge_in_vain, base=Impatient)
    breaker.mode = CircuitMode.FORCED_OPEN
    with pytest.raises(CircuitOpenError):
        queue.run(task)
    assert len(tries) == 1 + 3


class Flaky(Hurried):
    """Has retries of its own."""

    autoretry_for = (Exception,)
    default_retry_delay = 0
    max_retries = 2


@pytest.mark.parametrize("rejection", [CircuitOpenError("open", "payments"), BulkheadFullError("full", "payments")])
def test_the_waits_do_not_use_up_the_retries_of_the_task(queue: Queue, rejection: Exception) -> None:
    retries: list[int] = []
    outcomes = [rejection] * 5 + [ConnectionError("down"), rejection] * 2

    def charge(self: Any) -> int:
        retries.append(self.request.retries)
        if outcomes:
            raise outcomes.pop(0)
        return 1250

    task = queue.task(charge, base=Flaky, name=f"charge after {type(rejection).__name__}")
    assert queue.run(task) == 1250
    assert retries == [0] * 6 + [1, 1, 2, 2]


def test_a_task_that_keeps_failing_has_only_its_own_retries(queue: Queue) -> None:
    tries: list[None] = []

    def charge_and_fail(self: Any) -> None:
        tries.append(None)
        if len(tries) == 1:
            raise CircuitOpenError("open", "payments")
        raise ConnectionError("down")

    with pytest.raises(ConnectionError):
        queue.run(queue.task(charge_and_fail, base=Flaky))
    assert len(tries) == 1 + 1 + 2
