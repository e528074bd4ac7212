"""One circuit for many processes: give breakers a store, and all of one name are one circuit.

`SQLiteStore` serves the processes of one machine, `RedisStore` those of many, `MemoryStore` tests. See `Store` for how
to write one.
"""

from .._breaker.totals import SharedSnapshot
from .._shared.events import StoreFound, StoreLost
from .._shared.protocol import (
    Change,
    Exchange,
    Found,
    Member,
    MemberLine,
    Report,
    SharedCircuit,
    Store,
    member_text,
)
from .._shared.store import BaseStore
from .memory import Board, MemoryStore
from .redis import RedisStore
from .sqlite import SQLiteStore

__all__ = [
    "BaseStore",
    "Board",
    "Change",
    "Exchange",
    "Found",
    "Member",
    "MemberLine",
    "MemoryStore",
    "RedisStore",
    "Report",
    "SQLiteStore",
    "SharedCircuit",
    "SharedSnapshot",
    "Store",
    "StoreFound",
    "StoreLost",
    "member_text",
]
