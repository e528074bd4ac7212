"""Evidence: what opens a circuit for all while it is closed. Counting and comparing only; no store, no clock, no lock.

Each member adds its answers to totals in the store, which only grow, and reads them. A process with a broken network
must open nothing but itself, so whatever opens the circuit for all takes what two members have seen:

- No member has reported a success for two intervals, and two members have opened by themselves, or the failures of two
  or more add up to `failure_threshold`. If there are five or more, less than half an interval is enough: where as many
  fail and nobody succeeds, it is no coincidence. Each member tells its failures beside the total of successes that it
  has read. Once that total moves, what was told beside it is void, and each tells again what still holds. Beside what
  all have told, the store keeps what each has told: so a process knows what has arrived, whatever became of an answer,
  and whatever the store has lost, and never reports it twice.
- The share of failures, or of slow calls, over the window reaches its threshold: in all answers, in those of the member
  that judges, and in those of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from .._breaker.config import CircuitBreakerConfig
from .protocol import COUNTED
from .record import LARGEST_EPOCH, Unreadable

WITNESSES: Final = 2  # processes that it takes to open a circuit for all
QUIET_INTERVALS: Final = 2  # without a success, before that many may do so
MANY_WITNESSES: Final = 5
QUIET_INTERVALS_OF_MANY: Final = 0.4  # before those may do so
SHORTEST: Final = 0.95  # of an interval, which is jittered
MARKS: Final = 30  # kept of a window


class Answers(NamedTuple):
    """Numbers of answers; the slow ones are among the others."""

    successes: int = 0
    failures: int = 0
    slow: int = 0

    @property
    def calls(self) -> int:
        return self.successes + self.failures

    def plus(self, other: Answers) -> Answers:
        if other == NONE:
            return self
        if self == NONE:
            return other
        return Answers(self.successes + other.successes, self.failures + other.failures, self.slow + other.slow)

    def minus(self, other: Answers) -> Answers:
        return Answers(self.successes - other.successes, self.failures - other.failures, self.slow - other.slow)


class Told(NamedTuple):
    """What members have told beside one total of successes."""

    failures: int = 0  # since the last success of whoever told them
    members: int = 0  # that have told any
    opened: int = 0  # that have opened by themselves

    def minus(self, other: Told) -> Told:
        """Return what is here and not there."""
        return Told(*(max(0, mine - theirs) for mine, theirs in zip(self, other, strict=True)))

    def as_number(self) -> int:
        """Return what one member has told as one number."""
        return 2 * self.failures + self.opened

    @classmethod
    def of_number(cls, number: int) -> Told:
        return cls(number // 2, int(number > 1), number % 2)


NONE: Final = Answers()
NOTHING_TOLD: Final = Told()


class Mark(NamedTuple):
    """The totals of one time: of all members, and of this one."""

    at: float
    all: Answers
    own: Answers


class Evidence:
    """What one member knows of the answers of one epoch.

    For each exchange call `report`, then, if the store has answered, `seen`, then `judge`. Times are the member's own,
    in seconds.

    Args:
        epoch: that one.
        interval_s: between two exchanges.
        who: the member's name, short, of ASCII characters. It stays the same for as long as the process lives.

    Attributes:
        all: the totals of all members, as read last.
        rejected: the total of rejected calls, as read last.
        told: what all members have told beside the present total of successes.
    """

    __slots__ = (
        "_arrived",
        "_epoch",
        "_forgiven",
        "_interval_s",
        "_marks",
        "_mine",
        "_own",
        "_quiet_since",
        "_read",
        "_streaks",
        "_void",
        "_who",
        "all",
        "rejected",
        "told",
    )

    def __init__(self, epoch: int, interval_s: float, who: str) -> None:
        self.all: Answers = NONE
        self.rejected = 0
        self.told: Told = NOTHING_TOLD
        self._epoch = epoch
        self._interval_s = interval_s
        self._who = who
        self._own: Answers = NONE
        self._mine: Told = NOTHING_TOLD  # what this member has to tell beside the present total of successes
        self._arrived: Told | None = None  # what the store has of that; None: that is to be read first
        self._read = False
        self._void: tuple[str, ...] = ()  # names of totals that nobody needs any more
        self._streaks: tuple[tuple[float, int], ...] = ()  # when the streak was how long, of the last two intervals
        self._forgiven = 0  # failures of the streak that are older than the last success of another member
        self._quiet_since = 0.0
        self._marks: list[Mark] | None = None  # of the window, the oldest first

    @property
    def _quiet_s(self) -> float:
        """Return for how long nobody must have succeeded before two members may open the circuit."""
        return QUIET_INTERVALS * SHORTEST * self._interval_s

    # Telling

    def report(self, now: float, answers: Answers, rejected: int, streak: int, opened: bool) -> dict[str, int]:
        """Return what to add to which total.

        Args:
            now: the member's time.
            answers: those of this member since the last report.
            rejected: calls rejected since then.
            streak: failures of this member since its own last success.
            opened: whether it has opened by itself.
        """
        self._own = self._own.plus(answers)
        before = () if answers.successes else self._streaks
        old = [mark for mark in before if now - mark[0] >= self._quiet_s]
        self._streaks = (*old[-1:], *before[len(old) :], (now, streak))
        added = [*answers, rejected]
        if self._read:
            part = max(self._mine.failures, streak - self._forgiven)
            self._mine = Told(part, int(part > 0), max(self._mine.opened, opened))
            if self._arrived is not None:
                new = self._mine.minus(self._arrived)
                added += [new.as_number(), *new]
                self._arrived = None
        return {name: number for name, number in zip(self.names(), added, strict=False) if number}

    def names(self) -> tuple[str, ...]:
        """Return the names of the totals to read. That of this member comes before those that it adds to.

        Where a report arrives in part, what is missing is then not told, rather than told twice.
        """
        of_all = tuple(f"{self._epoch}.{kind}" for kind in COUNTED)
        return of_all + self._names_told() if self._read else of_all

    def void(self) -> tuple[str, ...]:
        """Return the names of totals to delete."""
        void, self._void = self._void, ()
        return void

    def _names_told(self) -> tuple[str, ...]:
        beside = f"{self._epoch}.{self.all.successes}"
        return tuple(f"{beside}.{kind}" for kind in (self._who, "failures", "members", "opened"))

    # Looking

    def seen(self, now: float, totals: Sequence[int | None]) -> None:
        """Take in the totals that `names` asked for.

        Raises:
            Unreadable: they are no totals.
        """
        successes, failures, slow, rejected, *beside = map(_total, totals)
        arrived, *of_all = beside or [0]
        latest, told = Answers(successes, failures, slow), Told(*of_all)
        if self._read and latest.successes == self.all.successes:
            self._arrived = Told.of_number(arrived)
            self._mine = Told(*map(max, self._mine, self._arrived))
        else:
            grown = (
                self._read and latest.successes > self.all.successes
            )  # else what others report beside it may be there
            if grown and any(self._mine):
                self._void += self._names_told()
            self._quiet_since = now
            # A success may be reported an interval late, so what failed in the last two may have come after it.
            self._forgiven = next((streak for at, streak in self._streaks if now - at >= self._quiet_s), 0)
            self._mine = told = NOTHING_TOLD
            self._arrived = NOTHING_TOLD if grown else None
        if min(latest.minus(self.all)) < 0:
            self._marks = None  # the store has lost what it knew
        self.all = self._own if self._own == latest else latest  # a lone member keeps them once
        self.rejected, self.told, self._read = rejected, told, True

    def forget_window(self) -> None:
        """Begin the window anew: nobody has looked for long."""
        self._marks = None

    def judge(self, now: float, config: CircuitBreakerConfig) -> str | None:
        """Return why the circuit must open for all, or None. Only a member that has seen failures may say so."""
        reason = self._judge_rates(now, config) if _has_rates(config) else None
        if reason is None and (self._mine.failures or self._mine.opened):
            reason = self._judge_quiet(now, config)
        return reason

    def _judge_quiet(self, now: float, config: CircuitBreakerConfig) -> str | None:
        quiet_s = now - self._quiet_since
        if quiet_s < QUIET_INTERVALS_OF_MANY * self._interval_s:
            return None
        witnesses = WITNESSES if quiet_s >= self._quiet_s else MANY_WITNESSES
        told, threshold = self.told, config.failure_threshold
        if told.opened >= witnesses:
            return f"{told.opened} processes opened by themselves"
        if threshold is not None and told.members >= witnesses and told.failures >= threshold:
            return f"{told.failures} failures in a row in {told.members} processes (threshold {threshold})"
        return None

    def _judge_rates(self, now: float, config: CircuitBreakerConfig) -> str | None:
        latest, start = self._mark(now, config)
        grown, own = latest.all.minus(start.all), latest.own.minus(start.own)
        parts = (grown, own, grown.minus(own))
        if grown.calls < config._required_calls or not own.failures + own.slow:
            return None

        def reached(threshold: float | None, bad: Callable[[Answers], int]) -> bool:
            return threshold is not None and all(
                part.calls > 0 and bad(part) >= threshold * part.calls for part in parts
            )

        if reached(config.error_rate_threshold, lambda part: part.failures):
            return f"{grown.failures} of {grown.calls} calls failed (threshold {config.error_rate_threshold:.3g})"
        if reached(config.slow_call_rate_threshold, lambda part: part.slow):
            return f"{grown.slow} of {grown.calls} calls were slow (threshold {config.slow_call_rate_threshold:.3g})"
        return None

    def _mark(self, now: float, config: CircuitBreakerConfig) -> tuple[Mark, Mark]:
        """Note the present totals; return them, and those at the start of the window."""
        window, least_s = config.error_rate_window, self._quiet_s
        latest = Mark(now, self.all, self._own)
        if self._marks is None:
            self._marks = [latest]
        marks, newest = self._marks, self._marks[-1]
        if isinstance(window, timedelta):
            length_s = max(window.total_seconds(), QUIET_INTERVALS * self._interval_s)
            apart = now - newest.at >= length_s / MARKS
            while len(marks) > 1 and now - marks[0].at > length_s:
                marks.pop(0)
        else:
            apart = latest.all.calls - newest.all.calls >= window / MARKS
            while len(marks) > 1 and latest.all.calls - marks[1].all.calls >= window and now - marks[1].at >= least_s:
                marks.pop(0)
        if apart:
            marks.append(latest)
        return latest, marks[0]


def _has_rates(config: CircuitBreakerConfig) -> bool:
    return config.error_rate_threshold is not None or config.slow_call_rate_threshold is not None


def _total(value: int | None) -> int:
    if value is None:
        return 0
    if not 0 <= value <= LARGEST_EPOCH:
        raise Unreadable(f"a total is {value}")
    return value
