"""The demonstration with processes that share one circuit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitState
from circuit_breaker.__main__ import main
from circuit_breaker._demo import caller as caller_room
from circuit_breaker._demo import processes, screen, threads
from circuit_breaker._demo.plan import Phase, Plan
from circuit_breaker._demo.processes import Caller, Fleet
from circuit_breaker._demo.server import Server
from circuit_breaker._demo.story import Ending, Story, Watched
from circuit_breaker.stores import MemoryStore, SQLiteStore

CLOSED, OPEN = CircuitState.CLOSED, CircuitState.OPEN
NOTHING = Ending({}, [], CircuitBreaker().snapshot(), Bulkhead().snapshot())


class Short(Story):
    """The server fails until the circuit is open, and recovers until it is closed."""

    def __init__(self, server: Server) -> None:
        super().__init__(Plan(3), server, show=id)

    def happen(self, breaker: Watched) -> Iterator[float]:
        yield from self._while(lambda: breaker.snapshot().stats.success_count < 3)
        for phase, state in ((Phase.FAILS, OPEN), (Phase.RECOVERED, CLOSED)):
            self.server.phase = phase
            yield from self._while(lambda state=state: breaker.snapshot().state is not state)

    def _while(self, holds: Callable[[], bool]) -> Iterator[float]:
        ends_at = time.monotonic() + PATIENCE_S
        while holds():
            assert time.monotonic() < ends_at
            yield 0.01


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def begin(server: Server, tmp_path: Path) -> Iterator[Callable[[], Caller]]:
    begun: list[Caller] = []

    def begin() -> Caller:
        begun.append(Caller(Short(server), tmp_path / "circuits.db"))
        return begun[-1]

    yield begin
    for caller in begun:
        caller.end()
        caller.wait()


def test_they_share_one_circuit(server: Server) -> None:
    former = signal.getsignal(signal.SIGINT)
    ending = processes.run(Short(server), 3)
    assert [change.state for change in ending.changes][:1] == [OPEN]
    assert ending.changes[-1].state is CLOSED
    stats = ending.breaker.stats
    assert stats.opened_count >= 1
    assert min(stats.success_count, stats.failure_count, ending.retries) > 0
    assert ending.processes == 3
    assert signal.getsignal(signal.SIGINT) is former


def test_the_command_lets_so_many_call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[int] = []

    def run(story: Story, number: int) -> Ending:
        told.append(number)
        return replace(NOTHING, processes=number)

    monkeypatch.setattr(processes, "run", run)
    before = signal.getsignal(signal.SIGINT)
    assert main(["--processes", "12", "--plain"]) == 1
    signal.signal(signal.SIGINT, before)
    assert told == [12]
    said = capsys.readouterr().out
    assert said.startswith("\n".join(screen.code(Plan(10), False, 12)))
    assert "\n   shared  one circuit for 12 processes: it opens, probes and closes for all\n" in said
    assert "bulkhead  let" not in said


def test_the_code_shown_has_the_store() -> None:
    assert screen.code(Plan(10), False, 8)[:6] == [
        "8 processes call a server that fails and recovers:",
        "",
        '    store = SQLiteStore("circuits.db", interval_s=0.1)',
        "",
        "    @retry(max_retries=2, backoff_base=0.05)",
        '    @circuit_breaker("server", reset_timeout_s=0.5, store=store)',
    ]


@pytest.mark.parametrize("value", ["1", "0", "-2", "65", "2.5", "two", "\N{SUPERSCRIPT TWO}", ""])
def test_an_impossible_number_is_one_line_and_status_2(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--processes", value])
    assert left.value.code == 2
    assert capsys.readouterr() == (
        "",
        f"python -m circuit_breaker: argument --processes: takes a whole number from 2 to 64, got {value!r}\n",
    )


def test_processes_and_tasks_at_once_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--processes", "2", "--async"])
    assert left.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_the_circuit_is_what_the_store_says(server: Server) -> None:
    story, store = Short(server), MemoryStore(manual=True)
    fleet = Fleet(story, store, [])
    fleet.look()
    assert fleet.is_closed
    store.force_open("server")
    fleet.look()
    fleet.look()
    assert (fleet.is_closed, fleet.ending().changes[0].state, len(fleet.ending().changes)) == (False, OPEN, 1)
    store.update("server", lambda text, now: "garbage")
    fleet.look()
    assert not fleet.is_closed
    assert len(fleet.ending().changes) == 1


def test_a_process_that_never_calls_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "CALLER", "circuit_breaker._demo.nowhere")
    (caller,) = processes._begin(Short(server), tmp_path / "circuits.db", 1)
    assert caller.has_begun
    assert caller.figures == [0] * 5
    caller.end()
    caller.wait()
    assert "nowhere" in capfd.readouterr().err


def test_nobody_waits_for_processes_after_ctrl_c(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes, "Caller", lambda *_: None)  # which has not begun
    story = Short(server)
    story.interrupt()
    assert processes._begin(story, tmp_path, 2) == [None, None]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
def test_a_process_that_does_not_end_is_killed(begin: Callable[[], Caller], monkeypatch: pytest.MonkeyPatch) -> None:
    caller = begin()
    caller._process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(processes, "END_S", 0.01)
    caller.end()
    caller.wait()
    assert caller._process.returncode == -signal.SIGKILL


def run_caller(server: Server, path: Path, **pipes: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-X", "dev", "-m", "circuit_breaker._demo.caller", str(server.port), str(path), "3"]
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False, **pipes)


def test_a_process_ends_when_nobody_holds_its_input(server: Server, tmp_path: Path) -> None:
    done = run_caller(server, tmp_path / "circuits.db", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_process_ends_when_nobody_reads_its_output(server: Server, tmp_path: Path) -> None:
    held, mine = os.pipe()
    reader, writer = os.pipe()
    os.close(reader)
    done = run_caller(server, tmp_path / "circuits.db", stdin=held, stdout=writer)
    for each in (held, mine, writer):
        os.close(each)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_processes_share_is_one_file(begin: Callable[[], Caller], tmp_path: Path) -> None:
    callers = [begin(), begin()]
    ends_at = time.monotonic() + PATIENCE_S
    store = SQLiteStore(tmp_path / "circuits.db", timeout_s=5.0)
    while not all(caller.has_begun for caller in callers) or len(store.members()) < 2:
        assert time.monotonic() < ends_at
    assert [circuit.name for circuit in store.circuits()] == ["server"]


def test_a_process_calls_until_its_story_is_over(server: Server, tmp_path: Path, capsys: Any) -> None:
    story = Short(server)
    fetch = threads.guarded(story, SQLiteStore(tmp_path / "circuits.db", timeout_s=5.0))
    story.over = True
    caller_room._call(story, fetch)
    assert capsys.readouterr().out == ""
