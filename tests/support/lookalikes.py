"""Values that are almost what is meant: like numbers of numpy, and functions that give no result when called."""

from __future__ import annotations

from typing import Any


class Index:
    """Like an integer of numpy: no int, but `__index__` gives one."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Float:
    """Like a float of numpy: no float, but `__float__` gives one."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


class Array:
    """Like an array of numpy: it has both methods, and neither works unless it holds one number."""

    def __index__(self) -> int:
        raise TypeError("only integer scalar arrays can be converted to a scalar index")

    def __float__(self) -> float:
        raise TypeError("only length-1 arrays can be converted to Python scalars")


async def coroutine_function(_: object) -> None: ...


def generator_function(_: object) -> Any:
    yield


async def async_generator_function(_: object) -> Any:
    yield
