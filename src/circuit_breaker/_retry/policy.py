"""The policy: every way of calling a function under its settings.

The first attempt is written out in each way, since it is all that most calls need. What follows a failed one is decided
by its plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import AsyncGeneratorType, GeneratorType, NoneType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar, overload

from .._common.fallback import Fallback
from .._common.pattern import (
    Args,
    Function,
    Kind,
    Kwargs,
    Pattern,
    WrongKindError,
    check_callable,
    check_finished,
    check_plain,
    kind_of,
)
from .._common.streams import AsyncStream, Empty, Guard, Stream
from .loop import Attempts
from .plan import REPEATABLE, Plan
from .settings import Settings
from .totals import RetrySnapshot

if TYPE_CHECKING:
    from .._common.typing import Protected, ProtectedFunction

__all__ = ["RetryPolicy"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Breaker = TypeVar("_Breaker")
_Bulkhead = TypeVar("_Bulkhead")

_ITERATIONS: Final = (GeneratorType, AsyncGeneratorType)


class RetryPolicy(Settings, Pattern):
    """Calls a function again when it fails, until it succeeds or there is no further attempt; then raises its error.

    The delay before retry n (the first is 0) is `min(backoff_base * backoff_multiplier**n, backoff_max)`, spread by
    the jitter. With the defaults, in seconds:

    | retry n | exact | jitter=True  | jitter="full" |
    | ------- | ----- | ------------ | ------------- |
    | 0       | 0.1   | 0.05 to 0.15 | 0 to 0.1      |
    | 1       | 0.2   | 0.1 to 0.3   | 0 to 0.2      |
    | 2       | 0.4   | 0.2 to 0.6   | 0 to 0.4      |
    | 8       | 25.6  | 12.8 to 30   | 0 to 25.6     |
    | 9, ...  | 30    | 15 to 30     | 0 to 30       |

    The three retries of the default take 0.7 s on average, and 1.05 s at most, beside the attempts themselves. Jitter
    keeps clients that failed together from coming back together. `"full"` is the "full jitter" of "Exponential Backoff
    and Jitter" in the AWS architecture blog, which loads a server least. The mean of the default is the exact delay,
    and no retry comes at once. At `backoff_max` the range is cut, not the draw, so capped delays are spread as well.

    When no further attempt follows, the last error itself is raised, with one note (PEP 678): how many attempts there
    were, how long they took, and why there is no other. An error that is not retried and comes from the first attempt
    has no note.

    A policy is immutable and keeps nothing of a call but the totals of `snapshot()`, so any number of threads, tasks
    and event loops may share it. It can be pickled if its parts can; a copy counts anew.

    It sleeps by `asyncio.sleep` under asyncio, by `trio.sleep` under trio, else by `time.sleep`. A cancellation or a
    Ctrl-C ends a sleep at once, and has the last error as its `__context__`. A plain function that sleeps on a thread
    that runs an event loop blocks it: the first time, the policy logs a WARNING.

    Each retry is logged as INFO, and giving up after more than one attempt as WARNING, to the logger `circuit_breaker`.

    Durations are seconds or a `timedelta`; they are read back as seconds.

    Args:
        max_retries: attempts after the first, >= 0; 0: none, None: no limit.
        backoff_base: seconds before the first retry, >= 0; 0: no delays.
        backoff_multiplier: what each delay is multiplied with for the next, >= 1.
        backoff_max: the longest delay in seconds, >= 0, inf allowed.
        jitter: True spreads each delay evenly from half to one and a half of it, `"full"` from 0 to it, False not.
        retryable_exceptions: what is retried: an exception type, a tuple or union of them (`()`: nothing), or a
            predicate. None: every `Exception`. A rejection of this library (`CircuitOpenError`, `BulkheadFullError`) is
            retried only if one of its types itself is listed, an open circuit then not before its `retry_after_s`.
            A `UsageError` is never retried, nor is what is no `Exception` (KeyboardInterrupt, CancelledError). A group
            is retried if everything in it would be.
        max_elapsed_s: the deadline in seconds from the start of the call, > 0. No sleep is begun that would end after
            it; the error is raised at once. It interrupts no attempt. None: no deadline.
        retry_result: a predicate on the returned value. One that is true of it counts as a failure; a value that stays
            bad is returned. None: every value is good. It is not asked about streams.
        retry_after: a function that reads from an error, or from a bad value, for how many seconds the server asks not
            to be called (None: it does not say). That time is slept in full, however long `backoff_max` is, and the
            usual delay after it, so that clients that were told the same do not return together. What it raises is
            logged. None: nothing is read.
        retry_after_max_s: the longest such time in seconds that is respected, >= 0; a longer one ends the attempts.
        budget: a `RetryBudget`, perhaps shared with other policies; None: no such limit.
        delay: a function of the number of the failed attempt (the first is 0) and its error (None for a bad value) that
            gives the seconds before the next attempt, in place of backoff, jitter and `backoff_max`. If it raises, or
            gives no seconds, that is logged and the backoff taken. None: the backoff.
        listeners: functions that are given a `RetryScheduled` before each sleep, and a `RetryGaveUp` when a call failed
            for good.
        sleep: a function of seconds that waits. In async use its result is awaited if it can be; an async one
            raises a TypeError on a plain function.
        clock: a function that returns monotonic seconds, for the deadline and the times that are reported.
        random: a function that gives a float from 0 to 1, for the jitter; None: `random.random`.

    Raises:
        TypeError: a setting of the wrong type.
        ValueError: a setting out of range.
    """

    _attribute = "retry_policy"

    def replace(self, **changes: Any) -> Self:
        """Return a policy with these settings changed, and totals of its own.

        `func.retry_policy.replace(max_retries=1)(func.__wrapped__)` is a decorated function with fewer retries.

        Raises:
            TypeError: no such setting, or a value of the wrong type.
            ValueError: a value out of range.
        """
        return dataclasses.replace(self, **changes)

    def snapshot(self) -> RetrySnapshot:
        """Return the totals of all calls of this policy that did not succeed at once, as a consistent copy."""
        return self._totals.snapshot()

    def attempts(self) -> Attempts:
        """Return the attempts of one call, numbered 0 to `max_retries`, for a loop of your own, sync or async.

        ```python
        from circuit_breaker import RetryPolicy

        policy = RetryPolicy(retry_result=lambda value: value is None)

        for attempt in policy.attempts():  # or: async for
            with attempt:
                value = attempt.result("fetched")
        ```

        The block swallows an error after which another attempt follows, and lets the last error out. A success ends the
        loop. `result()` is needed for `retry_result` alone. When an error is swallowed, its retry has been taken from
        the budget and reported to listeners, even if you `break` after it.

        Without the block the attempt is a bare number, and every turn of the loop counts as failed: break out of it
        after a success, and keep the error yourself, for when attempts, deadline or budget run out the loop just ends.

        Each turn but the first sleeps before it; a plain `for` does so with `time.sleep`, even in async code.
        """
        return Attempts(self)

    @overload
    def __call__(
        self, func: Protected[_P, _R, _Breaker, Any, _Bulkhead], /
    ) -> ProtectedFunction[_P, _R, _Breaker, RetryPolicy, _Bulkhead]: ...
    @overload
    def __call__(self, func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, object, RetryPolicy, object]: ...
    def __call__(self, func: Any, /) -> Any:
        """Return func, of the same kind, with each call retried; a generator is retried until its first item.

        Raises:
            TypeError: func cannot be decorated, or it is not async and `sleep` is.
        """
        return self._decorate(func)

    def _wrap(self, func: Function, kind: Kind, fallback: Fallback | None) -> Function:
        if kind in (Kind.PLAIN, Kind.GENERATOR) and self.sleep is not None and kind_of(self.sleep) is Kind.COROUTINE:
            raise WrongKindError(f"sleep must not be async to retry {func!r}, which is not, got {self.sleep!r}")
        return super()._wrap(func, kind, fallback)

    def _wrap_plain(self, func: Function) -> Function:
        if self.budget is not None or self.retry_result is not None:
            return super()._wrap_plain(func)
        clock = self.clock
        finished: type[object] = NoneType  # the type of the last result, which needed no awaiting

        # What `_run` does with these settings.
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal finished
            started = clock()
            try:
                value: object = func(*args, **kwargs)
                if type(value) is not finished:
                    check_finished(func, value)
                    finished = type(value)
                return value
            except REPEATABLE as error:
                plan = Plan(self, func, started)
                if not plan.retries(error):
                    raise
                plan.sleep()
            return self._run_again(plan, func, args, kwargs)

        return wrapper

    def call(self, func: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call `func(*args, **kwargs)` under this policy, and return its result.

        Raises:
            TypeError: func is an `async def` or a generator function, or cannot be called; or it returned something
                that is still to be awaited.
        """
        # No call is admitted here, so whether func is plain may be seen by its first result, which is quicker.
        if not callable(func):
            check_callable(func)
        return self._run(func, args, kwargs)  # type: ignore[no-any-return]

    # Each sleep is made while the error is still being handled, so that whatever ends it has the error as its context.

    def _run(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        started = self.clock()
        if self.budget is not None:
            self.budget.deposit()
        try:
            value: object = func(*args, **kwargs)
            if value is not None:
                if type(value) in _ITERATIONS:
                    check_plain(func)
                check_finished(func, value)
            if self.retry_result is None:
                return value
        except REPEATABLE as error:
            plan = Plan(self, func, started)
            if not plan.retries(error):
                raise
            plan.sleep()
        else:
            plan = Plan(self, func, started)
            if not plan.repeats(value):
                return value
            plan.sleep()
        return self._run_again(plan, func, args, kwargs)

    def _run_again(self, plan: Plan, func: Function, args: Args, kwargs: Kwargs) -> Any:
        while True:
            try:
                value = func(*args, **kwargs)
                check_finished(func, value)
            except REPEATABLE as error:
                if not plan.retries(error):
                    raise
                plan.sleep()
            else:
                if not plan.repeats(value):
                    return value
                plan.sleep()

    async def _run_async(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        started = self.clock()
        if self.budget is not None:
            self.budget.deposit()
        try:
            value = await func(*args, **kwargs)
            if self.retry_result is None:
                return value
        except REPEATABLE as error:
            plan = Plan(self, func, started)
            if not plan.retries(error):
                raise
            await plan.sleep_async()
        else:
            plan = Plan(self, func, started)
            if not plan.repeats(value):
                return value
            await plan.sleep_async()
        return await self._run_again_async(plan, func, args, kwargs)

    async def _run_again_async(self, plan: Plan, func: Function, args: Args, kwargs: Kwargs) -> Any:
        while True:
            try:
                value = await func(*args, **kwargs)
            except REPEATABLE as error:
                if not plan.retries(error):
                    raise
                await plan.sleep_async()
            else:
                if not plan.repeats(value):
                    return value
                await plan.sleep_async()

    def _new_guard(self) -> Guard:
        return _Opening(self)


class _Opening(Guard):
    """Tries to begin a stream until there is a first item, or the end of an empty one."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    def open(self, func: Callable[..., Stream], args: Args, kwargs: Kwargs) -> tuple[Stream, Any]:
        value: Any = None
        for attempt in Attempts(self._policy, func):
            with attempt:
                stream = func(*args, **kwargs)
                try:
                    return stream, next(stream)
                except StopIteration as stop:
                    value = stop.value
        raise Empty(value)

    async def open_async(self, func: Callable[..., AsyncStream], args: Args, kwargs: Kwargs) -> tuple[AsyncStream, Any]:
        async for attempt in Attempts(self._policy, func):
            with attempt:
                stream = func(*args, **kwargs)
                try:
                    return stream, await self.first_item(stream)
                except StopAsyncIteration:
                    pass
        raise Empty
