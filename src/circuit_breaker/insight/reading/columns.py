"""The lines of files as columns of numbers, many lines at once where they are those of `CallLog`."""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from typing import Any, Final, cast

from .files import blocks
from .formats import LATEST, OURS, OUTCOMES, REJECTED, Call, Format, call
from .problems import LineError, LogError, Unread

AT_ONCE: Final = 500
DELIMITERS: Final = ",;\t"
NUMBERS: Final = frozenset({int, float})
NAMES: Final = frozenset({str, type(None)})


class Names:
    """Numbers for names, in the order in which they come."""

    def __init__(self) -> None:
        self.numbers: dict[str | None, int] = {}

    def number(self, name: str | None) -> int:
        """Return the number of a name."""
        return self.numbers.setdefault(name, len(self.numbers))


class Columns:
    """The calls of all files, in the order of their lines.

    Attributes:
        begin: when each call began, in seconds since the epoch.
        took: for how many seconds it lasted.
        outcome: its outcome, or REJECTED.
        circuit: the number of its circuit in `circuits`.
        by: the number of its process in `processes`.
        lines: how many lines were read.
        other_lines: how many of them were about no call.
        unread: those that could not be read.
    """

    def __init__(self) -> None:
        self.begin = array("d")
        self.took = array("d")
        self.outcome = bytearray()
        self.circuit = array("i")
        self.by = array("i")
        self.circuits = Names()
        self.processes = Names()
        self.lines = 0
        self.other_lines = 0
        self.unread = Unread()

    def __len__(self) -> int:
        return len(self.begin)

    def add(self, one: Call) -> None:
        """Add a call."""
        self.begin.append(one.begin)
        self.took.append(one.took)
        self.outcome.append(one.outcome)
        self.circuit.append(self.circuits.number(one.circuit))
        self.by.append(self.processes.number(one.by))

    def keep(self, numbers: Iterable[int]) -> None:
        """Keep the calls of these numbers, in this order."""
        numbers = list(numbers)
        self.begin = array("d", map(self.begin.__getitem__, numbers))
        self.took = array("d", map(self.took.__getitem__, numbers))
        self.outcome = bytearray(map(self.outcome.__getitem__, numbers))
        self.circuit = array("i", map(self.circuit.__getitem__, numbers))
        self.by = array("i", map(self.by.__getitem__, numbers))

    def add_many_of_ours(self, lines: list[bytes]) -> bool:
        """Add calls as `CallLog` writes them; False, with nothing added, if one of the lines is in any way unusual."""
        try:
            rows: list[dict[str, Any]] = json.loads(b"[" + b",\n".join(lines) + b"]")
            times = [row["t"] for row in rows]
            begin = array("d", times)
            milliseconds = [row["ms"] for row in rows]
            took = array("d", [number / 1e3 for number in milliseconds])
            outcome = bytearray([OUTCOMES[row["outcome"]] for row in rows])
            circuit = [row.get("circuit") for row in rows]
            by = [row.get("by") for row in rows]
        except (ValueError, LookupError, TypeError, OverflowError, AttributeError, RecursionError):
            return False
        usual = (
            len(rows) == len(lines)
            and REJECTED not in outcome
            and NUMBERS.issuperset(map(type, times))
            and NUMBERS.issuperset(map(type, milliseconds))
            and NAMES.issuperset(map(type, circuit))
            and NAMES.issuperset(map(type, by))
            and isfinite(sum(begin))
            and isfinite(sum(took))
            and min(took) >= 0
            and max(took) < LATEST
            and max(map(abs, begin)) < LATEST
        )
        if usual:
            self.begin += begin
            self.took += took
            self.outcome += outcome
            self.circuit.extend(map(self.circuits.number, circuit))
            self.by.extend(map(self.processes.number, by))
            self.lines += len(lines)
        return usual


def read(path: str, form: Format, columns: Columns, progress: Callable[[float | None], object]) -> None:
    """Read the calls of a file; `progress` gets the share that has been read, if it is known.

    Raises:
        LogError: the file cannot be read, or has no column that is asked for.
    """
    if form.csv:
        _read_table(path, form, columns, progress)
        return
    lines = 0
    for block in blocks(path):
        for first in range(0, len(block.lines), AT_ONCE):
            some = block.lines[first : first + AT_ONCE]
            if form is not OURS or not columns.add_many_of_ours(some):
                _read_one_by_one(path, lines, some, form, columns)
            lines += len(some)
        progress(block.done)


def _read_one_by_one(path: str, before: int, lines: list[bytes], form: Format, columns: Columns) -> None:
    for number, line in enumerate(lines, before + 1):
        try:
            row = _object(line) if form.pattern is None else _matched(line, form.pattern)
            _add(row, form, columns)
        except LineError as error:
            columns.unread.add(f"{path}:{number}", line, str(error))
    columns.lines += len(lines)


def _add(row: Mapping[str, Any] | None, form: Format, columns: Columns) -> None:
    """Add the call that a row is about, if it is about one."""
    found = None if row is None else call(row, form)
    if found is None:
        columns.other_lines += 1
    else:
        columns.add(found)


def _object(line: bytes) -> Mapping[str, Any] | None:
    if not line.strip():
        return None
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError("not JSON") from error
    if not isinstance(row, dict):
        raise LineError("not a JSON object")
    return cast("dict[str, Any]", row)


def _matched(line: bytes, pattern: re.Pattern[str]) -> Mapping[str, str | None] | None:
    match = pattern.search(line.decode("utf-8", "replace").rstrip("\r"))
    return None if match is None else match.groupdict()


# Tables


def _read_table(path: str, form: Format, columns: Columns, progress: Callable[[float | None], object]) -> None:
    lines = _Lines(path, progress)
    first = next(lines, "")
    delimiter = max(DELIMITERS, key=first.count)
    nothing: list[str] = []
    header = next(csv.reader([first], delimiter=delimiter), nothing)
    _check_header(path, header, form)
    rows = csv.reader(lines, delimiter=delimiter)
    while True:
        try:
            row = next(rows, None)
            if row is None:
                break
            if not row:
                columns.other_lines += 1
                continue
            if len(row) != len(header):
                raise LineError(f"{len(row)} columns, the first line has {len(header)}")
            _add(dict(zip(header, row, strict=True)), form, columns)
        except (LineError, csv.Error) as error:
            columns.unread.add(f"{path}:{lines.number}", lines.last, str(error))
    columns.lines += lines.number - 1


class _Lines:
    """The lines of a file as text, and the last one that was taken."""

    def __init__(self, path: str, progress: Callable[[float | None], object]) -> None:
        self._lines = self._all(path, progress)
        self.last = ""
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.last = next(self._lines)
        self.number += 1
        return self.last

    def _all(self, path: str, progress: Callable[[float | None], object]) -> Iterator[str]:
        for block in blocks(path):
            for line in block.lines:
                yield line.decode("utf-8", "replace").removeprefix("\ufeff") + "\n"
            progress(block.done)


def _check_header(path: str, header: list[str], form: Format) -> None:
    twice = [name for name, number in Counter(header).items() if number > 1]
    if twice:
        raise LogError(f"{path} has two columns of the name {twice[0]!r}: its first line must name each once")
    there = ", ".join(header) or "none"
    for name in form.columns:
        if name in header:
            continue
        if name == "outcome":
            raise LogError(
                f"{path} has no column 'outcome': say which calls failed, as --failed 'status>=500'; it has {there}"
            )
        raise LogError(f"{path} has no column {name!r}; it has {there}")
