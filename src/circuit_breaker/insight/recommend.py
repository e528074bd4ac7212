"""Settings derived from the ordinary times of a log, and from one answer: the failing share at which to reject all."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, log
from typing import Final, NamedTuple

from .._breaker.config import CircuitBreakerConfig
from .calls import IGNORED, Circuit
from .figures import Scene
from .made import LADDER, Made
from .outages import Outage

WINDOWS: Final = (50, 100, 200)
MINIMUM_PART: Final = 0.4  # minimum_calls as a part of the window
ROOM: Final = 1.5  # between ordinary times and a threshold
RARE: Final = 200_000  # a streak of chance failures comes once in this number of calls, where the answer's share fails
RESET_TIMEOUTS_S: Final = (5.0, 10.0, 30.0)
POINT: Final = 0.01  # of what the outages cost without a breaker: less is no reason to change anything


class Peak(NamedTuple):
    """The highest that the figures of two rules reached: a share of a window, and failures in a row."""

    share: float
    streak: int


class Peaks(NamedTuple):
    """The highest that they reached in ordinary times, and in each outage."""

    ordinary: Peak
    outages: list[Peak]


@dataclass(frozen=True)
class Advice:
    """Settings for an answer.

    Attributes:
        answer: the failing share from which on to reject every call.
        config: the settings.
        raised: whether the threshold is higher than the answer, since ordinary times come too close to that.
        peaks: how close they come.
    """

    answer: float
    config: CircuitBreakerConfig
    raised: bool
    peaks: Peaks


class Adviser:
    """Derives settings from a log, and weighs settings against each other.

    Args:
        scene: the log and its outages.
        made: outages that were made.
        slow_s: seconds from which a call is slow, for the rule of slow calls; None: no such rule.
    """

    def __init__(self, scene: Scene, made: Sequence[Made], slow_s: float | None) -> None:
        self._scene = scene
        self._ladder = [one for one in made if one.share in LADDER]
        self._slow_s = slow_s

    def advise(self, answer: float) -> Advice:
        """Return the settings for an answer, more than 0 and less than 1."""
        window, minimum, peaks = self._window(answer)
        raised = peaks.ordinary.share * ROOM > answer
        threshold = ceil(peaks.ordinary.share * ROOM * 100) / 100 if raised else answer
        by_chance = ceil(log(RARE) / -log(threshold)) if threshold < 1 else 1
        rate = min(threshold, 1.0) if peaks.ordinary.share < 1 else None
        config = CircuitBreakerConfig(
            failure_threshold=max(by_chance, ceil(peaks.ordinary.streak * ROOM) + 1),
            error_rate_threshold=rate,
            error_rate_window=window,
            minimum_calls=minimum,
            slow_call_duration_s=self._slow_s,
            slow_call_rate_threshold=None if self._slow_s is None else rate,
        )
        return Advice(answer, self._with_best_timeout(config, answer), raised, peaks)

    def _window(self, answer: float) -> tuple[int, int, Peaks]:
        """Return the first window, and its minimum of calls, that ordinary times leave enough room; else the last."""
        for window in WINDOWS[:-1]:
            minimum = int(window * MINIMUM_PART)
            peaks = peaks_of(self._scene, window, minimum, self._slow_s)
            if peaks.ordinary.share * ROOM <= answer:
                return window, minimum, peaks
        minimum = int(WINDOWS[-1] * MINIMUM_PART)
        return WINDOWS[-1], minimum, peaks_of(self._scene, WINDOWS[-1], minimum, self._slow_s)

    def peaks(self, config: CircuitBreakerConfig) -> Peaks:
        """Return how close ordinary times and outages come to the thresholds of a configuration."""
        window = config.error_rate_window
        calls = window if isinstance(window, int) else WINDOWS[0]
        return peaks_of(self._scene, calls, min(config._required_calls, calls), self._slow_s)

    def loss(self, config: CircuitBreakerConfig, answer: float) -> float:
        """Return what a setting costs in the outages of the log and the made ones, without a breaker being 1."""
        price = (1 - answer) / answer
        scenes = [self._scene, *(one.scene for one in self._ladder)]
        without = sum(scene.cost_without_a_breaker(price) for scene in scenes)
        return sum(scene.cost(scene.replay(config), price) for scene in scenes) / without if without else 0.0

    def _with_best_timeout(self, config: CircuitBreakerConfig, answer: float) -> CircuitBreakerConfig:
        best, *longer = (replace(config, reset_timeout_s=seconds) for seconds in RESET_TIMEOUTS_S)
        least = self.loss(best, answer)
        for other in longer:
            loss = self.loss(other, answer)
            if loss <= least - POINT:
                best, least = other, loss
        return best


def peaks_of(scene: Scene, window: int, minimum: int, slow_s: float | None) -> Peaks:
    """Return how high the rules of a breaker with this window would have come, had it never opened."""
    highest = [Peak(0.0, 0) for _ in range(len(scene.outages) + 1)]  # the last one is that of ordinary times
    for circuit in scene.circuits:
        raiser = _Raiser(circuit, scene.outages, window, minimum)
        raiser.raise_peaks(highest, circuit.marks(), streaks=True)
        if slow_s is not None:
            took, outcome, order = circuit.calls.took, circuit.calls.outcome, circuit.order
            slow = [rank for rank, call in enumerate(order) if took[call] >= slow_s and outcome[call] != IGNORED]
            raiser.raise_peaks(highest, slow, streaks=False)
    return Peaks(highest[-1], highest[:-1])


class _Raiser:
    """Follows the windows of one circuit through its log."""

    def __init__(self, circuit: Circuit, outages: Sequence[Outage], window: int, minimum: int) -> None:
        self._circuit = circuit
        self._answers = circuit.answers()
        self._outages = outages
        self._window = window
        self._minimum = minimum

    def raise_peaks(self, highest: list[Peak], marks: Sequence[int], *, streaks: bool) -> None:
        """Raise the peaks to what windows of these calls, given by their ranks, come to; streaks only if asked for."""
        ends, answers, outages = self._circuit.ends, self._answers, self._outages
        window, minimum = self._window, self._minimum
        recent: deque[int] = deque()
        start = streak = number = current = 0
        for rank in marks:
            now = ends[rank]
            while current < len(outages) and outages[current].settled < now:
                # A breaker that opened in this outage has closed since, and has begun anew.
                start = answers[bisect_right(ends, outages[current].settled)]
                recent.clear()
                streak = 0
                current += 1
            former, number = number, answers[rank + 1]
            streak = streak + 1 if streak and number == former + 1 else 1
            recent.append(number)
            while recent[0] <= number - window:
                recent.popleft()
            calls = number - start
            share = len(recent) / min(calls, window) if calls >= minimum else 0.0
            place = current if current < len(outages) and outages[current].begin <= now else -1
            if place == -1 and calls >= minimum:
                # A breaker that has just closed counts from there on, so any `minimum` calls may be all that it knows.
                share = max(share, (len(recent) - bisect_right(recent, number - minimum)) / minimum)
            peak = highest[place]
            if share > peak.share or (streaks and streak > peak.streak):
                highest[place] = Peak(max(peak.share, share), max(peak.streak, streak) if streaks else peak.streak)
