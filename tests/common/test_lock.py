"""The lock that callers share: an `RLock` in everything, that no interrupt leaves held on any Python."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from needs import needs_timer
from patience import PATIENCE_S
from storms import SHOTS, storm

from circuit_breaker._common.lock import ReadRLock, RLock


class Counts:
    """Two counts that only change together."""

    def __init__(self, lock: threading.RLock) -> None:
        self.lock = lock
        self.first = self.second = 0

    def add(self) -> None:
        with self.lock:
            self.first += 1
            self.second += 1


class ReadCounts(Counts):
    """The same, taking the lock by hand."""

    def add(self) -> None:
        lock: Any = self.lock
        _ = lock.taken
        try:
            self.first += 1
            self.second += 1
        finally:
            lock.release()


WAYS = {"RLock": (Counts, RLock), "ReadRLock": (Counts, ReadRLock), "ReadRLock.taken": (ReadCounts, ReadRLock)}


@pytest.fixture(params=WAYS)
def counts(request: pytest.FixtureRequest) -> Counts:
    kind, lock = WAYS[request.param]
    return kind(lock())


def take_in_another_thread(lock: threading.RLock, timeout_s: float) -> bool:
    taken: list[bool] = []

    def take() -> None:
        taken.append(lock.acquire(timeout=timeout_s))
        if taken[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(PATIENCE_S)
    return taken[0]


def test_only_3_14_pays_for_a_lock_that_reads() -> None:
    assert (RLock is ReadRLock) is (sys.version_info[:2] == (3, 14))


def test_lock_keeps_others_out_until_its_block_ends(counts: Counts) -> None:
    with counts.lock, counts.lock:
        assert not take_in_another_thread(counts.lock, 0)
    assert take_in_another_thread(counts.lock, PATIENCE_S)


def test_lock_is_given_back_when_its_block_raises(counts: Counts) -> None:
    with pytest.raises(ZeroDivisionError), counts.lock:
        raise ZeroDivisionError
    assert take_in_another_thread(counts.lock, PATIENCE_S)


def test_with_waits_for_a_lock_that_another_thread_holds(counts: Counts) -> None:
    with counts.lock:
        thread = threading.Thread(target=counts.add)
        thread.start()
        thread.join(0.01)
        assert counts.first == 0
    thread.join(PATIENCE_S)
    assert counts.first == 1


@needs_timer
def test_interrupts_leave_no_lock_held_and_nothing_half_done(counts: Counts) -> None:
    def whole() -> None:
        assert not counts.lock._is_owned()  # type: ignore[attr-defined]
        assert counts.first == counts.second

    assert storm(counts.add, SHOTS, whole) == SHOTS


@needs_timer
def test_interrupts_in_an_inner_block_leave_the_outer_hold_unchanged(counts: Counts) -> None:
    lock = counts.lock

    def held_once() -> None:
        lock.release()
        assert not lock._is_owned()  # type: ignore[attr-defined]
        lock.acquire()

    with lock:
        assert storm(counts.add, SHOTS, held_once) == SHOTS


@needs_timer
def test_interrupts_of_those_who_wait_leave_no_lock_held(counts: Counts) -> None:
    stop = threading.Event()

    def other() -> None:
        while not stop.is_set():
            with counts.lock:
                for _ in range(100):
                    counts.first += 1
                    counts.second += 1

    def whole() -> None:
        assert not counts.lock._is_owned()  # type: ignore[attr-defined]

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    try:
        assert storm(counts.add, SHOTS, whole) == SHOTS
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert counts.first == counts.second
