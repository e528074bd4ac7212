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
    """Limit how many calls of a function run at once, by a `Bulkhead`, which is then its attribute `bulkhead`.

    Works bare and with arguments, on functions, coroutine functions, generators, async generators and methods of all
    kinds. Two decorators of one name make two bulkheads: to share one, give both the same `bulkhead=`, or decorate both
    with one decorator object.

    Args:
        name: of the bulkhead, which is then one for everything that this decorator object decorates; None: each
            function gets its own, called `module.qualname`.
        max_concurrent: how many may be inside, >= 0; 0 rejects everybody.
        max_queue: how many may wait, >= 0; 0 rejects at once when every slot is taken.
        timeout_s: seconds that a caller waits at most, >= 0; both 0.0 and None mean no limit.
        bulkhead: one that exists, in place of all settings.
        listeners: functions that are given a `BulkheadRejected` for every rejection.
        clock: a function that returns monotonic seconds.

    Raises:
        TypeError: a setting is of the wrong type, or beside one that takes its place; or what is decorated is no
            function.
        ValueError: a setting is out of range.
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
                raise TypeError("fallback_on= says which errors the fallback answers, and needs fallback=")
            return None
        if not callable(function):
            raise checks.wrong_type("fallback", function, "a function or None")
        errors = always if errors is None else errors
        return Fallback(function, None if errors is None else Kinds("fallback_on", errors))

    def takes_place(self, name: str, kind: type) -> bool:
        """Tell whether an object is given in place of settings."""
        if self[name] is None:
            return False
        checks.instance(name, self[name], kind)
        return True

    def stands_alone(self, place: str, except_for: Iterable[str] = ()) -> None:
        """Reject each setting that differs from its default, beside the object that takes the place of all."""
        for name in self.keys() - {place, *except_for}:
            value, default = self[name], self._defaults[name]
            if value is not default and value != default and not (name == "listeners" and not value):
                raise TypeError(f"{place}= takes the place of {name}=, got both (and {name}={value!r})")

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
