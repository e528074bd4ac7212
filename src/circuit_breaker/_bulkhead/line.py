"""How many are inside and who waits: one count, and one line, first come, first served.

An interrupt, a signal handler or a destructor may come in the middle of anything, and may want this very bulkhead.
CPython lets them in where something is called, made or repeated. So under the lock nothing is: each locked section is
a few assignments with nothing in between, which is why the line is linked by hand. What is called is called outside.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .._common import fork
from .._common.lock import ReadRLock


class Caller:
    """One who wants a slot, and what it has: a slot, a place in the line, a rejection, or nothing yet.

    Attributes:
        holds: the line's epoch in which it was given a slot; None: it has none.
        waits: the line's epoch in which it stands in the line; None: it does not.
        rejected: there is no slot for it.
        active, queued: how many were inside, and how many others waited, when it was rejected.
        gate: where it sleeps, made when it first has to wait.
        line: where it waits.
        since: when it began to wait, by the clock of the line.
        waited_s: how long it stood in the line; None: it never did.
        before, after: its neighbours in the line; None: there is none.
    """

    __slots__ = (
        *("holds", "waits", "rejected", "active", "queued", "gate", "line", "since", "waited_s", "before", "after"),
        "__weakref__",
    )

    def __init__(self) -> None:
        self.holds: object | None = None
        self.waits: object | None = None
        self.rejected = False
        self.gate: Any = None
        self.since = 0.0
        self.waited_s: float | None = None
        # The others are set when there is something to say.
        self.active: int
        self.queued: int
        self.line: Line
        self.before: Caller | None
        self.after: Caller | None

    def lost(self) -> None:
        """Leave for good, because the event loop in which it slept is closed."""
        self.line.abandoned.add(self)
        self.line.serve()


class Line:
    """The slots of one bulkhead and those who wait for them."""

    # `lock` guards every field below it but `abandoned`; what is read without it is a hint, looked at again before it
    # counts. Nothing is called, made or repeated under it. One thread can take it twice all the same, for the sake of
    # tracers, which come between any two lines.
    #
    # Somebody waits only while every slot is taken, or while whoever made one free is about to serve. As long as
    # somebody waits, `free_below` is 0, so nobody overtakes.

    __slots__ = (
        "__weakref__",
        "abandoned",
        "accepted",
        "clock",
        "epoch",
        "first",
        "free_below",
        "held_in_parent",
        "inside",
        "last",
        "limit",
        "lock",
        "peak",
        "queued",
        "rejected",
        "timed_out",
        "total_wait_s",
    )

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.clock = clock if clock is time.monotonic else lambda: float(clock())
        """It may be code of the caller's, so it is not asked under the lock."""
        self.lock = ReadRLock()
        self.limit = limit
        self.inside = 0
        self.free_below = 0
        """With fewer inside, whoever comes enters without a second look: nobody waits, and there is no new peak."""
        self.accepted = 0
        self.peak = 0
        self.rejected = 0
        self.timed_out = 0
        self.total_wait_s = 0.0
        self.queued = 0
        self.first: Caller | None = None
        self.last: Caller | None = None
        self.epoch = object()
        """The time since the last fork; a slot of another epoch is the parent's."""
        self.held_in_parent = 0
        """How many slots, held at a fork, may still be given back here without effect."""
        self.abandoned: set[Any] = set()
        """Callers that are gone, for whoever serves next; adding one is a call of C code, which no interrupt splits."""
        fork.survive(self)

    def enter(self, caller: Caller, places: int) -> bool:
        """Give the caller a slot, a rejection, or, if it has a gate, one of so many places in the line.

        Return False if it has to wait and so needs a gate first.
        """
        _ = self.lock.taken
        try:
            if self.inside < self.limit and not self.queued:
                self.inside += 1
                self.accepted += 1
                caller.holds = self.epoch
                if self.inside > self.peak:
                    self.peak = self.inside
                self.free_below = self.peak if self.peak < self.limit else self.limit
            elif self.queued >= places:
                self.rejected += 1
                caller.active = self.inside
                caller.queued = self.queued
                caller.rejected = True
            elif caller.gate is None:
                return False
            else:
                self.free_below = 0
                self.queued += 1
                caller.waits = self.epoch
                caller.before = self.last
                caller.after = None
                if self.last is None:
                    self.first = caller
                else:
                    self.last.after = caller
                self.last = caller
        finally:
            self.lock.release()
        return True

    def wait_is_over(self, caller: Caller, opened: bool) -> bool:
        """Tell whether the caller need not sleep again, though it was woken without a slot, or its time is over."""
        self.serve()  # whoever opened the gate may have been interrupted before it gave the slot
        if caller.holds is None:
            if opened:
                return False
            self.leave(caller, timed_out=True)
        return True

    def serve(self) -> None:
        """Take back what was abandoned, and give the free slots to the first in the line; an interrupt delays it only.

        To be called after whatever made a slot free.
        """
        try:
            self.hand_over()
        except BaseException:
            self.hand_over()
            raise

    def hand_over(self) -> None:
        """Do the same, but leave what an interrupt keeps undone to whoever serves next."""
        if self.abandoned:
            self._take_back()
        caller = self.first
        while caller is not None and self.inside < self.limit:
            # The gate opens first. What is raised meanwhile leaves the caller in the line, at worst awake for nothing:
            # it serves the line itself, and sleeps again.
            wakes_up = caller.gate.open()
            now = self.clock()
            _ = self.lock.taken
            try:
                if caller is self.first and self.inside < self.limit:
                    if wakes_up:
                        # First of all: its caller may look just now, without the lock, and must find itself in the line
                        # or with a slot. Who finds neither sleeps again, and nobody comes back to wake it.
                        caller.holds = self.epoch
                        self.inside += 1
                        self.accepted += 1
                        if self.inside > self.peak:
                            self.peak = self.inside
                    self.first = caller.after
                    if caller.after is None:
                        self.last = None
                    else:
                        caller.after.before = None
                    caller.after = None
                    caller.waits = None
                    waited_s = now - caller.since if now > caller.since else 0.0
                    caller.waited_s = waited_s
                    self.total_wait_s += waited_s
                    self.queued -= 1
            finally:
                self.lock.release()
            caller = self.first

    def _take_back(self) -> None:
        for caller in self.abandoned.copy():
            self.leave(caller)
            self.abandoned.discard(caller)

    def leave(self, caller: Caller, timed_out: bool = False) -> None:
        """Take the caller out of the line, and its slot from it; twice is the same as once.

        A caller that timed out is rejected, but keeps a slot that it was given in the last moment.
        """
        now = self.clock() if caller.waits is not None else 0.0
        _ = self.lock.taken
        try:
            if caller.waits is self.epoch:
                if caller.before is None:
                    self.first = caller.after
                else:
                    caller.before.after = caller.after
                if caller.after is None:
                    self.last = caller.before
                else:
                    caller.after.before = caller.before
                caller.before = None
                caller.after = None
                caller.waits = None
                waited_s = now - caller.since if now > caller.since else 0.0
                caller.waited_s = waited_s
                self.total_wait_s += waited_s
                self.queued -= 1
            if timed_out:
                if caller.holds is None:
                    self.timed_out += 1
                    self.rejected += 1
                    caller.active = self.inside
                    caller.queued = self.queued
                    caller.rejected = True
            elif caller.holds is self.epoch:
                caller.holds = None
                self.inside -= 1 if self.inside else 0  # somebody's stray release() may have been for this one
        finally:
            self.lock.release()

    def _after_fork_in_child(self) -> None:
        # The holders and the line are the parent's. Slots of a former epoch come back without effect; a nameless
        # release() cannot be told apart, so as many are allowed as slots were held.
        self.lock = ReadRLock()
        self.held_in_parent += self.inside
        self.inside = 0
        self.queued = 0
        self.first = None
        self.last = None
        self.abandoned = set()
        self.epoch = object()
