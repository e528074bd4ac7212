"""The report as text: the verdict, the code, the table, and a band for each outage, as wide as the terminal."""

from __future__ import annotations

import textwrap
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, groupby
from math import ceil, inf
from typing import Final

from ..._common.words import CircuitState
from ..._terminal import STATE_COLOURS, STATES, Marks, Paint
from ..outages import gone_wrong
from ..study import Findings, Row
from . import pictures, verdict, wording
from .pictures import CloseUp

NARROWEST: Final = 60
WIDEST: Final = 120
LABEL: Final = 18
TOTAL: Final = 22


def text(findings: Findings, width: int, marks: Marks, paint: Paint) -> Iterator[str]:
    """Give the lines of the report, none longer than the width unless that is too small for the table."""
    width = min(max(width, NARROWEST), WIDEST)
    yield from _wrapped(verdict.about(findings, findings.log.title), width)
    for warning in verdict.warnings(findings):
        yield ""
        yield from _wrapped(warning, width, "! ")
    yield ""
    for line in _wrapped(verdict.headline(findings), width):
        yield paint(line, "bold")
    yield from _wrapped(verdict.reason(findings), width)
    yield ""
    yield from (f"    {line}" for line in wording.code(findings.picked.config))
    yield ""
    for value, label in verdict.six(findings):
        yield f"{value:>12}  {label}"
    yield ""
    yield from _table(findings, width, paint)
    shown = pictures.close_ups(findings)
    for outage in shown:
        yield ""
        yield from _bands(findings, outage, width, marks, paint)
    if shown:
        yield ""
        yield "  ".join(f"{paint(marks.states[state], STATE_COLOURS[state])} {STATES[state]}" for state in marks.states)


def _wrapped(words: str, width: int, first: str = "") -> Iterator[str]:
    for line in words.splitlines():
        yield from textwrap.wrap(line, width, initial_indent=first, subsequent_indent=" " * len(first))
        first = " " * len(first)


def _table(findings: Findings, width: int, paint: Paint) -> Iterator[str]:
    """Give the table turned on its side, a column for each setting; those that do not fit come below the others."""
    heads = ["", *verdict.heads(findings)]
    label = max(map(len, heads))
    columns = [[_short(row), *verdict.cells(row)] for row in findings.rows]
    sizes = [2 + max(map(len, column)) for column in columns]
    while columns:
        fitting = max(1, bisect_right(list(accumulate(sizes)), width - label))
        for line, head in enumerate(heads):
            cells = [f"{column[line]:>{size}}" for column, size in zip(columns[:fitting], sizes, strict=False)]
            picked = [column[0] == _short(findings.picked) for column in columns]
            shown = [paint(cell, "bold") if best else cell for cell, best in zip(cells, picked, strict=False)]
            yield f"{head:{label}}{''.join(shown)}"
        yield ""
        del columns[:fitting], sizes[:fitting]
    longest = max(len(row.name) for row in findings.rows)
    for row in findings.rows:
        yield f"{row.name:>{longest}}  {wording.in_short(row.config)}"
    for alarm in verdict.false_alarms(findings):
        yield from _wrapped(f"false alarm: {alarm}", width)


def _short(row: Row) -> str:
    """Return the name of a setting as the head of a narrow column."""
    return row.name.removeprefix("the ").removeprefix("refuse ")


def _bands(findings: Findings, shown: CloseUp, width: int, marks: Marks, paint: Paint) -> Iterator[str]:
    room = width - LABEL - TOTAL
    outage, start = shown.outage, findings.log.start
    slow_s = findings.question.slow_s
    counted = pictures.bins(
        findings.log.calls,
        gone_wrong(findings.log.calls, inf if slow_s is None else slow_s),
        shown.begin,
        shown.end,
        room,
    )
    begin = wording.moment(start + outage.begin)
    lasts = wording.seconds(outage.end - outage.begin)
    mild = "" if findings.worth[shown.number - 1] else ", milder than your answer"
    yield f"Outage {shown.number}, {begin}: {wording.share(findings.share(outage))} fail for {lasts}{mild}"
    for label, figures, colour in (("calls", counted.good, "green"), ("failures", counted.bad, "red")):
        bars = "".join(_bar(figure, counted.most, marks) for figure in figures)
        yield f"{label:{LABEL}}{paint(bars, colour)}"
    for row in findings.rows:
        opened, closed = verdict.times(row, shown.number - 1)
        yield f"{row.name:{LABEL}}{_states(row, shown, room, marks, paint)}  {opened:>9} {closed:>10}"


def _bar(figure: int, most: int, marks: Marks) -> str:
    return marks.bars[ceil(figure / most * len(marks.bars)) - 1] if figure else " "


def _states(row: Row, shown: CloseUp, room: int, marks: Marks, paint: Paint) -> str:
    """Draw for each column the state in which the circuits were for most of it."""
    width_s = (shown.end - shown.begin) / room
    circuits = pictures.stretches(row.figures.courses, shown.begin, shown.end, 0.0)
    in_state = [dict.fromkeys(CircuitState, 0.0) for _ in range(room)]
    for stretch in (stretch for circuit in circuits for stretch in circuit):
        first, last = ((at - shown.begin) / width_s for at in (stretch.begin, stretch.end))
        for column in range(int(first), min(ceil(last), room)):
            in_state[column][stretch.state] += min(last, column + 1) - max(first, column)
    states = [max(times, key=times.__getitem__) for times in in_state]
    return "".join(
        paint(marks.states[state] * len(list(same)), STATE_COLOURS[state]) for state, same in groupby(states)
    )
