"""Which async library runs here, found by looking at what is loaded: this package imports neither asyncio nor trio."""

from __future__ import annotations

import sys
from typing import Any


def running_trio() -> Any:
    """Return the module trio when this code runs in one of its tasks, else None."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_task() else None


def running_loop() -> Any:
    """Return the asyncio event loop that runs in this thread, else None."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio.get_running_loop() if asyncio is not None else None
    except RuntimeError:
        return None
