"""What a bulkhead must do, told a second time: a list of who is inside, and a list of who waits."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from tally import Tally


@dataclass(eq=False)
class Caller:
    """One task that wants a slot, in a loop that runs only when it is told to."""

    kind: str
    loop: int
    status: str = "new"
    since: float = 0.0
    deadline: float = inf
    served: bool = False
    cancelled: bool = False


class BulkheadOracle:
    def __init__(self, limit: int, max_queue: int, timeout_s: float | None, tally: Tally) -> None:
        self.now = 1000.0
        self.limit, self.max_queue, self.timeout_s = limit, max_queue, timeout_s
        self.inside: list[object] = []
        self.line: list[Caller] = []
        self.callers: list[Caller] = []
        self.todo: list[tuple[str, Caller]] = []
        self.events: list[tuple[int, int, float | None]] = []
        self.accepted = self.rejected = self.timed_out = self.peak = 0
        self.waited_s = 0.0
        self._tally = tally

    def _take(self, who: object) -> None:
        self.inside.append(who)
        self.accepted += 1
        self.peak = max(self.peak, len(self.inside))

    def _refuse(self, waited_s: float | None = None) -> None:
        self.rejected += 1
        self.events.append((len(self.inside), len(self.line), waited_s))

    def serve(self) -> None:
        """Whoever waits first is given what is free, at once."""
        while self.line and len(self.inside) < self.limit:
            first = self.line.pop(0)
            self.waited_s += self.now - first.since
            first.served = True
            self._take(first)
            self._tally.met("the first in the line is served")

    def would_wait(self) -> bool:
        return len(self.inside) >= self.limit and len(self.line) < self.max_queue

    def acquire(self) -> bool:
        """Somebody asks who must not wait."""
        if len(self.inside) < self.limit:
            self._take("somebody")
            return True
        self._refuse()
        return False

    def release(self) -> bool:
        nameless = [who for who in self.inside if not isinstance(who, Caller) or who.kind == "acquire"]
        if not self.inside:
            self._tally.met("released without a slot")
            return False
        self.inside.remove(nameless[0] if nameless else self.inside[0])
        self.serve()
        return True

    def resize(self, limit: int) -> None:
        self._tally.met("more slots" if limit > self.limit else "fewer slots")
        self.limit = limit
        self.serve()

    def turn(self, loop: int) -> None:
        """Let this loop run until it has nothing to do: what it was told comes first, then whose time is over."""
        todo, self.todo = self.todo, [(what, who) for what, who in self.todo if who.loop != loop]
        for what, who in todo:
            if who.loop == loop:
                getattr(self, f"_{what}")(who)
        for who in sorted((w for w in self.line if w.loop == loop), key=lambda w: w.deadline):
            if self.now >= who.deadline:
                self._tally.met("a waiter's time is over")
                self._leave_line(who)
                self.timed_out += 1
                self._refuse(self.now - who.since)
                who.status = "refused"
        for who in self.callers:
            if who.loop == loop and who.served and who.status == "waiting":
                who.status = "inside"

    def _start(self, who: Caller) -> None:
        if who.cancelled:
            self._tally.met("cancelled before it began")
            who.status = "cancelled"
        elif len(self.inside) < self.limit:
            self._take(who)
            who.status = "inside"
            self._tally.met("admitted at once")
        elif len(self.line) >= self.max_queue:
            self._refuse()
            who.status = "refused"
            self._tally.met("refused at once")
        else:
            who.since, who.status = self.now, "waiting"
            who.deadline = self.now + self.timeout_s if self.timeout_s else inf
            self.line.append(who)
            self._tally.met("waits")

    def _cancel(self, who: Caller) -> None:
        if who.status == "waiting" and who.served:
            self._tally.met("cancelled in the moment it was served")
        elif who.status == "waiting":
            self._tally.met("cancelled while it waits")
        if who in self.line:
            self._leave_line(who)
        if who in self.inside:
            self.inside.remove(who)
        self.serve()
        who.status = "cancelled"

    def _finish(self, who: Caller) -> None:
        self.inside.remove(who)
        self.serve()
        who.status = "left"

    def _leave_line(self, who: Caller) -> None:
        self.line.remove(who)
        self.waited_s += self.now - who.since

    def picture(self) -> dict[str, Any]:
        return {
            "max_concurrent": self.limit,
            "max_queue": self.max_queue,
            "active_count": len(self.inside),
            "queued_count": len(self.line),
            "accepted_count": self.accepted,
            "rejected_count": self.rejected,
            "timed_out_count": self.timed_out,
            "peak_active_count": self.peak,
            "total_wait_s": self.waited_s,
            "callers": [who.status for who in self.callers],
        }
