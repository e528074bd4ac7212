"""Tasks of two event loops, turned by hand, crowd a bulkhead; an oracle must agree with it after every step."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from unittest import mock

from bulkhead_oracle import BulkheadOracle, Caller
from examples import examples
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tally import LONG, Tally, missing
from ways import BULKHEAD

from circuit_breaker import Bulkhead, BulkheadFullError, BulkheadRejected

MODEL = "bulkhead"
WAYS = {name: way for name, way in BULKHEAD.items() if way.is_async}
KINDS = ("acquire", *WAYS)


class _Task:
    """One caller of the real bulkhead; inside, it stays until it is told to leave."""

    def __init__(self, bulkhead: Bulkhead, kind: str, loop: asyncio.AbstractEventLoop) -> None:
        self.status = "new"
        self.done = asyncio.Event()
        self._bulkhead = bulkhead
        self.task = loop.create_task(self._run(kind))

    async def _run(self, kind: str) -> None:
        self.status = "waiting"
        try:
            if kind == "acquire":
                self.status = "inside" if await self._bulkhead.acquire_async() else "refused"
            else:
                await WAYS[kind].awaited(self._bulkhead, self._stay)
                self.status = "left"
        except BulkheadFullError as error:
            assert error.bulkhead_name == "pool"
            self.status = "refused"
        except asyncio.CancelledError:
            self.status = "cancelled"
            raise

    async def _stay(self) -> None:
        self.status = "inside"
        await self.done.wait()


class BulkheadModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._undo = ExitStack()
        self._undo.enter_context(mock.patch("time.monotonic", lambda: self.now))

    @initialize(
        limit=st.integers(0, 3), queue=st.sampled_from([0, 1, 2, 5]), timeout_s=st.sampled_from([0.0, None, 5.0, 10.0])
    )
    def begin(self, limit: int, queue: int, timeout_s: float | None) -> None:
        self.loops = [asyncio.new_event_loop(), asyncio.new_event_loop()]
        self.other_loop = asyncio.new_event_loop()
        for loop in (*self.loops, self.other_loop):
            self._undo.callback(loop.close)
        self.heard: list[BulkheadRejected] = []  # looked at later: what a listener raises is lost
        self.bulkhead = Bulkhead("pool", limit, queue, timeout_s, listeners=[self.heard.append], clock=lambda: self.now)
        self.tally = Tally(MODEL)
        self.oracle = BulkheadOracle(limit, queue, timeout_s, self.tally)
        self.tasks: list[_Task] = []
        self.compare()

    def compare(self) -> None:
        self.tally.step()
        snapshot = self.bulkhead.snapshot()
        seen = {name: getattr(snapshot, name) for name in snapshot.__dataclass_fields__ if name != "name"}
        seen["callers"] = [task.status for task in self.tasks]
        due = self.oracle.picture()
        assert {name: seen[name] for name in seen if seen[name] != due[name]} == {
            name: due[name] for name in due if seen[name] != due[name]
        }
        assert self.heard == [BulkheadRejected("pool", *counts) for counts in self.oracle.events]
        assert self.bulkhead.active_count == len(self.oracle.inside)
        assert self.bulkhead.available_slots == max(0, self.oracle.limit - len(self.oracle.inside))
        assert not self.oracle.line or len(self.oracle.inside) >= self.oracle.limit
        used = len(self.oracle.inside) - self.oracle.limit
        usage = "overfull" if used > 0 else "full" if used == 0 else "with free slots"
        self.tally.met(f"{usage}, {len(self.oracle.line)} waiting")

    def turn(self) -> None:
        for number, loop in enumerate(self.loops):
            self.turn_one(number, loop)

    def turn_one(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(12):
            loop.call_soon(loop.stop)
            loop.run_forever()
        self.oracle.turn(number)

    def tell(self, what: str, number: int) -> None:
        """Let a caller know of something, when its loop turns."""
        self.oracle.todo.append((what, self.oracle.callers[number]))

    def settled(self) -> None:
        """What two callers were told is in no order that anybody promises: one at a time."""
        if self.oracle.todo:
            self.turn()

    @rule(kind=st.sampled_from(KINDS), loop=st.integers(0, 1), turned=st.booleans())
    def start(self, kind: str, loop: int, turned: bool) -> None:
        self.settled()
        self.oracle.callers.append(Caller(kind, loop))
        self.tasks.append(_Task(self.bulkhead, kind, self.loops[loop]))
        self.tell("start", -1)
        if turned:
            self.turn()
        self.compare()

    def _pick(self, number: int, statuses: tuple[str, ...]) -> int | None:
        found = [n for n, who in enumerate(self.oracle.callers) if who.status in statuses and not who.cancelled]
        found = [
            n for n in found if self.oracle.callers[n].status != "inside" or self.oracle.callers[n].kind != "acquire"
        ]
        return found[number % len(found)] if found else None

    @rule(number=st.integers(0, 7), turned=st.booleans())
    def cancel(self, number: int, turned: bool) -> None:
        if any(what != "start" for what, _ in self.oracle.todo) or len(self.oracle.todo) > 1:
            self.turn()
        chosen = self._pick(number, ("new", "waiting", "inside"))
        if chosen is None or (self.oracle.todo and self.oracle.callers[chosen].status != "new"):
            return
        who = self.oracle.callers[chosen]
        who.cancelled = True
        self.tasks[chosen].task.cancel()
        if who.status != "new":
            self.tell("cancel", chosen)
        else:
            self.tasks[chosen].task.add_done_callback(lambda _: setattr(self.tasks[chosen], "status", "cancelled"))
        if turned:
            self.turn()
        self.compare()

    @rule(number=st.integers(0, 7), turned=st.booleans())
    def finish(self, number: int, turned: bool) -> None:
        self.settled()
        chosen = self._pick(number, ("inside",))
        if chosen is None or self.oracle.callers[chosen] not in self.oracle.inside:
            return
        self.loops[self.oracle.callers[chosen].loop].call_soon(self.tasks[chosen].done.set)
        self.tell("finish", chosen)
        if turned:
            self.turn()
        self.compare()

    @rule(turned=st.booleans())
    def release(self, turned: bool) -> None:
        """Give back a slot that nobody's block or call has."""
        self.settled()
        if any(isinstance(who, Caller) and who.kind != "acquire" for who in self.oracle.inside):
            return
        try:
            self.bulkhead.release()
            released = True
        except RuntimeError:
            released = False
        assert released is self.oracle.release()
        if turned:
            self.turn()
        self.compare()

    @rule(inside_loop=st.booleans())
    def acquire(self, inside_loop: bool) -> None:
        self.settled()
        if not inside_loop:
            if not self.oracle.would_wait():
                assert self.bulkhead.acquire() is self.oracle.acquire()
        else:
            would_wait = self.oracle.would_wait()

            async def ask() -> None:
                try:
                    assert self.bulkhead.acquire() is self.oracle.acquire()
                except RuntimeError as error:
                    assert "acquire_async" in str(error)
                    assert would_wait
                    self.tally.met("to wait in a loop's own thread is refused")

            self.other_loop.run_until_complete(ask())
        self.compare()

    @rule(seconds=st.sampled_from([1.0, 5.0, 10.0]), turned=st.booleans())
    def wait(self, seconds: float, turned: bool) -> None:
        self.settled()
        self.now += seconds
        self.oracle.now = self.now
        if turned:
            self.turn()
        self.compare()

    @rule(limit=st.integers(0, 4), turned=st.booleans())
    def resize(self, limit: int, turned: bool) -> None:
        self.settled()
        self.bulkhead.resize(limit)
        self.oracle.resize(limit)
        if turned:
            self.turn()
        self.compare()

    @rule(loop=st.integers(0, 1))
    def turn_a_loop(self, loop: int) -> None:
        self.turn_one(loop, self.loops[loop])
        self.compare()

    def teardown(self) -> None:
        if hasattr(self, "oracle"):
            for task in self.tasks:
                task.task.cancel()
            for loop in self.loops:
                for _ in range(12):
                    loop.call_soon(loop.stop)
                    loop.run_forever()
            assert self.bulkhead.queued_count == 0
        self._undo.close()


WANTED = {
    "the first in the line is served",
    "released without a slot",
    "more slots",
    "fewer slots",
    "a waiter's time is over",
    "cancelled before it began",
    "admitted at once",
    "refused at once",
    "waits",
    "cancelled in the moment it was served",
    "cancelled while it waits",
    "to wait in a loop's own thread is refused",
    "with free slots, 0 waiting",
    "full, 0 waiting",
    "full, 1 waiting",
    "full, 2 waiting",
    "overfull, 1 waiting",
}

TestBulkheadModel = BulkheadModel.TestCase
TestBulkheadModel.settings = examples(
    3_000 if LONG else 400,
    stateful_step_count=60 if LONG else 30,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_model_reaches_every_state_and_rule() -> None:
    fewest = {"waits", "the first in the line is served", "refused at once", "a waiter's time is over"}
    assert missing(MODEL, WANTED if LONG else fewest) == set()
