"""Circuits to look at: stores that are filled by hand, as processes would fill them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from circuit_breaker._common.words import CircuitMode
from circuit_breaker._shared import changes
from circuit_breaker._shared.protocol import MemberLine, Report
from circuit_breaker._shared.record import Edit, Lease, Record, Rules
from circuit_breaker.stores import MemoryStore
from circuit_breaker.testing import FakeClock

KINDS = ("successes", "failures", "slow", "rejected")


class Scene:
    """A store, and what processes do with it, on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.clock = FakeClock(1_700_000_000.0)
        self.store = MemoryStore(clock=self.clock, manual=True)
        self.epochs: dict[str, int] = {}

    def count(self, name: str, successes: int = 0, failures: int = 0, slow: int = 0, rejected: int = 0) -> None:
        """Add to the totals of the present epoch."""
        epoch = self.epochs.get(name, 0)
        numbers = dict(zip(KINDS, (successes, failures, slow, rejected), strict=True))
        self.store.exchange([Report(name, {f"{epoch}.{kind}": number for kind, number in numbers.items()}, ())], None)

    def write(self, name: str, record: Record | str) -> None:
        """Put a record into the store."""
        if isinstance(record, Record):
            self.epochs[name] = record.epoch
        self.store.update(name, lambda text, now: record if isinstance(record, str) else record.text())

    def open(
        self,
        name: str,
        for_s: float = 30.0,
        ago_s: float = 0.0,
        reason: str = "5 failures in a row",
        by: str = "web-1:12",
    ) -> None:
        """Open a circuit, as so long ago."""
        since = self.clock() - ago_s
        self.write(name, Record(7, True, since, reason, by, rules=Rules(for_s, 3, 2, 1)))

    def half_open(self, name: str, probes: int = 1, ago_s: float = 31.0, by: str = "web-1:12") -> None:
        """Let a circuit be half-open, with so many probes out."""
        leases = tuple(Lease(f"t{number}", self.clock() + 9.0, 10.0) for number in range(probes))
        reason = "failure rate 62% of 40 calls"
        self.write(name, Record(5, True, self.clock() - ago_s, reason, by, rules=Rules(30.0, 3, 2, 1), leases=leases))

    def close(self, name: str, ago_s: float = 3_600.0, by: str = "web-2:33") -> None:
        """Let a circuit be closed again since so long."""
        self.write(name, Record(9, False, self.clock() - ago_s, "2 probes succeeded", by))

    def order(self, name: str, mode: CircuitMode, by: str = "console ops-1:4711", ago_s: float = 0.0) -> None:
        """Give an order, as so long ago."""
        now = self.clock()
        edit = Edit(lambda record, _: changes.ordered(mode, by)(record, now - ago_s))
        self.store.update(name, edit)
        assert edit.record is not None
        self.epochs[name] = edit.record.epoch

    def member(
        self, host: str, pid: int, circuits: Mapping[str, str], age_s: float = 7_200.0, lasts_s: float = 1e6
    ) -> None:
        """Let a process say what its circuits are."""
        by_state: dict[str, list[str]] = {}
        for name, state in circuits.items():
            by_state.setdefault(state, []).append(name)
        line = {"host": host, "pid": pid, "age_s": age_s, "lasts_s": lasts_s, "circuits": by_state}
        self.store.exchange([], MemberLine(f"{host}:{pid}", json.dumps(line)))

    def members(self, circuits: Iterable[str], hosts: int = 2, processes: int = 4, **states: str) -> None:
        """Let several processes say what all circuits are: closed, if nothing else is said."""
        for host in range(1, hosts + 1):
            for pid in range(processes):
                self.member(
                    f"web-{host}", 100 * host + 10 + pid, {name: states.get(name, "closed") for name in circuits}
                )
