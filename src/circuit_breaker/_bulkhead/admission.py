"""How a caller gets a slot: the same steps for threads and tasks, and two ways to sleep.

A caller that is interrupted or cancelled first adds itself to `abandoned` of the line. That is one call of C code,
which no interrupt can split. The line takes back the caller's slot or place at once, or when it serves the next time.
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
    """What a bulkhead needs to admit or reject a call."""

    _name: str
    _max_queue: int
    _line: Line

    def _take_free(self) -> bool:
        """Take a slot if one is known to be free, and return whether it was taken."""
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
        """Give the caller a slot, or reject it and notify the listeners; return whether it has a slot.

        It waits in this thread for at most `patience_s` seconds. 0: it does not wait. None: no limit.
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
        return not (caller.rejected and self._notify_of_rejection(caller))

    async def _take_async(self, caller: Caller, patience_s: float | None) -> bool:
        """Do the same, but wait in this task."""
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
        return not (caller.rejected and self._notify_of_rejection(caller))

    def _sleep_on(self, caller: Caller, opened: bool) -> None:
        while not self._line.wait_is_over(caller, opened):
            opened = caller.gate.sleep(caller)

    async def _sleep_on_async(self, caller: Caller, opened: bool) -> None:
        caller.gate.shut()
        while not self._line.wait_is_over(caller, opened):
            opened = await caller.gate.sleep(caller)
            caller.gate.shut()

    def _has_to_wait(self, caller: Caller, patience_s: float | None, new_gate: Callable[[float | None], Any]) -> bool:
        """Give the caller a slot, or reject it, or put it in the line with a gate; return whether it is in the line."""
        line = self._line
        places = 0 if patience_s == 0 else self._max_queue
        if line.abandoned:
            line.serve()
        # If others wait, this caller has to wait, too, and needs a gate first.
        if 0 < line.queued < places or not line.enter(caller, places):
            caller.gate = new_gate(patience_s)
            caller.line = line
            caller.since = line.clock()
            line.enter(caller, places)
        return caller.waits is not None

    def _notify_of_rejection(self, caller: Caller) -> bool:
        """Notify the listeners. Return True."""
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
