"""The states of a circuit: what each does with a call, and with the end of one.

One stay in one state is a period, an object of one of the classes below. A state decides, then writes down: it reads
what there is, works out what follows without a lock, and takes the lock only to write, unless something it has read has
changed meanwhile; then it begins again. Under the lock nothing is called or made; `docs/development/design.md` tells
the reason.

To add a state, write a class, and say in the machine which period it follows.
"""

from __future__ import annotations

from copy import copy
from datetime import timedelta
from enum import Enum
from itertools import repeat
from math import inf
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from .._common.words import CircuitState, Outcome
from .config import CircuitBreakerConfig
from .rules import Evidence, Rule, WindowCounts
from .totals import Tally, Totals
from .window import Mark, Window, new_window

FAILURE: Final = Outcome.FAILURE
IGNORED: Final = Outcome.IGNORED
ADMITTED_BY_SHADOW_REMEMBERED: Final = 1_000


class Machine(Protocol):
    """What a state needs of its machine; `machine.Machine` says what each is."""

    lock: Any
    config: CircuitBreakerConfig
    period: Period
    fast: Closed | None
    totals: Totals

    def open(self, former: Period, now: float, reason: str, counts: WindowCounts) -> Open | None: ...
    def close(self, former: HalfOpen, now: float, reason: str) -> None: ...
    def count_late(self, outcome: Outcome, now: float, latency_s: float, slow: bool) -> None: ...
    def fast_of(self, period: Period, config: CircuitBreakerConfig) -> Closed | None: ...
    def half_open(self, opened: Open) -> Period: ...


class LastFailure(NamedTuple):
    """The failure that opened a circuit, in words: it keeps no object and no frame alive."""

    type: str
    text: str


class Asker(Enum):
    """Who wants to make a call."""

    CALL = "a call; inside a probe it is part of that probe"
    BLOCK = "a `with` block; likewise"
    PERMIT = "a permit; it always takes a probe slot of its own"
    ANONYMOUS = "`allow_request()`; likewise, and nothing will say which call its `record_*` is about"


class Unknown(Enum):
    """Who reports a result without saying which call it is about."""

    ANONYMOUS = "a `record_*`, perhaps of a call that `allow_request()` admitted"
    ELSEWHERE = "the end of a `with` block, left where it was not entered"


class Probe:
    """The right to make one call that is not simply admitted: a trial call in half-open, or a call that SHADOW admits.

    Attributes:
        asker: who makes the call.
        period: the half-open period that issued it; None: it counts in the totals alone.
        since: when it was issued, or gave the last item of its stream.
        rides: it is made inside another probe, and takes no probe slot.
        settled: its result has been counted.
    """

    __slots__ = ("asker", "period", "rides", "settled", "since")

    admits: Final = True

    def __init__(self, asker: Asker, now: float) -> None:
        self.asker = asker
        self.period: HalfOpen | None = None
        self.since = now
        self.rides = False
        self.settled = False

    def withdraw(self, machine: Machine) -> None:
        """Take the probe back whose call was never made: nothing is counted."""
        if self.period is not None:
            self.period.free(self, machine)

    def is_overdue(self, config: CircuitBreakerConfig, now: float) -> bool:
        """Tell whether it has given no sign of life for too long."""
        return now >= self.since + config._overdue_s


class Book(NamedTuple):
    """What a half-open period has noted; it is replaced, never changed.

    Attributes:
        out: the probes that take a slot, oldest first.
        anonymous: the probes of `allow_request()`, oldest first; with SHADOW also those that take no slot.
    """

    out: tuple[Probe, ...] = ()
    anonymous: tuple[Probe, ...] = ()
    successes: int = 0
    failures: int = 0

    def with_probe(self, probe: Probe) -> Book:
        """Return the same with a slot taken by this probe."""
        anonymous = (*self.anonymous, probe) if probe.asker is Asker.ANONYMOUS else self.anonymous
        return self._replace(out=(*self.out, probe), anonymous=anonymous)

    def without(self, *gone: Probe) -> Book:
        """Return the same without these probes."""
        return self._replace(
            out=tuple(probe for probe in self.out if probe not in gone),
            anonymous=tuple(probe for probe in self.anonymous if probe not in gone),
        )


EMPTY: Final = Book()


class Period(Tally):
    """One stay in one state, and what it has counted.

    Attributes:
        streak: failures in a row up to now.
        admits: whether the period is itself the permission for every call.
        ends_at: when the period ends by itself.
        rejects_until: until when every call is rejected.
        met: the state that a caller meets, which SHADOW hides.
        last_failure: the failure that opened the circuit.
        openings: how many times in a row the circuit has opened up to now.
    """

    __slots__ = ("streak",)

    state: CircuitState
    met: CircuitState
    admits: bool = False
    ends_at: float = inf
    rejects_until: float = -inf
    last_failure: LastFailure | None = None
    openings: int = 0
    book: Book = EMPTY
    window: Window | None = None

    def __init__(self) -> None:
        super().__init__()
        self.streak = 0

    def copy_for_child(self) -> Period:
        """Return what this period is in a forked child, where the results of the parent's calls are late."""
        return copy(self)

    def configure(self, machine: Machine, config: CircuitBreakerConfig, rules: tuple[Rule, ...], now: float) -> bool:
        """Take another configuration, unless the period is over; what is under way stays under way."""
        fast = machine.fast_of(self, config)
        with machine.lock:
            if machine.period is not self:
                return False
            machine.config = config
            machine.fast = fast
            return True

    def admit(self, machine: Machine, probe: Probe, inside: tuple[Probe, ...], now: float) -> Permission | None:
        """Return the permission for one call that is made inside these probes (the innermost first), or None."""
        return None

    def settle(
        self,
        machine: Machine,
        permission: Permission | Unknown,
        outcome: Outcome,
        now: float,
        latency_s: float,
        slow: bool,
    ) -> Open | None:
        """Count the result of a call of this period; return the period that it opens, if it does."""
        machine.count_late(outcome, now, latency_s, slow)
        return None

    def remember(self, machine: Machine, probe: Probe) -> None:
        """Note an anonymous call that SHADOW admits; the `record_*` of it counts in the totals alone."""

    def following(self, machine: Machine, now: float) -> tuple[Period, str]:
        """Return the period that follows when the time of this one is over, and why."""
        raise NotImplementedError

    def window_counts(self, counted: Tally, streak: int, first: Mark | None, now: float) -> WindowCounts:
        """Return what the window holds, given what this period had counted when `first` was its first mark."""
        return WindowCounts()

    def retry_after_s(self, machine: Machine, book: Book, now: float) -> float | None:
        """Return the seconds until a call may be admitted; None: nobody knows."""
        return 0.0

    def has_failures(self, now: float) -> bool:
        """Tell whether forgetting this period would forget failures."""
        return self.streak > 0


class Closed(Period):
    """Every call is admitted. The period is itself the permission of its calls.

    A success that only needs counting touches `successes`, `latency_s`, `last_success_at` and `streak`, and looks at
    `quiet_until` and `slow_s`; the breaker writes that out where calls end.

    Attributes:
        quiet_until: until then a good answer needs no mark in the window.
        slow_s: from this duration on a call is slow.
    """

    __slots__ = ("_failed_at", "_first_streak", "_rules", "_size", "_threshold", "quiet_until", "slow_s", "window")

    state = CircuitState.CLOSED
    met = CircuitState.CLOSED
    admits = True

    def __init__(self, config: CircuitBreakerConfig, rules: tuple[Rule, ...], now: float) -> None:
        super().__init__()
        self._rules = rules
        self._first_streak = min((rule.first_streak for rule in rules), default=inf)
        self._size = config.error_rate_window
        # A window of calls is made by the first bad answer: an idle breaker does without.
        self.window = new_window(self._size, now) if isinstance(self._size, timedelta) else None
        self.quiet_until = inf if self.window is None else self.window.end_of(0)
        self.slow_s = config._slow_s
        # When the newest failures in a row were, each at its number modulo the threshold; of one if nobody asks.
        within_s = config.failure_threshold_within_s
        self._threshold = 1 if within_s is None or config.failure_threshold is None else config.failure_threshold
        self._failed_at = [now] * self._threshold

    def configure(self, machine: Machine, config: CircuitBreakerConfig, rules: tuple[Rule, ...], now: float) -> bool:
        """Do so. The streak stays; the window begins anew if its kind or size has changed."""
        new = Closed(config, rules, now)
        fast = machine.fast_of(self, config)
        window = new.window or new_window(config.error_rate_window, now)
        start = window.newest
        same_window = self._size == config.error_rate_window
        with machine.lock:
            if machine.period is not self:
                return False
            if not same_window:
                start.position = start.answers = self.successes + self.failures
                start.failures = self.failures
                start.slow = self.slow
                self.window = window
                self.quiet_until = new.quiet_until
            self._rules = rules
            self._first_streak = new._first_streak
            self._size = new._size
            self.slow_s = new.slow_s
            self._threshold = new._threshold
            self._failed_at = new._failed_at
            machine.config = config
            machine.fast = fast
            return True

    @property
    def period(self) -> Closed:
        """The period that issued this permission."""
        return self

    def admit(self, machine: Machine, probe: Probe, inside: tuple[Probe, ...], now: float) -> Permission | None:
        """Admit it."""
        return self

    def withdraw(self, machine: Machine) -> None:
        """Take the permission back of a call that was never made: nothing is counted."""

    def settle(
        self,
        machine: Machine,
        permission: Permission | Unknown,
        outcome: Outcome,
        now: float,
        latency_s: float,
        slow: bool,
    ) -> Open | None:
        """Count the result, and open the circuit if a rule says so."""
        failed = outcome is FAILURE
        while machine.period is self and outcome is not IGNORED:
            size, quiet_until, bucket = self._size, self.quiet_until, 0
            window = self.window or new_window(size, now)
            if now >= quiet_until:
                bucket = window.bucket_at(now)
                quiet_until = window.end_of(bucket)
            mark = Mark()
            marks_answer = window.marks_bad_answers and (failed or slow)
            with machine.lock:
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
                        window.first = second  # one comes, one goes: so marks are bounded though nobody looks
                answers += 1
                self.latency_s += latency_s
                self.slow += slow
                if failed:
                    self.failures += 1
                    self.streak += 1
                    self.last_failure_at = now
                    self._failed_at[self.streak % self._threshold] = now
                else:
                    self.successes += 1
                    self.streak = 0
                    self.last_success_at = now
                failures, slow_calls, streak = self.failures, self.slow, self.streak
                first_failed_at = self._failed_at[(streak + 1) % self._threshold]
                first = window.first
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
            if streak < self._first_streak and not slow:
                return None
            counts = window.counts(first, now, answers, failures, slow_calls, streak)
            return self._ask_rules(machine, Evidence(counts, now - first_failed_at), failed, slow, now)
        machine.count_late(outcome, now, latency_s, slow)
        return None

    def _ask_rules(self, machine: Machine, evidence: Evidence, failed: bool, slow: bool, now: float) -> Open | None:
        for rule in self._rules:
            if (failed and evidence.counts.consecutive_failures >= rule.first_streak) or (slow and rule.asks_slow):
                reason = rule.tripped(evidence)
                if reason is not None:
                    return machine.open(self, now, reason, evidence.counts)
        return None

    def window_counts(self, counted: Tally, streak: int, first: Mark | None, now: float) -> WindowCounts:
        """Return what the window holds, given what this period had counted when `first` was its first mark."""
        answers = counted.successes + counted.failures
        window = self.window
        if window is None or first is None:
            calls = self._size if isinstance(self._size, int) else answers
            return WindowCounts(min(answers, calls), consecutive_failures=streak)
        return window.counts(first, now, answers, counted.failures, counted.slow, streak)

    def has_failures(self, now: float) -> bool:
        """Tell whether forgetting this period would forget failures."""
        if self.streak or self.window is None:
            return self.streak > 0
        return self.window_counts(self, self.streak, self.window.first, now).failures > 0


class Open(Period):
    """Every call is rejected until the time is over; with SHADOW none is.

    Attributes:
        at: when the circuit opened.
        led_by: what the window held then.
    """

    __slots__ = ("at", "ends_at", "last_failure", "led_by", "met", "openings", "rejects_until")

    state = CircuitState.OPEN

    def __init__(self, at: float, open_for_s: float, openings: int, led_by: WindowCounts, shadow: bool) -> None:
        super().__init__()
        self.at = at
        self.openings = openings
        self.led_by = led_by
        self.last_failure: LastFailure | None = None
        self.met = CircuitState.CLOSED if shadow else CircuitState.OPEN
        self.ends_at = at + open_for_s
        self.rejects_until = -inf if shadow else self.ends_at

    def end_after(self, machine: Machine, open_for_s: float, last_failure: LastFailure | None) -> None:
        """Set the end, counted from the beginning, and note which failure opened the circuit."""
        ends_at = self.at + open_for_s
        rejects_until = ends_at if self.met is CircuitState.OPEN else -inf
        with machine.lock:
            self.ends_at = ends_at
            self.rejects_until = rejects_until
            self.last_failure = last_failure

    def window_counts(self, counted: Tally, streak: int, first: Mark | None, now: float) -> WindowCounts:
        """Return what the window held when the circuit opened."""
        return self.led_by

    def following(self, machine: Machine, now: float) -> tuple[Period, str]:
        """Return the half-open period."""
        return machine.half_open(self), f"open for {now - self.at:.3g} s"

    def retry_after_s(self, machine: Machine, book: Book, now: float) -> float | None:
        """Return the seconds until a probe may be made."""
        return max(0.0, self.ends_at - now)


class ForcedOpen(Open):
    """Every call is rejected until an operator says otherwise."""

    __slots__ = ()

    def __init__(self, now: float) -> None:
        super().__init__(now, inf, 0, WindowCounts(), False)

    def retry_after_s(self, machine: Machine, book: Book, now: float) -> float | None:
        """Return None: nobody knows."""
        return None


class HalfOpen(Period):
    """A few calls are admitted as probes, to see whether the dependency answers again."""

    __slots__ = ("book", "last_failure", "led_by", "met", "openings")

    state = CircuitState.HALF_OPEN

    def __init__(self, opened: Open) -> None:
        super().__init__()
        self.book = EMPTY
        self.last_failure = opened.last_failure
        self.led_by = opened.led_by
        self.openings = opened.openings
        self.met = CircuitState.CLOSED if opened.met is CircuitState.CLOSED else CircuitState.HALF_OPEN

    def copy_for_child(self) -> Period:
        """Return the same without probes: those are the parent's."""
        child = copy(self)
        child.book = self.book._replace(out=(), anonymous=())
        return child

    def admit(self, machine: Machine, probe: Probe, inside: tuple[Probe, ...], now: float) -> Permission | None:
        """Give the probe a slot, or let it ride on the probe that it is made inside of; None: there is no slot."""
        outer = next((other for other in inside if other.period is self), None)
        for _ in repeat(None):
            book = self.book
            new = self._with_slot(machine.config, book, probe, now)
            # An overdue probe may be lost for good, and its result with it: what is inside it takes a slot if it can.
            rides = outer is not None and not (new is not None and outer.is_overdue(machine.config, now))
            if rides:
                new = book
            if new is None:
                return None
            with machine.lock:
                if machine.period is not self:
                    return None
                if self.book is not book:
                    continue
                self.book = new
                probe.period = self
                probe.rides = rides
                return probe
        return None  # never reached

    def _with_slot(self, config: CircuitBreakerConfig, book: Book, probe: Probe, now: float) -> Book | None:
        """Return the book with a slot for this probe: a free one, that of an overdue probe, or one taken over."""
        if len(book.out) >= config.half_open_max_calls:
            book = book.without(*(other for other in book.anonymous + book.out if other.is_overdue(config, now)))
        if len(book.out) < config.half_open_max_calls:
            return book.with_probe(probe)
        # `if breaker.allow_request(): breaker.call(f)` asks twice for one call.
        asked_before = next((other for other in book.anonymous if other in book.out), None)
        if asked_before is None or probe.asker in (Asker.ANONYMOUS, Asker.PERMIT):
            return None
        return book.without(asked_before).with_probe(probe)

    def remember(self, machine: Machine, probe: Probe) -> None:
        """Note an anonymous call that SHADOW admits without a slot."""
        for _ in repeat(None):
            book = self.book
            if len(book.anonymous) >= ADMITTED_BY_SHADOW_REMEMBERED:
                return
            new = book._replace(anonymous=(*book.anonymous, probe))
            with machine.lock:
                if self.book is book:
                    self.book = new
                    return

    def settle(
        self,
        machine: Machine,
        permission: Permission | Unknown,
        outcome: Outcome,
        now: float,
        latency_s: float,
        slow: bool,
    ) -> Open | None:
        """Count the result, free the slot of its probe, and reopen or close the circuit if that follows."""
        failed = outcome is FAILURE
        for _ in repeat(None):
            book = self.book
            probe = self._probe_of(permission, machine.config, book, now)
            if probe is not None and probe.period is None:
                if self._settle_admitted_by_shadow(machine, book, probe):
                    break
                continue
            new = self._with_result(machine.config, book, probe, outcome, slow)
            with machine.lock:
                if machine.period is not self:
                    break
                if self.book is not book or (probe is not None and probe.settled):
                    continue
                self.book = new
                if probe is not None:
                    probe.settled = True
                if outcome is IGNORED:
                    machine.totals.ignored += 1
                    return None
                self.latency_s += latency_s
                self.slow += slow
                if failed:
                    self.failures += 1
                    self.streak += 1
                    self.last_failure_at = now
                else:
                    self.successes += 1
                    self.streak = 0
                    self.last_success_at = now
            return self._follow(machine, new, failed, now)
        machine.count_late(outcome, now, latency_s, slow)
        return None

    def _probe_of(
        self, permission: Permission | Unknown, config: CircuitBreakerConfig, book: Book, now: float
    ) -> Probe | None:
        """Return the probe that a result is about; None: it is about none that is known."""
        if isinstance(permission, Probe):
            if not permission.settled:
                return permission
            permission = Unknown.ELSEWHERE  # a block that was left elsewhere has settled this one's probe
        if permission is Unknown.ANONYMOUS:
            return next((probe for probe in book.anonymous if not probe.is_overdue(config, now)), None)
        return next((probe for probe in book.out if probe.asker is Asker.BLOCK), None)

    def _with_result(
        self, config: CircuitBreakerConfig, book: Book, probe: Probe | None, outcome: Outcome, slow: bool
    ) -> Book:
        """Return the book with the result of a probe, or of a call that no probe is known of."""
        rides = probe is not None and probe.rides
        if probe is not None:
            book = book.without(probe)
        if outcome is IGNORED or (rides and outcome is not FAILURE):
            return book
        if outcome is FAILURE or (slow and config.slow_call_rate_threshold is not None):
            return book._replace(failures=book.failures + 1)
        return book._replace(successes=book.successes + 1)

    def _settle_admitted_by_shadow(self, machine: Machine, book: Book, probe: Probe) -> bool:
        """Forget an anonymous call that SHADOW admitted without a slot; tell whether nothing has changed meanwhile."""
        new = book.without(probe)
        with machine.lock:
            if self.book is not book:
                return False
            self.book = new
            return True

    def _follow(self, machine: Machine, book: Book, failed: bool, now: float) -> Open | None:
        """Reopen or close the circuit, if the results of the probes say so."""
        config = machine.config
        if book.failures >= config.half_open_failure_threshold:
            return machine.open(self, now, "a probe failed" if failed else "a probe was slow", self.led_by)
        if book.successes >= config.success_threshold:
            machine.close(self, now, f"{book.successes} probes succeeded")
        return None

    def free(self, probe: Probe, machine: Machine) -> None:
        """Free the slot of a probe."""
        for _ in repeat(None):
            book = self.book
            new = book.without(probe)
            with machine.lock:
                if self.book is book:
                    self.book = new
                    return

    def window_counts(self, counted: Tally, streak: int, first: Mark | None, now: float) -> WindowCounts:
        """Return what the window held when the circuit opened."""
        return self.led_by

    def retry_after_s(self, machine: Machine, book: Book, now: float) -> float | None:
        """Return 0.0 if there is a free slot; else nobody knows."""
        return 0.0 if len(in_flight(book, machine.config, now)) < machine.config.half_open_max_calls else None


def in_flight(book: Book, config: CircuitBreakerConfig, now: float) -> list[Probe]:
    """Return the probes that take a slot and are not overdue."""
    return [probe for probe in book.out if not probe.is_overdue(config, now)]


Permission: TypeAlias = Closed | Probe
