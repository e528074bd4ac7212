"""The demonstration as people run it: its exit status, and what it writes to whom."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from needs import CPYTHON
from patience import PATIENCE_S

from circuit_breaker._demo.plan import Plan

SUMMARY = """
 +[0-9.]+ s  until the circuit opened: 5 failures in a row
 +[0-9,]+  calls rejected in the outage, [0-9,]+ admitted
 +[0-9.]+ s  until it closed again after the recovery

    retry  tried again [0-9,]+ times?, which saved [0-9,]+ calls?
  breaker  opened [0-9,]+ times?, rejected [0-9,]+ in all
 bulkhead  let at most 4 in at once, rejected [0-9,]+
"""

Run: TypeAlias = tuple[int, str, str]


def start(*arguments: str, out: int = subprocess.PIPE, **environ: str) -> subprocess.Popen[str]:
    unset = {"NO_COLOR", "PYTHONIOENCODING", "TERM"}
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "circuit_breaker", *arguments],
        stdout=out,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={name: value for name, value in os.environ.items() if name not in unset} | environ,
    )


def run(*arguments: str, **environ: str) -> Run:
    with start(*arguments, **environ) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def run_in_a_terminal(*arguments: str, columns: int, **environ: str) -> Run:
    termios = pytest.importorskip("termios")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    with start(*arguments, out=theirs, **environ) as process:
        os.close(theirs)
        text = b"".join(iter(lambda: read_terminal(ours), b""))
        os.close(ours)
        err = process.stderr.read() if process.stderr else ""
    return process.returncode, text.decode().replace("\r\n", "\n"), err


def read_a_quarter(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    while not re.match(r" *\d+\.\d\d  healthy", process.stdout.readline()):
        assert process.poll() is None


def bare(text: str) -> str:
    return re.sub(r"\r|\x1b\[[0-9;]*[A-Za-z]", "", text)


def read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the error of Linux when the other end is closed
        return b""


# All at once, since each takes its three seconds
WAYS: dict[str, Any] = {
    "threads": lambda: run("--seconds", "3", PYTHONIOENCODING="utf-8"),
    "tasks": lambda: run("--seconds", "3", "--async", PYTHONIOENCODING="ascii"),
    "terminal": lambda: run_in_a_terminal("--seconds", "3", columns=60, TERM="xterm"),
    "grey terminal": lambda: run_in_a_terminal(
        "--seconds", "3", "--async", columns=120, TERM="xterm", NO_COLOR="1", PYTHONIOENCODING="ascii"
    ),
    "dumb terminal": lambda: run_in_a_terminal("--seconds", "3", columns=80, TERM="dumb"),
    "plain terminal": lambda: run_in_a_terminal("--seconds", "3", "--plain", "--async", columns=60, TERM="xterm"),
}


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[Run]]]:
    with ThreadPoolExecutor(len(WAYS)) as pool:
        yield {name: pool.submit(way) for name, way in WAYS.items()}


@pytest.mark.parametrize("name", WAYS)
def test_the_circuit_opens_and_closes_and_the_summary_says_so(runs: dict[str, Future[Run]], name: str) -> None:
    status, out, err = runs[name].result()
    assert (status, err) == (0, "")
    assert re.search(SUMMARY + r"\Z", bare(out)), out


@pytest.mark.parametrize("name", ["threads", "tasks", "dumb terminal", "plain terminal"])
def test_without_a_terminal_there_is_a_line_for_each_quarter_of_a_second(
    runs: dict[str, Future[Run]], name: str
) -> None:
    _, out, _ = runs[name].result()
    assert out.isascii()
    assert "\x1b" not in out
    assert "\n  time  server     circuit  calls  failures  rejected\n" in out
    table = [line.split() for line in out.splitlines() if re.match(r" *\d+\.\d\d  \w", line)]
    assert len(table) >= Plan(3).quarters
    assert list(dict.fromkeys(row[1] for row in table)) == ["healthy", "fails", "hangs", "recovered"]
    assert {row[2] for row in table} <= {"closed", "open", "probing"}
    assert table[-1][2] == "closed"
    total = re.search(r"rejected ([0-9,]+) in all", out)
    assert total is not None
    assert 0 < sum(int(row[5]) for row in table) <= int(total[1].replace(",", ""))


def test_a_terminal_shows_a_picture_in_colours_that_does_not_wrap(runs: dict[str, Future[Run]]) -> None:
    _, out, _ = runs["terminal"].result()
    assert "\x1b[32m" in out
    assert "\x1b[6A" in out
    assert all(len(line) < 60 for line in bare(out).splitlines())


def test_without_colours_and_in_ascii_the_picture_stays(runs: dict[str, Future[Run]]) -> None:
    _, out, _ = runs["grey terminal"].result()
    assert "\x1b[6A" in out
    assert not re.search(r"\x1b\[[0-9;]*m", out)
    assert out.isascii()
    assert "- closed  # open  = probing" in out


@pytest.mark.parametrize("form", [[], ["--async"]])
def test_ctrl_c_twice_ends_with_the_summary_so_far(form: list[str]) -> None:
    with start("--seconds", "60", *form) as process:
        read_a_quarter(process)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (130, "")
    assert "\nInterrupted; so far:\n" in out
    assert "\n        -  the circuit has not opened\n        0  calls rejected in the outage" in out


def test_a_reader_who_leaves_ends_it_quietly() -> None:
    with start("--seconds", "60") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("Eight threads call a server")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


FULL = Path("/dev/full")
CANNOT_WRITE = "python -m circuit_breaker: cannot write: "


@pytest.mark.skipif(not FULL.exists(), reason="this system has no full device")
@pytest.mark.parametrize("arguments", [["--seconds", "60"], ["--seconds", "60", "--async"], ["--help"]], ids=" ".join)
def test_a_full_disk_is_one_line_and_status_3(arguments: list[str]) -> None:
    with FULL.open("w") as full, start(*arguments, out=full.fileno()) as process:
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (3, CANNOT_WRITE + "No space left on device\n")


@pytest.mark.skipif(os.name == "nt", reason="needs a shell of Unix")
@pytest.mark.parametrize("closed", [">&-", ">&- <&-", ">&- 2>&-"])
def test_a_closed_standard_output_is_one_line_and_status_3(closed: str) -> None:
    command = f'exec "{sys.executable}" -X dev -W error -m circuit_breaker --seconds 60 {closed}'
    process = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S)
    said = "" if "2>&-" in closed else CANNOT_WRITE + "the standard output is closed\n"
    assert (process.returncode, process.stderr) == (3, said)


@pytest.mark.skipif(not CPYTHON, reason="PyPy raises KeyboardInterrupt even where Ctrl-C is ignored")
def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    """As under nohup, and in the background of a script."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start("--seconds", "60")
    finally:
        signal.signal(signal.SIGINT, former)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Eight threads call a server")
        process.send_signal(signal.SIGINT)
        read_a_quarter(process)
        read_a_quarter(process)
        process.stdout.close()
    assert process.returncode == 1
