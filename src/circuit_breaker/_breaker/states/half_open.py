"""HALF_OPEN: a few calls are admitted as probes, to see whether the service has recovered."""

from __future__ import annotations

from copy import copy
from typing import Final

from ..._common.words import CircuitState, Outcome, probes_succeeded
from ..config import CircuitBreakerConfig
from ..rules import WindowCounts
from ..totals import Tally
from ..window import Seen
from .open import Open
from .period import EMPTY, Asker, Book, Machine, Period, Permission, Probe, Unknown

FAILURE: Final = Outcome.FAILURE
IGNORED: Final = Outcome.IGNORED
SUCCESS: Final = Outcome.SUCCESS
ADMITTED_BY_SHADOW_REMEMBERED: Final = 1_000


class HalfOpen(Period):
    """A few calls are admitted as probes, to see whether the service has recovered."""

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
        """Return the same without probes, which belong to the parent."""
        child = copy(self)
        child.book = self.book._replace(out=(), anonymous=())
        return child

    def admit(self, machine: Machine, probe: Probe, inside: tuple[Probe, ...], now: float) -> Permission | None:
        """Admit a probe: in a slot, or inside the probe that it is made in. None: there is no free slot."""
        outer = next((other for other in inside if other.issuer is self), None)
        while True:
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
                probe.issuer = self
                probe.rides = rides
                return probe

    def _with_slot(self, config: CircuitBreakerConfig, book: Book, probe: Probe, now: float) -> Book | None:
        """Return the book with a slot for this probe: a free one, that of an overdue probe, or one taken over."""
        if len(book.out) >= config.half_open_max_calls:
            book = book.without(*[other for other in book.anonymous + book.out if other.is_overdue(config, now)])
        if len(book.out) < config.half_open_max_calls:
            return book.with_probe(probe)
        # `if breaker.allow_request(): breaker.call(f)` asks twice for one call.
        asked_before = next((other for other in book.anonymous if other in book.out), None)
        if asked_before is None or probe.asker in (Asker.ANONYMOUS, Asker.PERMIT):
            return None
        return book.without(asked_before).with_probe(probe)

    def remember(self, machine: Machine, probe: Probe) -> None:
        """Note an anonymous call that SHADOW admits without a slot."""
        while True:
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
    ) -> Period | None:
        """Count the result, free the slot of its probe, and reopen or close the circuit if that follows."""
        failed = outcome is FAILURE
        while True:
            book = self.book
            probe = self._probe_of(permission, machine.config, book, now)
            if probe is not None and probe.issuer is None:
                if self._settle_admitted_by_shadow(machine, book, probe):
                    break
                continue
            said = _said(machine.config, probe, outcome, slow)
            new = _with_result(book, probe, said)
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
                else:
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
            return self._follow(machine, new, probe, outcome, said, now)
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
        blocks = (probe for probe in book.out if probe.asker is Asker.BLOCK)
        return next((probe for probe in blocks if not probe.is_overdue(config, now)), None)

    def _settle_admitted_by_shadow(self, machine: Machine, book: Book, probe: Probe) -> bool:
        """Forget an anonymous call that SHADOW admitted without a slot. Return whether nothing has changed."""
        new = book.without(probe)
        with machine.lock:
            if self.book is not book:
                return False
            self.book = new
            return True

    def _follow(
        self, machine: Machine, book: Book, probe: Probe | None, outcome: Outcome, said: Outcome, now: float
    ) -> Period | None:
        """Reopen the circuit after a failure, or close it after a success, if there are now enough of them."""
        config = machine.config
        if said is FAILURE and book.failures >= config.half_open_failure_threshold:
            return machine.open(self, now, why_reopened(outcome), self.led_by)
        if said is SUCCESS and book.successes >= config.success_threshold:
            machine.close(self, now, probes_succeeded(book.successes))
        return None

    def free(self, machine: Machine, probe: Probe) -> None:
        """Free the slot of a probe whose call was never made."""
        while True:
            book = self.book
            new = book.without(probe)
            with machine.lock:
                if self.book is book:
                    self.book = new
                    return

    def window_counts(self, counted: Tally, streak: int, seen: Seen | None, now: float) -> WindowCounts:
        """Return what the window held when the circuit opened."""
        return self.led_by

    def retry_after_s(self, machine: Machine, book: Book, now: float) -> float | None:
        """Return 0.0 if there is a free slot, otherwise None: not known."""
        return 0.0 if len(in_flight(book, machine.config, now)) < machine.config.half_open_max_calls else None


def _said(config: CircuitBreakerConfig, probe: Probe | None, outcome: Outcome, slow: bool) -> Outcome:
    """Return what a result says of the service; of a call inside another probe, only a failure says anything."""
    if outcome is FAILURE or outcome is IGNORED:
        return outcome
    if probe is not None and probe.rides:
        return IGNORED
    return FAILURE if slow and config.slow_call_rate_threshold is not None else SUCCESS


def _with_result(book: Book, probe: Probe | None, said: Outcome) -> Book:
    """Return the book with the result of a probe, or of a call that no probe is known of."""
    if probe is not None:
        book = book.without(probe)
    if said is FAILURE:
        return book._replace(failures=book.failures + 1)
    if said is SUCCESS:
        return book._replace(successes=book.successes + 1)
    return book


def why_reopened(outcome: Outcome) -> str:
    """Return the reason of a circuit that a probe with this outcome reopens."""
    return "a probe failed" if outcome is FAILURE else "a probe was slow"


def in_flight(book: Book, config: CircuitBreakerConfig, now: float) -> list[Probe]:
    """Return the probes that take a slot and are not overdue."""
    return [probe for probe in book.out if not probe.is_overdue(config, now)]
