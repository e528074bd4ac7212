"""Ctrl-C at random moments, for the tests that say what it must leave whole."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from collections.abc import Callable

import pytest

SHOTS = int(os.environ.get("STORM_SHOTS", "2000"))

needs_timer = pytest.mark.skipif(
    not hasattr(signal, "setitimer") or sys.gettrace() is not None,
    reason="no interval timer here, or a tracer whose own locks an interrupt would leave held",
)


def storm(body: Callable[[], object], shots: int = SHOTS, after_each: Callable[[], object] = lambda: None) -> int:
    """Run body again and again under interrupts at random moments; return how many there were."""
    draw = random.Random(1)
    fired = 0

    def interrupt(*_: object) -> None:
        nonlocal fired
        fired += 1
        raise KeyboardInterrupt

    def hammer(shot: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 1e-4))
        while fired == shot:
            body()

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for shot in range(shots):
            with contextlib.suppress(KeyboardInterrupt):
                hammer(shot)
            after_each()
    finally:
        signal.signal(signal.SIGALRM, before)
    return fired
