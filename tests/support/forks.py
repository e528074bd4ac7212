"""A forked child that tells what it sees."""

from __future__ import annotations

import os
import select
import signal
import warnings
from collections.abc import Callable

import pytest
from basics import PATIENCE_S

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def fork() -> int:
    """Fork; that other threads run here is what these tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def told_by_child(tell: Callable[[], object], forking: Callable[[], int] = fork) -> str:
    """Return the repr of what tell returns in a forked child; a child that hangs is ended and tells ''."""
    reader, writer = os.pipe()
    child = forking()
    if child == 0:
        try:
            os.write(writer, repr(tell()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], PATIENCE_S)
    told = os.read(reader, 10_000).decode() if ready else ""
    os.close(reader)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return told
