"""urllib: one circuit breaker for each host, in the handlers of an opener, and retries outside it."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
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

ILL = {500, 502, 503, 504}  # the server cannot; with any other status it has answered
HARMLESS = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}  # sent twice is as good as sent once
TIMEOUT_S = 10.0  # to connect, and between two bytes; urllib itself would wait for ever


def of_our_own_making(error: BaseException) -> bool:
    """Tell whether an error says nothing about the server: URLError and timeouts are OSErrors, broken answers not."""
    return not isinstance(error, (OSError, HTTPException))


CONFIG = CircuitBreakerConfig(ignored_exceptions=of_our_own_making, retry_after=retry_after_hint)


class UrllibCircuitOpenError(CircuitOpenError, URLError):
    """The circuit of this host is open; whoever handles URLError handles this, too."""


class _Guarded(AbstractHTTPHandler):
    """Asks the breaker of the host before each request, and tells it how the request ended.

    The body is read inside, so that one which breaks off is a failure, and the connection is closed in any case.
    """

    def __init__(self, breakers: CircuitBreakerRegistry) -> None:
        super().__init__()
        self._breakers = breakers

    def do_open(self, http_class: Any, req: Request, **options: Any) -> Any:
        permit = self._admit(req)
        try:
            response = super().do_open(http_class, req, **options)
            with response:
                answer = addinfourl(io.BytesIO(response.read()), response.headers, req.full_url, response.status)
        except BaseException:
            with permit:  # judged as the configuration says
                raise
        answer.msg = response.reason  # type: ignore[attr-defined] # which opener and HTTPError ask for
        if answer.status in ILL:
            permit.failure(HTTPError(req.full_url, answer.status, response.reason, response.headers, None))
        elif answer.status == 429:  # a wish to be left alone, for retries to heed; the server is well
            permit.ignore()
        else:
            permit.success()
        return answer

    def _admit(self, request: Request) -> Permit:
        try:
            return self._breakers[request.host].permit()
        except CircuitOpenError as refusal:
            error = UrllibCircuitOpenError(refusal.message)
            vars(error).update(vars(refusal))
            raise error from None


class BreakerHTTPHandler(_Guarded, HTTPHandler):
    """For `urllib.request.build_opener`."""


class BreakerHTTPSHandler(_Guarded, HTTPSHandler):
    """For `urllib.request.build_opener`."""


def may_be_repeated(request: Request, error: BaseException) -> bool:
    """Tell whether a request may be sent again: that may help, does no harm, and its body is still there."""
    status = error.code if isinstance(error, HTTPError) else None
    if of_our_own_making(error) or (status is not None and status != 429 and status not in ILL):
        return False
    refused = isinstance(error, URLError) and isinstance(error.reason, ConnectionRefusedError)
    harmless = request.get_method() in HARMLESS or request.has_header("Idempotency-key")  # as urllib spells it
    # An iterable or a file has been read; sent again, the body would be empty or the rest of it.
    return (status == 429 or refused or harmless) and isinstance(request.data, (bytes, type(None)))


RETRIES = RetryPolicy(max_elapsed_s=60, budget=RetryBudget())


def send(opener: OpenerDirector, request: Request, policy: RetryPolicy = RETRIES) -> Any:
    """Open a request, again where that is right, and return the answer; as ever, a bad status is an HTTPError."""
    policy = replace(policy, retryable_exceptions=partial(may_be_repeated, request))
    return policy.call(opener.open, request, timeout=TIMEOUT_S)
