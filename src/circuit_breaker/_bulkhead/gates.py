"""Gates: where callers sleep while they wait for a slot. The gates of tasks are in `_common.async_library`.

A gate belongs to one caller and knows how long the caller may sleep. When it opens, the caller looks again whether it
has a slot; an open gate does not promise one.
"""

from __future__ import annotations

import threading
import time
from math import inf

from .._common.async_library import Sleeper, runs_event_loop
from ..exceptions import UsageError


class ThreadGate:
    """A thread sleeps by taking a lock that is already held."""

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
