"""Fallbacks: a function of the caller whose result is returned when a call is rejected or fails."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from inspect import isasyncgen, isawaitable
from typing import Any

from ..exceptions import UsageError
from .async_library import cancellation_types
from .judging import Kinds, is_rejection, leaves
from .streams import AsyncStream, Empty, Guard, Stream, guarded, guarded_async

Function = Callable[..., Any]


class Fallback:
    """A function that is called as `fallback(error, *args, **kwargs)`, and the errors that it is called for.

    It is called for the rejection of its own call. With `errors` it also answers exceptions of the function that are
    among them, after these have been counted. A rejection that the function raises is such an exception.
    """

    def __init__(self, function: Function, errors: Kinds | None) -> None:
        self.function = function
        self._errors = errors

    def answers(self, error: BaseException, entered: bool) -> bool:
        """Return whether the fallback is called for this error. `entered`: the function had been called."""
        if not entered:
            return is_rejection(error)
        return self._errors is not None and all(map(self._answers_leaf, leaves(error)))

    def _answers_leaf(self, error: BaseException) -> bool:
        # Wrong use of this library must be seen, and the end of a stream is not an error.
        kind = type(error)
        if not issubclass(kind, Exception) or issubclass(kind, (UsageError, Empty, *cancellation_types())):
            return False
        return self._errors is not None and self._errors.hold(error)

    def wrap_plain(self, run: Function, func: Function) -> Function:
        """Return func under the pattern whose `run` is given, with this fallback."""

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = Call(func)
            try:
                return run(call, args, kwargs)
            except BaseException as error:
                if not self.answers(error, call.entered):
                    raise
                return self.function(error, *args, **kwargs)

        return wrapper

    def wrap_coroutine(self, run: Function, func: Function) -> Function:
        """Return the coroutine function under the pattern whose `run` is given; what can be awaited is awaited."""

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = Call(func)
            try:
                return await run(call, args, kwargs)
            except BaseException as error:
                if not self.answers(error, call.entered):
                    raise
                value = self.function(error, *args, **kwargs)
                return await value if isawaitable(value) else value

        return wrapper

    def wrap_generator(self, wrap: Function, func: Function) -> Callable[..., Stream]:
        """Return the generator function under the pattern whose `wrap` is given; asked until the first item only."""
        return guarded(func, lambda: _Opening(self, wrap))

    def wrap_async_generator(self, wrap: Function, func: Function) -> Callable[..., AsyncStream]:
        """Do the same as `wrap_generator`."""
        return guarded_async(func, lambda: _Opening(self, wrap))


class Call:
    """A function that remembers whether it has been called."""

    def __init__(self, func: Function) -> None:
        self.func = func
        self.entered = False

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self.entered = True
        return self.func(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.func)


class _Opening(Guard):
    """Begins the guarded stream, or that of the fallback instead."""

    def __init__(self, fallback: Fallback, wrap: Function) -> None:
        self._fallback = fallback
        self._wrap = wrap

    def open(self, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Stream, Any]:
        call = Call(func)
        try:
            return super().open(self._wrap(call), args, kwargs)
        except Exception as error:
            if not self._fallback.answers(error, call.entered):
                raise
            return super().open(_iterate, (self._fallback.function(error, *args, **kwargs),), {})

    async def open_async(
        self, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[AsyncStream, Any]:
        call = Call(func)
        try:
            return await super().open_async(self._wrap(call), args, kwargs)
        except Exception as error:
            if not self._fallback.answers(error, call.entered):
                raise
            return await super().open_async(_async_stream, (self._fallback.function(error, *args, **kwargs),), {})


def _iterate(items: Stream) -> Stream:
    return (yield from items)


def _async_stream(items: Any) -> AsyncStream:
    return items if isasyncgen(items) else _iterate_async(items)


async def _iterate_async(items: AsyncIterable[Any]) -> AsyncStream:
    async for item in items:
        yield item
