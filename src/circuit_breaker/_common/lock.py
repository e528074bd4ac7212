"""The lock around what callers share: re-entrant, and free again after an interrupt on every Python."""

from __future__ import annotations

import sys
import threading
from typing import Any

_RLock: Any = type(threading.RLock())


class ReadRLock(_RLock):  # type: ignore[misc]
    """An `RLock` that can be taken by reading its attribute `taken`; on 3.14 a `with` statement does so, too.

    CPython 3.14 looks for interrupts once `__enter__` of a lock has returned and before the block has begun, when no
    `__exit__` will follow (python/cpython#148874). It does so after each call of C code, but neither when a function
    returns nor after an attribute was read. Where speed counts, read it yourself, which is safe on every CPython, and
    takes half the time of `with` on some:

        _ = lock.taken
        try:
            ...
        finally:
            lock.release()
    """

    __slots__ = ()
    taken = property(_RLock.acquire)

    if sys.version_info[:2] == (3, 14):

        def __enter__(self) -> bool:
            return self.taken  # type: ignore[no-any-return]


RLock: type[threading.RLock] = ReadRLock if sys.version_info[:2] == (3, 14) else threading.RLock
