"""What a policy must do with one call, told a second time: a loop, and a budget that is counted anew each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from types import UnionType
from typing import Any

from breaker_oracle import REFUSALS, leaves, seconds
from tally import Tally

from circuit_breaker import CircuitOpenError, RetryGaveUp, RetryScheduled, RetrySnapshot


@dataclass
class BudgetOracle:
    """Tokens, found by going through everything that happened."""

    ratio: float
    min_per_second: float
    burst: int
    log: list[tuple[float, Fraction]] = field(default_factory=list)
    start: float = 1000.0

    def tokens(self, now: float) -> Fraction:
        held, then = Fraction(self.burst), self.start
        for at, change in [*self.log, (now, Fraction(0))]:
            held = min(held + Fraction(str(self.min_per_second)) * Fraction(at - then), Fraction(self.burst))
            held = min(held + change, Fraction(self.burst))
            then = at
        return held

    def deposit(self, now: float) -> None:
        self.log.append((now, Fraction(str(self.ratio))))

    def take(self, now: float) -> bool:
        if self.tokens(now) < 1:
            return False
        self.log.append((now, Fraction(-1)))
        return True


@dataclass
class RetryOracle:
    """A policy in words; the clock is a list of one number, which attempts and sleeps move."""

    settings: dict[str, Any]
    share: float
    clock: list[float]
    budget: BudgetOracle | None
    tally: Tally
    sleeps: list[float] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    noted: bool = False
    first_failures: int = 0
    recovered: int = 0
    gave_up: int = 0

    def delay(self, n: int) -> float:
        given = self.settings
        base = min(given["backoff_base"] * given["backoff_multiplier"] ** n, given["backoff_max"])
        if given["jitter"] is False:
            return float(base)
        low, high = (0.0, base) if given["jitter"] == "full" else (0.5 * base, min(1.5 * base, given["backoff_max"]))
        return float(low + (high - low) * self.share)

    def _retries(self, error: BaseException) -> bool:
        kinds = self.settings["retryable_exceptions"]
        for leaf in leaves(error):
            if not isinstance(leaf, Exception):
                return False
            listed = kinds if isinstance(kinds, tuple) else (kinds,)
            if isinstance(leaf, REFUSALS):
                named = [kind for kind in listed if isinstance(kind, type) and issubclass(kind, REFUSALS)]
                if not isinstance(leaf, tuple(named)):
                    return False
            elif kinds is None:
                continue
            elif not (isinstance(leaf, kinds) if isinstance(kinds, type | tuple | UnionType) else kinds(leaf)):
                return False
        return True

    def _hint(self, answer: Any) -> float:
        hints = [0.0]
        for leaf in leaves(answer) if isinstance(answer, BaseException) else [answer]:
            if isinstance(leaf, CircuitOpenError):
                hints.append(leaf.retry_after_s or 0.0)
            elif self.settings["retry_after"] is not None:
                hints.append(seconds(self.settings["retry_after"], leaf) or 0.0)
        return max(hints)

    def play(self, body: Callable[[], Any], judged: bool = True, blind: bool = False) -> Any:
        """Make all the attempts; `judged`: values are looked at, `blind`: nothing is known of an error."""
        given, met = self.settings, self.tally.met
        started = self.clock[0]
        if self.budget is not None:
            self.budget.deposit(started)
        for n in count():
            error: BaseException | None = None
            value: Any = None
            try:
                value = body()
            except BaseException as raised:
                error = raised
                if not blind and not self._retries(error):
                    met("an error that is not retried")
                    self.noted = n > 0 and isinstance(error, Exception | BaseExceptionGroup)
                    if self.noted:
                        self._give_up(n + 1, error, self.clock[0] - started)
                    raise
            bad = given["retry_result"]
            if error is None and not (judged and bad is not None and bad(value)):
                met("a good value at last" if n else "a good value at once")
                self.recovered += n > 0 and not blind
                return value
            told = None if blind else error
            self.first_failures += n == 0
            hint = 0.0 if blind else self._hint(value if error is None else error)
            delay = self.delay(n) + hint
            elapsed = self.clock[0] - started
            limit = given["max_elapsed_s"]
            if given["max_retries"] is not None and n >= given["max_retries"]:
                why = "no retries left"
            elif hint > given["retry_after_max_s"]:
                why = "the hint is too long"
            elif limit is not None and elapsed + delay > limit:
                why = "past the deadline"
            elif self.budget is not None and not self.budget.take(self.clock[0]):
                why = "the budget is empty"
            else:
                met("a hint is honoured" if hint else "the backoff is slept")
                self.events.append(("scheduled", n, delay, told, elapsed))
                self.sleeps.append(delay)
                self.clock[0] += delay
                continue
            met(why if error is not None else f"{why}, and the value stays bad")
            self._give_up(n + 1, told, elapsed)
            self.noted = error is not None and not blind
            if error is not None:
                raise error
            return value
        raise AssertionError("it counts for ever")

    def _give_up(self, attempts: int, error: BaseException | None, elapsed: float) -> None:
        self.gave_up += 1
        self.events.append(("gave up", attempts, error, elapsed))

    def snapshot(self) -> RetrySnapshot:
        return RetrySnapshot(
            failed_first_count=self.first_failures,
            retry_count=len(self.sleeps),
            recovered_count=self.recovered,
            gave_up_count=self.gave_up,
            total_sleep_s=sum(self.sleeps),
        )


def seen(event: RetryScheduled | RetryGaveUp) -> tuple[Any, ...]:
    """Return an event of the policy as the oracle lists it."""
    if isinstance(event, RetryScheduled):
        return ("scheduled", event.attempt, event.delay_s, event.error, event.elapsed_s)
    return ("gave up", event.attempts, event.error, event.elapsed_s)
