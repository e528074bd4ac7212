"""`@retry`: makes a policy, or takes one, and lets it decorate the function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from .._common.given import Given, show_settings
from .._common.retry_after import retry_after_hint
from .policy import RetryPolicy

if TYPE_CHECKING:
    from datetime import timedelta

    from .._common.events import Listener
    from .._common.judging import ExceptionFilter
    from .._common.typing import Protected, ProtectedFunction, RetryDecorator
    from .budget import RetryBudget

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Breaker = TypeVar("_Breaker")
_Bulkhead = TypeVar("_Bulkhead")


@overload
def retry(
    func: Protected[_P, _R, _Breaker, Any, _Bulkhead], /
) -> ProtectedFunction[_P, _R, _Breaker, RetryPolicy, _Bulkhead]: ...
@overload
def retry(func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, object, RetryPolicy, object]: ...
@overload
def retry(
    max_retries: int | None = 3,
    backoff_base: float | timedelta = 0.1,
    backoff_multiplier: float = 2.0,
    retryable_exceptions: ExceptionFilter | None = None,
    *,
    policy: RetryPolicy | None = None,
    fallback: Callable[..., Any] | None = None,
    fallback_on: ExceptionFilter | None = None,
    backoff_max: float | timedelta = 30.0,
    jitter: bool | Literal["full"] = True,
    max_elapsed_s: float | timedelta | None = None,
    retry_result: Callable[[Any], object] | None = None,
    retry_after: Callable[[Any], float | timedelta | None] | None = retry_after_hint,
    retry_after_max_s: float | timedelta = 120.0,
    budget: RetryBudget | None = None,
    delay: Callable[[int, Any], float | timedelta] | None = None,
    listeners: Iterable[Listener] = (),
    sleep: Callable[[float], object] | None = None,
    clock: Callable[[], float] = time.monotonic,
    random: Callable[[], float] | None = None,
) -> RetryDecorator[RetryPolicy]: ...
def retry(*args: Any, **settings: Any) -> Any:
    """Call a function again when it fails. When no attempt is left, its last error is raised.

    Use it with or without parentheses, on functions, coroutine functions, generators, async generators and methods. A
    generator is retried until its first item. The `RetryPolicy` is the attribute `retry_policy` of the decorated
    function.

    Retry only what may safely be done twice. Rejections by a circuit breaker or a bulkhead are not retried.

    Args:
        max_retries: Attempts after the first, >= 0. None: no limit.
        backoff_base: Seconds before the first retry, >= 0, or a `timedelta`.
        backoff_multiplier: Each delay is the one before it times this, >= 1.
        retryable_exceptions: Exceptions that are retried: a type, a tuple or union of types, or a function that gets
            the exception and returns whether it is retried. None: every `Exception` but rejections.
        policy: An existing `RetryPolicy`. It replaces all other settings but the fallback.
        fallback: A function that is called as `fallback(error, *args, **kwargs)` when the last attempt has failed. Its
            result is returned; for an `async def` it is awaited if necessary, for a generator it is iterated.
        fallback_on: Errors for which the fallback is called: a type, a tuple or union of types, or a function that gets
            the exception. Other errors are raised. None: every `Exception`. Returned values never lead to the fallback.
        backoff_max: The longest delay in seconds, >= 0, or a `timedelta`.
        jitter: True: a random delay from half to one and a half of the exact one. `"full"`: from 0 to the exact one.
            False: the exact one.
        max_elapsed_s: The deadline, in seconds from the start of the call, > 0. A retry that would start after it is
            not made. None: no deadline.
        retry_result: A function that gets the returned value and returns whether the call is retried. None: every value
            is good.
        retry_after: A function that gets the error and returns how many seconds the server asks for, or None. None: no
            hints are read.
        retry_after_max_s: The longest hint that is respected, in seconds, >= 0. A longer one ends the attempts.
        budget: A `RetryBudget`, which policies may share. None: no budget.
        delay: A function that gets the number of the failed attempt (the first is 0) and its error and returns the
            seconds before the next attempt, in place of the backoff. None: the backoff.
        listeners: Functions that get a `RetryScheduled` before each sleep and a `RetryGaveUp` when a call has failed.
        sleep: A function that gets seconds and waits. None: `time.sleep`, or the sleep of asyncio or trio.
        clock: A function that returns monotonic seconds.
        random: A function that returns a float from 0 to 1, for the jitter. None: `random.random`.

    Raises:
        TypeError: A setting has the wrong type or stands beside `policy`, the decorated object is not a function, or it
            is not async although `sleep` is.
        ValueError: A setting is out of range.
    """
    given = Given(retry, args, settings)
    given.check_first({RetryPolicy: "policy=", BaseException: "retryable_exceptions="}, "max_retries=")
    fallback = given.fallback(Exception)
    if given.takes_place("policy", RetryPolicy):
        given.stands_alone("policy", except_for=("fallback", "fallback_on"))
    own = RetryPolicy(**given.some(*set(given) - {"policy", "fallback", "fallback_on"}))
    policy: RetryPolicy = own if given["policy"] is None else given["policy"]
    return given.decorator(policy._decorate, fallback)


show_settings(retry)
