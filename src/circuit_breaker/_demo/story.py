"""The story of the demonstration: its phases one after the other, and what the library reports.

All figures are those that any user can read: `snapshot()` of breaker and bulkhead, and events given to listeners.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from http.client import HTTPException
from threading import Lock
from typing import Final, Protocol

from circuit_breaker import (
    Bulkhead,
    BulkheadFullError,
    BulkheadSnapshot,
    CircuitOpenError,
    CircuitSnapshot,
    CircuitState,
    RetryScheduled,
    StateChanged,
)
from circuit_breaker._demo.plan import QUARTER_S, Phase, Plan
from circuit_breaker._demo.server import Elsewhere, Server

LATEST: Final = 1.5  # how much longer than planned it may take on a busy machine until the circuit is closed again

_retried: ContextVar[bool] = ContextVar("retried")  # whether the call under way was retried


@dataclass(frozen=True)
class Quarter:
    """A quarter of a second: its most telling state, and how many calls there were.

    Attributes:
        at_s: when it ended, in seconds since the start.
        calls: those that the server answered or owed an answer; `failures` are among them.
        rejected: those that the circuit rejected.
    """

    at_s: float
    phase: Phase
    state: CircuitState
    calls: int
    failures: int
    rejected: int


@dataclass(frozen=True)
class Change:
    """The circuit went to another state."""

    at_s: float
    state: CircuitState
    reason: str


@dataclass(frozen=True)
class Chapter:
    """What the breaker was when a phase began."""

    at_s: float
    breaker: CircuitSnapshot


@dataclass(frozen=True)
class Ending:
    """The figures of the summary.

    Attributes:
        chapters: how each phase that was reached began.
        changes: what the circuit did, in order.
        retries: how many attempts were made beyond the first.
        saved: how many calls were answered only because of them.
        processes: how many shared the circuit; None: it is of one.
    """

    chapters: dict[Phase, Chapter]
    changes: list[Change]
    breaker: CircuitSnapshot
    bulkhead: BulkheadSnapshot
    retries: int = 0
    saved: int = 0
    processes: int | None = None

    @property
    def opened(self) -> Change | None:
        """How the circuit opened, once the server was failing."""
        return next((change for change in self._since(Phase.FAILS) if change.state is CircuitState.OPEN), None)

    @property
    def closed(self) -> Change | None:
        """How the circuit closed for good, once the server had recovered."""
        last = next(reversed(self._since(Phase.RECOVERED)), None)
        return last if last is not None and last.state is CircuitState.CLOSED else None

    @property
    def opened_after_s(self) -> float | None:
        """Seconds from the first failure of the server to the open circuit; None: it did not open."""
        return None if self.opened is None else self.opened.at_s - self.chapters[Phase.FAILS].at_s

    @property
    def closed_after_s(self) -> float | None:
        """Seconds from the recovery to the closed circuit; None: it did not close."""
        return None if self.closed is None else self.closed.at_s - self.chapters[Phase.RECOVERED].at_s

    @property
    def rejected(self) -> int:
        """How many calls were rejected while the server was failing."""
        begin, end = self._outage()
        return end.stats.rejected_count - begin.stats.rejected_count

    @property
    def admitted(self) -> int:
        """How many calls reached it nevertheless."""
        begin, end = self._outage()
        return answers(end) - answers(begin)

    @property
    def as_told(self) -> bool:
        """Whether the circuit opened and closed again."""
        return self.opened is not None and self.closed is not None

    def _since(self, phase: Phase) -> list[Change]:
        chapter = self.chapters.get(phase)
        return [] if chapter is None else [change for change in self.changes if change.at_s >= chapter.at_s]

    def _outage(self) -> tuple[CircuitSnapshot, CircuitSnapshot]:
        """Return the breaker as it was when the server began to fail, and when it recovered, or at the end."""
        begin, end = self.chapters.get(Phase.FAILS), self.chapters.get(Phase.RECOVERED)
        return (self.breaker if begin is None else begin.breaker, self.breaker if end is None else end.breaker)


def answers(snapshot: CircuitSnapshot) -> int:
    """Return how many calls reached the server."""
    return snapshot.stats.success_count + snapshot.stats.failure_count


def quarter(
    at_s: float, phase: Phase, before: CircuitSnapshot, after: CircuitSnapshot, changes: list[Change]
) -> Quarter:
    """Return what happened between two snapshots. A probe is shown even if it ended before the second one."""
    state = after.state
    if state is CircuitState.OPEN and any(change.state is CircuitState.HALF_OPEN for change in changes):
        state = CircuitState.HALF_OPEN
    return Quarter(
        at_s,
        phase,
        state,
        answers(after) - answers(before),
        after.stats.failure_count - before.stats.failure_count,
        after.stats.rejected_count - before.stats.rejected_count,
    )


class Watched(Protocol):
    """A breaker, as far as the story looks at it."""

    @property
    def is_closed(self) -> bool: ...

    def snapshot(self) -> CircuitSnapshot: ...


@dataclass
class Story:
    """Lets the server fail and recover while callers call, and keeps what the library reports.

    Attributes:
        show: is given each quarter of a second as it ends.
        over: the callers stop when it is true.
        interrupted: the user has asked to stop.
    """

    plan: Plan
    server: Server | Elsewhere
    show: Callable[[Quarter], object]
    over: bool = False
    interrupted: bool = False
    clock: Callable[[], float] = time.monotonic
    # `_lock` guards the four after it, which change on the threads of the callers; nothing else happens under it.
    _lock: Lock = field(default_factory=Lock)
    _changes: list[Change] = field(default_factory=list[Change])
    _retries: int = 0
    _saved: int = 0

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._chapters: dict[Phase, Chapter] = {}

    def listen(self, event: object) -> None:
        """The listener of breaker and retry. A `RetryScheduled` arrives in the context of the call that is retried."""
        if isinstance(event, StateChanged):
            change = Change(self._now_s(), event.new_state, event.reason)
            with self._lock:
                self._changes.append(change)
        elif isinstance(event, RetryScheduled):
            _retried.set(True)
            with self._lock:
                self._retries += 1

    @contextmanager
    def calling(self) -> Generator[None, None, None]:
        """Make one call in the `with` block, as a caller who handles rejections and errors of the server."""
        _retried.set(False)
        try:
            yield
        except (CircuitOpenError, BulkheadFullError, OSError, HTTPException):
            return
        if _retried.get():
            with self._lock:
                self._saved += 1

    def happen(self, breaker: Watched) -> Iterator[float]:
        """Run the story: yield how long to sleep, until it is over."""
        self._began = due = self.clock()
        before, shown = breaker.snapshot(), 0
        for number in range(round(self.plan.quarters * LATEST)):
            if number >= self.plan.quarters and breaker.is_closed:
                return
            self._turn(self.plan.phase(number), breaker)
            # If the machine stood still, the rest of the story comes later, not faster.
            now = self.clock()
            due = (due if now - due < QUARTER_S / 2 else now) + QUARTER_S
            yield from self._until(due)
            if self.interrupted:
                return
            after = breaker.snapshot()
            with self._lock:
                changes = self._changes[shown:]
            shown += len(changes)
            self.show(quarter(self._now_s(), self.server.phase, before, after, changes))
            before = after

    def interrupt(self, *_: object) -> None:
        """End the story as soon as it wakes up; safe from a signal handler, and harmless the second time."""
        self.interrupted = True

    def end(self) -> None:
        """Let the callers stop, and the server answer those who still wait."""
        self.over = True
        self.server.phase = Phase.RECOVERED

    def ending(self, breaker: Watched, bulkhead: Bulkhead) -> Ending:
        """Return the figures of the summary."""
        final = breaker.snapshot()
        with self._lock:
            return Ending(self._chapters, list(self._changes), final, bulkhead.snapshot(), self._retries, self._saved)

    def _turn(self, phase: Phase, breaker: Watched) -> None:
        if phase not in self._chapters:
            self._chapters[phase] = Chapter(self._now_s(), breaker.snapshot())
            self.server.phase = phase

    def _until(self, due: float) -> Iterator[float]:
        while not self.interrupted and (left_s := due - self.clock()) > 0:
            yield left_s

    def _now_s(self) -> float:
        return self.clock() - self._began
