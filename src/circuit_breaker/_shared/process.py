"""What one process has of its stores: one talker for each, and what becomes of it at a fork and at the end."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import ref

from .._breaker.config import CircuitBreakerConfig
from .._common import checks, fork
from .._common.events import Listener
from .._common.lock import RLock
from .._common.words import CircuitMode
from .link import Link, machine_of
from .machine import SharedMachine
from .protocol import Store
from .talker import Talker

if TYPE_CHECKING:
    from .._breaker.breaker import CircuitBreaker

LAST_WORDS_S: Final = 0.5
METHODS: Final = ("exchange", "update", "circuits", "members")

# The talker of each store, by reference. The lock guards the exchange of a reference, and nothing is called under it.
_lock = RLock()
_talkers: dict[Hashable, list[ref[Talker] | None]] = {}


def join(
    breaker: CircuitBreaker,
    store: object,
    config: CircuitBreakerConfig,
    mode: CircuitMode,
    now: float,
    listeners: tuple[Listener, ...],
) -> SharedMachine:
    """Return the machine of a breaker that shares its circuit.

    Raises:
        TypeError: store is no store.
    """
    talker = talker_of(checked(store))
    link = Link(breaker, talker)
    machine = SharedMachine(link, config, mode, now, listeners)
    talker.add(link)
    return machine


def checked(store: Any, *, optional: bool = True) -> Store:
    """Return store, which must have the four methods of one; `optional`: None would be taken, too."""
    if isinstance(store, type) or not all(callable(getattr(store, name, None)) for name in METHODS):
        takes = 'a store such as SQLiteStore("circuits.db")'
        raise checks.wrong_type("store", store, f"{takes}, or None" if optional else takes)
    return cast("Store", store)


def talker_of(store: Store) -> Talker:
    """Return the talker of a store; two stores of this process that are one, such as of one file, have one."""
    given: Any = store
    same: Callable[[], Hashable] = getattr(given, "_same", lambda: id(given))
    key = same()
    place = _talkers.setdefault(key, [None])
    talker = None
    while talker is None:
        found = place[0]
        talker = None if found is None else found()
        if talker is None:
            made = Talker(store)
            reference = ref(made)
            with _lock:
                if place[0] is found:
                    place[0] = reference
                    talker = made
    settings = [(name, getattr(given, name, getattr(talker, name))) for name in ("interval_s", "timeout_s")]
    for name, value in settings:
        if value != getattr(talker, name):
            raise ValueError(
                f"{name} must be the same for all stores of {given!r} in one process, got {value} beside "
                f"{getattr(talker, name)}: make one store, and give it to all breakers"
            )
    return talker


def _after_fork_in_child() -> None:
    global _lock
    _lock = RLock()


def _before_fork() -> None:
    """End the threads, so that none is in the middle of anything in the child; the next call starts them anew."""
    talkers = fork.living(Talker)
    threads = [(talker, talker.pause()) for talker in talkers]
    for talker, thread in threads:
        if thread is not None:
            thread.join(2 * talker.timeout_s)
            talker.give_up()
        for link in talker.links():
            breaker = link.breaker
            if breaker is not None:
                machine_of(breaker).join(False)
        _close_idle(talker)


def _close_idle(talker: Talker) -> None:
    """Close the connections of a store that nobody uses at the moment, if it has any."""
    close: Callable[[], None] | None = getattr(talker.store, "_close_idle", None)
    if close is not None:
        close()


def _after_fork_in_parent() -> None:
    for talker in fork.living(Talker):
        talker.resume()


def _at_exit() -> None:
    """Let the last counts, results and leases go out."""
    threads = [(talker, talker.stop(talker.farewell)) for talker in fork.living(Talker)]
    ends_at = time.monotonic() + LAST_WORDS_S
    for talker, thread in threads:
        if thread is not None:
            thread.join(max(0.0, ends_at - time.monotonic()))
        _close_idle(talker)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
