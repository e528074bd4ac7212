"""What a breaker must do, told a second time: naive and slow, over lists of everything that happened.

It shares nothing with the machine of the library but the public words (states, modes, outcomes, the configuration).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, isnan
from types import UnionType
from typing import Any, NamedTuple

from tally import Tally
from trip_rules import Answer, TripRules, streak

from circuit_breaker import (
    BulkheadFullError,
    CircuitBreakerConfig,
    CircuitMode,
    CircuitOpenError,
    CircuitState,
    Outcome,
)

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
SUCCESS, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED
REFUSALS = (CircuitOpenError, BulkheadFullError)


class Counted(NamedTuple):
    """One outcome in the totals."""

    outcome: Outcome
    at: float
    latency_ms: float
    slow: bool


@dataclass(eq=False)
class Period:
    """One stay in one state."""

    state: CircuitState
    at: float
    until: float = inf
    failure: tuple[str, str] | None = None
    led: list[Answer] = field(default_factory=list)
    successes: int = 0
    failures: int = 0
    tickets: list[Ticket] = field(default_factory=list)


@dataclass(eq=False)
class Ticket:
    """One admission; one whose period is None was let through by SHADOW."""

    period: Period | None
    since: float
    rides: bool = False
    block: bool = False
    anonymous: bool = False
    settled: bool = False
    displaced: bool = False


@dataclass(eq=False)
class Frame:
    """Being inside of a call or block."""

    ticket: Ticket
    started: float
    block: bool
    over: bool = False


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in leaves(part)]
    return [error]


def _is_meant(error: BaseException, kinds: Any) -> bool:
    return isinstance(error, kinds) if isinstance(kinds, type | tuple | UnionType) else bool(kinds(error))


def _lists_refusal(error: BaseException, kinds: Any) -> bool:
    listed = kinds if isinstance(kinds, tuple) else (kinds,)
    return any(isinstance(kind, type) and issubclass(kind, REFUSALS) and isinstance(error, kind) for kind in listed)


def judge(error: BaseException, config: CircuitBreakerConfig, waited_s: float) -> Outcome:
    """Return what the exception says; a predicate may raise."""
    slow_s = config.slow_call_duration_s
    outcomes = []
    for leaf in leaves(error):
        if not isinstance(leaf, Exception):
            hung = isinstance(leaf, asyncio.CancelledError) and slow_s is not None and waited_s >= slow_s
            outcomes.append(FAILURE if hung else IGNORED)
        elif isinstance(leaf, REFUSALS) and not _lists_refusal(leaf, config.failure_exceptions):
            outcomes.append(IGNORED)
        elif _is_meant(leaf, config.ignored_exceptions):
            outcomes.append(IGNORED)
        else:
            outcomes.append(FAILURE if _is_meant(leaf, config.failure_exceptions) else SUCCESS)
    if FAILURE in outcomes:
        return FAILURE
    return IGNORED if all(outcome is IGNORED for outcome in outcomes) else SUCCESS


class Oracle:
    """Knows what every breaker with this history must look like."""

    def __init__(self, config: CircuitBreakerConfig, mode: CircuitMode, now: float, tally: Tally) -> None:
        self.config = config
        self.made_in = self.mode = mode
        self.now = now
        self.events: list[tuple[Any, ...]] = []
        self._tally = tally
        self._in_a_row = 0
        self._forget_totals()
        self.rules = TripRules(config, now, tally.met)
        self.period = self._first_period()

    # Admitting

    def look(self) -> CircuitState:
        """An open period whose time is over ends when somebody looks."""
        if self.period.state is OPEN and self.now >= self.period.until:
            self._go(Period(HALF_OPEN, self.now, failure=self.period.failure, led=self.period.led))
        return self.state

    def admit(self, inside: list[Frame] | None = None, **marks: bool) -> Ticket | None:
        """Return a ticket, or None to reject. `inside`: the calls around this one; None: it needs its own slot."""
        self.look()
        period = self.period
        if period.state is CLOSED:
            return Ticket(period, self.now, **marks)
        if period.state is HALF_OPEN:
            around = [
                f.ticket for f in inside or () if not f.over and not f.ticket.settled and f.ticket.period is period
            ]
            overdue = bool(around) and self.now - around[-1].since >= self.config.half_open_timeout_s
            if around and not overdue:
                self._tally.met("a call rides on a probe")
                return Ticket(period, self.now, rides=True, **marks)
            held = [t for t in period.tickets if t.period is period and not t.settled and not t.displaced]
            if len(held) >= self.config.half_open_max_calls:
                for ticket in period.tickets:
                    if self.is_overdue(ticket):
                        ticket.displaced = True
                        self._tally.met("a probe is overdue")
            waiting = [t for t in self._out() if t.anonymous]
            full = len(self._out()) >= self.config.half_open_max_calls
            takes_over = full and bool(waiting) and inside is not None and not (around and not overdue)
            if takes_over:  # also if there are more probes than a new configuration allows: they become no more
                waiting[0].displaced = True
                self._tally.met("a call takes over the slot of allow_request")
            if takes_over or not full:
                ticket = Ticket(period, self.now, **marks)
                period.tickets.append(ticket)
                self._tally.met("a probe is admitted")
                if overdue:
                    self._tally.met("a call inside an overdue probe takes a permit of its own")
                return ticket
            if around:
                self._tally.met("a call inside an overdue probe rides, for there is no permit")
                return Ticket(period, self.now, rides=True, **marks)
            self._tally.met("half-open refuses")
        if self.mode is CircuitMode.SHADOW:
            self.shadowed += 1
            self._tally.met("SHADOW lets through what it would refuse")
            ticket = Ticket(None, self.now, **marks)
            if period.state is HALF_OPEN:
                period.tickets.append(ticket)
            return ticket
        self.rejected += 1
        self.events.append(("rejected", self.retry_after_s()))
        self._tally.met(f"refused in {period.state.value}")
        return None

    def _out(self) -> list[Ticket]:
        """The probes that are out: neither answered nor overdue nor displaced."""
        tickets = [t for t in self.period.tickets if t.period is self.period and not t.settled and not t.displaced]
        return [t for t in tickets if not self.is_overdue(t)]

    def is_overdue(self, ticket: Ticket) -> bool:
        return not ticket.settled and self.now - ticket.since >= self.config.half_open_timeout_s

    # Settling

    def settle(
        self,
        ticket: Ticket,
        outcome: Outcome,
        latency_ms: float,
        error: BaseException | None = None,
    ) -> None:
        """Count the outcome of a ticket, once."""
        assert not ticket.settled
        late = ticket.displaced or self.is_overdue(ticket)
        ticket.settled = True
        slow_s = self.config.slow_call_duration_s
        refusal = error is not None and all(isinstance(leaf, REFUSALS) for leaf in leaves(error))
        slow = slow_s is not None and latency_ms >= slow_s * 1000 and not refusal
        answer = Counted(outcome, self.now, latency_ms, slow and outcome is not IGNORED)
        period = self.period
        present = ticket.period is period
        self._tally.met(f"{outcome.value} in {period.state.value}" if present else f"a late {outcome.value}")
        if present and late and period.state is HALF_OPEN:
            self._tally.met("the answer of an overdue probe")
        self.count(answer, streak=present or period.state is not CLOSED)
        reason = None
        if present and outcome is not IGNORED:
            if period.state is CLOSED:
                self.rules.answers.append(Answer(self.now, outcome is FAILURE, answer.slow))
                reason = self.rules.tripped(self.now, self._run)
                if self.mode is CircuitMode.FORCED_CLOSED and reason:
                    self._tally.met("FORCED_CLOSED does not trip")
                    reason = None
            elif period.state is HALF_OPEN:
                reason = self._probe_answered(ticket, answer)
        if reason:
            self._open(reason, error)
        self.events.append(("finished", outcome, latency_ms, named(error)))

    def count(self, answer: Counted, streak: bool) -> None:
        """Count in the totals alone, and in the streak that they show if it belongs there."""
        self.counted.append(answer)
        if streak and answer.outcome is not IGNORED:
            self._run.append(Answer(answer.at, answer.outcome is FAILURE, answer.slow))

    def _probe_answered(self, ticket: Ticket, answer: Counted) -> str | None:
        reason = None
        if answer.outcome is FAILURE:
            reason = "a rider fails" if ticket.rides else "a probe fails"
        elif answer.slow and not ticket.rides and self.config.slow_call_rate_threshold is not None:
            reason = "a probe is slow"
        if reason is not None:
            self.period.failures += 1
            if self.period.failures >= self.config.half_open_failure_threshold:
                return reason
            self._tally.met("a failure of a probe is borne")
        elif not ticket.rides:
            self.period.successes += 1
            if self.period.successes >= self.config.success_threshold:
                self._tally.met("probes close it")
                self._in_a_row = 0
                self._go(self._closed())
        return None

    def record(self, outcome: Outcome, latency_ms: float) -> None:
        """Somebody says how a call ended, not which."""
        self.look()
        waiting = [t for t in self.period.tickets if t.anonymous and not t.settled and not t.displaced]
        waiting = [t for t in waiting if not self.is_overdue(t)]
        if self.period.state is HALF_OPEN and waiting:
            self._tally.met("a record gives an anonymous permit back")
            self.settle(waiting[0], outcome, latency_ms)
        else:
            self.settle(Ticket(self.period, self.now), outcome, latency_ms)

    def ticket_of_block_left_elsewhere(self) -> Ticket:
        self.look()
        held = [t for t in self._out() if t.block] if self.period.state is HALF_OPEN else []
        self._tally.met("a block is left elsewhere" + (", and settles a probe" if held else ""))
        return held[0] if held else Ticket(self.period, self.now)

    # Changing

    def configure(self, config: CircuitBreakerConfig) -> None:
        self.look()
        if self.config.error_rate_window != config.error_rate_window:
            self.rules = TripRules(config, self.now, self._tally.met)
        self._note_times()
        self.config = self.rules.config = config

    def _note_times(self) -> None:
        """Of the failures in a row, keep the times that the present settings ask for, and be sure of no others."""
        noted = 0 if self.config.failure_threshold_within_s is None else self.config.failure_threshold or 0
        at = max((answer.at for answer in self.counted if answer.outcome is FAILURE), default=self.now)
        for number, answer in enumerate(streak(self._run), 1):
            at = answer.at if number <= noted else at
            self._run[-number] = answer._replace(at=at)

    def set_mode(self, mode: CircuitMode) -> None:
        if mode is not self.mode:
            self._begin(mode)

    def reset(self) -> None:
        self._begin(self.made_in)
        self._forget_totals()

    def trip(self, open_for_s: float | None) -> bool:
        """Open by hand; tell whether that is possible in this mode."""
        if self.mode in (CircuitMode.FORCED_OPEN, CircuitMode.FORCED_CLOSED):
            return False
        self.look()
        if self.period.state is OPEN:
            self._tally.met("an open circuit is opened by hand")
            asked = self._asked_s(self._in_a_row - 1) if open_for_s is None else open_for_s
            self.period.until = self.now + asked
        else:
            self._open("opened by hand", None, open_for_s)
        return True

    def reset_stats(self) -> None:
        self._forget_totals()

    def _begin(self, mode: CircuitMode) -> None:
        self.mode = mode
        self._in_a_row = 0
        self._go(self._first_period())

    def _first_period(self) -> Period:
        self._tally.met(f"mode {self.mode.value}")
        return Period(OPEN, self.now) if self.mode is CircuitMode.FORCED_OPEN else self._closed()

    def _closed(self) -> Period:
        self._run: list[Answer] = []
        self.rules = TripRules(self.config, self.now, self._tally.met)
        return Period(CLOSED, self.now)

    def _asked_s(self, before: int) -> float:
        wait: Any = self.config.reset_timeout_s
        wait_s = seconds(wait, before) if callable(wait) else wait
        return 30.0 if wait_s is None else wait_s

    def _open(self, reason: str, error: BaseException | None, open_for_s: float | None = None) -> None:
        self._tally.met(reason)
        config = self.config
        until = self.now + (self._asked_s(self._in_a_row) if open_for_s is None else open_for_s)
        if config.retry_after is not None and error is not None:
            wish_s = seconds(config.retry_after, error)
            if wish_s is not None:
                self._tally.met("the server asks to be left alone")
                until = max(until, self.now + min(wish_s, config.retry_after_max_s))
        failure = None if error is None else (type(error).__name__, str(error)[:200])
        self._in_a_row += 1
        if self._in_a_row > 1:
            self._tally.met("opened several times in a row")
        self.opened += 1
        self._go(Period(OPEN, self.now, until, failure, led=self.window()))

    def _go(self, period: Period) -> None:
        if period.state is not self.period.state:
            self.events.append(("state", self.period.state, period.state))
            self._tally.met(f"{self.period.state.value} -> {period.state.value}")
        self.period = period

    def _forget_totals(self) -> None:
        self.counted: list[Counted] = []
        self._run = []
        self.rejected = self.shadowed = self.opened = 0

    # Reading

    @property
    def state(self) -> CircuitState:
        return CLOSED if self.mode is CircuitMode.SHADOW else self.period.state

    def window(self) -> list[Answer]:
        if self.period.state is not CLOSED:
            return self.period.led
        return self.rules.window(self.now)

    def streak(self) -> int:
        return len(streak(self._run))

    def seen_retry_after_s(self) -> float | None:
        if self.state is CLOSED or (
            self.period.state is HALF_OPEN and len(self._out()) < self.config.half_open_max_calls
        ):
            return 0.0
        return self.retry_after_s()

    def retry_after_s(self) -> float | None:
        if self.period.state is not OPEN or self.mode is CircuitMode.FORCED_OPEN:
            return None
        return max(0.0, self.period.until - self.now)

    def picture(self, wall: Callable[[float], float]) -> dict[str, Any]:
        """Return all that a reader may see now."""
        self.look()
        told = [a for a in self.counted if a.outcome is not IGNORED]
        window = self.window()
        times = {o: max((wall(a.at) for a in told if a.outcome is o), default=None) for o in Outcome}
        failed, slow = sum(answer.failed for answer in window), sum(answer.slow for answer in window)
        return {
            "state": self.state,
            "machine_state": self.period.state,
            "mode": self.mode,
            "retry_after_s": self.seen_retry_after_s(),
            "probes_in_flight": len(self._out()) if self.period.state is HALF_OPEN else 0,
            "window_calls": len(window),
            "window_failures": failed,
            "window_slow": slow,
            "error_rate": failed / len(window) if window else 0.0,
            "slow_call_rate": slow / len(window) if window else 0.0,
            "success_count": sum(a.outcome is SUCCESS for a in told),
            "failure_count": sum(a.outcome is FAILURE for a in told),
            "consecutive_failures": self.streak(),
            "last_failure_time": times[FAILURE],
            "last_success_time": times[SUCCESS],
            "total_latency_ms": sum(a.latency_ms for a in told),
            "ignored_count": sum(a.outcome is IGNORED for a in self.counted),
            "rejected_count": self.rejected,
            "slow_count": sum(a.slow for a in told),
            "opened_count": self.opened,
            "shadow_rejected_count": self.shadowed,
            "shared": None,
            "dropped_changes": 0,
        }


def seconds(function: Any, argument: object) -> float | None:
    """Ask a function of the configuration; one that raises or gives no number of seconds gives None."""
    try:
        given = function(argument)
        if isinstance(given, bool) or not isinstance(given, int | float) or isnan(given) or given < 0:
            return None
        return float(given)
    except Exception:
        return None


def named(error: BaseException | None) -> object:
    """Return the error itself, or the word for one that the interpreter makes anew each time."""
    return "GeneratorExit" if isinstance(error, GeneratorExit) else error
