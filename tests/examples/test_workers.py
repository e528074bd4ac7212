"""FastAPI under uvicorn with two workers, which share one circuit over a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra recipes: pip install -e .[test,recipes]")
pytest.importorskip("uvicorn", reason="needs the extra recipes: pip install -e .[test,recipes]")

from example_files import EXAMPLES, example
from fastapi.testclient import TestClient
from faulty_server import FaultyServer, Reaction, answer, cut_in_body, dawdle, never_answer, reset_in_body
from patience import PATIENCE_S
from redis_server import free_port

from circuit_breaker import CircuitState
from circuit_breaker.stores import SQLiteStore


def until(holds: Callable[[], object]) -> None:
    ends_at = time.monotonic() + 2 * PATIENCE_S
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.05)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "circuits.db")


@pytest.fixture
def port(server: FaultyServer, path: str) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "with_workers:app", "--workers", "2", "--port", str(port)]
    environ = {**os.environ, "RATES_URL": server.url, "CIRCUITS": path}
    process = subprocess.Popen(command, cwd=EXAMPLES, env=environ, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    yield port
    process.terminate()
    process.wait(PATIENCE_S)


def ask(port: int) -> tuple[int, int | None]:
    """Return the status of an answer, and the worker that gave it; 0: nobody listens yet."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/rates/EUR", timeout=PATIENCE_S) as response:
            return response.status, json.load(response)["worker"]
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, None
    except OSError:
        return 0, None


def test_an_outage_opens_the_circuit_of_all_workers(port: int, server: FaultyServer, path: str) -> None:
    workers: set[int | None] = set()
    until(lambda: workers.add(ask(port)[1]) or len(workers - {None}) == 2)
    store = SQLiteStore(path, timeout_s=5.0)
    server.usually = answer(500)
    until(lambda: (ask(port), store.circuits()[0].state)[1] is CircuitState.OPEN)
    assert {member.pid for member in store.members()} == workers - {None}
    until(lambda: {member.circuits["rates"] for member in store.members()} == {"for_all"})
    reached = len(server.requests)
    assert {ask(port)[0] for _ in range(20)} == {503}
    assert len(server.requests) == reached


@pytest.mark.parametrize(
    ("reaction", "status", "failures"),
    [
        (answer(), 200, 0),
        (answer(404), 404, 0),
        (answer(429), 502, 0),
        (answer(500), 502, 1),
        (never_answer, 502, 1),
        (dawdle, 502, 1),
        (cut_in_body, 502, 1),
        (reset_in_body, 502, 1),
    ],
)
def test_what_the_service_does_is_an_answer_or_a_failure(
    reaction: Reaction, status: int, failures: int, server: FaultyServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUITS", path)
    workers = example("with_workers")
    monkeypatch.setattr(workers, "RATES", server.url)
    monkeypatch.setattr(workers, "TIMEOUT_S", PATIENCE_S if status == 200 else 0.1)
    breaker = workers.ask_for_rate.circuit_breaker
    breaker.reset()
    server.will(reaction)
    with TestClient(workers.app) as client:
        assert client.get("/rates/E%20R").status_code == status
    assert (breaker.stats.failure_count, breaker.stats.success_count) == (failures, 1 - failures)
    assert server.requests[0].target == "/E%20R"
