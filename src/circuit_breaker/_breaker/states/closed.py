"""CLOSED: every call is admitted, its result is counted, and the rules are asked whether the circuit must open."""

from __future__ import annotations

from datetime import timedelta
from math import inf
from typing import Final

from ..._common.words import CircuitState, Outcome
from ..config import CircuitBreakerConfig
from ..rules import Evidence, Rule, WindowCounts
from ..totals import Tally
from ..window import Mark, Seen, new_window
from .period import Machine, Period, Permission, Probe, Unknown

FAILURE: Final = Outcome.FAILURE
IGNORED: Final = Outcome.IGNORED


class Closed(Period, Permission):
    """Every call is admitted. The period is itself the permission of its calls.

    A success that only needs counting touches `successes`, `latency_s`, `last_success_at` and `streak`, and looks at
    `quiet_until` and `slow_s`; the breaker writes that out where calls end.

    Attributes:
        quiet_until: until then a good answer needs no mark in the window.
        slow_s: from this duration on a call is slow.
    """

    __slots__ = ("_first_streak", "_rules", "_size", "config", "failed_at", "noted", "quiet_until", "slow_s", "window")

    state = CircuitState.CLOSED
    met = CircuitState.CLOSED
    admits = True
    quiet_until: float

    def __init__(self, config: CircuitBreakerConfig, rules: tuple[Rule, ...], now: float) -> None:
        super().__init__()
        self.config = config
        self._rules = rules
        self._first_streak = min((rule.first_streak for rule in rules), default=inf)
        self._size = config.error_rate_window
        # A window of calls is made at the first failure or slow call, so an idle breaker has none.
        self.window = new_window(self._size, now) if isinstance(self._size, timedelta) else None
        self.quiet_until = inf if self.window is None else self.window.end_of(0)
        self.slow_s = config._slow_s
        within_s = config.failure_threshold_within_s
        self.noted = 0 if within_s is None or config.failure_threshold is None else config.failure_threshold
        self.failed_at = [now] * self.noted

    def configure(self, machine: Machine, config: CircuitBreakerConfig, rules: tuple[Rule, ...], now: float) -> bool:
        """Use another configuration. The streak stays; the window starts empty if its kind or size has changed."""
        new = Closed(config, rules, now)
        window = new.window or new_window(config.error_rate_window, now)
        start = window.newest
        size, totals = self._size, machine.totals
        same_window = size == config.error_rate_window
        failures = self.failures + totals.failures  # read before the streak, which may be the same again after another
        streak = self.streak
        new.take_times(self, streak, self.last_failure_at)
        with machine.lock:
            if machine.period is not self or self._size is not size:
                return False
            if self.streak != streak or self.failures + totals.failures != failures:
                return False
            if not same_window:
                window.start = start.position = start.answers = self.successes + self.failures
                start.failures = self.failures
                start.slow = self.slow
                self.window = window
                self.quiet_until = new.quiet_until
            self._rules = rules
            self._first_streak = new._first_streak
            self._size = new._size
            self.slow_s = new.slow_s
            self.noted = new.noted
            self.failed_at = new.failed_at
            self.config = config
            machine.config, config = config, machine.config  # kept until the lock is free: it may have destructors
            machine.fast = None
        machine.renew_fast()
        return True

    def take_times(self, former: Closed, streak: int, last_failure_at: float) -> None:
        """Note when the failures in a row were. One whose time was not kept counts as the oldest that has one."""
        times = former.failed_at  # another thread may replace the list
        oldest = last_failure_at
        for number in range(streak, max(0, streak - self.noted), -1):
            if streak - number < len(times):
                oldest = times[number % len(times)]
            self.failed_at[number % self.noted] = oldest

    @property
    def issuer(self) -> Closed:
        """The period itself."""
        return self

    def admit(self, machine: Machine, probe: Probe, inside: tuple[Probe, ...], now: float) -> Permission | None:
        """Admit it."""
        return self

    def settle(  # noqa: C901 - one locked section, which calls nothing
        self,
        machine: Machine,
        permission: Permission | Unknown,
        outcome: Outcome,
        now: float,
        latency_s: float,
        slow: bool,
    ) -> Period | None:
        """Count the result, and open the circuit if a rule says so."""
        failed = outcome is FAILURE
        while machine.period is self and outcome is not IGNORED:
            size, quiet_until, bucket = self._size, self.quiet_until, 0
            window = self.window or new_window(size, now)
            if now >= quiet_until:
                bucket = window.bucket_at(now)
                quiet_until = window.end_of(bucket)
            mark, first_failed_at = Mark(), now
            marks_answer = window.marks_bad_answers and (failed or slow)
            lock = machine.lock
            _ = lock.taken
            try:
                if (
                    machine.period is not self
                    or self._size is not size
                    or (self.window is not None and self.window is not window)
                ):
                    continue
                self.window = window
                answers = self.successes + self.failures
                if bucket > window.bucket:
                    mark.after = None
                    mark.position = window.bucket
                    mark.answers = answers
                    mark.failures = self.failures
                    mark.slow = self.slow
                    window.newest.after = mark
                    window.newest = mark
                    window.bucket = bucket
                    self.quiet_until = quiet_until
                    second = window.first.after
                    if second is not None and second.position <= bucket - window.size:
                        window.first = second  # one mark is added, one dropped, so their number is limited
                answers += 1
                self.latency_s += latency_s
                self.slow += slow
                if failed:
                    self.failures += 1
                    self.streak += 1
                    self.last_failure_at = now
                    if self.noted:
                        self.failed_at[self.streak % self.noted] = now
                        first_failed_at = self.failed_at[(self.streak + 1) % self.noted]
                else:
                    self.successes += 1
                    self.streak = 0
                    self.last_success_at = now
                failures, slow_calls, streak = self.failures, self.slow, self.streak
                rules, first_streak, first = self._rules, self._first_streak, window.first
                if marks_answer:
                    mark.after = None
                    mark.position = mark.answers = answers
                    mark.failures = failures
                    mark.slow = slow_calls
                    window.newest.after = mark
                    window.newest = mark
                    second = first.after
                    if second is not None and second.position <= answers - window.size:
                        window.first = second
            finally:
                lock.release()
            if streak < first_streak and not slow:
                return None
            counts = window.counts(first, now, answers, failures, slow_calls, streak)
            return self._ask_rules(rules, machine, Evidence(counts, now - first_failed_at), failed, slow, now)
        machine.count_late(outcome, now, latency_s, slow)
        return None

    def _ask_rules(
        self, rules: tuple[Rule, ...], machine: Machine, evidence: Evidence, failed: bool, slow: bool, now: float
    ) -> Period | None:
        for rule in rules:
            if (failed and evidence.counts.consecutive_failures >= rule.first_streak) or (slow and rule.asks_slow):
                reason = rule.tripped(evidence)
                if reason is not None:
                    return machine.open(self, now, reason, evidence.counts)
        return None

    def window_counts(self, counted: Tally, streak: int, seen: Seen | None, now: float) -> WindowCounts:
        """Return what the window holds, given what this period had counted and what was seen of its window then."""
        answers = counted.successes + counted.failures
        if seen is None:
            calls = self._size if isinstance(self._size, int) else answers
            return WindowCounts(min(answers, calls), consecutive_failures=streak)
        window, first = seen
        return window.counts(first, now, answers, counted.failures, counted.slow, streak)

    def has_failures(self, now: float) -> bool:
        """Return whether forgetting this period would forget failures."""
        window = self.window
        if self.streak or window is None:
            return self.streak > 0
        return self.window_counts(self, self.streak, (window, window.first), now).failures > 0
