"""What the stores of this library have in common: their settings, the orders of operators, and `sync`."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Hashable
from datetime import timedelta
from typing import Any

from .._common import checks
from .._common.words import CircuitMode
from . import changes
from .protocol import Store
from .record import Edit, Step

__all__ = ["BaseStore"]


class BaseStore:
    """Inherit from this to write a store of your own; it adds orders and `sync` to the four methods of `Store`.

    Args:
        interval_s: seconds between two exchanges of one process with the store, > 0, or a `timedelta`. What one process
            finds out reaches the others within two of them.
        timeout_s: seconds that a call waits for the store at most, > 0, or a `timedelta`. Only a first call waits, and
            one that may become a probe.

    Raises:
        TypeError, ValueError: a setting is no number > 0.
    """

    clock: Callable[[], float] = time.monotonic  # of this process; what the store says is in the store's time
    manual = False  # without a thread: `sync` alone talks, and the calls that have to know

    def __init__(self, *, interval_s: float | timedelta = 1.0, timeout_s: float | timedelta = 0.25) -> None:
        self._interval_s = checks.seconds("interval_s", interval_s, above=0)
        self._timeout_s = checks.seconds("timeout_s", timeout_s, above=0)

    @property
    def interval_s(self) -> float:
        """Seconds between two exchanges."""
        return self._interval_s

    @property
    def timeout_s(self) -> float:
        """Seconds that a call waits at most."""
        return self._timeout_s

    def force_open(self, name: str) -> None:
        """Reject every call of this circuit, in all processes, until another order.

        Orders raise what the store raises, and reach all processes within two intervals. One whose own `mode` is not
        AUTO obeys that instead.
        """
        self._order(name, changes.ordered(CircuitMode.FORCED_OPEN, whoami()))

    def force_closed(self, name: str) -> None:
        """Admit every call of this circuit, in all processes, until another order."""
        self._order(name, changes.ordered(CircuitMode.FORCED_CLOSED, whoami()))

    def auto(self, name: str) -> None:
        """End a forced mode: the circuit begins closed, and decides for itself; without one nothing changes."""
        self._order(name, changes.ordered(CircuitMode.AUTO, whoami()))

    def reset(self, name: str) -> None:
        """Close the circuit now, whatever it is; an unreadable record is overwritten, as by every order."""
        self._order(name, changes.reset(whoami()))

    def sync(self) -> None:
        """Exchange with the store now, for all breakers of this process that have it; raise what the store raises.

        It is for tests, and before a first look: afterwards `breaker.state` is where the circuit is.
        """
        from .process import talker_of

        talker_of(_as_store(self)).sync()

    def _order(self, name: str, step: Step) -> None:
        _as_store(self).update(checks.text("name", name), Edit(step, overwrite=True))

    def _same(self) -> Hashable:
        """Return what two stores of one process have in common if they are one member."""
        return id(self)


def _as_store(store: Any) -> Store:
    given: Store = store
    return given


def whoami() -> str:
    """Return the name of this process, for people: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"
