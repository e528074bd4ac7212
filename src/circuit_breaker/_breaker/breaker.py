"""Every way to ask a breaker, and to tell it how a call ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import NoneType, TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from .._common import checks, fork
from .._common.events import Listener
from .._common.pattern import OnlyOne, Pattern, check_finished
from .._common.typing import Protected, ProtectedFunction
from .._common.words import CircuitMode, CircuitState, Outcome
from ..exceptions import CircuitOpenError
from . import open_blocks
from .admission import Core
from .config import CircuitBreakerConfig
from .machine import Unknown
from .open_blocks import OPEN_BLOCKS_REMEMBERED, Frame, enter, innermost
from .permit import Permit
from .snapshot import CircuitSnapshot, CircuitStats
from .states import Permission, Probe
from .stream import StreamGuard
from .totals import LiveStats

__all__ = ["CircuitBreaker"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Policy = TypeVar("_Policy")
_Bulkhead = TypeVar("_Bulkhead")

_DEFAULT_CONFIG = CircuitBreakerConfig()
_NOT_ON_THE_WAY = ("allow_request", "record_failure", "record_ignored", "record_success")


class CircuitBreaker(Core, Pattern, OnlyOne):
    """Stops calling what fails: after too many failures calls are refused at once, until probes show that it answers.

    One object serves any number of threads, tasks and event loops at the same time. Use it as a decorator, as a `with`
    or `async with` block, through `call()` and `call_async()`, through a `permit()`, or record outcomes by hand.

    Args:
        name: shown in errors, events, log lines and snapshots; it need not be unique.
        config: when it opens, how it probes, what counts as what; None takes the defaults of `CircuitBreakerConfig`.
        mode: who decides, see `CircuitMode`.
        listeners: functions that are given every `StateChanged`, `CallRejected` and `CallFinished`, outside every lock.
        clock: a function that returns monotonic seconds; all elapsed time is measured by it.

    Raises:
        TypeError: a setting is of the wrong type.
    """

    _attribute = "circuit_breaker"

    def __init__(
        self,
        name: str = "default",
        config: CircuitBreakerConfig | None = None,
        *,
        mode: CircuitMode = CircuitMode.AUTO,
        listeners: Iterable[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            checks.text("name", name),
            _DEFAULT_CONFIG if config is None else checks.instance("config", config, CircuitBreakerConfig),
            checks.member("mode", mode, CircuitMode),
            checks.functions("listeners", listeners),
            checks.function("clock", clock, "a function that returns seconds"),
        )
        fork.survive(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _NOT_ON_THE_WAY:
            if getattr(cls, name) is not getattr(CircuitBreaker, name):
                raise TypeError(f"{cls.__name__} overrides {name}(), which calls do not go through: use listeners=")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self._machine.state.value}, mode {self._machine.mode.value}>"

    # Reading

    @classmethod
    def instances(cls) -> list[CircuitBreaker]:
        """Return all breakers of this class that are alive, in no particular order; for health pages."""
        return list(fork.living(cls))

    @property
    def state(self) -> CircuitState:
        """What a caller meets now; an open circuit whose time is over is half-open from this look on."""
        return self._look()

    @property
    def is_open(self) -> bool:
        """Whether callers are refused until some time is over."""
        return self.state is CircuitState.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether every caller is admitted."""
        return self.state is CircuitState.CLOSED

    @property
    def stats(self) -> CircuitStats:
        """The totals, as one live object."""
        return self._live_stats()

    def _live_stats(self) -> LiveStats:
        with self._lock:
            if self._stats is None:
                self._stats = LiveStats(self._machine, self._lock, self._clock)
            return self._stats

    def snapshot(self) -> CircuitSnapshot:
        """Return a consistent copy of everything there is to see."""
        live = self._live_stats()
        wall, now = time.time(), self._clock()
        with self._lock:
            machine = self._machine
            state = machine.look(now).state
            counts = machine.counts(now)
            refusing = machine.state is not CircuitState.CLOSED
            snapshot = CircuitSnapshot(
                name=self.name,
                state=machine.state,
                machine_state=state,
                mode=machine.mode,
                stats=live.copy_locked(wall, now),
                window_calls=counts.calls,
                window_failures=counts.failures,
                window_slow=counts.slow,
                error_rate=counts.error_rate,
                slow_call_rate=counts.slow_call_rate,
                retry_after_s=machine.retry_after_s(now) if refusing else 0.0,
                probes_in_flight=machine.probes_in_flight(now),
            )
        self._tell()
        return snapshot

    # Steering

    @property
    def config(self) -> CircuitBreakerConfig:
        """The configuration; another one takes effect at once.

        The window starts anew if its kind or size changed, the streak stays, and an open period keeps its end.
        """
        return self._machine.config

    @config.setter
    def config(self, config: CircuitBreakerConfig) -> None:
        checks.instance("config", config, CircuitBreakerConfig)
        now = self._clock()
        with self._lock:
            self._machine.configure(config, now)
        self._keep()
        self._tell()

    @property
    def mode(self) -> CircuitMode:
        """Who decides; setting another mode keeps the totals and starts afresh, setting the same changes nothing."""
        return self._machine.mode

    @mode.setter
    def mode(self, mode: CircuitMode) -> None:
        checks.member("mode", mode, CircuitMode)
        now = self._clock()
        with self._lock:
            self._machine.set_mode(mode, now)
        self._keep()
        self._tell()

    def reset(self) -> None:
        """Be as new: mode AUTO, closed, all totals zero. Answers of calls that are out count in the totals alone."""
        now = self._clock()
        with self._lock:
            self._machine.reset(now)
        self._keep()
        self._tell()

    # Admissions and outcomes by hand

    def allow_request(self) -> bool:
        """Tell whether one call may be made now; each True should be followed by one `record_*`.

        In half-open it takes a permit, which the next `record_*` gives back. Nothing tells which call a record is
        about, so the answer of one from before the circuit opened is taken for that of a probe: where this matters
        use `permit()`.
        """
        return not isinstance(self._admit(anonymous=True), CircuitOpenError)

    def record_success(self, latency_ms: float = 0.0) -> None:
        """Count one success toward the present state.

        Args:
            latency_ms: how long the call took in milliseconds; one that is negative or not finite counts as 0.0.

        Raises:
            TypeError: `latency_ms` is no number; nothing is counted.
        """
        self._record(Outcome.SUCCESS, checks.latency("latency_ms", latency_ms))

    def record_failure(self, latency_ms: float = 0.0) -> None:
        """Count one failure toward the present state; latency and errors as for `record_success`."""
        self._record(Outcome.FAILURE, checks.latency("latency_ms", latency_ms))

    def record_ignored(self) -> None:
        """Give back what `allow_request` took: the call says nothing about the dependency."""
        self._record(Outcome.IGNORED, 0.0)

    def permit(self) -> Permit:
        """Admit one call now, and return the right to make it, to be settled exactly once from anywhere.

        Raises:
            CircuitOpenError: refused.
        """
        fast = self._machine.fast
        permission = _admitted(self._admit(riding=False)) if fast is None else fast
        return Permit(self, permission, self._clock())

    # Blocks

    def __enter__(self) -> CircuitBreaker:
        fast = self._machine.fast
        permission = _admitted(self._admit(block=True)) if fast is None else fast
        # What `open_blocks.push` does, written out here: a call more would make every block some hundredths dearer.
        outer = innermost()
        while outer is not None and outer.owner is None:
            outer = outer.outer
        frame = Frame()
        frame.owner = self
        frame.permission = permission
        frame.outer = outer
        if outer is None:
            frame.depth = 1
        else:
            frame.depth = outer.depth + 1
            if frame.depth > OPEN_BLOCKS_REMEMBERED:
                frame.forget()
        frame.started = self._clock()
        enter(frame)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        now = self._clock()
        frame = innermost()
        if frame is not None and error is None:
            latency_s = now - frame.started
            with self._lock:
                # The usual end of the innermost block; its frame stays on the stack until the next one is put there.
                fast = self._machine.fast
                if (
                    fast is not None
                    and frame.permission is fast
                    and frame.owner is self
                    and now < fast.until
                    and latency_s < fast.slow_s
                ):
                    frame.owner = None
                    fast.successes += 1
                    fast.latency_s += latency_s
                    fast.last_success_at = now
                    return
        self._leave_block(now, error)

    def _leave_block(self, now: float, error: BaseException | None) -> None:
        frame = open_blocks.innermost_block(self)
        permission: Permission | Unknown = Unknown.ELSEWHERE
        latency_s = 0.0
        if frame is not None:
            permission, latency_s = frame.permission, now - frame.started
            open_blocks.end(frame)
        if error is None:
            self._settle_success(permission, now, latency_s)
        else:
            self._settle_error(permission, now, latency_s, error)

    async def __aenter__(self) -> CircuitBreaker:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.__exit__(kind, error, trace)

    # Calling and decorating

    @overload
    def __call__(
        self, func: Protected[_P, _R, Any, _Policy, _Bulkhead], /
    ) -> ProtectedFunction[_P, _R, CircuitBreaker, _Policy, _Bulkhead]: ...
    @overload
    def __call__(self, func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, CircuitBreaker, object, object]: ...
    def __call__(self, func: Any, /) -> Any:
        """Return func, of whatever kind, such that every call is guarded; a generator is over its whole iteration."""
        return self._decorate(func)

    def _wrap_plain(self, func: Callable[..., Any]) -> Callable[..., Any]:
        machine, clock = self._machine, self._clock
        finished: type[object] = NoneType  # the type of the last result, which needed no awaiting

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal finished
            fast = machine.fast
            if fast is None:
                return self._run(func, args, kwargs)
            started = clock()
            try:
                result = func(*args, **kwargs)
                if type(result) is not finished:
                    check_finished(func, result)
                    finished = type(result)
            except BaseException as error:
                now = clock()
                self._settle_error(fast, now, now - started, error)
                raise
            now = clock()
            with self._lock:
                # Another state, and this answer is late: asked under the lock, so that none is counted twice.
                if fast is machine.fast and now < fast.until and now - started < fast.slow_s:
                    fast.successes += 1
                    fast.latency_s += now - started
                    fast.last_success_at = now
                    return result
            self._settle_result(fast, now, now - started, result)
            return result

        return wrapper

    def _wrap_coroutine(self, func: Callable[..., Any]) -> Callable[..., Any]:
        machine, clock = self._machine, self._clock

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            fast = machine.fast
            if fast is None:
                return await self._run_async(func, args, kwargs)
            started = clock()
            try:
                result = await func(*args, **kwargs)
            except BaseException as error:
                now = clock()
                self._settle_error(fast, now, now - started, error)
                raise
            now = clock()
            with self._lock:
                if fast is machine.fast and now < fast.until and now - started < fast.slow_s:
                    fast.successes += 1
                    fast.latency_s += now - started
                    fast.last_success_at = now
                    return result
            self._settle_result(fast, now, now - started, result)
            return result

        return wrapper

    def _new_guard(self) -> StreamGuard:
        return StreamGuard(self)

    def _run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fast = self._machine.fast
        permission = _admitted(self._admit()) if fast is None else fast
        started = self._clock()
        frame = self._enter(permission, started)
        try:
            result = func(*args, **kwargs)
            check_finished(func, result)
        except BaseException as error:
            _leave(frame)
            now = self._clock()
            self._settle_error(permission, now, now - started, error)
            raise
        _leave(frame)
        now = self._clock()
        self._settle_result(permission, now, now - started, result)
        return result

    async def _run_async(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fast = self._machine.fast
        permission = _admitted(self._admit()) if fast is None else fast
        started = self._clock()
        frame = self._enter(permission, started)
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            _leave(frame)
            now = self._clock()
            self._settle_error(permission, now, now - started, error)
            raise
        _leave(frame)
        now = self._clock()
        self._settle_result(permission, now, now - started, result)
        return result

    def _enter(self, permission: Permission, started: float) -> open_blocks.Frame | None:
        """Show calls made inside that they ride on this probe."""
        return open_blocks.push(self, permission, started) if type(permission) is Probe else None

    def _record(self, outcome: Outcome, latency_ms: float) -> None:
        self._settle(Unknown.ANONYMOUS, outcome, self._clock(), latency_ms, None)


def _leave(frame: open_blocks.Frame | None) -> None:
    if frame is not None:
        open_blocks.end(frame)


def _admitted(admitted: Permission | CircuitOpenError) -> Permission:
    if isinstance(admitted, CircuitOpenError):
        try:
            raise admitted
        finally:
            del admitted
    return admitted
