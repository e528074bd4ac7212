"""A wall clock that jumps by days changes the dates that are reported and those that are read, and nothing else."""

from __future__ import annotations

import inspect
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from email.utils import formatdate
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from clocks import Clock
from failures import Down

from circuit_breaker import (
    Bulkhead,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitSnapshot,
    RetryBudget,
    RetryPolicy,
    bulkhead,
    circuit_breaker,
    retry,
    retry_after_hint,
)
from circuit_breaker._bulkhead.gates import ThreadGate

DAY_S = 86_400.0
START = 1_700_000_000.0

Story = Callable[[Clock], Iterator[Any]]


class Wall:
    """A wall clock that goes on with the monotonic one, but jumps at every single look."""

    def __init__(self, clock: Clock, *jumps: float) -> None:
        self.clock = clock
        self.jumps = cycle(jumps)
        self.jumped = 0.0
        self.looks = 0

    def jump(self) -> None:
        self.jumped += next(self.jumps)

    def __call__(self) -> float:
        self.looks += 1
        self.jump()
        return START + self.jumped + self.clock.now


class Coupled(Clock):
    """A monotonic clock at whose every advance the wall clock jumps, too."""

    def __init__(self, *jumps: float) -> None:
        super().__init__()
        self.wall = Wall(self, *jumps)
        self.advances = 0

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self.advances += 1
        self.wall.jump()


@pytest.fixture(autouse=True)
def _nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `logging` looks at the wall clock, too."""
    monkeypatch.setattr(logging.getLogger("circuit_breaker"), "disabled", True)


def down() -> None:
    raise Down


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except (Down, CircuitOpenError) as error:
        return type(error).__name__, getattr(error, "retry_after_s", None)


def undated(snapshot: CircuitSnapshot) -> CircuitSnapshot:
    return replace(snapshot, stats=replace(snapshot.stats, last_failure_time=None, last_success_time=None))


def streak_and_probes(clock: Clock) -> Iterator[Any]:
    """It opens after a streak, rejects, probes, opens again, loses a probe, and closes."""
    breaker = CircuitBreaker("api", CircuitBreakerConfig(3, 2, 10.0, 1, half_open_timeout_s=5.0), clock=clock)
    for seconds in (0.0, 1.0, 1.0, 4.0, 5.0, 0.9, 0.1):
        clock.advance(seconds)
        yield outcome(lambda: breaker.call(down))
        yield undated(breaker.snapshot())
    clock.advance(9.9)
    yield outcome(lambda: breaker.call(int))
    clock.advance(0.1)
    yield type(breaker.permit()), outcome(lambda: breaker.call(int))
    clock.advance(4.9)
    yield outcome(lambda: breaker.call(int))
    clock.advance(0.1)
    yield outcome(lambda: breaker.call(int)), undated(breaker.snapshot())
    yield outcome(lambda: breaker.call(int)), undated(breaker.snapshot())


def windows(clock: Clock) -> Iterator[Any]:
    """Failures and slow calls leave a window of time as it passes, and open the circuit when there are enough."""
    config = CircuitBreakerConfig(
        None,
        error_rate_threshold=0.5,
        error_rate_window=timedelta(seconds=30),
        minimum_calls=4,
        slow_call_duration_s=1.0,
        slow_call_rate_threshold=0.9,
    )
    breaker = CircuitBreaker("api", config, clock=clock)
    for seconds in (0.0, 10.0, 10.0, 15.0, 31.0, 1.0, 1.0, 1.0):
        clock.advance(seconds)
        yield outcome(lambda: breaker.call(down)), undated(breaker.snapshot())
    breaker.reset()
    for _ in range(4):
        yield outcome(lambda: breaker.call(clock.advance, 1.5)), undated(breaker.snapshot())


def server_wishes(clock: Clock) -> Iterator[Any]:
    """An open period that a server has made longer, and the retries that wait as long."""
    config = CircuitBreakerConfig(1, 1, 5.0, retry_after=lambda error: 60.0)
    breaker = CircuitBreaker("api", config, clock=clock)
    yield outcome(lambda: breaker.call(down))
    for seconds in (5.0, 54.0, 1.0):
        clock.advance(seconds)
        yield outcome(lambda: breaker.call(int))


def retries(clock: Clock) -> Iterator[Any]:
    """Deadlines, delays, their events, and tokens that are added over time."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    budget = RetryBudget(0.0, 0.5, 2, clock=clock)
    events: list[Any] = []
    policy = RetryPolicy(
        None, 1.0, jitter=False, max_elapsed_s=20.0, sleep=sleep, clock=clock, listeners=[events.append]
    )
    yield outcome(lambda: policy.call(down)), slept, [replace(event, error=None) for event in events]
    for seconds in (0.0, 0.0, 1.0, 1.0, 60.0):
        clock.advance(seconds)
        yield budget.take(), budget.tokens
    yield [int(attempt) for attempt in replace(policy, budget=budget).attempts()], slept


def places(clock: Clock) -> Iterator[Any]:
    """A bulkhead's time-out, its waiting time, and a registry that forgets who has no failures in mind any more."""
    bulkhead = Bulkhead("api", 1, 1, 7.0, clock=clock)
    yield bulkhead.acquire(), clock.now
    yield bulkhead.acquire(), clock.now, bulkhead.snapshot()
    config = CircuitBreakerConfig(None, error_rate_threshold=1.0, error_rate_window=timedelta(seconds=30))
    registry = CircuitBreakerRegistry(config, max_size=2, clock=clock)
    for seconds in (0.0, 31.0):
        outcome(lambda: registry["a"].call(down))
        registry["a"].call(int)
        yield registry["b"].name, list(registry)
        clock.advance(seconds)
        yield registry["c"].name, list(registry)


def told(story: Story, jumps: tuple[float, ...], patch: pytest.MonkeyPatch) -> tuple[list[str], Coupled]:
    clock = Coupled(*jumps)

    def sleep(gate: ThreadGate, _: object) -> bool:
        clock.advance(gate._deadline - clock())
        return False

    with patch.context() as patched:
        patched.setattr(time, "time", clock.wall)
        patched.setattr(time, "monotonic", clock)
        patched.setattr(ThreadGate, "sleep", sleep)
        return [repr(each) for each in story(clock)], clock


# Each story, and whether the library looks at the wall clock in it: for the totals of a snapshot, for nothing else.
STORIES: dict[Story, bool] = {
    streak_and_probes: True,
    windows: True,
    server_wishes: False,
    retries: False,
    places: False,
}


@pytest.mark.parametrize(
    "jumps", [(DAY_S,), (-DAY_S,), (DAY_S, -DAY_S), (-DAY_S, DAY_S)], ids=["on", "back", "on, back", "back, on"]
)
@pytest.mark.parametrize("story", STORIES)
def test_days_that_the_wall_clock_jumps_change_nothing_that_happens(
    story: Story, jumps: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = told(story, (0.0,), monkeypatch)
    seen, clock = told(story, jumps, monkeypatch)
    assert seen == expected
    assert clock.advances > 0, "without an advance there may have been no jump"
    assert (clock.wall.looks > 0) == STORIES[story]


def test_the_library_knows_one_wall_clock_which_is_the_one_that_jumps_here() -> None:
    others = r"\b(from time import|time_ns|localtime|gmtime|ctime|strftime|datetime\.now|utcnow|today)\b"
    package = Path(inspect.getfile(CircuitBreaker)).parent
    assert [path.name for path in package.glob("*.py") if re.search(others, path.read_text("utf-8"))] == []


def test_the_stories_go_through_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(story: Story) -> str:
        return "\n".join(told(story, (0.0,), monkeypatch)[0])

    probes = of(streak_and_probes)
    assert all(f"state=<CircuitState.{state}" in probes for state in ("CLOSED", "OPEN", "HALF_OPEN"))
    assert "opened_count=2" in probes
    assert probes.splitlines()[-1].count("<CircuitState.CLOSED: 'closed'>") == 2
    assert of(windows).count("machine_state=<CircuitState.OPEN") >= 2
    assert of(server_wishes).splitlines() == [
        "('Down', None)",
        "('CircuitOpenError', 55.0)",
        "('CircuitOpenError', 1.0)",
        "0",
    ]
    assert "[1.0, 2.0, 4.0, 8.0]" in of(retries).splitlines()[0]
    assert "timed_out_count=1" in of(places)
    assert "(False, 1007.0" in of(places)
    assert of(places).splitlines()[-1] == "('c', ['b', 'c'])"


@pytest.mark.parametrize(
    "maker",
    [Bulkhead, CircuitBreaker, CircuitBreakerRegistry, RetryBudget, RetryPolicy, bulkhead, circuit_breaker, retry],
)
def test_the_clock_that_nobody_has_chosen_is_monotonic(maker: Callable[..., object]) -> None:
    assert inspect.signature(maker).parameters["clock"].default is time.monotonic


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_dates_that_are_reported_go_with_the_wall_clock_and_what_was_shown_keeps_its_own(
    jump_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    wall = Wall(clock, 0.0)
    monkeypatch.setattr(time, "time", wall)
    breaker = CircuitBreaker("api", clock=clock)
    breaker.call(int)
    assert breaker.stats.last_success_time == START + clock.now
    before = START + clock.now
    clock.advance(1.0)
    wall.jumped += jump_s
    outcome(lambda: breaker.call(down))
    assert breaker.stats.last_failure_time == START + jump_s + clock.now
    assert breaker.stats.last_success_time == before


SECONDS_ASKED_FOR = [(0.0, 60.0), (20.0, 40.0), (-20.0, 80.0), (DAY_S, 0.0), (-DAY_S, DAY_S + 60.0)]


class Busy(Exception):
    """Has a `Retry-After` with a date in one minute."""

    def __init__(self, clock: Clock) -> None:
        self.headers = {"Retry-After": formatdate(START + clock.now + 60.0, usegmt=True)}


def busy(clock: Clock) -> None:
    raise Busy(clock)


@pytest.mark.parametrize(("jump_s", "asked_s"), SECONDS_ASKED_FOR)
def test_a_date_opens_the_circuit_for_as_long_as_the_wall_clock_says_when_it_is_read_and_then_for_so_long(
    jump_s: float, asked_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    wall = Wall(clock, jump_s, DAY_S)
    monkeypatch.setattr(time, "time", wall)
    config = CircuitBreakerConfig(1, 1, 5.0, retry_after=retry_after_hint, retry_after_max_s=300.0)
    breaker = CircuitBreaker("api", config, clock=clock)
    with pytest.raises(Busy):
        breaker.call(busy, clock)
    assert wall.looks == 1
    open_s = min(max(asked_s, 5.0), 300.0)
    for seconds, left_s in ((0.0, open_s), (1.0, open_s - 1.0), (open_s - 2.0, 1.0)):
        clock.advance(seconds)
        wall.jump()
        assert outcome(lambda: breaker.call(int)) == ("CircuitOpenError", left_s)
    clock.advance(1.0)
    assert breaker.call(int) == 0
    assert wall.looks == 1


@pytest.mark.parametrize(("jump_s", "asked_s"), SECONDS_ASKED_FOR)
def test_a_date_puts_a_retry_off_for_as_long_as_the_wall_clock_says_when_it_is_read(
    jump_s: float, asked_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    wall = Wall(clock, jump_s, DAY_S)
    monkeypatch.setattr(time, "time", wall)
    slept: list[float] = []
    policy = RetryPolicy(1, 5.0, jitter=False, retry_after_max_s=300.0, sleep=slept.append, clock=clock)
    with pytest.raises(Busy):
        policy.call(busy, clock)
    assert slept == ([asked_s + 5.0] if asked_s <= 300.0 else [])
    assert wall.looks == 1
