"""The settings of a breaker: the rules that open it, how it probes, and what counts as a failure."""

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
    """The settings of a circuit breaker. They are checked when they are made and cannot be changed.

    A rule opens the circuit when its value reaches its threshold. The failure rules are checked after failures, the
    slow-call rule after slow calls. At least one rule must be on. Durations are seconds or a `timedelta`. Breakers may
    share one configuration.

    Args:
        failure_threshold: Failures in a row that open the circuit, >= 1. None: this rule is off.
        success_threshold: Successes in half-open that close the circuit, >= 1.
        reset_timeout_s: Seconds that the circuit stays open before it admits a probe, >= 0. 0: it admits one at once.
            inf: it stays open until `reset()`. Or a function that gets how many times in a row the circuit has opened
            before (0, 1, ...) and returns the seconds, such as `RetryPolicy(...).get_delay`.
        half_open_max_calls: Probe slots: how many probes may run at once, >= 1.
        error_rate_threshold: Share of failures in the window that opens the circuit, 0 < x <= 1. None: this rule is
            off.
        error_rate_window: The window of both rates. An int N: the last N calls. A `timedelta`: the calls of that time,
            exact to a thirtieth of it.
        minimum_calls: Calls that the window must hold before a rate is checked, >= 1. None: the size of a window of
            calls, or 20 for a window of time.
        slow_call_duration_s: A call that takes this many seconds or more is slow, > 0. A call that is cancelled after
            this time counts as a failure. None: no call is slow.
        slow_call_rate_threshold: Share of slow calls in the window that opens the circuit, 0 < x <= 1. It needs
            `slow_call_duration_s`. None: this rule is off.
        half_open_timeout_s: Seconds after which a probe without a result is overdue and its slot is free again, > 0.
            inf: never. Choose more than the timeout of a call.
        failure_exceptions: Exceptions that count as failures: a type, a tuple or union of types (`()`: none), or a
            function that gets the exception and returns whether it is a failure. Other exceptions count as successes,
            because the service has answered. A type that is not an `Exception` but stands for a timeout, such as
            `gevent.Timeout`, may be listed.
        ignored_exceptions: Exceptions that say nothing about the service, in the same forms. They are checked before
            `failure_exceptions`.
        failure_result: A function that gets the returned value and returns whether it is a failure. None: no value is.
        retry_after: A function that gets the exception that opened the circuit and returns how many seconds the server
            asks for, or None. `retry_after_hint` is one. The circuit stays open for at least that long. In an exception
            group it gets each exception, and the longest time counts. A returned value gives no hint, even if
            `failure_result` says that it is a failure. None: the circuit reads no hints.
        retry_after_max_s: The longest hint that is respected, in seconds, >= 0. A longer one is cut to this.
        half_open_failure_threshold: Failed probes that open the circuit again, >= 1.
        failure_threshold_within_s: Seconds within which the failures in a row must have happened, > 0. None: at any
            time.
        trip_when: A rule of your own: a function that gets a `WindowCounts` after each failure and each slow call and
            returns whether the circuit opens. If it returns a text, that is the reason in the log. It runs outside
            every lock. If it raises, that is logged and the circuit stays as it is. None: there is no such rule.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is out of range, or settings contradict each other.
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
        """Return a copy of this configuration in which the given settings have other values.

        Raises:
            TypeError: There is no such setting, or a value has the wrong type.
            ValueError: A value is out of range, or settings contradict each other.
        """
        return replace(self, **changes)
