"""Trying again: what a policy is told, and two loops that differ in how they sleep.

Nothing is decided here about a failed attempt; that is the plan's. The first attempt has no plan and is in no loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar, overload

from .._common import checks
from .._common.async_library import cancellation_types
from .._common.events import Listener, open_log
from .._common.judging import ExceptionFilter, Kinds, is_rejection, leaves
from .._common.pattern import Args, Function, Kwargs, Pattern, check_finished
from .._common.retry_after import retry_after_hint
from .._common.streams import AsyncStream, Empty, Guard, Stream
from .._common.typing import Protected, ProtectedFunction
from ..exceptions import UsageError
from . import backoff
from .budget import RetryBudget
from .plan import REPEATABLE, Attempts, Plan

__all__ = ["RetryPolicy"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Breaker = TypeVar("_Breaker")
_Bulkhead = TypeVar("_Bulkhead")

_JITTER = 'True, False or "full"'


@dataclass(frozen=True)
class RetryPolicy(Pattern):
    """Calls a function until it succeeds, is not worth another try, or the attempts run out; then raises its error.

    The delay before retry n (the first is 0) is `min(backoff_base * backoff_multiplier**n, backoff_max)`, spread by
    the jitter. With the defaults, in seconds:

    | retry n | exact | jitter=True  | jitter="full" |
    | ------- | ----- | ------------ | ------------- |
    | 0       | 0.1   | 0.05 to 0.15 | 0 to 0.1      |
    | 1       | 0.2   | 0.1 to 0.3   | 0 to 0.2      |
    | 2       | 0.4   | 0.2 to 0.6   | 0 to 0.4      |
    | 8       | 25.6  | 12.8 to 30   | 0 to 25.6     |
    | 9, ...  | 30    | 15 to 30     | 0 to 30       |

    Three retries so take 0.7 s on average, and 1.05 s at most, beside the attempts themselves. Jitter keeps clients
    that failed together from coming back together; `"full"` is the "full jitter" of "Exponential Backoff and Jitter"
    in the AWS architecture blog, which loads a server least. The default differs from all that are compared there: its
    mean is the exact delay, and no retry comes at once. Where it meets `backoff_max` the range is cut, not the draw, so
    that capped delays are spread as well.

    What is raised in the end is the last error itself, with one note (PEP 678) that tells how often and how long it was
    tried, and why no longer. An error that is not retryable and comes from the first attempt has no note.

    A policy is immutable and keeps nothing of a call: any number of threads, tasks and event loops may share it. It can
    be pickled if its parts can. Waiting is `asyncio.sleep` under asyncio, `trio.sleep` under trio, else `time.sleep`;
    a cancellation or a Ctrl-C ends it at once.

    Args:
        max_retries: attempts after the first, >= 0; 0: none, None: no limit.
        backoff_base: seconds before the first retry, >= 0; 0: no delays.
        backoff_multiplier: what each delay is multiplied with for the next, >= 1.
        backoff_max: the longest delay in seconds, >= 0, inf allowed.
        jitter: True spreads each delay evenly from half to one and a half of it, `"full"` from 0 to it, False not.
        retryable_exceptions: what is retried: an exception type, a tuple or union of them (`()`: nothing), or a
            predicate. None: every `Exception`. A refusal of this library (`CircuitOpenError`, `BulkheadFullError`) is
            retried only if one of its types itself is listed, then an open circuit not before its `retry_after_s`.
            What is no `Exception` (KeyboardInterrupt, CancelledError) never is. A group is if all in it would be.
        max_elapsed_s: the deadline in seconds from the start of the call, > 0: no sleep that would end past it; the
            error is raised at once. It interrupts no attempt. None: no deadline.
        retry_result: a predicate on the returned value; true is tried again, and returned if it stays so. None: every
            value is good. Streams are not asked.
        retry_after: a function that reads from an error for how many seconds the server wants to be left alone (None:
            no wish). The delay is at least so long, `backoff_max` or not. None: nothing is read. What it raises is
            logged and no wish.
        retry_after_max_s: the longest wish in seconds that is granted, >= 0; a longer one ends the attempts.
        budget: a `RetryBudget`, perhaps shared with other policies; None: no such limit.
        listeners: functions that are given a `RetryScheduled` before each sleep.
        sleep: a function of seconds that waits; in async use its result is awaited if it can be.
        clock: seconds that never go backwards, for the deadline and what is told.
        random: a function that gives a float from 0 to 1, for the jitter; None: `random.random`.

    Raises:
        TypeError: a setting of the wrong type.
        ValueError: a setting out of range.
    """

    _attribute = "retry_policy"
    _retryable: ClassVar[Kinds]  # of each object, but no field

    max_retries: int | None = 3
    backoff_base: float = 0.1
    backoff_multiplier: float = 2.0
    backoff_max: float = 30.0
    jitter: bool | Literal["full"] = True
    retryable_exceptions: ExceptionFilter | None = None
    _: KW_ONLY
    max_elapsed_s: float | None = None
    retry_result: Callable[[Any], object] | None = None
    retry_after: Callable[[Any], float | None] | None = retry_after_hint
    retry_after_max_s: float = 120.0
    budget: RetryBudget | None = None
    listeners: Iterable[Listener] = ()
    sleep: Callable[[float], object] | None = None
    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] | None = None

    def __post_init__(self) -> None:
        self._check_each("max_retries", lambda n, v: checks.count(n, v, 0, "an int >= 0 or None"), optional=True)
        self._check_each("backoff_base", lambda n, v: checks.number(n, v, minimum=0))
        self._check_each("backoff_multiplier", lambda n, v: checks.number(n, v, minimum=1))
        self._check_each("backoff_max", lambda n, v: checks.number(n, v, minimum=0, infinite=True))
        self._check_each("jitter", _jitter)
        self._check_each("max_elapsed_s", lambda n, v: checks.number(n, v, above=0), optional=True)
        self._check_each("retry_result", checks.function, optional=True)
        self._check_each("retry_after", checks.function, optional=True)
        self._check_each("retry_after_max_s", lambda n, v: checks.number(n, v, minimum=0))
        self._check_each("budget", _budget, optional=True)
        self._check_each("listeners", checks.functions)
        self._check_each("sleep", _sleep, optional=True)
        self._check_each("clock", lambda n, v: checks.function(n, v, "a function that returns seconds"))
        self._check_each("random", checks.function, optional=True)
        given = self.retryable_exceptions
        kinds = Kinds("retryable_exceptions", (Exception,) if given is None else given)
        object.__setattr__(self, "_retryable", kinds)
        open_log()
        __import__("random")  # not at the top, for a faster import of the package; not in a call, for safety

    def _check_each(self, name: str, check: Callable[[str, Any], object], optional: bool = False) -> None:
        value = getattr(self, name)
        if value is not None or not optional:
            object.__setattr__(self, name, check(name, value))

    def get_delay(self, attempt: int) -> float:
        """Return the seconds to wait after attempt number `attempt` (the first is 0) has failed, drawn anew each time.

        Never negative, never above `backoff_max`, always finite.

        Raises:
            TypeError, ValueError: attempt is no int, or negative.
        """
        n = checks.count("attempt", attempt, 0)
        delay_s = backoff.exact(n, self.backoff_base, self.backoff_multiplier, self.backoff_max)
        if not self.jitter:
            return delay_s
        from random import random  # loaded since the first policy was made

        return backoff.spread(delay_s, self.backoff_max, self.jitter == "full", self.random or random)

    def should_retry(self, exception: BaseException) -> bool:
        """Tell whether an exception is of a kind that is retried; what a predicate raises is raised here."""
        return all(self._retries_leaf(leaf) for leaf in leaves(exception))

    def _retries_leaf(self, error: BaseException) -> bool:
        kind = type(error)
        if not issubclass(kind, Exception) or issubclass(kind, (UsageError, *cancellation_types())):
            return False
        if is_rejection(error) and not issubclass(kind, self._retryable.rejections):
            return False
        return self._retryable.hold(error)

    def attempts(self) -> Attempts:
        """Return the attempts of one call, 0 to `max_retries`, for a loop of your own, sync or async.

        ```python
        from circuit_breaker import RetryPolicy

        policy = RetryPolicy(retry_result=lambda value: value is None)

        for attempt in policy.attempts():  # or: async for
            with attempt:
                value = attempt.result("fetched")
        ```

        The block swallows what will be retried, and lets out the last error; a success ends the loop. What it swallows
        has taken its token from the budget and been told to the listeners, even if you `break` after it. `result()` is
        needed for `retry_result` alone.

        Without the block the attempt is a bare number, and every turn of the loop counts as failed: break out of it
        after a success, and keep the error yourself, for when attempts, deadline or budget run out the loop just ends.
        Each turn but the first sleeps before it; in a plain `for` with `time.sleep`, in async code, too.
        """
        return Attempts(self)

    @overload
    def __call__(
        self, func: Protected[_P, _R, _Breaker, Any, _Bulkhead], /
    ) -> ProtectedFunction[_P, _R, _Breaker, RetryPolicy, _Bulkhead]: ...
    @overload
    def __call__(self, func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, object, RetryPolicy, object]: ...
    def __call__(self, func: Any, /) -> Any:
        """Return func, of whatever kind, such that each call of it is retried; a generator until its first item."""
        return self._decorate(func)

    def _wrap_plain(self, func: Callable[..., Any]) -> Callable[..., Any]:
        if self.budget is not None or self.retry_result is not None:
            return self._wrap_plain_in_full(func)
        clock = self.clock

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            started = clock()
            try:
                value = func(*args, **kwargs)
                check_finished(func, value)
                return value
            except REPEATABLE as error:
                plan = Plan(self, started)
                if not plan.retries(error):
                    raise
            return self._run_again(plan, func, args, kwargs)

        return wrapper

    def _wrap_plain_in_full(self, func: Callable[..., Any]) -> Callable[..., Any]:
        clock, budget, retry_result = self.clock, self.budget, self.retry_result

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            started = clock()
            if budget is not None:
                budget.deposit()
            try:
                value = func(*args, **kwargs)
                check_finished(func, value)
            except REPEATABLE as error:
                plan = Plan(self, started)
                if not plan.retries(error):
                    raise
            else:
                if retry_result is None:
                    return value
                plan = Plan(self, started)
                if not plan.repeats(value):
                    return value
            return self._run_again(plan, func, args, kwargs)

        return wrapper

    def _run(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        return self._wrap_plain(func)(*args, **kwargs)

    def _new_guard(self) -> Guard:
        return _Opening(self)

    def _run_again(self, plan: Plan, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        while True:
            plan.sleep()
            try:
                value = func(*args, **kwargs)
                check_finished(func, value)
            except REPEATABLE as error:
                if not plan.retries(error):
                    raise
            else:
                if not plan.repeats(value):
                    return value

    async def _run_async(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        started = self.clock()
        if self.budget is not None:
            self.budget.deposit()
        try:
            value = await func(*args, **kwargs)
        except REPEATABLE as error:
            plan = Plan(self, started)
            if not plan.retries(error):
                raise
        else:
            if self.retry_result is None:
                return value
            plan = Plan(self, started)
            if not plan.repeats(value):
                return value
        return await self._run_again_async(plan, func, args, kwargs)

    async def _run_again_async(
        self, plan: Plan, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        while True:
            await plan.sleep_async()
            try:
                value = await func(*args, **kwargs)
            except REPEATABLE as error:
                if not plan.retries(error):
                    raise
            else:
                if not plan.repeats(value):
                    return value


class _Opening(Guard):
    """Tries to begin a stream until there is a first item, or the end of an empty one."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    def open(self, func: Callable[..., Stream], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Stream, Any]:
        value: Any = None
        for attempt in self._policy.attempts():
            with attempt:
                stream = func(*args, **kwargs)
                try:
                    return stream, next(stream)
                except StopIteration as stop:
                    value = stop.value
        raise Empty(value)

    async def open_async(
        self, func: Callable[..., AsyncStream], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[AsyncStream, Any]:
        async for attempt in self._policy.attempts():
            with attempt:
                stream = func(*args, **kwargs)
                try:
                    return stream, await self.first_item(stream)
                except StopAsyncIteration:
                    pass
        raise Empty


def _jitter(name: str, value: Any) -> bool | str:
    if isinstance(value, str):
        if value != "full":
            raise checks.wrong_value(name, value, _JITTER)
        return value
    if not isinstance(value, bool):
        raise checks.wrong_type(name, value, _JITTER)
    return value


def _budget(name: str, value: Any) -> RetryBudget:
    if not isinstance(value, RetryBudget):
        raise checks.wrong_type(name, value, "a RetryBudget or None")
    return value


def _sleep(name: str, value: Any) -> Callable[[float], object]:
    if not callable(value) or isinstance(value, type):
        raise checks.wrong_type(name, value, "a function of seconds, sync or async")
    sleep: Callable[[float], object] = value
    return sleep
