"""Every way to make a call through a breaker, and to report how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from math import inf
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Never, ParamSpec, TypeVar, overload

from .._common import checks, fork
from .._common.events import Listener
from .._common.pattern import PLAIN_RESULTS, Args, Function, Kwargs, OnlyOne, Pattern, check_finished
from .._common.words import CircuitMode
from . import open_blocks
from .admission import FAILURE, IGNORED, SUCCESS
from .config import CircuitBreakerConfig
from .permit import Permit
from .states import Asker, Closed, Permission, Probe, Unknown
from .steering import Steering
from .stream import StreamGuard

if TYPE_CHECKING:
    from .._common.typing import Protected, ProtectedFunction
    from .._shared.protocol import Store

__all__ = ["CircuitBreaker"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Policy = TypeVar("_Policy")
_Bulkhead = TypeVar("_Bulkhead")

_DEFAULT_CONFIG: Final = CircuitBreakerConfig()
_NOT_ON_THE_WAY: Final = ("allow_request", "record_failure", "record_ignored", "record_success")
_CALL: Final = Asker.CALL
_ANONYMOUS: Final = Asker.ANONYMOUS
_ANY_CALL: Final = Unknown.ANONYMOUS


class CircuitBreaker(Steering, Pattern, OnlyOne):
    """Rejects calls to a service that fails, until a few probes show that it has recovered.

    Threads, tasks and event loops may share one object. Use it as a decorator, as a `with` or `async with` block, with
    `call()` or `call_async()`, or with a `permit()`.

    A cancelled call is ignored, unless it had lasted `slow_call_duration_s`: then it counts as a failure.

    Args:
        name: Shown in errors, events, log lines and snapshots. It is a label: two breakers may have the same name.
        config: When the circuit opens, how it probes, and what counts as a failure. None: the defaults of
            `CircuitBreakerConfig`.
        mode: Who decides whether calls are admitted, see `CircuitMode`. It can be set at any time.
        listeners: Functions that get every `StateChanged`, `CallRejected` and `CallFinished`, outside every lock; with
            a store also every `StoreLost` and `StoreFound`.
        clock: A function that returns monotonic seconds. All elapsed time is measured with it.
        store: A store of `circuit_breaker.stores`. All breakers with this name and store, in all processes, are one
            circuit. None: the circuit belongs to this breaker alone.

    Raises:
        TypeError: A setting has the wrong type.
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
        store: Store | None = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise _misplaced(unknown)
        super().__init__(
            checks.text("name", name),
            _DEFAULT_CONFIG if config is None else checks.instance("config", config, CircuitBreakerConfig),
            checks.member("mode", mode, CircuitMode),
            checks.functions("listeners", listeners),
            checks.function("clock", clock, "a function that returns seconds"),
            store,
        )
        fork.survive(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _NOT_ON_THE_WAY:
            if getattr(cls, name) is not getattr(CircuitBreaker, name):
                raise TypeError(
                    f"{cls.__name__} overrides {name}(), but calls do not use {name}(): use listeners= instead"
                )

    def __repr__(self) -> str:
        machine = self._machine
        return f"<{type(self).__name__} {self.name!r}: {machine.period.met.value}, mode {machine.mode.value}>"

    @classmethod
    def instances(cls) -> list[CircuitBreaker]:
        """Return all breakers of this process that somebody still holds, in no particular order. For health pages."""
        return list(fork.living(cls))

    # Admissions and results by hand

    def allow_request(self) -> bool:
        """Return whether one call may be made now. After each True, record its result with one `record_*` method.

        In half-open it takes a probe slot, and the next `record_*` frees it. Prefer `permit()`: a `record_*` does not
        say which call it is about, so here a late result counts as the result of a probe. If no slot is free, a call
        through the breaker takes over the oldest slot that `allow_request()` took.
        """
        if self._machine.fast is not None:
            return True
        return self._ask(_ANONYMOUS, self._clock()).admits

    def record_success(self, latency_ms: float = 0.0) -> None:
        """Record that a call succeeded.

        Args:
            latency_ms: Milliseconds that the call took. A negative or infinite value counts as 0.0.

        Raises:
            TypeError: `latency_ms` is not a number. Nothing was recorded.
        """
        if type(latency_ms) is not float or not 0.0 <= latency_ms < inf:
            latency_ms = checks.latency("latency_ms", latency_ms)
        latency_s = latency_ms / 1_000
        now = self._clock()
        machine = self._machine
        lock = machine.lock
        _ = lock.taken
        try:
            fast = machine.fast
            if fast is not None and now < fast.quiet_until and latency_s < fast.slow_s:
                fast.successes += 1
                fast.streak = 0
                fast.latency_s += latency_s
                fast.last_success_at = now
                return
        finally:
            lock.release()
        self._settle(_ANY_CALL, SUCCESS, now, latency_s)

    def record_failure(self, latency_ms: float = 0.0) -> None:
        """Record that a call failed. This may open the circuit.

        Args:
            latency_ms: Milliseconds that the call took. A negative or infinite value counts as 0.0.

        Raises:
            TypeError: `latency_ms` is not a number. Nothing was recorded.
        """
        if type(latency_ms) is not float or not 0.0 <= latency_ms < inf:
            latency_ms = checks.latency("latency_ms", latency_ms)
        latency_s = latency_ms / 1_000
        now = self._clock()
        machine = self._machine
        fast = machine.fast
        if fast is None:
            self._settle(_ANY_CALL, FAILURE, now, latency_s)
            return
        opened = fast.settle(machine, fast, FAILURE, now, latency_s, latency_s >= fast.slow_s)
        if opened is not None:
            self._follow_up(opened, FAILURE, latency_s, None)

    def record_ignored(self) -> None:
        """Record that a call says nothing about the service, or was not made. This frees its probe slot."""
        self._settle(_ANY_CALL, IGNORED, self._clock(), 0.0)

    def permit(self) -> Permit:
        """Admit one call now and return its permit. Its result is reported later, from any thread or task.

        Raises:
            CircuitOpenError: The call is rejected.
        """
        permission = self._machine.fast or self._admit(Asker.PERMIT)
        return Permit(self, permission, self._clock())

    # Blocks

    def __enter__(self) -> CircuitBreaker:
        permission = self._machine.fast or self._admit(Asker.BLOCK)
        open_blocks.push(self, permission, self._clock())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        now = self._clock()
        frame = open_blocks.innermost()
        if frame is not None and frame.owner is self and type(frame.permission) is Closed:
            frame.owner = None  # the usual end; the frame is taken off the stack when the next one is put there
        else:
            frame = open_blocks.innermost_block(self)
            _leave(frame)
        permission: Permission | Unknown = Unknown.ELSEWHERE
        latency_s = 0.0
        if frame is not None:
            permission, latency_s = frame.permission, now - frame.started
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
        """Return the function with every call guarded by this breaker.

        It may be a function, a coroutine function, a generator function, an async generator function or a method. A
        generator is guarded from its first item to its end.

        Raises:
            TypeError: It is not such a function.
        """
        return self._decorate(func)

    # The two usual ways of calling are written out for speed: they do what `_run` and `_settle_success` do for a call
    # that a closed circuit admits and that returns.

    def _wrap_plain(self, func: Function) -> Function:
        machine, clock = self._machine, self._clock
        finished: type[object] = NoneType  # results of this type need no check

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal finished
            fast = machine.fast
            if fast is None:
                return self._run(func, args, kwargs)
            started = clock()
            try:
                result: object = func(*args, **kwargs)
                if type(result) is not finished:
                    finished = check_finished(func, result)
            except BaseException as error:
                now = clock()
                self._settle_error(fast, now, now - started, error)
                raise
            now = clock()
            lock = machine.lock
            _ = lock.taken
            try:
                if fast is machine.fast and now < fast.quiet_until and 0.0 <= now - started < fast.slow_s:
                    fast.successes += 1
                    fast.streak = 0
                    fast.latency_s += now - started
                    fast.last_success_at = now
                    return result
            finally:
                lock.release()
            self._settle_result(fast, now, now - started, result)
            return result

        return wrapper

    def _wrap_coroutine(self, func: Function) -> Function:
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
            lock = machine.lock
            _ = lock.taken
            try:
                if fast is machine.fast and now < fast.quiet_until and 0.0 <= now - started < fast.slow_s:
                    fast.successes += 1
                    fast.streak = 0
                    fast.latency_s += now - started
                    fast.last_success_at = now
                    return result
            finally:
                lock.release()
            self._settle_result(fast, now, now - started, result)
            return result

        return wrapper

    def _new_guard(self) -> StreamGuard:
        return StreamGuard(self)

    def _run(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        permission = self._machine.fast or self._admit(_CALL)
        started = self._clock()
        frame = open_blocks.push(self, permission, started) if type(permission) is Probe else None
        try:
            result = func(*args, **kwargs)
            if type(result) not in PLAIN_RESULTS:
                check_finished(func, result)
        except BaseException as error:
            _leave(frame)
            now = self._clock()
            self._settle_error(permission, now, now - started, error)
            raise
        if frame is not None:
            open_blocks.end(frame)
        now = self._clock()
        if self._machine.config.failure_result is None:
            self._settle_success(permission, now, now - started)
        else:
            self._settle_result(permission, now, now - started, result)
        return result

    async def _run_async(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        permission = self._machine.fast or self._admit(_CALL)
        started = self._clock()
        frame = open_blocks.push(self, permission, started) if type(permission) is Probe else None
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


def _leave(frame: open_blocks.Frame | None) -> None:
    if frame is not None:
        open_blocks.end(frame)


def _misplaced(settings: dict[str, Any]) -> TypeError:
    """Return the error for unknown keyword arguments. Settings of the configuration get a hint."""
    of_config = [name for name in settings if name in CircuitBreakerConfig.__dataclass_fields__]
    if not of_config:
        return TypeError(f"CircuitBreaker() got an unexpected keyword argument {next(iter(settings))!r}")
    given = ", ".join(f"{name}={settings[name]!r}" for name in of_config)
    return TypeError(f"CircuitBreaker() takes {given} inside config: use config=CircuitBreakerConfig({given})")
