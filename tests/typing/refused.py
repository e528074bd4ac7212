"""What type checkers must refuse: each line marked so, and no other. Checked, never run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

from circuit_breaker import Bulkhead, CircuitBreaker, RetryPolicy, bulkhead, circuit_breaker, retry

breaker = CircuitBreaker()


@retry
def function(number: int, *, text: str = "") -> float:
    return number


@circuit_breaker()
async def coroutine(number: int) -> bytes:
    return bytes(number)


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
breaker.call(function, "1")  # refused
breaker.call(function, 1, other=2)  # refused
breaker.state = breaker.state  # refused
breaker.mode = "shadow"  # refused
CircuitBreaker(mode="shadow")  # refused
RetryPolicy(jitter="half")  # refused
Bulkhead(max_concurrent="10")  # refused
retry(retries=3)  # refused
bulkhead("name", 10, timeout=1.0)  # refused


@circuit_breaker(failure_threshold="5")  # refused
def badly_decorated() -> None: ...


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


client = Client()
client.method("1")  # refused
client.method()  # refused
client.method(client, 1)  # refused
client.method.bulkhead  # refused
client.class_method("1")  # refused
client.static_method("1")  # refused
Client.static_method()  # refused


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
