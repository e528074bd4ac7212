"""The rooms of the demonstration: its arguments, plan, server, story, callers and screen."""

from __future__ import annotations

import asyncio
import http.client
import io
import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError, fields
from types import SimpleNamespace
from typing import Any

import pytest
from calls import fail, succeed
from clocks import Clock
from patience import PATIENCE_S

from circuit_breaker import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitMode,
    CircuitSnapshot,
    CircuitState,
    RetryScheduled,
    StateChanged,
)
from circuit_breaker.__main__ import main
from circuit_breaker._demo import screen, tasks, threads
from circuit_breaker._demo import server as server_room
from circuit_breaker._demo.plan import CALLERS, MAX_CONCURRENT, MAX_QUEUE, Phase, Plan
from circuit_breaker._demo.server import Server
from circuit_breaker._demo.story import Change, Chapter, Ending, Quarter, Story, quarter
from circuit_breaker._terminal import ASCII, BLOCKS, colours, marks_for, no_colours

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
HEAD = "  time  server     circuit  calls  failures  rejected"
QUARTERS = [
    Quarter(0.25, Phase.HEALTHY, CLOSED, 8, 0, 0),
    Quarter(0.5, Phase.HEALTHY, CLOSED, 4, 1, 0),
    Quarter(0.75, Phase.HEALTHY, CLOSED, 4, 0, 0),
    Quarter(1.0, Phase.FAILS, OPEN, 2, 2, 7),
    Quarter(1.25, Phase.FAILS, HALF_OPEN, 1, 1, 100),
]
NOTHING = Ending({}, [], CircuitBreaker().snapshot(), Bulkhead().snapshot())


@pytest.fixture(autouse=True)
def ctrl_c_stays_as_it_was() -> Iterator[None]:
    former = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, former)


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


def test_an_unknown_command_is_rejected_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wach", "sqlite:circuits.db"]) == 2
    message = "python -m circuit_breaker: 'wach' is not a command: there are console, watch, replay, simulate\n"
    assert capsys.readouterr().err == message


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


def test_an_abbreviated_argument_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--pla"])
    assert left.value.code == 2
    assert "unrecognized arguments: --pla" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "seconds", "runner"),
    [([], 10.0, threads), (["--seconds", "3600"], 3600.0, threads), (["--seconds", "3", "--async"], 3.0, tasks)],
)
@pytest.mark.parametrize(("as_told", "status"), [(True, 0), (False, 1)])
def test_the_arguments_say_how_long_and_with_what_and_the_status_whether_it_went_as_planned(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], seconds: float, runner: Any, as_told: bool, status: int
) -> None:
    told: list[Story] = []

    def run(story: Story) -> Any:
        told.append(story)
        return SimpleNamespace(as_told=as_told)

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(screen, "summary", lambda ending, paint: [])
    assert main(arguments) == status
    assert [story.plan.seconds for story in told] == [seconds]


# What `main` does beside it


def test_it_shows_the_code_the_timeline_and_the_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(story: Story) -> Ending:
        story.show(QUARTERS[0])
        return NOTHING

    monkeypatch.setattr(threads, "run", run)
    assert main(["--seconds", "3", "--plain"]) == 1
    timeline = [HEAD, screen.line(QUARTERS[0])]
    assert capsys.readouterr().out.splitlines() == [
        *screen.code(Plan(3), False),
        *timeline,
        "",
        *screen.summary(NOTHING),
    ]


def test_ctrl_c_interrupts_the_story_and_the_status_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(story: Story) -> Ending:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert story.interrupted
        return NOTHING

    monkeypatch.setattr(threads, "run", run)
    assert main([]) == 130
    assert capsys.readouterr().out.splitlines() == [
        *screen.code(Plan(10), False),
        HEAD,
        "",
        "Interrupted; so far:",
        "",
        *screen.summary(NOTHING),
    ]


def test_an_ignored_ctrl_c_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(story: Story) -> Ending:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return NOTHING

    monkeypatch.setattr(threads, "run", run)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert main([]) == 1


def test_once_its_reader_has_gone_what_it_still_writes_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def next_number() -> int:
        number = os.dup(writer)
        os.close(number)
        return number

    reader, writer = os.pipe()
    os.close(reader)
    before = next_number()
    with os.fdopen(writer, "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main([]) == 1
        assert next_number() == before
        out.write("And another thing!\n")


# The plan


def test_ten_seconds_are_eight_ten_ten_and_twelve_quarters() -> None:
    plan = Plan(10)
    assert plan.quarters == 40
    assert [plan.end(phase) for phase in Phase] == [8, 18, 28, 40]


@pytest.mark.parametrize(("seconds", "timeout_s", "reset_timeout_s"), [(3, 0.4, 0.2), (10, 0.5, 0.5), (60, 3, 3)])
def test_both_timeouts_grow_with_the_plan(seconds: float, timeout_s: float, reset_timeout_s: float) -> None:
    plan = Plan(seconds)
    assert (plan.timeout_s, plan.reset_timeout_s) == pytest.approx((timeout_s, reset_timeout_s))


@pytest.mark.parametrize(
    "record",
    [Plan(3), QUARTERS[0], Change(1.0, OPEN, ""), Chapter(1.0, NOTHING.breaker), NOTHING],
    ids=lambda record: type(record).__name__,
)
def test_what_is_planned_and_reported_cannot_be_changed(record: Any) -> None:
    for field in fields(record):
        with pytest.raises(FrozenInstanceError):
            setattr(record, field.name, None)


@pytest.mark.parametrize("seconds", [3, 3.3, 4, 10, 60, 3600])
def test_every_phase_has_its_time(seconds: float) -> None:
    plan = Plan(seconds)
    phases = [plan.phase(number) for number in range(plan.quarters * 2)]
    assert list(dict.fromkeys(phases)) == list(Phase)
    assert all(phases.count(phase) >= 2 for phase in Phase)
    assert plan.reset_timeout_s + plan.timeout_s < (plan.end(Phase.RECOVERED) - plan.end(Phase.HANGS)) * 0.25


def test_more_callers_than_the_bulkhead_takes() -> None:
    assert MAX_CONCURRENT + MAX_QUEUE < CALLERS


# The server


def test_the_server_behaves_as_it_is_set_and_leaves_nothing_running() -> None:
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


def test_an_answer_is_whole() -> None:
    with Server() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        connection.request("GET", "/")
        with connection.getresponse() as answer:
            assert (answer.status, answer.reason, answer.getheader("Content-Length")) == (200, "OK", "4")
            assert answer.read() == b"200\n"
        connection.close()


def test_an_answer_takes_a_moment_and_a_hanging_one_until_the_server_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            server.phase = Phase.FAILS

    slept: list[float] = []
    with Server() as server:
        monkeypatch.setattr(server_room, "time", SimpleNamespace(sleep=sleep))
        server.phase = Phase.HANGS
        assert server.status() == 500
    assert slept == [0.03, 0.02, 0.02]


def test_a_healthy_server_has_its_hiccups(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        monkeypatch.setattr(server_room, "time", SimpleNamespace(sleep=lambda _: None))
        answers = [server.status() for _ in range(80)]
    assert answers == ([200] * 39 + [503]) * 2


def test_two_servers_have_their_own_ports() -> None:
    with Server() as one, Server() as another:
        assert one.port != another.port


def test_a_closed_server_listens_no_more() -> None:
    with Server() as server:
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_closing_waits_for_the_answers_under_way() -> None:
    class Slow(Server):
        def status(self) -> int:
            asked.set()
            closed_before.append(closed.wait(0.2))
            return super().status()

    asked, closed = threading.Event(), threading.Event()
    closed_before: list[bool] = []
    with Slow() as server:
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert asked.wait(PATIENCE_S)
    closed.set()
    connection.close()
    assert closed_before == [False]


def test_closing_waits_for_the_thread_that_looks_for_it_twenty_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve_forever(http: Any, poll_interval: float = 0.5) -> None:
        intervals.append(poll_interval)
        original(http, poll_interval)
        closed_before.append(closed.wait(0.2))

    original = server_room._Http.serve_forever
    monkeypatch.setattr(server_room._Http, "serve_forever", serve_forever)
    closed = threading.Event()
    intervals: list[float] = []
    closed_before: list[bool] = []
    with Server():
        pass
    closed.set()
    assert (intervals, closed_before) == ([0.05], [False])


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
    """A server that gets no requests."""

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


def test_an_outage_is_reported_with_its_figures(clock: Clock) -> None:
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

    assert not teller.story.over
    ending = teller.tell(react)
    assert ending.as_told
    assert ending.opened_after_s == pytest.approx(0.125)
    assert ending.closed_after_s is not None
    assert 0.125 <= ending.closed_after_s <= 0.625
    assert ending.rejected == ending.breaker.stats.rejected_count > 0
    assert ending.admitted == ending.breaker.stats.failure_count > 2
    assert sum(quarter.calls for quarter in teller.shown) == ending.admitted + ending.breaker.stats.success_count
    assert sum(quarter.failures for quarter in teller.shown) == ending.admitted
    assert sum(quarter.rejected for quarter in teller.shown) == ending.rejected


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


def test_what_is_late_by_less_than_half_a_quarter_is_made_up_for(clock: Clock) -> None:
    teller = Teller(clock)
    stalls = iter([0.1, 0.0, 0.125, 0.0])
    teller.tell(lambda: clock.advance(next(stalls, 0.0)))
    assert [quarter.at_s for quarter in teller.shown[:5]] == pytest.approx([0.35, 0.5, 0.875, 1.125, 1.375])


def test_it_never_sleeps_for_no_time(clock: Clock) -> None:
    for wait_s in Teller(clock).story.happen(CircuitBreaker()):
        assert wait_s == 0.25
        clock.advance(wait_s)


def test_at_the_end_the_callers_stop_and_the_server_answers_those_who_wait(clock: Clock) -> None:
    teller = Teller(clock)
    teller.server.phase = Phase.HANGS
    teller.story.end()
    assert teller.story.over
    assert teller.server.phase is Phase.RECOVERED


def test_an_interrupted_story_ends_at_its_next_look(clock: Clock) -> None:
    teller = Teller(clock)
    ending = teller.tell(teller.story.interrupt)
    assert teller.shown == []
    assert (ending.opened, ending.closed, ending.rejected, ending.admitted) == (None, None, 0, 0)


def test_a_circuit_that_opened_before_the_server_began_to_fail_has_not_opened_because_of_it(clock: Clock) -> None:
    breaker = CircuitBreaker(clock=clock).snapshot()
    ending = Ending({Phase.FAILS: Chapter(2.0, breaker)}, [Change(1.0, OPEN, "")], breaker, Bulkhead().snapshot())
    assert ending.opened is None


def test_a_circuit_that_opened_and_closed_just_as_the_phases_began_did_so_at_once() -> None:
    chapters = {Phase.FAILS: Chapter(2.0, NOTHING.breaker), Phase.RECOVERED: Chapter(3.0, NOTHING.breaker)}
    ending = Ending(chapters, [Change(2.0, OPEN, ""), Change(3.0, CLOSED, "")], NOTHING.breaker, NOTHING.bulkhead)
    assert (ending.opened_after_s, ending.closed_after_s) == (0.0, 0.0)


def test_only_what_happened_in_the_outage_was_admitted_or_rejected_in_it(clock: Clock) -> None:
    def snapshot(failures: int, rejections: int, successes: int) -> CircuitSnapshot:
        fail(breaker, failures)
        for _ in range(rejections):
            assert not breaker.allow_request()
        clock.advance(breaker.config.reset_timeout_s)
        succeed(breaker, successes)
        return breaker.snapshot()

    breaker = CircuitBreaker(config=CircuitBreakerConfig(failure_threshold=2, success_threshold=1), clock=clock)
    failing, recovered, end = snapshot(2, 3, 4), snapshot(2, 10, 7), snapshot(2, 20, 5)
    chapters = {Phase.FAILS: Chapter(2.0, failing), Phase.RECOVERED: Chapter(3.0, recovered)}
    ending = Ending(chapters, [], end, NOTHING.bulkhead)
    assert (ending.admitted, ending.rejected) == (9, 10)
    del chapters[Phase.RECOVERED]
    assert (ending.admitted, ending.rejected) == (16, 30)
    told = quarter(1.0, Phase.FAILS, failing, recovered, [])
    assert (told.calls, told.failures, told.rejected) == (9, 2, 10)


def test_a_circuit_that_opened_once_more_has_not_closed(clock: Clock) -> None:
    breaker = CircuitBreaker(clock=clock).snapshot()
    changes = [Change(2.0, OPEN, ""), Change(4.0, CLOSED, ""), Change(5.0, OPEN, "")]
    chapters = {Phase.FAILS: Chapter(1.0, breaker), Phase.RECOVERED: Chapter(3.0, breaker)}
    assert not Ending(chapters, changes, breaker, Bulkhead().snapshot()).as_told
    assert Ending(chapters, changes[:2], breaker, Bulkhead().snapshot()).as_told


def test_a_call_is_saved_if_it_is_answered_after_a_retry(clock: Clock) -> None:
    teller = Teller(clock)
    for _ in range(2):
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


def test_an_error_that_is_not_an_outage_is_not_hidden(clock: Clock) -> None:
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
    assert quarter(1.0, Phase.FAILS, before, after, probed[1:]).state is OPEN


def test_each_quarter_is_reported_the_changes_of_its_own_time(clock: Clock) -> None:
    teller = Teller(clock)
    open_for_long = CircuitBreaker(mode=CircuitMode.FORCED_OPEN)
    waits = teller.story.happen(open_for_long)
    for probed in (True, False):
        wait_s = next(waits)
        if probed:
            teller.story.listen(StateChanged("server", OPEN, HALF_OPEN, ""))
        clock.advance(wait_s)
    next(waits)
    assert [quarter.state for quarter in teller.shown] == [HALF_OPEN, OPEN]


# Threads and tasks that call a real server


WAIT_S = 0.01


class Brief(Story):
    """A story that is over once there is enough to tell, and knows who called."""

    def __init__(self, server: Server, seconds: float, enough: Callable[[Brief], object]) -> None:
        super().__init__(Plan(seconds), server, show=lambda _: None)
        self.enough = enough
        self.breaker = CircuitBreaker()
        self.callers: set[Any] = set()
        self.rejected: list[BulkheadFullError] = []
        self.events: list[object] = []

    def happen(self, breaker: CircuitBreaker) -> Iterator[float]:
        self.breaker = breaker
        end = time.monotonic() + PATIENCE_S
        while not self.enough(self):
            assert time.monotonic() < end
            yield WAIT_S

    def listen(self, event: object) -> None:
        self.events.append(event)
        super().listen(event)

    @contextmanager
    def calling(self) -> Iterator[None]:
        self.callers.add(this_caller())
        with super().calling():
            try:
                yield
            except BulkheadFullError as error:
                self.rejected.append(error)
                raise

    def retried(self) -> list[Any]:
        return [event.error for event in self.events if isinstance(event, RetryScheduled)]

    def answered(self) -> tuple[int, int]:
        stats = self.breaker.snapshot().stats
        return stats.success_count, stats.failure_count


def this_caller() -> Any:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return threading.current_thread()


def came_back(caller: Any) -> bool:
    if isinstance(caller, threading.Thread):
        return not caller.is_alive()
    return bool(caller.done() and not caller.cancelled())


each_form = pytest.mark.parametrize("form", [threads, tasks], ids=["threads", "tasks"])


@each_form
def test_eight_callers_find_four_slots_and_two_seats_before_a_server_that_hangs(form: Any) -> None:
    with Server() as server:
        server.phase = Phase.HANGS
        story = Brief(server, 60, lambda story: len(story.callers) >= 8 and story.rejected)
        bulkhead = form.run(story).bulkhead
        assert len(story.callers) == 8
        assert all(map(came_back, story.callers))
    assert (bulkhead.max_concurrent, bulkhead.active_count, bulkhead.peak_active_count) == (4, 4, 4)
    assert (bulkhead.max_queue, bulkhead.queued_count) == (2, 2)


@each_form
def test_the_story_hears_of_retries_and_of_the_circuit_that_opens(form: Any) -> None:
    def enough(story: Brief) -> bool:
        return {RetryScheduled, StateChanged} <= set(map(type, story.events))

    with Server() as server:
        server.phase = Phase.FAILS
        story = Brief(server, 60, enough)
        ending = form.run(story)
    assert ending.retries > 0
    assert ending.changes[0].state is OPEN
    assert ending.breaker.stats.success_count == 0
    kind, text = (urllib.error.HTTPError, "500") if form is threads else (ConnectionError, "answered b'HTTP/1.0 500 ")
    assert all(isinstance(error, kind) and text in str(error) for error in story.retried())
    assert all(error.closed for error in story.retried() if isinstance(error, urllib.error.HTTPError))


@each_form
def test_healthy_answers_are_successes_with_a_pause_between(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> Any:
        slept.add(seconds)
        return (time if form is threads else asyncio).sleep(seconds)

    class Healthy(Server):
        def status(self) -> int:
            return 200

    name, room = ("time", time) if form is threads else ("asyncio", asyncio)
    monkeypatch.setattr(form, name, SimpleNamespace(**vars(room) | {"sleep": sleep}))
    slept: set[float] = set()
    with Healthy() as server:
        story = Brief(server, 60, lambda story: story.answered()[0] and len(slept) == 2)
        ending = form.run(story)
    assert slept == {WAIT_S, 0.05}
    assert (ending.breaker.stats.failure_count, ending.retries, ending.changes) == (0, 0, [])


@each_form
def test_a_caller_gives_up_a_server_that_hangs(form: Any) -> None:
    with Server() as server:
        server.phase = Phase.HANGS
        story = Brief(server, 3, lambda story: story.retried())
        form.run(story)
    assert any(isinstance(error, TimeoutError) for error in story.retried())


def test_an_answer_that_is_cut_off_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "4")
        handler.end_headers()

    monkeypatch.setattr(server_room._Handler, "do_GET", cut_off)
    with Server() as server:
        story = Brief(server, 60, lambda story: any(story.answered()))
        stats = threads.run(story).breaker.stats
    assert stats.success_count == 0 < stats.failure_count


def test_a_thread_that_hangs_is_waited_for_five_seconds_and_keeps_nobody_from_leaving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hanging(threading.Thread):
        def start(self) -> None:
            started.append(self)

        def join(self, timeout: float | None = None) -> None:
            joined.append((self, timeout))

    started: list[threading.Thread] = []
    joined: list[tuple[threading.Thread, float | None]] = []
    monkeypatch.setattr(threads, "Thread", Hanging)
    with Server() as server:
        threads.run(Brief(server, 60, lambda _: True))
    assert joined == [(thread, 5) for thread in started]
    assert all(thread.daemon for thread in started)


def test_an_error_of_a_task_that_is_not_an_outage_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def calling(story: Story) -> Iterator[None]:
        called.append(story)
        raise ZeroDivisionError
        yield

    called: list[Story] = []
    monkeypatch.setattr(Brief, "calling", calling)
    with Server() as server, pytest.raises(ZeroDivisionError):
        tasks.run(Brief(server, 60, lambda _: called))


def test_the_loop_of_the_tasks_does_not_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    def enough(_: Brief) -> bool:
        debugging.append(asyncio.get_running_loop().get_debug())
        return True

    debugging: list[bool] = []
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    with Server() as server:
        tasks.run(Brief(server, 60, enough))
    assert debugging == [False]


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
    assert type(screen.screen(Terminal(), plain, environ)) is (screen.Live if live else screen.Plain)
    assert type(screen.screen(io.StringIO(), plain, environ)) is screen.Plain


@pytest.mark.parametrize(
    ("encoding", "environ", "bars", "text"),
    [
        ("utf-8", {}, "█", "\x1b[31mdown\x1b[0m"),
        ("utf-8", {"NO_COLOR": "1"}, "█", "down"),
        ("utf-8", {"NO_COLOR": ""}, "█", "\x1b[31mdown\x1b[0m"),
        ("ascii", {}, "@", "\x1b[31mdown\x1b[0m"),
    ],
)
def test_the_picture_has_the_marks_and_the_colours_that_suit_the_terminal(
    monkeypatch: pytest.MonkeyPatch, encoding: str, environ: dict[str, str], bars: str, text: str
) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((80, 24)))
    terminal = Terminal()
    monkeypatch.setattr(terminal, "encoding", encoding)
    shown = screen.screen(terminal, False, environ)
    assert shown.paint("down", "red") == text
    shown.start(Plan(4))
    shown.show(QUARTERS[0])
    assert bars in terminal.getvalue()


def test_each_line_of_the_table_is_written_at_once() -> None:
    written = io.BytesIO()
    plain = screen.Plain(io.TextIOWrapper(written, newline=""))
    plain.say(["", "one", "two"])
    assert written.getvalue() == b"\none\ntwo\n"
    plain.start(Plan(4))
    assert written.getvalue() == f"\none\ntwo\n{HEAD}\n".encode()
    plain.show(QUARTERS[0])
    assert written.getvalue() == f"\none\ntwo\n{HEAD}\n{screen.line(QUARTERS[0])}\n".encode()
    assert plain.paint("down", "red") == "down"


def test_the_picture_is_drawn_over_itself_as_wide_as_the_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(quarters: list[Quarter], width: int) -> str:
        lines = screen.timeline(quarters, Plan(4), width, BLOCKS, no_colours)
        return "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J\n"

    def told() -> str:
        text = terminal.getvalue()
        terminal.seek(0)
        terminal.truncate()
        return text

    columns = iter([80, 100, 40])
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((next(columns), 24)))
    terminal = Terminal()
    live = screen.Live(terminal, BLOCKS, no_colours)
    live.start(Plan(4))
    assert told() == drawn([], 80)
    live.show(QUARTERS[0])
    assert told() == "\x1b[6A\r" + drawn(QUARTERS[:1], 100)
    live.show(QUARTERS[1])
    assert told() == "\x1b[6A\r" + drawn(QUARTERS[:2], 60)
    live.say(["", "Interrupted"])
    assert told() == "\r\x1b[J\nInterrupted\n"


def test_a_line_of_the_table() -> None:
    assert screen.line(QUARTERS[-1]) == "  1.25  fails      probing      1         1       100"


def test_the_picture_of_a_few_quarters() -> None:
    lines = screen.timeline(QUARTERS[:4], Plan(4), 60, BLOCKS, no_colours)
    assert lines == [
        "server    │healt│fails  │hangs  │recovered",
        "circuit   ──────██",
        "calls     ██▄▄▄▄▂▂                              18",
        "failures    ▁▁  ▂▂                               3",
        "rejected        ▇▇                               7",
        "1.00 s    ─ closed  █ open  ▒ probing   a mark is 0.25 s",
    ]


def test_before_the_first_quarter_the_picture_is_empty() -> None:
    lines = screen.timeline([], Plan(4), 60, BLOCKS, no_colours)
    assert lines == [
        "server    │healt│fails  │hangs  │recovered",
        "circuit   ",
        "calls                                            0",
        "failures                                         0",
        "rejected                                         0",
        "0.00 s    ─ closed  █ open  ▒ probing   a mark is 0.25 s",
    ]


def test_what_is_now_and_what_it_means_are_in_colours() -> None:
    lines = screen.timeline(QUARTERS[:4], Plan(4), 60, BLOCKS, lambda text, colour: f"{colour}<{text}>")
    assert lines == [
        "server    faint<│healt>red<│fails  >faint<│hangs  >faint<│recovered>",
        "circuit   green<──────>red<██>",
        "calls     green<██▄▄▄▄▂▂                        >      18",
        "failures  red<  ▁▁  ▂▂                        >       3",
        "rejected  cyan<      ▇▇                        >       7",
        "1.00 s    green<─> closed  red<█> open  yellow<▒> probing   a mark is 0.25 s",
    ]


def test_the_name_of_a_phase_is_cut_to_its_time() -> None:
    lines = screen.timeline([], Plan(6), 60, BLOCKS, no_colours)
    assert lines[0] == "server    │heal│fails│hangs│recove"


def test_a_mark_for_many_quarters_shows_a_probe_among_them_or_else_how_they_ended() -> None:
    states = [*[CLOSED] * 5, OPEN, *[OPEN, OPEN, HALF_OPEN, OPEN, OPEN, OPEN], *[OPEN, CLOSED]]
    quarters = [Quarter((n + 1) / 4, Phase.HEALTHY, state, 1, n // 10, n) for n, state in enumerate(states)]
    lines = screen.timeline(quarters, Plan(60), 60, BLOCKS, no_colours)
    assert lines == [
        "server    │healthy│fails    │hangs    │recovered  ",
        "circuit   █▒─",
        "calls     ▁▁▁                                           14",
        "failures   ▁▁                                            4",
        "rejected  ▃█▄                                           91",
        "3.50 s    ─ closed  █ open  ▒ probing   a mark is 1.5 s",
    ]


@pytest.mark.parametrize(("width", "columns"), [(66, 32), (67, 48), (82, 48), (83, 64), (98, 64), (99, 64), (400, 64)])
def test_a_mark_is_as_wide_as_there_is_room_but_no_wider_than_four(width: int, columns: int) -> None:
    bars = screen.timeline([], Plan(4), width, ASCII, no_colours)[2]
    assert bars == "calls     " + " " * columns + "       0"


@pytest.mark.parametrize(
    ("colour", "number"), [("bold", 1), ("faint", 2), ("red", 31), ("green", 32), ("yellow", 33), ("cyan", 36)]
)
def test_colours_are_those_of_every_terminal(colour: str, number: int) -> None:
    assert colours("text", colour) == f"\x1b[{number}mtext\x1b[0m"
    assert colours("  ", colour) == "  "


@pytest.mark.parametrize("seconds", [3, 10, 60, 3600])
@pytest.mark.parametrize("columns", [60, 80, 120, 400])
@pytest.mark.parametrize("late", [0, 5])
def test_the_picture_is_narrower_than_the_terminal(seconds: float, columns: int, late: int) -> None:
    quarters = QUARTERS * Plan(seconds).quarters
    for marks in (BLOCKS, ASCII):
        for so_far in (0, 1, 7, Plan(seconds).quarters + late):
            lines = screen.timeline(quarters[:so_far], Plan(seconds), columns, marks, no_colours)
            assert all(len(line) < columns for line in lines)


def test_colours_change_no_character() -> None:
    args = (QUARTERS, Plan(10), 80, BLOCKS)
    coloured = "\n".join(screen.timeline(*args, colours))
    assert "\x1b[31m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == "\n".join(screen.timeline(*args, no_colours))


def test_the_marks_are_those_the_encoding_has() -> None:
    assert marks_for("utf-8") is BLOCKS
    assert [marks_for(name) for name in ("ascii", "latin-1", "no such encoding")] == [ASCII] * 3


def test_the_code_shown_is_that_of_the_form() -> None:
    assert screen.code(Plan(10), False) == [
        "Eight threads call a server that fails and recovers:",
        "",
        "    @retry(max_retries=2, backoff_base=0.05)",
        '    @circuit_breaker("server", reset_timeout_s=0.5)',
        '    @bulkhead("server", max_concurrent=4, max_queue=2)',
        "    def fetch(): ...  # one GET with a timeout of 0.5 s",
        "",
    ]
    tasks = screen.code(Plan(100), True)
    assert tasks[0] == "Eight tasks call a server that fails and recovers:"
    assert tasks[3] == '    @circuit_breaker("server", reset_timeout_s=5)'
    assert tasks[5] == "    async def fetch(): ...  # one GET with a timeout of 5 s"


def test_the_summary(clock: Clock) -> None:
    breaker = CircuitBreaker(config=CircuitBreakerConfig(failure_threshold=2, reset_timeout_s=5), clock=clock)
    bulkhead = Bulkhead(max_concurrent=1)
    began = breaker.snapshot()
    fail(breaker, 2)
    for _ in range(1_200):
        assert not breaker.allow_request()
    recovered = breaker.snapshot()
    clock.advance(5)
    succeed(breaker, 3)
    with bulkhead:
        assert not bulkhead.acquire()
    ending = Ending(
        {Phase.FAILS: Chapter(2.0, began), Phase.RECOVERED: Chapter(7.0, recovered)},
        [Change(2.1, OPEN, "2 failures in a row (threshold 2)"), Change(7.04, HALF_OPEN, ""), Change(7.35, CLOSED, "")],
        breaker.snapshot(),
        bulkhead.snapshot(),
        retries=31,
        saved=9,
    )
    assert screen.summary(ending) == [
        "   0.10 s  until the circuit opened: 2 failures in a row",
        "    1,200  calls rejected in the outage, 2 admitted",
        "   0.35 s  until it closed again after the recovery",
        "",
        "    retry  tried again 31 times, which saved 9 calls",
        "  breaker  opened 1 time, rejected 1,200 in all",
        " bulkhead  let at most 1 in at once, rejected 1",
    ]


def test_the_summary_of_what_has_not_happened() -> None:
    assert screen.summary(NOTHING) == [
        "        -  the circuit has not opened",
        "        0  calls rejected in the outage, 0 admitted",
        "        -  the circuit has not closed again",
        "",
        "    retry  tried again 0 times, which saved 0 calls",
        "  breaker  opened 0 times, rejected 0 in all",
        " bulkhead  let at most 0 in at once, rejected 0",
    ]
