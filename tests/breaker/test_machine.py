"""The state machine: which result leads to which state, what each state admits, and late results."""

from __future__ import annotations

import contextvars
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from types import FrameType
from typing import Any, NoReturn

import pytest
from calls import fail, succeed
from clocks import Clock
from failures import Down
from patience import PATIENCE_S
from ways import Way

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._breaker.permit import Permit
from circuit_breaker._breaker.states import Asker, Closed
from circuit_breaker._breaker.totals import CircuitStats
from circuit_breaker._common.words import CircuitMode, CircuitState
from circuit_breaker.exceptions import CircuitOpenError, UsageError

Make = Callable[..., CircuitBreaker]

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def tripped(make: Make, **settings: Any) -> CircuitBreaker:
    """Give a breaker that one failure has just opened."""
    breaker = make(**{"failure_threshold": 1, **settings})
    fail(breaker)
    return breaker


def probing(make: Make, clock: Clock, **settings: Any) -> CircuitBreaker:
    """Give a breaker that is half-open, with every permit to be had."""
    breaker = tripped(make, **{"reset_timeout_s": 30, **settings})
    clock.advance(30)
    assert breaker.state is HALF_OPEN
    return breaker


def refuses(breaker: CircuitBreaker) -> bool:
    try:
        breaker.permit().ignore()
    except CircuitOpenError:
        return True
    return False


def seconds_until_probing(breaker: CircuitBreaker, clock: Clock) -> float:
    """Let time pass, a quarter of a second at a time, until the circuit is half-open."""
    before = clock()
    while breaker.state is OPEN:
        clock.advance(0.25)
        assert clock() - before < 10_000
    return clock() - before


# Closed


def test_a_closed_circuit_admits_everybody(make: Make) -> None:
    breaker = make(half_open_max_calls=1)
    permits = [breaker.permit() for _ in range(100)]
    for permit in permits:
        permit.success()
    assert breaker.stats.success_count == 100


# Open


def test_an_open_circuit_rejects_until_its_time_is_over_and_not_a_moment_longer(make: Make, clock: Clock) -> None:
    breaker = tripped(make, reset_timeout_s=30)
    for _ in range(3):
        assert refuses(breaker)
    clock.advance(29.75)
    assert refuses(breaker)
    assert breaker.is_open
    clock.advance(0.25)
    assert not refuses(breaker)
    assert breaker.state is HALF_OPEN
    assert breaker.stats.rejected_count == 4


def test_rejected_calls_do_not_prolong_the_open_time(make: Make, clock: Clock) -> None:
    breaker = tripped(make, reset_timeout_s=30)
    for _ in range(30):
        assert refuses(breaker)
        clock.advance(1)
    assert breaker.state is HALF_OPEN


def test_a_hint_that_is_still_asked_for_does_not_replace_the_time_of_a_trip(make: Make, clock: Clock) -> None:
    def trip_meanwhile(error: object) -> None:
        breaker.trip(math.inf)

    breaker = make(failure_threshold=1, reset_timeout_s=30, retry_after=trip_meanwhile)
    fail(breaker)
    clock.advance(1_000)
    assert breaker.state is OPEN
    assert breaker.snapshot().retry_after_s == math.inf


def test_a_trip_starts_the_time_again_though_the_former_one_ends_meanwhile(make: Make, clock: Clock) -> None:
    def look_meanwhile(openings: int) -> float:
        clock.advance(2)
        return breaker.snapshot().retry_after_s or 60

    breaker = make(reset_timeout_s=look_meanwhile)
    breaker.trip(60)
    clock.advance(59)
    breaker.trip()
    assert breaker.state is OPEN
    assert breaker.stats.opened_count == 1


def test_a_trip_of_an_open_circuit_keeps_which_failure_opened_it(make: Make) -> None:
    breaker = tripped(make)
    breaker.trip(60)
    with pytest.raises(CircuitOpenError) as rejected:
        succeed(breaker)
    assert rejected.value.last_failure is not None
    assert rejected.value.last_failure.type == "Down"
    assert rejected.value.retry_after_s == 60


def test_failures_that_come_late_do_not_prolong_the_open_time(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, reset_timeout_s=30)
    late = [breaker.permit() for _ in range(3)]
    fail(breaker)
    for permit in late:
        clock.advance(9)
        permit.failure()
    clock.advance(3)
    assert breaker.state is HALF_OPEN


def test_a_reset_timeout_of_zero_probes_at_once(make: Make) -> None:
    breaker = tripped(make, reset_timeout_s=0)
    assert breaker.state is HALF_OPEN
    assert not refuses(breaker)
    assert breaker.stats.opened_count == 1


def test_an_endless_reset_timeout_ends_with_a_reset_only(make: Make, clock: Clock) -> None:
    breaker = tripped(make, reset_timeout_s=math.inf)
    clock.advance(1e12)
    assert breaker.is_open
    assert breaker.snapshot().retry_after_s == math.inf
    breaker.reset()
    assert breaker.is_closed
    succeed(breaker)


@pytest.mark.parametrize(
    "look",
    [
        lambda breaker: breaker.state,
        lambda breaker: breaker.is_open,
        lambda breaker: breaker.is_closed,
        lambda breaker: breaker.snapshot(),
        lambda breaker: breaker.allow_request(),
        lambda breaker: breaker.permit(),
        lambda breaker: breaker.call(int),
        lambda breaker: contextvars.Context().run(breaker.__enter__),
        lambda breaker: breaker.record_success(),
        lambda breaker: breaker.record_ignored(),
    ],
)
def test_the_first_look_after_its_time_ends_the_open_period(make: Make, clock: Clock, look: Any) -> None:
    events: list[Any] = []
    breaker = tripped(make, reset_timeout_s=30, listeners=[events.append])
    clock.advance(31)
    assert breaker._machine.period.state is OPEN
    look(breaker)
    assert breaker._machine.period.state is HALF_OPEN
    assert [event.new_state for event in events if hasattr(event, "new_state")] == [OPEN, HALF_OPEN]


def test_no_timer_and_no_thread_waits_for_the_time(make: Make) -> None:
    before = threading.active_count()
    tripped(make, reset_timeout_s=0.001)
    assert threading.active_count() == before


def test_a_record_of_failure_after_the_time_is_taken_for_that_of_a_probe(make: Make, clock: Clock) -> None:
    breaker = tripped(make, reset_timeout_s=30)
    clock.advance(30)
    breaker.record_failure()
    assert breaker.is_open
    assert breaker.stats.opened_count == 2


# How long it stays open


def test_a_reset_timeout_may_be_a_function_of_how_often_it_opened_in_a_row(make: Make, clock: Clock) -> None:
    asked: list[int] = []

    def growing(opened: int) -> float:
        asked.append(opened)
        return min(1.0 * 2**opened, 5.0)

    breaker = tripped(make, reset_timeout_s=growing, success_threshold=1)
    for wait_s in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert seconds_until_probing(breaker, clock) == wait_s
        fail(breaker)
    assert asked == [0, 1, 2, 3, 4, 5]
    assert seconds_until_probing(breaker, clock) == 5.0
    succeed(breaker)
    assert breaker.is_closed
    fail(breaker)
    assert seconds_until_probing(breaker, clock) == 1.0, "it was closed in between"
    assert asked[-1] == 0


@pytest.mark.parametrize("anew", [CircuitBreaker.reset, lambda breaker: setattr(breaker, "mode", CircuitMode.SHADOW)])
def test_the_count_of_openings_begins_anew_with_the_operator(make: Make, clock: Clock, anew: Any) -> None:
    asked: list[int] = []
    breaker = tripped(make, reset_timeout_s=lambda opened: asked.append(opened) or 1.0)
    clock.advance(1)
    fail(breaker)
    anew(breaker)
    fail(breaker)
    assert asked == [0, 1, 0]


@pytest.mark.parametrize("wait_s", [0, 0.25, 7, 100])
def test_the_answer_of_the_function_is_what_is_waited(make: Make, clock: Clock, wait_s: float) -> None:
    breaker = tripped(make, reset_timeout_s=lambda opened: wait_s)
    assert seconds_until_probing(breaker, clock) == wait_s


def test_the_function_may_say_for_ever(make: Make, clock: Clock) -> None:
    breaker = tripped(make, reset_timeout_s=lambda opened: math.inf)
    clock.advance(1e12)
    assert breaker.is_open


@pytest.mark.parametrize("nonsense", [None, "3", True, math.nan, -1, [3], -math.inf], ids=repr)
def test_a_function_that_gives_no_seconds_is_logged_and_30_are_taken(
    make: Make, clock: Clock, nonsense: Any, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = tripped(make, reset_timeout_s=lambda opened: nonsense)
    assert seconds_until_probing(breaker, clock) == 30.0
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "'api'" in line.getMessage()
    assert "reset_timeout_s" in line.getMessage()


def test_a_function_that_raises_is_logged_and_30_seconds_are_taken(
    make: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = tripped(make, reset_timeout_s=lambda opened: 1 / 0)
    assert seconds_until_probing(breaker, clock) == 30.0
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.exc_info is not None
    assert line.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize(
    ("wish", "wait_s"),
    [(None, 10.0), (0, 10.0), (9, 10.0), (11, 11.0), (60.5, 60.5), (61, 60.5), (math.inf, 60.5)],
)
def test_a_hint_of_the_server_prolongs_the_open_time_up_to_its_cap(
    make: Make, clock: Clock, caplog: pytest.LogCaptureFixture, wish: float | None, wait_s: float
) -> None:
    error = Down()
    heard: list[BaseException] = []

    def read(tripping: BaseException) -> float | None:
        heard.append(tripping)
        return wish

    breaker = make(failure_threshold=1, reset_timeout_s=10, retry_after=read, retry_after_max_s=60.5)
    fail(breaker, error=error)
    assert seconds_until_probing(breaker, clock) == wait_s
    assert heard == [error]
    assert not [record for record in caplog.records if record.levelno == logging.ERROR]


@pytest.mark.parametrize("nonsense", ["3", True, math.nan, -1, [3], object()], ids=repr)
def test_a_hint_that_is_not_seconds_is_logged_and_none(
    make: Make, clock: Clock, nonsense: Any, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = tripped(make, reset_timeout_s=10, retry_after=lambda error: nonsense)
    assert seconds_until_probing(breaker, clock) == 10.0
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "retry_after" in line.getMessage()


def test_a_hint_that_cannot_be_read_is_logged_and_none(
    make: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = tripped(make, reset_timeout_s=10, retry_after=lambda error: 1 / 0)
    assert seconds_until_probing(breaker, clock) == 10.0
    assert [record for record in caplog.records if record.levelno == logging.ERROR]


@pytest.mark.parametrize(("wish", "wait_s"), [(3, 5.0), (9, 9.0)])
def test_function_and_hint_together_take_the_longer(make: Make, clock: Clock, wish: float, wait_s: float) -> None:
    breaker = tripped(make, reset_timeout_s=lambda opened: 5.0, retry_after=lambda error: wish)
    assert seconds_until_probing(breaker, clock) == wait_s


def test_the_hint_of_a_failed_probe_counts_as_well(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, retry_after=lambda error: getattr(error, "wish", None))
    error = Down()
    error.wish = 50  # type: ignore[attr-defined]
    fail(breaker, error=error)
    assert seconds_until_probing(breaker, clock) == 50.0


def test_a_failure_without_an_exception_has_no_hint(make: Make, clock: Clock) -> None:
    def never(error: BaseException) -> NoReturn:
        raise AssertionError

    breaker = make(failure_threshold=1, reset_timeout_s=10, retry_after=never, failure_result=lambda value: True)
    succeed(breaker)
    assert breaker.is_open
    breaker.reset()
    breaker.record_failure()
    assert seconds_until_probing(breaker, clock) == 10.0


def test_the_circuit_is_open_while_the_function_thinks(make: Make, clock: Clock) -> None:
    seen: list[Any] = []

    def think(opened: int) -> float:
        seen.append((breaker.state, breaker.snapshot().retry_after_s, refuses(breaker)))
        clock.advance(29.75)
        seen.append((breaker.state, breaker.snapshot().retry_after_s, refuses(breaker)))
        return 40.0

    breaker = make(failure_threshold=1, reset_timeout_s=think)
    fail(breaker)
    assert seen == [(OPEN, 30.0, True), (OPEN, 0.25, True)]
    assert seconds_until_probing(breaker, clock) == 40 - 29.75, "it counts from the opening"


def test_while_the_hint_is_read_the_circuit_is_open_for_its_own_time(make: Make, clock: Clock) -> None:
    seen: list[Any] = []

    def read(error: BaseException) -> float:
        seen.append((breaker.state, breaker.snapshot().retry_after_s))
        return 40.0

    breaker = make(failure_threshold=1, reset_timeout_s=10, retry_after=read)
    fail(breaker)
    assert seen == [(OPEN, 10.0)]
    assert seconds_until_probing(breaker, clock) == 40.0


@pytest.mark.parametrize("setting", ["reset_timeout_s", "retry_after"])
def test_a_time_that_is_given_when_the_period_is_over_is_not_used(make: Make, clock: Clock, setting: str) -> None:
    seen: list[CircuitState] = []

    def think(_: object) -> float:
        clock.advance(30)
        seen.append(breaker.state)
        return 300.0

    breaker = make(failure_threshold=1, **{setting: think})
    fail(breaker)
    assert seen == [HALF_OPEN]
    assert breaker.state is HALF_OPEN
    assert not refuses(breaker)


def test_a_time_that_is_given_sets_the_end_of_its_own_period_only(make: Make, clock: Clock) -> None:
    def think(opened: int) -> float:
        if opened == 0:
            clock.advance(30)
            breaker.record_failure()
            return 300.0
        return 7.0

    breaker = make(failure_threshold=1, reset_timeout_s=think)
    fail(breaker)
    assert breaker.stats.opened_count == 2
    assert seconds_until_probing(breaker, clock) == 7.0


@pytest.mark.parametrize("setting", ["reset_timeout_s", "retry_after"])
def test_an_interrupt_in_such_a_function_leaves_the_provisional_time(make: Make, clock: Clock, setting: str) -> None:
    def interrupted(_: object) -> NoReturn:
        raise KeyboardInterrupt

    breaker = make(failure_threshold=1, **{setting: interrupted})
    permit = breaker.permit()
    with pytest.raises(KeyboardInterrupt):
        permit.failure(Down())
    assert breaker.stats.failure_count == 1
    assert seconds_until_probing(breaker, clock) == 30.0


# Half-open


def test_half_open_has_a_fixed_number_of_probe_slots_and_rejects_the_rest(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=2)
    first, second = breaker.permit(), breaker.permit()
    assert breaker.snapshot().probes_in_flight == 2
    with pytest.raises(CircuitOpenError) as raised:
        breaker.permit()
    assert raised.value.state is HALF_OPEN
    assert raised.value.retry_after_s is None
    first.success()
    third = breaker.permit()
    assert refuses(breaker)
    second.ignore()
    third.ignore()
    assert breaker.snapshot().probes_in_flight == 0


@pytest.mark.parametrize("permits", [1, 2, 10])
@pytest.mark.parametrize("needed", [1, 3, 7])
def test_enough_successes_close_the_circuit_with_any_number_of_probe_slots(
    make: Make, clock: Clock, permits: int, needed: int
) -> None:
    breaker = probing(make, clock, half_open_max_calls=permits, success_threshold=needed)
    for _ in range(needed):
        assert breaker.state is HALF_OPEN
        succeed(breaker)
    assert breaker.is_closed


def test_the_first_failure_of_a_probe_reopens_for_the_whole_time(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, success_threshold=3)
    succeed(breaker, 2)
    clock.advance(5)
    fail(breaker)
    assert breaker.is_open
    assert seconds_until_probing(breaker, clock) == 30.0
    succeed(breaker, 2)
    assert breaker.state is HALF_OPEN, "the successes of the period before are forgotten"


def test_one_failed_probe_reopens_though_the_threshold_is_higher(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=5)
    fail(breaker, 5)
    clock.advance(30)
    fail(breaker)
    assert breaker.is_open


def test_an_ignored_probe_gives_its_slot_back_and_says_nothing(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, success_threshold=1)
    for _ in range(10):
        fail(breaker, error=KeyboardInterrupt())
        assert breaker.state is HALF_OPEN
    assert breaker.stats.ignored_count == 10
    succeed(breaker)
    assert breaker.is_closed


def test_a_slow_probe_reopens_if_there_is_a_rule_on_slow_calls(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, slow_call_duration_s=2, slow_call_rate_threshold=1)
    breaker.call(clock.advance, 1.75)
    assert breaker.state is HALF_OPEN
    breaker.call(clock.advance, 2.0)
    assert breaker.is_open
    assert (breaker.stats.success_count, breaker.stats.slow_count) == (2, 1)


def test_a_slow_call_that_rides_leaves_the_verdict_to_the_probe_around_it(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, slow_call_duration_s=2, slow_call_rate_threshold=1)
    with breaker:
        with breaker:
            clock.advance(2)
        assert breaker.state is HALF_OPEN
    assert breaker.state is OPEN


def test_a_slow_probe_is_a_success_without_such_a_rule(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, slow_call_duration_s=2, success_threshold=1)
    breaker.call(clock.advance, 2.0)
    assert breaker.is_closed


def test_an_ignored_probe_is_never_slow(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, slow_call_duration_s=2, slow_call_rate_threshold=1)
    permit = breaker.permit()
    clock.advance(5)
    permit.ignore()
    assert breaker.state is HALF_OPEN
    assert breaker.stats.slow_count == 0


def test_a_fresh_streak_is_needed_after_the_circuit_has_closed(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=3, success_threshold=1)
    fail(breaker, 3)
    clock.advance(30)
    succeed(breaker)
    fail(breaker, 2)
    assert breaker.is_closed
    fail(breaker)
    assert breaker.is_open


# Overdue probes


def test_a_probe_without_a_result_is_overdue_at_its_time_and_not_before(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, half_open_timeout_s=20)
    lost = breaker.permit()
    clock.advance(19.75)
    assert refuses(breaker)
    assert breaker.snapshot().probes_in_flight == 1
    clock.advance(0.25)
    assert breaker.snapshot().probes_in_flight == 0
    assert not refuses(breaker)
    del lost


@pytest.mark.parametrize("since", [0.1, 0.7, 1000.3, 12345.6789])
@pytest.mark.parametrize("timeout_s", [0.1, 0.3, 1.1, 29.9])
def test_after_exactly_its_time_a_probe_is_overdue_however_the_floats_round(
    make: Make, clock: Clock, since: float, timeout_s: float
) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, half_open_timeout_s=timeout_s)
    clock.now = since + 10_000
    breaker.permit()
    clock.advance(timeout_s)
    assert not refuses(breaker)


def test_each_probe_is_overdue_by_its_own_time(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=3, half_open_timeout_s=20)
    in_flight = []
    for _ in range(3):
        breaker.permit()
        clock.advance(8)
        in_flight.append(breaker.snapshot().probes_in_flight)
    for _ in range(3):
        clock.advance(8)
        in_flight.append(breaker.snapshot().probes_in_flight)
    assert in_flight == [1, 2, 2, 1, 0, 0]


def test_with_an_endless_time_no_probe_is_overdue(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, half_open_timeout_s=math.inf)
    permit = breaker.permit()
    clock.advance(1e12)
    assert refuses(breaker)
    permit.ignore()
    assert not refuses(breaker)


@pytest.mark.parametrize(("answer", "state"), [("success", CLOSED), ("failure", OPEN), ("ignore", HALF_OPEN)])
def test_the_result_of_an_overdue_probe_counts_while_its_period_lasts(
    make: Make, clock: Clock, answer: str, state: CircuitState
) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, success_threshold=1, half_open_timeout_s=20)
    overdue = breaker.permit()
    clock.advance(20)
    breaker.permit()
    getattr(overdue, answer)()
    assert breaker.state is state


def test_the_slot_of_an_overdue_probe_is_not_given_back_twice(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, success_threshold=9, half_open_timeout_s=20)
    overdue = breaker.permit()
    clock.advance(20)
    present = breaker.permit()
    overdue.success()
    assert refuses(breaker), "the present probe still has the only permit"
    present.success()
    assert not refuses(breaker)


def test_lost_probes_block_nothing_however_many(make: Make, clock: Clock) -> None:
    def enter() -> CircuitBreaker:
        return contextvars.Context().run(breaker.__enter__)

    breaker = probing(make, clock, half_open_max_calls=3, success_threshold=3, half_open_timeout_s=20)
    for _ in range(50):
        for take in (breaker.permit, breaker.allow_request, enter):
            assert take()
        assert refuses(breaker)
        clock.advance(20)
    succeed(breaker, 3)
    assert breaker.is_closed


# Late answers


ANSWERS = ["success", "failure", "ignore"]
COUNTED = {"success": "success_count", "failure": "failure_count", "ignore": "ignored_count"}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("state", [OPEN, HALF_OPEN, CLOSED])
def test_the_late_result_of_a_call_counts_in_the_totals_only(
    make: Make, clock: Clock, answer: str, state: CircuitState
) -> None:
    breaker = make(failure_threshold=1, success_threshold=1, half_open_max_calls=1)
    late = breaker.permit()
    fail(breaker)
    clock.advance(0 if state is OPEN else 30)
    if state is CLOSED:
        succeed(breaker)
    assert breaker.state is state
    before = getattr(breaker.stats, COUNTED[answer])
    window = breaker.snapshot().window_calls
    getattr(late, answer)()
    assert breaker.state is state
    assert getattr(breaker.stats, COUNTED[answer]) == before + 1
    assert breaker.snapshot().window_calls == window


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("overdue", [False, True])
def test_the_result_of_a_probe_from_an_earlier_period_gives_back_no_slot_of_this_one(
    make: Make, clock: Clock, answer: str, overdue: bool
) -> None:
    breaker = probing(make, clock, half_open_max_calls=2, success_threshold=1, half_open_timeout_s=20)
    late = breaker.permit()
    fail(breaker)
    clock.advance(50 if overdue else 30)
    assert breaker.state is HALF_OPEN
    present = [breaker.permit(), breaker.permit()]
    getattr(late, answer)()
    assert breaker.state is HALF_OPEN
    assert refuses(breaker)
    assert breaker.snapshot().probes_in_flight == 2
    present[0].success()
    assert breaker.is_closed


def test_late_failures_leave_the_streak_of_the_present_period_unchanged(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=2, success_threshold=1)
    late = [breaker.permit() for _ in range(5)]
    fail(breaker, 2)
    clock.advance(30)
    succeed(breaker)
    for permit in late:
        permit.failure()
    assert breaker.is_closed
    assert breaker.stats.consecutive_failures == 0
    fail(breaker)
    assert breaker.is_closed
    late_success = breaker.permit()
    late_success.success()
    assert breaker.stats.consecutive_failures == 0


def test_a_late_success_leaves_the_streak_of_the_present_period_unchanged(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=2, success_threshold=1)
    late = breaker.permit()
    fail(breaker, 2)
    clock.advance(30)
    succeed(breaker)
    fail(breaker)
    late.success()
    fail(breaker)
    assert breaker.is_open


def test_what_was_admitted_before_a_reset_is_late_after_it(make: Make) -> None:
    breaker = make(failure_threshold=1)
    late = breaker.permit()
    breaker.reset()
    late.failure()
    assert breaker.is_closed
    assert breaker.stats.failure_count == 1


def test_a_call_of_a_decorated_function_that_ends_late_counts_in_the_totals_only(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1)

    @breaker
    def overtaken() -> None:
        fail(breaker)
        clock.advance(30)
        assert breaker.state is HALF_OPEN

    for _ in range(3):
        breaker.reset()
        overtaken()
        assert breaker.state is HALF_OPEN
        assert (breaker.stats.success_count, breaker.stats.failure_count) == (1, 1)


def test_a_late_failure_of_a_decorated_function_adds_nothing_to_the_present_period(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=3, success_threshold=1)

    @breaker
    def overtaken() -> NoReturn:
        fail(breaker, 3)
        clock.advance(30)
        succeed(breaker)
        fail(breaker)
        raise Down

    with pytest.raises(Down):
        overtaken()
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.window_calls, snapshot.window_failures) == (CLOSED, 1, 1)
    assert (snapshot.stats.failure_count, snapshot.stats.consecutive_failures) == (5, 1)


def test_the_last_success_keeps_its_time_whatever_period_is_left(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1)
    succeed(breaker)
    at = breaker.stats.last_success_time
    assert at is not None
    clock.advance(60)
    fail(breaker)
    assert breaker.stats.last_success_time == at


def test_a_change_that_comes_in_as_an_outcome_is_counted_makes_it_late(make: Make) -> None:
    breaker = make(failure_threshold=2)

    def visit(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code is Closed.settle.__code__:
            sys.setprofile(None)
            breaker.reset()

    sys.setprofile(visit)
    try:
        breaker.record_failure()
    finally:
        sys.setprofile(None)
    snapshot = breaker.snapshot()
    assert (snapshot.stats.failure_count, snapshot.window_failures, snapshot.stats.consecutive_failures) == (1, 0, 0)


def test_totals_that_begin_anew_in_the_middle_of_a_period_leave_its_latencies_out(make: Make, clock: Clock) -> None:
    breaker = make()
    breaker(lambda: clock.advance(2))()
    assert breaker.stats.total_latency_ms == 2_000
    breaker.stats.reset()
    assert breaker.stats.total_latency_ms == 0
    breaker(lambda: clock.advance(3))()
    assert breaker.stats.total_latency_ms == 3_000


@pytest.mark.parametrize("error", [None, Down()], ids=["success", "failure"])
def test_a_latency_is_in_the_totals_once_whatever_period_is_left(
    make: Make, clock: Clock, error: Exception | None
) -> None:
    breaker = make(failure_threshold=4)

    @breaker
    def lasting() -> None:
        clock.advance(2)
        if error is not None:
            raise error

    fail(breaker)
    for _ in range(2):
        try:
            lasting()
        except Down:
            pass
    assert breaker.stats.total_latency_ms == 4_000
    breaker.mode = CircuitMode.FORCED_CLOSED
    assert breaker.stats.total_latency_ms == 4_000
    breaker.stats.reset()
    assert breaker.stats.total_latency_ms == 0


# Riding


def test_a_probe_after_a_block_that_is_over_is_inside_of_nothing(make: Make, clock: Clock) -> None:
    with make("another"):
        pass
    breaker = probing(make, clock, success_threshold=1)
    succeed(breaker)
    assert breaker.is_closed


def test_calls_inside_a_probe_take_no_slot(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, success_threshold=2)

    def nested(depth: int) -> int:
        assert breaker.snapshot().probes_in_flight == 1
        if depth:
            return breaker.call(nested, depth - 1) + 1
        with breaker:
            return breaker(lambda: 0)()

    assert breaker.call(nested, 5) == 5
    assert breaker.stats.success_count == 8
    assert breaker.state is HALF_OPEN, "the outermost alone is one success of two"
    assert breaker.snapshot().probes_in_flight == 0
    succeed(breaker)
    assert breaker.is_closed


@pytest.mark.parametrize(
    "outer",
    [
        lambda breaker: breaker,
        lambda breaker: breaker.permit(),
    ],
    ids=["block", "permit"],
)
def test_a_failure_that_rides_reopens_at_once_and_the_outer_success_is_late(
    make: Make, clock: Clock, outer: Any
) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, success_threshold=1)
    with outer(breaker):
        fail(breaker)
        assert breaker.is_open
        assert refuses(breaker)
        with pytest.raises(CircuitOpenError):
            succeed(breaker)
    assert breaker.is_open
    assert breaker.stats.success_count == 1


def test_an_outer_failure_after_a_success_that_rides_reopens(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, success_threshold=1)
    with pytest.raises(Down), breaker:
        succeed(breaker)
        assert breaker.state is HALF_OPEN
        raise Down
    assert breaker.is_open


def test_what_rides_and_is_ignored_gives_nothing_back(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1)
    with breaker:
        fail(breaker, error=KeyboardInterrupt())
        assert breaker.snapshot().probes_in_flight == 1
        assert refuses(breaker)
    assert breaker.snapshot().probes_in_flight == 0


def test_allow_request_and_permit_inside_a_probe_need_a_slot_of_their_own(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=2)
    with breaker:
        assert breaker.allow_request()
        assert not breaker.allow_request()
        assert refuses(breaker)


def test_a_copy_of_the_context_rides_and_a_thread_of_its_own_does_not(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1)
    refused: list[bool] = []

    def call() -> None:
        try:
            succeed(breaker)
            refused.append(False)
        except CircuitOpenError:
            refused.append(True)

    with breaker:
        contextvars.copy_context().run(call)
        contextvars.Context().run(call)
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(PATIENCE_S)
    assert refused == [False, True, True]


def test_nothing_rides_on_a_probe_that_is_settled_or_of_an_earlier_period(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, success_threshold=9)
    with breaker.permit() as settled:
        settled.success()
        other = breaker.permit()
        with pytest.raises(CircuitOpenError):
            succeed(breaker)
        other.ignore()
    with breaker:
        fail(breaker)
        clock.advance(30)
        present = breaker.permit()
        with pytest.raises(CircuitOpenError):
            succeed(breaker)
        present.ignore()


def test_a_probe_of_this_period_is_found_through_one_of_an_earlier_period(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1)
    earlier = breaker.permit()
    clock.advance(30)
    breaker.record_failure()
    clock.advance(30)
    with breaker.permit(), earlier:
        succeed(breaker)
    assert breaker.stats.rejected_count == 0


def test_nothing_rides_on_a_call_from_before_the_trip(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=1, success_threshold=1)
    with breaker, breaker.permit():
        fail(breaker)
        clock.advance(30)
        taken = breaker.permit()
        with pytest.raises(CircuitOpenError):
            succeed(breaker)
        taken.ignore()
        succeed(breaker)
        assert breaker.is_closed
    assert breaker.stats.success_count == 3


def test_nothing_rides_on_the_probe_of_another_breaker(make: Make, clock: Clock) -> None:
    one = probing(make, clock, half_open_max_calls=1)
    other = probing(make, clock, half_open_max_calls=1)
    taken = other.permit()
    with one, pytest.raises(CircuitOpenError):
        succeed(other)
    taken.ignore()


# Anonymous permits and records


def test_a_record_gives_back_the_slot_of_allow_request(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=2, success_threshold=9)
    assert [breaker.allow_request() for _ in range(3)] == [True, True, False]
    breaker.record_success()
    assert breaker.allow_request()
    breaker.record_ignored()
    assert breaker.allow_request()
    assert not breaker.allow_request()
    assert breaker.snapshot().probes_in_flight == 2


def test_records_settle_anonymous_slots_oldest_first_and_no_other(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=3, success_threshold=9, half_open_timeout_s=20)
    permit = breaker.permit()
    assert breaker.allow_request()
    clock.advance(8)
    assert breaker.allow_request()
    breaker.record_ignored()
    clock.advance(12)  # the permit is overdue now, and so is the anonymous one of the same time
    assert breaker.snapshot().probes_in_flight == 1
    breaker.record_ignored()
    assert breaker.snapshot().probes_in_flight == 0
    permit.ignore()


def test_records_without_a_permit_count_toward_the_half_open_period(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, success_threshold=2)
    permit = breaker.permit()
    breaker.record_success()
    breaker.record_ignored()
    assert breaker.state is HALF_OPEN
    assert breaker.snapshot().probes_in_flight == 1, "that of the permit is not theirs to give back"
    breaker.record_success()
    assert breaker.is_closed
    permit.ignore()


def test_a_record_of_failure_without_a_permit_reopens(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock)
    breaker.record_failure()
    assert breaker.is_open


def test_an_overdue_anonymous_slot_is_not_given_back_again(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, success_threshold=9, half_open_timeout_s=20)
    assert breaker.allow_request()
    clock.advance(20)
    permit = breaker.permit()
    breaker.record_success()
    assert refuses(breaker)
    permit.success()
    assert breaker.allow_request()


def test_records_while_open_count_in_the_totals_only(make: Make, clock: Clock) -> None:
    breaker = tripped(make)
    breaker.record_success()
    breaker.record_failure()
    breaker.record_ignored()
    assert breaker.is_open
    stats = breaker.stats
    assert (stats.success_count, stats.failure_count, stats.ignored_count, stats.opened_count) == (1, 2, 1, 1)
    assert seconds_until_probing(breaker, clock) == 30.0


def test_records_in_a_closed_circuit_trip_and_break_the_streak_like_calls(make: Make) -> None:
    breaker = make(failure_threshold=3)
    for record in (breaker.record_failure, breaker.record_failure, breaker.record_success, breaker.record_failure):
        record()
    fail(breaker)
    breaker.record_ignored()
    assert breaker.is_closed
    breaker.record_failure()
    assert breaker.is_open


def test_a_record_gives_back_the_slot_that_is_not_overdue(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=2, half_open_timeout_s=10, success_threshold=9)
    assert breaker.allow_request()
    clock.advance(10)
    assert breaker.allow_request()
    breaker.record_success()
    assert breaker.snapshot().probes_in_flight == 0


def test_a_permit_that_a_listener_kept_from_its_caller_takes_no_record(make: Make, clock: Clock) -> None:
    def leave(event: object) -> NoReturn:
        raise SystemExit

    breaker = tripped(make, success_threshold=1, half_open_max_calls=1)
    clock.advance(30)
    breaker.add_listener(leave)
    with pytest.raises(SystemExit):
        breaker.allow_request()
    breaker.remove_listener(leave)
    assert breaker.allow_request()
    breaker.record_success()
    assert breaker.is_closed


def test_allow_request_admits_all_while_closed_and_none_while_open(make: Make) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=1)
    assert all(breaker.allow_request() for _ in range(10))
    fail(breaker)
    assert not any(breaker.allow_request() for _ in range(10))
    assert breaker.stats.rejected_count == 10


def test_every_anonymous_slot_comes_back_however_many_are_out(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=2_000, success_threshold=9_000, half_open_timeout_s=math.inf)
    assert all(breaker.allow_request() for _ in range(1_500))
    for _ in range(1_500):
        breaker.record_success()
    assert breaker.snapshot().probes_in_flight == 0


def test_what_shadow_admits_by_hand_is_remembered_a_thousand_times_and_no_more(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, success_threshold=9_000, half_open_max_calls=1, half_open_timeout_s=math.inf)
    breaker.mode = CircuitMode.SHADOW
    fail(breaker)
    clock.advance(30)
    for _ in range(1_500):
        assert breaker.allow_request()
    period: Any = breaker._machine.period
    assert len(period.book.anonymous) == 1_000


@pytest.mark.parametrize("seconds", [2.007, 2.011, 0.1, 0.3, 7.0])
def test_a_call_of_exactly_the_slow_duration_is_slow_in_seconds_and_in_milliseconds(make: Make, seconds: float) -> None:
    breaker = make(slow_call_duration_s=seconds)
    breaker.record_success(round(seconds * 1_000))
    assert breaker.stats.slow_count == 1


# Another configuration while it runs


def other(breaker: CircuitBreaker, **settings: Any) -> None:
    breaker.config = replace(breaker.config, **settings)


def test_a_lower_threshold_trips_at_the_next_failure_because_the_streak_stays(make: Make) -> None:
    breaker = make(failure_threshold=10)
    fail(breaker, 5)
    other(breaker, failure_threshold=3)
    assert breaker.is_closed
    fail(breaker)
    assert breaker.is_open


def test_a_lower_threshold_does_not_trip_in_the_middle_of_successes(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=10, slow_call_duration_s=1)
    fail(breaker, 5)
    other(breaker, failure_threshold=3)
    breaker.call(clock.advance, 1)
    succeed(breaker)
    assert breaker.is_closed
    fail(breaker, 2)
    assert breaker.is_closed


def test_the_streak_stays_when_the_window_begins_anew(make: Make) -> None:
    breaker = make(failure_threshold=3)
    fail(breaker, 2)
    other(breaker, error_rate_window=7)
    fail(breaker)
    assert breaker.is_open


WINDOWS = [100, 50, timedelta(seconds=60), timedelta(seconds=30)]


@pytest.mark.parametrize("new", WINDOWS, ids=str)
@pytest.mark.parametrize("old", WINDOWS, ids=str)
@pytest.mark.parametrize("bad", [0, 2])
def test_the_window_begins_anew_if_its_kind_or_size_changed_and_only_then(
    make: Make, old: Any, new: Any, bad: int
) -> None:
    breaker = make(error_rate_window=old)
    succeed(breaker, 3)
    fail(breaker, bad)
    other(breaker, error_rate_window=new, minimum_calls=5)
    held = breaker.snapshot()
    assert (held.window_calls, held.window_failures) == ((3 + bad, bad) if new == old else (0, 0))
    succeed(breaker)
    fail(breaker)
    held = breaker.snapshot()
    assert (held.window_calls, held.window_failures) == ((5 + bad, bad + 1) if new == old else (2, 1))
    assert breaker.stats.success_count == 4


def test_a_changed_rate_applies_to_what_the_window_holds(make: Make) -> None:
    breaker = make(failure_threshold=100)
    fail(breaker, 4)
    other(breaker, error_rate_threshold=1.0, minimum_calls=5)
    fail(breaker)
    assert breaker.is_open


def test_a_changed_duration_applies_at_once(make: Make, clock: Clock) -> None:
    breaker = make()
    guarded = breaker(clock.advance)
    guarded(5)
    other(breaker, slow_call_duration_s=5)
    guarded(5)
    other(breaker, slow_call_duration_s=6)
    guarded(5)
    assert breaker.stats.slow_count == 1


def test_a_changed_failure_result_applies_at_once(make: Make) -> None:
    breaker = make()
    guarded = breaker(lambda: 0)
    guarded()
    other(breaker, failure_result=lambda value: value == 0)
    guarded()
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (1, 1)


def test_an_open_period_keeps_its_end(make: Make, clock: Clock) -> None:
    breaker = tripped(make, reset_timeout_s=30)
    other(breaker, reset_timeout_s=5)
    assert seconds_until_probing(breaker, clock) == 30.0
    fail(breaker)
    assert seconds_until_probing(breaker, clock) == 5.0


def test_changed_numbers_apply_to_the_present_half_open_period(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, success_threshold=9)
    first = breaker.permit()
    assert refuses(breaker)
    other(breaker, half_open_max_calls=2)
    second = breaker.permit()
    other(breaker, half_open_max_calls=1, success_threshold=2)
    first.success()
    assert refuses(breaker)
    second.success()
    assert breaker.is_closed


def test_a_shorter_time_for_probes_applies_to_those_that_are_out(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=1, half_open_timeout_s=math.inf)
    breaker.permit()
    clock.advance(100)
    assert refuses(breaker)
    other(breaker, half_open_timeout_s=100)
    assert not refuses(breaker)


def test_calls_that_are_out_while_the_configuration_changes_still_count(make: Make) -> None:
    breaker = make(failure_threshold=2)
    permits = [breaker.permit(), breaker.permit()]
    other(breaker, success_threshold=1)
    for permit in permits:
        permit.failure()
    assert breaker.is_open


# Modes, as far as they admit


def test_forced_open_rejects_everybody_and_knows_no_end(make: Make, clock: Clock) -> None:
    breaker = make(mode=CircuitMode.FORCED_OPEN, reset_timeout_s=0)
    clock.advance(1e9)
    with pytest.raises(CircuitOpenError) as raised:
        succeed(breaker)
    assert raised.value.retry_after_s is None
    assert breaker.is_open
    assert not breaker.allow_request()


def test_forced_closed_admits_counts_and_never_trips(make: Make) -> None:
    breaker = make(mode=CircuitMode.FORCED_CLOSED, failure_threshold=1, error_rate_threshold=0.1, error_rate_window=1)
    fail(breaker, 10)
    assert breaker.is_closed
    assert breaker.allow_request()
    assert (breaker.stats.failure_count, breaker.stats.consecutive_failures) == (10, 10)


def test_shadow_runs_the_machine_and_rejects_nobody(make: Make, clock: Clock) -> None:
    breaker = make(mode=CircuitMode.SHADOW, failure_threshold=1, half_open_max_calls=1, success_threshold=1)
    fail(breaker)
    assert breaker.is_closed
    assert breaker.snapshot().machine_state is OPEN
    succeed(breaker)
    assert breaker.snapshot().machine_state is OPEN
    clock.advance(30)
    probe, beyond = breaker.permit(), breaker.permit()
    beyond.success()
    assert breaker.snapshot().machine_state is HALF_OPEN, "what would have been refused counts in the totals alone"
    probe.success()
    assert breaker.snapshot().machine_state is CLOSED
    assert (breaker.stats.shadow_rejected_count, breaker.stats.rejected_count) == (2, 0)


def test_anonymous_records_in_shadow_keep_those_apart_that_would_have_been_rejected(make: Make, clock: Clock) -> None:
    breaker = make(mode=CircuitMode.SHADOW, failure_threshold=1, half_open_max_calls=1, success_threshold=3)
    fail(breaker)
    clock.advance(30)
    assert breaker.allow_request()
    assert breaker.allow_request()
    breaker.record_success()
    breaker.record_failure()
    assert breaker.snapshot().machine_state is HALF_OPEN


def test_setting_a_mode_begins_a_fresh_period_and_setting_the_same_changes_nothing(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=2)
    fail(breaker)
    breaker.mode = CircuitMode.AUTO
    fail(breaker)
    assert breaker.is_open
    breaker.mode = CircuitMode.FORCED_CLOSED
    assert breaker.is_closed
    breaker.mode = CircuitMode.AUTO
    assert breaker.is_closed
    fail(breaker)
    assert breaker.is_closed
    assert breaker.stats.failure_count == 3


def test_reset_is_auto_closed_and_zero(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, mode=CircuitMode.AUTO)
    breaker.permit()
    breaker.mode = CircuitMode.FORCED_OPEN
    assert refuses(breaker)
    breaker.reset()
    assert breaker.mode is CircuitMode.AUTO
    assert breaker.is_closed
    assert breaker.stats == CircuitStats()
    held = breaker.snapshot()
    assert (held.window_calls, held.probes_in_flight, held.retry_after_s) == (0, 0, 0.0)


# Time


def test_the_wall_clock_decides_nothing(make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = tripped(make, reset_timeout_s=30, error_rate_window=timedelta(seconds=30))
    for wall in (-1e9, 0.0, 1e12):
        monkeypatch.setattr(time, "time", lambda wall=wall: wall)
        assert breaker.is_open
        assert refuses(breaker)
    clock.advance(30)
    assert breaker.state is HALF_OPEN


def test_a_monotonic_clock_that_steps_back_closes_nothing_and_blocks_nothing(make: Make, clock: Clock) -> None:
    breaker = tripped(make, reset_timeout_s=30)
    clock.advance(-500)
    assert breaker.is_open
    clock.advance(530)
    assert breaker.state is HALF_OPEN


# The caller's code


def test_all_of_the_callers_code_runs_outside_the_lock(clock: Clock) -> None:
    ran: set[tuple[str, bool]] = set()
    made: list[CircuitBreaker] = []

    def runs(what: str) -> None:
        if made:
            ran.add((what, made[0]._machine.lock._is_owned()))  # type: ignore[attr-defined]

    def give(what: str, value: Any) -> Callable[..., Any]:
        def function(*_: object) -> Any:
            runs(what)
            return value

        return function

    def ticking() -> float:
        runs("clock")
        return clock()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            runs("log")

    class Text(Down):
        def __str__(self) -> str:
            runs("str")
            return ""

    settings = {
        "reset_timeout_s": 1.0,
        "retry_after": 1.0,
        "failure_exceptions": True,
        "ignored_exceptions": False,
        "failure_result": False,
    }
    functions: dict[str, Any] = {name: give(name, value) for name, value in settings.items()}
    config = CircuitBreakerConfig(failure_threshold=1, **functions)
    made.append(CircuitBreaker("api", config, listeners=[give("listener", None)], clock=ticking))
    logger, handler = logging.getLogger("circuit_breaker"), Handler()
    logger.addHandler(handler)
    try:
        made[0].call(give("call", None))
        fail(made[0], error=Text())
        assert refuses(made[0])
        clock.advance(1)
        with made[0]:
            pass
        made[0].record_success()
        made[0].allow_request()
        made[0].config = config
        made[0].mode = CircuitMode.SHADOW
        made[0].reset()
        made[0].snapshot()
        assert made[0].stats.success_count == 0
    finally:
        logger.removeHandler(handler)
    assert ran == {(what, False) for what in (*settings, "listener", "clock", "call", "log", "str")}


def test_another_thread_may_use_the_breaker_while_a_listener_or_a_function_of_the_caller_runs(
    make: Make, clock: Clock
) -> None:
    states: list[Any] = []

    def from_another_thread(*_: object) -> float:
        thread = threading.Thread(target=lambda: states.append(breaker.state), daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        return 1.0

    breaker = make(failure_threshold=1, reset_timeout_s=from_another_thread, listeners=[from_another_thread])
    fail(breaker)
    assert states == [OPEN] * len(states) != []


def test_permits_are_what_they_are_called() -> None:
    assert isinstance(CircuitBreaker().permit(), Permit)


# What an idle machine does without


def test_taking_back_an_admission_that_took_no_permit_changes_nothing(make: Make) -> None:
    breaker = make()
    breaker._admit(Asker.CALL).withdraw(breaker._machine)
    assert breaker.snapshot().to_dict() == make().snapshot().to_dict()


def test_the_longest_hint_in_a_group_counts(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, reset_timeout_s=5.0, retry_after=lambda error: error.args[0])
    fail(breaker, 1, ExceptionGroup("all", [ExceptionGroup("some", [OSError(7), OSError(9)]), OSError(8)]))
    assert breaker.snapshot().retry_after_s == 9.0


def test_a_hint_in_a_group_that_cannot_be_read_hides_no_other(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, reset_timeout_s=5.0, retry_after=lambda error: error.args[0])
    fail(breaker, 1, ExceptionGroup("all", [OSError("soon"), OSError(9), OSError()]))
    assert breaker.snapshot().retry_after_s == 9.0


def test_a_clock_of_decimals_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"^clock must be"):
        CircuitBreaker(clock=lambda: Decimal(1))  # type: ignore[arg-type, return-value]


# Opening by hand


def test_a_circuit_that_is_opened_by_hand_rejects_and_probes_like_any_other(make: Make, clock: Clock, way: Way) -> None:
    events: list[Any] = []
    breaker = make(success_threshold=1, listeners=[events.append])
    breaker.trip()
    assert (events[0].new_state, events[0].reason) == (OPEN, "by hand")
    with pytest.raises(CircuitOpenError) as raised:
        way(breaker, int)
    assert (raised.value.retry_after_s, raised.value.last_failure) == (30.0, None)
    assert breaker.stats.opened_count == 1
    clock.advance(30)
    way(breaker, int)
    assert breaker.is_closed


def test_a_circuit_is_opened_by_hand_for_the_time_that_is_given(make: Make, clock: Clock) -> None:
    breaker = make()
    breaker.trip(timedelta(minutes=2))
    clock.advance(119.9)
    assert breaker.is_open
    clock.advance(0.1)
    assert breaker.state is HALF_OPEN
    breaker.trip(5)
    clock.advance(5)
    assert breaker.state is HALF_OPEN


def test_an_open_circuit_that_is_opened_by_hand_stays_open_from_then_on(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    clock.advance(20)
    breaker.trip()
    clock.advance(29)
    assert breaker.is_open
    assert breaker.stats.opened_count == 1
    assert refusal_of(breaker).last_failure is not None
    breaker.trip(0)
    assert breaker.state is HALF_OPEN


@pytest.mark.parametrize("mode", [CircuitMode.FORCED_OPEN, CircuitMode.FORCED_CLOSED])
def test_opening_by_hand_in_a_forced_mode_is_a_usage_error(make: Make, mode: CircuitMode) -> None:
    breaker = make(mode=mode)
    with pytest.raises(UsageError, match="set mode to AUTO"):
        breaker.trip()
    assert breaker.stats.opened_count == 0


@pytest.mark.parametrize("seconds", ["5", -1, math.nan, True])
def test_a_wrong_time_to_open_for_changes_nothing(make: Make, seconds: Any) -> None:
    breaker = make()
    with pytest.raises((TypeError, ValueError), match="open_for_s must be"):
        breaker.trip(seconds)
    assert breaker.is_closed


def test_an_opening_by_hand_asks_the_function_of_the_open_time(make: Make, clock: Clock) -> None:
    asked: list[int] = []
    breaker = make(reset_timeout_s=lambda before: asked.append(before) or 7.0)
    breaker.trip()
    assert asked == [0]
    clock.advance(7)
    assert breaker.state is HALF_OPEN


def refusal_of(breaker: CircuitBreaker) -> CircuitOpenError:
    with pytest.raises(CircuitOpenError) as raised:
        breaker.call(int)
    return raised.value


# Asking first, and then calling


@pytest.mark.parametrize("call", [lambda breaker: breaker.call(int), lambda breaker: breaker(lambda: 0)()])
def test_allow_request_before_each_call_recovers(make: Make, clock: Clock, call: Callable[[Any], Any]) -> None:
    breaker = make(failure_threshold=1, half_open_timeout_s=math.inf)
    fail(breaker)
    clock.advance(30)
    for _ in range(3):
        if breaker.allow_request():
            call(breaker)
    assert breaker.is_closed


def test_allow_request_before_each_block_recovers(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=1, half_open_timeout_s=math.inf)
    fail(breaker)
    clock.advance(30)
    for _ in range(3):
        if breaker.allow_request():
            with breaker:
                pass
    assert breaker.is_closed


def test_a_permit_takes_over_no_slot_of_allow_request(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=1)
    fail(breaker)
    clock.advance(30)
    assert breaker.allow_request()
    with pytest.raises(CircuitOpenError):
        breaker.permit()
    assert not breaker.allow_request()
    breaker.call(int)
    assert breaker.snapshot().probes_in_flight == 0


# Clocks that step back


def test_a_clock_that_steps_back_makes_no_latency_negative(make: Make, clock: Clock, way: Way) -> None:
    breaker = make()
    way(breaker, lambda: clock.advance(-5))
    with pytest.raises(Down):
        way(breaker, lambda: clock.advance(-5) or raise_down())
    assert breaker.stats.total_latency_ms == breaker.stats.avg_latency_ms == 0.0
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (1, 1)


def raise_down() -> Any:
    raise Down


# Listeners that come and go


def test_a_listener_that_is_added_later_hears_what_comes_then(make: Make, way: Way) -> None:
    first: list[Any] = []
    later: list[Any] = []
    breaker = make(listeners=[first.append])
    way(breaker, int)
    breaker.add_listener(later.append)
    way(breaker, int)
    breaker.remove_listener(later.append)
    way(breaker, int)
    assert (len(first), len(later)) == (3, 1)


def test_without_its_last_listener_a_breaker_is_as_quick_as_before(make: Make) -> None:
    breaker = make()
    heard: list[Any] = []
    breaker.add_listener(heard.append)
    assert breaker._machine.fast is None
    breaker.remove_listener(heard.append)
    assert breaker._machine.fast is breaker._machine.period


def test_a_listener_that_is_none_cannot_be_removed(make: Make) -> None:
    with pytest.raises(ValueError, match="one of the listeners"):
        make().remove_listener(print)
    with pytest.raises(TypeError, match="listener must be"):
        make().add_listener(5)


def test_a_setting_of_the_configuration_beside_it_gets_a_hint() -> None:
    wrong: Any = CircuitBreaker
    with pytest.raises(TypeError, match=r"use config=CircuitBreakerConfig\(failure_threshold=3\)"):
        wrong("api", failure_threshold=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'threshold'"):
        wrong("api", threshold=3)
