"""What type checkers must refuse: each line marked so, and no other. Checked, never run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

from circuit_breaker import (
    Bulkhead,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitState,
    RetryBudget,
    RetryPolicy,
    StateChanged,
    bulkhead,
    circuit_breaker,
    retry,
)
from circuit_breaker.testing import FakeClock

breaker = CircuitBreaker()
policy = RetryPolicy()
pool = Bulkhead()
config = CircuitBreakerConfig()
registry = CircuitBreakerRegistry()


@retry
def function(number: int, *, text: str = "") -> float:
    return number


@circuit_breaker()
async def coroutine(number: int) -> bytes:
    return bytes(number)


@bulkhead
def generator(number: int) -> Iterator[int]:
    yield number


@retry
@circuit_breaker
@bulkhead
async def async_generator(number: int) -> AsyncIterator[int]:
    yield number


@policy
@breaker
def by_objects(number: int) -> str:
    return str(number)


function("1")  # refused
function()  # refused
function(1, text=2)  # refused
function(1, other=2)  # refused
text: str = function(1)  # refused
function.circuit_breaker  # refused
function.bulkhead  # refused
function.anything  # refused
coroutine.retry_policy  # refused
value: bytes = coroutine(1)  # refused
generator("1")  # refused
generator.retry_policy  # refused
item: str = next(generator(1))  # refused
async_generator("1")  # refused
next(async_generator(1))  # refused
by_objects("1")  # refused
by_objects.bulkhead  # refused


async def in_async_code() -> None:
    await function(1)  # refused
    await coroutine("1")  # refused
    str.upper(await coroutine(1))  # refused
    await async_generator(1)  # refused
    async for _ in generator(1):  # refused
        pass
    await breaker.call_async(function, 1)  # refused
    await breaker.call_async(coroutine, "1")  # refused
    await policy.call_async(function, 1)  # refused
    await pool.call_async(function, 1)  # refused
    await pool.acquire()  # refused
    with breaker.permit() as permit:
        permit.failure("down")  # refused
        permit.succeed()  # refused


policy.call(function, "1")  # refused
pool.call(function, 1, text=2)  # refused
breaker.call(function, "1")  # refused
breaker.call(function, 1, other=2)  # refused
breaker.state = breaker.state  # refused
breaker.mode = "shadow"  # refused
CircuitBreaker(mode="shadow")  # refused
RetryPolicy(jitter="half")  # refused
RetryPolicy(3, 0.1, 2.0, 30.0, True, None, 60.0)  # refused
RetryPolicy(retryable_exceptions=[OSError])  # refused
RetryPolicy(retryable_exceptions="OSError")  # refused
RetryPolicy(listeners=None)  # refused
RetryPolicy(budget=0.2)  # refused
RetryPolicy(delay=3)  # refused
RetryPolicy(delay=lambda attempt, error: None)  # refused
RetryPolicy(backoff_base="1")  # refused
policy.backoff_base = 1.0  # refused
policy.max_retries = 5  # refused
policy.should_retry(OSError)  # refused
RetryBudget(0.2, 1.0, 10, FakeClock())  # refused
CircuitBreaker("api", config, "auto")  # refused
CircuitBreaker(config={"failure_threshold": 5})  # refused
CircuitBreaker(listeners=[int.bit_length, 3])  # refused
CircuitBreaker(clock=3.0)  # refused
CircuitBreakerConfig(5, 3, 30.0, 3, 0.5, 100, 20)  # refused
CircuitBreakerConfig(error_rate_window=1.5)  # refused
CircuitBreakerConfig(reset_timeout_s=lambda: 1.0)  # refused
CircuitBreakerConfig(failure_exceptions=[OSError])  # refused
CircuitBreakerConfig(threshold=5)  # refused
config.failure_threshold = 6  # refused
breaker.config = 5  # refused
breaker.is_open = True  # refused
breaker.stats = breaker.stats  # refused
breaker.allow_requests()  # refused
registry["host"] = breaker  # refused
registry[["host"]]  # refused
CircuitBreakerRegistry(10)  # refused
number: int = registry["host"]  # refused
pool.active_count = 3  # refused
pool.resize("3")  # refused
Bulkhead(max_concurrent="10")  # refused
retry(retries=3)  # refused
bulkhead("name", 10, timeout=1.0)  # refused


circuit_breaker("name", 5, 30.0, config)  # refused
circuit_breaker(breaker="name")  # refused
circuit_breaker(fallback="text")  # refused
retry(policy=breaker)  # refused
retry(3, 0.1, 2.0, OSError, policy)  # refused


@circuit_breaker(failure_threshold="5")  # refused
def badly_decorated() -> None: ...


def on_event(event: StateChanged) -> None:
    event.reason = ""  # refused
    event.name  # refused
    if event.new_state == CircuitState.BROKEN:  # refused
        pass


def on_error(error: CircuitOpenError) -> None:
    error.retry_after_s + 1  # refused
    str.upper(error.state)  # refused


for attempt in policy.attempts():
    with attempt:
        length: str = attempt.result(3)  # refused


class Client:
    @retry
    def method(self, number: int) -> str:
        return str(number)

    @classmethod
    @retry
    def class_method(cls, number: int) -> str:
        return str(number)

    @staticmethod
    @retry
    def static_method(number: int) -> str:
        return str(number)

    @circuit_breaker
    def items(self, number: int) -> Iterator[int]:
        yield number

    @retry
    async def later(self, number: int) -> bytes:
        return bytes(number)


client = Client()
client.method("1")  # refused
client.method()  # refused
client.method(client, 1)  # refused
client.method.bulkhead  # refused
client.class_method("1")  # refused
client.static_method("1")  # refused
Client.static_method()  # refused
Client.method(1)  # refused
client.items("1")  # refused
client.items.retry_policy  # refused
client.later("1")  # refused
later: bytes = client.later(1)  # refused


# What is fine, and still refused: where the checkers end.


class Fluent(ABC):
    @retry
    def itself(self) -> Self:
        return self

    @staticmethod
    @retry
    def anything(value: Any) -> str:
        return str(value)

    @abstractmethod
    def overridden(self) -> str: ...


class Fluently(Fluent):
    @retry
    def overridden(self) -> str:  # refused by basedpyright
        return ""


Fluently().itself()  # refused by mypy
Fluently().anything(1)  # refused
