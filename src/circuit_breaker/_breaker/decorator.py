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
    """Guard a function with a circuit breaker, which is then its attribute `circuit_breaker`.

    Works bare and with arguments, on functions, coroutine functions, generators, async generators and methods of all
    kinds. Two decorators of one name make two breakers: to share one, give both the same `breaker=`, or decorate both
    with one decorator object.

    Args:
        name: of the breaker, which is then one for everything that this decorator object decorates; None: each function
            gets its own, called `module.qualname`.
        failure_threshold: failures in a row that open the circuit, >= 1; None: no number of them does.
        reset_timeout_s: seconds the circuit stays open before it probes, >= 0; or a function, as in
            `CircuitBreakerConfig`.
        config: all settings, in place of the two before.
        breaker: one that exists, in place of all settings.
        fallback: called as `fallback(error, *args, **kwargs)` when this very decorator rejects a call, and its result
            returned (awaited for an `async def`, iterated for a generator).
        fallback_on: exceptions of the function that the fallback answers as well, after they have been counted: an
            exception type, a tuple or union of them, or a predicate. None: none.
        mode: who decides, see `CircuitMode`.
        listeners: functions that are given every event of the breaker.
        clock: a function that returns monotonic seconds.
        store: shares the circuit of this name with other processes, see `CircuitBreaker`.

    Raises:
        TypeError: a setting is of the wrong type, or beside one that takes its place; or what is decorated is no
            function.
        ValueError: a setting is out of range.
    """
    given = Given(circuit_breaker, args, settings)
    given.check_first(CircuitBreaker, "breaker=", "name=", str)
    fallback = given.fallback(None)
    short = ("failure_threshold", "reset_timeout_s")
    if given.takes_place("breaker", CircuitBreaker):
        given.stands_alone("breaker", except_for=("name", "fallback", "fallback_on"))
    elif given.takes_place("config", CircuitBreakerConfig):
        given.stands_alone("config", except_for=set(given) - set(short))
    own = CircuitBreakerConfig(**given.some(*short))
    make = partial(CircuitBreaker, config=given["config"] or own, **given.some("mode", "listeners", "clock", "store"))
    return given.make(make, given["breaker"], fallback)


show_settings(circuit_breaker)
