"""Reads a store for everybody who looks: at most once a second, and nobody waits for a reading that another makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Final, NamedTuple

from .._common import fork
from .._common.lock import RLock
from .._shared.process import checked
from .._shared.protocol import Member, Store
from .._shared.record import printable
from .history import History, later
from .rows import Headline, Row, headline, rows_of

INTERVAL_S: Final = 1.0
LONGEST_READING_S: Final = 10.0  # one that takes longer is given up by the others
NOT_READ_YET: Final = "it has not been read yet"


class View(NamedTuple):
    """What was found when the store answered last.

    Attributes:
        at: the store's time then. `read_at`: the watcher's.
        error: why the newest attempt to read failed; None: it did not.
        names: the name of each circuit, by the key of its row.
    """

    at: float = 0.0
    read_at: float = -inf
    error: str | None = None
    rows: Sequence[Row] = ()
    members: Sequence[Member] = ()
    names: Mapping[str, str] = MappingProxyType({})
    history: History = MappingProxyType({})

    def headline(self) -> Headline:
        """Sum all rows up."""
        return headline(self.rows, self.read_at > -inf)


class Watcher:
    """Reads the circuits of a store; it is no member, and reading changes nothing.

    Any number of threads may look at once. One of them reads, if the last reading is a second old; the others get what
    is there already.
    """

    # The lock guards `_next_at`, which says when somebody has to read again; it is not held while one does.

    def __init__(self, store: object, clock: Callable[[], float] = time.monotonic) -> None:
        self.store: Store = checked(store, optional=False)
        self.clock = clock
        self._lock = RLock()
        self._next_at = -inf
        self._view = View(error=NOT_READ_YET)
        fork.survive(self)

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()
        self._next_at = -inf

    def look(self) -> View:
        """Return what is there, read now if it is time to."""
        now = self.clock()
        with self._lock:
            due = now >= self._next_at
            if due:
                self._next_at = now + LONGEST_READING_S
        if due:
            try:
                self._view = self._read(self._view)
            finally:
                self._next_at = self.clock() + INTERVAL_S
        return self._view

    def expire(self) -> None:
        """Let the next look read the store, since something has changed there."""
        self._next_at = -inf

    def _read(self, before: View) -> View:
        try:
            at = self.store.exchange([], None).time
            circuits, members = self.store.circuits(), self.store.members()
        except Exception as error:
            return before._replace(error=printable(f"{type(error).__name__}: {error}"))
        rows = rows_of(circuits, members)
        names = {row.key: row.circuit.name for row in rows}
        return View(at, self.clock(), None, rows, members, names, later(before.history, rows, at))
