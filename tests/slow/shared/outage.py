"""A server of a fleet of real processes goes down and comes back: how many calls reach it, and how soon all know."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from failures import Down

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, CircuitState

CALL_S = 0.02  # what a call takes, down or not
NEVER = -1.0


@dataclass(frozen=True)
class Plan:
    """What happens to whom.

    Attributes:
        per_s: calls of each process, at random times.
        up_s: seconds before the server goes down, for `down_s`.
        patience_s: seconds after it is back in which all must have closed.
    """

    processes: int
    per_s: float
    up_s: float = 4.0
    down_s: float = 16.0
    patience_s: float = 30.0
    reset_timeout_s: float = 5.0
    half_open_max_calls: int = 3


@dataclass(frozen=True)
class Outcome:
    """What was seen.

    Attributes:
        reached: calls that reached the server while it was down.
        reached_before: those among them from before all had opened.
        all_open_s: seconds from its going down until all had opened.
        probes: most calls at once of processes that were half-open.
        all_closed_s: seconds from its coming back until all were closed.
    """

    reached: int
    reached_before: int
    all_open_s: float
    probes: int
    all_closed_s: float


class Seen:
    """What the processes tell each other, in shared memory."""

    def __init__(self, context: Any, processes: int) -> None:
        self.begins_at = context.Value("d", 0.0)
        self.reached = context.Array("d", [0.0] * 20_000)  # when
        self.count = context.Value("i", 0)
        self.probing = context.Value("i", 0)
        self.most_probing = context.Value("i", 0)
        self.opened_at = context.Array("d", [NEVER] * processes)
        self.closed_at = context.Array("d", [NEVER] * processes)


def work(plan: Plan, seen: Seen, number: int, make_store: Callable[[], Any]) -> None:
    """Be one process."""
    draw = random.Random(number + int(seen.begins_at.value * 1e3) * 0)
    config = CircuitBreakerConfig(reset_timeout_s=plan.reset_timeout_s, half_open_max_calls=plan.half_open_max_calls)
    breaker = CircuitBreaker("server", config, store=make_store())
    while seen.begins_at.value == 0.0:
        time.sleep(0.001)
    begins_at = seen.begins_at.value
    down_at, back_at = begins_at + plan.up_s, begins_at + plan.up_s + plan.down_s

    def ask() -> None:
        now = time.monotonic()
        probes = breaker.state is not CircuitState.CLOSED
        if probes:
            with seen.probing.get_lock():
                seen.probing.value += 1
                seen.most_probing.value = max(seen.most_probing.value, seen.probing.value)
        try:
            time.sleep(CALL_S)
            if down_at <= now < back_at:
                with seen.count.get_lock():
                    seen.reached[seen.count.value] = now
                    seen.count.value += 1
                raise Down
        finally:
            if probes:
                with seen.probing.get_lock():
                    seen.probing.value -= 1

    next_at = begins_at + draw.random() / plan.per_s
    while (now := time.monotonic()) < back_at + plan.patience_s:
        state = breaker.state
        if now >= down_at and seen.opened_at[number] == NEVER and state is CircuitState.OPEN:
            seen.opened_at[number] = now
        if now >= back_at:
            seen.closed_at[number] = (
                NEVER
                if state is not CircuitState.CLOSED
                else max(now, seen.closed_at[number])
                if seen.closed_at[number] == NEVER
                else seen.closed_at[number]
            )
            if all(at != NEVER for at in seen.closed_at):
                break
        if now >= next_at:
            next_at += draw.expovariate(plan.per_s)
            try:
                breaker.call(ask)
            except (Down, CircuitOpenError):
                pass
        time.sleep(min(0.01, max(0.0, next_at - time.monotonic())))


def play(plan: Plan, make_store: Callable[[], Any]) -> Outcome:
    """Let it happen; `make_store` is called in each process."""
    context = multiprocessing.get_context("fork")
    seen = Seen(context, plan.processes)
    processes = [context.Process(target=work, args=(plan, seen, n, make_store)) for n in range(plan.processes)]
    for process in processes:
        process.start()
    time.sleep(0.05 * plan.processes)
    seen.begins_at.value = time.monotonic()
    for process in processes:
        process.join()
    down_at = seen.begins_at.value + plan.up_s
    reached = sorted(seen.reached[: seen.count.value])
    all_open_at = max(seen.opened_at) if NEVER not in list(seen.opened_at) else float("inf")
    all_closed_at = max(seen.closed_at) if NEVER not in list(seen.closed_at) else float("inf")
    return Outcome(
        len(reached),
        sum(at < all_open_at for at in reached),
        all_open_at - down_at,
        seen.most_probing.value,
        all_closed_at - down_at - plan.down_s,
    )
