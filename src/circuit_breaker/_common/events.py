"""The events, and how they are published: to the listeners of an object and to the logger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from . import checks
from .words import CircuitState, Outcome

if TYPE_CHECKING:
    import logging

__all__ = [
    "BulkheadRejected",
    "CallFinished",
    "CallRejected",
    "CircuitEvent",
    "Listener",
    "RetryGaveUp",
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
    """A breaker rejected a call; `retry_after_s` is None when it is unknown how long it will reject calls."""

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
    """Attempt number `attempt` (the first is 0) failed, and the next follows after `delay_s` seconds.

    Attributes:
        error: what the attempt raised; None for a bad value and for a bare number of `attempts()`.
        elapsed_s: seconds since the call began.
        function: the qualified name of what is called; None in a loop over `attempts()`.
    """

    attempt: int
    delay_s: float
    error: BaseException | None
    elapsed_s: float
    function: str | None = None


@dataclass(frozen=True)
class RetryGaveUp:
    """A call failed for good: an attempt failed, and no other follows.

    An error that is not retried is reported if it comes after others that were, not if it comes from the first attempt.

    Attributes:
        attempts: how many there were, >= 1.
        elapsed_s: seconds since the call began.
        reason: why no other attempt follows, as in the note on the error.
        error: what is raised; None for a value that stays bad, which is returned.
        function: the qualified name of what was called; None in a loop over `attempts()`.
    """

    attempts: int
    elapsed_s: float
    reason: str
    error: BaseException | None
    function: str | None = None


@dataclass(frozen=True)
class BulkheadRejected:
    """A bulkhead rejected a caller.

    Attributes:
        active_count: how many were inside.
        queued_count: how many others waited.
        waited_s: how long the caller had waited when its time was over; None: it was rejected at once.
    """

    bulkhead_name: str
    active_count: int
    queued_count: int
    waited_s: float | None = None


CircuitEvent: TypeAlias = StateChanged | CallRejected | CallFinished
Listener: TypeAlias = Callable[[Any], object]

INFO, WARNING, ERROR = 20, 30, 40  # as logging has them, which is loaded with the first object of ours

# Read past whatever a subclass makes of the attribute.
_TRACEBACK: Final[Any] = BaseException.__traceback__

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
    except Exception as problem:
        if raised_by_signal_handler(problem):
            raise


def raised_by_signal_handler(error: BaseException) -> bool:
    """Tell whether a signal handler of Python code raised it, in the middle of the code that it came out of.

    Such an exception is meant for whoever runs there, such as a time limit for the whole task: it must not be taken for
    one of a listener or a predicate, which may be logged and dropped.
    """
    signal: Any = sys.modules.get("signal")
    if signal is None:  # then nobody has set a handler
        return False
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()} - {None}
    trace = _TRACEBACK.__get__(error)
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


class FirstError:
    """Keeps the first of the exceptions that come out of several `with` blocks, until all is done."""

    __slots__ = ("_error",)

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def __enter__(self) -> FirstError:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool:
        if self._error is None:
            self._error = error
        return error is not None

    def raise_if_any(self) -> None:
        """Raise the exception, if there was one."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # an exception that is kept in a frame of its own traceback is a circle


def notify(listeners: Iterable[Listener], event: object) -> None:
    """Give the event to every listener; never to be called under a lock.

    An `Exception` of a listener is logged. A `BaseException` that is none (a `sys.exit`, a Ctrl-C) passes on once
    every listener has been called, and so does what a signal handler raises; of several the first.
    """
    first_error = FirstError()
    for listener in listeners:
        with first_error:
            try:
                listener(event)
            except Exception as error:
                if raised_by_signal_handler(error):
                    raise
                log(ERROR, "listener %r raised at %r", listener, type(event).__name__, error=error)
    first_error.raise_if_any()


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
        replaced = False
        while not replaced:
            before = self._listeners
            replaced = self._replace_listeners(before, (*before, listener))

    def remove_listener(self, listener: Listener) -> None:
        """Notify listener no more, once if it was added more than once; an event under way may still reach it.

        Safe from any thread or task, and from a listener.

        Raises:
            ValueError: listener is not there.
        """
        replaced = False
        while not replaced:
            before = self._listeners
            if listener not in before:
                raise ValueError(f"listener must be one of the listeners of {self!r}, got {listener!r}")
            at = before.index(listener)
            replaced = self._replace_listeners(before, before[:at] + before[at + 1 :])

    def _replace_listeners(self, before: tuple[Listener, ...], after: tuple[Listener, ...]) -> bool:
        """Replace the listeners under the lock of the object, and return True.

        Return False, and change nothing, if they are no longer those of before.
        """
        raise NotImplementedError
