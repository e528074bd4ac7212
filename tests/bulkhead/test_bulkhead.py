"""The bulkhead: settings, taking and giving back by hand, what is seen, calls and streams, under threads."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import count
from math import inf, nan
from typing import Any

import pytest
from clocks import Clock
from coroutines import Pause, drive, run
from garbage import catch_up, collect
from patience import PATIENCE_S
from waiters import Waiters, first_in_line, soon
from ways import BULKHEAD

from circuit_breaker._bulkhead import bulkhead as _bulkhead
from circuit_breaker._bulkhead.bulkhead import Bulkhead
from circuit_breaker._bulkhead.gates import ThreadGate
from circuit_breaker._bulkhead.line import Caller
from circuit_breaker._common.events import BulkheadRejected
from circuit_breaker.exceptions import BulkheadFullError, UsageError

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
def test_wrong_setting_is_rejected_by_its_name(setting: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(setting))):
        Bulkhead(**setting)


def test_weak_references_work_and_copies_are_rejected() -> None:
    bulkhead = Bulkhead()
    assert weakref.ref(bulkhead)() is bulkhead
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            attempt(bulkhead)


@pytest.mark.parametrize("name", ["name", "max_concurrent", "max_queue", "timeout_s", "active_count"])
def test_attribute_that_cannot_be_changed_is_read_only(name: str) -> None:
    bulkhead = Bulkhead()
    with pytest.raises(AttributeError, match=name):
        setattr(bulkhead, name, 1)
    assert bulkhead.acquire()


@pytest.mark.parametrize("name", ["acquire", "acquire_async", "release"])
def test_subclass_that_overrides_a_method_that_calls_do_not_use_is_rejected(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Own overrides {name}\(\), but calls, .* do not use {name}\(\): use l"):
        type("Own", (Bulkhead,), {name: lambda self: True})


def test_subclass_of_another_kind_works_and_has_its_own_name() -> None:
    class Own(Bulkhead):
        def half(self) -> int:
            return self.max_concurrent // 2

    assert Own(max_concurrent=4).half() == 2
    assert repr(Own()) == "<Own 'default': 0 of 10 slots taken>"


def test_a_subclass_may_release_in_its_own_exit(waiters: Waiters) -> None:
    class Own(Bulkhead):
        def __exit__(self, *error: object) -> None:
            self.release()

    bulkhead = Own(max_concurrent=1)
    for _ in range(2):
        with bulkhead:
            assert bulkhead.active_count == 1
    assert bulkhead.active_count == 0


# Taking, giving back, rejecting


def test_limit_is_reached_and_further_acquire_is_rejected() -> None:
    bulkhead = Bulkhead(max_concurrent=2)
    assert [bulkhead.acquire() for _ in range(4)] == [True, True, False, False]
    assert (bulkhead.active_count, bulkhead.available_slots) == (2, 0)
    bulkhead.release()
    assert bulkhead.acquire()


def test_zero_slots_reject_every_call() -> None:
    bulkhead = Bulkhead(max_concurrent=0)
    assert not bulkhead.acquire()
    with pytest.raises(BulkheadFullError), bulkhead:
        raise AssertionError


def test_full_without_queue_fails_fast_instead_of_blocking() -> None:
    bulkhead = Bulkhead("api", 1, max_queue=0, timeout_s=None)
    with bulkhead as entered:
        assert entered is bulkhead
        with pytest.raises(BulkheadFullError) as rejection, bulkhead:
            raise AssertionError
    assert rejection.value.message == "Bulkhead 'api' is full"
    assert (rejection.value.bulkhead_name, rejection.value.max_concurrency) == ("api", 1)
    assert rejection.value.context == {
        "bulkhead_name": "api",
        "max_concurrency": 1,
        "active_count": 1,
        "queued_count": 0,
        "max_queue": 0,
    }
    assert bulkhead.active_count == 0


def test_release_without_holder_is_a_usage_error_and_grows_nothing() -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    for release in (bulkhead.release, lambda: bulkhead.__exit__(None, None, None)):
        with pytest.raises(UsageError, match="without a held slot"):
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


def test_two_and_twenty_callers_of_a_queue_of_three_leave_three_waiting(waiters: Waiters) -> None:
    rejected = threading.Semaphore(0)
    bulkhead = Bulkhead(max_concurrent=1, max_queue=3, listeners=[lambda event: rejected.release()])
    bulkhead.acquire()
    callers = [waiters.start(bulkhead.acquire) for _ in range(22)]
    waiters.expect(3)
    assert all(rejected.acquire(timeout=PATIENCE_S) for _ in range(19))
    assert bulkhead.queued_count == 3
    for _ in range(4):
        bulkhead.release()
    assert sum(soon(caller) for caller in callers) == 3
    assert bulkhead.active_count == 0


# Timeouts


@pytest.mark.parametrize("timeout_s", [0.0, None])
def test_zero_and_none_wait_without_limit(
    timeout_s: float | None, waiters: Waiters, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=timeout_s)
    bulkhead.acquire()
    waiter = waiters.send(bulkhead.acquire)
    monkeypatch.setattr(_bulkhead.time, "monotonic", lambda: 1e9)
    bulkhead.release()
    assert soon(waiter) is True


def test_waiter_whose_time_is_over_is_rejected_and_holds_no_place() -> None:
    events: list[BulkheadRejected] = []
    bulkhead = Bulkhead("api", 1, max_queue=1, timeout_s=0.01, listeners=[events.append], clock=Clock())
    bulkhead.acquire()
    assert [bulkhead.acquire(), bulkhead.acquire()] == [False, False]
    assert events == [BulkheadRejected("api", 1, 0, waited_s=0.0)] * 2
    assert bulkhead.queued_count == 0
    bulkhead.release()
    assert bulkhead.acquire()


def test_very_long_timeout_waits_instead_of_overflowing(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=1e300)
    bulkhead.acquire()
    waiter = waiters.send(bulkhead.acquire)
    bulkhead.release()
    assert soon(waiter) is True


def test_error_of_a_caller_that_timed_out_says_so_and_after_how_long() -> None:
    seconds = count(100, 7)
    seen: list[BulkheadRejected] = []
    bulkhead = Bulkhead("api", 1, 1, timeout_s=0.001, listeners=[seen.append], clock=lambda: next(seconds))
    with bulkhead, pytest.raises(BulkheadFullError) as rejection:
        bulkhead.call(int)
    assert rejection.value.message == "Timed out waiting for a slot of bulkhead 'api'"
    assert rejection.value.context == {
        "bulkhead_name": "api",
        "max_concurrency": 1,
        "active_count": 1,
        "queued_count": 0,
        "max_queue": 1,
        "waited_s": 7.0,
    }
    assert seen == [BulkheadRejected("api", 1, 0, waited_s=7.0)]


@pytest.mark.parametrize("timeout_s", [0, 0.0, timedelta(0)])
@pytest.mark.parametrize("usual", [None, 0.0, 60.0])
def test_caller_with_a_timeout_of_zero_does_not_wait(usual: float | None, timeout_s: Any) -> None:
    seen: list[BulkheadRejected] = []
    bulkhead = Bulkhead("api", 1, 1, timeout_s=usual, listeners=[seen.append])
    assert bulkhead.acquire(timeout_s=timeout_s) is True
    assert bulkhead.acquire(timeout_s=timeout_s) is False
    assert seen == [BulkheadRejected("api", 1, 0)]
    assert bulkhead.snapshot().timed_out_count == 0
    assert drive(bulkhead.acquire_async(timeout_s=timeout_s)) is False


@pytest.mark.parametrize("timeout_s", [0.001, timedelta(milliseconds=1)])
def test_caller_with_a_timeout_of_its_own_waits_no_longer(timeout_s: Any) -> None:
    bulkhead = Bulkhead("api", 1, 1, timeout_s=None)
    bulkhead.acquire()
    assert bulkhead.acquire(timeout_s=timeout_s) is False
    assert run(bulkhead.acquire_async(timeout_s=timeout_s)) is False
    assert bulkhead.snapshot().timed_out_count == 2


def test_caller_without_a_timeout_waits_for_as_long_as_it_takes(waiters: Waiters) -> None:
    bulkhead = Bulkhead("api", 1, 1, timeout_s=0.001)
    bulkhead.acquire()
    waiter = waiters.send(partial(bulkhead.acquire, timeout_s=None))
    assert first_in_line(bulkhead).gate._deadline == inf
    bulkhead.release()
    assert soon(waiter) is True


@pytest.mark.parametrize(
    ("timeout_s", "error"),
    [(-1, ValueError), (nan, ValueError), (inf, ValueError), ("1", TypeError), (True, TypeError)],
)
def test_wrong_timeout_of_a_caller_is_rejected_though_a_slot_is_free(timeout_s: Any, error: type[Exception]) -> None:
    bulkhead = Bulkhead()
    for acquire in (bulkhead.acquire, lambda timeout_s: drive(bulkhead.acquire_async(timeout_s=timeout_s))):
        with pytest.raises(error, match="timeout_s must be a finite number >= 0"):
            acquire(timeout_s=timeout_s)
    assert bulkhead.active_count == 0


def test_timeout_of_the_bulkhead_may_be_a_timedelta() -> None:
    assert Bulkhead(timeout_s=timedelta(minutes=1.5)).timeout_s == 90.0


# Changing the size


def test_growing_serves_waiting_callers_at_once(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=3)
    bulkhead.acquire()
    sent = [waiters.send(bulkhead.acquire) for _ in range(3)]
    bulkhead.resize(3)
    assert [soon(sent[0]), soon(sent[1])] == [True, True]
    assert (bulkhead.max_concurrent, bulkhead.active_count, bulkhead.queued_count) == (3, 3, 1)
    assert bulkhead.snapshot().peak_active_count == 3
    bulkhead.release()
    assert soon(sent[2]) is True


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


def test_shrunk_to_zero_rejects_the_next_as_if_it_had_been_made_so() -> None:
    bulkhead = Bulkhead(max_concurrent=2)
    bulkhead.call(int)
    bulkhead.resize(0)
    assert not bulkhead.acquire()
    with pytest.raises(BulkheadFullError):
        bulkhead.call(int)
    assert bulkhead.active_count == 0


def test_shrunk_to_zero_keeps_waiters_waiting_until_it_grows(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    waiter = waiters.send(bulkhead.acquire)
    bulkhead.resize(0)
    bulkhead.release()
    assert (bulkhead.active_count, bulkhead.queued_count) == (0, 1)
    bulkhead.resize(1)
    assert soon(waiter) is True


@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (True, TypeError), ("3", TypeError)])
def test_resize_to_a_wrong_value_changes_nothing(size: Any, error: type[Exception]) -> None:
    bulkhead = Bulkhead(max_concurrent=4)
    with pytest.raises(error, match="max_concurrent"):
        bulkhead.resize(size)
    assert bulkhead.max_concurrent == 4


# Snapshots and rejections


def test_snapshot_tells_all_totals(waiters: Waiters) -> None:
    now = [100.0]
    bulkhead = Bulkhead("api", 2, max_queue=1, clock=lambda: now[0])
    bulkhead.acquire()
    bulkhead.acquire()
    waiter = waiters.send(bulkhead.acquire)
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


def test_every_admitted_call_is_counted_in_every_way_of_calling() -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    for way in BULKHEAD.values():
        before = bulkhead.snapshot().accepted_count
        enter = way.ready(bulkhead, lambda: None)
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


def test_waiting_time_of_a_caller_that_timed_out_is_counted() -> None:
    seconds = count(5)
    bulkhead = Bulkhead(max_concurrent=0, max_queue=1, timeout_s=0.001, clock=lambda: next(seconds))
    assert not bulkhead.acquire()
    assert bulkhead.snapshot().total_wait_s == 1.0


def test_waiting_takes_no_time_by_a_clock_that_stands_still(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=0.001, clock=lambda: 5.0)
    bulkhead.acquire()
    assert not bulkhead.acquire()
    patient = Bulkhead(max_concurrent=1, max_queue=1, clock=lambda: 5.0)
    patient.acquire()
    waiter = waiters.send(patient.acquire)
    patient.release()
    assert soon(waiter) is True
    assert (bulkhead.snapshot().total_wait_s, patient.snapshot().total_wait_s) == (0.0, 0.0)


def test_rejection_says_how_many_calls_ran_and_waited(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    waiter = waiters.send(bulkhead.acquire)
    with pytest.raises(BulkheadFullError) as raised:
        bulkhead.call(int)
    assert (raised.value.context["active_count"], raised.value.context["queued_count"]) == (1, 1)
    bulkhead.release()
    assert soon(waiter) is True


def test_rejection_after_a_timeout_says_how_many_calls_ran_and_waited() -> None:
    seen: list[Any] = []
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2, timeout_s=0.001, listeners=[seen.append], clock=Clock())
    bulkhead.acquire()
    patient = Caller()
    patient.gate = ThreadGate(None)
    bulkhead._line.enter(patient, 2)
    assert not bulkhead.acquire()
    assert seen == [BulkheadRejected("default", 1, 1, waited_s=0.0)]


def test_snapshot_counts_a_caller_that_timed_out_as_rejected_too() -> None:
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


def test_listeners_come_and_go_and_may_do_so_while_they_are_notified() -> None:
    seen: list[str] = []

    def once(event: BulkheadRejected) -> None:
        seen.append("once")
        bulkhead.remove_listener(once)
        bulkhead.add_listener(lambda event: seen.append("late"))

    bulkhead = Bulkhead(max_concurrent=0)
    bulkhead.add_listener(once)
    bulkhead.acquire()
    bulkhead.acquire()
    assert seen == ["once", "late"]
    with pytest.raises(ValueError, match="one of the listeners of <Bulkhead 'default'"):
        bulkhead.remove_listener(once)


def test_listener_that_is_added_in_the_middle_of_another_is_not_lost() -> None:
    bulkhead = Bulkhead()
    before = bulkhead._listeners
    bulkhead.add_listener(print)
    assert not bulkhead._replace_listeners(before, (len,))
    assert bulkhead._listeners == (print,)


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


def test_rejected_call_does_not_touch_the_function() -> None:
    bulkhead = Bulkhead(max_concurrent=0)
    touched: list[int] = []
    with pytest.raises(BulkheadFullError):
        bulkhead.call(touched.append, 1)
    assert touched == []


def test_call_that_waited_is_served_and_hands_on(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    sent = [waiters.send(bulkhead.call, lambda: bulkhead.active_count) for _ in range(2)]
    bulkhead.release()
    assert [soon(waiter) for waiter in sent] == [1, 1]
    assert bulkhead.active_count == 0


def test_call_of_what_it_cannot_call_is_a_type_error_before_admission() -> None:
    async def coroutine_function() -> None: ...

    bulkhead = Bulkhead(max_concurrent=1)
    with pytest.raises(TypeError, match="call_async"):
        bulkhead.call(coroutine_function)
    with pytest.raises(TypeError, match="without calling it"):
        bulkhead.call(coroutine_function())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="func must be a function"):
        bulkhead(3)  # type: ignore[type-var]
    assert bulkhead.snapshot().accepted_count == 0


def awaited_later() -> list[Callable[[], Any]]:
    """Return plain functions that return what is still to be awaited."""

    async def work() -> None: ...

    @functools.wraps(work)
    def wrapped() -> Any:
        return work()

    return [wrapped, lambda: Pause()]


@pytest.mark.parametrize("func", awaited_later())
def test_plain_function_that_returns_an_awaitable_is_rejected_and_gives_its_slot_back(func: Callable[[], Any]) -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    for call in (lambda: bulkhead.call(func), bulkhead(func)):
        for _ in range(2):
            with pytest.raises(UsageError, match="which must be awaited"):
                call()
    assert bulkhead.active_count == 0


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


def test_generator_rejected_at_its_first_item_leaves_the_body_untouched() -> None:
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
        catch_up()
    else:
        cycle: list[Any] = [stream]
        cycle.append(cycle)
        del cycle, stream
        collect()
    assert bulkhead.active_count == 0
