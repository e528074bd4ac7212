"""What a setting would have done, in figures: for the outages of a log, and for those that are made to try it.

A call is bad if it failed; where slow calls are to count, also if it was slow. A good call is a success that is not
bad.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import compress
from math import inf
from operator import attrgetter
from statistics import median
from typing import Final, NamedTuple

from .._breaker.config import CircuitBreakerConfig
from .._common.words import CircuitState
from .calls import FAILURE, SUCCESS, Circuit
from .outages import Outage, gone_wrong
from .replay import Change, Course, replay

CLOSED: Final = CircuitState.CLOSED
_TIME: Final = attrgetter("at")


class Setting(NamedTuple):
    """A configuration, and what it is called in a report."""

    name: str
    config: CircuitBreakerConfig


class Alarm(NamedTuple):
    """A circuit opened at a time at which nothing was wrong."""

    at: float
    reason: str


class Spread(NamedTuple):
    """The middle and the worst of several times, in seconds."""

    median: float
    worst: float


@dataclass(frozen=True)
class Fate:
    """What became of one outage.

    Attributes:
        worth: whether opening for it pays.
        circuits: how many circuits had calls in it.
        opened_after_s: for each circuit that opened, the seconds from the first bad call; 0 if it was open by then.
        closed_after_s: for each of these, the seconds from the last bad call until it was closed again; 0 if it was
            closed by then, infinite if it did not close before the log ended.
        bad: the bad calls of the outage.
        let_through: those that no circuit rejected.
    """

    worth: bool
    circuits: int
    opened_after_s: list[float]
    closed_after_s: list[float]
    bad: int
    let_through: int

    @property
    def opened(self) -> bool:
        """Whether at least half of the circuits opened."""
        return bool(self.opened_after_s) and 2 * len(self.opened_after_s) >= self.circuits


@dataclass(frozen=True)
class Figures:
    """What a setting would have done.

    Attributes:
        setting: which one.
        courses: the changes and rejected calls of each circuit.
        fates: what became of each outage.
        good_rejected: good calls that were rejected, at any time.
        waiting_saved_s: how long the rejected bad calls had kept their callers.
        stuck: the most callers that were inside bad calls at the same time.
        false_alarms: openings outside of outages, in the order of time.
        late: openings after an outage, while the window still held calls of it.
    """

    setting: Setting
    courses: list[Course]
    fates: list[Fate]
    good_rejected: int
    waiting_saved_s: float
    stuck: int
    false_alarms: list[Alarm]
    late: list[Alarm]

    def _of(self, worth: bool) -> list[Fate]:
        return [fate for fate in self.fates if fate.worth == worth]

    @property
    def worth(self) -> int:
        """How many outages are worth opening for."""
        return len(self._of(True))

    @property
    def opened_for(self) -> int:
        """How many of these it opened for."""
        return sum(fate.opened for fate in self._of(True))

    @property
    def mild(self) -> int:
        """How many outages are too mild to open for."""
        return len(self._of(False))

    @property
    def opened_for_mild(self) -> int:
        """How many of these it opened for nevertheless."""
        return sum(fate.opened for fate in self._of(False))

    @property
    def opened_after_s(self) -> Spread | None:
        """The seconds until it opened, over circuits and outages worth it; None if it never did."""
        return _spread([seconds for fate in self._of(True) for seconds in fate.opened_after_s])

    @property
    def closed_after_s(self) -> Spread | None:
        """The seconds from the end of these until it was closed again."""
        return _spread([seconds for fate in self._of(True) for seconds in fate.closed_after_s])

    @property
    def bad(self) -> int:
        """The bad calls of the outages worth it."""
        return sum(fate.bad for fate in self._of(True))

    @property
    def let_through(self) -> int:
        """Those of them that it let through."""
        return sum(fate.let_through for fate in self._of(True))

    @property
    def passed(self) -> bool:
        """Whether it opened for every outage worth it and raised no false alarm."""
        return self.opened_for == self.worth and not self.false_alarms


def _spread(seconds: list[float]) -> Spread | None:
    return Spread(median(seconds), max(seconds)) if seconds else None


class Scene:
    """Circuits, and the outages that settings are judged by.

    Args:
        circuits: at least one.
        outages: in the order of time.
        worth: for each outage, whether opening for it pays.
        slow_s: seconds from which a call is bad though it succeeded; None: only failures are bad.
    """

    def __init__(
        self, circuits: Sequence[Circuit], outages: Sequence[Outage], worth: Sequence[bool], slow_s: float | None
    ) -> None:
        self.circuits = circuits
        self.outages = outages
        self.worth = worth
        # The outcome of each call, where a success that was too slow is a failure.
        self.outcomes = [circuit.calls.outcome for circuit in circuits]
        if slow_s is not None:
            self.outcomes = [_with_slow_failures(circuit, slow_s) for circuit in circuits]

    def replay(self, config: CircuitBreakerConfig) -> list[Course]:
        """Return what each circuit would have done with this configuration."""
        return [replay(circuit, config) for circuit in self.circuits]

    def figures(self, setting: Setting) -> Figures:
        """Return all figures of a setting."""
        courses = self.replay(setting.config)
        false_alarms, late = self._alarms(courses, setting.config)
        return Figures(
            setting,
            courses,
            [self._fate(number, courses) for number in range(len(self.outages))],
            self._rejected(courses, SUCCESS),
            self._waiting_saved(courses),
            self._stuck(courses),
            false_alarms,
            late,
        )

    def stuck_without_a_breaker(self) -> int:
        """Return the most callers that were inside bad calls at the same time."""
        return self._stuck([Course([], []) for _ in self.circuits])

    def cost(self, courses: Sequence[Course], price: float) -> float:
        """Return what the outages cost in good calls rejected, where a bad call let through costs `price` of them."""
        let_through = sum(self._fate(number, courses).let_through for number in range(len(self.outages)))
        return price * let_through + self._rejected(courses, SUCCESS)

    def cost_without_a_breaker(self, price: float) -> float:
        """Return what they cost if nothing is rejected."""
        return self.cost([Course([], []) for _ in self.circuits], price)

    def _fate(self, number: int, courses: Sequence[Course]) -> Fate:
        outage = self.outages[number]
        circuits = bad = let_through = 0
        opened: list[float] = []
        closed: list[float] = []
        for circuit, outcomes, course in zip(self.circuits, self.outcomes, courses, strict=True):
            first, last = circuit.calls.between(outage.begin, outage.end)
            circuits += first < last
            bad += outcomes.count(FAILURE, first, last)
            let_through += outcomes.count(FAILURE, first, last)
            for begin, end in _within(course.rejected, first, last):
                let_through -= outcomes.count(FAILURE, begin, end)
            after_s = _opened_after(course.changes, outage)
            if after_s is not None:
                opened.append(after_s)
                closed.append(_closed_after(course.changes, outage, outage.begin + after_s))
        return Fate(self.worth[number], circuits, opened, closed, bad, let_through)

    def _rejected(self, courses: Sequence[Course], outcome: int) -> int:
        return sum(
            outcomes.count(outcome, begin, end)
            for outcomes, course in zip(self.outcomes, courses, strict=True)
            for begin, end in course.rejected
        )

    def _waiting_saved(self, courses: Sequence[Course]) -> float:
        return sum(
            sum(compress(circuit.calls.took[begin:end], (code == FAILURE for code in outcomes[begin:end])))
            for circuit, outcomes, course in zip(self.circuits, self.outcomes, courses, strict=True)
            for begin, end in course.rejected
        )

    def _stuck(self, courses: Sequence[Course]) -> int:
        begins: list[float] = []
        ends: list[float] = []
        for circuit, outcomes, course in zip(self.circuits, self.outcomes, courses, strict=True):
            left = bytearray(outcomes)
            for begin, end in course.rejected:
                left[begin:end] = bytes(end - begin)  # SUCCESS: nobody is stuck in it
            calls = circuit.calls
            bad = [call for call, code in enumerate(left) if code == FAILURE]
            begins += map(calls.begin.__getitem__, bad)
            ends += [calls.begin[call] + calls.took[call] for call in bad]
        begins.sort()
        ends.sort()
        return max((number + 1 - bisect_right(ends, begin) for number, begin in enumerate(begins)), default=0)

    def _alarms(self, courses: Sequence[Course], config: CircuitBreakerConfig) -> tuple[list[Alarm], list[Alarm]]:
        """Return the openings outside of outages, those whose window still held calls of one apart."""
        false_alarms: list[Alarm] = []
        late: list[Alarm] = []
        begins = [outage.begin for outage in self.outages]
        for circuit, course in zip(self.circuits, courses, strict=True):
            for change in course.changes:
                if change.old_state is not CLOSED:
                    continue
                number = bisect_right(begins, change.at) - 1
                settled = self.outages[number].settled if number >= 0 else -inf
                if change.at > settled:
                    is_late = number >= 0 and _is_late(circuit, settled, change.at, config)
                    (late if is_late else false_alarms).append(Alarm(change.at, change.reason))
        return sorted(false_alarms), sorted(late)


def _is_late(circuit: Circuit, settled: float, at: float, config: CircuitBreakerConfig) -> bool:
    """Return whether the window of an opening held calls from before a moment, and no streak after it opened it."""
    window, threshold = config.error_rate_window, config.failure_threshold
    first, last = bisect_right(circuit.ends, settled), bisect_right(circuit.ends, at)
    if at - settled > window.total_seconds() if isinstance(window, timedelta) else last - first > window:
        return False
    newest = range(last - 1, max(first, last - (threshold or 1)) - 1, -1)
    streak = all(circuit.calls.outcome[circuit.order[rank]] == FAILURE for rank in newest)
    return threshold is None or len(newest) < threshold or not streak


def _with_slow_failures(circuit: Circuit, slow_s: float) -> bytearray:
    outcomes = bytearray(circuit.calls.outcome)
    for match in compress(range(len(outcomes)), gone_wrong(circuit.calls, slow_s)):
        outcomes[match] = FAILURE
    return outcomes


def _within(ranges: Sequence[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
    """Return what ranges of numbers have in common with one of them."""
    found: list[tuple[int, int]] = []
    for index in range(max(0, bisect_right(ranges, (first, inf)) - 1), len(ranges)):
        begin, end = ranges[index]
        if begin >= last:
            break
        if end > first:
            found.append((max(begin, first), min(end, last)))
    return found


def _opened_after(changes: Sequence[Change], outage: Outage) -> float | None:
    """Return the seconds from the beginning of the outage until the circuit was open; None: it stayed closed."""
    index = bisect_left(changes, outage.begin, key=_TIME)
    if index and changes[index - 1].new_state is not CLOSED:
        return 0.0
    if index < len(changes) and changes[index].at <= outage.settled:
        return changes[index].at - outage.begin
    return None


def _closed_after(changes: Sequence[Change], outage: Outage, opened: float) -> float:
    """Return the seconds from the end of the outage until the circuit was closed; 0 if it was by then."""
    index = bisect_right(changes, max(outage.end, opened), key=_TIME)
    if not index or changes[index - 1].new_state is CLOSED:
        return 0.0
    closed = next((change.at for change in changes[index:] if change.new_state is CLOSED), inf)
    return closed - outage.end
