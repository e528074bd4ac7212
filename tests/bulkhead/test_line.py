"""The line: who is served next, and that nothing that comes in between loses a slot or a waiter."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from garbage import catch_up
from patience import PATIENCE_S
from waiters import Waiters, first_in_line, is_free, opened_streams, soon

from circuit_breaker._bulkhead.bulkhead import Bulkhead
from circuit_breaker._bulkhead.gates import ThreadGate
from circuit_breaker._bulkhead.line import Caller, Line
from circuit_breaker.exceptions import BulkheadFullError

# Order and hand-over


def test_waiters_are_served_first_come_first_served(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=3)
    bulkhead.acquire()
    sent = [waiters.send(bulkhead.acquire) for _ in range(3)]
    for position, waiter in enumerate(sent):
        bulkhead.release()
        assert soon(waiter) is True
        assert not any(later.done() for later in sent[position + 1 :])


def test_handed_over_slot_never_becomes_free(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    waiter = waiters.send(bulkhead.acquire)
    bulkhead.release()
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)
    assert soon(waiter) is True


def test_new_caller_at_the_moment_of_a_hand_over_overtakes_nobody(
    waiters: Waiters, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    waiter = waiters.send(bulkhead.acquire)
    newcomers: list[Future[Any]] = []
    opening = ThreadGate.open

    def come_and_open(gate: Any) -> bool:
        monkeypatch.setattr(ThreadGate, "open", opening)
        newcomers.append(waiters.send(bulkhead.acquire))
        return opening(gate)

    monkeypatch.setattr(ThreadGate, "open", come_and_open)
    bulkhead.release()
    assert soon(waiter) is True
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 1)
    bulkhead.release()
    assert soon(newcomers[0]) is True


def test_slot_taken_away_while_a_gate_opens_is_not_given(waiters: Waiters, monkeypatch: pytest.MonkeyPatch) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    waiter = waiters.send(bulkhead.acquire)
    opening = ThreadGate.open

    def shrink_and_open(gate: Any) -> bool:
        monkeypatch.setattr(ThreadGate, "open", opening)
        bulkhead.resize(0)
        return opening(gate)

    monkeypatch.setattr(ThreadGate, "open", shrink_and_open)
    bulkhead.release()
    assert (bulkhead.active_count, bulkhead.queued_count) == (0, 1)
    waiters.expect(1)
    bulkhead.resize(1)
    assert soon(waiter) is True


def test_waiter_woken_for_nothing_goes_on_waiting(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    bulkhead.acquire()
    waiter = waiters.send(bulkhead.acquire)
    first_in_line(bulkhead).gate.open()
    waiters.expect(1)
    assert not waiter.done()
    bulkhead.release()
    assert soon(waiter) is True


def test_waiting_caller_sleeps_until_it_is_served(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=0, max_queue=1, timeout_s=0.02)
    naps = 0
    assert not waiters.start(bulkhead.acquire).result(PATIENCE_S)
    while waiters.asleep.acquire(blocking=False):
        naps += 1
    assert naps < 5


def test_caller_woken_by_another_that_is_then_interrupted_takes_the_slot_itself(waiters: Waiters) -> None:
    interrupted: set[int] = set()

    def clock() -> float:
        if threading.get_ident() in interrupted:
            raise KeyboardInterrupt
        return 0.0

    bulkhead = Bulkhead(max_concurrent=1, max_queue=1, clock=clock)
    assert bulkhead.acquire()
    waiting = waiters.send(bulkhead.acquire)
    interrupted.add(threading.get_ident())
    with pytest.raises(KeyboardInterrupt):
        bulkhead.release()
    interrupted.clear()
    try:
        assert soon(waiting) is True
    finally:
        bulkhead._line.serve()  # else it would sleep on
    assert bulkhead.active_count == 1


def test_slot_of_an_interrupted_caller_is_taken_back_by_the_next_caller(waiters: Waiters) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)

    def leave() -> None:
        slot = Caller()
        assert bulkhead._take(slot, None)
        bulkhead._line.abandoned.add(slot)

    leave()
    assert (bulkhead.active_count, len(bulkhead._line.abandoned)) == (0, 0)
    leave()
    assert bulkhead.acquire()
    bulkhead.release()
    leave()
    bulkhead.call(int)
    assert bulkhead.active_count == 0


def test_caller_that_has_left_the_line_keeps_none_of_its_neighbours_alive() -> None:
    line = Bulkhead(max_concurrent=1, max_queue=4)._line
    line.enter(Caller(), 4)
    callers = [Caller() for _ in range(4)]
    for caller in callers:
        caller.gate = ThreadGate(None)
        line.enter(caller, 4)
    left = callers.pop(2)
    for caller in (callers[1], callers[2], callers[0]):
        line.leave(caller)
    line.serve()
    assert [(caller.before, caller.after) for caller in callers] == [(None, None)] * 3
    assert (left.before, left.after, line.queued) == (None, None, 1)
    assert (line.first, line.last) == (left, left)


# Served at the last moment


def test_waiter_served_at_the_moment_its_time_is_over_keeps_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1, timeout_s=0.001)
    bulkhead.acquire()
    wait = ThreadGate.sleep

    def wait_too_long(gate: Any, caller: Any) -> bool:
        wait(gate, caller)
        bulkhead.release()

    monkeypatch.setattr(ThreadGate, "sleep", wait_too_long)
    assert bulkhead.acquire() is True
    assert bulkhead.active_count == 1
    assert bulkhead.snapshot().timed_out_count == 0


def test_slot_given_between_the_look_at_the_clock_and_leaving_the_line_is_kept() -> None:
    waiting = Caller()
    waiting.gate = ThreadGate(None)
    queue = Bulkhead(max_concurrent=1, max_queue=1)._line
    queue.enter(Caller(), 1)
    queue.enter(waiting, 1)
    queue.inside = 0
    queue.serve()
    queue.leave(waiting, timed_out=True)
    assert (waiting.holds, waiting.rejected, queue.timed_out) == (queue.epoch, False, 0)


# Destructors and other threads in the middle


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

    @property
    def taken(self) -> bool:
        self._lock.acquire()
        self.visit()
        return True

    def release(self) -> None:
        self.visit()
        self._lock.release()


def drop(streams: list[Any]) -> None:
    """Leave streams to their destructors."""
    streams.clear()
    catch_up()


VISITORS: dict[str, Callable[[Bulkhead], object]] = {
    "in and out": lambda bulkhead: bulkhead.acquire() and bulkhead.release(),
    "call": lambda bulkhead: bulkhead.call(int),
    "snapshot": lambda bulkhead: bulkhead.snapshot(),
    "resize": lambda bulkhead: bulkhead.resize(bulkhead.max_concurrent),
    "streams": lambda bulkhead: drop(opened_streams(bulkhead)),
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
        "stream": lambda: drop(opened_streams(bulkhead)),
        "resize": lambda: bulkhead.resize(4),
        "snapshot": bulkhead.snapshot,
        "time-out": bulkhead.acquire,
        "full": bulkhead.acquire,
    }
    if section in ("time-out", "full"):
        bulkhead.resize(1)
        bulkhead._max_queue = 1 if section == "time-out" else 0
    lock = bulkhead._line.lock
    visited = Visited(lock, lambda: quietly(lambda: VISITORS[visitor](bulkhead)))

    def run() -> None:
        steps[section]()
        bulkhead._line.lock = visited  # type: ignore[assignment]
        steps[section]()
        bulkhead._line.lock = lock

    with ThreadPoolExecutor(1) as pool:
        soon(pool.submit(run))
    catch_up()  # PyPy calls no destructor in the middle of another
    assert visited.visits >= 2
    assert is_free(lock)
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)
    bulkhead.resize(4)
    assert [bulkhead.acquire() for _ in range(4)] == [True, True, True, False]


def test_slot_taken_between_the_look_for_one_and_taking_the_lock_is_not_given_twice() -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    bulkhead.call(int)
    line = bulkhead._line
    lock = line.lock
    line.lock = Visited(lock, lambda: bulkhead.active_count or bulkhead.__enter__())  # type: ignore[assignment]
    got = bulkhead.acquire()
    line.lock = lock
    assert (got, bulkhead.active_count, bulkhead.snapshot().rejected_count) == (False, 1, 1)


def quietly(visit: Callable[[], object]) -> None:
    try:
        visit()
    except BulkheadFullError:
        pass


@pytest.mark.parametrize("visitor", ["release", "abandon", "snapshot", "resize", "serve", "rejected"])
def test_destructor_while_a_gate_opens_neither_serves_twice_nor_forgets_anybody(
    visitor: str, waiters: Waiters, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulkhead = Bulkhead(max_concurrent=2, max_queue=3)
    streams = opened_streams(bulkhead)
    if visitor != "abandon":
        drop(streams)
        bulkhead.acquire()
    else:
        streams.pop()
        catch_up()
    bulkhead.acquire()
    sent = [waiters.send(bulkhead.acquire) for _ in range(3)]
    opening = ThreadGate.open

    def be_rejected() -> None:
        bulkhead._max_queue = 0
        assert not bulkhead.acquire()

    visits: dict[str, Callable[[], object]] = {
        "release": bulkhead.release,
        "abandon": lambda: drop(streams),
        "snapshot": bulkhead.snapshot,
        "resize": lambda: bulkhead.resize(3),
        "serve": bulkhead._line.serve,
        "rejected": be_rejected,
    }

    def visit_once(gate: Any) -> bool:
        monkeypatch.setattr(ThreadGate, "open", opening)
        visits[visitor]()
        return opening(gate)

    monkeypatch.setattr(ThreadGate, "open", visit_once)
    bulkhead.release()
    served = 2 if visitor in ("release", "abandon", "resize") else 1
    assert [soon(waiter) for waiter in sent[:served]] == [True] * served
    assert not any(waiter.done() for waiter in sent[served:])
    assert bulkhead.queued_count == 3 - served
    assert bulkhead.active_count == (3 if visitor == "resize" else 2)
    for _ in sent[served:]:
        bulkhead.release()
    assert [soon(waiter) for waiter in sent] == [True] * 3


# The length of the line


def crowd(line: Line, size: int) -> None:
    """Let so many wait, whose gates are never opened."""
    for _ in range(size):
        caller = Caller()
        caller.gate = ThreadGate(None)
        line.enter(caller, size)


def steps(act: Callable[[], object]) -> int:
    """Count the lines of code that it takes."""
    lines = 0

    def look(*_: object) -> Any:
        nonlocal lines
        lines += 1
        return look

    former = sys.gettrace()
    sys.settrace(look)
    try:
        act()
    finally:
        sys.settrace(former)
    return lines


def test_rejecting_takes_as_many_steps_however_long_the_line_is() -> None:
    taken = []
    for queued in (0, 1, 1_000):
        bulkhead = Bulkhead(max_concurrent=1, max_queue=queued)
        bulkhead.acquire()
        crowd(bulkhead._line, queued)
        taken.append((steps(bulkhead.acquire), steps(lambda bulkhead=bulkhead: bulkhead.queued_count)))
        assert bulkhead.snapshot().rejected_count == 1
    assert taken[0][0] == taken[1][0] == taken[2][0] > 0
    assert taken[1][1] == taken[2][1] > 0
