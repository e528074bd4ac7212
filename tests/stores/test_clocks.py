"""Clocks that are wrong: the store's time may be hours off that of the members, and may jump."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from failures import Down, raising

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, CircuitState
from circuit_breaker.stores import Board, Change, Exchange, MemberLine, MemoryStore, Report
from circuit_breaker.testing import FakeClock

OPEN_S = 5.0
CONFIG = CircuitBreakerConfig(
    failure_threshold=2, reset_timeout_s=OPEN_S, half_open_max_calls=1, success_threshold=1, half_open_timeout_s=30.0
)


class Off(MemoryStore):
    """A store whose time is off by so many seconds."""

    by_s = 0.0

    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        answer = super().exchange(reports, member)
        return Exchange(answer.time + self.by_s, answer.found)

    def update(self, name: str, change: Change) -> None:
        super().update(name, lambda text, now: change(text, now + self.by_s))


class World:
    """Three members of one circuit that is open for all, and a store whose clock may jump."""

    def __init__(self, by_s: float = 0.0) -> None:
        self.clock, board = FakeClock(10_000.0), Board()
        self.stores = [Off(board, clock=self.clock, manual=True) for _ in range(3)]
        self.jump(by_s)
        self.breakers = [CircuitBreaker("api", CONFIG, clock=self.clock, store=store) for store in self.stores]
        for breaker in self.breakers:
            breaker.call(int)
        self.pass_s(3)
        for breaker in self.breakers[:2]:
            for _ in range(2):
                with pytest.raises(Down):
                    breaker.call(raising(Down()))
        self.pass_s(3)
        assert {breaker.state for breaker in self.breakers} == {CircuitState.OPEN}

    def jump(self, by_s: float) -> None:
        for store in self.stores:
            store.by_s += by_s

    def pass_s(self, seconds: int) -> None:
        for _ in range(seconds):
            for store in self.stores:
                store.sync()
            self.clock.advance(1.0)

    def permits(self) -> list[Any]:
        """Let every member ask for a probe, and return those that came."""
        found = []
        for breaker in self.breakers:
            try:
                found.append(breaker.permit())
            except CircuitOpenError:
                pass
        return found

    def closes(self, within_s: float) -> bool:
        """Tell whether calls that succeed close the circuit for all in that time; never two probes are out at once."""
        ends_at = self.clock() + within_s
        while self.clock() < ends_at:
            permits = self.permits()
            is_closed = all(breaker.state is CircuitState.CLOSED for breaker in self.breakers)
            assert len(permits) <= 1 or any(breaker.state is CircuitState.CLOSED for breaker in self.breakers)
            for permit in permits:
                permit.success()
            if is_closed:
                return True
            self.pass_s(1)
        return False


@pytest.mark.parametrize("by_s", [3_600.0, -3_600.0])
def test_a_clock_that_is_wrong_by_an_hour_changes_nothing(by_s: float) -> None:
    world = World(by_s)
    assert {round(breaker.snapshot().retry_after_s or 0.0) for breaker in world.breakers} == {2}
    assert world.permits() == []
    assert world.closes(within_s=OPEN_S)


@pytest.mark.parametrize("by_s", [3_600.0, 2.0, -2.0, -3_600.0])
def test_a_clock_that_jumps_makes_a_probe_early_or_one_open_time_late(by_s: float) -> None:
    world = World()
    world.jump(by_s)
    assert world.closes(within_s=2 * OPEN_S + 3.0)


@pytest.mark.parametrize("by_s", [3_600.0, -3_600.0])
def test_a_clock_that_jumps_while_a_probe_is_out_wedges_nothing(by_s: float) -> None:
    world = World()
    world.pass_s(3)
    (permit,) = world.permits()
    world.jump(by_s)
    world.pass_s(2)
    permit.failure()
    world.pass_s(2)
    assert world.closes(within_s=2 * OPEN_S + 3.0)


@pytest.mark.parametrize("by_s", [3_600.0, -3_600.0])
def test_a_lease_of_a_process_that_died_before_the_clock_jumped_runs_out(by_s: float) -> None:
    world = World()
    world.pass_s(3)
    (permit,) = world.permits()
    holder = next(number for number, each in enumerate(world.breakers) if each.snapshot().probes_in_flight)
    del world.stores[holder], world.breakers[holder]  # it renews nothing any more
    world.jump(by_s)
    assert world.closes(within_s=14.0)
    permit.ignore()
