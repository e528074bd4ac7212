"""Finalize unreachable objects, on any Python."""

from __future__ import annotations

import gc

from needs import CPYTHON


def collect() -> None:
    """Finalize all unreachable objects, also those that only unreachable objects refer to."""
    for _ in range(1 if CPYTHON else 3):  # PyPy runs finalizers after a collection, and forgets the objects at the next
        gc.collect()


def catch_up() -> None:
    """Finalize what CPython, which counts references, has finalized at once."""
    if not CPYTHON:
        collect()
