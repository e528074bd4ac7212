"""What the commands share: how they read arguments, and the marks and colours they draw with."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, NoReturn, TextIO, TypeAlias

from circuit_breaker import CircuitState

PROGRAM: Final = "python -m circuit_breaker"
WRONG_ARGUMENTS: Final = 2
CANNOT_WRITE: Final = 3
INTERRUPTED: Final = 130

STATES: Final = {CircuitState.CLOSED: "closed", CircuitState.OPEN: "open", CircuitState.HALF_OPEN: "probing"}


class OutputError(Exception):
    """Raised when the text cannot be written; its own text says why."""


def write(out: TextIO | None, text: str) -> None:
    """Write text at once; raise an OutputError if that cannot be done, or a BrokenPipeError if nobody reads it."""
    if out is None:
        raise OutputError("the standard output is closed")
    try:
        out.write(text)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.strerror) from error


def discard(out: TextIO | None) -> None:
    """Let the interpreter write what is still in the buffer to nowhere when it ends."""
    if out is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, out.fileno())
        os.close(nowhere)


class Arguments(argparse.ArgumentParser):
    """A parser that keeps the lines of its help, takes no abbreviations, and says in one line what is wrong."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def print_help(self, file: object = None) -> None:
        write(sys.stdout, self.format_help())

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_ARGUMENTS, f"{self.prog}: {message}\n")


class Marks(NamedTuple):
    """What pictures are drawn with."""

    bars: str
    edge: str
    states: dict[CircuitState, str]


BLOCKS: Final = Marks("▁▂▃▄▅▆▇█", "│", {CircuitState.CLOSED: "─", CircuitState.OPEN: "█", CircuitState.HALF_OPEN: "▒"})
ASCII: Final = Marks(".:-=+*%@", "|", {CircuitState.CLOSED: "-", CircuitState.OPEN: "#", CircuitState.HALF_OPEN: "="})

Paint: TypeAlias = Callable[[str, str], str]

COLOURS: Final = {"green": 32, "red": 31, "yellow": 33, "cyan": 36, "bold": 1, "faint": 2}
STATE_COLOURS: Final = {CircuitState.CLOSED: "green", CircuitState.OPEN: "red", CircuitState.HALF_OPEN: "yellow"}


def no_colours(text: str, colour: str) -> str:
    """Leave the text as it is."""
    return text


def colours(text: str, colour: str) -> str:
    """Return the text in a colour."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if text.strip() else text


def encoding_of(out: TextIO | None) -> str:
    """Return in which encoding text is written there; where there is none, as in memory, any will do."""
    return "utf-8" if out is None else out.encoding or "utf-8"


def takes_escapes(out: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Return whether colours and movements of the cursor can be written there."""
    if out is None or not out.isatty() or environ.get("TERM") == "dumb":
        return False
    return sys.platform != "win32" or "WT_SESSION" in environ  # an old console would show the escapes


def paint_for(out: TextIO | None, environ: Mapping[str, str]) -> Paint:
    """Return colours where they are welcome."""
    return no_colours if environ.get("NO_COLOR") or not takes_escapes(out, environ) else colours


def marks_for(encoding: str) -> Marks:
    """Return the finest marks that the encoding has."""
    try:
        (BLOCKS.bars + BLOCKS.edge + "".join(BLOCKS.states.values())).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS
