"""The bulkhead under asyncio and trio, and among threads and several event loops at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from coroutines import run, settle
from failures import Down
from patience import PATIENCE_S

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._bulkhead import line as _line
from circuit_breaker._bulkhead.bulkhead import Bulkhead
from circuit_breaker._common.events import BulkheadRejected
from circuit_breaker.exceptions import BulkheadFullError


async def in_line(bulkhead: Bulkhead) -> asyncio.Task[bool]:
    """Return a task that waits in the line."""
    before = bulkhead.queued_count
    task = asyncio.create_task(bulkhead.acquire_async())
    await settle()
    assert bulkhead.queued_count == before + 1
    return task


# Taking, waiting, refusing


def test_free_slot_is_taken_and_full_bulkhead_refuses_at_once() -> None:
    async def main() -> None:
        bulkhead = Bulkhead("api", 1)
        async with bulkhead as entered:
            assert entered is bulkhead
            assert bulkhead.active_count == 1
            assert await bulkhead.acquire_async() is False
            with pytest.raises(BulkheadFullError, match="'api' is full"):
                async with bulkhead:
                    raise AssertionError
        assert bulkhead.active_count == 0

    run(main())


def test_tasks_are_served_first_come_first_served() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=3)
        await bulkhead.acquire_async()
        tasks = [await in_line(bulkhead) for _ in range(3)]
        assert await bulkhead.acquire_async() is False
        for position, task in enumerate(tasks):
            bulkhead.release()
            assert (bulkhead.active_count, bulkhead.queued_count) == (1, 2 - position)
            assert await task is True
            assert not any(later.done() for later in tasks[position + 1 :])

    run(main())


def test_task_whose_time_is_over_is_refused_and_holds_no_place() -> None:
    async def main() -> None:
        events: list[BulkheadRejected] = []
        bulkhead = Bulkhead("api", 1, max_queue=1, timeout_s=0.005, listeners=[events.append])
        await bulkhead.acquire_async()
        assert await bulkhead.acquire_async() is False
        with pytest.raises(BulkheadFullError):
            async with bulkhead:
                raise AssertionError
        assert events == [BulkheadRejected("api", 1, 0)] * 2
        assert bulkhead.snapshot().timed_out_count == 2

    run(main())


def test_task_served_before_its_time_is_over_stops_its_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        timers: list[asyncio.TimerHandle] = []
        loop = asyncio.get_running_loop()
        later = loop.call_later

        def remember(*args: Any) -> asyncio.TimerHandle:
            timers.append(later(*args))
            return timers[-1]

        monkeypatch.setattr(loop, "call_later", remember)
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=PATIENCE_S)
        await bulkhead.acquire_async()
        task = await in_line(bulkhead)
        bulkhead.release()
        assert await task is True
        assert [timer.cancelled() for timer in timers] == [True]
        bulkhead.timeout_s = None
        task = await in_line(bulkhead)
        bulkhead.release()
        assert await task is True
        assert len(timers) == 1

    run(main())


def test_cancelled_waiter_leaves_the_line() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
        await bulkhead.acquire_async()
        first, second = await in_line(bulkhead), await in_line(bulkhead)
        first.cancel()
        await settle()
        assert bulkhead.queued_count == 1
        bulkhead.release()
        assert await second is True
        assert first.cancelled()

    run(main())


@pytest.mark.parametrize("order", ["cancelled first", "served first"])
def test_waiter_cancelled_in_the_moment_it_is_served_passes_the_slot_on(order: str) -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
        await bulkhead.acquire_async()
        first, second = await in_line(bulkhead), await in_line(bulkhead)
        for step in (first.cancel, bulkhead.release)[:: 1 if order == "cancelled first" else -1]:
            step()
        assert await second is True
        assert first.cancelled()
        assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)

    run(main())


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 1, 2), (1, 2, 0)])
def test_waiters_cancelled_in_any_order_leave_the_others_in_theirs(order: tuple[int, ...]) -> None:
    async def main() -> None:
        for count in range(4):
            bulkhead = Bulkhead(max_concurrent=1, max_queue=4)
            await bulkhead.acquire_async()
            tasks = [await in_line(bulkhead) for _ in range(3)]
            for index in order[:count]:
                tasks[index].cancel()
                await settle()
            last = await in_line(bulkhead)
            for index in sorted(order[count:]):
                assert not tasks[index].done()
                bulkhead.release()
                assert await tasks[index] is True
            assert bulkhead.queued_count == 1
            bulkhead.release()
            assert await last is True
            assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)

    run(main())


@pytest.mark.parametrize("way", ["acquire", "block", "call", "function", "stream"])
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


def test_task_woken_for_nothing_goes_on_waiting() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        await bulkhead.acquire_async()
        task = await in_line(bulkhead)
        assert bulkhead._line.first is not None
        gate = bulkhead._line.first.gate
        gate.open()
        gate.open()
        await settle()
        assert not task.done()
        bulkhead.release()
        assert await task is True

    run(main())


# Several kinds of waiters


def test_thread_hands_its_slot_to_a_task_of_a_loop_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = threading.Event()
    wait = _line.ThreadGate.wait

    def tell_and_wait(gate: Any, timeout_s: float) -> None:
        asleep.set()
        wait(gate, timeout_s)

    monkeypatch.setattr(_line.ThreadGate, "wait", tell_and_wait)
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)

    async def main() -> None:
        bulkhead.acquire()
        task = await in_line(bulkhead)
        await asyncio.to_thread(bulkhead.release)
        assert await task is True
        thread = asyncio.create_task(asyncio.to_thread(bulkhead.acquire))
        await asyncio.to_thread(asleep.wait, PATIENCE_S)
        bulkhead.release()
        assert await thread is True

    run(main())


def test_acquire_that_would_block_an_event_loop_names_the_async_way() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        assert bulkhead.acquire() is True
        for way in (bulkhead.acquire, bulkhead.__enter__, lambda: bulkhead.call(int)):
            with pytest.raises(RuntimeError, match="acquire_async"):
                way()
        assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)
        await in_line(bulkhead)
        assert bulkhead.acquire() is False

    run(main())


def test_async_wait_without_an_event_loop_is_a_runtime_error() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    with pytest.raises(RuntimeError, match="running asyncio event loop"):
        bulkhead.acquire_async().send(None)
    assert bulkhead.queued_count == 0


def abandon_waiter(bulkhead: Bulkhead) -> Any:
    """Leave a task waiting in the line of a loop that was closed under it; return what keeps it alive."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(bulkhead.acquire_async())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    return task


def test_slot_passes_by_the_waiters_of_closed_loops() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    lost = [abandon_waiter(bulkhead) for _ in range(2)]
    assert bulkhead.queued_count == 2
    bulkhead.release()
    assert (bulkhead.active_count, bulkhead.queued_count) == (0, 0)
    lost.clear()
    gc.collect()
    assert bulkhead.active_count == 0


def test_waiters_of_closed_loops_make_room_in_a_full_line() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    lost = abandon_waiter(bulkhead)

    async def main() -> None:
        task = await asyncio.create_task(asyncio.wait_for(asyncio.shield(waiting()), PATIENCE_S))
        assert task is True

    async def waiting() -> bool:
        task = asyncio.create_task(bulkhead.acquire_async())
        await settle()
        assert bulkhead.queued_count == 1
        bulkhead.release()
        return await task

    run(main())
    del lost


def test_collected_waiter_leaves_the_line() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(bulkhead.acquire_async())
        loop.run_until_complete(asyncio.sleep(0))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        assert bulkhead.queued_count == 1
        assert bulkhead._line.first is not None
        with bulkhead._line.lock:
            del task
            bulkhead._line.first.gate._future = None
            gc.collect()
        assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)
    finally:
        loop.close()


def test_wake_that_fails_on_an_open_loop_leaves_the_waiter_in_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        bulkhead.acquire()
        task = await in_line(bulkhead)
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        failures = [RuntimeError("not now")]

        def fail_once(*args: Any) -> Any:
            if failures:
                raise failures.pop()
            return wake(*args)

        monkeypatch.setattr(loop, "call_soon_threadsafe", fail_once)

        def leave() -> None:
            with pytest.raises(RuntimeError, match="not now"):
                bulkhead.release()

        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
        assert await task is True
        assert bulkhead.active_count == 1

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


def test_refused_call_async_does_not_call_the_function() -> None:
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
            gc.collect()
            await settle()
        assert closed == [1]
        assert bulkhead.active_count == 0

    run(main())


def test_async_generator_refused_at_its_first_item_leaves_the_body_untouched() -> None:
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


# Trio


def under_trio(main: Callable[[], Awaitable[Any]]) -> Any:
    return pytest.importorskip("trio").run(main)


def test_free_slot_is_taken_under_trio() -> None:
    bulkhead = Bulkhead(max_concurrent=1)

    @bulkhead
    async def work() -> int:
        return bulkhead.active_count

    async def main() -> None:
        assert await work() == 1
        async with bulkhead:
            assert await bulkhead.acquire_async() is False

    under_trio(main)
    assert bulkhead.active_count == 0


def test_having_to_wait_under_trio_is_a_runtime_error_that_says_so() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="not supported under trio"):
            await bulkhead.acquire_async()
        with pytest.raises(RuntimeError, match="runs an event loop"):
            bulkhead.acquire()

    under_trio(main)
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)


# All together

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
