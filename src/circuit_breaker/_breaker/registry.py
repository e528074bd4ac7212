"""One breaker for each key: a host, a model, a tenant."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from threading import RLock
from typing import Any, Final

from .._common import checks, fork
from .._common.events import WARNING, FirstError, Listener, log, open_log
from .._common.pattern import Args, Function, Kwargs, OnlyOne, Pattern
from .._common.streams import AsyncStream, Guard, Stream
from .._common.typing import BreakerDecorator
from .._common.words import CircuitMode, CircuitState
from .breaker import CircuitBreaker
from .config import CircuitBreakerConfig
from .stream import StreamGuard

__all__ = ["CircuitBreakerRegistry"]

LOOKED_AT: Final = 16  # breakers, for one that may be forgotten


class _Entry:
    """A breaker that is kept, in a list from the least to the most recently used."""

    __slots__ = ("breaker", "key", "linked", "newer", "older")

    def __init__(self, key: Hashable, breaker: CircuitBreaker) -> None:
        self.key = key
        self.breaker = breaker
        self.linked = False
        self.newer: _Entry | None = None
        self.older: _Entry | None = None


class CircuitBreakerRegistry(OnlyOne):
    """`registry[key]` is the one breaker of that key, made when it is first asked for.

    Safe from any thread or task. Holds at most `max_size` breakers, and forgets one of the least recently used then:
    one that is closed, or open with its time over, preferably without remembered failures. One that is open, half-open,
    or in another mode than it was made with, stays. One that is forgotten while somebody still holds it is the one that
    its key gives again; if it opens or is steered then, it is kept again. If none can go, the registry grows, and warns
    once; it shrinks as soon as it can. A new key costs the same whatever the size.

    Args:
        config: of every breaker, or a function that gives the one of a key; None takes the defaults.
        max_size: how many breakers are kept, >= 1.
        mode: of every breaker, as are `listeners` and `clock`; see `CircuitBreaker`.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """

    # `_lock` guards the list of entries from `_oldest` to `_newest`, and nothing is called under it. The dictionaries
    # are asked without it, since keys may have a hash and a comparison of their own; each use of one is a single step.

    def __init__(
        self,
        config: CircuitBreakerConfig | Callable[[Any], CircuitBreakerConfig] | None = None,
        *,
        max_size: int = 1024,
        mode: CircuitMode = CircuitMode.AUTO,
        listeners: Iterable[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = _checked_config(CircuitBreakerConfig() if config is None else config)
        self._max_size = checks.count("max_size", max_size, 1)
        self._mode = checks.member("mode", mode, CircuitMode)
        self._listeners = checks.functions("listeners", listeners)
        self._clock = checks.function("clock", clock, "a function that returns seconds")
        self._lock = RLock()
        self._entries: dict[Hashable, _Entry] = {}
        self._oldest: _Entry | None = None
        self._newest: _Entry | None = None
        self._forgotten: dict[Hashable, weakref.ref[CircuitBreaker]] = {}
        self._forgotten_keys: deque[Hashable] = deque()  # to be looked at whether anybody still holds their breakers
        self._warned = False
        open_log()
        fork.survive(self)

    def __repr__(self) -> str:
        return f"<CircuitBreakerRegistry of {len(self)} breakers, max_size {self._max_size}>"

    def __getitem__(self, key: Hashable) -> CircuitBreaker:
        """Return the breaker of this key; a key that is no str names its breaker by `str(key)`."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._add(key)
        if entry is not self._newest:
            self._use(entry)
        return entry.breaker

    def get(self, key: Hashable) -> CircuitBreaker | None:
        """Return the breaker of this key if it is kept, else None; this makes none, and does not count as its use."""
        entry = self._entries.get(key)
        return None if entry is None else entry.breaker

    def values(self) -> list[CircuitBreaker]:
        """Return the breakers that are kept, the least recently used first; this does not count as their use."""
        return [entry.breaker for entry in self._in_order()]

    def __contains__(self, key: object) -> bool:
        """Tell whether the breaker of this key is kept; this does not count as its use."""
        return key in self._entries

    def __len__(self) -> int:
        """Return how many breakers are kept."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over a copy of the keys, the least recently used first."""
        return iter([entry.key for entry in self._in_order()])

    def keyed(self, key_function: Callable[..., Hashable]) -> BreakerDecorator[KeyedBreakers]:
        """Return a decorator that guards each call with `registry[key_function(*args, **kwargs)]`.

        For example `@registry.keyed(lambda self, *args: self.host)` over a method. The attribute `circuit_breaker` of
        the decorated function is this choice, and no breaker.
        """
        takes = "a function of the arguments of a call"
        return KeyedBreakers(self, checks.function("key_function", key_function, takes))._decorate

    def remove(self, key: Hashable) -> None:
        """Forget the breaker of this key; the next use of the key makes a new one, whoever still holds the old.

        Raises:
            KeyError: no breaker of this key is known.
        """
        entry = self._entries.pop(key, None)
        reference = self._forgotten.pop(key, None)
        if entry is not None:
            self._unlink(entry)
        elif reference is None or reference() is None:
            raise KeyError(key)

    def reset_all(self) -> None:
        """Reset every breaker that is kept: in the mode it was made with, closed, all totals zero."""
        first_error = FirstError()
        for breaker in self.values():
            with first_error:
                breaker.reset()
        first_error.raise_if_any()

    @property
    def config(self) -> CircuitBreakerConfig | Callable[[Any], CircuitBreakerConfig]:
        """The configuration of every breaker, or a function of the key; setting it changes those that are there, too.

        If the function raises for some keys, the breakers of all others are changed, and the first error is raised.
        """
        return self._config

    @config.setter
    def config(self, config: CircuitBreakerConfig | Callable[[Any], CircuitBreakerConfig]) -> None:
        self._config = _checked_config(config)
        forgotten = [(key, reference()) for key, reference in list(self._forgotten.items())]
        known = [(entry.key, entry.breaker) for entry in self._in_order()]
        first_error = FirstError()
        for key, breaker in known + forgotten:
            if breaker is not None:
                with first_error:
                    breaker.config = self._config_of(key)
        first_error.raise_if_any()

    # Finding and making

    def _in_order(self) -> list[_Entry]:
        entries: list[_Entry] = []
        entry = self._oldest
        while entry is not None:
            entries.append(entry)
            entry = entry.newer
        return entries

    def _config_of(self, key: Hashable) -> CircuitBreakerConfig:
        config = self._config
        if isinstance(config, CircuitBreakerConfig):
            return config
        return checks.instance("config(key)", config(key), CircuitBreakerConfig)

    def _add(self, key: Hashable) -> _Entry:
        """Keep the breaker of this key: one that is still held by somebody, or a new one."""
        reference = self._forgotten.get(key)
        breaker = None if reference is None else reference()
        if breaker is None:
            config = self._config_of(key)
            breaker = CircuitBreaker(str(key), config, mode=self._mode, listeners=self._listeners, clock=self._clock)
            breaker._keeper = partial(_keep, weakref.ref(self), key)
        # Another thread may have come first.
        entry = self._entries.setdefault(key, _Entry(key, breaker))
        self._use(entry, new=True)
        self._make_room(entry)
        return entry

    def _keep(self, key: Hashable) -> None:
        """Take the breaker of this key back if it was forgotten: it opened, or is steered, while somebody held it."""
        reference = self._forgotten.get(key)
        if key not in self._entries and reference is not None and reference() is not None:
            self._add(key)

    def _use(self, entry: _Entry, new: bool = False) -> None:
        """Make an entry that is in the list the most recently used; a new one comes into it."""
        with self._lock:
            if entry is self._newest or not (entry.linked or new):
                return
            older, newer = entry.older, entry.newer
            if entry.linked:
                if older is None:
                    self._oldest = newer
                else:
                    older.newer = newer
                if newer is not None:
                    newer.older = older
            last = self._newest
            entry.older = last
            entry.newer = None
            if last is None:
                self._oldest = entry
            else:
                last.newer = entry
            self._newest = entry
            entry.linked = True

    def _unlink(self, entry: _Entry) -> bool:
        """Take an entry out of the list; tell whether it was in it."""
        with self._lock:
            linked = entry.linked
            if linked:
                older, newer = entry.older, entry.newer
                if older is None:
                    self._oldest = newer
                else:
                    older.newer = newer
                if newer is None:
                    self._newest = older
                else:
                    newer.older = older
                entry.linked = False
                entry.older = entry.newer = None
        return linked

    # Forgetting

    def _make_room(self, newest: _Entry) -> None:
        excess = len(self._entries) - self._max_size
        for _ in range(min(excess, 2)):  # with one alone, a registry that has grown would never shrink
            entry = self._one_to_forget(newest)
            if entry is None:
                self._warn_once()
                return
            self._forget(entry)

    def _one_to_forget(self, newest: _Entry) -> _Entry | None:
        """Return one of the least recently used that may go, preferably without failures."""
        now = self._clock()
        chosen: _Entry | None = None
        entry = self._oldest
        for _ in range(LOOKED_AT):
            if entry is None or entry is newest:
                break
            newer = entry.newer
            machine = entry.breaker._machine
            period = machine.period
            closed = period.state is CircuitState.CLOSED
            if machine.mode is not entry.breaker._made_in or not (closed or now >= period.ends_at):
                self._use(entry)  # to be looked at again only after all others
            elif not period.has_failures(now):
                return entry
            elif chosen is None:
                chosen = entry
            entry = newer
        return chosen

    def _forget(self, entry: _Entry) -> None:
        # Noted first and dropped then: whoever comes in between finds it in one place or the other.
        key = entry.key
        self._forgotten[key] = weakref.ref(entry.breaker)
        self._forgotten_keys.append(key)
        if self._unlink(entry):
            self._entries.pop(key, None)
        for _ in range(2):  # one more than comes in, so that what nobody holds does not pile up
            oldest = self._forgotten_keys.popleft() if self._forgotten_keys else key
            reference = self._forgotten.get(oldest)
            if reference is None:
                continue
            if reference() is None:
                self._forgotten.pop(oldest, None)
            else:
                self._forgotten_keys.append(oldest)

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            log(
                WARNING,
                "a registry grows beyond its max_size of %d: none of the breakers that were looked at may be forgotten",
                self._max_size,
                max_size=self._max_size,
            )

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()


def _checked_config(config: Any) -> CircuitBreakerConfig | Callable[[Any], CircuitBreakerConfig]:
    if isinstance(config, CircuitBreakerConfig):
        return config
    return checks.function("config", config, "a CircuitBreakerConfig or a function of the key that gives one")


def _keep(registry: weakref.ref[CircuitBreakerRegistry], key: Hashable) -> None:
    living = registry()
    if living is not None:
        living._keep(key)


class KeyedBreakers(Pattern):
    """Guards each call with the breaker of its key."""

    _attribute = "circuit_breaker"

    def __init__(self, registry: CircuitBreakerRegistry, key_function: Callable[..., Hashable]) -> None:
        self.registry = registry
        self._key_function = key_function

    def __repr__(self) -> str:
        return f"<the breaker of {self.registry!r} for each key that {self._key_function!r} gives>"

    def _run(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        return self._breaker(args, kwargs)._run(func, args, kwargs)

    async def _run_async(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        return await self._breaker(args, kwargs)._run_async(func, args, kwargs)

    def _new_guard(self) -> Guard:
        return _KeyedStream(self)

    def _breaker(self, args: Args, kwargs: Kwargs) -> CircuitBreaker:
        return self.registry[self._key_function(*args, **kwargs)]


class _KeyedStream(StreamGuard):
    """Guards one iteration with the breaker of its key, which is known when it begins."""

    def __init__(self, keyed: KeyedBreakers) -> None:
        self._keyed = keyed
        self._permission = None

    def open(self, func: Callable[..., Stream], args: Args, kwargs: Kwargs) -> tuple[Stream, Any]:
        """Find the breaker, and begin under it."""
        super().__init__(self._keyed._breaker(args, kwargs))
        return super().open(func, args, kwargs)

    async def open_async(self, func: Callable[..., AsyncStream], args: Args, kwargs: Kwargs) -> tuple[AsyncStream, Any]:
        """Do the same as `open`."""
        super().__init__(self._keyed._breaker(args, kwargs))
        return await super().open_async(func, args, kwargs)
