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
    """Calls a function again when it fails. When no further attempt follows, raises its last error.

    The delay after failed attempt n (the first is 0) is `min(backoff_base * backoff_multiplier**n, backoff_max)`,
    changed at random by the jitter. With the defaults, in seconds:

    | n       | exact | jitter=True  | jitter="full" |
    | ------- | ----- | ------------ | ------------- |
    | 0       | 0.1   | 0.05 to 0.15 | 0 to 0.1      |
    | 1       | 0.2   | 0.1 to 0.3   | 0 to 0.2      |
    | 2       | 0.4   | 0.2 to 0.6   | 0 to 0.4      |
    | 8       | 25.6  | 12.8 to 30   | 0 to 25.6     |
    | 9, ...  | 30    | 15 to 30     | 0 to 30       |

    With the defaults, the three sleeps of a call that fails take 0.7 s on average and 1.05 s at most. Jitter keeps
    clients that failed together from returning together. With `jitter=True` the mean is the exact delay and no retry
    comes at once; `"full"` spreads retries most.

    The last error is raised as it is, with one note (PEP 678): how many attempts were made, how long they took and why
    no other follows. If the first attempt fails with an error that is not retried, there is no note.

    A policy cannot be changed. Threads, tasks and event loops may share it: it keeps nothing of a call but the totals
    in `snapshot()`. It can be pickled if its settings can; the copy starts with totals of zero.

    It sleeps with `asyncio.sleep` under asyncio, with `trio.sleep` under trio and with `time.sleep` elsewhere. A
    cancellation or Ctrl-C ends a sleep at once and has the last error as its `__context__`. If a plain function sleeps
    in an event loop, it blocks the loop; the policy logs one WARNING about it.

    Each retry is an INFO line of the logger `circuit_breaker`. Giving up after more than one attempt is a WARNING line.

    Durations are seconds or a `timedelta`. Reading them back gives seconds.

    Args:
        max_retries: Attempts after the first, >= 0. 0: no retries. None: no limit.
        backoff_base: Seconds before the first retry, >= 0. 0: no delays.
        backoff_multiplier: Each delay is the one before it times this, >= 1.
        backoff_max: The longest delay in seconds, >= 0. inf: no limit.
        jitter: True: a random delay from half to one and a half of the exact one. `"full"`: from 0 to the exact one.
            False: the exact one.
        retryable_exceptions: Exceptions that are retried: a type, a tuple or union of types (`()`: none), or a function
            that gets the exception and returns whether it is retried. None: every `Exception`. A rejection
            (`CircuitOpenError`, `BulkheadFullError`) is retried only if its own type is listed; an open circuit is then
            retried after its `retry_after_s`. A `UsageError`, a cancellation or a KeyboardInterrupt is never retried.
            An exception group is retried if every exception in it is.
        max_elapsed_s: The deadline, in seconds from the start of the call, > 0. A retry that would start after it is
            not made: the error is raised at once. It does not interrupt an attempt. None: no deadline.
        retry_result: A function that gets the returned value and returns whether the call is retried. When no attempt
            is left, the value is returned. It is not called for streams. None: every value is good.
        retry_after: A function that gets the error, or the value that `retry_result` rejected, and returns how many
            seconds the server asks for, or None. The retry waits that long, plus the usual delay, so that clients with
            the same hint do not return together. If it raises, that is logged. None: the policy reads no hints.
        retry_after_max_s: The longest hint that is respected, in seconds, >= 0. A longer one ends the attempts.
        budget: A `RetryBudget`, which policies may share. None: no budget.
        delay: A function that gets the number of the failed attempt (the first is 0) and its error (None for a
            rejected value) and returns the seconds before the next attempt. It replaces backoff, jitter and
            `backoff_max`. If it raises or returns no seconds, that is logged and the backoff is used. None: the
            backoff.
        listeners: Functions that get a `RetryScheduled` before each sleep and a `RetryGaveUp` when a call has failed.
        sleep: A function that gets seconds and waits. It may be async for async functions only. None: the sleep of the
            running library, see above.
        clock: A function that returns monotonic seconds, for the deadline and the reported times.
        random: A function that returns a float from 0 to 1, for the jitter. None: `random.random`.

    Raises:
        TypeError: A setting has the wrong type.
        ValueError: A setting is out of range.
    """

    _attribute = "retry_policy"

    def replace(self, **changes: Any) -> Self:
        """Return a copy of this policy in which the given settings have other values. Its totals start at zero.

        For example, `func.retry_policy.replace(max_retries=1)(func.__wrapped__)` is the decorated `func` with one
        retry.

        Raises:
            TypeError: There is no such setting, or a value has the wrong type.
            ValueError: A value is out of range.
        """
        return dataclasses.replace(self, **changes)

    def snapshot(self) -> RetrySnapshot:
        """Return the totals of this policy as a consistent copy. Calls that succeed at once are not counted."""
        return self._totals.snapshot()

    def attempts(self) -> Attempts:
        """Return the attempts of one call, for a `for` or `async for` loop of your own.

        ```python
        from circuit_breaker import RetryPolicy

        policy = RetryPolicy(retry_result=lambda value: value is None)

        for attempt in policy.attempts():  # or: async for
            with attempt:
                value = attempt.result("fetched")
        ```

        The `with` block swallows an error if another attempt follows, and raises the last one. A success ends the loop.
        `attempt.result()` is only needed for `retry_result`.

        Before each attempt but the first, the loop sleeps. In async code use `async for`: a plain `for` sleeps with
        `time.sleep` and blocks the event loop. When an error is swallowed, its retry has already been taken from the
        budget and reported to listeners.

        Without the `with` block an attempt is only a number, from 0 to `max_retries`, and every turn of the loop counts
        as failed. Then `break` after a success, and keep the last error yourself: when the attempts, the deadline or
        the budget are used up, the loop ends without an error.
        """
        return Attempts(self)

    @overload
    def __call__(
        self, func: Protected[_P, _R, _Breaker, Any, _Bulkhead], /
    ) -> ProtectedFunction[_P, _R, _Breaker, RetryPolicy, _Bulkhead]: ...
    @overload
    def __call__(self, func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, object, RetryPolicy, object]: ...
    def __call__(self, func: Any, /) -> Any:
        """Return the function with every call retried by this policy. A generator is retried until its first item.

        Raises:
            TypeError: It is not a function, or it is not async although `sleep` is.
        """
        return self._decorate(func)

    def _wrap(self, func: Function, kind: Kind, fallback: Fallback | None) -> Function:
        if kind in (Kind.PLAIN, Kind.GENERATOR) and self.sleep is not None and kind_of(self.sleep) is Kind.COROUTINE:
            raise WrongKindError(f"sleep must not be async for {func!r}, which is not async, got {self.sleep!r}")
        return super()._wrap(func, kind, fallback)

    def _wrap_plain(self, func: Function) -> Function:
        if self.budget is not None or self.retry_result is not None:
            return super()._wrap_plain(func)
        clock = self.clock
        finished: type[object] = NoneType  # results of this type need no check

        # What `_run` does with these settings.
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal finished
            started = clock()
            try:
                value: object = func(*args, **kwargs)
                if type(value) is not finished:
                    finished = check_finished(func, value)
                return value
            except REPEATABLE as error:
                plan = Plan(self, func, started)
                if not plan.retries(error):
                    raise
                plan.sleep()
            return self._run_again(plan, func, args, kwargs)

        return wrapper

    def call(self, func: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call `func(*args, **kwargs)`, with retries, and return its result. For plain functions.

        Raises:
            TypeError: `func` is an `async def` or a generator function or cannot be called, or it returned something
                that must be awaited.
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
