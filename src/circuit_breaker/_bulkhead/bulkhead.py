"""`Bulkhead`: the ways to take a slot and to give it back, for threads and tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

from .._common import checks
from .._common.events import Listener, open_log
from .._common.pattern import Args, Function, Kwargs, OnlyOne, Pattern, check_finished
from .._common.streams import Guard
from ..exceptions import UsageError
from .admission import Admission
from .line import Caller, Line
from .snapshot import BulkheadSnapshot
from .stream import StreamCaller

if TYPE_CHECKING:
    from .._common.typing import Protected, ProtectedFunction

__all__ = ["Bulkhead"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Breaker = TypeVar("_Breaker")
_Policy = TypeVar("_Policy")


# Calls do not use these methods, so a subclass that overrides them would change nothing for calls.
_NOT_ON_THE_WAY: Final = ("acquire", "acquire_async", "release")


class Bulkhead(Pattern, Admission, OnlyOne):
    """Limits how many calls run at once, and how many callers wait for a slot.

    Threads, asyncio tasks of any event loop and trio tasks may share one object. They wait in one queue and are served
    in the order in which they came. Cancelling a wait gives its place back and loses no slot.

    Args:
        name: Shown in errors, events and snapshots.
        max_concurrent: Slots: how many calls may run at once, >= 0. 0: none; callers are rejected, or wait if there is
            a queue.
        max_queue: How many callers may wait for a slot, >= 0. 0: a call is rejected at once when all slots are taken.
        timeout_s: Seconds that a caller waits at most, >= 0, or a `timedelta`. 0.0 and None both mean no limit.
        listeners: Functions that get a `BulkheadRejected` for every rejection, outside every lock.
        clock: A function that returns monotonic seconds, for reported waits only. Timeouts are measured with the clock
            of the running thread or event loop.

    Raises:
        TypeError, ValueError: A setting has the wrong type or is out of range.
    """

    _attribute = "bulkhead"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _NOT_ON_THE_WAY:
            if getattr(cls, name) is not getattr(Bulkhead, name):
                raise TypeError(
                    f"{cls.__name__} overrides {name}(), but calls, blocks and decorated functions do not use "
                    f"{name}(): use listeners=, or wrap the bulkhead in a class of your own"
                )

    def __init__(
        self,
        name: str = "default",
        max_concurrent: int = 10,
        max_queue: int = 0,
        timeout_s: float | timedelta | None = 0.0,
        *,
        listeners: Iterable[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        open_log()
        self._name = checks.text("name", name)
        self._max_queue = checks.count("max_queue", max_queue, 0)
        self._timeout_s = _checked_timeout(timeout_s)
        self._patience_s = self._timeout_s or None  # of a caller that brings no timeout of its own; None: no limit
        self._listeners = checks.functions("listeners", listeners)
        self._line = Line(
            checks.count("max_concurrent", max_concurrent, 0),
            checks.function("clock", clock, "a function that returns seconds"),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {self.active_count} of {self.max_concurrent} slots taken>"

    # Reading

    @property
    def name(self) -> str:
        """The name, shown in errors, events and snapshots."""
        return self._name

    @property
    def max_queue(self) -> int:
        """How many callers may wait for a slot."""
        return self._max_queue

    @property
    def timeout_s(self) -> float | None:
        """Seconds that a caller waits at most. 0.0 and None both mean no limit."""
        return self._timeout_s

    @property
    def max_concurrent(self) -> int:
        """How many calls may run at once. `resize()` changes it."""
        return self._line.limit

    @property
    def active_count(self) -> int:
        """How many calls are running. After `resize()` to fewer slots it may be above `max_concurrent` for a while."""
        return self._served_line().inside

    @property
    def available_slots(self) -> int:
        """How many slots are free."""
        snapshot = self.snapshot()
        return max(0, snapshot.max_concurrent - snapshot.active_count)

    @property
    def queued_count(self) -> int:
        """How many callers are waiting for a slot."""
        return self._served_line().queued

    def snapshot(self) -> BulkheadSnapshot:
        """Return a consistent copy of all figures."""
        line = self._served_line()
        _ = line.lock.taken
        try:
            limit = line.limit
            accepted = line.accepted
            inside = line.inside
            queued = line.queued
            rejected = line.rejected
            timed_out = line.timed_out
            peak = line.peak
            total_wait_s = line.total_wait_s
        finally:
            line.lock.release()
        return BulkheadSnapshot(
            name=self._name,
            max_concurrent=limit,
            max_queue=self._max_queue,
            active_count=inside,
            queued_count=queued,
            accepted_count=accepted,
            rejected_count=rejected,
            timed_out_count=timed_out,
            peak_active_count=peak,
            total_wait_s=total_wait_s,
        )

    def _served_line(self) -> Line:
        """Return the line, after finishing in it what an interrupted caller has left undone."""
        line = self._line
        if line.abandoned or line.queued:
            line.serve()
        return line

    # Entering and leaving by hand

    def acquire(self, *, timeout_s: float | timedelta | EllipsisType | None = ...) -> bool:
        """Take a slot and return True, or return False if the call is rejected. Waits if the queue has a place.

        After each True, call `release()` once, from any thread or task.

        Args:
            timeout_s: Seconds to wait at most, >= 0, or a `timedelta`. 0: do not wait. None: no limit. If left out, the
                `timeout_s` of the bulkhead is used.

        Raises:
            UsageError: It would have to wait, but this thread runs an event loop: use `acquire_async()`.
            TypeError, ValueError: `timeout_s` has the wrong type or is out of range.
        """
        patience_s = self._patience_s if timeout_s is ... else _checked_timeout(timeout_s)
        return self._take_free() or self._take(Caller(), patience_s)

    async def acquire_async(self, *, timeout_s: float | timedelta | EllipsisType | None = ...) -> bool:
        """Take a slot and return True, or return False if the call is rejected. Waits if the queue has a place.

        After each True, call `release()` once, from any thread or task. Cancelling leaves the queue and loses no slot.

        Args:
            timeout_s: Seconds to wait at most, >= 0, or a `timedelta`. 0: do not wait. None: no limit. If left out, the
                `timeout_s` of the bulkhead is used.

        Raises:
            UsageError: It would have to wait, but this is not a task of asyncio or trio.
            TypeError, ValueError: `timeout_s` has the wrong type or is out of range.
        """
        patience_s = self._patience_s if timeout_s is ... else _checked_timeout(timeout_s)
        return self._take_free() or await self._take_async(Caller(), patience_s)

    def release(self) -> None:
        """Give one slot back. If callers are waiting, the first of them gets it. Safe from any thread or task.

        Raises:
            UsageError: No slot is taken. Nothing has changed.
        """
        line = self._line
        try:
            _ = line.lock.taken
            try:
                if line.inside:
                    line.inside -= 1
                    if not line.queued:
                        return
                    held = True
                elif line.held_in_parent:
                    line.held_in_parent -= 1
                    held = True
                else:
                    held = False
            finally:
                line.lock.release()
            line.hand_over()
        except BaseException:
            line.serve()
            raise
        if not held:
            raise UsageError(f"Bulkhead {self._name!r}: release() without a held slot")

    def resize(self, max_concurrent: int) -> None:
        """Change how many calls may run at once.

        More slots serve waiting callers at once. Fewer slots take effect as running calls end. At 0, waiting callers
        keep waiting until their timeout. Safe from any thread or task.

        Args:
            max_concurrent: The new number of slots, >= 0.

        Raises:
            TypeError, ValueError: `max_concurrent` has the wrong type or is out of range.
        """
        limit = checks.count("max_concurrent", max_concurrent, 0)
        line = self._line
        try:
            _ = line.lock.taken
            try:
                line.limit = limit
                line.free_below = 0
            finally:
                line.lock.release()
            line.serve()
        except BaseException:
            line.serve()
            raise

    def __enter__(self) -> Bulkhead:
        # The same as _take_free(), written out for speed.
        line = self._line
        entered = False
        try:
            _ = line.lock.taken
            try:
                if line.inside < line.free_below:
                    line.inside += 1
                    line.accepted += 1
                    entered = True
                    return self
            finally:
                line.lock.release()
        except BaseException:
            if entered:
                self.release()
            raise
        caller = Caller()
        if not self._take(caller, self._patience_s):
            raise self._rejection(caller)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.release()

    async def __aenter__(self) -> Bulkhead:
        if not self._take_free():
            caller = Caller()
            if not await self._take_async(caller, self._patience_s):
                raise self._rejection(caller)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.release()

    # Calling and decorating

    @overload
    def __call__(
        self, func: Protected[_P, _R, _Breaker, _Policy, Any], /
    ) -> ProtectedFunction[_P, _R, _Breaker, _Policy, Bulkhead]: ...
    @overload
    def __call__(self, func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, object, object, Bulkhead]: ...
    def __call__(self, func: Any, /) -> Any:
        """Return the function with a slot held by each call. A generator holds one from its first item to its end.

        Raises:
            TypeError: It is not a function.
        """
        return self._decorate(func)

    def _new_guard(self) -> Guard:
        return StreamCaller(self, self._patience_s)

    def _run(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        # Written out, because Ctrl-C may land at the entry of every function. Here it cannot land between taking a slot
        # and noting that it was taken, nor between giving it back and noting that.
        line = self._line
        caller = Caller()
        try:
            _ = line.lock.taken
            try:
                if line.inside < line.free_below:
                    line.inside += 1
                    line.accepted += 1
                    caller.holds = line.epoch
            finally:
                line.lock.release()
            if caller.holds is None and not self._take(caller, self._patience_s):
                raise self._rejection(caller)
            result = func(*args, **kwargs)
            check_finished(func, result)
            return result
        finally:
            try:
                _ = line.lock.taken
                try:
                    if caller.holds is line.epoch:
                        caller.holds = None
                        line.inside -= 1 if line.inside else 0  # a release() too many may have given this slot back
                finally:
                    line.lock.release()
                if line.queued:
                    line.hand_over()
            except BaseException:
                line.abandoned.add(caller)
                line.serve()
                raise

    async def _run_async(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        # The same, and written out for the same reason.
        line = self._line
        caller = Caller()
        try:
            _ = line.lock.taken
            try:
                if line.inside < line.free_below:
                    line.inside += 1
                    line.accepted += 1
                    caller.holds = line.epoch
            finally:
                line.lock.release()
            if caller.holds is None and not await self._take_async(caller, self._patience_s):
                raise self._rejection(caller)
            return await func(*args, **kwargs)
        finally:
            try:
                _ = line.lock.taken
                try:
                    if caller.holds is line.epoch:
                        caller.holds = None
                        line.inside -= 1 if line.inside else 0
                finally:
                    line.lock.release()
                if line.queued:
                    line.hand_over()
            except BaseException:
                line.abandoned.add(caller)
                line.serve()
                raise


def _checked_timeout(timeout_s: Any) -> float | None:
    return None if timeout_s is None else checks.seconds("timeout_s", timeout_s, minimum=0)
