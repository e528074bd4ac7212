"""What type checkers must accept, with the types they must see. Checked, never run."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any, TypeVar, assert_type

from circuit_breaker import (
    Bulkhead,
    BulkheadSnapshot,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    CircuitMode,
    CircuitOpenError,
    CircuitSnapshot,
    CircuitState,
    Permit,
    RetryBudget,
    RetryPolicy,
    StateChanged,
    bulkhead,
    circuit_breaker,
    retry,
    retry_after_hint,
)

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


async def in_async_code() -> None:
    assert_type(await with_parentheses(1), bytes)
    assert_type(await stacked(1), bytes)
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
        with attempt:
            attempt.result(int(attempt))


def in_sync_code() -> None:
    assert_type(breaker.call(bare, 1, text=""), float)
    assert_type(policy.call(bare, 1), float)
    assert_type(pool.call(bare, 1), float)
    assert_type(breaker.state, CircuitState)
    assert_type(breaker.is_open, bool)
    assert_type(breaker.allow_request(), bool)
    assert_type(breaker.snapshot(), CircuitSnapshot)
    assert_type(breaker.config, CircuitBreakerConfig)
    assert_type(pool.snapshot(), BulkheadSnapshot)
    assert_type(policy.get_delay(3), float)
    assert_type(policy.should_retry(OSError()), bool)
    breaker.mode = CircuitMode.SHADOW
    breaker.config = CircuitBreakerConfig(
        error_rate_threshold=0.5, error_rate_window=timedelta(minutes=1), failure_exceptions=OSError | TimeoutError
    )
    with breaker as same, pool:
        assert_type(same, CircuitBreaker)
    for attempt in policy.attempts():
        with attempt:
            bare(int(attempt))


def on_event(event: object) -> None:
    if isinstance(event, StateChanged):
        assert_type(event.new_state, CircuitState)


def refused(error: CircuitOpenError) -> None:
    assert_type(error.retry_after_s, float | None)


def only_state_changes(event: StateChanged) -> None: ...


CircuitBreaker(listeners=[on_event])
assert_type(CircuitBreakerRegistry(max_size=10)["host"], CircuitBreaker)
CircuitBreakerRegistry(CircuitBreakerConfig())
