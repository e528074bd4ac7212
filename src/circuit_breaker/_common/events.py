"""What listeners are told, and the two ways out of the house: the listeners of an object and the logger."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from . import checks, fork
from .lock import RLock
from .words import CircuitState, Outcome

if TYPE_CHECKING:
    import logging

__all__ = [
    "BulkheadRejected",
    "CallFinished",
    "CallRejected",
    "CircuitEvent",
    "Listener",
    "RetryScheduled",
    "StateChanged",
]


@dataclass(frozen=True)
class StateChanged:
    """The machine of a breaker went from one state to another; those of one breaker arrive in order, each once."""

    circuit_name: str
    old_state: CircuitState
    new_state: CircuitState
    reason: str


@dataclass(frozen=True)
class CallRejected:
    """A breaker refused a call; `retry_after_s` is None when it cannot tell for how long."""

    circuit_name: str
    retry_after_s: float | None


@dataclass(frozen=True)
class CallFinished:
    """An outcome was counted: of a call, of a `record_*`, or of an answer that came late."""

    circuit_name: str
    outcome: Outcome
    latency_ms: float
    error: BaseException | None


@dataclass(frozen=True)
class RetryScheduled:
    """Attempt number `attempt` (the first is 0) failed, the next follows after `delay_s`; a bad value has no error."""

    attempt: int
    delay_s: float
    error: BaseException | None
    elapsed_s: float


@dataclass(frozen=True)
class BulkheadRejected:
    """A bulkhead refused a caller, at once or after it had waited for its time."""

    bulkhead_name: str
    active_count: int
    queued_count: int


CircuitEvent: TypeAlias = StateChanged | CallRejected | CallFinished
Listener: TypeAlias = Callable[[Any], object]

INFO, WARNING, ERROR = 20, 30, 40  # as logging has them, which is loaded with the first object of ours

_logger: logging.Logger | None = None


def open_log() -> logging.Logger:
    """Fetch the logger; asked where objects are made, since a Ctrl-C in `getLogger()` can leave logging locked."""
    global _logger
    if _logger is None:
        import logging

        logger = logging.getLogger("circuit_breaker")
        logger.addHandler(logging.NullHandler())
        _logger = logger
    return _logger


def log(level: int, message: str, *args: object, error: BaseException | None = None, **fields: object) -> None:
    """Write one line, and swallow what a broken filter or handler raises: a log line never changes an outcome."""
    try:
        open_log().log(level, message, *args, exc_info=error, extra=fields)
    except Exception:  # noqa: S110 - there is nowhere left to report it
        pass


def notify(listeners: Iterable[Listener], event: object) -> None:
    """Give the event to every listener; never to be called under a lock.

    An `Exception` of a listener is logged. A `BaseException` that is none (a `sys.exit`, a Ctrl-C) passes on once
    every listener has been told; of several the first.
    """
    stop: BaseException | None = None
    for listener in listeners:
        try:
            try:
                listener(event)
            except Exception as error:
                log(ERROR, "listener %r raised at %r", listener, type(event).__name__, error=error)
        except BaseException as error:
            stop = error if stop is None else stop
    if stop is not None:
        try:
            raise stop
        finally:
            stop = None


class Listened:
    """An object with listeners, which may come and go at any time: from any thread, and while events are delivered.

    They are in a tuple that is never changed but replaced, so that whoever delivers an event needs no lock, and reading
    it costs nothing.
    """

    _listeners: tuple[Listener, ...]

    def add_listener(self, listener: Listener) -> None:
        """Notify listener of every event from the next one on; one that is added twice is notified twice.

        Safe from any thread or task, and from a listener.

        Args:
            listener: a plain function of one event.

        Raises:
            TypeError: listener is no such function.
        """
        listener = checks.function("listener", listener, "a function of one event")
        exchanged = False
        while not exchanged:
            before = self._listeners
            exchanged = _exchange.make(self, before, (*before, listener))

    def remove_listener(self, listener: Listener) -> None:
        """Notify listener no more, once if it was added more than once; an event under way may still reach it.

        Safe from any thread or task, and from a listener.

        Raises:
            ValueError: listener is not there.
        """
        exchanged = False
        while not exchanged:
            before = self._listeners
            if listener not in before:
                raise ValueError(f"{listener!r} is no listener of {self!r}")
            at = before.index(listener)
            exchanged = _exchange.make(self, before, before[:at] + before[at + 1 :])


class _Exchange:
    """Lets one thread at a time replace the listeners of an object."""

    def __init__(self) -> None:
        self._lock = RLock()
        fork.survive(self)

    def make(self, of: Listened, before: tuple[Listener, ...], after: tuple[Listener, ...]) -> bool:
        """Replace the listeners, and return True; or change nothing if they are no longer those of before."""
        with self._lock:
            if of._listeners is before:
                of._listeners = after
                return True
        return False

    def _after_fork_in_child(self) -> None:
        self._lock = RLock()


_exchange: Final = _Exchange()
