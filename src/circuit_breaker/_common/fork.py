"""Objects that get new locks in a forked child, where locks of other threads would stay held for ever."""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol, TypeVar


class Survivor(Protocol):
    """An object with a lock, or with state that only this process's threads can finish."""

    def _after_fork_in_child(self) -> None: ...


_T = TypeVar("_T")


class Reference(weakref.ref[Any]):
    """A weak reference that compares by identity, even if the object defines its own equality."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


# In the order of their making, in a dict, which takes half the memory of a set. Taken out by C code alone: a Python
# callback would swallow a Ctrl-C that lands in it.
_living: dict[Reference, None] = {}
_forget = _living.__delitem__


def survive(survivor: Survivor) -> None:
    """Call `_after_fork_in_child` of this object in every forked child, for as long as it lives."""
    _living[Reference(survivor, _forget)] = None


def living(kind: type[_T]) -> list[_T]:
    """Return the survivors of this type that are alive, the oldest first."""
    return [found for reference in _living.copy() if isinstance(found := reference(), kind)]


def _in_child() -> None:
    for reference in _living.copy():
        survivor = reference()
        if survivor is not None:
            survivor._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
