"""urllib: one circuit breaker for each host, in the handlers of an opener, and retries around it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from http.client import HTTPException
from socket import gaierror
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import AbstractHTTPHandler, HTTPHandler, HTTPSHandler, OpenerDirector, Request
from urllib.response import addinfourl

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
TIMEOUT_S = 10.0  # to connect, and between two bytes; urllib itself would wait for ever


def is_our_side(error: BaseException) -> bool:
    """Return whether an error says nothing about the server: it is neither about the connection nor about the answer.

    URLError, TimeoutError and ConnectionError are OSErrors, and a broken answer is an HTTPException.
    """
    return not isinstance(error, (OSError, HTTPException, BadStatus))


class BadStatus(Exception):
    """The error of a status that is a failure, for the breaker. It stays inside this file."""

    def __init__(self, status: int, headers: Any) -> None:
        super().__init__(f"HTTP {status}")
        self.headers = headers  # for retry_after_hint


CONFIG = CircuitBreakerConfig(ignored_exceptions=is_our_side, retry_after=retry_after_hint)


def host_of(request: Request) -> str:
    """Return the host of a request, with its port unless that is the usual one. Each host has one circuit breaker.

    It is read from the URL, because behind a proxy `request.host` is the proxy.
    """
    parts = urlsplit(request.full_url)
    host = parts.netloc.rpartition("@")[2].lower()
    return host.removesuffix(":443" if parts.scheme == "https" else ":80")


# The circuit breaker


class UrllibCircuitOpenError(CircuitOpenError, URLError):
    """The circuit of this host is open. Handlers of URLError catch it, too."""


class _Guarded(AbstractHTTPHandler):
    """Asks the breaker of the host before each request, and reports to it how the request ended.

    It reads the body before it reports, so a body that breaks off is a failure, and closes the connection.
    """

    def __init__(self, breakers: CircuitBreakerRegistry, **options: Any) -> None:
        super().__init__(**options)
        self._breakers = breakers

    def do_open(self, http_class: Any, req: Request, **options: Any) -> Any:
        permit = self._admit(req)
        if not isinstance(req.timeout, (int, float)):
            req.timeout = TIMEOUT_S
        try:
            with super().do_open(http_class, req, **options) as response:
                answer = addinfourl(io.BytesIO(response.read()), response.headers, req.full_url, response.status)
        except BaseException:
            with permit:  # CONFIG decides what this error means
                raise
        answer.msg = response.reason  # type: ignore[attr-defined] # which the opener and HTTPError ask for
        if answer.status in FAILING:
            permit.failure(BadStatus(answer.status, answer.headers))
        elif answer.status == 429:  # too many requests of ours: the server is healthy
            permit.ignore()
        else:
            permit.success()
        return answer

    def _admit(self, request: Request) -> Permit:
        try:
            return self._breakers[host_of(request)].permit()
        except CircuitOpenError as rejection:
            error = UrllibCircuitOpenError(rejection.message)
            vars(error).update(vars(rejection))
            raise error from None


class BreakerHTTPHandler(_Guarded, HTTPHandler):
    """For `urllib.request.build_opener`."""


class BreakerHTTPSHandler(_Guarded, HTTPSHandler):
    """For `urllib.request.build_opener`; takes `context=`, an `ssl.SSLContext`, as HTTPSHandler does."""


# The retries


def is_retryable(request: Request, error: BaseException) -> bool:
    """Return whether a request may be sent again: it may help, it does no harm, and its body is still there."""
    status = error.code if isinstance(error, HTTPError) else None
    if is_our_side(error) or (status is not None and status != 429 and status not in FAILING):
        return False
    no_connection = isinstance(error, URLError) and isinstance(error.reason, (ConnectionRefusedError, gaierror))
    harmless = request.get_method() in IDEMPOTENT or request.has_header("Idempotency-key")  # as urllib spells it
    # An iterable or a file has been read by now. Sent again, the body would be empty or only the rest of it.
    return (status == 429 or no_connection or harmless) and isinstance(request.data, (bytes, type(None)))


def per_host(policy: RetryPolicy) -> Callable[[str], RetryPolicy]:
    """Return a function that gives each host its own policy, which differs only in its retry budget.

    With one budget for all, a single overloaded host would use it up, and no other host would get a retry.
    """
    return lru_cache(maxsize=1024)(lambda host: replace(policy, budget=RetryBudget()))


# Short, because a person may be waiting for the answer.
POLICY = RetryPolicy(max_retries=2, max_elapsed_s=5.0)
RETRIES = per_host(POLICY)


def send(
    opener: OpenerDirector,
    request: Request,
    *,
    timeout_s: float = TIMEOUT_S,
    retries: Callable[[str], RetryPolicy] = RETRIES,
) -> Any:
    """Send a request, with retries, and return the response; a bad status is an HTTPError, to be closed by you."""
    failed: list[HTTPError] = []

    def attempt() -> Any:
        try:
            return opener.open(request, timeout=timeout_s)
        except HTTPError as error:
            failed.append(error)
            raise

    host = host_of(request)
    attempt.__qualname__ = f"send({request.get_method()} {host})"  # the name of the call in log lines and events
    policy = replace(retries(host), retryable_exceptions=partial(is_retryable, request))
    try:
        return policy.call(attempt)
    finally:
        for error in failed:
            if error is not sys.exception():  # which is the one that the caller gets
                error.close()
