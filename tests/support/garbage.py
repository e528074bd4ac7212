"""Finalize unreachable objects, on any Python."""

from __future__ import annotations

import gc
import weakref

from needs import CPYTHON


def collect() -> None:
    """Finalize all unreachable objects, also those that only unreachable objects refer to."""
    for _ in range(1 if CPYTHON else 3):  # PyPy runs finalizers after a collection, and forgets the objects at the next
        gc.collect()


def catch_up() -> None:
    """Finalize what CPython, which counts references, has finalized at once."""
    if not CPYTHON:
        collect()


class _Circular:
    """In a circle with itself; its destructor notes whether a weak reference still leads to it."""

    def __init__(self, seen: list[bool]) -> None:
        self.itself = self
        self.seen = seen
        self.reference = weakref.ref(self)

    def __del__(self) -> None:
        self.seen.append(self.reference() is not None)


def _is_garbage_seen() -> bool:
    seen: list[bool] = []
    _Circular(seen)
    collect()
    return seen == [True]


GARBAGE_IS_SEEN = _is_garbage_seen()
"""Whether weak references lead to an object until its destructor has run; up to 3.14 they are cleared before."""
