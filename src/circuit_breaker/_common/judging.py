"""What an exception says about the service: success, failure, or nothing.

An exception is asked in this order: is it no `Exception`; is it a rejection of this library, a wrong use of it or a
cancellation; is it listed as ignored; is it listed as a failure. A group is judged leaf by leaf before anything else.

`issubclass(type(error), ...)` is used in place of `isinstance` all over: a proxy or a mock can claim any `__class__`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, Union, cast, get_args, get_origin

from ..exceptions import BulkheadFullError, CircuitOpenError, UsageError
from . import checks
from .async_library import cancellation_types
from .words import Outcome

SUCCESS: Final = Outcome.SUCCESS
FAILURE: Final = Outcome.FAILURE
IGNORED: Final = Outcome.IGNORED
REJECTIONS: Final = (CircuitOpenError, BulkheadFullError)
TYPES_KNOWN: Final = 100  # of failures, by each configuration
EXITS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)

ExceptionTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...] | types.UnionType
ExceptionFilter: TypeAlias = ExceptionTypes | Callable[[Any], object]

# A subclass may override the attribute, so it is read from the base class.
_MEMBERS: Final = cast("Any", BaseExceptionGroup.exceptions)

_TAKES = "an exception type, a tuple or union of them, or a predicate of one exception"


class Kinds:
    """A checked `ExceptionFilter`: says whether an exception matches.

    Attributes:
        types: the types that it lists; empty for a predicate.
        predicate: the predicate, if it is one.
        rejections: those of `types` that are rejections of this library.
        timeouts: those of `types` that stand for a timeout but are not an `Exception`, such as `gevent.Timeout`.
    """

    __slots__ = ("predicate", "rejections", "timeouts", "types")

    def __init__(self, name: str, given: Any, *, timeouts: bool = False) -> None:
        self.types: tuple[type[BaseException], ...] = ()
        self.predicate: Callable[[Any], object] | None = None
        if isinstance(given, type) or _members(given) is not None:
            self.types = tuple(_types(name, given, given, timeouts))
        elif callable(given):
            self.predicate = checks.function(name, given, _TAKES)
        else:
            listed = isinstance(given, list | set | frozenset)
            raise checks.wrong_type(name, cast("object", given), f"{_TAKES} (a tuple is meant)" if listed else _TAKES)
        self.rejections = tuple(kind for kind in self.types if issubclass(kind, REJECTIONS))
        self.timeouts = tuple(kind for kind in self.types if _is_timeout(kind))

    def hold(self, error: BaseException) -> bool:
        """Return whether this exception, which is not a group, matches. A predicate may raise."""
        if self.predicate is not None:
            return bool(self.predicate(error))
        return issubclass(type(error), self.types)


def _members(given: Any) -> tuple[Any, ...] | None:
    """Return what a tuple or a union is made of, None for anything else."""
    if get_origin(given) in (types.UnionType, Union):
        return get_args(given)
    return tuple(cast("Iterable[Any]", given)) if isinstance(given, tuple) else None


def _types(name: str, given: Any, part: Any, timeouts: bool) -> list[type[BaseException]]:
    members = _members(part)
    if members is not None:
        return [kind for member in members for kind in _types(name, given, member, timeouts)]
    if not isinstance(part, type) or not issubclass(part, BaseException):
        mixed = callable(cast("object", part)) and not isinstance(part, type)
        hint = " (to combine types and a predicate, write one predicate)" if mixed else ""
        raise checks.wrong_type(name, given, f"{_TAKES}{hint}")
    if issubclass(part, BaseExceptionGroup):
        raise checks.wrong_value(name, given, f"{_TAKES}; {part.__name__} never matches: its leaves are judged")
    if issubclass(part, (*EXITS, *cancellation_types())) or (_is_timeout(part) and not timeouts):
        raise checks.wrong_value(name, given, f"{_TAKES}; {part.__name__} is never judged by its type")
    return [part]


def _is_timeout(kind: type[BaseException]) -> bool:
    return kind is not BaseException and not issubclass(kind, Exception)


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group and in groups inside it. Any other exception is its own only leaf."""
    if not issubclass(type(error), BaseExceptionGroup):
        return [error]
    found: list[BaseException] = []
    unopened: list[BaseException] = [error]
    while unopened:
        part: Any = unopened.pop()
        if issubclass(type(part), BaseExceptionGroup):
            unopened.extend(reversed(_MEMBERS.__get__(part)))
        else:
            found.append(part)
    return found


def is_rejection(error: BaseException) -> bool:
    """Return whether this library rejected the call, so that it never reached the service."""
    return issubclass(type(error), REJECTIONS)


class Judge:
    """Decides what an exception says, for these failures and ignored exceptions."""

    __slots__ = ("_failures", "_ignored", "_known", "_plain_failures", "_rest")

    def __init__(self, failures: Kinds, ignored: Kinds) -> None:
        self._failures = failures
        self._ignored = ignored
        # The decision for the usual types of failures is kept, so that it is made once for each type.
        self._known: set[type[BaseException]] = set()
        self._rest = (BaseExceptionGroup, *REJECTIONS, UsageError, *ignored.types)
        plain = failures.predicate is None and ignored.predicate is None
        self._plain_failures = tuple(kind for kind in failures.types if plain and _is_plain(kind))

    def __reduce__(self) -> tuple[type[Judge], tuple[Kinds, Kinds]]:
        return Judge, (self._failures, self._ignored)  # the types that were met need not be picklable

    def judge(self, error: BaseException, hung: bool) -> Outcome:
        """Return what it says; `hung`: the call lasted so long that a cancellation counts as a failure.

        A predicate that raises does so here.
        """
        kind = type(error)
        if kind in self._known:
            return FAILURE
        if (
            issubclass(kind, self._plain_failures)
            and not issubclass(kind, self._rest)
            and not issubclass(kind, cancellation_types())
        ):
            if len(self._known) < TYPES_KNOWN:
                self._known.add(kind)
            return FAILURE
        if not issubclass(kind, BaseExceptionGroup):
            return self._judge_leaf(error, hung)
        outcomes = {self._judge_leaf(leaf, hung) for leaf in leaves(error)}
        if FAILURE in outcomes:
            return FAILURE
        return SUCCESS if SUCCESS in outcomes else IGNORED

    def _judge_leaf(self, error: BaseException, hung: bool) -> Outcome:
        kind, failures, ignored = type(error), self._failures, self._ignored
        if issubclass(kind, cancellation_types()):
            return FAILURE if hung else IGNORED
        if not issubclass(kind, Exception):
            return FAILURE if issubclass(kind, failures.timeouts) else IGNORED
        if issubclass(kind, UsageError) or (is_rejection(error) and not issubclass(kind, failures.rejections)):
            return IGNORED
        if issubclass(kind, ignored.types) if ignored.predicate is None else ignored.predicate(error):
            return IGNORED
        failed = issubclass(kind, failures.types) if failures.predicate is None else failures.predicate(error)
        return FAILURE if failed else SUCCESS


def _is_plain(kind: type[BaseException]) -> bool:
    """Return whether all its subclasses are `Exception`s, without asking a metaclass."""
    return type(kind) is type and issubclass(kind, Exception)
