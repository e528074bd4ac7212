"""What went wrong with circuit breakers before, as plain facts about this one."""

from __future__ import annotations

import contextlib
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable

import pytest
from calls import fail, succeed
from clocks import Clock
from failures import Down
from patience import PATIENCE_S
from ways import Way

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common.words import CircuitState
from circuit_breaker.exceptions import CircuitOpenError

Make = Callable[..., CircuitBreaker]


def half_open(make: Make, clock: Clock, **settings: object) -> CircuitBreaker:
    breaker = make(**{"failure_threshold": 1, **settings})
    fail(breaker)
    clock.advance(30)
    assert breaker.state is CircuitState.HALF_OPEN
    return breaker


def test_more_successes_may_be_needed_than_there_are_permits(make: Make, clock: Clock, way: Way) -> None:
    breaker = half_open(make, clock, success_threshold=5, half_open_max_calls=2)
    for _ in range(5):
        way(breaker, int)
    assert breaker.is_closed


def test_more_successes_may_be_needed_than_there_are_permits_for_records_by_hand(make: Make, clock: Clock) -> None:
    breaker = half_open(make, clock, success_threshold=5, half_open_max_calls=2)
    for _ in range(5):
        assert breaker.allow_request()
        breaker.record_success()
    assert breaker.is_closed


def test_probes_that_never_answer_do_not_keep_the_circuit_half_open_for_ever(make: Make, clock: Clock) -> None:
    breaker = half_open(make, clock, success_threshold=1, half_open_max_calls=2)
    assert breaker.allow_request()
    assert breaker.permit()
    assert not breaker.allow_request()
    clock.advance(30)
    succeed(breaker)
    assert breaker.is_closed


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CancelledError(), GeneratorExit()], ids=repr)
def test_a_probe_that_is_interrupted_gives_its_slot_back(make: Make, clock: Clock, error: BaseException) -> None:
    breaker = half_open(make, clock, success_threshold=1, half_open_max_calls=1)
    for _ in range(5):
        fail(breaker, error=error)
    succeed(breaker)
    assert breaker.is_closed


def test_a_late_success_of_a_call_from_before_the_trip_does_not_close_the_circuit(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, success_threshold=1)
    late = [breaker.permit(), breaker.permit()]
    fail(breaker)
    late[0].success()
    assert breaker.is_open
    clock.advance(30)
    assert breaker.state is CircuitState.HALF_OPEN
    late[1].success()
    assert breaker.state is CircuitState.HALF_OPEN


def test_a_late_failure_of_a_call_from_before_the_trip_does_not_extend_the_open_time(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1)
    late = [breaker.permit(), breaker.permit()]
    fail(breaker)
    clock.advance(29)
    late[0].failure()
    clock.advance(1)
    assert breaker.state is CircuitState.HALF_OPEN
    late[1].failure()
    assert breaker.state is CircuitState.HALF_OPEN


def test_racing_threads_are_never_admitted_while_the_circuit_is_open(make: Make) -> None:
    breaker = make(failure_threshold=1)
    together = threading.Barrier(16)
    opened = threading.Event()
    admitted_after: list[bool] = []

    def race(number: int) -> None:
        together.wait(PATIENCE_S)
        if number == 0:
            breaker.record_failure()
            opened.set()
        for _ in range(200):
            known_open = opened.is_set()
            if breaker.allow_request() and known_open:
                admitted_after.append(True)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert breaker.is_open
    assert admitted_after == []


def test_racing_threads_get_no_more_probes_than_there_are_permits(make: Make, clock: Clock) -> None:
    breaker = half_open(make, clock, half_open_max_calls=3)
    together = threading.Barrier(16)
    answers: list[bool] = []

    def race() -> None:
        together.wait(PATIENCE_S)
        answers.append(breaker.allow_request())

    threads = [threading.Thread(target=race) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert answers.count(True) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), CancelledError(), GeneratorExit()], ids=repr)
def test_interrupts_and_cancellations_are_no_failures(make: Make, error: BaseException) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker, 10, error=error)
    with contextlib.suppress(BaseException), breaker:
        raise error
    assert breaker.is_closed
    assert (breaker.stats.failure_count, breaker.stats.ignored_count) == (0, 11)


def test_after_ten_thousand_good_calls_an_outage_is_seen_within_the_window(make: Make) -> None:
    breaker = make(failure_threshold=1_000, error_rate_threshold=0.5, error_rate_window=100)
    succeed(breaker, 10_000)
    fail(breaker, 49)
    assert breaker.is_closed
    fail(breaker)
    assert breaker.is_open


def test_after_the_recovery_one_failure_does_not_reopen(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1_000, error_rate_threshold=0.5, error_rate_window=10, success_threshold=1)
    fail(breaker, 10)
    assert breaker.is_open
    clock.advance(30)
    succeed(breaker)
    assert breaker.is_closed
    fail(breaker)
    assert breaker.is_closed


def test_a_wall_clock_that_is_set_back_does_not_keep_the_circuit_open(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    a_day_ago = time.time() - 86_400
    monkeypatch.setattr(time, "time", lambda: a_day_ago)
    clock.advance(30)
    succeed(breaker)
    assert breaker.state is CircuitState.HALF_OPEN


def test_time_is_monotonic_unless_another_clock_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    breaker = CircuitBreaker(config=CircuitBreakerConfig(1, reset_timeout_s=1e-9))
    assert breaker._clock is time.monotonic
    fail(breaker)
    before = time.monotonic()
    while time.monotonic() == before:
        pass
    succeed(breaker)


def test_latencies_are_measured_and_added_up(make: Make, clock: Clock, way: Way) -> None:
    breaker = make()
    way(breaker, lambda: clock.advance(0.25))
    way(breaker, lambda: clock.advance(0.75))
    assert breaker.stats.total_latency_ms == 1_000.0
    assert breaker.stats.avg_latency_ms == 500.0


def test_a_rejection_inside_does_not_count_as_a_failure_of_what_is_outside(make: Make, way: Way) -> None:
    inner, outer = make("inner", failure_threshold=1), make("outer", failure_threshold=1)
    fail(inner)
    with pytest.raises(CircuitOpenError) as raised:
        way(outer, lambda: succeed(inner))
    assert raised.value.circuit_name == "inner"
    assert outer.is_closed
    assert outer.stats.failure_count == 0


def test_the_call_that_trips_raises_its_own_error(make: Make, way: Way) -> None:
    breaker = make(failure_threshold=1)

    def body() -> None:
        raise Down

    with pytest.raises(Down):
        way(breaker, body)
    with pytest.raises(CircuitOpenError):
        way(breaker, body)
