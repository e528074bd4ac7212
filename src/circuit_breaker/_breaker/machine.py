"""The state machine: who is admitted, and which outcome leads where. No lock, no I/O, no logging, no waiting.

::

                 a rule trips                     the time is over
      CLOSED ──────────────────▶ OPEN ──────────────────────────────▶ HALF_OPEN
        ▲                         ▲   (on the first look after it)      │    │
        │                         │                                     │    │
        │                         └───────────── a probe fails ─────────┘    │
        └───────────────────── enough probes succeed ────────────────────────┘

An operator's mode and `reset()` lead to a fresh CLOSED period from everywhere, FORCED_OPEN to one that is OPEN without
end. One stay in one state is a period, an object that holds what its state needs. A permit belongs to the period that
issued it, so the answer of a call from an earlier one is known by `is not`: it counts in the totals alone.

Every method is for one thread at a time: the breaker calls it under its lock, with the time it read before. Only a
destructor or a signal handler may come in between, on the same thread, wherever a function is called. So what belongs
together is written without a call in between, iterating is over a copy, and `self.period` is asked for again by whoever
has called something since.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from copy import copy
from enum import Enum
from math import inf
from typing import Final, NamedTuple, TypeAlias

from .._common.words import CircuitMode, CircuitState, Outcome
from .config import CircuitBreakerConfig
from .snapshot import CircuitStats
from .states import Closed, HalfOpen, LastFailure, Open, Period, Permission, Probe
from .window import Counts

RESET_TIMEOUT_S_UNTIL_ASKED: Final = 30.0
FORCED_OPEN: Final = CircuitMode.FORCED_OPEN
SHADOW: Final = CircuitMode.SHADOW

# State, mode, seconds until a probe may pass (None: nobody knows), and why the circuit opened.
Refusal: TypeAlias = tuple[CircuitState, CircuitMode, float | None, LastFailure | None]


class _Nothing(CircuitStats):
    """Totals of zero, for all machines that have not counted anything there; nobody can count in them."""

    def __init__(self) -> None:
        pass

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("these totals are shared")


NOTHING: Final = _Nothing()


class Unknown(Enum):
    """Who settles without a permission in hand."""

    ANONYMOUS = "a record, perhaps of what was allowed before"
    ELSEWHERE = "the end of a `with` block, left where it was not entered"


class Change(NamedTuple):
    """The machine went from one state to another."""

    old_state: CircuitState
    new_state: CircuitState
    reason: str


class Machine:
    """Where a circuit stands, and what it has counted.

    Attributes:
        fast: the present period if it is CLOSED and a success only needs counting there, else None.
        totals: what is not counted in the present CLOSED period; times in it are readings of the breaker's clock.
        changes: what has not been told to anybody yet, oldest first; None until the first.
    """

    __slots__ = ("changes", "config", "fast", "mode", "period", "totals")

    watched = False  # every outcome is told to somebody

    def __init__(self, config: CircuitBreakerConfig, mode: CircuitMode, now: float) -> None:
        self.config = config
        self.mode = mode
        self.totals: CircuitStats = NOTHING
        self.changes: deque[Change] | None = None
        self.fast: Closed | None
        self.period: Period = self._beginning(mode, now)
        self._find_fast()
        if self.fast is None:
            self._have_totals()

    def _have_totals(self) -> None:
        """Get totals of its own, which an idle machine does without; asked before anything is counted in them."""
        if self.totals is NOTHING:
            totals = CircuitStats()
            if self.totals is NOTHING:
                self.totals = totals

    # Admitting

    def look(self, now: float) -> Period:
        """Return the present period; an open one whose time is over ends here."""
        period = self.period
        if isinstance(period, Open) and now >= period.until:
            half_open = HalfOpen(period.last_failure, period.openings + 1)
            self._enter(period, half_open, f"open for {now - period.at:.3g} s")
        return self.period

    def admit(self, now: float, around: Iterable[Probe] = (), block: bool = False) -> Permission | None:
        """Return the permission for one call, or None to refuse it; `around` it are probes, the innermost first."""
        period = self.look(now)
        if isinstance(period, Closed):
            return period
        if isinstance(period, HalfOpen):
            probe = self._probe(period, now, around, block)
            if probe is not None:
                return probe
        if self.mode is SHADOW:
            self.totals.shadow_rejected_count += 1
            return Probe(None, now, block)
        self.totals.rejected_count += 1
        return None

    def _probe(self, period: HalfOpen, now: float, around: Iterable[Probe], block: bool) -> Probe | None:
        probe = Probe(period, now, block)
        outer = next((other for other in around if other.period is period), None)
        if outer is None:
            return probe if period.admit(self.config, now, probe) else None
        # A probe that is overdue may be lost for good, and its verdict with it: what is inside it gives one if it can.
        probe.rides = not (outer.overdue(self.config, now) and period.admit(self.config, now, probe))
        return probe

    def admit_anonymous(self, now: float) -> Permission | None:
        """Admit one call whose answer will not say which it is; in half-open the next such answer is taken for it."""
        admitted = self.admit(now)
        period = self.period
        if isinstance(admitted, Probe) and isinstance(period, HalfOpen):
            period.remember(admitted)
        return admitted

    def refuse(self, now: float) -> Refusal | None:
        """Refuse one call if the circuit is open and stays so."""
        period, mode = self.period, self.mode
        if type(period) is not Open or now >= period.until or mode is SHADOW:
            return None
        self.totals.rejected_count += 1
        return period.state, mode, None if mode is FORCED_OPEN else period.until - now, period.last_failure

    def refusal(self, now: float) -> Refusal:
        """Return the figures of a refusal by `admit`."""
        return self.period.state, self.mode, self.retry_after_s(now), self.period.last_failure

    def withdraw(self, permission: Permission) -> None:
        """Take a permission back that nobody got to use: nothing is counted."""
        if isinstance(permission, Probe):
            self._give_back(permission)
            if permission.period is not None and permission in permission.period.anonymous:
                permission.period.anonymous.remove(permission)

    # Settling

    def settle(
        self, permission: Permission | Unknown, outcome: Outcome, now: float, latency_ms: float, slow: bool
    ) -> Open | None:
        """Count the outcome of a call; return the period that it opened, if it did."""
        self._have_totals()
        if isinstance(permission, Probe) and permission.settled and permission.period is self.period:
            permission = Unknown.ELSEWHERE  # a block that was left elsewhere has settled this one's probe
        settled = self._find(permission, now) if isinstance(permission, Unknown) else permission
        period = self.period
        if settled is period:
            if isinstance(period, Closed):
                return self._settle_closed(period, outcome, now, latency_ms, slow)
            if isinstance(period, HalfOpen):
                return self._settle_half_open(period, False, outcome, now, latency_ms, slow)
        elif isinstance(settled, Probe) and not settled.settled:
            self._give_back(settled)
            if settled.period is period and isinstance(period, HalfOpen):
                return self._settle_half_open(period, settled.rides, outcome, now, latency_ms, slow)
        self.count(outcome, now, latency_ms, slow)
        return None

    def _find(self, unknown: Unknown, now: float) -> Permission | Period:
        """Return what the outcome of a call that nothing is known of counts for: a probe, or the present period."""
        period = self.look(now)
        if isinstance(period, HalfOpen):
            period.forget_overdue(self.config, now)
            if unknown is Unknown.ELSEWHERE:
                return next((probe for probe in list(period.out) if probe.block), period)
            if period.anonymous:
                return period.anonymous.popleft()
        return period

    def _give_back(self, probe: Probe) -> None:
        probe.settled = True
        if probe.period is not None:
            probe.period.out.pop(probe, None)

    def _settle_closed(
        self, period: Closed, outcome: Outcome, now: float, latency_ms: float, slow: bool
    ) -> Open | None:
        if outcome is Outcome.IGNORED:
            self.totals.ignored_count += 1
            return None
        failed = outcome is Outcome.FAILURE
        if self.period is not period:
            self.count(outcome, now, latency_ms, slow)
            return None
        self.totals.total_latency_ms += latency_ms
        self.totals.slow_count += slow
        if failed:
            self.totals.last_failure_time = now
            period.failures += 1
            period.streak = period.streak + 1 if period.streak_successes == period.successes else 1
            period.streak_successes = period.successes
        else:
            period.successes += 1
            period.last_success_at = now
        reason = period.trips(self.config, now, failed, slow)
        if reason is None or self.mode is CircuitMode.FORCED_CLOSED:
            return None
        return self._open(period, now, reason)

    def spare(self, permission: Permission | Unknown, now: float, latency_s: float) -> bool:
        """Count the failure of a call if no rule needs to look at it, and tell whether it was so."""
        period, totals = self.fast, self.totals
        if period is None or permission is not period or period.window is None or totals is NOTHING:
            return False
        streak = period.streak + 1 if period.streak_successes == period.successes else 1
        if streak > self.config._spared or latency_s >= period.slow_s:
            return False
        period.streak = streak
        period.streak_successes = period.successes
        period.failures += 1
        period.latency_s += latency_s
        totals.last_failure_time = now
        period.window.add(now, period.successes + period.failures, True, False)
        period.until = period.window.until
        return True

    def _settle_half_open(
        self, period: HalfOpen, rides: bool, outcome: Outcome, now: float, latency_ms: float, slow: bool
    ) -> Open | None:
        self.count(outcome, now, latency_ms, slow)
        if outcome is Outcome.IGNORED:
            return None
        if outcome is Outcome.FAILURE:
            return self._open(period, now, "a probe failed")
        if slow and not rides and self.config.slow_call_rate_threshold is not None:
            return self._open(period, now, "a probe was slow")
        if not rides:
            period.successes += 1
            if period.successes >= self.config.success_threshold:
                self._enter(period, Closed(self.config, now), f"{period.successes} probes succeeded")
        return None

    def count(self, outcome: Outcome, now: float, latency_ms: float, slow: bool) -> None:
        """Count an outcome in the totals alone."""
        self._have_totals()
        totals = self.totals
        if outcome is Outcome.IGNORED:
            totals.ignored_count += 1
            return
        totals.total_latency_ms += latency_ms
        totals.slow_count += slow
        if outcome is Outcome.FAILURE:
            totals.failure_count += 1
            totals.consecutive_failures += 1
            totals.last_failure_time = now
        else:
            totals.success_count += 1
            totals.consecutive_failures = 0
            totals.last_success_time = now

    def count_by_hand(self, outcome: Outcome, now: float, latency_ms: float) -> None:
        """Count a success or failure in the totals and the streak; nothing follows from it."""
        self.count(outcome, now, latency_ms, False)
        period = self.period
        if isinstance(period, Closed):
            period.streak_on(outcome is Outcome.FAILURE)

    # Changing

    def configure(self, config: CircuitBreakerConfig, now: float) -> None:
        """Take another configuration; what is under way stays under way."""
        period = self.look(now)
        former, self.config = self.config, config
        if isinstance(period, Closed):
            if former.error_rate_window == config.error_rate_window:
                period.limit(config)
            else:
                period.configure(config, now)
        elif isinstance(period, HalfOpen):
            period.next_overdue = -inf
        self._find_fast()

    def set_mode(self, mode: CircuitMode, now: float) -> None:
        """Begin a fresh period under another mode."""
        if mode is not self.mode:
            self._begin(mode, now, f"mode {mode.value}")

    def reset(self, now: float) -> None:
        """Be as new."""
        self._begin(CircuitMode.AUTO, now, "reset")
        self.zero()

    def zero(self) -> None:
        """Begin the totals and the streak anew."""
        self.totals = CircuitStats()
        period = self.period
        if isinstance(period, Closed):
            period.streak = 0
            self.totals.success_count -= period.successes
            self.totals.failure_count -= period.failures
            self.totals.total_latency_ms -= period.latency_s * 1_000
            period.last_success_at = None

    def forget_calls(self) -> None:
        """Keep what is counted, and make late whatever is under way: it is so in another process."""
        period = self.period
        if isinstance(period, HalfOpen):
            self.period = HalfOpen(period.last_failure, period.openings, period.successes)
        elif isinstance(period, Closed):
            self.period = copy(period)
        self.changes = None
        self._find_fast()

    def _open(self, former: Period, now: float, reason: str) -> Open | None:
        wait_s = self.config.reset_timeout_s
        until = now + (RESET_TIMEOUT_S_UNTIL_ASKED if callable(wait_s) else wait_s)
        period = Open(now, until, former.openings)
        return period if self._enter(former, period, reason, opened=1) else None

    def _begin(self, mode: CircuitMode, now: float, reason: str) -> None:
        period = self._beginning(mode, now)
        while not self._enter(self.period, period, reason, mode=mode):
            pass

    def _beginning(self, mode: CircuitMode, now: float) -> Period:
        return Open(now, inf, 0) if mode is CircuitMode.FORCED_OPEN else Closed(self.config, now)

    def _enter(
        self, former: Period, period: Period, reason: str, *, opened: int = 0, mode: CircuitMode | None = None
    ) -> bool:
        """Go from one period to another, unless something came in between and has gone elsewhere."""
        self._have_totals()
        left = former if isinstance(former, Closed) else None
        change = Change(former.state, period.state, reason)
        changes = self.changes if self.changes is not None else deque[Change]()
        fast = period if isinstance(period, Closed) else None
        # From here on nothing comes in between, since nothing is called until the change is queued.
        if self.period is not former:
            return False
        self.period = period
        self.mode = self.mode if mode is None else mode
        self.fast = None if self.watched or self.config.failure_result is not None else fast
        totals = self.totals
        totals.opened_count += opened
        if left is not None:
            totals.success_count += left.successes
            totals.failure_count += left.failures
            totals.total_latency_ms += left.latency_s * 1_000
            totals.consecutive_failures = left.streak if left.streak_successes == left.successes else 0
        if period.state is not former.state:
            self.changes = changes
            changes.append(change)
        if left is not None:
            totals.last_success_time = _later(totals.last_success_time, left.last_success_at)
        return True

    def _find_fast(self) -> None:
        period = self.period
        fast = period if isinstance(period, Closed) else None
        if self.period is period:  # else it was found by what came in between
            self.fast = None if self.watched or self.config.failure_result is not None else fast

    # Reading

    def stats(self) -> CircuitStats:
        """Return a copy of all totals; times in it are readings of the breaker's clock."""
        totals, present = self.totals, self.period
        period = present if isinstance(present, Closed) else None
        return CircuitStats(
            totals.success_count + (period.successes if period else 0),
            totals.failure_count + (period.failures if period else 0),
            period.consecutive_failures() if period else totals.consecutive_failures,
            totals.last_failure_time,
            _later(totals.last_success_time, period.last_success_at if period else None),
            totals.total_latency_ms + (period.latency_s * 1_000 if period else 0.0),
            ignored_count=totals.ignored_count,
            rejected_count=totals.rejected_count,
            slow_count=totals.slow_count,
            opened_count=totals.opened_count,
            shadow_rejected_count=totals.shadow_rejected_count,
        )

    def counts(self, now: float) -> Counts:
        """Return what is in the window; nothing is while the circuit is not closed."""
        period = self.period
        return period.counts(self.config, now) if isinstance(period, Closed) else Counts()

    def retry_after_s(self, now: float) -> float | None:
        """Return the seconds until a probe may pass; None: nobody knows."""
        period = self.period
        if isinstance(period, Open) and self.mode is not CircuitMode.FORCED_OPEN:
            return max(0.0, period.until - now)
        return None

    def probes_in_flight(self, now: float) -> int:
        """Return how many half-open permits are out and not overdue."""
        period = self.period
        if not isinstance(period, HalfOpen):
            return 0
        period.forget_overdue(self.config, now)
        return len(period.out)

    @property
    def state(self) -> CircuitState:
        """What a caller meets."""
        return CircuitState.CLOSED if self.mode is CircuitMode.SHADOW else self.period.state


class WatchedMachine(Machine):
    """A machine whose every outcome is told to somebody, so that none only needs counting."""

    __slots__ = ()

    watched = True


def _later(one: float | None, other: float | None) -> float | None:
    return max((at for at in (one, other) if at is not None), default=None)
