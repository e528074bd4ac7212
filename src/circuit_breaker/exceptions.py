"""The errors of this package, and two helpers for error reports.

Every rejection is a `ResilienceError`. Its message never contains figures, so log tools can group it; the figures are
in `context`.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

from ._common.words import CircuitMode, CircuitState

__all__ = [
    "BulkheadFullError",
    "CircuitOpenError",
    "CodomyrmexError",
    "ResilienceError",
    "UsageError",
    "create_error_context",
    "format_exception_chain",
]

_HALF_OPEN: Final = CircuitState.HALF_OPEN


class UsageError(RuntimeError):
    """Raised when this library is used in a way that cannot work, such as settling a permit twice.

    It is a mistake in the calling code and says nothing about the service, so breakers ignore it and retry policies
    never retry it. Other examples: waiting for a bulkhead where waiting is not possible, releasing a slot that is not
    held.
    """


class ResilienceError(Exception):
    """The base class of the errors that are raised when a call is rejected.

    Args:
        message: What happened, without figures.
        context: The figures. The dict is copied, and the other keyword arguments are added to the copy.
        error_code: A stable code for programs. None: the name of the class.
    """

    message: str
    context: dict[str, Any]
    error_code: str

    def __init__(
        self, message: str, context: dict[str, Any] | None = None, error_code: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(message)
        self.message = message
        self.context = {**(context or {}), **kwargs}
        self.error_code = error_code or type(self).__name__

    def __str__(self) -> str:
        text = f"[{self.error_code}] {self.message}"
        figures = ", ".join(f"{key}={_readable(value)}" for key, value in self.context.items())
        return f"{text} (Context: {figures})" if figures else text

    def to_dict(self) -> dict[str, Any]:
        """Return `error_type`, `error_code`, `message` and `context` as a dict for JSON. An infinite figure is None."""
        return {
            "error_type": type(self).__name__,
            "error_code": self.error_code,
            "message": self.message,
            "context": {key: _jsonable(value) for key, value in self.context.items()},
        }


def _readable(value: object) -> str:
    """Return a float rounded to three significant digits or a whole number, and a text on one line."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    text = str(value)
    return text if text.isprintable() else repr(text)[1:-1]


def _jsonable(value: object) -> object:
    return None if isinstance(value, float) and not isfinite(value) else value


CodomyrmexError = ResilienceError


class CircuitOpenError(ResilienceError):
    """Raised when a circuit breaker rejects a call. The function was not called.

    The call that opens the circuit raises its own error. Only later calls raise this one.

    Attributes:
        circuit_name: The name of the breaker.
        state: `CircuitState.OPEN`, or `HALF_OPEN` if all probe slots are taken. None in an error made by hand.
        retry_after_s: Seconds until the circuit admits a probe. None if that is not known: it is half-open or forced
            open.
        last_failure: Type and text (at most 200 characters) of the failure that opened the circuit, or None. It may
            contain secrets, so `str()` and `to_dict()` leave it out.
    """

    def __init__(self, message: str, circuit_name: str | None = None, **kwargs: Any) -> None:
        self.state: CircuitState | None = kwargs.pop("state", None)
        self.last_failure: tuple[str, str] | None = kwargs.pop("last_failure", None)
        self.circuit_name = circuit_name
        self.retry_after_s: float | None = kwargs.get("retry_after_s")
        context = kwargs.pop("context", None)
        error_code = kwargs.pop("error_code", None)
        super().__init__(message, create_error_context(circuit_name=circuit_name), error_code)
        self.context.update(context or {}, **kwargs)


def circuit_open(
    circuit_name: str,
    state: CircuitState,
    mode: CircuitMode,
    retry_after_s: float | None,
    last_failure: tuple[str, str] | None,
) -> CircuitOpenError:
    """Return what `CircuitOpenError(...)` makes, in a third of the time."""
    message = f"Circuit {circuit_name!r} is {'half-open' if state is _HALF_OPEN else 'open'}"
    error = Exception.__new__(CircuitOpenError, message)
    error.__dict__ = {
        "message": message,
        "context": {"circuit_name": circuit_name, "mode": mode._value_, "retry_after_s": retry_after_s},
        "error_code": "CircuitOpenError",
        "circuit_name": circuit_name,
        "state": state,
        "retry_after_s": retry_after_s,
        "last_failure": last_failure,
    }
    return error


class BulkheadFullError(ResilienceError):
    """Raised when a bulkhead rejects a call. The function was not called.

    Either all slots and all places in the queue were taken, or the caller waited in the queue for longer than
    `timeout_s`. In the second case the message says so, and `context` has the time as `waited_s`.

    Attributes:
        bulkhead_name: The name of the bulkhead.
        max_concurrency: How many calls it lets run at once.
    """

    def __init__(
        self, message: str, bulkhead_name: str | None = None, max_concurrency: int | None = None, **kwargs: Any
    ) -> None:
        self.bulkhead_name = bulkhead_name
        self.max_concurrency = max_concurrency
        context = kwargs.pop("context", None)
        error_code = kwargs.pop("error_code", None)
        named = create_error_context(bulkhead_name=bulkhead_name, max_concurrency=max_concurrency)
        super().__init__(message, named, error_code)
        self.context.update(context or {}, **kwargs)


# A subclass may override the attributes, so they are read from the base class.
_CAUSE: Final[Any] = BaseException.__cause__
_CONTEXT: Final[Any] = BaseException.__context__
_SUPPRESSED: Final[Any] = BaseException.__suppress_context__


def format_exception_chain(exception: BaseException) -> str:
    """Return a text with one line for the exception and one for each exception behind it, the newest first.

    These are the exceptions that caused it, or that were being handled when it was raised. Never raises.
    """
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = exception
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        lines.append(_line(current))
        cause = _CAUSE.__get__(current)
        current = cause if cause is not None or _SUPPRESSED.__get__(current) else _CONTEXT.__get__(current)
    return "\n".join(lines)


def _line(error: BaseException) -> str:
    try:
        text = str(error)
        return text if issubclass(type(error), ResilienceError) else f"[{type(error).__name__}] {text}"
    except Exception:
        return f"[{type(error).__name__}] <exception str() failed>"


def create_error_context(**kwargs: Any) -> dict[str, Any]:
    """Return the keyword arguments that are not None."""
    return {key: value for key, value in kwargs.items() if value is not None}
