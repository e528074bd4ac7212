"""The two commands as people run them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from asking import TOKEN
from patience import PATIENCE_S

from circuit_breaker import CircuitMode
from circuit_breaker.__main__ import COMMANDS, main
from circuit_breaker.console import command, sources
from circuit_breaker.console.rows import key_of
from circuit_breaker.stores import RedisStore, SQLiteStore


@pytest.fixture
def store(tmp_path: Path) -> SQLiteStore:
    store = SQLiteStore(tmp_path / "circuits.db", timeout_s=5.0)
    store.force_open("api")
    return store


@pytest.fixture
def path(store: SQLiteStore, tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'circuits.db'}"


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "circuit_breaker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """End a command with Ctrl-C."""
    process.send_signal(signal.SIGINT)
    with process:
        out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


@pytest.fixture
def serve() -> Iterator[Any]:
    started: list[subprocess.Popen[str]] = []

    def serve(*arguments: str) -> tuple[subprocess.Popen[str], list[str]]:
        process = start("console", "--port", "0", *arguments)
        started.append(process)
        lines = []
        assert process.stdout is not None
        for line in iter(process.stdout.readline, ""):
            lines.append(line.rstrip("\n"))
            if line == "Ctrl-C ends it.\n":
                break
        return process, lines

    yield serve
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def fetch(url: str, data: bytes | None = None, **headers: str) -> Any:
    request = urllib.request.Request(url, data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE_S) as answer:
        return json.loads(answer.read())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command in this process that must end at once, and return what it says."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    return str(err)


# console


def test_the_page_is_served_until_ctrl_c(serve: Any, path: str) -> None:
    process, lines = serve(path)
    said = re.fullmatch(rf"The circuits of {re.escape(path)}: (http://127\.0\.0\.1:\d+/)", lines[0])
    assert said is not None
    assert lines[1:] == ["Ctrl-C ends it."]
    reading = fetch(f"{said[1]}circuits.json")["reading"]
    assert (reading["store"], reading["control"], reading["rows"][0]["word"]) == (path, False, "forced open")
    assert end(process) == (130, "", "")


def test_with_control_a_token_is_printed_and_every_order(serve: Any, path: str, store: SQLiteStore) -> None:
    process, lines = serve(path, "--control")
    said = re.fullmatch(r"To give orders, open: (http://127\.0\.0\.1:\d+)/#token=([\w-]{32})", lines[1])
    assert said is not None
    body = json.dumps({"key": key_of("api"), "order": "reset"}).encode()
    headers = {"Content-Type": "application/json", "X-Circuit-Breaker-Token": said[2], "Origin": said[1]}
    assert fetch(f"{said[1]}/orders", body, **headers) == {"order": "reset"}
    assert store.circuits()[0].mode is CircuitMode.AUTO
    status, out, err = end(process)
    assert (status, err) == (130, "")
    assert re.fullmatch(r"[\d-]+ [\d:,]+ circuit 'api': order reset of console \S+\n", out)


def test_a_token_from_a_file_is_not_printed(serve: Any, path: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    process, lines = serve(path, "--control", "--token-file", str(tmp_path / "token"))
    assert lines[1].endswith("/#token=TOKEN, which is in the file")
    assert TOKEN not in "".join(lines)
    assert end(process)[0] == 130


def test_in_public_it_says_so(serve: Any, path: str) -> None:
    process, lines = serve(path, "--address", "0.0.0.0", "--public", "--name", "ops.example")
    assert (
        lines[1]
        == "Other machines reach this page, and nothing is encrypted: put a proxy with TLS and a login in front."
    )
    url = re.findall("http://.*/", lines[0])[0]
    assert fetch(f"{url}circuits.json", Host="ops.example")["reading"]["error"] is None
    assert end(process)[0] == 130


def test_the_store_is_read_though_nobody_looks(serve: Any, path: str) -> None:
    _, lines = serve(path)
    url = re.findall("http://.*/", lines[0])[0]
    first = fetch(f"{url}circuits.json?history=1")
    for _ in range(10_000):
        again = fetch(f"{url}circuits.json?history=1")
        if again["reading"]["at"] > first["reading"]["at"]:
            break
    assert len(again["history"][key_of("api")]) > len(first["history"].get(key_of("api"), []))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: STORE"),
        (["circuits.db"], "it takes sqlite:PATH or redis://HOST; for a file, write sqlite:circuits.db"),
        (["http://x"], "is no store"),
        (["sqlite:none.db"], "that your processes give to SQLiteStore; the first call of a breaker makes it"),
        (["redis:x"], "is no store"),
        (["redis://x?db=y"], "the address of Redis cannot be used"),
        (["{}", "--prefix", "x:"], "--prefix is for Redis"),
        (["{}", "--port", "65536"], "takes a number from 0 to 65535, got '65536'"),
        (["{}", "--port", "\u0665"], "takes a number from 0 to 65535"),
        (["{}", "--address", "0.0.0.0"], "say --public as well if that is meant"),
        (["{}", "--address", "::"], "other machines reach ::"),
        (["{}", "--address", "ops.example"], "other machines reach ops.example"),
        (["{}", "--address", "127.0.0.1.invalid", "--public"], "cannot listen at 127.0.0.1.invalid port 8765"),
        (["{}", "--token-file", "x"], "--token-file is for --control"),
        (["{}", "--control", "--token-file", "none"], "cannot read the token: "),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    arguments: list[str],
    said: str,
    path: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if arguments[:1] == ["redis://x?db=y"]:
        pytest.importorskip("redis", reason="needs the extra test")
    monkeypatch.chdir(tmp_path)
    text = refused(capsys, "console", *(argument.format(path) for argument in arguments))
    assert text.startswith("python -m circuit_breaker console: ")
    assert said in text


def test_a_poor_token_in_a_file_is_refused_and_not_shown(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_bytes(b"secret")
    text = refused(capsys, "console", path, "--control", "--token-file", str(tmp_path / "token"))
    assert "--token-file takes a token of at least 16 letters" in text
    assert "secret," not in text
    (tmp_path / "token").write_bytes(b"\xff" * 20)
    assert "cannot read the token" in refused(
        capsys, "console", path, "--control", "--token-file", str(tmp_path / "token")
    )


def test_a_port_that_is_taken_is_told(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused(capsys, "console", path, "--port", str(port))
    assert f"cannot listen at 127.0.0.1 port {port}: Address already in use; --port takes another one" in text


def test_it_ends_well_if_it_is_stopped(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.Server, "run", lambda server: None)
    assert main(["console", path, "--port", "0"]) == 0
    assert "Ctrl-C ends it." in capsys.readouterr().out


# watch


def test_the_circuits_are_shown_once(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", path, "--once"]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"forced open    api: rejects every call, until another order; ordered by \S+\n", out)


def test_a_store_that_cannot_be_read_has_a_status_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("this is no database, however long it may be" * 100)
    assert main(["watch", f"sqlite:{tmp_path / 'text'}", "--once"]) == 1
    assert "text cannot be read: DatabaseError: file is not a database" in capsys.readouterr().out


def test_the_database_of_another_program_is_not_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE mine (x)")
    before = file.read_bytes()
    assert main(["watch", f"sqlite:{file}", "--once"]) == 1
    assert "is a database of another program: give the path that your processes give" in capsys.readouterr().out
    assert file.read_bytes() == before


def test_the_circuits_are_shown_until_ctrl_c(path: str, store: SQLiteStore) -> None:
    process = start("watch", path, "--plain")
    assert process.stdout is not None
    assert "forced open" in process.stdout.readline()
    store.reset("api")
    assert re.match(r"\d\d:\d\d:\d\d  closed         api: admits every call; ordered by ", process.stdout.readline())
    assert end(process) == (130, "", "")


def test_a_store_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "watch", "x").startswith("python -m circuit_breaker watch: 'x' is no store")


# Stores


def test_a_redis_is_opened_and_its_password_not_shown() -> None:
    pytest.importorskip("redis", reason="needs the extra test")
    source = sources.opened("redis://user:secret@[::1]:7000/3?protocol=3")
    assert isinstance(source.store, RedisStore)
    assert source.label == "redis://[::1]:7000/3"
    assert "'circuits:'" in repr(source.store)
    assert "'x:'" in repr(sources.opened("rediss://h", "x:").store)
    assert sources.opened("unix:///run/redis.sock?password=secret").label == "unix:///run/redis.sock"


def test_without_redis_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ValueError, match="needs redis-py: pip install redis"):
        sources.opened("redis://h")


# The table of commands


@pytest.mark.parametrize("name", ["console", "watch"])
def test_each_command_has_a_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: python -m circuit_breaker {name} ")
    assert all(len(line) <= 100 for line in out.splitlines())


def test_the_demonstration_names_the_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in COMMANDS if name)


def test_no_command_loads_what_another_needs() -> None:
    program = "import circuit_breaker.__main__, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not [name for name in done.stdout.split() if "console" in name or name.startswith(("http", "wsgiref"))]


def test_output_that_nobody_reads_any_more_ends_it(path: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "circuit_breaker", "watch", path],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=PATIENCE_S,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, b"")


def test_it_looks_until_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "INTERVAL_S", 0.001)
    ended: SimpleQueue[None] = SimpleQueue()

    class Watching:
        looks = 0

        def look(self) -> None:
            self.looks += 1
            if self.looks == 3:
                ended.put(None)

    watching: Any = Watching()
    command._look_until(ended, watching)
    assert watching.looks == 3
