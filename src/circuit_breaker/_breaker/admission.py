"""How a call is admitted, how its result is settled, and who is notified: what every way of calling has in common."""

from __future__ import annotations

from collections.abc import Callable
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
    Listened,
    Listener,
    StateChanged,
    log,
    notify,
    open_log,
    raised_by_signal_handler,
)
from .._common.judging import is_rejection, leaves
from .._common.words import CircuitMode, CircuitState, Outcome
from ..exceptions import circuit_open
from . import open_blocks
from .config import CircuitBreakerConfig
from .machine import OPEN_FOR_UNTIL_ASKED_S, UNDELIVERED_KEPT, Change, Machine
from .states import Asker, Closed, LastFailure, Open, Period, Permission, Probe, Unknown
from .totals import LiveStats

LAST_FAILURE_TEXT: Final = 200
DELIVERED_AT_ONCE: Final = 10  # changes, by one caller
SUCCESS: Final = Outcome.SUCCESS
FAILURE: Final = Outcome.FAILURE
IGNORED: Final = Outcome.IGNORED
CALL: Final = Asker.CALL


class Admission(Listened):
    """A machine with a name, a clock, listeners and a log."""

    # The caller's code runs outside of the machine's lock: calls, predicates, listeners, clocks, log handlers.

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
        store: object = None,
    ) -> None:
        open_log()
        self.name = name
        self._clock = clock
        self._made_in = mode
        now = checks.reading(clock)
        self._machine: Machine = (
            Machine(config, mode, now, listeners)
            if store is None
            else load_sharing().join(self, store, config, mode, now, listeners)
        )

    # Admitting

    def _admit(self, asker: Asker) -> Permission:
        """Return the permission for one call.

        Raises:
            CircuitOpenError: it is rejected.
        """
        now = self._clock()
        admitted = self._ask(asker, now)
        if isinstance(admitted, Period) and not admitted.admits:
            mode, retry_after_s = self._machine.mode, admitted.rejected_for_s(now)
            raise circuit_open(self.name, admitted.met, mode, retry_after_s, admitted.last_failure)
        return admitted  # type: ignore[return-value]  # a period that admits calls is a permission

    def _ask(self, asker: Asker, now: float) -> Permission | Period:
        """Return the permission for one call, or the period that rejects it."""
        machine = self._machine
        admitted: Permission | Period | None = machine.reject(now)
        if admitted is None:
            inside = open_blocks.unsettled_probes(self) if asker is CALL or asker is Asker.BLOCK else ()
            if machine.link is not None:
                now = machine.link.prepare(now, inside)
            admitted = machine.admit(asker, now, inside)
        if machine.changes or machine.listeners:
            self._notify_of_admission(admitted, now)
        return admitted

    def _notify_of_admission(self, admitted: Permission | Period, now: float) -> None:
        try:
            try:
                self._publish()
            finally:
                if isinstance(admitted, Period) and not admitted.admits and self._listeners:
                    notify(self._listeners, CallRejected(self.name, admitted.rejected_for_s(now)))
        except BaseException:
            if isinstance(admitted, Closed | Probe):
                admitted.withdraw(self._machine)
            raise

    def _look(self) -> Period:
        """Return the present period."""
        machine = self._machine
        period = machine.period
        if not period.admits:
            period = machine.look(self._clock())
        if machine.changes or machine.undelivered:
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
        """Settle a call or block that ended without an error and has no value to judge."""
        machine = self._machine
        lock = machine.lock
        _ = lock.taken
        try:
            # The comparison is made under the lock, so that each result counts in one period only.
            fast = machine.fast
            if fast is not None and permission is fast and now < fast.quiet_until and 0.0 <= latency_s < fast.slow_s:
                fast.successes += 1
                fast.streak = 0
                fast.latency_s += latency_s
                fast.last_success_at = now
                return
        finally:
            lock.release()
        self._settle(permission, SUCCESS, now, latency_s)

    def _settle_error(
        self,
        permission: Permission | Unknown,
        now: float,
        latency_s: float,
        error: BaseException,
        waited_s: float | None = None,
    ) -> None:
        """Settle a call that raised. If it was cancelled, `waited_s` says whether it hung."""
        machine = self._machine
        config = machine.config
        outcome = IGNORED
        try:
            outcome = config._judge.judge(error, (latency_s if waited_s is None else waited_s) >= config._slow_s)
        finally:
            fast = machine.fast
            if fast is not None and permission is fast and 0.0 <= latency_s < fast.slow_s:
                opened = fast.settle(machine, fast, outcome, now, latency_s, False)
                if opened is not None:
                    self._follow_up(opened, outcome, latency_s, error)
            else:
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
        if opened is not None or machine.changes or machine.listeners:
            self._follow_up(opened, outcome, latency_s, error)

    def _follow_up(
        self, opened: Period | None, outcome: Outcome, latency_s: float, error: BaseException | None
    ) -> None:
        """Do what follows from a result."""
        try:
            if isinstance(opened, Open):
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
        """Tell the registry that this breaker has opened or was steered, so it must not be forgotten."""
        if self._keeper is not None:
            self._keeper()

    def _ask_how_long(self, opened: Open, error: BaseException | None) -> None:
        """Ask the caller's functions how long the circuit stays open, and keep the failure as text."""
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
        """Return how many seconds this period lasts, by the configuration."""
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
        if not machine.changes and not machine.undelivered:
            return
        first_error = FirstError()
        for change in machine.take_changes() if machine.changes else ():
            with first_error:
                self._log_change(change)
        if machine.undelivered:
            with first_error:
                self._deliver()
        if machine.dropped and not self._warned:
            with first_error:
                self._warn_of_dropping()
        first_error.raise_if_any()

    def _log_change(self, change: Change) -> None:
        old, new = change.old_state.value, change.new_state.value
        log(
            WARNING if change.new_state is CircuitState.OPEN else INFO,
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

    def _warn_of_dropping(self) -> None:
        with self._machine.lock:
            warned = self._warned
            self._warned = True
        if not warned:
            log(
                WARNING,
                "circuit %r: listeners do not keep up; of %d changes that wait for them the oldest are dropped",
                self.name,
                UNDELIVERED_KEPT,
                circuit_name=self.name,
            )

    def _deliver(self) -> None:
        """Notify listeners of changes in order, one thread at a time.

        A thread delivers the changes that were queued when its turn began, and those of its own listeners, up to a
        limit. The next caller delivers the rest, so that slow listeners delay nobody for long.
        """
        machine, me, mine = self._machine, get_ident(), False
        first_error = FirstError()
        try:
            with machine.lock:
                if self._delivering is None:
                    self._delivering = me
                    mine = True
            if mine:
                self._deliver_in_turn(machine, first_error)
            elif self._delivering == me:
                self._deliver_more = True
        finally:
            if mine:
                self._delivering = None
        first_error.raise_if_any()

    def _deliver_in_turn(self, machine: Machine, first_error: FirstError) -> None:
        self._deliver_more = True
        queued = 0
        for delivered in range(DELIVERED_AT_ONCE):
            if delivered == queued and self._deliver_more:
                self._deliver_more = False
                queued += len(machine.undelivered)
            change = machine.take_undelivered() if delivered < queued else None
            if change is None:
                break
            with first_error:
                notify(self._listeners, StateChanged(self.name, *change))

    @property
    def _listeners(self) -> tuple[Listener, ...]:  # type: ignore[override]
        return self._machine.listeners

    def _replace_listeners(self, before: tuple[Listener, ...], after: tuple[Listener, ...]) -> bool:
        return self._machine.replace_listeners(before, after)

    # Forking

    def _after_fork_in_child(self) -> None:
        if self._delivering != get_ident():  # else a listener forks, and goes on to deliver in the child
            self._delivering = None
        self._machine.after_fork_in_child()


def load_sharing() -> Any:
    """Return the code of shared circuits. It is loaded only if there is a store."""
    from .._shared import process

    return process


def _is_rejected(error: BaseException) -> bool:
    return all(is_rejection(leaf) for leaf in leaves(error))


def _text(error: BaseException) -> str:
    try:
        return str(error)[:LAST_FAILURE_TEXT]
    except Exception as problem:
        if raised_by_signal_handler(problem):
            raise
        return "<str() raised>"
