"""At most so many at once: one count of slots and one first-come-first-served line, for threads and tasks together.

Three things may happen in the middle of anything: Ctrl-C, a cancellation, and the garbage collector closing a stream,
even on a thread that holds this very lock. Whoever has to give something up then leaves it in a heap, by one call of C
code that nothing can split, and whoever leaves the lock looks at that heap.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from itertools import repeat
from math import inf
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar

from . import _checks, _fork
from ._events import BulkheadRejected, Listener, notify
from ._models import BulkheadSnapshot
from ._running import running_loop, running_trio
from ._wrap import check_callable, check_plain, wrap
from .exceptions import BulkheadFullError

__all__ = ["Bulkhead"]

_F = TypeVar("_F", bound=Callable[..., Any])
_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Gate(Protocol):
    """Where one caller of the line sleeps; that it opened is a hint to look again, never a promise."""

    def open(self) -> bool:
        """Wake the sleeper, who may be awake already; False: there is nobody left to wake. The lock is held."""
        ...

    def is_dead(self) -> bool:
        """Whether nobody can wake up here any more."""
        ...


class _ThreadGate:
    """A thread sleeps on a lock that is held already."""

    def __init__(self) -> None:
        if running_trio() is not None or running_loop() is not None:
            raise RuntimeError("acquire() would have to wait and this thread runs an event loop: use acquire_async()")
        self._bolt = threading.Lock()
        self._bolt.acquire()

    def open(self) -> bool:
        if self._bolt.locked():
            self._bolt.release()
        return True

    def is_dead(self) -> bool:
        return False

    def wait(self, timeout_s: float) -> None:
        self._bolt.acquire(True, -1 if timeout_s == inf else min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))


class _TaskGate:
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
            self._future.add_done_callback(lambda _: timer.cancel())
        return self._future  # type: ignore[no-any-return]

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class _Slot:
    """What one caller has: a slot, a place in the line, or nothing. Giving it up twice is giving it up once.

    Attributes:
        epoch: the bulkhead's epoch in which the slot was given; None while there is none.
        gate: not None from joining the line until the caller has seen how that ended.
    """

    epoch: object | None = None
    gate: Any = None
    since: float = 0.0
    deadline: float = inf
    refusal: BulkheadRejected | None = None


class Bulkhead:
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

    # `_lock` guards every field below it. Under it no caller's code runs: no call, no listener, no clock.
    #
    # Who is inside is the difference of two totals, and `_accepted - _released < _easy` is all that the way in asks:
    # `_easy` is the lesser of the limit and the peak, and below it there is no new peak to note. Nobody is overtaken,
    # because somebody waits only when every slot is taken: what makes a slot free serves the line in the same locked
    # step. (An exception that splits this step leaves the first in the line unserved until somebody passes, at most.)

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
        self.name = _checks.text("name", name)
        self.max_queue = _checks.count("max_queue", max_queue, 0)
        self.timeout_s = None if timeout_s is None else _checks.number("timeout_s", timeout_s, minimum=0)
        self._listeners = _checks.functions("listeners", listeners)
        self._clock = _checks.function("clock", clock, "a function that returns seconds")
        self._lock = threading.Lock()
        self._max_concurrent = _checks.count("max_concurrent", max_concurrent, 0)
        self._accepted = 0
        self._released = 0
        self._peak = 0
        self._easy = 0
        self._line: deque[_Slot] = deque()
        self._heap: deque[_Slot] = deque()
        self._epoch = object()
        self._before_fork = 0
        self._rejected = 0
        self._timed_out = 0
        self._total_wait_s = 0.0
        _fork.survive(self)

    def __repr__(self) -> str:
        return f"<Bulkhead {self.name!r}: {self.active_count} of {self._max_concurrent} slots taken>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Bulkhead cannot be copied or pickled: the slots are those of this one object")

    # Reading

    @property
    def max_concurrent(self) -> int:
        """How many may be inside at once; `resize()` changes it."""
        return self._max_concurrent

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
        self._tidy()
        with self._lock:
            snapshot = BulkheadSnapshot(
                name=self.name,
                max_concurrent=self._max_concurrent,
                max_queue=self.max_queue,
                active_count=self._accepted - self._released,
                queued_count=len(self._line),
                accepted_count=self._accepted,
                rejected_count=self._rejected,
                timed_out_count=self._timed_out,
                peak_active_count=self._peak,
                total_wait_s=self._total_wait_s,
            )
        if self._heap:
            self._tidy()
        return snapshot

    # Entering and leaving by hand

    def acquire(self) -> bool:
        """Take a slot, waiting in the line if there is a place; False if refused, at once or after `timeout_s`.

        Every True must be followed by one `release()`, from any thread.

        Raises:
            RuntimeError: it would have to wait, and this thread runs an event loop: use `acquire_async()`.
        """
        return self._take_free() or self._take(_Slot()) is None

    async def acquire_async(self) -> bool:
        """Take a slot, waiting in the line if there is a place; False if refused, at once or after `timeout_s`.

        Every True must be followed by one `release()`. Cancelling leaves the line, and loses no slot.

        Raises:
            RuntimeError: it would have to wait, and this is not asyncio.
        """
        return self._take_free() or await self._take_async(_Slot()) is None

    def release(self) -> None:
        """Give one slot back, to the first in the line if somebody waits; from any thread or task.

        Raises:
            RuntimeError: no slot is held; nothing has changed.
        """
        try:
            with self._lock:
                if self._accepted > self._released:
                    self._released += 1
                    if self._line:
                        self._serve_locked()
                else:
                    self._release_other_locked()
        except BaseException:
            self._tidy_unless_locked()
            raise
        if self._heap:
            self._tidy()

    def resize(self, max_concurrent: int) -> None:
        """Set how many may be inside: more serve the line at once, fewer take effect as holders leave.

        At 0 those who wait keep waiting, under their time-out. Safe from any thread or task.

        Raises:
            TypeError, ValueError: as at construction.
        """
        limit = _checks.count("max_concurrent", max_concurrent, 0)
        with self._lock:
            self._max_concurrent = limit
            self._serve_locked()
            self._note_peak_locked()
        if self._heap:
            self._tidy()

    def __enter__(self) -> Bulkhead:
        # The same as _take_free(), written out for speed.
        taken = False
        try:
            with self._lock:
                if self._accepted - self._released < self._easy:
                    self._accepted += 1
                    taken = True
            if self._heap:
                self._tidy()
        except BaseException:
            if taken:
                self.release()
            raise
        if not taken:
            self._hold(_Slot())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        # The same as release(), written out for speed.
        try:
            with self._lock:
                if self._accepted > self._released:
                    self._released += 1
                    if self._line:
                        self._serve_locked()
                else:
                    self._release_other_locked()
        except BaseException:
            self._tidy_unless_locked()
            raise
        if self._heap:
            self._tidy()

    async def __aenter__(self) -> Bulkhead:
        if not self._take_free():
            refusal = await self._take_async(_Slot())
            if refusal is not None:
                raise self._full(refusal)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.release()

    # Calling and decorating

    def __call__(self, func: _F) -> _F:
        """Return func, of whatever kind, such that each call holds a slot; a generator does from first item to end."""
        return wrap(self, func, "bulkhead")  # type: ignore[no-any-return]

    def call(self, func: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call func inside; no Ctrl-C loses the slot.

        Raises:
            BulkheadFullError: refused; func was not touched.
            TypeError: func is a coroutine function or cannot be called.
            RuntimeError: it would have to wait, and this thread runs an event loop.
        """
        check_plain(func)
        return self._run(func, args, kwargs)  # type: ignore[no-any-return]

    async def call_async(self, func: Callable[_P, Awaitable[_R]], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call func and await its result inside; cancelling gives the slot, or the place in the line, back.

        Raises:
            BulkheadFullError: refused; func was not touched.
            TypeError: func cannot be called, or what it returned cannot be awaited.
            RuntimeError: it would have to wait, and this is not asyncio.
        """
        check_callable(func)
        return await self._run_async(func, args, kwargs)  # type: ignore[no-any-return]

    def _wrap_plain(self, func: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return self._run(func, args, kwargs)

        return wrapper

    def _wrap_coroutine(self, func: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await self._run_async(func, args, kwargs)

        return wrapper

    def _wrap_generator(self, func: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            slot = _Slot()
            try:
                self._hold(slot)
                return (yield from func(*args, **kwargs))
            finally:
                self._heap.append(slot)
                self._tidy_unless_locked()

        return wrapper

    def _wrap_async_generator(self, func: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            slot = _Slot()
            try:
                await self._hold_async(slot)
                stream = func(*args, **kwargs)
                said = stream.__anext__()
                for _ in repeat(None):
                    try:
                        item = await said
                    except StopAsyncIteration:
                        break
                    try:
                        sent = yield item
                    except GeneratorExit:
                        await stream.aclose()
                        raise
                    except BaseException as error:
                        said = stream.athrow(error)
                    else:
                        said = stream.asend(sent)
            finally:
                self._heap.append(slot)
                self._tidy_unless_locked()

        return wrapper

    def _run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Written out, because the entry of every function is a place where Ctrl-C may land: here a slot is taken, or
        # given back, and known to be so, with no such place in between.
        slot = _Slot()
        try:
            with self._lock:
                if self._accepted - self._released < self._easy:
                    self._accepted += 1
                    slot.epoch = self._epoch
            if self._heap:
                self._tidy()
            if slot.epoch is None:
                self._hold(slot)
            return func(*args, **kwargs)
        finally:
            try:
                with self._lock:
                    if slot.epoch is self._epoch:
                        slot.epoch = None
                        self._released += 1
                        if self._line:
                            self._serve_locked()
            except BaseException:
                self._heap.append(slot)
                self._tidy_unless_locked()
                raise
            if self._heap:
                self._tidy()

    async def _run_async(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        slot = _Slot()
        try:
            await self._hold_async(slot)
            awaitable = func(*args, **kwargs)
            if not inspect.isawaitable(awaitable):
                raise TypeError(
                    f"call_async() takes a function whose result can be awaited; {func!r} returned {awaitable!r}"
                )
            return await awaitable
        finally:
            self._heap.append(slot)
            self._tidy_unless_locked()

    # Taking: one plan, and two ways to wait

    def _take_free(self) -> bool:
        taken = False
        try:
            with self._lock:
                if self._accepted - self._released < self._easy:
                    self._accepted += 1
                    taken = True
            if self._heap:
                self._tidy()
        except BaseException:
            if taken:
                self.release()
            raise
        return taken

    def _hold(self, slot: _Slot) -> None:
        refusal = self._take(slot)
        if refusal is not None:
            raise self._full(refusal)

    async def _hold_async(self, slot: _Slot) -> None:
        refusal = await self._take_async(slot)
        if refusal is not None:
            raise self._full(refusal)

    def _full(self, refusal: BulkheadRejected) -> BulkheadFullError:
        return BulkheadFullError(
            f"Bulkhead {self.name!r} is full",
            self.name,
            self._max_concurrent,
            active_count=refusal.active_count,
            queued_count=refusal.queued_count,
            max_queue=self.max_queue,
        )

    def _take(self, slot: _Slot) -> BulkheadRejected | None:
        try:
            self._enter(slot, _ThreadGate)
            for _ in repeat(None):
                if slot.gate is None:
                    break
                slot.gate.wait(slot.deadline - time.monotonic())
                self._look(slot)
        except BaseException:
            self._heap.append(slot)
            self._tidy_unless_locked()
            raise
        return self._told(slot)

    async def _take_async(self, slot: _Slot) -> BulkheadRejected | None:
        try:
            self._enter(slot, _TaskGate)
            for _ in repeat(None):
                if slot.gate is None:
                    break
                await slot.gate.wait(slot.deadline - time.monotonic())
                self._look(slot)
        except BaseException:
            self._heap.append(slot)
            self._tidy_unless_locked()
            raise
        return self._told(slot)

    def _enter(self, slot: _Slot, gate: Callable[[], _Gate]) -> None:
        """Give the caller a slot, a place in the line, or a refusal."""
        now = self._clock()
        if self.timeout_s:
            slot.deadline = time.monotonic() + self.timeout_s
        with self._lock:
            self._enter_locked(slot, gate, now)
        if self._heap:
            self._tidy()

    def _enter_locked(self, slot: _Slot, gate: Callable[[], _Gate], now: float) -> None:
        self._tidy_locked(now)
        if self._accepted - self._released < self._max_concurrent:
            self._accepted += 1
            slot.epoch = self._epoch
            self._note_peak_locked()
            return
        if len(self._line) >= self.max_queue:
            for dead in [other for other in self._line if other.gate.is_dead()]:
                self._withdraw_locked(dead, now)
        if len(self._line) >= self.max_queue:
            self._refuse_locked(slot)
            return
        slot.since = now
        slot.gate = gate()
        self._line.append(slot)

    def _look(self, slot: _Slot) -> None:
        """See whether the caller was served, or its time is over; a slot that comes in the last moment counts."""
        now = self._clock()
        late = time.monotonic() >= slot.deadline
        with self._lock:
            self._serve_locked()
            if slot.epoch is not None or late:
                self._leave_line_locked(slot, now)
                if slot.epoch is None:
                    self._timed_out += 1
                    self._refuse_locked(slot)
        if self._heap:
            self._tidy()

    def _refuse_locked(self, slot: _Slot) -> None:
        self._rejected += 1
        slot.refusal = BulkheadRejected(self.name, self._accepted - self._released, len(self._line))

    def _told(self, slot: _Slot) -> BulkheadRejected | None:
        if slot.refusal is not None and self._listeners:
            notify(self._listeners, slot.refusal)
        return slot.refusal

    # Serving the line, and giving up

    def _serve_locked(self) -> None:
        # A gate is opened first and its caller served next, in one step that nothing splits. What is raised while it
        # opens leaves the caller in the line, at worst awake for nothing: it looks, serves the line, and sleeps again.
        while self._line and self._accepted - self._released < self._max_concurrent:
            slot = self._line[0]
            if slot.gate.open():
                slot.epoch = self._epoch
                self._accepted += 1
            self._line.popleft()

    def _note_peak_locked(self) -> None:
        self._peak = max(self._peak, self._accepted - self._released)
        self._easy = min(self._peak, self._max_concurrent)

    def _leave_line_locked(self, slot: _Slot, now: float) -> None:
        if slot.gate is not None:
            self._total_wait_s += max(0.0, now - slot.since)
            slot.gate = None
            if slot.epoch is None and slot in self._line:
                self._line.remove(slot)

    def _withdraw_locked(self, slot: _Slot, now: float) -> None:
        self._leave_line_locked(slot, now)
        if slot.epoch is self._epoch:
            slot.epoch = None
            self._released += 1

    def _tidy_locked(self, now: float) -> None:
        while self._heap:
            self._withdraw_locked(self._heap[0], now)
            self._heap.popleft()
        self._serve_locked()

    def _tidy(self) -> None:
        """Take back what was left in the heap, and serve the line."""
        for _ in repeat(None):
            now = self._clock()
            with self._lock:
                self._tidy_locked(now)
            if not self._heap:
                break

    def _tidy_unless_locked(self) -> None:
        """Do so, but never wait for the lock: whoever has it looks at the heap on leaving, perhaps this thread."""
        if not self._lock.locked():
            self._tidy()

    # Forking

    def _release_other_locked(self) -> None:
        if not self._before_fork:
            raise RuntimeError(f"Bulkhead {self.name!r}: release() without a held slot")
        self._before_fork -= 1

    def _after_fork_in_child(self) -> None:
        # The holders and the line are the parent's. Slots of a former epoch come back without effect; an anonymous
        # release() cannot be told apart, so as many are forgiven as slots were held.
        self._lock = threading.Lock()
        self._before_fork += self._accepted - self._released
        self._released = self._accepted
        self._line = deque()
        self._heap = deque()
        self._epoch = object()
