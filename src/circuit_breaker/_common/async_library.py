"""All that knows asyncio, trio or a cancellation. What runs here is found in what is loaded: neither is imported."""

from __future__ import annotations

import sys
from typing import Any

_modules = sys.modules


def running_trio() -> Any:
    """Return the module trio when this code runs in one of its tasks, else None."""
    trio = _modules.get("trio")
    asks = getattr(getattr(trio, "lowlevel", None), "in_trio_task", None)  # None while another thread imports it
    return trio if asks is not None and asks() else None


def running_loop() -> Any:
    """Return the asyncio event loop that runs in this thread, else None."""
    asks = getattr(_modules.get("asyncio"), "get_running_loop", None)
    try:
        return asks() if asks is not None else None
    except RuntimeError:
        return None


# The modules that bring a cancellation of their own, and its name there.
_CANCELLATIONS = (
    ("asyncio", "CancelledError"),
    ("trio", "Cancelled"),
    ("concurrent.futures", "CancelledError"),
)


_found: tuple[int, tuple[type[BaseException], ...]] = (0, ())  # how many modules were loaded, and what they had


def cancellation_types() -> tuple[type[BaseException], ...]:
    """Return the exceptions that cancel a call, of the libraries that are loaded."""
    global _found
    loaded, kinds = _found
    if loaded != len(_modules):
        loaded = len(_modules)
        found = (getattr(_modules.get(module), name, None) for module, name in _CANCELLATIONS)
        kinds = tuple(kind for kind in found if kind is not None)
        _found = loaded, kinds
    return kinds
