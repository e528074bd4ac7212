"""What comes in between two steps: another thread, or on the same thread a destructor or a signal handler.

A locked section calls nothing and makes nothing, so nothing comes in the middle of one. Each action is walked through
again and again, and before every other line in turn another action is done on the same breaker.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from clocks import Clock
from failures import Down
from garbage import collect
from patience import PATIENCE_S
from places import do_between

from circuit_breaker._breaker import admission as _admission
from circuit_breaker._breaker import machine as _machine
from circuit_breaker._breaker import states as _states
from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common.events import CallFinished, CallRejected, StateChanged
from circuit_breaker._common.words import CircuitMode, CircuitState
from circuit_breaker.exceptions import CircuitOpenError

ROOMS = (_admission.__file__, _machine.__file__, str(Path(_states.__file__).parent))
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
READERS = {"totals", "snapshot"}  # change nothing that "state" does not


class Scene:
    """A breaker in one situation, and all that it tells."""

    def __init__(self, failures: int, waits_s: float, probes: int = 1) -> None:
        self.clock = Clock()
        self.events: list[Any] = []
        config = CircuitBreakerConfig(
            2,
            success_threshold=probes,
            half_open_max_calls=probes,
            half_open_failure_threshold=probes,
            error_rate_threshold=0.9,
            error_rate_window=2,
        )
        self.breaker = CircuitBreaker("api", config, listeners=[self.events.append], clock=self.clock)
        for _ in range(failures):
            self.breaker.record_failure()
        self.clock.advance(waits_s)

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    def opened_by_another_thread(self, then: str) -> Scene:
        """Open it by a thread that has only written the log line until now, or only notified listeners."""
        machine = self.breaker._machine
        machine.trip(self.clock(), "by another thread")
        if then == "logged":
            for change in machine.take_changes():
                _admission.log(0, "", new_state=change.new_state.value)
        else:
            self.breaker._deliver()
        return self

    def check(self, outer: str, inner: str, here: bool) -> None:
        """What was counted was told, once and in order, and after a while the circuit closes at a success."""
        breaker = self.breaker
        while breaker._machine.undelivered:
            breaker.state  # noqa: B018 - the next look reports what is left
        stats, changes = breaker.stats.copy(), self.told(StateChanged)  # type: ignore[attr-defined]
        if "reset" not in {outer, inner}:
            counted = stats.success_count + stats.failure_count + stats.ignored_count
            assert counted == len(self.told(CallFinished))
            assert stats.rejected_count == len(self.told(CallRejected))
            assert stats.opened_count == sum(change.new_state is OPEN for change in changes)
        if outer == "another mode" and inner != "reset":
            assert breaker.mode is CircuitMode.SHADOW
        if outer == "reset" and inner != "another mode":
            assert breaker.mode is CircuitMode.AUTO
        state = CLOSED
        for change in changes:
            assert change.old_state is state
            state = change.new_state
        period = breaker._machine.period
        assert period.state is state
        if state is HALF_OPEN and not here:  # on the same thread it may be part of the outer probe
            assert (period.book.successes, period.book.failures) == (period.successes, period.failures)
        assert not breaker._machine.changes
        assert breaker._delivering is None
        assert len(period.book.out) <= breaker.config.half_open_max_calls
        self.clock.advance(30)
        for _ in range(breaker.config.success_threshold):
            breaker.call(int)
        assert breaker._machine.period.state is CLOSED


SCENES: dict[str, Callable[[], Scene]] = {
    "closed": lambda: Scene(0, 0),
    "one failure from open": lambda: Scene(1, 0),
    "open": lambda: Scene(2, 0),
    "open, to be logged": lambda: Scene(0, 0).opened_by_another_thread("told"),
    "open, to be told": lambda: Scene(0, 0).opened_by_another_thread("logged"),
    "due for probing": lambda: Scene(2, 30),
    "due for two probes": lambda: Scene(2, 30, 2),
}


@pytest.fixture(scope="module")
def other_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("outer", ACTIONS)
@pytest.mark.parametrize("name", SCENES)
def test_interruptions_lose_nothing_double_nothing_and_block_nothing(
    name: str, outer: str, other_thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[object] = []
    monkeypatch.setattr(_admission, "log", lambda level, message, *args, **fields: lines.append(fields["new_state"]))
    places = 0
    for turn, inner in enumerate(name for name in ACTIONS if name not in READERS):
        for place in itertools.count(1 + turn % 2, 2):  # each at every other place, else it would take minutes
            lines.clear()
            scene = SCENES[name]()
            breaker = scene.breaker
            owned = breaker._machine.lock._is_owned
            here = place % 4 < 2

            def meanwhile(inner: str = inner, breaker: CircuitBreaker = breaker, here: bool = here) -> None:
                if here:
                    ACTIONS[inner](breaker)
                else:
                    other_thread.submit(ACTIONS[inner], breaker).result(PATIENCE_S)

            if not do_between(
                place,
                lambda breaker=breaker: ACTIONS[outer](breaker),
                meanwhile,
                lambda owned=owned: not owned(),
                ROOMS,
            ):
                break
            places += 1
            try:
                scene.check(outer, inner, here)
                assert sorted(lines) == sorted(change.new_state.value for change in scene.told(StateChanged))
            except AssertionError as error:
                error.add_note(f"{inner} at {place} {'on the same thread' if here else 'in another thread'}")
                raise
    assert places >= len(ACTIONS) - len(READERS)


def test_a_signal_handler_that_comes_under_the_lock_uses_the_same_breaker() -> None:
    breaker = CircuitBreaker()
    former = signal.signal(signal.SIGINT, lambda *_: breaker.call(int))
    try:
        with breaker._machine.lock:
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, former)
    assert breaker.stats.success_count == 1


def test_a_destructor_that_comes_under_the_lock_uses_the_same_breaker() -> None:
    breaker = CircuitBreaker()

    class Dropped:
        def __del__(self) -> None:
            call(breaker, Down())

    with breaker._machine.lock:
        Dropped()
        collect()
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
    with breaker._machine.lock:
        del items
        collect()
    assert breaker.stats.success_count == 1
