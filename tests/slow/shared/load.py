"""What a large fleet asks of one Redis: as many members as wanted exchange once a second, each with its circuits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import redis
from redis_server import RedisServer

from circuit_breaker._shared.evidence import Evidence
from circuit_breaker.stores import MemberLine, RedisStore, Report, member_text

READ = Evidence(0, 1.0, "a").names()  # the totals that a member reads


@dataclass(frozen=True)
class Load:
    """What was asked of the server.

    Attributes:
        commands_per_s: if each member exchanges once a second.
        core: the share of one core that the server needs for them.
    """

    commands_per_s: float
    core: float


def measure(server: RedisServer, members: int = 1_000, circuits: int = 20, rounds: int = 3) -> Load:
    """Let all members exchange, one after another; a few connections carry them all."""
    store = RedisStore(server.client(redis.Redis, socket_timeout=5.0))
    client = server.client(redis.Redis, socket_timeout=5.0)
    names = [f"circuit {number}" for number in range(circuits)]
    reports = [Report(name, {"0.successes": 17, "0.failures": 1}, READ) for name in names]
    text = member_text(dict.fromkeys(names, "closed"), 10.0, 10.0)
    before = _used(client)
    for number in range(rounds):
        for member in range(members):
            # Its line is written when it changes, and every five intervals.
            line = MemberLine(f"host:{member}", text) if (member + number) % 5 == 0 else None
            store.exchange(reports, line)
    after = _used(client)
    return Load((after[0] - before[0]) / rounds, (after[1] - before[1]) / rounds)


def _used(client: Any) -> tuple[int, float]:
    """Return the commands that the server has carried out, and the seconds of a core that it needed."""
    told = client.info()
    return told["total_commands_processed"], told["used_cpu_sys"] + told["used_cpu_user"]


def seconds_of(server: RedisServer, circuits: int) -> float:
    """Return how long one exchange of so many circuits takes."""
    store = RedisStore(server.client(redis.Redis, socket_timeout=5.0))
    reports = [Report(f"circuit {number}", {"0.successes": 17}, READ) for number in range(circuits)]
    best = float("inf")
    for _ in range(200):
        began = time.perf_counter()
        store.exchange(reports, None)
        best = min(best, time.perf_counter() - began)
    return best
