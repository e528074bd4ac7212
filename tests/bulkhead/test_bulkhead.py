"""The bulkhead under threads: the count, the line, the refusals, streams, and Ctrl-C."""

from __future__ import annotations

import ast
import copy
import gc
import inspect
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from types import ModuleType
from typing import Any

import pytest
from needs import needs_timer
from patience import PATIENCE_S
from storms import SHOTS, storm
from ways import BULKHEAD

from circuit_breaker._bulkhead import bulkhead as _bulkhead
from circuit_breaker._bulkhead import line as _line
from circuit_breaker._bulkhead.bulkhead import Bulkhead
from circuit_breaker._bulkhead.line import Slot, ThreadGate
from circuit_breaker._common.events import BulkheadRejected
from circuit_breaker.exceptions import BulkheadFullError


class Line:
    """Runs callers in threads and tells when one of them has lain down in the line."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self.asleep = threading.Semaphore(0)

    def send(self, func: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run func, which will wait in the line, and return once it does."""
        future = self._pool.submit(func, *args)
        self.expect(1)
        return future

    def start(self, func: Callable[..., Any], *args: Any) -> Future[Any]:
        return self._pool.submit(func, *args)

    def expect(self, count: int) -> None:
        for _ in range(count):
            assert self.asleep.acquire(timeout=PATIENCE_S)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    with ThreadPoolExecutor(32) as pool:
        line = Line(pool)
        wait = _line.ThreadGate.wait

        def tell_and_wait(gate: Any, timeout_s: float) -> None:
            line.asleep.release()
            wait(gate, timeout_s)

        monkeypatch.setattr(_line.ThreadGate, "wait", tell_and_wait)
        yield line


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(gate: Any, timeout_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_line.ThreadGate, "wait", wait)


def soon(future: Future[Any]) -> Any:
    return future.result(PATIENCE_S)


def wake_first(bulkhead: Bulkhead) -> None:
    """Wake the first in the line, for nothing."""
    first = bulkhead._line.first
    assert first is not None
    first.gate.open()


def is_free(lock: Any) -> bool:
    """Tell whether no thread holds the lock, this one included."""

    def is_free() -> bool:
        got = bool(lock.acquire(blocking=False))
        if got:
            lock.release()
        return got

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(is_free).result()


# Names and checks


def test_attributes_are_those_of_the_original() -> None:
    bulkhead = Bulkhead("api", 2, 3, 4)
    figures = (bulkhead.name, bulkhead.max_concurrent, bulkhead.max_queue, bulkhead.timeout_s)
    assert figures == ("api", 2, 3, 4.0)
    assert (bulkhead.active_count, bulkhead.available_slots, bulkhead.queued_count) == (0, 2, 0)
    assert repr(bulkhead) == "<Bulkhead 'api': 0 of 2 slots taken>"


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"name": 3}, TypeError),
        ({"max_concurrent": -1}, ValueError),
        ({"max_concurrent": True}, TypeError),
        ({"max_concurrent": 1.5}, TypeError),
        ({"max_queue": -1}, ValueError),
        ({"max_queue": "3"}, TypeError),
        ({"timeout_s": -0.1}, ValueError),
        ({"timeout_s": float("nan")}, ValueError),
        ({"timeout_s": float("inf")}, ValueError),
        ({"timeout_s": "1"}, TypeError),
        ({"listeners": print}, TypeError),
        ({"clock": 3}, TypeError),
    ],
)
def test_wrong_setting_is_refused_by_its_name(setting: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(setting))):
        Bulkhead(**setting)


def test_weak_references_work_and_copies_are_refused() -> None:
    bulkhead = Bulkhead()
    assert weakref.ref(bulkhead)() is bulkhead
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            attempt(bulkhead)


# Taking, giving back, refusing


def test_limit_is_reached_and_further_acquire_is_refused() -> None:
    bulkhead = Bulkhead(max_concurrent=2)
    assert [bulkhead.acquire() for _ in range(4)] == [True, True, False, False]
    assert (bulkhead.active_count, bulkhead.available_slots) == (2, 0)
    bulkhead.release()
    assert bulkhead.acquire()


def test_zero_slots_refuse_everybody() -> None:
    bulkhead = Bulkhead(max_concurrent=0)
    assert not bulkhead.acquire()
    with pytest.raises(BulkheadFullError), bulkhead:
        raise AssertionError


def test_full_without_queue_fails_fast_instead_of_blocking() -> None:
    bulkhead = Bulkhead("api", 1, max_queue=0, timeout_s=None)
    with bulkhead as entered:
        assert entered is bulkhead
        with pytest.raises(BulkheadFullError) as refusal, bulkhead:
            raise AssertionError
    assert refusal.value.message == "Bulkhead 'api' is full"
    assert (refusal.value.bulkhead_name, refusal.value.max_concurrency) == ("api", 1)
    assert refusal.value.context == {
        "bulkhead_name": "api",
        "max_concurrency": 1,
        "active_count": 1,
        "queued_count": 0,
        "max_queue": 0,
    }
    assert bulkhead.active_count == 0


def test_release_without_holder_raises_and_grows_nothing() -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    for release in (bulkhead.release, lambda: bulkhead.__exit__(None, None, None)):
        with pytest.raises(RuntimeError, match="without a held slot"):
            release()
    assert [bulkhead.acquire(), bulkhead.acquire()] == [True, False]


def test_stray_release_within_a_call_takes_its_slot_and_no_more() -> None:
    bulkhead = Bulkhead(max_concurrent=2)

    @bulkhead
    def numbers() -> Iterator[int]:
        bulkhead.release()
        yield 1

    for stray in (lambda: bulkhead.call(bulkhead.release), lambda: list(numbers())):
        stray()
        assert bulkhead.active_count == 0
    assert [bulkhead.acquire() for _ in range(3)] == [True, True, False]


def test_body_that_raises_gives_its_slot_back() -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    with pytest.raises(ZeroDivisionError), bulkhead:
        raise ZeroDivisionError
    assert bulkhead.active_count == 0


def test_two_and_twenty_callers_of_a_queue_of_three_leave_three_waiting(line: Line) -> None:
    refused = threading.Semaphore(0)
    bulkhead = Bulkhead(max_concurrent=1, max_queue=3, listeners=[lambda event: refused.release()])
    bulkhead.acquire()
    callers = [line.start(bulkhead.acquire) for _ in range(22)]
    line.expect(3)
    assert all(refused.acquire(timeout=PATIENCE_S) for _ in range(19))
    assert bulkhead.queued_count == 3
    for _ in range(4):
        bulkhead.release()
    assert sum(soon(caller) for caller in callers) == 3
    assert bulkhead.active_count == 0


def test_waiters_are_served_first_come_first_served(line: Line) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=3)
    bulkhead.acquire()
    waiters = [line.send(bulkhead.acquire) for _ in range(3)]
    for position, waiter in enumerate(waiters):
        bulkhead.release()
        assert soon(waiter) is True
        assert not any(later.done() for later in waiters[position + 1 :])


def test_handed_over_slot_never_becomes_free(line: Line) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    waiter = line.send(bulkhead.acquire)
    bulkhead.release()
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)
    assert soon(waiter) is True


# Time-outs, cancelled waits


@pytest.mark.parametrize("timeout_s", [0.0, None])
def test_zero_and_none_wait_without_limit(timeout_s: float | None, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=timeout_s)
    bulkhead.acquire()
    waiter = line.send(bulkhead.acquire)
    monkeypatch.setattr(_bulkhead.time, "monotonic", lambda: 1e9)
    bulkhead.release()
    assert soon(waiter) is True


def test_waiter_whose_time_is_over_is_refused_and_holds_no_place() -> None:
    events: list[BulkheadRejected] = []
    bulkhead = Bulkhead("api", 1, max_queue=1, timeout_s=0.01, listeners=[events.append])
    bulkhead.acquire()
    assert [bulkhead.acquire(), bulkhead.acquire()] == [False, False]
    assert events == [BulkheadRejected("api", 1, 0)] * 2
    assert bulkhead.queued_count == 0
    bulkhead.release()
    assert bulkhead.acquire()


def test_very_long_time_out_waits_instead_of_overflowing(line: Line) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=1e300)
    bulkhead.acquire()
    waiter = line.send(bulkhead.acquire)
    bulkhead.release()
    assert soon(waiter) is True


def test_waiter_served_in_the_moment_its_time_is_over_keeps_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=0.001)
    bulkhead.acquire()
    wait = _line.ThreadGate.wait

    def wait_too_long(gate: Any, timeout_s: float) -> None:
        wait(gate, timeout_s)
        bulkhead.release()

    monkeypatch.setattr(_line.ThreadGate, "wait", wait_too_long)
    assert bulkhead.acquire() is True
    assert bulkhead.active_count == 1
    assert bulkhead.snapshot().timed_out_count == 0


def test_slot_given_between_the_look_at_the_clock_and_leaving_the_line_is_kept() -> None:
    waiting = _line.Slot()
    waiting.gate = _line.ThreadGate()
    queue = Bulkhead(max_concurrent=1, max_queue=1)._line
    queue.enter(_line.Slot(), 1)
    queue.enter(waiting, 1)
    queue.inside = 0
    queue.serve()
    queue.leave(waiting, late=True)
    assert (waiting.holds, waiting.refused, queue.timed_out) == (queue.epoch, False, 0)


def test_whoever_has_left_the_line_keeps_none_of_its_neighbours_alive() -> None:
    queue = Bulkhead(max_concurrent=1, max_queue=4)._line
    slots = [_line.Slot() for _ in range(5)]
    for slot in slots:
        slot.gate = _line.ThreadGate()
        queue.enter(slot, 4)
    queue.leave(slots[2])
    queue.leave(slots[4])
    queue.leave(slots[0])
    queue.serve()
    assert [(slot.before, slot.after) for slot in slots] == [(None, None)] * 5
    assert (queue.first, queue.last, queue.queued) == (slots[3], slots[3], 1)


def test_waiter_woken_for_nothing_goes_on_waiting(line: Line) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    waiter = line.send(bulkhead.acquire)
    wake_first(bulkhead)
    line.expect(1)
    assert not waiter.done()
    bulkhead.release()
    assert soon(waiter) is True


@pytest.mark.usefixtures("interrupted")
def test_two_interrupted_waiters_leave_the_queue_empty() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            bulkhead.acquire()
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)


def test_waiter_interrupted_as_it_is_served_passes_the_slot_on(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    behind: list[Future[Any]] = []
    wait = _line.ThreadGate.wait

    def serve_and_interrupt(gate: Any, timeout_s: float) -> None:
        monkeypatch.setattr(_line.ThreadGate, "wait", wait)
        behind.append(line.send(bulkhead.acquire))
        bulkhead.release()
        raise KeyboardInterrupt

    monkeypatch.setattr(_line.ThreadGate, "wait", serve_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        bulkhead.acquire()
    assert soon(behind[0]) is True
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)


@pytest.mark.parametrize("leave", ["release", "exit", "call", "resize"])
def test_interrupt_while_the_next_is_woken_loses_neither_slot_nor_waiter(
    leave: str, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    opening = _line.ThreadGate.open
    waiters: list[Future[Any]] = []

    def interrupt_once(gate: Any) -> bool:
        monkeypatch.setattr(_line.ThreadGate, "open", opening)
        raise KeyboardInterrupt

    def work() -> None:
        waiters.append(line.send(bulkhead.acquire))
        monkeypatch.setattr(_line.ThreadGate, "open", interrupt_once)

    with pytest.raises(KeyboardInterrupt):
        if leave == "call":
            bulkhead.call(work)
        elif leave == "exit":
            with bulkhead:
                work()
        else:
            bulkhead.acquire()
            work()
            bulkhead.release() if leave == "release" else bulkhead.resize(2)
    assert bulkhead.active_count == (2 if leave == "resize" else 1)
    assert soon(waiters[0]) is True
    assert bulkhead.queued_count == 0


# Changing the size


def test_growing_serves_those_who_wait_at_once(line: Line) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=3)
    bulkhead.acquire()
    waiters = [line.send(bulkhead.acquire) for _ in range(3)]
    bulkhead.resize(3)
    assert [soon(waiters[0]), soon(waiters[1])] == [True, True]
    assert (bulkhead.max_concurrent, bulkhead.active_count, bulkhead.queued_count) == (3, 3, 1)
    assert bulkhead.snapshot().peak_active_count == 3
    bulkhead.release()
    assert soon(waiters[2]) is True


def test_shrinking_takes_effect_as_holders_leave() -> None:
    bulkhead = Bulkhead(max_concurrent=4)
    for _ in range(4):
        bulkhead.acquire()
    bulkhead.resize(2)
    assert (bulkhead.active_count, bulkhead.available_slots) == (4, 0)
    bulkhead.release()
    bulkhead.release()
    assert not bulkhead.acquire()
    bulkhead.release()
    assert [bulkhead.acquire(), bulkhead.acquire()] == [True, False]


def test_shrunk_to_zero_refuses_the_next_as_if_it_had_been_made_so() -> None:
    bulkhead = Bulkhead(max_concurrent=2)
    bulkhead.call(int)
    bulkhead.resize(0)
    assert not bulkhead.acquire()
    with pytest.raises(BulkheadFullError):
        bulkhead.call(int)
    assert bulkhead.active_count == 0


def test_shrunk_to_zero_keeps_waiters_waiting_until_it_grows(line: Line) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    waiter = line.send(bulkhead.acquire)
    bulkhead.resize(0)
    bulkhead.release()
    assert (bulkhead.active_count, bulkhead.queued_count) == (0, 1)
    bulkhead.resize(1)
    assert soon(waiter) is True


@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (True, TypeError), ("3", TypeError)])
def test_resize_to_nonsense_changes_nothing(size: Any, error: type[Exception]) -> None:
    bulkhead = Bulkhead(max_concurrent=4)
    with pytest.raises(error, match="max_concurrent"):
        bulkhead.resize(size)
    assert bulkhead.max_concurrent == 4


# What is seen


def test_snapshot_tells_all_totals(line: Line) -> None:
    now = [100.0]
    bulkhead = Bulkhead("api", 2, max_queue=1, clock=lambda: now[0])
    bulkhead.acquire()
    bulkhead.acquire()
    waiter = line.send(bulkhead.acquire)
    now[0] += 7.5
    assert not bulkhead.acquire()
    bulkhead.release()
    assert soon(waiter) is True
    bulkhead.release()
    assert bulkhead.snapshot().to_dict() == {
        "name": "api",
        "max_concurrent": 2,
        "max_queue": 1,
        "active_count": 1,
        "queued_count": 0,
        "accepted_count": 3,
        "rejected_count": 1,
        "timed_out_count": 0,
        "peak_active_count": 2,
        "total_wait_s": 7.5,
    }


def test_everybody_who_came_in_is_counted_however_he_came() -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    for way in BULKHEAD.values():
        before = bulkhead.snapshot().accepted_count
        enter = way.ready(bulkhead, int)
        for _ in range(3):
            enter()
        assert bulkhead.snapshot().accepted_count == before + 3


def test_a_block_gives_the_bulkhead_every_time() -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    for _ in range(3):
        with bulkhead as given:
            assert given is bulkhead


def test_a_snapshot_of_a_bulkhead_can_be_held_weakly() -> None:
    snapshot = Bulkhead().snapshot()
    assert weakref.ref(snapshot)() is snapshot


def test_peak_is_the_most_that_were_ever_inside_at_once() -> None:
    bulkhead = Bulkhead(max_concurrent=3)
    peaks = []
    for inside in (1, 2, 1, 3):
        for _ in range(inside):
            bulkhead.acquire()
        for _ in range(inside):
            bulkhead.release()
        peaks.append(bulkhead.snapshot().peak_active_count)
    assert peaks == [1, 2, 2, 3]


def test_snapshot_of_one_never_used_is_empty() -> None:
    figures = Bulkhead("api", 2, 1).snapshot().to_dict()
    assert {name: figure for name, figure in figures.items() if figure} == {
        "name": "api",
        "max_concurrent": 2,
        "max_queue": 1,
    }


def test_time_in_the_line_of_one_who_timed_out_is_counted() -> None:
    seconds = count(5)
    bulkhead = Bulkhead(max_concurrent=0, max_queue=1, timeout_s=0.001, clock=lambda: next(seconds))
    assert not bulkhead.acquire()
    assert bulkhead.snapshot().total_wait_s == 1.0


def test_waiting_takes_no_time_by_a_clock_that_stands_still(line: Line) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=0.001, clock=lambda: 5.0)
    bulkhead.acquire()
    assert not bulkhead.acquire()
    patient = Bulkhead(max_concurrent=1, max_queue=1, clock=lambda: 5.0)
    patient.acquire()
    waiter = line.send(patient.acquire)
    patient.release()
    assert soon(waiter) is True
    assert (bulkhead.snapshot().total_wait_s, patient.snapshot().total_wait_s) == (0.0, 0.0)


def test_refusal_tells_how_many_were_inside_and_waited(line: Line) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    waiter = line.send(bulkhead.acquire)
    with pytest.raises(BulkheadFullError) as raised:
        bulkhead.call(int)
    assert (raised.value.context["active_count"], raised.value.context["queued_count"]) == (1, 1)
    bulkhead.release()
    assert soon(waiter) is True


def test_refusal_of_one_who_timed_out_tells_how_many_were_inside_and_waited() -> None:
    seen: list[Any] = []
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2, timeout_s=0.001, listeners=[seen.append])
    bulkhead.acquire()
    patient = Slot()
    patient.gate = ThreadGate()
    bulkhead._line.enter(patient, 2)
    assert not bulkhead.acquire()
    assert seen == [BulkheadRejected("default", 1, 1)]


def test_one_who_waits_for_a_while_sleeps_through_it(line: Line) -> None:
    bulkhead = Bulkhead(max_concurrent=0, max_queue=1, timeout_s=0.02)
    naps = 0
    assert not line.start(bulkhead.acquire).result(PATIENCE_S)
    while line.asleep.acquire(blocking=False):
        naps += 1
    assert naps < 5


def test_snapshot_counts_one_who_timed_out_as_refused_too() -> None:
    bulkhead = Bulkhead(max_concurrent=0, max_queue=1, timeout_s=0.001)
    assert not bulkhead.acquire()
    snapshot = bulkhead.snapshot()
    assert (snapshot.rejected_count, snapshot.timed_out_count) == (1, 1)


def test_listener_may_use_the_bulkhead_and_its_error_harms_nobody() -> None:
    seen: list[int] = []

    def broken(event: BulkheadRejected) -> None:
        seen.append(bulkhead.active_count)
        raise ValueError

    bulkhead = Bulkhead(max_concurrent=0, listeners=[broken])
    assert bulkhead.acquire() is False
    assert seen == [0]


def test_base_exception_of_a_listener_passes_on_after_everything_is_settled() -> None:
    def leave(event: BulkheadRejected) -> None:
        raise SystemExit

    bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=0.001, listeners=[leave])
    bulkhead.acquire()
    for caller in (bulkhead.acquire, bulkhead.__enter__, lambda: bulkhead.call(print)):
        with pytest.raises(SystemExit):
            caller()
    assert (bulkhead.active_count, bulkhead.queued_count, bulkhead.snapshot().rejected_count) == (1, 0, 3)


# Calls and decorated functions


def test_call_holds_a_slot_and_passes_everything_on() -> None:
    bulkhead = Bulkhead(max_concurrent=1)

    def inside(*args: int, **kwargs: int) -> tuple[int, tuple[int, ...], dict[str, int]]:
        return bulkhead.active_count, args, kwargs

    assert bulkhead.call(inside, 1, 2, func=3, self=4) == (1, (1, 2), {"func": 3, "self": 4})
    assert bulkhead.active_count == 0


def test_call_whose_function_raises_gives_the_slot_back() -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    with pytest.raises(ZeroDivisionError):
        bulkhead.call(lambda: 1 / 0)
    assert bulkhead.active_count == 0


def test_refused_call_does_not_touch_the_function() -> None:
    bulkhead = Bulkhead(max_concurrent=0)
    touched: list[int] = []
    with pytest.raises(BulkheadFullError):
        bulkhead.call(touched.append, 1)
    assert touched == []


def test_call_that_waited_is_served_and_hands_on(line: Line) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    waiters = [line.send(bulkhead.call, lambda: bulkhead.active_count) for _ in range(2)]
    bulkhead.release()
    assert [soon(waiter) for waiter in waiters] == [1, 1]
    assert bulkhead.active_count == 0


def test_call_of_what_it_cannot_call_is_a_type_error_before_admission() -> None:
    async def coroutine_function() -> None: ...

    bulkhead = Bulkhead(max_concurrent=1)
    with pytest.raises(TypeError, match="call_async"):
        bulkhead.call(coroutine_function)
    with pytest.raises(TypeError, match="uncalled"):
        bulkhead.call(coroutine_function())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="func must be a function"):
        bulkhead(3)  # type: ignore[type-var]
    assert bulkhead.snapshot().accepted_count == 0


def test_decorated_function_method_static_and_class_method_hold_a_slot() -> None:
    bulkhead = Bulkhead(max_concurrent=1)

    class Service:
        @bulkhead
        def method(self) -> int:
            return bulkhead.active_count

        @bulkhead
        @staticmethod
        def static() -> int:
            return bulkhead.active_count

        @bulkhead
        @classmethod
        def of_class(cls) -> int:
            return bulkhead.active_count

    service = Service()
    assert [service.method(), service.static(), service.of_class()] == [1, 1, 1]
    assert service.method.__name__ == "method"
    assert service.method.bulkhead is bulkhead  # type: ignore[attr-defined]
    assert bulkhead.active_count == 0


# Generators


def test_generator_holds_its_slot_from_the_first_item_to_the_end() -> None:
    bulkhead = Bulkhead(max_concurrent=1)

    @bulkhead
    def numbers() -> Iterator[int]:
        sent = yield 1
        try:
            yield sent
        except KeyError:
            yield 3
        return 4

    stream: Any = numbers()
    assert inspect.isgeneratorfunction(numbers)
    assert bulkhead.active_count == 0
    assert (next(stream), bulkhead.active_count) == (1, 1)
    assert stream.send(2) == 2
    assert stream.throw(KeyError()) == 3
    assert bulkhead.active_count == 1
    with pytest.raises(StopIteration) as stop:
        next(stream)
    assert stop.value.value == 4
    assert bulkhead.active_count == 0


def test_generator_refused_at_its_first_item_leaves_the_body_untouched() -> None:
    bulkhead = Bulkhead(max_concurrent=0)
    touched: list[int] = []

    @bulkhead
    def numbers() -> Iterator[int]:
        touched.append(1)
        yield 1

    stream = numbers()
    with pytest.raises(BulkheadFullError):
        next(stream)
    assert touched == []


@pytest.mark.parametrize("end", ["error", "close", "drop", "collect"])
def test_generator_that_ends_early_gives_its_slot_back(end: str) -> None:
    bulkhead = Bulkhead(max_concurrent=1)

    @bulkhead
    def numbers() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    stream: Any = numbers()
    next(stream)
    if end == "error":
        with pytest.raises(ZeroDivisionError):
            next(stream)
    elif end == "close":
        stream.close()
    elif end == "drop":
        del stream
    else:
        cycle: list[Any] = [stream]
        cycle.append(cycle)
        del cycle, stream
        gc.collect()
    assert bulkhead.active_count == 0


# What comes in between


class Visited:
    """The lock of a line; a visitor comes at once when it was taken, and once more before it is given back."""

    def __init__(self, lock: Any, visitor: Callable[[], object]) -> None:
        self._lock = lock
        self._visitor: Callable[[], object] | None = visitor
        self.visits = 0

    def visit(self) -> None:
        visitor, self._visitor = self._visitor, None
        if visitor is not None:
            self.visits += 1
            visitor()
            self._visitor = visitor

    def __enter__(self) -> None:
        self._lock.__enter__()
        self.visit()

    def __exit__(self, *error: Any) -> None:
        self.visit()
        self._lock.__exit__(*error)


def opened_streams(bulkhead: Bulkhead) -> list[Any]:
    """Return streams that each hold a slot, until they are dropped."""

    @bulkhead
    def guarded() -> Iterator[int]:
        yield 1

    def by_hand() -> Iterator[int]:
        with bulkhead:
            yield 1

    streams = [guarded(), by_hand()]
    for stream in streams:
        next(stream)
    return streams


VISITORS: dict[str, Callable[[Bulkhead], object]] = {
    "in and out": lambda bulkhead: bulkhead.acquire() and bulkhead.release(),
    "call": lambda bulkhead: bulkhead.call(int),
    "snapshot": lambda bulkhead: bulkhead.snapshot(),
    "resize": lambda bulkhead: bulkhead.resize(bulkhead.max_concurrent),
    "streams": lambda bulkhead: opened_streams(bulkhead).clear(),
}


@pytest.mark.parametrize("visitor", VISITORS)
@pytest.mark.parametrize("section", ["acquire", "with", "call", "stream", "resize", "snapshot", "time-out", "full"])
def test_destructor_in_a_locked_section_deadlocks_and_loses_nothing(visitor: str, section: str) -> None:
    bulkhead = Bulkhead(max_concurrent=4, max_queue=1, timeout_s=0.001)
    bulkhead.acquire()
    steps: dict[str, Callable[[], object]] = {
        "acquire": lambda: (bulkhead.acquire(), bulkhead.release()),
        "with": lambda: (bulkhead.__enter__(), bulkhead.__exit__(None, None, None)),
        "call": lambda: bulkhead.call(int),
        "stream": lambda: opened_streams(bulkhead).clear(),
        "resize": lambda: bulkhead.resize(4),
        "snapshot": bulkhead.snapshot,
        "time-out": bulkhead.acquire,
        "full": bulkhead.acquire,
    }
    if section in ("time-out", "full"):
        bulkhead.resize(1)
        bulkhead.max_queue = 1 if section == "time-out" else 0
    lock = bulkhead._line.lock
    visited = Visited(lock, lambda: quietly(lambda: VISITORS[visitor](bulkhead)))

    def run() -> None:
        steps[section]()
        bulkhead._line.lock = visited  # type: ignore[assignment]
        steps[section]()
        bulkhead._line.lock = lock

    with ThreadPoolExecutor(1) as pool:
        soon(pool.submit(run))
    assert visited.visits >= 2
    assert is_free(lock)
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)
    bulkhead.resize(4)
    assert [bulkhead.acquire() for _ in range(4)] == [True, True, True, False]


def quietly(visit: Callable[[], object]) -> None:
    try:
        visit()
    except BulkheadFullError:
        pass


@pytest.mark.parametrize("visitor", ["release", "abandon", "snapshot", "resize", "serve", "refused"])
def test_destructor_while_a_gate_opens_neither_serves_twice_nor_forgets_anybody(
    visitor: str, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulkhead = Bulkhead(max_concurrent=2, max_queue=3)
    streams = opened_streams(bulkhead)
    if visitor != "abandon":
        streams.clear()
        bulkhead.acquire()
    else:
        streams.pop()
    bulkhead.acquire()
    waiters = [line.send(bulkhead.acquire) for _ in range(3)]
    opening = _line.ThreadGate.open

    def be_refused() -> None:
        bulkhead.max_queue = 0
        assert not bulkhead.acquire()

    visits: dict[str, Callable[[], object]] = {
        "release": bulkhead.release,
        "abandon": streams.clear,
        "snapshot": bulkhead.snapshot,
        "resize": lambda: bulkhead.resize(3),
        "serve": bulkhead._line.serve,
        "refused": be_refused,
    }

    def visit_once(gate: Any) -> bool:
        monkeypatch.setattr(_line.ThreadGate, "open", opening)
        visits[visitor]()
        return opening(gate)

    monkeypatch.setattr(_line.ThreadGate, "open", visit_once)
    bulkhead.release()
    served = 2 if visitor in ("release", "abandon", "resize") else 1
    assert [soon(waiter) for waiter in waiters[:served]] == [True] * served
    assert not any(waiter.done() for waiter in waiters[served:])
    assert bulkhead.queued_count == 3 - served
    assert bulkhead.active_count == (3 if visitor == "resize" else 2)
    for _ in waiters[served:]:
        bulkhead.release()
    assert [soon(waiter) for waiter in waiters] == [True] * 3


def test_newcomer_in_the_moment_of_a_hand_over_overtakes_nobody(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    waiter = line.send(bulkhead.acquire)
    newcomers: list[Future[Any]] = []
    opening = _line.ThreadGate.open

    def come_and_open(gate: Any) -> bool:
        monkeypatch.setattr(_line.ThreadGate, "open", opening)
        newcomers.append(line.send(bulkhead.acquire))
        return opening(gate)

    monkeypatch.setattr(_line.ThreadGate, "open", come_and_open)
    bulkhead.release()
    assert soon(waiter) is True
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 1)
    bulkhead.release()
    assert soon(newcomers[0]) is True


def test_slot_taken_away_while_a_gate_opens_is_not_given(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    waiter = line.send(bulkhead.acquire)
    opening = _line.ThreadGate.open

    def shrink_and_open(gate: Any) -> bool:
        monkeypatch.setattr(_line.ThreadGate, "open", opening)
        bulkhead.resize(0)
        return opening(gate)

    monkeypatch.setattr(_line.ThreadGate, "open", shrink_and_open)
    bulkhead.release()
    assert (bulkhead.active_count, bulkhead.queued_count) == (0, 1)
    line.expect(1)
    bulkhead.resize(1)
    assert soon(waiter) is True


@pytest.mark.parametrize("room", [_bulkhead, _line])
def test_under_the_lock_nothing_is_called_made_or_repeated(room: ModuleType) -> None:
    allowed = (ast.Assign, ast.AugAssign, ast.If, ast.Return, ast.Compare, ast.BoolOp, ast.BinOp, ast.IfExp)
    allowed += (ast.UnaryOp, ast.Name, ast.Attribute, ast.Constant, ast.expr_context)
    allowed += (ast.operator, ast.cmpop, ast.boolop, ast.unaryop)
    sections = [node for node in ast.walk(ast.parse(inspect.getsource(room))) if isinstance(node, ast.With)]
    assert len(sections) >= 3
    for section in sections:
        assert ast.unparse(section.items[0].context_expr).endswith(".lock")
        found = [node for statement in section.body for node in ast.walk(statement)]
        assert [ast.unparse(node) for node in found if not isinstance(node, allowed)] == []


def test_who_is_woken_by_somebody_who_is_then_interrupted_takes_the_slot_without_help(line: Line) -> None:
    interrupted: set[int] = set()

    def clock() -> float:
        if threading.get_ident() in interrupted:
            raise KeyboardInterrupt
        return 0.0

    bulkhead = Bulkhead(max_concurrent=1, max_queue=1, clock=clock)
    assert bulkhead.acquire()
    waiting = line.send(bulkhead.acquire)
    interrupted.add(threading.get_ident())
    with pytest.raises(KeyboardInterrupt):
        bulkhead.release()
    interrupted.clear()
    try:
        assert soon(waiting) is True
    finally:
        bulkhead._line.serve()  # else it would sleep on
    assert bulkhead.active_count == 1


def test_slot_left_by_somebody_who_was_interrupted_is_taken_back_by_the_next_who_needs_it(line: Line) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)

    def leave() -> None:
        slot = _line.Slot()
        assert bulkhead._take(slot)
        bulkhead._line.left.add(slot)

    leave()
    assert (bulkhead.active_count, len(bulkhead._line.left)) == (0, 0)
    leave()
    assert bulkhead.acquire()
    bulkhead.release()
    leave()
    bulkhead.call(int)
    assert bulkhead.active_count == 0


# Ctrl-C


WHOLE = [name for name, way in BULKHEAD.items() if way.is_whole]
"""What no interrupt can split; at the entry of `__exit__` and `release()`, nothing of ours has run yet."""


class Interrupted:
    """The lock of a line; one interrupt comes when this thread takes it, or gives it back, for so many times."""

    def __init__(self, lock: Any, sections: int, moment: str = "left") -> None:
        self._lock = lock
        self._thread = threading.get_ident()
        self._moment = moment
        self.sections = sections

    def __enter__(self) -> None:
        self._count("entered")
        self._lock.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)
        self._count("left")

    def _count(self, moment: str) -> None:
        if moment == self._moment and threading.get_ident() == self._thread:
            self.sections -= 1
            if self.sections == 0:
                raise KeyboardInterrupt


def interrupt(bulkhead: Bulkhead, sections: int, body: Callable[[], object], moment: str = "left") -> bool:
    """Run body, interrupted at one of its locked sections; tell whether there were as many."""
    lock = bulkhead._line.lock
    interrupted = Interrupted(lock, sections, moment)
    bulkhead._line.lock = interrupted  # type: ignore[assignment]
    try:
        body()
    except KeyboardInterrupt:
        pass
    finally:
        bulkhead._line.lock = lock
    return interrupted.sections <= 0


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("way", "moment"), [(way, "left") for way in BULKHEAD] + [(way, "entered") for way in WHOLE])
def test_interrupt_at_any_locked_section_loses_no_slot(way: str, moment: str, known: bool) -> None:
    sections = 0
    found = True
    while found:
        sections += 1
        bulkhead = Bulkhead(max_concurrent=1)
        body = BULKHEAD[way].ready(bulkhead, int)
        if known:
            body()
        found = interrupt(bulkhead, sections, body, moment)
        assert bulkhead.active_count == 0
    assert sections > 2


@pytest.mark.parametrize("way", BULKHEAD)
def test_interrupt_at_any_locked_section_reaches_the_caller(way: str) -> None:
    interrupts = 0
    for sections in count(1):
        bulkhead = Bulkhead(max_concurrent=1)
        body = BULKHEAD[way].ready(bulkhead, int)
        body()
        lock = bulkhead._line.lock
        bulkhead._line.lock = Interrupted(lock, sections)  # type: ignore[assignment]
        try:
            body()
        except KeyboardInterrupt:
            interrupts += 1
        else:
            break
    assert interrupts == sections - 1 >= 2


@pytest.mark.parametrize("leave", ["release", "resize", "call", "generator"])
def test_interrupt_after_any_locked_section_leaves_nobody_waiting_for_a_free_slot(leave: str, line: Line) -> None:
    sections = 0
    found = True
    while found:
        sections += 1
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        waiters: list[Future[Any]] = []

        def work(bulkhead: Bulkhead = bulkhead, waiters: list[Future[Any]] = waiters, sections: int = sections) -> None:
            waiters.append(line.send(bulkhead.acquire))
            bulkhead._line.lock.sections = sections  # type: ignore[attr-defined]

        @bulkhead
        def stream(work: Callable[[], None] = work) -> Iterator[int]:
            yield 1
            work()

        def body(bulkhead: Bulkhead = bulkhead, work: Callable[[], None] = work, stream: Any = stream) -> None:
            if leave == "call":
                bulkhead.call(work)
            elif leave == "generator":
                list(stream())
            else:
                bulkhead.acquire()
                work()
                bulkhead.release() if leave == "release" else bulkhead.resize(2)

        found = interrupt(bulkhead, 1_000, body)
        assert soon(waiters[0]) is True
        assert (bulkhead.active_count, bulkhead.queued_count) == (2 if leave == "resize" else 1, 0)
    assert sections > 2


@needs_timer
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("way", WHOLE)
def test_thousands_of_interrupts_lose_no_slot_and_leave_no_lock_held(way: str) -> None:
    bulkhead = Bulkhead(max_concurrent=1_000_000)
    assert storm(BULKHEAD[way].ready(bulkhead, int)) == SHOTS
    assert is_free(bulkhead._line.lock)
    assert bulkhead.active_count == 0


@needs_timer
def test_interrupts_among_waiting_threads_lose_neither_slot_nor_waiter() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=3)
    stop = threading.Event()

    def other() -> int:
        calls = 0
        while not stop.is_set():
            bulkhead.call(int)
            calls += 1
        return calls

    def body() -> None:
        bulkhead.call(int)

    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(other) for _ in range(2)]
        try:
            storm(body)
        finally:
            stop.set()
        assert all(soon(future) > 0 for future in others)
    assert is_free(bulkhead._line.lock)
    assert (bulkhead.active_count, bulkhead.queued_count) == (0, 0)


def test_a_subclass_may_release_in_its_own_exit(line: Line) -> None:
    class Own(Bulkhead):
        def __exit__(self, *error: object) -> None:
            self.release()

    bulkhead = Own(max_concurrent=1)
    for _ in range(2):
        with bulkhead:
            assert bulkhead.active_count == 1
    assert bulkhead.active_count == 0
