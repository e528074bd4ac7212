"""The bulkhead in a forked child: no lock is held, nobody inside, and what the parent held has no effect."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from forks import fork, told_by_child
from needs import needs_fork
from patience import PATIENCE_S

from circuit_breaker._bulkhead.bulkhead import Bulkhead
from circuit_breaker._bulkhead.gates import ThreadGate
from circuit_breaker._bulkhead.line import Caller

pytestmark = needs_fork


def test_child_does_not_deadlock_on_a_lock_that_another_thread_held() -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with bulkhead._line.lock:
            held.set()
            done.wait(PATIENCE_S)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(PATIENCE_S)
    told = told_by_child(lambda: [bulkhead.acquire(), bulkhead.acquire()])
    done.set()
    holder.join()
    assert told == "[True, False]"


def test_child_has_every_slot_free_and_an_empty_line() -> None:
    bulkhead = Bulkhead(max_concurrent=2, max_queue=1, timeout_s=PATIENCE_S)
    bulkhead.acquire()
    bulkhead.acquire()
    told = told_by_child(lambda: (bulkhead.active_count, bulkhead.queued_count, bulkhead.available_slots))
    assert told == "(0, 0, 2)"
    assert bulkhead.active_count == 2


def test_child_swallows_as_many_releases_as_slots_were_held_and_no_more() -> None:
    bulkhead = Bulkhead(max_concurrent=2)
    bulkhead.acquire()

    def leave() -> list[object]:
        told: list[object] = [bulkhead.acquire()]
        for _ in range(3):
            try:
                bulkhead.release()
            except RuntimeError:
                told.append("refused")
            else:
                told.append(bulkhead.active_count)
        return told

    assert told_by_child(leave) == "[True, 0, 0, 'refused']"


def test_child_that_leaves_the_parents_with_block_grows_nothing() -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    bulkhead.__enter__()

    def leave() -> list[bool]:
        bulkhead.__exit__(None, None, None)
        return [bulkhead.acquire(), bulkhead.acquire()]

    assert told_by_child(leave) == "[True, False]"


def test_call_and_stream_of_the_parent_end_in_the_child_without_effect() -> None:
    bulkhead = Bulkhead(max_concurrent=3)

    @bulkhead
    def numbers() -> Iterator[int]:
        yield 1

    stream = numbers()
    next(stream)
    reader, writer = os.pipe()

    child = bulkhead.call(fork)
    if child == 0:
        try:
            bulkhead.acquire()
            list(stream)
            os.write(writer, repr(bulkhead.active_count).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"1"
    os.close(reader)
    os.close(writer)
    assert bulkhead.active_count == 1
    assert list(stream) == []
    assert bulkhead.active_count == 0


def test_calls_that_ran_or_waited_at_the_fork_end_without_effect_in_the_child() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    line = bulkhead._line
    slots = [Caller() for _ in range(3)]
    for slot in slots:
        slot.gate = ThreadGate(None)
        line.enter(slot, bulkhead.max_queue)
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 2)
    line.abandoned.add(Caller())
    line._after_fork_in_child()
    assert line.abandoned == set()
    bulkhead.acquire()
    waiting = Caller()
    waiting.gate = ThreadGate(None)
    line.enter(waiting, bulkhead.max_queue)
    for slot in slots:
        line.leave(slot)
        line.leave(slot, timed_out=True)
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 1)
    bulkhead.release()
    assert waiting.holds is line.epoch
    line.leave(waiting)
    bulkhead.release()
    with pytest.raises(RuntimeError):
        bulkhead.release()
