"""Which async library runs here, found by looking at what is loaded: this package imports neither asyncio nor trio."""

from __future__ import annotations

import sys
from typing import Any


def running_trio() -> Any:
    """Return the module trio when this code runs in one of its tasks, else None."""
    trio = sys.modules.get("trio")
    asks = getattr(getattr(trio, "lowlevel", None), "in_trio_task", None)  # None while another thread imports it
    return trio if asks is not None and asks() else None


def running_loop() -> Any:
    """Return the asyncio event loop that runs in this thread, else None."""
    asks = getattr(sys.modules.get("asyncio"), "get_running_loop", None)
    try:
        return asks() if asks is not None else None
    except RuntimeError:
        return None
