"""The rules that open a circuit. Each looks at what the window holds, and says why the circuit must open, if it must.

To add a rule, write a class and name it in `RULES`. A rule also says which answers cannot trip it: the closed state
asks it about no others, and the quick ways of counting follow from what all rules say.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from .._common.events import ERROR, log, raised_by_signal_handler

__all__ = ["WindowCounts"]


class WindowCounts(NamedTuple):
    """What a breaker has counted so far. `trip_when` gets one after each failure and each slow call.

    Attributes:
        calls: Successes and failures in the window.
        failures: The failures among them.
        slow_calls: The slow calls among them.
        consecutive_failures: Failures in a row until now, even those that are no longer in the window.
    """

    calls: int = 0
    failures: int = 0
    slow_calls: int = 0
    consecutive_failures: int = 0

    @property
    def error_rate(self) -> float:
        """Share of failures in the window, from 0.0 to 1.0. 0.0 if it is empty."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def slow_call_rate(self) -> float:
        """Share of slow calls in the window, from 0.0 to 1.0. 0.0 if it is empty."""
        return self.slow_calls / self.calls if self.calls else 0.0


class Evidence(NamedTuple):
    """What rules decide on.

    Attributes:
        counts: what the window holds.
        streak_s: seconds from the first to the last of the newest `failure_threshold` failures in a row; noted only
            where a setting asks for it, else 0.0.
    """

    counts: WindowCounts
    streak_s: float = 0.0


class Thresholds(Protocol):
    """The settings that rules are made from."""

    @property
    def failure_threshold(self) -> int | None: ...
    @property
    def failure_threshold_within_s(self) -> Any: ...
    @property
    def error_rate_threshold(self) -> float | None: ...
    @property
    def slow_call_rate_threshold(self) -> float | None: ...

    _required_calls: ClassVar[int]

    @property
    def trip_when(self) -> Callable[[WindowCounts], object] | None: ...


class Rule:
    """One reason for a circuit to open.

    Attributes:
        first_streak: a failure that makes a shorter streak than this cannot trip the rule; 1: every failure can, inf:
            no failure can unless it is slow.
        asks_slow: a slow call can trip the rule.
    """

    first_streak: float = inf
    asks_slow: bool = False

    @classmethod
    def of(cls, settings: Thresholds) -> Rule | None:
        """Return the rule of these settings; None: it is off."""
        raise NotImplementedError

    def tripped(self, evidence: Evidence) -> str | None:
        """Return why the circuit must open, or None."""
        raise NotImplementedError


class ConsecutiveFailures(Rule):
    """Trips after N failures in a row; if there is a time limit, only if all of them are recent enough."""

    def __init__(self, threshold: int, within_s: float | None) -> None:
        self.first_streak = threshold
        self._within_s = inf if within_s is None else within_s

    @classmethod
    def of(cls, settings: Thresholds) -> ConsecutiveFailures | None:
        threshold = settings.failure_threshold
        return None if threshold is None else cls(threshold, settings.failure_threshold_within_s)

    def tripped(self, evidence: Evidence) -> str | None:
        streak = evidence.counts.consecutive_failures
        if streak < self.first_streak or evidence.streak_s > self._within_s:
            return None
        return f"{streak} failure{'' if streak == 1 else 's'} in a row (threshold {self.first_streak})"


class FailureRate(Rule):
    """Trips when the share of failures in the window reaches a threshold."""

    first_streak = 1

    def __init__(self, threshold: float, required_calls: int) -> None:
        self._threshold = threshold
        self._required_calls = required_calls

    @classmethod
    def of(cls, settings: Thresholds) -> FailureRate | None:
        threshold = settings.error_rate_threshold
        return None if threshold is None else cls(threshold, settings._required_calls)

    def tripped(self, evidence: Evidence) -> str | None:
        counts = evidence.counts
        if counts.calls < self._required_calls or counts.error_rate < self._threshold:
            return None
        return f"{counts.failures} of {counts.calls} calls failed (threshold {self._threshold:.3g})"


class SlowCallRate(Rule):
    """Trips when the share of slow calls in the window reaches a threshold."""

    asks_slow = True

    def __init__(self, threshold: float, required_calls: int) -> None:
        self._threshold = threshold
        self._required_calls = required_calls

    @classmethod
    def of(cls, settings: Thresholds) -> SlowCallRate | None:
        threshold = settings.slow_call_rate_threshold
        return None if threshold is None else cls(threshold, settings._required_calls)

    def tripped(self, evidence: Evidence) -> str | None:
        counts = evidence.counts
        if counts.calls < self._required_calls or counts.slow_call_rate < self._threshold:
            return None
        return f"{counts.slow_calls} of {counts.calls} calls were slow (threshold {self._threshold:.3g})"


class OwnRule(Rule):
    """Trips when a function of the caller says so; what it returns is the reason if it is a text."""

    first_streak = 1
    asks_slow = True

    def __init__(self, trip_when: Callable[[WindowCounts], object]) -> None:
        self._trip_when = trip_when

    @classmethod
    def of(cls, settings: Thresholds) -> OwnRule | None:
        return None if settings.trip_when is None else cls(settings.trip_when)

    def tripped(self, evidence: Evidence) -> str | None:
        try:
            answer = self._trip_when(evidence.counts)
            if isinstance(answer, str):
                return answer or None
            return f"trip_when said so of {evidence.counts}" if answer else None
        except Exception as error:
            if raised_by_signal_handler(error):
                raise
            log(ERROR, "trip_when %r raised, and trips nothing", self._trip_when, error=error)
            return None


RULES: Final[tuple[type[Rule], ...]] = (ConsecutiveFailures, FailureRate, SlowCallRate, OwnRule)


def rules_of(settings: Thresholds) -> tuple[Rule, ...]:
    """Return the rules that these settings turn on, in the order in which they are asked."""
    return tuple(rule for kind in RULES if (rule := kind.of(settings)) is not None)
