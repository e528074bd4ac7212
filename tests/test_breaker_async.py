"""The breaker in coroutines: of every shape, cancelled anywhere, in tasks and their contexts, on asyncio and trio."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import os
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from unittest.mock import AsyncMock

import pytest
import trio
import trio.testing
from conftest import PATIENCE_S, Clock, Down, fail, succeed

from circuit_breaker import _blocks
from circuit_breaker._breaker import CircuitBreaker
from circuit_breaker._decorators import circuit_breaker
from circuit_breaker._models import CircuitState
from circuit_breaker.exceptions import CircuitOpenError

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
CALLS = int(os.environ.get("SHARED_CALLS", "2000"))

Make = Callable[..., CircuitBreaker]
Work = Callable[[], Coroutine[Any, Any, Any]]


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, PATIENCE_S))


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def counts(breaker: CircuitBreaker) -> tuple[int, int, int]:
    """Return how many successes, failures and ignored outcomes there were."""
    stats = breaker.snapshot().stats
    return stats.success_count, stats.failure_count, stats.ignored_count


class Pause:
    """Suspends the coroutine that awaits it, once, whatever drives it."""

    def __await__(self) -> Generator[None, None, None]:
        yield


# Every way in which a coroutine is guarded: `ASYNC_WAYS[name](breaker, work)` is a coroutine.


async def _in_block(breaker: CircuitBreaker, work: Work) -> Any:
    async with breaker:
        return await work()


async def _in_plain_block(breaker: CircuitBreaker, work: Work) -> Any:
    with breaker:
        return await work()


async def _in_permit(breaker: CircuitBreaker, work: Work) -> Any:
    async with breaker.permit():
        return await work()


async def _in_decorator(breaker: CircuitBreaker, work: Work) -> Any:
    @breaker
    async def decorated() -> Any:
        return await work()

    return await decorated()


async def _in_stream(breaker: CircuitBreaker, work: Work) -> Any:
    @breaker
    async def stream() -> AsyncIterator[Any]:
        yield await work()

    return [item async for item in stream()][0]


ASYNC_WAYS: dict[str, Callable[[CircuitBreaker, Work], Coroutine[Any, Any, Any]]] = {
    "async with": _in_block,
    "with": _in_plain_block,
    "async permit": _in_permit,
    "async decorator": _in_decorator,
    "call_async": lambda breaker, work: breaker.call_async(work),
    "async generator": _in_stream,
}
every_way = pytest.mark.parametrize("guarded", ASYNC_WAYS.values(), ids=ASYNC_WAYS)


# Every shape of coroutine function


async def function(value: int, *, error: Exception | None = None) -> int:
    await Pause()
    if error is not None:
        raise error
    return value


class Client:
    async def __call__(self, value: int, *, error: Exception | None = None) -> int:
        return await function(value, error=error)

    async def method(self, value: int, *, error: Exception | None = None) -> int:
        return await function(value, error=error)

    @classmethod
    async def class_method(cls, value: int, *, error: Exception | None = None) -> int:
        return await function(value, error=error)

    @staticmethod
    async def static_method(value: int, *, error: Exception | None = None) -> int:
        return await function(value, error=error)


@functools.wraps(function)
async def wrapped(*args: Any, **kwargs: Any) -> int:
    return await function(*args, **kwargs)


SHAPES: dict[str, Any] = {
    "function": function,
    "partial": functools.partial(functools.partial(function), error=None),
    "object": Client(),
    "partial of an object": functools.partial(Client(), error=None),
    "bound method": Client().method,
    "partial of a method": functools.partial(Client().method),
    "class method": Client.class_method,
    "static method": Client.static_method,
    "wrapped by another decorator": wrapped,
    "mock": AsyncMock(side_effect=function),
}
every_shape = pytest.mark.parametrize("func", SHAPES.values(), ids=SHAPES)


class Later:
    """What can be awaited without being a coroutine."""

    def __await__(self) -> Generator[None, None, int]:
        yield
        return 7


AWAITABLES: dict[str, Any] = {
    "lambda": lambda: function(7),
    "object with __await__": Later,
    "future": lambda: asyncio.ensure_future(function(7)),
    "plain wrapper": functools.wraps(function)(lambda: function(7)),
}


@every_shape
def test_coroutine_function_of_any_shape_is_guarded_until_it_has_been_awaited(func: Any, make: Make) -> None:
    breaker = make()
    decorated = breaker(func)

    async def main() -> None:
        coroutine = decorated(7)
        assert counts(breaker) == (0, 0, 0)
        assert await coroutine == 7
        assert counts(breaker) == (1, 0, 0)
        with pytest.raises(Down):
            await decorated(7, error=Down())
        assert counts(breaker) == (1, 1, 0)

    assert inspect.iscoroutinefunction(decorated)
    assert decorated.circuit_breaker is breaker
    run(main())


@every_shape
def test_call_async_takes_a_coroutine_function_of_any_shape(func: Any, make: Make) -> None:
    breaker = make()

    async def main() -> None:
        assert await breaker.call_async(func, 7) == 7
        with pytest.raises(Down):
            await breaker.call_async(func, 7, error=Down())

    run(main())
    assert counts(breaker) == (1, 1, 0)


@every_shape
def test_call_of_a_coroutine_function_of_any_shape_is_a_type_error_before_admission(func: Any, probing: Make) -> None:
    breaker = probing()
    with pytest.raises(TypeError, match="call_async"):
        breaker.call(func, 7)
    assert counts(breaker) == (0, 0, 0)
    succeed(breaker)
    assert breaker.is_closed


@pytest.mark.parametrize("func", AWAITABLES.values(), ids=AWAITABLES)
def test_call_async_takes_whatever_returns_an_awaitable(func: Any, make: Make) -> None:
    breaker = make()
    assert run(breaker.call_async(func)) == 7
    assert counts(breaker) == (1, 0, 0)


def test_call_async_of_a_function_that_returns_no_awaitable_says_so_and_keeps_no_permit(probing: Make) -> None:
    breaker = probing()
    with pytest.raises(TypeError, match="can be awaited; .* returned 0"):
        run(breaker.call_async(int))  # type: ignore[arg-type]
    assert breaker.snapshot().probes_in_flight == 0


@pytest.mark.parametrize("wrong", [3, None, "f"])
def test_call_async_of_what_cannot_be_called_is_a_type_error_before_admission(wrong: Any, make: Make) -> None:
    breaker = make()
    with pytest.raises(TypeError, match="func"):
        run(breaker.call_async(wrong))
    assert counts(breaker) == (0, 0, 0)


@pytest.mark.parametrize("name", ["call", "call_async"])
def test_coroutine_object_in_place_of_a_function_is_a_type_error_and_is_closed(name: str, make: Make) -> None:
    breaker = make()
    coroutine: Any = function(7)
    with pytest.raises(TypeError, match="coroutine object"):
        if name == "call":
            breaker.call(coroutine)
        else:
            run(breaker.call_async(coroutine))
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert counts(breaker) == (0, 0, 0)


def test_methods_of_all_kinds_are_guarded_and_share_the_breaker_of_their_class(make: Make) -> None:
    breaker = make()

    class Decorated:
        @breaker
        async def method(self, value: int) -> tuple[object, int]:
            return self, value

        @breaker
        @classmethod
        async def outside_class(cls, value: int) -> tuple[object, int]:
            return cls, value

        @classmethod
        @breaker
        async def inside_class(cls, value: int) -> tuple[object, int]:
            return cls, value

        @breaker
        @staticmethod
        async def outside_static(value: int) -> int:
            return value

        @staticmethod
        @breaker
        async def inside_static(value: int) -> int:
            return value

    async def main() -> None:
        one = Decorated()
        assert await one.method(1) == (one, 1)
        for owner in (one, Decorated):
            assert await owner.outside_class(2) == await owner.inside_class(2) == (Decorated, 2)
            assert await owner.outside_static(3) == await owner.inside_static(3) == 3

    run(main())
    assert counts(breaker) == (9, 0, 0)
    assert Decorated.outside_class.circuit_breaker is Decorated.inside_static.circuit_breaker is breaker


@every_way
def test_success_and_failure_are_passed_on_and_counted_once(guarded: Any, make: Make, clock: Clock) -> None:
    breaker = make()

    async def work() -> str:
        await Pause()
        clock.advance(0.25)
        return "done"

    async def broken() -> str:
        await work()
        raise Down

    assert run(guarded(breaker, work)) == "done"
    assert counts(breaker) == (1, 0, 0)
    with pytest.raises(Down):
        run(guarded(breaker, broken))
    assert counts(breaker) == (1, 1, 0)
    assert breaker.stats.total_latency_ms == 500


@every_way
def test_failures_open_the_circuit_and_probes_close_it_again(guarded: Any, make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=3, success_threshold=2, reset_timeout_s=10)

    async def work() -> str:
        return "done"

    async def broken() -> str:
        raise Down

    for _ in range(3):
        with pytest.raises(Down):
            run(guarded(breaker, broken))
    assert breaker.is_open
    with pytest.raises(CircuitOpenError):
        run(guarded(breaker, work))
    clock.advance(10)
    assert run(guarded(breaker, work)) == "done"
    assert breaker.state is HALF_OPEN
    assert run(guarded(breaker, work)) == "done"
    assert breaker.is_closed


@every_way
def test_predicate_that_raises_ignores_the_probe_and_its_error_reaches_the_caller(guarded: Any, probing: Make) -> None:
    def predicate(error: BaseException) -> bool:
        raise LookupError

    breaker = probing(failure_exceptions=predicate)

    async def broken() -> None:
        await Pause()
        raise Down

    with pytest.raises(LookupError) as raised:
        run(guarded(breaker, broken))
    assert isinstance(raised.value.__context__, Down)
    assert counts(breaker) == (0, 0, 1)
    assert breaker.snapshot().probes_in_flight == 0


# Refused


@every_way
def test_refused_coroutine_function_is_not_touched_and_nothing_is_left_unawaited(guarded: Any, make: Make) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(CircuitOpenError):
            guarded(breaker, lambda: function(7)).send(None)
        with pytest.raises(CircuitOpenError):
            guarded(breaker, function).send(None)
        gc.collect()
    assert warned == []
    assert breaker.stats.rejected_count == 2


@every_way
def test_refusal_that_was_caught_is_gone_without_the_garbage_collector(guarded: Any, make: Make) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    coroutine = guarded(breaker, function)
    gc.collect()
    gc.disable()
    try:
        try:
            coroutine.send(None)
        except CircuitOpenError as error:
            refusal = weakref.ref(error)
        assert refusal() is None
    finally:
        gc.enable()


# Fallback


def test_fallback_gets_the_refusal_and_the_arguments_and_is_awaited(make: Make) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)

    async def fallback(error: CircuitOpenError, value: int, *, key: str) -> tuple[object, ...]:
        await Pause()
        return error.circuit_name, value, key

    @circuit_breaker(breaker=breaker, fallback=fallback)
    async def work(value: int, *, key: str) -> tuple[object, ...]:
        raise AssertionError

    assert run(work(7, key="k")) == ("api", 7, "k")
    assert counts(breaker) == (0, 1, 0)
    assert breaker.stats.rejected_count == 1


def test_fallback_of_a_coroutine_function_may_be_a_plain_function(make: Make) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)

    @circuit_breaker(breaker=breaker, fallback=lambda error: [error.circuit_name])
    async def work() -> list[str]:
        raise AssertionError

    assert run(work()) == ["api"]


@pytest.mark.parametrize("error", [Down(), CircuitOpenError("of another", "other")], ids=["failure", "refusal"])
@pytest.mark.parametrize("state", [CLOSED, HALF_OPEN])
def test_fallback_is_not_called_for_an_error_out_of_the_function(
    error: Exception, state: CircuitState, make: Make, probing: Make
) -> None:
    breaker = make() if state is CLOSED else probing()

    @circuit_breaker(breaker=breaker, fallback=lambda error: "fallback")
    async def work() -> str:
        raise error

    with pytest.raises(type(error)) as raised:
        run(work())
    assert raised.value is error
    assert breaker.stats.rejected_count == 0


def test_fallback_is_called_when_another_guard_of_the_same_breaker_inside_would_be_refused_too(make: Make) -> None:
    breaker = make(failure_threshold=1)

    @circuit_breaker(breaker=breaker, fallback=lambda error: "inner")
    async def inner() -> str:
        raise AssertionError

    @circuit_breaker(breaker=breaker, fallback=lambda error: "outer")
    async def outer() -> str:
        breaker.record_failure()
        return await inner()

    assert run(outer()) == "inner"
    assert run(outer()) == "outer"


def test_error_of_the_fallback_reaches_the_caller_and_is_not_counted(make: Make) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)

    async def fallback(error: CircuitOpenError) -> None:
        raise LookupError

    @circuit_breaker(breaker=breaker, fallback=fallback)
    async def work() -> None:
        raise AssertionError

    with pytest.raises(LookupError):
        run(work())
    assert counts(breaker) == (0, 1, 0)


# Cancelled


async def cancel_in_asyncio(main: Coroutine[Any, Any, Any], before: Callable[[], None]) -> None:
    task = asyncio.create_task(main)
    await settle()
    before()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_in_trio(main: Coroutine[Any, Any, Any], before: Callable[[], None]) -> None:
    scope = trio.CancelScope()

    async def in_scope() -> None:
        with scope:
            await main
        assert scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_scope)
        await trio.testing.wait_all_tasks_blocked()
        before()
        scope.cancel()


def cancelled(library: str, main: Coroutine[Any, Any, Any], before: Callable[[], None]) -> None:
    """Run main until it hangs, do what is to be done before, and cancel it."""
    if library == "asyncio":
        asyncio.run(cancel_in_asyncio(main, before))
    else:
        trio.run(cancel_in_trio, main, before)


async def hang() -> None:
    if inspect.iscoroutinefunction(trio.sleep_forever) and trio.lowlevel.in_trio_task():
        await trio.sleep_forever()
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("library", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("lasts_s", "outcome", "state"), [(1.99, (0, 0, 1), CLOSED), (2, (0, 1, 0), OPEN)], ids=["quickly", "after a hang"]
)
@every_way
def test_call_cancelled_quickly_is_ignored_and_one_that_hung_is_a_failure(
    guarded: Any,
    lasts_s: float,
    outcome: tuple[int, int, int],
    state: CircuitState,
    library: str,
    make: Make,
    clock: Clock,
) -> None:
    breaker = make(failure_threshold=1, slow_call_duration_s=2)
    cancelled(library, guarded(breaker, hang), lambda: clock.advance(lasts_s))
    assert counts(breaker) == outcome
    assert breaker.state is state


@pytest.mark.parametrize("library", ["asyncio", "trio"])
@every_way
def test_cancelled_probe_gives_its_permit_back(guarded: Any, library: str, probing: Make, clock: Clock) -> None:
    breaker = probing()

    def before() -> None:
        assert breaker.snapshot().probes_in_flight == 1
        clock.advance(5)

    cancelled(library, guarded(breaker, hang), before)
    assert breaker.snapshot().probes_in_flight == 0
    assert breaker.state is HALF_OPEN
    succeed(breaker)
    assert breaker.is_closed


@every_way
def test_probe_cancelled_after_a_hang_opens_the_circuit_again(guarded: Any, probing: Make, clock: Clock) -> None:
    breaker = probing(slow_call_duration_s=2)
    cancelled("asyncio", guarded(breaker, hang), lambda: clock.advance(2))
    assert counts(breaker) == (0, 1, 0)
    assert breaker.is_open


AWAITS = 3


async def suspended() -> str:
    for _ in range(AWAITS):
        await Pause()
    return "done"


async def undeterred() -> str:
    """Go on after whatever is thrown in, as a cleanup would."""
    for _ in range(AWAITS):
        with suppress(asyncio.CancelledError):
            await Pause()
    return "done"


async def cleaning() -> str:
    try:
        return await suspended()
    finally:
        await Pause()


def advance(coroutine: Coroutine[Any, Any, Any], steps: int) -> None:
    for _ in range(steps):
        coroutine.send(None)


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Drive it to its end; return its value."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value


@pytest.mark.parametrize("steps", range(1, AWAITS + 1))
@pytest.mark.parametrize("state", [CLOSED, HALF_OPEN])
@every_way
class TestAtEveryAwait:
    """A coroutine that is driven by hand and stopped at each of its suspensions in turn."""

    @pytest.fixture
    def breaker(self, state: CircuitState, make: Make, probing: Make) -> CircuitBreaker:
        return make(failure_threshold=1) if state is CLOSED else probing()

    def whole(self, breaker: CircuitBreaker, state: CircuitState) -> None:
        """No permit is out, and the breaker does what it should."""
        assert breaker.state is state
        assert breaker.snapshot().probes_in_flight == 0
        assert _blocks.stack.get() is None
        succeed(breaker)
        assert breaker.is_closed
        fail(breaker)
        assert breaker.is_open

    def test_cancelled_is_ignored_once(
        self, guarded: Any, steps: int, breaker: CircuitBreaker, state: CircuitState
    ) -> None:
        coroutine = guarded(breaker, suspended)
        advance(coroutine, steps)
        with pytest.raises(asyncio.CancelledError):
            coroutine.throw(asyncio.CancelledError())
        assert counts(breaker) == (0, 0, 1)
        self.whole(breaker, state)

    def test_cancelled_and_going_on_is_a_success_once(
        self, guarded: Any, steps: int, breaker: CircuitBreaker, state: CircuitState
    ) -> None:
        coroutine = guarded(breaker, undeterred)
        advance(coroutine, steps)
        with suppress(StopIteration):
            coroutine.throw(asyncio.CancelledError())
            finish(coroutine)
        assert counts(breaker) == (1, 0, 0)
        assert breaker.is_closed
        self.whole(breaker, CLOSED)

    def test_cancelled_twice_is_ignored_once(
        self, guarded: Any, steps: int, breaker: CircuitBreaker, state: CircuitState
    ) -> None:
        coroutine = guarded(breaker, cleaning)
        advance(coroutine, steps)
        coroutine.throw(asyncio.CancelledError())
        assert counts(breaker) == (0, 0, 0)
        with pytest.raises(asyncio.CancelledError):
            coroutine.throw(asyncio.CancelledError())
        assert counts(breaker) == (0, 0, 1)
        self.whole(breaker, state)

    def test_closed_is_ignored_once(
        self, guarded: Any, steps: int, breaker: CircuitBreaker, state: CircuitState
    ) -> None:
        coroutine = guarded(breaker, suspended)
        advance(coroutine, steps)
        coroutine.close()
        assert counts(breaker) == (0, 0, 1)
        self.whole(breaker, state)

    def test_dropped_is_ignored_once(
        self, guarded: Any, steps: int, breaker: CircuitBreaker, state: CircuitState
    ) -> None:
        coroutine = guarded(breaker, suspended)
        advance(coroutine, steps)
        del coroutine
        gc.collect()
        assert counts(breaker) == (0, 0, 1)
        self.whole(breaker, state)

    def test_error_thrown_in_is_a_failure_once(
        self, guarded: Any, steps: int, breaker: CircuitBreaker, state: CircuitState
    ) -> None:
        coroutine = guarded(breaker, suspended)
        advance(coroutine, steps)
        with pytest.raises(Down):
            coroutine.throw(Down())
        assert counts(breaker) == (0, 1, 0)
        assert breaker.is_open


@every_way
def test_coroutine_that_is_never_started_takes_no_permit(guarded: Any, probing: Make) -> None:
    breaker = probing()
    coroutine = guarded(breaker, suspended)
    assert breaker.snapshot().probes_in_flight == 0
    coroutine.close()
    assert counts(breaker) == (0, 0, 0)


# Inside a probe
