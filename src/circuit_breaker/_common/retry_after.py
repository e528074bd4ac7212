"""Retry-after hints: how long a server asks its clients to wait, read from an error or from a response."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from datetime import UTC, timedelta
from typing import Any, cast

from .events import raised_by_signal_handler

# Each header with the number of its units in a second; those in milliseconds first, since they are more exact.
_HEADERS = {"retry-after-ms": 1000, "x-ms-retry-after-ms": 1000, "x-amz-retry-after": 1000, "retry-after": 1}
_READ = {*_HEADERS, "date"}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def retry_after_hint(exc: object) -> float | None:
    """Return how many seconds an error or a response asks its client to wait, or None. It never raises and never waits.

    It returns the first of these that it can read:

    1. `exc.retry_after_s` or `exc.retry_after`: a finite number of seconds >= 0, or a `timedelta`.
    2. A header of `exc.response` or of `exc`: `retry-after-ms`, `x-ms-retry-after-ms` or `x-amz-retry-after` in
       milliseconds, or else `Retry-After` in seconds or as an HTTP date. A date is compared with the `Date` header of
       the same response, or with the clock of this machine if there is none. A date in the past gives 0.0.

    It reads the errors and responses of httpx, requests, aiohttp, urllib, urllib3 and botocore, and of SDKs built on
    them, such as openai and anthropic. Threads and tasks may share it.
    """
    for name in ("retry_after_s", "retry_after"):
        seconds = _finite(_attribute(exc, name))
        if seconds is not None:
            return seconds
    for headers in _all_headers(exc):
        seconds = None if headers is None else _from_headers(headers)
        if seconds is not None:
            return seconds
    return None


def _attribute(owner: object, name: str) -> Any:
    try:
        return getattr(owner, name, None)
    except Exception as problem:  # a property may raise anything
        _pass_on(problem)
        return None


def _finite(value: Any) -> float | None:
    """Return a time as seconds if it is a timedelta or a real number of any type, finite and >= 0."""
    try:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            return None
        seconds = float(value) if value >= 0 else math.inf
    except Exception as problem:  # it only looked like a number, as a mock does, or is too large for a float
        _pass_on(problem)
        return None
    return seconds if seconds < math.inf else None


def _all_headers(exc: object) -> Iterator[Any]:
    for holder in (_attribute(exc, "response"), exc):
        yield _attribute(holder, "headers")
        yield _entry(_entry(holder, "ResponseMetadata"), "HTTPHeaders")  # a response of botocore


def _entry(holder: object, key: str) -> Any:
    return cast("dict[str, Any]", holder).get(key) if issubclass(type(holder), dict) else None


def _from_headers(headers: Any) -> float | None:
    try:
        found: dict[str, str] = {}
        for name, value in headers.items():
            if isinstance(name, str | bytes) and (key := _text(name).lower()) in _READ:
                found.setdefault(key, _text(value).strip())
        for key, units in _HEADERS.items():
            if _NUMBER.fullmatch(text := found.get(key, "")):
                return _finite(float(text) / units)
        date = _timestamp(found.get("retry-after"))
        sent = _timestamp(found.get("date"))
    except Exception as problem:  # it has no usable headers
        _pass_on(problem)
        return None
    return None if date is None else max(0.0, date - (time.time() if sent is None else sent))


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _timestamp(date: str | None) -> float | None:
    if not date:
        return None
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except Exception as problem:  # it is not a date
        _pass_on(problem)
        return None


def _pass_on(problem: Exception) -> None:
    """Raise the exception again if a signal handler raised it, such as the time limit of a Celery task."""
    if raised_by_signal_handler(problem):
        raise problem
