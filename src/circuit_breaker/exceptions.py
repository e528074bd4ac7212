"""The errors of this package, and two helpers for reports.

Every refusal is a `ResilienceError`: its message is constant, so that logs group, and its figures are in `context`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ._common.words import CircuitState

__all__ = [
    "BulkheadFullError",
    "CircuitOpenError",
    "CodomyrmexError",
    "ResilienceError",
    "create_error_context",
    "format_exception_chain",
]


# Where CPython keeps them, whatever a subclass makes of the attributes.
_ARGS: Final[Any] = BaseException.args
_DICT: Final[Any] = vars(BaseException)["__dict__"]
_NEW: Final = Exception.__new__
_NOT_WHOLE: Final = object()


def _readable(value: object) -> str:
    """Round a float to three significant digits or to a whole number, as a person would say it."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


class ResilienceError(Exception):
    """The base of every error this package raises about a call it did not make.

    Args:
        message: what happened, without figures.
        context: the figures; copied, and joined by the other keyword arguments.
        error_code: a stable code for programs; None takes the name of the class.
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
        """Return `error_type`, `error_code`, `message` and `context` as a dict of the caller's own."""
        return {
            "error_type": type(self).__name__,
            "error_code": self.error_code,
            "message": self.message,
            "context": dict(self.context),
        }


CodomyrmexError = ResilienceError


class CircuitOpenError(ResilienceError):
    """The call was refused and the function not touched, because its circuit does not admit calls now.

    Attributes:
        circuit_name: the breaker's name.
        state: the `CircuitState` a caller meets, `OPEN` or `HALF_OPEN`; None in an error made by hand.
        retry_after_s: seconds until a probe may pass; None when that is unknown (half-open or forced open).
        last_failure: type and text (at most 200 characters) of the failure that opened the circuit, or None. It may
            hold secrets, so neither `str()` nor `to_dict()` shows it.
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

    # Most refusals are caught and dropped. A breaker's own holds the name and the figures where its arguments should
    # be, and is made whole by whoever looks at it first.
    def _make_whole(self) -> None:
        held: tuple[Any, ...] = _ARGS.__get__(self)
        if not held or held[0] is not _NOT_WHOLE:
            return
        _, circuit_name, (state, mode, retry_after_s, last_failure) = held
        whole = CircuitOpenError(
            f"Circuit {circuit_name!r} is open",
            circuit_name,
            mode=mode.value,
            retry_after_s=retry_after_s,
            state=state,
            last_failure=last_failure,
        )
        # Made beside and put in place in one step, before it is known as whole, for two threads may look at once.
        present = _DICT.__get__(self)
        present.update({**whole.__dict__, **present.copy()})
        Exception.__init__(self, whole.message)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            present = self.__dict__
            if name in present:
                return present[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        @property
        def __dict__(self) -> dict[str, Any]:
            self._make_whole()
            return _DICT.__get__(self)

        @property
        def args(self) -> tuple[Any, ...]:
            """What the error was made of: the message alone."""
            self._make_whole()
            return _ARGS.__get__(self)

        @args.setter
        def args(self, args: tuple[Any, ...]) -> None:
            self._make_whole()
            _ARGS.__set__(self, args)

    def __repr__(self) -> str:
        self._make_whole()
        return super().__repr__()

    def __reduce__(self) -> str | tuple[Any, ...]:
        self._make_whole()
        return super().__reduce__()


def refused(circuit_name: str, figures: tuple[Any, ...]) -> CircuitOpenError:
    """Make the error of a breaker from state, mode, seconds until a probe may pass, and last failure."""
    return _NEW(CircuitOpenError, _NOT_WHOLE, circuit_name, figures)


class BulkheadFullError(ResilienceError):
    """The call was refused and the function not touched, because every slot and every place in the line is taken.

    Attributes:
        bulkhead_name: the bulkhead's name.
        max_concurrency: how many holders it allows at once.
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


# Read past whatever a subclass makes of the attributes.
_CAUSE: Final[Any] = BaseException.__cause__
_CONTEXT: Final[Any] = BaseException.__context__
_SUPPRESSED: Final[Any] = BaseException.__suppress_context__


def format_exception_chain(exception: BaseException) -> str:
    """Return a line for the exception and for each that caused it or was being handled, newest first; never raises."""
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
