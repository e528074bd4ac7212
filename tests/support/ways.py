"""The one list of ways to make a guarded call. Add a new way to `WAYS`, and every promise is asked of it.

`BREAKER`, `BULKHEAD` and `POLICY` hold the ways through each pattern, by name. `BREAKER["with"](breaker, body)` makes
one call of body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from coroutines import drive

from circuit_breaker import BulkheadFullError, CircuitOpenError, circuit_breaker
from circuit_breaker._breaker.registry import KeyedBreakers

Body: TypeAlias = Callable[[], Any]
Work: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, eq=False)
class Way:
    """One way to make a guarded call.

    Attributes:
        name: what tests call it.
        guarded: takes a guard and a function, which is a coroutine function if the way is asynchronous; returns a
            function of the same kind that makes one guarded call.
        guards: the patterns that have this way, of "breaker", "bulkhead" and "policy".
        is_async: it is awaited.
        decorates: it asks nothing of the guard but to decorate a function, so several guards can be stacked.
        is_block: it is a block of `with` or `async with` on the guard itself.
        is_whole: it takes and gives back by itself, so no interrupt can split it.
        returns: the caller gets what the body returns, and the pattern judges it.
        by_hand: the caller says how the call went; what the body raises or returns is not judged.
        own_permit: inside a probe it asks for a permit of its own.
    """

    name: str
    guarded: Callable[[Any, Any], Callable[[], Any]]
    guards: tuple[str, ...]
    is_async: bool = False
    decorates: bool = False
    is_block: bool = False
    is_whole: bool = False
    returns: bool = False
    by_hand: bool = False
    own_permit: bool = False

    def ready(self, guard: Any, body: Body) -> Body:
        """Return a function that makes one guarded call of body whenever it is called; it needs no event loop."""
        if not self.is_async:
            return self.guarded(guard, body)
        call = self.guarded(guard, _coroutine_function(body))
        return lambda: drive(call())

    def awaited(self, guard: Any, work: Work) -> Coroutine[Any, Any, Any]:
        """Return a coroutine that makes one guarded call of a coroutine function; for asynchronous ways alone."""
        return self.guarded(guard, work)()

    def __call__(self, guard: Any, body: Body) -> Any:
        """Make one guarded call of body, in an event loop if the way is asynchronous."""
        if not self.is_async:
            return self.guarded(guard, body)()
        return asyncio.run(self.awaited(guard, _coroutine_function(body)))


def _coroutine_function(body: Body) -> Work:
    async def work() -> Any:
        return body()

    return work


# What all patterns have


def _decorator(guard: Any, body: Callable[[], Any]) -> Callable[[], Any]:
    return guard((lambda: body()) if isinstance(body, type) else body)  # a class is rejected


class _Client:
    """Whose methods are guarded. They are bound without a class of their own, which only the collector would free."""


def _method(guard: Any, body: Body) -> Body:
    @guard
    def call(self: _Client) -> Any:
        return body()

    return call.__get__(_Client())


def _async_method(guard: Any, work: Work) -> Work:
    @guard
    async def call(self: _Client) -> Any:
        return await work()

    return call.__get__(_Client())


def _call(guard: Any, body: Body) -> Body:
    return lambda: guard.call(body)


def _call_async(guard: Any, work: Work) -> Work:
    return lambda: guard.call_async(work)


def _generator(guard: Any, body: Body) -> Body:
    @guard
    def stream() -> Iterator[Any]:
        yield body()
        yield "the end"

    def call() -> Any:
        value, _ = list(stream())  # PyPy takes a TypeError out of what is unpacked for its own
        return value

    return call


def _async_generator(guard: Any, work: Work) -> Work:
    @guard
    async def stream() -> AsyncIterator[Any]:
        yield await work()
        yield "the end"

    async def call() -> Any:
        value, _ = [item async for item in stream()]
        return value

    return call


def _empty_generator(guard: Any, body: Body) -> Body:
    @guard
    def stream() -> Any:
        value = body()
        yield from ()
        return value

    def whole() -> Iterator[Any]:
        return (yield from stream())

    def call() -> Any:
        try:
            next(whole())
        except StopIteration as stop:
            return stop.value
        raise AssertionError("it is not empty")

    return call


# Blocks


def _with(guard: Any, body: Body) -> Body:
    def call() -> Any:
        with guard:
            return body()

    return call


def _with_in_async_def(guard: Any, work: Work) -> Work:
    async def call() -> Any:
        with guard:
            return await work()

    return call


def _async_with(guard: Any, work: Work) -> Work:
    async def call() -> Any:
        async with guard:
            return await work()

    return call


# What breakers alone have


def _keyed(way: Callable[[Any, Any], Callable[[], Any]], breaker: Any, body: Any) -> Callable[[], Any]:
    registry: Any = {"key": breaker}
    return way(KeyedBreakers(registry, lambda *args: "key")._decorate, body)


def _with_a_fallback(way: Callable[[Any, Any], Callable[[], Any]], breaker: Any, body: Any) -> Callable[[], Any]:
    def reject(error: CircuitOpenError) -> Any:
        try:
            raise error
        finally:
            del error  # else its traceback would keep it alive

    return way(circuit_breaker(breaker=breaker, fallback=reject), body)


def _permit(breaker: Any, body: Body) -> Body:
    def call() -> Any:
        with breaker.permit():
            return body()

    return call


def _async_permit(breaker: Any, work: Work) -> Work:
    async def call() -> Any:
        async with breaker.permit():
            return await work()

    return call


def _permit_by_hand(breaker: Any, body: Body) -> Body:
    def call() -> Any:
        permit = breaker.permit()
        try:
            value = body()
        except Exception as error:
            permit.failure(error)
            raise
        permit.success()
        return value

    return call


def _allow_and_record(breaker: Any, body: Body) -> Body:
    def call() -> Any:
        if not breaker.allow_request():
            raise CircuitOpenError("refused", breaker.name)
        try:
            value = body()
        except Exception:
            breaker.record_failure()
            raise
        breaker.record_success()
        return value

    return call


# What bulkheads alone have


def _acquire_and_release(bulkhead: Any, body: Body) -> Body:
    def call() -> Any:
        if not bulkhead.acquire():
            raise BulkheadFullError("refused", bulkhead.name)
        try:
            return body()
        finally:
            bulkhead.release()

    return call


def _acquire_async_and_release(bulkhead: Any, work: Work) -> Work:
    async def call() -> Any:
        if not await bulkhead.acquire_async():
            raise BulkheadFullError("refused", bulkhead.name)
        try:
            return await work()
        finally:
            bulkhead.release()

    return call


# What retry policies alone have


def _attempts(policy: Any, body: Body) -> Body:
    def call() -> Any:
        for attempt in policy.attempts():
            with attempt:
                value = attempt.result(body())
        return value

    return call


def _async_attempts(policy: Any, work: Work) -> Work:
    async def call() -> Any:
        async for attempt in policy.attempts():
            with attempt:
                value = attempt.result(await work())
        return value

    return call


def _bare_attempts(policy: Any, body: Body) -> Body:
    def call() -> Any:
        for _ in policy.attempts():
            try:
                return body()
            except BaseException as raised:
                error = raised
        try:
            raise error
        finally:
            del error

    return call


def _async_bare_attempts(policy: Any, work: Work) -> Work:
    async def call() -> Any:
        async for _ in policy.attempts():
            try:
                return await work()
            except BaseException as raised:
                error = raised
        try:
            raise error
        finally:
            del error

    return call


ALL = ("breaker", "bulkhead", "policy")
BLOCKS = ("breaker", "bulkhead")

OF_EACH_KIND = (
    Way("decorator", _decorator, ALL, decorates=True, is_whole=True, returns=True),
    Way("generator", _generator, ALL, decorates=True, is_whole=True),
    Way("async decorator", _decorator, ALL, is_async=True, decorates=True, is_whole=True, returns=True),
    Way("async generator", _async_generator, ALL, is_async=True, decorates=True, is_whole=True),
)
"""Decorators of the four kinds of functions."""

WAYS = (
    *OF_EACH_KIND,
    Way("method", _method, ALL, decorates=True, is_whole=True, returns=True),
    Way("call", _call, ALL, is_whole=True, returns=True),
    Way("empty generator", _empty_generator, ALL, decorates=True, is_whole=True),
    Way("async method", _async_method, ALL, is_async=True, decorates=True, is_whole=True, returns=True),
    Way("call_async", _call_async, ALL, is_async=True, is_whole=True, returns=True),
    Way("with", _with, BLOCKS, is_block=True),
    Way("with in async def", _with_in_async_def, ("breaker",), is_async=True, is_block=True),
    Way("async with", _async_with, BLOCKS, is_async=True, is_block=True),
    *(
        replace(
            each,
            name=name.format(each.name),
            guarded=partial(variant, each.guarded),
            guards=("breaker",),
            decorates=False,
        )
        for name, variant in (("{} with a fallback", _with_a_fallback), ("keyed {}", _keyed))
        for each in OF_EACH_KIND
    ),
    Way("permit", _permit, ("breaker",), own_permit=True),
    Way("async permit", _async_permit, ("breaker",), is_async=True, own_permit=True),
    Way("permit by hand", _permit_by_hand, ("breaker",), by_hand=True, own_permit=True),
    Way("allow and record", _allow_and_record, ("breaker",), by_hand=True, own_permit=True),
    Way("acquire and release", _acquire_and_release, ("bulkhead",)),
    Way("acquire_async and release", _acquire_async_and_release, ("bulkhead",), is_async=True),
    Way("attempts", _attempts, ("policy",), returns=True),
    Way("async attempts", _async_attempts, ("policy",), is_async=True, returns=True),
    Way("bare attempts", _bare_attempts, ("policy",), by_hand=True),
    Way("async bare attempts", _async_bare_attempts, ("policy",), is_async=True, by_hand=True),
)


def _through(pattern: str, by_hand: bool) -> dict[str, Way]:
    return {way.name: way for way in WAYS if pattern in way.guards and way.by_hand is by_hand}


BREAKER, BREAKER_BY_HAND = _through("breaker", by_hand=False), _through("breaker", by_hand=True)
BULKHEAD = _through("bulkhead", by_hand=False)
POLICY, POLICY_BY_HAND = _through("policy", by_hand=False), _through("policy", by_hand=True)
