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

    # The lock guards the three dicts. `change` of an update is called outside it.

    def __init__(self) -> None:
        self._lock = RLock()
        self._records: dict[str, str] = {}
        self._totals: dict[str, dict[str, int]] = {}
        self._members: dict[str, tuple[str, float]] = {}
        fork.survive(self)

    def clear(self) -> None:
        """Forget everything, as a server does that was restarted without its data."""
        with self._lock:
            self._records.clear()
            self._totals.clear()
            self._members.clear()

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()


class MemoryStore(BaseStore):
    """Keeps circuits in memory. Stores that share a board share their circuits, each as if it were a process.

    Args:
        board: that of another store, `other.board`; None: a new one.
        clock: a function that returns seconds, the store's time; a test gives all stores of a board the same one.
        manual: without a thread. Then `sync()` alone exchanges, and besides it only the calls that wait for the store:
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
        with board._lock:
            if member is not None:
                board._members.pop(member.key, None)
                if member.text is not None:
                    board._members[member.key] = member.text, now
            return Exchange(now, [self._exchange_locked(report) for report in reports])

    def _exchange_locked(self, report: Report) -> Found:
        totals = self.board._totals.setdefault(report.name, {})
        for total in report.forget:
            totals.pop(total, None)
        for total, number in report.add.items():
            totals[total] = totals.get(total, 0) + number
        return Found(self.board._records.get(report.name), [totals.get(total) for total in report.read])

    def update(self, name: str, change: Change) -> None:
        """Change a record as one compare-and-swap."""
        records, written = self.board._records, False
        while not written:
            before = records.get(name)
            after = change(before, self.clock())
            with self.board._lock:
                written = records.get(name) == before
                if written and after is not None:
                    records[name] = after

    def circuits(self) -> Sequence[SharedCircuit]:
        """Return all circuits that are there."""
        board, now = self.board, self.clock()
        with board._lock:
            found = {name: dict(totals) for name, totals in board._totals.items()}
            records = dict(board._records)
        names = sorted(found.keys() | records.keys())
        return [SharedCircuit.read(name, records.get(name), found.get(name, {}), now) for name in names]

    def members(self) -> Sequence[Member]:
        """Return all processes that are there."""
        now = self.clock()
        with self.board._lock:
            lines = list(self.board._members.values())
        return [member for text, seen in lines if (member := Member.read(text, seen, now)) is not None]
