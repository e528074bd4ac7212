"""What is compared with what, and which targets this library has set itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import floors
import measures
import peers
from failures import Down
from measures import Measure

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitBreakerConfig, bulkhead, circuit_breaker, retry

FLOOR = "floor"
US = "this library"

CALLS = 1_000_000

Subjects: TypeAlias = dict[str, Measure]


@dataclass(frozen=True)
class Case:
    """One thing to do, in several ways.

    Attributes:
        target: the most that each way of this library may cost, as a multiple of the yardstick; without one, in units.
        subjects: makes the ways, by name: those of this library begin with its name, the yardstick is one of them.
        yardstick: None: the figures stand for themselves.
        spread: the most that the dearest way of this library may cost, as a multiple of its cheapest.
        beats_peers: no peer may be faster.
        slice_s: how long one way is measured before it is the turn of the next; 0: it is done once.
        rounds: how many rounds, as a share of what is usual.
    """

    name: str
    subjects: Callable[[], Subjects]
    target: float | None = None
    yardstick: str | None = FLOOR
    unit: str = "ns"
    spread: float | None = None
    beats_peers: bool = False
    slice_s: float = 0.0005
    rounds: float = 1.0


def work() -> None:
    pass


async def work_async() -> None:
    pass


def fail() -> None:
    raise Down


def _calls(measure: Callable[[Any], Measure], ways: dict[str, Any]) -> Subjects:
    return {name: measure(way) for name, way in ways.items()}


def success() -> Subjects:
    ways = {FLOOR: floors.breaker(work), US: circuit_breaker(work), **peers.breakers(work)}
    return _calls(measures.call, ways)


def windows() -> Subjects:
    def ours(**settings: Any) -> floors.Function:
        return CircuitBreaker(config=CircuitBreakerConfig(**settings))(work)

    ways = {
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
    return _calls(measures.call, ways)


def success_async() -> Subjects:
    ways = {
        FLOOR: floors.async_breaker(work_async),
        US: circuit_breaker(work_async),
        **peers.async_breakers(work_async),
    }
    return _calls(measures.awaited, ways)


def block() -> Subjects:
    def same(guard: object) -> Measure:
        return measures.statement("with guard:\n    work()", guard=guard, work=work)

    def new(enter: Callable[[], object]) -> Measure:
        return measures.statement("with enter():\n    work()", enter=enter, work=work)

    return {
        FLOOR: measures.call(floors.breaker(work)),
        US: same(CircuitBreaker()),
        **_calls(same, peers.blocks()),
        **_calls(new, peers.new_blocks()),
    }


def block_async() -> Subjects:
    def of(guard: AbstractAsyncContextManager[object]) -> Measure:
        return measures.async_block(guard, work_async)

    ours = CircuitBreaker()
    return {
        FLOOR: measures.awaited(floors.async_breaker(work_async)),
        US: of(ours),
        **_calls(of, peers.async_blocks()),
    }


def refused() -> Subjects:
    config = CircuitBreakerConfig(peers.THRESHOLD, reset_timeout_s=peers.OPEN_S)
    ways = {US: CircuitBreaker(config=config)(fail), **peers.breakers(fail)}
    for way in ways.values():
        open_circuit(way)
    return _calls(_caught, ways)


def failing() -> Subjects:
    ways = {
        FLOOR: floors.breaker(fail),
        US: CircuitBreaker(config=CircuitBreakerConfig(peers.NEVER))(fail),
        **peers.breakers(fail, peers.NEVER),
    }
    return _calls(_caught, ways)


def _caught(func: Callable[[], object]) -> Measure:
    return measures.statement("try:\n    func()\nexcept Exception:\n    pass", func=func)


def open_circuit(func: Callable[[], object]) -> None:
    """Call what fails until it is refused."""
    for _ in range(1_000):
        try:
            func()
        except Down:
            continue
        except Exception as refusal:
            if not isinstance(refusal.__context__, Down):  # some refuse the call that opens it
                return
    raise AssertionError(f"{func} never opened")


def first_try() -> Subjects:
    ways = {FLOOR: floors.retry(work), US: retry(work), **peers.retries(work)}
    return _calls(measures.call, ways)


def slot() -> Subjects:
    guards = {FLOOR: threading.Semaphore(floors.SLOTS), US: Bulkhead(max_concurrent=floors.SLOTS)}
    return {name: measures.statement("with guard:\n    pass", guard=guard) for name, guard in guards.items()}


def slot_of_a_function() -> Subjects:
    ways = {
        FLOOR: floors.bulkhead(work),
        US: bulkhead(max_concurrent=floors.SLOTS)(work),
        **peers.bulkheads(work, floors.SLOTS),
    }
    return _calls(measures.call, ways)


def in_threads() -> Subjects:
    ways = {FLOOR: floors.breaker(work), US: circuit_breaker(work), **peers.breakers(work)}
    return _calls(measures.threads, ways)


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
    ways = {US: lambda: CircuitBreaker("ours", config), **peers.makers()}
    return _calls(measures.memory_of_one, ways)


def long_window() -> Subjects:
    def ours(calls: int) -> floors.Function:
        return CircuitBreaker(config=CircuitBreakerConfig(error_rate_threshold=0.5, error_rate_window=calls))(work)

    def of(make: Callable[[int], floors.Function]) -> Measure:
        return measures.memory_of_calls(lambda: make(100), lambda: make(CALLS), CALLS)

    def peer(name: str) -> Callable[[int], floors.Function]:
        return lambda calls: peers.windows_of_calls(work, calls)[name]

    return {US: of(ours)} | {name: of(peer(name)) for name in peers.windows_of_calls(work, 1)}


def importing() -> Subjects:
    paths = [measures.PACKAGES, *peers.places()]
    return {
        FLOOR: measures.importing(["dataclasses", "threading", "contextvars"], paths),
        US: measures.importing(["circuit_breaker"], paths),
        **{name: measures.importing([peers.MODULES[name]], paths) for name in peers.versions()},
    }


CASES = (
    # First, because the set of all breakers grows by leaps: how full it is depends on how many there were before.
    Case("memory of an idle breaker", idle, 500, yardstick=None, unit="B", slice_s=0, rounds=0.0),
    Case("@circuit_breaker, success", success, 1.25, beats_peers=True),
    Case("@circuit_breaker, success, by window", windows, 1.25, spread=1.05),
    Case("@circuit_breaker, success, async def", success_async, 1.20),
    Case("with breaker", block, 2.4),
    Case("async with breaker", block_async, 2.4),
    Case("@circuit_breaker, refused", refused, 1.5, yardstick="circuitbreaker"),
    Case("@circuit_breaker, failure", failing, 1.3, yardstick="circuitbreaker"),
    Case("@retry, first try succeeds", first_try, 0.95),
    Case("with bulkhead, free slot", slot, 0.65),
    Case("@bulkhead, free slot", slot_of_a_function),
    Case("@circuit_breaker, success, 8 threads at once", in_threads, 1 / 0.8, slice_s=0.01, rounds=0.1),
    Case("async with bulkhead of 100, 1,000 tasks, each", in_tasks, 1.5, slice_s=0.01, rounds=0.1),
    Case("memory of 1,000,000 successes", long_window, 1024, yardstick=None, unit="B", slice_s=0, rounds=0.0),
    Case("import", importing, 2.0, slice_s=0, rounds=0.1),
)
