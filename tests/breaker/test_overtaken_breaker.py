"""What a breaker does when another thread is faster: between its decision and the lock, something has changed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
from failures import Down, raising
from overtaken import Overtaken

from circuit_breaker import (
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    CircuitMode,
    CircuitState,
    StateChanged,
    UsageError,
)
from circuit_breaker._breaker.machine import Machine
from circuit_breaker._breaker.rules import WindowCounts
from circuit_breaker._breaker.states import Asker, Period, Probe
from circuit_breaker._breaker.window import CallWindow
from circuit_breaker._common.events import raised_by_signal_handler
from circuit_breaker._common.fallback import Call
from circuit_breaker._common.judging import TYPES_KNOWN
from circuit_breaker.testing import FakeClock

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def ignore(event: object) -> None:
    pass


def overtake(breaker: CircuitBreaker, other: Callable[[], object], taking: int = 1) -> None:
    """Let another thread do something before the breaker's lock is taken for the n-th time."""
    machine = breaker._machine
    machine.lock = Overtaken(machine.lock, other, taking)  # type: ignore[assignment]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker(config=CircuitBreakerConfig(3, reset_timeout_s=10.0), clock=clock)


def test_a_call_is_admitted_if_the_circuit_is_reset_meanwhile(breaker: CircuitBreaker) -> None:
    breaker.trip()
    overtake(breaker, breaker.reset)
    assert breaker.call(int) == 0
    assert breaker.stats.rejected_count == 0


def test_a_circuit_is_tripped_though_it_is_reset_meanwhile(breaker: CircuitBreaker) -> None:
    overtake(breaker, breaker.reset, taking=2)
    breaker.trip()
    assert breaker.state is OPEN


@pytest.mark.parametrize("before", [CLOSED, OPEN])
def test_another_configuration_is_taken_though_the_state_changes_meanwhile(
    breaker: CircuitBreaker, before: CircuitState
) -> None:
    if before is OPEN:
        breaker.trip()
        overtake(breaker, breaker.reset)
    else:
        overtake(breaker, breaker.trip)
    config = CircuitBreakerConfig(7)
    breaker.config = config
    assert breaker.config is config
    assert breaker.state is not before


@pytest.mark.parametrize("change", ["close", "mode", "reset"])
def test_a_period_that_begins_has_the_rules_of_a_configuration_that_is_set_meanwhile(
    breaker: CircuitBreaker, clock: FakeClock, change: str
) -> None:
    breaker.config = CircuitBreakerConfig(50, success_threshold=1, reset_timeout_s=10.0)
    config = CircuitBreakerConfig(2, slow_call_duration_s=1.0)
    if change == "close":
        half_open(breaker, clock)
        permit = breaker.permit()
        overtake(breaker, lambda: setattr(breaker, "config", config), taking=3)
        permit.success()
    else:
        overtake(breaker, lambda: setattr(breaker, "config", config))
        if change == "mode":
            breaker.mode = CircuitMode.SHADOW
        else:
            breaker.reset()
    assert (breaker.config, breaker.state) == (config, CLOSED)
    breaker.record_failure(5_000.0)
    breaker.record_failure(5_000.0)
    assert breaker.stats.slow_count == 2
    assert breaker.snapshot().machine_state is OPEN


@pytest.mark.parametrize(
    ("before", "mode"),
    [(CircuitMode.AUTO, CircuitMode.FORCED_CLOSED), (CircuitMode.FORCED_CLOSED, CircuitMode.AUTO)],
)
def test_a_configuration_is_used_as_the_mode_says_that_is_set_meanwhile(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch, before: CircuitMode, mode: CircuitMode
) -> None:
    breaker.mode = before
    look = Machine.look

    def set_mode_and_look(machine: Machine, now: float) -> Period:
        monkeypatch.undo()
        breaker.mode = mode
        return look(machine, now)

    monkeypatch.setattr(Machine, "look", set_mode_and_look)
    breaker.config = CircuitBreakerConfig(2)
    for _ in range(2):
        breaker.record_failure()
    assert breaker.state is (OPEN if mode is CircuitMode.AUTO else CLOSED)


@pytest.mark.parametrize("mode", [CircuitMode.FORCED_OPEN, CircuitMode.FORCED_CLOSED])
def test_a_trip_leaves_what_is_forced_meanwhile(breaker: CircuitBreaker, clock: FakeClock, mode: CircuitMode) -> None:
    overtake(breaker, lambda: setattr(breaker, "mode", mode))
    with pytest.raises(UsageError, match="no effect in this mode"):
        breaker.trip()
    clock.advance(1_000.0)
    assert (breaker.mode, breaker.state) == (mode, OPEN if mode is CircuitMode.FORCED_OPEN else CLOSED)


def test_a_trip_of_an_open_circuit_is_made_though_it_is_reset_meanwhile(breaker: CircuitBreaker) -> None:
    breaker.trip()
    overtake(breaker, breaker.reset, taking=2)
    breaker.trip()
    assert breaker.state is OPEN


def test_of_two_windows_that_are_set_at_once_the_last_one_counts(breaker: CircuitBreaker) -> None:
    def of(window: int) -> CircuitBreakerConfig:
        return CircuitBreakerConfig(None, error_rate_threshold=0.5, error_rate_window=window)

    breaker.config = of(100)
    overtake(breaker, lambda: setattr(breaker, "config", of(50)))
    breaker.config = of(100)
    for _ in range(99):
        breaker.record_failure()
    assert (breaker.state, breaker.snapshot().window_calls) == (CLOSED, 99)
    breaker.record_failure()
    assert breaker.state is OPEN


@pytest.mark.parametrize("by_hand", [False, True])
def test_times_of_failures_are_those_of_a_streak_that_ends_and_begins_again_meanwhile(
    breaker: CircuitBreaker, clock: FakeClock, by_hand: bool
) -> None:
    def fail() -> None:
        (breaker.stats if by_hand else breaker).record_failure(1.0)

    def succeed_and_fail() -> None:
        breaker.record_success()
        fail()

    config = CircuitBreakerConfig(2, failure_threshold_within_s=5.0)
    breaker.config = config
    fail()
    clock.advance(100.0)
    overtake(breaker, succeed_and_fail)
    breaker.config = config.replace(success_threshold=1)
    clock.advance(1.0)
    breaker.record_failure()
    assert breaker.state is OPEN


def test_a_failure_is_judged_by_the_rules_under_which_it_was_counted(
    breaker: CircuitBreaker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker.config = CircuitBreakerConfig(3)
    for _ in range(2):
        breaker.record_failure()
        clock.advance(1_000.0)
    counts = CallWindow.counts

    def set_config_and_count(*args: Any) -> WindowCounts:
        monkeypatch.undo()
        breaker.config = CircuitBreakerConfig(4)
        return counts(*args)

    monkeypatch.setattr(CallWindow, "counts", set_config_and_count)
    breaker.record_failure()
    assert breaker.state is OPEN


def test_a_mode_is_set_though_the_state_changes_meanwhile(breaker: CircuitBreaker) -> None:
    overtake(breaker, breaker.trip)
    breaker.mode = CircuitMode.FORCED_CLOSED
    assert (breaker.mode, breaker.state) == (CircuitMode.FORCED_CLOSED, CLOSED)


def test_a_circuit_is_reset_though_its_state_changes_meanwhile(breaker: CircuitBreaker) -> None:
    overtake(breaker, breaker.trip)
    breaker.reset()
    assert breaker.state is CLOSED
    assert breaker.stats.opened_count == 0


def test_two_listeners_that_are_added_at_once_are_both_there(breaker: CircuitBreaker) -> None:
    events: list[object] = []
    overtake(breaker, lambda: breaker.add_listener(events.append))
    breaker.add_listener(ignore)
    breaker.trip()
    assert [event.new_state for event in events if isinstance(event, StateChanged)] == [OPEN]
    assert breaker._listeners == (events.append, ignore)


def test_a_listener_that_comes_while_results_become_quick_is_notified(breaker: CircuitBreaker) -> None:
    events: list[object] = []
    overtake(breaker, lambda: breaker.add_listener(events.append), taking=2)
    breaker.config = CircuitBreakerConfig(7)
    breaker.call(int)
    assert len(events) == 1


def test_a_change_that_another_thread_takes_is_delivered_once(breaker: CircuitBreaker) -> None:
    events: list[object] = []
    breaker.add_listener(events.append)
    machine = breaker._machine
    machine.trip(0.0, "by hand")
    machine.reset(CircuitMode.AUTO, 0.0)
    taken: list[object] = []
    overtake(breaker, lambda: taken.append(machine.take_undelivered()))
    kept = machine.take_undelivered()
    assert [change.new_state for change in (taken[0], kept)] == [OPEN, CLOSED]  # type: ignore[union-attr, attr-defined]
    assert machine.take_undelivered() is None


def test_a_change_is_made_though_a_listener_comes_meanwhile(breaker: CircuitBreaker) -> None:
    events: list[object] = []
    overtake(breaker, lambda: breaker.add_listener(events.append), taking=2)
    breaker.trip()
    assert [event.new_state for event in events if isinstance(event, StateChanged)] == [OPEN]


def half_open(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.trip()
    clock.advance(10.0)


def test_a_slot_is_freed_though_another_probe_comes_meanwhile(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open(breaker, clock)
    permission = breaker._admit(Asker.PERMIT)
    assert isinstance(permission, Probe)
    overtake(breaker, breaker.permit)
    permission.withdraw(breaker._machine)
    assert breaker.snapshot().probes_in_flight == 1


def test_a_call_that_has_no_slot_frees_none(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open(breaker, clock)
    breaker.permit()
    Probe(Asker.CALL, 0.0).withdraw(breaker._machine)
    assert breaker.snapshot().probes_in_flight == 1


def test_anonymous_calls_in_shadow_are_all_remembered(clock: FakeClock) -> None:
    config = CircuitBreakerConfig(1, reset_timeout_s=10.0, half_open_max_calls=1)
    breaker = CircuitBreaker(config=config, mode=CircuitMode.SHADOW, clock=clock)
    breaker.record_failure(1.0)
    clock.advance(10.0)
    assert [breaker.allow_request() for _ in range(2)] == [True, True]
    overtake(breaker, breaker.allow_request, taking=2)
    breaker.allow_request()
    book = breaker._machine.period.book
    assert book is not None
    assert len(book.anonymous) == 4
    for taking in (1, 2, 3, 2, 1):
        overtake(breaker, breaker.allow_request, taking)
        breaker.record_ignored()
    assert breaker.stats.ignored_count == 5


def test_two_that_read_the_totals_for_the_first_time_get_one_view(breaker: CircuitBreaker) -> None:
    seen: list[object] = []
    overtake(breaker, lambda: seen.append(breaker.stats))
    assert breaker.stats is seen[0]


def test_two_listeners_that_a_registry_gets_at_once_are_both_there() -> None:
    registry = CircuitBreakerRegistry()
    breaker = registry["api"]
    events: list[object] = []
    registry._lock = Overtaken(registry._lock, lambda: registry.add_listener(events.append))  # type: ignore[assignment]
    registry.add_listener(ignore)
    breaker.trip()
    assert len(events) == 1
    assert set(breaker._listeners) == {events.append, ignore}


def test_a_breaker_gets_a_listener_of_its_registry_though_another_comes_meanwhile() -> None:
    registry = CircuitBreakerRegistry()
    breaker = registry["api"]
    overtake(breaker, lambda: breaker.add_listener(ignore))
    events: list[object] = []
    registry.add_listener(events.append)
    assert set(breaker._listeners) == {events.append, ignore}


def test_a_listener_that_a_registry_has_twice_is_called_once_until_it_is_removed_twice() -> None:
    registry = CircuitBreakerRegistry()
    events: list[object] = []
    old = registry["old"]
    registry.add_listener(events.append)
    registry.add_listener(events.append)
    breakers = [old, registry["new"]]
    assert [breaker._listeners for breaker in breakers] == [(events.append,)] * 2
    registry.remove_listener(events.append)
    breakers.append(registry["newer"])
    assert [breaker._listeners for breaker in breakers] == [(events.append,)] * 3
    registry.remove_listener(events.append)
    assert [breaker._listeners for breaker in breakers] == [()] * 3


def test_a_breaker_keeps_a_listener_of_its_registry_to_which_another_comes_while_it_is_made() -> None:
    def config(key: object) -> CircuitBreakerConfig:
        registry.add_listener(events.append)
        return CircuitBreakerConfig()

    events: list[object] = []
    registry = CircuitBreakerRegistry(config, listeners=[ignore])
    assert registry["api"]._listeners == (ignore, events.append)


def test_a_listener_that_a_breaker_has_already_is_not_added_again() -> None:
    registry = CircuitBreakerRegistry()
    breaker = registry["api"]
    breaker.add_listener(ignore)
    registry.add_listener(ignore)
    assert breaker._listeners == (ignore,)


def test_a_signal_handler_that_raises_while_a_failure_is_described_is_heard(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler(*_: object) -> None:
        raise InterruptedError

    class Interrupted(Exception):
        def __str__(self) -> str:
            handler()
            return ""

    monkeypatch.setattr(signal, "getsignal", lambda number: handler)
    breaker.config = CircuitBreakerConfig(1)
    with pytest.raises(InterruptedError):
        breaker.call(raising(Interrupted()))
    assert breaker.state is OPEN


def test_a_call_with_a_fallback_is_shown_as_its_function() -> None:
    assert repr(Call(len)) == repr(len)


def test_a_streak_with_a_time_limit_needs_a_threshold() -> None:
    with pytest.raises(ValueError, match=r"failure_threshold_within_s=5\.0 needs failure_threshold, got None"):
        CircuitBreakerConfig(None, error_rate_threshold=0.5, failure_threshold_within_s=5.0)


def test_a_window_of_calls_has_one_bucket_without_end() -> None:
    window = CallWindow(10)
    assert window.bucket_at(5.0) == 0
    assert window.end_of(0) == float("inf")


def test_more_types_of_errors_than_are_remembered_are_judged_alike() -> None:
    breaker = CircuitBreaker(
        config=CircuitBreakerConfig(None, error_rate_threshold=0.5, error_rate_window=9_999, minimum_calls=9_999)
    )
    kinds = [type(f"Error{number}", (Exception,), {}) for number in range(TYPES_KNOWN + 5)]
    for kind in kinds:
        with pytest.raises(kind):
            breaker.call(raising(kind()))
    assert breaker.stats.failure_count == len(kinds)


def test_without_a_signal_handler_no_error_comes_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "signal", raising=False)
    assert not raised_by_signal_handler(Down())
