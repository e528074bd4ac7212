"""The server against clients that mean no good, or are slow, or are gone."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from asking import TOKEN
from clocks import Clock
from patience import PATIENCE_S
from scenes import Scene

from circuit_breaker.console import server as server_room
from circuit_breaker.console.application import HEADERS, Application
from circuit_breaker.console.rows import key_of
from circuit_breaker.console.server import MOST_CONNECTIONS, Server, is_loopback
from circuit_breaker.console.watcher import Watcher

GET = b"GET /circuits.json HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Running:
    """A server at work, and what it says when it is asked."""

    def __init__(self, scene: Scene, *names: str, is_public: bool = False, address: str = "127.0.0.1") -> None:
        self.scene = scene
        self.server = Server(address, 0, Application(Watcher(scene.store), TOKEN), names, is_public)
        self.port: int = self.server.server_port
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.server.server_address[:2], PATIENCE_S)

    def say(self, request: bytes, *, end: bool = False) -> bytes:
        """Send something, and return all that comes until the server ends the connection."""
        with self.connect() as client:
            try:
                client.sendall(request)
                if end:
                    client.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has ended the connection already
            return hear(client)

    def status(self, request: bytes, *, end: bool = False) -> int:
        return int(self.say(request, end=end).split(b" ", 2)[1])

    def works(self) -> bool:
        """Tell whether a browser is served."""
        return b'"name":"api"' in self.say(GET)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(PATIENCE_S)
        self.server.server_close()


def hear(client: socket.socket) -> bytes:
    heard = b""
    try:
        for more in iter(lambda: client.recv(1 << 16), b""):
            heard += more
    except ConnectionResetError:
        pass
    return heard


def until(holds: Callable[[], bool]) -> None:
    """Give other threads the time that they need."""
    ends_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.001)


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.count("api", 1)
    return scene


@pytest.fixture
def serve(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    monkeypatch.setattr(server_room, "BLOCKED_S", 0.01)  # so that it ends at once
    running: list[Running] = []

    def serve(*names: str, **settings: Any) -> Running:
        running.append(Running(scene, *names, **settings))
        return running[-1]

    yield serve
    for each in running:
        each.close()


@pytest.fixture
def running(serve: Callable[..., Running]) -> Running:
    return serve()


def post(body: bytes, length: object = None, **headers: str) -> bytes:
    """Return the bytes of an order, as the page sends it."""
    fields = {
        "Host": "localhost:1",
        "Origin": "http://localhost:1",
        "Content-Type": "application/json",
        "Content-Length": str(len(body) if length is None else length),
        "X-Circuit-Breaker-Token": TOKEN,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"POST /orders HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


FORCE_OPEN = json.dumps({"key": key_of("api"), "order": "force_open"}).encode()


def is_forced(running: Running) -> bool:
    return running.scene.store.board._records != {}


# What it is for


def test_a_browser_is_served_and_nothing_is_said_of_the_server(running: Running) -> None:
    head, _, body = running.say(GET).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK")
    assert b"Server: circuit-breaker\r\n" in head
    assert b"Python" not in head
    assert json.loads(body)["reading"]["rows"][0]["name"] == "api"


def test_an_order_is_taken(running: Running) -> None:
    assert running.status(post(FORCE_OPEN)) == 200
    assert is_forced(running)


def test_the_address_is_one_for_a_browser(serve: Callable[..., Running]) -> None:
    assert serve().server.url.startswith("http://127.0.0.1:")
    assert serve(address="0.0.0.0", is_public=True).server.url.startswith("http://127.0.0.1:")


def test_it_listens_on_the_newer_kind_of_address_too(serve: Callable[..., Running]) -> None:
    try:
        running = serve(address="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert running.server.url.startswith("http://[::1]:")
    assert running.works()


# By which name it is called


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8765", "127.0.0.1", "127.0.0.1:1", "127.9.9.9:80", "[::1]", "[::1]:8765", "localhost:"],
)
def test_it_answers_to_the_names_of_this_machine(running: Running, host: str) -> None:
    assert running.status(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.7",
        "10.0.0.1:80",
        "",
        " ",
        "localhost:x",
        "localhost@evil.example",
        "[::1",
        "::1",
        "[fe80::1]",
        "0.0.0.0",
        "localhost:1:2",
    ],
)
@pytest.mark.parametrize("path", ["/", "/page.js", "/circuits.json"])
def test_a_page_whose_name_was_bound_to_this_machine_learns_nothing(running: Running, host: str, path: str) -> None:
    answer = running.say(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 421 ")
    assert b"api" not in answer
    assert running.status(f"HEAD {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == 421


def test_a_page_whose_name_was_bound_to_this_machine_gives_no_order(running: Running) -> None:
    assert running.status(post(FORCE_OPEN, Host="evil.example", Origin="http://evil.example")) == 421
    assert not is_forced(running)


def test_a_request_without_a_host_is_refused(running: Running) -> None:
    assert running.status(b"GET / HTTP/1.0\r\n\r\n") == 421


def test_it_answers_to_further_names(serve: Callable[..., Running]) -> None:
    running = serve("Ops.example")
    assert running.status(b"GET / HTTP/1.1\r\nHost: ops.example:80\r\n\r\n") == 200
    assert running.status(b"GET / HTTP/1.1\r\nHost: 192.168.1.7\r\n\r\n") == 421


def test_in_public_it_answers_to_any_address(serve: Callable[..., Running]) -> None:
    running = serve(is_public=True)
    assert running.status(b"GET / HTTP/1.1\r\nHost: 192.168.1.7:80\r\n\r\n") == 200
    assert running.status(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n") == 421


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.7", False),
        ("ops.example", False),
        ("", False),
    ],
)
def test_which_addresses_are_of_this_machine_alone(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


# Orders of others


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"X_Circuit_Breaker_Token": None},
        {"X_Circuit_Breaker_Token": "guess"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
    ],
)
def test_an_order_of_another_page_is_refused(running: Running, headers: dict[str, Any]) -> None:
    assert 400 <= running.status(post(FORCE_OPEN, **headers)) < 500
    assert not is_forced(running)


def test_a_browser_that_asks_whether_another_page_may_is_told_nothing(running: Running) -> None:
    question = b"OPTIONS /orders HTTP/1.1\r\nHost: localhost:1\r\nOrigin: http://evil.example\r\n"
    answer = running.say(question + b"Access-Control-Request-Method: POST\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 405 ")
    assert b"Access-Control" not in answer


def test_a_gigabyte_that_is_announced_is_not_read(running: Running) -> None:
    assert running.status(post(b"", 1 << 30)) == 413
    assert running.works()


def test_a_gigabyte_that_is_sent_is_not_read(running: Running) -> None:
    with running.connect() as client:
        sent = 0
        client.sendall(post(b"", 1 << 30))
        with pytest.raises(OSError):
            for _ in range(1 << 14):
                client.sendall(bytes(1 << 16))
                sent += 1
        assert sent < 1 << 10
    assert running.works()


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "5, 5", "\u00b2", "9" * 5_000])
def test_a_length_that_is_none_is_refused(running: Running, length: str) -> None:
    assert 400 <= running.status(post(FORCE_OPEN, length)) < 500
    assert not is_forced(running)
    assert running.works()


def test_an_order_in_pieces_is_refused(running: Running) -> None:
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(FORCE_OPEN), FORCE_OPEN)
    assert running.status(post(body, Content_Length=None, Transfer_Encoding="chunked")) == 411
    assert not is_forced(running)


# Garbage


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET",
        b"GET /",
        b"GET / HTTP/9.9",
        b"GET / HTTP/1.x",
        b"GET / FTP/1.1",
        b"GET / HTTP/1.1 more",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0",
        b"\xff\xfe\xfd / HTTP/1.1",
        b"POST / HTTP/0.9",
        b"<script>alert(1)</script>",
    ],
)
def test_what_is_no_request_is_refused_without_an_echo(
    running: Running, request_line: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = running.say(request_line + b"\r\nHost: localhost\r\n\r\n", end=True)
    assert answer.split(b" ")[1][:1] in (b"4", b"5")
    assert b"script>" not in answer
    assert all(f"{name}: {value}\r\n".encode() in answer for name, value in HEADERS)
    assert running.works()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 3_000 + b"\r\n",
        b"\x00" * 100_000,
    ],
)
def test_a_head_that_is_too_long_is_refused(running: Running, sent: bytes) -> None:
    answer = running.say(sent, end=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.0 431 ")  # the rest that nobody reads resets the connection
    assert running.works()


def test_many_headers_are_refused(running: Running) -> None:
    assert running.status(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n") == 431


def test_random_bytes_do_no_harm(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(7)
    for _ in range(200):
        running.say(draw.randbytes(draw.randint(0, 400)), end=True)
    for _ in range(200):
        mangled = bytearray(post(FORCE_OPEN, Origin="http://evil.example"))
        for _ in range(3):
            mangled[draw.randrange(len(mangled))] = draw.randrange(256)
        running.say(bytes(mangled), end=True)
    assert running.works()
    assert not is_forced(running)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%5c..%5cboot.ini",
        "//etc/passwd",
        "/static/",
        "/.git/config",
        "http://evil.example/",
        "/%00",
        "/page.js%00.html",
        "/application.py",
        "/page.html",
        "*",
    ],
)
def test_no_path_leads_out(running: Running, path: str) -> None:
    answer = running.say(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 404 ")
    assert b"evil" not in answer


# Slow clients, and many


def test_idle_connections_hold_nothing_up(running: Running) -> None:
    before = threading.active_count()
    idle: list[socket.socket] = []
    try:
        for number in range(10_000):
            client = socket.socket()
            client.connect(running.server.server_address)
            idle.append(client)
            if number % 100 == 99:  # no more than wait at the door
                assert running.works()
                assert len(running.server._since) <= MOST_CONNECTIONS
                until(lambda: threading.active_count() <= before + MOST_CONNECTIONS + 8)  # threads end a little later
                while len(idle) > 100:
                    idle.pop(0).close()
    finally:
        for client in idle:
            client.close()
    assert running.works()


def test_the_oldest_connection_makes_room(running: Running) -> None:
    idle = [running.connect() for _ in range(MOST_CONNECTIONS)]
    until(lambda: len(running.server._since) == MOST_CONNECTIONS)
    assert running.works()
    assert idle[0].recv(1) == b""
    for client in idle:
        client.close()


def test_a_connection_that_lasts_too_long_is_cut(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.0)
    monkeypatch.setattr(server_room, "time", SimpleNamespace(monotonic=clock))
    with running.connect() as idle, running.connect() as slow, running.connect() as half:
        slow.sendall(b"GET / HT")
        half.sendall(post(b"", 500))
        until(lambda: len(running.server._since) == 3)
        clock.now = 9.0
        assert running.works()
        slow.sendall(b"TP/1.1\r\n")
        clock.now = 11.0
        assert [idle.recv(1), slow.recv(1), hear(half)[:12]] in ([b"", b"", b""], [b"", b"", b"HTTP/1.0 400"])
        assert running.works()


def test_a_client_that_reads_nothing_is_cut(scene: Scene, serve: Callable[..., Running], monkeypatch: Any) -> None:
    for number in range(3_000):
        scene.count(f"circuit {number}", 1)
    running = serve()
    assert running.works()
    clock = Clock(0.0)
    monkeypatch.setattr(server_room, "time", SimpleNamespace(monotonic=clock))
    running.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # or it may hold all of the answer
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(running.server.server_address)
        client.sendall(GET)
        until(lambda: len(running.server._since) == 1)
        assert running.works()
        clock.now = 11.0
        until(lambda: not running.server._since)
        assert running.works()


def test_a_client_that_is_gone_leaves_no_trace(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    for request in (b"", b"GET / HT", GET, post(FORCE_OPEN, 900)):
        client = running.connect()
        client.sendall(request)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # with a reset
    assert running.works()
    until(lambda: not running.server._since)
    assert capfd.readouterr().err == ""


def test_cutting_a_connection_that_has_ended_does_nothing(running: Running) -> None:
    client = running.connect()
    client.close()
    running.server._cut(client)
    assert running.works()


def test_an_error_of_ours_is_printed(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("ours")

    running.server.set_app(fail)
    assert running.status(GET) == 500
    running.server.get_app = fail  # type: ignore[method-assign]
    assert running.say(GET) == b""
    until(lambda: not running.server._since)
    assert capfd.readouterr().err.count("RuntimeError: ours") == 2
