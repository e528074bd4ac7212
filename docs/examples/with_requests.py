"""requests: one circuit breaker for each host, in an adapter, and retries around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import requests
from requests import exceptions as errors
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

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
TIMEOUT_S = (5.0, 10.0)  # to connect, and between two bytes; requests itself would wait for ever


def is_our_side(error: BaseException) -> bool:
    """Return whether an error says nothing about the server, since it is not about the connection or the answer."""
    theirs = (
        errors.ConnectionError,
        errors.Timeout,
        errors.ChunkedEncodingError,
        errors.ContentDecodingError,
        errors.RetryError,
        errors.HTTPError,
    )
    return not isinstance(error, theirs)


CONFIG = CircuitBreakerConfig(ignored_exceptions=is_our_side, retry_after=retry_after_hint)


def host_of(url: str) -> str:
    """Return the host of a URL, with its port unless that is the usual one. Each host has one circuit breaker."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    return host.removesuffix(":443" if parts.scheme == "https" else ":80")


# The circuit breaker


class RequestsCircuitOpenError(CircuitOpenError, requests.ConnectionError):
    """The circuit of this host is open. Handlers of requests.ConnectionError catch it, too."""


class BreakerAdapter(HTTPAdapter):
    """Asks the breaker of the host before each request, and reports to it how the request ended.

    It reads the body before it reports, so a body that breaks off is a failure. With `stream=True` the caller reads
    the body, and the breaker learns the status alone.
    """

    def __init__(self, breakers: CircuitBreakerRegistry, **options: Any) -> None:
        super().__init__(**options)
        self._breakers = breakers

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, timeout: Any = None, *args: Any, **options: Any
    ) -> requests.Response:
        permit = self._admit(request)
        try:
            response = super().send(request, stream, timeout or TIMEOUT_S, *args, **options)
            if not stream:
                response.content  # noqa: B018 - reads the body, and keeps it
        except BaseException as error:
            if isinstance(error, requests.RequestException):
                error.request = request  # which errors about the body lack
            with permit:  # CONFIG decides what this error means
                raise
        if response.status_code in FAILING:
            permit.failure(requests.HTTPError(f"HTTP {response.status_code}", response=response))
        elif response.status_code == 429:  # too many requests of ours: the server is healthy
            permit.ignore()
        else:
            permit.success()
        return response

    def _admit(self, request: requests.PreparedRequest) -> Permit:
        try:
            return self._breakers[host_of(request.url or "")].permit()
        except CircuitOpenError as rejection:
            error = RequestsCircuitOpenError(rejection.message)
            vars(error).update(vars(rejection), request=request)
            raise error from None


def guarded_session(breakers: CircuitBreakerRegistry) -> requests.Session:
    """Return a session whose requests all go through breakers."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, BreakerAdapter(breakers))
    return session


# The retries


def is_retryable(error: BaseException) -> bool:
    """Return whether a request may be sent again: it may help, it does no harm, and its body is still there."""
    if is_our_side(error) or not isinstance(error, requests.RequestException) or error.request is None:
        return False
    status = error.response.status_code if error.response is not None else None
    if status is not None and status != 429 and status not in FAILING:
        return False
    harmless = error.request.method in IDEMPOTENT or "Idempotency-Key" in error.request.headers
    # A generator or a file has been read by now. Sent again, the body would be empty or only the rest of it.
    body = getattr(error.request, "body", None)
    return (status == 429 or no_connection(error) or harmless) and isinstance(body, (bytes, str, type(None)))


def no_connection(error: requests.RequestException) -> bool:
    """Return whether there was no connection, so that the server cannot have got the request."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, errors.ConnectTimeout) or isinstance(reason, NewConnectionError)


def per_host(policy: RetryPolicy) -> Callable[[str], RetryPolicy]:
    """Return a function that gives each host its own policy, which differs only in its retry budget.

    With one budget for all, a single overloaded host would use it up, and no other host would get a retry.
    """
    return lru_cache(maxsize=1024)(lambda host: replace(policy, budget=RetryBudget()))


# Short, because a person may be waiting for the answer.
POLICY = RetryPolicy(max_retries=2, max_elapsed_s=5.0, retryable_exceptions=is_retryable)
RETRIES = per_host(POLICY)


def send(
    session: requests.Session, method: str, url: str, *, retries: Callable[[str], RetryPolicy] = RETRIES, **options: Any
) -> requests.Response:
    """Send a request, with retries, and return the response; a bad status raises, as does no answer."""

    def attempt() -> requests.Response:
        response = session.request(method, url, **options)
        if not response.ok:
            response.content  # noqa: B018 - even of a stream: else its connection would stay in use
        response.raise_for_status()
        return response

    attempt.__qualname__ = f"send({method} {host_of(url)})"  # the name of the call in log lines and events
    return retries(host_of(url)).call(attempt)
