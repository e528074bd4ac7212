"""The events, and the two ways in which they leave the library: to the listeners of an object, and to the logger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

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
    """A circuit changed its state. The changes of one breaker arrive in order, each once, perhaps on another thread.

    In `SHADOW` the states are those of the circuit itself; callers always meet a closed one.

    Attributes:
        circuit_name: The name of the breaker.
        old_state: The state before.
        new_state: The state now.
        reason: Why, in words, with the figures: "5 failures in a row (threshold 5)".
    """

    circuit_name: str
    old_state: CircuitState
    new_state: CircuitState
    reason: str


@dataclass(frozen=True)
class CallRejected:
    """A breaker rejected a call.

    Attributes:
        circuit_name: The name of the breaker.
        retry_after_s: Seconds until the circuit admits a probe. None: not known, because it is half-open or forced
            open.
    """

    circuit_name: str
    retry_after_s: float | None


@dataclass(frozen=True)
class CallFinished:
    """A result was counted: the result of a call, a late one included, or a `record_*`.

    Attributes:
        circuit_name: The name of the breaker.
        outcome: What the call says about the service.
        latency_ms: Milliseconds that the call took. For a guarded stream, the time to its first item.
        error: What the call raised, or None.
    """

    circuit_name: str
    outcome: Outcome
    latency_ms: float
    error: BaseException | None


@dataclass(frozen=True)
class RetryScheduled:
    """An attempt failed, and a retry follows after a sleep.

    Attributes:
        attempt: The number of the failed attempt. The first is 0.
        delay_s: Seconds until the retry.
        error: What the attempt raised. None for a value that `retry_result` rejects, and in a loop over `attempts()`
            without a `with` block.
        elapsed_s: Seconds since the call began.
        function: The function, as `module.qualname`. None in a loop over `attempts()`.
    """

    attempt: int
    delay_s: float
    error: BaseException | None
    elapsed_s: float
    function: str | None = None


@dataclass(frozen=True)
class RetryGaveUp:
    """A call failed, and no further attempt follows.

    If the first attempt fails with an error that is not retried, there is no such event.

    Attributes:
        attempts: How many attempts were made, >= 1.
        elapsed_s: Seconds since the call began.
        reason: Why no other attempt follows, as in the note on the error.
        error: The error that is raised. None if a value that `retry_result` rejects is returned, and in a loop over
            `attempts()` without `with` blocks.
        function: The function, as `module.qualname`. None in a loop over `attempts()`.
    """

    attempts: int
    elapsed_s: float
    reason: str
    error: BaseException | None
    function: str | None = None


@dataclass(frozen=True)
class BulkheadRejected:
    """A bulkhead rejected a call.

    Attributes:
        bulkhead_name: The name of the bulkhead.
        active_count: How many calls were running.
        queued_count: How many others waited.
        waited_s: Seconds that the caller had waited when its time was over. None: it was rejected at once.
    """

    bulkhead_name: str
    active_count: int
    queued_count: int
    waited_s: float | None = None


CircuitEvent: TypeAlias = StateChanged | CallRejected | CallFinished
Listener: TypeAlias = Callable[[Any], object]

INFO, WARNING, ERROR = 20, 30, 40  # as logging has them, which is loaded with the first object of ours

# A subclass may override the attribute, so it is read from the base class.
_TRACEBACK: Final[Any] = BaseException.__traceback__

_logger: logging.Logger | None = None


def open_log() -> logging.Logger:
    """Fetch the logger. Called where objects are made, because a Ctrl-C in `getLogger()` can leave logging locked."""
    global _logger
    if _logger is None:
        import logging

        logger = logging.getLogger("circuit_breaker")
        logger.addHandler(logging.NullHandler())
        _logger = logger
    return _logger


def log(level: int, message: str, *args: object, error: BaseException | None = None, **fields: object) -> None:
    """Write one line. Ignore errors of broken filters and handlers: a log line never changes a result."""
    try:
        open_log().log(level, message, *args, exc_info=error, extra=fields)
    except Exception as problem:
        if raised_by_signal_handler(problem):
            raise


def raised_by_signal_handler(error: BaseException) -> bool:
    """Return whether a signal handler written in Python raised this exception in the middle of other code.

    Such an exception is meant for the code that was running, for instance as a time limit of the whole task. It must
    not be taken for an error of a listener or a predicate, which may be logged and dropped.
    """
    signal: Any = sys.modules.get("signal")
    if signal is None:  # then nobody has set a handler
        return False
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    trace = _TRACEBACK.__get__(error)
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def _code_of(handler: Any) -> object:
    """Return the code that runs when a signal handler is called; None if there is no handler in Python."""
    while isinstance(handler, partial):
        handler = cast("Any", handler).func
    if not callable(handler):
        return None
    method: Any = type(handler).__call__
    return getattr(handler, "__code__", None) or getattr(method, "__code__", None)


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
                del error  # an exception in a frame of its own traceback is a reference cycle


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

    They are in a tuple that is replaced and never changed, so that delivering an event needs no lock, and reading
    it costs nothing.
    """

    _listeners: tuple[Listener, ...]

    def add_listener(self, listener: Listener) -> None:
        """Call `listener` with every event from now on. A listener that is added twice is called twice.

        Safe from any thread or task, and from inside a listener.

        Args:
            listener: A plain function that gets one event.

        Raises:
            TypeError: `listener` is not such a function.
        """
        listener = checks.function("listener", listener, "a function of one event")
        replaced = False
        while not replaced:
            before = self._listeners
            replaced = self._replace_listeners(before, (*before, listener))

    def remove_listener(self, listener: Listener) -> None:
        """Stop calling `listener`. If it was added more than once, it is removed once.

        An event that is being delivered may still reach it. Safe from any thread or task, and from inside a listener.

        Raises:
            ValueError: It is not one of the listeners.
        """
        replaced = False
        while not replaced:
            before = self._listeners
            if listener not in before:
                raise ValueError(f"listener must be one of the listeners of {self!r}, got {listener!r}")
            same = [at for at, other in enumerate(before) if other is listener]
            at = same[0] if same else before.index(listener)  # a bound method is another object each time
            replaced = self._replace_listeners(before, before[:at] + before[at + 1 :])

    def _replace_listeners(self, before: tuple[Listener, ...], after: tuple[Listener, ...]) -> bool:
        """Replace the listeners under the lock of the object, and return True.

        Return False and change nothing if another thread has replaced them.
        """
        raise NotImplementedError
