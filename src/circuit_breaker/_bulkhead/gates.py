"""Where those sleep who wait for a slot: here a thread, on a lock; for tasks, their library has gates.

A gate belongs to one caller, and knows how long it may sleep. That it was opened is a hint to look again, never a
promise of a slot.
"""

from __future__ import annotations

import threading
import time
from math import inf

from .._common.async_library import Sleeper, runs_event_loop
from ..exceptions import UsageError


class ThreadGate:
    """A thread sleeps on a lock that is held already."""

    __slots__ = ("_bolt", "_deadline")

    def __init__(self, timeout_s: float | None) -> None:
        if runs_event_loop():
            raise UsageError("acquire() would have to wait, and this thread runs an event loop: use acquire_async()")
        self._deadline = inf if timeout_s is None else time.monotonic() + timeout_s
        self._bolt = threading.Lock()
        self._bolt.acquire()

    def open(self) -> bool:
        try:
            self._bolt.release()
        except RuntimeError:
            pass  # it is open
        return True

    def sleep(self, _: Sleeper) -> bool:
        """Sleep until the gate is opened, and return True; or return False when the time is over."""
        left_s = self._deadline - time.monotonic()
        return self._bolt.acquire(True, -1 if left_s == inf else min(max(left_s, 0.0), threading.TIMEOUT_MAX))
