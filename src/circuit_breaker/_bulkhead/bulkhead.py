"""At most so many at once, for threads and tasks together: the ways to take a slot and to give it back."""

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


# What calls do not go through, so that overriding it would change little.
_NOT_ON_THE_WAY: Final = ("acquire", "acquire_async", "release")


class Bulkhead(Pattern, Admission, OnlyOne):
    """Never lets more than `max_concurrent` callers in at once, and never lets more than `max_queue` wait for a slot.

    One object serves any number of threads, asyncio tasks of any event loops and trio tasks at the same time. They wait
    in one line, first come, first served; a slot goes from the holder that leaves straight to the first in the line.
    Cancelling a wait loses no slot, and leaves no trace.

    Args:
        name: shown in errors, events and snapshots.
        max_concurrent: how many may be inside, >= 0; 0 rejects everybody, or lets them wait.
        max_queue: how many may wait, >= 0; 0 rejects at once when every slot is taken.
        timeout_s: seconds that a caller waits at most, >= 0, or a timedelta; both 0.0 and None mean no limit.
        listeners: functions that are given a `BulkheadRejected` for every rejection, outside every lock.
        clock: a function that returns monotonic seconds, for what is told of waits; time-outs are measured by the
            clock of the thread's or task's own library.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """

    _attribute = "bulkhead"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _NOT_ON_THE_WAY:
            if getattr(cls, name) is not getattr(Bulkhead, name):
                raise TypeError(
                    f"{cls.__name__} overrides {name}(), which calls, blocks and decorated functions do not go "
                    "through: use listeners=, or wrap the bulkhead in a class of your own"
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
        self._patience_s = self._timeout_s or None  # that of a caller without a time-out of its own; None: no limit
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
        """The name that errors, events and snapshots show."""
        return self._name

    @property
    def max_queue(self) -> int:
        """How many may wait for a slot."""
        return self._max_queue

    @property
    def timeout_s(self) -> float | None:
        """Seconds that a caller waits at most; both 0.0 and None mean no limit."""
        return self._timeout_s

    @property
    def max_concurrent(self) -> int:
        """How many may be inside at once; `resize()` changes it."""
        return self._line.limit

    @property
    def active_count(self) -> int:
        """How many are inside; more than `max_concurrent` for a while after it was made smaller."""
        return self._served_line().inside

    @property
    def available_slots(self) -> int:
        """How many could enter at once."""
        snapshot = self.snapshot()
        return max(0, snapshot.max_concurrent - snapshot.active_count)

    @property
    def queued_count(self) -> int:
        """How many wait for a slot."""
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
        """Return the line once nothing is left to do in it that somebody was interrupted in."""
        line = self._line
        if line.abandoned or line.queued:
            line.serve()
        return line

    # Entering and leaving by hand

    def acquire(self, *, timeout_s: float | timedelta | EllipsisType | None = ...) -> bool:
        """Take a slot, waiting in the line if there is a place, and return True; or return False if rejected.

        Every True must be followed by one `release()`, from any thread or task.

        Args:
            timeout_s: seconds that this caller waits at most, >= 0, or a timedelta; 0 does not wait, None has no limit.
                Without it, the `timeout_s` of the bulkhead holds.

        Raises:
            UsageError: it would have to wait, and this thread runs an event loop: use `acquire_async()`.
            TypeError, ValueError: `timeout_s` is of the wrong type or out of range.
        """
        patience_s = self._patience_s if timeout_s is ... else _checked_timeout(timeout_s)
        return self._take_free() or self._take(Caller(), patience_s)

    async def acquire_async(self, *, timeout_s: float | timedelta | EllipsisType | None = ...) -> bool:
        """Take a slot, waiting in the line if there is a place, and return True; or return False if rejected.

        Every True must be followed by one `release()`, from any thread or task. Cancelling leaves the line, and loses
        no slot.

        Args:
            timeout_s: seconds that this caller waits at most, >= 0, or a timedelta; 0 does not wait, None has no limit.
                Without it, the `timeout_s` of the bulkhead holds.

        Raises:
            UsageError: it would have to wait, and this is no task of asyncio or trio.
            TypeError, ValueError: `timeout_s` is of the wrong type or out of range.
        """
        patience_s = self._patience_s if timeout_s is ... else _checked_timeout(timeout_s)
        return self._take_free() or await self._take_async(Caller(), patience_s)

    def release(self) -> None:
        """Give one slot back, to the first in the line if somebody waits; from any thread or task.

        Raises:
            UsageError: no slot is held; nothing has changed.
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
        """Set how many may be inside: more serve the line at once, fewer take effect as holders leave.

        At 0 those who wait keep waiting, under their time-out. Safe from any thread or task.

        Raises:
            TypeError, ValueError: as at construction.
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
        """Return func, of whatever kind, such that each call holds a slot; a generator does from first item to end."""
        return self._decorate(func)

    def _new_guard(self) -> Guard:
        return StreamCaller(self, self._patience_s)

    def _run(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        # Written out, because the entry of every function is a place where Ctrl-C may land: here a slot is taken, or
        # given back, and known to be so, with no such place in between.
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
                        line.inside -= 1 if line.inside else 0  # somebody's stray release() may have been for this one
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
