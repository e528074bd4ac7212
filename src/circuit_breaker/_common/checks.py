"""One check for each kind of parameter: the wrong type is a `TypeError`, the wrong value a `ValueError`.

Each message names the parameter, what it got and what it takes; each check returns the value in its plain form.
"""

from __future__ import annotations

import inspect
import math
import operator
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import Any, Final, TypeVar, get_origin

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Enum)

COUNT: Final = "an int >= {}"

_NEVER_PLAIN: Final = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def wrong_type(name: str, value: object, takes: str) -> TypeError:
    return TypeError(f"{name} must be {takes}, got {_shown(value)} ({type(value).__name__})")


def wrong_value(name: str, value: object, takes: str) -> ValueError:
    return ValueError(f"{name} must be {takes}, got {_shown(value)}")


def _shown(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print an int of thousands of digits
        return "more digits than can be shown"


def _has(value: object, *methods: str) -> bool:
    return any(hasattr(type(value), method) for method in methods)


def count(name: str, value: Any, minimum: int, takes: str = "", *, also: str = "") -> int:
    """Return value as an int of at least minimum; anything with `__index__` but a bool is an int.

    `also` ends what the message of this and other checks says: what else is taken, but not checked here.
    """
    takes = takes or COUNT.format(minimum) + also
    if isinstance(value, bool):
        raise wrong_type(name, value, takes)
    try:
        number = operator.index(value)
    except TypeError as error:
        raise wrong_type(name, value, takes) from error
    if number < minimum:
        raise wrong_value(name, value, takes)
    return int(number)


def number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float = math.inf,
    infinite: bool = False,
    also: str = "",
) -> float:
    """Return value as a float within the bounds; anything with `__float__` or `__index__` but a bool is a number."""
    bounds = [f"> {above:g}"] if above is not None else []
    bounds += [f">= {minimum:g}"] if minimum is not None else []
    bounds += [f"<= {maximum:g}"] if maximum < math.inf else []
    takes = f"{'a' if infinite else 'a finite'} number {' and '.join(bounds)}".rstrip() + also
    if isinstance(value, (bool, str)) or not _has(value, "__float__", "__index__"):
        raise wrong_type(name, value, takes)
    try:
        number = float(value)
    except TypeError as error:
        raise wrong_type(name, value, takes) from error
    except (ValueError, OverflowError) as error:
        raise wrong_value(name, value, takes) from error
    if (
        math.isnan(number)
        or (math.isinf(number) and not infinite)
        or (above is not None and number <= above)
        or (minimum is not None and number < minimum)
        or number > maximum
    ):
        raise wrong_value(name, value, takes)
    return number


def seconds(name: str, value: Any, *, also: str = "", **bounds: Any) -> float:
    """Return value as a float of seconds within the bounds (those of `number`); a `timedelta` is one, too."""
    plain = value.total_seconds() if isinstance(value, timedelta) else value
    return number(name, plain, also=f" or a timedelta{also}", **bounds)


def flag(name: str, value: Any) -> bool:
    """Return value, which must be True or False."""
    if not isinstance(value, bool):
        raise wrong_type(name, value, "True or False")
    return value


def text(name: str, value: Any) -> str:
    """Return value, which must be a str, as a plain one: it ends up in messages, and a subclass may look otherwise."""
    if not isinstance(value, str):
        raise wrong_type(name, value, "a str")
    return str.__str__(value)


def latency(name: str, value: Any) -> float:
    """Return value, which must be a number. If it is negative or not finite, return 0.0: the result counts anyway."""
    if isinstance(value, (bool, str)) or not _has(value, "__float__", "__index__"):
        raise wrong_type(name, value, "a number of milliseconds")
    try:
        number = float(value)
    except TypeError as error:
        raise wrong_type(name, value, "a number of milliseconds") from error
    except (ValueError, OverflowError):
        return 0.0
    return number if 0.0 <= number < math.inf else 0.0


def reading(clock: Callable[[], Any]) -> float:
    """Return what the clock says now, which must be a number that goes with floats."""
    now = clock()
    if not isinstance(now, (int, float)):
        raise wrong_type("clock", clock, f"a function that returns seconds as a float, not {_shown(now)}")
    return now


def instance(name: str, value: Any, kind: type[_T], *, also: str = "") -> _T:
    """Return value, which must be an instance of kind."""
    if not isinstance(value, kind):
        raise wrong_type(name, value, f"a {kind.__name__}{also}")
    return value


def member(name: str, value: Any, kind: type[_E]) -> _E:
    """Return value, which must be a member of the enumeration kind."""
    if not isinstance(value, kind):
        raise wrong_type(name, value, f"one of {', '.join(str(member) for member in kind)}")
    return value


def function(name: str, value: Any, gives: str = "a function", *, also: str = "") -> Callable[..., Any]:
    """Return value, which must be callable and give its result when called: no class, no `async def`, no generator."""
    if not callable(value):
        raise wrong_type(name, value, gives + also)
    called: Callable[..., Any] = value
    parts = (called, type(called).__call__)
    is_class = isinstance(get_origin(value) or value, type)  # list[int] is one too
    if is_class or any(test(part) for test in _NEVER_PLAIN for part in parts):
        raise wrong_type(name, called, f"{gives} (no class, no async def, no generator)")
    return called


def functions(name: str, value: Any) -> tuple[Callable[..., Any], ...]:
    """Return value, an iterable of functions, as a tuple."""
    takes = "an iterable of functions that take one event"
    if callable(value) or isinstance(value, (str, bytes)):
        raise wrong_type(name, value, f"{takes} (a tuple, even of one)")
    try:
        items = tuple(value)
    except TypeError as error:
        raise wrong_type(name, value, takes) from error
    return tuple(function(f"{name}[{index}]", item, "a function of one event") for index, item in enumerate(items))


_CHECK: Final = "circuit_breaker.check"
_SAY_WHAT_ELSE: Final = (count, number, seconds, instance, function)


def by(check: Callable[..., Any], *, optional: bool = False, **options: Any) -> Mapping[str, Any]:
    """Return the metadata of a dataclass field whose values are checked so; optional: None is a value, too."""
    if optional and check in _SAY_WHAT_ELSE:
        options["also"] = ", or None"
    checked = partial(check, **options)

    def unless_none(name: str, value: Any) -> Any:
        return None if value is None else checked(name, value)

    return {_CHECK: unless_none if optional else checked}


def check_fields(settings: Any) -> None:
    """Check each field of a new dataclass object by its metadata, and keep its plain form."""
    for setting in fields(settings):
        check = setting.metadata.get(_CHECK)
        if check is not None:
            object.__setattr__(settings, setting.name, check(setting.name, getattr(settings, setting.name)))
