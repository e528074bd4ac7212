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
    """Retry a function that fails, by a `RetryPolicy`, which is then its attribute `retry_policy`.

    Works bare and with arguments, on functions, coroutine functions, generators, async generators and methods of all
    kinds; generators are retried until their first item only. The arguments are those of `RetryPolicy`, which says what
    each means.

    Args:
        policy: a policy that exists, in place of all settings.
        fallback: called as `fallback(error, *args, **kwargs)` when the last attempt has failed, and its result returned
            (awaited for an `async def`, iterated for a generator). The call has been counted and reported before.
        fallback_on: the errors that the fallback answers: an exception type, a tuple or union of them, or a predicate.
            None: every `Exception`. Others pass. A value that stays bad is returned, no error.

    Raises:
        TypeError: a setting is of the wrong type, or beside `policy`; or what is decorated is no function; or `sleep`
            is async, and what is decorated is not.
        ValueError: a setting is out of range.
    """
    given = Given(retry, args, settings)
    given.check_first(RetryPolicy, "policy=", "max_retries=", int)
    fallback = given.fallback(Exception)
    if given.takes_place("policy", RetryPolicy):
        given.stands_alone("policy", except_for=("fallback", "fallback_on"))
    own = RetryPolicy(**given.some(*set(given) - {"policy", "fallback", "fallback_on"}))
    policy = given["policy"] or own
    return given.decorator(policy._decorate, fallback)


show_settings(retry)
