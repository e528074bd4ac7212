"""The arguments of the commands as what they mean: shares, times, columns, conditions, settings."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from math import inf, nan
from typing import Any, Final, TypeVar

from .._breaker.breaker import CircuitBreaker
from .._breaker.config import CircuitBreakerConfig
from .model import Kind, Trouble
from .reading.conditions import Condition
from .reading.formats import CLF, EITHER, ISO, PER_SECOND, Column

MOST: Final = 1_000_000_000  # calls, processes, retries
LEAST_ORDINARY: Final = 1e-9  # the share that fails in ordinary times: no log is long enough to show less

# The settings that can be given by hand; the others are functions and exceptions, and no log has those.
SETTINGS: Final = {
    "failure_threshold": "failures in a row that open the circuit",
    "error_rate_threshold": "share of failures that opens it, such as 50%%",
    "error_rate_window": "the window: calls, or seconds such as 30s",
    "minimum_calls": "calls the window must hold before a share counts",
    "slow_call_duration_s": "seconds from which a call is slow",
    "slow_call_rate_threshold": "share of slow calls that opens it",
    "reset_timeout_s": "seconds that it stays open",
    "success_threshold": "probes that must succeed to close it",
    "half_open_max_calls": "probes at the same time",
    "half_open_failure_threshold": "failed probes that open it again",
    "half_open_timeout_s": "seconds after which a probe is overdue",
    "failure_threshold_within_s": "seconds within which the failures in a row must have happened",
}

SHARES: Final = ("error_rate_threshold", "slow_call_rate_threshold")

MEASURES: Final = {Kind.PARTIAL.value: "50%", Kind.SURGE.value: "2"}  # kinds of outage that have one, with an example

_T = TypeVar("_T")


def checked(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return the same for `argparse`, which shows the message of this error and of no other."""

    def parse_for_argparse(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse_for_argparse


def number(text: str, *, above: float = -inf, minimum: float = -inf, whole: bool = False, takes: str) -> Any:
    """Return a number within bounds."""
    try:
        value: float = int(text) if whole else float(text)
    except ValueError:
        value = nan
    if not (above < value < inf and minimum <= value):  # an int may be too large for a float
        raise ValueError(f"takes {takes}, got {text!r}")
    return value


def _part(text: str) -> float:
    """Return a share that is given as `50%` or `0.5`; nan: it is none."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return nan


def share(text: str) -> float:
    """Return a share of more than nothing and less than all."""
    value = _part(text)
    if not 0 < value < 1:
        raise ValueError(f"takes a share above 0 and below 1, such as 50% or 0.5, got {text!r}")
    return value


def ordinary_share(text: str) -> float:
    """Return the share of calls that fails in ordinary times."""
    value = _part(text)
    if not LEAST_ORDINARY <= value < 1:
        raise ValueError(f"takes a share of at least 1e-9 and below 1, such as 1% or 0.01, got {text!r}")
    return value


def seconds(text: str) -> float:
    """Return a time of more than nothing."""
    value: float = number(text.removesuffix("s"), above=0, takes="a number of seconds above 0")
    return value


def count(text: str, *, minimum: int = 1) -> int:
    """Return a whole number, which is at most `MOST`."""
    takes = f"a whole number from {minimum} to {MOST:,}"
    value: int = number(text, minimum=minimum, whole=True, takes=takes)
    if value > MOST:
        raise ValueError(f"takes {takes}, got {text!r}")
    return value


def moment(text: str) -> float:
    """Return a wall-clock time; without a time zone it is in UTC."""
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"takes a time such as 2025-11-28T10:20:00Z, got {text!r}") from error


def stretch(text: str) -> tuple[float, float]:
    """Return two wall-clock times that are separated by a slash."""
    begin, _, end = text.partition("/")
    if not end or moment(begin) >= moment(end):
        raise ValueError(f"takes FROM/TO, such as 2025-11-28T10:20:00Z/2025-11-28T10:25:00Z, got {text!r}")
    return moment(begin), moment(end)


def column(text: str, *, of_time: bool) -> Column:
    """Return a column and its unit."""
    units = [*([ISO, CLF] if of_time else []), *PER_SECOND]
    name, colon, unit = text.rpartition(":")
    if not colon:
        return Column(text, EITHER if of_time else "s")
    if not name or unit not in units:
        raise ValueError(f"takes COLUMN or COLUMN:UNIT with UNIT one of {', '.join(units)}, got {text!r}")
    return Column(name, unit)


def condition(text: str) -> Condition:
    """Return a condition on columns."""
    return Condition(text)


def pattern(text: str) -> re.Pattern[str]:
    """Return a regular expression that has names for the columns."""
    try:
        found = re.compile(text)
    except re.error as error:
        raise ValueError(f"takes a regular expression, got {text!r}: {error}") from error
    if not found.groupindex:
        raise ValueError(f"takes a regular expression with a group for each column, as (?P<status>\\d+), got {text!r}")
    return found


def existing(text: str) -> CircuitBreakerConfig:
    """Return the configuration that `module:name` is, or that of the breaker which it is."""
    module, _, name = text.partition(":")
    takes = "takes MODULE:NAME of a CircuitBreakerConfig or a CircuitBreaker"
    if not module or not name:
        raise ValueError(f"{takes}, got {text!r}")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ValueError(f"{takes}; {text!r} cannot be imported: {type(error).__name__}: {error}") from error
    if isinstance(found, CircuitBreaker):
        return found.config
    if not isinstance(found, CircuitBreakerConfig):
        raise ValueError(f"{takes}, and {text!r} is a {type(found).__name__}")
    return found


def setting(text: str) -> Any:
    """Return the value of a setting: `none`, a number, a share as `50%`, a time as `30s`."""
    if text.lower() == "none":
        return None
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        if text.endswith("s"):
            return timedelta(seconds=float(text[:-1]))
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"takes a number, a share such as 50%, a time such as 30s, or none; got {text!r}") from error


def share_setting(text: str) -> float | None:
    """Return the value of a setting that is a share: `none`, or up to all."""
    value = _part(text)
    if text.lower() == "none":
        return None
    if not 0 < value <= 1:
        raise ValueError(f"takes a share such as 50% or 0.5, or none; got {text!r}")
    return value


def trouble(text: str) -> Trouble:
    """Return a kind of outage: `full`, `partial:50%`, `surge:2` and so on."""
    name, colon, measure = text.partition(":")
    kinds = {kind.value: kind for kind in Kind}
    if name not in kinds or (name in MEASURES) != bool(colon):
        known = ", ".join(f"{kind}:{MEASURES[kind]}" if kind in MEASURES else kind for kind in kinds)
        raise ValueError(f"takes one of {known}, got {text!r}")
    if name == Kind.PARTIAL.value:
        return Trouble(Kind.PARTIAL, share(measure))
    if name == Kind.SURGE.value:
        return Trouble(Kind.SURGE, number(measure, above=0, takes="a number above 0 after surge:"))
    return Trouble(kinds[name])


def add_settings(parser: argparse.ArgumentParser, what: str) -> None:
    """Add an argument for each setting that can be given by hand."""
    group = parser.add_argument_group("your settings", what)
    group.add_argument(
        "--config", type=checked(existing), metavar="MODULE:NAME", help="a configuration, or the breaker that has it"
    )
    for name, meaning in SETTINGS.items():
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            type=checked(share_setting if name in SHARES else setting),
            default=argparse.SUPPRESS,
            metavar="X",
            help=meaning,
        )


def given_config(given: argparse.Namespace) -> CircuitBreakerConfig | None:
    """Return the configuration that the arguments describe; None: they say nothing about one.

    Raises:
        ValueError: a value is out of range or of the wrong kind, or two do not go together.
    """
    values = {name: getattr(given, name) for name in SETTINGS if hasattr(given, name)}
    if not values:
        return given.config  # type: ignore[no-any-return]
    try:
        return (given.config or CircuitBreakerConfig()).replace(**values)
    except TypeError as error:
        raise ValueError(str(error)) from error
