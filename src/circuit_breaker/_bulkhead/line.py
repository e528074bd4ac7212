"""How many are inside and who waits: one count, one first-come-first-served line, and the gates where callers sleep.

An interrupt, a signal handler or a destructor may come in the middle of anything, and may want this very bulkhead.
CPython lets them in where something is called, made or repeated. So under the lock nothing is: each locked section is
a few assignments with nothing in between, which is why the line is linked by hand. What is called is called outside.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Protocol

from .._common import fork
from .._common.async_library import running_loop, running_trio
from .._common.lock import RLock


class Gate(Protocol):
    """Where one caller of the line sleeps; that it opened is a hint to look again, never a promise."""

    def open(self) -> bool:
        """Wake the sleeper, who may be awake already; False: there is nobody left to wake."""
        ...

    def is_dead(self) -> bool:
        """Whether nobody can wake up here any more."""
        ...


class ThreadGate:
    """A thread sleeps on a lock that is held already."""

    def __init__(self) -> None:
        if running_trio() is not None or running_loop() is not None:
            raise RuntimeError("acquire() would have to wait and this thread runs an event loop: use acquire_async()")
        self._bolt = threading.Lock()
        self._bolt.acquire()

    def open(self) -> bool:
        try:
            self._bolt.release()
        except RuntimeError:
            pass  # it is open
        return True

    def is_dead(self) -> bool:
        return False

    def wait(self, timeout_s: float) -> None:
        self._bolt.acquire(True, -1 if timeout_s == inf else min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))


class TaskGate:
    """An asyncio task sleeps on a future, which only its own loop's thread touches."""

    def __init__(self) -> None:
        if running_trio() is not None:
            raise RuntimeError("waiting for a slot is not supported under trio: only free slots can be taken")
        self._loop = running_loop()
        if self._loop is None:
            raise RuntimeError("acquire_async() would have to wait, which takes a running asyncio event loop")
        self._future = self._loop.create_future()

    def open(self) -> bool:
        if running_loop() is self._loop:
            self._wake()
            return True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            if self._loop.is_closed():
                return False
            raise
        return True

    def is_dead(self) -> bool:
        return bool(self._loop.is_closed())

    def wait(self, timeout_s: float) -> Awaitable[None]:
        if self._future.done():
            self._future = self._loop.create_future()
        if timeout_s < inf:
            timer = self._loop.call_later(min(timeout_s, threading.TIMEOUT_MAX), self._wake)

            def stop(_: object) -> None:
                timer.cancel()

            self._future.add_done_callback(stop)
        return self._future  # type: ignore[no-any-return]

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class Slot:
    """What one caller has: a slot, a place in the line, a refusal, or nothing yet.

    Attributes:
        holds: the line's epoch in which it was given a slot; None: it has none.
        waits: the line's epoch in which it stands in the line; None: it does not.
        gate: where its caller sleeps, made when it first has to wait.
        deadline: when its time is over, by the real clock.
        since: when it began to wait, by the line's clock.
        refused: there is no slot for it; then `active` and `queued` say how full it was.
    """

    holds: object | None = None
    waits: object | None = None
    gate: Any = None
    deadline: float = inf
    since: float = 0.0
    refused = False
    active = 0
    queued = 0
    before: Slot | None = None
    after: Slot | None = None


class Line:
    """The slots of one bulkhead and those who wait for them."""

    # `lock` guards every field below it but `left`; what is read without it is a hint, looked at again before it
    # counts. Nothing is called, made or repeated under it. One thread can take it twice all the same, for the sake of
    # tracers, which come between any two lines.
    #
    # Somebody waits only while every slot is taken, or while whoever made one free is about to serve. As long as
    # somebody waits, `easy` is 0, so nobody overtakes.

    __slots__ = (
        "__weakref__",
        "accepted",
        "clock",
        "easy",
        "epoch",
        "first",
        "forgiven",
        "inside",
        "last",
        "left",
        "limit",
        "lock",
        "peak",
        "queued",
        "rejected",
        "timed_out",
        "total_wait_s",
    )

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.lock = RLock()
        self.limit = limit
        self.inside = 0
        self.accepted = 0
        self.peak = 0
        self.easy = 0
        """Below so many, whoever comes may enter at once: nobody waits, and there is no new peak to note."""
        self.first: Slot | None = None
        self.last: Slot | None = None
        self.queued = 0
        self.rejected = 0
        self.timed_out = 0
        self.total_wait_s = 0.0
        self.epoch = object()
        self.forgiven = 0
        """How many may still be given back that were held at a fork, in the parent."""
        self.left: set[Any] = set()
        """The slots whose callers are gone; adding one is a call of C code, which no interrupt can split."""
        fork.survive(self)

    def now(self) -> float:
        """Return the time by the clock, which is the caller's: never to be asked under the lock."""
        return float(self.clock())

    def enter(self, slot: Slot, max_queue: int) -> bool:
        """Give a slot, or a place in the line if there is a gate to sleep at, or a refusal; False: it needs a gate."""
        with self.lock:
            if self.inside < self.limit and self.first is None:
                self.inside += 1
                self.accepted += 1
                slot.holds = self.epoch
                if self.inside > self.peak:
                    self.peak = self.inside
                self.easy = self.peak if self.peak < self.limit else self.limit
            elif self.queued >= max_queue:
                self.rejected += 1
                slot.active = self.inside
                slot.queued = self.queued
                slot.refused = True
            elif slot.gate is None:
                return False
            else:
                self.easy = 0
                slot.waits = self.epoch
                slot.before = self.last
                if self.last is None:
                    self.first = slot
                else:
                    self.last.after = slot
                self.last = slot
                self.queued += 1
        return True

    def serve(self) -> None:
        """Take back what was left, and give the free slots to the first in the line; an interrupt only delays it."""
        try:
            self._serve()
        except BaseException:
            self._serve()
            raise

    def _serve(self) -> None:
        if self.left:
            self._tidy()
        slot = self.first
        while slot is not None and self.inside < self.limit:
            # The gate opens first. What is raised meanwhile leaves the caller in the line, at worst awake for nothing:
            # it serves the line itself, and sleeps again.
            self._give(slot, slot.gate.open(), self.now())
            slot = self.first

    def _give(self, slot: Slot, awake: bool, now: float) -> None:
        with self.lock:
            if slot is self.first and self.inside < self.limit:
                if awake:
                    # First of all: its caller may look just now, without the lock, and must find itself in the line or
                    # with a slot. Who finds neither sleeps again, and nobody comes back to wake it.
                    slot.holds = self.epoch
                    self.inside += 1
                    self.accepted += 1
                    if self.inside > self.peak:
                        self.peak = self.inside
                self.first = slot.after
                if slot.after is None:
                    self.last = None
                else:
                    slot.after.before = None
                    slot.after = None
                slot.waits = None
                self.queued -= 1
                self.total_wait_s += now - slot.since if now > slot.since else 0.0

    def leave(self, slot: Slot, late: bool = False) -> None:
        """Give up what the slot has; when it is just late, a slot that came in the last moment is kept.

        Doing so twice is doing it once.
        """
        now = self.now() if slot.waits is not None else 0.0
        with self.lock:
            if slot.waits is self.epoch:
                if slot.before is None:
                    self.first = slot.after
                else:
                    slot.before.after = slot.after
                if slot.after is None:
                    self.last = slot.before
                else:
                    slot.after.before = slot.before
                slot.before = None
                slot.after = None
                slot.waits = None
                self.queued -= 1
                self.total_wait_s += now - slot.since if now > slot.since else 0.0
            if late:
                if slot.holds is None:
                    self.timed_out += 1
                    self.rejected += 1
                    slot.active = self.inside
                    slot.queued = self.queued
                    slot.refused = True
            elif slot.holds is self.epoch:
                slot.holds = None
                self.inside -= 1 if self.inside else 0  # somebody's stray release() may have been for this one

    def _tidy(self) -> None:
        for slot in self.left.copy():
            self.leave(slot)
            self.left.discard(slot)

    def drop_dead(self) -> None:
        """Take those out of the line whose event loops are closed: nobody is left to be served."""
        slot = self.first
        while slot is not None:
            after = slot.after
            if slot.gate.is_dead():
                self.leave(slot)
            slot = after

    def _after_fork_in_child(self) -> None:
        # The holders and the line are the parent's. Slots of a former epoch come back without effect; a nameless
        # release() cannot be told apart, so as many are forgiven as slots were held.
        self.lock = RLock()
        self.forgiven += self.inside
        self.inside = 0
        self.first = self.last = None
        self.queued = 0
        self.left = set()
        self.epoch = object()
