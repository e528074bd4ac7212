"""Aids for testing code that uses this package: time that passes when told, and retries that do not wait."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager

from ._common import checks, fork
from ._common.lock import RLock
from ._retry.plan import checkpoint, instant

__all__ = ["FakeClock", "instant_retries"]


class FakeClock:
    """A clock that stands still until it is told to advance; calling it gives the seconds.

    `clock=` takes it as it is, `sleep=` its `sleep` or `sleep_async`. One clock may be shared by threads and tasks.

    Args:
        start: the seconds it shows at first, any finite number.

    Attributes:
        sleeps: the seconds of every sleep, in order.

    Raises:
        TypeError, ValueError: start is no finite number.
    """

    # `_lock` guards `_now` and `sleeps`. An RLock, for a signal handler may look at the clock.

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

    def advance(self, seconds: float) -> None:
        """Let time pass, >= 0 and finite.

        Raises:
            TypeError, ValueError: seconds is no such number.
        """
        passed = checks.number("seconds", seconds, minimum=0)
        with self._lock:
            now = self._now + passed
            if now == math.inf:
                raise ValueError(f"seconds must leave the clock finite, got {passed:g} at {self._now:g} s")
            self._now = now

    def sleep(self, seconds: float) -> None:
        """Advance at once instead of sleeping, and remember it in `sleeps`.

        Raises:
            TypeError, ValueError: seconds is no finite number >= 0.
        """
        passed = checks.number("seconds", seconds, minimum=0)
        with self._lock:
            self.advance(passed)
            self.sleeps.append(passed)

    async def sleep_async(self, seconds: float) -> None:
        """Do the same for async code; other tasks get their turn, and a cancellation arrives here.

        Raises:
            TypeError, ValueError: seconds is no finite number >= 0.
        """
        self.sleep(seconds)
        await checkpoint()


@contextmanager
def instant_retries() -> Generator[None]:
    """Let no policy sleep inside, in any thread or task of this process: not even a `sleep=` of its own is called.

    All else stays as it is: the number of attempts, budgets, listeners and the delays they are told. A sleep left out
    counts as slept, so that a deadline (`max_elapsed_s`) ends the attempts where it would in earnest. In async code
    other tasks get their turn instead. It may be nested, and decorate a plain function.
    """
    instant.append(None)
    try:
        yield
    finally:
        instant.pop()
