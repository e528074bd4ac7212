"""The decorators: bare and with parentheses, on everything that can be called, alone and stacked."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import pickle
import time
import types
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any
from unittest.mock import Mock

import pytest
from calls import fail, succeed
from clocks import Clock
from failures import Down
from garbage import catch_up, collect
from needs import needs_reference_counts

from circuit_breaker import bulkhead, circuit_breaker, retry
from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._bulkhead.bulkhead import Bulkhead
from circuit_breaker._common.pattern import kind_of
from circuit_breaker._common.words import CircuitMode, CircuitState
from circuit_breaker._retry.policy import RetryPolicy
from circuit_breaker.exceptions import BulkheadFullError, CircuitOpenError

CLOSED, HALF_OPEN = CircuitState.CLOSED, CircuitState.HALF_OPEN

Make = Callable[..., CircuitBreaker]

MAKERS: dict[str, Any] = {"circuit_breaker": circuit_breaker, "bulkhead": bulkhead, "retry_policy": retry}
every_decorator = pytest.mark.parametrize(("attribute", "decorator"), MAKERS.items(), ids=MAKERS)
every_named_decorator = pytest.mark.parametrize(
    ("attribute", "decorator"), [("circuit_breaker", circuit_breaker), ("bulkhead", bulkhead)]
)


# What is decorated: one of every kind


def plain(value: int, *, key: str = "k") -> tuple[int, str]:
    """Say so."""
    return value, key


async def coroutine(value: int, *, key: str = "k") -> tuple[int, str]:
    """Say so."""
    return value, key


@types.coroutine
def generator_based_coroutine(value: int, *, key: str = "k") -> Any:
    """Say so."""
    yield from asyncio.sleep(0)
    return value, key


def generator(value: int, *, key: str = "k") -> Iterator[tuple[int, str]]:
    """Say so."""
    yield value, key


async def async_generator(value: int, *, key: str = "k") -> AsyncIterator[tuple[int, str]]:
    """Say so."""
    yield value, key


async def collected(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


Kind = tuple[Any, Callable[[Any], bool], Callable[[Any], Any]]

KINDS: dict[str, Kind] = {
    "function": (plain, lambda func: not inspect.iscoroutinefunction(func), lambda result: result),
    "coroutine": (coroutine, inspect.iscoroutinefunction, asyncio.run),
    "generator-based coroutine": (generator_based_coroutine, inspect.iscoroutinefunction, asyncio.run),
    "generator": (generator, inspect.isgeneratorfunction, lambda stream: next(iter(list(stream)))),
    "async generator": (
        async_generator,
        inspect.isasyncgenfunction,
        lambda stream: asyncio.run(collected(stream))[0],
    ),
}
every_kind = pytest.mark.parametrize(("func", "is_of_kind", "result_of"), KINDS.values(), ids=KINDS)


@every_kind
@every_decorator
@pytest.mark.parametrize("bare", [True, False], ids=["bare", "with parentheses"])
def test_decorated_function_is_of_the_same_kind_and_has_its_guard_and_metadata(
    bare: bool, attribute: str, decorator: Any, func: Any, is_of_kind: Any, result_of: Any
) -> None:
    decorated = decorator(func) if bare else decorator()(func)
    assert is_of_kind(decorated)
    assert result_of(decorated(1, key="other")) == (1, "other")
    assert type(getattr(decorated, attribute)).__name__.lower() == attribute.replace("_", "")
    assert decorated.__wrapped__ is func
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(decorated, name) == getattr(func, name)
    assert inspect.signature(decorated) == inspect.signature(func)
    assert not hasattr(func, attribute)


@every_kind
def test_breaker_counts_every_kind_and_rejects_it_when_open(func: Any, is_of_kind: Any, result_of: Any) -> None:
    decorated = circuit_breaker(failure_threshold=1)(func)
    result_of(decorated(1))
    assert decorated.circuit_breaker.stats.success_count == 1
    fail(decorated.circuit_breaker)
    with pytest.raises(CircuitOpenError):
        result_of(decorated(1))


@every_kind
def test_bulkhead_rejects_every_kind_when_full(func: Any, is_of_kind: Any, result_of: Any) -> None:
    decorated = bulkhead(max_concurrent=1)(func)
    result_of(decorated(1))
    with decorated.bulkhead, pytest.raises(BulkheadFullError):
        result_of(decorated(1))
    assert decorated.bulkhead.active_count == 0


@every_kind
def test_stacked_decorators_keep_the_kind_and_every_guard_in_any_order(
    func: Any, is_of_kind: Any, result_of: Any
) -> None:
    for order in (MAKERS, reversed(MAKERS)):
        decorated = func
        for name in order:
            decorated = MAKERS[name]()(decorated)
        assert is_of_kind(decorated)
        assert result_of(decorated(1)) == (1, "k")
        assert decorated.circuit_breaker.stats.success_count == 1
        assert decorated.bulkhead.snapshot().accepted_count == 1
        assert isinstance(decorated.retry_policy, RetryPolicy)
        assert inspect.unwrap(decorated) is func
        assert decorated.circuit_breaker.name == decorated.bulkhead.name == f"{__name__}.{func.__name__}"


def test_of_two_breakers_on_one_function_the_outer_is_the_attribute(make: Make) -> None:
    inner, outer = make("inner"), make("outer")
    decorated = outer(inner(plain))
    assert decorated.circuit_breaker is outer
    decorated(1)
    assert inner.stats.success_count == outer.stats.success_count == 1


# Names, and whose object it is


@every_named_decorator
def test_without_a_name_each_function_gets_its_own_called_after_it(attribute: str, decorator: Any) -> None:
    for decorate in (decorator, decorator(), decorator(None)):
        one, other = getattr(decorate(plain), attribute), getattr(decorate(generator), attribute)
        assert one is not other
        assert (one.name, other.name) == (f"{__name__}.plain", f"{__name__}.generator")
        assert getattr(decorate(plain), attribute) is not one


@every_named_decorator
def test_with_a_name_one_decorator_object_has_one_for_all(attribute: str, decorator: Any) -> None:
    decorate = decorator("api")
    one = getattr(decorate(plain), attribute)
    assert one is getattr(decorate(coroutine), attribute)
    assert one.name == "api"
    assert getattr(decorator("api")(plain), attribute) is not one


class Client:
    @circuit_breaker
    def method(self, value: int) -> tuple[object, int]:
        return self, value

    @circuit_breaker
    @staticmethod
    def outside_static(value: int) -> int:
        return value

    @staticmethod
    @circuit_breaker
    def inside_static(value: int) -> int:
        return value

    @circuit_breaker()
    @classmethod
    def outside_class(cls, value: int) -> tuple[object, int]:
        return cls, value

    @classmethod
    @circuit_breaker()
    def inside_class(cls, value: int) -> tuple[object, int]:
        return cls, value

    def __call__(self, value: int) -> int:
        return value


def test_methods_of_all_kinds_stay_what_they_are_and_are_called_after_themselves() -> None:
    client = Client()
    assert client.method(1) == Client.method(client, 1) == (client, 1)
    for owner in (client, Client):
        assert owner.outside_static(2) == owner.inside_static(2) == 2
        assert owner.outside_class(3) == owner.inside_class(3) == (Client, 3)
    for name in ("method", "outside_static", "inside_static", "outside_class", "inside_class"):
        method = getattr(client, name)
        assert method.circuit_breaker is getattr(Client, name).circuit_breaker
        assert method.circuit_breaker.name == f"{__name__}.Client.{name}"
        assert method.circuit_breaker.stats.success_count >= 2
    assert isinstance(inspect.getattr_static(Client, "outside_static"), staticmethod)
    assert isinstance(inspect.getattr_static(Client, "outside_class"), classmethod)


@every_decorator
def test_static_and_class_methods_may_stand_inside_of_a_stack(attribute: str, decorator: Any) -> None:
    class Stacked:
        @retry
        @circuit_breaker
        @decorator
        @staticmethod
        def static(value: int) -> int:
            return value

        @retry
        @circuit_breaker
        @decorator
        @classmethod
        def of_class(cls, value: int) -> tuple[object, int]:
            return cls, value

    assert Stacked.static(1) == Stacked().static(1) == 1
    assert Stacked.of_class(1) == Stacked().of_class(1) == (Stacked, 1)
    for method in (Stacked.static, Stacked.of_class):
        assert hasattr(method, attribute)
        assert method.circuit_breaker.stats.success_count == 2


def test_subclass_that_calls_the_decorated_method_of_its_parent_shares_the_breaker() -> None:
    class Child(Client):
        @circuit_breaker
        def method(self, value: int) -> tuple[object, int]:
            return super().method(value)

    child = Child()
    before = Client.method.circuit_breaker.stats.success_count
    assert child.method(1) == (child, 1)
    assert Client.method.circuit_breaker.stats.success_count == before + 1
    assert Child.method.circuit_breaker is not Client.method.circuit_breaker


class Remote:
    """A remote method: it has every attribute that is asked for."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __getattr__(self, name: str) -> Remote:
        return Remote(f"{self.path}.{name}")

    def __call__(self, value: int) -> tuple[str, int]:
        return self.path, value


@pytest.mark.parametrize("pattern", [CircuitBreaker(), Bulkhead(), RetryPolicy()], ids=lambda one: type(one).__name__)
def test_a_proxy_that_has_any_attribute_is_guarded_as_the_plain_function_it_is(pattern: Any) -> None:
    assert pattern.call(Remote("add"), 1) == ("add", 1)
    assert pattern(Remote("add"))(1) == ("add", 1)


@pytest.mark.parametrize("pattern", [CircuitBreaker(), Bulkhead(), RetryPolicy()], ids=lambda one: type(one).__name__)
def test_a_mock_that_passes_for_a_function_is_guarded_as_the_plain_function_it_is(pattern: Any) -> None:
    mock = Mock(spec=lambda value: None, return_value=7)
    assert pattern.call(mock, 1) == 7
    assert pattern(mock)(1) == 7


@pytest.mark.parametrize("decorator", [circuit_breaker, retry, bulkhead])
def test_a_decorated_proxy_is_called_and_a_breaker_of_it_has_the_name_of_its_type(decorator: Any) -> None:
    decorated = decorator(Remote("add"))
    assert decorated(1) == ("add", 1)
    assert circuit_breaker(Remote("add")).circuit_breaker.name == f"{__name__}.Remote"


class Based:
    @types.coroutine
    def method(self, value: int) -> Any:
        yield from asyncio.sleep(0)
        return value

    __call__ = method


@pytest.mark.parametrize("pattern", [CircuitBreaker(), Bulkhead(), RetryPolicy()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(
    "func", [Based().method, Based(), functools.partial(Based())], ids=["method", "object", "partial"]
)
def test_generator_based_coroutine_is_awaited_and_never_taken_for_a_generator(pattern: Any, func: Any) -> None:
    assert asyncio.run(pattern(func)(1)) == 1
    assert asyncio.run(pattern.call_async(func, 1)) == 1
    with pytest.raises(TypeError, match="use call_async"):
        pattern.call(func, 1)


@pytest.mark.parametrize("pattern", [CircuitBreaker(), Bulkhead(), RetryPolicy()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(
    ("func", "remedy"), [(plain, r"call\(\)"), (generator, "a decorator"), (async_generator, "a decorator")]
)
def test_what_cannot_be_awaited_is_rejected_by_call_async(pattern: Any, func: Any, remedy: str) -> None:
    with pytest.raises(TypeError, match=f"use {remedy}"):
        asyncio.run(pattern.call_async(func, 1))


def test_abstract_method_stays_abstract() -> None:
    class Abstract(ABC):
        @circuit_breaker
        @abstractmethod
        def method(self) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        Abstract()  # type: ignore[abstract]


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (functools.partial(plain, key="k"), f"{__name__}.plain"),
        (functools.partial(functools.partial(Client(), 1)), f"{__name__}.Client"),
        (Client(), f"{__name__}.Client"),
        (Client().__call__, f"{__name__}.Client.__call__"),
        (len, "builtins.len"),
    ],
    ids=["partial", "partial of an object", "object", "bound method", "builtin"],
)
@every_named_decorator
def test_whatever_can_be_called_is_called_after_what_it_is(
    attribute: str, decorator: Any, func: Any, name: str
) -> None:
    assert getattr(decorator(func), attribute).name == getattr(decorator()(func), attribute).name == name


def test_decorating_makes_one_breaker_and_no_more() -> None:
    before = set(CircuitBreaker.instances())
    decorated = circuit_breaker()(plain)
    catch_up()
    assert set(CircuitBreaker.instances()) - before == {decorated.circuit_breaker}


@every_decorator
@pytest.mark.parametrize("wrong", [property(lambda self: None), 3.5, b"f"], ids=["property", "number", "bytes"])
def test_what_cannot_be_called_is_a_type_error(wrong: Any, attribute: str, decorator: Any) -> None:
    for decorate in (decorator, decorator()):
        with pytest.raises(TypeError):
            decorate(wrong)


# Settings


def test_settings_reach_the_breaker(clock: Clock) -> None:
    events: list[Any] = []
    mode = CircuitMode.SHADOW
    made = circuit_breaker("api", 2, 7.0, mode=mode, listeners=[events.append], clock=clock)(plain).circuit_breaker
    assert (made.config.failure_threshold, made.config.reset_timeout_s, made.mode) == (2, 7.0, mode)
    made.call(clock.advance, 1)
    assert made.stats.total_latency_ms == 1000
    assert len(events) == 1


def test_settings_reach_the_breakers_of_all_functions_even_listeners_that_are_given_once(clock: Clock) -> None:
    events: list[Any] = []
    decorate = circuit_breaker(failure_threshold=2, listeners=iter([events.append]), clock=clock)
    for func in (plain, plain):
        decorated = decorate(func)
        assert decorated.circuit_breaker.config.failure_threshold == 2
        decorated(1)
    assert len(events) == 2


def test_settings_reach_the_bulkhead() -> None:
    made = bulkhead("api", 2, 3, 4.0)(plain).bulkhead
    assert (made.name, made.max_concurrent, made.max_queue, made.timeout_s) == ("api", 2, 3, 4.0)


def test_settings_reach_the_policy() -> None:
    made = retry(1, 0.5, 3.0, (OSError,), jitter=False, backoff_max=5.0)(plain).retry_policy
    assert [made.get_delay(number) for number in range(4)] == [0.5, 1.5, 4.5, 5.0]
    assert (made.max_retries, made.retryable_exceptions) == (1, (OSError,))


WRONG_FIRST: list[tuple[Callable[[], Any], str]] = [
    (lambda: circuit_breaker(plain, 2), "either a function to decorate or settings"),
    (lambda: circuit_breaker(plain, fallback=len), "either a function to decorate or settings"),
    (lambda: circuit_breaker(BREAKER), r"got <CircuitBreaker .* as \w+: pass it as breaker="),
    (lambda: circuit_breaker(BREAKER, fallback=len), r"got <CircuitBreaker .* as \w+: pass it as breaker="),
    (lambda: circuit_breaker(CONFIG), r"got CircuitBreakerConfig.* as \w+: pass it as config="),
    (lambda: circuit_breaker(3), r"got 3 as \w+: pass it as failure_threshold="),
    (lambda: circuit_breaker(ConnectionError), "pass it as config=CircuitBreakerConfig.failure_exceptions="),
    (lambda: circuit_breaker((OSError,)), "pass it as config=CircuitBreakerConfig.failure_exceptions="),
    (lambda: circuit_breaker(True), "name must be a str"),
    (lambda: circuit_breaker(Client), "decorates functions, got the class Client"),
    (lambda: circuit_breaker()(Client), "got the class"),
    (lambda: bulkhead(POOL), r"got <Bulkhead .* as \w+: pass it as bulkhead="),
    (lambda: bulkhead(plain, 2), "either a function to decorate or settings"),
    (lambda: bulkhead(5), r"got 5 as \w+: pass it as max_concurrent="),
    (lambda: retry(ConnectionError), "ConnectionError'> as max_retries: pass it as retryable_exceptions="),
    (lambda: retry((OSError, ValueError)), "pass it as retryable_exceptions="),
    (lambda: retry([OSError]), "pass it as retryable_exceptions="),
    (
        lambda: retry(OSError | ValueError),
        r"got OSError \| ValueError as \w+: pass it as retryable_exceptions=",
    ),
    (lambda: retry(int | None), r"max_retries must be an int >= 0 or None, got int \| None"),
    (lambda: circuit_breaker(OSError | ValueError), "pass it as config=CircuitBreakerConfig.failure_exceptions="),
    (lambda: retry(property(plain)), "got a property: decorate its getter, below @property"),
    (
        lambda: circuit_breaker(property(plain)),
        r"circuit_breaker\(\) decorates functions, got a property",
    ),
    (lambda: bulkhead(functools.cached_property(plain)), "decorate its getter, below @cached_property"),
    (lambda: retry(int), "got the class int"),
    (lambda: retry(POLICY), r"got RetryPolicy.* as \w+: pass it as policy="),
    (lambda: retry(POLICY, backoff_base=5), r"got RetryPolicy.* as \w+: pass it as policy="),
    (lambda: retry(max_retries=len), "either a function to decorate or settings"),
    (lambda: retry(plain, 0.5), "either a function to decorate or settings"),
    (lambda: retry(Client), "decorates functions, got the class Client"),
    (lambda: retry("3"), "max_retries must be"),
    (lambda: circuit_breaker("a", 5, 30.0, CONFIG), "at most 3 positional arguments, got 4"),
    (lambda: circuit_breaker("a", name="b"), "multiple values for argument 'name'"),
    (lambda: circuit_breaker("a", CONFIG), "got a CircuitBreakerConfig as failure_threshold: pass it as config="),
    (
        lambda: circuit_breaker("a", success_threshold=1),
        r"takes success_threshold=1 inside config: use config=CircuitBreakerConfig\(success_threshold=1\)",
    ),
    (lambda: circuit_breaker(fail_max=3), "unexpected keyword argument 'fail_max': it takes name, failure_threshold, "),
    (lambda: retry(retries=3), "unexpected keyword argument 'retries': it takes max_retries, backoff_base, "),
    (lambda: bulkhead(limit=3), "unexpected keyword argument 'limit': it takes name, max_concurrent, "),
    (lambda: circuit_breaker(fallback_on=OSError), "needs fallback="),
]


@pytest.mark.parametrize(("give", "told"), WRONG_FIRST, ids=[told for _, told in WRONG_FIRST])
def test_a_wrong_first_argument_is_a_type_error_that_names_the_remedy(give: Callable[[], Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        give()


def test_a_context_manager_is_rejected_because_it_runs_after_it_has_returned() -> None:
    @contextlib.contextmanager
    def managed() -> Iterator[int]:
        yield 1

    for decorate in (CircuitBreaker(), Bulkhead(), RetryPolicy()):
        for func in (managed, functools.partial(functools.partial(managed))):
            with pytest.raises(TypeError, match="context manager"):
                decorate(func)


@pytest.mark.parametrize("pattern", [CircuitBreaker, Bulkhead, RetryPolicy])
@pytest.mark.parametrize("called", [lambda pattern, func: pattern(func)(), lambda pattern, func: pattern.call(func)])
@pytest.mark.parametrize("make_awaitable", [lambda: coroutine(1), lambda: Awaitable()], ids=["coroutine", "object"])
def test_a_plain_function_that_returns_an_awaitable_is_a_type_error(
    pattern: Any, called: Any, make_awaitable: Callable[[], Any]
) -> None:
    calls = []

    @functools.wraps(coroutine)
    def wrapper() -> Any:
        calls.append(1)
        return make_awaitable()

    guard = pattern()
    with pytest.raises(TypeError, match=r"decorate the `async def` itself|call_async"):
        called(guard, wrapper)
    assert len(calls) == 1, "it is not retried"
    if pattern is CircuitBreaker:
        assert (guard.stats.success_count, guard.stats.failure_count, guard.stats.ignored_count) == (0, 0, 1)
    if pattern is Bulkhead:
        assert guard.active_count == 0


@pytest.mark.parametrize("pattern", [CircuitBreaker, Bulkhead, RetryPolicy])
def test_a_plain_function_may_return_generators_but_no_generator_that_is_a_coroutine(pattern: Any) -> None:
    results: list[Any] = [iter([1]), generator(1), generator(2), generator_based_coroutine(3)]
    func = pattern()(lambda: results.pop(0))
    for _ in range(3):
        func()
    with pytest.raises(TypeError, match="must be awaited"):
        func()


class Awaitable:
    def __await__(self) -> Any:
        yield


class CoroutineMethod:
    async def __call__(self, *_: Any) -> None: ...


@pytest.mark.parametrize("decorator", [circuit_breaker, retry])
@pytest.mark.parametrize("func", [plain, coroutine, generator, async_generator])
@pytest.mark.parametrize(
    "fallback", [coroutine, CoroutineMethod(), functools.partial(coroutine, 1), generator, async_generator]
)
def test_a_fallback_of_another_kind_than_its_function_is_rejected(decorator: Any, func: Any, fallback: Any) -> None:
    if kind_of(fallback) is kind_of(func):
        assert decorator(fallback=fallback)(func)
        return
    also = "" if func is plain else f" or a {kind_of(func).value} function"
    with pytest.raises(TypeError, match=f"fallback must be a plain function{also} for the .*, got the "):
        decorator(fallback=fallback)(func)
    assert decorator(fallback=plain)(func)


def test_object_that_is_given_guards_all_functions(make: Make) -> None:
    breaker, pool, policy = make(), Bulkhead(), RetryPolicy()
    config = CircuitBreakerConfig(2)
    for func in (plain, coroutine):
        assert circuit_breaker("ignored", breaker=breaker, fallback=plain)(func).circuit_breaker is breaker
        assert circuit_breaker(config=config)(func).circuit_breaker.config is config
        assert bulkhead("ignored", bulkhead=pool)(func).bulkhead is pool
        assert retry(policy=policy)(func).retry_policy is policy
    assert breaker.name == "api"


def test_name_mode_listeners_and_clock_may_stand_beside_a_config(clock: Clock) -> None:
    config = CircuitBreakerConfig(2)
    made = circuit_breaker(
        "api", config=config, fallback=plain, mode=CircuitMode.FORCED_OPEN, listeners=[print], clock=clock
    )(plain).circuit_breaker
    assert (made.name, made.config, made.mode) == ("api", config, CircuitMode.FORCED_OPEN)


class Equal:
    """Whatever it is compared with, it is the same."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


BREAKER, CONFIG, POOL, POLICY = CircuitBreaker(), CircuitBreakerConfig(), Bulkhead(), RetryPolicy()

CONFLICTS: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    *((circuit_breaker, {"config": CONFIG}, {n: v}) for n, v in {"failure_threshold": 4, "reset_timeout_s": 1}.items()),
    *(
        (circuit_breaker, {"breaker": BREAKER}, {n: v})
        for n, v in {
            "config": CONFIG,
            "failure_threshold": None,
            "reset_timeout_s": 1,
            "mode": CircuitMode.SHADOW,
            "listeners": [print],
            "clock": time.time,
        }.items()
    ),
    *(
        (bulkhead, {"bulkhead": POOL}, {n: v})
        for n, v in {
            "max_concurrent": 0,
            "max_queue": 1,
            "timeout_s": None,
            "listeners": [print],
            "clock": time.time,
        }.items()
    ),
    *(
        (retry, {"policy": POLICY}, {n: v})
        for n, v in {
            "max_retries": None,
            "backoff_base": 0,
            "backoff_multiplier": 1,
            "retryable_exceptions": (),
            "backoff_max": 1,
            "jitter": False,
            "max_elapsed_s": 1,
            "retry_result": bool,
            "retry_after": None,
            "retry_after_max_s": 1,
            "listeners": [print],
            "sleep": time.sleep,
            "clock": time.time,
            "random": time.time,
        }.items()
    ),
]


@pytest.mark.parametrize(
    ("decorator", "given", "beside"), CONFLICTS, ids=[f"{[*given]} {[*beside]}" for _, given, beside in CONFLICTS]
)
def test_setting_beside_the_object_that_takes_its_place_is_a_type_error_that_names_both(
    decorator: Any, given: dict[str, Any], beside: dict[str, Any]
) -> None:
    (place,), (setting,) = given, beside
    with pytest.raises(TypeError, match=rf"{place}=.* {setting}="):
        decorator(**given, **beside)


@pytest.mark.parametrize(
    ("decorator", "given"),
    [
        (circuit_breaker, {"config": CONFIG}),
        (circuit_breaker, {"breaker": BREAKER}),
        (bulkhead, {"bulkhead": POOL}),
        (retry, {"policy": POLICY}),
    ],
)
def test_defaults_spelt_out_beside_the_object_that_takes_their_place_are_fine(
    decorator: Any, given: dict[str, Any]
) -> None:
    for parameter in inspect.signature(decorator).parameters.values():
        if parameter.name not in given:
            assert decorator(**given, **{parameter.name: parameter.default})(plain)(1) == (1, "k")


def test_no_listeners_beside_an_object_are_no_setting() -> None:
    assert circuit_breaker(breaker=BREAKER, listeners=[])(plain)(1) == (1, "k")
    assert bulkhead(bulkhead=POOL, listeners=iter(()))(plain)(1) == (1, "k")


def test_value_that_equals_the_default_is_no_setting() -> None:
    assert circuit_breaker(config=CONFIG, failure_threshold=5, reset_timeout_s=30)(plain)(1) == (1, "k")
    assert circuit_breaker(breaker=BREAKER, reset_timeout_s=30)(plain)(1) == (1, "k")
    assert bulkhead(bulkhead=POOL, timeout_s=0)(plain)(1) == (1, "k")
    assert retry(policy=POLICY, backoff_max=30)(plain)(1) == (1, "k")
    assert retry(policy=POLICY, backoff_base=Fraction(0.1))(plain)(1) == (1, "k")


@pytest.mark.parametrize(
    ("decorator", "given", "wrong"),
    [
        (circuit_breaker, {"config": CONFIG}, {"failure_threshold": 5.0}),
        (circuit_breaker, {"breaker": BREAKER}, {"failure_threshold": 5.0}),
        (circuit_breaker, {"breaker": BREAKER}, {"mode": Equal()}),
        (bulkhead, {"bulkhead": POOL}, {"max_concurrent": 10.0}),
        (bulkhead, {"bulkhead": POOL}, {"max_queue": False}),
        (bulkhead, {"bulkhead": POOL}, {"timeout_s": False}),
        (bulkhead, {"bulkhead": POOL}, {"clock": Equal()}),
        (retry, {"policy": POLICY}, {"max_retries": 3.0}),
        (retry, {"policy": POLICY}, {"jitter": 1}),
        (retry, {"policy": POLICY}, {"budget": Equal()}),
    ],
    ids=lambda part: part.__name__ if callable(part) else " ".join(part),
)
def test_wrong_setting_that_equals_its_default_is_rejected_beside_the_object_that_takes_its_place(
    decorator: Any, given: dict[str, Any], wrong: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=f"^{next(iter(wrong))} must be"):
        decorator(**given, **wrong)


@pytest.mark.parametrize(
    ("decorator", "wrong", "error"),
    [
        (circuit_breaker, {"name": 3}, TypeError),
        (circuit_breaker, {"name": 3, "breaker": BREAKER}, TypeError),
        (circuit_breaker, {"failure_threshold": 0}, ValueError),
        (circuit_breaker, {"failure_threshold": "5"}, TypeError),
        (circuit_breaker, {"reset_timeout_s": -1}, ValueError),
        (circuit_breaker, {"reset_timeout_s": True}, TypeError),
        (circuit_breaker, {"config": {}}, TypeError),
        (circuit_breaker, {"breaker": CONFIG}, TypeError),
        (circuit_breaker, {"fallback": "value"}, TypeError),
        (circuit_breaker, {"fallback": 0, "breaker": BREAKER}, TypeError),
        (circuit_breaker, {"mode": "shadow"}, TypeError),
        (circuit_breaker, {"listeners": print}, TypeError),
        (circuit_breaker, {"listeners": [None]}, TypeError),
        (circuit_breaker, {"clock": 3}, TypeError),
        (bulkhead, {"name": 3}, TypeError),
        (bulkhead, {"name": 3, "bulkhead": POOL}, TypeError),
        (bulkhead, {"max_concurrent": -1}, ValueError),
        (bulkhead, {"max_queue": 1.5}, TypeError),
        (bulkhead, {"timeout_s": -1}, ValueError),
        (bulkhead, {"bulkhead": BREAKER}, TypeError),
        (bulkhead, {"listeners": 3}, TypeError),
        (bulkhead, {"clock": None}, TypeError),
        (retry, {"max_retries": -1}, ValueError),
        (retry, {"jitter": "half"}, ValueError),
        (retry, {"policy": BREAKER}, TypeError),
    ],
    ids=repr,
)
def test_wrong_setting_is_rejected_when_the_decorator_is_called_and_named(
    decorator: Any, wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        decorator(**wrong)
    if "name" not in wrong:
        with pytest.raises(error, match=next(iter(wrong))):
            decorator(**({"name": "api"} if decorator is not retry else {}), **wrong)


# Pickling


@retry
@circuit_breaker
@bulkhead
def by_name(value: int) -> int:
    return value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_decorated_function_is_pickled_by_name(protocol: int) -> None:
    assert pickle.loads(pickle.dumps(by_name, protocol)) is by_name
    assert pickle.loads(pickle.dumps(Client.inside_static, protocol)) is Client.inside_static
    assert pickle.loads(pickle.dumps(Client.outside_class, protocol))(1) == (Client, 1)


# Fallback


@pytest.fixture
def opened(make: Make) -> CircuitBreaker:
    breaker = make(failure_threshold=1)
    fail(breaker)
    return breaker


def test_fallback_gets_the_rejection_and_all_arguments_and_its_value_is_returned(opened: CircuitBreaker) -> None:
    calls: list[Any] = []

    def fallback(error: CircuitOpenError, *args: Any, **kwargs: Any) -> str:
        calls.append((error.circuit_name, args, kwargs))
        return "cached"

    decorated = circuit_breaker(breaker=opened, fallback=fallback)(plain)
    assert decorated(1, key="other") == "cached"
    assert calls == [("api", (1,), {"key": "other"})]
    assert opened.stats.rejected_count == 1
    assert (opened.stats.success_count, opened.stats.failure_count) == (0, 1)


def test_fallback_of_a_method_gets_the_instance(opened: CircuitBreaker) -> None:
    class Cached:
        @circuit_breaker(breaker=opened, fallback=lambda error, self, value: (self, value))
        def method(self, value: int) -> tuple[object, int]:
            raise AssertionError

    cached = Cached()
    assert cached.method(1) == (cached, 1)


def test_fallback_is_called_for_a_probe_that_is_rejected(probing: Make) -> None:
    breaker = probing()
    decorated = circuit_breaker(breaker=breaker, fallback=lambda error, value: "fallback")(plain)
    permit = breaker.permit()
    assert decorated(1) == "fallback"
    permit.ignore()
    assert decorated(1) == (1, "k")


@pytest.mark.parametrize(
    "error",
    [Down(), CircuitOpenError("of another", "other"), BulkheadFullError("full"), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("state", [CLOSED, HALF_OPEN])
def test_fallback_is_never_called_for_an_error_out_of_the_function(
    error: BaseException, state: CircuitState, make: Make, probing: Make
) -> None:
    @circuit_breaker(breaker=make() if state is CLOSED else probing(), fallback=lambda error: "fallback")
    def function() -> str:
        raise error

    with pytest.raises(type(error)) as raised:
        function()
    assert raised.value is error


def test_fallback_is_not_called_for_a_rejection_by_a_guard_inside(make: Make, opened: CircuitBreaker) -> None:
    @circuit_breaker(breaker=make("outer"), fallback=lambda error, value: "fallback")
    @circuit_breaker(breaker=opened)
    def function(value: int) -> str:
        raise AssertionError

    with pytest.raises(CircuitOpenError, match="'api'"):
        function(1)


def test_fallback_of_one_decorator_is_not_that_of_another_with_the_same_breaker(opened: CircuitBreaker) -> None:
    one, other = (
        circuit_breaker(breaker=opened, fallback=lambda error, value=name: value) for name in ("one", "other")
    )
    bare = circuit_breaker(breaker=opened)
    assert (one(lambda: "function")(), other(lambda: "function")()) == ("one", "other")
    with pytest.raises(CircuitOpenError):
        bare(lambda: "function")()


def test_error_of_the_fallback_reaches_the_caller_and_is_not_counted(opened: CircuitBreaker) -> None:
    @circuit_breaker(breaker=opened, fallback=lambda error: [][0])
    def function() -> None:
        raise AssertionError

    with pytest.raises(IndexError):
        function()
    assert opened.stats.failure_count == 1


def test_call_and_blocks_know_no_fallback(opened: CircuitBreaker) -> None:
    circuit_breaker(breaker=opened, fallback=lambda error: "fallback")(plain)
    with pytest.raises(CircuitOpenError):
        succeed(opened)


@pytest.mark.parametrize("fallback", [None, lambda error, value: [][0]], ids=["refusal", "failing fallback"])
@pytest.mark.parametrize("func", [plain, generator], ids=["function", "generator"])
@needs_reference_counts
def test_rejected_call_leaves_nothing_to_the_garbage_collector(
    func: Any, fallback: Any, opened: CircuitBreaker
) -> None:
    class Argument:
        pass

    decorated = circuit_breaker(breaker=opened, fallback=fallback)(func)
    argument = Argument()
    alive = weakref.ref(argument)
    collect()
    gc.disable()
    try:
        with suppress(CircuitOpenError, IndexError):
            list(decorated(argument))
        with suppress(CircuitOpenError, IndexError):
            opened.call(plain, argument)
        del argument
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("func", "name"),
    [(str.upper, "str.upper"), ([].append, "list.append"), (int.__add__, "int.__add__"), (len, "builtins.len")],
)
def test_what_is_written_in_c_names_its_breaker_as_far_as_it_says(func: Any, name: str) -> None:
    assert circuit_breaker(func).circuit_breaker.name == name
    assert bulkhead(func).bulkhead.name == name
