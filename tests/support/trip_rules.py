"""The rules that open a circuit, asked of plain lists. It knows nothing of the library but its configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

from circuit_breaker import CircuitBreakerConfig, WindowCounts


class Answer(NamedTuple):
    """A success or a failure while the circuit was closed."""

    at: float
    failed: bool
    slow: bool


def streak(answers: Sequence[Answer]) -> list[Answer]:
    """Return the failures at the end, the last one first."""
    return [*takewhile(lambda answer: answer.failed, reversed(answers))]


def rates(answers: Sequence[Answer]) -> tuple[int, int, int]:
    """Return how many answers there are, how many of them failed, and how many were slow."""
    return len(answers), sum(answer.failed for answer in answers), sum(answer.slow for answer in answers)


class TripRules:
    """What was answered in a closed circuit since some time, and whether that opens it.

    `note` is told of what is worth knowing but opens nothing.
    """

    def __init__(
        self, config: CircuitBreakerConfig, since: float, note: Callable[[str], object] = lambda text: None
    ) -> None:
        self.config = config
        self.since = since
        self.note = note
        self.answers: list[Answer] = []

    def window(self, now: float) -> list[Answer]:
        """Return the answers that the rates are taken of: the last N, or those of the last 30 buckets of time."""
        size = self.config.error_rate_window
        if isinstance(size, int):
            return self.answers[-size:]
        bucket_s = size.total_seconds() / 30

        def bucket(at: float) -> int:
            return math.floor((at - self.since) / bucket_s)

        return [answer for answer in self.answers if bucket(now) - bucket(answer.at) < 30]

    def tripped(self, now: float, run: Sequence[Answer]) -> str | None:
        """Return which rule the last answer trips, if any; the failures in a row are those at the end of `run`."""
        config, last, in_a_row = self.config, self.answers[-1], streak(run)
        calls, failures, slows = rates(self.window(now))
        enough = config.minimum_calls
        if enough is None:
            enough = config.error_rate_window if isinstance(config.error_rate_window, int) else 20
        if last.failed and config.failure_threshold is not None and len(in_a_row) >= config.failure_threshold:
            within_s = config.failure_threshold_within_s
            if within_s is None or now - in_a_row[config.failure_threshold - 1].at <= within_s:
                return "the streak trips"
            self.note("a streak has expired")
        rate = config.error_rate_threshold
        if last.failed and rate is not None and calls >= enough and failures / calls >= rate:
            return "the failure rate trips"
        rate = config.slow_call_rate_threshold
        if last.slow and rate is not None and calls >= enough and slows / calls >= rate:
            return "the slow rate trips"
        if config.trip_when is not None and (last.failed or last.slow):
            try:
                if config.trip_when(WindowCounts(calls, failures, slows, len(in_a_row))):
                    return "a rule of the caller's own trips"
            except Exception:
                self.note("a rule of the caller's own raises")
        return None
