"""What the tests of the examples share: a server that can fail, and nothing that stands between it and a client.

Those that need more than the extra `test` are skipped without it. To run them all:

    .venv/bin/python -m pip install -q -e ".[test,recipes]" && .venv/bin/python -m pytest tests/examples
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faulty_server import FaultyServer


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    server = FaultyServer()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[FaultyServer]:
    server = FaultyServer()
    yield server
    server.close()
