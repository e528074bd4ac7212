"""Children that are forked in the middle of everything: each uses all it has inherited, and none hangs."""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from math import inf

from claim import PATIENCE_S, Claim, Down, Finding
from exact_totals import NEVER, hurried

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
)

THREADS = 8
EXPECTED = (Down, CircuitOpenError, BulkheadFullError)
KEYS = "abcdefgh"


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
            "flapping": CircuitBreaker("flapping", CircuitBreakerConfig(2, 1, 0.0), listeners=listeners),
            "probing": CircuitBreaker("probing", CircuitBreakerConfig(1, NEVER, 0.0, 3, half_open_timeout_s=inf)),
        }
        self.breakers["probing"].record_failure()
        self.probe = self.breakers["probing"].permit()  # out at every fork, as is the slot
        self.small = Bulkhead("small", 2, listeners=listeners)
        self.small.acquire()
        self.queued = Bulkhead("queued", 2, 2 * THREADS, None)
        self.budget = RetryBudget(0.5, 100.0, 50)
        self.policy = RetryPolicy(1, 0.0, budget=self.budget, listeners=listeners, sleep=lambda seconds: None)
        self.registry = CircuitBreakerRegistry(max_size=4, listeners=listeners)
        self.handler = Kept()

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
            lambda: self.policy.call(body),
            lambda: self.registry[KEYS[turn % len(KEYS)]].call(body),
            lambda: self.registry.remove(KEYS[turn % len(KEYS)]),
        ]
        for use in uses:
            try:
                use()
            except (*EXPECTED, KeyError):
                pass

    def used_by_a_child(self) -> int:
        """Use everything that was inherited, and see that it is as new; return how many slots were held at the fork."""
        for name, breaker in self.breakers.items():
            seen = breaker.snapshot()
            assert seen.probes_in_flight == 0, name
            assert breaker in CircuitBreaker.instances()
            before = breaker.stats.success_count
            if breaker.state is CircuitState.HALF_OPEN:
                permits = [breaker.permit() for _ in range(breaker.config.half_open_max_calls)]
                assert not breaker.allow_request(), name
                for permit in permits:
                    permit.ignore()
            assert breaker.allow_request(), name
            breaker.record_ignored()
            breaker.call(int)
            assert breaker.stats.success_count == before + 1, name
            breaker.reset()
            breaker.config = CircuitBreakerConfig(1, 1, 0.0)
            with breaker, breaker.permit():
                pass
            breaker.record_failure()  # is logged, and told
            assert breaker.state is CircuitState.HALF_OPEN, name
            breaker(int)()
            assert breaker.is_closed, name
            breaker.mode = CircuitMode.FORCED_OPEN
            assert breaker.is_open, name
        held = 0
        for bulkhead in (self.small, self.queued):
            seen_inside = bulkhead.snapshot()
            assert (seen_inside.active_count, seen_inside.queued_count) == (0, 0), bulkhead.name
            assert [bulkhead.acquire() for _ in range(bulkhead.max_concurrent)] == [True, True], bulkhead.name
            if not bulkhead.max_queue:
                assert not bulkhead.acquire()
            for _ in range(bulkhead.max_concurrent):
                bulkhead.release()
            bulkhead.call(int)
            for given_back in range(bulkhead.max_concurrent + 1):
                try:
                    bulkhead.release()  # of the parent's, which is swallowed, but no more than could be held
                except RuntimeError:
                    held += given_back
                    break
            else:
                raise AssertionError(f"{bulkhead.name} swallows releases for ever")
            assert bulkhead.available_slots == bulkhead.max_concurrent
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
        assert self.events
        assert self.handler.records
        return held

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
            logger.removeHandler(self.handler)
            logger.propagate = before


def forked(use: Callable[[], object]) -> str:
    """Return what use gives in a child, in words; ended by force it has said nothing."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that other threads run is what this is about
        child = os.fork()
    if child == 0:
        said = "it did not even fail"
        try:
            said = str(use())
        except BaseException:
            said = "failed: " + traceback.format_exc()[-2_000:]
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], PATIENCE_S)
        told = os.read(reader, 10_000).decode() if ready else "hangs"
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)  # harmless to one that has ended and is not yet waited for
        os.waitpid(child, 0)
    return told


def children(forks: int) -> Finding:
    everything = Everything()
    inherited = 0
    longest_s = 0.0
    with everything.under_load() as bad:
        for _ in range(forks):
            started = time.perf_counter()
            told = forked(everything.used_by_a_child)
            longest_s = max(longest_s, time.perf_counter() - started)
            if told.isdecimal():
                inherited += int(told)
            else:
                bad.append(told)
    everything.small.release()
    everything.probe.ignore()
    small, queued, probing = everything.small, everything.queued, everything.breakers["probing"]
    left = small.active_count + queued.active_count + queued.queued_count + probing.snapshot().probes_in_flight
    figure = (
        f"{forks:,} children, {len(bad)} hung or saw something amiss, {inherited:,} slots were held when they were"
        f" forked; the longest took {longest_s:.2f} s"
    )
    return Finding(not bad and not left and inherited >= forks, figure + "".join(f"\n{each}" for each in bad[:3]))


def _claims() -> Iterator[Claim]:
    if hasattr(os, "fork"):
        yield Claim(f"forked while {THREADS} threads use everything: each child is sound", children, 30, 1_000)


CLAIMS: list[Claim] = list(_claims())
