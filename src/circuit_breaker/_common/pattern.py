"""What kind of function it is, asked in one place, and the one way a pattern wraps each kind."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from types import FunctionType
from typing import Any, Protocol, cast

from . import checks


class Kind(Enum):
    """How a function gives its result."""

    PLAIN = "plain"
    COROUTINE = "coroutine"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"


_SPECIAL = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _is_generator_based_coroutine_function(func: Any) -> bool:
    """Tell whether it is a generator function whose generators are to be awaited: `@types.coroutine` made it one."""
    flags = getattr(getattr(func, "__code__", None), "co_flags", None)  # of a remote proxy, say, anything
    return isinstance(flags, int) and bool(flags & inspect.CO_ITERABLE_COROUTINE)


_TESTS = (
    (inspect.isasyncgenfunction, Kind.ASYNC_GENERATOR),
    (inspect.iscoroutinefunction, Kind.COROUTINE),
    (_is_generator_based_coroutine_function, Kind.COROUTINE),
    (inspect.isgeneratorfunction, Kind.GENERATOR),
)


def kind_of(func: Any) -> Kind:
    """Return the kind of a callable; partials, bound methods and objects with `__call__` are looked into."""
    if type(func) is FunctionType and not func.__dict__ and not func.__code__.co_flags & _SPECIAL:
        return Kind.PLAIN  # asked at every `call()`, so the common answer is quick; a mark would stand in __dict__
    while isinstance(func, functools.partial):
        func = cast("Any", func).func
    for candidate in (func, getattr(cast("Any", type(func)), "__call__", None)):  # noqa: B004 - the method itself is wanted
        for test, answer in _TESTS:
            with suppress(TypeError):  # of a mock that passes for a function, and whose flags are mocks
                if test(candidate):
                    return answer
    return Kind.PLAIN


class Pattern(Protocol):
    """Breaker, retry and bulkhead: each knows how to wrap the four kinds, and takes options of its own."""

    @property
    def _wrap_plain(self) -> Callable[..., Callable[..., Any]]: ...
    @property
    def _wrap_coroutine(self) -> Callable[..., Callable[..., Any]]: ...
    @property
    def _wrap_generator(self) -> Callable[..., Callable[..., Any]]: ...
    @property
    def _wrap_async_generator(self) -> Callable[..., Callable[..., Any]]: ...


def wrap(pattern: Pattern, func: Any, attribute: str, *options: Any) -> Any:
    """Return func under the pattern, of the same kind and with the same metadata; `attribute` of it is the pattern.

    A static or class method is wrapped inside and stays one.
    """
    for method in (staticmethod, classmethod):
        if isinstance(func, method):
            return cast("Any", method)(wrap(pattern, cast("Any", func).__func__, attribute, *options))
    check_callable(func)
    kind = kind_of(func)
    if kind is Kind.COROUTINE:
        wrapper = pattern._wrap_coroutine(func, *options)
    elif kind is Kind.GENERATOR:
        wrapper = pattern._wrap_generator(func, *options)
    elif kind is Kind.ASYNC_GENERATOR:
        wrapper = pattern._wrap_async_generator(func, *options)
    else:
        wrapper = pattern._wrap_plain(func, *options)
    for name in functools.WRAPPER_ASSIGNMENTS:
        with suppress(AttributeError, TypeError):  # a proxy has anything for a name
            setattr(wrapper, name, getattr(func, name))
    functools.update_wrapper(wrapper, func, assigned=())
    setattr(wrapper, attribute, pattern)
    return wrapper


def check_callable(func: Any) -> None:
    """Refuse what cannot be called; a coroutine object is somebody's forgotten lambda."""
    if inspect.iscoroutine(func):
        func.close()
        raise TypeError(f"func must be a function, got the coroutine object {func!r}: pass the function uncalled")
    if not callable(func):
        raise checks.wrong_type("func", func, "a function")


def check_plain(func: Any) -> None:
    """Refuse, before anything is admitted, what is not over when it returns: `call` could only guard its beginning."""
    check_callable(func)
    kind = kind_of(func)
    if kind is Kind.COROUTINE:
        raise TypeError(f"call() cannot await {func!r}: use call_async()")
    if kind is not Kind.PLAIN:
        raise TypeError(f"call() cannot guard the iteration of {func!r}: decorate it")
