"""Ctrl-C at random moments, for the tests that say what it must leave whole."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import time
from collections.abc import Callable

SHOTS = int(os.environ.get("STORM_SHOTS", "2000"))


def _seconds_of(body: Callable[[], object]) -> float:
    began = time.perf_counter()
    body()
    return time.perf_counter() - began


def storm(
    body: Callable[[], object],
    shots: int = SHOTS,
    after_each: Callable[[], object] = lambda: None,
    in_handler: Callable[[], object] = lambda: None,
) -> int:
    """Run body again and again under interrupts at random moments; return how many there were."""
    draw = random.Random(1)
    latest_s = max(1e-4, min(2 * _seconds_of(body), 1e-3))  # on a busy machine, too, some calls come to their end
    fired = 0
    armed = False

    def interrupt(*_: object) -> None:
        nonlocal fired, armed
        if armed:
            armed = False
            fired += 1
            in_handler()
            raise KeyboardInterrupt

    def hammer() -> None:
        nonlocal armed
        armed = True
        # CPython can overlook a signal that arrives in the moment it looks for one, so it is sent until it is heard.
        signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, latest_s), 0.05)
        while armed:
            body()

    gc.collect()  # or a `WeakSet` could notice in the middle that a thread of an earlier test is gone, and swallow one
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(shots):
            with contextlib.suppress(KeyboardInterrupt):
                hammer()
            after_each()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return fired
