"""A listener that writes a line for every call of a breaker into a file, to be replayed later."""

from __future__ import annotations

import atexit
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import RLock
from typing import Final, TypeAlias

from .._common import checks, fork
from .._common.events import ERROR, CallFinished, CallRejected, log
from .._common.words import Outcome

__all__ = ["CallLog"]

MAX_BYTES: Final = 64 * 1024 * 1024
BLOCK: Final = 400  # lines that are written at once
LATEST_S: Final = 1.0  # after which lines are written, at the next call
MOST_WAITING: Final = 100_000  # lines that wait for a slow disk; more are lost

SUCCESS: Final = Outcome.SUCCESS
FAILURE: Final = Outcome.FAILURE

# When it ended, its circuit, its milliseconds (None: rejected), its outcome, and the type of its error.
_Call: TypeAlias = tuple[float, str, float | None, Outcome | None, type[object] | None]


class CallLog:
    """Write a line for every call of a breaker, for `python -m circuit_breaker replay`.

    Pass it to a breaker as a listener. Use the mode `SHADOW`: then no call is rejected, and the log has the result of
    every call. Breakers and threads may share one object. It writes many lines at a time: after a second at the latest
    (at the next call), when the log is closed, and when the interpreter exits.

    A line is a JSON object: `t`, the date when the call began, in seconds since 1970; `ms`, the milliseconds that it
    took; `outcome`, which is `success`, `failure`, `ignored`, or `refused` for a rejected call; `circuit`; `by`, the
    host and the process; `error`, the type of the exception, never its text.

    It raises nothing in a call. If the disk is full, that is logged once, and lines are lost.

    Args:
        path: The file, to which lines are added. `{pid}` in it is replaced by the number of the process. With it, a
            forked child writes to a file of its own; without it, to the same file.
        max_bytes: If the file would become larger than this, it is renamed to `path.1`, and a new one begins, >= 1.
        keep: How many such older files are kept, >= 0.
        clock: A function that returns monotonic seconds.

    Raises:
        OSError: The file cannot be opened.
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        keep: int = 4,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = checks.text("path", os.fspath(path))
        self._max_bytes = checks.count("max_bytes", max_bytes, 1)
        self._keep = checks.count("keep", keep, 0)
        self._clock = checks.function("clock", clock, "a function that returns seconds")
        self._zero = time.time() - self._clock()  # wall-clock time at the zero of the clock: read once
        self._next_write_at = self._clock() + LATEST_S
        self._waiting: deque[_Call] = deque()
        # Guards `_writing` and `_lost`; nothing is called under it. Only one thread writes, and nobody waits for it.
        self._lock = RLock()
        self._writing = False
        self._lost = 0
        self._warned = False
        self._closed = False
        self._by = _process()
        self._file: _File | None = _File(self._filled_in())
        fork.survive(self)

    def __repr__(self) -> str:
        return f"<CallLog {self._path!r}>"

    @property
    def lost_count(self) -> int:
        """How many lines were lost: the disk was full or too slow, or the log was closed."""
        return self._lost

    def __call__(self, event: object) -> None:
        """Take an event of a breaker; only calls and rejections are written."""
        if isinstance(event, CallFinished):
            error: object = event.error
            kind = None if error is None else type(error)
            call: _Call = (self._clock(), event.circuit_name, event.latency_ms, event.outcome, kind)
        elif isinstance(event, CallRejected):
            call = (self._clock(), event.circuit_name, None, None, None)
        else:
            return
        waiting = self._waiting
        if self._closed or len(waiting) >= MOST_WAITING:
            with self._lock:
                self._lost += 1
            return
        waiting.append(call)
        if call[0] >= self._next_write_at or len(waiting) >= BLOCK:
            self._take_turn()

    def close(self) -> None:
        """Write what waits, and take no more."""
        self._closed = True
        self._write_waiting(rotate=False)
        self._file = None

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()
        self._writing = False
        self._waiting = deque()
        self._file = None
        self._by = _process()

    def _take_turn(self) -> None:
        """Write what waits, unless another thread is doing so."""
        mine = False
        try:
            with self._lock:
                if not self._writing:
                    self._writing = mine = True
            if mine:
                self._next_write_at = self._clock() + LATEST_S
                self._write_waiting(rotate=True)
        finally:
            if mine:
                self._writing = False

    def _write_waiting(self, *, rotate: bool) -> None:
        waiting = self._waiting
        while waiting:
            calls = list(self._take(BLOCK))
            lost = len(calls)
            try:
                lines = self._lines(calls)
                file = self._file
                if file is None or (rotate and file.size and file.size + len(lines) > self._max_bytes):
                    file = self._file = self._next_file(file)
                for written in file.write(lines):
                    lost -= written
            except OSError as error:
                with self._lock:
                    self._lost += lost
                if not self._warned:
                    self._warned = True
                    log(ERROR, "call log %r cannot be written to, its lines are lost", self._path, error=error)

    def _take(self, most: int) -> Iterator[_Call]:
        for _ in range(most):
            try:
                yield self._waiting.popleft()
            except IndexError:  # a thread that closes the log takes them, too
                return

    def _next_file(self, full: _File | None) -> _File:
        """Open the file; if one is full, move it and the older ones on before."""
        path = self._filled_in()
        if full is not None and full.is_at(path):  # else another process has moved it
            older = [f"{path}.{number}" for number in range(1, self._keep + 1)]
            for former, name in reversed(list(pairwise([path, *older]))):
                try:
                    Path(former).replace(name)
                except FileNotFoundError:
                    pass  # there are fewer
            if not older:
                Path(path).unlink()
        return _File(path)

    def _filled_in(self) -> str:
        return self._path.replace("{pid}", str(os.getpid()))

    def _lines(self, calls: list[_Call]) -> bytes:
        zero, by = self._zero, self._by
        names: dict[str, str] = {}
        lines: list[str] = []
        for at, circuit, ms, outcome, error in calls:
            name = names.get(circuit)
            if name is None:
                name = names[circuit] = f', "circuit": {json.dumps(circuit)}, "by": {by}'
            if ms is None:
                lines.append(f'{{"t": {zero + at:.6f}, "outcome": "refused"{name}}}\n')
                continue
            how = "success" if outcome is SUCCESS else "failure" if outcome is FAILURE else "ignored"
            kind = "" if error is None else f', "error": {json.dumps(error.__name__)}'
            lines.append(f'{{"t": {zero + at - ms / 1e3:.6f}, "ms": {ms:.3f}, "outcome": "{how}"{name}{kind}}}\n')
        return "".join(lines).encode()


class _File:
    """A file that grows at its end; it is closed when nobody uses it any more.

    Attributes:
        size: how many bytes it has.
    """

    _descriptor = -1

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
        self.size = os.fstat(self._descriptor).st_size
        self._torn = False

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def is_at(self, path: str) -> bool:
        """Return whether this is the file that the path leads to."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), Path(path).stat())
        except FileNotFoundError:
            return False

    def write(self, lines: bytes) -> Iterator[int]:
        """Write lines, and give how many were completed each time the system has taken some."""
        if self._torn:  # a part of a line was written before an error
            self.size += os.write(self._descriptor, b"\n")
            self._torn = False
        left = memoryview(lines)
        while left:
            taken = left[: os.write(self._descriptor, left)].tobytes()
            self.size += len(taken)
            self._torn = not taken.endswith(b"\n")
            left = left[len(taken) :]
            yield taken.count(b"\n")


def _process() -> str:
    """Return this process as JSON: the host and the number."""
    host = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "host")
    return json.dumps(f"{host}:{os.getpid()}")


def _close_all() -> None:
    for call_log in fork.living(CallLog):
        call_log.close()


atexit.register(_close_all)
