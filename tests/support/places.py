"""Doing something in the middle of something else: at every line of our code in turn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import circuit_breaker

PACKAGE = str(Path(circuit_breaker.__file__).parent)


def do_between(
    place: int,
    outer: Callable[[], object],
    inner: Callable[[], object],
    counts: Callable[[], object],
    inside: str | tuple[str, ...] = PACKAGE,
) -> bool:
    """Do inner in the middle of outer, before line number `place` of our code (the first is 1); False: it has fewer.

    Only lines at which `counts()` is true are numbered. With that of a free lock, inner is what another thread may do
    there. What inner raises is raised in outer, at that line.
    """
    places = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal places
        if not frame.f_code.co_filename.startswith(inside):
            return None
        if event == "line" and counts():
            places += 1
            if places == place:
                inner()
        return trace

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        outer()
    finally:
        sys.settrace(tracing)
    return places >= place
