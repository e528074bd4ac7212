"""Ctrl-C in the middle of a breaker: no lock stays held, no turn to tell is lost, and a lost probe comes back."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from calls import fail, succeed
from clocks import Clock
from failures import Down
from needs import needs_timer
from patience import PATIENCE_S
from storms import SHOTS, storm
from ways import BREAKER, BREAKER_BY_HAND, Body, Way

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common.events import CallFinished, StateChanged
from circuit_breaker._common.words import CircuitMode, CircuitState
from circuit_breaker.exceptions import CircuitOpenError

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
OVERDUE_S = 5.0

Make = Callable[..., CircuitBreaker]

pytestmark = needs_timer


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep interrupts out of logging, whose handlers have locks of their own, and let destructors swallow them."""
    monkeypatch.setattr(logging.getLogger("circuit_breaker"), "disabled", True)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


WAYS = BREAKER | BREAKER_BY_HAND
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def alone(body: Body) -> None:
    """Run it in a context of its own, so that the blocks it loses are not seen by other tests."""
    contextvars.copy_context().run(body)


def unheld(breaker: CircuitBreaker) -> None:
    assert not breaker._machine.lock._is_owned()  # type: ignore[attr-defined]


def free_for_others(breaker: CircuitBreaker) -> None:
    """Another thread can use it."""
    done = threading.Event()

    def use() -> None:
        assert breaker.snapshot().name == breaker.name
        done.set()

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert done.is_set()


def goes_round(breaker: CircuitBreaker, clock: Clock) -> None:
    """From wherever it is, it closes, opens, and closes again."""
    config = breaker.config
    for _ in range(2):
        for _ in range(2):  # where an interrupt kept a failed probe from reopening the circuit, the next probe does
            clock.advance(float(config.reset_timeout_s) + OVERDUE_S)  # type: ignore[arg-type]
            for _ in range(config.success_threshold):
                if not breaker.is_closed and not breaker.is_open:
                    succeed(breaker)
        assert breaker.is_closed
        for _ in range(config.failure_threshold or 0):
            if breaker.is_closed:
                fail(breaker)
        assert breaker.is_open


def nothing() -> None:
    pass


@every_way
def test_interrupts_in_calls_of_a_closed_circuit_leave_no_lock_held(way: Way, make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=2, half_open_timeout_s=OVERDUE_S)
    call = way.ready(breaker, nothing)
    alone(lambda: storm(call, SHOTS // 8, lambda: unheld(breaker)))
    assert breaker.is_closed
    assert breaker.snapshot().stats.failure_count == 0
    free_for_others(breaker)
    goes_round(breaker, clock)


@every_way
def test_interrupts_in_failing_calls_leave_the_breaker_whole(way: Way, make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=2, reset_timeout_s=1, success_threshold=1, half_open_timeout_s=OVERDUE_S)
    failing = 0

    def body() -> None:
        nonlocal failing
        failing += 1
        clock.advance(0.3)
        if failing % 4:
            raise Down

    call = way.ready(breaker, body)

    def calls() -> None:
        clock.advance(0.3)
        with suppress(Down, CircuitOpenError):
            call()

    def whole() -> None:
        unheld(breaker)
        clock.advance(OVERDUE_S)
        assert breaker.state in CircuitState  # the next look reports what was not reported
        assert breaker._delivering is None
        assert not breaker._machine.changes

    alone(lambda: storm(calls, SHOTS // 8, whole))
    assert breaker.stats.opened_count > 0
    free_for_others(breaker)
    goes_round(breaker, clock)


@every_way
def test_probe_lost_to_an_interrupt_comes_back_when_it_is_overdue(way: Way, probing: Make, clock: Clock) -> None:
    breaker = probing(success_threshold=1_000_000, half_open_timeout_s=OVERDUE_S)
    call = way.ready(breaker, nothing)

    def calls() -> None:
        with suppress(CircuitOpenError):
            call()

    def admitted() -> None:
        unheld(breaker)
        assert breaker.state is HALF_OPEN
        clock.advance(OVERDUE_S)
        before = breaker.stats.success_count
        call()
        assert breaker.stats.success_count == before + 1
        assert breaker.snapshot().probes_in_flight == 0

    def storming() -> None:
        storm(calls, SHOTS // 8, admitted)
        clock.advance(OVERDUE_S)
        breaker.config = CircuitBreakerConfig(1, 1, half_open_max_calls=1, half_open_timeout_s=OVERDUE_S)
        call()
        assert breaker.is_closed

    alone(storming)
    free_for_others(breaker)
    goes_round(breaker, clock)


def test_interrupts_while_listeners_are_notified_never_lose_the_turn(make: Make, clock: Clock) -> None:
    told: list[object] = []

    def listener(event: object) -> None:
        for _ in range(20):
            str(event)
        told.append(event)

    breaker = make(
        failure_threshold=1,
        success_threshold=1,
        reset_timeout_s=1,
        half_open_timeout_s=OVERDUE_S,
        listeners=[nothing_of, listener],
    )

    def once_round() -> None:
        with suppress(Down, CircuitOpenError):
            breaker.call(broken)
        clock.advance(1)
        with suppress(CircuitOpenError):
            breaker.call(nothing)

    def told_again() -> None:
        unheld(breaker)
        clock.advance(OVERDUE_S)
        breaker.reset()
        told.clear()
        once_round()
        changes = [event.new_state for event in told if isinstance(event, StateChanged)]
        outcomes = [event.outcome.value for event in told if isinstance(event, CallFinished)]
        assert changes == [OPEN, HALF_OPEN, CLOSED]
        assert outcomes == ["failure", "success"]
        assert not breaker._machine.changes

    alone(lambda: storm(once_round, SHOTS // 4, told_again))
    free_for_others(breaker)


def nothing_of(event: object) -> None:
    pass


def broken() -> None:
    raise Down


def test_interrupts_among_threads_leave_the_turn_to_somebody(make: Make, clock: Clock) -> None:
    told: list[StateChanged] = []

    def listener(event: object) -> None:
        if isinstance(event, StateChanged):
            told.append(event)

    breaker = make(failure_threshold=1, success_threshold=1, reset_timeout_s=0, listeners=[listener])
    stop = threading.Event()

    def change() -> None:
        with suppress(Down, CircuitOpenError):
            breaker.call(broken)
        with suppress(CircuitOpenError):
            breaker.call(nothing)

    def other() -> None:
        while not stop.is_set():
            change()

    others = [threading.Thread(target=other) for _ in range(2)]
    for thread in others:
        thread.start()
    try:
        alone(lambda: storm(change, SHOTS // 8))
    finally:
        stop.set()
        for thread in others:
            thread.join(PATIENCE_S)
    unheld(breaker)
    breaker.reset()
    while breaker._machine.undelivered:  # each caller delivers ten of what is left
        assert breaker.is_closed
    told.clear()
    fail(breaker)
    assert [event.new_state for event in told] == [OPEN]
    free_for_others(breaker)


@pytest.mark.parametrize(
    "steer",
    [
        lambda breaker: breaker.snapshot(),
        lambda breaker: breaker.state,
        lambda breaker: breaker.stats.copy(),
        lambda breaker: breaker.reset(),
        lambda breaker: setattr(breaker, "config", CircuitBreakerConfig(2)),
        lambda breaker: [setattr(breaker, "mode", mode) for mode in (CircuitMode.SHADOW, CircuitMode.AUTO)],
        lambda breaker: breaker.permit().ignore(),
    ],
    ids=["snapshot", "state", "stats", "reset", "config", "mode", "permit"],
)
def test_interrupts_in_whoever_looks_or_steers_leave_no_lock_held(
    steer: Callable[[CircuitBreaker], object], make: Make, clock: Clock
) -> None:
    breaker = make(failure_threshold=2, half_open_timeout_s=OVERDUE_S)
    alone(lambda: storm(lambda: steer(breaker), SHOTS // 8, lambda: unheld(breaker)))
    free_for_others(breaker)
    breaker.mode = CircuitMode.AUTO
    goes_round(breaker, clock)


def test_interrupt_out_of_a_listener_at_admission_costs_no_slot(make: Make, clock: Clock) -> None:
    def listener(event: object) -> None:
        if isinstance(event, StateChanged) and event.new_state is HALF_OPEN:
            raise KeyboardInterrupt

    for way in BREAKER.values():
        breaker = make(failure_threshold=1, success_threshold=1, half_open_max_calls=1, listeners=[listener])
        fail(breaker)
        clock.advance(30)
        called: list[bool] = []
        with pytest.raises(KeyboardInterrupt):
            way(breaker, lambda called=called: called.append(True))
        assert called == []
        assert breaker.snapshot().probes_in_flight == 0
        way(breaker, lambda called=called: called.append(True))
        assert called == [True]
        assert breaker.is_closed
