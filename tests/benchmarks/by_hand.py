"""A breaker, a bulkhead, a registry and retries, as somebody writes them by hand: a lock, a few fields, a clock.

They are correct and safe to use from several threads, and have hardly any options.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

THRESHOLD = 5
RESET_TIMEOUT_S = 30.0
SLOTS = 10
MAX_RETRIES = 3
RETRYABLE = (Exception,)
BACKOFF_BASE_S, BACKOFF_FACTOR, BACKOFF_MAX_S = 0.1, 2.0, 30.0


class Breaker:
    """Opens after some failures in a row, and admits calls again after a while; a success closes it."""

    def __init__(self, threshold: int = THRESHOLD) -> None:
        self._lock = threading.Lock()
        self._threshold = threshold
        self._state = "closed"
        self._streak = 0
        self._opened_at = 0.0
        self._successes = 0
        self._failures = 0
        self._latency_ms = 0.0
        self._last_at = 0.0

    def allow_request(self) -> bool:
        with self._lock:
            if self._state == "closed":
                return True
            if self._state == "open" and time.monotonic() - self._opened_at >= RESET_TIMEOUT_S:
                self._state = "half-open"
                return True
            return False

    def record_success(self, latency_ms: float) -> None:
        with self._lock:
            self._state = "closed"
            self._streak = 0
            self._successes += 1
            self._latency_ms += latency_ms
            self._last_at = time.monotonic()

    def record_failure(self, latency_ms: float) -> None:
        with self._lock:
            self._streak += 1
            self._failures += 1
            self._latency_ms += latency_ms
            self._last_at = time.monotonic()
            if self._state == "half-open" or self._streak >= self._threshold:
                self._state = "open"
                self._opened_at = self._last_at

    @property
    def state(self) -> str:
        with self._lock:
            return self._state

    @property
    def success_count(self) -> int:
        with self._lock:
            return self._successes

    @property
    def error_rate(self) -> float:
        with self._lock:
            total = self._successes + self._failures
            return self._failures / total if total else 0.0


class Slots:
    """Limits how many are inside at once; nobody waits."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._lock = threading.Lock()
        self._slots = slots
        self._active = 0

    def acquire(self) -> bool:
        with self._lock:
            if self._active >= self._slots:
                return False
            self._active += 1
            return True

    def release(self) -> None:
        with self._lock:
            if not self._active:
                raise ValueError("released more often than acquired")
            self._active -= 1

    @property
    def active_count(self) -> int:
        with self._lock:
            return self._active


class Registry:
    """Breakers by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._breakers: dict[str, Breaker] = {}

    def __getitem__(self, key: str) -> Breaker:
        with self._lock:
            breaker = self._breakers.get(key)
            if breaker is None:
                breaker = self._breakers[key] = Breaker()
            return breaker


def get_delay(attempt: int) -> float:
    """Return the seconds to wait after this attempt, with jitter."""
    return min(BACKOFF_BASE_S * BACKOFF_FACTOR**attempt * (0.5 + random.random()), BACKOFF_MAX_S)


def should_retry(error: BaseException) -> bool:
    """Tell whether the error is worth another attempt."""
    return isinstance(error, RETRYABLE)


def attempts() -> Iterator[int]:
    """Number the attempts of one call, and sleep before each but the first."""
    yield 0
    for attempt in range(MAX_RETRIES):
        time.sleep(get_delay(attempt))
        yield attempt + 1
