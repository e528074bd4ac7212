"""Every way to call through a breaker, a bulkhead or a policy, made ready once and then called again and again.

`WAY(guard, body)` gives a function that makes one guarded call of body. Nothing here needs an event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

from circuit_breaker import BulkheadFullError, CircuitOpenError, circuit_breaker

Body: TypeAlias = Callable[[], Any]
Way: TypeAlias = Callable[[Any, Body], Body]


def driven(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError


def _with(guard: Any, body: Body) -> Body:
    def call() -> Any:
        with guard:
            return body()

    return call


def _generator(guard: Any, body: Body) -> Body:
    @guard
    def stream() -> Iterator[Any]:
        yield body()
        yield body()

    return lambda: list(stream())


def _async_with(guard: Any, body: Body) -> Body:
    async def call() -> Any:
        async with guard:
            return body()

    return lambda: driven(call())


def _async_decorator(guard: Any, body: Body) -> Body:
    @guard
    async def call() -> Any:
        return body()

    return lambda: driven(call())


def _call_async(guard: Any, body: Body) -> Body:
    async def call() -> Any:
        return body()

    return lambda: driven(guard.call_async(call))


def _async_generator(guard: Any, body: Body) -> Body:
    @guard
    async def stream() -> AsyncIterator[Any]:
        yield body()
        yield body()

    async def call() -> list[Any]:
        return [item async for item in stream()]

    return lambda: driven(call())


def _permit(breaker: Any, body: Body) -> Body:
    def call() -> Any:
        with breaker.permit():
            return body()

    return call


def _async_permit(breaker: Any, body: Body) -> Body:
    async def call() -> Any:
        async with breaker.permit():
            return body()

    return lambda: driven(call())


def _allow_and_record(breaker: Any, body: Body) -> Body:
    def call() -> Any:
        if not breaker.allow_request():
            raise CircuitOpenError("refused")
        try:
            value = body()
        except Exception:
            breaker.record_failure()
            raise
        breaker.record_success()
        return value

    return call


def _acquire_and_release(bulkhead: Any, body: Body) -> Body:
    def call() -> Any:
        if not bulkhead.acquire():
            raise BulkheadFullError("refused")
        try:
            return body()
        finally:
            bulkhead.release()

    return call


def _acquire_async_and_release(bulkhead: Any, body: Body) -> Body:
    async def call() -> Any:
        if not await bulkhead.acquire_async():
            raise BulkheadFullError("refused")
        try:
            return body()
        finally:
            bulkhead.release()

    return lambda: driven(call())


def _attempts(policy: Any, body: Body) -> Body:
    def call() -> Any:
        for attempt in policy.attempts():
            with attempt:
                return body()
        return None

    return call


def _async_attempts(policy: Any, body: Body) -> Body:
    async def call() -> Any:
        async for attempt in policy.attempts():
            with attempt:
                return body()
        return None

    return lambda: driven(call())


WHOLE: dict[str, Way] = {
    "decorator": lambda guard, body: guard(lambda: body()),
    "call": lambda guard, body: lambda: guard.call(body),
    "generator": _generator,
    "async decorator": _async_decorator,
    "call_async": _call_async,
    "async generator": _async_generator,
}
"""What all three have, and what takes and gives back by itself."""

BLOCKS: dict[str, Way] = {"with": _with, "async with": _async_with}

BREAKER: dict[str, Way] = {
    **WHOLE,
    **BLOCKS,
    "permit": _permit,
    "async permit": _async_permit,
    "allow and record": _allow_and_record,
}
BULKHEAD: dict[str, Way] = {
    **WHOLE,
    **BLOCKS,
    "acquire and release": _acquire_and_release,
    "acquire_async and release": _acquire_async_and_release,
}
POLICY: dict[str, Way] = {**WHOLE, "attempts": _attempts, "async attempts": _async_attempts}


# Those that differ from one above in little


def _method(guard: Any, body: Body) -> Body:
    class Client:
        @guard
        def call(self) -> Any:
            return body()

    return Client().call


def _async_method(guard: Any, body: Body) -> Body:
    class Client:
        @guard
        async def call(self) -> Any:
            return body()

    client = Client()
    return lambda: driven(client.call())


def with_a_fallback(way: Callable[[Any, Body], Any], breaker: Any, body: Body) -> Any:
    """Go a way, of these or of one call each, with a fallback that raises what it is told."""

    def refused(error: CircuitOpenError) -> Any:
        raise error

    return way(circuit_breaker(breaker=breaker, fallback=refused), body)


def _permit_and_failure(breaker: Any, body: Body) -> Body:
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


def _bare_attempts(policy: Any, body: Body) -> Body:
    def call() -> Any:
        for attempt in policy.attempts():
            try:
                return body()
            except Exception:
                if attempt == policy.max_retries:
                    raise
        return None

    return call


def _async_bare_attempts(policy: Any, body: Body) -> Body:
    async def call() -> Any:
        async for attempt in policy.attempts():
            try:
                return body()
            except Exception:
                if attempt == policy.max_retries:
                    raise
        return None

    return lambda: driven(call())


METHODS: dict[str, Way] = {"method": _method, "async method": _async_method}
FALLBACK: dict[str, Way] = {
    f"{name} with a fallback": partial(with_a_fallback, WHOLE[name])
    for name in ("decorator", "generator", "async decorator", "async generator")
}
EVERY_BREAKER: dict[str, Way] = {**BREAKER, **METHODS, **FALLBACK, "permit and failure": _permit_and_failure}
EVERY_BULKHEAD: dict[str, Way] = {**BULKHEAD, **METHODS}
EVERY_POLICY: dict[str, Way] = {
    **POLICY,
    **METHODS,
    "bare attempts": _bare_attempts,
    "async bare attempts": _async_bare_attempts,
}
