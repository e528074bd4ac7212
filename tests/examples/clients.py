"""The HTTP clients of the examples, each behind the same few methods."""

from __future__ import annotations

import asyncio
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple
from urllib.error import HTTPError, URLError

import aiohttp
import httpx
import requests
from example_files import example
from faulty_server import PATIENCE_S, FaultyServer
from garbage import collect

from circuit_breaker import CircuitBreaker, CircuitBreakerRegistry, CircuitState, RetryPolicy
from circuit_breaker.testing import FakeClock


class Answer(NamedTuple):
    """What came back, whether it was returned or stood in an error about its status."""

    status: int
    body: bytes


HEALTHY = Answer(200, b"healthy")
Body = bytes | Callable[[], Iterator[bytes]] | None


class Client(ABC):
    """One client library with its example. Whatever is raised but for a bad status is what the caller sees."""

    name: ClassVar[str]
    transport_error: type[Exception]
    example: Any
    is_async: ClassVar[bool] = False

    def __init__(self, settings: dict[str, Any], clock: Any, policy: dict[str, Any]) -> None:
        self.breakers = CircuitBreakerRegistry(replace(self.example.CONFIG, **settings), clock=clock)
        self.policy: RetryPolicy = replace(self.example.POLICY, **policy)
        self.retries: Callable[[str], RetryPolicy] = self.example.per_host(self.policy)
        self.proxy = None
        self.set_up()

    @abstractmethod
    def set_up(self) -> None:
        """Make the session."""

    @abstractmethod
    def request(
        self, method: str, url: str, body: Body = None, timeout_s: float = PATIENCE_S, **headers: str
    ) -> Answer:
        """Send one request through the breaker."""

    @abstractmethod
    def send(self, method: str, url: str, body: Body = None, **headers: str) -> Answer:
        """Send a request, with retries."""

    def use_proxy(self, url: str) -> None:
        """Send requests through a proxy from now on."""
        self.close()
        self.proxy: str | None = url
        self.set_up()

    @abstractmethod
    def close(self) -> None:
        """Close the session."""


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class Httpx(Client):
    name = "httpx"
    httpx: Any = httpx
    example = example("with_httpx")
    transport_error = httpx.TransportError

    def set_up(self) -> None:
        limits = self.httpx.Limits(max_connections=1)
        inner = self.httpx.HTTPTransport(limits=limits, proxy=self.proxy, trust_env=False, verify=False)
        self.session = self.httpx.Client(transport=self.example.BreakerTransport(self.breakers, inner), trust_env=False)

    def options(self, body: Body, timeout_s: float, headers: dict[str, str]) -> dict[str, Any]:
        content = body() if callable(body) else body
        timeout = self.httpx.Timeout(PATIENCE_S, read=timeout_s)
        return {"content": content, "headers": named(headers), "timeout": timeout}

    def request(
        self, method: str, url: str, body: Body = None, timeout_s: float = PATIENCE_S, **headers: str
    ) -> Answer:
        response = self.session.request(method, url, **self.options(body, timeout_s, headers))
        return Answer(response.status_code, response.content)

    def send(self, method: str, url: str, body: Body = None, **headers: str) -> Answer:
        options = self.options(body, PATIENCE_S, headers)
        try:
            response = self.example.send(self.session, method, url, retries=self.retries, **options)
        except self.httpx.HTTPStatusError as error:
            response = error.response
        return Answer(response.status_code, response.content)

    def close(self) -> None:
        self.session.close()


class InALoop(Client):
    """Runs what is async, one call after another."""

    is_async = True

    def set_up(self) -> None:
        self.runner = asyncio.Runner()
        self.session = self.run(self.open())

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    @abstractmethod
    async def open(self) -> Any:
        """Return a session."""

    @abstractmethod
    async def request_async(
        self, method: str, url: str, body: Body, timeout_s: float, headers: dict[str, str]
    ) -> Answer:
        """Send one request through the breaker."""

    @abstractmethod
    async def close_async(self) -> None:
        """Close the session."""

    def request(
        self, method: str, url: str, body: Body = None, timeout_s: float = PATIENCE_S, **headers: str
    ) -> Answer:
        answer: Answer = self.run(self.request_async(method, url, body, timeout_s, headers))
        return answer

    def close(self) -> None:
        self.run(self.close_async())
        self.runner.close()


async def asynchronous(body: Iterator[bytes]) -> Any:
    for part in body:
        yield part


class AsyncHttpx(InALoop):
    name = "httpx async"
    httpx: Any = httpx
    example = example("with_httpx")
    transport_error = httpx.TransportError

    async def open(self) -> Any:
        limits = self.httpx.Limits(max_connections=1)
        inner = self.httpx.AsyncHTTPTransport(limits=limits, proxy=self.proxy, trust_env=False, verify=False)
        transport = self.example.AsyncBreakerTransport(self.breakers, inner)
        return self.httpx.AsyncClient(transport=transport, trust_env=False)

    def options(self, body: Body, timeout_s: float, headers: dict[str, str]) -> dict[str, Any]:
        content = asynchronous(body()) if callable(body) else body
        timeout = self.httpx.Timeout(PATIENCE_S, read=timeout_s)
        return {"content": content, "headers": named(headers), "timeout": timeout}

    async def request_async(
        self, method: str, url: str, body: Body, timeout_s: float, headers: dict[str, str]
    ) -> Answer:
        response = await self.session.request(method, url, **self.options(body, timeout_s, headers))
        return Answer(response.status_code, response.content)

    def send(self, method: str, url: str, body: Body = None, **headers: str) -> Answer:
        async def sent() -> Answer:
            options = self.options(body, PATIENCE_S, headers)
            try:
                response = await self.example.send_async(self.session, method, url, retries=self.retries, **options)
            except self.httpx.HTTPStatusError as error:
                response = error.response
            return Answer(response.status_code, response.content)

        answer: Answer = self.run(sent())
        return answer

    async def close_async(self) -> None:
        await self.session.aclose()


class Requests(Client):
    name = "requests"
    example = example("with_requests")
    transport_error = requests.ConnectionError

    def set_up(self) -> None:
        self.session = self.example.guarded_session(self.breakers)
        self.session.trust_env = False
        self.session.proxies = {"http": self.proxy, "https": self.proxy} if self.proxy else {}

    def options(self, body: Body, timeout_s: float, headers: dict[str, str]) -> dict[str, Any]:
        data = body() if callable(body) else body
        return {"data": data, "headers": named(headers), "timeout": (PATIENCE_S, timeout_s)}

    def request(
        self, method: str, url: str, body: Body = None, timeout_s: float = PATIENCE_S, **headers: str
    ) -> Answer:
        response = self.session.request(method, url, **self.options(body, timeout_s, headers))
        return Answer(response.status_code, response.content)

    def send(self, method: str, url: str, body: Body = None, **headers: str) -> Answer:
        options = self.options(body, PATIENCE_S, headers)
        try:
            response = self.example.send(self.session, method, url, retries=self.retries, **options)
        except requests.HTTPError as error:
            response = error.response
        return Answer(response.status_code, response.content)

    def close(self) -> None:
        self.session.close()
        collect()  # urllib3 closes a pool when it is collected, and its errors refer to it in circles


class Aiohttp(InALoop):
    name = "aiohttp"
    example = example("with_aiohttp")
    transport_error = aiohttp.ClientConnectionError

    async def open(self) -> Any:
        self.breaking = self.example.BreakerMiddleware(self.breakers)
        self.retrying = self.example.RetryMiddleware(self.retries)
        connector = aiohttp.TCPConnector(limit=1)
        return aiohttp.ClientSession(
            timeout=self.example.TIMEOUT,
            middlewares=[self.breaking],
            connector=connector,
            proxy=self.proxy,
            trace_configs=[self.example.TRACE],
        )

    async def request_async(
        self, method: str, url: str, body: Body, timeout_s: float, headers: dict[str, str]
    ) -> Answer:
        return await self.with_middlewares(method, url, body, timeout_s, headers)

    async def with_middlewares(
        self, method: str, url: str, body: Body, timeout_s: float, headers: dict[str, str], *outside: Any
    ) -> Answer:
        data = asynchronous(body()) if callable(body) else body
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE_S, sock_read=timeout_s)
        options: dict[str, Any] = {"data": data, "timeout": timeout, "middlewares": [*outside, self.breaking]}
        async with self.session.request(method, url, headers=named(headers), **options) as response:
            return Answer(response.status, await response.read())

    def send(self, method: str, url: str, body: Body = None, **headers: str) -> Answer:
        answer: Answer = self.run(self.with_middlewares(method, url, body, PATIENCE_S, headers, self.retrying))
        return answer

    async def close_async(self) -> None:
        await self.session.close()


class Urllib(Client):
    name = "urllib"
    example = example("with_urllib")
    transport_error = URLError

    def set_up(self) -> None:
        handlers = (self.example.BreakerHTTPHandler(self.breakers), self.example.BreakerHTTPSHandler(self.breakers))
        proxies = {"http": self.proxy, "https": self.proxy} if self.proxy else {}
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), *handlers)

    def request(
        self, method: str, url: str, body: Body = None, timeout_s: float = PATIENCE_S, **headers: str
    ) -> Answer:
        return self.read(self.opener.open, method, url, body, headers, timeout=timeout_s)

    def send(self, method: str, url: str, body: Body = None, **headers: str) -> Answer:
        return self.read(
            lambda request: self.example.send(self.opener, request, retries=self.retries), method, url, body, headers
        )

    def read(self, open_it: Any, method: str, url: str, body: Body, headers: dict[str, str], **options: Any) -> Answer:
        data = body() if callable(body) else body
        request = urllib.request.Request(url, data, named(headers), method=method)
        try:
            response = open_it(request, **options)
        except HTTPError as error:
            response = error
        with response:
            return Answer(response.status, response.read())

    def close(self) -> None:
        pass


CLIENTS: list[type[Client]] = [Httpx, AsyncHttpx, Requests, Aiohttp, Urllib]
try:
    import httpx2
except ImportError:
    pass
else:
    with_httpx2 = example("with_httpx", instead=("import httpx\n", "import httpx2 as httpx\n"))

    class Httpx2(Httpx):
        name = "httpx2"
        httpx = httpx2
        example = with_httpx2
        transport_error = httpx2.TransportError

    class AsyncHttpx2(AsyncHttpx):
        name = "httpx2 async"
        httpx = httpx2
        example = with_httpx2
        transport_error = httpx2.TransportError

    CLIENTS += [Httpx2, AsyncHttpx2]


def breaker_of(client: Client, server: FaultyServer) -> CircuitBreaker:
    return client.breakers[server.host]


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
