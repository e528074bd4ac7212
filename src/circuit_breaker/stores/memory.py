"""A store in the memory of one process: for tests, and to see how a shared circuit behaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from .._common import checks, fork
from .._common.lock import RLock
from .._shared.protocol import Change, Exchange, Found, Member, MemberLine, Report, SharedCircuit
from .._shared.store import BaseStore

__all__ = ["Board", "MemoryStore"]


class Board:
    """What several `MemoryStore` objects share. Each of them then stands for a process of its own."""

    # The lock guards which the three dicts are; whoever changes one puts a changed copy in its place. Under the lock
    # nothing is called.

    def __init__(self) -> None:
        self._lock = RLock()
        self._records: dict[str, str] = {}
        self._totals: dict[str, dict[str, int]] = {}
        self._members: dict[str, tuple[str, float]] = {}
        fork.survive(self)

    def clear(self) -> None:
        """Forget everything, as a server does that was restarted without its data."""
        records: dict[str, str] = {}
        totals: dict[str, dict[str, int]] = {}
        members: dict[str, tuple[str, float]] = {}
        with self._lock:
            self._records, self._totals, self._members = records, totals, members

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()


class MemoryStore(BaseStore):
    """Keeps circuits in memory. Stores that share a board share their circuits, each as if it were a process.

    Args:
        board: that of another store, `other.board`; None: a new one.
        clock: a function that returns seconds, the store's time; a test gives all stores of a board the same one.
        manual: True: no background thread. Data is exchanged only in `sync()` and in calls that wait for the store:
            the first one of a breaker, and one that may become a probe. So a test decides who learns what, and when.
        interval_s, timeout_s: as for `BaseStore`.

    Raises:
        TypeError, ValueError: a setting that is of the wrong type, or out of range.
    """

    def __init__(
        self,
        board: Board | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        manual: bool = False,
        interval_s: float | timedelta = 1.0,
        timeout_s: float | timedelta = 0.25,
    ) -> None:
        super().__init__(interval_s=interval_s, timeout_s=timeout_s)
        self.board = Board() if board is None else checks.instance("board", board, Board)
        self.clock = checks.function("clock", clock, "a function that returns seconds")
        self.manual = checks.flag("manual", manual)

    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        """Add, read and note who is there."""
        board, now = self.board, self.clock()
        while True:
            totals, members = board._totals, board._members
            new_totals, new_members = totals.copy(), members.copy()
            if member is not None:
                new_members.pop(member.key, None)
                if member.text is not None:
                    new_members[member.key] = member.text, now
            found = [_exchange(report, new_totals, board._records) for report in reports]
            with board._lock:
                mine = board._totals is totals and board._members is members
                if mine:
                    board._totals, board._members = new_totals, new_members
            if mine:
                return Exchange(now, found)

    def update(self, name: str, change: Change) -> None:
        """Change a record as one compare-and-swap."""
        while True:
            before = self.board._records.get(name)
            after = change(before, self.clock())
            if after is None or self._write(name, before, after):
                return

    def _write(self, name: str, before: str | None, after: str) -> bool:
        board = self.board
        records = board._records
        while records.get(name) == before:
            new = {**records, name: after}
            with board._lock:
                if board._records is records:
                    board._records = new
                    return True
                records = board._records  # another circuit was written
        return False

    def circuits(self) -> Sequence[SharedCircuit]:
        """Return all circuits that are there."""
        board, now = self.board, self.clock()
        totals, records = board._totals, board._records
        names = sorted(totals.keys() | records.keys())
        return [SharedCircuit.read(name, records.get(name), totals.get(name, {}), now) for name in names]

    def members(self) -> Sequence[Member]:
        """Return all processes that are there."""
        now = self.clock()
        lines = self.board._members.values()
        return [member for text, seen in lines if (member := Member.read(text, seen, now)) is not None]


def _exchange(report: Report, totals: dict[str, dict[str, int]], records: dict[str, str]) -> Found:
    mine = totals[report.name] = totals.get(report.name, {}).copy()
    for total in report.forget:
        mine.pop(total, None)
    for total, number in report.add.items():
        mine[total] = mine.get(total, 0) + number
    return Found(records.get(report.name), [mine.get(total) for total in report.read])
