"""The listener that writes a log: under threads and forks, with a full disk, and while files change places."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clocks import Clock
from failures import Down
from forks import Child
from garbage import collect
from needs import needs_fork
from patience import PATIENCE_S

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitMode, Outcome, StateChanged
from circuit_breaker._common.events import CallFinished
from circuit_breaker.insight import CallLog, call_log
from circuit_breaker.insight.reading.formats import OURS
from circuit_breaker.insight.reading.log import Choice, read_log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the wall clock be 1763942400 when the clock is 1000."""
    monkeypatch.setattr(call_log.time, "time", lambda: 1_763_942_400.0)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def finished(name: str = "api", outcome: Outcome = Outcome.SUCCESS, error: BaseException | None = None) -> CallFinished:
    return CallFinished(name, outcome, 12.5, error)


def make(log: CallLog, clock: Clock, mode: CircuitMode = CircuitMode.SHADOW) -> CircuitBreaker:
    config = CircuitBreakerConfig(failure_threshold=1, ignored_exceptions=KeyError)
    return CircuitBreaker("payments", config, mode=mode, listeners=[log], clock=clock)


def end(breaker: CircuitBreaker, clock: Clock, seconds: float, error: Exception | None = None) -> None:
    """Make a call that takes so long."""
    try:
        with breaker:
            clock.advance(seconds)
            if error is not None:
                raise error
    except (Down, KeyError):
        pass


# What a line says


@pytest.mark.usefixtures("wall")
def test_each_call_is_a_line(path: Path, clock: Clock) -> None:
    log = CallLog(path, clock=clock)
    breaker = make(log, clock)
    end(breaker, clock, 0.25)
    end(breaker, clock, 2.0, Down("a secret"))
    end(breaker, clock, 0.5, KeyError("x"))
    log.close()
    by = f"{os.uname().nodename}:{os.getpid()}"
    shared = {"circuit": "payments", "by": by}
    assert lines(path) == [
        {"t": 1_763_942_400.0, "ms": 250.0, "outcome": "success", **shared},
        {"t": 1_763_942_400.25, "ms": 2000.0, "outcome": "failure", **shared, "error": "Down"},
        {"t": 1_763_942_402.25, "ms": 500.0, "outcome": "ignored", **shared, "error": "KeyError"},
    ]
    assert log.lost_count == 0


@pytest.mark.usefixtures("wall")
def test_a_rejected_call_is_a_line_without_a_duration(path: Path, clock: Clock) -> None:
    log = CallLog(path, clock=clock)
    breaker = make(log, clock, CircuitMode.AUTO)
    end(breaker, clock, 0.5, Down())
    assert breaker.allow_request() is False
    log.close()
    failed, rejected = lines(path)
    assert rejected == {key: failed[key] for key in ("circuit", "by")} | {"t": 1_763_942_400.5, "outcome": "refused"}


def test_shadow_lets_every_call_be_recorded(path: Path, clock: Clock) -> None:
    log = CallLog(path, clock=clock)
    breaker = make(log, clock)
    for _ in range(60):
        end(breaker, clock, 0.1, Down())
    log.close()
    found = read_log([str(path)], OURS, Choice(), lambda what, part: None)
    assert (len(found.calls), found.rejected, found.notes) == (60, 0, [])
    assert sum(found.calls.outcome) == 60


def test_what_is_recorded_by_hand_lasts_as_long_as_the_record_says(path: Path, clock: Clock) -> None:
    log = CallLog(path, clock=clock)
    make(log, clock).record_success(latency_ms=40)
    log.close()
    assert lines(path)[0]["ms"] == 40.0


def test_other_events_are_no_lines(path: Path, clock: Clock) -> None:
    log = CallLog(path, clock=clock)
    log(StateChanged("api", None, None, "x"))  # type: ignore[arg-type]
    log.close()
    assert lines(path) == []


@pytest.mark.parametrize("name", ['a "quoted" name', "ümlaut", "new\nline", "\ud800", "</script>"])
def test_any_name_makes_a_line_of_json(path: Path, clock: Clock, name: str) -> None:
    log = CallLog(path, clock=clock)
    log(finished(name, Outcome.FAILURE, type('"quoted" <b>', (Exception,), {})()))
    log.close()
    (line,) = lines(path)
    assert (line["circuit"], line["error"]) == (name, '"quoted" <b>')


# When lines are written


def test_lines_wait_a_second_at_most_for_the_next_call(path: Path, clock: Clock) -> None:
    log = CallLog(path, clock=clock)
    log(finished())
    clock.advance(0.9)
    log(finished())
    assert lines(path) == []
    clock.advance(0.1)
    log(finished())
    assert len(lines(path)) == 3
    log(finished())
    assert len(lines(path)) == 3
    log.close()
    assert len(lines(path)) == 4


def test_many_lines_are_written_at_once(path: Path, clock: Clock) -> None:
    log = CallLog(path, clock=clock)
    for _ in range(call_log.BLOCK):
        log(finished())
    assert len(lines(path)) == call_log.BLOCK
    log.close()


def test_lines_are_added_to_what_is_there(path: Path, clock: Clock) -> None:
    path.write_text('{"before": 1}\n')
    log = CallLog(str(path), clock=clock)
    log(finished())
    log.close()
    assert len(lines(path)) == 2


def test_a_closed_log_takes_no_more(path: Path, clock: Clock) -> None:
    log = CallLog(path, clock=clock)
    log.close()
    log.close()
    log(finished())
    assert (lines(path), log.lost_count) == ([], 1)


def test_a_log_that_nobody_holds_writes_what_waits(path: Path, clock: Clock) -> None:
    log = CallLog(path, clock=clock)
    log(finished())
    del log
    collect()
    assert len(lines(path)) == 1


def test_a_log_writes_what_waits_when_the_interpreter_exits(path: Path) -> None:
    program = """
import sys
from circuit_breaker import CircuitBreaker
from circuit_breaker.insight import CallLog
breaker = CircuitBreaker(listeners=[CallLog(sys.argv[1])])
breaker.call(int)
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(lines(path)) == 1


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_bytes": 0}, ValueError),
        ({"max_bytes": "64M"}, TypeError),
        ({"keep": -1}, ValueError),
        ({"clock": 5}, TypeError),
    ],
)
def test_arguments_are_checked(path: Path, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        CallLog(path, **arguments)
    assert not path.exists()


def test_a_path_is_a_text_or_a_path(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        CallLog(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="path must be a str"):
        CallLog(os.fsencode(tmp_path / "x"))  # type: ignore[arg-type]


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CallLog(tmp_path / "nowhere" / "calls.jsonl")


def test_it_shows_where_it_writes(path: Path) -> None:
    assert repr(CallLog(path)) == f"<CallLog {str(path)!r}>"


# Files that grow too large


def test_a_file_that_is_full_becomes_the_first_of_the_older_ones(path: Path, clock: Clock) -> None:
    log = CallLog(path, max_bytes=300, keep=2, clock=clock)
    for number in range(20):
        log(finished(f"call {number}"))
        clock.advance(1.0)
    log.close()
    names = [line["circuit"] for name in (".2", ".1", "") for line in lines(Path(f"{path}{name}"))]
    assert names == [f"call {number}" for number in range(20 - len(names), 20)]
    assert 3 <= len(names) < 10
    assert {one.name for one in path.parent.iterdir()} == {"calls.jsonl", "calls.jsonl.1", "calls.jsonl.2"}
    assert log.lost_count == 0


def test_no_older_file_is_kept_if_none_is_wanted(path: Path, clock: Clock) -> None:
    log = CallLog(path, max_bytes=1, keep=0, clock=clock)
    for number in range(5):
        log(finished(f"call {number}"))
        clock.advance(1.0)
    log.close()
    assert [line["circuit"] for line in lines(path)] == ["call 4"]
    assert [one.name for one in path.parent.iterdir()] == ["calls.jsonl"]


def test_a_file_that_somebody_else_has_moved_is_not_moved_again(path: Path, clock: Clock) -> None:
    log = CallLog(path, max_bytes=1, keep=3, clock=clock)
    clock.advance(1.0)
    log(finished("first"))
    path.rename(path.with_name("elsewhere"))
    clock.advance(1.0)
    log(finished("second"))
    path.unlink()
    path.write_text("")
    clock.advance(1.0)
    log(finished("third"))
    log.close()
    assert [line["circuit"] for line in lines(path)] == ["third"]
    assert not Path(f"{path}.1").exists()


# A disk that is full


def full_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> Callable[[], None]:
    """Let the disk take so many bytes more; what is returned makes room again."""
    left = [room]
    write = os.write

    def write_some(descriptor: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = data[: min(len(data), left[0])]
        left[0] -= len(part)
        return write(descriptor, part)

    monkeypatch.setattr(os, "write", write_some)
    return lambda: left.__setitem__(0, 1_000_000)


def test_a_full_disk_is_logged_once_and_loses_lines(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = CallLog(path, clock=clock)
    make_room = full_disk(monkeypatch, 150)
    with caplog.at_level(logging.ERROR, "circuit_breaker"):
        for number in range(4):
            log(finished(f"call {number}"))
            clock.advance(1.0)
    assert [record.message for record in caplog.records] == [
        f"call log {str(path)!r} cannot be written to, its lines are lost"
    ]
    assert log.lost_count == 3
    make_room()
    log(finished("after"))
    log.close()
    first, torn, after = path.read_text().splitlines()
    assert [json.loads(line)["circuit"] for line in (first, after)] == ["call 0", "after"]
    assert len(first) + len(torn) + 1 == 150


def test_a_folder_that_goes_away_loses_lines(path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = CallLog(path, max_bytes=1, clock=clock)
    clock.advance(1.0)
    log(finished())
    path.rename(path.parent.parent / "moved.jsonl")
    path.parent.rmdir()
    clock.advance(1.0)
    log(finished())
    log.close()
    assert log.lost_count == 1
    assert len(caplog.records) == 1


def test_lines_that_nobody_writes_in_time_are_lost(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_log, "MOST_WAITING", 3)
    log = CallLog(path, clock=clock)
    for _ in range(5):
        log(finished())
    assert log.lost_count == 2
    log.close()
    assert len(lines(path)) == 3


# Threads, interrupts, forks


def test_no_thread_waits_for_the_one_that_writes(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CallLog(path, clock=clock)
    writing, go_on = threading.Event(), threading.Event()
    write = os.write

    def slow(descriptor: int, data: memoryview) -> int:
        writing.set()
        assert go_on.wait(PATIENCE_S)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", slow)
    clock.advance(1.0)
    writer = threading.Thread(target=log, args=(finished("first"),))
    writer.start()
    assert writing.wait(PATIENCE_S)
    clock.advance(5.0)
    log(finished("second"))  # returns at once, though it is time to write
    assert lines(path) == []
    go_on.set()
    writer.join(PATIENCE_S)
    log.close()
    assert [line["circuit"] for line in lines(path)] == ["first", "second"]


def test_threads_lose_no_line_and_tear_none(path: Path) -> None:
    log = CallLog(path, max_bytes=20_000, keep=100)
    start = threading.Barrier(4)

    def many(number: int) -> None:
        start.wait(PATIENCE_S)
        for call in range(2000):
            log(finished(f"{number}-{call}"))

    threads = [threading.Thread(target=many, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    log.close()
    files = sorted(path.parent.iterdir())
    assert len(files) > 10
    names = [line["circuit"] for file in files for line in lines(file)]
    assert sorted(names) == sorted(f"{number}-{call}" for number in range(4) for call in range(2000))


def test_closing_while_another_thread_writes_loses_nothing(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CallLog(path, clock=clock)
    taken, closed = threading.Event(), threading.Event()
    lines_of = log._lines

    def slow(calls: list[Any]) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            taken.set()
            assert closed.wait(PATIENCE_S)
        return lines_of(calls)

    monkeypatch.setattr(log, "_lines", slow)
    clock.advance(1.0)
    writer = threading.Thread(target=log, args=(finished("first"),))
    writer.start()
    assert taken.wait(PATIENCE_S)
    log._waiting.append((0.0, "second", 1.0, Outcome.SUCCESS, None))
    log.close()
    closed.set()
    writer.join(PATIENCE_S)
    assert [line["circuit"] for line in lines(path)] == ["second", "first"]


def test_an_interrupt_while_writing_leaves_the_turn_to_others(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CallLog(path, clock=clock)
    write = os.write

    def interrupted(descriptor: int, data: memoryview) -> int:
        monkeypatch.setattr(os, "write", write)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    clock.advance(1.0)
    with pytest.raises(KeyboardInterrupt):
        log(finished("first"))
    clock.advance(1.0)
    log(finished("second"))
    assert [line["circuit"] for line in lines(path)] == ["second"]
    log.close()


@needs_fork
def test_a_forked_child_has_its_own_file_and_nothing_that_waits(tmp_path: Path, clock: Clock) -> None:
    log = CallLog(tmp_path / "calls-{pid}.jsonl", clock=clock)
    log(finished("parent"))
    log._writing = True  # as if another thread were writing at the moment of the fork

    def tell() -> str:
        log(finished("child"))
        log.close()
        return "closed"

    child = Child.start(tell)
    pid = child.pid
    assert child.hear() == "'closed'"
    log._writing = False
    log.close()
    (line,) = lines(tmp_path / f"calls-{pid}.jsonl")
    assert line["circuit"] == "child"
    assert line["by"].endswith(f":{pid}")
    assert [one["circuit"] for one in lines(tmp_path / f"calls-{os.getpid()}.jsonl")] == ["parent"]
