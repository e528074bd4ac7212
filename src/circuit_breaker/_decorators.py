"""The three decorators: each makes its object, or takes one, and lets it wrap the function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar, cast, overload

from ._breaker.breaker import CircuitBreaker
from ._breaker.config import CircuitBreakerConfig
from ._bulkhead.bulkhead import Bulkhead
from ._common import checks
from ._common.events import Listener
from ._common.judging import ExceptionFilter
from ._common.pattern import Pattern, wrap
from ._common.typing import Decorator, Protected, ProtectedFunction
from ._common.words import CircuitMode
from ._retry.budget import RetryBudget
from ._retry.policy import RetryPolicy

__all__ = ["bulkhead", "circuit_breaker", "retry"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Guards = TypeVar("_Guards")


@overload
def circuit_breaker(func: Protected[_P, _R, _Guards], /) -> ProtectedFunction[_P, _R, _Guards | CircuitBreaker]: ...
@overload
def circuit_breaker(func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, CircuitBreaker]: ...
@overload
def circuit_breaker(
    name: str | None = None,
    failure_threshold: int | None = ...,
    reset_timeout_s: float | Callable[[int], float] = ...,
    *,
    config: CircuitBreakerConfig | None = None,
    breaker: CircuitBreaker | None = None,
    fallback: Callable[..., Any] | None = None,
    mode: CircuitMode = ...,
    listeners: Iterable[Listener] = (),
    clock: Callable[[], float] = ...,
) -> Decorator[CircuitBreaker]: ...
def circuit_breaker(
    name: Any = None,
    failure_threshold: int | None = CircuitBreakerConfig.failure_threshold,
    reset_timeout_s: float | Callable[[int], float] = CircuitBreakerConfig.reset_timeout_s,
    *,
    config: CircuitBreakerConfig | None = None,
    breaker: CircuitBreaker | None = None,
    fallback: Callable[..., Any] | None = None,
    mode: CircuitMode = CircuitMode.AUTO,
    listeners: Iterable[Listener] = (),
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """Guard a function with a circuit breaker, which is then its attribute `circuit_breaker`.

    Works bare and with arguments, on functions, coroutine functions, generators, async generators and methods of all
    kinds. Two decorators of one name make two breakers: to share one, give both the same `breaker=`, or decorate both
    with one decorator object.

    Args:
        name: of the breaker, which is then one for everything that this decorator object decorates; None: each function
            gets its own, called `module.qualname`.
        failure_threshold: consecutive failures that open the circuit.
        reset_timeout_s: seconds the circuit stays open before it probes.
        config: all settings, in place of the two before.
        breaker: one that exists, in place of all settings.
        fallback: called as `fallback(error, *args, **kwargs)` when this very decorator refuses a call, and its result
            returned (awaited for an `async def`, iterated for a generator); never for an error of the function.
        mode: who decides, see `CircuitMode`.
        listeners: functions that are given every event of the breaker.
        clock: a function that returns monotonic seconds.

    Raises:
        TypeError: a setting is of the wrong type, or beside one that takes its place.
        ValueError: a setting is out of range.
    """
    name, func = _bare(name, None)
    _check_name(name)
    if fallback is not None and not callable(fallback):
        raise checks.wrong_type("fallback", fallback, "a function or None")
    short = {
        "failure_threshold": (failure_threshold, CircuitBreakerConfig.failure_threshold),
        "reset_timeout_s": (reset_timeout_s, CircuitBreakerConfig.reset_timeout_s),
    }
    if breaker is not None:
        checks.instance("breaker", breaker, CircuitBreaker)
        beside = {"mode": (mode, CircuitMode.AUTO), "listeners": (listeners, ()), "clock": (clock, time.monotonic)}
        _stands_alone("breaker", {"config": (config, None), **short, **beside})
    elif config is not None:
        _stands_alone("config", short)
    own = CircuitBreakerConfig(failure_threshold, reset_timeout_s=reset_timeout_s)
    make = partial(
        CircuitBreaker,
        config=own if config is None else config,
        mode=mode,
        listeners=checks.functions("listeners", listeners),
        clock=clock,
    )
    return _finished(_making(make, breaker, name, "circuit_breaker", fallback), func)


@overload
def bulkhead(func: Protected[_P, _R, _Guards], /) -> ProtectedFunction[_P, _R, _Guards | Bulkhead]: ...
@overload
def bulkhead(func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, Bulkhead]: ...
@overload
def bulkhead(
    name: str | None = None,
    max_concurrent: int = ...,
    max_queue: int = ...,
    timeout_s: float | None = ...,
    *,
    bulkhead: Bulkhead | None = None,
    listeners: Iterable[Listener] = (),
    clock: Callable[[], float] = ...,
) -> Decorator[Bulkhead]: ...
def bulkhead(
    name: Any = None,
    max_concurrent: int = 10,
    max_queue: int = 0,
    timeout_s: float | None = 0.0,
    *,
    bulkhead: Bulkhead | None = None,
    listeners: Iterable[Listener] = (),
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """Limit how many calls of a function run at once, by a `Bulkhead`, which is then its attribute `bulkhead`.

    Works bare and with arguments, on functions, coroutine functions, generators, async generators and methods of all
    kinds. Two decorators of one name make two bulkheads: to share one, give both the same `bulkhead=`, or decorate both
    with one decorator object.

    Args:
        name: of the bulkhead, which is then one for everything that this decorator object decorates; None: each
            function gets its own, called `module.qualname`.
        max_concurrent: how many may be inside; 0 refuses everybody.
        max_queue: how many may wait; 0 refuses at once when every slot is taken.
        timeout_s: seconds that a caller waits at most; both 0.0 and None mean no limit.
        listeners: functions that are given a `BulkheadRejected` for every refusal.
        clock: a function that returns monotonic seconds.
        bulkhead: one that exists, in place of all settings.

    Raises:
        TypeError: a setting is of the wrong type, or beside one that takes its place.
        ValueError: a setting is out of range.
    """
    name, func = _bare(name, None)
    _check_name(name)
    if bulkhead is not None:
        checks.instance("bulkhead", bulkhead, Bulkhead)
        settings = {"max_concurrent": (max_concurrent, 10), "max_queue": (max_queue, 0), "timeout_s": (timeout_s, 0.0)}
        _stands_alone("bulkhead", {**settings, "listeners": (listeners, ()), "clock": (clock, time.monotonic)})
    make = partial(
        Bulkhead,
        max_concurrent=max_concurrent,
        max_queue=max_queue,
        timeout_s=timeout_s,
        listeners=checks.functions("listeners", listeners),
        clock=clock,
    )
    return _finished(_making(make, bulkhead, name, "bulkhead"), func)


@overload
def retry(func: Protected[_P, _R, _Guards], /) -> ProtectedFunction[_P, _R, _Guards | RetryPolicy]: ...
@overload
def retry(func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, RetryPolicy]: ...
@overload
def retry(
    max_retries: int | None = ...,
    backoff_base: float = ...,
    backoff_multiplier: float = ...,
    retryable_exceptions: ExceptionFilter | None = None,
    *,
    policy: RetryPolicy | None = None,
    backoff_max: float = ...,
    jitter: bool | Literal["full"] = ...,
    max_elapsed_s: float | None = None,
    retry_result: Callable[[Any], object] | None = None,
    retry_after: Callable[[Any], float | None] | None = ...,
    retry_after_max_s: float = ...,
    budget: RetryBudget | None = None,
    listeners: Iterable[Listener] = (),
    sleep: Callable[[float], object] | None = None,
    clock: Callable[[], float] = ...,
    random: Callable[[], float] | None = None,
) -> Decorator[RetryPolicy]: ...
def retry(
    max_retries: Any = RetryPolicy.max_retries,
    backoff_base: float = RetryPolicy.backoff_base,
    backoff_multiplier: float = RetryPolicy.backoff_multiplier,
    retryable_exceptions: ExceptionFilter | None = RetryPolicy.retryable_exceptions,
    *,
    policy: RetryPolicy | None = None,
    backoff_max: float = RetryPolicy.backoff_max,
    jitter: bool | Literal["full"] = RetryPolicy.jitter,
    max_elapsed_s: float | None = RetryPolicy.max_elapsed_s,
    retry_result: Callable[[Any], object] | None = RetryPolicy.retry_result,
    retry_after: Callable[[Any], float | None] | None = RetryPolicy.retry_after,
    retry_after_max_s: float = RetryPolicy.retry_after_max_s,
    budget: RetryBudget | None = RetryPolicy.budget,
    listeners: Iterable[Listener] = RetryPolicy.listeners,
    sleep: Callable[[float], object] | None = RetryPolicy.sleep,
    clock: Callable[[], float] = time.monotonic,
    random: Callable[[], float] | None = None,
) -> Any:
    """Retry a function that fails, by a `RetryPolicy`, which is then its attribute `retry_policy`.

    Works bare and with arguments, on functions, coroutine functions, generators, async generators and methods of all
    kinds; generators are retried until their first item only. The arguments are those of `RetryPolicy`; or `policy` is
    one that exists, in place of them all.

    Raises:
        TypeError: a setting is of the wrong type, or beside `policy`.
        ValueError: a setting is out of range.
    """
    max_retries, func = _bare(max_retries, RetryPolicy.max_retries)
    settings: dict[str, Any] = {
        "max_retries": max_retries,
        "backoff_base": backoff_base,
        "backoff_multiplier": backoff_multiplier,
        "backoff_max": backoff_max,
        "jitter": jitter,
        "retryable_exceptions": retryable_exceptions,
        "max_elapsed_s": max_elapsed_s,
        "retry_result": retry_result,
        "retry_after": retry_after,
        "retry_after_max_s": retry_after_max_s,
        "budget": budget,
        "listeners": listeners,
        "sleep": sleep,
        "clock": clock,
        "random": random,
    }
    if policy is not None:
        checks.instance("policy", policy, RetryPolicy)
        _stands_alone("policy", {name: (value, getattr(RetryPolicy, name)) for name, value in settings.items()})
    own = RetryPolicy(**settings)
    return _finished(_applying(own if policy is None else policy, "retry_policy"), func)


def _is_bare(first: object) -> bool:
    return callable(first) or isinstance(first, (staticmethod, classmethod))


def _bare(first: Any, default: Any) -> tuple[Any, Any]:
    """Return the first setting, and the function that a bare decorator was given in its place, or None."""
    return (default, first) if _is_bare(first) else (first, None)


def _finished(decorator: Callable[[Any], Any], func: Any) -> Any:
    """Return the decorator, or what it makes of the function if that was given with the settings."""
    return decorator if func is None else decorator(func)


def _check_name(name: object) -> None:
    if name is not None:
        checks.text("name", name)


def _stands_alone(given: str, beside: dict[str, tuple[Any, Any]]) -> None:
    """Refuse each setting that differs from its default, beside the one that takes its place.

    One that equals it may still be of another type, as 5.0 or True: that is found where all settings are checked.
    """
    for name, (value, default) in beside.items():
        if value is not default and value != default:
            raise TypeError(f"{given}= takes the place of {name}=, got both (and {name}={value!r})")


def _applying(pattern: Pattern, attribute: str, *options: Any) -> Callable[[Any], Any]:
    return lambda func: wrap(pattern, func, attribute, *options)


def _making(
    make: Callable[..., Pattern], given: Pattern | None, name: str | None, attribute: str, *options: Any
) -> Callable[[Any], Any]:
    if given is None and name is not None:
        return _applying(make(name=name), attribute, *options)
    make()  # what is wrong with the settings is said here, not where a function is decorated
    if given is not None:
        return _applying(given, attribute, *options)
    return lambda func: wrap(make(name=_qualified_name(func)), func, attribute, *options)


def _qualified_name(func: Any) -> str:
    while isinstance(func, partial):
        func = cast("Any", func).func
    named = func if isinstance(getattr(func, "__qualname__", None), str) else cast("Any", type(func))
    module = getattr(named, "__module__", None)  # not everything written in C says where it is from
    return f"{module}.{named.__qualname__}" if isinstance(module, str) else str(named.__qualname__)
