"""Conditions on the fields of a line, such as `status>=500 or error=Timeout`: parsed, never evaluated."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

TAKES: Final = "COLUMN OP VALUE with OP one of = != < <= > >=, several joined by `or`"
_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NAME: Final = r'"(?P<quoted_name>[^"]+)"|(?P<name>[\w.$@/-]+)'
_VALUE: Final = r"""'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<value>[^\s'"=<>!][^\s'"]*)"""
_COMPARISON: Final = re.compile(rf"\s*(?:{_NAME})\s*(?P<op>!=|<=|>=|=|<|>)\s*(?:{_VALUE})\s*")
_OR: Final = re.compile(r"or(?=\s)")


class _Comparison(NamedTuple):
    column: str
    compare: Callable[[Any, Any], bool]
    equality: bool
    text: str
    number: float | None

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Compare as numbers if both are, else as text, which is equal or not and never more or less."""
        found = field(row, self.column)
        number = None if self.number is None else as_number(found)
        if number is not None:
            return self.compare(number, self.number)
        return self.equality and self.compare(as_text(found), self.text)


class Condition:
    """Holds for a line if any of its comparisons does."""

    def __init__(self, text: str) -> None:
        self.comparisons: list[_Comparison] = []
        position = 0
        while True:
            match = _COMPARISON.match(text, position)
            if match is None:
                raise ValueError(f"takes {TAKES}, got {text!r}")
            self.comparisons.append(_comparison(match))
            position = match.end()
            if position == len(text):
                break
            joined = _OR.match(text, position)
            if joined is None:
                raise ValueError(f"takes {TAKES}, got {text!r}")
            position = joined.end()

    @property
    def columns(self) -> list[str]:
        """The columns that it looks at."""
        return [comparison.column for comparison in self.comparisons]

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Return whether it holds for a line, given as its fields."""
        return any(comparison.holds(row) for comparison in self.comparisons)


def _comparison(match: re.Match[str]) -> _Comparison:
    value = next(text for text in match.group("single", "double", "value") if text is not None)
    column = match["quoted_name"] or match["name"]
    number = as_number(value) if match["value"] else None
    return _Comparison(column, _COMPARISONS[match["op"]], match["op"] in {"=", "!="}, value, number)


def field(row: Mapping[str, Any], column: str) -> Any:
    """Return a field of a line, None if it has none; `a.b` may be the field `b` of an object `a`."""
    if column in row or "." not in column:
        return row.get(column)
    found: Any = row
    for name in column.split("."):
        found = cast("Mapping[str, Any]", found).get(name) if isinstance(found, Mapping) else None
    return found


def as_number(value: object) -> float | None:
    """Return a field as a number, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def as_text(value: object) -> str:
    """Return a field as text, as JSON writes what is no string."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
