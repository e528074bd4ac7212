"""A real browser, and the process whose circuit it looks at. Without them the tests that need them are skipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
PROCESS = """
import select, sys
from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError
from circuit_breaker.stores import SQLiteStore

config = CircuitBreakerConfig(failure_threshold=2, reset_timeout_s=3600)
breaker = CircuitBreaker("payments", config, store=SQLiteStore(sys.argv[1], interval_s=0.1, timeout_s=5.0))
number, came = "1", ""
while True:
    try:
        breaker.call(int, number)
    except ValueError:
        came = "failed"
    except CircuitOpenError:
        came = "rejected"
    else:
        came = "answered"
    if select.select([sys.stdin], [], [], 0.02)[0]:
        told = sys.stdin.readline().strip()
        if not told:
            break
        if told != "?":
            number = {"up": "1", "down": "none"}[told]
        print(came, flush=True)
"""


class Process:
    """A process that shares the circuit `payments`, and calls 50 times a second."""

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )

    def tell(self, told: str) -> str:
        """Let what it calls be "up" or "down", or just ask "?"; return what its last call was: "answered" and so on."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{told}\n")
        stdin.flush()
        return stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate()


def launched(playwright: Any) -> Any:
    """Return a browser; the sandbox of Chromium does not work for root in a container."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


def playwright_or_skip() -> Any:
    """Return the module that drives the browser, or skip the module that asks for it."""
    if CHROMIUM is None:
        pytest.skip("needs chromium: apt-get install chromium, or your system's package", allow_module_level=True)
    return pytest.importorskip("playwright.sync_api", reason="needs playwright, which is in the extra test on CPython")
