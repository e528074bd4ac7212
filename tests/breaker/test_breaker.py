"""Every way to ask a breaker and to tell it how a call ended, from one thread and from many."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import math
import pickle
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any, NoReturn

import pytest
from calls import fail, succeed
from clocks import Clock
from failures import Down, raising
from garbage import catch_up, collect
from patience import PATIENCE_S
from ways import BREAKER, Way

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._breaker.open_blocks import stack
from circuit_breaker._breaker.totals import CircuitStats
from circuit_breaker._common.words import CircuitMode, CircuitState
from circuit_breaker.exceptions import BulkheadFullError, CircuitOpenError

Make = Callable[..., CircuitBreaker]

HALF_OPEN = CircuitState.HALF_OPEN
RETURNING = [name for name, way in BREAKER.items() if way.returns]


def totals(breaker: CircuitBreaker) -> tuple[int, int, int]:
    """Give successes, failures and ignored."""
    stats = breaker.stats
    return (stats.success_count, stats.failure_count, stats.ignored_count)


def in_thread(action: Callable[[], object]) -> None:
    """Run the action in a thread of its own; what it raises comes out here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


def in_threads(count: int, action: Callable[[int], object]) -> None:
    """Run the action in `count` threads that start together. It gets the number of its thread."""
    together = threading.Barrier(count)
    raised: list[BaseException] = []

    def run(number: int) -> None:
        together.wait(PATIENCE_S)
        try:
            action(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert raised == []


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


# One call


def test_a_call_gives_what_the_function_returns_and_counts_one_success(make: Make, way: Way) -> None:
    breaker = make()
    result = object()
    assert way(breaker, lambda: result) is result
    assert totals(breaker) == (1, 0, 0)


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (Down("x"), (0, 1, 0)),
        (OSError(), (1, 0, 0)),
        (KeyError(), (0, 0, 1)),
        (KeyboardInterrupt(), (0, 0, 1)),
        (SystemExit(3), (0, 0, 1)),
        (CircuitOpenError("of another circuit"), (0, 0, 1)),
        (BulkheadFullError("inside"), (0, 0, 1)),
    ],
    ids=repr,
)
def test_the_exception_of_the_function_itself_is_raised_and_is_counted_once(
    make: Make, way: Way, error: BaseException, counted: tuple[int, int, int]
) -> None:
    breaker = make(failure_exceptions=Down, ignored_exceptions=KeyError)
    with pytest.raises(type(error)) as raised:
        way(breaker, raising(error))
    assert raised.value is error
    assert error.__cause__ is None
    assert totals(breaker) == counted
    assert breaker.stats.rejected_count == 0


def test_the_tripping_call_raises_its_own_exception(make: Make, way: Way) -> None:
    breaker = make(failure_threshold=3)
    for _ in range(3):
        with pytest.raises(Down):
            way(breaker, raising(Down()))
    assert breaker.is_open


def test_a_failed_probe_raises_its_own_exception(make: Make, clock: Clock, way: Way) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    clock.advance(30)
    with pytest.raises(Down):
        way(breaker, raising(Down()))
    assert breaker.is_open
    assert breaker.stats.opened_count == 2


def test_a_rejected_call_does_not_touch_the_function(make: Make, clock: Clock, way: Way) -> None:
    breaker = make("db", failure_threshold=1, half_open_max_calls=1)
    touched: list[int] = []
    fail(breaker)
    with pytest.raises(CircuitOpenError) as raised:
        way(breaker, lambda: touched.append(1))
    assert (raised.value.circuit_name, raised.value.retry_after_s) == ("db", 30.0)
    clock.advance(30)
    probe = breaker.permit()
    with pytest.raises(CircuitOpenError) as raised:
        way(breaker, lambda: touched.append(1))
    assert (raised.value.state, raised.value.retry_after_s) == (HALF_OPEN, None)
    probe.ignore()
    assert touched == []
    assert totals(breaker) == (0, 1, 1)
    assert breaker.stats.rejected_count == 2


def test_a_probe_made_in_any_way_closes_the_circuit(make: Make, clock: Clock, way: Way) -> None:
    breaker = make(failure_threshold=1, success_threshold=2, half_open_max_calls=1)
    fail(breaker)
    clock.advance(30)
    way(breaker, int)
    assert breaker.state is HALF_OPEN
    way(breaker, int)
    assert breaker.is_closed


def test_probes_made_in_any_way_give_their_permit_back_however_they_end(make: Make, clock: Clock, way: Way) -> None:
    breaker = make(failure_threshold=1, success_threshold=99, half_open_max_calls=1, ignored_exceptions=KeyError)
    fail(breaker)
    clock.advance(30)
    for error in (KeyError(), KeyboardInterrupt(), None, KeyError()):
        if error is None:
            way(breaker, int)
        else:
            with pytest.raises(type(error)):
                way(breaker, raising(error))
        assert breaker.snapshot().probes_in_flight == 0
    assert breaker.state is HALF_OPEN


@pytest.mark.parametrize("inner", [name for name, way in BREAKER.items() if not way.own_permit])
@pytest.mark.parametrize("outer", BREAKER)
def test_calls_inside_a_probe_ride_in_every_way(make: Make, clock: Clock, outer: str, inner: str) -> None:
    if BREAKER[outer].is_async and BREAKER[inner].is_async:
        return  # a loop does not run in a loop
    breaker = make(failure_threshold=1, success_threshold=2, half_open_max_calls=1)
    fail(breaker)
    clock.advance(30)
    BREAKER[outer](breaker, lambda: BREAKER[inner](breaker, int))
    assert breaker.state is HALF_OPEN
    assert totals(breaker) == (2, 1, 0)
    assert breaker.stats.rejected_count == 0


# Latency


@pytest.mark.parametrize("error", [None, Down()], ids=repr)
def test_the_latency_is_that_of_the_call_and_exact(make: Make, clock: Clock, way: Way, error: Down | None) -> None:
    breaker = make()

    def body() -> None:
        clock.advance(0.375)
        if error is not None:
            raise error

    clock.advance(5)
    for _ in range(2):
        with contextlib.suppress(Down):
            way(breaker, body)
        clock.advance(5)
    assert breaker.stats.total_latency_ms == 750.0
    assert breaker.stats.avg_latency_ms == 375.0


def test_the_latency_of_a_probe_is_exact_too(make: Make, clock: Clock, way: Way) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    clock.advance(30)
    way(breaker, lambda: clock.advance(0.375))
    assert breaker.stats.total_latency_ms == 375.0


def test_what_is_ignored_adds_no_latency(make: Make, clock: Clock, way: Way) -> None:
    breaker = make()

    def body() -> NoReturn:
        clock.advance(9)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        way(breaker, body)
    assert breaker.stats.total_latency_ms == 0.0


def test_a_call_is_slow_in_every_way(make: Make, clock: Clock, way: Way) -> None:
    breaker = make(slow_call_duration_s=2, slow_call_rate_threshold=1, failure_threshold=None, error_rate_window=2)
    way(breaker, lambda: clock.advance(1.75))
    assert breaker.stats.slow_count == 0
    for _ in range(2):
        way(breaker, lambda: clock.advance(2))
    assert breaker.stats.slow_count == 2
    assert breaker.is_open


def test_a_rejection_out_of_a_slow_call_is_not_slow(make: Make, clock: Clock, way: Way) -> None:
    breaker = make(slow_call_duration_s=2, failure_exceptions=BulkheadFullError)

    def body(error: BaseException) -> NoReturn:
        clock.advance(5)
        raise error

    for error in (BulkheadFullError("full"), ExceptionGroup("both", [BulkheadFullError("full")])):
        with pytest.raises(type(error)):
            way(breaker, functools.partial(body, error))
    assert (breaker.stats.failure_count, breaker.stats.slow_count) == (2, 0)
    with pytest.raises(ExceptionGroup):
        way(breaker, functools.partial(body, ExceptionGroup("both", [BulkheadFullError("full"), KeyError()])))
    assert breaker.stats.slow_count == 1


# Bad values


@pytest.mark.parametrize("name", RETURNING)
def test_a_returned_value_is_a_failure_if_the_predicate_says_so(make: Make, name: str) -> None:
    breaker = make(failure_threshold=2, failure_result=lambda value: value["status"] >= 500)
    for status in (200, 503, 503):
        assert breaker.is_closed
        assert BREAKER[name](breaker, lambda status=status: {"status": status}) == {"status": status}
    assert breaker.is_open
    assert totals(breaker) == (1, 2, 0)


@pytest.mark.parametrize("name", RETURNING)
def test_the_predicate_is_still_asked_after_a_recovery(make: Make, clock: Clock, name: str) -> None:
    breaker = make(failure_threshold=1, success_threshold=1, failure_result=lambda value: value)
    BREAKER[name](breaker, lambda: True)
    clock.advance(30)
    BREAKER[name](breaker, lambda: False)
    assert breaker.is_closed
    BREAKER[name](breaker, lambda: True)
    assert breaker.is_open


@pytest.mark.parametrize("name", RETURNING)
@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_a_predicate_on_the_value_that_raises_reaches_the_caller_and_the_call_is_ignored(
    make: Make, clock: Clock, name: str, kind: type[BaseException]
) -> None:
    broken = [False]

    def predicate(value: object) -> bool:
        if broken[0]:
            raise kind
        return True

    breaker = make(failure_threshold=1, failure_result=predicate, half_open_max_calls=1)
    BREAKER[name](breaker, int)
    clock.advance(30)
    broken[0] = True
    for _ in range(2):
        with pytest.raises(kind):
            BREAKER[name](breaker, int)
        assert breaker.snapshot().probes_in_flight == 0
    assert totals(breaker) == (0, 1, 2)
    assert breaker.state is HALF_OPEN


@pytest.mark.parametrize("name", [name for name in BREAKER if name not in RETURNING])
def test_where_no_value_is_returned_no_predicate_is_asked(make: Make, name: str) -> None:
    def never(value: object) -> NoReturn:
        raise AssertionError

    breaker = make(failure_result=never)
    BREAKER[name](breaker, int)
    assert totals(breaker) == (1, 0, 0)


# Totals


def test_the_streak_in_the_totals_is_that_of_the_calls_in_every_state(make: Make, clock: Clock, way: Way) -> None:
    breaker = make(failure_threshold=3, success_threshold=2, error_rate_threshold=0.75, error_rate_window=4)
    streaks = []
    for word in ("f", "f", "s", "f", "30", "f", "30", "s", "f", "30", "s", "s", "f"):
        if word == "30":
            clock.advance(30)
        elif word == "s":
            way(breaker, int)
        else:
            with pytest.raises(Down):
                way(breaker, raising(Down()))
        streaks.append(breaker.stats.consecutive_failures)
    assert streaks == [1, 2, 0, 1, 1, 2, 2, 0, 1, 1, 0, 0, 1]
    assert breaker.stats.opened_count == 3


def test_the_streak_in_the_totals_ends_with_a_success_before_another_mode(make: Make) -> None:
    breaker = make()
    fail(breaker, 2)
    breaker.mode = CircuitMode.FORCED_OPEN
    assert breaker.stats.consecutive_failures == 2
    breaker.mode = CircuitMode.AUTO
    fail(breaker)
    succeed(breaker)
    breaker.mode = CircuitMode.FORCED_OPEN
    assert breaker.stats.consecutive_failures == 0


def test_results_of_probes_are_dated_too(make: Make, clock: Clock, way: Way) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    clock.advance(3_600)
    way(breaker, int)
    clock.advance(3_600)
    with pytest.raises(Down):
        way(breaker, raising(Down()))
    stats = breaker.stats.copy()  # type: ignore[attr-defined]
    assert stats.last_failure_time - stats.last_success_time == pytest.approx(3_600, abs=60)


def test_each_success_and_failure_is_dated(make: Make, clock: Clock, way: Way) -> None:
    breaker = make(failure_threshold=99)
    before: list[float] = [0.0, 0.0]
    for _ in range(4):
        clock.advance(3_600)
        way(breaker, int)
        clock.advance(3_600)
        with pytest.raises(Down):
            way(breaker, raising(Down()))
        stats = breaker.stats.copy()  # type: ignore[attr-defined]
        assert stats.last_failure_time - stats.last_success_time == pytest.approx(3_600, abs=60)
        assert (stats.last_success_time > before[0], stats.last_failure_time > before[1]) == (True, True)
        before = [stats.last_success_time, stats.last_failure_time]
        assert abs(stats.last_failure_time - time.time()) < 60


# What may be called


async def coroutine_function() -> None: ...


class AsyncCallable:
    async def __call__(self) -> None: ...


def generator_function() -> Iterator[int]:
    yield 1


async def async_generator_function() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("func", [generator_function, async_generator_function])
def test_calling_a_generator_function_is_a_type_error_for_the_call_would_end_before_the_iteration(
    make: Make, func: Any
) -> None:
    breaker = make()
    with pytest.raises(TypeError, match="use a decorator"):
        breaker.call(func)
    assert breaker.stats.success_count == 0


@pytest.mark.parametrize(
    "func", [coroutine_function, functools.partial(coroutine_function), AsyncCallable(), AsyncCallable().__call__]
)
def test_calling_a_coroutine_function_is_a_type_error_before_anything_is_admitted(make: Make, func: Any) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=1)
    with pytest.raises(TypeError, match="use call_async"):
        breaker.call(func)
    fail(breaker)
    with pytest.raises(TypeError, match="use call_async"):
        breaker.call(func)
    assert totals(breaker) == (0, 1, 0)
    assert breaker.stats.rejected_count == 0


def test_a_coroutine_object_where_a_function_is_meant_is_a_type_error_and_closed(make: Make) -> None:
    breaker = make()
    for use in (breaker.call, breaker, lambda it: breaker.call_async(it).send(None)):
        with pytest.raises(TypeError, match="pass the function itself"):
            use(coroutine_function())  # never awaited, and no warning of that either
    assert totals(breaker) == (0, 0, 0)


@pytest.mark.parametrize("nonsense", [None, 3, "len"], ids=repr)
def test_what_cannot_be_called_is_a_type_error_before_anything_is_admitted(make: Make, nonsense: Any) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    for use in (breaker.call, breaker, lambda it: breaker.call_async(it).send(None)):
        with pytest.raises(TypeError, match="func must be a function"):
            use(nonsense)
    assert breaker.stats.rejected_count == 0


def test_arguments_are_passed_on_even_those_named_like_ours(make: Make) -> None:
    def echo(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    breaker = make()
    expected = ((1, 2), {"func": 3, "self": 4, "breaker": 5, "permission": 6})
    assert breaker.call(echo, 1, 2, func=3, self=4, breaker=5, permission=6) == expected
    assert breaker(echo)(1, 2, func=3, self=4, breaker=5, permission=6) == expected
    assert totals(breaker) == (2, 0, 0)


def test_a_block_gives_the_breaker(make: Make) -> None:
    breaker = make()
    with breaker as given:
        assert given is breaker


# Records by hand


@pytest.mark.parametrize("record", [CircuitBreaker.record_success, CircuitBreaker.record_failure])
@pytest.mark.parametrize(
    ("latency", "counted"),
    [(0, 0.0), (12.5, 12.5), (Decimal("2.5"), 2.5), (-1, 0.0), (math.nan, 0.0), (math.inf, 0.0), (-math.inf, 0.0)],
    ids=repr,
)
def test_a_record_always_counts_whatever_its_latency(make: Make, record: Any, latency: Any, counted: float) -> None:
    breaker = make()
    record(breaker, latency)
    assert sum(totals(breaker)) == 1
    assert breaker.stats.total_latency_ms == counted


@pytest.mark.parametrize("record", [CircuitBreaker.record_success, CircuitBreaker.record_failure])
@pytest.mark.parametrize("nonsense", [None, "3", True, [1]], ids=repr)
def test_a_latency_that_is_not_a_number_is_a_type_error_and_counts_nothing(
    make: Make, clock: Clock, record: Any, nonsense: Any
) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    clock.advance(30)
    breaker.allow_request()
    with pytest.raises(TypeError, match=r"^latency_ms must be a number of milliseconds"):
        record(breaker, nonsense)
    assert totals(breaker) == (0, 1, 0)
    assert breaker.snapshot().probes_in_flight == 1


def test_records_have_no_latency_unless_it_is_said(make: Make) -> None:
    breaker = make()
    breaker.record_success()
    breaker.record_failure()
    breaker.record_ignored()
    assert totals(breaker) == (1, 1, 1)
    assert breaker.stats.total_latency_ms == 0.0


def test_a_record_may_be_slow(make: Make) -> None:
    breaker = make(slow_call_duration_s=2)
    breaker.record_success(1_999)
    breaker.record_success(latency_ms=2_000)
    breaker.record_failure(latency_ms=3_000)
    assert breaker.stats.slow_count == 2


# Blocks


def test_blocks_are_matched_last_in_first_out(make: Make, clock: Clock) -> None:
    breaker = make()
    with breaker:
        clock.advance(1)
        with breaker:
            clock.advance(0.5)
        assert breaker.stats.total_latency_ms == 500.0
        with breaker:
            pass
    assert breaker.stats.total_latency_ms == 2_000.0
    assert totals(breaker) == (3, 0, 0)


def test_blocks_of_two_breakers_may_end_in_any_order(make: Make, clock: Clock) -> None:
    one, other = make("one"), make("other")
    one.__enter__()
    clock.advance(1)
    other.__enter__()
    clock.advance(2)
    one.__exit__(None, None, None)
    clock.advance(4)
    other.__exit__(Down, Down(), None)
    assert (totals(one), one.stats.total_latency_ms) == ((1, 0, 0), 3_000.0)
    assert (totals(other), other.stats.total_latency_ms) == ((0, 1, 0), 6_000.0)
    assert _remembered(one, other) == 0


def test_a_block_does_not_take_the_permit_of_a_generator_for_its_own(make: Make, clock: Clock) -> None:
    breaker = make()

    def held() -> Iterator[None]:
        with breaker.permit():
            yield

    items = held()
    with breaker:
        clock.advance(1)
        next(items)
        clock.advance(2)
    assert breaker.stats.total_latency_ms == 3_000.0
    clock.advance(4)
    assert next(items, "end") == "end"
    assert breaker.stats.total_latency_ms == 9_000.0
    assert totals(breaker) == (2, 0, 0)
    assert _remembered(breaker) == 0


def _remembered(*breakers: CircuitBreaker) -> int:
    """Count the blocks of these breakers that this context remembers as open."""
    frame, count = stack.get(), 0
    while frame is not None:
        count += any(frame.owner is breaker for breaker in breakers)
        frame = frame.outer
    return count


def test_a_block_left_in_another_thread_counts_once_with_no_latency(make: Make, clock: Clock) -> None:
    breaker = make()
    in_thread(breaker.__enter__)
    clock.advance(5)
    breaker.__exit__(None, None, None)
    assert totals(breaker) == (1, 0, 0)
    assert breaker.stats.total_latency_ms == 0.0


def test_a_failure_out_of_a_block_left_in_another_thread_counts_and_trips(make: Make) -> None:
    breaker = make(failure_threshold=1)
    in_thread(breaker.__enter__)
    breaker.__exit__(Down, Down(), None)
    assert breaker.is_open


def probing(make: Make, clock: Clock, **settings: Any) -> CircuitBreaker:
    breaker = make(**{"failure_threshold": 1, **settings})
    fail(breaker)
    clock.advance(30)
    return breaker


def test_a_block_left_in_another_thread_settles_the_oldest_probe_that_a_block_holds(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=4, success_threshold=9, half_open_timeout_s=20)
    permit = breaker.permit()
    breaker.allow_request()
    oldest, younger = contextvars.Context(), contextvars.Context()
    clock.advance(5)
    oldest.run(breaker.__enter__)
    clock.advance(5)
    younger.run(breaker.__enter__)
    in_thread(lambda: breaker.__exit__(None, None, None))
    assert breaker.snapshot().probes_in_flight == 3
    clock.advance(10)
    assert breaker.snapshot().probes_in_flight == 1, "what is left and not overdue is the younger block"
    permit.ignore()


def test_blocks_that_are_left_crosswise_settle_each_probe_once(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=3, success_threshold=3)
    contexts = [contextvars.Context() for _ in range(3)]
    for context in contexts:
        context.run(breaker.__enter__)
    elsewhere = contextvars.Context()
    in_flight = []
    for context in (elsewhere, contexts[0], contexts[1]):
        context.run(breaker.__exit__, None, None, None)
        in_flight.append(breaker.snapshot().probes_in_flight)
    assert in_flight == [2, 1, 0]
    assert breaker.is_closed
    assert totals(breaker) == (3, 1, 0)


def test_a_block_whose_probe_was_settled_elsewhere_is_late_in_the_next_half_open_period(
    make: Make, clock: Clock
) -> None:
    breaker = probing(make, clock, half_open_max_calls=2, success_threshold=3)
    first, second, elsewhere = (contextvars.Context() for _ in range(3))
    first.run(breaker.__enter__)
    second.run(breaker.__enter__)
    elsewhere.run(breaker.__exit__, None, None, None)
    breaker.record_failure()
    clock.advance(30)
    present = contextvars.Context()
    present.run(breaker.__enter__)
    first.run(breaker.__exit__, Down, Down(), None)
    second.run(breaker.__exit__, Down, Down(), None)
    assert breaker.state is HALF_OPEN
    assert breaker.snapshot().probes_in_flight == 1
    present.run(breaker.__exit__, None, None, None)
    assert breaker.snapshot().probes_in_flight == 0


def test_a_block_left_elsewhere_while_no_block_holds_a_probe_counts_toward_the_period(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, success_threshold=2)
    permit = breaker.permit()
    for _ in range(2):
        assert breaker.state is HALF_OPEN
        in_thread(lambda: breaker.__exit__(None, None, None))
    assert breaker.is_closed
    permit.ignore()


def test_blocks_in_threads_give_back_every_probe_however_they_interleave(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=8, success_threshold=10**6)
    inside, leaving = threading.Barrier(8), threading.Barrier(8)

    def cross(number: int) -> None:
        for _ in range(5):
            breaker.__enter__()
            inside.wait(PATIENCE_S)
            run = contextvars.Context().run if number % 2 else lambda func, *args: func(*args)
            run(breaker.__exit__, None, None, None)
            leaving.wait(PATIENCE_S)

    in_threads(8, cross)
    assert breaker.snapshot().probes_in_flight == 0
    assert totals(breaker) == (40, 1, 0)


def test_a_context_remembers_a_thousand_open_blocks_and_forgets_the_oldest(make: Make, clock: Clock) -> None:
    breaker = make()

    def many() -> None:
        for _ in range(1_003):
            breaker.__enter__()
            clock.advance(0.25)
        assert _remembered(breaker) == 1_000
        clock.advance(-0.25 * 1_003)
        breaker_latencies = []
        for _ in range(1_003):
            before = breaker.stats.total_latency_ms
            clock.now = 10_000.0
            breaker.__exit__(None, None, None)
            breaker_latencies.append(breaker.stats.total_latency_ms - before)
        assert breaker_latencies[-3:] == [0.0, 0.0, 0.0]
        assert min(breaker_latencies[:-3]) > 0.0
        assert _remembered(breaker) == 0

    contextvars.Context().run(many)
    assert totals(breaker) == (1_003, 0, 0)


def test_calls_and_permits_count_among_the_thousand(make: Make, probing: Make) -> None:
    breaker, other = make(), probing(half_open_max_calls=10)

    def many() -> None:
        for step in range(1_400):
            if step % 200 == 199:
                other.permit().__enter__()
            else:
                breaker.__enter__()
            assert _remembered(breaker, other) <= 1_000
        assert _remembered(breaker, other) == 1_000

    contextvars.Context().run(many)


def test_permit_entered_after_a_thousand_blocks_is_one_of_the_thousand(make: Make, probing: Make) -> None:
    breaker, other = make(), probing()

    def many() -> None:
        for _ in range(1_000):
            breaker.__enter__()
        other.permit().__enter__()
        assert (_remembered(breaker), _remembered(other)) == (999, 1)

    contextvars.Context().run(many)


def test_blocks_entered_in_a_permit_are_one_less(make: Make, probing: Make) -> None:
    breaker, other = make(), probing()

    def many() -> None:
        other.permit().__enter__()
        for _ in range(1_000):
            breaker.__enter__()
        assert (_remembered(breaker), _remembered(other)) == (1_000, 0)

    contextvars.Context().run(many)


def test_a_block_left_before_the_permit_that_was_entered_in_it(make: Make, probing: Make, clock: Clock) -> None:
    breaker, permit = make(), probing().permit()
    breaker.__enter__()
    permit.__enter__()
    clock.advance(0.5)
    breaker.__exit__(None, None, None)
    assert totals(breaker) == (1, 0, 0)
    assert breaker.stats.total_latency_ms == 500.0


def test_blocks_that_are_never_left_keep_no_more_than_a_thousand(make: Make) -> None:
    def forgetful() -> list[weakref.ref[CircuitBreaker]]:
        made = [weakref.ref(make().__enter__()) for _ in range(1_200)]
        collect()
        return made

    made = contextvars.Context().run(forgetful)
    assert sum(reference() is not None for reference in made) <= 1_000


def test_a_breaker_whose_blocks_are_all_left_is_kept_by_nobody(make: Make) -> None:
    breaker = make()
    with breaker, breaker:
        pass
    gone = weakref.ref(breaker)
    del breaker
    catch_up()
    assert gone() is None


# Many threads


@pytest.mark.usefixtures("_eager_threads")
def test_totals_are_exact_under_64_threads() -> None:
    breaker = CircuitBreaker("api", CircuitBreakerConfig(10**9, slow_call_duration_s=1000, ignored_exceptions=KeyError))
    errors = [None, Down(), KeyError()]
    guarded = breaker(lambda error: None if error is None else _raise(error))

    def work(number: int) -> None:
        for step in range(60):
            error = errors[(number + step) % 3]
            with contextlib.suppress(Down, KeyError):
                if step % 4 == 0:
                    guarded(error)
                elif step % 4 == 1:
                    with breaker:
                        guarded(None)
                        if error is not None:
                            raise error
                elif step % 4 == 2:
                    breaker.call(guarded, error)
                else:
                    with breaker.permit():
                        breaker.record_success(0.5)

    in_threads(64, work)
    # a third of each kind; a block has one success inside, a call counts twice, a permit has a record
    steps = 64 * 60 // 4
    assert breaker.stats.success_count == steps // 3 + (steps + steps // 3) + 2 * steps // 3 + 2 * steps
    assert breaker.stats.failure_count == steps // 3 + steps // 3 + 2 * steps // 3
    assert breaker.stats.ignored_count == breaker.stats.failure_count
    assert breaker.snapshot().window_calls == 100


def _raise(error: BaseException) -> NoReturn:
    raise error


@pytest.mark.usefixtures("_eager_threads")
def test_probes_never_exceed_their_number_under_threads(make: Make, clock: Clock) -> None:
    breaker = probing(make, clock, half_open_max_calls=3, success_threshold=10**6)
    guard = threading.Lock()
    present, most, admitted = 0, 0, 0

    def probe() -> None:
        nonlocal present, most, admitted
        with guard:
            present += 1
            admitted += 1
            most = max(most, present)
        time.sleep(0)  # let another thread come in between
        with guard:
            present -= 1

    def work(number: int) -> None:
        for _ in range(40):
            with contextlib.suppress(CircuitOpenError):
                breaker.call(probe)

    in_threads(16, work)
    assert most <= 3
    assert breaker.stats.success_count == admitted
    assert breaker.stats.success_count + breaker.stats.rejected_count == 16 * 40


def test_when_the_time_is_over_only_as_many_threads_are_admitted_as_there_are_probe_slots(
    make: Make, clock: Clock
) -> None:
    breaker = probing(make, clock, half_open_max_calls=3)
    results: list[bool] = []
    in_threads(32, lambda number: results.append(breaker.allow_request()))
    assert (results.count(True), results.count(False)) == (3, 29)
    assert breaker.stats.rejected_count == 29


def test_of_many_failures_at_once_one_opens_the_circuit(make: Make) -> None:
    events: list[Any] = []
    breaker = make(failure_threshold=5, listeners=[events.append])
    permits = [breaker.permit() for _ in range(32)]
    in_threads(32, lambda number: permits[number].failure())
    assert breaker.stats.opened_count == 1
    assert breaker.stats.failure_count == 32
    assert [event.new_state.value for event in events if hasattr(event, "new_state")] == ["open"]


# Reset


def test_reset_makes_a_breaker_as_new(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=2, error_rate_threshold=0.5)
    succeed(breaker, 3)
    fail(breaker, 2)
    with pytest.raises(CircuitOpenError):
        succeed(breaker)
    breaker.reset()
    assert breaker.is_closed
    assert breaker.stats == CircuitStats()
    fail(breaker)
    assert breaker.is_closed, "the streak began anew"


def test_reset_while_calls_are_out_counts_them_in_the_totals_only(make: Make, way: Way) -> None:
    breaker = make(failure_threshold=1)

    def body() -> NoReturn:
        breaker.reset()
        raise Down

    with pytest.raises(Down):
        way(breaker, body)
    assert breaker.is_closed
    assert totals(breaker) == (0, 1, 0)


def test_reset_of_a_closed_breaker_keeps_the_successes_of_late_calls(make: Make, way: Way) -> None:
    breaker = make()
    succeed(breaker, 3)
    way(breaker, breaker.reset)
    assert totals(breaker) == (1, 0, 0)
    assert breaker.snapshot().window_calls == 0


# The object


def test_a_breaker_tells_its_name_state_and_mode(make: Make) -> None:
    breaker = make("db", failure_threshold=1)
    assert repr(breaker) == "<CircuitBreaker 'db': closed, mode auto>"
    fail(breaker)
    assert repr(breaker) == "<CircuitBreaker 'db': open, mode auto>"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_breaker_cannot_be_copied_or_pickled(make: Make, duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="a CircuitBreaker cannot be copied or pickled"):
        duplicate(make())


def test_everything_can_be_referred_to_weakly(make: Make) -> None:
    breaker = make()
    things = [
        breaker,
        breaker.config,
        breaker.stats,
        breaker.permit(),
        breaker.snapshot(),
        breaker(lambda: 0),
        breaker.state,
    ]
    assert [weakref.ref(thing)() for thing in things] == things


def test_a_breaker_that_nobody_holds_is_gone_from_the_list_of_all(make: Make) -> None:
    breaker = make()
    assert breaker in CircuitBreaker.instances()
    gone = weakref.ref(breaker)
    del breaker
    catch_up()
    assert gone() is None


@pytest.mark.parametrize("name", ["allow_request", "record_success", "record_failure", "record_ignored"])
def test_a_subclass_that_overrides_what_calls_do_not_go_through_is_rejected(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^Mine overrides {name}\(\).* use listeners= instead$"):
        type("Mine", (CircuitBreaker,), {name: lambda self: None})
    mixin = type("Mixin", (), {name: lambda self: None})
    with pytest.raises(TypeError, match="use listeners="):
        type("Mixed", (mixin, CircuitBreaker), {})


def test_a_subclass_may_add_and_its_breakers_work(clock: Clock) -> None:
    class Named(CircuitBreaker):
        def label(self) -> str:
            return f"circuit {self.name}"

    breaker = Named("db", clock=clock)
    succeed(breaker)
    assert breaker.label() == "circuit db"
    assert repr(breaker).startswith("<Named 'db'")
    assert breaker in Named.instances()
    assert breaker in CircuitBreaker.instances()


def test_is_open_and_is_closed_are_both_false_in_half_open(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1)
    assert (breaker.is_open, breaker.is_closed) == (False, True)
    fail(breaker)
    assert (breaker.is_open, breaker.is_closed) == (True, False)
    clock.advance(30)
    assert (breaker.is_open, breaker.is_closed) == (False, False)


def test_a_call_of_the_breaker_out_of_its_own_call_and_predicates_counts(make: Make) -> None:
    def nested(error: BaseException) -> bool:
        succeed(breaker)
        return True

    breaker = make(failure_exceptions=nested, failure_threshold=2)
    fail(breaker)
    assert totals(breaker) == (1, 1, 0)
    assert breaker.stats.consecutive_failures == 1


def test_a_subclass_passes_its_settings_on_to_other_bases() -> None:
    class Marked:
        mark: str

        def __init_subclass__(cls, *, mark: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            cls.mark = mark

    class Own(CircuitBreaker, Marked, mark="own"):
        pass

    assert Own.mark == "own"


def test_a_block_that_is_left_twice_counts_again_without_its_latency(make: Make, clock: Clock) -> None:
    breaker = make()
    with breaker:
        clock.advance(1)
    clock.advance(5)
    breaker.__exit__(None, None, None)
    assert (breaker.stats.success_count, breaker.stats.total_latency_ms) == (2, 1_000)


def test_a_block_that_ended_in_another_context_counts_again_without_its_latency(make: Make, clock: Clock) -> None:
    breaker = make()
    with breaker:
        clock.advance(1)
        inside = contextvars.copy_context()
    inside.run(breaker.__exit__, None, None, None)
    assert (breaker.stats.success_count, breaker.stats.total_latency_ms) == (2, 1_000)


@pytest.mark.parametrize("failed", [False, True])
def test_a_call_that_is_over_keeps_no_breaker_alive(probing: Make, way: Way, failed: bool) -> None:
    breaker = probing()
    with contextlib.suppress(Down):
        way(breaker, raising(Down()) if failed else int)
    reference = weakref.ref(breaker)
    del breaker
    collect()
    assert reference() is None
