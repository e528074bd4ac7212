"""`@circuit_breaker`: makes a breaker, or takes one, and lets it decorate the function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .._common.given import Given, show_settings
from .._common.words import CircuitMode
from .breaker import CircuitBreaker
from .config import CircuitBreakerConfig

if TYPE_CHECKING:
    from datetime import timedelta

    from .._common.events import Listener
    from .._common.judging import ExceptionFilter
    from .._common.typing import BreakerDecorator, Protected, ProtectedFunction
    from .._shared.protocol import Store

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Policy = TypeVar("_Policy")
_Bulkhead = TypeVar("_Bulkhead")


@overload
def circuit_breaker(
    func: Protected[_P, _R, Any, _Policy, _Bulkhead], /
) -> ProtectedFunction[_P, _R, CircuitBreaker, _Policy, _Bulkhead]: ...
@overload
def circuit_breaker(func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, CircuitBreaker, object, object]: ...
@overload
def circuit_breaker(
    name: str | None = None,
    failure_threshold: int | None = 5,
    reset_timeout_s: float | timedelta | Callable[[int], float] = 30.0,
    *,
    config: CircuitBreakerConfig | None = None,
    breaker: CircuitBreaker | None = None,
    fallback: Callable[..., Any] | None = None,
    fallback_on: ExceptionFilter | None = None,
    mode: CircuitMode = CircuitMode.AUTO,
    listeners: Iterable[Listener] = (),
    clock: Callable[[], float] = time.monotonic,
    store: Store | None = None,
) -> BreakerDecorator[CircuitBreaker]: ...
def circuit_breaker(*args: Any, **settings: Any) -> Any:
    """Guard a function with a circuit breaker: after too many failures, calls are rejected with `CircuitOpenError`.

    Use it with or without parentheses, on functions, coroutine functions, generators, async generators and methods. The
    breaker is the attribute `circuit_breaker` of the decorated function.

    A decorated method has one breaker for all instances; for one per host or instance use `CircuitBreakerRegistry`. Two
    decorators with the same name make two breakers; to share one, give both the same `breaker=`.

    Args:
        name: The name of the breaker. One decorator object with a name has one breaker for all that it decorates. None:
            each function gets its own breaker, named `module.qualname`.
        failure_threshold: Failures in a row that open the circuit, >= 1. None: this rule is off.
        reset_timeout_s: Seconds that the circuit stays open before it admits a probe, >= 0, or a `timedelta`, or a
            function as in `CircuitBreakerConfig`.
        config: A `CircuitBreakerConfig` with all settings. It replaces the two settings above.
        breaker: An existing `CircuitBreaker`. It replaces all other settings but the fallback.
        fallback: A function that is called as `fallback(error, *args, **kwargs)` when this decorator rejects a call.
            Its result is returned; for an `async def` it is awaited if necessary, for a generator it is iterated.
        fallback_on: Exceptions of the function for which the fallback is called, too: a type, a tuple or union of
            types, or a function that gets the exception. They count as usual. None: rejections only.
        mode: Who decides whether calls are admitted, see `CircuitMode`.
        listeners: Functions that get every event of the breaker.
        clock: A function that returns monotonic seconds.
        store: A store of `circuit_breaker.stores`, see `CircuitBreaker`. None: the circuit is not shared.

    Raises:
        TypeError: A setting has the wrong type or cannot stand beside another one, or the decorated object is not a
            function.
        ValueError: A setting is out of range.
    """
    given = Given(circuit_breaker, args, settings, CircuitBreakerConfig)
    remedies: dict[type, str] = {
        CircuitBreaker: "breaker=",
        CircuitBreakerConfig: "config=",
        BaseException: "config=CircuitBreakerConfig(failure_exceptions=...)",
        int: "failure_threshold=",
    }
    given.check_first(remedies, "name=")
    fallback = given.fallback(None)
    short = ("failure_threshold", "reset_timeout_s")
    if given.takes_place("breaker", CircuitBreaker):
        given.stands_alone("breaker", except_for=("name", "fallback", "fallback_on"))
    elif given.takes_place("config", CircuitBreakerConfig):
        given.stands_alone("config", except_for=set(given) - set(short))
    own = CircuitBreakerConfig(**given.some(*short))
    config = own if given["config"] is None else given["config"]
    make = partial(CircuitBreaker, config=config, **given.some("mode", "listeners", "clock", "store"))
    return given.make(make, given["breaker"], fallback)


show_settings(circuit_breaker)
