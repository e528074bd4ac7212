"""Shows circuits in a terminal, drawn over and over, and elsewhere as lines that say what has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import TextIO

from .._terminal import marks_for, paint_for, takes_escapes
from .rows import Row
from .table import Table
from .watcher import View


class Lines:
    """Writes a line for each circuit, and another one when it changes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._said: dict[str, str] = {}
        self._error: str | None = None

    def show(self, view: View, label: str) -> None:
        """Write what has changed since the last time."""
        told = {row.key: line(row) for row in view.rows}
        changed = [text for key, text in told.items() if self._said.get(key) != text]
        self._said = told
        if view.error != self._error:
            self._error = view.error
            changed.insert(0, f"{label} can be read again" if view.error is None else unread(view, label))
        self._write(f"{time.strftime('%H:%M:%S')}  {text}" for text in changed)

    def show_once(self, view: View, label: str) -> None:
        """Write all circuits."""
        self._write([*([] if view.error is None else [unread(view, label)]), *map(line, view.rows)])

    def _write(self, lines: Iterable[str]) -> None:
        encoding = self._out.encoding
        for text in lines:
            self._out.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self._out.flush()


class Picture(Lines):
    """Draws a table that fills the terminal, with those circuits that need attention first."""

    def __init__(self, out: TextIO, environ: Mapping[str, str]) -> None:
        super().__init__(out)
        self._paint = paint_for(out, environ)
        self._marks = marks_for(out.encoding)
        self._clear = "\x1b[2J"

    def show(self, view: View, label: str) -> None:
        """Draw it over what is there."""
        size = os.get_terminal_size(self._out.fileno())
        lines = self._table(size.columns).lines(view, self._above(view, label), size.lines - 1)
        home, self._clear = f"{self._clear}\x1b[H", ""
        self._write([home + "\n".join(f"{text}\x1b[K" for text in lines) + "\x1b[J"])

    def show_once(self, view: View, label: str) -> None:
        """Draw all of it, however long it is."""
        columns = os.get_terminal_size(self._out.fileno()).columns
        self._write(self._table(columns).lines(view, self._above(view, label), None))

    def _table(self, columns: int) -> Table:
        return Table(columns - 1, self._marks, self._paint)

    def _above(self, view: View, label: str) -> str:
        return f"{label}  {time.strftime('%H:%M:%S')}" if view.error is None else unread(view, label)


def screen(out: TextIO, plain: bool, environ: Mapping[str, str]) -> Lines:
    """Return the screen that suits what the text goes to."""
    return Lines(out) if plain or not takes_escapes(out, environ) else Picture(out, environ)


def line(row: Row) -> str:
    """Return a circuit on one line, with what does not change by the second."""
    parts = [row.meaning(), row.cause(), row.members()]
    return f"{row.word:<13}  {row.name}: {'; '.join(filter(None, parts))}"


def unread(view: View, label: str) -> str:
    """Say that the store cannot be read."""
    return f"{label} cannot be read: {view.error}"
