"""The rules that open a circuit, asked of plain lists. It knows nothing of the library but its configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import takewhile
from typing import NamedTuple

from circuit_breaker import CircuitBreakerConfig


class Answer(NamedTuple):
    """A success or a failure while the circuit was closed."""

    at: float
    failed: bool
    slow: bool


def streak(failed: Iterable[bool]) -> int:
    """Return how many failures there are at the end."""
    return sum(1 for _ in takewhile(bool, reversed([*failed])))


class TripRules:
    """What was answered in a closed circuit since some time, and whether that opens it."""

    def __init__(self, config: CircuitBreakerConfig, since: float) -> None:
        self.config = config
        self.since = since
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

    def tripped(self, now: float, in_a_row: int) -> str | None:
        """Return which rule the last answer trips, if any, with so many failures in a row up to it."""
        config, last, window = self.config, self.answers[-1], self.window(now)
        if last.failed and config.failure_threshold is not None and in_a_row >= config.failure_threshold:
            return "the streak trips"
        enough = config.minimum_calls
        if enough is None:
            enough = config.error_rate_window if isinstance(config.error_rate_window, int) else 20
        if len(window) < enough:
            return None
        failure_rate, slow_rate = config.error_rate_threshold, config.slow_call_rate_threshold
        if last.failed and failure_rate is not None:
            if sum(answer.failed for answer in window) / len(window) >= failure_rate:
                return "the failure rate trips"
        if last.slow and slow_rate is not None:
            if sum(answer.slow for answer in window) / len(window) >= slow_rate:
                return "the slow rate trips"
        return None
