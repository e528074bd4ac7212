"""What a breaker is told: the rules that open it, how it probes, and what counts as what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from typing import Any, ClassVar, Final

from .._common import checks
from .._common.judging import ExceptionFilter, Judge, Kinds

__all__ = ["CircuitBreakerConfig"]

MINIMUM_CALLS_OF_A_TIME: Final = 20


@dataclass(frozen=True)
class CircuitBreakerConfig:
    """The settings of a circuit breaker, checked when made and never changed after: breakers may share it.

    Args:
        failure_threshold: consecutive failures that open the circuit, >= 1; None: this rule is off.
        success_threshold: successes in half-open that close the circuit, >= 1.
        reset_timeout_s: seconds the circuit stays open before it probes, >= 0 (0: at once; inf: until `reset()`); or a
            function that takes how many times in a row the circuit has opened before (0, 1, ...) and gives them, such
            as `RetryPolicy(...).get_delay`.
        half_open_max_calls: probes out at once, >= 1.
        error_rate_threshold: the share of failures in the window that opens the circuit, 0 < x <= 1; None: off.
        error_rate_window: an int, the last so many calls; a `timedelta`, the calls of the last so much time, kept in
            thirtieths of it.
        minimum_calls: outcomes the window must hold before a rate counts, >= 1; None: the whole window of calls, 20
            for a window of time.
        slow_call_duration_s: seconds from which a call is slow, > 0; None: none is. A call that is cancelled after
            that time is a failure.
        slow_call_rate_threshold: the share of slow calls in the window that opens the circuit, 0 < x <= 1; None: off.
        half_open_timeout_s: seconds after which a probe without an answer no longer takes a permit, > 0; inf: never.
        failure_exceptions: what counts as a failure: an exception type, a tuple or union of them (`()`: none), or a
            predicate. Anything raised that is neither this nor ignored is an answer of the dependency, a success.
        ignored_exceptions: what says nothing about the dependency; same forms.
        failure_result: a predicate on the returned value; true is a failure. None: no value is.
        retry_after: a function that reads from the tripping exception for how many seconds the server wants to be left
            alone (None: no wish), such as `retry_after_hint`; the circuit stays open at least as long. Of a group it is
            asked about each exception, and the longest wish counts.
        retry_after_max_s: the cap on that wish, >= 0.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: a value out of range, or settings that can never work together.
    """

    _judge: ClassVar[Judge]  # of each object, but no field
    _spared: ClassVar[float]  # failures in a row that no rule needs to look at

    failure_threshold: int | None = 5
    success_threshold: int = 3
    reset_timeout_s: float | Callable[[int], float] = 30.0
    half_open_max_calls: int = 3
    error_rate_threshold: float | None = None
    error_rate_window: int | timedelta = 100
    minimum_calls: int | None = field(default=None, kw_only=True)
    slow_call_duration_s: float | None = field(default=None, kw_only=True)
    slow_call_rate_threshold: float | None = field(default=None, kw_only=True)
    half_open_timeout_s: float = field(default=30.0, kw_only=True)
    failure_exceptions: ExceptionFilter = field(default=(Exception,), kw_only=True)
    ignored_exceptions: ExceptionFilter = field(default=(), kw_only=True)
    failure_result: Callable[[Any], object] | None = field(default=None, kw_only=True)
    retry_after: Callable[[BaseException], float | None] | None = field(default=None, kw_only=True)
    retry_after_max_s: float = field(default=300.0, kw_only=True)

    def __post_init__(self) -> None:
        self._check_each("failure_threshold", lambda n, v: checks.count(n, v, 1), optional=True)
        self._check_each("success_threshold", lambda n, v: checks.count(n, v, 1))
        self._check_each("half_open_max_calls", lambda n, v: checks.count(n, v, 1))
        self._check_each("reset_timeout_s", _seconds_or_function)
        self._check_each("error_rate_threshold", _share, optional=True)
        self._check_each("error_rate_window", _window)
        self._check_each("minimum_calls", lambda n, v: checks.count(n, v, 1), optional=True)
        self._check_each("slow_call_duration_s", lambda n, v: checks.number(n, v, above=0), optional=True)
        self._check_each("slow_call_rate_threshold", _share, optional=True)
        self._check_each("half_open_timeout_s", lambda n, v: checks.number(n, v, above=0, infinite=True))
        self._check_each("failure_result", checks.function, optional=True)
        self._check_each("retry_after", checks.function, optional=True)
        self._check_each("retry_after_max_s", lambda n, v: checks.number(n, v, minimum=0))
        failures = Kinds("failure_exceptions", self.failure_exceptions)
        object.__setattr__(self, "_judge", Judge(failures, Kinds("ignored_exceptions", self.ignored_exceptions)))
        self._check_together()
        streak = inf if self.failure_threshold is None else self.failure_threshold - 1
        object.__setattr__(self, "_spared", streak if self.error_rate_threshold is None else 0)

    def _check_each(self, name: str, check: Callable[[str, Any], object], optional: bool = False) -> None:
        value = getattr(self, name)
        if value is not None or not optional:
            object.__setattr__(self, name, check(name, value))

    def _check_together(self) -> None:
        window, minimum = self.error_rate_window, self.minimum_calls
        if isinstance(window, int) and minimum is not None and minimum > window:
            raise ValueError(f"minimum_calls must be at most error_rate_window ({window} calls), got {minimum}")
        if self.slow_call_rate_threshold is not None and self.slow_call_duration_s is None:
            raise ValueError(
                f"slow_call_rate_threshold={self.slow_call_rate_threshold} needs slow_call_duration_s, got None"
            )
        if (
            self.failure_threshold is None
            and self.error_rate_threshold is None
            and self.slow_call_rate_threshold is None
        ):
            raise ValueError(
                "failure_threshold, error_rate_threshold and slow_call_rate_threshold must not all be None: "
                "no rule could open the circuit"
            )

    @property
    def _minimum_calls(self) -> int:
        """The outcomes a window must hold before a rate counts."""
        if self.minimum_calls is not None:
            return self.minimum_calls
        return self.error_rate_window if isinstance(self.error_rate_window, int) else MINIMUM_CALLS_OF_A_TIME

    @property
    def _window_calls(self) -> int:
        """The size of a window of calls; 0 of one of time."""
        return self.error_rate_window if isinstance(self.error_rate_window, int) else 0


def _share(name: str, value: Any) -> float:
    return checks.number(name, value, above=0, maximum=1)


def _seconds_or_function(name: str, value: Any) -> Any:
    if callable(value):
        return checks.function(name, value, "a number of seconds >= 0 or a function that gives one")
    return checks.number(name, value, minimum=0, infinite=True)


def _window(name: str, value: Any) -> int | timedelta:
    takes = f"{checks.COUNT.format(1)} (calls) or a timedelta > 0"
    if not isinstance(value, timedelta):
        return checks.count(name, value, 1, takes)
    if value <= timedelta(0):
        raise checks.wrong_value(name, value, takes)
    return value
