"""How many retries all callers together may make: a bucket of tokens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from .._common import checks, fork
from .._common.pattern import OnlyOne

__all__ = ["RetryBudget"]

# Tokens are counted in whole billionths: ten calls of 0.1 tokens are one token, which they are not in floats.
TOKEN: Final = 1_000_000_000

_ENDLESS: Final = 1e290  # tokens; in billionths still a float
_FASTEST: Final = 1e280  # tokens per second: three centuries to as many


class RetryBudget(OnlyOne):
    """Retries stay a share of the calls: when everything fails, a server sees little more than its usual load.

    A bucket of tokens, full at first. Every call puts `ratio` tokens in, every second `min_per_second`, and every retry
    takes one; when there is none, the policy raises the error instead of retrying. A retry that is cancelled while it
    waits gives its token back.

    One budget may be shared by any number of policies, threads, tasks and event loops, and is meant to be: one for each
    server. In a forked child it goes on as a budget of the child's own, with the tokens it had.

    Args:
        ratio: tokens that each call puts in, >= 0; 0.2 allows one retry for every five calls.
        min_per_second: tokens that each second puts in, >= 0: what a client with few calls may retry.
        burst: tokens the bucket holds at most, an int; 0: no retry is ever allowed.
        clock: seconds that never go backwards.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """

    # `_lock` guards `_held` (the tokens, 0 <= _held <= _full) and `_by_time` (what the seconds since `_start` have
    # brought in all, so that however often one looks, no part of a token is rounded away or counted twice). Under it
    # nothing of the caller's is called, nor is the clock. It is an RLock because a finalizer or a signal handler may
    # come in between, on the very thread that holds it, and retry something.

    def __init__(
        self,
        ratio: float = 0.2,
        min_per_second: float = 1.0,
        burst: int = 10,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ratio = checks.number("ratio", ratio, minimum=0)
        self.min_per_second = checks.number("min_per_second", min_per_second, minimum=0)
        self.burst = checks.count("burst", burst, 0)
        if self.burst > _ENDLESS:
            raise checks.wrong_value("burst", burst, f"an int >= 0 and <= {_ENDLESS:g}")
        self._clock = checks.function("clock", clock, "a function that returns seconds")
        self._full = self.burst * TOKEN
        self._per_call = round(min(self.ratio, self.burst) * TOKEN)
        self._per_second = min(self.min_per_second, _FASTEST)
        self._lock = threading.RLock()
        self._held = self._full
        self._by_time = 0
        self._start = checks.reading(self._clock)
        fork.survive(self)

    def __repr__(self) -> str:
        return f"<RetryBudget: {self.tokens:g} of {self.burst} tokens left>"

    @property
    def tokens(self) -> float:
        """How many tokens there are now."""
        now = self._clock()
        with self._lock:
            self._add_seconds_locked(now)
            return self._held / TOKEN

    def deposit(self) -> None:
        """Put in what one call brings; policies do so themselves."""
        if self._held < self._full:  # a full bucket, which is what there is in peace, takes no lock
            with self._lock:
                self._held = min(self._held + self._per_call, self._full)

    def take(self) -> bool:
        """Take one token; False if there is none. Policies do so themselves, once before each retry."""
        now = self._clock()
        with self._lock:
            self._add_seconds_locked(now)
            if self._held < TOKEN:
                return False
            self._held -= TOKEN
            return True

    def give_back(self) -> None:
        """Put a token back that was taken for a retry which did not come to be."""
        with self._lock:
            self._held = min(self._held + TOKEN, self._full)

    def _add_seconds_locked(self, now: float) -> None:
        by_time = round(min((now - self._start) * self._per_second, _ENDLESS) * TOKEN)
        if by_time > self._by_time:  # else a thread that read the clock later was here before
            self._held = min(self._held + by_time - self._by_time, self._full)
            self._by_time = by_time

    def _after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
