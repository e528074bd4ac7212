"""What is shown: the code that is at work, the timeline in two forms, and the summary."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import ceil
from typing import Final, TextIO

from circuit_breaker import CircuitState
from circuit_breaker._demo import plan as settings
from circuit_breaker._demo.plan import QUARTER_S, Phase, Plan
from circuit_breaker._demo.story import Ending, Quarter
from circuit_breaker._terminal import (
    STATE_COLOURS,
    STATES,
    Marks,
    Paint,
    marks_for,
    no_colours,
    paint_for,
    takes_escapes,
    write,
)

NARROWEST: Final = 60
LABEL: Final = 10
TOTAL: Final = 8
WIDEST_MARK: Final = 4

PHASE_COLOURS: Final = {Phase.HEALTHY: "green", Phase.FAILS: "red", Phase.HANGS: "yellow", Phase.RECOVERED: "green"}


# Where it is shown


class Plain:
    """A line for each quarter of a second."""

    def __init__(self, out: TextIO | None) -> None:
        self._out = out

    def start(self, plan: Plan) -> None:
        """Write the head of the table."""
        self._write("  time  server     circuit  calls  failures  rejected")

    def show(self, quarter: Quarter) -> None:
        """Write one line."""
        self._write(line(quarter))

    def say(self, lines: Iterable[str]) -> None:
        """Write lines beside the timeline."""
        self._write("\n".join(lines))

    def paint(self, text: str, colour: str) -> str:
        """Use no colours, since the text may go anywhere."""
        return no_colours(text, colour)

    def _write(self, text: str) -> None:
        write(self._out, f"{text}\n")


class Live(Plain):
    """A picture that grows to the right, drawn over itself; it follows the width of the terminal."""

    def __init__(self, out: TextIO, marks: Marks, paint: Paint) -> None:
        super().__init__(out)
        self._terminal = out
        self._marks = marks
        self._paint = paint
        self._quarters: list[Quarter] = []
        self._drawn = 0

    def start(self, plan: Plan) -> None:
        """Draw the picture with nothing in it yet."""
        self._plan = plan
        self._draw()

    def show(self, quarter: Quarter) -> None:
        """Draw it with one more quarter of a second."""
        self._quarters.append(quarter)
        self._draw()

    def say(self, lines: Iterable[str]) -> None:
        """Write lines below the picture, over the `^C` that a terminal writes there."""
        self._write("\r\x1b[J" + "\n".join(lines))

    def paint(self, text: str, colour: str) -> str:
        """Use colours where they are welcome."""
        return self._paint(text, colour)

    def _draw(self) -> None:
        width = max(NARROWEST, os.get_terminal_size(self._terminal.fileno()).columns)
        lines = timeline(self._quarters, self._plan, width, self._marks, self._paint)
        up = f"\x1b[{self._drawn}A\r" if self._drawn else ""
        self._write(up + "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")
        self._drawn = len(lines)


def screen(out: TextIO | None, plain: bool, environ: Mapping[str, str]) -> Plain:
    """Return the screen that suits what the text goes to."""
    if out is None or plain or not takes_escapes(out, environ):
        return Plain(out)
    size = os.get_terminal_size(out.fileno())
    if size.columns < NARROWEST or size.lines < 10:
        return Plain(out)
    return Live(out, marks_for(out.encoding), paint_for(out, environ))


# What is shown


def code(plan: Plan, on_a_loop: bool, processes: int | None = None) -> list[str]:
    """Return the code that is running."""
    callers, function = ("Eight tasks", "async def") if on_a_loop else ("Eight threads", "def")
    store, shared = [], ""
    if processes is not None:
        callers, shared = f"{processes} processes", ", store=store"
        store = [f'    store = SQLiteStore("circuits.db", interval_s={settings.INTERVAL_S})', ""]
    return [
        f"{callers} call a server that fails and recovers:",
        "",
        *store,
        f"    @retry(max_retries={settings.MAX_RETRIES}, backoff_base={settings.BACKOFF_BASE_S})",
        f'    @circuit_breaker("server", reset_timeout_s={plan.reset_timeout_s:.3g}{shared})',
        f'    @bulkhead("server", max_concurrent={settings.MAX_CONCURRENT}, max_queue={settings.MAX_QUEUE})',
        f"    {function} fetch(): ...  # one GET with a timeout of {plan.timeout_s:.3g} s",
        "",
    ]


def line(quarter: Quarter) -> str:
    """Return a quarter of a second as a line of the table."""
    return (
        f"{quarter.at_s:6.2f}  {quarter.phase.value:9}  {STATES[quarter.state]:7}"
        f"  {quarter.calls:5}  {quarter.failures:8}  {quarter.rejected:8}"
    )


def timeline(quarters: Sequence[Quarter], plan: Plan, width: int, marks: Marks, paint: Paint) -> list[str]:
    """Return the picture of all quarters so far, no line of it as wide as the terminal."""
    length = max(plan.quarters, len(quarters))
    room = width - 1 - LABEL - TOTAL
    per_mark = ceil(length / room)  # quarters in one mark
    wide = min(max(1, room // length), WIDEST_MARK)  # columns of one mark
    columns = ceil(length / per_mark) * wide
    groups = [quarters[first : first + per_mark] for first in range(0, len(quarters), per_mark)]
    rows = {
        "calls": ([sum(quarter.calls for quarter in group) for group in groups], "green"),
        "failures": ([sum(quarter.failures for quarter in group) for group in groups], "red"),
        "rejected": ([sum(quarter.rejected for quarter in group) for group in groups], "cyan"),
    }
    most = max((figure for figures, _ in rows.values() for figure in figures), default=0)
    lines = [
        "server".ljust(LABEL) + _phases(quarters, plan, per_mark, wide, columns, marks, paint),
        "circuit".ljust(LABEL) + _states(groups, wide, marks, paint),
    ]
    for label, (figures, colour) in rows.items():
        bars = "".join(_bar(figure, most, marks) * wide for figure in figures).ljust(columns)
        lines.append(f"{label:{LABEL}}{paint(bars, colour)}{sum(figures):{TOTAL},}")
    legend = "  ".join(f"{paint(mark, STATE_COLOURS[state])} {STATES[state]}" for state, mark in marks.states.items())
    at_s = quarters[-1].at_s if quarters else 0.0
    time = f"{at_s:.2f} s"
    return [*lines, f"{time:{LABEL}}{legend}   a mark is {per_mark * QUARTER_S:g} s"]


def _phases(
    quarters: Sequence[Quarter], plan: Plan, per_mark: int, wide: int, columns: int, marks: Marks, paint: Paint
) -> str:
    now = quarters[-1].phase if quarters else Phase.HEALTHY
    text, begin = "", 0
    for phase in Phase:
        end = columns if phase is Phase.RECOVERED else plan.end(phase) // per_mark * wide
        label = f"{marks.edge}{phase.value}"[: end - begin].ljust(end - begin)
        text += paint(label, PHASE_COLOURS[phase] if phase is now else "faint")
        begin = end
    return text


def _states(groups: Sequence[Sequence[Quarter]], wide: int, marks: Marks, paint: Paint) -> str:
    states = [_telling(group) for group in groups]
    return "".join(
        paint(marks.states[state] * wide * len(list(same)), STATE_COLOURS[state]) for state, same in groupby(states)
    )


def _telling(group: Sequence[Quarter]) -> CircuitState:
    probing = any(quarter.state is CircuitState.HALF_OPEN for quarter in group)
    return CircuitState.HALF_OPEN if probing else group[-1].state


def _bar(figure: int, most: int, marks: Marks) -> str:
    return marks.bars[ceil(figure / most * len(marks.bars)) - 1] if figure else " "


def summary(ending: Ending, paint: Paint = no_colours) -> list[str]:
    """Return the summary."""
    breaker, bulkhead = ending.breaker.stats, ending.bulkhead
    last = f" bulkhead  let at most {bulkhead.peak_active_count} in at once, rejected {bulkhead.rejected_count:,}"
    if ending.processes is not None:
        last = f"   shared  one circuit for {ending.processes} processes: it opens, probes and closes for all"
    opened, closed = "the circuit has not opened", "the circuit has not closed again"
    if ending.opened:
        opened = "until the circuit opened: " + ending.opened.reason.partition(" (")[0]
    if ending.closed:
        closed = "until it closed again after the recovery"
    figures = [
        (_seconds(ending.opened_after_s), opened),
        (f"{ending.rejected:,}", f"calls rejected in the outage, {ending.admitted:,} admitted"),
        (_seconds(ending.closed_after_s), closed),
    ]
    return [
        *(f"{paint(f'{figure:>9}', 'bold')}  {text}" for figure, text in figures),
        "",
        f"    retry  tried again {_number(ending.retries, 'time')}, which saved {_number(ending.saved, 'call')}",
        f"  breaker  opened {_number(breaker.opened_count, 'time')}, rejected {breaker.rejected_count:,} in all",
        last,
    ]


def _number(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"
