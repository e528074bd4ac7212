"""What there is to remember in each state: one object for one stay in it, and the permits that it issues.

Every method is for one caller at a time, with the time read before.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from math import inf
from typing import Final, NamedTuple, TypeAlias

from .._common.words import CircuitState
from .config import CircuitBreakerConfig
from .window import CallWindow, Counts, TimeWindow

LET_THROUGH_REMEMBERED: Final = 1_000


class Closed:
    """Everybody is admitted. The period is itself the permit of its calls, and answers are numbered from 1.

    A success that only needs counting touches the first three fields and looks at the two limits; the breaker writes
    them where the call ends. The streak is over when there were successes after its last failure.
    """

    __slots__ = (
        "failures",
        "last_success_at",
        "latency_s",
        "slow_s",
        "streak",
        "streak_successes",
        "successes",
        "until",
        "window",
    )
    state: Final = CircuitState.CLOSED
    openings: Final = 0
    last_failure: Final = None

    def __init__(self, config: CircuitBreakerConfig, now: float) -> None:
        self.successes = 0
        self.latency_s = 0.0
        self.last_success_at: float | None = None
        self.failures = 0
        self.streak = 0
        self.streak_successes = 0
        self.window: CallWindow | TimeWindow | None = None
        self.configure(config, now)

    def configure(self, config: CircuitBreakerConfig, now: float) -> None:
        """Begin an empty window, and set the limits of a success that only needs counting."""
        size = config.error_rate_window
        number = self.successes + self.failures
        if isinstance(size, timedelta):
            self.window = TimeWindow(size.total_seconds(), number, now)
        else:
            self.window = CallWindow(size, number) if number else None  # else made by the first bad answer
        self.limit(config)

    def limit(self, config: CircuitBreakerConfig) -> None:
        """Set from when on and from which duration on a success is looked at."""
        self.slow_s = inf if config.slow_call_duration_s is None else config.slow_call_duration_s
        self.until = inf if self.window is None else self.window.until

    def has_failures(self, now: float) -> bool:
        """Tell whether any failure is remembered; it changes nothing, and needs no lock."""
        window = self.window
        return self.consecutive_failures() > 0 or (
            window is not None and window.has_failures(now, self.successes + self.failures)
        )

    def consecutive_failures(self) -> int:
        """Return the length of the streak."""
        return self.streak if self.successes == self.streak_successes else 0

    def streak_on(self, failed: bool) -> None:
        """Make the streak longer by one, or end it."""
        self.streak = self.consecutive_failures() + 1 if failed else 0
        self.streak_successes = self.successes

    def trips(self, config: CircuitBreakerConfig, now: float, failed: bool, slow: bool) -> str | None:
        """Tell the window of an answer that was just counted, and return why it must open the circuit, if it must."""
        if self.window is None:
            if not (failed or slow):
                return None
            window = CallWindow(config._window_calls, 0)
            self.window = self.window or window
        self.window.add(now, self.successes + self.failures, failed, slow)
        self.until = self.window.until
        return self._tripped(config, now, failed, slow)

    def counts(self, config: CircuitBreakerConfig, now: float) -> Counts:
        """Return what is in the window."""
        number = self.successes + self.failures
        if self.window is None:
            return Counts(min(number, config._window_calls))
        counts = self.window.counts(now, number)
        self.until = self.window.until
        return counts

    def _tripped(self, config: CircuitBreakerConfig, now: float, failed: bool, slow: bool) -> str | None:
        """Look at the rules that this answer adds to."""
        if failed and config.failure_threshold is not None and self.streak >= config.failure_threshold:
            return f"{self.streak} failures in a row (threshold {config.failure_threshold})"
        rate = config.error_rate_threshold if failed else None
        slow_rate = config.slow_call_rate_threshold if slow else None
        if rate is None and slow_rate is None:
            return None
        counts = self.counts(config, now)
        if counts.calls >= config._minimum_calls:
            if rate is not None and counts.error_rate >= rate:
                return f"{counts.failures} of {counts.calls} calls failed (threshold {rate:.3g})"
            if slow_rate is not None and counts.slow_call_rate >= slow_rate:
                return f"{counts.slow} of {counts.calls} calls were slow (threshold {slow_rate:.3g})"
        return None


class LastFailure(NamedTuple):
    """The failure that opened a circuit, in words: it keeps no object and no frame alive."""

    type: str
    text: str


class Open:
    """Everybody is refused until the time is over."""

    __slots__ = ("at", "last_failure", "openings", "until")
    state: Final = CircuitState.OPEN

    def __init__(self, at: float, until: float, openings: int) -> None:
        self.at = at
        self.until = until
        self.openings = openings  # how many times in a row the circuit had opened before
        self.last_failure: LastFailure | None = None


class Probe:
    """The permit of one call that is not simply admitted: made in half-open, or let through by SHADOW.

    Attributes:
        period: the half-open period that issued it; None: it counts in the totals alone, come what may.
        since: when it was issued, or gave the last item of its stream.
        rides: it was made inside another probe and takes no permit of its own.
        block: a `with` block holds it.
    """

    __slots__ = ("block", "period", "rides", "settled", "since")

    def __init__(self, period: HalfOpen | None, since: float, block: bool) -> None:
        self.period = period
        self.since = since
        self.rides = False
        self.block = block
        self.settled = False

    def overdue(self, config: CircuitBreakerConfig, now: float) -> bool:
        """Tell whether it has been silent for too long."""
        return now >= self.since + config.half_open_timeout_s


class HalfOpen:
    """A few calls are let through, to see whether the other side answers again."""

    __slots__ = ("anonymous", "last_failure", "next_overdue", "openings", "out", "successes")
    state: Final = CircuitState.HALF_OPEN

    def __init__(self, last_failure: LastFailure | None, openings: int, successes: int = 0) -> None:
        self.last_failure = last_failure
        self.openings = openings  # how many times in a row the circuit has opened
        self.successes = successes
        self.out: dict[Probe, None] = {}  # those that take a permit, in the order of their issue
        self.anonymous: deque[Probe] = deque()
        self.next_overdue = inf  # no probe is overdue before

    def admit(self, config: CircuitBreakerConfig, now: float, probe: Probe) -> bool:
        """Give the probe a permit if there is one."""
        # First, and for one to be refused too: else a Ctrl-C in here could leave a probe that is never overdue.
        self.next_overdue = min(self.next_overdue, now + config.half_open_timeout_s)
        self.out[probe] = None
        if len(self.out) > config.half_open_max_calls:
            self.forget_overdue(config, now)
            if len(self.out) > config.half_open_max_calls:
                self.out.pop(probe, None)
                return False
        return True

    def remember(self, anonymous: Probe) -> None:
        """Put it in the line of those whose answers will not say which they are."""
        # Those that take a permit are bounded by that; those that SHADOW lets through, by nothing but this.
        if anonymous.period is not None or len(self.anonymous) < LET_THROUGH_REMEMBERED:
            self.anonymous.append(anonymous)

    def forget_overdue(self, config: CircuitBreakerConfig, now: float) -> None:
        """Take the permits of probes that have been silent for too long; their answers still count."""
        if now >= self.next_overdue:
            for probe in list(self.out):
                if probe.overdue(config, now):
                    self.out.pop(probe, None)
            oldest = min((probe.since for probe in list(self.out)), default=inf)
            self.next_overdue = oldest + config.half_open_timeout_s
        while self.anonymous and self.anonymous[0].overdue(config, now):
            self.anonymous.popleft()


Period: TypeAlias = Closed | Open | HalfOpen
Permission: TypeAlias = Closed | Probe
