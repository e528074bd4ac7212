"""What is special about the aiohttp example: its pool of connections, cancelled requests, streams."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra test")

import aiohttp
import aiohttp.web
from clients import HEALTHY, Aiohttp, Answer, breaker_of, make_half_open, seen
from faulty_server import PATIENCE_S, FaultyServer, answer, cut_in_header, dawdle, never_answer

from circuit_breaker import CircuitBreaker, CircuitState
from circuit_breaker.testing import FakeClock


@pytest.fixture
def client(server: FaultyServer, open_client: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client with one connection, whose time is that of the clock."""
    monkeypatch.setattr(Aiohttp.example, "monotonic", clock)
    return open_client(Aiohttp)


@pytest.fixture
def breaker(client: Any, server: FaultyServer) -> CircuitBreaker:
    return breaker_of(client, server)


# The pool


async def with_full_pool(client: Any, url: str, ask: Callable[[], Awaitable[None]]) -> None:
    """Do something while the one connection is in use by a request that no breaker sees."""
    async with client.session.get(url, middlewares=[]):
        await ask()


async def until_queued(client: Any) -> None:
    """Wait until a request waits for a connection."""
    async with asyncio.timeout(PATIENCE_S):
        while not client.session.connector._waiters:
            await asyncio.sleep(0)


async def get(client: Any, url: str, **timeout: float) -> None:
    async with client.session.get(url, timeout=aiohttp.ClientTimeout(**timeout)):
        pass


def test_a_host_that_was_never_asked_since_the_pool_was_full_has_not_failed(
    client: Any, server: FaultyServer, other: FaultyServer
) -> None:
    async def ask() -> None:
        with pytest.raises(aiohttp.ConnectionTimeoutError, match="No connection was free") as caught:
            await get(client, other.url, connect=0.05)
        assert type(caught.value) is client.example.PoolTimeoutError

    server.will(dawdle)
    client.run(with_full_pool(client, server.url, ask))
    stats = breaker_of(client, other).stats
    assert (stats.failure_count, stats.ignored_count, other.requests) == (0, 1, [])


def test_a_full_pool_is_not_retried(client: Any, server: FaultyServer, other: FaultyServer, clock: FakeClock) -> None:
    async def ask() -> None:
        timeout = aiohttp.ClientTimeout(connect=0.05)
        with pytest.raises(client.example.PoolTimeoutError):
            await client.session.get(other.url, timeout=timeout, middlewares=[client.retrying, client.breaking])

    server.will(dawdle)
    client.run(with_full_pool(client, server.url, ask))
    assert clock.sleeps == []


def test_a_host_that_was_never_asked_has_not_failed_even_if_its_caller_has_waited_for_long(
    client: Any, server: FaultyServer, other: FaultyServer, clock: FakeClock
) -> None:
    async def ask() -> None:
        task = asyncio.create_task(get(client, other.url))
        await until_queued(client)
        clock.advance(60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    server.will(dawdle)
    client.run(with_full_pool(client, server.url, ask))
    stats = breaker_of(client, other).stats
    assert (stats.failure_count, stats.ignored_count) == (0, 1)


def test_the_time_in_the_queue_for_a_connection_does_not_count_against_the_host(
    client: Any, server: FaultyServer, other: FaultyServer, clock: FakeClock
) -> None:
    async def ask() -> None:
        async with client.session.get(server.url, middlewares=[]) as first:
            task = asyncio.create_task(get(client, other.url))
            await until_queued(client)
            clock.advance(60)
            first.close()  # its connection is free now
            await asyncio.to_thread(other.wait_for, 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    server.will(dawdle)
    other.will(never_answer)
    client.run(ask())
    stats = breaker_of(client, other).stats
    assert (stats.failure_count, stats.ignored_count) == (0, 1)


def test_a_total_timeout_in_the_queue_for_a_connection_says_nothing(
    client: Any, server: FaultyServer, breaker: CircuitBreaker
) -> None:
    async def ask() -> None:
        with pytest.raises(TimeoutError):
            await get(client, server.url, total=0.1)

    server.will(dawdle)
    client.run(with_full_pool(client, server.url, ask))
    assert (breaker.stats.failure_count, breaker.stats.ignored_count) == (0, 1)


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that accepts connections and does not even begin with TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield "https://127.0.0.1:{1}/".format(*listening.getsockname())


@pytest.mark.parametrize("timeout", ["connect", "sock_connect"])
def test_a_host_to_which_no_connection_can_be_made_in_time_has_failed(timeout: str, client: Any, silent: str) -> None:
    with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
        client.run(get(client, silent, **{timeout: 0.05}))
    assert not isinstance(caught.value, client.example.PoolTimeoutError)
    (host,) = client.breakers
    assert client.breakers[host].stats.failure_count == 1


def test_a_session_without_the_trace_gets_a_clear_error(client: Any, server: FaultyServer) -> None:
    async def ask() -> None:
        async with aiohttp.ClientSession(middlewares=[client.breaking]) as session:
            await session.get(server.url)

    with pytest.raises(RuntimeError, match=r"trace_configs=\[TRACE\]"):
        client.run(ask())


def test_the_guarded_session_has_all_that_is_needed_and_takes_options(client: Any, server: FaultyServer) -> None:
    async def ask() -> Answer:
        async with client.example.guarded_session(client.breakers, client.retries, **options) as session:
            assert session.timeout.total == 3
            async with session.get("orders/7") as response:
                return Answer(response.status, await response.read())

    async def note(request: Any, handler: Any) -> Any:
        noted.append(request.url.path)
        return await handler(request)

    noted: list[str] = []
    timeout = aiohttp.ClientTimeout(total=3)
    trace = aiohttp.TraceConfig()
    options = {"base_url": server.url, "timeout": timeout, "middlewares": [note], "trace_configs": [trace]}
    server.will(answer(503))
    assert client.run(ask()) == HEALTHY
    assert noted == ["/orders/7"] * 2
    stats = breaker_of(client, server).stats
    assert (stats.failure_count, stats.success_count) == (1, 1)


def test_websockets_and_endless_events_are_successes_when_they_begin(client: Any, clock: FakeClock) -> None:
    async def talk(request: Any) -> Any:
        socket = aiohttp.web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(await socket.receive_str())
        return socket

    async def events(request: Any) -> Any:
        response = aiohttp.web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        await left.wait()
        return response

    async def ask() -> None:
        app = aiohttp.web.Application()
        app.router.add_get("/talk", talk)
        app.router.add_get("/events", events)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = "http://127.0.0.1:{1}".format(*runner.addresses[0])
        async with asyncio.timeout(PATIENCE_S):
            async with client.session.ws_connect(f"{url}/talk") as socket:
                await socket.send_str("hello")
                assert await socket.receive_str() == "hello"
            async with client.session.get(f"{url}/events") as response:
                assert await response.content.readline() == b"data: one\n"
        left.set()
        await runner.cleanup()

    left = asyncio.Event()
    client.run(ask())
    (host,) = client.breakers
    assert client.breakers[host].stats.success_count == 2


# Requests that are cancelled


def cancel(client: Any, server: FaultyServer, after_s: float, clock: FakeClock) -> None:
    """Send a request that is cancelled so long after it has arrived."""

    async def cancelled() -> None:
        task = asyncio.create_task(get(client, server.url))
        await asyncio.to_thread(server.wait_for, 1)
        clock.advance(after_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    server.will(never_answer)
    client.run(cancelled())


@pytest.mark.parametrize(("after_s", "failures"), [(9.9, 0), (10, 1)])
def test_a_request_that_is_cancelled_is_a_failure_if_the_server_has_had_it_for_too_long(
    after_s: float, failures: int, client: Any, server: FaultyServer, breaker: CircuitBreaker, clock: FakeClock
) -> None:
    cancel(client, server, after_s, clock)
    assert (breaker.stats.failure_count, breaker.stats.ignored_count) == (failures, 1 - failures)


def test_a_total_timeout_is_a_failure_once_the_request_is_sent(
    client: Any, server: FaultyServer, breaker: CircuitBreaker
) -> None:
    server.will(never_answer)
    with pytest.raises(TimeoutError):
        client.run(get(client, server.url, total=0.5))
    assert breaker.stats.failure_count == 1


# The rest


def test_a_retry_gives_its_connection_back_before_it_waits(client: Any, server: FaultyServer) -> None:
    async def ask() -> bytes:
        breaking = client.example.BreakerMiddleware(client.breakers, reads_body=False)
        async with client.session.get(server.url, middlewares=[client.retrying, breaking]) as response:
            return bytes(await response.read())

    server.will(answer(503, b"failing" * 100_000))
    assert client.run(asyncio.wait_for(ask(), PATIENCE_S)) == b"healthy"


def test_aiohttp_itself_asks_once_more_when_a_server_hangs_up_without_an_answer(
    client: Any, server: FaultyServer, breaker: CircuitBreaker
) -> None:
    server.will(cut_in_header, cut_in_header)
    assert seen(client.request, "GET", server.url) == "ServerDisconnectedError"
    assert len(server.requests) == breaker.stats.failure_count == 2


def test_a_stream_is_judged_by_its_status(
    client: Any, server: FaultyServer, breaker: CircuitBreaker, clock: FakeClock
) -> None:
    make_half_open(breaker, clock)

    async def stream() -> None:
        middleware = client.example.BreakerMiddleware(client.breakers, reads_body=False)
        async with client.session.get(server.url, middlewares=[middleware]) as response:
            assert breaker.state is CircuitState.CLOSED
            assert await response.content.read() == b"healthy"

    client.run(stream())
