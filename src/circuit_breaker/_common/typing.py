"""The types of decorated functions, for type checkers alone: at run time a decorated function is a plain function.

The third parameter of each is what guards the function: `CircuitBreaker | RetryPolicy` under both decorators. It is
contravariant, so a function with more guards goes where fewer are asked for, and an attribute that needs a guard is
there exactly when that guard is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from .._breaker.breaker import CircuitBreaker
    from .._bulkhead.bulkhead import Bulkhead
    from .._retry.policy import RetryPolicy

_P = ParamSpec("_P")
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True)
_Guards = TypeVar("_Guards")
_Guards_contra = TypeVar("_Guards_contra", contravariant=True)
_Rest = ParamSpec("_Rest")
_Self = TypeVar("_Self")


class Protected(Generic[_P, _R_co, _Guards_contra]):
    """What a call of a decorated function or bound method looks like, and the objects that guard it."""

    if TYPE_CHECKING:
        __module__: str
        __name__: str
        __qualname__: str

        def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...
        @property
        def __wrapped__(self) -> Callable[_P, _R_co]: ...
        @property
        def circuit_breaker(self: Protected[_P, _R_co, CircuitBreaker]) -> CircuitBreaker: ...
        @property
        def retry_policy(self: Protected[_P, _R_co, RetryPolicy]) -> RetryPolicy: ...
        @property
        def bulkhead(self: Protected[_P, _R_co, Bulkhead]) -> Bulkhead: ...


class ProtectedFunction(Protected[_P, _R_co, _Guards_contra]):
    """The same before it is bound: found on a class or an instance, it loses its `cls` or `self` if it has one."""

    if TYPE_CHECKING:

        @overload
        def __get__(
            self: Callable[Concatenate[_Self, _Rest], _R_co], instance: _Self, owner: object, /
        ) -> Protected[_Rest, _R_co, _Guards_contra]: ...
        @overload
        def __get__(  # type: ignore[misc]  # of the functions it may be, those with a cls
            self: Callable[Concatenate[type[_Self], _Rest], _R_co], instance: object, owner: type[_Self], /
        ) -> Protected[_Rest, _R_co, _Guards_contra]: ...
        @overload
        def __get__(self, instance: object, owner: object, /) -> ProtectedFunction[_P, _R_co, _Guards_contra]: ...
        def __get__(self, instance: Any, owner: Any, /) -> Any: ...


class Decorator(Protocol[_Guards_contra]):
    """What a decorator with parentheses gives; what already has a guard keeps it beside the new one."""

    @overload
    def __call__(self, func: Protected[_P, _R, _Guards], /) -> ProtectedFunction[_P, _R, _Guards | _Guards_contra]: ...
    @overload
    def __call__(self, func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, _Guards_contra]: ...
