"""What a store is asked, and what it answers. It keeps texts and numbers, and understands neither."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from .._common.words import CircuitMode, CircuitState
from .record import LONGEST_TEXT, Record, Unreadable, epoch_of, printable, read, total

__all__ = ["Change", "Exchange", "Found", "Member", "MemberLine", "Report", "SharedCircuit", "Store"]

COUNTED: Final = ("successes", "failures", "slow", "rejected")  # the totals of one epoch, and attributes below

Change: TypeAlias = Callable[[str | None, float], str | None]


class Report(NamedTuple):
    """What one process says and asks about one circuit in an exchange.

    Attributes:
        name: of the circuit; any str.
        add: what to add to which total; a total that is not there is 0.
        read: the totals to return, as they are after that.
        forget: totals that nobody needs any more.
    """

    name: str
    add: Mapping[str, int]
    read: Sequence[str]
    forget: Sequence[str] = ()


class Found(NamedTuple):
    """What the store has for one circuit.

    Attributes:
        record: the text that `update` wrote last; None: there is none.
        totals: those that were asked for, in that order; None: there is none.
        error: why the totals, or the record too, cannot be read, in an exchange that otherwise succeeded.
    """

    record: str | None
    totals: Sequence[int | None]
    error: Exception | None = None


class Exchange(NamedTuple):
    """The answer to an exchange: the store's time in seconds, and what it found for each report, in their order."""

    time: float
    found: Sequence[Found]


class MemberLine(NamedTuple):
    """What a process says of itself: a short ASCII key that no other process has, and a text; None: it leaves."""

    key: str
    text: str | None


@dataclass(frozen=True)
class SharedCircuit:
    """One circuit, as the store has it.

    Attributes:
        state: what callers meet; None: the record cannot be read, and `error` says why.
        since_s: seconds since the circuit came into this state or, if it is half-open, since it opened; None: it has
            been closed ever since it is known.
        reason: why. `by`: the process that decided so, as `host:pid`.
        retry_after_s: seconds until a probe may pass; 0.0 when closed, None when unknown.
        probes_out: probes under way, over all processes.
        successes, failures, slow, rejected: totals of the present epoch.
    """

    name: str
    state: CircuitState | None
    mode: CircuitMode = CircuitMode.AUTO
    epoch: int = 0
    since_s: float | None = None
    reason: str = ""
    by: str = ""
    retry_after_s: float | None = 0.0
    probes_out: int = 0
    successes: int = 0
    failures: int = 0
    slow: int = 0
    rejected: int = 0
    error: str | None = None

    @classmethod
    def read(cls, name: str, record: str | None, totals: Mapping[str, int | None], now: float) -> SharedCircuit:
        """Return what a record's text and the totals beside it say at the store's time `now`."""
        try:
            return cls._of(name, read(record), totals, now)
        except Unreadable as error:
            return cls(name, None, retry_after_s=None, error=str(error))

    @classmethod
    def _of(cls, name: str, record: Record | None, totals: Mapping[str, int | None], now: float) -> SharedCircuit:
        epoch = epoch_of(record)
        successes, failures, slow, rejected = (total(totals.get(f"{epoch}.{kind}")) for kind in COUNTED)
        circuit = cls(
            name,
            CircuitState.CLOSED,
            epoch=epoch,
            successes=successes,
            failures=failures,
            slow=slow,
            rejected=rejected,
        )
        if record is None:
            return circuit
        circuit = replace(
            circuit,
            mode=record.mode,
            since_s=max(0.0, now - record.since),
            reason=record.reason,
            by=record.by,
            probes_out=record.probes_out(now),
        )
        if not record.open:
            return circuit
        remaining_s = record.remaining_s(now)
        if remaining_s > 0:
            known = record.mode is CircuitMode.AUTO
            return replace(circuit, state=CircuitState.OPEN, retry_after_s=remaining_s if known else None)
        return replace(circuit, state=CircuitState.HALF_OPEN, retry_after_s=None)


def totals_of(record: str | None) -> list[str]:
    """Return the names of the totals of the epoch that a record's text stands for.

    Raises:
        Unreadable: the text is no record.
    """
    return [f"{epoch_of(read(record))}.{kind}" for kind in COUNTED]


@dataclass(frozen=True)
class Member:
    """One process that takes part.

    Attributes:
        since: when it joined, in the store's time; `last_seen` likewise.
        circuits: what each of its circuits is there: `closed`, `open` or `half_open` if it decided so by itself,
            `for_all` if it is open or half-open because the record says so, or the mode that was set in that process.
    """

    host: str
    pid: int
    since: float
    last_seen: float
    circuits: Mapping[str, str]

    @classmethod
    def read(cls, text: str, last_seen: float, now: float) -> Member | None:
        """Return who wrote a line, or None: it cannot be read, or has not been written again for too long."""
        try:
            line: Any = json.loads(text) if len(text) <= LONGEST_TEXT else {}
            since = last_seen - float(line["age_s"])
            states: dict[str, list[str]] = line["circuits"]
            circuits = {str(name): printable(state) for state, names in states.items() for name in names}
            gone = abs(now - last_seen) > float(line["lasts_s"])
            return None if gone else cls(printable(line["host"]), int(line["pid"]), since, last_seen, circuits)
        except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
            return None


def member_text(circuits: Mapping[str, str], age_s: float, lasts_s: float) -> str:
    """Return the line of this process.

    Args:
        circuits: what each circuit is here; if there are too many for one line, some are left out.
        age_s: seconds since it joined.
        lasts_s: seconds after which the line is too old to be true.
    """
    by_state: dict[str, list[str]] = {}
    room = LONGEST_TEXT // 2
    for name, state in circuits.items():
        room -= len(json.dumps(name)) + 1
        if room > 0:
            by_state.setdefault(state, []).append(name)
    line = {"host": socket.gethostname(), "pid": os.getpid(), "age_s": age_s, "lasts_s": lasts_s, "circuits": by_state}
    return json.dumps(line, separators=(",", ":"))


class Store(Protocol):
    """Keeps circuits for many processes; `circuit_breaker.testing.check_store` tells whether one does.

    Every method may be called from any thread. One that cannot do its work raises an `Exception`; a breaker takes that
    as a store that is away. No method may wait for long: give your client a timeout.
    """

    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        """Add, read and note who is there, in one round trip; nothing is added twice.

        Args:
            reports: one for each circuit.
            member: the line of this process, if it is to be written.
        """
        ...

    def update(self, name: str, change: Change) -> None:
        """Call `change` with the record of a circuit (None: there is none) and the store's time; write what it returns.

        Between reading and writing nobody else may write. If somebody does, `change` is called again. What it raises
        passes on; None leaves the record as it is.
        """
        ...

    def circuits(self) -> Sequence[SharedCircuit]:
        """Return all circuits that are there."""
        ...

    def members(self) -> Sequence[Member]:
        """Return all processes that are there."""
        ...
