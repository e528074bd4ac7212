"""httpx: one circuit breaker for each host, in a transport, and retries outside it. For httpx2, change the import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
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

ILL = {500, 502, 503, 504}  # the server cannot; with any other status it has answered
HARMLESS = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}  # sent twice is as good as sent once


def of_our_own_making(error: BaseException) -> bool:
    """Tell whether an error says nothing about the server."""
    ours = (httpx.PoolTimeout, httpx.LocalProtocolError, httpx.UnsupportedProtocol)
    return isinstance(error, ours) or not isinstance(error, httpx.HTTPError)


CONFIG = CircuitBreakerConfig(ignored_exceptions=of_our_own_making, retry_after=retry_after_hint)


class HttpxCircuitOpenError(CircuitOpenError, httpx.TransportError):
    """The circuit of this host is open; whoever handles httpx.TransportError handles this, too."""


class BreakerTransport(httpx.BaseTransport):
    """Asks the breaker of the host before each request, and tells it how the request ended."""

    def __init__(self, breakers: CircuitBreakerRegistry, inner: httpx.BaseTransport | None = None) -> None:
        self._breakers = breakers
        self._inner = inner or httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        permit = _admit(self._breakers, request)
        try:
            response = self._inner.handle_request(request)
        except BaseException:
            with permit:  # judged as the configuration says
                raise
        return _settle(permit, request, response)

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
        return _settle(permit, request, response)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _admit(breakers: CircuitBreakerRegistry, request: httpx.Request) -> Permit:
    try:
        return breakers[request.url.netloc.decode()].permit()
    except CircuitOpenError as refusal:
        error = HttpxCircuitOpenError(refusal.message)
        vars(error).update(vars(refusal))
        raise error from None


def _settle(permit: Permit, request: httpx.Request, response: httpx.Response) -> httpx.Response:
    if response.status_code in ILL:
        permit.failure(httpx.HTTPStatusError(f"HTTP {response.status_code}", request=request, response=response))
    elif response.status_code == 429:  # a wish to be left alone, for retries to heed; the server is well
        permit.ignore()
    else:  # whether all of the answer arrives is still to be seen
        response.stream = _Body(response.stream, permit)
    return response


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of an answer: when it has arrived, or breaks off, or nobody wants the rest, the call is over."""

    def __init__(self, stream: Any, permit: Permit) -> None:
        self._stream = stream
        self._permit: Permit | None = permit

    def __iter__(self) -> Iterator[bytes]:
        with self._judged():
            yield from self._stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._judged():
            async for part in self._stream:
                yield part

    def close(self) -> None:
        self._drop()
        self._stream.close()

    async def aclose(self) -> None:
        self._drop()
        await self._stream.aclose()

    @contextmanager
    def _judged(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            permit, self._permit = self._permit, None
            if permit is not None:
                with permit:
                    raise
            raise
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.success()

    def _drop(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.ignore()


def may_be_repeated(error: BaseException) -> bool:
    """Tell whether a request may be sent again: that may help, does no harm, and its body is still there."""
    if not isinstance(error, httpx.HTTPError) or of_our_own_making(error):
        return False
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    if status is not None and status != 429 and status not in ILL:
        return False
    untouched = status == 429 or isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    harmless = error.request.method in HARMLESS or "Idempotency-Key" in error.request.headers
    # A generator or a file has been read; sent again, the body would be empty or the rest of it.
    return (untouched or harmless) and isinstance(error.request.stream, httpx.ByteStream)


RETRIES = RetryPolicy(retryable_exceptions=may_be_repeated, max_elapsed_s=60, budget=RetryBudget())


@RETRIES
def send(client: httpx.Client, method: str, url: str, **options: Any) -> httpx.Response:
    """Send a request, again where that is right, and return the answer with its body; a bad status raises."""
    return client.request(method, url, **options).raise_for_status()


@RETRIES
async def send_async(client: httpx.AsyncClient, method: str, url: str, **options: Any) -> httpx.Response:
    """Do the same with httpx.AsyncClient."""
    return (await client.request(method, url, **options)).raise_for_status()
