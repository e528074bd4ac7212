"""The HTTP examples against a real server: what callers see, what counts as what, and that nothing is lost."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra test")
pytest.importorskip("httpx", reason="needs the extra test")
pytest.importorskip("requests", reason="needs the extra test")

from clients import CLIENTS, Aiohttp, Answer, AsyncHttpx, Client, Httpx, InALoop, Requests
from faulty_server import (
    PATIENCE_S,
    Reaction,
    FaultyServer,
    answer,
    answer_too_late,
    cut_in_body,
    cut_in_header,
    dawdle,
    garbage,
    never_answer,
    reset_in_body,
)

from circuit_breaker import CircuitBreaker, CircuitOpenError, CircuitState, RetryBudget, RetryScheduled
from circuit_breaker.testing import FakeClock

HEALTHY = Answer(200, b"healthy")
KEY = {"Idempotency_Key": "6e1f"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def told() -> list[RetryScheduled]:
    return []


@pytest.fixture
def open_client(clock: FakeClock, told: list[RetryScheduled]) -> Iterator[Callable[[type[Client]], Client]]:
    opened: list[Client] = []

    def open_client(kind: type[Client]) -> Client:
        settings = {"failure_threshold": 2, "success_threshold": 1, "half_open_max_calls": 1, "reset_timeout_s": 10}

        def sleep(seconds: float) -> Any:
            return clock.sleep_async(seconds) if kind.is_async else clock.sleep(seconds)

        budget = RetryBudget(clock=clock)
        policy = {"listeners": [told.append], "sleep": sleep, "clock": clock, "budget": budget, "jitter": False}
        opened.append(kind(settings, clock, policy))
        return opened[-1]

    yield open_client
    told.clear()
    for client in opened:
        client.close()


@pytest.fixture(params=CLIENTS, ids=lambda kind: kind.name)
def client(request: Any, server: FaultyServer, open_client: Callable[[type[Client]], Client]) -> Client:
    return open_client(request.param)


def key_of(client: Client, server: FaultyServer) -> str:
    """Return the key of the server's breaker."""
    return server.url.rstrip("/") if isinstance(client, Aiohttp) else server.host


def breaker_of(client: Client, server: FaultyServer) -> CircuitBreaker:
    return client.breakers[key_of(client, server)]


def make_half_open(breaker: CircuitBreaker, clock: FakeClock) -> None:
    """From now on one probe may pass; its answer decides."""
    breaker.record_failure()
    breaker.record_failure()
    clock.advance(10)
    assert breaker.state is CircuitState.HALF_OPEN


def seen(call: Callable[..., Answer], *args: Any, **options: Any) -> Answer | str:
    """Return the answer, or the name of the error."""
    try:
        return call(*args, **options)
    except Exception as error:
        return type(error).__name__


# What callers see when the server fails

FAULTS: dict[str, Reaction] = {
    "reset in the body": reset_in_body,
    "cut in the body": cut_in_body,
    "cut in the header": cut_in_header,
    "garbage": garbage,
    "never answers": never_answer,
    "answers too late": answer_too_late,
}
HTTPX = {
    "reset in the body": "ReadError",
    "cut in the body": "RemoteProtocolError",
    "cut in the header": "RemoteProtocolError",
    "garbage": "RemoteProtocolError",
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
        "never answers": "ReadTimeout",
        "answers too late": "ReadTimeout",
    },
    "aiohttp": {
        "reset in the body": "ClientPayloadError",
        "cut in the body": "ClientPayloadError",
        # aiohttp asks once more by itself when a server hangs up; by then the circuit is open again.
        "cut in the header": "AiohttpCircuitOpenError",
        "garbage": "ClientResponseError",
        "never answers": "SocketTimeoutError",
        "answers too late": "SocketTimeoutError",
    },
    "urllib": {
        "reset in the body": "ConnectionResetError",
        "cut in the body": "IncompleteRead",
        "cut in the header": CUT_IN_THE_HEADER_IS_AN_ANSWER,
        "garbage": "BadStatusLine",
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


def test_a_wish_to_be_left_alone_is_no_failure_and_gives_the_permit_back(
    client: Client, server: FaultyServer, clock: FakeClock
) -> None:
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)
    server.will(*[answer(429, b"later", retry_after="5")] * 3)
    for _ in range(3):
        assert client.request("GET", server.url) == Answer(429, b"later")
    assert breaker.state is CircuitState.HALF_OPEN
    assert (breaker.snapshot().probes_in_flight, breaker.stats.ignored_count) == (0, 3)


def test_the_circuit_stays_open_for_as_long_as_the_server_wishes(
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
    assert error.circuit_name == key_of(client, server)
    assert error.retry_after_s == 10
    assert error.state is CircuitState.OPEN
    assert str(error).startswith("[CircuitOpenError] Circuit ")
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
    assert sorted(client.breakers) == sorted([key_of(client, server), key_of(client, other)])


# Retries


def test_a_wish_to_be_left_alone_is_heeded(client: Client, server: FaultyServer, told: list[RetryScheduled]) -> None:
    server.will(answer(429, retry_after="7"))
    assert client.send("GET", server.url) == HEALTHY
    assert [event.delay_s for event in told] == [7]


def test_a_wish_that_stays_is_returned_in_the_end(client: Client, server: FaultyServer) -> None:
    server.will(*[answer(429, b"later", retry_after="1")] * 4)
    assert client.send("GET", server.url) == Answer(429, b"later")
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "failing", [answer(503), reset_in_body, cut_in_body, garbage], ids=["503", "reset", "cut", "garbage"]
)
def test_what_failed_is_asked_for_again(
    failing: Reaction, client: Client, server: FaultyServer, clock: FakeClock
) -> None:
    server.will(failing)
    assert client.send("GET", server.url) == HEALTHY
    assert len(server.requests) == 2
    assert clock.sleeps == [0.1]


def test_an_answer_is_not_asked_for_again(client: Client, server: FaultyServer) -> None:
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
def test_a_post_is_not_repeated(failing: Reaction, client: Client, server: FaultyServer) -> None:
    server.will(failing)
    assert seen(client.send, "POST", server.url, b"order") != HEALTHY
    assert [request.body for request in server.requests] == [b"order"]


@pytest.mark.parametrize("failing", [answer(503), reset_in_body, garbage], ids=["503", "reset", "garbage"])
def test_a_post_with_an_idempotency_key_is_repeated_with_the_same_key_and_body(
    failing: Reaction, client: Client, server: FaultyServer
) -> None:
    server.will(failing)
    assert client.send("POST", server.url, b"order", **KEY) == HEALTHY
    assert [(sent.body, sent.headers["idempotency-key"]) for sent in server.requests] == [(b"order", "6e1f")] * 2


def test_a_post_that_was_refused_unseen_is_repeated(client: Client, server: FaultyServer) -> None:
    server.will(answer(429, retry_after="1"))
    assert client.send("POST", server.url, b"order") == HEALTHY
    assert [request.body for request in server.requests] == [b"order"] * 2


def test_a_body_that_can_be_read_but_once_is_sent_but_once(client: Client, server: FaultyServer) -> None:
    server.will(answer(503, b"failing"))
    assert client.send("PUT", server.url, lambda: iter([b"one ", b"two"])) == Answer(503, b"failing")
    assert [request.body for request in server.requests] == [b"one two"]


# What each library has of its own


def test_httpx_a_stream_that_is_not_read_to_its_end_says_nothing(
    server: FaultyServer, open_client: Callable[[type[Client]], Any], clock: FakeClock
) -> None:
    client = open_client(Httpx)
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)
    with client.session.stream("GET", server.url) as response:
        parts = response.iter_raw(1)
        assert next(parts) == b"h"
        assert breaker.snapshot().probes_in_flight == 1
    assert (breaker.snapshot().probes_in_flight, breaker.stats.ignored_count) == (0, 1)
    assert client.request("GET", server.url) == HEALTHY


def test_httpx_async_a_stream_that_is_not_read_to_its_end_says_nothing(
    server: FaultyServer, open_client: Callable[[type[Client]], Any], clock: FakeClock
) -> None:
    client = open_client(AsyncHttpx)
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)

    async def peek() -> None:
        async with client.session.stream("GET", server.url) as response:
            assert response.status_code == 200
            assert breaker.snapshot().probes_in_flight == 1

    client.run(peek())
    assert (breaker.snapshot().probes_in_flight, breaker.stats.ignored_count) == (0, 1)
    assert client.request("GET", server.url) == HEALTHY


def test_httpx_a_mistake_of_our_own_says_nothing_about_the_server(
    server: FaultyServer, open_client: Callable[[type[Client]], Any]
) -> None:
    client = open_client(Httpx)

    def body() -> Iterator[bytes]:
        raise ValueError("a mistake of ours")
        yield b""

    assert seen(client.request, "POST", server.url, body) == "ValueError"
    assert breaker_of(client, server).stats.ignored_count == 1


def test_requests_a_stream_is_judged_by_its_status(
    server: FaultyServer, open_client: Callable[[type[Client]], Any], clock: FakeClock
) -> None:
    client = open_client(Requests)
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)
    with client.session.get(server.url, stream=True) as response:
        assert breaker.state is CircuitState.CLOSED
        assert response.content == b"healthy"


def test_aiohttp_a_retry_gives_its_connection_back_before_it_waits(
    server: FaultyServer, open_client: Callable[[type[Client]], Any]
) -> None:
    client = open_client(Aiohttp)  # with one connection

    async def ask() -> bytes:
        breaking = client.example.BreakerMiddleware(client.breakers, reads_body=False)
        async with client.session.get(server.url, middlewares=[client.retrying, breaking]) as response:
            return bytes(await response.read())

    server.will(answer(503, b"failing" * 100_000))
    assert client.run(asyncio.wait_for(ask(), PATIENCE_S)) == b"healthy"


def test_aiohttp_itself_asks_once_more_when_a_server_hangs_up_without_an_answer(
    server: FaultyServer, open_client: Callable[[type[Client]], Any]
) -> None:
    client = open_client(Aiohttp)
    server.will(cut_in_header, cut_in_header)
    assert seen(client.request, "GET", server.url) == "ServerDisconnectedError"
    assert len(server.requests) == breaker_of(client, server).stats.failure_count == 2


def test_aiohttp_a_stream_is_judged_by_its_status(
    server: FaultyServer, open_client: Callable[[type[Client]], Any], clock: FakeClock
) -> None:
    client = open_client(Aiohttp)
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)

    async def stream() -> None:
        middleware = client.example.BreakerMiddleware(client.breakers, reads_body=False)
        async with client.session.get(server.url, middlewares=[middleware]) as response:
            assert breaker.state is CircuitState.CLOSED
            assert await response.content.read() == b"healthy"

    client.run(stream())


def cancel(client: InALoop, server: FaultyServer, after: Callable[[], object] = lambda: None) -> None:
    """Send a request that is cancelled when it has arrived."""

    async def cancelled() -> None:
        task = asyncio.create_task(client.request_async("GET", server.url, None, PATIENCE_S, {}))
        await asyncio.to_thread(server.wait_for, 1)
        after()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    server.will(never_answer)
    client.run(cancelled())


@pytest.mark.parametrize("kind", [kind for kind in CLIENTS if kind.is_async], ids=lambda kind: kind.name)
def test_a_request_that_is_cancelled_says_nothing_and_gives_its_permit_back(
    kind: type[Client], server: FaultyServer, open_client: Callable[[type[Client]], Any], clock: FakeClock
) -> None:
    client = open_client(kind)
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)
    cancel(client, server)
    assert (breaker.snapshot().probes_in_flight, breaker.stats.ignored_count) == (0, 1)
    assert client.request("GET", server.url) == HEALTHY
    assert breaker.state is CircuitState.CLOSED


def test_aiohttp_a_request_that_is_cancelled_after_too_long_is_a_failure(
    server: FaultyServer, open_client: Callable[[type[Client]], Any], clock: FakeClock
) -> None:
    client = open_client(Aiohttp)
    cancel(client, server, after=lambda: clock.advance(10))
    assert breaker_of(client, server).stats.failure_count == 1


def test_aiohttp_a_total_timeout_is_a_failure_once_the_request_is_sent(
    server: FaultyServer, open_client: Callable[[type[Client]], Any]
) -> None:
    client = open_client(Aiohttp)

    async def impatient() -> None:
        async with client.session.get(server.url, timeout=client.example.aiohttp.ClientTimeout(total=0.5)):
            pass

    server.will(never_answer)
    with pytest.raises(TimeoutError):
        client.run(impatient())
    assert breaker_of(client, server).stats.failure_count == 1


def test_aiohttp_a_total_timeout_before_that_is_a_cancellation_and_says_nothing(
    server: FaultyServer, open_client: Callable[[type[Client]], Any]
) -> None:
    client = open_client(Aiohttp)  # with one connection
    breaker = breaker_of(client, server)

    async def impatient() -> None:
        async with client.session.get(server.url, middlewares=[]):
            async with client.session.get(server.url, timeout=client.example.aiohttp.ClientTimeout(total=0.1)):
                pass

    server.will(dawdle)
    with pytest.raises(TimeoutError):
        client.run(impatient())
    assert (breaker.stats.failure_count, breaker.stats.ignored_count) == (0, 1)
