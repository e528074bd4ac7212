"""Generators and async generators under guard: all that consumer and body say to each other passes through.

One trampoline for each kind. A `Guard` says how to begin and how to end. Nothing here knows breakers or bulkheads.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial
from itertools import repeat
from typing import Any, TypeAlias

Stream: TypeAlias = Generator[Any, Any, Any]
AsyncStream: TypeAlias = AsyncGenerator[Any, Any]


class Empty(Exception):
    """A stream is exhausted before its first item; with the value that it returned."""

    # Not StopIteration, which may also come from a clock or a fallback, where it is an error.

    def __init__(self, value: Any = None) -> None:
        self.value = value


class Guard:
    """What happens around one iteration. This one does nothing."""

    leave: Callable[[Guard], object] | None = None
    """Called first at the end, if it is not None. It is a function of C code: no interrupt can come in its middle."""

    over = False

    watches_items = False
    """Whether `resume`, `pause` and `gave` are called around each item after the first."""

    def open(self, func: Callable[..., Stream], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Stream, Any]:
        """Return the stream and its first item, when the consumer asks for it.

        Raises:
            Empty: there is none.
        """
        stream = func(*args, **kwargs)
        try:
            return stream, next(stream)
        except StopIteration as stop:
            raise Empty(stop.value) from None

    async def open_async(
        self, func: Callable[..., AsyncStream], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[AsyncStream, Any]:
        """Do the same as `open`."""
        stream = func(*args, **kwargs)
        try:
            return stream, await self.first_item(stream)
        except StopAsyncIteration:
            raise Empty from None

    def first_item(self, stream: AsyncStream) -> Awaitable[Any]:
        """Ask for the first item, and let the event loop know of the guarded stream alone, which closes this one.

        Else a loop that ends, and the garbage collector, would have both closed at the same time.
        """
        hooks = sys.get_asyncgen_hooks()
        finalizer = None if hooks.finalizer is None else partial(self._finalize, hooks.finalizer)
        try:
            sys.set_asyncgen_hooks(None, finalizer)
            return anext(stream)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    def _finalize(self, finalizer: Callable[[AsyncStream], object], stream: AsyncStream) -> None:
        if self.over:
            finalizer(stream)

    def resume(self) -> None:
        """Called when the body is about to run again."""

    def pause(self) -> None:
        """Called when the body has stopped running: at an item, or at its end."""

    def gave(self) -> None:
        """Called when the body has given an item, after `pause`."""

    def end(self, error: BaseException | None) -> None:
        """Called when the iteration is over, and once more if that raises. None: the stream is exhausted.

        GeneratorExit says that the consumer stopped early, perhaps by way of the garbage collector, in the middle of
        anything.
        """


def guarded(func: Callable[..., Stream], new_guard: Callable[[], Guard]) -> Callable[..., Stream]:  # noqa: C901
    """Return a generator function that passes `next`, `send`, `throw`, `close` and the return value through."""

    def wrapper(*args: Any, **kwargs: Any) -> Stream:  # noqa: C901 - one frame for all that may happen
        guard = new_guard()
        ended: BaseException | None = None
        value: Any = None
        try:
            try:
                stream, item = guard.open(func, args, kwargs)
            except Empty as empty:
                return empty.value
            send: Callable[..., Any] = stream.send
            throw: Callable[..., Any] = stream.throw
            for _ in repeat(None):
                step = send
                try:
                    said = yield item
                except GeneratorExit as stop:
                    ended = stop
                    return _close(guard, stream, stop)
                except BaseException as error:
                    step, said = throw, error
                item = None
                watches = guard.watches_items
                try:
                    if watches:
                        guard.resume()
                    try:
                        item = step(said)
                    except StopIteration as stop:
                        value = stop.value
                        break
                    finally:
                        said = None
                        if watches:
                            guard.pause()
                    if watches:
                        guard.gave()
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
            except BaseException:
                guard.end(ended)  # an interrupt may have come before the first one did anything
                raise
            finally:
                said = ended = None  # an exception in a frame of its own traceback is a reference cycle
        return value

    return wrapper


def guarded_async(  # noqa: C901
    func: Callable[..., AsyncStream], new_guard: Callable[[], Guard]
) -> Callable[..., AsyncStream]:
    """Return an async generator function that passes `anext`, `asend`, `athrow` and `aclose` through."""

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncStream:  # noqa: C901 - one frame for all that may happen
        guard = new_guard()
        ended: BaseException | None = None
        try:
            try:
                stream, item = await guard.open_async(func, args, kwargs)
            except Empty:
                return
            send: Callable[..., Any] = stream.asend
            throw: Callable[..., Any] = stream.athrow
            for _ in repeat(None):
                step = send
                try:
                    said = yield item
                except GeneratorExit as stop:
                    ended = stop
                    await _close_async(guard, stream)
                    raise
                except BaseException as error:
                    step, said = throw, error
                item = None
                watches = guard.watches_items
                try:
                    if watches:
                        guard.resume()
                    try:
                        item = await step(said)
                    except StopAsyncIteration:
                        break
                    finally:
                        said = None
                        if watches:
                            guard.pause()
                    if watches:
                        guard.gave()
                except GeneratorExit:  # it came into the body
                    raise
                except BaseException:
                    await stream.aclose()  # it is over already, unless the guard raised
                    raise
        except BaseException as error:
            ended = error
            raise
        finally:
            guard.over = True
            try:
                if guard.leave is not None:
                    guard.leave(guard)
                guard.end(ended)
            except BaseException:
                guard.end(ended)  # an interrupt may have come before the first one did anything
                raise
            finally:
                said = ended = None  # an exception in a frame of its own traceback is a reference cycle

    return wrapper


def _close(guard: Guard, stream: Stream, stop: GeneratorExit) -> Any:
    """Close the body, and return the value it then returns, which `close()` gives from Python 3.13 on."""
    close: Callable[[], Any] = stream.close
    try:
        try:
            if guard.watches_items:
                guard.resume()
        finally:
            try:
                value = close()
            finally:
                if guard.watches_items:
                    guard.pause()
        if value is None:
            raise stop
        return value
    finally:
        del stop


async def _close_async(guard: Guard, stream: AsyncStream) -> None:
    try:
        if guard.watches_items:
            guard.resume()
    finally:
        try:
            await stream.aclose()
        finally:
            if guard.watches_items:
                guard.pause()
