"""A bar that tells how far a long command is, on a terminal and nowhere else."""

from __future__ import annotations

import time
from typing import Final, TextIO

from .._terminal import write

PATIENCE_S: Final = 1.0
EVERY_S: Final = 0.1
WIDTH: Final = 30


class Progress:
    """Shows what is being done, once that has taken more than a second."""

    def __init__(self, out: TextIO | None, shown: bool) -> None:
        self._out = out
        self._shown = shown
        self._next_at = time.monotonic() + PATIENCE_S
        self._drawn = False

    def __call__(self, what: str, part: float | None) -> None:
        """Tell what is being done, and which part of it is done, None if nobody knows."""
        now = time.monotonic()
        if not self._shown or now < self._next_at:
            return
        self._next_at = now + EVERY_S
        done = int(WIDTH * min(part or 0.0, 1.0))
        bar = "" if part is None else f" [{'#' * done}{'.' * (WIDTH - done)}] {part:4.0%}"
        self._write(f"\r{what[:40]}{bar}\x1b[K")
        self._drawn = True

    def clear(self) -> None:
        """Take the bar away."""
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        write(self._out, text)
