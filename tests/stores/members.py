"""Several processes in one: each member has a store of its own over one board, and nothing happens by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from failures import Down

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, CircuitState
from circuit_breaker._shared.protocol import Change, Exchange, MemberLine, Report
from circuit_breaker.stores import Board, MemoryStore, SharedCircuit
from circuit_breaker.testing import FakeClock

FAST: dict[str, Any] = {"failure_threshold": 3, "reset_timeout_s": 5.0, "success_threshold": 2}


class Unreachable(Exception):
    """What the store raises."""


class FlakyStore(MemoryStore):
    """A store that fails as it is told to.

    Attributes:
        lose_requests: nothing arrives.
        lose_answers: everything arrives, but no answer comes back.
        lose_changes: changes of records do not arrive, exchanges do.
        asked: how often it was asked, by method.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.lose_requests = self.lose_answers = self.lose_changes = False
        self.asked = {"exchange": 0, "update": 0}
        self.reports: list[Report] = []

    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        self.asked["exchange"] += 1
        self.reports = list(reports)
        return self._lost(lambda: super(FlakyStore, self).exchange(reports, member), self.lose_requests)

    def update(self, name: str, change: Change) -> None:
        self.asked["update"] += 1
        self._lost(lambda: super(FlakyStore, self).update(name, change), self.lose_requests or self.lose_changes)

    def _lost(self, ask: Callable[[], Any], request: bool) -> Any:
        if request:
            raise Unreachable("the request is lost")
        answer = ask()
        if self.lose_answers:
            raise Unreachable("the answer is lost")
        return answer


class Member:
    """One process: its store, its breaker, and what its listeners were told."""

    def __init__(self, fleet: Fleet, **settings: Any) -> None:
        self.events: list[Any] = []
        self.store = FlakyStore(fleet.board, clock=fleet.clock, manual=True)
        self.settings = {**fleet.settings, **settings}
        self.breaker = self.another(listeners=[self.events.append])
        self.clock = fleet.clock

    def another(self, name: str = "api", **beside: Any) -> CircuitBreaker:
        """Return one more breaker of this process."""
        config = CircuitBreakerConfig(**self.settings)
        return CircuitBreaker(name, config, clock=self.store.clock, store=self.store, **beside)

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.call(int)

    def fail(self, times: int = 1) -> None:
        def body() -> None:
            raise Down

        for _ in range(times):
            with pytest.raises(Down):
                self.breaker.call(body)

    def is_rejected(self) -> bool:
        """Make one call, which succeeds if it is admitted."""
        try:
            self.breaker.call(int)
        except CircuitOpenError:
            return True
        return False

    def sync(self) -> None:
        self.store.sync()

    @property
    def state(self) -> CircuitState:
        return self.breaker.state

    @property
    def shared(self) -> Any:
        return self.breaker.snapshot().shared


class Fleet:
    """Members of one circuit, called "api", on one clock."""

    def __init__(self, members: int = 3, **settings: Any) -> None:
        self.clock = FakeClock(1_000.0)
        self.board = Board()
        self.settings = {**FAST, **settings}
        self.members = [Member(self) for _ in range(members)]
        self.admin = MemoryStore(self.board, clock=self.clock, manual=True)

    def join(self, **settings: Any) -> Member:
        """Add a member."""
        member = Member(self, **settings)
        self.members.append(member)
        return member

    def interval(self, times: int = 1) -> None:
        """Let each member exchange, and a second pass."""
        for _ in range(times):
            self.exchange()
            self.clock.advance(1.0)

    def exchange(self) -> None:
        for member in self.members:
            try:
                member.sync()
            except Unreachable:
                pass

    def start(self) -> None:
        """Let all members succeed once, and hear of each other."""
        for member in self.members:
            member.succeed()
        self.interval(2)

    def open(self) -> None:
        """Open the circuit for all: the first two members open by themselves."""
        self.start()
        for member in self.members[:2]:
            member.fail(FAST["failure_threshold"])
        self.interval(3)
        assert self.record.state is CircuitState.OPEN
        assert self.states() == {CircuitState.OPEN}

    def half_open(self) -> None:
        """Let the open time pass."""
        self.open()
        self.clock.advance(5.0)
        assert self.states() == {CircuitState.HALF_OPEN}

    def states(self) -> set[CircuitState]:
        return {member.state for member in self.members}

    @property
    def record(self) -> SharedCircuit:
        (circuit,) = [circuit for circuit in self.admin.circuits() if circuit.name == "api"]
        return circuit
