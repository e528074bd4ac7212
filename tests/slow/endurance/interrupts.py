"""Ctrl-C at random moments of every way of calling: what it costs, and that nothing is wedged by it."""

from __future__ import annotations

import contextvars
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from claim import Claim, Finding, quiet, usable_by_another_thread
from clocks import Clock
from failures import Down
from storms import storm
from ways import BREAKER, BREAKER_BY_HAND, BULKHEAD, POLICY, Way

from circuit_breaker import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitState,
    RetryBudget,
    RetryPolicy,
)
from circuit_breaker._breaker import open_blocks

OVERDUE_S = 5.0
NEVER = 10**9
SLOTS = 2


def nothing() -> None:
    pass


@contextmanager
def alone() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Run something in a context of its own, so that the blocks it loses are not seen by others, and unheard."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None  # destructors swallow the interrupts that land in them
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # coroutines that were interrupted before they began
            yield contextvars.copy_context().run
    finally:
        sys.unraisablehook = hook


def held(lock: Any) -> bool:
    return bool(lock._is_owned())


def share(lost: int, shots: int) -> str:
    return f"{lost / shots:.1%}" if lost else f"0 of {shots:,}"


def of_a_breaker(way: Way, shots: int) -> Finding:
    """It is half-open with one permit, which after each interrupt is there, or comes back when it is overdue."""
    clock = Clock()
    config = CircuitBreakerConfig(1, NEVER, 1.0, 1, half_open_timeout_s=OVERDUE_S)
    breaker = CircuitBreaker("storm", config, clock=clock)
    breaker.record_failure()
    clock.now += 1.0
    assert breaker.state is CircuitState.HALF_OPEN
    call = way.ready(breaker, nothing)
    lost = kept_locks = wedged = 0

    def calls() -> None:
        try:
            call()
        except CircuitOpenError:
            pass

    def look() -> None:
        nonlocal lost, kept_locks, wedged
        kept_locks += held(breaker._machine.lock)
        lost += breaker.snapshot().probes_in_flight
        open_blocks.stack.set(
            None
        )  # lost blocks that pile up make calls slower, and so the share of what can be lost less
        clock.now += OVERDUE_S
        before = breaker.stats.success_count
        calls()
        wedged += breaker.stats.success_count == before or breaker.snapshot().probes_in_flight != 0

    def close() -> None:
        breaker.config = CircuitBreakerConfig(1, 1, 1.0, 1, half_open_timeout_s=OVERDUE_S)
        clock.now += OVERDUE_S
        calls()

    with alone() as run:
        run(lambda: storm(calls, shots, look))
        run(close)
    holds = not kept_locks and not wedged and breaker.is_closed and usable_by_another_thread(breaker)
    return Finding(
        holds,
        f"{shots:,} interrupts, {lost:,} permits lost, {wedged} not back when overdue, {kept_locks} locks left held",
        share(lost, shots),
    )


def of_a_bulkhead(way: Way, shots: int) -> Finding:
    """It has two slots. What an interrupt loses is counted, and given back for the next."""
    bulkhead = Bulkhead("storm", SLOTS)
    call = way.ready(bulkhead, nothing)
    lost = kept_locks = wedged = 0

    def calls() -> None:
        try:
            call()
        except BulkheadFullError:
            pass

    def look() -> None:
        nonlocal lost, kept_locks, wedged
        kept_locks += held(bulkhead._line.lock)
        missing = bulkhead.active_count
        lost += missing
        for _ in range(missing):
            bulkhead.release()
        call()
        wedged += bulkhead.active_count != 0

    with alone() as run:
        run(lambda: storm(calls, shots, look))
    holds = not kept_locks and not wedged and not (way.is_whole and lost) and usable_by_another_thread(bulkhead)
    figure = f"{shots:,} interrupts, {lost:,} slots lost, {kept_locks} locks left held"
    return Finding(holds, figure, share(lost, shots))


def of_a_policy(way: Way, shots: int) -> Finding:
    """One attempt of four fails, and is tried again with a token of a budget."""
    budget = RetryBudget(0.0, 0.0, NEVER, clock=Clock())
    policy = RetryPolicy(1, 0.0, budget=budget, sleep=lambda seconds: None, clock=Clock())
    attempts = kept_locks = wedged = 0

    def body() -> None:
        nonlocal attempts
        attempts += 1
        if attempts % 4 == 1:
            raise Down

    call = way.ready(policy, body)

    def calls() -> None:
        try:
            call()
        except Down:  # of a second item
            pass

    def look() -> None:
        nonlocal attempts, kept_locks, wedged
        kept_locks += held(budget._lock) + held(policy._totals._lock)
        attempts = 0
        calls()
        wedged += attempts < 2

    with alone() as run:
        run(lambda: storm(calls, shots, look))
    holds = not kept_locks and not wedged and usable_by_another_thread(budget)
    return Finding(holds, f"{shots:,} interrupts, {wedged} times not retried, {kept_locks} locks left held")


def of_all_three(way: Way, shots: int) -> Finding:
    """As in the documentation: retries outside, the breaker in them, the bulkhead innermost."""
    clock = Clock()
    config = CircuitBreakerConfig(1, NEVER, 1.0, 1, half_open_timeout_s=OVERDUE_S)
    breaker, bulkhead = CircuitBreaker("storm", config, clock=clock), Bulkhead("storm", SLOTS)
    budget = RetryBudget(clock=clock)
    policy = RetryPolicy(1, 0.0, budget=budget, sleep=lambda seconds: None, clock=clock)
    breaker.record_failure()
    clock.now += 1.0
    call = way.ready(lambda body: policy(breaker(bulkhead(body))), nothing)
    slots = permits = kept_locks = wedged = 0

    def calls() -> None:
        try:
            call()
        except CircuitOpenError:
            pass

    def look() -> None:
        nonlocal slots, permits, kept_locks, wedged
        kept_locks += held(breaker._machine.lock) + held(bulkhead._line.lock) + held(budget._lock)
        slots += bulkhead.active_count
        permits += breaker.snapshot().probes_in_flight
        open_blocks.stack.set(None)
        clock.now += OVERDUE_S
        before = breaker.stats.success_count
        calls()
        wedged += breaker.stats.success_count == before

    with alone() as run:
        run(lambda: storm(calls, shots, look))
    holds = not (slots or kept_locks or wedged) and usable_by_another_thread(breaker, bulkhead, budget)
    figure = f"{shots:,} interrupts, {slots} slots and {permits:,} permits lost, {wedged} not back when overdue"
    return Finding(holds, f"{figure}, {kept_locks} locks left held", share(permits, shots))


def of_whoever_steers(shots: int) -> Finding:
    """A registry that is looked up, grows, forgets and resets; a bulkhead that is resized; snapshots of all."""
    registry = CircuitBreakerRegistry(max_size=2)
    bulkhead = Bulkhead("storm", SLOTS)
    turn = kept_locks = 0

    def steer() -> None:
        nonlocal turn
        turn += 1
        breaker = registry[turn % 4]
        breaker.snapshot()
        bulkhead.resize(1 + turn % 2)
        bulkhead.snapshot()
        breaker.config = CircuitBreakerConfig(1 + turn % 2)
        registry.reset_all()

    def look() -> None:
        nonlocal kept_locks
        kept_locks += held(registry._lock) + held(registry._cache._lock) + held(bulkhead._line.lock)
        kept_locks += sum(held(breaker._machine.lock) for breaker in CircuitBreaker.instances())

    with alone() as run:
        run(lambda: storm(steer, shots, look))
    breakers = [registry[key] for key in range(4)]
    one_each = all(registry[key] is breaker for key, breaker in enumerate(breakers))
    holds = not kept_locks and one_each and usable_by_another_thread(bulkhead, *breakers)
    return Finding(holds, f"{shots:,} interrupts, {kept_locks} locks left held")


def _claims() -> Iterator[Claim]:
    if not hasattr(signal, "setitimer"):
        return
    for name, way in (BREAKER | BREAKER_BY_HAND).items():
        text = f"interrupts: half-open breaker, {name}"
        yield Claim(text, partial(of_a_breaker, way), 100, 20_000)
    for name, way in BULKHEAD.items():
        text = f"interrupts: bulkhead, {name}{'' if way.is_whole else ' (may lose)'}"
        yield Claim(text, partial(of_a_bulkhead, way), 100, 20_000)
    for name, way in POLICY.items():
        yield Claim(f"interrupts: retry, {name}", partial(of_a_policy, way), 100, 20_000)
    for name, way in POLICY.items():
        if way.decorates:
            yield Claim(f"interrupts: all three, {name}", partial(of_all_three, way), 100, 20_000)
    yield Claim("interrupts: registry, settings, snapshots", of_whoever_steers, 100, 20_000)


CLAIMS = list(_claims())
