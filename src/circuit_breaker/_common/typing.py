"""Types of decorated functions and of decorators, for type checkers alone: at run time these are plain functions.

Of a decorated function, the last three parameters say which objects guard it: its circuit breaker, its retry policy and
its bulkhead; `object` where it has none. They are covariant, so a function with more guards goes where fewer are asked
for, and an attribute is there exactly when its guard is, since only a pattern can be one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from .pattern import Pattern

_P = ParamSpec("_P")
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True)
_Breaker_co = TypeVar("_Breaker_co", covariant=True)
_Policy_co = TypeVar("_Policy_co", covariant=True)
_Bulkhead_co = TypeVar("_Bulkhead_co", covariant=True)
_Breaker = TypeVar("_Breaker")
_Policy = TypeVar("_Policy")
_Bulkhead = TypeVar("_Bulkhead")
_Rest = ParamSpec("_Rest")
_Self = TypeVar("_Self")


class Protected(Generic[_P, _R_co, _Breaker_co, _Policy_co, _Bulkhead_co]):
    """What a call of a decorated function or bound method looks like, and the objects that guard it."""

    if TYPE_CHECKING:
        __module__: str
        __name__: str
        __qualname__: str

        def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...
        @property
        def __wrapped__(self) -> Callable[_P, _R_co]: ...
        @property
        def circuit_breaker(self: Protected[_P, _R_co, Pattern, object, object]) -> _Breaker_co: ...
        @property
        def retry_policy(self: Protected[_P, _R_co, object, Pattern, object]) -> _Policy_co: ...
        @property
        def bulkhead(self: Protected[_P, _R_co, object, object, Pattern]) -> _Bulkhead_co: ...


class ProtectedFunction(Protected[_P, _R_co, _Breaker_co, _Policy_co, _Bulkhead_co]):
    """The same before it is bound: found on a class or an instance, it loses its `cls` or `self` if it has one."""

    if TYPE_CHECKING:

        @overload
        def __get__(
            self: Callable[Concatenate[_Self, _Rest], _R_co], instance: _Self, owner: object, /
        ) -> Protected[_Rest, _R_co, _Breaker_co, _Policy_co, _Bulkhead_co]: ...
        @overload
        def __get__(  # type: ignore[misc]  # of the functions it may be, those with a cls
            self: Callable[Concatenate[type[_Self], _Rest], _R_co], instance: object, owner: type[_Self], /
        ) -> Protected[_Rest, _R_co, _Breaker_co, _Policy_co, _Bulkhead_co]: ...
        @overload
        def __get__(
            self, instance: object, owner: object, /
        ) -> ProtectedFunction[_P, _R_co, _Breaker_co, _Policy_co, _Bulkhead_co]: ...
        def __get__(self, instance: Any, owner: Any, /) -> Any: ...


# What a decorator with parentheses gives. What guards the function already stays, beside the new guard.


class BreakerDecorator(Protocol[_Breaker_co]):
    """Guards a function with a circuit breaker."""

    @overload
    def __call__(
        self, func: Protected[_P, _R, Any, _Policy, _Bulkhead], /
    ) -> ProtectedFunction[_P, _R, _Breaker_co, _Policy, _Bulkhead]: ...
    @overload
    def __call__(self, func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, _Breaker_co, object, object]: ...


class RetryDecorator(Protocol[_Policy_co]):
    """Lets a function be retried."""

    @overload
    def __call__(
        self, func: Protected[_P, _R, _Breaker, Any, _Bulkhead], /
    ) -> ProtectedFunction[_P, _R, _Breaker, _Policy_co, _Bulkhead]: ...
    @overload
    def __call__(self, func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, object, _Policy_co, object]: ...


class BulkheadDecorator(Protocol[_Bulkhead_co]):
    """Limits how many calls of a function run at once."""

    @overload
    def __call__(
        self, func: Protected[_P, _R, _Breaker, _Policy, Any], /
    ) -> ProtectedFunction[_P, _R, _Breaker, _Policy, _Bulkhead_co]: ...
    @overload
    def __call__(self, func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, object, object, _Bulkhead_co]: ...
