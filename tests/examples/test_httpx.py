"""What is special about the httpx example: streams, bodies that httpx decodes, other transports."""

from __future__ import annotations

import asyncio
import gzip
import pickle
from collections.abc import Callable, Iterator
from contextlib import aclosing
from itertools import islice
from typing import Any

import pytest
from garbage import catch_up

pytest.importorskip("httpx", reason="needs the extra test")

from clients import CLIENTS, HEALTHY, AsyncHttpx, Client, Httpx, breaker_of, make_half_open, seen
from faulty_server import FaultyServer, Reaction, answer, dawdle, send

from circuit_breaker import CircuitBreaker, CircuitState
from circuit_breaker.testing import FakeClock

KINDS = [kind for kind in CLIENTS if issubclass(kind, (Httpx, AsyncHttpx))]
TEXT = b"one\ntwo\nthree\n" * 1000


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def client(request: Any, server: FaultyServer, open_client: Callable[[type[Client]], Any]) -> Any:
    return open_client(request.param)


@pytest.fixture
def breaker(client: Any, server: FaultyServer, clock: FakeClock) -> CircuitBreaker:
    """The breaker of the server, half-open, so that its next result decides."""
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)
    return breaker


def chunked(*parts: bytes, head: bytes = b"", complete: bool = True) -> Reaction:
    """Answer in parts; without the end of the last one, the body breaks off."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + head + b"\r\n"
    return send(start + chunks + (b"0\r\n\r\n" if complete else b""))


def read_stream(client: Any, url: str, how: str, limit: int | None = None) -> None:
    """Read a stream, or the first few parts of it."""

    async def read() -> None:
        async with client.session.stream("GET", url) as response, aclosing(getattr(response, f"a{how}")()) as parts:
            left = limit
            while left != 0 and await anext(parts, None) is not None:
                left = None if left is None else left - 1
        for _ in range(2):  # some of these generators keep another one
            catch_up()
            for _ in range(10):  # an event loop closes what is left of async generators a moment later
                await asyncio.sleep(0)

    if client.is_async:
        client.run(read())
    else:
        with client.session.stream("GET", url) as response:
            for _ in islice(getattr(response, how)(), limit):
                pass
        catch_up()


def results(breaker: CircuitBreaker) -> tuple[int, int, int]:
    """Return the successes, the failures and the ignored calls since it was made half-open."""
    assert breaker.snapshot().probes_in_flight == 0
    return breaker.stats.success_count, breaker.stats.failure_count - 2, breaker.stats.ignored_count


# Streams

WAYS = ["iter_raw", "iter_bytes", "iter_text", "iter_lines"]


@pytest.mark.parametrize("how", WAYS)
def test_a_stream_that_is_read_to_its_end_is_a_success(
    how: str, client: Any, server: FaultyServer, breaker: CircuitBreaker
) -> None:
    server.will(chunked(TEXT, TEXT))
    read_stream(client, server.url, how)
    assert results(breaker) == (1, 0, 0)


@pytest.mark.parametrize("how", WAYS)
def test_a_stream_that_is_read_in_part_is_a_success(
    how: str, client: Any, server: FaultyServer, breaker: CircuitBreaker
) -> None:
    server.will(chunked(TEXT, TEXT))
    read_stream(client, server.url, how, limit=1)
    assert results(breaker) == (1, 0, 0)


@pytest.mark.parametrize("how", WAYS)
def test_a_stream_that_nobody_reads_says_nothing(
    how: str, client: Any, server: FaultyServer, breaker: CircuitBreaker
) -> None:
    server.will(chunked(TEXT, TEXT))
    read_stream(client, server.url, how, limit=0)
    assert results(breaker) == (0, 0, 1)


@pytest.mark.parametrize("how", WAYS)
def test_a_stream_that_breaks_off_is_a_failure(
    how: str, client: Any, server: FaultyServer, breaker: CircuitBreaker
) -> None:
    server.will(chunked(TEXT, complete=False))
    assert seen(read_stream, client, server.url, how) == "RemoteProtocolError"
    assert results(breaker) == (0, 1, 0)


def test_a_probe_is_in_flight_until_the_stream_is_over(
    server: FaultyServer, open_client: Any, clock: FakeClock
) -> None:
    client = open_client(Httpx)
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)
    with client.session.stream("GET", server.url) as response:
        parts = response.iter_raw(1)
        assert next(parts) == b"h"
        assert breaker.snapshot().probes_in_flight == 1
    assert results(breaker) == (1, 0, 0)


def test_a_stream_that_still_sends_after_a_long_time_is_a_success_at_once(
    server: FaultyServer, open_client: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_client(Httpx)
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)
    monkeypatch.setattr(client.example, "monotonic", clock)
    server.will(chunked(b"one", b"two", complete=False))
    with client.session.stream("GET", server.url) as response:
        parts = response.iter_bytes(1)
        next(parts)
        clock.advance(29.9)
        next(parts)
        assert breaker.state is CircuitState.HALF_OPEN
        clock.advance(0.1)
        assert seen(lambda: list(parts)) == "RemoteProtocolError"
    assert results(breaker) == (1, 0, 0)


def test_a_stream_whose_reader_is_cancelled_is_a_success_once_a_part_has_arrived(
    server: FaultyServer, open_client: Any, clock: FakeClock
) -> None:
    client = open_client(AsyncHttpx)
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)

    async def read(arrived: asyncio.Event) -> None:
        async with client.session.stream("GET", server.url) as response:
            async for _ in response.aiter_bytes():
                arrived.set()

    async def cancel() -> None:
        arrived = asyncio.Event()
        task = asyncio.create_task(read(arrived))
        await arrived.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    server.will(dawdle)
    client.run(cancel())
    assert results(breaker) == (1, 0, 0)


# Bodies that httpx decodes

GZIP = b"Content-Encoding: gzip\r\n"


def test_a_compressed_body_arrives_as_it_was(client: Any, server: FaultyServer, breaker: CircuitBreaker) -> None:
    server.will(chunked(gzip.compress(TEXT), head=GZIP))
    assert client.request("GET", server.url).body == TEXT
    assert results(breaker) == (1, 0, 0)


@pytest.mark.parametrize("how", ["iter_bytes", "iter_text", "iter_lines"])
@pytest.mark.parametrize("parts", [(b"no gzip",), (gzip.compress(TEXT)[:-8], b"checksum")], ids=["at once", "later"])
def test_a_stream_that_cannot_be_decoded_is_a_failure(
    parts: tuple[bytes, ...], how: str, client: Any, server: FaultyServer, breaker: CircuitBreaker
) -> None:
    server.will(chunked(*parts, head=GZIP))
    assert seen(read_stream, client, server.url, how) == "DecodingError"
    assert results(breaker) == (0, 1, 0)


def test_a_stream_that_nobody_decodes_is_a_success(client: Any, server: FaultyServer, breaker: CircuitBreaker) -> None:
    server.will(chunked(b"no gzip", head=GZIP))
    read_stream(client, server.url, "iter_raw")
    assert results(breaker) == (1, 0, 0)


def test_a_body_that_cannot_be_decoded_is_retried(client: Any, server: FaultyServer) -> None:
    server.will(chunked(b"no gzip", head=GZIP))
    assert client.send("GET", server.url) == HEALTHY


# The rest


def test_a_redirect_that_leads_in_circles_is_not_retried(client: Any, server: FaultyServer) -> None:
    server.usually = answer(302, b"", Location="/")
    client.session.follow_redirects = True
    client.session.max_redirects = 3
    assert seen(client.send, "GET", server.url) == "TooManyRedirects"
    assert len(server.requests) == 4
    assert breaker_of(client, server).stats.failure_count == 0


def test_a_relative_url_is_sent_to_the_host_of_the_client(client: Any, server: FaultyServer) -> None:
    client.session.base_url = server.url
    server.will(answer(503))
    assert client.send("GET", "orders/7") == HEALTHY
    assert [request.target for request in server.requests] == ["/orders/7"] * 2
    assert list(client.breakers) == [server.host]


def test_a_mistake_of_our_own_says_nothing_about_the_server(server: FaultyServer, open_client: Any) -> None:
    client = open_client(Httpx)

    def body() -> Iterator[bytes]:
        raise ValueError("a mistake of ours")
        yield b""

    assert seen(client.request, "POST", server.url, body) == "ValueError"
    assert breaker_of(client, server).stats.ignored_count == 1


def test_a_response_can_be_pickled_as_any_of_httpx(server: FaultyServer, open_client: Any) -> None:
    client = open_client(Httpx)
    response = client.session.get(server.url)
    again = pickle.loads(pickle.dumps(response))
    assert (again.status_code, again.text, list(again.iter_bytes())) == (200, "healthy", [b"healthy"])
    assert (response.http_version, response.reason_phrase) == ("HTTP/1.1", "Said")


def test_a_connection_for_websockets_is_a_success(client: Any, server: FaultyServer, breaker: CircuitBreaker) -> None:
    client.session.headers.update({"Connection": "Upgrade", "Upgrade": "websocket"})
    server.will(send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"))
    read_stream(client, server.url, "iter_raw", limit=0)
    assert results(breaker) == (1, 0, 0)


@pytest.mark.parametrize("status", [200, 503])
def test_a_response_of_a_mock_transport_settles_its_permit(status: int, open_client: Any, clock: FakeClock) -> None:
    client = open_client(Httpx)
    breaker = client.breakers["api.example"]
    make_half_open(breaker, clock)
    inner = client.httpx.MockTransport(lambda request: client.httpx.Response(status, json={"number": 7}))
    with client.httpx.Client(transport=client.example.BreakerTransport(client.breakers, inner)) as session:
        assert session.get("http://api.example/").json() == {"number": 7}
    assert results(breaker) == ((1, 0, 0) if status == 200 else (0, 1, 0))


def test_an_open_circuit_tells_which_request_it_rejected(client: Any, server: FaultyServer) -> None:
    for _ in range(2):
        breaker_of(client, server).record_failure()
    with pytest.raises(client.transport_error) as caught:
        client.request("GET", server.url)
    assert str(caught.value.request.url) == server.url
