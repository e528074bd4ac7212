"""What comes in between on the same thread, in the middle of a locked step: a destructor, or a signal handler.

The interpreter runs such code where a function is called and where one of C has returned. So each action is walked
through again and again, and at every such place in turn another one is done on the same breaker.
"""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import pytest
from clocks import Clock
from failures import Down

from circuit_breaker._breaker import breaker as _breaker
from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common.events import CallFinished, CallRejected, StateChanged
from circuit_breaker._common.words import CircuitMode, CircuitState
from circuit_breaker.exceptions import CircuitOpenError

PACKAGE = str(Path(_breaker.__file__).parents[1])
CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

Action: TypeAlias = Callable[[CircuitBreaker], object]


def call(breaker: CircuitBreaker, error: Exception | None = None) -> None:
    def body() -> None:
        if error is not None:
            raise error

    try:
        breaker.call(body)
    except (Down, CircuitOpenError):
        pass


def block(breaker: CircuitBreaker) -> None:
    try:
        with breaker:
            pass
    except CircuitOpenError:
        pass


ACTIONS: dict[str, Action] = {
    "record a failure": lambda breaker: breaker.record_failure(),
    "record a success": lambda breaker: breaker.record_success(),
    "call well": call,
    "call badly": lambda breaker: call(breaker, Down()),
    "a block": block,
    "allow": lambda breaker: breaker.allow_request(),
    "state": lambda breaker: breaker.state,
    "totals": lambda breaker: breaker.stats.copy(),  # type: ignore[attr-defined]
    "snapshot": lambda breaker: breaker.snapshot(),
    "another mode": lambda breaker: setattr(breaker, "mode", CircuitMode.SHADOW),
    "another configuration": lambda breaker: setattr(breaker, "config", breaker.config),
    "reset": lambda breaker: breaker.reset(),
}


class Scene:
    """A breaker in one situation, and all that it tells."""

    def __init__(self, failures: int, waits_s: float) -> None:
        self.clock = Clock()
        self.events: list[Any] = []
        config = CircuitBreakerConfig(
            2, success_threshold=1, half_open_max_calls=1, error_rate_threshold=0.9, error_rate_window=2
        )
        self.breaker = CircuitBreaker("api", config, listeners=[self.events.append], clock=self.clock)
        for _ in range(failures):
            self.breaker.record_failure()
        self.clock.advance(waits_s)

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


SCENES: dict[str, Callable[[], Scene]] = {
    "closed": lambda: Scene(0, 0),
    "one failure from open": lambda: Scene(1, 0),
    "open": lambda: Scene(2, 0),
    "due for probing": lambda: Scene(2, 30),
}


def do_between(scene: Scene, place: int, outer: Action, inner: Action) -> bool:
    """Do the inner action at this place, from 1, of the outer one's locked steps; False: it has fewer places."""
    breaker, places = scene.breaker, 0

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal places
        if event in {"call", "c_return"} and frame.f_code.co_filename.startswith(PACKAGE) and owned():
            places += 1
            if places == place:
                inner(breaker)

    owned = breaker._lock._is_owned  # type: ignore[attr-defined]
    profiling = sys.getprofile()
    sys.setprofile(watch)
    try:
        outer(breaker)
    finally:
        sys.setprofile(profiling)
    return places >= place


@pytest.mark.parametrize("outer", ACTIONS)
@pytest.mark.parametrize("name", SCENES)
def test_whatever_comes_in_between_nothing_is_lost_doubled_or_wedged(name: str, outer: str) -> None:
    for inner in ACTIONS:
        for place in itertools.count(1):
            scene = SCENES[name]()
            if not do_between(scene, place, ACTIONS[outer], ACTIONS[inner]):
                break
            where = f"{inner} at {place}"
            breaker, stats = scene.breaker, scene.breaker.stats
            changes = scene.told(StateChanged)
            if "reset" not in {outer, inner}:
                counted = stats.success_count + stats.failure_count + stats.ignored_count
                assert counted == len(scene.told(CallFinished)), where
                assert stats.rejected_count == len(scene.told(CallRejected)), where
                assert stats.opened_count == sum(change.new_state is OPEN for change in changes), where
            if outer == "another mode" and inner != "reset":
                assert breaker.mode is CircuitMode.SHADOW, where
            if outer == "reset" and inner != "another mode":
                assert breaker.mode is CircuitMode.AUTO, where
            state = CLOSED
            for change in changes:
                assert change.old_state is state, where
                state = change.new_state
            assert breaker._machine.period.state is state, where
            assert breaker.snapshot().probes_in_flight <= 1, where
            scene.clock.advance(30)
            breaker.call(int)
            assert breaker.is_closed, where


def test_a_signal_handler_that_comes_under_the_lock_uses_the_same_breaker() -> None:
    breaker = CircuitBreaker()
    former = signal.signal(signal.SIGINT, lambda *_: breaker.call(int))
    try:
        with breaker._lock:
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, former)
    assert breaker.stats.success_count == 1


def test_a_destructor_that_comes_under_the_lock_uses_the_same_breaker() -> None:
    breaker = CircuitBreaker()

    class Dropped:
        def __del__(self) -> None:
            call(breaker, Down())

    with breaker._lock:
        Dropped()
    assert breaker.stats.failure_count == 1
    assert breaker.stats.consecutive_failures == 1


def test_a_stream_that_is_dropped_under_the_lock_is_settled() -> None:
    breaker = CircuitBreaker()

    @breaker
    def stream() -> Any:
        yield 1
        yield 2

    items = stream()
    assert next(items) == 1
    with breaker._lock:
        del items
    assert breaker.stats.ignored_count == 1
