"""The FastAPI example, through its test client, with an upstream that really fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra recipes: pip install -e .[test,recipes]")
pytest.importorskip("httpx2", reason="needs the extra recipes: pip install -e .[test,recipes]")

import fastapi
import httpx2 as httpx
from example_files import HOW_TO, code_blocks, example
from fastapi.testclient import TestClient
from faulty_server import PATIENCE_S, FaultyServer, answer

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitMode
from circuit_breaker.testing import FakeClock

recipe = example("with_fastapi")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock, request: pytest.FixtureRequest) -> CircuitBreaker:
    return CircuitBreaker(
        request.node.name, replace(recipe.CONFIG, failure_threshold=2, reset_timeout_s=10), clock=clock
    )


@pytest.fixture
def client(server: FaultyServer, breaker: CircuitBreaker) -> Iterator[TestClient]:
    app = fastapi.FastAPI()
    recipe.install(app)
    app.add_api_route("/health/circuits", recipe.circuits)
    full = Bulkhead("reports", max_concurrent=0)

    @breaker
    async def ask(currency: str) -> str:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as upstream:
            response = await upstream.get(server.url + currency)
        if response.status_code == 404:
            raise fastapi.HTTPException(404, "no such currency")
        response.raise_for_status()
        text: str = response.text
        return text

    @app.get("/rates/{currency}")
    async def rate(currency: str) -> str:
        try:
            return await ask(currency)
        except httpx.HTTPError as error:
            raise fastapi.HTTPException(502) from error

    @app.get("/reports")
    def report() -> str:
        return full.call(str)

    with TestClient(app) as client:
        yield client


def test_an_answer_is_an_answer(client: TestClient) -> None:
    assert client.get("/rates/EUR").json() == "healthy"


def test_an_open_circuit_is_503_and_says_when_to_come_back(
    client: TestClient, server: FaultyServer, clock: FakeClock
) -> None:
    server.will(answer(503), answer(503))
    assert [client.get("/rates/EUR").status_code for _ in range(2)] == [502, 502]
    clock.advance(2.5)
    rejected = client.get("/rates/EUR")
    assert (rejected.status_code, rejected.headers["Retry-After"]) == (503, "8")
    assert rejected.json() == {"detail": "unavailable"}
    assert len(server.requests) == 2
    clock.advance(8)
    assert client.get("/rates/EUR").json() == "healthy"


@pytest.mark.parametrize(("reset_timeout_s", "said"), [(float("inf"), "3600"), (0.25, "1")])
def test_what_is_said_is_a_whole_number_of_seconds(
    reset_timeout_s: float, said: str, client: TestClient, breaker: CircuitBreaker
) -> None:
    breaker.config = replace(breaker.config, reset_timeout_s=reset_timeout_s)
    breaker.record_failure()
    breaker.record_failure()
    assert client.get("/rates/EUR").headers["Retry-After"] == said


def test_a_circuit_that_cannot_tell_says_one_second(client: TestClient, breaker: CircuitBreaker) -> None:
    breaker.mode = CircuitMode.FORCED_OPEN
    rejected = client.get("/rates/EUR")
    assert (rejected.status_code, rejected.headers["Retry-After"]) == (503, "1")


def test_a_full_bulkhead_is_503(client: TestClient) -> None:
    rejected = client.get("/reports")
    assert (rejected.status_code, rejected.headers["Retry-After"]) == (503, "1")


def test_something_to_tell_the_client_is_not_a_failure(
    client: TestClient, server: FaultyServer, breaker: CircuitBreaker
) -> None:
    server.will(*[answer(404)] * 3)
    assert [client.get("/rates/XYZ").status_code for _ in range(3)] == [404] * 3
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (3, 0)


def test_the_page_shows_every_circuit(client: TestClient, breaker: CircuitBreaker) -> None:
    breaker.record_failure()
    breaker.record_failure()
    page: list[dict[str, Any]] = client.get("/health/circuits").json()["circuits"]
    (rates,) = [circuit for circuit in page if circuit["name"] == breaker.name]
    assert (rates["state"], rates["retry_after_s"], rates["stats"]["failure_count"]) == ("open", 10.0, 2)
    assert [circuit["name"] for circuit in page] == sorted(circuit["name"] for circuit in page)


# The page of the documentation


@pytest.fixture
def of_the_page(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of the app in the section "With an HTTP client", which asks the server."""
    pytest.importorskip("httpx", reason="needs the extra test")
    (block,) = (block for block in code_blocks(HOW_TO / "recipes-fastapi.md") if "send_async" in block)
    for name in ("with_fastapi", "with_httpx"):
        monkeypatch.setitem(sys.modules, name, example(name))
    namespace: dict[str, Any] = {}
    exec(block.replace("https://api.example/", server.url), namespace)
    with TestClient(namespace["app"]) as client:
        yield client


def test_the_order_of_handlers_on_the_page_answers_503_with_retry_after(
    of_the_page: TestClient, server: FaultyServer
) -> None:
    server.usually = answer(503, retry_after="100")
    failed = [of_the_page.get("/orders/7") for _ in range(5)]
    assert {response.status_code for response in failed} == {502}
    rejected = of_the_page.get("/orders/7")
    assert (rejected.status_code, rejected.headers["Retry-After"]) == (503, "100")
    assert len(server.requests) == 5, "nobody waits for a server that asks for 100 s"


def test_an_endpoint_of_the_page_passes_on_what_its_client_should_know(
    of_the_page: TestClient, server: FaultyServer
) -> None:
    server.will(answer(200, b'{"cents": 1250}'), answer(404), answer(400))
    assert of_the_page.get("/orders/7").json() == {"cents": 1250}
    assert [of_the_page.get("/orders/8").status_code for _ in range(2)] == [404, 502]
