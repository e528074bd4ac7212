"""What breaker, retry and bulkhead have in common: `call`, `call_async`, and decorating the four kinds of function.

A pattern says how it makes one call (`_run`, `_run_async`) and how it guards one iteration (`_new_guard`); the rest is
here. One whose calls have to be quick also writes its wrappers itself.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import Enum
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType, NoneType
from typing import Any, ClassVar, Final, NoReturn, ParamSpec, TypeVar, cast

from ..exceptions import UsageError
from . import checks
from .fallback import Call, Fallback
from .streams import Guard, guarded, guarded_async

_P = ParamSpec("_P")
_R = TypeVar("_R")

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Function = Callable[..., Any]


class Kind(Enum):
    """How a function gives its result."""

    PLAIN = "plain"
    COROUTINE = "coroutine"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"


class WrongKindError(UsageError, TypeError):
    """A function was given that this way of calling cannot guard, or it returned what cannot be guarded here."""


_NOT_PLAIN: Final = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _is_generator_based_coroutine_function(func: Any) -> bool:
    """Return whether `@types.coroutine` made it one: its generators are to be awaited."""
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
    while isinstance(func, functools.partial):
        func = cast("Any", func).func
    for candidate in (func, getattr(cast("Any", type(func)), "__call__", None)):  # noqa: B004 - the method itself is wanted
        for test, answer in _TESTS:
            with suppress(TypeError):  # of a mock that passes for a function, and whose flags are mocks
                if test(candidate):
                    return answer
    return Kind.PLAIN


def check_callable(func: Any) -> None:
    """Reject what cannot be called; a coroutine object is somebody's forgotten lambda."""
    if inspect.iscoroutine(func):
        func.close()
        raise TypeError(
            f"func must be a function, got the coroutine object {func!r}: pass the function itself, without calling it"
        )
    if not callable(func):
        raise checks.wrong_type("func", func, "a function")


def check_plain(func: Any) -> None:
    """Reject, before anything is admitted, what is not over when it returns: `call` would guard only its beginning."""
    # Asked at every `call()`, so the usual answers come first. A mark as a coroutine function stands in __dict__.
    plain: Any = func.__func__ if type(func) is MethodType else func
    if type(plain) is FunctionType and not plain.__code__.co_flags & _NOT_PLAIN and not plain.__dict__:
        return
    if type(plain) is BuiltinFunctionType or type(plain) is type:
        return
    check_callable(func)
    kind = kind_of(func)
    if kind is Kind.PLAIN:
        return
    if kind is Kind.COROUTINE:
        raise WrongKindError(f"call() cannot await {func!r}: use call_async()")
    raise WrongKindError(f"call() cannot guard the iteration of {func!r}: use a decorator")


PLAIN_RESULTS: Final = frozenset({NoneType, bool, bytes, dict, float, int, list, set, str, tuple})
"""Types that `check_finished` need not be asked about."""


def check_finished(func: Function, result: object) -> type[object]:
    """Reject a result that is still to be awaited: it would count as a success before the call has ended.

    Return a type whose results need no check: that of this result, but not that of generators, some of which are
    coroutines.

    Raises:
        WrongKindError: the result is a coroutine or another awaitable; a coroutine is closed.
    """
    # Asked at almost every call: most results have no `__await__`, and generators may be coroutines without one.
    kind: type[object] = type(result)
    if (hasattr(kind, "__await__") or kind is GeneratorType) and inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise WrongKindError(
            f"{func!r} is a plain function but returned {result!r}, which must be awaited, so the call has only begun: "
            "decorate the `async def` itself, below its other decorators, or use call_async()"
        )
    return NoneType if kind is GeneratorType else kind


class _Awaited:
    """A function whose result can be awaited, as a coroutine function."""

    def __init__(self, func: Function) -> None:
        self.func = func

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        awaitable = self.func(*args, **kwargs)
        if not inspect.isawaitable(awaitable):
            remedy = "use call()" if kind_of(self.func) is Kind.PLAIN else "use a decorator"
            raise WrongKindError(
                f"call_async() takes a function whose result can be awaited, but {self.func!r} returned {awaitable!r}: "
                f"{remedy}"
            )
        return await awaitable


def qualified_name(func: Any) -> str:
    """Return `module.qualname` of a function, or of the class of what is none; a partial has that of its function."""
    while isinstance(func, functools.partial | Call | _Awaited):
        func = cast("Any", func).func
    named = func if isinstance(getattr(func, "__qualname__", None), str) else cast("Any", type(func))
    module = getattr(named, "__module__", None)  # not everything written in C says where it is from
    return f"{module}.{named.__qualname__}" if isinstance(module, str) else str(named.__qualname__)


class Pattern:
    """The base of breaker, retry policy and bulkhead."""

    _attribute: ClassVar[str]
    """The name under which a decorated function has this object."""

    # What each pattern brings.

    def _run(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        """Call a plain function under this pattern."""
        raise NotImplementedError

    async def _run_async(self, func: Function, args: Args, kwargs: Kwargs) -> Any:
        """Call a function whose result can be awaited, and await it, under this pattern."""
        raise NotImplementedError

    def _new_guard(self) -> Guard:
        """Return what guards one iteration of a generator or async generator."""
        raise NotImplementedError

    def _wrap_plain(self, func: Function) -> Function:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return self._run(func, args, kwargs)

        return wrapper

    def _wrap_coroutine(self, func: Function) -> Function:
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await self._run_async(func, args, kwargs)

        return wrapper

    # What they have in common.

    def call(self, func: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call `func(*args, **kwargs)` under this guard and return its result. For plain functions.

        Raises:
            TypeError: `func` is an `async def` or a generator function or cannot be called, or it returned something
                that must be awaited.
        """
        check_plain(func)
        return self._run(func, args, kwargs)  # type: ignore[no-any-return]

    async def call_async(self, func: Callable[_P, Awaitable[_R]], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call and await `func(*args, **kwargs)` under this guard and return its result.

        Raises:
            TypeError: `func` cannot be called, or its result cannot be awaited.
        """
        check_callable(func)
        return await self._run_async(_Awaited(func), args, kwargs)  # type: ignore[no-any-return]

    def _decorate(self, func: Any, fallback: Fallback | None = None) -> Any:
        """Return func under this pattern, of the same kind and with the same metadata.

        A static or class method is decorated inside and stays one.
        """
        for method in (staticmethod, classmethod):
            if isinstance(func, method):
                return cast("Any", method)(self._decorate(cast("Any", func).__func__, fallback))
        _check_decorable(func)
        wrapper = self._wrap(func, kind_of(func), fallback)
        for name in functools.WRAPPER_ASSIGNMENTS:
            with suppress(AttributeError, TypeError):  # a proxy has anything for a name
                setattr(wrapper, name, getattr(func, name))
        functools.update_wrapper(wrapper, func, assigned=())
        setattr(wrapper, self._attribute, self)
        return wrapper

    def _wrap(self, func: Function, kind: Kind, fallback: Fallback | None) -> Function:
        if kind is Kind.PLAIN:
            return self._wrap_plain(func) if fallback is None else fallback.wrap_plain(self._run, func)
        if kind is Kind.COROUTINE:
            return self._wrap_coroutine(func) if fallback is None else fallback.wrap_coroutine(self._run_async, func)
        if kind is Kind.GENERATOR:
            wrap = self._wrap_generator
            return wrap(func) if fallback is None else fallback.wrap_generator(wrap, func)
        wrap_async = self._wrap_async_generator
        return wrap_async(func) if fallback is None else fallback.wrap_async_generator(wrap_async, func)

    def _wrap_generator(self, func: Function) -> Callable[..., Generator[Any, Any, Any]]:
        return guarded(func, self._new_guard)

    def _wrap_async_generator(self, func: Function) -> Callable[..., AsyncGenerator[Any, Any]]:
        return guarded_async(func, self._new_guard)


def _nothing() -> Generator[None]:
    yield  # pragma: no cover - only its code is looked at


async def _nothing_async() -> AsyncGenerator[None]:
    yield  # pragma: no cover - only its code is looked at


# What `contextmanager` makes returns at once and runs later, inside the `with` block of its caller.
_CONTEXT_MANAGERS: Final = (contextmanager(_nothing).__code__, asynccontextmanager(_nothing_async).__code__)


def _check_decorable(func: Any) -> None:
    check_callable(func)
    if isinstance(func, type):
        raise WrongKindError(f"func must be a function, got the class {func!r}: decorate its methods")
    inner = func
    while isinstance(inner, functools.partial):
        inner = cast("Any", inner).func
    if getattr(inner, "__code__", None) in _CONTEXT_MANAGERS:
        raise WrongKindError(
            f"func must be a function, got the context manager {func!r}, which runs after it has returned: "
            "put `with breaker:` (or `with bulkhead:`) inside it, or decorate a function that it calls"
        )


class OnlyOne:
    """An object that cannot be copied or pickled: what it counts is counted in this one object."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled, because its counts live in this one object: "
            "pass its name, and make the object where it is used"
        )
