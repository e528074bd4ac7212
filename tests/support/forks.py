"""A forked child that says what it sees."""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from patience import PATIENCE_S

HANGS = "hangs"


def fork() -> int:
    """Fork; that other threads run here is what these tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


@dataclass(frozen=True)
class Child:
    """A forked process that says one thing and ends."""

    pid: int
    reader: int

    @classmethod
    def start(cls, tell: Callable[[], object], forking: Callable[[], int] = fork) -> Child:
        """Fork; the child says the repr of what tell returns, or the traceback of what it raises."""
        reader, writer = os.pipe()
        parent = os.getpid()
        said = "the child was interrupted"
        try:
            pid = forking()
            if os.getpid() != parent:
                said = repr(tell())
        except BaseException:
            if os.getpid() == parent:
                raise
            said = f"failed: {traceback.format_exc()[-2_000:]}"
        finally:
            if os.getpid() != parent:  # it must end here, or it would run the rest of the suite
                try:
                    os.write(writer, said.encode())
                finally:
                    os._exit(0)
        os.close(writer)
        return cls(pid, reader)

    def hear(self, patience_s: float = PATIENCE_S) -> str:
        """Return what it has said, once it has ended; one that does not end is killed, and `HANGS`."""
        said = None
        try:
            said = self._hear(time.monotonic() + patience_s)
        finally:
            os.close(self.reader)
            if said is None:
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        return HANGS if said is None else said

    def _hear(self, until: float) -> str | None:
        """Read until the child has closed its end by ending: coverage is saved after the last word."""
        said = b""
        while select.select([self.reader], [], [], max(0.0, until - time.monotonic()))[0]:
            more = os.read(self.reader, 10_000)
            if not more:
                return said.decode()
            said += more
        return None


def told_by_child(tell: Callable[[], object], forking: Callable[[], int] = fork) -> str:
    """Return the repr of what tell returns in a forked child."""
    return Child.start(tell, forking).hear()
