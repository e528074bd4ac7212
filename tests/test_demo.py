"""The rooms of the demonstration: its arguments, plan, server, story and screen."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any

import pytest
from support import PATIENCE_S, Clock, fail, succeed

from circuit_breaker import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitState,
    RetryScheduled,
    StateChanged,
)
from circuit_breaker.__main__ import main
from circuit_breaker._demo import screen, tasks, threads
from circuit_breaker._demo.plan import CALLERS, MAX_CONCURRENT, MAX_QUEUE, Phase, Plan
from circuit_breaker._demo.server import Server
from circuit_breaker._demo.story import Change, Chapter, Ending, Quarter, Story, quarter

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


# Arguments


@pytest.mark.parametrize("value", ["0", "-4", "2.9", "3601", "nan", "inf", "soon", ""])
def test_impossible_seconds_are_one_line_and_status_2(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--seconds", value])
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (f"python -m circuit_breaker: argument --seconds: takes a number from 3 to 3600, got {value!r}\n")


def test_an_unknown_argument_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--minutes", "1"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "python -m circuit_breaker: unrecognized arguments: --minutes 1\n"


def test_help_tells_every_option_and_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("--seconds N", "--async", "--plain", "NO_COLOR", "exit status", "130"))
    words = " ".join(out.split())
    assert "how long it takes, about (default: 10)" in words
    assert "eight tasks of one event loop instead of threads" in words
    assert "a line for each quarter of a second, as when the output is no terminal" in words
    assert all(len(line) <= 80 for line in out.splitlines())


def test_an_abbreviated_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--pla"])
    assert left.value.code == 2
    assert "unrecognized arguments: --pla" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "seconds", "runner"),
    [([], 10.0, threads), (["--seconds", "3600"], 3600.0, threads), (["--seconds", "3", "--async"], 3.0, tasks)],
)
@pytest.mark.parametrize(("as_told", "status"), [(True, 0), (False, 1)])
def test_the_arguments_say_how_long_and_with_what_and_the_status_whether_it_went_as_told(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], seconds: float, runner: Any, as_told: bool, status: int
) -> None:
    told: list[Story] = []

    def run(story: Story) -> Any:
        told.append(story)
        return SimpleNamespace(as_told=as_told)

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(screen, "summary", lambda ending, paint: [])
    former = signal.getsignal(signal.SIGINT)
    try:
        assert main(arguments) == status
    finally:
        signal.signal(signal.SIGINT, former)
    assert [story.plan.seconds for story in told] == [seconds]


# The plan and the server


@pytest.mark.parametrize("seconds", [3, 3.3, 4, 10, 60, 3600])
def test_every_phase_has_its_time(seconds: float) -> None:
    plan = Plan(seconds)
    phases = [plan.phase(number) for number in range(plan.quarters * 2)]
    assert list(dict.fromkeys(phases)) == list(Phase)
    assert all(phases.count(phase) >= 2 for phase in Phase)
    assert plan.reset_timeout_s + plan.timeout_s < (plan.end(Phase.RECOVERED) - plan.end(Phase.HANGS)) * 0.25


def test_more_callers_than_the_bulkhead_takes() -> None:
    assert MAX_CONCURRENT + MAX_QUEUE < CALLERS


def test_the_server_is_as_it_is_told_and_leaves_nothing_running() -> None:
    def get(timeout_s: float = PATIENCE_S) -> int:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{server.port}/", timeout=timeout_s) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    class Told(Server):
        def status(self) -> int:
            asked.set()
            return super().status()

    asked = threading.Event()
    before = threading.active_count()
    with Told() as server:
        assert get() == 200
        server.phase = Phase.FAILS
        assert get() == 500
        server.phase = Phase.HANGS
        with pytest.raises(TimeoutError):
            get(timeout_s=0.1)
        server.phase = Phase.RECOVERED
        assert {get() for _ in range(3)} == {200}
        server.phase = Phase.HANGS
        asked.clear()
        waiting = socket.create_connection(("127.0.0.1", server.port))
        waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert asked.wait(PATIENCE_S)
    assert waiting.recv(1 << 10).startswith(b"HTTP/1.0 200")
    waiting.close()
    assert threading.active_count() == before


def test_a_fault_of_the_server_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(Server):
        def status(self) -> int:
            raise ZeroDivisionError

    with Broken() as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert connection.recv(1 << 10) == b""
    assert "ZeroDivisionError" in capsys.readouterr().err


# The story, on a clock that stands still


class Patient:
    """A server that nobody asks."""

    phase = Phase.HEALTHY


class Teller:
    """A story with its own clock, breaker and bulkhead."""

    def __init__(self, clock: Clock, seconds: float = 4) -> None:
        self.clock = clock
        self.shown: list[Quarter] = []
        self.server: Any = Patient()
        self.story = Story(Plan(seconds), self.server, self.shown.append, clock=clock)
        config = CircuitBreakerConfig(failure_threshold=2, success_threshold=1, reset_timeout_s=0.5)
        self.breaker = CircuitBreaker("server", config, listeners=[self.story.listen], clock=clock)
        self.bulkhead = Bulkhead()

    def tell(self, react: Any = lambda: None) -> Ending:
        """Let it happen; react is called at the beginning of every sleep."""
        for wait_s in self.story.happen(self.breaker):
            react()
            self.clock.advance(wait_s)
        return self.story.ending(self.breaker, self.bulkhead)


def test_an_outage_is_told_with_its_figures(clock: Clock) -> None:
    teller = Teller(clock)

    def react() -> None:
        clock.advance(0.125)
        if teller.server.phase in (Phase.HEALTHY, Phase.RECOVERED):
            if teller.breaker.state is not OPEN:
                succeed(teller.breaker, 3)
        elif teller.breaker.state is OPEN:
            assert not teller.breaker.allow_request()
        else:
            fail(teller.breaker, 1 if teller.breaker.state is HALF_OPEN else 2)

    ending = teller.tell(react)
    assert ending.as_told
    assert ending.opened_after_s == pytest.approx(0.125)
    assert ending.closed_after_s is not None
    assert 0.125 <= ending.closed_after_s <= 0.625
    assert ending.spared == ending.breaker.stats.rejected_count > 0
    assert ending.suffered == ending.breaker.stats.failure_count > 2
    assert sum(quarter.calls for quarter in teller.shown) == ending.suffered + ending.breaker.stats.success_count
    assert sum(quarter.failures for quarter in teller.shown) == ending.suffered
    assert sum(quarter.refused for quarter in teller.shown) == ending.spared


def test_the_phases_come_in_their_time(clock: Clock) -> None:
    teller = Teller(clock)
    ending = teller.tell()
    phases = [quarter.phase for quarter in teller.shown]
    assert [phases.count(phase) for phase in Phase] == [3, 4, 4, 5]
    assert [chapter.at_s for chapter in ending.chapters.values()] == pytest.approx([0, 0.75, 1.75, 2.75])
    assert [quarter.at_s for quarter in teller.shown] == pytest.approx([0.25 * n for n in range(1, 17)])
    assert not ending.as_told


def test_it_waits_a_while_for_a_circuit_that_is_still_open(clock: Clock) -> None:
    teller = Teller(clock)
    fail(teller.breaker, 2)
    teller.breaker.config = CircuitBreakerConfig(reset_timeout_s=60)
    teller.tell()
    assert len(teller.shown) == 24


def test_a_machine_that_stood_still_skips_no_phase(clock: Clock) -> None:
    teller = Teller(clock)
    stalls = iter([2.0])
    teller.tell(lambda: clock.advance(next(stalls, 0.0)))
    assert len(teller.shown) == 16
    assert teller.shown[1].at_s - teller.shown[0].at_s == pytest.approx(0.25)


def test_an_interrupted_story_ends_at_its_next_look(clock: Clock) -> None:
    teller = Teller(clock)
    ending = teller.tell(teller.story.interrupt)
    assert teller.shown == []
    assert (ending.opened, ending.closed, ending.spared, ending.suffered) == (None, None, 0, 0)


def test_a_circuit_that_opened_before_the_server_fell_ill_has_not_opened_because_of_it(clock: Clock) -> None:
    breaker = CircuitBreaker(clock=clock).snapshot()
    ending = Ending({Phase.FAILS: Chapter(2.0, breaker)}, [Change(1.0, OPEN, "")], breaker, Bulkhead().snapshot())
    assert ending.opened is None


def test_a_circuit_that_opened_once_more_has_not_closed(clock: Clock) -> None:
    breaker = CircuitBreaker(clock=clock).snapshot()
    changes = [Change(2.0, OPEN, ""), Change(4.0, CLOSED, ""), Change(5.0, OPEN, "")]
    chapters = {Phase.FAILS: Chapter(1.0, breaker), Phase.RECOVERED: Chapter(3.0, breaker)}
    assert not Ending(chapters, changes, breaker, Bulkhead().snapshot()).as_told
    assert Ending(chapters, changes[:2], breaker, Bulkhead().snapshot()).as_told


def test_a_call_is_saved_if_it_is_answered_after_a_retry(clock: Clock) -> None:
    teller = Teller(clock)
    with teller.story.calling():
        pass
    with teller.story.calling():
        teller.story.listen(RetryScheduled(0, 0.1, None, 0.0))
        teller.story.listen(RetryScheduled(1, 0.1, None, 0.0))
    with teller.story.calling():
        teller.story.listen(RetryScheduled(0, 0.1, None, 0.0))
        raise BulkheadFullError("full")
    ending = teller.story.ending(teller.breaker, teller.bulkhead)
    assert (ending.retries, ending.saved) == (3, 1)


def test_an_error_that_is_no_outage_is_not_hidden(clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError), Teller(clock).story.calling():
        raise ZeroDivisionError


def test_what_the_circuit_did_is_kept_with_its_time(clock: Clock) -> None:
    teller = Teller(clock)
    clock.advance(1.5)
    teller.story.listen(StateChanged("server", CLOSED, OPEN, "why"))
    assert teller.story.ending(teller.breaker, teller.bulkhead).changes == [Change(1.5, OPEN, "why")]


def test_a_quarter_in_which_an_open_circuit_probed_says_so(clock: Clock) -> None:
    teller = Teller(clock)
    before = teller.breaker.snapshot()
    fail(teller.breaker, 2)
    after = teller.breaker.snapshot()
    assert quarter(1.0, Phase.FAILS, before, after, []) == Quarter(1.0, Phase.FAILS, OPEN, 2, 2, 0)
    probed = [Change(0.9, HALF_OPEN, ""), Change(0.95, OPEN, "")]
    assert quarter(1.0, Phase.FAILS, before, after, probed).state is HALF_OPEN
    assert quarter(1.0, Phase.FAILS, before, before, probed).state is CLOSED


# What is drawn, and where


class Terminal(io.StringIO):
    """A terminal that shows nothing."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return -1


@pytest.mark.parametrize(
    ("size", "platform", "plain", "environ", "live"),
    [
        ((60, 10), "linux", False, {"TERM": "xterm"}, True),
        ((60, 10), "linux", False, {}, True),
        ((59, 24), "linux", False, {}, False),
        ((80, 9), "linux", False, {}, False),
        ((80, 24), "linux", True, {}, False),
        ((80, 24), "linux", False, {"TERM": "dumb"}, False),
        ((80, 24), "win32", False, {}, False),
        ((80, 24), "win32", False, {"WT_SESSION": "1"}, True),
    ],
)
def test_the_picture_is_for_terminals_that_can_show_it(
    monkeypatch: pytest.MonkeyPatch, size: Any, platform: str, plain: bool, environ: dict[str, str], live: bool
) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size(size))
    monkeypatch.setattr(sys, "platform", platform)
    assert (type(screen.screen(Terminal(), plain, environ)) is screen.Live) is live
    assert type(screen.screen(io.StringIO(), plain, environ)) is screen.Plain


QUARTERS = [
    Quarter(0.25, Phase.HEALTHY, CLOSED, 8, 0, 0),
    Quarter(0.5, Phase.HEALTHY, CLOSED, 4, 1, 0),
    Quarter(0.75, Phase.HEALTHY, CLOSED, 4, 0, 0),
    Quarter(1.0, Phase.FAILS, OPEN, 2, 2, 7),
    Quarter(1.25, Phase.FAILS, HALF_OPEN, 1, 1, 100),
]


def test_a_line_of_the_table() -> None:
    assert screen.line(QUARTERS[-1]) == "  1.25  fails      probing      1         1      100"


def test_the_picture_of_a_few_quarters() -> None:
    lines = screen.timeline(QUARTERS[:4], Plan(4), 60, screen.BLOCKS, screen.no_colours)
    assert lines == [
        "server    │healt│fails  │hangs  │recovered",
        "circuit   ──────██",
        "calls     ██▄▄▄▄▂▂                              18",
        "failures    ▁▁  ▂▂                               3",
        "refused         ▇▇                               7",
        "1.00 s    ─ closed  █ open  ▒ probing   a mark is 0.25 s",
    ]


@pytest.mark.parametrize("seconds", [3, 10, 60, 3600])
@pytest.mark.parametrize("columns", [60, 80, 120, 400])
@pytest.mark.parametrize("late", [0, 5])
def test_the_picture_is_narrower_than_the_terminal(seconds: float, columns: int, late: int) -> None:
    quarters = QUARTERS * Plan(seconds).quarters
    for marks in (screen.BLOCKS, screen.ASCII):
        for so_far in (0, 1, 7, Plan(seconds).quarters + late):
            lines = screen.timeline(quarters[:so_far], Plan(seconds), columns, marks, screen.no_colours)
            assert all(len(line) < columns for line in lines)


def test_colours_change_no_character() -> None:
    args = (QUARTERS, Plan(10), 80, screen.BLOCKS)
    coloured = "\n".join(screen.timeline(*args, screen.colours))
    assert "\x1b[31m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == "\n".join(screen.timeline(*args, screen.no_colours))


def test_the_marks_are_those_the_encoding_has() -> None:
    assert screen.marks_for("utf-8") is screen.BLOCKS
    assert [screen.marks_for(name) for name in ("ascii", "latin-1", "no such encoding")] == [screen.ASCII] * 3


def test_the_code_shown_is_that_of_the_form() -> None:
    threads, tasks = screen.code(Plan(10), False), screen.code(Plan(10), True)
    assert threads[0] == "Eight threads call a server that falls ill and recovers:"
    assert tasks[0] == "Eight tasks call a server that falls ill and recovers:"
    assert '    @circuit_breaker("server", reset_timeout_s=0.5)' in threads
    assert "    async def fetch(): ...  # one GET with a timeout of 0.5 s" in tasks


def test_the_summary(clock: Clock) -> None:
    breaker = CircuitBreaker(config=CircuitBreakerConfig(failure_threshold=2, reset_timeout_s=5), clock=clock)
    bulkhead = Bulkhead(max_concurrent=1)
    began = breaker.snapshot()
    fail(breaker, 2)
    for _ in range(1_200):
        assert not breaker.allow_request()
    well = breaker.snapshot()
    clock.advance(5)
    succeed(breaker, 3)
    with bulkhead:
        assert not bulkhead.acquire()
    ending = Ending(
        {Phase.FAILS: Chapter(2.0, began), Phase.RECOVERED: Chapter(7.0, well)},
        [Change(2.1, OPEN, "2 failures in a row (threshold 2)"), Change(7.04, HALF_OPEN, ""), Change(7.35, CLOSED, "")],
        breaker.snapshot(),
        bulkhead.snapshot(),
        retries=31,
        saved=9,
    )
    assert screen.summary(ending) == [
        "   0.10 s  until the circuit opened: 2 failures in a row",
        "    1,200  calls the sick server was spared, 2 reached it",
        "   0.35 s  until it closed again after the recovery",
        "",
        "    retry  tried again 31 times, which saved 9 calls",
        "  breaker  opened 1 time, refused 1,200 calls",
        " bulkhead  let at most 1 in at once, turned 1 away",
    ]


def test_the_summary_of_what_has_not_happened(clock: Clock) -> None:
    ending = Ending({}, [], CircuitBreaker(clock=clock).snapshot(), Bulkhead().snapshot())
    assert screen.summary(ending)[:3] == [
        "        -  the circuit has not opened",
        "        0  calls the sick server was spared, 0 reached it",
        "        -  the circuit has not closed again",
    ]
