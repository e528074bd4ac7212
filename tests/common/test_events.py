"""Which events listeners get, in which order, and what happens to a call whose listener misbehaves."""

from __future__ import annotations

import gc
import logging
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import FrozenInstanceError, fields
from functools import partial
from typing import Any

import pytest
from calls import fail, succeed
from clocks import Clock
from failures import Down, raising
from forks import told_by_child
from garbage import collect
from needs import needs_fork, needs_reference_counts, needs_timer
from patience import PATIENCE_S
from storms import storm
from ways import BREAKER, Way

from circuit_breaker._breaker import admission as _core
from circuit_breaker._breaker import breaker as _breaker
from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common import events as _events
from circuit_breaker._common.events import BulkheadRejected, CallFinished, CallRejected, RetryScheduled, StateChanged
from circuit_breaker._common.words import CircuitMode, CircuitState, Outcome
from circuit_breaker.exceptions import CircuitOpenError

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

Make = Callable[..., CircuitBreaker]


class Stop(BaseException):
    """What no `except Exception` holds back."""


def raise_down() -> None:
    raise Down


def changes(events: list[Any]) -> list[tuple[CircuitState, CircuitState]]:
    return [(event.old_state, event.new_state) for event in events if isinstance(event, StateChanged)]


def on(kind: type, *actions: Callable[[], object]) -> Callable[[Any], None]:
    """Give a listener that does one action at each event of a kind, until there are none left."""
    left = list(actions)

    def listener(event: Any) -> None:
        if isinstance(event, kind) and left:
            left.pop(0)()

    return listener


# Each event with its fields


def test_a_success_is_reported_with_its_latency(make: Make, clock: Clock, way: Way) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append])
    way(breaker, lambda: clock.advance(0.25))
    assert seen == [CallFinished("api", Outcome.SUCCESS, 250.0, None)]


def test_a_failure_is_reported_with_its_error(make: Make, clock: Clock, way: Way) -> None:
    seen: list[Any] = []
    error = Down()

    def body() -> None:
        clock.advance(0.5)
        raise error

    with pytest.raises(Down):
        way(make(listeners=[seen.append]), body)
    assert seen == [CallFinished("api", Outcome.FAILURE, 500.0, error)]
    assert seen[0].error is error


def test_an_ignored_outcome_is_reported(make: Make, way: Way) -> None:
    seen: list[Any] = []
    with pytest.raises(Down):
        way(make(listeners=[seen.append], ignored_exceptions=Down), raise_down)
    assert [(event.outcome, type(event.error)) for event in seen] == [(Outcome.IGNORED, Down)]


def test_records_are_reported(make: Make) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append])
    breaker.record_success(2)
    breaker.record_failure(latency_ms=3.5)
    breaker.record_failure(float("nan"))
    breaker.record_ignored()
    assert seen == [
        CallFinished("api", Outcome.SUCCESS, 2.0, None),
        CallFinished("api", Outcome.FAILURE, 3.5, None),
        CallFinished("api", Outcome.FAILURE, 0.0, None),
        CallFinished("api", Outcome.IGNORED, 0.0, None),
    ]


def test_a_record_of_nonsense_is_not_told(make: Make) -> None:
    seen: list[Any] = []
    with pytest.raises(TypeError):
        make(listeners=[seen.append]).record_success("fast")  # type: ignore[arg-type]
    assert seen == []


def test_what_a_permit_says_is_reported_with_its_latency(make: Make, clock: Clock) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append])
    good, bad, neither = breaker.permit(), breaker.permit(), breaker.permit()
    clock.advance(1)
    error = Down()
    good.success()
    bad.failure(error)
    neither.ignore()
    assert seen == [
        CallFinished("api", Outcome.SUCCESS, 1000.0, None),
        CallFinished("api", Outcome.FAILURE, 1000.0, error),
        CallFinished("api", Outcome.IGNORED, 1000.0, None),
    ]


def test_a_late_result_is_reported_and_changes_nothing(make: Make) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], failure_threshold=1)
    late = breaker.permit()
    fail(breaker)
    del seen[:]
    late.success()
    assert seen == [CallFinished("api", Outcome.SUCCESS, 0.0, None)]


def test_an_outcome_whose_predicate_raises_is_reported_as_ignored(make: Make) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], failure_result=lambda value: 1 / value)
    with pytest.raises(ZeroDivisionError):
        breaker.call(int)
    assert seen == [CallFinished("api", Outcome.IGNORED, 0.0, None)]


def test_a_rejection_is_reported_with_the_time_to_wait(make: Make, clock: Clock, way: Way) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], failure_threshold=1)
    fail(breaker)
    del seen[:]
    clock.advance(10)
    with pytest.raises(CircuitOpenError):
        way(breaker, int)
    assert seen == [CallRejected("api", 20.0)]


def test_allow_request_that_says_no_is_reported(make: Make) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], failure_threshold=1)
    fail(breaker)
    del seen[:]
    assert not breaker.allow_request()
    assert seen == [CallRejected("api", 30.0)]


def test_a_rejection_that_knows_no_time_says_none(make: Make, clock: Clock) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], failure_threshold=1, half_open_max_calls=1)
    fail(breaker)
    clock.advance(30)
    breaker.permit()
    del seen[:]
    assert not breaker.allow_request()
    breaker.mode = CircuitMode.FORCED_OPEN
    assert not breaker.allow_request()
    assert [event for event in seen if isinstance(event, CallRejected)] == [CallRejected("api", None)] * 2


def test_what_shadow_admits_is_not_a_rejection(make: Make) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], failure_threshold=1, mode=CircuitMode.SHADOW)
    fail(breaker)
    del seen[:]
    succeed(breaker)
    assert seen == [CallFinished("api", Outcome.SUCCESS, 0.0, None)]


def test_every_way_from_state_to_state_is_reported_with_its_reason(make: Make, clock: Clock) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], failure_threshold=2, success_threshold=1)
    fail(breaker, 2)
    clock.advance(30)
    fail(breaker)
    clock.advance(31.5)
    succeed(breaker)
    breaker.mode = CircuitMode.FORCED_OPEN
    breaker.reset()
    assert [event for event in seen if isinstance(event, StateChanged)] == [
        StateChanged("api", CLOSED, OPEN, "2 failures in a row (threshold 2)"),
        StateChanged("api", OPEN, HALF_OPEN, "open for 30 s"),
        StateChanged("api", HALF_OPEN, OPEN, "a probe failed"),
        StateChanged("api", OPEN, HALF_OPEN, "open for 31.5 s"),
        StateChanged("api", HALF_OPEN, CLOSED, "1 probe succeeded"),
        StateChanged("api", CLOSED, OPEN, "mode forced_open"),
        StateChanged("api", OPEN, CLOSED, "reset"),
    ]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"error_rate_threshold": 0.5, "minimum_calls": 4}, "2 of 4 calls failed (threshold 0.5)"),
        (
            {"slow_call_duration_s": 1, "slow_call_rate_threshold": 0.25, "minimum_calls": 4},
            "1 of 4 calls were slow (threshold 0.25)",
        ),
    ],
)
def test_the_reason_names_the_rule_and_its_figures(
    make: Make, clock: Clock, settings: dict[str, Any], reason: str
) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], **settings)
    succeed(breaker, 2)
    fail(breaker)
    with pytest.raises(Down), breaker:
        clock.advance(1)
        raise Down
    assert seen[-2] == StateChanged("api", CLOSED, OPEN, reason)


def test_a_slow_probe_reopens_and_says_so(make: Make, clock: Clock) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], failure_threshold=1, slow_call_duration_s=1, slow_call_rate_threshold=0.5)
    fail(breaker)
    clock.advance(30)
    breaker.call(clock.advance, 1)
    assert seen[-2] == StateChanged("api", HALF_OPEN, OPEN, "a probe was slow")


def test_a_change_is_reported_before_the_call_that_made_it(make: Make) -> None:
    seen: list[Any] = []
    fail(make(listeners=[seen.append], failure_threshold=1))
    assert [type(event) for event in seen] == [StateChanged, CallFinished]


@pytest.mark.parametrize("setting", ["failure_result", "failure_exceptions"])
@pytest.mark.parametrize("stops", [Down, Stop])
def test_a_call_whose_predicate_raises_is_reported_as_ignored_with_its_latency(
    make: Make, clock: Clock, setting: str, stops: type[BaseException]
) -> None:
    def broken(asked: object) -> bool:
        raise stops

    def body() -> None:
        clock.advance(0.25)
        if setting == "failure_exceptions":
            raise Down

    seen: list[Any] = []
    breaker = make(listeners=[seen.append], **{setting: broken})
    with pytest.raises(stops):
        breaker.call(body)
    assert [(event.outcome, event.latency_ms) for event in seen] == [(Outcome.IGNORED, 250.0)]


def test_the_listeners_are_notified_in_the_order_they_were_given(make: Make) -> None:
    seen: list[Any] = []
    listeners = [lambda event, place=place: seen.append(place) for place in range(3)]
    succeed(make(listeners=listeners))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    "make_event",
    [
        lambda: StateChanged("api", CLOSED, OPEN, "1 failure in a row"),
        lambda: CallRejected("api", None),
        lambda: CallFinished("api", Outcome.SUCCESS, 1.0, None),
        lambda: RetryScheduled(0, 0.1, None, 0.2),
        lambda: BulkheadRejected("db", 1, 0),
    ],
)
def test_events_are_frozen_values_that_can_be_held_weakly(make_event: Callable[[], Any]) -> None:
    event = make_event()
    assert event == make_event()
    assert weakref.ref(event)() is event
    for field in fields(event):
        with pytest.raises(FrozenInstanceError):
            setattr(event, field.name, None)


# Which listeners there are


def test_the_listeners_are_those_at_construction(make: Make) -> None:
    seen: list[Any] = []
    listeners: list[Any] = []
    listeners.append(lambda event: (seen.append("first"), listeners.clear()))
    listeners.append(lambda event: seen.append("second"))
    breaker = make(listeners=listeners)
    succeed(breaker, 2)
    assert seen == ["first", "second"] * 2


def test_listeners_may_come_from_any_iterable(make: Make) -> None:
    seen: list[Any] = []
    succeed(make(listeners=(listener for listener in [seen.append])))
    assert len(seen) == 1


@pytest.mark.parametrize("listeners", [print, [None], "print", 3, [StateChanged]])
def test_what_is_not_an_iterable_of_functions_is_rejected(make: Make, listeners: Any) -> None:
    with pytest.raises(TypeError, match="listeners"):
        make(listeners=listeners)


def test_without_listeners_no_event_is_made(make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def paid(*_: object) -> None:
        raise AssertionError("somebody pays")

    for room in (_core, _breaker):
        for name in ("CallFinished", "CallRejected", "StateChanged", "notify"):
            monkeypatch.setattr(room, name, paid, raising=False)
    breaker = make(failure_threshold=1, success_threshold=1)
    for way in BREAKER.values():
        way(breaker, int)
    fail(breaker)
    assert not breaker.allow_request()
    clock.advance(30)
    breaker.permit().success()
    breaker.record_ignored()
    breaker.reset()


@pytest.mark.parametrize("then", ["closed again", "reset", "configured"])
def test_every_outcome_is_reported_in_every_closed_period(make: Make, clock: Clock, way: Way, then: str) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], failure_threshold=3, success_threshold=1)
    if then == "closed again":
        fail(breaker, 3)
        clock.advance(30)
        succeed(breaker)
    elif then == "reset":
        breaker.mode = CircuitMode.FORCED_OPEN
        breaker.reset()
    else:
        breaker.config = CircuitBreakerConfig(failure_threshold=3)
    del seen[:]
    way(breaker, int)
    with pytest.raises(Down):
        way(breaker, raise_down)
    assert [event.outcome for event in seen] == [Outcome.SUCCESS, Outcome.FAILURE]


def test_without_listeners_a_success_is_counted_in_the_period_only(make: Make) -> None:
    """The short way: no settling, no lock but the one, nothing in the totals."""
    assert make()._machine.fast is not None
    assert make(listeners=[print])._machine.fast is None


# Listeners that raise


def test_an_exception_of_a_listener_is_logged_and_harms_nobody(
    make: Make, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    error = ValueError("broken listener")
    breaker = make(listeners=[on(CallFinished, raising(error)), seen.append])
    assert way(breaker, lambda: "answer") == "answer"
    assert [event.outcome for event in seen] == [Outcome.SUCCESS]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "circuit_breaker"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_an_exception_of_a_listener_leaves_the_error_of_the_call_unchanged(make: Make, way: Way) -> None:
    breaker = make(listeners=[on(CallFinished, raising(ValueError()))])
    with pytest.raises(Down) as raised:
        way(breaker, raise_down)
    assert raised.value.__context__ is None
    assert breaker.stats.failure_count == 1


def test_an_exception_of_a_listener_leaves_a_rejection_a_rejection(make: Make, way: Way) -> None:
    breaker = make(
        listeners=[on(CallRejected, raising(ValueError())), on(StateChanged, raising(ValueError()))],
        failure_threshold=1,
    )
    fail(breaker)
    with pytest.raises(CircuitOpenError):
        way(breaker, int)


def test_a_listener_that_stops_the_program_does_so_after_the_call_has_counted(make: Make, way: Way) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[on(CallFinished, raising(Stop())), seen.append])
    with pytest.raises(Stop):
        way(breaker, int)
    assert breaker.stats.success_count == 1
    assert len(seen) == 1


def test_a_listener_that_stops_the_program_is_chained_to_the_error_of_the_call(make: Make, way: Way) -> None:
    error = Down()
    breaker = make(listeners=[on(CallFinished, raising(Stop()))])

    with pytest.raises(Stop) as raised:
        way(breaker, raising(error))
    assert raised.value.__context__ is error
    assert breaker.stats.failure_count == 1


def test_of_two_listeners_that_stop_the_program_the_first_does(make: Make) -> None:
    first, second = Stop("first"), Stop("second")
    seen: list[Any] = []
    breaker = make(listeners=[on(CallFinished, raising(first)), on(CallFinished, raising(second)), seen.append])
    with pytest.raises(Stop) as raised:
        breaker.record_success()
    assert raised.value is first
    assert len(seen) == 1


def test_a_listener_that_stops_the_program_at_a_change_prevents_no_report(make: Make) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[on(StateChanged, raising(Stop())), seen.append], failure_threshold=1)
    with pytest.raises(Stop) as raised:
        breaker.call(raise_down)
    assert type(raised.value.__context__) is Down
    assert breaker.state is OPEN
    assert breaker.snapshot().retry_after_s == 30
    assert [type(event) for event in seen] == [StateChanged, CallFinished]
    breaker.reset()
    assert changes(seen) == [(CLOSED, OPEN), (OPEN, CLOSED)]


def test_a_listener_that_stops_the_program_does_so_once_every_waiting_change_is_reported(make: Make) -> None:
    seen: list[Any] = []
    first, second = Stop("first"), Stop("second")

    def steer() -> None:
        breaker.reset()
        raise first

    breaker = make(listeners=[on(StateChanged, steer, raising(second)), seen.append], failure_threshold=1)
    with pytest.raises(Stop) as raised:
        breaker.record_failure()
    assert raised.value is first
    assert changes(seen) == [(CLOSED, OPEN), (OPEN, CLOSED)]


ADMISSIONS: dict[str, Callable[[CircuitBreaker], object]] = {
    name: lambda breaker, way=way: way(breaker, int) for name, way in BREAKER.items()
}
ADMISSIONS |= {
    "allow_request": lambda breaker: breaker.allow_request(),
    "permit()": lambda breaker: breaker.permit(),
    "nested block": lambda breaker: breaker.__enter__(),
}


@pytest.mark.parametrize("admit", ADMISSIONS.values(), ids=ADMISSIONS)
def test_a_listener_that_stops_the_program_during_admission_costs_no_slot(
    make: Make, clock: Clock, admit: Callable[[CircuitBreaker], object]
) -> None:
    breaker = make(
        listeners=[on(StateChanged, int, raising(Stop()))],
        failure_threshold=1,
        half_open_max_calls=1,
        success_threshold=1,
        half_open_timeout_s=float("inf"),
    )
    fail(breaker)
    clock.advance(30)
    with pytest.raises(Stop):
        admit(breaker)
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.probes_in_flight) == (HALF_OPEN, 0)
    assert (snapshot.stats.success_count, snapshot.stats.rejected_count) == (0, 0)
    assert breaker.allow_request()
    breaker.record_success()
    assert breaker.state is CLOSED


@pytest.mark.parametrize("admit", ADMISSIONS.values(), ids=ADMISSIONS)
def test_a_listener_that_stops_the_program_at_a_rejection_does_so_once_it_is_counted(
    make: Make, admit: Callable[[CircuitBreaker], object]
) -> None:
    breaker = make(listeners=[on(CallRejected, raising(Stop()))], failure_threshold=1)
    fail(breaker)
    with pytest.raises(Stop):
        admit(breaker)
    assert breaker.stats.rejected_count == 1
    assert not breaker.allow_request()


def test_a_log_line_that_is_interrupted_keeps_no_change_from_the_listeners(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], failure_threshold=1)
    with monkeypatch.context() as patch:
        patch.setattr(_core, "log", lambda *_, **__: raising(KeyboardInterrupt())())
        with pytest.raises(KeyboardInterrupt):
            breaker.record_failure()
    assert [type(event) for event in seen] == [StateChanged, CallFinished]


def test_a_complaint_that_is_interrupted_keeps_no_event_from_the_other_listeners(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[on(CallFinished, raising(ValueError())), seen.append])
    monkeypatch.setattr(_events, "log", lambda *_, **__: raising(KeyboardInterrupt())())
    with pytest.raises(KeyboardInterrupt):
        breaker.record_success()
    assert len(seen) == 1


# Listeners that call back


def test_a_listener_may_use_the_breaker_it_listens_to(make: Make) -> None:
    met: list[Any] = []

    def look() -> None:
        met.append(breaker.state)
        met.append(breaker.snapshot().stats.opened_count)
        with pytest.raises(CircuitOpenError) as raised:
            breaker.call(int)
        met.append(raised.value.retry_after_s)

    breaker = make(listeners=[on(StateChanged, look)], failure_threshold=1)
    fail(breaker)
    assert met == [OPEN, 1, 30.0]


def test_a_listener_that_resets_makes_a_change_that_is_reported_to_all_after_the_first(make: Make) -> None:
    early: list[Any] = []
    late: list[Any] = []
    breaker = make(
        listeners=[early.append, on(StateChanged, lambda: breaker.reset()), late.append], failure_threshold=1
    )
    fail(breaker)
    assert breaker.state is CLOSED
    assert changes(early) == changes(late) == [(CLOSED, OPEN), (OPEN, CLOSED)]


def test_a_listener_may_set_the_mode_that_its_own_event_tells_of(make: Make) -> None:
    seen: list[Any] = []

    def force(mode: CircuitMode) -> Callable[[], None]:
        return lambda: setattr(breaker, "mode", mode)

    breaker = make(
        listeners=[on(StateChanged, force(CircuitMode.FORCED_CLOSED), force(CircuitMode.FORCED_OPEN)), seen.append],
        failure_threshold=1,
    )
    fail(breaker)
    assert breaker.mode is CircuitMode.FORCED_OPEN
    assert changes(seen) == [(CLOSED, OPEN), (OPEN, CLOSED), (CLOSED, OPEN)]


def test_a_listener_that_resets_when_probing_begins_leaves_the_probe_late(make: Make, clock: Clock) -> None:
    breaker = make(listeners=[on(StateChanged, int, lambda: breaker.reset())], failure_threshold=1)
    fail(breaker)
    clock.advance(30)
    fail(breaker)
    assert breaker.state is CLOSED
    assert breaker.stats.failure_count == 1


def test_a_listener_may_make_a_call_whose_end_is_reported_to_it(make: Make) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append, on(CallFinished, lambda: succeed(breaker))])
    succeed(breaker)
    assert breaker.stats.success_count == len(seen) == 2


@pytest.mark.parametrize("kind", [StateChanged, CallFinished, CallRejected])
def test_no_lock_is_held_while_a_listener_runs(make: Make, kind: type) -> None:
    def use_it_elsewhere() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: breaker.snapshot()).result(PATIENCE_S)
            done.append(kind)

    done: list[type] = []
    breaker = make(listeners=[on(kind, use_it_elsewhere)], failure_threshold=1)
    fail(breaker)
    assert not breaker.allow_request()
    assert done == [kind]


# Order


class Gate:
    """A listener's action that stays until it is let go."""

    def __init__(self, then: Callable[[], object] = int) -> None:
        self._inside, self._go_on = threading.Event(), threading.Event()
        self._then = then

    def __call__(self) -> None:
        self._inside.set()
        assert self._go_on.wait(PATIENCE_S)
        self._then()

    @contextmanager
    def holding(self, call: Callable[[], object]) -> Iterator[Future[object]]:
        """Make a call in another thread, whose listener stays for as long as the block."""
        with ThreadPoolExecutor(1, "slow") as pool:
            called = pool.submit(call)
            try:
                assert self._inside.wait(PATIENCE_S)
                yield called
            finally:
                self._go_on.set()


def test_a_slow_listener_delays_nobody_and_the_next_caller_reports_what_came_meanwhile(make: Make) -> None:
    gate = Gate()
    seen: list[Any] = []
    threads: list[str] = []

    def note(event: Any) -> None:
        seen.append(event)
        threads.append(threading.current_thread().name)

    breaker = make(listeners=[on(StateChanged, gate), note], failure_threshold=1)
    with gate.holding(breaker.trip):
        breaker.reset()
        breaker.mode = CircuitMode.FORCED_OPEN
        assert changes(seen) == []
    assert changes(seen) == [(CLOSED, OPEN)]
    assert threads == ["slow_0"]
    assert breaker.is_open
    assert changes(seen) == [(CLOSED, OPEN), (OPEN, CLOSED), (CLOSED, OPEN)]
    assert threads[1:] == [threading.current_thread().name] * 2


@pytest.mark.parametrize("come", ADMISSIONS.values(), ids=ADMISSIONS)
def test_the_next_caller_reports_what_is_left(make: Make, come: Callable[[CircuitBreaker], object]) -> None:
    gate = Gate()
    seen: list[Any] = []
    breaker = make(listeners=[on(StateChanged, gate), seen.append], failure_threshold=1)
    with gate.holding(breaker.trip):
        breaker.reset()
    come(breaker)
    assert changes(seen) == [(CLOSED, OPEN), (OPEN, CLOSED)]


def test_what_is_reported_meanwhile_is_left_to_others_even_if_the_listener_then_stops_the_program(make: Make) -> None:
    gate = Gate(raising(Stop()))
    seen: list[Any] = []
    breaker = make(listeners=[on(StateChanged, gate), seen.append], failure_threshold=1)
    with gate.holding(breaker.trip) as tripped:
        breaker.reset()
    assert type(tripped.exception(PATIENCE_S)) is Stop
    assert changes(seen) == [(CLOSED, OPEN)]
    assert breaker.is_closed
    assert changes(seen) == [(CLOSED, OPEN), (OPEN, CLOSED)]


def force_and_reset(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.mode = CircuitMode.FORCED_OPEN
        breaker.reset()


def test_a_caller_tells_of_at_most_ten_changes(make: Make) -> None:
    gate = Gate()
    seen: list[Any] = []
    breaker = make(listeners=[on(StateChanged, gate), seen.append])
    with gate.holding(breaker.trip):
        breaker.reset()
        force_and_reset(breaker, 10)
    told: list[int] = []
    for _ in range(4):
        told.append(len(changes(seen)))
        breaker.state  # noqa: B018 - a look is enough
    assert told == [1, 11, 21, 22]
    assert changes(seen) == [(CLOSED, OPEN), (OPEN, CLOSED)] * 11


def test_a_listener_that_changes_the_breaker_at_every_change_keeps_its_caller_for_ten(make: Make) -> None:
    seen: list[Any] = []

    def flip() -> None:
        breaker.mode = CircuitMode.FORCED_CLOSED if breaker.is_open else CircuitMode.FORCED_OPEN

    breaker = make(listeners=[on(StateChanged, *[flip] * 15), seen.append])
    breaker.trip()
    assert len(changes(seen)) == 10
    breaker.state  # noqa: B018 - a look is enough
    assert changes(seen) == [(CLOSED, OPEN), (OPEN, CLOSED)] * 8


def test_what_a_listener_changes_is_reported_by_its_own_caller_though_others_come_meanwhile(make: Make) -> None:
    seen: list[Any] = []

    def reset_while_another_steers() -> None:
        breaker.reset()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(setattr, breaker, "mode", CircuitMode.FORCED_OPEN).result(PATIENCE_S)

    breaker = make(listeners=[on(StateChanged, reset_while_another_steers), seen.append])
    breaker.trip()
    assert changes(seen) == [(CLOSED, OPEN), (OPEN, CLOSED), (CLOSED, OPEN)]


def test_a_listener_that_never_returns_leaves_callers_and_log_lines_alone_and_the_queue_has_a_bound(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "circuit_breaker")
    gate = Gate()
    seen: list[Any] = []
    breaker = make(listeners=[on(StateChanged, gate), seen.append])
    with gate.holding(breaker.trip):
        breaker.reset()
        force_and_reset(breaker, 600)
        succeed(breaker)
        lines = [record.getMessage() for record in caplog.records]
        assert len(breaker._machine.undelivered) == 1_000
        assert breaker.snapshot().dropped_changes == 201
    assert len([line for line in lines if " -> " in line]) == 1 + 1 + 1_200
    (warning,) = [record for record in caplog.records if "do not keep up" in record.getMessage()]
    assert warning.levelno == logging.WARNING
    assert "'api'" in warning.getMessage()
    assert "1000 changes" in warning.getMessage()
    for _ in range(101):
        breaker.state  # noqa: B018 - a look is enough
    assert changes(seen)[0] == (CLOSED, OPEN)
    assert changes(seen)[1:] == ([(CLOSED, OPEN), (OPEN, CLOSED)] * 500)
    assert not breaker._machine.undelivered


def test_of_two_that_find_changes_dropped_only_the_first_warns(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    breaker = make(listeners=[print])
    breaker._machine.lock = Watched(breaker, before=lambda: setattr(breaker, "_warned", True))  # type: ignore[assignment]
    breaker._warn_of_dropping()
    assert caplog.records == []


@pytest.mark.parametrize("settings", [{}, {"mode": CircuitMode.SHADOW}])
def test_a_change_is_logged_before_any_listener_is_notified(
    make: Make, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    logged: list[int] = []
    breaker = make(
        listeners=[on(StateChanged, lambda: logged.append(len(caplog.records)))], failure_threshold=1, **settings
    )
    breaker.record_failure()
    assert logged == [1]


def test_the_changes_of_many_threads_are_reported_in_order_each_once(make: Make) -> None:
    seen: list[Any] = []
    telling: list[bool] = []

    def listener(event: Any) -> None:
        telling.append(True)
        assert telling == [True]  # one at a time
        seen.append(event)
        telling.pop()

    breaker = make(listeners=[listener])
    start = threading.Barrier(4)

    def steer() -> None:
        start.wait(PATIENCE_S)
        force_and_reset(breaker, 300)

    with ThreadPoolExecutor(4) as pool:
        for thread in [pool.submit(steer) for _ in range(4)]:
            thread.result(PATIENCE_S)
    for _ in range(100):
        breaker.state  # noqa: B018 - a look tells what is left
    told = changes(seen)
    assert len(told) >= 2
    assert told == [(CLOSED, OPEN), (OPEN, CLOSED)] * (len(told) // 2)
    assert not breaker._machine.changes
    assert telling == []


def test_openings_are_reported_as_often_as_they_are_counted(make: Make) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[seen.append], failure_threshold=1, reset_timeout_s=0, success_threshold=1)
    start = threading.Barrier(4)

    def use() -> None:
        start.wait(PATIENCE_S)
        for turn in range(100):
            if breaker.allow_request():
                breaker.record_failure() if turn % 2 else breaker.record_success()

    with ThreadPoolExecutor(4) as pool:
        for thread in [pool.submit(use) for _ in range(4)]:
            thread.result(PATIENCE_S)
    told = changes(seen)
    assert [new for _, new in told[:-1]] == [old for old, _ in told[1:]]
    assert told[0][0] is CLOSED
    assert sum(new is OPEN for _, new in told) == breaker.stats.opened_count


@needs_timer
def test_interrupts_leave_the_turn_to_tell_with_nobody(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "log", lambda *_, **__: None)  # they would leave the locks of log handlers held
    seen: list[Any] = []
    breaker = make(listeners=[seen.append])

    def steer() -> None:
        breaker.mode = CircuitMode.FORCED_OPEN
        breaker.reset()

    def is_told() -> None:
        breaker.reset()
        seen.clear()
        breaker.mode = CircuitMode.FORCED_OPEN
        assert changes(seen)[-1:] == [(CLOSED, OPEN)]

    assert storm(steer, 500, is_told)


# The end of a breaker, and forks


@needs_reference_counts
def test_telling_keeps_no_breaker_and_no_error_alive(make: Make) -> None:
    def stop(event: Any) -> None:
        raise Stop

    def use() -> list[weakref.ref[Any]]:
        breaker = make(listeners=[stop], failure_threshold=1)
        error = Down()
        try:
            breaker.permit().failure(error)
        except Stop:
            pass
        return [weakref.ref(breaker), weakref.ref(error)]

    collect()
    gc.disable()
    try:
        assert [reference() for reference in use()] == [None, None]
    finally:
        gc.enable()


@needs_fork
def test_a_child_forked_by_a_listener_tells_its_changes_after_the_one_being_reported(make: Make) -> None:
    late: list[Any] = []
    told: list[str] = []

    def in_child() -> object:
        breaker.reset()
        return [event.reason for event in late]

    breaker = make(
        listeners=[on(StateChanged, lambda: told.append(told_by_child(in_child))), late.append], failure_threshold=1
    )
    breaker.record_failure()
    assert told == ["[]"]
    assert changes(late) == [(CLOSED, OPEN)]


@needs_fork
def test_a_child_tells_its_own_changes_while_a_listener_of_the_parent_is_slow(make: Make) -> None:
    gate = Gate()
    seen: list[Any] = []
    breaker = make(listeners=[on(StateChanged, gate), seen.append], failure_threshold=1)
    with gate.holding(breaker.trip):
        breaker.reset()  # is reported by the parent only

        def in_child() -> Any:
            breaker.mode = CircuitMode.FORCED_OPEN
            return [event.reason for event in seen]

        assert told_by_child(in_child) == "['mode forced_open']"
    assert breaker.is_closed
    assert changes(seen) == [(CLOSED, OPEN), (OPEN, CLOSED)]


# What comes in between


def open_without_a_word(breaker: CircuitBreaker, clock: Clock) -> None:
    """Open it as another thread that has not told yet."""
    machine = breaker._machine
    assert machine.settle(machine.period, Outcome.FAILURE, clock(), 0.0, False) is not None  # type: ignore[arg-type]


def test_a_rejected_caller_that_tells_for_another_passes_on_what_stops_the_program(make: Make, clock: Clock) -> None:
    told: list[Any] = []

    def stop(event: Any) -> None:
        told.append(event)
        raise Stop

    breaker = make(failure_threshold=1, listeners=[stop])
    open_without_a_word(breaker, clock)
    with pytest.raises(Stop):
        breaker.call(int)
    assert [type(event) for event in told] == [StateChanged, CallRejected]
    assert breaker.snapshot().stats.rejected_count == 1


def test_a_rejected_caller_whose_log_line_is_interrupted_is_reported(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    breaker = make(failure_threshold=1, listeners=[told.append])
    open_without_a_word(breaker, clock)
    monkeypatch.setattr(_core, "log", lambda *_, **__: raising(KeyboardInterrupt())())
    with pytest.raises(KeyboardInterrupt):
        breaker.call(int)
    assert [type(event) for event in told] == [StateChanged, CallRejected]


class Watched:
    """The lock of a breaker, with something that happens before it is taken, or after it is left."""

    def __init__(
        self, breaker: CircuitBreaker, *, before: Callable[[], object] = int, after: Callable[[], object] = int
    ) -> None:
        self._lock = breaker._machine.lock
        self._before = before
        self._after = after

    @property
    def taken(self) -> bool:
        self._before()
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()
        self._after()

    def __enter__(self) -> bool:
        return self.taken

    def __exit__(self, *error: Any) -> None:
        self.release()


def test_a_turn_to_tell_that_is_interrupted_as_it_is_taken_is_given_back(make: Make, clock: Clock) -> None:
    told: list[Any] = []
    breaker = make(failure_threshold=1, listeners=[told.append])
    lock = breaker._machine.lock
    open_without_a_word(breaker, clock)
    breaker._machine.lock = Watched(breaker, after=raising(KeyboardInterrupt()))  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        breaker._deliver()
    breaker._machine.lock = lock
    assert told == []
    assert breaker.is_open
    assert [type(event) for event in told] == [StateChanged]


# What a signal handler raises while code of the caller runs is not that code's


class TimeLimit(Exception):
    """What a handler raises to end a whole task."""


def handler(*_: object) -> None:
    raise TimeLimit


class Handler:
    def __call__(self, *_: object) -> None:
        handler()

    def method(self, *_: object) -> None:
        handler()


@pytest.fixture(params=[handler, Handler(), Handler().method, partial(handler, 1), partial(partial(Handler()), 2)])
def interrupt(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Give a function in whose middle a signal handler of some kind raises a `TimeLimit`."""

    def run_into_it(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    former = signal.signal(signal.SIGINT, request.param)
    yield run_into_it
    signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize("kind", [StateChanged, CallFinished, CallRejected])
def test_an_exception_of_a_signal_handler_while_a_listener_runs_passes_on_once_all_is_reported(
    make: Make, interrupt: Callable[..., None], kind: type, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    breaker = make(listeners=[on(kind, interrupt), seen.append], failure_threshold=1)
    if kind is CallRejected:
        breaker.trip()
    with pytest.raises(TimeLimit):
        breaker.call(raise_down)
    assert kind in {type(event) for event in seen}
    assert breaker.is_open
    assert breaker.snapshot().retry_after_s == 30
    assert [record for record in caplog.records if record.levelno == logging.ERROR] == []
    with pytest.raises(CircuitOpenError):
        breaker.call(int)


@pytest.mark.parametrize("setting", ["reset_timeout_s", "retry_after"])
def test_an_exception_of_a_signal_handler_while_the_time_is_asked_for_passes_on(
    make: Make, interrupt: Callable[..., None], setting: str
) -> None:
    breaker = make(failure_threshold=1, **{setting: interrupt})
    with pytest.raises(TimeLimit):
        breaker.call(raise_down)
    assert breaker.is_open
    assert breaker.snapshot().retry_after_s == 30


def test_an_exception_of_a_signal_handler_while_a_line_is_logged_passes_on_once_all_is_reported(
    make: Make, interrupt: Callable[..., None]
) -> None:
    seen: list[Any] = []
    logger = logging.getLogger("circuit_breaker")
    breaker = make(failure_threshold=1, listeners=[seen.append])
    logger.addFilter(interrupt)  # type: ignore[arg-type]
    try:
        with pytest.raises(TimeLimit):
            breaker.call(raise_down)
    finally:
        logger.removeFilter(interrupt)  # type: ignore[arg-type]
    assert [type(event) for event in seen] == [StateChanged, CallFinished]


def test_an_exception_of_a_listener_is_its_own_whatever_signal_handlers_there_are(
    make: Make, interrupt: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    breaker = make(listeners=[on(CallFinished, raising(TimeLimit()))])
    succeed(breaker)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
