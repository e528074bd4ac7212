"""Outages that are made: failures put into ordinary times of a log, to try settings on what the log does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Final

from .._breaker.config import CircuitBreakerConfig
from .._common.words import CircuitState
from .calls import FAILURE, SUCCESS, Calls, Circuit, Log
from .figures import Scene
from .outages import Outage
from .replay import Change

SHARES: Final = (0.10, 0.15, 0.20, 0.25, 0.30, 0.40, 0.50, 0.60, 0.75, 0.90, 1.0)
LADDER: Final = (0.10, 0.25, 0.50, 0.75, 1.0)  # those that settings are compared by
MOMENTS: Final = 5
CANDIDATES: Final = 40
SEED: Final = 1

LASTS_S: Final = 120.0
FEWEST_CALLS: Final = 200  # where calls are rarer, an outage lasts longer
MOST_CALLS: Final = 15_000  # where there are more, shorter
LONGEST_PART: Final = 0.1  # of the log
BEFORE_CALLS: Final = 200  # of each circuit, so that its windows are full
AFTER_S: Final = 60.0


@dataclass(frozen=True)
class Made:
    """An outage of one share that was put at one moment of the log."""

    share: float
    scene: Scene

    @property
    def outage(self) -> Outage:
        """The outage."""
        return self.scene.outages[0]

    def opened_after(self, config: CircuitBreakerConfig) -> float:
        """Return the median seconds until the circuits opened; infinite if less than half of them did."""
        seconds = sorted(self._opened(course.changes) for course in self.scene.replay(config))
        return seconds[(len(seconds) - 1) // 2]

    def _opened(self, changes: Sequence[Change]) -> float:
        begin, end = self.outage.begin, self.outage.settled
        opened = (change.at for change in changes if change.new_state is CircuitState.OPEN)
        return next((at - begin for at in opened if begin <= at <= end), inf)


def make(log: Log, outages: Sequence[Outage]) -> list[Made]:
    """Return made outages of every share, each at a few ordinary moments of the log; none if it has too few."""
    lasts_s = _length(log)
    dice = Random(SEED)  # noqa: S311 - the same draws every time are what is wanted
    made: list[Made] = []
    for moment in _moments(log, outages, lasts_s):
        cuts = [_cut(circuit, moment, lasts_s, outages) for circuit in log.circuits]
        cuts = [cut for cut in cuts if len(cut)]
        drawn = [[dice.random() for _ in range(len(cut))] for cut in cuts]
        for share in SHARES:
            circuits = [
                Circuit(_with_failures(cut, moment, lasts_s, share, draws))
                for cut, draws in zip(cuts, drawn, strict=True)
            ]
            outage = Outage(moment, moment + lasts_s, moment + lasts_s, 0, 1, 1, 0)
            made.append(Made(share, Scene(circuits, [outage], [False], None)))
    return made


def _length(log: Log) -> float:
    """Return how long a made outage lasts."""
    rate = len(log.calls) / log.length_s if log.length_s else inf
    return min(max(LASTS_S, FEWEST_CALLS / rate), MOST_CALLS / rate, log.length_s * LONGEST_PART)


def _moments(log: Log, outages: Sequence[Outage], lasts_s: float) -> list[float]:
    """Return moments, spread over the calls of the log, from which on all is well for long enough."""
    begin = log.calls.begin
    candidates = [begin[len(begin) * number // CANDIDATES] for number in range(1, CANDIDATES)]
    free = [
        moment
        for moment in candidates
        if moment + lasts_s + AFTER_S <= log.length_s
        and not any(outage.begin < moment + lasts_s + AFTER_S and moment < outage.settled for outage in outages)
    ]
    number = min(MOMENTS, len(free))
    return [free[(2 * index + 1) * len(free) // (2 * number)] for index in range(number)]


def _cut(circuit: Circuit, moment: float, lasts_s: float, outages: Sequence[Outage]) -> Calls:
    """Return the calls of a circuit around a moment, as far back as nothing was wrong."""
    calls = circuit.calls
    calm = max((outage.settled for outage in outages if outage.settled < moment), default=-inf)
    first = max(calls.at(moment) - BEFORE_CALLS, calls.between(-inf, calm)[1], 0)
    return calls.cut(first, calls.at(moment + lasts_s + AFTER_S))


def _with_failures(calls: Calls, moment: float, lasts_s: float, share: float, draws: Sequence[float]) -> Calls:
    outcome = calls.outcome[:]
    for call in range(*calls.between(moment, moment + lasts_s)):
        if outcome[call] == SUCCESS and draws[call] < share:
            outcome[call] = FAILURE
    return Calls(calls.begin, calls.took, outcome)
