"""One breaker for each key: a host, a model, a tenant."""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from threading import RLock
from typing import Any, Final, NamedTuple

from .._common import checks, fork
from .._common.events import WARNING, Listener, log, open_log
from .._common.pattern import OnlyOne
from .._common.words import CircuitMode
from .breaker import CircuitBreaker
from .config import CircuitBreakerConfig

__all__ = ["CircuitBreakerRegistry"]


FAILURES_LOOKED_PAST: Final = 32


class _Entry(NamedTuple):
    """A breaker, and what it has if nobody steers it."""

    breaker: CircuitBreaker
    config: CircuitBreakerConfig
    mode: CircuitMode


class _Forgotten(NamedTuple):
    breaker: weakref.ref[CircuitBreaker]
    config: CircuitBreakerConfig
    mode: CircuitMode


class CircuitBreakerRegistry(OnlyOne):
    """`registry[key]` is the one breaker of that key, made when it is first asked for.

    Safe from any thread or task. Holds at most `max_size` breakers, and forgets one of the least recently used then:
    one that is closed and steered by nobody, preferably without failures in mind. One that is forgotten while somebody
    still holds it is the one that its key gives again; if it opens then, or is steered, it is kept again. If none can
    go, the registry grows, and warns once; it shrinks as soon as it can.

    Args:
        config: of every breaker, or a function that gives the one of a key; None takes the defaults.
        max_size: how many breakers are kept, >= 1.
        mode: of every breaker, as are `listeners` and `clock`; see `CircuitBreaker`.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """

    # `_lock` guards every field below it. Under it no code of the caller runs but the keys' own hash and comparison: a
    # breaker is made before, and one that may go is looked at without its lock. It is reentrant, for a destructor may
    # come here in the middle of a locked section; so what was there a moment ago is looked up again.

    def __init__(
        self,
        config: CircuitBreakerConfig | Callable[[Any], CircuitBreakerConfig] | None = None,
        *,
        max_size: int = 1024,
        mode: CircuitMode = CircuitMode.AUTO,
        listeners: Iterable[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if config is not None and not isinstance(config, CircuitBreakerConfig):
            checks.function("config", config, "a CircuitBreakerConfig or a function of the key that gives one")
        self._config = CircuitBreakerConfig() if config is None else config
        self._max_size = checks.count("max_size", max_size, 1)
        self._mode = checks.member("mode", mode, CircuitMode)
        self._listeners = checks.functions("listeners", listeners)
        self._clock = checks.function("clock", clock, "a function that returns seconds")
        self._lock = RLock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()  # the least recently used first
        self._forgotten: dict[Hashable, _Forgotten] = {}
        self._sweep_at = self._max_size
        self._grown = False
        self._warned = False
        open_log()
        fork.survive(self)

    def __repr__(self) -> str:
        return f"<CircuitBreakerRegistry of {len(self)} breakers, max_size {self._max_size}>"

    def __getitem__(self, key: Hashable) -> CircuitBreaker:
        """Return the breaker of this key; a key that is no str names its breaker by `str(key)`."""
        now = self._clock()
        with self._lock:
            entry = self._find_locked(key, now)
        if entry is None:
            made = self._make(key)
            with self._lock:
                # Another thread may have made one for this key meanwhile: the first to come here wins.
                entry = self._find_locked(key, now) or self._add_locked(key, _Entry(made, made.config, self._mode), now)
        self._warn_once()
        return entry.breaker

    def __contains__(self, key: object) -> bool:
        """Tell whether the breaker of this key is kept; this does not count as its use."""
        with self._lock:
            return key in self._entries

    def __len__(self) -> int:
        """Return how many breakers are kept."""
        with self._lock:
            return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over a copy of the keys, those that may be forgotten soonest first."""
        with self._lock:
            return iter(list(self._entries))

    def remove(self, key: Hashable) -> None:
        """Forget the breaker of this key; the next use of the key makes a new one, whoever still holds the old.

        Raises:
            KeyError: no breaker of this key is known.
        """
        with self._lock:
            kept = self._entries.pop(key, None)
            reference = self._forgotten.pop(key, None)
            if kept is None and (reference is None or reference.breaker() is None):
                raise KeyError(key)

    def reset_all(self) -> None:
        """Reset every breaker that is kept: mode AUTO (whatever the registry's), closed, all totals zero."""
        with self._lock:
            entries = list(self._entries.items())
        stop: BaseException | None = None
        for key, entry in entries:
            with self._lock:
                if self._entries.get(key) is entry:
                    self._entries[key] = entry._replace(mode=CircuitMode.AUTO)
            try:
                entry.breaker.reset()
            except BaseException as error:  # of a listener
                stop = error if stop is None else stop
        if stop is not None:
            try:
                raise stop
            finally:
                stop = None

    def _make(self, key: Hashable) -> CircuitBreaker:
        config = self._config
        if not isinstance(config, CircuitBreakerConfig):
            config = checks.instance("config(key)", config(key), CircuitBreakerConfig)
        made = CircuitBreaker(str(key), config, mode=self._mode, listeners=self._listeners, clock=self._clock)
        made._keeper = partial(_keep, weakref.ref(self), key)
        return made

    def _keep(self, key: Hashable) -> None:
        """Take the breaker of this key back if it was forgotten: it opened, or is steered, while somebody held it."""
        now = self._clock()
        with self._lock:
            self._find_locked(key, now)
        self._warn_once()

    def _find_locked(self, key: Hashable, now: float) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._use_last_locked(key)
            return entry
        forgotten = self._forgotten.get(key)
        breaker = forgotten.breaker() if forgotten is not None else None
        if forgotten is None or breaker is None:
            return None
        entry = self._entries.setdefault(key, _Entry(breaker, forgotten.config, forgotten.mode))
        self._make_room_locked(key, now)
        return entry

    def _add_locked(self, key: Hashable, entry: _Entry, now: float) -> _Entry:
        # What came in between may have asked for the same key.
        entry = self._entries.setdefault(key, entry)
        self._make_room_locked(key, now)
        return entry

    def _make_room_locked(self, newest: Hashable, now: float) -> None:
        excess = len(self._entries) - self._max_size
        for _ in range(min(excess, 2)):  # with one alone, a registry that has grown would never shrink
            if not self._forget_among_locked(FAILURES_LOOKED_PAST, newest, now) and not self._forget_among_locked(
                self._max_size, newest, now
            ):
                self._grown = True
                break

    def _forget_among_locked(self, oldest: int, newest: Hashable, now: float) -> bool:
        chosen: tuple[Hashable, _Entry] | None = None
        staying: list[Hashable] = []
        for key in self._oldest_locked(oldest):
            entry = self._entries.get(key)
            if entry is None or key == newest:
                continue
            failures = entry.breaker._failures_in_mind(now, entry.mode, entry.config)
            if failures is None:
                staying.append(key)
            elif not failures or chosen is None:
                chosen = key, entry
            if failures is False:
                break
        for key in staying:  # to be looked at again only after all others: a registry that has grown costs no more
            self._use_last_locked(key)
        if chosen is None:
            return False
        key, entry = chosen
        # Noted first and dropped then: whoever comes in between finds it in one place or the other.
        self._forgotten[key] = _Forgotten(weakref.ref(entry.breaker), entry.config, entry.mode)
        self._entries.pop(key, None)
        if len(self._forgotten) >= self._sweep_at:
            self._sweep_locked()
        return True

    def _oldest_locked(self, count: int) -> list[Hashable]:
        keys: list[Hashable] = []
        with suppress(RuntimeError):  # a key whose own comparison changes the registry ends the look
            keys.extend(islice(self._entries, count))
        return keys

    def _sweep_locked(self) -> None:
        for key, kept in self._forgotten.copy().items():
            if kept.breaker() is None:
                self._forgotten.pop(key, None)
        self._sweep_at = max(self._max_size, 2 * len(self._forgotten))

    def _use_last_locked(self, key: Hashable) -> None:
        if key in self._entries:
            self._entries.move_to_end(key)

    def _warn_once(self) -> None:
        if not self._grown or self._warned:
            return
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            log(
                WARNING,
                "a registry grows beyond its max_size of %d: none of its breakers is closed and as it was made",
                self._max_size,
                max_size=self._max_size,
            )

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()


def _keep(registry: weakref.ref[CircuitBreakerRegistry], key: Hashable) -> None:
    living = registry()
    if living is not None:
        living._keep(key)
