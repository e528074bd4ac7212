"""What can be wrong with a log: the error that ends the reading, and the lines that could not be read."""

from __future__ import annotations

from typing import Final

SHOWN: Final = 3
SHOWN_TEXT: Final = 100
TOLERATED: Final = 0.01


class LogError(Exception):
    """There is something wrong with a log, or with what was said about it; the message is for its user."""


class LineError(Exception):
    """A line cannot be read; the message says why."""


def printable(name: str) -> str:
    """Return the name of a file as it can be shown: control characters, and bytes that are no text, as escapes."""
    return name if name.isprintable() else repr(name)[1:-1]


class Unread:
    """The lines that could not be read: how many, and the first few."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, place: str, line: bytes | str, why: str) -> None:
        """Count a line, and remember what it was if it is one of the first."""
        self.count += 1
        if len(self.first) < SHOWN:
            text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
            text = text.rstrip("\r\n")
            shown = text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}..."
            self.first.append(f"{printable(place)}: {why}: {shown!r}")

    def check(self, lines: int, remedy: str) -> None:
        """Raise if too many of the lines, given by their number, are wrong; `remedy` ends the message."""
        if self.count > TOLERATED * lines:
            share = f"{self.count:,} of {lines:,} lines"
            told = "\n  ".join([f"cannot read {share} (at most 1 in 100 is passed over):", *self.first])
            raise LogError(told + remedy)
