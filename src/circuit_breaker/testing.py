"""Aids for tests of code that uses this package: a clock that you move by hand, and retries that do not sleep."""

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
    """A clock that stands still until `advance()`. Calling it returns its seconds.

    Pass the clock itself as `clock=`, and its `sleep` or `sleep_async` as `sleep=`. Threads and tasks may share it.

    Args:
        start: The seconds that it shows at first, any finite number.

    Attributes:
        sleeps: The seconds of every sleep, in order.

    Raises:
        TypeError, ValueError: `start` is not a finite number.
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
        """Return the seconds that it shows."""
        return self._now

    def __repr__(self) -> str:
        return f"<FakeClock at {self._now:g} s>"

    def advance(self, seconds: float | timedelta) -> None:
        """Move the clock forward.

        Args:
            seconds: How far, a finite number >= 0 or a `timedelta`.

        Raises:
            TypeError, ValueError: `seconds` has the wrong type or is out of range.
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
        """Move the clock forward instead of sleeping, and add the seconds to `sleeps`.

        Raises:
            TypeError, ValueError: `seconds` is not a finite number >= 0 or a `timedelta`.
        """
        passed = checks.seconds("seconds", seconds, minimum=0)
        self.advance(passed)
        self.sleeps.append(passed)

    async def sleep_async(self, seconds: float | timedelta) -> None:
        """Do the same in async code. Other tasks get a turn, and a cancellation takes effect here.

        Raises:
            TypeError, ValueError: `seconds` is not a finite number >= 0 or a `timedelta`.
        """
        self.sleep(seconds)
        await checkpoint()


def instant_retries(*, max_retries: int | None = None) -> Retries:
    """Skip the sleeps of all retry policies, in all threads and tasks. For tests; a `with` block or a decorator.

    It decorates functions and coroutine functions. Everything else stays as it is: the number of attempts, budgets,
    listeners, and the delays that they are given. A `sleep=` of a policy is not called. In async code other tasks get a
    turn instead of a sleep.

    For the deadline of a call (`max_elapsed_s`) a skipped sleep counts as slept. For nothing else does time pass: an
    open circuit stays open. A policy with `max_retries=None` makes at most 1,000 retries here, because it might never
    end otherwise. To test retries that wait for a circuit, give the breaker and the policy one `FakeClock` instead.

    Blocks may be nested. The innermost one counts.

    Args:
        max_retries: The most retries that a policy makes inside, >= 0. A lower limit of its own still counts. None:
            the limit of each policy.

    Raises:
        TypeError, ValueError: `max_retries` is not an int or is negative.
    """
    return Retries(None if max_retries is None else checks.count("max_retries", max_retries, 0))


def no_retries() -> Retries:
    """Let every retry policy make one attempt, in all threads and tasks. For tests; a `with` block or a decorator.

    It decorates functions and coroutine functions. The error of the first attempt is raised, as if no retries were
    left. It may be nested with `instant_retries()`: the innermost one counts.
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
        """Return the function with this block around each of its calls."""
        given: Any = func
        kind = kind_of(given)
        if isinstance(given, type) or kind not in (Kind.PLAIN, Kind.COROUTINE):
            raise WrongKindError(
                f"func must be a function or a coroutine function, got {given!r}: use a `with` block inside it"
            )

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
