"""The slots that are taken and the callers that wait for one: first come, first served.

An interrupt, a signal handler or a destructor may run in the middle of our code and use the same bulkhead. CPython runs
them only where something is called, an object is made, or a loop jumps back. So a locked section does none of these: it
is a few assignments. That is why the line is a linked list written by hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .._common import fork
from .._common.lock import ReadRLock


class Caller:
    """A caller that wants a slot. It has a slot, or a place in the line, or was rejected, or has nothing yet.

    Attributes:
        holds: the epoch of the line in which it got its slot; None: it has no slot.
        waits: the epoch of the line in which it got its place in the line; None: it is not in the line.
        rejected: whether it was rejected.
        active, queued: how many calls were running and how many callers waited when it was rejected.
        gate: where it sleeps; made when it first has to wait.
        line: the line in which it waits.
        since: when it began to wait, by the clock of the line.
        waited_s: how many seconds it was in the line; None: it never was.
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
        # The others are set when they are needed.
        self.active: int
        self.queued: int
        self.line: Line
        self.before: Caller | None
        self.after: Caller | None

    def lost(self) -> None:
        """Give up the slot or the place, because the event loop in which the caller slept is closed."""
        self.line.abandoned.add(self)
        self.line.serve()


class Line:
    """The slots of one bulkhead and those who wait for them."""

    # `lock` guards every field below it except `abandoned`. A field that was read without the lock is read again under
    # it before anything changes. Nothing is called, made or repeated under the lock. It is re-entrant for PyPy,
    # where a destructor may run in the middle, and for tracers such as debuggers, which may run between any two lines.
    #
    # A caller waits only while every slot is taken, or until the caller that freed a slot has served the line. As long
    # as a caller waits, `free_below` is 0, so nobody overtakes it.

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
        """It may be the user's code, so it is never called under the lock."""
        self.lock = ReadRLock()
        self.limit = limit
        self.inside = 0
        self.free_below = 0
        """If fewer than this are inside, a slot is free, nobody waits, and taking it makes no new peak."""
        self.accepted = 0
        self.peak = 0
        self.rejected = 0
        self.timed_out = 0
        self.total_wait_s = 0.0
        self.queued = 0
        self.first: Caller | None = None
        self.last: Caller | None = None
        self.epoch = object()
        """A new object after each fork; a slot with another epoch belongs to the parent process."""
        self.held_in_parent = 0
        """How many slots that were held at a fork may still be given back in this process, without effect."""
        self.abandoned: set[Any] = set()
        """Callers that have given up or ended; whoever serves next takes back what they had. `add` is C code."""
        fork.survive(self)

    def enter(self, caller: Caller, places: int) -> bool:
        """Give the caller a slot, or reject it, or put it in the line, which has limited places.

        Return False, with nothing done, if the caller has to wait but has no gate yet.
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
        """Return whether a caller that woke up without a slot has one now, or its time is over."""
        self.serve()  # the caller that opened the gate may have been interrupted before it gave the slot
        if caller.holds is None:
            if opened:
                return False
            self.leave(caller, timed_out=True)
        return True

    def serve(self) -> None:
        """Take back what callers have abandoned, and give the free slots to the first callers in the line.

        Call it after everything that frees a slot. If it is interrupted, it does its work again before it raises.
        """
        try:
            self.hand_over()
        except BaseException:
            self.hand_over()
            raise

    def hand_over(self) -> None:
        """Do the same once. If it is interrupted, the rest is done when the line is served the next time."""
        if self.abandoned:
            self._take_back()
        caller = self.first
        while caller is not None and self.inside < self.limit:
            # The gate opens first. If an interrupt comes before the slot is given, the caller is still in the line; it
            # is awake, serves the line itself, and sleeps again if it has no slot then.
            wakes_up = caller.gate.open()
            now = self.clock()
            _ = self.lock.taken
            try:
                if caller is self.first and self.inside < self.limit:
                    if wakes_up:
                        # This comes first. The caller may look at this moment, without the lock, and must see a slot or
                        # its place in the line. If it saw neither, it would sleep again and nobody would wake it.
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
        """Take away the caller's place in the line and its slot. A second time does nothing.

        A caller whose time is over is rejected, but it keeps a slot that it got at the last moment.
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
                self.inside -= 1 if self.inside else 0  # a release() too many may have given this slot back
        finally:
            self.lock.release()

    def _after_fork_in_child(self) -> None:
        # Those who hold a slot or wait are in the parent. Giving back a slot of an earlier epoch has no effect. A plain
        # `release()` has no epoch, so as many of them have no effect as slots were held at the fork.
        self.lock = ReadRLock()
        self.held_in_parent += self.inside
        self.inside = 0
        self.queued = 0
        self.first = None
        self.last = None
        self.abandoned = set()
        self.epoch = object()
