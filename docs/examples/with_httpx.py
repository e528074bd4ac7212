"""httpx: one circuit breaker for each host, in a transport, and retries around it. For httpx2, change one import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from time import monotonic
from typing import Any

import httpx

from circuit_breaker import (
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    CircuitOpenError,
    Permit,
    RetryBudget,
    RetryPolicy,
    retry_after_hint,
)

FAILING = {500, 502, 503, 504}  # the server could not answer; any other status is an answer
IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}  # sent twice, they do what they do once
LONG_STREAM_S = 30.0  # a stream that still sends after so long counts as a success, however it ends


def is_our_side(error: BaseException) -> bool:
    """Return whether an error says nothing about the server: it never got the request, or the caller is wrong."""
    ours = (httpx.PoolTimeout, httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.TooManyRedirects)
    return isinstance(error, ours) or not isinstance(error, httpx.HTTPError)


CONFIG = CircuitBreakerConfig(ignored_exceptions=is_our_side, retry_after=retry_after_hint)


def host_of(url: httpx.URL) -> str:
    """Return the host of a URL, with its port unless that is the usual one. Each host has one circuit breaker."""
    return url.netloc.decode()


# The circuit breaker


class HttpxCircuitOpenError(CircuitOpenError, httpx.TransportError):
    """The circuit of this host is open. Handlers of httpx.TransportError catch it, too."""


class BreakerTransport(httpx.BaseTransport):
    """Asks the breaker of the host before each request, and reports to it how the request ended."""

    def __init__(self, breakers: CircuitBreakerRegistry, inner: httpx.BaseTransport | None = None) -> None:
        self._breakers = breakers
        self._inner = inner or httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        permit = _admit(self._breakers, request)
        try:
            response = self._inner.handle_request(request)
        except BaseException:
            with permit:  # CONFIG decides what this error means
                raise
        return _report(permit, request, response)

    def close(self) -> None:
        self._inner.close()


class AsyncBreakerTransport(httpx.AsyncBaseTransport):
    """The same for httpx.AsyncClient."""

    def __init__(self, breakers: CircuitBreakerRegistry, inner: httpx.AsyncBaseTransport | None = None) -> None:
        self._breakers = breakers
        self._inner = inner or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        permit = _admit(self._breakers, request)
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException:
            with permit:
                raise
        return _report(permit, request, response)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _admit(breakers: CircuitBreakerRegistry, request: httpx.Request) -> Permit:
    try:
        return breakers[host_of(request.url)].permit()
    except CircuitOpenError as rejection:
        error = HttpxCircuitOpenError(rejection.message)
        vars(error).update(vars(rejection))
        raise error from None


def _report(permit: Permit, request: httpx.Request, response: httpx.Response) -> httpx.Response:
    if response.status_code in FAILING:
        permit.failure(httpx.HTTPStatusError(f"HTTP {response.status_code}", request=request, response=response))
        return response
    if response.status_code == 429:  # too many requests of ours: the server is healthy
        permit.ignore()
        return response
    if response.status_code == 101:  # a connection for WebSockets: it has no body whose end could be seen
        permit.success()
        return response
    body = _Body(response.stream, permit)
    return _Response(
        response.status_code,
        headers=response.headers,
        stream=body,
        extensions={**response.extensions, _Body.KEY: body},
    )


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a response. Its end settles the permit: it is complete, it breaks off, or the reader stops."""

    KEY = "circuit_breaker.body"  # its name among the extensions of the response

    def __init__(self, stream: Any, permit: Permit) -> None:
        self._stream = stream
        self._permit: Permit | None = permit
        self._started = monotonic()
        self._received = False
        self._decoding = False

    def __iter__(self) -> Iterator[bytes]:
        with self._reading():
            for part in self._stream:
                self._note_part()
                yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._reading():
            async for part in self._stream:
                self._note_part()
                yield part

    def close(self) -> None:
        self._stop()
        self._stream.close()

    async def aclose(self) -> None:
        self._stop()
        await self._stream.aclose()

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Let how the `with` block ends settle the permit, and not the end of the body itself."""
        self._decoding = True
        try:
            with self._reading():
                yield
        finally:
            self._decoding = False
            self._stop()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except GeneratorExit:  # the reader stops
            raise
        except BaseException as error:
            if isinstance(error, Exception) or not self._received:
                permit, self._permit = self._permit, None
                with permit or nullcontext():
                    raise
            raise
        self._received = True
        self._stop()

    def _note_part(self) -> None:
        self._received = True
        if monotonic() - self._started >= LONG_STREAM_S:
            self._settle()

    def _stop(self) -> None:
        if not self._decoding:
            self._settle()

    def _settle(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None and self._received:
            permit.success()
        elif permit is not None:
            permit.ignore()


class _Response(httpx.Response):
    """httpx decodes a body outside the transport: only the response sees that, say, its gzip is corrupt."""

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        with self._decoding():
            yield from super().iter_bytes(chunk_size)

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        with self._decoding():
            async for part in super().aiter_bytes(chunk_size):
                yield part

    def _decoding(self) -> AbstractContextManager[None]:
        body = self.extensions.get(_Body.KEY)  # a response that was pickled has none
        return nullcontext() if body is None else body.decoding()


# The retries


def is_retryable(error: BaseException) -> bool:
    """Return whether a request may be sent again: it may help, it does no harm, and its body is still there."""
    if not isinstance(error, httpx.HTTPError) or is_our_side(error):
        return False
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    if status is not None and status != 429 and status not in FAILING:
        return False
    not_processed = status == 429 or isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    harmless = error.request.method in IDEMPOTENT or "Idempotency-Key" in error.request.headers
    # A generator or a file has been read by now. Sent again, the body would be empty or only the rest of it.
    return (not_processed or harmless) and isinstance(error.request.stream, httpx.ByteStream)


def per_host(policy: RetryPolicy) -> Callable[[str], RetryPolicy]:
    """Return a function that gives each host its own policy, which differs only in its retry budget.

    With one budget for all, a single overloaded host would use it up, and no other host would get a retry.
    """
    return lru_cache(maxsize=1024)(lambda host: replace(policy, budget=RetryBudget()))


# Short, because a person may be waiting for the answer.
POLICY = RetryPolicy(max_retries=2, max_elapsed_s=5.0, retryable_exceptions=is_retryable)
RETRIES = per_host(POLICY)


def send(
    client: httpx.Client, method: str, url: str, *, retries: Callable[[str], RetryPolicy] = RETRIES, **options: Any
) -> httpx.Response:
    """Send a request, with retries, and return the response with its body; a bad status raises, as does no answer."""

    def attempt() -> httpx.Response:
        return client.request(method, url, **options).raise_for_status()

    host = host_of(client.build_request(method, url).url)
    attempt.__qualname__ = f"send({method} {host})"  # the name of the call in log lines and events
    return retries(host).call(attempt)


async def send_async(
    client: httpx.AsyncClient, method: str, url: str, *, retries: Callable[[str], RetryPolicy] = RETRIES, **options: Any
) -> httpx.Response:
    """Do the same with httpx.AsyncClient."""

    async def attempt() -> httpx.Response:
        return (await client.request(method, url, **options)).raise_for_status()

    host = host_of(client.build_request(method, url).url)
    attempt.__qualname__ = f"send_async({method} {host})"
    return await retries(host).call_async(attempt)
