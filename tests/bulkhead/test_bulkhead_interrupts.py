"""Ctrl-C in the bulkhead: at each locked section, in a wait, and at random."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from garbage import catch_up
from moments import interrupt_at
from needs import needs_timer
from storms import SHOTS, storm
from waiters import Waiters, is_free, soon
from ways import BULKHEAD

from circuit_breaker._bulkhead.bulkhead import Bulkhead
from circuit_breaker._bulkhead.gates import ThreadGate

# At a chosen moment


WHOLE = [name for name, way in BULKHEAD.items() if way.is_whole]
"""What no interrupt can split; at the entry of `__exit__` and `release()`, nothing of ours has run yet."""


class Interrupted:
    """The lock of a line; one interrupt comes when this thread takes it, or gives it back, for so many times."""

    def __init__(self, lock: Any, sections: int, moment: str = "left") -> None:
        self._lock = lock
        self._thread = threading.get_ident()
        self._moment = moment
        self.sections = sections

    @property
    def taken(self) -> bool:
        self._count("entered")
        return bool(self._lock.acquire())

    def release(self) -> None:
        self._lock.release()
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
        body = BULKHEAD[way].ready(bulkhead, lambda: None)
        if known:
            body()
        found = interrupt(bulkhead, sections, body, moment)
        assert bulkhead.active_count == 0
    assert sections > 2


@pytest.mark.parametrize("way", BULKHEAD)
def test_interrupt_before_a_slot_is_taken_takes_none(way: str) -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    body = BULKHEAD[way].ready(bulkhead, lambda: None)
    body()
    assert interrupt(bulkhead, 1, body, "entered")
    assert (bulkhead.active_count, bulkhead.snapshot().accepted_count) == (0, 1)


@pytest.mark.parametrize("way", BULKHEAD)
def test_interrupt_at_any_locked_section_reaches_the_caller(way: str) -> None:
    interrupts = 0
    for sections in count(1):
        bulkhead = Bulkhead(max_concurrent=1)
        body = BULKHEAD[way].ready(bulkhead, lambda: None)
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
def test_interrupt_after_any_locked_section_leaves_no_caller_waiting_for_a_free_slot(
    leave: str, waiters: Waiters
) -> None:
    sections = 0
    found = True
    while found:
        sections += 1
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        sent: list[Future[Any]] = []

        def work(bulkhead: Bulkhead = bulkhead, sent: list[Future[Any]] = sent, sections: int = sections) -> None:
            sent.append(waiters.send(bulkhead.acquire))
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
        assert soon(sent[0]) is True
        assert (bulkhead.active_count, bulkhead.queued_count) == (2 if leave == "resize" else 1, 0)
    assert sections > 2


# At every moment


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("way", WHOLE)
def test_interrupt_at_any_moment_loses_neither_slot_nor_waiter(way: str, waiters: Waiters) -> None:
    for moment in count(1):
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        sent: list[Future[Any]] = []

        def work(bulkhead: Bulkhead = bulkhead, sent: list[Future[Any]] = sent) -> None:
            sent.append(waiters.send(bulkhead.acquire))

        found = interrupt_at(moment, BULKHEAD[way].ready(bulkhead, work))
        try:
            assert all(soon(waiter) is True for waiter in sent)
        finally:
            bulkhead.resize(2)  # lets a forgotten waiter go
        assert (bulkhead.active_count, bulkhead.queued_count) == (len(sent), 0)
        assert is_free(bulkhead._line.lock)
        if not found:
            break
    assert moment > 8
    catch_up()  # the coroutines that were never awaited


@pytest.mark.parametrize("way", [name for name in WHOLE if not BULKHEAD[name].is_async])
def test_interrupt_of_a_caller_that_has_to_wait_loses_no_slot(way: str, waiters: Waiters) -> None:
    for moment in count(1):
        bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
        bulkhead.acquire()
        released = waiters.start(lambda bulkhead=bulkhead: waiters.expect(1) or bulkhead.release())
        found = interrupt_at(moment, BULKHEAD[way].ready(bulkhead, lambda: None))
        waiters.asleep.release()  # if it was interrupted before it slept
        soon(released)
        assert (bulkhead.active_count, bulkhead.queued_count) == (0, 0)
        assert is_free(bulkhead._line.lock)
        while waiters.asleep.acquire(blocking=False):
            pass
        if not found:
            break
    assert moment > 10


# While it waits, and while it serves


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(gate: Any, caller: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadGate, "sleep", wait)


@pytest.mark.usefixtures("interrupted")
def test_two_interrupted_waiters_leave_the_queue_empty() -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            bulkhead.acquire()
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)


def test_waiter_interrupted_as_it_is_served_passes_the_slot_on(
    waiters: Waiters, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=2)
    bulkhead.acquire()
    behind: list[Future[Any]] = []
    wait = ThreadGate.sleep

    def serve_and_interrupt(gate: Any, caller: Any) -> bool:
        monkeypatch.setattr(ThreadGate, "sleep", wait)
        behind.append(waiters.send(bulkhead.acquire))
        bulkhead.release()
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadGate, "sleep", serve_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        bulkhead.acquire()
    assert soon(behind[0]) is True
    assert (bulkhead.active_count, bulkhead.queued_count) == (1, 0)


@pytest.mark.parametrize("leave", ["release", "exit", "call", "resize"])
def test_interrupt_while_the_next_is_woken_loses_neither_slot_nor_waiter(
    leave: str, waiters: Waiters, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_queue=1)
    opening = ThreadGate.open
    sent: list[Future[Any]] = []

    def interrupt_once(gate: Any) -> bool:
        monkeypatch.setattr(ThreadGate, "open", opening)
        raise KeyboardInterrupt

    def work() -> None:
        sent.append(waiters.send(bulkhead.acquire))
        monkeypatch.setattr(ThreadGate, "open", interrupt_once)

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
    assert soon(sent[0]) is True
    assert bulkhead.queued_count == 0


# At random


@needs_timer
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("way", WHOLE)
def test_thousands_of_interrupts_lose_no_slot_and_leave_no_lock_held(way: str) -> None:
    bulkhead = Bulkhead(max_concurrent=1_000_000)
    assert storm(BULKHEAD[way].ready(bulkhead, lambda: None)) == SHOTS
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
