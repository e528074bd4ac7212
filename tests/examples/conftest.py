"""What the tests of the examples share: a server that can fail, and nothing that stands between it and a client.

Those that need more than the extra `test` are skipped without it. To run them all:

    .venv/bin/python -m pip install -q -e ".[test,recipes]" && .venv/bin/python -m pytest tests/examples
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from faulty_server import FaultyServer

from circuit_breaker import RetryBudget, RetryScheduled
from circuit_breaker.testing import FakeClock

if TYPE_CHECKING:
    from clients import Client

PATIENT = {"max_retries": 3, "max_elapsed_s": 60.0}


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


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def told() -> list[RetryScheduled]:
    return []


@pytest.fixture
def open_client(
    clock: FakeClock, told: list[RetryScheduled], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Client]]:
    opened: list[Client] = []

    def open_client(kind: type[Client], policy: dict[str, Any] = PATIENT, **config: Any) -> Client:
        def sleep(seconds: float) -> Any:
            return clock.sleep_async(seconds) if kind.is_async else clock.sleep(seconds)

        monkeypatch.setattr(kind.example, "RetryBudget", lambda: RetryBudget(min_per_second=0, clock=clock))
        config = {"success_threshold": 1, "half_open_max_calls": 1, "reset_timeout_s": 10} | config
        policy = {"listeners": [told.append], "sleep": sleep, "clock": clock, "jitter": False, **policy}
        opened.append(kind({"failure_threshold": 2, **config}, clock, policy))
        return opened[-1]

    yield open_client
    told.clear()
    for client in opened:
        client.close()
