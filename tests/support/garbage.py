"""What nobody refers to any more is finalized, on any Python."""

from __future__ import annotations

import gc

from needs import CPYTHON


def collect() -> None:
    """Finalize all that nobody refers to, and what only that referred to."""
    for _ in range(1 if CPYTHON else 3):  # PyPy finalizes after a collection, and forgets the objects at the next
        gc.collect()


def catch_up() -> None:
    """Finalize what CPython, which counts references, has finalized at once."""
    if not CPYTHON:
        collect()
