"""How many retries all callers together may make: a bucket of tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from .._common import checks, fork
from .._common.lock import RLock
from .._common.pattern import OnlyOne

__all__ = ["RetryBudget"]

# Tokens are counted in whole billionths, so that ten calls of 0.1 tokens each bring exactly one.
TOKEN: Final = 1_000_000_000

_ENDLESS: Final = 1e290  # tokens; in billionths they are still a float
_FASTEST: Final = 1e280  # tokens per second; _ENDLESS of them take three centuries


class RetryBudget(OnlyOne):
    """Limits retries to a share of the calls, so that a server that is failing gets little more than its usual load.

    It is a bucket of tokens, full at first. Each call adds `ratio` tokens, each second adds `min_per_second`, and each
    retry takes one. If there is no token, the error is raised instead of retried. A retry that is cancelled while it
    sleeps gives its token back.

    Policies, threads, tasks and event loops may share one budget. Use one for each server: policies that share a budget
    stop retrying together. After a fork, the child continues with its own budget and the tokens that were left.

    Args:
        ratio: Tokens that each call adds, >= 0. 0.2 allows one retry for every five calls.
        min_per_second: Tokens that each second adds, >= 0. They allow a client that makes few calls to retry.
        burst: Tokens that the bucket holds at most, an int >= 0. 0: no retry is ever allowed.
        clock: A function that returns monotonic seconds.

    Raises:
        TypeError, ValueError: A setting has the wrong type or is out of range.
    """

    # `_lock` guards `_held`, the tokens (0 <= _held <= _full), and `_by_time`, all that the seconds since `_start` have
    # brought: the sum is kept, so that looking often rounds no part of a token away. Under the lock nothing of the
    # caller's is called, nor is the clock. It is re-entrant because on PyPy a destructor may run in the middle of a
    # locked section, and retry something on the very thread that holds the lock.

    def __init__(
        self,
        ratio: float = 0.2,
        min_per_second: float = 1.0,
        burst: int = 10,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ratio = checks.number("ratio", ratio, minimum=0)
        self._min_per_second = checks.number("min_per_second", min_per_second, minimum=0)
        self._burst = checks.count("burst", burst, 0)
        if self._burst > _ENDLESS:
            raise checks.wrong_value("burst", burst, f"an int >= 0 and <= {_ENDLESS:g}")
        self._clock = checks.function("clock", clock, "a function that returns seconds")
        self._full = self._burst * TOKEN
        self._per_call = round(min(self._ratio, self._burst) * TOKEN)
        self._per_second = min(self._min_per_second, _FASTEST)
        self._lock = RLock()
        self._held = self._full
        self._by_time = 0
        self._start = checks.reading(self._clock)
        fork.survive(self)

    def __repr__(self) -> str:
        return f"<RetryBudget: {self.tokens:g} of {self._burst} tokens left>"

    @property
    def ratio(self) -> float:
        """Tokens that each call adds."""
        return self._ratio

    @property
    def min_per_second(self) -> float:
        """Tokens that each second adds."""
        return self._min_per_second

    @property
    def burst(self) -> int:
        """Tokens that the bucket holds at most, and at first."""
        return self._burst

    @property
    def tokens(self) -> float:
        """Tokens in the bucket now."""
        self._add_seconds()
        return self._held / TOKEN

    def deposit(self) -> None:
        """Add the tokens of one call. Policies do this themselves."""
        if self._held < self._full:  # a full bucket, the usual one, takes no lock
            with self._lock:
                held = self._held + self._per_call
                self._held = held if held < self._full else self._full

    def take(self) -> bool:
        """Take one token and return True, or return False if there is none. Policies do this before each retry."""
        self._add_seconds()
        with self._lock:
            if self._held < TOKEN:
                return False
            self._held -= TOKEN
            return True

    def give_back(self) -> None:
        """Put one token back, of a retry that was not made. Policies do this themselves."""
        with self._lock:
            held = self._held + TOKEN
            self._held = held if held < self._full else self._full

    def _add_seconds(self) -> None:
        """Add the tokens of the seconds that have passed."""
        now = self._clock()
        by_time = round(min((now - self._start) * self._per_second, _ENDLESS) * TOKEN)
        with self._lock:
            if by_time > self._by_time:  # else a thread that read the clock later came first
                held = self._held + by_time - self._by_time
                self._held = held if held < self._full else self._full
                self._by_time = by_time

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()
