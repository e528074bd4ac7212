"""A web server on loopback that is healthy, or fails in the way that a test sets."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, TypeAlias

from garbage import catch_up
from patience import PATIENCE_S


class Request(NamedTuple):
    """What arrived: header names are in small letters."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


# What the server does with one request; true: the connection stays open.
Reaction: TypeAlias = Callable[[socket.socket, BinaryIO, Request], bool]


def answer(status: int = 200, body: bytes = b"healthy", **headers: str) -> Reaction:
    """Answer as a server should; `retry_after="1"` is the header `Retry-After`."""

    def react(connection: socket.socket, incoming: BinaryIO, request: Request) -> bool:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in named.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return True

    return react


def send(said: bytes, *, reset: bool = False) -> Reaction:
    """Send these bytes and close the connection: orderly, or by a reset."""

    def react(connection: socket.socket, incoming: BinaryIO, request: Request) -> bool:
        connection.sendall(said)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return react


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"

reset_in_body = send(HALF, reset=True)
cut_in_body = send(HALF)
cut_in_header = send(b"HTTP/1.1 200 OK\r\nContent-Le")
corrupt_gzip = answer(200, b"this is no gzip", Content_Encoding="gzip")
garbage = send(b"\x00\xff\x01 no server says that\r\n\r\n")


def never_answer(connection: socket.socket, incoming: BinaryIO, request: Request) -> bool:
    """Say nothing until the client hangs up."""
    incoming.read()
    return False


def dawdle(connection: socket.socket, incoming: BinaryIO, request: Request) -> bool:
    """Send half an answer, and no more until the client hangs up."""
    connection.sendall(HALF)
    incoming.read()
    return False


def answer_too_late(connection: socket.socket, incoming: BinaryIO, request: Request) -> bool:
    """Answer when the client has hung up."""
    incoming.read()
    return answer(200, b"too late")(connection, incoming, request) and False


class FaultyServer:
    """Reacts to each request as is next in `plan`; when nothing is left there, as it `usually` does.

    At the end it expects that every connection was closed by the client, who has lost one otherwise.

    Attributes:
        plan: what to do with the requests to come.
        usually: what to do with the requests after these; at first the answer of a healthy server.
        requests: what arrived.
        connections: how many connections were made.
        host, url: where it is.
    """

    def __init__(self) -> None:
        self.plan: deque[Reaction] = deque()
        self.usually = answer()
        self.requests: list[Request] = []
        self.connections = 0
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._arrival = threading.Condition()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.host = "{}:{}".format(*self._listening.getsockname())
        self.url = f"http://{self.host}/"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def will(self, *conducts: Reaction) -> None:
        """Plan what to do with the next requests."""
        self.plan.extend(conducts)

    def wait_for(self, requests: int) -> None:
        """Wait until `count` requests have arrived. A client that gave up does not know this."""
        with self._arrival:
            assert self._arrival.wait_for(lambda: len(self.requests) >= requests, PATIENCE_S)

    def close(self) -> None:
        """Stop, and check that no connection is left open."""
        catch_up()
        self._closing = True
        socket.create_connection(self._listening.getsockname()).close()
        self._accepting.join(PATIENCE_S)
        self._listening.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads), "a client has left a connection open"
        assert not self.plan, "not all that was planned has been asked for"

    def _accept(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            if self._closing:
                connection.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as incoming:
                while (request := _read(incoming)) is not None:
                    with self._arrival:
                        self.requests.append(request)
                        react = self.plan.popleft() if self.plan else self.usually
                        self._arrival.notify_all()
                    if not react(connection, incoming, request):
                        return
        except (ConnectionError, ValueError):
            pass  # the client has gone, perhaps in the middle of a number


def _read(incoming: BinaryIO) -> Request | None:
    first = incoming.readline().decode("latin-1").split()
    if not first:
        return None
    headers: dict[str, str] = {}
    while line := incoming.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(incoming.readline(), 16):
            body += incoming.read(size)
            incoming.readline()
        incoming.readline()
    else:
        body = incoming.read(int(headers.get("content-length", 0)))
    return Request(first[0], first[1], headers, body)
