"""Files as blocks of lines: plain or compressed, with an end, even if somebody still writes to them."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from .problems import LogError

STANDARD_INPUT: Final = "-"
BLOCK: Final = 1 << 20
LONGEST_LINE: Final = 16 * BLOCK
GZIP: Final = b"\x1f\x8b"


class Block(NamedTuple):
    """Lines without their ends; `done` is the part of the file that has been read, None if nobody knows its size."""

    lines: list[bytes]
    done: float | None


class _UpTo(io.RawIOBase):
    """The first `size` bytes of a file; what is written to it from now on is not read."""

    def __init__(self, file: IO[bytes], size: float) -> None:
        self._file = file
        self.size = size
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(int(min(len(buffer), self.size - self.position)))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def blocks(path: str) -> Iterator[Block]:
    """Give the lines of a file, `-` for the standard input, many at a time.

    Raises:
        LogError: it cannot be read.
    """
    try:
        file = sys.stdin.buffer if path == STANDARD_INPUT else Path(path).open("rb", buffering=0)  # noqa: SIM115
        try:
            yield from _blocks(path, file)
        finally:
            if path != STANDARD_INPUT:
                file.close()
    except EOFError as error:
        raise LogError(f"cannot read {path}: the compressed file is cut short") from error
    except (OSError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LogError(f"cannot read {path}: {reason}") from error


def _blocks(path: str, file: IO[bytes]) -> Iterator[Block]:
    status = os.fstat(file.fileno())
    raw = _UpTo(file, status.st_size if stat.S_ISREG(status.st_mode) else inf)
    buffered = io.BufferedReader(raw, BLOCK)
    plain: Any = gzip.GzipFile(fileobj=buffered) if buffered.peek(2)[:2] == GZIP else buffered
    rest = b""
    for data in iter(lambda: plain.read(BLOCK), b""):
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        if len(rest) > LONGEST_LINE:
            raise LogError(f"cannot read {path}: a line of more than 16 MiB, so this is no log")
        yield Block(lines, raw.position / raw.size if raw.size < inf else None)
    if rest:
        yield Block([rest], None)
