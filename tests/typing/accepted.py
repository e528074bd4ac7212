"""What type checkers must accept, with the types they must see. Checked, never run."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from datetime import timedelta
from typing import Any, Protocol, Self, TypeVar, assert_type

from circuit_breaker import (
    Attempt,
    Bulkhead,
    BulkheadFullError,
    BulkheadRejected,
    BulkheadSnapshot,
    CallFinished,
    CallRejected,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    CircuitMode,
    CircuitOpenError,
    CircuitSnapshot,
    CircuitState,
    CircuitStats,
    CodomyrmexError,
    Outcome,
    Permit,
    ResilienceError,
    RetryBudget,
    RetryGaveUp,
    RetryPolicy,
    RetryScheduled,
    RetrySnapshot,
    StateChanged,
    bulkhead,
    circuit_breaker,
    create_error_context,
    format_exception_chain,
    retry,
    retry_after_hint,
)
from circuit_breaker.testing import FakeClock, instant_retries, no_retries

_T = TypeVar("_T")

breaker = CircuitBreaker("api", CircuitBreakerConfig(reset_timeout_s=RetryPolicy().get_delay))
policy = RetryPolicy(max_retries=None, retryable_exceptions=OSError | ValueError, budget=RetryBudget())
pool = Bulkhead("pool", timeout_s=None)


@retry
def bare(number: int, *, text: str = "") -> float:
    return number


@circuit_breaker
def bare_breaker(number: int) -> float:
    return number


@bulkhead
def bare_bulkhead(number: int) -> float:
    return number


@retry(max_retries=2, retry_after=retry_after_hint)
async def with_parentheses(number: int) -> bytes:
    return bytes(number)


def other_numbers(error: CircuitOpenError, number: int) -> Iterator[int]:
    yield number


@circuit_breaker("name", 5, fallback=other_numbers)
def generator(number: int) -> Iterator[int]:
    yield number


@bulkhead(bulkhead=pool)
async def async_generator(number: int) -> AsyncIterator[int]:
    yield number


@retry
@circuit_breaker(breaker=breaker)
@bulkhead("pool", 10)
async def stacked(number: int) -> bytes:
    return bytes(number)


@policy
@breaker
@pool
def by_objects(number: int) -> str:
    return str(number)


async def other_bytes(error: CircuitOpenError, number: int) -> bytes:
    return b""


@circuit_breaker(fallback=other_bytes)
async def with_a_fallback(number: int) -> bytes:
    return bytes(number)


@retry
async def bare_coroutine(number: int) -> bytes:
    return bytes(number)


@retry
def bare_generator(number: int) -> Generator[int, str, bytes]:
    yield number
    return b""


@circuit_breaker
async def bare_async_generator(number: int) -> AsyncGenerator[int, str]:
    yield number


@breaker
async def coroutine_by_object(number: int) -> bytes:
    return bytes(number)


@bulkhead
@circuit_breaker
@retry
def stacked_bare(number: int = 0) -> Iterator[int]:
    yield number


@circuit_breaker(config=CircuitBreakerConfig(), mode=CircuitMode.SHADOW)
@retry(policy=policy)
def with_objects(*numbers: int, **texts: str) -> None: ...


@retry()
def generic(items: list[_T]) -> _T:
    return items[0]


assert_type(bare(1, text=""), float)
assert_type(bare.retry_policy, RetryPolicy)
assert_type(bare.__name__, str)
assert_type(bare.__wrapped__(1), float)
assert_type(bare_breaker(1), float)
assert_type(bare_breaker.circuit_breaker, CircuitBreaker)
assert_type(bare_bulkhead(1), float)
assert_type(bare_bulkhead.bulkhead, Bulkhead)
assert_type(generator(1), Iterator[int])
assert_type(generator.circuit_breaker, CircuitBreaker)
assert_type(async_generator(1), AsyncIterator[int])
assert_type(stacked.retry_policy, RetryPolicy)
assert_type(stacked.circuit_breaker, CircuitBreaker)
assert_type(stacked.bulkhead, Bulkhead)
assert_type(by_objects(1), str)
assert_type(by_objects.retry_policy, RetryPolicy)
assert_type(by_objects.circuit_breaker, CircuitBreaker)
assert_type(by_objects.bulkhead, Bulkhead)
assert_type(generic([1]), int)
assert_type(with_a_fallback.circuit_breaker, CircuitBreaker)
assert_type(bare_generator(1), Generator[int, str, bytes])
assert_type(bare_generator.retry_policy, RetryPolicy)
assert_type(bare_async_generator(1), AsyncGenerator[int, str])
assert_type(bare_async_generator.circuit_breaker, CircuitBreaker)
assert_type(coroutine_by_object.circuit_breaker, CircuitBreaker)
assert_type(stacked_bare(number=1), Iterator[int])
assert_type(stacked_bare.bulkhead, Bulkhead)
assert_type(stacked_bare.circuit_breaker, CircuitBreaker)
assert_type(stacked_bare.retry_policy, RetryPolicy)
assert_type(with_objects.retry_policy, RetryPolicy)
with_objects(1, 2, text="")
assert_type(functools.partial(bare, 1)(), float)

takes_a_coroutine_function: Callable[[int], Coroutine[Any, Any, bytes]] = with_parentheses
takes_an_awaitable: Callable[[int], Awaitable[bytes]] = stacked


class Client:
    @retry
    def method(self, number: int) -> str:
        return str(number)

    @retry
    @circuit_breaker()
    async def async_method(self, number: int) -> list[str]:
        return [str(number)]

    @retry
    async def fluent(self) -> Client:
        return self

    @retry
    @staticmethod
    def outside_static(number: int) -> str:
        return str(number)

    @staticmethod
    @retry
    def inside_static(number: int) -> str:
        return str(number)

    @bulkhead()
    @classmethod
    def outside_class(cls, number: int) -> str:
        return str(number)

    @classmethod
    @circuit_breaker()
    def inside_class(cls, number: int) -> str:
        return str(number)

    @circuit_breaker
    def items(self, number: int) -> Iterator[int]:
        yield number

    @bulkhead
    async def items_later(self, number: int) -> AsyncIterator[int]:
        yield number

    @retry
    @classmethod
    async def outside_class_async(cls, number: int) -> bytes:
        return bytes(number)

    @staticmethod
    @circuit_breaker
    async def inside_static_async(number: int) -> bytes:
        return bytes(number)

    @retry
    @circuit_breaker
    @bulkhead
    def stacked(self, number: int) -> str:
        return str(number)

    @breaker
    def by_object(self, number: int) -> str:
        return str(number)

    @property
    @retry
    def attribute(self) -> str:
        return ""


client = Client()
assert_type(client.method(1), str)
assert_type(client.method.retry_policy, RetryPolicy)
assert_type(Client.method.retry_policy, RetryPolicy)
assert_type(Client.method(client, 1), str)
assert_type(client.async_method.retry_policy, RetryPolicy)
assert_type(client.async_method.circuit_breaker, CircuitBreaker)
assert_type(client.outside_static(1), str)
assert_type(Client.outside_static(1), str)
assert_type(Client.outside_static.retry_policy, RetryPolicy)
assert_type(client.inside_static(1), str)
assert_type(Client.inside_static(1), str)
assert_type(client.inside_static.retry_policy, RetryPolicy)
assert_type(client.outside_class(1), str)
assert_type(Client.outside_class(1), str)
assert_type(Client.outside_class.bulkhead, Bulkhead)
assert_type(client.inside_class(1), str)
assert_type(Client.inside_class(1), str)
assert_type(client.inside_class.circuit_breaker, CircuitBreaker)
assert_type(client.attribute, str)
assert_type(client.items(1), Iterator[int])
assert_type(client.items.circuit_breaker, CircuitBreaker)
assert_type(client.items_later(1), AsyncIterator[int])
assert_type(client.items_later.bulkhead, Bulkhead)
assert_type(client.stacked(1), str)
assert_type(client.stacked.retry_policy, RetryPolicy)
assert_type(client.stacked.circuit_breaker, CircuitBreaker)
assert_type(client.stacked.bulkhead, Bulkhead)
assert_type(Client.stacked.bulkhead, Bulkhead)
assert_type(client.by_object(1), str)
assert_type(client.by_object.circuit_breaker, CircuitBreaker)


async def in_async_code() -> None:
    assert_type(await with_parentheses(1), bytes)
    assert_type(await stacked(1), bytes)
    assert_type(await bare_coroutine(1), bytes)
    assert_type(await with_a_fallback(1), bytes)
    assert_type(await coroutine_by_object(1), bytes)
    assert_type(await Client.outside_class_async(1), bytes)
    assert_type(await client.inside_static_async(1), bytes)
    assert_type(await asyncio.create_task(stacked(1)), bytes)
    assert_type(await client.async_method(1), list[str])
    assert_type(await (await client.fluent()).fluent(), Client)
    assert_type(await breaker.call_async(with_parentheses, 1), bytes)
    assert_type(await policy.call_async(with_parentheses, number=1), bytes)
    assert_type(await pool.call_async(with_parentheses, 1), bytes)
    assert_type(await pool.acquire_async(), bool)
    async for number in async_generator(1):
        assert_type(number, int)
    async with breaker as same, pool:
        assert_type(same, CircuitBreaker)
    async with breaker.permit() as permit:
        assert_type(permit, Permit)
    async for attempt in policy.attempts():
        assert_type(attempt, Attempt)
        with attempt:
            assert_type(attempt.result(await stacked(attempt)), bytes)


def in_sync_code() -> None:
    assert_type(breaker.call(bare, 1, text=""), float)
    assert_type(policy.call(bare, 1), float)
    assert_type(pool.call(bare, 1), float)
    assert_type(breaker.state, CircuitState)
    assert_type(breaker.is_open, bool)
    assert_type(breaker.is_closed, bool)
    assert_type(breaker.name, str)
    assert_type(breaker.mode, CircuitMode)
    assert_type(breaker.stats, CircuitStats)
    assert_type(breaker.stats.last_failure_time, float | None)
    assert_type(CircuitBreaker.instances(), list[CircuitBreaker])
    assert_type(breaker.allow_request(), bool)
    assert_type(breaker.snapshot(), CircuitSnapshot)
    assert_type(breaker.config, CircuitBreakerConfig)
    assert_type(breaker.snapshot().retry_after_s, float | None)
    assert_type(breaker.snapshot().to_dict(), dict[str, Any])
    assert_type(pool.snapshot(), BulkheadSnapshot)
    assert_type(pool.acquire(), bool)
    assert_type(pool.max_concurrent, int)
    assert_type(pool.timeout_s, float | None)
    assert_type(policy.get_delay(3), float)
    assert_type(policy.should_retry(OSError()), bool)
    breaker.mode = CircuitMode.SHADOW
    breaker.config = CircuitBreakerConfig(
        error_rate_threshold=0.5, error_rate_window=timedelta(minutes=1), failure_exceptions=OSError | TimeoutError
    )
    with breaker as same, pool:
        assert_type(same, CircuitBreaker)
    with breaker.permit() as permit:
        assert_type(permit, Permit)
        permit.failure(OSError())
    for attempt in policy.attempts():
        assert_type(attempt, Attempt)
        with attempt:
            bare(attempt)
    clock = FakeClock()
    with no_retries(), instant_retries(max_retries=2):
        clock.advance(1)
    CircuitBreaker(clock=clock)
    RetryPolicy(clock=clock, sleep=clock.sleep)
    RetryPolicy(clock=clock, sleep=clock.sleep_async, jitter="full", random=lambda: 0.5)
    assert_type(clock(), float)
    assert_type(clock.sleeps, list[float])


def a_value_is_bad(value: object) -> bool:
    return value is None


def wish(error: BaseException) -> float | None:
    return retry_after_hint(error)


def is_temporary(error: Exception) -> bool:
    return isinstance(error, OSError)


def hint(failed: Exception | str) -> timedelta | None:
    return None


def longer(attempt: int, error: Exception | None) -> float:
    return 2.0**attempt


configurations: list[CircuitBreakerConfig] = [
    CircuitBreakerConfig(5, 3, 30, 3, 0.5, 100),
    CircuitBreakerConfig(failure_exceptions=OSError),
    CircuitBreakerConfig(failure_exceptions=(OSError, KeyError), ignored_exceptions=(OSError, KeyError)),
    CircuitBreakerConfig(failure_exceptions=lambda error: isinstance(error, OSError)),
    CircuitBreakerConfig(reset_timeout_s=lambda times: 2.0**times, failure_result=a_value_is_bad, retry_after=wish),
    CircuitBreakerConfig(failure_threshold=None, slow_call_duration_s=1, slow_call_rate_threshold=1),
]
policies: list[RetryPolicy] = [
    RetryPolicy(retryable_exceptions=OSError),
    RetryPolicy(retryable_exceptions=(OSError, KeyError)),
    RetryPolicy(retryable_exceptions=lambda error: not isinstance(error, KeyError)),
    RetryPolicy(3, 0.1, 2, 30, False, None, retry_result=a_value_is_bad, retry_after=wish, listeners=()),
    RetryPolicy(retry_after=None),
    RetryPolicy(3, timedelta(seconds=1), 2, timedelta(minutes=1), max_elapsed_s=timedelta(hours=1)),
    RetryPolicy(retryable_exceptions=is_temporary, retry_after=hint, delay=longer, retry_after_max_s=timedelta(1)),
    RetryPolicy(delay=lambda attempt, error: attempt if error is None else timedelta(seconds=1)),
]


def on_event(event: object) -> None:
    if isinstance(event, StateChanged):
        assert_type(event.new_state, CircuitState)


def on_circuit(event: StateChanged | CallRejected | CallFinished) -> None:
    match event:
        case StateChanged(circuit_name=name, reason=reason):
            assert_type(name + reason, str)
        case CallRejected():
            assert_type(event.retry_after_s, float | None)
        case CallFinished():
            assert_type(event.outcome, Outcome)
            assert_type(event.error, BaseException | None)


def on_retry(event: RetryScheduled | RetryGaveUp) -> None:
    assert_type((event.elapsed_s, event.error, event.function), tuple[float, BaseException | None, str | None])
    if isinstance(event, RetryScheduled):
        assert_type((event.attempt, event.delay_s), tuple[int, float])
    else:
        assert_type((event.attempts, event.reason), tuple[int, str])


# A duration may be given as a timedelta, and is read as seconds.
assert_type((policy.backoff_base, policy.backoff_max, policy.retry_after_max_s), tuple[float, float, float])
assert_type(policy.max_elapsed_s, float | None)
assert_type(policy.replace(max_retries=1, backoff_base=timedelta(seconds=1)), RetryPolicy)
assert_type(policy.snapshot(), RetrySnapshot)
assert_type(policy.snapshot().total_sleep_s, float)
assert_type(policy.snapshot().to_dict(), dict[str, Any])


def cached(error: Exception, number: int) -> str:
    return "cached"


@retry(2, fallback=cached, fallback_on=(OSError, KeyError), delay=longer)
def with_fallback(number: int) -> str:
    return str(number)


assert_type(with_fallback(3), str)
assert_type(with_fallback.retry_policy, RetryPolicy)
assert_type(with_fallback.retry_policy.replace(max_retries=1)(with_fallback.__wrapped__)(3), str)


class Fetcher(Protocol):
    def fetch(self, url: str) -> bytes: ...


class HidesItsRetries:
    @retry
    def _fetch(self, url: str) -> bytes:
        return url.encode()

    def fetch(self, url: str) -> bytes:
        return self._fetch(url)

    @retry
    def _connect(self) -> None: ...

    def connected(self) -> Self:
        self._connect()
        return self


class Special(HidesItsRetries):
    def fetch(self, url: str) -> bytes:
        return super().fetch(url)


fetcher: Fetcher = Special()
assert_type(Special().connected(), Special)


@no_retries()
def a_test(number: int) -> str:
    return str(number)


@instant_retries(max_retries=1)
async def an_async_test(number: int) -> str:
    return str(number)


assert_type(a_test(3), str)


def on_bulkhead(event: BulkheadRejected) -> None:
    assert_type((event.bulkhead_name, event.active_count), tuple[str, int])


def refused(error: CircuitOpenError | BulkheadFullError) -> None:
    assert_type(error.context, dict[str, Any])
    assert_type(error.error_code + error.message, str)
    assert_type(error.to_dict(), dict[str, Any])
    assert_type(format_exception_chain(error), str)
    if isinstance(error, CircuitOpenError):
        assert_type(error.circuit_name, str | None)
        assert_type(error.state, CircuitState | None)
        assert_type(error.retry_after_s, float | None)
        assert_type(error.last_failure, tuple[str, str] | None)
    else:
        assert_type(error.max_concurrency, int | None)


the_base: type[CodomyrmexError] = ResilienceError
assert_type(create_error_context(number=1), dict[str, Any])

CircuitBreaker(listeners=[on_event, on_circuit])
RetryPolicy(listeners=(on_event, on_retry))
Bulkhead(listeners=[on_bulkhead])
CircuitBreakerRegistry(CircuitBreakerConfig(), listeners=[on_circuit])

registry = CircuitBreakerRegistry(lambda key: CircuitBreakerConfig(), max_size=10)
assert_type(registry["host"], CircuitBreaker)
assert_type(registry["host", 80], CircuitBreaker)
assert_type("host" in registry, bool)
assert_type(len(registry), int)
for key in registry:
    registry.remove(key)


def host_of(client: OfAHost, *args: object) -> str:
    return client.host


class OfAHost:
    host = "api.example.com"

    @registry.keyed(host_of)
    def get(self, path: str) -> bytes:
        return path.encode()

    @registry.keyed(host_of)
    async def get_async(self, path: str) -> bytes:
        return path.encode()


async def use_client(client: OfAHost) -> None:
    assert_type(client.get("/"), bytes)
    assert_type(await client.get_async("/"), bytes)


steered, limited = CircuitBreaker("steered"), Bulkhead("limited")
steered.add_listener(on_circuit)
steered.remove_listener(on_circuit)
registry.add_listener(on_event)
registry.remove_listener(on_event)
limited.add_listener(on_bulkhead)
limited.remove_listener(on_bulkhead)
steered.trip()
steered.trip(timedelta(minutes=5))
assert_type(steered.snapshot().dropped_changes, int)
assert_type(limited.acquire(timeout_s=timedelta(seconds=1)), bool)
assert_type(limited.acquire(timeout_s=None), bool)
in_a_minute = CircuitBreakerConfig(
    failure_threshold=None, error_rate_window=timedelta(minutes=1), trip_when=lambda counts: counts.failures >= 10
)
assert_type(in_a_minute.replace(half_open_failure_threshold=2), CircuitBreakerConfig)
