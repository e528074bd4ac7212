"""Aids for testing code that uses this package: time that passes when told, and retries that do not wait."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from ._common import checks, fork
from ._common.lock import RLock
from ._common.pattern import Kind, WrongKindError, check_finished, kind_of
from ._retry.waiting import Override, checkpoint, overrides

__all__ = ["FakeClock", "check_store", "instant_retries", "no_retries"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class FakeClock:
    """A clock that stands still until it is advanced; calling it gives the seconds.

    `clock=` takes it as it is, `sleep=` its `sleep` or `sleep_async`. One clock may be shared by threads and tasks.

    Args:
        start: the seconds it shows at first, any finite number.

    Attributes:
        sleeps: the seconds of every sleep, in order.

    Raises:
        TypeError, ValueError: start is no finite number.
    """

    # `_lock` guards `_now`; under it nothing is called. An RLock, for a signal handler may advance the clock.

    def __init__(self, start: float = 0.0) -> None:
        self._lock = RLock()
        self._now = checks.number("start", start)
        self.sleeps: list[float] = []
        fork.survive(self)

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()

    def __call__(self) -> float:
        """Return the seconds it shows."""
        return self._now

    def __repr__(self) -> str:
        return f"<FakeClock at {self._now:g} s>"

    def advance(self, seconds: float | timedelta) -> None:
        """Let time pass, >= 0 and finite.

        Raises:
            TypeError, ValueError: seconds is no such number.
        """
        passed = checks.seconds("seconds", seconds, minimum=0)
        with self._lock:
            before = self._now
            now = before + passed
            if now < math.inf:
                self._now = now
                return
        raise ValueError(f"seconds must leave the clock finite, got {passed:g} at {before:g} s")

    def sleep(self, seconds: float | timedelta) -> None:
        """Advance at once instead of sleeping, and remember it in `sleeps`.

        Raises:
            TypeError, ValueError: seconds is no finite number >= 0.
        """
        passed = checks.seconds("seconds", seconds, minimum=0)
        self.advance(passed)
        self.sleeps.append(passed)

    async def sleep_async(self, seconds: float | timedelta) -> None:
        """Do the same for async code; other tasks get their turn, and a cancellation arrives here.

        Raises:
            TypeError, ValueError: seconds is no finite number >= 0.
        """
        self.sleep(seconds)
        await checkpoint()


def instant_retries(*, max_retries: int | None = None) -> Retries:
    """Let no policy sleep inside, in any thread or task of this process: not even a `sleep=` of its own is called.

    A context manager, and a decorator of functions and coroutine functions, such as tests. All else stays as it is: the
    number of attempts, budgets, listeners, and the delays that listeners get. In async code other tasks get their turn
    instead of a sleep.

    A sleep left out counts as slept for the deadline of the call (`max_elapsed_s`), so the attempts end where they
    would without this. No time passes for anything else: an open circuit stays open. A policy without a limit might
    therefore retry for ever, so it may make 1,000 retries. To test retries that wait for a circuit, give the breaker
    and the policy one `FakeClock` instead, which does advance.

    It may be nested; the innermost one holds.

    Args:
        max_retries: retries that a policy may make inside, >= 0, unless its own limit is lower; None: as many as it
            may make outside.

    Raises:
        TypeError, ValueError: max_retries is no int, or negative.
    """
    return Retries(None if max_retries is None else checks.count("max_retries", max_retries, 0))


def no_retries() -> Retries:
    """Let every policy make one attempt only inside, in any thread or task; a context manager and a decorator.

    Its error is raised, or its bad value returned, as if no retries were left. It may be nested with
    `instant_retries()`; the innermost one holds.
    """
    return Retries(0)


class Retries:
    """What `instant_retries()` and `no_retries()` give."""

    def __init__(self, max_retries: int | None) -> None:
        self._max_retries = max_retries
        self._entered: list[Override] = []

    def __enter__(self) -> None:
        override = Override(self._max_retries)
        overrides.append(override)
        self._entered.append(override)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        overrides.remove(self._entered.pop())

    def __call__(self, func: Callable[_P, _R], /) -> Callable[_P, _R]:
        """Return a function for all of whose calls this holds; for an `async def`, until it has been awaited."""
        given: Any = func
        kind = kind_of(given)
        if isinstance(given, type) or kind not in (Kind.PLAIN, Kind.COROUTINE):
            raise WrongKindError(f"func must be a function or a coroutine function, got {given!r}: use `with` there")

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with Retries(self._max_retries):
                result = given(*args, **kwargs)
                check_finished(given, result)
                return result

        async def async_wrapper(*args: Any, **kwargs: Any) -> Any:
            with Retries(self._max_retries):
                return await given(*args, **kwargs)

        wrap: Any = wrapper if kind is Kind.PLAIN else async_wrapper
        return functools.wraps(given)(wrap)


def check_store(make: Callable[[], object]) -> None:
    """Check that a store for shared circuits keeps what `circuit_breaker.stores.Store` promises.

    Args:
        make: a function that gives a store, called from several threads. All that it gives keep their circuits in the
            same place, which must be empty at first.

    Raises:
        AssertionError: a promise is not kept; the message says which. What the store itself raises passes on.
    """
    from ._shared.check import check

    check(make)
