"""A real web server that is healthy, fails, hangs and recovers, as the plan says."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from itertools import count
from socketserver import ThreadingTCPServer
from threading import Thread
from types import TracebackType
from typing import Any, Final

from circuit_breaker._demo.plan import Phase

ANSWER_S: Final = 0.03
HICCUP_EVERY: Final = 40


class Server:
    """Answers on the loopback interface and a free port from `with` on until its end, each request on a thread.

    Attributes:
        phase: how it is; set it to make it fail or recover.
        port: where it listens.
    """

    def __init__(self) -> None:
        self.phase = Phase.HEALTHY
        self._http = _Http(("127.0.0.1", 0), partial(_Handler, self))
        self.port = int(self._http.server_address[1])
        self._thread = Thread(target=self._http.serve_forever, args=(0.05,))
        self._requests = count(1)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.phase = Phase.RECOVERED
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def status(self) -> int:
        """Work on one request as well as it can now, and return the status of the answer."""
        time.sleep(ANSWER_S)
        while (phase := self.phase) is Phase.HANGS:
            time.sleep(0.02)
        if phase is Phase.FAILS:
            return 500
        # A healthy server fails now and then, too. Retries are for that.
        return 503 if next(self._requests) % HICCUP_EVERY == 0 else 200


@dataclass
class Elsewhere:
    """A server in another process. The phase is set there."""

    port: int
    phase: Phase = Phase.HEALTHY


class _Http(ThreadingTCPServer):
    """Waits on closing for the answers under way, all of which are short once nothing hangs.

    No `HTTPServer`, which would ask for the name of the host, and that can take seconds.
    """

    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a caller who has given up is not an error
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    timeout = 2

    def __init__(self, server: Server, *args: Any) -> None:
        self._server = server
        super().__init__(*args)

    def do_GET(self) -> None:
        status = self._server.status()
        body = f"{status}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - that is its name
        """Say nothing: the screen is for the timeline."""
