"""Generators and async generators under guard: all that consumer and body say to each other passes through.

One trampoline for each kind. A `Guard` tells it how to begin and how to end; it knows nothing of breakers or bulkheads.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from itertools import repeat
from typing import Any, TypeAlias

Stream: TypeAlias = Generator[Any, Any, Any]
AsyncStream: TypeAlias = AsyncGenerator[Any, Any]


class Guard:
    """What happens around one iteration. This one does nothing."""

    leave: Callable[[Guard], object] | None = None
    """Called first at the end if it is not None: C code, which no interrupt can split from what it does."""

    def open(self, func: Callable[..., Stream], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Stream, Any]:
        """Return the stream and its first item, when the consumer asks for it; an empty one raises StopIteration."""
        stream = func(*args, **kwargs)
        return stream, next(stream)

    async def open_async(
        self, func: Callable[..., AsyncStream], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[AsyncStream, Any]:
        """Return the stream and its first item; an empty one raises StopAsyncIteration."""
        stream = func(*args, **kwargs)
        return stream, await anext(stream)

    def resume(self) -> None:
        """Do what is due when the body is about to run again."""

    def pause(self) -> None:
        """Do what is due when the body has stopped running: at an item, or for good."""

    def end(self, error: BaseException | None) -> None:
        """Do what is due when the iteration is over, once; None: the stream is exhausted.

        GeneratorExit says that the consumer stopped early, perhaps by way of the garbage collector, in the middle of
        anything.
        """


def guarded(func: Callable[..., Stream], new_guard: Callable[[], Guard]) -> Callable[..., Stream]:
    """Return a generator function that passes `next`, `send`, `throw`, `close` and the return value through."""

    def wrapper(*args: Any, **kwargs: Any) -> Stream:
        guard = new_guard()
        ended: BaseException | None = None
        value: Any = None
        try:
            try:
                stream, item = guard.open(func, args, kwargs)
            except StopIteration as stop:
                return stop.value
            for _ in repeat(None):
                step: Callable[..., Any] = stream.send
                try:
                    said = yield item
                except GeneratorExit:
                    stream.close()
                    raise
                except BaseException as error:
                    step, said = stream.throw, error
                item = None
                try:
                    guard.resume()
                    try:
                        item = step(said)
                    finally:
                        said = None
                        guard.pause()
                except StopIteration as stop:
                    value = stop.value
                    break
                except BaseException:
                    stream.close()  # it is over already, unless the guard raised
                    raise
        except BaseException as error:
            ended = error
            raise
        finally:
            try:
                if guard.leave is not None:
                    guard.leave(guard)
                guard.end(ended)
            finally:
                said = ended = None  # an exception that is kept in a frame of its own traceback is a circle
        return value

    return wrapper


def guarded_async(func: Callable[..., AsyncStream], new_guard: Callable[[], Guard]) -> Callable[..., AsyncStream]:
    """Return an async generator function that passes `anext`, `asend`, `athrow` and `aclose` through."""

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncStream:
        guard = new_guard()
        ended: BaseException | None = None
        try:
            try:
                stream, item = await guard.open_async(func, args, kwargs)
            except StopAsyncIteration:
                return
            for _ in repeat(None):
                step: Callable[..., Any] = stream.asend
                try:
                    said = yield item
                except GeneratorExit:
                    await stream.aclose()
                    raise
                except BaseException as error:
                    step, said = stream.athrow, error
                item = None
                try:
                    guard.resume()
                    try:
                        item = await step(said)
                    finally:
                        said = None
                        guard.pause()
                except StopAsyncIteration:
                    break
                except BaseException:
                    await stream.aclose()  # it is over already, unless the guard raised
                    raise
        except BaseException as error:
            ended = error
            raise
        finally:
            try:
                if guard.leave is not None:
                    guard.leave(guard)
                guard.end(ended)
            finally:
                said = ended = None  # an exception that is kept in a frame of its own traceback is a circle

    return wrapper
