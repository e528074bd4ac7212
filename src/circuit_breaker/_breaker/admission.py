"""How a call is admitted, how its result is settled, and who is notified: what every way of calling has in common."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from math import inf
from threading import get_ident
from typing import Any, Final, cast

from .._common import checks
from .._common.events import (
    ERROR,
    INFO,
    WARNING,
    CallFinished,
    CallRejected,
    FirstError,
    Listener,
    StateChanged,
    log,
    notify,
    open_log,
    raised_by_signal_handler,
)
from .._common.judging import is_rejection, leaves
from .._common.words import CircuitMode, CircuitState, Outcome
from ..exceptions import CircuitOpenError, circuit_open
from . import open_blocks
from .config import CircuitBreakerConfig
from .machine import OPEN_FOR_UNTIL_ASKED_S, UNDELIVERED_KEPT, Machine
from .states import Asker, Closed, LastFailure, Open, Period, Permission, Probe, Unknown
from .totals import LiveStats

LAST_FAILURE_TEXT: Final = 200
SUCCESS: Final = Outcome.SUCCESS
FAILURE: Final = Outcome.FAILURE
IGNORED: Final = Outcome.IGNORED
CALL: Final = Asker.CALL


class Admission:
    """A machine with a name, a clock, listeners and a log."""

    # The caller's code runs outside of the machine's lock: calls, predicates, listeners, clocks, log handlers.

    _listeners: tuple[Listener, ...] = ()
    _stats: LiveStats | None = None
    _keeper: Callable[[], object] | None = None  # called when this breaker must not be forgotten
    _delivering: int | None = None  # the thread that notifies listeners of changes now
    _deliver_more = False  # its own listeners have made a change
    _warned = False

    def __init__(
        self,
        name: str,
        config: CircuitBreakerConfig,
        mode: CircuitMode,
        listeners: tuple[Listener, ...],
        clock: Callable[[], float],
    ) -> None:
        open_log()
        self.name = name
        self._clock = clock
        self._made_in = mode
        if listeners:
            self._listeners = listeners
        self._machine = Machine(config, mode, checks.reading(clock), bool(listeners))

    # Admitting

    def _admit(self, asker: Asker) -> Permission:
        """Return the permission for one call.

        Raises:
            CircuitOpenError: it is rejected.
        """
        now = self._clock()
        admitted = self._ask(asker, now)
        if isinstance(admitted, Closed | Probe):
            return admitted
        raise self._rejection(admitted, now)

    def _ask(self, asker: Asker, now: float) -> Permission | Period:
        """Return the permission for one call, or the period that rejects it."""
        machine = self._machine
        if now < machine.period.rejects_until:
            admitted = machine.admit(asker, now)
        else:
            rides = asker is CALL or asker is Asker.BLOCK
            admitted = machine.admit(asker, now, open_blocks.unsettled_probes(self) if rides else ())
        if machine.changes or self._listeners:
            self._tell_of_admission(admitted, now)
        return admitted

    def _tell_of_admission(self, admitted: Permission | Period, now: float) -> None:
        try:
            self._publish()
            if isinstance(admitted, Period) and not admitted.admits and self._listeners:
                notify(self._listeners, CallRejected(self.name, self._retry_after_s(admitted, now)))
        except BaseException:
            if isinstance(admitted, Closed | Probe):
                admitted.withdraw(self._machine)
            raise

    def _rejection(self, period: Period, now: float) -> CircuitOpenError:
        retry_after_s = self._retry_after_s(period, now)
        return circuit_open(self.name, period.met, self._machine.mode, retry_after_s, period.last_failure)

    def _retry_after_s(self, period: Period, now: float) -> float | None:
        """Return the seconds until this period, which has rejected a call, admits a probe; None: nobody knows."""
        return period.retry_after_s(self._machine, period.book, now) if now < period.ends_at < inf else None

    def _look(self) -> Period:
        """Return the present period."""
        period = self._machine.period
        if period.admits:
            return period
        period = self._machine.look(self._clock())
        self._publish()
        return period

    # Settling

    def _settle_result(self, permission: Permission, now: float, latency_s: float, result: object) -> None:
        """Settle a call that returned."""
        failed = self._machine.config.failure_result
        if failed is None:
            self._settle_success(permission, now, latency_s)
            return
        outcome = IGNORED
        try:
            outcome = FAILURE if failed(result) else SUCCESS
        finally:
            self._settle(permission, outcome, now, latency_s)

    def _settle_success(self, permission: Permission | Unknown, now: float, latency_s: float) -> None:
        """Settle a call or block that ended well, and has no value to look at."""
        machine = self._machine
        with machine.lock:
            # In another period this result is late: asked under the lock, so that each counts in one period alone.
            fast = machine.fast
            if fast is not None and permission is fast and now < fast.quiet_until and 0.0 <= latency_s < fast.slow_s:
                fast.successes += 1
                fast.streak = 0
                fast.latency_s += latency_s
                fast.last_success_at = now
                return
        self._settle(permission, SUCCESS, now, latency_s)

    def _settle_error(
        self,
        permission: Permission | Unknown,
        now: float,
        latency_s: float,
        error: BaseException,
        waited_s: float | None = None,
    ) -> None:
        """Settle a call that raised; if it was cancelled, how long it was waited for says whether it hung."""
        config = self._machine.config
        outcome = IGNORED
        try:
            outcome = config._judge.judge(error, (latency_s if waited_s is None else waited_s) >= config._slow_s)
        finally:
            self._settle(permission, outcome, now, latency_s, error)

    def _settle(
        self,
        permission: Permission | Unknown,
        outcome: Outcome,
        now: float,
        latency_s: float,
        error: BaseException | None = None,
    ) -> None:
        """Count a result, and do what follows from it."""
        machine = self._machine
        if latency_s < 0.0:  # the clock has stepped back
            latency_s = 0.0
        slow = latency_s >= machine.config._slow_s and (error is None or not _is_rejected(error))
        opened = machine.settle(permission, outcome, now, latency_s, slow)
        if opened is None and not machine.changes and not self._listeners:
            return
        try:
            if opened is not None:
                self._keep()
                self._ask_how_long(opened, error)
        finally:
            try:
                self._publish()
            finally:
                if self._listeners:
                    notify(self._listeners, CallFinished(self.name, outcome, latency_s * 1_000, error))

    # Following up

    def _keep(self) -> None:
        """It has opened, or somebody steers it: whoever made it must not make another one in its place."""
        if self._keeper is not None:
            self._keeper()

    def _ask_how_long(self, opened: Open, error: BaseException | None) -> None:
        """Let the caller's functions say how long the circuit stays open, and keep in words why it opened."""
        config = self._machine.config
        open_for_s = self._open_for_s(opened)
        if config.retry_after is not None and error is not None:
            for leaf in leaves(error):
                hint_s = self._seconds("retry_after", config.retry_after, leaf, optional=True)
                if hint_s is not None:
                    open_for_s = max(open_for_s, min(hint_s, cast("float", config.retry_after_max_s)))
        last_failure = None if error is None else LastFailure(type(error).__name__, _text(error))
        opened.end_after(self._machine, open_for_s, last_failure)

    def _open_for_s(self, opened: Open) -> float:
        """Return how long this period lasts by the configuration, which may be a function of the caller."""
        wait: Any = self._machine.config.reset_timeout_s
        if not callable(wait):
            return float(wait)
        asked_s = self._seconds("reset_timeout_s", wait, opened.openings - 1, optional=False)
        return OPEN_FOR_UNTIL_ASKED_S if asked_s is None else asked_s

    def _seconds(self, name: str, function: Callable[[Any], Any], argument: object, *, optional: bool) -> float | None:
        try:
            seconds = function(argument)
            if seconds is None and optional:
                return None
            return checks.seconds(name, seconds, minimum=0, infinite=True)
        except Exception as error:
            if raised_by_signal_handler(error):
                raise
            log(ERROR, "circuit %r: %s raised or gave no seconds", self.name, name, error=error)
            return None

    def _publish(self) -> None:
        """Log what has changed, then notify listeners of it."""
        machine = self._machine
        for change in machine.take_changes() if machine.changes else ():
            level = WARNING if change.new_state is CircuitState.OPEN else INFO
            old, new = change.old_state.value, change.new_state.value
            log(
                level,
                "circuit %r: %s -> %s: %s",
                self.name,
                old,
                new,
                change.reason,
                circuit_name=self.name,
                old_state=old,
                new_state=new,
                reason=change.reason,
            )
        if machine.undelivered:
            self._deliver()
        if machine.lost and not self._warned:
            self._warned = True
            log(
                WARNING,
                "circuit %r: listeners do not keep up; of %d changes that wait for them the oldest are dropped",
                self.name,
                UNDELIVERED_KEPT,
                circuit_name=self.name,
            )

    def _deliver(self) -> None:
        """Notify listeners of changes in order, one thread at a time.

        A thread delivers what was queued when its turn began, and what its own listeners have changed; the rest is for
        whoever comes next, so that slow listeners keep nobody for long.
        """
        machine, me, mine = self._machine, get_ident(), False
        first_error = FirstError()
        try:
            with machine.lock:
                if self._delivering is None:
                    self._delivering = me
                    mine = True
            if not mine:
                self._deliver_more = self._delivering == me
                return
            for _ in repeat(None):
                self._deliver_more = False
                for _ in machine.undelivered:
                    change = machine.take_undelivered()
                    if change is None:
                        break
                    with first_error:
                        notify(self._listeners, StateChanged(self.name, *change))
                if not self._deliver_more:
                    break
        finally:
            if mine:
                self._delivering = None
        first_error.raise_if_any()

    def _change_listeners(self, change: Callable[[tuple[Listener, ...]], tuple[Listener, ...]]) -> None:
        for _ in repeat(None):
            listeners = self._listeners
            changed = change(listeners)
            with self._machine.lock:
                if self._listeners is not listeners:
                    continue
                self._listeners = changed
            self._machine.watch(bool(changed))
            return

    # Forking

    def _after_fork_in_child(self) -> None:
        if self._delivering != get_ident():  # else a listener forks, and goes on to deliver in the child
            self._delivering = None
        self._machine.after_fork_in_child()


def _is_rejected(error: BaseException) -> bool:
    return all(is_rejection(leaf) for leaf in leaves(error))


def _text(error: BaseException) -> str:
    try:
        return str(error)[:LAST_FAILURE_TEXT]
    except Exception as problem:
        if raised_by_signal_handler(problem):
            raise
        return "<str() raised>"
