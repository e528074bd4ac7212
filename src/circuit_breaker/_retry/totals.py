"""Totals of one policy. A call is counted from its first failure on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .._common import fork
from .._common.lock import RLock

__all__ = ["RetrySnapshot"]


@dataclass(frozen=True)
class RetrySnapshot:
    """Totals of a retry policy since it was made.

    Calls that succeed at their first attempt are not counted, so that they cost nothing. A call whose first attempt
    fails with an error that is not retried is not counted either.

    Attributes:
        failed_first_count: Calls whose first attempt failed in a way that is retried.
        retry_count: Retries: attempts after the first one of a call.
        recovered_count: Calls that succeeded after at least one retry.
        gave_up_count: Calls that failed in the end. `recovered_count` and `gave_up_count` add up to
            `failed_first_count`, except for calls that are still running, were cancelled, ended because a function of
            the settings raised (`sleep`, `retry_result` ...), or are loops over `attempts()` that were left early.
        total_sleep_s: Seconds slept before retries. With `instant_retries()`, seconds that would have been slept.
    """

    failed_first_count: int
    retry_count: int
    recovered_count: int
    gave_up_count: int
    total_sleep_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return the same as a dict for JSON."""
        return asdict(self)


class Totals:
    """The counts of one policy, exact under any number of threads."""

    # `_lock` guards all attributes below. Nothing is called under it, and nothing made that the garbage collector
    # counts, so no destructor and no signal handler runs there.

    __slots__ = (
        "__weakref__",
        "_blocked_loop",
        "_failed_first",
        "_gave_up",
        "_lock",
        "_recovered",
        "_retries",
        "_sleep_s",
    )

    def __init__(self) -> None:
        self._lock = RLock()
        self._failed_first = 0
        self._retries = 0
        self._recovered = 0
        self._gave_up = 0
        self._sleep_s = 0.0
        self._blocked_loop = False
        fork.survive(self)

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()

    def failed_first(self) -> None:
        """Count a call whose first attempt failed."""
        with self._lock:
            self._failed_first += 1

    def slept(self, seconds: float) -> None:
        """Count a retry, which begins after this sleep."""
        with self._lock:
            self._retries += 1
            self._sleep_s += seconds

    def recovered(self) -> None:
        """Count a call that succeeded after a retry."""
        with self._lock:
            self._recovered += 1

    def gave_up(self) -> None:
        """Count a call that ended without a success."""
        with self._lock:
            self._gave_up += 1

    def is_first_to_block_a_loop(self) -> bool:
        """Return True the first time, so that each policy warns once about a blocked event loop."""
        with self._lock:
            is_first = not self._blocked_loop
            self._blocked_loop = True
        return is_first

    def snapshot(self) -> RetrySnapshot:
        """Return a consistent copy of all counts."""
        with self._lock:
            failed_first = self._failed_first
            retries = self._retries
            recovered = self._recovered
            gave_up = self._gave_up
            sleep_s = self._sleep_s
        return RetrySnapshot(failed_first, retries, recovered, gave_up, sleep_s)
