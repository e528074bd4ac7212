"""A log out of files: sorted, without the holes that a breaker cut into it, one circuit for each process."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice, pairwise
from math import inf
from operator import le
from pathlib import PurePath
from typing import Final, TypeAlias

from ..calls import Calls, Circuit, Log
from .columns import Columns, read
from .formats import OURS, REJECTED, Format
from .problems import LogError, printable

FEWEST_CALLS: Final = 50
AROUND_A_HOLE_S: Final = 60.0
LONGEST_GAP_S: Final = 30 * 86_400.0
NOT_OURS: Final = "\nCallLog did not write these lines: say what they hold with --pattern, --csv, --time, ..."
ROOM: Final = 1.1  # for calls while reading, against those kept in the end

Progress: TypeAlias = Callable[[str, float | None], object]  # what is done, and which part of it


@dataclass(frozen=True)
class Choice:
    """Which calls of the files to look at.

    Attributes:
        circuit: the name of a circuit; None: there must be only one.
        processes: how many made the calls, where the log does not say which made which; None: it says, or it was one.
        begin: the wall-clock seconds of the earliest call; `end`: of the latest.
        max_calls: if there are more calls, only this number of the newest are read.
    """

    circuit: str | None = None
    processes: int | None = None
    begin: float = -inf
    end: float = inf
    max_calls: int = 10_000_000


def read_log(paths: Sequence[str], form: Format, choice: Choice, progress: Progress) -> Log:
    """Return what is in the files.

    Raises:
        LogError: they cannot be read, or nothing can be concluded from what they hold.
    """
    columns = Columns()
    dropped = 0

    def after_a_block(path: str, done: float | None) -> None:
        nonlocal dropped
        dropped += _drop_oldest(columns, choice.max_calls, ROOM)
        progress(f"reading {path}", done)

    for path in paths:
        read(path, form, columns, partial(after_a_block, path))
    columns.unread.check(columns.lines, NOT_OURS if form is OURS and not columns else "")
    progress("sorting", None)
    _choose(columns, choice, form)
    dropped += _drop_oldest(columns, choice.max_calls, 1.0)
    _sort(columns)
    _check_gaps(columns.begin)
    holes = _holes(columns)
    rejected = _without_holes(columns, holes)
    if len(columns) < FEWEST_CALLS:
        what = "no call" if not columns else "1 call" if len(columns) == 1 else f"{len(columns)} calls"
        left = " once the stretches with rejected calls are left out" if rejected else ""
        raise LogError(
            f"{what} in {_title(paths)}{left}: a replay needs at least {FEWEST_CALLS}, better a week of them"
            f"{_passed_over(columns, form)}"
        )
    start = columns.begin[0]
    calls = Calls(array("d", (at - start for at in columns.begin)), columns.took, columns.outcome)
    holes = [(begin - start, end - start) for begin, end in holes]
    circuits = _circuits(calls, columns.by, choice.processes)
    return Log(_title(paths), start, calls, circuits, holes, rejected, _notes(columns, dropped))


def _passed_over(columns: Columns, form: Format) -> str:
    """Return how many lines were not about calls, if options say which ones are."""
    by = [option for option, given in (("--pattern", form.pattern), ("--only", form.only)) if given]
    if not by or not columns.other_lines:
        return ""
    return f". {columns.other_lines:,} of {columns.lines:,} lines are not calls by {' and '.join(by)}"


def _title(paths: Sequence[str]) -> str:
    names = ["the standard input" if path == "-" else printable(PurePath(path).name) for path in paths]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _notes(columns: Columns, dropped: int) -> list[str]:
    notes: list[str] = []
    if columns.unread.count:
        notes.append(
            "\n".join(
                [f"{columns.unread.count:,} of {columns.lines:,} lines could not be read:", *columns.unread.first]
            )
        )
    if columns.other_lines:
        notes.append(f"{columns.other_lines:,} of {columns.lines:,} lines tell about no call and were passed over.")
    if dropped:
        notes.append(f"The {dropped:,} oldest calls were left out: more than --max-calls.")
    return notes


def _choose(columns: Columns, choice: Choice, form: Format) -> None:
    """Keep the calls of one circuit, and of the time that was asked for."""
    numbers = {name: number for name, number in columns.circuits.numbers.items() if name is not None}
    counts = Counter(columns.circuit)
    keep: Iterable[int] = range(len(columns))
    if choice.circuit is not None and choice.circuit not in numbers:
        there = ", ".join(map(repr, numbers)) or "no names of circuits"
        raise LogError(f"the log has no circuit {choice.circuit!r}; it has {there}")
    if choice.circuit is not None:
        keep = [call for call in keep if columns.circuit[call] == numbers[choice.circuit]]
    elif len(counts) > 1:
        names = ", ".join(
            f"{'no name' if name is None else repr(name)} ({counts[number]:,})"
            for name, number in columns.circuits.numbers.items()
        )
        raise LogError(f"the log has calls of {len(counts)} circuits: choose one with --circuit: {names}")
    if (choice.begin, choice.end) != (-inf, inf):
        keep = [call for call in keep if choice.begin <= columns.begin[call] <= choice.end]
    if keep != range(len(columns)):
        columns.keep(keep)
    if choice.processes is not None and len(set(columns.by)) > 1:
        raise LogError(
            f"the log says in {form.by!r} which process made which call: --processes is for logs that do not"
        )


def _drop_oldest(columns: Columns, most: int, room: float) -> int:
    """Keep the newest calls, if there are too many; return how many were dropped."""
    excess = len(columns) - most
    if len(columns) <= most * room:
        return 0
    oldest = sorted(range(len(columns)), key=columns.begin.__getitem__)[excess:]
    columns.keep(sorted(oldest))
    return excess


def _sort(columns: Columns) -> None:
    if not all(map(le, columns.begin, islice(columns.begin, 1, None))):
        columns.keep(sorted(range(len(columns)), key=columns.begin.__getitem__))


def _check_gaps(begin: Sequence[float]) -> None:
    for before, after in pairwise(begin):
        if after - before > LONGEST_GAP_S:
            days = (after - before) / 86_400
            raise LogError(
                f"no call for {days:,.0f} days, from {_moment(before)} to {_moment(after)}: if a clock was wrong "
                f"there, leave one side out with --from or --to"
            )


def _moment(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f} s since 1970"


def _holes(columns: Columns) -> list[tuple[float, float]]:
    """Return the times around rejected calls: nobody knows how these would have ended."""
    holes: list[tuple[float, float]] = []
    if REJECTED not in columns.outcome:
        return holes
    for at, outcome in zip(columns.begin, columns.outcome, strict=True):
        if outcome == REJECTED:
            begin, end = at - AROUND_A_HOLE_S, at + AROUND_A_HOLE_S
            if holes and begin <= holes[-1][1]:
                begin = holes.pop()[0]
            holes.append((begin, end))
    return holes


def _without_holes(columns: Columns, holes: Sequence[tuple[float, float]]) -> int:
    """Drop the calls in the holes; return how many of them were rejected."""
    rejected = columns.outcome.count(REJECTED)
    keep: list[int] = []
    index = 0
    for call, at in enumerate(columns.begin if holes else ()):
        while index < len(holes) and holes[index][1] < at:
            index += 1
        if index == len(holes) or at < holes[index][0]:
            keep.append(call)
    if holes:
        columns.keep(keep)
    return rejected


def _circuits(calls: Calls, by: Sequence[int], processes: int | None) -> list[Circuit]:
    """Return one circuit for each process, in the order of their first calls."""
    if processes is not None:
        by = array("i", (_dealt(call, processes) for call in range(len(calls))))
    if len(set(by)) == 1:
        return [Circuit(calls)]
    parts: dict[int, Calls] = {}
    for process, begin, took, outcome in zip(by, calls.begin, calls.took, calls.outcome, strict=True):
        part = parts.get(process)
        if part is None:
            part = parts[process] = Calls(array("d"), array("d"), bytearray())
        part.begin.append(begin)
        part.took.append(took)
        part.outcome.append(outcome)
    return [Circuit(part) for part in parts.values()]


def _dealt(call: int, processes: int) -> int:
    """Return the process that is taken to have made a call, by a fixed hash of its number."""
    mixed = (call * 0x9E3779B1) & 0xFFFFFFFF
    return ((mixed ^ mixed >> 15) * 0x85EBCA6B >> 8) % processes
