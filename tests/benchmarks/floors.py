"""What the least that could do the job costs: written by hand, for one function, without any option."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Function: TypeAlias = Callable[..., Any]
CoroutineFunction: TypeAlias = Callable[..., Awaitable[Any]]

ATTEMPTS = 4
SLOTS = 10


def breaker(func: Function) -> Function:
    """Read the clock around the call, and under a lock count it and add up the time."""
    clock, lock = time.monotonic, threading.Lock()
    calls, elapsed_s = 0, 0.0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls, elapsed_s
        started = clock()
        try:
            result = func(*args, **kwargs)
        except BaseException:
            raise
        now = clock()
        with lock:
            calls += 1
            elapsed_s += now - started
        return result

    return wrapper


def async_breaker(func: CoroutineFunction) -> CoroutineFunction:
    """Do the same around an await."""
    clock, lock = time.monotonic, threading.Lock()
    calls, elapsed_s = 0, 0.0

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls, elapsed_s
        started = clock()
        try:
            result = await func(*args, **kwargs)
        except BaseException:
            raise
        now = clock()
        with lock:
            calls += 1
            elapsed_s += now - started
        return result

    return wrapper


def retry(func: Function) -> Function:
    """Call up to four times."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for _ in range(ATTEMPTS):
            try:
                return func(*args, **kwargs)
            except Exception:
                raise
        return None

    return wrapper


def bulkhead(func: Function) -> Function:
    """Hold one of ten slots of a semaphore."""
    semaphore = threading.Semaphore(SLOTS)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with semaphore:
            return func(*args, **kwargs)

    return wrapper
