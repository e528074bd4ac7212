"""Children that are forked in the middle of everything: each uses all it has inherited, and none hangs.

Where the threads are at a fork is chance, and locks that are held for a microsecond are seldom met. So one more thread
is in the middle of something at every fork: in turn it holds all locks of one kind, or tells a listener of a change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from math import inf
from typing import Any, TypeAlias

from claim import Claim, Finding
from exact_totals import NEVER, hurried
from failures import Down
from forks import Child
from patience import PATIENCE_S

from circuit_breaker import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    CircuitMode,
    CircuitOpenError,
    CircuitState,
    RetryBudget,
    RetryPolicy,
    StateChanged,
)
from circuit_breaker.testing import FakeClock

Hold: TypeAlias = Callable[[Callable[[], None]], None]
THREADS = 8
CHILD_PATIENCE_S = PATIENCE_S  # for a child to say something and to end
EACH_ONCE = 7  # forks, until a thread has been in the middle of each thing
ENOUGH = 3  # children amiss, and no more are forked
EXPECTED = (Down, CircuitOpenError, BulkheadFullError)
KEYS = "abcdefgh"
CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class Kept(logging.Handler):
    """A handler with the lock that all handlers have."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[str] = deque(maxlen=100)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.getMessage())


class Everything:
    """What the threads use, and the children inherit."""

    def __init__(self) -> None:
        self.events: deque[object] = deque(maxlen=100)
        listeners = [self.events.append]
        minute = timedelta(seconds=60)
        windowed = CircuitBreakerConfig(NEVER, error_rate_threshold=1.0)
        self.breakers = {
            "closed": CircuitBreaker("closed", windowed),
            "timed": CircuitBreaker("timed", replace(windowed, error_rate_window=minute, minimum_calls=NEVER)),
            "brittle": CircuitBreaker("brittle", CircuitBreakerConfig(1)),
            "flapping": CircuitBreaker("flapping", CircuitBreakerConfig(2, 1, 0.0), listeners=listeners),
            "probing": CircuitBreaker("probing", CircuitBreakerConfig(1, NEVER, 0.0, 3, half_open_timeout_s=inf)),
            "told": CircuitBreaker("told", listeners=[*listeners, self._is_told]),
        }
        self.breakers["probing"].record_failure()
        # Out at every fork, as are the slots.
        self.call = self.breakers["brittle"].permit()
        self.probe = self.breakers["probing"].permit()
        self.small = Bulkhead("small", 2, listeners=listeners)
        self.small.acquire()
        self.queued = Bulkhead("queued", 2, 2 * THREADS, None)
        self.waited = Bulkhead("waited", 2, 1, None)
        self.bulkheads = (self.small, self.queued, self.waited)
        self.stream = self.waited(self._stream)()
        next(self.stream)
        self.coroutine = self.waited.call_async(asyncio.sleep, 0)
        self.coroutine.send(None)
        self.budget = RetryBudget(0.5, 100.0, 50)
        self.policy = RetryPolicy(1, 0.0, budget=self.budget, listeners=listeners, sleep=lambda seconds: None)
        self.registry = CircuitBreakerRegistry(max_size=4, listeners=listeners)
        self.clock = FakeClock()
        self.handler = Kept()
        self.inside: Callable[[], None] | None = None
        self.holds: list[Hold] = [
            lambda inside: inside(),
            self._holding(breaker._machine.lock for breaker in self.breakers.values()),
            self._holding(bulkhead._line.lock for bulkhead in self.bulkheads),
            self._holding([self.budget._lock]),
            self._holding([self.registry._lock, self.registry._cache._lock]),
            self._holding([self.clock._lock]),
            self._telling,
        ]
        assert len(self.holds) == EACH_ONCE

    @staticmethod
    def _stream() -> Iterator[None]:
        yield

    # What one thread is in the middle of when a fork is made

    @staticmethod
    def _holding(locks: Iterable[Any]) -> Hold:
        kept = list(locks)

        def hold(inside: Callable[[], None]) -> None:
            with ExitStack() as stack:
                for lock in kept:
                    stack.enter_context(lock)
                inside()

        return hold

    def _telling(self, inside: Callable[[], None]) -> None:
        """Have the turn to tell what changed, with one more change that is not told yet."""
        self.inside = inside
        self.breakers["told"].mode = CircuitMode.FORCED_OPEN

    def _is_told(self, event: object) -> None:
        inside, self.inside = self.inside, None
        if inside is not None:
            self.breakers["told"].mode = CircuitMode.AUTO
            inside()

    # What the threads do, and the children

    def hammer(self, turn: int) -> None:
        """Use everything once, in one of several ways."""

        def body() -> None:
            sum(range(turn % 50))
            if turn % 3 == 0:
                raise Down

        def dwell() -> None:
            time.sleep(0.000_5)  # the turn of the others, and of whoever forks

        flapping, probing = self.breakers["flapping"], self.breakers["probing"]
        uses: list[Callable[[], object]] = [
            lambda: self.breakers["closed"].call(body),
            lambda: self.breakers["timed"](body)(),
            lambda: flapping.call(body),
            flapping.snapshot,
            lambda: probing.call(dwell),
            lambda: probing.allow_request() and probing.record_success(),
            lambda: probing.permit().ignore(),
            lambda: flapping.stats.copy(),
            lambda: self.small.call(body),
            lambda: self.queued.call(dwell),
            lambda: self.queued.acquire() and self.queued.release(),
            self.waited.snapshot,
            lambda: self.policy.call(body),
            lambda: self.registry[KEYS[turn % len(KEYS)]].call(body),
            lambda: self.registry.remove(KEYS[turn % len(KEYS)]),
            lambda: self.clock.advance(1.0),
        ]
        for use in uses:
            try:
                use()
            except (*EXPECTED, KeyError):
                pass

    def used_by_a_child(self, number: int) -> int:
        """Use everything that was inherited, and see that it is as new; return how many slots were held at the fork."""
        self.events.clear()
        for name, breaker in self.breakers.items():
            self._use_breaker(name, breaker, number)
        held = sum(map(self._use_bulkhead, self.bulkheads))
        self._use_the_rest()
        return held

    def _use_breaker(self, name: str, breaker: CircuitBreaker, number: int) -> None:
        seen = breaker.snapshot()
        assert seen.probes_in_flight == 0, name
        assert breaker in CircuitBreaker.instances()
        before = breaker.stats.success_count
        if breaker.state is HALF_OPEN:
            permits = [breaker.permit() for _ in range(breaker.config.half_open_max_calls)]
            assert not breaker.allow_request(), name
            if name == "probing":
                # What becomes of a probe of the parent's opens nothing here, and gives no permit of the child's back.
                [self.probe.ignore, self.probe.failure, self.probe.success][number % 3]()
                before = breaker.stats.success_count
                assert breaker.stats.failure_count == seen.stats.failure_count + (number % 3 == 1), name
                assert breaker.snapshot().probes_in_flight == len(permits), name
                assert not breaker.allow_request(), name
            for permit in permits:
                permit.ignore()
        if name == "brittle":
            self.call.failure()
            assert breaker.is_closed, name
            assert breaker.stats.failure_count == 1, name
        assert breaker.allow_request(), name
        breaker.record_ignored()
        breaker.call(int)
        assert breaker.stats.success_count == before + 1, name
        if name == "told":
            assert not self._changes(name), "it tells what the parent has to tell"
        breaker.reset()
        self.events.clear()
        breaker.config = CircuitBreakerConfig(1, 1, 0.0)
        with breaker, breaker.permit():
            pass
        breaker.record_failure()  # is logged, and told
        assert breaker.state is HALF_OPEN, name
        breaker(lambda: 0)()
        assert breaker.is_closed, name
        breaker.mode = CircuitMode.FORCED_OPEN
        assert breaker.is_open, name
        if breaker._listeners:
            told = [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED), (CLOSED, OPEN)]
            assert self._changes(name) == told, name

    def _changes(self, name: str) -> list[tuple[CircuitState, CircuitState]]:
        changes = [event for event in self.events if isinstance(event, StateChanged) and event.circuit_name == name]
        return [(change.old_state, change.new_state) for change in changes]

    def _use_bulkhead(self, bulkhead: Bulkhead) -> int:
        seen = bulkhead.snapshot()
        limit = bulkhead.max_concurrent
        assert (seen.active_count, seen.queued_count) == (0, 0), bulkhead.name
        assert all(bulkhead.acquire() for _ in range(limit)), bulkhead.name
        if not bulkhead.max_queue:
            assert not bulkhead.acquire()
        if bulkhead is self.waited:
            self.stream.close()
            self.coroutine.close()
            assert bulkhead.active_count == limit, "what the parent has begun gives a slot of the child's back"
        for _ in range(limit):
            bulkhead.release()
        bulkhead.call(int)
        for given_back in range(limit + 1):
            try:
                bulkhead.release()  # of the parent's, which is swallowed, but no more than could be held
            except RuntimeError:
                assert bulkhead.available_slots == limit
                return given_back
        raise AssertionError(f"{bulkhead.name} swallows releases for ever")

    def _use_the_rest(self) -> None:
        assert 0 <= self.budget.tokens <= 50
        self.budget.deposit()
        for _ in range(3):
            if self.budget.take():
                self.budget.give_back()
        try:
            self.policy.call(self.down)
        except Down:
            pass
        for key in KEYS:
            assert self.registry[key] is self.registry[key]
            self.registry[key].call(int)
            assert key in self.registry
        assert len(list(self.registry)) == len(self.registry) >= 4
        self.registry.reset_all()
        self.registry.remove(KEYS[-1])
        self.clock.sleep(1.0)
        assert self.clock.sleeps == [1.0]
        assert self.handler.records

    @staticmethod
    def down() -> None:
        raise Down

    @contextmanager
    def under_load(self) -> Iterator[list[str]]:
        """Let the threads use everything meanwhile; give a list of what they stumbled over."""
        stop = threading.Event()
        failed: list[str] = []
        used = [threading.Event() for _ in range(THREADS)]

        def work(number: int) -> None:
            try:
                for turn in count(number):
                    self.hammer(turn)
                    used[number].set()
                    if stop.is_set():
                        return
            except BaseException:
                failed.append("a thread: " + traceback.format_exc())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        logger = logging.getLogger("circuit_breaker")
        logger.addHandler(self.handler)
        before, logger.propagate = logger.propagate, False
        level = logger.level
        logger.setLevel(logging.INFO)
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(self.waited.acquire_async())
        loop.run_until_complete(asyncio.sleep(0))  # now it is in the line
        try:
            with hurried():
                for thread in threads:
                    thread.start()
                for each in used:
                    each.wait(PATIENCE_S)
                yield failed
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_S)
            self.stream.close()
            self.coroutine.close()
            failed += [] if loop.run_until_complete(waiting) else ["nobody serves the line"]
            self.waited.release()
            loop.close()
            logger.removeHandler(self.handler)
            logger.propagate = before
            logger.setLevel(level)


@contextmanager
def in_the_middle(hold: Hold) -> Iterator[None]:
    """Let another thread be in the middle of something; a child, which has no such thread, must end in here."""
    ready, go = threading.Event(), threading.Event()

    def inside() -> None:
        ready.set()
        go.wait(PATIENCE_S)

    thread = threading.Thread(target=hold, args=(inside,))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S), "the locks are not to be had"
        yield
    finally:
        go.set()
        thread.join(PATIENCE_S)


def forked(use: Callable[[], object], hold: Hold = lambda inside: inside()) -> str:
    """Return what use gives in a child that is forked while another thread is in the middle of something."""
    with in_the_middle(hold):
        child = Child.start(use)
    return child.hear(CHILD_PATIENCE_S)


def children(forks: int) -> Finding:
    everything = Everything()
    inherited = made = 0
    longest_s = 0.0
    with everything.under_load() as bad:
        for number in range(forks):
            started = time.perf_counter()
            told = forked(partial(everything.used_by_a_child, number), everything.holds[number % EACH_ONCE])
            longest_s = max(longest_s, time.perf_counter() - started)
            made += 1
            if told.isdecimal():
                inherited += int(told)
            else:
                bad.append(told)
                if len(bad) >= ENOUGH:
                    break
    everything.small.release()
    everything.call.ignore()
    everything.probe.ignore()
    inside = sum(bulkhead.active_count + bulkhead.queued_count for bulkhead in everything.bulkheads)
    left = inside + everything.breakers["probing"].snapshot().probes_in_flight
    figure = (
        f"{made:,} children, {made // EACH_ONCE:,} of them with each kind of lock held by another thread,"
        f" {len(bad)} hung or saw something amiss, {inherited:,} slots were held when they were forked;"
        f" the longest took {longest_s:.2f} s"
    )
    return Finding(not bad and not left and inherited >= 3 * forks, figure + "".join(f"\n{each}" for each in bad))


def _claims() -> Iterator[Claim]:
    if hasattr(os, "fork"):
        yield Claim(
            f"forked while {THREADS} threads use everything: each child is sound", children, 5 * EACH_ONCE, 1_000
        )


CLAIMS: list[Claim] = list(_claims())
