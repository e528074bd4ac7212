"""Another configuration for a breaker that is running."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from calls import fail, succeed
from clocks import Clock
from failures import Down
from needs import needs_reference_counts
from patience import PATIENCE_S
from ways import Way

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common.events import StateChanged
from circuit_breaker._common.words import CircuitMode, CircuitState
from circuit_breaker.exceptions import CircuitOpenError

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

Make = Callable[..., CircuitBreaker]
Config = CircuitBreakerConfig


def raise_down() -> None:
    raise Down


# Taking another configuration


@needs_reference_counts
@pytest.mark.parametrize("forced", [False, True])
def test_the_former_configuration_is_dropped_when_the_lock_is_free(make: Make, forced: bool) -> None:
    class Predicate:
        def __call__(self, error: object) -> bool:
            return True

        def __del__(self) -> None:
            held.append(breaker._machine.lock._is_owned())

    held: list[bool] = []
    breaker = make(failure_exceptions=Predicate())
    if forced:
        breaker.mode = CircuitMode.FORCED_OPEN
    breaker.config = Config()
    assert held == [False]


def test_the_configuration_is_the_one_set(make: Make) -> None:
    breaker = make()
    config = Config(failure_threshold=2)
    breaker.config = config
    assert breaker.config is config


@pytest.mark.parametrize("config", [None, {}, "fast", Config])
def test_what_is_not_a_configuration_is_rejected_and_changes_nothing(make: Make, config: Any) -> None:
    breaker = make()
    before = breaker.config
    with pytest.raises(TypeError, match="config must be a CircuitBreakerConfig"):
        breaker.config = config
    assert breaker.config is before


def test_another_configuration_tells_of_no_change_and_keeps_the_totals(make: Make) -> None:
    told: list[Any] = []
    breaker = make(listeners=[told.append])
    succeed(breaker)
    fail(breaker)
    del told[:]
    before = breaker.stats.copy()
    breaker.config = Config(error_rate_window=7)
    assert breaker.stats == before
    assert told == []


def test_another_configuration_is_a_look_that_begins_half_open(make: Make, clock: Clock) -> None:
    told: list[Any] = []
    breaker = make(listeners=[told.append], failure_threshold=1)
    fail(breaker)
    clock.advance(30)
    breaker.config = Config()
    assert told[-1] == StateChanged("api", OPEN, HALF_OPEN, "open for 30 s")


@pytest.mark.parametrize("mode", [CircuitMode.FORCED_CLOSED, CircuitMode.FORCED_OPEN])
def test_another_configuration_leaves_what_is_forced(make: Make, mode: CircuitMode) -> None:
    breaker = make(mode=mode)
    breaker.config = Config(failure_threshold=1, reset_timeout_s=0)
    breaker.record_failure()
    assert breaker.mode is mode
    assert breaker.snapshot().machine_state is (OPEN if mode is CircuitMode.FORCED_OPEN else CLOSED)


# The streak


def test_a_lower_threshold_trips_at_the_next_failure_and_not_before(make: Make) -> None:
    breaker = make(failure_threshold=10)
    fail(breaker, 6)
    breaker.config = Config(failure_threshold=3)
    assert breaker.state is CLOSED
    assert breaker.stats.consecutive_failures == 6
    fail(breaker)
    assert breaker.state is OPEN


def test_a_higher_threshold_lets_the_streak_go_on(make: Make) -> None:
    breaker = make(failure_threshold=3)
    fail(breaker, 2)
    breaker.config = Config(failure_threshold=5)
    fail(breaker, 2)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


def test_the_streak_stays_though_the_window_starts_anew(make: Make) -> None:
    breaker = make(failure_threshold=3)
    fail(breaker, 2)
    breaker.config = Config(failure_threshold=3, error_rate_window=timedelta(seconds=60))
    assert breaker.snapshot().window_calls == 0
    fail(breaker)
    assert breaker.state is OPEN


def test_a_success_after_the_change_ends_the_streak(make: Make, way: Way) -> None:
    breaker = make(failure_threshold=3)
    fail(breaker, 2)
    breaker.config = Config(failure_threshold=3, error_rate_window=timedelta(seconds=60))
    way(breaker, int)
    fail(breaker, 2)
    assert breaker.state is CLOSED


def test_the_rule_of_the_streak_can_be_turned_off_and_on(make: Make) -> None:
    breaker = make(failure_threshold=3)
    fail(breaker, 2)
    breaker.config = Config(failure_threshold=None, error_rate_threshold=1.0)
    fail(breaker, 2)
    assert breaker.state is CLOSED
    breaker.config = Config(failure_threshold=3)
    fail(breaker)
    assert breaker.state is OPEN


# The window

MINUTE = timedelta(seconds=60)
ANEW = [(4, 5), (5, 4), (4, MINUTE), (MINUTE, 4), (MINUTE, timedelta(seconds=61))]
THE_SAME = [(4, 4), (MINUTE, timedelta(minutes=1))]


@pytest.mark.parametrize(("former", "window"), ANEW)
def test_a_window_of_another_kind_or_size_starts_anew(make: Make, former: Any, window: Any) -> None:
    breaker = make(failure_threshold=None, error_rate_threshold=0.5, error_rate_window=former, minimum_calls=4)
    succeed(breaker)
    fail(breaker, 2)
    breaker.config = Config(None, error_rate_threshold=0.5, error_rate_window=window, minimum_calls=4)
    snapshot = breaker.snapshot()
    assert (snapshot.window_calls, snapshot.window_failures, snapshot.error_rate) == (0, 0, 0.0)
    succeed(breaker, 2)
    fail(breaker)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


@pytest.mark.parametrize(("former", "window"), THE_SAME)
def test_a_window_of_the_same_kind_and_size_stays(make: Make, former: Any, window: Any) -> None:
    breaker = make(failure_threshold=None, error_rate_threshold=0.9, error_rate_window=former, minimum_calls=4)
    succeed(breaker)
    fail(breaker, 2)
    breaker.config = Config(None, error_rate_threshold=0.75, error_rate_window=window, minimum_calls=4)
    snapshot = breaker.snapshot()
    assert (snapshot.window_calls, snapshot.window_failures) == (3, 2)
    fail(breaker)
    assert breaker.state is OPEN


def test_a_window_of_calls_that_follows_one_of_time_counts_from_the_change(make: Make) -> None:
    breaker = make(error_rate_window=MINUTE)
    succeed(breaker, 5)
    fail(breaker)
    breaker.config = Config(error_rate_window=3)
    assert breaker.snapshot().window_calls == 0
    fail(breaker)
    succeed(breaker, 2)
    snapshot = breaker.snapshot()
    assert (snapshot.window_calls, snapshot.window_failures) == (3, 1)
    succeed(breaker)
    snapshot = breaker.snapshot()
    assert (snapshot.window_calls, snapshot.window_failures) == (3, 0)


def test_a_window_of_time_that_follows_one_of_calls_begins_now(make: Make, clock: Clock) -> None:
    breaker = make()
    fail(breaker)
    clock.advance(1000)
    breaker.config = Config(error_rate_window=MINUTE)
    succeed(breaker)
    fail(breaker)
    clock.advance(57)
    snapshot = breaker.snapshot()
    assert (snapshot.window_calls, snapshot.window_failures) == (2, 1)
    clock.advance(3)
    assert breaker.snapshot().window_calls == 0


def test_a_window_that_only_successes_have_filled_starts_anew_too(make: Make) -> None:
    breaker = make(error_rate_window=10)
    succeed(breaker, 5)
    assert breaker.snapshot().window_calls == 5
    breaker.config = Config(error_rate_window=20)
    assert breaker.snapshot().window_calls == 0
    succeed(breaker, 2)
    assert breaker.snapshot().window_calls == 2


def test_a_minimum_that_is_lower_counts_at_the_next_failure(make: Make) -> None:
    breaker = make(failure_threshold=None, error_rate_threshold=0.5)
    fail(breaker, 2)
    breaker.config = Config(None, error_rate_threshold=0.5, minimum_calls=3)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


# Slow calls


def test_calls_are_slow_by_the_new_duration_from_now_on(make: Make, clock: Clock, way: Way) -> None:
    breaker = make()
    way(breaker, lambda: clock.advance(2))
    breaker.config = Config(slow_call_duration_s=2, slow_call_rate_threshold=0.5, minimum_calls=2)
    assert breaker.stats.slow_count == 0
    way(breaker, lambda: clock.advance(2))
    assert breaker.stats.slow_count == 1
    assert breaker.state is OPEN


def test_a_call_is_slow_by_the_configuration_it_ends_under(make: Make, clock: Clock, way: Way) -> None:
    breaker = make()

    def body() -> None:
        breaker.config = Config(slow_call_duration_s=2)
        clock.advance(2)

    way(breaker, body)
    assert breaker.stats.slow_count == 1


# What counts as what


def test_a_call_in_flight_is_judged_by_the_configuration_it_ends_under(make: Make, way: Way) -> None:
    breaker = make()

    def body() -> None:
        breaker.config = Config(ignored_exceptions=Down)
        raise Down

    with pytest.raises(Down):
        way(breaker, body)
    assert (breaker.stats.failure_count, breaker.stats.ignored_count) == (0, 1)


@pytest.mark.parametrize(
    "wrap", [lambda breaker, func: breaker(func), lambda breaker, func: lambda: breaker.call(func)]
)
def test_values_in_flight_are_judged_by_the_configuration_they_end_under(
    make: Make, wrap: Callable[..., Callable[[], Any]]
) -> None:
    breaker = make()

    def body() -> str:
        breaker.config = Config(failure_result=lambda value: value == "bad")
        return "bad"

    assert wrap(breaker, body)() == "bad"
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (0, 1)
    breaker.config = Config()
    assert wrap(breaker, lambda: "bad")() == "bad"
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (1, 1)


# While open


def test_an_open_period_keeps_its_end(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, reset_timeout_s=30)
    fail(breaker)
    for reset_timeout_s in (0.0, 1000.0, lambda openings: 5.0):
        breaker.config = Config(1, reset_timeout_s=reset_timeout_s)
        assert breaker.snapshot().retry_after_s == 30.0
    clock.advance(30)
    assert breaker.state is HALF_OPEN
    fail(breaker)
    assert breaker.snapshot().retry_after_s == 5.0


def test_the_functions_of_the_configuration_that_opened_it_are_asked(make: Make) -> None:
    def former(openings: int) -> float:
        breaker.config = Config(1, reset_timeout_s=lambda openings: 1.0)
        return 12.0

    breaker = make(failure_threshold=1, reset_timeout_s=former)
    fail(breaker)
    assert breaker.snapshot().retry_after_s == 12.0


# While half-open


def half_opened(make: Make, clock: Clock, **more: Any) -> CircuitBreaker:
    breaker = make(failure_threshold=1, **more)
    fail(breaker)
    clock.advance(30)
    assert breaker.state is HALF_OPEN
    return breaker


def test_more_probes_may_be_out_at_once_or_fewer(make: Make, clock: Clock) -> None:
    breaker = half_opened(make, clock, half_open_max_calls=1)
    permits = [breaker.permit()]
    with pytest.raises(CircuitOpenError):
        breaker.permit()
    breaker.config = Config(half_open_max_calls=2)
    permits.append(breaker.permit())
    breaker.config = Config(half_open_max_calls=1)
    assert breaker.snapshot().probes_in_flight == 2
    permits.pop().ignore()
    with pytest.raises(CircuitOpenError):
        breaker.permit()
    permits.pop().ignore()
    breaker.permit()


def test_what_was_allowed_may_still_be_called_when_fewer_may_be_out(make: Make, clock: Clock) -> None:
    breaker = half_opened(make, clock, half_open_max_calls=2, success_threshold=2)
    assert breaker.allow_request()
    other = breaker.permit()
    breaker.config = Config(half_open_max_calls=1, success_threshold=2)
    succeed(breaker)
    with pytest.raises(CircuitOpenError):
        breaker.call(int)
    other.ignore()
    succeed(breaker)
    assert breaker.state is CLOSED


def test_fewer_successes_close_at_the_next_one(make: Make, clock: Clock) -> None:
    breaker = half_opened(make, clock, success_threshold=5)
    succeed(breaker, 3)
    breaker.config = Config(success_threshold=2)
    assert breaker.state is HALF_OPEN
    succeed(breaker)
    assert breaker.state is CLOSED


def test_fewer_failures_reopen_at_the_next_one(make: Make, clock: Clock) -> None:
    breaker = half_opened(make, clock, half_open_failure_threshold=5, success_threshold=3)
    fail(breaker, 2)
    breaker.config = Config(half_open_failure_threshold=2, success_threshold=3)
    succeed(breaker, 2)
    assert breaker.state is HALF_OPEN
    fail(breaker)
    assert breaker.state is OPEN


def test_fewer_successes_close_at_no_failure(make: Make, clock: Clock) -> None:
    breaker = half_opened(make, clock, half_open_failure_threshold=3, success_threshold=5)
    succeed(breaker, 3)
    breaker.config = Config(half_open_failure_threshold=3, success_threshold=2)
    fail(breaker)
    assert breaker.state is HALF_OPEN
    succeed(breaker)
    assert breaker.state is CLOSED


def test_more_successes_are_asked_for_from_now_on(make: Make, clock: Clock) -> None:
    breaker = half_opened(make, clock, success_threshold=2)
    succeed(breaker)
    breaker.config = Config(success_threshold=3)
    succeed(breaker)
    assert breaker.state is HALF_OPEN
    succeed(breaker)
    assert breaker.state is CLOSED


@pytest.mark.parametrize(("former_s", "timeout_s"), [(100, 10), (10, 100), (float("inf"), 10)])
def test_probes_that_are_out_are_overdue_by_the_new_time(
    make: Make, clock: Clock, former_s: float, timeout_s: float
) -> None:
    breaker = half_opened(make, clock, half_open_max_calls=1, half_open_timeout_s=former_s)
    breaker.permit()
    breaker.config = Config(half_open_max_calls=1, half_open_timeout_s=timeout_s)
    clock.advance(timeout_s - 1)
    assert not breaker.allow_request()
    clock.advance(1)
    assert breaker.allow_request()


# Threads


def test_each_outcome_counts_once_while_the_configuration_changes(make: Make) -> None:
    breaker = make(failure_threshold=None, error_rate_threshold=1.0)
    start = threading.Barrier(4)
    turns = 300

    @breaker
    def good() -> None:
        pass

    def use() -> None:
        start.wait(PATIENCE_S)
        for _ in range(turns):
            good()
            with breaker:
                pass
            breaker.record_failure(1)

    def change() -> None:
        start.wait(PATIENCE_S)
        for turn in range(turns):
            breaker.config = Config(
                None,
                error_rate_threshold=1.0,
                error_rate_window=timedelta(seconds=5) if turn % 3 else 1000 + turn,
                failure_result=None if turn % 2 else lambda value: value == "bad",
            )

    with ThreadPoolExecutor(4) as pool:
        for thread in [*(pool.submit(use) for _ in range(3)), pool.submit(change)]:
            thread.result(PATIENCE_S)
    stats = breaker.stats
    assert (stats.success_count, stats.failure_count, stats.total_latency_ms) == (6 * turns, 3 * turns, 3 * turns)
