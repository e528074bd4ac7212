"""A model of callers, breakers and a server under load: one run of it, event by event, on a clock of its own.

Calls arrive at random. Each takes one of a pool of callers for all its tries; if all are busy it waits, and starves
after as long as a try may take. The server has workers and a bounded line, and works on for callers that gave up. The
breakers and the retry delays are those of this library.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush
from itertools import count
from math import ceil
from random import Random
from typing import Any, Final, NamedTuple

from .._breaker.breaker import CircuitBreaker
from .._breaker.config import CircuitBreakerConfig
from .._breaker.permit import Permit
from .._retry.policy import RetryPolicy
from ..exceptions import CircuitOpenError

BEFORE_S: Final = 60.0
AFTER_S: Final = 120.0
LINE: Final = 2.0  # a full line is as long as the server needs this many timeouts to serve
FAST_ERROR_S: Final = 0.002
SLOWER: Final = 20.0
FLAP_S: Final = 10.0


class Kind(Enum):
    """What goes wrong in an outage."""

    FULL = "full"
    HANG = "hang"
    PARTIAL = "partial"
    SLOW = "slow"
    FLAPPING = "flapping"
    GRADUAL = "gradual"
    SURGE = "surge"


class Trouble(NamedTuple):
    """An outage: its kind, and how much of it for those kinds that have a measure."""

    kind: Kind
    measure: float = 0.0


EVERY_TRY_FAILS: Final = Trouble(Kind.FULL)


@dataclass(frozen=True)
class Service:
    """What is modelled.

    Attributes:
        rate: calls a second that arrive.
        capacity: tries a second that the server can serve.
        service_s: how long it serves one, on average.
        timeout_s: how long a caller waits for an answer.
        callers: the most calls at a time, in all processes together.
        processes: how many have a breaker of their own.
        retries: tries after the first one.
        failing: the share of tries that fails in ordinary times.
        outage_s: how long the outage lasts.
        trouble: what it is.
    """

    rate: float = 50.0
    capacity: float = 100.0
    service_s: float = 0.05
    timeout_s: float = 1.0
    callers: int = 100
    processes: int = 1
    retries: int = 2
    failing: float = 0.001
    outage_s: float = 60.0
    trouble: Trouble = EVERY_TRY_FAILS

    @property
    def workers(self) -> int:
        """How many tries the server serves at the same time."""
        return max(1, round(self.capacity * self.service_s))

    @property
    def line(self) -> int:
        """How many tries wait for a worker at most; more are failed at once."""
        return ceil(LINE * self.timeout_s * self.capacity)

    @property
    def end_s(self) -> float:
        """When a run ends."""
        return BEFORE_S + self.outage_s + AFTER_S


class Fate(Enum):
    """How a call ended."""

    WELL = "well"
    FAILED = "failed"
    REJECTED = "rejected"
    STARVED = "starved"
    UNFINISHED = "unfinished"


class Call:
    """One call: when it arrived, which process makes it, how many tries were made again, and how it ended."""

    __slots__ = ("arrived", "fate", "process", "retries")

    def __init__(self, arrived: float, process: int) -> None:
        self.arrived = arrived
        self.process = process
        self.retries = 0
        self.fate = Fate.UNFINISHED


class _Try:
    """One try, which is over once: with an answer, or because its caller gave up."""

    __slots__ = ("call", "over", "permit")

    def __init__(self, call: Call, permit: Permit | None) -> None:
        self.call = call
        self.permit = permit
        self.over = False


class Run:
    """One run, with a breaker of this configuration in each process, or with none.

    Two runs with the same seed see the same arrivals.

    Attributes:
        calls: all that arrived, in their order.
        tries_at: when tries were sent to the server.
    """

    def __init__(self, service: Service, config: CircuitBreakerConfig | None, seed: str) -> None:
        self._service = service
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._numbers = count()
        self._arrivals, self._dice, delays = (
            Random(f"{seed} {what}")  # noqa: S311 - the same luck every time is what is wanted
            for what in ("arrivals", "dice", "delays")
        )
        self._policy = RetryPolicy(max_retries=service.retries, random=delays.random)
        self._breakers = [
            None if config is None else CircuitBreaker("model", config, clock=lambda: self._now)
            for _ in range(service.processes)
        ]
        self._free_callers = service.callers
        self._waiting: deque[Call] = deque()
        self._free_workers = service.workers
        self._line: deque[_Try] = deque()
        self.calls: list[Call] = []
        self.tries_at: list[float] = []

    def run(self) -> None:
        """Let everything happen."""
        self._at(0.0, self._arrive, None)
        while self._events[0][0] <= self._service.end_s:  # there is always the next arrival
            self._now, _, happen, about = heappop(self._events)
            happen(about)

    def _at(self, moment: float, happen: Callable[[Any], None], about: Any) -> None:
        heappush(self._events, (moment, next(self._numbers), happen, about))

    # Callers

    def _arrive(self, first: None) -> None:
        service = self._service
        surges = self._in_outage() and service.trouble.kind is Kind.SURGE
        rate = service.rate * (service.trouble.measure if surges else 1.0)
        self._at(self._now + self._arrivals.expovariate(rate), self._arrive, None)
        call = Call(self._now, self._arrivals.randrange(service.processes))
        self.calls.append(call)
        if self._free_callers:
            self._free_callers -= 1
            self._try(call)
        else:
            self._waiting.append(call)
            self._at(self._now + service.timeout_s, self._starve, call)

    def _starve(self, call: Call) -> None:
        if self._waiting and self._waiting[0] is call:  # they starve in the order in which they came
            self._waiting.popleft()
            call.fate = Fate.STARVED

    def _try(self, call: Call) -> None:
        breaker = self._breakers[call.process]
        try:
            permit = None if breaker is None else breaker.permit()
        except CircuitOpenError:
            self._finish(call, Fate.REJECTED)
            return
        attempt = _Try(call, permit)
        self.tries_at.append(self._now)
        self._at(self._now + self._service.timeout_s, self._give_up, attempt)
        self._receive(attempt)

    def _give_up(self, attempt: _Try) -> None:
        self._end(attempt, well=False)

    def _end(self, attempt: _Try, *, well: bool) -> None:
        """End a try for its caller, unless it is over."""
        if attempt.over:
            return
        attempt.over = True
        call, permit = attempt.call, attempt.permit
        if permit is not None:
            (permit.success if well else permit.failure)()
        if well:
            self._finish(call, Fate.WELL)
        elif call.retries < self._service.retries:
            self._at(self._now + self._policy.get_delay(call.retries), self._try, call)
            call.retries += 1
        else:
            self._finish(call, Fate.FAILED)

    def _finish(self, call: Call, fate: Fate) -> None:
        call.fate = fate
        if self._waiting:
            # Later, since calls that are rejected one after another would else be as many frames deep.
            self._at(self._now, self._try, self._waiting.popleft())
        else:
            self._free_callers += 1

    # The server

    def _in_outage(self) -> bool:
        return BEFORE_S <= self._now < BEFORE_S + self._service.outage_s

    def _refused_share(self) -> float:
        """Return the share of tries that the server fails at once now."""
        kind, measure = self._service.trouble
        since_s = self._now - BEFORE_S
        if not self._in_outage():
            return 0.0
        if kind is Kind.FLAPPING:
            return 1.0 if since_s % (2 * FLAP_S) < FLAP_S else 0.0
        shares = {Kind.FULL: 1.0, Kind.PARTIAL: measure, Kind.GRADUAL: since_s / self._service.outage_s}
        return shares.get(kind, 0.0)

    def _receive(self, attempt: _Try) -> None:
        if self._dice.random() < self._refused_share():
            self._at(self._now + FAST_ERROR_S, self._give_up, attempt)
        elif self._free_workers:
            self._serve(attempt)
        elif len(self._line) < self._service.line:
            self._line.append(attempt)
        else:
            self._at(self._now + FAST_ERROR_S, self._give_up, attempt)

    def _serve(self, attempt: _Try) -> None:
        self._free_workers -= 1
        takes_s = self._dice.expovariate(1 / self._service.service_s)
        kind = self._service.trouble.kind if self._in_outage() else None
        if kind is Kind.SLOW:
            takes_s *= SLOWER
        if kind is Kind.HANG:
            takes_s += BEFORE_S + self._service.outage_s - self._now
        self._at(self._now + takes_s, self._served, attempt)

    def _served(self, attempt: _Try) -> None:
        self._free_workers += 1
        self._end(attempt, well=self._dice.random() >= self._service.failing)
        if self._line and self._free_workers:
            self._serve(self._line.popleft())
