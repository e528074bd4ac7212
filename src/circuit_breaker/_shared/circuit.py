"""One circuit as one process knows it: however many breakers it has there, they report together. No I/O of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING, Any, Final

from .._breaker.config import CircuitBreakerConfig
from .._breaker.machine import OPEN_FOR_UNTIL_ASKED_S
from .._common import checks
from .._common.events import ERROR, log
from . import changes
from .evidence import NONE, Evidence
from .link import Demand, Link, machine_of
from .protocol import Found, Report
from .record import AUTO, Record, Rules, Step, epoch_of, read
from .states import Answer, HalfOpenForAll, OpenByItself, OpenForAll

if TYPE_CHECKING:
    from .._breaker.breaker import CircuitBreaker
    from .machine import SharedMachine

ANSWERS_KEPT: Final = 100
DEMANDS_KEPT: Final = 10
HURRY_INTERVALS: Final = 2  # after the last failure
SILENT_INTERVALS: Final = 10  # after which a breaker that nobody calls costs nothing
AWAY_AFTER_INTERVALS: Final = 3
LONGEST_PAUSE_INTERVALS: Final = 10  # before something that failed is tried again
_DEFAULT_CONFIG: Final = CircuitBreakerConfig()


class Circuit:
    """What is known of one circuit, and what is to be done about it. For the talker's thread alone.

    Args:
        by: this process, as people know it.
        who: this process, as no other is called.

    Attributes:
        links: of the breakers of this name.
        record: as it was read last.
        active: it takes part in exchanges, since somebody has called a breaker not long ago.
        lost: why nothing can be learnt of this circuit, though the store answers; None: it can.
        failing_since: when a change of the record failed first, and none has succeeded since; None: the last one did.
    """

    __slots__ = (
        "_answers",
        "_by",
        "_called_at",
        "_clock",
        "_demands",
        "_evidence",
        "_failed_at",
        "_hurries_until",
        "_interval_s",
        "_lease_s",
        "_read_at",
        "_store_now",
        "_trouble",
        "_void",
        "_who",
        "active",
        "failing_since",
        "links",
        "lost",
        "name",
        "record",
    )

    def __init__(
        self, name: str, by: str, who: str, clock: Callable[[], float], interval_s: float, lease_s: float
    ) -> None:
        self.name = name
        self.links: tuple[Link, ...] = ()
        self.record: Record | None = None
        self.lost: str | None = None
        self.active = False
        self.failing_since: float | None = None
        self._failed_at = 0.0
        self._called_at = 0.0
        self._by = by
        self._who = who
        self._clock = clock
        self._interval_s = interval_s
        self._lease_s = lease_s
        self._evidence = Evidence(0, interval_s, who)
        self._void: tuple[str, ...] = ()  # totals of an epoch that is over
        self._answers: tuple[Answer, ...] = ()  # ends of probes that are still to be sent
        self._demands: tuple[Demand, ...] = ()  # of the breakers, that are still to be met
        self._trouble = 0  # what was seen of it last
        self._hurries_until = 0.0
        self._store_now = 0.0  # when that was, in the store's time
        self._read_at = 0.0  # and on the talker's clock

    # Whether it takes part

    @property
    def pending(self) -> bool:
        """Whether the store is still to be told something."""
        return bool(self._answers or self._demands)

    def wake(self, now: float) -> None:
        """Take part: somebody calls."""
        if not self.active:
            self._evidence.forget_window()
        self.active, self._called_at = True, now

    def rest_if_silent(self, now: float) -> None:
        """Take no part any more if nobody calls; the next call is a first one."""
        if now - self._called_at > SILENT_INTERVALS * self._interval_s:
            self.active = False
            for breaker in self.breakers():
                machine_of(breaker).join(False)

    def fails(self, now: float) -> bool:
        """Note that a change of the record failed; tell whether that has been so for too long."""
        self.failing_since = now if self.failing_since is None else self.failing_since
        self._failed_at = now
        return now - self.failing_since >= AWAY_AFTER_INTERVALS * self._interval_s

    def may_be_found(self, now: float) -> bool:
        """Tell whether it can be shared again: no change has failed for long."""
        return self.failing_since is None or now - self._failed_at > LONGEST_PAUSE_INTERVALS * self._interval_s

    def hurries(self, now: float) -> bool:
        """Tell whether to exchange before it is time: calls fail here, and none has succeeded since the last report."""
        if not self.active or (self.record is not None and (self.record.open or self.record.mode is not AUTO)):
            return False
        troubles = [link.trouble() for link in self.links]
        trouble = 0 if -1 in troubles else sum(troubles)
        if trouble > self._trouble:
            self._hurries_until = now + HURRY_INTERVALS * self._interval_s
        self._trouble = trouble
        return trouble > 0 and now < self._hurries_until

    # An exchange

    def report(self, now: float) -> Report:
        """Return what there is to say since the last time."""
        self.links = tuple(link for link in self.links if link.breaker is not None)
        grown = [link.collect() for link in self.links]
        if any(each.called for each in grown) or self._probes() or (self.links and self.pending):
            self._called_at = now
        answers = NONE
        for each in grown:
            answers = answers.plus(each.answers)
        evidence = self._evidence
        added = evidence.report(
            now,
            answers,
            sum(each.rejected for each in grown),
            sum(each.streak for each in grown),
            any(each.opened for each in grown),
        )
        void, self._void = self._void, ()
        return Report(self.name, added, evidence.names(), evidence.void() + void)

    def receive(self, found: Found, store_now: float, now: float) -> None:
        """Take in what the store has: follow the record if it can be read, whatever the totals are.

        Raises:
            Exception: something cannot be read.
        """
        if found.error is not None and found.record is None:
            raise found.error
        record, before = read(found.record), epoch_of(self.record)
        self.take(record, store_now)
        if found.error is not None:
            raise found.error
        if epoch_of(record) == before:
            self._evidence.seen(now, found.totals)

    def take(self, record: Record | None, store_now: float) -> None:
        """Follow the record that stands."""
        if epoch_of(record) != epoch_of(self.record):
            self._void += self._evidence.names()
            self._evidence = Evidence(epoch_of(record), self._interval_s, self._who)
            self._answers = tuple(answer for answer in self._answers if answer.epoch == epoch_of(record))
            self._demands = tuple(demand for demand in self._demands if demand.epoch in (None, epoch_of(record)))
        self.record, self._store_now, self._read_at = record, store_now, self._clock()
        for link in self.links:
            demand = link.follow(record, store_now, bool(self._answers))
            if demand is not None:
                self.want(demand)

    def want(self, demand: Demand) -> None:
        """Note what a breaker wants to be done to the record."""
        if demand not in self._demands:
            self._demands = (*self._demands[1 - DEMANDS_KEPT :], demand)

    # What is to be done to the record. After each step `take` is called; if one cannot be done, the rest is left.
    # Demands and ends of probes are kept until they are done; what else is still needed, the next exchange shows.

    def steps(self, now: float) -> Iterator[Step]:
        """Give what follows from an exchange."""
        yield from self.urgent_steps()
        opening = self._opening(now)
        if opening is not None:
            yield opening
        yield from self._lease_steps()

    def urgent_steps(self) -> Iterator[Step]:
        """Give what cannot wait for an exchange."""
        while self._demands:
            demand = self._demands[0]
            yield demand.step()
            self._demands = tuple(other for other in self._demands if other is not demand)
        for answer in self._answers:
            if answer.ready:
                yield self._answered(answer)
                self._answers = tuple(other for other in self._answers if other is not answer)

    def last_steps(self) -> Iterator[Step]:
        """Give what must not be lost when the process ends: results of probes, and leases that others may have."""
        yield from self.urgent_steps()
        for _, machine, period in self._half_open():
            tokens = period.tokens_out(machine, -inf)
            yield from (changes.given_back(period.epoch, token) for token in tokens)

    def add(self, answer: Answer) -> None:
        """Note how a probe ended."""
        self._answers = (*self._answers[-ANSWERS_KEPT:], answer)

    def _answered(self, answer: Answer) -> Step:
        if answer.ignored:
            return changes.given_back(answer.epoch, answer.token)
        if answer.reason is None:
            return changes.succeeded(answer.epoch, answer.token, self._by)
        config = self.config()
        openings = 0 if self.record is None else self.record.openings + 1
        open_s = self._open_for_s(config, openings) if answer.open_s is None else answer.open_s
        return changes.failed(answer.epoch, answer.token, _rules(config, open_s), answer.reason, self._by)

    def _opening(self, now: float) -> Step | None:
        """Return how the circuit opens for all, if there is enough evidence."""
        breakers = [breaker for breaker in self.breakers() if machine_of(breaker).own_mode is AUTO]
        if not breakers or (self.record is not None and (self.record.open or self.record.mode is not AUTO)):
            return None
        by_itself = [breaker for breaker in breakers if not machine_of(breaker).period.admits]
        breaker = (by_itself or breakers)[0]
        config = breaker.config
        reason = self._evidence.judge(now, config)
        if reason is None:
            return None
        period = machine_of(breaker).period
        if isinstance(period, OpenByItself):
            open_s = max(0.0, period.ends_at - breaker._clock())
        else:
            open_s = 0.0 if by_itself else self._open_for_s(config, 0)
        return changes.opened(epoch_of(self.record), _rules(config, open_s), reason, self._by)

    def _lease_steps(self) -> Iterator[Step]:
        for breaker, machine, period in self._half_open():
            now = breaker._clock()
            for lease in period.take_leases(machine, now - self._interval_s):
                yield changes.given_back(period.epoch, lease.token)
            tokens = period.tokens_out(machine, now)
            if any(self._lease_left_s(token) < self._lease_s / 2 for token in tokens):
                yield changes.renewed(period.epoch, tokens, self._lease_s)

    def _lease_left_s(self, token: str) -> float:
        leases = () if self.record is None else self.record.leases
        return next((lease.until - self._store_now for lease in leases if lease.token == token), 0.0)

    # The breakers

    def config(self) -> CircuitBreakerConfig:
        """Return the configuration of the first breaker."""
        return next((breaker.config for breaker in self.breakers()), _DEFAULT_CONFIG)

    def age_s(self, record: Record, now: float) -> float:
        """Return for how long a record has stood."""
        return max(0.0, self._store_now - record.since) + now - self._read_at

    def probes_out(self) -> int:
        """Return how many probes were under way, in all processes, when the record was read last."""
        return 0 if self.record is None else self.record.probes_out(self._store_now)

    def own_state(self) -> str:
        """Return what the circuit is in this process, as `Member.circuits` says it."""
        states = ["closed"]
        for machine in map(machine_of, self.breakers()):
            period = machine.period
            if machine.own_mode is not AUTO:
                states.append(machine.own_mode.value)
            elif isinstance(period, OpenForAll | HalfOpenForAll):
                states.append("for_all")
            elif not period.admits and machine.mode is AUTO:
                states.append(period.state.value)
        return states[-1]

    def breakers(self) -> list[CircuitBreaker]:
        return [breaker for link in self.links if (breaker := link.breaker) is not None]

    def _half_open(self) -> Iterator[tuple[CircuitBreaker, SharedMachine, HalfOpenForAll]]:
        for breaker in self.breakers():
            machine = machine_of(breaker)
            period = machine.period
            if isinstance(period, HalfOpenForAll):
                yield breaker, machine, period

    def _probes(self) -> bool:
        return any(period.tokens_out(machine, breaker._clock()) for breaker, machine, period in self._half_open())

    def _open_for_s(self, config: CircuitBreakerConfig, openings: int) -> float:
        """Ask the configuration, which may be a function of the caller, for how long the circuit opens."""
        wait: Any = config.reset_timeout_s
        if not callable(wait):
            return float(wait)
        try:
            return checks.seconds("reset_timeout_s", wait(openings), minimum=0, infinite=True)
        except Exception as error:
            log(ERROR, "circuit %r: reset_timeout_s raised or gave no seconds", self.name, error=error)
            return OPEN_FOR_UNTIL_ASKED_S


def _rules(config: CircuitBreakerConfig, open_s: float) -> Rules:
    return Rules(open_s, config.half_open_max_calls, config.success_threshold, config.half_open_failure_threshold)
