"""All that knows asyncio, trio or a cancellation. What runs here is found in what is loaded: neither is imported."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from math import inf
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary, ref

from ..exceptions import UsageError

_modules = sys.modules

_LONGEST_S: Final = 1e9  # no event loop has to count centuries


# What runs here


def running_library() -> Any:
    """Return the module asyncio or trio, whichever runs the task that calls this, or None outside of both.

    Both have a `sleep` that is right for this task.
    """
    return running_trio() or (_modules["asyncio"] if running_loop() is not None else None)


def runs_event_loop() -> bool:
    """Tell whether this thread runs an event loop, which would stand still while the thread waits."""
    return running_library() is not None


def running_trio() -> Any:
    """Return the module trio when this code runs in one of its tasks, else None."""
    trio = _modules.get("trio")
    if trio is None:
        return None
    asks = getattr(getattr(trio, "lowlevel", None), "in_trio_task", None)  # None while another thread imports it
    if asks is None or not asks():
        return None
    # trio-asyncio runs asyncio's tasks inside one of trio's, and lets sniffio know whenever it does.
    named = getattr(getattr(_modules.get("sniffio"), "thread_local", None), "name", None)
    return None if named == "asyncio" else trio


def running_loop() -> Any:
    """Return the asyncio event loop that runs in this thread, else None."""
    asks = getattr(_modules.get("asyncio"), "get_running_loop", None)
    try:
        return asks() if asks is not None else None
    except RuntimeError:
        return None


# Where a task sleeps until it is woken, from any thread


class Sleeper(Protocol):
    """Whoever sleeps at a gate."""

    def lost(self) -> object:
        """Do what is due when the sleeper never wakes up, because its event loop is closed."""


def task_gate(timeout_s: float | None) -> AsyncioGate | TrioGate:
    """Return a gate for the task that runs here, which sleeps there so long at most; None: without a limit.

    Raises:
        UsageError: there is no such task.
    """
    trio = running_trio() if "trio" in _modules else None
    if trio is not None:
        return TrioGate(trio, timeout_s)
    loop = running_loop()
    if loop is None:
        raise UsageError("waiting here takes a running task of asyncio or trio, and there is none")
    return AsyncioGate(loop, timeout_s)


class _LoopEnd:
    """Tells the sleepers of an asyncio event loop that it was closed.

    A loop does not say when it is closed, but then it drops its timers. So a timer of decades holds the only reference
    to this object. Once the timer is dropped, this object is finalized, and tells the sleepers.
    """

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.sleepers: set[Sleeper] = set()
        loop.call_later(_LONGEST_S, self)

    def __call__(self) -> None:
        pass

    def __del__(self) -> None:
        if self.loop.is_closed():
            with ExitStack() as everybody:  # even if one raises
                for sleeper in self.sleepers.copy():
                    everybody.callback(sleeper.lost)


def _nothing() -> None:
    """Stand for a weak reference to what is gone."""


class _LoopEnds(threading.local):
    """Weak references to the end of each loop in which tasks of this thread slept, and of the last one."""

    def __init__(self) -> None:
        self.last: Callable[[], _LoopEnd | None] = _nothing
        self.of: WeakKeyDictionary[Any, Callable[[], _LoopEnd | None]] = WeakKeyDictionary()


_ends = _LoopEnds()


def _sleepers_in(loop: Any) -> set[Sleeper]:
    end = _ends.last()
    if end is None or end.loop is not loop:
        end = _ends.of.get(loop, _nothing)()
        if end is None:
            end = _LoopEnd(loop)
            _ends.of[loop] = ref(end)
        _ends.last = ref(end)
    return end.sleepers


class AsyncioGate:
    """An asyncio task sleeps on a future, which only the thread of its own loop touches."""

    __slots__ = ("_deadline", "_future", "_loop")

    def __init__(self, loop: Any, timeout_s: float | None) -> None:
        self._loop = loop
        self._future = loop.create_future()
        self._deadline = None if timeout_s is None else loop.time() + min(timeout_s, _LONGEST_S)

    def open(self) -> bool:
        """Wake the sleeper, who may be awake already; False: its event loop is closed."""
        try:
            task = _modules["asyncio"].current_task()
        except RuntimeError:
            task = None  # no loop runs here
        if task is not None and task.get_loop() is self._loop:
            self._wake(True)
            return True
        # From another thread; or from a destructor or a signal handler here, when the loop may be about to wait.
        try:
            self._loop.call_soon_threadsafe(self._wake, True)
        except RuntimeError:
            if self._loop.is_closed():
                return False
            raise
        return True

    async def sleep(self, sleeper: Sleeper) -> bool:
        """Sleep until the gate is opened, and return True; or return False when the time is over."""
        sleepers = _sleepers_in(self._loop)
        timer = None if self._deadline is None else self._loop.call_at(self._deadline, self._wake, False)
        sleepers.add(sleeper)
        try:
            return await self._future  # type: ignore[no-any-return]
        finally:
            sleepers.discard(sleeper)
            if timer is not None:
                timer.cancel()

    def shut(self) -> None:
        """Let the next sleep last until the gate is opened again; to be done before looking whether to sleep on."""
        self._future = self._loop.create_future()

    def _wake(self, opened: bool) -> None:
        try:
            self._future.set_result(opened)
        except _modules["asyncio"].InvalidStateError:
            pass  # it has a result, perhaps since a destructor came first just now; or its task is cancelled


class TrioGate:
    """A trio task sleeps on an event, which only the thread of its own run touches."""

    __slots__ = ("_deadline", "_event", "_token", "_trio")

    def __init__(self, trio: Any, timeout_s: float | None) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()
        self._deadline = inf if timeout_s is None else trio.current_time() + timeout_s

    def open(self) -> bool:
        """Wake the sleeper, who may be awake already; False: its run of trio is over."""
        try:
            self._token.run_sync_soon(self._wake)
        except self._trio.RunFinishedError:
            return False
        return True

    async def sleep(self, _: Sleeper) -> bool:
        """Sleep until the gate is opened, and return True; or return False when the time is over."""
        with self._trio.move_on_at(self._deadline) as scope:
            await self._event.wait()
        return not scope.cancelled_caught

    def shut(self) -> None:
        """Let the next sleep last until the gate is opened again; to be done before looking whether to sleep on."""
        self._event = self._trio.Event()

    def _wake(self) -> None:
        self._event.set()


# What cancels a call


# The modules that bring a cancellation of their own, and its name there.
_CANCELLATIONS = (
    ("asyncio", "CancelledError"),
    ("trio", "Cancelled"),
    ("concurrent.futures", "CancelledError"),
)


_found: tuple[int, tuple[type[BaseException], ...]] = (0, ())  # how many modules were loaded, and what they had


def cancellation_types() -> tuple[type[BaseException], ...]:
    """Return the exceptions that cancel a call, of the libraries that are loaded."""
    global _found
    loaded, kinds = _found
    if loaded != len(_modules):
        loaded = len(_modules)
        found = (getattr(_modules.get(module), name, None) for module, name in _CANCELLATIONS)
        kinds = tuple(kind for kind in found if kind is not None)
        _found = loaded, kinds
    return kinds
