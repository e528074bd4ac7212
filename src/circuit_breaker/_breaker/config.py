"""The settings of a breaker: the rules that open it, how it probes, and what counts as what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import timedelta
from math import inf
from typing import Any, ClassVar, Final

from .._common import checks
from .._common.judging import ExceptionFilter, Judge, Kinds
from .rules import Rule, WindowCounts, rules_of

__all__ = ["CircuitBreakerConfig"]

MINIMUM_CALLS_OF_A_TIME: Final = 20


def _seconds_or_function(name: str, value: Any) -> Any:
    if callable(value):
        return checks.function(name, value, "a number of seconds >= 0 or a function that gives one")
    return checks.seconds(name, value, minimum=0, infinite=True)


def _window(name: str, value: Any) -> int | timedelta:
    takes = f"{checks.COUNT.format(1)} (calls) or a timedelta > 0"
    if not isinstance(value, timedelta):
        return checks.count(name, value, 1, takes)
    if value <= timedelta(0):
        raise checks.wrong_value(name, value, takes)
    return value


_COUNT: Final = checks.by(checks.count, minimum=1)
_OPTIONAL_COUNT: Final = checks.by(checks.count, minimum=1, optional=True)
_SHARE: Final = checks.by(checks.number, above=0, maximum=1, optional=True)
_OPTIONAL_SECONDS: Final = checks.by(checks.seconds, above=0, optional=True)
_FUNCTION: Final = checks.by(checks.function, optional=True)


@dataclass(frozen=True)
class CircuitBreakerConfig:
    """The settings of a circuit breaker, checked when made and never changed after: breakers may share it.

    Durations are seconds or a `timedelta`.

    Args:
        failure_threshold: failures in a row that open the circuit, >= 1; None: no number of them does.
        success_threshold: successes in half-open that close the circuit, >= 1.
        reset_timeout_s: seconds the circuit stays open before it probes, >= 0 (0: at once; inf: until `reset()`); or a
            function that takes how many times in a row the circuit has opened before (0, 1, ...) and gives them, such
            as `RetryPolicy(...).get_delay`.
        half_open_max_calls: probes that may be out at once, >= 1.
        error_rate_threshold: the share of failures in the window that opens the circuit, 0 < x <= 1; None: off.
        error_rate_window: an int, the last N calls; a `timedelta`, the calls of the last N seconds, kept in thirtieths
            of it.
        minimum_calls: results the window must hold before a rate counts, >= 1; None: the whole window of calls, 20
            for a window of time.
        slow_call_duration_s: seconds from which a call is slow, > 0; None: none is. A call that is cancelled after
            that time is a failure.
        slow_call_rate_threshold: the share of slow calls in the window that opens the circuit, 0 < x <= 1; None: off.
        half_open_timeout_s: seconds after which a probe without a result is overdue and frees its slot, > 0; inf:
            never.
        failure_exceptions: what counts as a failure: an exception type, a tuple or union of them (`()`: none), or a
            predicate. Anything raised that is neither this nor ignored is an answer of the dependency, a success. An
            exception that is no `Exception` and stands for a time-out, such as `gevent.Timeout`, may be listed.
        ignored_exceptions: what says nothing about the dependency; same forms.
        failure_result: a predicate on the returned value; true is a failure. None: no value is.
        retry_after: a function that reads from the exception that opened the circuit for how many seconds the server
            asks not to be called (None: it does not say), such as `retry_after_hint`; the circuit stays open at least
            that long. Of a group it is asked about each exception, and the longest time counts. None: nothing is read.
        retry_after_max_s: the longest such time that is respected, >= 0.
        half_open_failure_threshold: failures of probes that reopen the circuit, >= 1.
        failure_threshold_within_s: seconds within which the failures in a row must have come, > 0; None: any time.
        trip_when: a rule of your own: a function that takes a `WindowCounts` after each failure and each slow call,
            outside of every lock. A true answer opens the circuit; a text is the reason. One that raises is logged and
            opens nothing. With it all other rules may be off.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: a value out of range, or settings that can never work together.
    """

    # What follows from the settings; of each object, but no setting itself.
    _judge: ClassVar[Judge]
    _rules: ClassVar[tuple[Rule, ...]]
    _required_calls: ClassVar[int]
    _slow_s: ClassVar[float]
    _overdue_s: ClassVar[float]

    failure_threshold: int | None = field(default=5, metadata=_OPTIONAL_COUNT)
    success_threshold: int = field(default=3, metadata=_COUNT)
    reset_timeout_s: float | timedelta | Callable[[int], float] = field(
        default=30.0, metadata=checks.by(_seconds_or_function)
    )
    half_open_max_calls: int = field(default=3, metadata=_COUNT)
    error_rate_threshold: float | None = field(default=None, metadata=_SHARE)
    error_rate_window: int | timedelta = field(default=100, metadata=checks.by(_window))
    _: KW_ONLY
    minimum_calls: int | None = field(default=None, metadata=_OPTIONAL_COUNT)
    slow_call_duration_s: float | timedelta | None = field(default=None, metadata=_OPTIONAL_SECONDS)
    slow_call_rate_threshold: float | None = field(default=None, metadata=_SHARE)
    half_open_timeout_s: float | timedelta = field(
        default=30.0, metadata=checks.by(checks.seconds, above=0, infinite=True)
    )
    failure_exceptions: ExceptionFilter = (Exception,)
    ignored_exceptions: ExceptionFilter = ()
    failure_result: Callable[[Any], object] | None = field(default=None, metadata=_FUNCTION)
    retry_after: Callable[[Any], float | None] | None = field(default=None, metadata=_FUNCTION)
    retry_after_max_s: float | timedelta = field(default=300.0, metadata=checks.by(checks.seconds, minimum=0))
    half_open_failure_threshold: int = field(default=1, metadata=_COUNT)
    failure_threshold_within_s: float | timedelta | None = field(default=None, metadata=_OPTIONAL_SECONDS)
    trip_when: Callable[[WindowCounts], object] | None = field(default=None, metadata=_FUNCTION)

    def __post_init__(self) -> None:
        checks.check_fields(self)
        failures = Kinds("failure_exceptions", self.failure_exceptions, timeouts=True)
        slow_s = self.slow_call_duration_s
        window = self.error_rate_window
        required_calls = window if isinstance(window, int) else MINIMUM_CALLS_OF_A_TIME
        self._derive(
            _judge=Judge(failures, Kinds("ignored_exceptions", self.ignored_exceptions)),
            _slow_s=inf if slow_s is None else slow_s,
            _overdue_s=self.half_open_timeout_s,
            _required_calls=required_calls if self.minimum_calls is None else self.minimum_calls,
        )
        self._derive(_rules=rules_of(self))
        self._check_together()

    def _derive(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_together(self) -> None:
        window, minimum = self.error_rate_window, self.minimum_calls
        if isinstance(window, int) and minimum is not None and minimum > window:
            raise ValueError(f"minimum_calls must be at most error_rate_window ({window} calls), got {minimum}")
        if self.slow_call_rate_threshold is not None and self.slow_call_duration_s is None:
            raise ValueError(
                f"slow_call_rate_threshold={self.slow_call_rate_threshold} needs slow_call_duration_s, got None"
            )
        if self.failure_threshold_within_s is not None and self.failure_threshold is None:
            raise ValueError(
                f"failure_threshold_within_s={self.failure_threshold_within_s} needs failure_threshold, got None"
            )
        if not self._rules:
            raise ValueError(
                "failure_threshold, error_rate_threshold, slow_call_rate_threshold and trip_when must not all be None: "
                "no rule could open the circuit"
            )

    def replace(self, **changes: Any) -> CircuitBreakerConfig:
        """Return the same configuration with other values for these settings, checked as at construction."""
        return replace(self, **changes)
