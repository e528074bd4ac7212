"""A permit: admitted when it is asked for, settled once, from anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from calls import fail
from clocks import Clock
from failures import Down, raising
from garbage import catch_up
from patience import PATIENCE_S

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.open_blocks import stack
from circuit_breaker._breaker.permit import Permit
from circuit_breaker._common.words import CircuitMode, CircuitState, Outcome
from circuit_breaker.exceptions import CircuitOpenError

Make = Callable[..., CircuitBreaker]

SETTLE: dict[str, Callable[[Permit], None]] = {
    "success_count": Permit.success,
    "failure_count": Permit.failure,
    "ignored_count": Permit.ignore,
}


def totals(breaker: CircuitBreaker) -> dict[str, int]:
    """Give the counts that are not zero."""
    return {name: count for name in SETTLE if (count := getattr(breaker.stats, name))}


@pytest.fixture(params=["sync", "async"])
def enter(request: pytest.FixtureRequest) -> Callable[[Permit, Callable[[], Any]], Any]:
    """Run a function inside the permit, as a plain and as an async block."""

    def plain(permit: Permit, body: Callable[[], Any]) -> Any:
        with permit as given:
            assert given is permit
            return body()

    async def in_a_task(permit: Permit, body: Callable[[], Any]) -> Any:
        async with permit as given:
            assert given is permit
            return body()

    return plain if request.param == "sync" else lambda permit, body: asyncio.run(in_a_task(permit, body))


# Admission


def test_a_permit_is_admitted_when_it_is_asked_for(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=1)
    fail(breaker)
    with pytest.raises(CircuitOpenError):
        breaker.permit()
    assert breaker.stats.rejected_count == 1
    clock.advance(30)
    permit = breaker.permit()
    with pytest.raises(CircuitOpenError):
        breaker.permit()
    permit.ignore()


def test_a_permit_that_was_admitted_in_time_may_be_entered_after_the_trip(make: Make, enter: Any) -> None:
    breaker = make(failure_threshold=1)
    permit = breaker.permit()
    fail(breaker)
    assert enter(permit, lambda: 7) == 7
    assert totals(breaker) == {"success_count": 1, "failure_count": 1}
    assert breaker.is_open


# Held in hand


@pytest.mark.parametrize("counted", SETTLE)
def test_a_permit_in_hand_counts_what_is_said_and_how_long_it_was_out(make: Make, clock: Clock, counted: str) -> None:
    events: list[Any] = []
    breaker = make(listeners=[events.append])
    permit = breaker.permit()
    assert totals(breaker) == {}
    clock.advance(0.25)
    SETTLE[counted](permit)
    assert totals(breaker) == {counted: 1}
    assert breaker.stats.total_latency_ms == (0.0 if counted == "ignored_count" else 250.0)
    (event,) = events
    assert event.outcome is Outcome[counted.removesuffix("_count").upper()]
    assert event.latency_ms == 250.0


def test_the_error_of_a_failure_is_what_listeners_and_the_next_rejection_tell(make: Make) -> None:
    events: list[Any] = []
    breaker = make(failure_threshold=1, listeners=[events.append])
    error = Down("gone")
    breaker.permit().failure(error)
    assert [event.error for event in events if hasattr(event, "error")] == [error]
    with pytest.raises(CircuitOpenError) as raised:
        breaker.permit()
    assert raised.value.last_failure == ("Down", "gone")


def test_a_failure_counts_as_one_whatever_the_configuration_says_of_its_error(make: Make) -> None:
    breaker = make(failure_exceptions=(), ignored_exceptions=Exception)
    breaker.permit().failure(Down())
    breaker.permit().failure(KeyboardInterrupt())
    breaker.permit().failure(CircuitOpenError("another one"))
    assert totals(breaker) == {"failure_count": 3}


@pytest.mark.parametrize("nonsense", ["down", 3, Down, object()], ids=repr)
def test_an_error_that_is_not_an_exception_is_a_type_error_and_settles_nothing(make: Make, nonsense: Any) -> None:
    breaker = make()
    permit = breaker.permit()
    with pytest.raises(TypeError, match=r"^error must be a BaseException, got "):
        permit.failure(nonsense)
    assert totals(breaker) == {}
    permit.success()


@pytest.mark.parametrize("second", SETTLE)
@pytest.mark.parametrize("first", SETTLE)
def test_settling_twice_is_a_runtime_error_and_changes_nothing(
    make: Make, clock: Clock, first: str, second: str
) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=2)
    fail(breaker)
    breaker.reset()
    fail(breaker)
    clock.advance(30)
    other = breaker.permit()
    permit = breaker.permit()
    SETTLE[first](permit)
    state, before = breaker.snapshot().machine_state, totals(breaker)
    in_flight = breaker.snapshot().probes_in_flight
    with pytest.raises(RuntimeError, match="reported already"):
        SETTLE[second](permit)
    assert (breaker.snapshot().machine_state, totals(breaker)) == (state, before)
    assert breaker.snapshot().probes_in_flight == in_flight
    other.ignore()


def test_a_permit_is_settled_from_any_thread_and_by_one_only(make: Make) -> None:
    breaker = make()
    permit = breaker.permit()
    together = threading.Barrier(16)
    refused: list[RuntimeError] = []

    def settle() -> None:
        together.wait(PATIENCE_S)
        try:
            permit.success()
        except RuntimeError as error:
            refused.append(error)

    threads = [threading.Thread(target=settle) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(refused) == 15
    assert totals(breaker) == {"success_count": 1}


def test_a_permit_that_is_never_settled_counts_nothing(make: Make) -> None:
    breaker = make()
    permit = breaker.permit()
    gone = weakref.ref(permit)
    del permit
    catch_up()
    assert gone() is None
    assert totals(breaker) == {}


def test_a_failed_permit_in_half_open_reopens(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    clock.advance(30)
    breaker.permit().failure()
    assert breaker.is_open


def test_what_the_listener_raises_leaves_the_permit_settled(make: Make) -> None:
    def stop(event: object) -> None:
        raise SystemExit

    breaker = make(listeners=[stop])
    permit = breaker.permit()
    with pytest.raises(SystemExit):
        permit.success()
    with pytest.raises(RuntimeError):
        permit.success()
    assert totals(breaker) == {"success_count": 1}


# As a block


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (Down(), "failure_count"),
        (KeyError(), "ignored_count"),
        (KeyboardInterrupt(), "ignored_count"),
        (OSError(), "success_count"),
    ],
    ids=repr,
)
def test_a_block_is_judged_like_a_call(make: Make, enter: Any, error: BaseException, counted: str) -> None:
    breaker = make(failure_exceptions=Down, ignored_exceptions=KeyError)
    with pytest.raises(type(error)) as raised:
        enter(breaker.permit(), raising(error))
    assert raised.value is error
    assert totals(breaker) == {counted: 1}


def test_a_block_that_ends_without_an_error_is_a_success_with_its_latency(make: Make, clock: Clock, enter: Any) -> None:
    breaker = make()
    permit = breaker.permit()
    enter(permit, lambda: clock.advance(0.5))
    assert totals(breaker) == {"success_count": 1}
    assert breaker.stats.total_latency_ms == 500.0


@pytest.mark.parametrize("counted", SETTLE)
@pytest.mark.parametrize("error", [None, Down(), KeyboardInterrupt()], ids=repr)
def test_what_the_block_has_said_wins_over_how_it_ends(
    make: Make, clock: Clock, enter: Any, counted: str, error: BaseException | None
) -> None:
    breaker = make()
    permit = breaker.permit()

    def body() -> None:
        SETTLE[counted](permit)
        clock.advance(5)
        if error is not None:
            raise error

    if error is None:
        enter(permit, body)
    else:
        with pytest.raises(type(error)):
            enter(permit, body)
    assert totals(breaker) == {counted: 1}
    assert breaker.stats.total_latency_ms == 0.0


def test_a_block_settled_by_another_thread_meanwhile_counts_once(make: Make) -> None:
    breaker = make()
    with breaker.permit() as permit:
        thread = threading.Thread(target=permit.failure)
        thread.start()
        thread.join(PATIENCE_S)
    assert totals(breaker) == {"failure_count": 1}


def test_a_permit_is_entered_once(make: Make, enter: Any) -> None:
    breaker = make()
    permit = breaker.permit()
    enter(permit, lambda: None)
    with pytest.raises(RuntimeError, match="has been used already"):
        enter(permit, lambda: None)
    with breaker.permit() as inside, pytest.raises(RuntimeError, match="has been used already"):
        enter(inside, lambda: None)
    settled = breaker.permit()
    settled.ignore()
    with pytest.raises(RuntimeError, match="has been used already"):
        enter(settled, lambda: None)
    assert totals(breaker) == {"success_count": 2, "ignored_count": 1}


def test_settling_after_the_block_is_a_runtime_error(make: Make) -> None:
    breaker = make()
    with breaker.permit() as permit:
        pass
    with pytest.raises(RuntimeError):
        permit.failure()
    assert totals(breaker) == {"success_count": 1}


def test_a_permit_entered_in_one_thread_may_be_left_in_another(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, success_threshold=2, half_open_max_calls=1)
    fail(breaker)
    clock.advance(30)
    permit = breaker.permit()
    thread = threading.Thread(target=permit.__enter__)
    thread.start()
    thread.join(PATIENCE_S)
    clock.advance(1)
    permit.__exit__(None, None, None)
    assert breaker.snapshot().probes_in_flight == 0
    assert breaker.stats.total_latency_ms == 1_000.0


def test_a_block_that_fails_has_its_latency(make: Make, clock: Clock, enter: Any) -> None:
    breaker = make()

    def body() -> None:
        clock.advance(0.5)
        raise Down

    with pytest.raises(Down):
        enter(breaker.permit(), body)
    assert totals(breaker) == {"failure_count": 1}
    assert breaker.stats.total_latency_ms == 500.0


def test_a_block_of_the_breaker_that_was_entered_elsewhere_is_not_taken_for_that_of_a_permit(
    make: Make, clock: Clock
) -> None:
    breaker = make()
    with breaker.permit():
        clock.advance(1)
        breaker.__exit__(None, None, None)
        assert totals(breaker) == {"success_count": 1}
        assert breaker.stats.total_latency_ms == 0.0
    assert totals(breaker) == {"success_count": 2}


def test_a_block_that_is_over_leaves_nothing_in_its_context(probing: Make) -> None:
    with probing().permit():
        assert stack.get() is not None
    assert stack.get() is None


def test_permits_that_are_left_in_any_order_are_each_themselves(make: Make, clock: Clock) -> None:
    breaker = make(ignored_exceptions=KeyError)
    first, second = breaker.permit(), breaker.permit()
    first.__enter__()
    second.__enter__()
    clock.advance(1)
    first.__exit__(KeyError, KeyError(), None)
    assert totals(breaker) == {"ignored_count": 1}
    clock.advance(1)
    second.__exit__(None, None, None)
    assert totals(breaker) == {"ignored_count": 1, "success_count": 1}
    assert breaker.stats.total_latency_ms == 2_000.0


def test_a_predicate_that_raises_in_a_block_settles_the_permit(make: Make, enter: Any) -> None:
    def broken(error: BaseException) -> bool:
        raise ZeroDivisionError

    breaker = make(failure_exceptions=broken)
    permit = breaker.permit()
    with pytest.raises(ZeroDivisionError) as raised:
        enter(permit, raising(Down()))
    assert isinstance(raised.value.__context__, Down)
    assert totals(breaker) == {"ignored_count": 1}
    with pytest.raises(RuntimeError):
        permit.ignore()


def test_a_permit_may_be_left_without_being_entered(make: Make, clock: Clock) -> None:
    breaker = make()
    with contextlib.ExitStack() as exits:
        exits.push(breaker.permit())
        clock.advance(1)
    assert totals(breaker) == {"success_count": 1}
    assert breaker.stats.total_latency_ms == 1_000.0


# The object


def test_a_permit_tells_whose_it_is_and_whether_it_is_out(make: Make) -> None:
    permit = make("db").permit()
    assert repr(permit) == "<Permit of circuit 'db': out>"
    permit.success()
    assert repr(permit) == "<Permit of circuit 'db': settled>"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_permit_is_not_copied_since_it_would_count_twice(make: Make, duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        duplicate(make().permit())


def test_a_permit_in_shadow_is_one_even_if_it_would_have_been_rejected(make: Make) -> None:
    breaker = make(mode=CircuitMode.SHADOW, failure_threshold=1)
    fail(breaker)
    breaker.permit().failure()
    with breaker.permit():
        pass
    assert totals(breaker) == {"failure_count": 2, "success_count": 1}
    assert breaker.snapshot().machine_state is CircuitState.OPEN
    assert breaker.stats.opened_count == 1
