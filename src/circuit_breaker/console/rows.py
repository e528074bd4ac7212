"""What is said of each circuit: one row, in words that the page and the terminal share."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from math import inf, isfinite
from typing import Final, NamedTuple

from .._common.words import CircuitMode, CircuitState
from .._shared.protocol import Member, SharedCircuit
from .._shared.record import printable

NAMED_IN_A_HEADLINE: Final = 2
REJECTING: Final = ("open", "half_open", "forced_open")  # what a process may say of itself beside a closed circuit

OF_ITSELF: Final = {
    "closed": "closed",
    "open": "open by itself",
    "half_open": "half-open by itself",
    "forced_open": "forced open in the process",
    "forced_closed": "forced closed in the process",
    "shadow": "in shadow mode in the process",
}


class Kind(Enum):
    """How a circuit is; those that need attention come first."""

    OPEN = "open"
    FORCED_OPEN = "forced open"
    HALF_OPEN = "half-open"
    UNREADABLE = "unreadable"
    DIVIDED = "open in some processes"
    FORCED_CLOSED = "forced closed"
    CLOSED = "closed"


RANKS: Final = {kind: rank for rank, kind in enumerate(Kind)}


class Tone(Enum):
    """How much attention a row or a headline asks for."""

    BAD = "bad"
    WARN = "warn"
    GOOD = "good"


TONES: Final = {Kind.OPEN: Tone.BAD, Kind.FORCED_OPEN: Tone.BAD, Kind.CLOSED: Tone.GOOD}


class Order(NamedTuple):
    """The last order that is known: what it was, who gave it, and when, in the store's time."""

    what: str
    by: str
    at: float


class Row(NamedTuple):
    """A circuit, as it is shown.

    Attributes:
        key: short ASCII, and no two circuits have the same.
        name: on one line, without anything that a terminal would act on.
        processes: how many say what of themselves, as in `Member.circuits`.
    """

    key: str
    name: str
    kind: Kind
    circuit: SharedCircuit
    processes: Mapping[str, int]

    @property
    def tone(self) -> Tone:
        """How much attention it asks for."""
        return TONES.get(self.kind, Tone.WARN)

    @property
    def word(self) -> str:
        """The state for all, in a word or two."""
        return Kind.CLOSED.value if self.kind is Kind.DIVIDED else self.kind.value

    @property
    def reason(self) -> str:
        """Why the circuit is as it is, or why its record cannot be read; empty if nothing is known."""
        return printable(self.circuit.reason if self.circuit.error is None else self.circuit.error)

    @property
    def by(self) -> str:
        """The process that decided so, or whoever gave the order."""
        return printable(self.circuit.by)

    @property
    def retry_s(self) -> float | None:
        """Seconds until it probes; None if that is unknown, or never by itself, or now."""
        retry_s = self.circuit.retry_after_s
        return retry_s if self.kind is Kind.OPEN and retry_s is not None and isfinite(retry_s) else None

    @property
    def order(self) -> str | None:
        """The order that the record stands for, if it is one."""
        circuit = self.circuit
        if circuit.mode is not CircuitMode.AUTO:
            return self.kind.value
        return {"mode auto": "automatic", "reset": "reset"}.get(circuit.reason)

    def cause(self) -> str:
        """Return why it is so and who decided that; empty if nothing is known."""
        parts = ["ordered by " + self.by] if self.order and self.by else [self.reason, self.by and f"by {self.by}"]
        return ", ".join(filter(None, parts))

    def meaning(self) -> str:
        """Return what callers meet."""
        if self.kind is Kind.OPEN:
            never = self.circuit.retry_after_s == inf
            return "rejects every call, until somebody resets it" if never else "rejects every call"
        if self.kind is Kind.DIVIDED:
            total = sum(self.processes.values())
            rejecting = sum(self.processes.get(state, 0) for state in REJECTING)
            return f"admits calls, but {rejecting} of {total} processes {'rejects' if rejecting == 1 else 'reject'}"
        return MEANINGS[self.kind]

    def members(self) -> str:
        """Return what the processes say, the most frequent first: "7 closed, 1 open by itself"."""
        told: Counter[str] = Counter()
        for state, number in self.processes.items():
            word = self.own_state(state)
            told[word if number == 1 else word.replace("by itself", "by themselves")] += number
        return ", ".join(f"{number} {what}" for what, number in told.most_common())

    def own_state(self, state: str) -> str:
        """Return in words what one process says of itself."""
        ordered = self.circuit.mode is not CircuitMode.AUTO and state == "closed"
        return self.word if ordered or state == "for_all" else OF_ITSELF.get(state, state)


MEANINGS: Final = {
    Kind.FORCED_OPEN: "rejects every call, until another order",
    Kind.HALF_OPEN: "admits probes, rejects all other calls",
    Kind.UNREADABLE: "each process decides by itself",
    Kind.FORCED_CLOSED: "admits every call, whatever fails, until another order",
    Kind.CLOSED: "admits every call",
}


def rows_of(circuits: Iterable[SharedCircuit], members: Iterable[Member]) -> list[Row]:
    """Return a row for each circuit, those first that need attention."""
    processes: dict[str, Counter[str]] = {}
    for member in members:
        for name, state in member.circuits.items():
            processes.setdefault(name, Counter())[state] += 1
    rows = [_row(circuit, processes.get(circuit.name, Counter())) for circuit in circuits]
    return sorted(rows, key=lambda row: (RANKS[row.kind], row.name, row.key))


def _row(circuit: SharedCircuit, processes: Mapping[str, int]) -> Row:
    return Row(key_of(circuit.name), printable(circuit.name), _kind(circuit, processes), circuit, processes)


def _kind(circuit: SharedCircuit, processes: Mapping[str, int]) -> Kind:
    if circuit.state is None:
        return Kind.UNREADABLE
    if circuit.mode is CircuitMode.FORCED_OPEN:
        return Kind.FORCED_OPEN
    if circuit.mode is CircuitMode.FORCED_CLOSED:
        return Kind.FORCED_CLOSED
    if circuit.state is CircuitState.CLOSED:
        return Kind.DIVIDED if any(processes.get(state) for state in REJECTING) else Kind.CLOSED
    return Kind.OPEN if circuit.state is CircuitState.OPEN else Kind.HALF_OPEN


def key_of(name: str) -> str:
    """Return a short key for a name, which may be any str."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:20]


class Headline(NamedTuple):
    """What to know if one looks for a second: the main thing, and how many circuits are what."""

    main: str
    rest: str
    tone: Tone


def headline(rows: Sequence[Row], is_read: bool) -> Headline:
    """Sum all rows up; `is_read`: the store has ever been read."""
    if not is_read:
        return Headline("Nothing has been read yet", "", Tone.WARN)
    if not rows:
        return Headline("No circuits yet", "a circuit is shown once a process has called it", Tone.WARN)
    numbers = Counter(row.kind for row in rows)
    calm = "1 circuit is closed" if len(rows) == 1 else f"All {len(rows)} circuits are closed"
    if numbers[Kind.CLOSED] == len(rows):
        return Headline(calm, "", Tone.GOOD)
    rejecting = [row.name for row in rows if row.tone is Tone.BAD]
    worst = Tone.BAD if rejecting else Tone.WARN
    if not rejecting:
        number = len(rows) - numbers[Kind.CLOSED]
        main = "1 circuit needs a look" if number == 1 else f"{number} circuits need a look"
    elif len(rejecting) <= NAMED_IN_A_HEADLINE:
        main = f"{' and '.join(rejecting)} {'is' if len(rejecting) == 1 else 'are'} open"
    else:
        main = f"{len(rejecting)} of {len(rows)} circuits are open"
    rest = [f"{numbers[kind]} {kind.value}" for kind in Kind if numbers[kind]]
    return Headline(main, ", ".join(rest), worst)
