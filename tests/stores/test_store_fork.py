"""Forks: the thread ends before, and parent and child begin again with their next call, as two members."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from failures import Down
from forks import Child, told_by_child
from needs import needs_fork
from patience import PATIENCE_S

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, CircuitState
from circuit_breaker._shared.process import talker_of
from circuit_breaker.stores import MemoryStore, SQLiteStore

pytestmark = needs_fork
CONFIG = CircuitBreakerConfig(failure_threshold=2, reset_timeout_s=60.0)
LONG_S = 600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "circuits.db", interval_s=LONG_S, timeout_s=5.0)
    yield store
    end(store)


def end(store: Any) -> None:
    thread = talker_of(store).stop()
    if thread is not None:
        thread.join(PATIENCE_S)


def fail() -> None:
    raise Down


def test_a_child_is_another_member(store: SQLiteStore) -> None:
    breaker = CircuitBreaker("api", CONFIG, store=store)
    breaker.call(int)

    def tell() -> object:
        breaker.call(int)
        return os.getpid() in {member.pid for member in store.members()}

    assert told_by_child(tell) == "True"
    assert {member.pid for member in store.members()} > {os.getpid()}


def test_what_the_parent_has_counted_is_reported_by_the_parent_only(store: SQLiteStore) -> None:
    breaker = CircuitBreaker("api", CONFIG, store=store)
    breaker.call(int)
    store.sync()
    for _ in range(10):
        breaker.call(int)

    def tell() -> object:
        breaker.call(int)
        store.sync()
        return breaker.stats.success_count

    assert told_by_child(tell) == "12"
    store.sync()
    assert store.circuits()[0].successes == 12


FORKS = """
import os, sys, threading
from circuit_breaker import CircuitBreaker
from circuit_breaker._shared.process import talker_of
from circuit_breaker.stores import SQLiteStore

store = SQLiteStore(sys.argv[1])
breaker = CircuitBreaker("api", store=store)
breaker.call(int)
assert (talker_of(store)._thread is not None, len(store._idle)) == (True, 1)
child = os.fork()
if child == 0:
    os._exit((threading.active_count(), store._idle) != (1, []))
assert os.waitpid(child, 0)[1] == 0
assert talker_of(store)._thread is None
assert breaker.call(int) == 0
assert talker_of(store)._thread is not None
"""


def test_no_thread_and_no_connection_is_there_in_the_moment_of_a_fork(tmp_path: Path) -> None:
    # In a process of its own, without threads of other tests: 3.12 and newer warn if one with threads is forked.
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", FORKS, tmp_path / "circuits.db"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_an_order_before_a_fork_leaves_the_child_no_connection(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "circuits.db")
    store.force_open("api")
    (kept,) = store._idle
    told_by_child(store.circuits)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        kept.connection.execute("SELECT 1")


def test_parent_and_child_learn_with_their_next_call(store: SQLiteStore) -> None:
    breaker = CircuitBreaker("api", CONFIG, store=store)
    breaker.call(int)

    def tell() -> object:
        before = breaker.state
        try:
            breaker.call(int)
        except CircuitOpenError:
            return before, breaker.state
        return None

    store.force_open("api")
    assert told_by_child(tell) == repr((CircuitState.CLOSED, CircuitState.OPEN))
    with pytest.raises(CircuitOpenError):
        breaker.call(int)


def test_a_child_of_an_open_circuit_follows_it_too(store: SQLiteStore) -> None:
    breaker = CircuitBreaker("api", CONFIG, store=store)
    store.force_open("api")
    with pytest.raises(CircuitOpenError):
        breaker.call(int)

    def tell() -> object:
        store.reset("api")
        return breaker.call(int)

    assert told_by_child(tell) == "0"


def test_probes_and_leases_are_the_parents() -> None:
    store = MemoryStore(interval_s=LONG_S, timeout_s=5.0)
    breaker = CircuitBreaker("api", CONFIG.replace(reset_timeout_s=0.0, half_open_max_calls=1), store=store)
    breaker.call(int)
    from circuit_breaker._shared import changes
    from circuit_breaker._shared.record import Edit, Rules

    store.update("api", Edit(changes.opened(0, Rules(0.0, 1, 1, 1), "down", "x:1")))
    store.sync()
    permit = breaker.permit()

    def tell() -> object:
        try:
            breaker.call(int)
        except CircuitOpenError:
            permit.success()  # of no period of this process
            return breaker.snapshot().probes_in_flight, breaker.state.value
        return None

    assert told_by_child(tell) == "(0, 'half_open')"
    permit.success()
    store.sync()
    assert breaker.state is CircuitState.CLOSED
    end(store)


def test_a_fork_waits_for_a_thread_that_hangs_no_longer_than_two_timeouts() -> None:
    class Hanging(MemoryStore):
        go_on = threading.Event()

        def exchange(self, *args: Any) -> Any:
            assert self.go_on.wait(PATIENCE_S)
            return super().exchange(*args)

    store = Hanging(timeout_s=0.05, interval_s=LONG_S)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    breaker.call(int)
    hung = talker_of(store)._thread
    began = time.monotonic()

    def tell() -> object:
        store.go_on = threading.Event()
        store.go_on.set()
        return breaker.call(int), breaker.snapshot().shared.link  # type: ignore[union-attr]

    child = Child.start(tell)
    assert 0.1 <= time.monotonic() - began < PATIENCE_S / 2
    assert child.hear() == "(0, 'joined')"
    assert breaker.call(int) == 0
    assert talker_of(store)._thread not in (hung, None)
    store.go_on.set()
    assert hung is not None
    hung.join(PATIENCE_S)
    store.sync()
    assert breaker.snapshot().shared.link == "joined"  # type: ignore[union-attr]
    end(store)


def test_a_fork_on_the_stores_own_thread_does_not_hang() -> None:
    heard: list[str] = []

    class Forking(MemoryStore):
        def exchange(self, *args: Any) -> Any:
            if not heard:
                heard.append("")
                heard[0] = told_by_child(lambda: breaker.call(int))
            return super().exchange(*args)

    store = Forking(interval_s=LONG_S, timeout_s=5.0)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    assert breaker.call(int) == 0
    assert heard == ["0"]
    store.sync()
    assert store.circuits()[0].successes == 1
    end(store)


def test_forks_in_the_middle_of_everything(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "circuits.db", interval_s=0.002, timeout_s=5.0)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    children = 25

    def tell() -> object:
        for _ in range(10):
            breaker.call(int)
        store.sync()
        return breaker.state.value

    for _ in range(children):
        breaker.call(int)
        assert told_by_child(tell) == "'closed'"
    store.sync()
    assert store.circuits()[0].successes == children * 11
    end(store)
