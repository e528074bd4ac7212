"""The bulkhead around coroutines: calls, decorated functions, async generators, and everything at once."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from coroutines import run, settle
from failures import Down
from garbage import collect
from needs import needs_reference_counts
from patience import PATIENCE_S

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._bulkhead.bulkhead import Bulkhead
from circuit_breaker.exceptions import BulkheadFullError

# Cancelled at every await


@pytest.mark.parametrize(
    "way", ["acquire", "block", "call", "function", pytest.param("stream", marks=needs_reference_counts)]
)
@pytest.mark.parametrize("handed_over", [False, True])
def test_cancelled_at_any_await_point_nothing_is_lost_and_nothing_doubled(way: str, handed_over: bool) -> None:
    async def main() -> None:
        ended = []
        for ticks in range(12):
            bulkhead = Bulkhead(max_concurrent=1, max_queue=2, timeout_s=PATIENCE_S)
            await bulkhead.acquire_async()
            task = asyncio.create_task(using(bulkhead))
            behind = asyncio.create_task(using(bulkhead))
            for tick in range(ticks):
                await asyncio.sleep(0)
                if tick == 3:
                    bulkhead.release()
            if ticks <= 3 and handed_over:
                bulkhead.release()
            task.cancel()
            if ticks <= 3 and not handed_over:
                bulkhead.release()
            await behind
            await asyncio.wait([task])
            ended.append("cancelled" if task.cancelled() else "done")
            assert (bulkhead.active_count, bulkhead.queued_count) == (0, 0)
            assert bulkhead.acquire()
        assert ended[0] == "cancelled"
        assert ended[-1] == "done"

    async def using(bulkhead: Bulkhead) -> None:
        async def work() -> None:
            assert bulkhead.active_count == 1
            await asyncio.sleep(0)

        @bulkhead
        async def stream() -> AsyncIterator[None]:
            for _ in range(2):
                yield await work()

        if way == "acquire":
            await bulkhead.acquire_async()
            try:
                await work()
            finally:
                bulkhead.release()
        elif way == "block":
            async with bulkhead:
                await work()
        elif way == "call":
            await bulkhead.call_async(work)
        elif way == "function":
            await bulkhead(work)()
        else:
            async for _ in stream():
                await asyncio.sleep(0)

    run(main())


# Calls and decorated functions


def test_call_async_holds_a_slot_and_passes_everything_on() -> None:
    bulkhead = Bulkhead(max_concurrent=1)

    async def inside(*args: int, **kwargs: int) -> Any:
        return bulkhead.active_count, args, kwargs

    def gives_awaitable(number: int) -> Awaitable[Any]:
        return inside(number)

    assert run(bulkhead.call_async(inside, 1, func=2)) == (1, (1,), {"func": 2})
    assert run(bulkhead.call_async(gives_awaitable, 3)) == (1, (3,), {})
    assert bulkhead.active_count == 0


def test_call_async_of_what_cannot_be_awaited_is_a_type_error_and_loses_no_slot() -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    with pytest.raises(TypeError, match="can be awaited"):
        run(bulkhead.call_async(int))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="func must be a function"):
        run(bulkhead.call_async(3))  # type: ignore[arg-type]
    assert bulkhead.active_count == 0


def test_rejected_call_async_does_not_call_the_function() -> None:
    bulkhead = Bulkhead(max_concurrent=0)
    touched: list[int] = []
    with pytest.raises(BulkheadFullError):
        run(bulkhead.call_async(touched.append, 1))  # type: ignore[arg-type]
    assert touched == []


def test_decorated_coroutine_function_stays_one_and_gives_back_when_cancelled() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        never = asyncio.Event()

        @bulkhead
        async def work() -> None:
            await never.wait()

        assert inspect.iscoroutinefunction(work)
        assert work.bulkhead is bulkhead  # type: ignore[attr-defined]
        task = asyncio.create_task(work())
        await settle()
        waiting = asyncio.create_task(work())
        await settle()
        assert (bulkhead.active_count, bulkhead.queued_count) == (1, 1)
        task.cancel()
        await settle()
        assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)
        waiting.cancel()
        await settle()
        assert bulkhead.active_count == 0

    run(main())


# Async generators


def test_async_generator_holds_its_slot_from_the_first_item_to_the_end() -> None:
    bulkhead = Bulkhead(max_concurrent=1)

    @bulkhead
    async def numbers() -> AsyncIterator[Any]:
        sent = yield 1
        try:
            yield sent
        except KeyError:
            yield 3

    async def main() -> None:
        stream: Any = numbers()
        assert inspect.isasyncgenfunction(numbers)
        assert bulkhead.active_count == 0
        assert (await anext(stream), bulkhead.active_count) == (1, 1)
        assert await stream.asend(2) == 2
        assert await stream.athrow(KeyError()) == 3
        assert bulkhead.active_count == 1
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert bulkhead.active_count == 0

    run(main())


@pytest.mark.parametrize("end", ["error", "close", "drop"])
def test_async_generator_that_ends_early_closes_its_body_and_gives_its_slot_back(end: str) -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    closed: list[int] = []

    @bulkhead
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            raise ZeroDivisionError
        finally:
            closed.append(bulkhead.active_count)

    async def main() -> None:
        stream: Any = numbers()
        await anext(stream)
        if end == "error":
            with pytest.raises(ZeroDivisionError):
                await anext(stream)
        elif end == "close":
            await stream.aclose()
        else:
            del stream
            collect()
            await settle()
        assert closed == [1]
        assert bulkhead.active_count == 0

    run(main())


def test_async_generator_rejected_at_its_first_item_leaves_the_body_untouched() -> None:
    bulkhead = Bulkhead(max_concurrent=0)
    touched: list[int] = []

    @bulkhead
    async def numbers() -> AsyncIterator[int]:
        touched.append(1)
        yield 1

    async def main() -> None:
        with pytest.raises(BulkheadFullError):
            await anext(aiter(numbers()))

    run(main())
    assert touched == []


# Threads and event loops together


CALLS = int(os.environ.get("BULKHEAD_CALLS", "10000"))  # of each, a multiple of 100


def test_four_loops_and_four_threads_share_a_breaker_and_three_slots_and_the_totals_are_exact() -> None:
    breaker = CircuitBreaker("shared", CircuitBreakerConfig(failure_threshold=CALLS))
    bulkhead = Bulkhead("shared", 3, max_queue=1_000)
    lock = threading.Lock()
    inside = peak = 0

    def enter() -> None:
        nonlocal inside, peak
        with lock:
            inside += 1
            peak = max(peak, inside)

    def leave(call: int) -> None:
        nonlocal inside
        with lock:
            inside -= 1
        if call % 10 == 0:
            raise Down

    @breaker
    @bulkhead
    def work(call: int) -> None:
        enter()
        leave(call)

    @breaker
    @bulkhead
    async def work_async(call: int) -> None:
        enter()
        await asyncio.sleep(0)
        leave(call)

    def thread() -> None:
        for call in range(CALLS):
            with contextlib.suppress(Down):
                work(call)

    async def tasks() -> None:
        async def some(count: int) -> None:
            for call in range(count):
                with contextlib.suppress(Down):
                    await work_async(call)

        await asyncio.gather(*(some(CALLS // 10) for _ in range(10)))

    start = threading.Barrier(8)

    def started(func: Callable[[], Any]) -> None:
        start.wait(PATIENCE_S)
        func()

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(started, thread) for _ in range(4)]
        futures += [pool.submit(started, lambda: asyncio.run(tasks())) for _ in range(4)]
        for future in futures:
            future.result()
    assert peak <= 3
    snapshot = bulkhead.snapshot()
    assert (snapshot.active_count, snapshot.queued_count, snapshot.rejected_count) == (0, 0, 0)
    assert snapshot.accepted_count == 8 * CALLS
    assert snapshot.peak_active_count == 3
    stats = breaker.snapshot().stats
    assert (stats.success_count, stats.failure_count) == (8 * CALLS * 9 // 10, 8 * CALLS // 10)
    assert (stats.ignored_count, stats.rejected_count, stats.opened_count) == (0, 0, 0)
