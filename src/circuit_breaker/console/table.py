"""The table of circuits in a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from math import ceil
from typing import Final

from .._terminal import Marks, Paint
from .history import COLUMNS, Counts, Sample, columns, minute
from .rows import Kind, Row, Tone
from .watcher import View

COLOURS: Final = {Tone.BAD: "red", Tone.WARN: "yellow", Tone.GOOD: "green"}
STATE: Final = 13
NARROWEST_NAME: Final = 12
WIDEST_NAME: Final = 40
NARROWEST_PROCESSES: Final = 12
# What stands right of the name, and how wide it is; where there is no room, the last ones are left out first.
LAST: Final = "last minute"
MORE: Final = {"probes": 9, "since": 12, "failed": 7, "rejected": 9, "calls": 8, "slow": 6, LAST: COLUMNS + 1}


class Table:
    """Draws rows as wide as the terminal is."""

    def __init__(self, width: int, marks: Marks, paint: Paint) -> None:
        self._width = max(width, STATE + 2 + NARROWEST_NAME)
        self._marks = marks
        self._paint = paint
        left = self._width - STATE - 2 - NARROWEST_NAME
        self._more: list[str] = []
        for head, width_of_it in MORE.items():
            if left < width_of_it + 1:
                break
            left -= width_of_it + 1
            self._more.append(head)
        self._name = min(WIDEST_NAME, NARROWEST_NAME + left)
        rest = NARROWEST_NAME + left - self._name
        self._rest = rest if rest >= NARROWEST_PROCESSES else 0

    def lines(self, view: View, above: str, height: int | None) -> list[str]:
        """Return the table, in at most that many lines; None: all of it."""
        summary = view.headline()
        paint_above = "faint" if view.error is None else "red"
        lines = [
            self._paint(cut(above, self._width), paint_above),
            self._paint(cut(summary.main, self._width), COLOURS[summary.tone]),
            self._paint(cut(summary.rest, self._width), "faint"),
            "",
            self._paint(self._head(), "faint"),
        ]
        for number, row in enumerate(view.rows):
            block = list(self._row(row, view.history[row.key].samples))
            if height is not None and len(lines) + len(block) > height - (number < len(view.rows) - 1):
                lines.append(self._paint(f"... and {len(view.rows) - number} more", "faint"))
                break
            lines += block
        return lines[:height]

    def _head(self) -> str:
        heads = [f" {head:>{MORE[head]}}" if head != LAST else f"  {head:<{COLUMNS}}" for head in self._more]
        return "".join([f"{'state':<{STATE}}  {'circuit':<{self._name}}", *heads, "  processes" if self._rest else ""])

    def _row(self, row: Row, samples: tuple[Sample, ...]) -> Iterator[str]:
        total = minute(samples)
        cells = {
            "probes": _probes(row),
            "since": "" if row.circuit.since_s is None else duration(row.circuit.since_s),
            "failed": _share(total.failures, total.calls),
            "rejected": _number(total.rejected),
            "calls": _number(total.calls),
            "slow": _share(total.slow, total.calls),
        }
        colour = COLOURS[row.tone]
        parts = [self._paint(f"{row.word:<{STATE}}", colour), "  ", padded(row.name, self._name)]
        for head in self._more:
            if head == LAST:
                parts += ["  ", *self._sparkline(columns(samples))]
            else:
                parts.append(f" {cells[head]:>{MORE[head]}}")
        if self._rest:
            parts += ["  ", cut(row.members(), self._rest - 2)]
        yield "".join(parts)
        if row.kind is not Kind.CLOSED:
            why = "; ".join(filter(None, [row.meaning(), row.cause()]))
            yield " " * (STATE + 2) + self._paint(cut(why, self._width - STATE - 2), "faint")

    def _sparkline(self, found: list[Counts]) -> Iterator[str]:
        most = max(column.calls + column.rejected for column in found)
        for column in found:
            height = column.calls + column.rejected
            mark = self._marks.bars[ceil(height / most * len(self._marks.bars)) - 1] if height else " "
            colour = "red" if column.failures else "yellow" if column.rejected else "green"
            yield self._paint(mark, colour)


def _probes(row: Row) -> str:
    if row.kind is Kind.HALF_OPEN:
        return f"{row.circuit.probes_out} out"
    return "" if row.retry_s is None else f"in {ceil(row.retry_s)} s"


def _number(number: float) -> str:
    return f"{number:,.0f}" if number else ""


def _share(part: float, whole: float) -> str:
    """Return a share in percent; one that is not 0 does not look like it."""
    if not whole:
        return ""
    return "<1%" if 0 < part < whole / 100 else f"{part / whole:.0%}"


def duration(seconds: float) -> str:
    """Return a time in at most two units, of which the second is as small as matters."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min"
    large, size, small, part = ("h", 3_600, "min", 60) if whole < 86_400 else ("d", 86_400, "h", 3_600)
    rest = whole % size // part
    return f"{whole // size} {large}{f' {rest} {small}' if rest else ''}"


def _wide(text: str) -> int:
    """Return how many columns a text takes: ideographs take two, and accents none."""
    wide = sum(unicodedata.east_asian_width(character) in "FW" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def cut(text: str, width: int) -> str:
    """Return as much of a text as fits; what is cut ends in `~`."""
    if _wide(text) <= width:
        return text
    while text and _wide(text) > width - 1:
        text = text[:-1]
    return f"{text}~"


def padded(text: str, width: int) -> str:
    """Return a text that is exactly so wide."""
    shown = cut(text, width)
    return shown + " " * (width - _wide(shown))
