"""What all states have in common, and the permissions that they give."""

from __future__ import annotations

from copy import copy
from enum import Enum
from math import inf
from typing import Any, Final, NamedTuple, Protocol

from ..._common.words import CircuitState, Outcome
from ..config import CircuitBreakerConfig
from ..rules import Rule, WindowCounts
from ..totals import Tally, Totals
from ..window import Seen, Window


class Machine(Protocol):
    """What a state needs of its machine; `machine.Machine` says what each is."""

    lock: Any
    config: CircuitBreakerConfig
    period: Period
    fast: Any
    totals: Totals

    def open(self, former: Period, now: float, reason: str, counts: WindowCounts) -> Period | None: ...
    def close(self, former: Period, now: float, reason: str) -> None: ...
    def count_late(self, outcome: Outcome, now: float, latency_s: float, slow: bool) -> None: ...
    def renew_fast(self) -> None: ...
    def half_open(self, opened: Any) -> Period: ...
    def opened(self, now: float, open_for_s: float, openings: int, counts: WindowCounts) -> Any: ...


class Permission:
    """The right to make one call: a closed period, or a probe.

    Attributes:
        admits: that the call may be made; a period that rejects it says no.
        issuer: the period that gave it; None: the result of its call counts in the totals alone.
    """

    __slots__ = ()

    admits: bool = True
    issuer: Any

    def withdraw(self, machine: Machine) -> None:
        """Take it back, since the call was never made: nothing is counted."""


class LastFailure(NamedTuple):
    """The failure that opened a circuit, in words: it keeps no object and no frame alive."""

    type: str
    text: str


class Asker(Enum):
    """Who wants to make a call."""

    CALL = "a call; inside a probe it is part of that probe"
    BLOCK = "a `with` block; inside a probe it is part of that probe"
    PERMIT = "a permit; it always takes a probe slot of its own"
    ANONYMOUS = "`allow_request()`; it takes a slot of its own, and no `record_*` will say which call it is about"


class Unknown(Enum):
    """Who reports a result without saying which call it is about."""

    ANONYMOUS = "a `record_*`, perhaps of a call that `allow_request()` admitted"
    ELSEWHERE = "the end of a `with` block, left where it was not entered"


class Probe(Permission):
    """The right to make one call that is not simply admitted: a trial call in half-open, or a call that SHADOW admits.

    Attributes:
        asker: who makes the call.
        issuer: the half-open period that gave it; None: SHADOW did, and it counts in the totals alone.
        since: when it was issued. Of a stream: when its last item was asked for or given.
        rides: it is made inside another probe, and takes no probe slot.
        settled: its result has been counted.
        token: of its lease, where a store says who may probe; else "".
    """

    __slots__ = ("asker", "issuer", "rides", "settled", "since", "token")

    def __init__(self, asker: Asker, now: float) -> None:
        self.asker = asker
        self.issuer: Period | None = None
        self.since = now
        self.rides = False
        self.settled = False
        self.token = ""

    def withdraw(self, machine: Machine) -> None:
        """Take it back, since the call was never made: its slot is free."""
        if self.issuer is not None:
            self.issuer.free(machine, self)

    def is_overdue(self, config: CircuitBreakerConfig, now: float) -> bool:
        """Return whether the probe is overdue."""
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
        return Book((*self.out, probe), anonymous, self.successes, self.failures)

    def without(self, *gone: Probe) -> Book:
        """Return the same without these probes."""
        out = tuple([probe for probe in self.out if probe not in gone])
        anonymous = tuple([probe for probe in self.anonymous if probe not in gone])
        return Book(out, anonymous, self.successes, self.failures)


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
        config: the configuration that its rules and its window are made for; None: it has none.
        noted: of how many failures in a row the times are kept: of the newest ones.
        failed_at: these times. That of failure number n of the streak is at n modulo `noted`.
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
    config: CircuitBreakerConfig | None = None
    noted: int = 0
    failed_at: list[float]

    def __init__(self) -> None:
        super().__init__()
        self.streak = 0

    def copy_for_child(self) -> Period:
        """Return what this period is in a forked child, where the results of the parent's calls are late."""
        return copy(self)

    def configure(self, machine: Machine, config: CircuitBreakerConfig, rules: tuple[Rule, ...], now: float) -> bool:
        """Take another configuration, unless the period is over; what is under way stays under way."""
        with machine.lock:
            if machine.period is not self:
                return False
            machine.config, config = config, machine.config  # kept until the lock is free: it may have destructors
            machine.fast = None
        machine.renew_fast()
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
    ) -> Period | None:
        """Count the result of a call of this period; return the period that it opens, if it does."""
        machine.count_late(outcome, now, latency_s, slow)
        return None

    def free(self, machine: Machine, probe: Probe) -> None:
        """Free the slot of a probe whose call was never made."""

    def remember(self, machine: Machine, probe: Probe) -> None:
        """Note an anonymous call that SHADOW admits; the `record_*` of it counts in the totals alone."""

    def following(self, machine: Machine, now: float) -> tuple[Period, str]:
        """Return the period that follows when the time of this one is over, and why."""
        raise NotImplementedError

    def window_counts(self, counted: Tally, streak: int, seen: Seen | None, now: float) -> WindowCounts:
        """Return what the window holds, given what this period had counted and what was seen of its window then."""
        raise NotImplementedError

    def retry_after_s(self, machine: Machine, book: Book, now: float) -> float | None:
        """Return the seconds until a call may be admitted. None: not known."""
        return self.rejected_for_s(now)

    def rejected_for_s(self, now: float) -> float | None:
        """Return what a rejection says: the seconds until the next probe. None: not known."""
        return None

    def has_failures(self, now: float) -> bool:
        """Return whether forgetting this period would forget failures."""
        return self.streak > 0
