"""Numbers, times and settings as people read them, in the same words in every form of the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from math import floor, inf, log10
from typing import Any

from ..._breaker.config import CircuitBreakerConfig


def number(count: int, what: str, many: str = "") -> str:
    """Return a count with its noun: `1 call`, `2,000 calls`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {many or what + 's'}"


def share(part: float) -> str:
    """Return a share in per cent, with two digits where it is small."""
    percent = part * 100
    if percent and percent < 9.95:
        return f"{percent:.{max(0, 1 - floor(log10(percent)))}f}".rstrip("0").rstrip(".") + "%"
    return f"{percent:.0f}%"


def exact_share(part: float) -> str:
    """Return a share as it was set."""
    return f"{part * 100:.4g}%"


def seconds(value: float) -> str:
    """Return a time as `0.25 s`, `12 s`, `3 min`, `2 h 5 min`, `4 days`."""
    if value == inf:
        return "never"
    if value < 9.95:
        return f"{value:.2g} s"
    if value < 119.5:
        return f"{value:.0f} s"
    if value < 119.5 * 60:
        return f"{value / 60:.0f} min"
    hours, minutes = divmod(round(value / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours + minutes / 60:.0f} h"
    return f"{value / 86_400:.0f} days"


def moment(at: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a wall-clock time, in UTC."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)).strftime(form)


def rules(config: CircuitBreakerConfig) -> str:
    """Return when a breaker opens: `50% of the last 50 calls failed, or 18 in a row`."""
    return ", or ".join(_rules(config, in_full=True))


def in_short(config: CircuitBreakerConfig) -> str:
    """Return a setting for the line of a table: `50% of the last 50 or 18 in a row, 5 s open`."""
    return f"{' or '.join(_rules(config, in_full=False))}, {pause(config)} open"


def _rules(config: CircuitBreakerConfig, *, in_full: bool) -> Iterator[str]:
    window, calls = config.error_rate_window, " calls" if in_full else ""
    of = f"the last {window:,}{calls}" if isinstance(window, int) else f"the last {seconds(window.total_seconds())}"
    share, slow_share = config.error_rate_threshold, config.slow_call_rate_threshold
    if share is not None:
        yield f"{exact_share(share)} of {of}{' failed' if in_full else ''}"
    if slow_share is not None:
        many = "as many" if slow_share == share else f"{exact_share(slow_share)} of {of}"
        yield f"{many} took {config._slow_s:g} s or longer"
    if config.failure_threshold is not None:
        alone = in_full and share is None and slow_share is None
        yield (
            f"{config.failure_threshold:,} calls in a row failed" if alone else f"{config.failure_threshold:,} in a row"
        )
    if config.trip_when is not None:
        yield f"{getattr(config.trip_when, '__name__', 'trip_when')}() says so"


def pause(config: CircuitBreakerConfig) -> str:
    """Return how long it stays open."""
    wait: Any = config.reset_timeout_s
    return "as long as a function says" if callable(wait) else seconds(wait)


def code(config: CircuitBreakerConfig) -> list[str]:
    """Return a setting as code to paste: what differs from the defaults."""
    plain = CircuitBreakerConfig()
    lines = [
        f"    {field.name}={_literal(getattr(config, field.name))},"
        for field in fields(config)
        if getattr(config, field.name) != getattr(plain, field.name)
    ]
    return ["CircuitBreakerConfig(", *lines, ")"] if lines else ["CircuitBreakerConfig()"]


def _literal(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"timedelta(seconds={value.total_seconds():g})"
    if isinstance(value, float):
        return f"{value:g}" if value < inf else 'float("inf")'
    return str(getattr(value, "__name__", repr(value)))
