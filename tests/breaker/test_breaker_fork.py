"""The breaker in a forked child: no lock is held, no permit out, and what the parent had under way has no effect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from calls import fail, succeed
from clocks import Clock
from failures import Down
from forks import fork, told_by_child
from garbage import catch_up
from needs import needs_fork
from patience import PATIENCE_S
from ways import BREAKER, Way

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._common import fork as _fork
from circuit_breaker._common.events import StateChanged
from circuit_breaker._common.words import CircuitState

pytestmark = needs_fork

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

Make = Callable[..., CircuitBreaker]

# An event loop that runs through a fork would have two processes share its selector.
WITHOUT_A_LOOP = {name: way for name, way in BREAKER.items() if not way.is_async}
every_way = pytest.mark.parametrize("way", WITHOUT_A_LOOP.values(), ids=WITHOUT_A_LOOP)


@contextmanager
def held(breaker: CircuitBreaker) -> Iterator[None]:
    """Have another thread hold the lock."""
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with breaker._machine.lock:
            holding.set()
            done.wait(PATIENCE_S)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(PATIENCE_S)
    try:
        yield
    finally:
        done.set()
        holder.join()


def seen(breaker: CircuitBreaker) -> tuple[Any, ...]:
    snapshot = breaker.snapshot()
    stats = snapshot.stats
    return (
        snapshot.machine_state.value,
        snapshot.probes_in_flight,
        (stats.success_count, stats.failure_count, stats.ignored_count),
        (snapshot.window_calls, snapshot.window_failures),
    )


def test_child_does_not_deadlock_on_a_lock_that_another_thread_held(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, success_threshold=1)
    stats = breaker.stats

    def tell() -> list[Any]:
        told: list[Any] = []
        succeed(breaker)
        told.append(stats.success_count)
        fail(breaker)
        told.append(breaker.state.value)
        clock.advance(30)
        succeed(breaker)
        told.append(breaker.state.value)
        stats.reset()
        told.append(breaker.stats.copy().success_count)
        return told

    with held(breaker):
        told = told_by_child(tell)
    assert told == "[1, 'open', 'closed', 0]"
    assert seen(breaker) == ("closed", 0, (0, 0, 0), (0, 0))


def test_stats_first_asked_for_in_the_child_work_there(make: Make) -> None:
    breaker = make()
    succeed(breaker)
    with held(breaker):
        assert told_by_child(lambda: breaker.stats.success_count) == "1"


def test_child_has_what_was_counted_and_goes_on_counting(make: Make) -> None:
    breaker = make(failure_threshold=3, error_rate_window=10, error_rate_threshold=1.0)
    succeed(breaker, 2)
    fail(breaker, 2)

    def tell() -> tuple[Any, ...]:
        fail(breaker)
        return seen(breaker)

    assert told_by_child(lambda: seen(breaker)) == repr(seen(breaker)) == "('closed', 0, (2, 2, 0), (4, 2))"
    assert told_by_child(tell) == "('open', 0, (2, 3, 0), (5, 3))"


def test_open_circuit_is_open_in_the_child_until_its_time_is_over(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, reset_timeout_s=10)
    fail(breaker)
    clock.advance(9)

    def tell() -> list[str]:
        told = [breaker.state.value]
        clock.advance(1)
        return [*told, breaker.state.value]

    assert told_by_child(tell) == "['open', 'half_open']"


def test_permits_that_are_out_are_gone_in_the_child(probing: Make) -> None:
    breaker = probing(half_open_max_calls=3, success_threshold=9)
    breaker.permit()
    breaker.__enter__()
    breaker.allow_request()

    def tell() -> list[Any]:
        free = breaker.snapshot().probes_in_flight
        return [free, *(breaker.allow_request() for _ in range(4))]

    assert told_by_child(tell) == "[0, True, True, True, False]"
    assert breaker.snapshot().probes_in_flight == 3
    breaker.__exit__(None, None, None)


def test_probes_that_succeeded_before_the_fork_still_count_in_the_child(probing: Make) -> None:
    breaker = probing(success_threshold=2)
    succeed(breaker)

    def tell() -> str:
        succeed(breaker)
        return breaker.state.value

    assert told_by_child(tell) == "'closed'"
    assert breaker.state is HALF_OPEN


@pytest.mark.parametrize("error", [None, Down, KeyboardInterrupt])
@pytest.mark.parametrize("state", [CLOSED, HALF_OPEN])
@every_way
def test_call_under_way_at_the_fork_ends_in_the_child_without_effect_on_its_circuit(
    way: Way, state: CircuitState, error: type[BaseException] | None, make: Make, probing: Make
) -> None:
    settings = {"failure_threshold": 1, "error_rate_threshold": 1.0, "error_rate_window": 10}
    breaker = make(**settings) if state is CLOSED else probing(**settings)

    def body() -> int:
        child = fork()
        if child == 0 and error is not None:
            raise error
        return child

    def forking() -> int:
        with suppress(Down, KeyboardInterrupt):
            return int(way(breaker, body))
        return 0

    told = told_by_child(lambda: seen(breaker), forking)
    counted = {None: (1, 0, 0), Down: (0, 1, 0), KeyboardInterrupt: (0, 0, 1)}[error]
    window = (0, 0) if state is CLOSED else (1, 1)  # as it was when the circuit opened
    assert told == repr((state.value, 0, counted, window))
    assert seen(breaker) == ("closed", 0, (1, 0, 0), (1 if state is CLOSED else 0, 0))


@every_way
def test_call_that_the_child_makes_inside_one_of_the_parent_counts_as_its_own(way: Way, probing: Make) -> None:
    breaker = probing()

    def body() -> int:
        child = fork()
        if child == 0:
            assert breaker.snapshot().probes_in_flight == 0
            succeed(breaker)
            assert breaker.is_closed
        return child

    assert told_by_child(lambda: seen(breaker), lambda: int(way(breaker, body))) == "('closed', 0, (2, 0, 0), (0, 0))"


def test_permit_in_hand_at_the_fork_is_settled_once_in_each_process(probing: Make) -> None:
    breaker = probing()
    permit = breaker.permit()

    def tell() -> tuple[Any, ...]:
        permit.failure()
        with pytest.raises(RuntimeError):
            permit.failure()
        return seen(breaker)

    assert told_by_child(tell) == "('half_open', 0, (0, 1, 0), (1, 1))"
    permit.success()
    assert breaker.is_closed


def test_stream_under_way_at_the_fork_ends_in_the_child_without_effect(probing: Make) -> None:
    breaker = probing()

    @breaker
    def numbers() -> Iterator[int]:
        yield from range(3)

    stream = numbers()
    next(stream)

    def tell() -> tuple[Any, ...]:
        next(stream)
        other = breaker.permit()
        assert list(stream) == [2]
        other.ignore()
        return seen(breaker)

    assert told_by_child(tell) == "('half_open', 0, (1, 0, 1), (1, 1))"
    assert list(stream) == [1, 2]
    assert breaker.is_closed


def test_child_tells_its_own_changes_though_another_thread_was_telling_at_the_fork(make: Make, clock: Clock) -> None:
    telling, done = threading.Event(), threading.Event()
    told: list[str] = []

    def listener(event: object) -> None:
        if isinstance(event, StateChanged):
            told.append(event.new_state.value)
            if threading.current_thread() is not threading.main_thread():
                telling.set()
                done.wait(PATIENCE_S)

    breaker = make(failure_threshold=1, listeners=[listener])

    def tell() -> list[str]:
        clock.advance(30)
        assert breaker.state is HALF_OPEN
        return told

    thread = threading.Thread(target=fail, args=(breaker,))
    thread.start()
    telling.wait(PATIENCE_S)
    breaker.reset()
    fail(breaker)
    in_child = told_by_child(tell)
    assert told == ["open"]
    done.set()
    thread.join()
    assert in_child == "['open', 'half_open']", "the parent delivers its own changes"
    assert breaker.is_open  # the next call delivers the changes that are left
    assert told == ["open", "closed", "open"]


def test_fork_inside_a_listener_lets_both_processes_tell_on(make: Make, clock: Clock) -> None:
    told: list[str] = []
    children: list[int] = []

    def listener(event: object) -> None:
        if isinstance(event, StateChanged):
            told.append(event.new_state.value)
            if len(told) == 1:
                breaker.reset()
                children.append(fork())

    breaker = make(failure_threshold=1, listeners=[listener])

    def forking() -> int:
        fail(breaker)
        return children[0]

    def tell() -> list[str]:
        fail(breaker)
        return told

    assert told_by_child(tell, forking) == "['open', 'open']"
    assert told == ["open", "closed"]


def test_forgotten_breakers_are_no_part_of_the_child(make: Make) -> None:
    names = [make("forgotten").name]
    kept = make("kept")
    names.append(kept.name)

    def tell() -> list[str]:
        return sorted(breaker.name for breaker in CircuitBreaker.instances() if breaker.name in names)

    catch_up()
    assert told_by_child(tell) == "['kept']"


def test_what_died_just_before_the_fork_is_passed_by(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    breaker, dead = make(), make()
    lock = breaker._machine.lock
    monkeypatch.setattr(_fork, "_living", dict.fromkeys([_fork.Reference(dead), _fork.Reference(breaker)]))
    del dead
    _fork._in_child()
    assert breaker._machine.lock is not lock


def test_a_child_whose_totals_nobody_has_looked_at_counts_all_the_same(make: Make) -> None:
    breaker = make()
    succeed(breaker)

    def tell() -> int:
        succeed(breaker)
        return breaker.snapshot().stats.success_count

    assert told_by_child(tell) == "2"
