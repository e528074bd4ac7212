"""aiohttp: one circuit breaker for each host, in a client middleware, and retries in another around it."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from time import monotonic
from typing import Any

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

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

# All three raise while a request is under way. `total` also ends the wait for a free connection of a full pool.
TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=5, sock_read=10)
HANG_S = 10.0  # a request that is cancelled when the server has had it for so long is a failure


class BadStatus(Exception):
    """A response whose status is a failure, or asks to wait. It stays inside this file."""

    def __init__(self, response: ClientResponse) -> None:
        super().__init__(f"HTTP {response.status}")
        self.response = response  # for retry_after_hint


class PoolTimeoutError(aiohttp.ConnectionTimeoutError):
    """All connections of the session were in use for too long. The server has not been asked."""


UploadAborted: type[Exception] = getattr(aiohttp, "UploadAbortedError", PoolTimeoutError)  # new in aiohttp 3.14


def is_our_side(error: BaseException) -> bool:
    """Return whether an error says nothing about the server: it never got the request, or the caller is wrong."""
    theirs = (aiohttp.ClientError, TimeoutError, OSError, BadStatus)
    return not isinstance(error, theirs) or isinstance(error, (aiohttp.InvalidURL, PoolTimeoutError, UploadAborted))


CONFIG = CircuitBreakerConfig(ignored_exceptions=is_our_side, retry_after=retry_after_hint)


def host_of(request: ClientRequest) -> str:
    """Return the host of a request, with its port unless that is the usual one. Each host has one circuit breaker."""
    return request.url.host_port_subcomponent or ""


# Whether a request has left the pool of connections


@dataclass
class _Attempt:
    sent_at: float | None = None  # when it got a connection, or began to make one


_attempt: ContextVar[_Attempt | None] = ContextVar("attempt", default=None)


async def _note_connection(session: aiohttp.ClientSession, context: Any, params: Any) -> None:
    if (attempt := _attempt.get()) is not None:
        attempt.sent_at = monotonic()


TRACE = aiohttp.TraceConfig()
TRACE.on_connection_create_start.append(_note_connection)
TRACE.on_connection_reuseconn.append(_note_connection)


# The circuit breaker


class AiohttpCircuitOpenError(CircuitOpenError, aiohttp.ClientConnectionError):
    """The circuit of this host is open. Handlers of aiohttp.ClientConnectionError catch it, too."""


class BreakerMiddleware:
    """Asks the breaker of the host before each request, and reports to it how the request ended.

    Its session needs `trace_configs=[TRACE]`. It reads the body before it reports, so a body that breaks off is a
    failure. With `reads_body=False`, for streams, the caller reads the body, and the breaker learns the status alone.
    """

    def __init__(self, breakers: CircuitBreakerRegistry, *, reads_body: bool = True) -> None:
        self._breakers = breakers
        self._reads_body = reads_body

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if TRACE not in request.session.trace_configs:
            raise RuntimeError("BreakerMiddleware needs a session with trace_configs=[TRACE]; see guarded_session()")
        permit = self._admit(request)
        attempt = _Attempt()
        _attempt.set(attempt)
        try:
            response = await self._send(request, handler, attempt)
        except CancelledError as error:
            if attempt.sent_at is not None and monotonic() - attempt.sent_at >= HANG_S:
                permit.failure(error)
            else:
                permit.ignore()
            raise
        except BaseException:
            with permit:  # CONFIG decides what this error means
                raise
        if response.status in FAILING:
            permit.failure(BadStatus(response))
        elif response.status == 429:  # too many requests of ours: the server is healthy
            permit.ignore()
        else:
            permit.success()
        return response

    def _admit(self, request: ClientRequest) -> Permit:
        try:
            return self._breakers[host_of(request)].permit()
        except CircuitOpenError as rejection:
            error = AiohttpCircuitOpenError(rejection.message)
            vars(error).update(vars(rejection))
            raise error from None

    async def _send(self, request: ClientRequest, handler: ClientHandlerType, attempt: _Attempt) -> ClientResponse:
        try:
            response = await handler(request)
        except aiohttp.ConnectionTimeoutError as error:
            if attempt.sent_at is None:
                raise PoolTimeoutError(f"No connection was free for {request.url}") from error
            raise
        if self._reads_body and response.content_type != "text/event-stream":  # which may never end
            await response.read()
        return response


# The retries


def is_retryable(request: ClientRequest, error: BaseException) -> bool:
    """Return whether a request may be sent again: it may help, it does no harm, and its body is still there."""
    if is_our_side(error):
        return False
    too_many = isinstance(error, BadStatus) and error.response.status == 429
    not_processed = too_many or isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
    harmless = request.method in IDEMPOTENT or "Idempotency-Key" in request.headers
    # An asynchronous iterable has been read by now. Sent again, the body would be empty or only the rest of it.
    return (not_processed or harmless) and not getattr(request.body, "consumed", False)


def per_host(policy: RetryPolicy) -> Callable[[str], RetryPolicy]:
    """Return a function that gives each host its own policy, which differs only in its retry budget.

    With one budget for all, a single overloaded host would use it up, and no other host would get a retry.
    """
    return lru_cache(maxsize=1024)(lambda host: replace(policy, budget=RetryBudget()))


# Short, because a person may be waiting for the answer.
POLICY = RetryPolicy(max_retries=2, max_elapsed_s=5.0)
RETRIES = per_host(POLICY)


class RetryMiddleware:
    """Sends a request again where that is right. As ever in aiohttp, a bad status is returned."""

    def __init__(self, retries: Callable[[str], RetryPolicy] = RETRIES) -> None:
        self._retries = retries

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        async def attempt() -> ClientResponse:
            response = await handler(request)
            if response.status == 429 or response.status in FAILING:
                await response.read()  # so that its connection is free again before the wait
                raise BadStatus(response)
            return response

        host = host_of(request)
        attempt.__qualname__ = f"send({request.method} {host})"  # the name of the call in log lines and events
        policy = replace(self._retries(host), retryable_exceptions=partial(is_retryable, request))
        try:
            return await policy.call_async(attempt)
        except BadStatus as bad:
            return bad.response


def guarded_session(
    breakers: CircuitBreakerRegistry, retries: Callable[[str], RetryPolicy] = RETRIES, **options: Any
) -> aiohttp.ClientSession:
    """Return a session whose requests all go through retries and breakers; takes the options of ClientSession, too."""
    options.setdefault("timeout", TIMEOUT)
    options["trace_configs"] = [TRACE, *options.get("trace_configs", ())]
    options["middlewares"] = [RetryMiddleware(retries), BreakerMiddleware(breakers), *options.get("middlewares", ())]
    return aiohttp.ClientSession(**options)
