"""A real Redis of its own on a free port of the loopback interface, which a test may stop, kill and start again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S

BINARY = shutil.which("redis-server")

needs_redis_server = pytest.mark.skipif(
    BINARY is None, reason="needs a redis-server: apt-get install redis-server, or your system's package"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class RedisServer:
    """One server without any data on disk; use it as a context manager."""

    def __init__(self, *options: str, bus: bool = False) -> None:
        assert BINARY is not None
        self.port = free_port()
        self.bus_port = free_port()  # for the other nodes of a cluster
        self._options = (*options, "--cluster-port", str(self.bus_port)) if bus else options
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty."""
        command = [str(BINARY), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with Path(self._folder.name, "log").open("ab") as log:
            self._process = subprocess.Popen([*command, *self._options], cwd=self._folder.name, stdout=log, stderr=log)
        ends_at = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert time.monotonic() < ends_at, Path(self._folder.name, "log").read_text("utf-8")[-2_000:]
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    def freeze(self) -> None:
        """Let it hang: connections stay open, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self, kind: Any, **settings: Any) -> Any:
        """Return a client of it."""
        return kind(**{"host": "127.0.0.1", "port": self.port, "socket_timeout": 0.25, **settings})

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()
