"""What the tests of the breaker share: a clock that stands still, and every way there is to make one call."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from circuit_breaker._breaker.breaker import CircuitBreaker

PATIENCE_S = 20.0

CPYTHON = sys.implementation.name == "cpython"

needs_timer = pytest.mark.skipif(
    not CPYTHON or not hasattr(signal, "setitimer") or sys.gettrace() is not None,
    reason="no interval timer here, or an interrupt can come between any two instructions (PyPy), or in the middle of "
    "a tracer whose own locks it would leave held",
)

needs_reference_counts = pytest.mark.skipif(
    not CPYTHON, reason="it asks for what CPython's reference counting does at once and other Pythons do in their time"
)


def collect() -> None:
    """Let everything that is out of reach be finalized, on a Python that counts no references too."""
    for _ in range(1 if CPYTHON else 3):  # PyPy runs finalizers after the collection that found them
        gc.collect()

Body: TypeAlias = Callable[[], Any]
Way: TypeAlias = Callable[[CircuitBreaker, Body], Any]


class Clock:
    """Seconds that pass when they are told to, and may be set back, which `FakeClock` refuses."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Down(Exception):
    """What the other side raises in these tests when it is down."""


def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.call(int)


def fail(breaker: CircuitBreaker, times: int = 1, error: BaseException | None = None) -> None:
    def body() -> None:
        raise Down if error is None else error

    for _ in range(times):
        with pytest.raises(BaseException) as raised:
            breaker.call(body)
        assert raised.type is (Down if error is None else type(error))


def _with(breaker: CircuitBreaker, body: Body) -> Any:
    with breaker:
        return body()


def _permit(breaker: CircuitBreaker, body: Body) -> Any:
    with breaker.permit():
        return body()


async def _async_with(breaker: CircuitBreaker, body: Body) -> Any:
    async with breaker:
        return body()


async def _async_permit(breaker: CircuitBreaker, body: Body) -> Any:
    async with breaker.permit():
        return body()


async def _call_async(breaker: CircuitBreaker, body: Body) -> Any:
    async def coroutine() -> Any:
        return body()

    return await breaker.call_async(coroutine)


async def _async_decorator(breaker: CircuitBreaker, body: Body) -> Any:
    @breaker
    async def coroutine() -> Any:
        return body()

    return await coroutine()


def _generator(breaker: CircuitBreaker, body: Body) -> Any:
    @breaker
    def stream() -> Iterator[Any]:
        yield body()

    (value,) = stream()
    return value


async def _async_generator(breaker: CircuitBreaker, body: Body) -> Any:
    @breaker
    async def stream() -> Any:
        yield body()

    (value,) = [item async for item in stream()]
    return value


def _in_a_loop(way: Callable[[CircuitBreaker, Body], Any]) -> Way:
    return lambda breaker, body: asyncio.run(way(breaker, body))


WAYS: dict[str, Way] = {
    "with": _with,
    "decorator": lambda breaker, body: breaker(lambda: body())(),
    "call": lambda breaker, body: breaker.call(body),
    "permit": _permit,
    "generator": _generator,
    "async with": _in_a_loop(_async_with),
    "async decorator": _in_a_loop(_async_decorator),
    "call_async": _in_a_loop(_call_async),
    "async permit": _in_a_loop(_async_permit),
    "async generator": _in_a_loop(_async_generator),
}
