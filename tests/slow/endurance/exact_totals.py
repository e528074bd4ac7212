"""Many threads at once, and every total is exactly what was made."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, cycle, islice

from claim import Claim, Finding
from clocks import Clock
from failures import Down
from ways import BREAKER, BULKHEAD

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitBreakerConfig, RetryBudget, RetryPolicy

THREADS = 64
SLOTS = 10
NEVER = 10**9


@contextmanager
def hurried() -> Iterator[None]:
    """Let the interpreter pass from thread to thread more often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.000_5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(work: Callable[[int], object]) -> None:
    """Run work(number of the thread) in all threads at once."""
    start = threading.Barrier(THREADS)

    def body(number: int) -> None:
        start.wait()
        work(number)

    with hurried(), ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(body, number) for number in range(THREADS)]:
            future.result()


def breaker_totals(calls: int) -> Finding:
    """Of ten calls in a row eight succeed, one fails and one is ignored; each thread calls in a way of its own."""
    each = calls // THREADS // 10 * 10
    config = CircuitBreakerConfig(
        NEVER, error_rate_threshold=1.0, error_rate_window=1_000, ignored_exceptions=(KeyError,)
    )
    breaker = CircuitBreaker("totals", config)
    ways = [BREAKER[name] for name in ("decorator", "call", "with", "permit", "async decorator", "generator")]

    def failing() -> None:
        raise Down

    def ignored() -> None:
        raise KeyError

    def work(number: int) -> None:
        way = ways[number % len(ways)]
        good, bad, neither = way.ready(breaker, int), way.ready(breaker, failing), way.ready(breaker, ignored)
        for call in islice(cycle([good] * 8 + [bad, neither]), each):
            try:
                call()
            except (Down, KeyError):
                pass

    in_threads(work)
    snapshot = breaker.snapshot()
    stats = snapshot.stats
    made = THREADS * each
    counted = stats.success_count + stats.failure_count + stats.ignored_count
    exact = (stats.success_count, stats.failure_count, stats.ignored_count) == (made * 8 // 10, made // 10, made // 10)
    others = (stats.rejected_count, stats.opened_count, stats.slow_count) == (0, 0, 0)
    held = min(1_000, stats.success_count + stats.failure_count)
    return Finding(exact and others and snapshot.window_calls == held, f"{made:,} made, {counted:,} counted")


def bulkhead_totals(calls: int) -> Finding:
    """Whoever is inside holds one of ten tokens of our own, which never run out; the first ten meet inside."""
    each = calls // THREADS
    bulkhead = Bulkhead("totals", SLOTS, THREADS, None)
    tokens, early = deque(range(SLOTS)), deque(range(SLOTS))
    all_inside = threading.Barrier(SLOTS)
    ways = [BULKHEAD[name] for name in ("decorator", "call", "with", "acquire and release")]

    def work(number: int) -> None:
        turns = count()

        def body() -> None:
            token = tokens.pop()
            if early:
                early.pop()
                all_inside.wait()
            elif next(turns) % 100 == 0:
                time.sleep(0)  # another thread's turn, which finds one slot less
            tokens.append(token)

        call = ways[number % len(ways)].ready(bulkhead, body)
        for _ in range(each):
            call()

    in_threads(work)
    seen = bulkhead.snapshot()
    made = THREADS * each
    counts = (seen.accepted_count, seen.rejected_count, seen.timed_out_count, seen.active_count, seen.queued_count)
    holds = counts == (made, 0, 0, 0, 0) and seen.peak_active_count == SLOTS == len(tokens)
    return Finding(
        holds,
        f"{made:,} made, {seen.accepted_count:,} accepted, peak {seen.peak_active_count},"
        f" {seen.active_count} left inside; waits add up to {seen.total_wait_s:.0f} s",
    )


def budget_totals(calls: int) -> Finding:
    """Every call fails, and is tried again as often as the budget has a token for it."""
    each = calls // THREADS // 4 * 4
    budget = RetryBudget(0.25, 0.0, NEVER, clock=Clock())
    policy = RetryPolicy(1, 0.0, budget=budget, sleep=lambda seconds: None)
    budget._held = 0
    attempts = [0] * THREADS

    def work(number: int) -> None:
        def body() -> None:
            attempts[number] += 1
            raise Down

        call = policy(body)
        for _ in range(each):
            try:
                call()
            except Down:
                pass

    in_threads(work)
    made = THREADS * each
    retries = sum(attempts) - made
    return Finding(
        retries + budget.tokens == made * 0.25 and retries > 0,
        f"{made:,} calls brought {made // 4:,} tokens, {retries:,} retries took one each, {budget.tokens:g} are left",
    )


CLAIMS = [
    Claim(f"{THREADS} threads, one breaker, six ways: totals as made", breaker_totals, 50_000, 5_000_000),
    Claim(f"{THREADS} threads, one bulkhead of {SLOTS}: totals as made", bulkhead_totals, 50_000, 5_000_000),
    Claim(f"{THREADS} threads, one retry budget: every token accounted for", budget_totals, 50_000, 5_000_000),
]
