"""One sick process among healthy ones, for an hour of virtual time: the healthy ones must never be rejected."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from failures import Down

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError
from circuit_breaker._shared.process import talker_of
from circuit_breaker._shared.talker import LOOKS_AN_INTERVAL
from circuit_breaker.stores import Board, MemoryStore
from circuit_breaker.testing import FakeClock

FAILING = 0.01  # the share of calls of healthy processes that fail


@dataclass
class Finding:
    """What was seen: calls of the healthy processes, those that were rejected, and openings for all."""

    calls: int = 0
    rejected: int = 0
    openings: int = 0


def fail() -> None:
    raise Down


def watch(processes: int, per_s: float, seconds: float, seed: int = 0, **settings: Any) -> Finding:
    """Let one of so many processes be sick, each with so many calls each second."""
    draw, clock, board, finding = random.Random(seed), FakeClock(1_000.0), Board(), Finding()
    stores = [MemoryStore(board, clock=clock, manual=True) for _ in range(processes)]
    config = CircuitBreakerConfig(**settings)
    breakers = [CircuitBreaker("api", config, clock=clock, store=store) for store in stores]
    talkers = [talker_of(store) for store in stores]
    next_at = [clock() + draw.expovariate(per_s) for _ in range(processes)]
    for _ in range(int(seconds * LOOKS_AN_INTERVAL)):
        clock.advance(1.0 / LOOKS_AN_INTERVAL)
        for number, breaker in enumerate(breakers):
            while next_at[number] <= clock():
                next_at[number] += draw.expovariate(per_s)
                fails = number == 0 or draw.random() < FAILING
                finding.calls += number > 0
                try:
                    breaker.call(fail if fails else int)
                except Down:
                    pass
                except CircuitOpenError:
                    finding.rejected += number > 0
            talkers[number]._tick()
    finding.openings = stores[0].circuits()[0].epoch
    return finding
