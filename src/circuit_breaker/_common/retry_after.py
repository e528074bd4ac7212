"""How long the other side asks to be left alone, read from whatever exception an HTTP client raised."""

from __future__ import annotations

import math
import re
import time
from typing import Any

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


def retry_after_hint(exc: BaseException) -> float | None:
    """Return the seconds after which `exc` asks to be tried again, or None; never raises.

    Read from `exc.retry_after_s` or `exc.retry_after` where that is a finite real number >= 0, else from the header
    `Retry-After` (seconds or an HTTP date) of `exc.response` or of `exc` itself, as httpx, requests, aiohttp and
    urllib raise them. Anything malformed is None; a date that has passed is 0.0. Keeps no state: share it freely.
    """
    try:
        for name in ("retry_after_s", "retry_after"):
            seconds = _seconds(getattr(exc, name, None))
            if seconds is not None:
                return seconds
        for holder in (getattr(exc, "response", None), exc):
            headers = getattr(holder, "headers", None)
            if headers is not None and (value := _header(headers)) is not None:
                return _parse(value)
    except Exception:  # noqa: S110 - a hint that cannot be read is no hint
        pass
    return None


def _seconds(value: Any) -> float | None:
    """Return value as a float if it is a real number of any type, finite and >= 0."""
    try:
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            return None
        seconds = float(value) if value >= 0 else math.inf
    except Exception:  # no number after all, as a mock, or none that can be a float
        return None
    return seconds if seconds < math.inf else None


def _header(headers: Any) -> str | None:
    for name in ("Retry-After", "retry-after"):
        value = headers.get(name)
        if value is not None:
            return value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return None


def _parse(value: str) -> float | None:
    value = value.strip()
    if _SECONDS.fullmatch(value):
        seconds = float(value)
        return seconds if seconds < math.inf else None
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    date = parsedate_to_datetime(value)
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())
