"""What is compared with what, and which targets this library has set itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import by_hand_cases
import floors
import measures
import peers
from case import FLOOR, US, Case, Subjects, ways
from failures import Down
from measures import Measure

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitBreakerConfig, bulkhead, circuit_breaker, retry

CALLS = 1_000_000


def work() -> None:
    pass


async def work_async() -> None:
    pass


def fail() -> None:
    raise Down


def success() -> Subjects:
    subjects = {FLOOR: floors.breaker(work), US: circuit_breaker(work), **peers.breakers(work)}
    return ways(measures.call, subjects)


def windows() -> Subjects:
    def ours(**settings: Any) -> floors.Function:
        return CircuitBreaker(config=CircuitBreakerConfig(**settings))(work)

    subjects = {
        FLOOR: floors.breaker(work),
        US: circuit_breaker(work),
        f"{US}, 100 calls": ours(error_rate_threshold=0.5, error_rate_window=100),
        f"{US}, 1,000,000 calls": ours(error_rate_threshold=0.5, error_rate_window=CALLS),
        f"{US}, 60 s": ours(error_rate_threshold=0.5, error_rate_window=timedelta(seconds=60)),
        f"{US}, 10 h": ours(error_rate_threshold=0.5, error_rate_window=timedelta(hours=10)),
        f"{US}, 100 calls, slow ones": ours(
            error_rate_threshold=0.5, slow_call_duration_s=1.0, slow_call_rate_threshold=0.5
        ),
        **{f"{name}, 100 calls": way for name, way in peers.windows_of_calls(work, 100).items()},
        **{f"{name}, 1,000,000 calls": way for name, way in peers.windows_of_calls(work, CALLS).items()},
        **{f"{name}, 60 s": way for name, way in peers.windows_of_time(work, 60).items()},
    }
    return ways(measures.call, subjects)


def success_async() -> Subjects:
    subjects = {
        FLOOR: floors.async_breaker(work_async),
        US: circuit_breaker(work_async),
        **peers.async_breakers(work_async),
    }
    return ways(measures.awaited, subjects)


def block() -> Subjects:
    def same(guard: object) -> Measure:
        return measures.statement("with guard:\n    work()", guard=guard, work=work)

    def new(enter: Callable[[], object]) -> Measure:
        return measures.statement("with enter():\n    work()", enter=enter, work=work)

    return {
        FLOOR: measures.call(floors.breaker(work)),
        US: same(CircuitBreaker()),
        **ways(same, peers.blocks()),
        **ways(new, peers.new_blocks()),
    }


def block_async() -> Subjects:
    def of(guard: AbstractAsyncContextManager[object]) -> Measure:
        return measures.async_block(guard, work_async)

    ours = CircuitBreaker()
    return {
        FLOOR: measures.awaited(floors.async_breaker(work_async)),
        US: of(ours),
        **ways(of, peers.async_blocks()),
    }


def rejected() -> Subjects:
    config = CircuitBreakerConfig(peers.THRESHOLD, reset_timeout_s=peers.OPEN_S)
    subjects = {US: CircuitBreaker(config=config)(fail), **peers.breakers(fail)}
    for way in subjects.values():
        open_circuit(way)
    return ways(_caught, subjects)


def failing() -> Subjects:
    subjects = {
        FLOOR: floors.breaker(fail),
        US: CircuitBreaker(config=CircuitBreakerConfig(peers.NEVER))(fail),
        **peers.breakers(fail, peers.NEVER),
    }
    return ways(_caught, subjects)


def _caught(func: Callable[[], object]) -> Measure:
    return measures.statement("try:\n    func()\nexcept Exception:\n    pass", func=func)


def open_circuit(func: Callable[[], object]) -> None:
    """Call what fails until it is rejected."""
    for _ in range(1_000):
        try:
            func()
        except Down:
            continue
        except Exception as rejection:
            if not isinstance(rejection.__context__, Down):  # some reject the call that opens it
                return
    raise AssertionError(f"{func} never opened")


def first_try() -> Subjects:
    subjects = {FLOOR: floors.retry(work), US: retry(work), **peers.retries(work)}
    return ways(measures.call, subjects)


def slot() -> Subjects:
    guards = {FLOOR: threading.Semaphore(floors.SLOTS), US: Bulkhead(max_concurrent=floors.SLOTS)}
    return {name: measures.statement("with guard:\n    pass", guard=guard) for name, guard in guards.items()}


def slot_of_a_function() -> Subjects:
    subjects = {
        FLOOR: floors.bulkhead(work),
        US: bulkhead(max_concurrent=floors.SLOTS)(work),
        **peers.bulkheads(work, floors.SLOTS),
    }
    return ways(measures.call, subjects)


def in_threads() -> Subjects:
    subjects = {FLOOR: floors.breaker(work), US: circuit_breaker(work), **peers.breakers(work)}
    return ways(measures.threads, subjects)


def in_tasks() -> Subjects:
    async def pause() -> None:
        await asyncio.sleep(0)

    def inside(make: Callable[[], AbstractAsyncContextManager[object]]) -> Measure:
        def made() -> floors.CoroutineFunction:
            guard = make()

            async def func() -> None:
                async with guard:
                    await asyncio.sleep(0)

            return func

        return measures.tasks(made)

    def peer(name: str) -> Measure:
        return measures.tasks(lambda: peers.async_bulkheads(pause, 100)[name])

    return {
        FLOOR: inside(lambda: asyncio.Semaphore(100)),
        US: inside(lambda: Bulkhead(max_concurrent=100, max_queue=measures.TASKS)),
        **{name: peer(name) for name in peers.async_bulkheads(pause, 100)},
    }


def idle() -> Subjects:
    config = CircuitBreakerConfig()
    subjects = {US: lambda: CircuitBreaker("ours", config), **peers.makers()}
    return ways(measures.memory_of_one, subjects)


def long_window() -> Subjects:
    def ours(calls: int) -> floors.Function:
        return CircuitBreaker(config=CircuitBreakerConfig(error_rate_threshold=0.5, error_rate_window=calls))(work)

    def of(make: Callable[[int], floors.Function]) -> Measure:
        return measures.memory_of_calls(lambda: make(100), lambda: make(CALLS), CALLS)

    def peer(name: str) -> Callable[[int], floors.Function]:
        return lambda calls: peers.windows_of_calls(work, calls)[name]

    return {US: of(ours)} | {name: of(peer(name)) for name in peers.windows_of_calls(work, 1)}


def importing() -> Subjects:
    statements = {
        FLOOR: "import dataclasses, threading, contextvars",
        US: "import circuit_breaker",
        **{name: f"import {peers.MODULES[name]}" for name in peers.versions()},
    }
    paths = [measures.PACKAGES, *peers.places()]
    return ways(lambda statement: measures.importing(statement, paths), statements)


def importing_names() -> Subjects:
    statements = {
        f"{US}, retry": "from circuit_breaker import retry",
        f"{US}, circuit_breaker": "from circuit_breaker import circuit_breaker",
        f"{US}, everything": "from circuit_breaker import *",
        "stdlib": "import contextlib, dataclasses, datetime, inspect, threading, typing",
    }
    if "tenacity" in peers.versions():
        statements["tenacity"] = "from tenacity import retry"
    paths = [measures.PACKAGES, *peers.places()]
    return ways(lambda statement: measures.importing(statement, paths), statements)


CASES = (
    # First, because the set of all breakers grows by leaps: how full it is depends on how many there were before.
    Case("memory of an idle breaker", idle, 800, yardstick=None, unit="B", slice_s=0, rounds=0.0),
    Case(
        "@circuit_breaker, success",
        success,
        1.25,
        beats_peers=True,
        headline="a call that succeeds, `@circuit_breaker`",
    ),
    Case("@circuit_breaker, success, by window", windows, 1.25, spread=1.05),
    Case("@circuit_breaker, success, async def", success_async, 1.20),
    Case("with breaker", block, 2.6),
    Case("async with breaker", block_async, 2.6),
    Case(
        "@circuit_breaker, rejected",
        rejected,
        2.0,
        yardstick="circuitbreaker",
        headline="a call that an open circuit rejects",
    ),
    Case("@circuit_breaker, failure", failing, 1.5, yardstick="circuitbreaker"),
    Case("@retry, first try succeeds", first_try, 0.95, headline="a call that succeeds at once, `@retry`"),
    Case("with bulkhead, free slot", slot, 0.65),
    Case("@bulkhead, free slot", slot_of_a_function),
    *by_hand_cases.CASES,
    Case("@circuit_breaker, success, 8 threads at once", in_threads, 1 / 0.8, slice_s=0.01, rounds=0.1),
    Case("async with bulkhead of 100, 1,000 tasks, each", in_tasks, 1.25, slice_s=0.01, rounds=0.1),
    Case("memory of 1,000,000 successes", long_window, 1024, yardstick=None, unit="B", slice_s=0, rounds=0.0),
    Case("import", importing, 1.0, yardstick="tenacity", slice_s=0, rounds=0.1),
    Case(
        "from ... import",
        importing_names,
        1.5,
        yardstick="tenacity",
        slice_s=0,
        rounds=0.1,
        headline="`from circuit_breaker import retry`",
    ),
)
