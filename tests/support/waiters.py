"""Callers of a bulkhead in threads of their own, and what tests ask about them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from patience import PATIENCE_S

from circuit_breaker import Bulkhead


class Waiters:
    """Runs callers in threads, and knows when one of them goes to sleep in the line."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self.asleep = threading.Semaphore(0)

    def send(self, func: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run func, which will wait in the line, and return once it does."""
        future = self._pool.submit(func, *args)
        self.expect(1)
        return future

    def start(self, func: Callable[..., Any], *args: Any) -> Future[Any]:
        return self._pool.submit(func, *args)

    def expect(self, count: int) -> None:
        for _ in range(count):
            assert self.asleep.acquire(timeout=PATIENCE_S)


def soon(future: Future[Any]) -> Any:
    return future.result(PATIENCE_S)


def first_in_line(bulkhead: Bulkhead) -> Any:
    """Return the caller that is served next."""
    first = bulkhead._line.first
    assert first is not None
    return first


def is_free(lock: Any) -> bool:
    """Tell whether no thread holds the lock, this one included."""

    def is_free() -> bool:
        got = bool(lock.acquire(blocking=False))
        if got:
            lock.release()
        return got

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(is_free).result()


def opened_streams(bulkhead: Bulkhead) -> list[Any]:
    """Return streams that each hold a slot, until they are dropped."""

    @bulkhead
    def guarded() -> Iterator[int]:
        yield 1

    def by_hand() -> Iterator[int]:
        with bulkhead:
            yield 1

    streams = [guarded(), by_hand()]
    for stream in streams:
        next(stream)
    return streams
