"""The state machine of a circuit: which period follows which, and the totals. It logs nothing and waits for nothing.

::

                 a rule trips                     the time is over
      CLOSED ──────────────────▶ OPEN ──────────────────────────────▶ HALF_OPEN
        ▲                         ▲   (on the first look after it)      │    │
        │                         │                                     │    │
        │                         └──────────── probes fail ────────────┘    │
        └───────────────────── enough probes succeed ────────────────────────┘

A mode that an operator sets and `reset()` lead to a fresh CLOSED period from everywhere, FORCED_OPEN to an OPEN one
without end. A permission belongs to the period that issued it, so a late result is known by `is not`: it counts in the
totals alone. What happens in a state is in `states`; the machine owns the transitions, and only those.
"""

from __future__ import annotations

from itertools import repeat
from typing import Any, Final, NamedTuple, cast

from .._common.events import Listener
from .._common.lock import ReadRLock
from .._common.words import CircuitMode, CircuitState, Outcome
from .config import CircuitBreakerConfig
from .reading import Reading
from .rules import WindowCounts
from .states import Asker, Closed, ForcedOpen, HalfOpen, Open, Period, Permission, Probe, Unknown
from .totals import NEVER, ZERO, CircuitStats, Tally, Totals

OPEN_FOR_UNTIL_ASKED_S: Final = 30.0
UNDELIVERED_KEPT: Final = 1_000
IGNORED: Final = Outcome.IGNORED
FAILURE: Final = Outcome.FAILURE
AUTO: Final = CircuitMode.AUTO
SHADOW: Final = CircuitMode.SHADOW


class Change(NamedTuple):
    """The machine went from one state to another."""

    old_state: CircuitState
    new_state: CircuitState
    reason: str


class Machine:
    """Where a circuit stands, and what it has counted. Every method may be called from any thread.

    Attributes:
        lock: guards all that follows, and the fields of the present period. Under it nothing is called or made.
        period: the present stay in one state.
        fast: the period if it is CLOSED and a success only needs counting there, else None.
        totals: what ended periods have counted, and what belongs to none.
        start: what there was when the totals were last reset.
        listeners: the functions that every result and every change is delivered to; replaced, never changed.
        changes: what has not been logged yet, oldest first.
        undelivered: what listeners have not been notified of yet, oldest first, and at most 1,000.
        dropped: how many changes listeners were never notified of, because too many waited for them.
    """

    __slots__ = (
        "changes",
        "config",
        "dropped",
        "fast",
        "listeners",
        "lock",
        "mode",
        "period",
        "start",
        "totals",
        "undelivered",
    )

    # Of a machine that follows a store: what ties it to the store, and whether it takes part.
    link: Any = None
    joined: bool = True

    def __init__(
        self, config: CircuitBreakerConfig, mode: CircuitMode, now: float, listeners: tuple[Listener, ...] = ()
    ) -> None:
        self.lock = ReadRLock()
        self.config = config
        self.mode = mode
        self.listeners = listeners
        self.totals = Totals()
        self.start = ZERO
        self.changes: tuple[Change, ...] = ()
        self.undelivered: tuple[Change, ...] = ()
        self.dropped = 0
        self.period: Period = self._first_period(mode, now)
        self.fast: Closed | None = None
        self.renew_fast()

    # Admitting

    def look(self, now: float) -> Period:
        """Return the present period; an open one whose time is over ends here."""
        period = self.period
        if now >= period.ends_at:
            self._enter(period, *period.following(self, now))
            return self.period
        return period

    def reject(self, now: float) -> Period | None:
        """Reject one call and return the period, if it rejects every call now."""
        period, lock = self.period, self.lock
        if now < period.rejects_until:
            _ = lock.taken
            try:
                if self.period is period:
                    self.totals.rejected += 1
                    return period
            finally:
                lock.release()
        return None

    def admit(self, asker: Asker, now: float, inside: tuple[Probe, ...] = ()) -> Permission | Period:
        """Return the permission for one call, or the period that rejects it; `inside`: see `Period.admit`."""
        while True:
            rejecting = self.reject(now)
            if rejecting is not None:
                return rejecting
            period = self.look(now)
            probe = Probe(asker, now)
            permission = period.admit(self, probe, inside, now)
            if permission is not None:
                return permission
            with self.lock:
                if self.period is not period:
                    continue
                shadow = self.mode is SHADOW
                if shadow:
                    self.totals.shadow_rejected += 1
                else:
                    self.totals.rejected += 1
            if not shadow:
                return period
            if asker is Asker.ANONYMOUS:
                period.remember(self, probe)
            return probe

    # Settling

    def settle(
        self, permission: Permission | Unknown, outcome: Outcome, now: float, latency_s: float, slow: bool
    ) -> Open | None:
        """Count the result of a call; return the period that it opened, if it did."""
        period = self.look(now) if isinstance(permission, Unknown) else permission.issuer
        if period is None or period is not self.period:
            self.count_late(outcome, now, latency_s, slow)
            return None
        return cast("Open | None", period.settle(self, permission, outcome, now, latency_s, slow))

    def count_late(self, outcome: Outcome, now: float, latency_s: float, slow: bool) -> None:
        """Count a result in the totals only."""
        failed = outcome is FAILURE
        with self.lock:
            totals, period = self.totals, self.period
            if outcome is IGNORED:
                totals.ignored += 1
                return
            totals.latency_s += latency_s
            totals.slow += slow
            if failed:
                totals.failures += 1
                totals.last_failure_at = now
            else:
                totals.successes += 1
                totals.last_success_at = now
            if not period.admits:
                period.streak = period.streak + 1 if failed else 0

    def count_by_hand(self, failed: bool, now: float, latency_s: float) -> None:
        """Count a success or failure in the totals and the streak; nothing follows from it."""
        with self.lock:
            totals, period = self.totals, self.period
            totals.latency_s += latency_s
            if failed:
                totals.failures += 1
                period.last_failure_at = now
                period.streak += 1
                if period.noted:
                    period.failed_at[period.streak % period.noted] = now
            else:
                totals.successes += 1
                totals.last_success_at = now
                period.streak = 0

    # Changing

    def open(self, former: Period, now: float, reason: str, counts: WindowCounts) -> Open | None:
        """Open the circuit, unless another thread has left the former period meanwhile."""
        wait = self.config.reset_timeout_s
        open_for_s = OPEN_FOR_UNTIL_ASKED_S if callable(wait) else cast("float", wait)
        period = self.opened(now, open_for_s, former.openings + 1, counts)
        return period if self._enter(former, period, reason, opened=1) else None

    def close(self, former: Period, now: float, reason: str) -> None:
        """Close the circuit, unless another thread has left the former period meanwhile."""
        while self.period is former and not self._enter(former, self._first_period(AUTO, now), reason):
            pass

    def trip(self, now: float, reason: str) -> Open | None:
        """Open the circuit by hand, anew if it is open already; return the period. None: the mode forbids it."""
        while True:
            self.look(now)
            reading = self.read()
            former = reading.period
            if reading.mode not in (AUTO, SHADOW):
                return None
            if isinstance(former, Open):
                anew = former.anew(self, now + OPEN_FOR_UNTIL_ASKED_S)
                if anew is former or self._enter(former, anew, reason):
                    return anew
            elif opened := self.open(former, now, reason, reading.window_counts(now)):
                return opened

    def configure(self, config: CircuitBreakerConfig, now: float) -> None:
        """Use another configuration. Running calls and an open period go on."""
        while True:
            period = self.look(now)
            rules = () if self.mode is CircuitMode.FORCED_CLOSED else config._rules  # another mode ends this period
            if period.configure(self, config, rules, now):
                return

    def set_mode(self, mode: CircuitMode, now: float) -> None:
        """Begin a fresh period under another mode."""
        while True:
            former = self.period
            if mode is self.mode or self._enter(former, self._first_period(mode, now), f"mode {mode.value}", mode=mode):
                return

    def reset(self, mode: CircuitMode, now: float) -> None:
        """Start again in this mode, with all totals zero."""
        while not self._enter(self.period, self._first_period(mode, now), "reset", mode=mode, totals=Totals()):
            pass

    def reset_totals(self) -> None:
        """Begin the totals and the streak anew; the circuit stays as it is."""
        start = Totals()
        with self.lock:
            totals, period = self.totals, self.period
            start.successes = totals.successes + period.successes
            start.failures = totals.failures + period.failures
            start.slow = totals.slow + period.slow
            start.latency_s = totals.latency_s + period.latency_s
            start.ignored = totals.ignored
            start.opened = totals.opened
            start.rejected = totals.rejected
            start.shadow_rejected = totals.shadow_rejected
            totals.last_success_at = period.last_success_at = NEVER
            totals.last_failure_at = period.last_failure_at = NEVER
            period.streak = 0
            self.start = start

    def replace_listeners(self, before: tuple[Listener, ...], after: tuple[Listener, ...]) -> bool:
        """Deliver results and changes to other listeners; False: they were not those of before, nothing has changed."""
        with self.lock:
            if self.listeners is not before:
                return False
            self.listeners = after
            self.fast = None
        self.renew_fast()
        return True

    def after_fork_in_child(self) -> None:
        """Keep the counts. Calls that run now belong to the parent, so their results here are late."""
        self.lock = ReadRLock()
        self.period = self.period.copy_for_child()
        self.changes = self.undelivered = ()
        self.renew_fast()

    def renew_fast(self) -> None:
        """Set `fast` again. Every change of what it depends on has set it to None, under the lock."""
        for _ in repeat(None):
            period, config, listeners, joined = self.period, self.config, self.listeners, self.joined
            plain = isinstance(period, Closed) and config.failure_result is None and not listeners and joined
            fast = cast("Closed", period) if plain else None
            with self.lock:
                same = self.period is period and self.config is config and self.joined is joined
                if same and self.listeners is listeners:
                    self.fast = fast
                    return

    def _first_period(self, mode: CircuitMode, now: float) -> Period:
        if mode is CircuitMode.FORCED_OPEN:
            return ForcedOpen(now)
        config = self.config
        return Closed(config, () if mode is CircuitMode.FORCED_CLOSED else config._rules, now)

    def opened(self, now: float, open_for_s: float, openings: int, counts: WindowCounts) -> Open:
        """Return the period that follows when the circuit opens."""
        return Open(now, open_for_s, openings, counts, self.mode is SHADOW)

    def half_open(self, opened: Open) -> Period:
        """Return the period that follows an open one."""
        return HalfOpen(opened)

    def take_changes(self) -> tuple[Change, ...]:
        """Return what has not been logged, oldest first; from now on it is."""
        with self.lock:
            changes, self.changes = self.changes, ()
        return changes

    def take_undelivered(self) -> Change | None:
        """Return the oldest change that listeners have not been notified of; from now on they are."""
        while True:
            undelivered = self.undelivered
            if not undelivered:
                return None
            oldest, rest = undelivered[0], undelivered[1:]
            with self.lock:
                if self.undelivered is undelivered:
                    self.undelivered = rest
                    return oldest

    def _enter(
        self,
        former: Period,
        period: Period,
        reason: str,
        *,
        opened: int = 0,
        mode: CircuitMode | None = None,
        totals: Totals | None = None,
    ) -> bool:
        """Go from one period to another, unless another thread has left the former one or set a configuration."""
        new = () if period.state is former.state else (Change(former.state, period.state, reason),)
        while True:
            listeners, changes, undelivered = self.listeners, self.changes, self.undelivered
            logged = changes + new
            delivering = (undelivered + new)[-UNDELIVERED_KEPT:] if listeners else ()
            dropped = len(undelivered) + len(new) - len(delivering) if listeners else 0
            inherits_streak, made_for = not period.admits, period.config
            with self.lock:
                if self.period is not former or (made_for is not None and made_for is not self.config):
                    return False
                stale = self.listeners is not listeners or self.changes is not changes
                if stale or self.undelivered is not undelivered:
                    continue
                self.period = period
                self.fast = None
                self.changes = logged
                self.undelivered = delivering
                self.dropped += dropped
                if mode is not None:
                    self.mode = mode
                if inherits_streak:
                    period.streak = former.streak
                if totals is not None:
                    self.totals = totals
                    self.start = ZERO
                    period.streak = 0
                else:
                    ended = self.totals
                    ended.successes += former.successes
                    ended.failures += former.failures
                    ended.slow += former.slow
                    ended.latency_s += former.latency_s
                    ended.opened += opened
                    if former.last_success_at > ended.last_success_at:
                        ended.last_success_at = former.last_success_at
                    if former.last_failure_at > ended.last_failure_at:
                        ended.last_failure_at = former.last_failure_at
            self.renew_fast()
            return True

    # Reading

    def read(self) -> Reading:
        """Return a consistent copy of what there is."""
        counted, sums = Tally(), Totals()
        with self.lock:
            period, mode = self.period, self.mode
            totals, start = self.totals, self.start
            counted.successes = period.successes
            counted.failures = period.failures
            counted.slow = period.slow
            sums.successes = totals.successes + period.successes - start.successes
            sums.failures = totals.failures + period.failures - start.failures
            sums.slow = totals.slow + period.slow - start.slow
            sums.latency_s = totals.latency_s + period.latency_s - start.latency_s
            sums.ignored = totals.ignored - start.ignored
            sums.opened = totals.opened - start.opened
            sums.rejected = totals.rejected - start.rejected
            sums.shadow_rejected = totals.shadow_rejected - start.shadow_rejected
            here, before = period.last_success_at, totals.last_success_at
            sums.last_success_at = here if here > before else before
            here, before = period.last_failure_at, totals.last_failure_at
            sums.last_failure_at = here if here > before else before
            streak, book, window = period.streak, period.book, period.window
            first = None if window is None else window.first
        seen = None if window is None or first is None else (window, first)
        return Reading(period, mode, counted, streak, book, seen, sums)

    def stats(self) -> CircuitStats:
        """Return all totals; times in them are readings of the breaker's clock."""
        return self.read().stats()
