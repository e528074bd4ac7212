"""Serves the page to browsers: few connections, each for a short time, so that no client can hold up the others."""

from __future__ import annotations

import ipaddress
import socket
import sys
import time
from collections.abc import Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import IO, TYPE_CHECKING, Any, Final
from wsgiref.handlers import SimpleHandler
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from .application import HEADERS

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MOST_CONNECTIONS: Final = 64
LONGEST_CONNECTION_S: Final = 10.0
LONGEST_HEAD: Final = 16_384  # bytes of a request before its body
BLOCKED_S: Final = 0.25  # how long the server sleeps if nobody comes


class Server(ThreadingMixIn, WSGIServer):
    """An HTTP server whose requests end their connections.

    A connection is cut once it has lasted too long, whatever it does. If there are too many, the oldest is cut: a
    browser needs milliseconds, so the oldest is not one of a browser.

    Args:
        address, port: where to listen; port 0 is any that is free.
        application: what answers requests.
        names: the hosts that this server is called by, beside those of the loopback interface. A page of another site
            whose name leads here (DNS rebinding) calls it by another one, and is refused.
        is_public: it is called by any address of this machine, too.

    Raises:
        OSError: nobody can listen there.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, address: str, port: int, application: WSGIApplication, names: Iterable[str] = (), is_public: bool = False
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._since: dict[socket.socket, float] = {}  # when each connection came, the oldest first
        super().__init__((address, port), _Handler)
        self.set_app(_Guard(application, {name.lower() for name in names}, is_public))

    def server_bind(self) -> None:
        """Listen, without asking any name server who this machine is."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    @property
    def url(self) -> str:
        """The address for a browser."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.server_name, self.server_name)  # noqa: S104 - no bind
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def run(self) -> None:
        """Serve until an exception, such as that of Ctrl-C, ends it."""
        self.serve_forever(BLOCKED_S)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread for a connection."""
        self._since[request] = time.monotonic()
        if len(self._since) > MOST_CONNECTIONS:
            self._cut(next(iter(self._since.copy())))
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Cut what has lasted too long; called between connections, and while none comes."""
        now = time.monotonic()
        for request, since in self._since.copy().items():
            if now - since > LONGEST_CONNECTION_S:
                self._cut(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self._since.pop(request, None)
        super().shutdown_request(request)

    def _cut(self, request: socket.socket) -> None:
        """End a connection that another thread may be waiting for, which closes it then."""
        self._since.pop(request, None)
        try:
            request.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended by itself

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Drop what comes of a client that goes away; an error of ours is printed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(WSGIRequestHandler):
    """Reads one request, and answers it."""

    timeout = LONGEST_CONNECTION_S

    def handle(self) -> None:
        """Answer the one request of a connection; one that cannot be read ends it."""
        if self._read_head():
            given: Any = self
            handler = _Answering(given.rfile, given.wfile, self.get_stderr(), self.get_environ(), multithread=True)
            handler.run(given.server.get_app())

    def _read_head(self) -> bool:
        """Read all that stands before the body; False: it is nothing that can be answered."""
        body: Any = self.rfile
        head: Any = _Head(body)
        self.rfile = head
        self.requestline = self.command = ""
        try:
            self.raw_requestline = head.readline()
            if not self.parse_request():
                return False
        except _HeadTooLong:
            self.send_error(431)
            return False
        finally:
            self.rfile = body
        if self.request_version != "HTTP/0.9":
            return True
        self.send_error(400)
        return False

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what cannot be read with its number alone; nothing that a client sent is sent back."""
        self.request_version = "HTTP/1.0"
        self.send_response_only(code)
        for name, value in (*HEADERS, ("Connection", "close"), ("Content-Length", "0")):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that it has
        """Say nothing: every page asks once a second."""


class _Answering(SimpleHandler):
    server_software = "circuit-breaker"


class _HeadTooLong(Exception):
    """Raised while a request is read."""


class _Head:
    """What a request begins with, of which only so much is read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = LONGEST_HEAD

    def readline(self, size: int = LONGEST_HEAD + 1) -> bytes:
        """Return one line."""
        line = self._stream.readline(min(size, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise _HeadTooLong
        return line


class _Guard:
    """Refuses requests that call this server by a name that is not its own."""

    def __init__(self, application: WSGIApplication, names: set[str], is_public: bool) -> None:
        self._application = application
        self._names = names | {"localhost"}
        self._is_public = is_public

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._is_ours(environ.get("HTTP_HOST", "")):
            return self._application(environ, start_response)
        text = b"This console does not answer to that name: see --name.\n"
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text))), *HEADERS]
        start_response("421 Misdirected Request", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [text]

    def _is_ours(self, host: str) -> bool:
        """Tell whether a Host header names this server. The port may be that of a tunnel."""
        name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
        if port and not port.isdecimal():
            return False
        if name.lower() in self._names:
            return True
        try:
            address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return address.is_loopback or self._is_public


def is_loopback(address: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
