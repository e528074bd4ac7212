"""Types of settings that are a number of seconds: a `timedelta` may be given, and a number is read."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, overload

_Taken_contra = TypeVar("_Taken_contra", contravariant=True)
_Read_co = TypeVar("_Read_co", covariant=True)


class Setting(Generic[_Taken_contra, _Read_co]):
    """A field of a frozen dataclass that takes more types than it is read as."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: object, /) -> _Read_co: ...
        @overload
        def __get__(self, instance: object, owner: object, /) -> _Read_co: ...
        def __get__(self, instance: object, owner: object, /) -> Any: ...
        def __set__(self, instance: object, value: _Taken_contra, /) -> None: ...


Seconds: TypeAlias = Setting[float | timedelta, float]
OptionalSeconds: TypeAlias = Setting[float | timedelta | None, float | None]
