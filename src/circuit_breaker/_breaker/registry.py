"""One breaker for each key: a host, a model, a tenant."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, Final

from .._common import checks, fork
from .._common.events import WARNING, FirstError, Listened, Listener, log, open_log
from .._common.lock import RLock
from .._common.pattern import Args, Function, Kwargs, OnlyOne, Pattern
from .._common.streams import AsyncStream, Guard, Stream
from .._common.words import CircuitMode, CircuitState
from .admission import load_sharing
from .breaker import CircuitBreaker
from .cache import Cache, Entry
from .config import CircuitBreakerConfig
from .stream import StreamGuard

if TYPE_CHECKING:
    from .._common.typing import BreakerDecorator
    from .._shared.protocol import Store

__all__ = ["CircuitBreakerRegistry"]

LOOKED_AT: Final = 16  # breakers, to find one that may be forgotten


class CircuitBreakerRegistry(Listened, OnlyOne):
    """One breaker for each key, such as a host: `registry[key]` returns it, and makes it when it is first used.

    Threads and tasks may share one registry. When it has more than `max_size` breakers, it forgets one that was not
    used for a long time. It forgets only a breaker that is closed, or open with its time over, and that is in the mode
    it was made with; first one without failures. If none of those it looks at may go, the registry grows, logs one
    warning, and shrinks later. A breaker that is forgotten while somebody still holds it comes back with its key: a key
    never has two breakers at once. A new key costs the same in a small registry and in a large one.

    Args:
        config: The configuration of every breaker, or a function that gets the key and returns one. None: the defaults.
        max_size: How many breakers are kept, >= 1.
        mode: The mode in which every breaker is made, see `CircuitMode`.
        listeners: Functions that get every event of every breaker.
        clock: A function that returns monotonic seconds, for every breaker.
        store: The store of every breaker, see `CircuitBreaker`. None: nothing is shared with other processes.

    Raises:
        TypeError, ValueError: A setting has the wrong type or is out of range.
    """

    # `_lock` guards `_warned` and `_listeners`. What is kept has a lock of its own.

    def __init__(
        self,
        config: CircuitBreakerConfig | Callable[[Any], CircuitBreakerConfig] | None = None,
        *,
        max_size: int = 1024,
        mode: CircuitMode = CircuitMode.AUTO,
        listeners: Iterable[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
        store: Store | None = None,
    ) -> None:
        self._config = _checked_config(CircuitBreakerConfig() if config is None else config)
        self._max_size = checks.count("max_size", max_size, 1)
        self._mode = checks.member("mode", mode, CircuitMode)
        self._listeners = checks.functions("listeners", listeners)
        self._clock = checks.function("clock", clock, "a function that returns seconds")
        self._store = None if store is None else load_sharing().checked(store)
        self._cache: Cache[CircuitBreaker] = Cache()
        self._lock = RLock()
        self._warned = False
        open_log()
        fork.survive(self)

    def __repr__(self) -> str:
        return f"<CircuitBreakerRegistry of {len(self)} breakers, max_size {self._max_size}>"

    def __getitem__(self, key: Hashable) -> CircuitBreaker:
        """Return the breaker of this key. Its name is the key, or `str(key)` if the key is not a str."""
        breaker = self._cache.use(key)
        return self._bring(key) if breaker is None else breaker

    def get(self, key: Hashable) -> CircuitBreaker | None:
        """Return the breaker of this key, or None if it is not there. This makes none and does not count as its use."""
        entry = self._cache.find(key)
        return None if entry is None else entry.kept

    def values(self) -> list[CircuitBreaker]:
        """Return all breakers that are kept, the least recently used first. This does not count as their use."""
        return [breaker for _, breaker in self._cache.in_order()]

    def __contains__(self, key: Hashable) -> bool:
        """Return whether the breaker of this key is kept. This does not count as its use."""
        return self.get(key) is not None

    def __len__(self) -> int:
        """Return how many breakers are kept."""
        return self._cache.count

    def __iter__(self) -> Iterator[Any]:
        """Iterate over a copy of the keys, the least recently used first."""
        return iter([entry.key for entry, _ in self._cache.in_order()])

    def keyed(self, key_function: Callable[..., Hashable]) -> BreakerDecorator[KeyedBreakers]:
        """Return a decorator that guards each call with the breaker of its key.

        The key is `key_function(*args, **kwargs)`, called with the arguments of the call. For a method these include
        `self`: `@registry.keyed(lambda self, *args, **kwargs: self.host)`. A decorated function has no single breaker:
        find the breakers with `registry[key]`.

        Raises:
            TypeError: `key_function` is not a plain function.
        """
        takes = "a function of the arguments of a call"
        return KeyedBreakers(self, checks.function("key_function", key_function, takes))._decorate

    def remove(self, key: Hashable) -> None:
        """Forget the breaker of this key. The next use of the key makes a new one, even if somebody holds the old one.

        Raises:
            KeyError: There is no breaker of this key.
        """
        if not self._cache.remove(key):
            raise KeyError(key)

    def reset_all(self) -> None:
        """Reset every breaker that is kept, as `CircuitBreaker.reset()` does."""
        first_error = FirstError()
        for breaker in self.values():
            with first_error:
                breaker.reset()
        first_error.raise_if_any()

    @property
    def config(self) -> CircuitBreakerConfig | Callable[[Any], CircuitBreakerConfig]:
        """The configuration of every breaker, or a function of the key. Setting it changes existing breakers, too.

        If the function raises for some keys, all other breakers are changed, and the first error is raised.
        """
        return self._config

    @config.setter
    def config(self, config: CircuitBreakerConfig | Callable[[Any], CircuitBreakerConfig]) -> None:
        self._config = _checked_config(config)
        first_error = FirstError()
        for key, breaker in self._known():
            with first_error:
                self._configure(key, breaker)
        first_error.raise_if_any()

    def add_listener(self, listener: Listener) -> None:
        """Call `listener` with every event of all breakers, those that are there and those that are made later.

        A listener that is added more than once is called once for each event, until it is removed as often.

        Raises:
            TypeError: `listener` is not a plain function.
        """
        super().add_listener(listener)
        for _, breaker in self._known():
            _listen(breaker, listener)

    def remove_listener(self, listener: Listener) -> None:
        """Stop calling `listener` with the events of these breakers.

        Raises:
            ValueError: It is not one of the listeners of this registry.
        """
        super().remove_listener(listener)
        if listener not in self._listeners:
            for _, breaker in self._known():
                _unlisten(breaker, listener)

    def _replace_listeners(self, before: tuple[Listener, ...], after: tuple[Listener, ...]) -> bool:
        with self._lock:
            if self._listeners is not before:
                return False
            self._listeners = after
            return True

    # Finding and making

    def _known(self) -> list[tuple[Any, CircuitBreaker]]:
        """Return the keys and breakers that are kept, and those that are forgotten but held by somebody."""
        found = [(entry.key, entry.reference()) for entry in self._cache.entries()]
        return [(key, breaker) for key, breaker in found if breaker is not None]

    def _config_of(self, key: Hashable) -> CircuitBreakerConfig:
        config = self._config
        if isinstance(config, CircuitBreakerConfig):
            return config
        return checks.instance("config(key)", config(key), CircuitBreakerConfig)

    def _configure(self, key: Hashable, breaker: CircuitBreaker) -> None:
        """Give a breaker the present configuration, of which another thread may set another one meanwhile."""
        for _ in repeat(None):
            config = self._config
            breaker.config = self._config_of(key)
            if self._config is config:
                return

    def _bring(self, key: Hashable) -> CircuitBreaker:
        """Return the breaker of this key, and keep it: the one that somebody still holds, or a new one."""
        config, listeners = self._config, self._listeners
        entry, breaker = self._cache.bring(key, self._make)
        if self._config is not config:
            self._configure(key, breaker)
        while listeners is not (present := self._listeners):  # they were changed while the breaker was made
            for listener in listeners:
                if listener not in present:
                    _unlisten(breaker, listener)
            for listener in present:
                _listen(breaker, listener)
            listeners = present
        self._make_room(entry)
        return breaker

    def _make(self, key: Hashable) -> CircuitBreaker:
        config = self._config_of(key)
        breaker = CircuitBreaker(
            str(key),
            config,
            mode=self._mode,
            listeners=_each_once(self._listeners),
            clock=self._clock,
            store=self._store,
        )
        breaker._keeper = partial(_keep, weakref.ref(self), key)
        return breaker

    def _keep(self, key: Hashable) -> None:
        """Keep the breaker of this key again. It was forgotten, and opened or was steered while somebody held it."""
        entry = self._cache.find(key)
        breaker = None if entry is None else entry.reference()
        if entry is not None and breaker is not None and self._cache.exchange(entry, None, breaker):
            self._make_room(entry)

    # Forgetting

    def _make_room(self, newest: Entry[CircuitBreaker]) -> None:
        for _ in range(2):  # two, so that a registry that has grown can shrink
            if len(self) <= self._max_size:
                return
            entry = self._one_to_forget(newest)
            if entry is None:
                self._warn_once()
                return
            self._forget(entry)

    def _one_to_forget(self, newest: Entry[CircuitBreaker]) -> Entry[CircuitBreaker] | None:
        """Return one of the least recently used that may go, preferably without failures."""
        now = self._clock()
        chosen: Entry[CircuitBreaker] | None = None
        for entry in islice(self._cache.least_used(), min(LOOKED_AT, len(self))):
            breaker = entry.kept
            if breaker is None or entry is newest:
                continue
            if not _may_go(breaker, now):
                self._cache.exchange(entry, breaker, breaker)  # to be looked at again only after all others
            elif not breaker._machine.period.has_failures(now):
                return entry
            elif chosen is None:
                chosen = entry
        return chosen

    def _forget(self, entry: Entry[CircuitBreaker]) -> None:
        breaker = entry.kept
        if breaker is None or not self._cache.exchange(entry, breaker, None, above=self._max_size):
            return  # another thread has used it, or made room, meanwhile
        if not _may_go(breaker, self._clock()):
            self._cache.exchange(entry, None, breaker)  # it has opened in between, when it was still kept

    def _warn_once(self) -> None:
        with self._lock:
            warned = self._warned
            self._warned = True
        if not warned:
            log(
                WARNING,
                "a registry grows beyond its max_size of %d: none of the breakers that were looked at may be forgotten",
                self._max_size,
                max_size=self._max_size,
            )

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()
        self._cache.after_fork_in_child()


def _listen(breaker: CircuitBreaker, listener: Listener) -> None:
    """Add a listener of the registry to a breaker, once, even if several threads do so."""
    while listener not in (before := breaker._listeners):
        if breaker._replace_listeners(before, (*before, listener)):
            return


def _each_once(listeners: tuple[Listener, ...]) -> list[Listener]:
    return [listener for at, listener in enumerate(listeners) if listener not in listeners[:at]]


def _unlisten(breaker: CircuitBreaker, listener: Listener) -> None:
    with suppress(ValueError):
        breaker.remove_listener(listener)


def _may_go(breaker: CircuitBreaker, now: float) -> bool:
    """Return whether it is closed, or open with its time over or for ever, and in the mode it was made in."""
    machine = breaker._machine
    if machine.mode is not breaker._made_in:
        return False
    period = machine.period
    return period.state is CircuitState.CLOSED or now >= period.ends_at or machine.mode is CircuitMode.FORCED_OPEN


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
