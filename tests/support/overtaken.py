"""A lock that another thread gets to first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Overtaken:
    """A lock with another thread that does something a moment before the lock is taken for the n-th time."""

    def __init__(self, lock: Any, other: Callable[[], object], taking: int = 1) -> None:
        self._lock = lock
        self._other = other
        self._takings = taking

    @property
    def taken(self) -> bool:
        self._takings -= 1
        if self._takings == 0:
            self._other()
        self._lock.__enter__()
        return True

    def release(self) -> None:
        self._lock.__exit__(None, None, None)

    def __enter__(self) -> bool:
        return self.taken

    def __exit__(self, *error: Any) -> None:
        self.release()
