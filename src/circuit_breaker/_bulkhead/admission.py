"""How a caller gets a slot: the same steps for threads and tasks, and two ways to sleep.

Whoever must give something up for sure, whatever interrupts it, adds itself to `abandoned` of the line before anything
else. That is one call of C code; the line takes back what it had at once, or when it serves the next time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._common.async_library import task_gate
from .._common.events import BulkheadRejected, Listened, Listener, notify
from ..exceptions import BulkheadFullError
from .gates import ThreadGate
from .line import Caller, Line


class Admission(Listened):
    """What a bulkhead knows to let somebody in."""

    _name: str
    _max_queue: int
    _line: Line

    def _take_free(self) -> bool:
        """Take a slot if that takes no second look, and tell whether it was taken."""
        line = self._line
        if line.inside >= line.free_below:
            return False
        entered = False
        try:
            _ = line.lock.taken
            try:
                if line.inside < line.free_below:
                    line.inside += 1
                    line.accepted += 1
                    entered = True
            finally:
                line.lock.release()
        except BaseException:
            if entered:
                caller = Caller()
                caller.holds = line.epoch
                line.abandoned.add(caller)
                line.serve()
            raise
        return entered

    def _take(self, caller: Caller, patience_s: float | None) -> bool:
        """Give the caller a slot or a rejection, which the listeners are told, and return whether it is a slot.

        It waits for at most `patience_s` in the thread; 0 does not wait, None has no limit.
        """
        line = self._line
        try:
            if self._has_to_wait(caller, patience_s, ThreadGate):
                opened = caller.gate.sleep(caller)
                if caller.holds is None:
                    self._sleep_on(caller, opened)
        except BaseException:
            line.abandoned.add(caller)
            line.serve()
            raise
        return not (caller.rejected and self._tell_of_rejection(caller))

    async def _take_async(self, caller: Caller, patience_s: float | None) -> bool:
        """Do the same, and wait in the task."""
        line = self._line
        try:
            if self._has_to_wait(caller, patience_s, task_gate):
                opened = await caller.gate.sleep(caller)
                if caller.holds is None:
                    await self._sleep_on_async(caller, opened)
        except BaseException:
            line.abandoned.add(caller)
            line.serve()
            raise
        return not (caller.rejected and self._tell_of_rejection(caller))

    def _sleep_on(self, caller: Caller, opened: bool) -> None:
        while not self._line.wait_is_over(caller, opened):
            opened = caller.gate.sleep(caller)

    async def _sleep_on_async(self, caller: Caller, opened: bool) -> None:
        caller.gate.shut()
        while not self._line.wait_is_over(caller, opened):
            opened = await caller.gate.sleep(caller)
            caller.gate.shut()

    def _has_to_wait(self, caller: Caller, patience_s: float | None, new_gate: Callable[[float | None], Any]) -> bool:
        """Give the caller a slot, a rejection, or a gate and a place in the line; the last is to wait."""
        line = self._line
        places = 0 if patience_s == 0 else self._max_queue
        if line.abandoned:
            line.serve()
        # Where others wait, so must this caller, and the first try would be in vain.
        if 0 < line.queued < places or not line.enter(caller, places):
            caller.gate = new_gate(patience_s)
            caller.line = line
            caller.since = line.clock()
            line.enter(caller, places)
        return caller.waits is not None

    def _tell_of_rejection(self, caller: Caller) -> bool:
        """Notify the listeners, and return True."""
        if self._listeners:
            notify(self._listeners, BulkheadRejected(self._name, caller.active, caller.queued, caller.waited_s))
        return True

    def _rejection(self, caller: Caller) -> BulkheadFullError:
        message, waited = f"Bulkhead {self._name!r} is full", {}
        if caller.waited_s is not None:
            message, waited = f"Timed out waiting for a slot of bulkhead {self._name!r}", {"waited_s": caller.waited_s}
        return BulkheadFullError(
            message,
            self._name,
            self._line.limit,
            active_count=caller.active,
            queued_count=caller.queued,
            max_queue=self._max_queue,
            **waited,
        )

    def _replace_listeners(self, before: tuple[Listener, ...], after: tuple[Listener, ...]) -> bool:
        lock = self._line.lock
        _ = lock.taken
        try:
            if self._listeners is before:
                self._listeners = after
                return True
        finally:
            lock.release()
        return False
