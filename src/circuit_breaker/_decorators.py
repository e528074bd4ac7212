"""The three decorators: each makes its object, or takes one, and lets it decorate the function.

The settings of each are listed once, in the last of its overloads, with their defaults; `_Given` reads them from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from inspect import iscoroutinefunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, cast, get_overloads, overload

from ._breaker.breaker import CircuitBreaker
from ._breaker.config import CircuitBreakerConfig
from ._bulkhead.bulkhead import Bulkhead
from ._common import checks
from ._common.events import Listener
from ._common.fallback import Fallback
from ._common.judging import ExceptionFilter, Kinds
from ._common.pattern import Pattern, WrongKindError, kind_of, qualified_name
from ._common.retry_after import retry_after_hint
from ._common.typing import BreakerDecorator, BulkheadDecorator, Protected, ProtectedFunction, RetryDecorator
from ._common.words import CircuitMode
from ._retry.budget import RetryBudget
from ._retry.policy import RetryPolicy

if TYPE_CHECKING:
    from ._shared.protocol import Store

__all__ = ["bulkhead", "circuit_breaker", "retry"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Breaker = TypeVar("_Breaker")
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
    given = _Given("circuit_breaker", args, settings)
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


@overload
def bulkhead(
    func: Protected[_P, _R, _Breaker, _Policy, Any], /
) -> ProtectedFunction[_P, _R, _Breaker, _Policy, Bulkhead]: ...
@overload
def bulkhead(func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, object, object, Bulkhead]: ...
@overload
def bulkhead(
    name: str | None = None,
    max_concurrent: int = 10,
    max_queue: int = 0,
    timeout_s: float | timedelta | None = 0.0,
    *,
    bulkhead: Bulkhead | None = None,
    listeners: Iterable[Listener] = (),
    clock: Callable[[], float] = time.monotonic,
) -> BulkheadDecorator[Bulkhead]: ...
def bulkhead(*args: Any, **settings: Any) -> Any:
    """Limit how many calls of a function run at once: further calls wait or are rejected with `BulkheadFullError`.

    Use it with or without parentheses, on functions, coroutine functions, generators, async generators and methods. The
    `Bulkhead` is the attribute `bulkhead` of the decorated function.

    Two decorators with the same name make two bulkheads; to share one, give both the same `bulkhead=`.

    Args:
        name: The name of the bulkhead. One decorator object with a name has one bulkhead for all that it decorates.
            None: each function gets its own bulkhead, named `module.qualname`.
        max_concurrent: Slots: how many calls may run at once, >= 0. 0: none.
        max_queue: How many callers may wait for a slot, >= 0. 0: a call is rejected at once when all slots are taken.
        timeout_s: Seconds that a caller waits at most, >= 0, or a `timedelta`. 0.0 and None both mean no limit.
        bulkhead: An existing `Bulkhead`. It replaces all other settings.
        listeners: Functions that get a `BulkheadRejected` for every rejection.
        clock: A function that returns monotonic seconds, for reported waits only.

    Raises:
        TypeError: A setting has the wrong type or cannot stand beside another one, or the decorated object is not a
            function.
        ValueError: A setting is out of range.
    """
    given = _Given("bulkhead", args, settings)
    given.check_first(Bulkhead, "bulkhead=", "name=", str)
    if given.takes_place("bulkhead", Bulkhead):
        given.stands_alone("bulkhead", except_for=("name",))
    make = partial(Bulkhead, **given.some("max_concurrent", "max_queue", "timeout_s", "listeners", "clock"))
    return given.make(make, given["bulkhead"])


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
            the exception. Other errors are raised. None: every `Exception`.
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
    given = _Given("retry", args, settings)
    given.check_first(RetryPolicy, "policy=", "max_retries=", int)
    fallback = given.fallback(Exception)
    if given.takes_place("policy", RetryPolicy):
        given.stands_alone("policy", except_for=("fallback", "fallback_on"))
    own = RetryPolicy(**given.some(*set(given) - {"policy", "fallback", "fallback_on"}))
    policy = given["policy"] or own
    return given.decorator(policy._decorate, fallback)


class _Given(dict[str, Any]):
    """The settings that a decorator was given, those left out with their defaults; or the function, if it is bare."""

    def __init__(self, decorator: str, args: tuple[Any, ...], settings: dict[str, Any]) -> None:
        overloads: Any = get_overloads(cast("Any", _DECORATORS[decorator]))
        listed = overloads[-1]
        names = listed.__code__.co_varnames[: listed.__code__.co_argcount]
        defaults = dict(zip(names, listed.__defaults__, strict=True)) | listed.__kwdefaults__
        self._name = decorator
        self._func: Any = None
        self._first = names[0]
        if len(args) > len(names):
            raise TypeError(f"{decorator}() takes at most {len(names)} positional arguments, got {len(args)}")
        if args and not settings and len(args) == 1 and _is_function(args[0]):
            (self._func,), args = args, ()
        twice = set(names[: len(args)]) & set(settings)
        if twice:
            raise TypeError(f"{decorator}() got multiple values for argument {twice.pop()!r}")
        for name in settings:
            if name not in defaults:
                raise TypeError(f"{decorator}() got an unexpected keyword argument {name!r}")
        self._defaults = defaults
        super().__init__(defaults | dict(zip(names, args, strict=False)) | settings)
        self["listeners"] = checks.functions("listeners", self["listeners"])  # of one iterator for all

    def check_first(self, kind: type, remedy: str, meaning: str, takes: type) -> None:
        """Reject a first argument that is an object of the pattern, a function beside settings, a class, ..."""
        first = self[self._first]
        if isinstance(first, kind):
            raise TypeError(f"{self._name}() takes a {kind.__name__} as {remedy}, got {first!r} as its first argument")
        if isinstance(first, type) and issubclass(first, BaseException):
            raise TypeError(
                f"{self._name}() takes exception types by name, as retryable_exceptions= or in config=, "
                f"got {first.__name__} as its first argument"
            )
        if isinstance(first, type) and first is not takes:
            raise TypeError(f"{self._name}() decorates functions, got the class {first.__name__}: decorate its methods")
        if _is_function(first):
            raise TypeError(
                f"{self._name}() takes either a function to decorate or settings, got {first!r} and settings: "
                f"write @{self._name}({meaning}...) above the function"
            )
        if self._first == "name" and first is not None:
            self["name"] = checks.text("name", first)

    def fallback(self, always: Any) -> Fallback | None:
        """Return the fallback, if one is given; `always` are the exceptions that it answers in any case."""
        function, errors = self["fallback"], self["fallback_on"]
        if function is None:
            if errors is not None:
                raise TypeError("fallback_on= says for which errors the fallback is called, so it needs fallback=")
            return None
        if not callable(function):
            raise checks.wrong_type("fallback", function, "a function or None")
        errors = always if errors is None else errors
        return Fallback(function, None if errors is None else Kinds("fallback_on", errors))

    def takes_place(self, name: str, kind: type) -> bool:
        """Return whether an object is given in place of settings."""
        if self[name] is None:
            return False
        checks.instance(name, self[name], kind)
        return True

    def stands_alone(self, place: str, except_for: Iterable[str] = ()) -> None:
        """Reject each setting that differs from its default, beside the object that takes the place of all."""
        for name in self.keys() - {place, *except_for}:
            value, default = self[name], self._defaults[name]
            if value is not default and value != default and not (name == "listeners" and not value):
                raise TypeError(f"{place}= replaces {name}=, got both ({name}={value!r}): give one of the two")

    def some(self, *names: str) -> dict[str, Any]:
        """Return the settings of these names."""
        return {name: self[name] for name in names}

    def decorator(self, decorate: Callable[..., Any], fallback: Fallback | None = None) -> Any:
        """Return the decorator, or what it makes of the function if it is bare."""

        def decorator(func: Any) -> Any:
            if fallback is not None:
                _check_fallback(fallback, func)
            return decorate(func, fallback)

        return decorator if self._func is None else decorator(self._func)

    def make(self, make: Callable[..., Pattern], given: Pattern | None, fallback: Fallback | None = None) -> Any:
        """Return a decorator with the given object, or one of this name; without a name with one for each function."""
        name = self["name"]
        pattern = make(name="default" if name is None else name)  # what is wrong with the settings is said here
        if given is not None or name is not None:
            return self.decorator((pattern if given is None else given)._decorate, fallback)

        def decorate(func: Any, fallback: Fallback | None) -> Any:
            return make(name=qualified_name(func))._decorate(func, fallback)

        return self.decorator(decorate, fallback)


def _is_function(first: object) -> bool:
    return (callable(first) and not isinstance(first, type | Pattern)) or isinstance(first, staticmethod | classmethod)


def _check_fallback(fallback: Fallback, func: Any) -> None:
    """Reject an async fallback for a function that is not, where both can be seen."""
    plain = not iscoroutinefunction(func) and kind_of(getattr(func, "__func__", func)).value == "plain"
    if plain and (iscoroutinefunction(fallback.function) or isgeneratorfunction(fallback.function)):
        raise WrongKindError(f"fallback must be a plain function, as {func!r} is, got {fallback.function!r}")


_DECORATORS: Final = {"circuit_breaker": circuit_breaker, "bulkhead": bulkhead, "retry": retry}
for _decorator in _DECORATORS.values():  # so that `help()` and `inspect.signature()` show the settings
    cast("Any", _decorator).__wrapped__ = get_overloads(cast("Any", _decorator))[-1]
