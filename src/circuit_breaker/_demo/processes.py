"""Several processes that call the server, and share one circuit over a temporary SQLite file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, Final

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitSnapshot, CircuitState, CircuitStats, StateChanged
from circuit_breaker._demo import plan
from circuit_breaker._demo.story import Ending, Story
from circuit_breaker.stores import SQLiteStore, Store

CALLER: Final = "circuit_breaker._demo.caller"
FIGURES: Final = 5
LOOK_S: Final = 0.02  # how often the record of the circuit is read
BEGIN_S: Final = 20.0  # how long a process may take to make its first call
END_S: Final = 5.0


class Caller:
    """One process, and what it has counted: successes, failures, rejections, retries, and calls they saved."""

    def __init__(self, story: Story, path: Path) -> None:
        self.figures = [0] * FIGURES
        self._process: Any = subprocess.Popen(  # noqa: S603 - what it runs is of this package
            [sys.executable, "-m", CALLER, str(story.server.port), str(path), str(story.plan.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="ascii",
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def has_begun(self) -> bool:
        """Whether it has called, or never will."""
        return any(self.figures) or not self._reader.is_alive()

    def end(self) -> None:
        """Let it end after the call that it makes."""
        self._process.stdin.close()

    def wait(self) -> None:
        """Wait until it has ended, but not for long."""
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                self.figures = json.loads(line)


class Fleet:
    """The circuit that all share, as the story looks at it: the state in the store, the sums of what all count."""

    def __init__(self, story: Story, store: Store, callers: list[Caller]) -> None:
        self._story = story
        self._store = store
        self._callers = callers
        self._template = CircuitBreaker("server").snapshot()
        self._opened_count = 0
        self._state = CircuitState.CLOSED

    @property
    def is_closed(self) -> bool:
        """Whether it is closed for all."""
        return self._state is CircuitState.CLOSED

    def look(self) -> None:
        """Read the store, and tell the story if the circuit has changed."""
        for circuit in self._store.circuits():
            state = circuit.state or self._state
            if state is not self._state:
                self._opened_count += state is CircuitState.OPEN
                self._story.listen(StateChanged(circuit.name, self._state, state, circuit.reason))
                self._state = state

    def snapshot(self) -> CircuitSnapshot:
        """Return what all processes have counted together."""
        successes, failures, rejected, _, _ = self._sums()
        stats = CircuitStats(successes, failures, rejected_count=rejected, opened_count=self._opened_count)
        return replace(self._template, state=self._state, machine_state=self._state, stats=stats)

    def ending(self) -> Ending:
        """Return the figures of the summary."""
        ending = self._story.ending(self, Bulkhead("server"))
        _, _, _, retries, saved = self._sums()
        return replace(ending, retries=retries, saved=saved, processes=len(self._callers))

    def _sums(self) -> list[int]:
        return [sum(caller.figures[number] for caller in self._callers) for number in range(FIGURES)]


def run(story: Story, number: int) -> Ending:
    """Let this number of processes call until the story is over; return the figures of the summary."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "circuits.db")
        store = SQLiteStore(path, timeout_s=plan.STORE_TIMEOUT_S)
        callers = _begin(story, path, number)
        fleet = Fleet(story, store, callers)
        try:
            for wait_s in story.happen(fleet):
                time.sleep(min(wait_s, LOOK_S))
                fleet.look()
        finally:
            ending = fleet.ending()
            story.end()
            for caller in callers:
                caller.end()
            for caller in callers:
                caller.wait()
    return ending


def _begin(story: Story, path: Path, number: int) -> list[Caller]:
    """Start the processes, and wait until each has called."""
    # A terminal sends Ctrl-C to all of them, and whoever is born while it is ignored ignores it, too.
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        callers = [Caller(story, path) for _ in range(number)]
    finally:
        signal.signal(signal.SIGINT, former)
    ends_at = time.monotonic() + BEGIN_S
    while not (story.interrupted or all(caller.has_begun for caller in callers)) and time.monotonic() < ends_at:
        time.sleep(LOOK_S)
    return callers
