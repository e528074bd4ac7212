"""The HTTP examples against a real server: what callers see, what counts as what, and that nothing is lost."""

from __future__ import annotations

import asyncio
import pickle
import urllib.request
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra test")
pytest.importorskip("httpx", reason="needs the extra test")
pytest.importorskip("requests", reason="needs the extra test")

import yarl
from clients import (
    CLIENTS,
    HEALTHY,
    Aiohttp,
    Answer,
    Client,
    Httpx,
    Requests,
    Urllib,
    breaker_of,
    make_half_open,
    seen,
)
from faulty_server import (
    PATIENCE_S,
    FaultyServer,
    Reaction,
    answer,
    answer_too_late,
    corrupt_gzip,
    cut_in_body,
    cut_in_header,
    garbage,
    never_answer,
    reset_in_body,
    send,
)

from circuit_breaker import CircuitOpenError, CircuitState, RetryScheduled
from circuit_breaker.testing import FakeClock

KEY = {"Idempotency_Key": "6e1f"}


@pytest.fixture(params=CLIENTS, ids=lambda kind: kind.name)
def client(request: Any, server: FaultyServer, open_client: Callable[[type[Client]], Client]) -> Client:
    return open_client(request.param)


# What callers see when the server fails

FAULTS: dict[str, Reaction] = {
    "reset in the body": reset_in_body,
    "cut in the body": cut_in_body,
    "cut in the header": cut_in_header,
    "garbage": garbage,
    "corrupt gzip": corrupt_gzip,
    "never answers": never_answer,
    "answers too late": answer_too_late,
}
HTTPX = {
    "reset in the body": "ReadError",
    "cut in the body": "RemoteProtocolError",
    "cut in the header": "RemoteProtocolError",
    "garbage": "RemoteProtocolError",
    "corrupt gzip": "DecodingError",
    "never answers": "ReadTimeout",
    "answers too late": "ReadTimeout",
}
CUT_IN_THE_HEADER_IS_AN_ANSWER = Answer(200, b"")  # for http.client, which requests and urllib are built on
SEEN: dict[str, dict[str, str | Answer]] = {
    "httpx": HTTPX,
    "httpx async": HTTPX,
    "httpx2": HTTPX,
    "httpx2 async": HTTPX,
    "requests": {
        "reset in the body": "ChunkedEncodingError",
        "cut in the body": "ChunkedEncodingError",
        "cut in the header": CUT_IN_THE_HEADER_IS_AN_ANSWER,
        "garbage": "ConnectionError",
        "corrupt gzip": "ContentDecodingError",
        "never answers": "ReadTimeout",
        "answers too late": "ReadTimeout",
    },
    "aiohttp": {
        "reset in the body": "ClientPayloadError",
        "cut in the body": "ClientPayloadError",
        # aiohttp asks once more by itself when a server hangs up; by then the circuit is open again.
        "cut in the header": "AiohttpCircuitOpenError",
        "garbage": "ClientResponseError",
        "corrupt gzip": "ClientPayloadError",
        "never answers": "SocketTimeoutError",
        "answers too late": "SocketTimeoutError",
    },
    "urllib": {
        "reset in the body": "ConnectionResetError",
        "cut in the body": "IncompleteRead",
        "cut in the header": CUT_IN_THE_HEADER_IS_AN_ANSWER,
        "garbage": "BadStatusLine",
        "corrupt gzip": Answer(200, b"this is no gzip"),  # urllib never decodes
        "never answers": "TimeoutError",
        "answers too late": "TimeoutError",
    },
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_caller_sees_the_error_of_the_library_and_no_permit_and_no_connection_is_lost(
    fault: str, client: Client, server: FaultyServer, clock: FakeClock
) -> None:
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)
    waits = FAULTS[fault] in (never_answer, answer_too_late)
    server.will(FAULTS[fault])
    expected = SEEN[client.name][fault]
    assert seen(client.request, "GET", server.url, **({"timeout_s": 0.1} if waits else {})) == expected
    assert breaker.snapshot().probes_in_flight == 0
    server.wait_for(1)
    if isinstance(expected, Answer):
        assert breaker.state is CircuitState.CLOSED
    else:
        assert breaker.state is CircuitState.OPEN
        clock.advance(10)
        assert client.request("GET", server.url) == HEALTHY
        assert breaker.state is CircuitState.CLOSED


def test_a_server_that_is_not_there_is_a_failure(client: Client) -> None:
    nowhere = FaultyServer()
    nowhere.close()
    for _ in range(2):
        with pytest.raises(client.transport_error) as caught:
            client.request("GET", nowhere.url)
        assert not isinstance(caught.value, CircuitOpenError)
    with pytest.raises(CircuitOpenError):
        client.request("GET", nowhere.url)


# What counts as what


@pytest.mark.parametrize("status", [200, 204, 304, 400, 401, 404, 409, 422, 501])
def test_any_other_status_is_an_answer(status: int, client: Client, server: FaultyServer) -> None:
    server.will(*[answer(status, b"")] * 3)
    for _ in range(3):
        assert client.request("GET", server.url).status == status
    stats = breaker_of(client, server).stats
    assert (stats.success_count, stats.failure_count, stats.ignored_count) == (3, 0, 0)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_that_cannot_is_a_failure(status: int, client: Client, server: FaultyServer) -> None:
    server.will(*[answer(status, b"failing")] * 2)
    for _ in range(2):
        assert client.request("GET", server.url) == Answer(status, b"failing")
    assert breaker_of(client, server).state is CircuitState.OPEN


def test_too_many_requests_are_no_failure_and_give_the_permit_back(
    client: Client, server: FaultyServer, clock: FakeClock
) -> None:
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)
    server.will(*[answer(429, b"later", retry_after="5")] * 3)
    for _ in range(3):
        assert client.request("GET", server.url) == Answer(429, b"later")
    assert breaker.state is CircuitState.HALF_OPEN
    assert (breaker.snapshot().probes_in_flight, breaker.stats.ignored_count) == (0, 3)


def test_the_circuit_stays_open_for_as_long_as_the_server_asks(
    client: Client, server: FaultyServer, clock: FakeClock
) -> None:
    server.will(answer(503), answer(503, retry_after="45"))
    for _ in range(2):
        client.request("GET", server.url)
    clock.advance(44)
    assert breaker_of(client, server).state is CircuitState.OPEN
    clock.advance(1)
    assert client.request("GET", server.url) == HEALTHY


# An open circuit


def test_an_open_circuit_is_both_its_own_error_and_that_of_the_library(client: Client, server: FaultyServer) -> None:
    breaker = breaker_of(client, server)
    breaker.record_failure()
    breaker.record_failure()
    with pytest.raises(client.transport_error) as caught:
        client.request("GET", server.url)
    error = caught.value
    assert isinstance(error, CircuitOpenError)
    assert error.circuit_name == server.host
    assert error.retry_after_s == 10
    assert error.state is CircuitState.OPEN
    assert str(error).startswith("[CircuitOpenError] Circuit ")
    assert getattr(error, "response", None) is None
    assert server.requests == []


def test_an_open_circuit_can_be_pickled(client: Client, server: FaultyServer) -> None:
    breaker_of(client, server).record_failure()
    breaker_of(client, server).record_failure()
    with pytest.raises(CircuitOpenError) as caught:
        client.request("GET", server.url)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.retry_after_s) == (type(caught.value), str(caught.value), 10)


def test_each_host_has_its_own_circuit(other: FaultyServer, client: Client, server: FaultyServer) -> None:
    server.will(*[answer(503)] * 2)
    for _ in range(2):
        client.request("GET", server.url)
    assert breaker_of(client, server).state is CircuitState.OPEN
    assert client.request("GET", other.url) == HEALTHY
    assert sorted(client.breakers) == sorted([server.host, other.host])


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://api.example/orders", "api.example"),
        ("http://api.example:80/", "api.example"),
        ("https://api.example:443/", "api.example"),
        ("https://API.example/", "api.example"),
        ("http://api.example:443/", "api.example:443"),
        ("http://user:secret@api.example:8080/", "api.example:8080"),
        ("http://[::1]:8080/", "[::1]:8080"),
    ],
)
def test_a_host_has_one_key_however_its_url_is_written(url: str, host: str) -> None:
    assert Httpx.example.host_of(Httpx.httpx.URL(url)) == host
    assert Requests.example.host_of(url) == host
    assert Urllib.example.host_of(urllib.request.Request(url)) == host
    assert Aiohttp.example.host_of(SimpleNamespace(url=yarl.URL(url))) == host


def test_behind_a_proxy_each_host_has_its_own_circuit(client: Client, server: FaultyServer) -> None:
    client.use_proxy(server.url)
    server.will(answer(503), answer(503))
    for _ in range(2):
        assert client.request("GET", "http://a.example/").status == 503
    assert client.request("GET", "http://b.example/") == HEALTHY
    assert client.breakers["a.example"].state is CircuitState.OPEN
    assert client.breakers["b.example"].state is CircuitState.CLOSED
    assert [request.target for request in server.requests] == ["http://a.example/"] * 2 + ["http://b.example/"]


def test_behind_a_proxy_a_host_of_https_has_its_own_circuit(client: Client, server: FaultyServer) -> None:
    client.use_proxy(server.url)
    server.will(send(b"HTTP/1.1 503 No Tunnel\r\n\r\n"))
    assert isinstance(seen(client.request, "GET", "https://a.example/"), str)
    assert list(client.breakers) == ["a.example"]
    assert client.breakers["a.example"].stats.failure_count == 1
    assert server.requests[0].method == "CONNECT"


def test_behind_a_proxy_a_request_is_retried(client: Client, server: FaultyServer) -> None:
    client.use_proxy(server.url)
    server.will(answer(503))
    assert client.send("GET", "http://a.example/") == HEALTHY
    assert [request.target for request in server.requests] == ["http://a.example/"] * 2


# Retries


@pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.name)
def test_an_overloaded_host_does_not_use_up_the_retries_of_another(
    kind: type[Client], server: FaultyServer, other: FaultyServer, open_client: Callable[..., Client]
) -> None:
    client = open_client(kind, failure_threshold=1000)
    server.usually = answer(503)
    attempts, before = 0, 0
    while attempts != 1:  # until there is no retry left in the budget
        client.send("GET", server.url)
        attempts, before = len(server.requests) - before, len(server.requests)
        assert before < 100
    other.will(answer(503))
    assert client.send("GET", other.url) == HEALTHY


@pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.name)
def test_by_default_retries_are_over_soon_since_somebody_may_be_waiting(
    kind: type[Client], server: FaultyServer, open_client: Callable[..., Client], clock: FakeClock
) -> None:
    def slow(*request: Any) -> bool:
        clock.advance(2)
        return answer(503)(*request)

    client = open_client(kind, policy={}, failure_threshold=1000)
    server.usually = slow
    assert client.send("GET", server.url).status == 503
    assert 1 < len(server.requests) <= 3
    assert clock() <= 5 + 2  # no attempt begins after the first five seconds


@pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.name)
def test_by_default_a_server_that_asks_for_a_long_wait_is_not_retried(
    kind: type[Client], server: FaultyServer, open_client: Callable[..., Client], clock: FakeClock
) -> None:
    client = open_client(kind, policy={})
    server.will(answer(503, retry_after="30"))
    assert client.send("GET", server.url).status == 503
    assert (len(server.requests), clock.sleeps) == (1, [])


def test_a_retry_waits_for_as_long_as_the_server_asks(
    client: Client, server: FaultyServer, told: list[RetryScheduled]
) -> None:
    server.will(answer(429, retry_after="7"))
    assert client.send("GET", server.url) == HEALTHY
    (event,) = told
    assert 7 <= event.delay_s <= 7.1


def test_log_lines_and_events_of_a_retry_name_the_method_and_the_host(
    client: Client, server: FaultyServer, told: list[RetryScheduled]
) -> None:
    server.will(answer(503))
    client.send("GET", server.url)
    host = server.url.removeprefix("http://").rstrip("/")
    assert str(told[0].function).endswith(f"(GET {host})")


def test_too_many_requests_are_returned_in_the_end(client: Client, server: FaultyServer) -> None:
    server.will(*[answer(429, b"later", retry_after="1")] * 4)
    assert client.send("GET", server.url) == Answer(429, b"later")
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "failing", [answer(503), reset_in_body, cut_in_body, garbage], ids=["503", "reset", "cut", "garbage"]
)
def test_a_request_that_failed_is_retried(
    failing: Reaction, client: Client, server: FaultyServer, clock: FakeClock
) -> None:
    server.will(failing)
    assert client.send("GET", server.url) == HEALTHY
    assert len(server.requests) == 2
    assert clock.sleeps == [0.1]


def test_an_answer_is_not_retried(client: Client, server: FaultyServer) -> None:
    server.will(answer(404, b"no"))
    assert client.send("GET", server.url) == Answer(404, b"no")
    assert len(server.requests) == 1


def test_the_retries_stop_when_the_circuit_opens(client: Client, server: FaultyServer) -> None:
    server.will(answer(503), answer(503))
    with pytest.raises(client.transport_error) as caught:
        client.send("GET", server.url)
    assert isinstance(caught.value, CircuitOpenError)
    assert len(server.requests) == 2


# Bodies


@pytest.mark.parametrize("failing", [answer(503), reset_in_body, garbage], ids=["503", "reset", "garbage"])
def test_a_post_is_not_retried(failing: Reaction, client: Client, server: FaultyServer) -> None:
    server.will(failing)
    assert seen(client.send, "POST", server.url, b"order") != HEALTHY
    assert [request.body for request in server.requests] == [b"order"]


@pytest.mark.parametrize("failing", [answer(503), reset_in_body, garbage], ids=["503", "reset", "garbage"])
def test_a_post_with_an_idempotency_key_is_retried_with_the_same_key_and_body(
    failing: Reaction, client: Client, server: FaultyServer
) -> None:
    server.will(failing)
    assert client.send("POST", server.url, b"order", **KEY) == HEALTHY
    assert [(sent.body, sent.headers["idempotency-key"]) for sent in server.requests] == [(b"order", "6e1f")] * 2


def test_a_post_that_the_server_has_not_processed_is_retried(client: Client, server: FaultyServer) -> None:
    server.will(answer(429, retry_after="1"))
    assert client.send("POST", server.url, b"order") == HEALTHY
    assert [request.body for request in server.requests] == [b"order"] * 2


def test_a_post_to_a_server_that_is_not_there_is_retried(client: Client, told: list[RetryScheduled]) -> None:
    nowhere = FaultyServer()
    nowhere.close()
    with pytest.raises(client.transport_error):
        client.send("POST", nowhere.url, b"order")
    assert told


def test_a_body_that_can_be_read_only_once_is_sent_only_once(client: Client, server: FaultyServer) -> None:
    server.will(answer(503, b"failing"))
    assert client.send("PUT", server.url, lambda: iter([b"one ", b"two"])) == Answer(503, b"failing")
    assert [request.body for request in server.requests] == [b"one two"]


# Cancelled requests


@pytest.mark.parametrize("kind", [kind for kind in CLIENTS if kind.is_async], ids=lambda kind: kind.name)
def test_a_request_that_is_cancelled_says_nothing_and_gives_its_slot_back(
    kind: type[Client], server: FaultyServer, open_client: Callable[..., Any], clock: FakeClock
) -> None:
    client = open_client(kind)
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)

    async def cancelled() -> None:
        task = asyncio.create_task(client.request_async("GET", server.url, None, PATIENCE_S, {}))
        await asyncio.to_thread(server.wait_for, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    server.will(never_answer)
    client.run(cancelled())
    assert (breaker.snapshot().probes_in_flight, breaker.stats.ignored_count) == (0, 1)
    assert client.request("GET", server.url) == HEALTHY
    assert breaker.state is CircuitState.CLOSED
