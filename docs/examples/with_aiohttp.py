"""aiohttp: one circuit breaker for each host, in a client middleware, and retries in another outside it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

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

ILL = {500, 502, 503, 504}  # the server cannot; with any other status it has answered
HARMLESS = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}  # sent twice is as good as sent once

# `total` cancels while there is no connection yet, as does a user who closes the window: no failure. These two raise.
TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=5, sock_read=10)


class BadStatus(Exception):
    """An answer that is a failure, or a wish; it stays within this file."""

    def __init__(self, response: ClientResponse) -> None:
        super().__init__(f"HTTP {response.status}")
        self.response = response  # whose header Retry-After is read from here


def of_our_own_making(error: BaseException) -> bool:
    """Tell whether an error says nothing about the server."""
    theirs = (aiohttp.ClientError, TimeoutError, OSError, BadStatus)
    return not isinstance(error, theirs) or isinstance(error, (aiohttp.InvalidURL, aiohttp.UploadAbortedError))


CONFIG = CircuitBreakerConfig(
    ignored_exceptions=of_our_own_making,
    retry_after=retry_after_hint,
    slow_call_duration_s=10.0,  # a request that is cancelled after so long is a failure all the same
)


class AiohttpCircuitOpenError(CircuitOpenError, aiohttp.ClientConnectionError):
    """The circuit of this host is open; whoever handles aiohttp.ClientConnectionError handles this, too."""


class BreakerMiddleware:
    """Asks the breaker of the host before each request, and tells it how the request ended.

    The body is read inside, so that one which breaks off is a failure. For a stream, `reads_body=False`: the caller
    reads it, and the status is all that the breaker gets to know.
    """

    def __init__(self, breakers: CircuitBreakerRegistry, *, reads_body: bool = True) -> None:
        self._breakers = breakers
        self._reads_body = reads_body

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        permit = self._admit(request)
        try:
            response = await handler(request)
            if self._reads_body:
                await response.read()
        except BaseException:
            with permit:  # judged as the configuration says
                raise
        if response.status in ILL:
            permit.failure(BadStatus(response))
        elif response.status == 429:  # a wish to be left alone, for retries to heed; the server is well
            permit.ignore()
        else:
            permit.success()
        return response

    def _admit(self, request: ClientRequest) -> Permit:
        try:
            return self._breakers[str(request.url.origin())].permit()
        except CircuitOpenError as refusal:
            error = AiohttpCircuitOpenError(refusal.message)
            vars(error).update(vars(refusal))
            raise error from None


def may_be_repeated(request: ClientRequest, error: BaseException) -> bool:
    """Tell whether a request may be sent again: that may help, does no harm, and its body is still there."""
    if of_our_own_making(error):
        return False
    limited = isinstance(error, BadStatus) and error.response.status == 429
    untouched = limited or isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
    harmless = request.method in HARMLESS or "Idempotency-Key" in request.headers
    # An asynchronous iterable has been read; sent again, the body would be empty or the rest of it.
    return (untouched or harmless) and not getattr(request.body, "consumed", False)


class RetryMiddleware:
    """Sends a request again where that is right; a status that stays bad is returned, as aiohttp does."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        async def attempt() -> ClientResponse:
            response = await handler(request)
            if response.status == 429 or response.status in ILL:
                await response.read()  # which gives the connection back before the wait
                raise BadStatus(response)
            return response

        try:
            policy = replace(self._policy, retryable_exceptions=partial(may_be_repeated, request))
            return await policy.call_async(attempt)
        except BadStatus as bad:
            return bad.response


RETRIES = RetryPolicy(max_elapsed_s=60, budget=RetryBudget())


def guarded_session(breakers: CircuitBreakerRegistry) -> aiohttp.ClientSession:
    """Return a session all of whose requests go through retries and breakers, in this order."""
    return aiohttp.ClientSession(timeout=TIMEOUT, middlewares=(RetryMiddleware(RETRIES), BreakerMiddleware(breakers)))
