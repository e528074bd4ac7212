"""Functions that a registry guards with the breaker of the key of each call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from clocks import Clock
from coroutines import run
from failures import Down, raising
from garbage import collect
from ways import BREAKER, Way

from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._breaker.registry import CircuitBreakerRegistry
from circuit_breaker._common.words import CircuitState
from circuit_breaker.exceptions import CircuitOpenError

DECORATING = {name: way for name, way in BREAKER.items() if way.decorates}


@pytest.fixture
def registry(clock: Clock) -> CircuitBreakerRegistry:
    return CircuitBreakerRegistry(CircuitBreakerConfig(failure_threshold=1), clock=clock)


@pytest.fixture(params=DECORATING)
def way(request: pytest.FixtureRequest) -> Way:
    """Each way of decorating a function in turn."""
    return DECORATING[request.param]


def counts(registry: CircuitBreakerRegistry, key: object) -> tuple[int, int, int]:
    """Return how many successes, failures and ignored outcomes the breaker of a key has counted."""
    breaker = registry.get(key)
    assert breaker is not None
    stats = breaker.stats
    return stats.success_count, stats.failure_count, stats.ignored_count


# All kinds of functions


def test_each_call_is_guarded_by_the_breaker_of_its_key(registry: CircuitBreakerRegistry, way: Way) -> None:
    host = "a"
    guard = registry.keyed(lambda *args: host)
    assert way(guard, lambda: "answer") == "answer"
    host = "b"
    with pytest.raises(Down):
        way(guard, raising(Down()))
    with pytest.raises(CircuitOpenError, match="'b' is open"):
        way(guard, lambda: "answer")
    host = "a"
    assert way(guard, lambda: "answer") == "answer"
    assert counts(registry, "a") == (2, 0, 0)
    assert counts(registry, "b") == (0, 1, 0)
    assert registry["b"].stats.rejected_count == 1


def test_a_probe_is_made_when_the_time_of_its_key_is_over(
    registry: CircuitBreakerRegistry, clock: Clock, way: Way
) -> None:
    registry.config = CircuitBreakerConfig(failure_threshold=1, success_threshold=1)
    guard = registry.keyed(lambda *args: "a")
    registry["a"].record_failure()
    clock.advance(30)
    assert way(guard, lambda: registry["a"].state) is CircuitState.HALF_OPEN
    assert registry["a"].is_closed


def test_the_error_of_a_key_function_is_raised_before_the_function_is_called(
    registry: CircuitBreakerRegistry, way: Way
) -> None:
    def key(*args: object) -> str:
        raise Down

    called: list[bool] = []
    with pytest.raises(Down):
        way(registry.keyed(key), lambda: called.append(True))
    assert (called, len(registry)) == ([], 0)


def test_a_key_that_cannot_be_one_is_a_type_error(registry: CircuitBreakerRegistry, way: Way) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        way(registry.keyed(lambda *args: []), int)
    assert len(registry) == 0


def test_the_key_function_gets_the_arguments_of_the_call(registry: CircuitBreakerRegistry) -> None:
    @registry.keyed(lambda host, *, port=80: (host, port))
    def fetch(host: str, *, port: int = 80) -> str:
        return f"{host}:{port}"

    assert (fetch("a"), fetch("a", port=8080)) == ("a:80", "a:8080")
    assert list(registry) == [("a", 80), ("a", 8080)]
    with pytest.raises(TypeError):
        fetch("a", "b")  # type: ignore[call-arg]


class Client:
    """Every kind of method, guarded by the breaker of the host of its object, class or argument."""

    registry = CircuitBreakerRegistry(CircuitBreakerConfig(failure_threshold=1))
    host = "of the class"

    def __init__(self, host: str) -> None:
        self.host = host

    @registry.keyed(lambda self, *args: self.host)
    def plain(self, work: Callable[[], Any]) -> Any:
        return work()

    @registry.keyed(lambda self, *args: self.host)
    async def coroutine(self, work: Callable[[], Any]) -> Any:
        await asyncio.sleep(0)
        return work()

    @registry.keyed(lambda self, *args: self.host)
    def stream(self, work: Callable[[], Any]) -> Iterator[Any]:
        yield work()

    @registry.keyed(lambda self, *args: self.host)
    async def async_stream(self, work: Callable[[], Any]) -> AsyncIterator[Any]:
        yield work()

    @registry.keyed(lambda cls, *args: cls.host)
    @classmethod
    def of_class(cls, work: Callable[[], Any]) -> Any:
        return work()

    @registry.keyed(lambda work: "of nobody")
    @staticmethod
    def of_nobody(work: Callable[[], Any]) -> Any:
        return work()


METHODS: dict[str, Callable[[Client, Callable[[], Any]], Any]] = {
    "plain": lambda client, work: client.plain(work),
    "coroutine": lambda client, work: run(client.coroutine(work)),
    "stream": lambda client, work: next(client.stream(work)),
    "async stream": lambda client, work: run(first(client.async_stream(work))),
}


async def first(items: AsyncIterator[Any]) -> Any:
    async with contextlib.aclosing(items):  # type: ignore[type-var]
        return await anext(items)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_methods_of_two_objects_have_the_breakers_of_their_own_hosts(
    method: Callable[[Client, Callable[[], Any]], Any],
) -> None:
    good, bad = Client("good"), Client("bad")
    with pytest.raises(Down):
        method(bad, raising(Down()))
    assert method(good, lambda: "answer") == "answer"
    with pytest.raises(CircuitOpenError, match="'bad' is open"):
        method(bad, int)
    Client.registry.remove("good")
    Client.registry.remove("bad")


def test_all_methods_of_one_host_share_its_breaker() -> None:
    client = Client("shared")
    with pytest.raises(Down):
        client.plain(raising(Down()))
    for method in METHODS.values():
        with pytest.raises(CircuitOpenError):
            method(client, int)
    assert Client.registry["shared"].stats.rejected_count == len(METHODS)


def test_class_and_static_methods_stay_what_they_are() -> None:
    assert Client.of_class(lambda: 1) == Client("x").of_class(lambda: 1) == 1
    assert Client.of_nobody(lambda: 2) == Client("x").of_nobody(lambda: 2) == 2
    assert counts(Client.registry, "of the class") == (2, 0, 0)
    assert counts(Client.registry, "of nobody") == (2, 0, 0)


# Streams


def test_the_key_of_a_stream_is_that_of_its_first_item(registry: CircuitBreakerRegistry) -> None:
    host = "early"

    @registry.keyed(lambda: host)
    def items() -> Iterator[int]:
        yield 1
        yield 2

    stream = items()
    host = "late"
    assert next(stream) == 1
    host = "later"
    assert list(stream) == [2]
    assert list(registry) == ["late"]
    assert counts(registry, "late") == (1, 0, 0)


def test_streams_of_two_keys_at_once_settle_each_its_own(registry: CircuitBreakerRegistry) -> None:
    @registry.keyed(lambda host: host)
    def items(host: str) -> Iterator[int]:
        yield 1
        if host == "bad":
            raise Down
        yield 2

    good, bad, left = items("good"), items("bad"), items("left")
    assert [next(good), next(bad), next(left)] == [1, 1, 1]
    with pytest.raises(Down):
        next(bad)
    assert list(good) == [2]
    left.close()
    assert [counts(registry, key) for key in ("good", "bad", "left")] == [(1, 0, 0), (0, 1, 0), (1, 0, 0)]


def test_a_stream_that_is_never_started_asks_for_no_key(registry: CircuitBreakerRegistry) -> None:
    @registry.keyed(lambda: "a")
    def items() -> Iterator[int]:
        yield 1

    items().close()
    assert len(registry) == 0


# The decorated function


def test_a_decorated_function_keeps_its_name_and_has_the_choice_of_its_breaker(
    registry: CircuitBreakerRegistry,
) -> None:
    def key() -> str:
        return "a"

    @registry.keyed(key)
    def fetch() -> int:
        """Fetch it."""
        return 1

    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch it.")
    assert fetch.circuit_breaker.registry is registry
    assert repr(key) in repr(fetch.circuit_breaker)


def test_a_call_goes_on_under_its_breaker_when_the_registry_forgets_it(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(CircuitBreakerConfig(failure_threshold=1), max_size=1, clock=clock)

    @registry.keyed(lambda: "a")
    def fetch() -> None:
        registry["b"]
        collect()
        assert "a" not in registry
        raise Down

    with pytest.raises(Down):
        fetch()
    assert registry["a"].is_open


def test_a_plain_function_that_returns_a_coroutine_is_rejected_and_not_counted(
    registry: CircuitBreakerRegistry,
) -> None:
    async def work() -> None: ...

    @registry.keyed(lambda: "a")
    def fetch() -> Any:
        return work()

    with pytest.raises(TypeError, match="which must be awaited"):
        fetch()
    assert counts(registry, "a") == (0, 0, 1)


async def async_key() -> str:
    return "a"


@pytest.mark.parametrize("key", [None, "a", async_key, str])
def test_what_is_not_a_function_of_a_call_is_rejected(registry: CircuitBreakerRegistry, key: Any) -> None:
    with pytest.raises(TypeError, match="key_function"):
        registry.keyed(key)


def test_a_class_is_rejected(registry: CircuitBreakerRegistry) -> None:
    with pytest.raises(TypeError, match="decorate its methods"):
        registry.keyed(lambda: "a")(Client)
