"""The record: what the store says about one circuit.

A record is a text in the store, written by compare-and-swap alone; `changes` has all that can be done to it. An epoch
is one stay in one state: every opening, reopening, closing and order begins a new one. Half-open is not an epoch of its
own: it is an open circuit whose time is over.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf, isfinite
from typing import Any, Final, NamedTuple

from .._common.words import CircuitMode

VERSION: Final = 1
LONGEST_TEXT: Final = 65_536
LONGEST_REASON: Final = 300
LARGEST_EPOCH: Final = 2**53 - 1
ENDLESS_S: Final = 1e9  # an open time from here on has no end
AUTO: Final = CircuitMode.AUTO


class Unreadable(ValueError):
    """What the store holds for a circuit is not what this library writes."""


class Rules(NamedTuple):
    """What the member that opens a circuit decides for all members."""

    open_s: float
    probes: int
    success_threshold: int
    failure_threshold: int


class Lease(NamedTuple):
    """The right to make one probe, until the store's clock says `until`."""

    token: str
    until: float
    length_s: float

    def live(self, now: float) -> bool:
        """Tell whether it still occupies a probe slot; a clock that has jumped ends it."""
        return 0 < self.until - now <= 1.1 * self.length_s


class Record(NamedTuple):
    """Where a circuit is.

    Attributes:
        since: the store's time when this epoch began.
        openings: how many times in a row the circuit had opened before.
        leases: those that have not been answered; only live ones occupy a probe slot.
    """

    epoch: int
    open: bool
    since: float
    reason: str
    by: str
    mode: CircuitMode = AUTO
    openings: int = 0
    rules: Rules = Rules(0.0, 1, 1, 1)
    successes: int = 0
    failures: int = 0
    leases: tuple[Lease, ...] = ()

    def remaining_s(self, now: float) -> float:
        """Return how long the circuit stays open, which is never longer than it opened for."""
        return max(0.0, min(self.since + self.rules.open_s - now, self.rules.open_s))

    def probes_out(self, now: float) -> int:
        """Return how many probe slots are occupied."""
        return sum(lease.live(now) for lease in self.leases)

    def holds(self, token: str, now: float) -> bool:
        """Tell whether this token may probe now."""
        return any(lease.token == token and lease.live(now) for lease in self.leases)

    def text(self) -> str:
        """Return what is written into the store."""
        plain = self._asdict() | {
            "v": VERSION,
            "mode": self.mode.value,
            "rules": [None if self.rules.open_s >= ENDLESS_S else self.rules.open_s, *self.rules[1:]],
            "leases": [list(lease) for lease in self.leases],
        }
        return json.dumps(plain, separators=(",", ":"))


Step = Callable[[Record | None, float], Record | None]


class Edit:
    """One compare-and-swap, for `Store.update`: it remembers the record that stands afterwards.

    Attributes:
        record: the record that stands; None: there is none.
        changed: whether the step changed it.
        now: the store's time.
        overwrite: it is an order, which writes over what cannot be read.
    """

    record: Record | None = None
    changed = False
    now = 0.0

    def __init__(self, step: Step, *, overwrite: bool = False) -> None:
        self._step = step
        self.overwrite = overwrite

    def __call__(self, text: str | None, now: float) -> str | None:
        try:
            before = read(text)
        except Unreadable:
            if not self.overwrite:
                raise
            before = Record(0, False, now, "", "", CircuitMode.SHADOW)  # a mode that no order leaves as it is
        after = self._step(before, now)
        self.record, self.changed, self.now = before if after is None else after, after is not None, now
        return None if after is None else after.text()


def is_order(change: object) -> bool:
    """Tell whether a change is an order; then totals that cannot be read must not stand in its way, either."""
    return isinstance(change, Edit) and change.overwrite


def epoch_of(record: Record | None) -> int:
    """Return the epoch that a record stands for; without one a circuit is closed, and has never been anything else."""
    return 0 if record is None else record.epoch


# Reading: whoever may write into the store may have written anything.


def read(text: str | None) -> Record | None:
    """Return the record that a text stands for, or None of no text.

    Raises:
        Unreadable: it is none of ours, of another version, or too long.
    """
    if text is None:
        return None
    if len(text) > LONGEST_TEXT:
        raise Unreadable(f"the record is longer than {LONGEST_TEXT} characters")
    try:
        return _record(json.loads(text))
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise Unreadable(f"the record cannot be read: {printable(str(error))}") from None


def total(value: int | None) -> int:
    """Return a total, which is 0 if there is none.

    Raises:
        Unreadable: it is out of range.
    """
    if not 0 <= (value or 0) <= LARGEST_EPOCH:
        raise Unreadable(f"a total is {value}")
    return value or 0


def _record(plain: Any) -> Record:
    if plain["v"] != VERSION:
        raise ValueError(f"version {plain['v']!r}, where {VERSION} is meant")
    open_s, *counts = plain["rules"]
    probes, success_threshold, failure_threshold = (_count(count, 1) for count in counts)
    return Record(
        _count(plain["epoch"], 1, LARGEST_EPOCH),
        _flag(plain["open"]),
        _number(plain["since"]),
        printable(plain["reason"]),
        printable(plain["by"]),
        _mode(plain["mode"]),
        _count(plain["openings"], 0),
        Rules(inf if open_s is None else _number(open_s, 0.0), probes, success_threshold, failure_threshold),
        _count(plain["successes"], 0),
        _count(plain["failures"], 0),
        tuple(Lease(printable(token), _number(until), _number(s, 0.0)) for token, until, s in plain["leases"]),
    )


def _count(value: Any, least: int, most: int = LARGEST_EPOCH) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _number(value: Any, least: float = -inf) -> float:
    if type(value) not in (int, float) or not isfinite(value) or value < least:
        raise ValueError(f"{value!r:.40} is no number")
    return float(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r:.40} is neither true nor false")
    return value


def _mode(value: Any) -> CircuitMode:
    mode = CircuitMode(value)
    if mode is CircuitMode.SHADOW:
        raise ValueError("no circuit is in shadow mode for all")
    return mode


def printable(text: str) -> str:
    """Return a text of another process such that it can be logged: short, and on one line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut(text))


def cut(text: str) -> str:
    if type(text) is not str:
        raise TypeError(f"{text!r:.40} is no text")
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 3]}..."
