"""The lock around the machine: how a call is admitted, how its end is settled, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from threading import RLock, get_ident
from typing import Any

from .._common import checks
from .._common.events import (
    ERROR,
    INFO,
    WARNING,
    CallFinished,
    CallRejected,
    Listener,
    StateChanged,
    log,
    notify,
    open_log,
)
from .._common.judging import is_rejection, leaves
from .._common.words import CircuitMode, CircuitState, Outcome
from ..exceptions import CircuitOpenError, circuit_open
from . import open_blocks
from .config import CircuitBreakerConfig
from .machine import RESET_TIMEOUT_S_UNTIL_ASKED, Change, Machine, Unknown, WatchedMachine
from .states import Closed, LastFailure, Open, Permission
from .totals import LiveStats

LAST_FAILURE_TEXT = 200
FAILURE = Outcome.FAILURE


class Core:
    """What every way of calling has in common."""

    # `_lock` guards the machine and `_teller`. Under it no caller's code runs: no call, no predicate, no listener, no
    # clock, no log line. It is reentrant, because a signal handler or the destructor of a dropped stream may come here
    # in the middle of a locked section, on the thread that has it.

    _listeners: tuple[Listener, ...] = ()
    _stats: LiveStats | None = None
    _keeper: Callable[[], object] | None = None  # is told when this breaker must not be forgotten
    _teller: int | None = None  # the thread whose turn it is to tell what changed

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
        self._lock = RLock()
        if listeners:
            self._listeners = listeners
        self._machine = (WatchedMachine if listeners else Machine)(config, mode, checks.reading(clock))

    # Admitting

    def _admit(
        self, *, riding: bool = True, block: bool = False, anonymous: bool = False
    ) -> Permission | CircuitOpenError:
        """Return the permission for one call, or the refusal, not raised."""
        now = self._clock()
        machine = self._machine
        permission: Permission | None = None
        with self._lock:
            refusal = machine.refuse(now)
            if refusal is None:
                around = open_blocks.unsettled_probes(self) if riding else ()
                permission = machine.admit_anonymous(now) if anonymous else machine.admit(now, around, block)
                refusal = machine.refusal(now)
        if machine.changes:
            try:
                self._tell()
            except BaseException:
                if permission is not None:
                    with self._lock:
                        machine.withdraw(permission)
                raise
        if permission is not None:
            return permission
        if self._listeners:
            notify(self._listeners, CallRejected(self.name, refusal[2]))
        return circuit_open(self.name, *refusal)

    def _look(self) -> CircuitState:
        """Return what a caller meets now."""
        now = self._clock()
        with self._lock:
            self._machine.look(now)
            state = self._machine.state
        self._tell()
        return state

    def _failures_in_mind(self, now: float, mode: CircuitMode, config: CircuitBreakerConfig) -> bool | None:
        """Tell whether failures would be forgotten with this breaker; None: more than that would.

        It takes no lock, for its caller holds one. If the circuit opens meanwhile, `_keep` is told after that.
        """
        machine = self._machine
        period = machine.period
        if type(period) is not Closed or machine.mode is not mode or machine.config is not config:
            return None
        return period.has_failures(now)

    # Settling

    def _settle_result(self, permission: Permission, now: float, latency_s: float, result: object) -> None:
        """Settle a call that returned."""
        failed = self._machine.config.failure_result
        outcome = Outcome.SUCCESS
        if failed is not None:
            try:
                outcome = Outcome.FAILURE if failed(result) else Outcome.SUCCESS
            except BaseException:
                self._settle(permission, Outcome.IGNORED, now, latency_s * 1_000, None)
                raise
        self._settle(permission, outcome, now, latency_s * 1_000, None)

    def _settle_success(self, permission: Permission | Unknown, now: float, latency_s: float) -> None:
        """Settle a call or block that ended well, and has no value to look at."""
        with self._lock:
            # In another state this answer is late: asked under the lock, so that each counts in one period alone.
            fast = self._machine.fast
            if fast is not None and permission is fast and now < fast.until and latency_s < fast.slow_s:
                fast.successes += 1
                fast.latency_s += latency_s
                fast.last_success_at = now
                return
        self._settle(permission, Outcome.SUCCESS, now, latency_s * 1_000, None)

    def _settle_error(
        self,
        permission: Permission | Unknown,
        now: float,
        latency_s: float,
        error: BaseException,
        waited_s: float | None = None,
    ) -> None:
        """Settle a call that raised; it hangs if it was cancelled after waiting for long, else for its latency."""
        config = self._machine.config
        waited_s = latency_s if waited_s is None else waited_s
        hung = config.slow_call_duration_s is not None and waited_s >= config.slow_call_duration_s
        try:
            outcome = config._judge.judge(error, hung)
        except BaseException:
            self._settle(permission, Outcome.IGNORED, now, latency_s * 1_000, error)
            raise
        if outcome is FAILURE:
            with self._lock:
                if self._machine.spare(permission, now, latency_s):
                    return
        self._settle(permission, outcome, now, latency_s * 1_000, error)

    def _settle(
        self,
        permission: Permission | Unknown,
        outcome: Outcome,
        now: float,
        latency_ms: float,
        error: BaseException | None,
    ) -> None:
        """Count an outcome, and do what follows from it."""
        machine = self._machine
        slow_s = machine.config.slow_call_duration_s
        slow = (
            slow_s is not None
            and (latency_ms >= slow_s * 1_000 or latency_ms / 1_000 >= slow_s)  # in floats not always the same
            and (error is None or not _is_refused(error))
        )
        with self._lock:
            opened = machine.settle(permission, outcome, now, latency_ms, slow)
            config = machine.config
        try:
            if opened is not None:
                self._keep()
                self._ask(opened, config, error)
        finally:
            try:
                if machine.changes:
                    self._tell()
            finally:
                if self._listeners:
                    notify(self._listeners, CallFinished(self.name, outcome, latency_ms, error))

    # Following up

    def _keep(self) -> None:
        """It has opened, or somebody steers it: whoever made it must not make another one in its place."""
        if self._keeper is not None:
            self._keeper()

    def _ask(self, opened: Open, config: CircuitBreakerConfig, error: BaseException | None) -> None:
        """Let the caller's functions say how long the circuit stays open, and keep in words why it opened."""
        until = opened.until
        if callable(config.reset_timeout_s):
            wait_s = self._seconds("reset_timeout_s", config.reset_timeout_s, opened.openings, optional=False)
            until = opened.at + (RESET_TIMEOUT_S_UNTIL_ASKED if wait_s is None else wait_s)
        if config.retry_after is not None and error is not None:
            for leaf in leaves(error):
                wish_s = self._seconds("retry_after", config.retry_after, leaf, optional=True)
                if wish_s is not None:
                    until = max(until, opened.at + min(wish_s, config.retry_after_max_s))
        last_failure = None if error is None else LastFailure(type(error).__name__, _text(error))
        with self._lock:
            opened.until = until
            opened.last_failure = last_failure

    def _seconds(self, name: str, function: Callable[[Any], Any], argument: object, *, optional: bool) -> float | None:
        try:
            seconds = function(argument)
            if seconds is None and optional:
                return None
            return checks.number(name, seconds, minimum=0, infinite=True)
        except Exception as error:
            log(ERROR, "circuit %r: %s raised or gave no seconds", self.name, name, error=error)
            return None

    def _tell(self) -> None:
        """Tell what changed, in order: whoever has the turn tells for everybody, until nothing is left."""
        machine = self._machine
        if not machine.changes:
            return
        stop: BaseException | None = None
        mine = False
        try:
            with self._lock:
                if self._teller is None:
                    self._teller, mine = get_ident(), True
            for _ in repeat(None):
                with self._lock:
                    change = machine.changes.popleft() if mine and machine.changes else None
                    if mine and change is None:
                        self._teller, mine = None, False
                if change is None:
                    break
                try:
                    self._tell_change(change)
                except BaseException as error:
                    stop = error if stop is None else stop
        finally:
            if mine:
                self._teller = None
        if stop is not None:
            try:
                raise stop
            finally:
                stop = None

    def _tell_change(self, change: Change) -> None:
        try:
            log(
                WARNING if change.new_state is CircuitState.OPEN else INFO,
                "circuit %r: %s -> %s: %s",
                self.name,
                change.old_state.value,
                change.new_state.value,
                change.reason,
                circuit_name=self.name,
                old_state=change.old_state.value,
                new_state=change.new_state.value,
                reason=change.reason,
            )
        finally:  # a Ctrl-C that lands in a slow handler keeps nothing from the listeners
            if self._listeners:
                notify(self._listeners, StateChanged(self.name, *change))

    # Forking

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()
        if self._teller != get_ident():  # else a listener forks, and goes on to tell here too
            self._teller = None
        self._machine.forget_calls()
        if self._stats is not None:
            self._stats._lock = self._lock


def _is_refused(error: BaseException) -> bool:
    return all(is_rejection(leaf) for leaf in leaves(error))


def _text(error: BaseException) -> str:
    try:
        return str(error)[:LAST_FAILURE_TEXT]
    except Exception:
        return "<str() raised>"
