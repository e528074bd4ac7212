"""What a line says: when a call began, how long it took, how it ended, which circuit and process made it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from math import isfinite
from typing import Any, Final, NamedTuple

from ..calls import FAILURE, IGNORED, SUCCESS
from .conditions import Condition, as_number, as_text, field
from .problems import LineError

REJECTED: Final = 3
OUTCOMES: Final = {"success": SUCCESS, "failure": FAILURE, "ignored": IGNORED, "refused": REJECTED}

PER_SECOND: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
EITHER: Final = "number of seconds or ISO 8601"
ISO: Final = "iso"
CLF: Final = "clf"  # the time of access logs: 28/Nov/2025:14:05:09 +0100
LATEST: Final = 1e11  # seconds since 1970 that no log has; milliseconds are more than that

_MONTHS: Final = {
    name: number + 1
    for number, name in enumerate(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"])
}
_CLF: Final = re.compile(r"\[?(\d\d)/(\w{3})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)\]?")


class Column(NamedTuple):
    """A column, and the unit of what is in it."""

    name: str
    unit: str


OUR_TIME: Final = Column("t", "s")
OUR_DURATION: Final = Column("ms", "ms")


@dataclass(frozen=True)
class Format:
    """How to read the lines of a log.

    Attributes:
        csv: the lines are rows of a table, the first of which has the names of the columns.
        pattern: a regular expression whose named groups are the columns; if neither, lines are objects of JSON.
        time: when a call began, or ended if `at_end`.
        duration: how long it took.
        failed: what makes a call a failure; None: the column `outcome` says so, in the words of `CallLog`.
        ignored: what makes it neither a success nor a failure.
        only: conditions that the line of a call meets, each of them.
        by: the column that says which process made the call.
    """

    csv: bool = False
    pattern: re.Pattern[str] | None = None
    time: Column = OUR_TIME
    duration: Column = OUR_DURATION
    at_end: bool = False
    failed: Condition | None = None
    ignored: Condition | None = None
    only: tuple[Condition, ...] = ()
    by: str = "by"

    @property
    def columns(self) -> list[str]:
        """The columns that a line must have."""
        conditions = [condition for condition in (self.failed, self.ignored, *self.only) if condition is not None]
        named = [column for condition in conditions for column in condition.columns]
        return [self.time.name, self.duration.name, *([] if self.failed else ["outcome"]), *named]


OURS: Final = Format()


class Call(NamedTuple):
    """What a line says: times are in seconds, `begin` since the epoch."""

    begin: float
    took: float
    outcome: int
    circuit: str | None
    by: str | None


def call(row: Mapping[str, Any], form: Format) -> Call | None:
    """Return the call that a line tells about, None if it tells about none.

    Raises:
        LineError: something in it cannot be understood.
    """
    if not all(condition.holds(row) for condition in form.only):
        return None
    outcome = _outcome(row, form)
    at = _time(field(row, form.time.name), form.time)
    took = 0.0 if outcome == REJECTED else _duration(field(row, form.duration.name), form.duration)
    begin = at - took if form.at_end else at
    return Call(begin, took, outcome, _name(row.get("circuit")), _name(field(row, form.by)))


def _outcome(row: Mapping[str, Any], form: Format) -> int:
    if form.ignored is not None and form.ignored.holds(row):
        return IGNORED
    if form.failed is not None:
        return FAILURE if form.failed.holds(row) else SUCCESS
    word = row.get("outcome")
    if not isinstance(word, str) or word not in OUTCOMES:
        raise LineError("no outcome" if word is None else f"outcome is none of {', '.join(OUTCOMES)}")
    return OUTCOMES[word]


def _time(value: object, column: Column) -> float:
    if value is None:
        raise LineError(f"no {column.name}, which --time may name otherwise")
    try:
        seconds = _SPELLED[column.unit](str(value)) if column.unit in _SPELLED else _number(value, column)
    except (ValueError, OverflowError) as error:
        hint = f"; give --time {column.name}:clf" if _CLF.fullmatch(str(value)) else ""
        raise LineError(f"{column.name} is not a time ({column.unit}){hint}") from error
    if not isfinite(seconds) or abs(seconds) > LATEST:
        hint = f"if it is in milliseconds, give --time {column.name}:ms"
        raise LineError(f"{column.name} is not a time since 1970; {hint}")
    return seconds


def _duration(value: object, column: Column) -> float:
    if value is None:
        raise LineError(f"no {column.name}, which --duration may name otherwise")
    seconds = _number(value, column)
    if not 0 <= seconds < LATEST:
        raise LineError(f"{column.name} is not a duration")
    return seconds


def _number(value: object, column: Column) -> float:
    number = as_number(value)
    if number is None:
        raise LineError(f"{column.name} is not a number")
    # Divided by a whole number, since a thousandth is none that floats have.
    return number / PER_SECOND[column.unit]


def _name(value: object) -> str | None:
    return None if value is None else as_text(value)


def _iso(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _either(text: str) -> float:
    number = as_number(text)
    return _iso(text) if number is None else number


def _clf(text: str) -> float:
    match = _CLF.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        raise ValueError(text)
    day, month, year, hour, minute, second, sign, hours, minutes = match.groups()
    east = timedelta(hours=int(hours), minutes=int(minutes)) * (1 if sign == "+" else -1)
    moment = datetime(int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=timezone(east))
    return moment.timestamp()


_SPELLED: Final = {EITHER: _either, ISO: _iso, CLF: _clf}
