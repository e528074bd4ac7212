"""Where callers wait: tasks of asyncio, tasks of trio and threads, alone, together, cancelled and abandoned."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import Future
from importlib.util import find_spec
from typing import Any

import pytest
import trio
from clocks import Clock
from coroutines import run, settle
from failures import raising
from garbage import catch_up, collect
from needs import needs_closed_coroutines, needs_reference_counts
from patience import PATIENCE_S
from trio.testing import MockClock, wait_all_tasks_blocked
from waiters import Waiters, first_in_line, soon

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, RetryPolicy
from circuit_breaker._bulkhead.bulkhead import Bulkhead
from circuit_breaker._bulkhead.gates import ThreadGate
from circuit_breaker._bulkhead.line import Caller
from circuit_breaker._common.async_library import AsyncioGate, task_gate
from circuit_breaker._common.events import BulkheadRejected
from circuit_breaker.exceptions import BulkheadFullError, UsageError

# Waiting under asyncio


async def in_line(bulkhead: Bulkhead) -> asyncio.Task[bool]:
    """Return a task that waits in the line."""
    before = bulkhead.queued_count
    task = asyncio.create_task(bulkhead.acquire_async())
    await settle()
    assert bulkhead.queued_count == before + 1
    return task


def test_free_slot_is_taken_and_full_bulkhead_rejects_at_once() -> None:
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


def test_task_whose_time_is_over_is_rejected_and_holds_no_place() -> None:
    async def main() -> None:
        events: list[BulkheadRejected] = []
        bulkhead = Bulkhead("api", 1, max_queue=1, timeout_s=0.005, listeners=[events.append], clock=Clock())
        await bulkhead.acquire_async()
        assert await bulkhead.acquire_async() is False
        with pytest.raises(BulkheadFullError):
            async with bulkhead:
                raise AssertionError
        assert events == [BulkheadRejected("api", 1, 0, waited_s=0.0)] * 2
        assert bulkhead.snapshot().timed_out_count == 2

    run(main())


def test_task_served_before_its_time_is_over_stops_its_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        timers: list[asyncio.TimerHandle] = []
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        def remember(when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            timer = call_at(when, *args, **kwargs)
            if when < loop.time() + 2 * PATIENCE_S:
                timers.append(timer)
            return timer

        monkeypatch.setattr(loop, "call_at", remember)
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=PATIENCE_S)
        await bulkhead.acquire_async()
        task = await in_line(bulkhead)
        bulkhead.release()
        assert await task is True
        assert [timer.cancelled() for timer in timers] == [True]
        patient = Bulkhead(max_concurrent=1, max_queue=1)
        await patient.acquire_async()
        task = await in_line(patient)
        patient.release()
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
def test_waiter_cancelled_at_the_moment_it_is_served_passes_the_slot_on(order: str) -> None:
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


def test_destructor_that_gives_a_slot_back_while_a_task_is_woken_wakes_it_once() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=2, max_queue=1)
        await bulkhead.acquire_async()
        await bulkhead.acquire_async()
        task = await in_line(bulkhead)
        visits = [bulkhead.release]

        class Future(asyncio.Future[bool]):
            def set_result(self, result: bool, /) -> None:
                if visits:
                    visits.pop()()  # as a destructor may
                super().set_result(result)

        gate = first_in_line(bulkhead).gate
        gate._future = Future()
        bulkhead.release()
        assert gate._future.result() is True
        assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)
        task.cancel()  # it sleeps at the future that was there before

    run(main())


def test_task_served_at_the_moment_it_goes_to_sleep_does_not_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        await bulkhead.acquire_async()
        sleep = AsyncioGate.sleep

        def release_and_sleep(gate: Any, caller: Any) -> Any:
            bulkhead.release()  # as a destructor may
            return sleep(gate, caller)

        monkeypatch.setattr(AsyncioGate, "sleep", release_and_sleep)
        assert await bulkhead.acquire_async() is True
        assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)

    run(main())


def test_slot_given_back_while_the_loop_waits_for_events_wakes_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    loop: Any = asyncio.new_event_loop()
    select = loop._selector.select
    woken: list[bool] = []

    def release_and_select(timeout: float | None) -> Any:
        if (timeout is None or timeout > 1_000) and not woken:
            bulkhead.release()  # as a signal handler may
            events = select(PATIENCE_S)
            woken.append(bool(events))
            return events
        return select(timeout)

    monkeypatch.setattr(loop._selector, "select", release_and_select)
    try:
        assert loop.run_until_complete(bulkhead.acquire_async()) is True
    finally:
        loop.close()
    assert woken == [True]


def test_waiting_for_a_slot_outside_of_a_task_is_a_usage_error() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    with pytest.raises(UsageError, match="takes a running task of asyncio or trio"):
        bulkhead.acquire_async().send(None)
    assert bulkhead.queued_count == 0


def test_acquire_that_would_block_an_event_loop_names_the_async_way() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        assert bulkhead.acquire() is True
        for way in (bulkhead.acquire, bulkhead.__enter__, lambda: bulkhead.call(int)):
            with pytest.raises(UsageError, match="use acquire_async"):
                way()
        assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)
        await in_line(bulkhead)
        assert bulkhead.acquire() is False

    run(main())


@needs_closed_coroutines
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
            collect()
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


def test_a_bulkhead_that_cannot_wait_here_trips_no_breaker_and_is_not_retried() -> None:
    breaker = CircuitBreaker(config=CircuitBreakerConfig(failure_threshold=1))
    policy = RetryPolicy(3, 0.0)
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    attempts: list[int] = []

    @policy
    @breaker
    def attempt() -> None:
        attempts.append(1)
        bulkhead.call(int)

    async def main() -> None:
        with bulkhead, pytest.raises(UsageError):
            attempt()

    run(main())
    assert (len(attempts), breaker.is_closed, breaker.stats.failure_count) == (1, True, 0)


# Event loops that are closed


class Abandoned:
    """A task that waits in the line, of an event loop that nobody runs any more."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self.loop = asyncio.new_event_loop()
        self.task = self.loop.create_task(bulkhead.acquire_async())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.task._log_destroy_pending = False  # type: ignore[attr-defined]

    def turn(self) -> None:
        """Run the loop once: what it was told is done, but the task does not run yet."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        assert not self.task.done()


def test_slot_passes_by_the_waiters_of_closed_loops() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    lost = [Abandoned(bulkhead) for _ in range(2)]
    assert bulkhead.queued_count == 2
    for each in lost:
        each.loop.close()
    catch_up()
    assert bulkhead.queued_count == 0
    bulkhead.release()
    assert bulkhead.active_count == 0


def test_waiter_whose_loop_is_closed_while_it_is_served_is_passed_by(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    lost = Abandoned(bulkhead)
    behind = waiters.send(bulkhead.acquire)
    with pytest.MonkeyPatch.context() as patch:  # another thread is in the middle of close()
        patch.setattr(lost.loop, "call_soon_threadsafe", lambda *_: raising(RuntimeError("Event loop is closed"))())
        patch.setattr(lost.loop, "is_closed", lambda: True)
        bulkhead.release()
        assert soon(behind) is True
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)
    lost.loop.close()
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)


def test_waiters_of_closed_loops_make_room_in_a_full_line(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    lost = Abandoned(bulkhead)
    assert not bulkhead.acquire()
    lost.loop.close()
    catch_up()
    waiter = waiters.send(bulkhead.acquire)
    bulkhead.release()
    assert soon(waiter) is True


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("next_one", ["waits", "comes later"])
def test_slot_handed_to_a_loop_that_is_closed_before_its_task_runs_goes_to_the_next(
    next_one: str, turned: bool, waiters: Waiters
) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    lost = Abandoned(bulkhead)
    behind = waiters.send(bulkhead.acquire) if next_one == "waits" else None
    bulkhead.release()
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0 if behind is None else 1)
    if turned:
        lost.turn()
    lost.loop.close()
    catch_up()
    assert soon(behind) if behind is not None else bulkhead.acquire()
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)


def test_slot_handed_over_by_the_last_task_of_a_loop_that_is_then_closed_goes_to_the_next() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    loop = asyncio.new_event_loop()

    async def main() -> None:
        async with bulkhead:
            await settle()
        loop.stop()

    last = loop.create_task(main())
    lost = loop.create_task(bulkhead.acquire_async())
    lost._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_forever()
    assert last.done()
    assert (bulkhead.active_count, lost.done()) == (1, False)
    loop.close()
    catch_up()
    assert bulkhead.active_count == 0


def test_two_loops_of_one_thread_each_notice_their_end() -> None:
    bulkhead = Bulkhead(max_concurrent=0, max_queue=4)
    lost = [Abandoned(bulkhead) for _ in range(2)]
    again = lost[0].loop.create_task(bulkhead.acquire_async())
    again._log_destroy_pending = False  # type: ignore[attr-defined]
    lost[0].turn()
    assert bulkhead.queued_count == 3
    lost[0].loop.close()
    catch_up()
    assert bulkhead.queued_count == 1
    lost[1].loop.close()
    catch_up()
    assert bulkhead.queued_count == 0


def test_loops_that_take_turns_in_one_thread_get_one_timer_each() -> None:
    bulkhead = Bulkhead(max_concurrent=0, max_queue=1, timeout_s=1e-9)
    loops: list[Any] = [asyncio.new_event_loop() for _ in range(2)]
    for _ in range(10):
        for loop in loops:
            assert loop.run_until_complete(bulkhead.acquire_async()) is False
    assert [sum(not timer.cancelled() for timer in loop._scheduled) for loop in loops] == [1, 1]
    for loop in loops:
        loop.close()


@needs_reference_counts
def test_waiter_that_fails_to_leave_a_closed_loop_keeps_no_other_from_leaving() -> None:
    failures = [ValueError(), ValueError()]

    def clock() -> float:
        if broken and failures:
            raise failures.pop()
        return 0.0

    broken = False
    bulkhead = Bulkhead(max_concurrent=0, max_queue=3, clock=clock)
    loop = asyncio.new_event_loop()
    lost = [loop.create_task(bulkhead.acquire_async()) for _ in range(3)]
    loop.run_until_complete(asyncio.sleep(0))
    broken = True
    with pytest.MonkeyPatch.context() as patch:
        unraisable: list[Any] = []
        patch.setattr(sys, "unraisablehook", lambda what: unraisable.append(what.exc_type))
        loop.close()
    assert unraisable == [ValueError]
    assert (len(bulkhead._line.abandoned), bulkhead._line.queued) == (0, 0)
    for task in lost:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_loop_whose_timers_were_removed_loses_no_waiter_while_it_runs() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
        await bulkhead.acquire_async()
        first = await in_line(bulkhead)
        for timer in asyncio.get_running_loop()._scheduled:  # type: ignore[attr-defined]
            timer.cancel()
        assert bulkhead.queued_count == 1
        second = await in_line(bulkhead)
        for task in (first, second):
            bulkhead.release()
            assert await task is True

    run(main())


def test_waiting_in_a_loop_for_decades_changes_nothing() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        await bulkhead.acquire_async()
        task = await in_line(bulkhead)
        loop: Any = asyncio.get_running_loop()
        for timer in loop._scheduled:
            if timer.when() > loop.time() + 1e8:
                timer._run()
        await settle()
        assert not task.done()
        bulkhead.release()
        assert await task is True

    run(main())


# Waiting under trio


def autojump() -> MockClock:
    """Return a clock that goes on to the next deadline as soon as all tasks wait."""
    return MockClock(autojump_threshold=0)


async def in_trio_line(nursery: trio.Nursery, bulkhead: Bulkhead, ended: list[Any], name: str) -> None:
    """Let a task wait in the line; it notes its name and what it got."""

    async def wait() -> None:
        ended.append((name, await bulkhead.acquire_async()))

    before = bulkhead.queued_count
    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert bulkhead.queued_count == before + 1


def test_free_slot_is_taken_under_trio_and_full_bulkhead_rejects() -> None:
    bulkhead = Bulkhead(max_concurrent=1)

    @bulkhead
    async def work() -> int:
        return bulkhead.active_count

    async def main() -> None:
        assert await work() == 1
        async with bulkhead:
            assert await bulkhead.acquire_async() is False

    trio.run(main)
    assert bulkhead.active_count == 0


def test_trio_tasks_are_served_first_come_first_served() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=3)
        await bulkhead.acquire_async()
        ended: list[Any] = []
        async with trio.open_nursery() as nursery:
            for name in "abc":
                await in_trio_line(nursery, bulkhead, ended, name)
            assert await bulkhead.acquire_async() is False
            for position in range(3):
                bulkhead.release()
                assert (bulkhead.active_count, bulkhead.queued_count) == (1, 2 - position)
                await wait_all_tasks_blocked()
                assert ended == [(name, True) for name in "abc"[: position + 1]]

    trio.run(main)


@pytest.mark.parametrize("order", ["cancelled first", "served first"])
def test_trio_task_cancelled_at_the_moment_it_is_served_passes_the_slot_on(order: str) -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
        await bulkhead.acquire_async()
        ended: list[Any] = []
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            await in_trio_line(inner, bulkhead, ended, "first")
            await in_trio_line(outer, bulkhead, ended, "second")
            for step in (inner.cancel_scope.cancel, bulkhead.release)[:: 1 if order == "cancelled first" else -1]:
                step()
        assert ended == [("second", True)]
        assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)

    trio.run(main)


def test_cancelled_trio_task_leaves_the_line() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        await bulkhead.acquire_async()
        with trio.move_on_after(5) as scope:
            await bulkhead.acquire_async()
        assert scope.cancelled_caught
        assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)

    trio.run(main, clock=autojump())


def test_timeout_of_a_trio_task_is_measured_by_its_own_clock() -> None:
    async def main() -> None:
        bulkhead = Bulkhead("api", 1, max_queue=1, timeout_s=60)
        await bulkhead.acquire_async()
        started = trio.current_time()
        with pytest.raises(BulkheadFullError, match="Timed out"):
            await bulkhead.call_async(trio.sleep_forever)
        assert trio.current_time() - started == pytest.approx(60)
        assert (bulkhead.queued_count, bulkhead.snapshot().timed_out_count) == (0, 1)

    trio.run(main, clock=autojump())


def test_trio_task_woken_for_nothing_goes_on_waiting_until_its_first_deadline() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=60)
        await bulkhead.acquire_async()
        ended: list[Any] = []
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_trio_line, nursery, bulkhead, ended, "it")
            await trio.sleep(50)
            for _ in range(2):
                first_in_line(bulkhead).gate.open()
        assert ended == [("it", False)]
        assert trio.current_time() - started == pytest.approx(60)

    trio.run(main, clock=autojump())


def test_acquire_that_would_block_trio_names_the_async_way() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        assert bulkhead.acquire() is True
        for way in (bulkhead.acquire, bulkhead.__enter__, lambda: bulkhead.call(int)):
            with pytest.raises(UsageError, match="use acquire_async"):
                way()
        assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)

    trio.run(main)


def test_slot_passes_by_a_waiter_of_a_run_of_trio_that_is_over() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()

    async def make_gate() -> Any:
        return task_gate(None)

    waiter = Caller()
    waiter.gate = trio.run(make_gate)
    assert not bulkhead._line.enter(Caller(), 2)
    assert bulkhead._line.enter(waiter, 2)
    assert bulkhead.queued_count == 1
    bulkhead.release()
    assert (bulkhead.active_count, bulkhead.queued_count, waiter.holds) == (0, 0, None)


@pytest.mark.skipif(find_spec("trio_asyncio") is None, reason="trio-asyncio is not installed")
def test_under_trio_asyncio_tasks_of_both_libraries_wait_in_one_line() -> None:
    # In a process of its own, since importing trio-asyncio changes asyncio for good.
    program = """
import trio, trio_asyncio
from trio.testing import wait_all_tasks_blocked
from circuit_breaker import Bulkhead

bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
order = []

async def use(name):
    async with bulkhead:
        order.append(name)

async def main():
    await bulkhead.acquire_async()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio_asyncio.aio_as_trio(use), "asyncio")
        await wait_all_tasks_blocked(0.01)
        nursery.start_soon(use, "trio")
        await wait_all_tasks_blocked(0.01)
        assert bulkhead.queued_count == 2
        bulkhead.release()
    print(order, bulkhead.active_count)

trio_asyncio.run(main)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['asyncio', 'trio'] 0"


# Threads and tasks in one line


def test_thread_hands_its_slot_to_a_task_of_a_loop_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = threading.Event()
    wait = ThreadGate.sleep

    def tell_and_wait(gate: Any, caller: Any) -> bool:
        asleep.set()
        return wait(gate, caller)

    monkeypatch.setattr(ThreadGate, "sleep", tell_and_wait)
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


def test_threads_and_tasks_of_asyncio_and_trio_wait_in_one_line(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=6)
    bulkhead.acquire()
    order: list[str] = []
    asleep = threading.Semaphore(0)
    done: list[Future[Any]] = []

    def use(name: str) -> None:
        bulkhead.acquire()
        order.append(name)
        bulkhead.release()

    async def use_async(name: str) -> None:
        gate_sleep = asyncio.get_running_loop().call_soon if name.startswith("asyncio") else None
        if gate_sleep is not None:
            gate_sleep(asleep.release)
        else:
            trio.lowlevel.current_trio_token().run_sync_soon(asleep.release)
        async with bulkhead:
            order.append(name)

    for number in range(2):
        done.append(waiters.send(use, f"thread {number}"))
        done.append(waiters.start(asyncio.run, use_async(f"asyncio {number}")))
        assert asleep.acquire(timeout=PATIENCE_S)
        done.append(waiters.start(trio.run, use_async, f"trio {number}"))
        assert asleep.acquire(timeout=PATIENCE_S)
    assert bulkhead.queued_count == 6
    bulkhead.release()
    for future in done:
        soon(future)
    assert order == [f"{kind} {number}" for number in range(2) for kind in ("thread", "asyncio", "trio")]
    assert (bulkhead.active_count, bulkhead.queued_count) == (0, 0)
