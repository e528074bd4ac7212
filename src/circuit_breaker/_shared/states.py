"""The states of a circuit that is open for all members: the record says when it ends, and leases say who may probe."""

from __future__ import annotations

from copy import copy
from math import inf
from typing import Any, NamedTuple, Protocol, cast

from .._breaker.config import CircuitBreakerConfig
from .._breaker.rules import WindowCounts
from .._breaker.states import Asker, Book, HalfOpen, LastFailure, Open, Period, Permission, Probe
from .._breaker.states.half_open import FAILURE, IGNORED, why_reopened
from .._breaker.states.period import Machine
from .._common.words import Outcome
from .record import Record, Rules


class Answer:
    """How a probe ended, for the store.

    Attributes:
        token: of its lease; empty: it had none, since it was made inside another probe, or while the store was away.
        reason: why the circuit must reopen; None: the probe succeeded, or is ignored.
        open_s: for how long this process has opened the circuit; None: it has not.
        ready: it may be sent. A failure waits until it is known for how long the circuit opens.
    """

    __slots__ = ("epoch", "ignored", "open_s", "ready", "reason", "token")

    def __init__(self, epoch: int, token: str, reason: str | None, ignored: bool) -> None:
        self.epoch = epoch
        self.token = token
        self.reason = reason
        self.ignored = ignored
        self.open_s: float | None = None
        self.ready = True


class Link(Protocol):
    """What a state needs of the tie between a breaker and its circuit; `link.Link` says what each is."""

    @property
    def alone(self) -> bool: ...
    def may_ask(self, period: HalfOpenForAll, now: float) -> bool: ...
    def note(self, answer: Answer) -> None: ...
    def wake(self) -> None: ...
    def request_opening(self, ends_at: float) -> None: ...


class OpenByItself(Open):
    """The circuit is open in this process alone, which has opened it by itself.

    Attributes:
        answer: the failure of a probe that did so, to be sent once it is known for how long the circuit opens.
    """

    __slots__ = ("_link", "answer")

    def __init__(self, link: Link, at: float, open_for_s: float, openings: int, led_by: WindowCounts, shadow: bool):
        super().__init__(at, open_for_s, openings, led_by, shadow)
        self._link = link
        self.answer: Answer | None = None

    def anew(self, machine: Machine, ends_at: float) -> Open:
        """Do so; the failure is still to be sent, too."""
        anew = cast("OpenByItself", super().anew(machine, ends_at))
        anew.answer = self.answer
        return anew

    def end_after(self, machine: Machine, open_for_s: float, last_failure: LastFailure | None) -> None:
        """Do so, and tell the store."""
        super().end_after(machine, open_for_s, last_failure)
        if self.answer is not None:
            self.answer.open_s = open_for_s
            self.answer.ready = True
        self._link.wake()

    def is_longer(self, config: CircuitBreakerConfig) -> bool:
        """Tell whether it may last longer than the configuration says, since a server or an operator wants so."""
        wait: Any = config.reset_timeout_s
        return self.ends_at < inf and (
            config.retry_after is not None if callable(wait) else self.ends_at > self.at + wait
        )


class OpenForAll(Open):
    """Every call is rejected, in all processes.

    Attributes:
        epoch: of the record that says so.
        open_s: for how long the record says so.
        rules: how the circuit is probed.
    """

    __slots__ = ("_link", "epoch", "open_s", "rules")

    def __init__(self, link: Link, record: Record, former: Period, now: float, remaining_s: float) -> None:
        elapsed_s = 0.0 if record.rules.open_s == inf else record.rules.open_s - remaining_s
        led_by = former.led_by if isinstance(former, Open | HalfOpen) else WindowCounts()
        super().__init__(now - elapsed_s, elapsed_s + remaining_s, record.openings + 1, led_by, shadow=False)
        self.last_failure = former.last_failure
        self._link = link
        self.epoch = record.epoch
        self.open_s = record.rules.open_s
        self.rules = record.rules

    def adjust(self, machine: Machine, now: float, remaining_s: float, open_s: float) -> None:
        """Take another reading of the time that is left: the end only comes nearer, unless the record says so."""
        ends_at = now + remaining_s
        with machine.lock:
            if open_s > self.open_s or ends_at < self.ends_at:
                self.ends_at = self.rejects_until = ends_at
                self.open_s = open_s

    def anew(self, machine: Machine, ends_at: float) -> Open:
        """Return this period: its end is that of the record, and no function is asked about it."""
        return self

    def end_after(self, machine: Machine, open_for_s: float, last_failure: LastFailure | None) -> None:
        """Set the end, and let it be that of all members if it is later than theirs."""
        super().end_after(machine, open_for_s, last_failure)
        self._link.request_opening(self.at + open_for_s)

    def following(self, machine: Machine, now: float) -> tuple[Period, str]:
        """Return the half-open period."""
        return HalfOpenForAll(self._link, self), f"in all processes: open for {now - self.at:.3g} s"


class Leased(NamedTuple):
    """A lease that no probe uses yet, and since when this process has it."""

    token: str
    since: float


class HalfOpenForAll(HalfOpen):
    """A few calls of all processes are admitted: each needs a lease. While the store is away, this process is alone.

    Attributes:
        since: when it began.
        leases: those that no probe uses yet.
    """

    __slots__ = ("_link", "_rules", "epoch", "leases", "open_s", "since")

    def __init__(self, link: Link, opened: OpenForAll) -> None:
        super().__init__(opened)
        self._link = link
        self._rules: Rules = opened.rules
        self.epoch = opened.epoch
        self.open_s = opened.open_s
        self.since = opened.ends_at
        self.leases: tuple[Leased, ...] = ()

    def copy_for_child(self) -> Period:
        """Return the same without probes and leases: those are the parent's."""
        child = copy(self)
        child.book = self.book._replace(out=(), anonymous=())
        child.leases = ()
        return child

    # Leases

    def add_lease(self, machine: Machine, lease: Leased) -> None:
        """Note a lease, for whoever makes the next probe."""
        while True:
            leases = self.leases
            more = (*leases, lease)
            with machine.lock:
                if self.leases is leases:
                    self.leases = more
                    return

    def take_leases(self, machine: Machine, before: float) -> tuple[Leased, ...]:
        """Return the leases that have been unused since this time, and forget them."""
        while True:
            leases = self.leases
            kept = tuple(lease for lease in leases if lease.since > before)
            taken = tuple(lease for lease in leases if lease.since <= before)
            with machine.lock:
                if self.leases is leases:
                    self.leases = kept
                    return taken

    def tokens_out(self, machine: Machine, now: float) -> list[str]:
        """Return the leases that are in use by probes that are not overdue, and those that wait for one."""
        out = [probe for probe in self.book.out if not probe.is_overdue(machine.config, now)]
        return [probe.token for probe in out if probe.token] + [lease.token for lease in self.leases]

    # Probes

    def admit(self, machine: Machine, probe: Probe, inside: tuple[Probe, ...], now: float) -> Permission | None:
        """Give the probe a lease, or let it ride on the probe that it is made inside of; None: there is no lease."""
        if self._link.alone:
            return super().admit(machine, probe, inside, now)
        outer = next((other for other in inside if other.issuer is self), None)
        while True:
            book, leases = self.book, self.leases
            new, token, rest = self._with_lease(machine, book, leases, probe, now)
            rides = outer is not None and not (token and outer.is_overdue(machine.config, now))
            if rides:
                new, token, rest = book, "", leases
            elif not token:
                return None
            with machine.lock:
                if machine.period is not self:
                    return None
                if self.book is not book or self.leases is not leases:
                    continue
                self.book = new
                self.leases = rest
                probe.token = token
                probe.issuer = self
                probe.rides = rides
                return probe

    def _with_lease(
        self, machine: Machine, book: Book, leases: tuple[Leased, ...], probe: Probe, now: float
    ) -> tuple[Book, str, tuple[Leased, ...]]:
        """Return the book with this probe, the token of its lease, and the leases that are left; "": there is none."""
        if leases:
            overdue = [other for other in book.out if other.is_overdue(machine.config, now)]
            return book.without(*overdue).with_probe(probe), leases[0].token, leases[1:]
        # `if breaker.allow_request(): breaker.call(f)` asks twice for one call.
        asked_before = next((other for other in book.anonymous if other.token), None)
        if asked_before is None or probe.asker in (Asker.ANONYMOUS, Asker.PERMIT):
            return book, "", leases
        return book.without(asked_before).with_probe(probe), asked_before.token, leases

    def free(self, machine: Machine, probe: Probe) -> None:
        """Free the slot of a probe whose call was never made; its lease serves the next."""
        super().free(machine, probe)
        if probe.token:
            self.add_lease(machine, Leased(probe.token, probe.since))

    def _follow(
        self, machine: Machine, book: Book, probe: Probe | None, outcome: Outcome, said: Outcome, now: float
    ) -> Period | None:
        """Tell the store how a probe ended. What follows is the record's to say, but that enough failures reopen."""
        token = "" if probe is None else probe.token
        failed = said is FAILURE
        answer = Answer(self.epoch, token, why_reopened(outcome) if failed else None, outcome is IGNORED)
        alone = self._link.alone
        reopens = failed and not alone and book.failures >= self._rules.failure_threshold
        answer.ready = not reopens
        if token or failed:
            self._link.note(answer)
        if alone:
            return super()._follow(machine, book, probe, outcome, said, now)
        if not reopens:
            self._link.wake()
            return None
        opened = machine.open(self, now, why_reopened(outcome), self.led_by)
        if isinstance(opened, OpenByItself):
            opened.answer = answer
        else:
            answer.ready = True  # the record has been faster
        return opened

    def retry_after_s(self, machine: Machine, book: Book, now: float) -> float | None:
        """Return 0.0 if a probe may be made, or a lease asked for; else nobody knows."""
        if self._link.alone:
            return super().retry_after_s(machine, book, now)
        return 0.0 if self.leases or self._link.may_ask(self, now) else None
