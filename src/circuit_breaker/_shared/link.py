"""What ties one breaker to the circuit that it shares: what it reports, what it follows, and when its callers wait."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from functools import partial
from itertools import repeat
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from .._breaker.states import Closed, HalfOpen, Open, Period, Probe
from .._breaker.totals import SharedSnapshot
from . import changes
from .changes import Verdict, verdict
from .evidence import NONE, Answers
from .identity import new_token
from .record import AUTO, Record, Step, epoch_of
from .states import Answer, HalfOpenForAll, Leased, OpenByItself, OpenForAll

if TYPE_CHECKING:
    from .._breaker.breaker import CircuitBreaker
    from .machine import SharedMachine
    from .talker import Talker

ASK_AGAIN_S: Final = 0.1  # after the first "no"; then twice as long each time, up to an interval
ASK_AGAIN_TIMES: Final = 10  # what the last ask took
ASK_LASTS_INTERVALS: Final = 3  # beside what its caller waits; then it counts as lost
POLITE_INTERVALS: Final = 2


class Grown(NamedTuple):
    """What a breaker has counted since it was asked last.

    Attributes:
        streak: failures in a row.
        opened: it has opened by itself.
        called: anybody has called it.
    """

    answers: Answers = NONE
    rejected: int = 0
    streak: int = 0
    opened: bool = False
    called: bool = False


class Ask(NamedTuple):
    """The ask for a lease of a half-open period, and when a caller began it, on the breaker's clock."""

    period: HalfOpenForAll
    since: float


class Demand(NamedTuple):
    """What a breaker demands to be done to the record.

    Attributes:
        epoch: in which it makes sense; None: in each.
        make: it may be tried late, and again, so the step is made anew each time, by this, of these arguments.
    """

    epoch: int | None
    make: Callable[..., Step]
    arguments: tuple[Any, ...]

    def step(self) -> Step:
        return self.make(*self.arguments)


class Link:
    """One breaker's tie to its circuit.

    Callers of the breaker use `prepare`, `note`, `wake`, `request_opening`, `follow_anew` and `reset_for_all`. The
    talker's thread uses the rest. The machine's lock guards which of several callers asks for a lease.

    Attributes:
        known: the record that the breaker follows; None: there is none.
        fresh: it follows none yet.
    """

    __slots__ = (
        "__weakref__",
        "_ask_after",
        "_ask_pause_s",
        "_asked",
        "_breaker",
        "_mark",
        "_period",
        "_polite",
        "_rejected",
        "_sum",
        "fresh",
        "known",
        "talker",
    )

    def __init__(self, breaker: CircuitBreaker, talker: Talker) -> None:
        self._breaker = weakref.ref(breaker)
        self.talker = talker
        self._sum = self._rejected = 0
        self._forget()

    def _forget(self) -> None:
        self.follow_anew()
        self._polite = False  # its last probe failed: next time the others ask first
        self._asked: Ask | None = None  # the one that is under way
        self._ask_after = -inf
        self._ask_pause_s = ASK_AGAIN_S
        self._period: Period | None = None  # the CLOSED one whose results were reported last
        self._mark: Answers = NONE  # what was reported of it

    @property
    def breaker(self) -> CircuitBreaker | None:
        """The breaker, if anybody has it still."""
        return self._breaker()

    @property
    def alone(self) -> bool:
        """Whether nothing can be learnt from the store now."""
        breaker = self._breaker()
        return self.talker.away or (breaker is not None and self.talker.has_lost(breaker.name))

    # For callers

    def prepare(self, now: float, inside: tuple[Probe, ...]) -> float:
        """Learn what a call has to know before it is admitted, which may wait; return the time on the breaker's clock.

        Args:
            now: that time before.
            inside: the probes that the call is made inside of.
        """
        breaker = self._breaker()
        if breaker is None:
            return now
        machine = machine_of(breaker)
        waited_s = 0.0
        if not machine.joined:
            began = time.monotonic()
            if self.talker.join(self):
                machine.join(True)
                if not self.talker.works():  # a fork has ended the thread meanwhile
                    machine.join(False)
                now, waited_s = breaker._clock(), time.monotonic() - began
        period = machine.look(now)
        if isinstance(period, HalfOpenForAll) and not period.leases:
            self.talker.notice()
            rides = any(probe.issuer is period and not probe.is_overdue(machine.config, now) for probe in inside)
            ask = None if rides or self.alone else self._begin_to_ask(machine, period, now)
            if ask is not None:
                self.talker.ask(partial(self._ask, ask), waited_s)
                now = breaker._clock()
        return now

    def may_ask(self, period: HalfOpenForAll, now: float) -> bool:
        """Tell whether a caller would ask for a lease now."""
        talker, asked = self.talker, self._asked
        lasts_s = ASK_LASTS_INTERVALS * talker.interval_s + talker.timeout_s
        if asked is not None and now - asked.since <= lasts_s:
            return False
        polite_s = min(POLITE_INTERVALS * talker.interval_s, period.open_s) if self._polite else 0.0
        return now >= max(self._ask_after, period.since + polite_s)

    def _begin_to_ask(self, machine: SharedMachine, period: HalfOpenForAll, now: float) -> Ask | None:
        """Return the ask that the caller is to make; None: somebody else asks, or it is too early.

        An interrupt may land before the ask is handed over, or while it is made. So one that takes too long counts as
        lost, as an overdue probe does.
        """
        before, ask = self._asked, Ask(period, now)
        begins = self.may_ask(period, now)
        with machine.lock:
            begins = begins and self._asked is before
            if begins:
                self._asked = ask
        return ask if begins else None

    def note(self, answer: Answer) -> None:
        """Let the store know how a probe ended."""
        breaker = self._breaker()
        if breaker is None:
            return
        if answer.reason is not None:
            self._polite = True
        self._ask_after, self._ask_pause_s = -inf, ASK_AGAIN_S
        self.talker.request(partial(self.talker.send, breaker.name, answer))

    def wake(self) -> None:
        """Let the talker look at what is to be sent."""
        self.talker.request(partial(self.talker.activate, self))

    def request_opening(self, ends_at: float) -> None:
        """Let the circuit stay open, for all members, until the breaker's clock says so."""
        breaker, known = self._breaker(), self.known
        if breaker is not None and known is not None:
            demand = Demand(known.epoch, _open_until, (known.epoch, ends_at, breaker._clock))
            self.talker.request(partial(self.talker.want, self, breaker.name, demand))

    def reset_for_all(self) -> None:
        """Close the circuit for all members."""
        breaker = self._breaker()
        talker = self.talker
        if breaker is not None:
            demand = Demand(None, _reset, (talker.name, talker.clock(), talker.clock))
            talker.request(partial(talker.want, self, breaker.name, demand))

    def follow_anew(self) -> None:
        """Follow no record until the next one is read: the breaker has gone its own way."""
        self.known: Record | None = None
        self.fresh = True

    def snapshot(self, period: Period) -> SharedSnapshot:
        """Return what is known of the circuit in all processes; `period` is the breaker's."""
        breaker, talker, record = self._breaker(), self.talker, self.known
        circuit = None if breaker is None else talker.circuit(breaker.name)
        now = talker.clock()
        forced = breaker is not None and record is not None and record.mode is machine_of(breaker).mode is not AUTO
        for_all = isinstance(period, OpenForAll | HalfOpenForAll) or (forced and not period.admits)
        return SharedSnapshot(
            link="away" if self.alone or talker.hangs() else "new" if self.fresh else "joined",
            open_for=None if period.admits else "all" if for_all else "process",
            epoch=epoch_of(record),
            since_s=None if record is None or circuit is None else circuit.age_s(record, now),
            reason="" if record is None else record.reason,
            by="" if record is None else record.by,
            probes_out=0 if circuit is None else circuit.probes_out(),
            heard_s=None if talker.heard_at is None else now - talker.heard_at,
        )

    def after_fork_in_child(self) -> None:
        """Begin as another member; what is counted up to now is the parent's to report."""
        known, fresh = self.known, self.fresh
        self._forget()
        self.known, self.fresh = known, fresh
        self.collect()

    # For the talker

    def collect(self) -> Grown:
        """Return what has been counted since the last time."""
        breaker = self._breaker()
        if breaker is None:
            return Grown()
        machine = machine_of(breaker)
        with machine.lock:
            period, totals, mode = machine.period, machine.totals, machine.own_mode
            successes, failures, slow = period.successes, period.failures, period.slow
            streak, rejected = period.streak, totals.rejected
            calls = totals.successes + totals.failures + totals.ignored + totals.shadow_rejected + rejected
        calls += successes + failures
        called, self._sum = calls != self._sum, calls
        newly_rejected, self._rejected = max(0, rejected - self._rejected), rejected
        ended, before = self._period, self._mark
        if mode is not AUTO:
            self._period = None
            return Grown(called=called)
        answers = NONE
        if isinstance(period, Closed):
            counted = Answers(successes, failures, slow)
            answers = counted.minus(before) if period is ended else counted
            self._period, self._mark = period, counted
        else:
            self._period = None
        if ended is not None and ended is not period:
            answers = answers.plus(Answers(ended.successes, ended.failures, ended.slow).minus(before))
        opened = isinstance(period, OpenByItself) or type(period) is HalfOpen
        return Grown(answers, newly_rejected, streak, opened, called)

    def trouble(self) -> int:
        """Return how many failures in a row there are that have not ended, or -1: a call has succeeded meanwhile."""
        breaker = self._breaker()
        if breaker is None:
            return 0
        machine = machine_of(breaker)
        period = machine.period
        if machine.own_mode is not AUTO:
            return 0
        before = self._mark.successes if period is self._period else 0
        if isinstance(period, Closed) and period.successes > before:
            return -1
        return period.streak + isinstance(period, OpenByItself)

    def follow(self, record: Record | None, store_now: float, pending: bool) -> Demand | None:
        """Enter the period that the record asks for, if it does; return what must be done to the record, if anything.

        Args:
            record: what the store has.
            store_now: the store's time then.
            pending: the end of a probe of this process is still to be sent.
        """
        breaker = self._breaker()
        if breaker is None:
            return None
        machine, talker = machine_of(breaker), self.talker
        for _ in repeat(None):
            period, now = machine.period, breaker._clock()
            if machine.own_mode is not AUTO:
                self.known, self.fresh = None, True
                return None
            known = None if self.fresh else self.known
            closed_alone = known is not None and known.open and isinstance(period, Closed)
            what = verdict(known, record, closed_alone, store_now)
            if what is Verdict.RESTORE and known is not None:
                return Demand(known.epoch, changes.written_back, (known,))
            if what is Verdict.CLOSE and known is not None:
                arguments = known.epoch, "probes succeeded", talker.name
                return Demand(known.epoch, changes.closed_in_absence, arguments)
            following = None
            if record is not None and (what is Verdict.FOLLOW or (record.open and not pending)):
                following = self._period_of(record, machine, period, now, store_now)
            if record is None or following is None:
                break
            if machine.enter_for_all(period, following, record.reason, record.mode):
                self.known, self.fresh = record, False
                self._period = None  # what it has counted belongs to an epoch that is over
                self._ask_after, self._ask_pause_s = -inf, ASK_AGAIN_S
                if isinstance(following, Open):
                    breaker._keep()
                return _longer(record, breaker, period, now, store_now)
        self.known, self.fresh = record, False
        return None

    def _period_of(
        self, record: Record, machine: SharedMachine, period: Period, now: float, store_now: float
    ) -> Period | None:
        """Return the period that a record asks for; None: the present one will do."""
        if record.mode is not AUTO:
            return None if machine.mode is record.mode else machine.period_of(record.mode, now)
        if not record.open:
            follows = isinstance(period, OpenForAll | HalfOpenForAll) or machine.mode is not AUTO or not self.fresh
            return machine.period_of(AUTO, now) if follows else None
        remaining_s = record.remaining_s(store_now)
        if isinstance(period, OpenForAll) and period.epoch == record.epoch:
            period.adjust(machine, now, remaining_s, record.rules.open_s)
            return None
        if (
            isinstance(period, HalfOpenForAll)
            and period.epoch == record.epoch
            and (record.rules.open_s <= period.open_s or remaining_s <= 0)
        ):
            period.open_s = record.rules.open_s  # that much has been waited out
            return None
        return OpenForAll(self, record, period, now, remaining_s)

    def _ask(self, ask: Ask) -> None:
        """Ask the store for a lease, unless the ask counts as lost, and another one has begun."""
        breaker = self._breaker()
        if breaker is None or self._asked is not ask:
            return
        machine, talker, period = machine_of(breaker), self.talker, ask.period
        token, began, granted = new_token(), talker.clock(), False
        try:
            if machine.period is period:
                self._polite = False
                step = changes.leased(period.epoch, period.open_s, token, talker.lease_s)
                record, now = talker.change(breaker.name, step)
                granted = record is not None and record.epoch == period.epoch and record.holds(token, now)
                if granted:
                    period.add_lease(machine, Leased(token, breaker._clock()))
        finally:
            if not granted:
                pause_s = max(self._ask_pause_s, ASK_AGAIN_TIMES * (talker.clock() - began))
                self._ask_pause_s = min(2 * self._ask_pause_s, talker.interval_s)
                self._ask_after = breaker._clock() + pause_s
            with machine.lock:
                if self._asked is ask:
                    self._asked = None


def _longer(record: Record, breaker: CircuitBreaker, former: Period, now: float, store_now: float) -> Demand | None:
    """Return how all members stay open for as long as a server has asked this one for, if that is longer."""
    if not record.open or not isinstance(former, OpenByItself) or not former.is_longer(breaker.config):
        return None
    if former.ends_at - now <= record.remaining_s(store_now):
        return None
    return Demand(record.epoch, _open_until, (record.epoch, former.ends_at, breaker._clock))


def _open_until(epoch: int, ends_at: float, clock: Callable[[], float]) -> Step:
    return changes.lengthened(epoch, ends_at - clock())


def _reset(by: str, asked_at: float, clock: Callable[[], float]) -> Step:
    return changes.reset(by, clock() - asked_at)


def machine_of(breaker: CircuitBreaker) -> SharedMachine:
    """Return the machine of a breaker that has a store."""
    return cast("SharedMachine", breaker._machine)
