"""At most so many at once, for threads and tasks together: the ways in and out of one line of callers.

C code alone cannot be split by an interrupt. So whoever has to give something up for sure leaves its slot in `left` of
the line, by one call, before anything else; the line takes it back at once, or when the next one passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from .._common import checks
from .._common.events import BulkheadRejected, Listener, notify, open_log
from .._common.pattern import OnlyOne, Pattern, check_finished
from .._common.streams import AsyncStream, Guard, Stream
from .._common.typing import Protected, ProtectedFunction
from ..exceptions import BulkheadFullError
from .line import Line, Slot, TaskGate, ThreadGate
from .snapshot import BulkheadSnapshot

__all__ = ["Bulkhead"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Breaker = TypeVar("_Breaker")
_Policy = TypeVar("_Policy")


class Bulkhead(Pattern, OnlyOne):
    """Never more than `max_concurrent` callers are inside at once, and never more than `max_queue` wait for a slot.

    One object serves any number of threads, tasks and event loops at the same time. Whoever waits is served first come,
    first served; a slot goes from the leaving holder straight to the first in the line. Under trio a free slot can be
    taken, but having to wait is a `RuntimeError`. A cancelled wait leaves no trace.

    Args:
        name: shown in errors, events and snapshots.
        max_concurrent: how many may be inside; 0 refuses everybody, or lets them wait.
        max_queue: how many may wait; 0 refuses at once when every slot is taken.
        timeout_s: seconds that a caller waits at most; both 0.0 and None mean no limit.
        listeners: functions that are given a `BulkheadRejected` for every refusal, outside every lock.
        clock: seconds, for `total_wait_s` alone; time-outs are measured by the real clock.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """

    _attribute = "bulkhead"

    def __init__(
        self,
        name: str = "default",
        max_concurrent: int = 10,
        max_queue: int = 0,
        timeout_s: float | None = 0.0,
        *,
        listeners: Iterable[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        open_log()
        self.name = checks.text("name", name)
        self.max_queue = checks.count("max_queue", max_queue, 0)
        self.timeout_s = None if timeout_s is None else checks.number("timeout_s", timeout_s, minimum=0)
        self._listeners = checks.functions("listeners", listeners)
        self._line = Line(
            checks.count("max_concurrent", max_concurrent, 0),
            checks.function("clock", clock, "a function that returns seconds"),
        )

    def __repr__(self) -> str:
        return f"<Bulkhead {self.name!r}: {self.active_count} of {self.max_concurrent} slots taken>"

    # Reading

    @property
    def max_concurrent(self) -> int:
        """How many may be inside at once; `resize()` changes it."""
        return self._line.limit

    @property
    def active_count(self) -> int:
        """How many are inside; more than `max_concurrent` for a while after it was made smaller."""
        return self.snapshot().active_count

    @property
    def available_slots(self) -> int:
        """How many could enter at once."""
        snapshot = self.snapshot()
        return max(0, snapshot.max_concurrent - snapshot.active_count)

    @property
    def queued_count(self) -> int:
        """How many wait for a slot."""
        return self.snapshot().queued_count

    def snapshot(self) -> BulkheadSnapshot:
        """Return a consistent copy of all figures."""
        line = self._line
        line.serve()
        with line.lock:
            limit = line.limit
            accepted = line.accepted
            inside = line.inside
            queued = line.queued
            rejected = line.rejected
            timed_out = line.timed_out
            peak = line.peak
            total_wait_s = line.total_wait_s
        return BulkheadSnapshot(
            name=self.name,
            max_concurrent=limit,
            max_queue=self.max_queue,
            active_count=inside,
            queued_count=queued,
            accepted_count=accepted,
            rejected_count=rejected,
            timed_out_count=timed_out,
            peak_active_count=peak,
            total_wait_s=total_wait_s,
        )

    # Entering and leaving by hand

    def acquire(self) -> bool:
        """Take a slot, waiting in the line if there is a place; False if refused, at once or after `timeout_s`.

        Every True must be followed by one `release()`, from any thread.

        Raises:
            RuntimeError: it would have to wait, and this thread runs an event loop: use `acquire_async()`.
        """
        return self._take_free() or self._take(Slot())

    async def acquire_async(self) -> bool:
        """Take a slot, waiting in the line if there is a place; False if refused, at once or after `timeout_s`.

        Every True must be followed by one `release()`. Cancelling leaves the line, and loses no slot.

        Raises:
            RuntimeError: it would have to wait, and this is not asyncio.
        """
        return self._take_free() or await self._take_async(Slot())

    def release(self) -> None:
        """Give one slot back, to the first in the line if somebody waits; from any thread or task.

        Raises:
            RuntimeError: no slot is held; nothing has changed.
        """
        Bulkhead.__exit__(self, None, None, None)  # a subclass may call this from its own

    def resize(self, max_concurrent: int) -> None:
        """Set how many may be inside: more serve the line at once, fewer take effect as holders leave.

        At 0 those who wait keep waiting, under their time-out. Safe from any thread or task.

        Raises:
            TypeError, ValueError: as at construction.
        """
        limit = checks.count("max_concurrent", max_concurrent, 0)
        line = self._line
        try:
            with line.lock:
                line.limit = limit
                line.easy = 0
            line.serve()
        except BaseException:
            line.serve()
            raise

    def __enter__(self) -> Bulkhead:
        # The same as _take_free(), written out for speed.
        line = self._line
        taken = False
        try:
            with line.lock:
                if line.inside < line.easy:
                    line.inside += 1
                    line.accepted += 1
                    taken = True
                    return self
        except BaseException:
            if taken:
                self.release()
            raise
        slot = Slot()
        if not self._take(slot):
            raise self._full(slot)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        line = self._line
        try:
            with line.lock:
                if line.inside:
                    line.inside -= 1
                    if not line.queued:
                        return
                    held = True
                elif line.forgiven:
                    line.forgiven -= 1
                    held = True
                else:
                    held = False
            line.serve()
        except BaseException:
            line.serve()
            raise
        if not held:
            raise RuntimeError(f"Bulkhead {self.name!r}: release() without a held slot")

    async def __aenter__(self) -> Bulkhead:
        if not self._take_free():
            slot = Slot()
            if not await self._take_async(slot):
                raise self._full(slot)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.__exit__(kind, error, trace)

    # Calling and decorating

    @overload
    def __call__(
        self, func: Protected[_P, _R, _Breaker, _Policy, Any], /
    ) -> ProtectedFunction[_P, _R, _Breaker, _Policy, Bulkhead]: ...
    @overload
    def __call__(self, func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, object, object, Bulkhead]: ...
    def __call__(self, func: Any, /) -> Any:
        """Return func, of whatever kind, such that each call holds a slot; a generator does from first item to end."""
        return self._decorate(func)

    def _new_guard(self) -> Guard:
        return _StreamSlot(self)

    def _run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Written out, because the entry of every function is a place where Ctrl-C may land: here a slot is taken, or
        # given back, and known to be so, with no such place in between.
        line = self._line
        slot = Slot()
        try:
            with line.lock:
                if line.inside < line.easy:
                    line.inside += 1
                    line.accepted += 1
                    slot.holds = line.epoch
            if slot.holds is None and not self._take(slot):
                raise self._full(slot)
            result = func(*args, **kwargs)
            check_finished(func, result)
            return result
        finally:
            try:
                with line.lock:
                    if slot.holds is line.epoch:
                        slot.holds = None
                        line.inside -= 1 if line.inside else 0  # somebody's stray release() may have been for this one
                if line.queued:
                    line.serve()
            except BaseException:
                line.left.add(slot)
                line.serve()
                raise

    async def _run_async(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        slot = Slot()
        try:
            if not await self._take_async(slot):
                raise self._full(slot)
            return await func(*args, **kwargs)
        finally:
            self._line.left.add(slot)
            self._line.serve()

    # Taking: one plan, and two ways to wait

    def _take_free(self) -> bool:
        line = self._line
        taken = False
        try:
            with line.lock:
                if line.inside < line.easy:
                    line.inside += 1
                    line.accepted += 1
                    taken = True
        except BaseException:
            if taken:
                self.release()
            raise
        return taken

    def _full(self, slot: Slot) -> BulkheadFullError:
        return BulkheadFullError(
            f"Bulkhead {self.name!r} is full",
            self.name,
            self.max_concurrent,
            active_count=slot.active,
            queued_count=slot.queued,
            max_queue=self.max_queue,
        )

    def _take(self, slot: Slot) -> bool:
        try:
            for nap_s in self._naps(slot, ThreadGate):
                slot.gate.wait(nap_s)
        except BaseException:
            self._line.left.add(slot)
            self._line.serve()
            raise
        return self._told(slot)

    async def _take_async(self, slot: Slot) -> bool:
        try:
            for nap_s in self._naps(slot, TaskGate):
                await slot.gate.wait(nap_s)
        except BaseException:
            self._line.left.add(slot)
            self._line.serve()
            raise
        return self._told(slot)

    def _naps(self, slot: Slot, new_gate: Callable[[], ThreadGate | TaskGate]) -> Iterator[float]:
        """Yield how long to sleep at the gate, as often as it takes until the caller has a slot or a refusal."""
        line = self._line
        if line.left or line.queued >= self.max_queue:
            line.serve()
            line.drop_dead()
        if 0 < line.queued < self.max_queue or not line.enter(slot, self.max_queue):
            slot.gate = new_gate()
            slot.since = line.now()
            if self.timeout_s:
                slot.deadline = time.monotonic() + self.timeout_s
            line.enter(slot, self.max_queue)
        while slot.holds is None and not slot.refused:
            left_s = slot.deadline - time.monotonic()
            if left_s <= 0:
                line.leave(slot, late=True)
            else:
                yield left_s
                if slot.holds is None:
                    line.serve()

    def _told(self, slot: Slot) -> bool:
        if slot.refused and self._listeners:
            notify(self._listeners, BulkheadRejected(self.name, slot.active, slot.queued))
        return not slot.refused


class _StreamSlot(Slot, Guard):
    """What a stream has: a slot from its first item to its end."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self._bulkhead = bulkhead
        self.leave = bulkhead._line.left.add

    def open(self, func: Callable[..., Stream], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Stream, Any]:
        if not self._bulkhead._take(self):
            raise self._bulkhead._full(self)
        return super().open(func, args, kwargs)

    async def open_async(
        self, func: Callable[..., AsyncStream], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[AsyncStream, Any]:
        if not await self._bulkhead._take_async(self):
            raise self._bulkhead._full(self)
        return await super().open_async(func, args, kwargs)

    def end(self, error: BaseException | None) -> None:
        self._bulkhead._line.serve()
