"""`check_store` passes every store of this package, and finds what another does wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from circuit_breaker._shared.protocol import Change, Exchange, Found, Member, MemberLine, Report, SharedCircuit
from circuit_breaker.stores import Board, MemoryStore, SQLiteStore
from circuit_breaker.testing import check_store


def of(kind: type[MemoryStore]) -> Callable[[], MemoryStore]:
    board = Board()
    return lambda: kind(board)


def test_a_memory_store_passes() -> None:
    make = of(MemoryStore)
    check_store(make)
    assert {"crowd", "swap"} <= {circuit.name for circuit in make().circuits()}  # up to its last check


def test_an_sqlite_store_passes(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "circuits.db", timeout_s=20.0)
    check_store(lambda: SQLiteStore(tmp_path / "circuits.db", timeout_s=20.0))
    assert {"crowd", "swap"} <= {circuit.name for circuit in store.circuits()}


def test_one_store_for_all_passes() -> None:
    store = MemoryStore()
    check_store(lambda: store)
    assert {"crowd", "swap"} <= {circuit.name for circuit in store.circuits()}


class FourMethods:
    """A store without the orders of `BaseStore`."""

    def __init__(self, store: MemoryStore) -> None:
        self.exchange, self.update = store.exchange, store.update
        self.circuits, self.members = store.circuits, store.members


def test_a_store_with_the_four_methods_alone_passes() -> None:
    make = of(MemoryStore)
    check_store(lambda: FourMethods(make()))
    assert {"crowd", "swap"} <= {circuit.name for circuit in make().circuits()}


def test_what_is_not_a_store_is_rejected() -> None:
    with pytest.raises(TypeError, match="store must be a store"):
        check_store(object)


class TextTime(MemoryStore):
    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        return super().exchange(reports, member)._replace(time="now")  # type: ignore[arg-type]


class EmptyRecord(MemoryStore):
    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        answer = super().exchange(reports, member)
        return answer._replace(found=[found._replace(record=found.record or "") for found in answer.found])


class ZeroTotals(MemoryStore):
    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        answer = super().exchange(reports, member)
        return answer._replace(
            found=[found._replace(totals=[total or 0 for total in found.totals]) for found in answer.found]
        )


class WritesNone(MemoryStore):
    def update(self, name: str, change: Change) -> None:
        super().update(name, lambda text, now: change(text, now) or "")


class ReadsBeforeAdding(MemoryStore):
    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        before = super().exchange([report._replace(add={}) for report in reports], None)
        super().exchange(reports, member)
        return before


class ForgetsNothing(MemoryStore):
    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        return super().exchange([report._replace(forget=()) for report in reports], member)


class CutsNames(MemoryStore):
    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        return super().exchange([report._replace(name=report.name[:99]) for report in reports], member)


class CutsRecords(MemoryStore):
    def update(self, name: str, change: Change) -> None:
        super().update(name, lambda text, now: (change(text, now) or "")[:1_000] or None)


class SwallowsErrors(MemoryStore):
    def update(self, name: str, change: Change) -> None:
        try:
            super().update(name, change)
        except Exception:
            pass


class LosesUpdates(MemoryStore):
    def update(self, name: str, change: Change) -> None:
        after = change(self.board._records.get(name), self.clock())
        time.sleep(0.0001)
        if after is not None:
            self.board._records[name] = after


class AddsTwice(MemoryStore):
    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        if any(report.name == "crowd" for report in reports):
            super().exchange(reports, member)
        return super().exchange(reports, member)


class Errors(MemoryStore):
    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        answer = super().exchange(reports, member)
        return answer._replace(found=[Found(None, (), ValueError("broken")) for _ in answer.found])


class ListsNoCircuits(MemoryStore):
    def circuits(self) -> Sequence[SharedCircuit]:
        return [circuit for circuit in super().circuits() if circuit.name == "ordered"]


class OrdersNothing(MemoryStore):
    def force_open(self, name: str) -> None:
        pass


class ListsNoMembers(MemoryStore):
    def members(self) -> Sequence[Member]:
        return []


class KeepsMembers(MemoryStore):
    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        return super().exchange(reports, None if member is None or member.text is None else member)


class FailsInThreads(MemoryStore):
    def update(self, name: str, change: Change) -> None:
        if name == "swap":
            raise OSError("too many connections")
        super().update(name, change)


FAULTS: dict[type[MemoryStore], str] = {
    TextTime: "must be seconds as a float",
    EmptyRecord: "must have the record None",
    ZeroTotals: "nobody has added to must be None",
    WritesNone: "must write nothing if change returns None",
    ReadsBeforeAdding: "must be read after what was added",
    ForgetsNothing: "to forget must be gone",
    CutsNames: "every str is a name of its own",
    CutsRecords: "must be read as it was written",
    SwallowsErrors: "must come out of update",
    LosesUpdates: "made by threads at once",
    AddsTwice: "added by threads at once",
    Errors: "gave an error for the circuit",
    ListsNoCircuits: "must list every circuit",
    OrdersNothing: "must list what an order opened",
    ListsNoMembers: "must list who has written a line",
    KeepsMembers: "must not list who has left",
    FailsInThreads: "of 8 threads at once raised",
}


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_a_store_that_breaks_a_promise_is_found(kind: type[MemoryStore]) -> None:
    with pytest.raises(AssertionError, match=FAULTS[kind]):
        check_store(of(kind))


def test_two_stores_whose_time_differs_are_found() -> None:
    board = Board()
    clocks = iter([time.monotonic, lambda: 0.0])
    with pytest.raises(AssertionError, match="time must not go back"):
        check_store(lambda: MemoryStore(board, clock=next(clocks)))
