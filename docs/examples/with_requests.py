"""requests: one circuit breaker for each host, in an adapter, and retries outside it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

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
TIMEOUT_S = (5.0, 10.0)  # to connect, and between two bytes; requests itself would wait for ever


def of_our_own_making(error: BaseException) -> bool:
    """Tell whether an error says nothing about the server: only these are about the connection or what came by it."""
    theirs = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, requests.HTTPError)
    return not isinstance(error, theirs)


CONFIG = CircuitBreakerConfig(ignored_exceptions=of_our_own_making, retry_after=retry_after_hint)


class RequestsCircuitOpenError(CircuitOpenError, requests.ConnectionError):
    """The circuit of this host is open; whoever handles requests.ConnectionError handles this, too."""


class BreakerAdapter(HTTPAdapter):
    """Asks the breaker of the host before each request, and tells it how the request ended.

    The body is read inside, so that one which breaks off is a failure. With `stream=True` the caller reads it, and the
    status is all that the breaker gets to know.
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
                response.content  # noqa: B018 - read here, and kept
        except BaseException as error:
            if isinstance(error, requests.RequestException):
                error.request = request  # that of a body which breaks off has none
            with permit:  # judged as the configuration says
                raise
        if response.status_code in ILL:
            permit.failure(requests.HTTPError(f"HTTP {response.status_code}", response=response))
        elif response.status_code == 429:  # a wish to be left alone, for retries to heed; the server is well
            permit.ignore()
        else:
            permit.success()
        return response

    def _admit(self, request: requests.PreparedRequest) -> Permit:
        host = urlsplit(request.url or "").netloc.rpartition("@")[2]
        try:
            return self._breakers[host].permit()
        except CircuitOpenError as refusal:
            error = RequestsCircuitOpenError(refusal.message)
            vars(error).update(vars(refusal), request=request)
            raise error from None


def guarded_session(breakers: CircuitBreakerRegistry) -> requests.Session:
    """Return a session all of whose requests go through breakers."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, BreakerAdapter(breakers))
    return session


def may_be_repeated(error: BaseException) -> bool:
    """Tell whether a request may be sent again: that may help, does no harm, and its body is still there."""
    if of_our_own_making(error) or not isinstance(error, requests.RequestException) or error.request is None:
        return False
    status = error.response.status_code if error.response is not None else None
    if status is not None and status != 429 and status not in ILL:
        return False
    untouched = status == 429 or isinstance(error, requests.ConnectTimeout)
    harmless = error.request.method in HARMLESS or "Idempotency-Key" in error.request.headers
    # A generator or a file has been read; sent again, the body would be empty or the rest of it.
    body = getattr(error.request, "body", None)
    return (untouched or harmless) and isinstance(body, (bytes, str, type(None)))


RETRIES = RetryPolicy(retryable_exceptions=may_be_repeated, max_elapsed_s=60, budget=RetryBudget())


@RETRIES
def send(session: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
    """Send a request, again where that is right, and return the answer; a bad status raises."""
    response = session.request(method, url, **options)
    response.raise_for_status()
    return response
