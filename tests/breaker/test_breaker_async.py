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
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from unittest.mock import AsyncMock

import pytest
import trio
import trio.testing
from calls import fail, succeed
from clocks import Clock
from coroutines import Pause, run, settle
from failures import Down
from garbage import catch_up, collect
from needs import needs_closed_coroutines, needs_reference_counts
from patience import PATIENCE_S
from ways import BREAKER

from circuit_breaker import circuit_breaker
from circuit_breaker._breaker import open_blocks as _blocks
from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._common.words import CircuitState
from circuit_breaker.exceptions import CircuitOpenError

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
CALLS = int(os.environ.get("SHARED_CALLS", "10000"))

Make = Callable[..., CircuitBreaker]


def counts(breaker: CircuitBreaker) -> tuple[int, int, int]:
    """Return how many successes, failures and ignored outcomes there were."""
    stats = breaker.snapshot().stats
    return stats.success_count, stats.failure_count, stats.ignored_count


ASYNC_WAYS = {name: way.awaited for name, way in BREAKER.items() if way.is_async}
"""Every way to guard a coroutine function: `ASYNC_WAYS[name](breaker, work)` is the coroutine of one call."""


every_way = pytest.mark.parametrize("guarded", ASYNC_WAYS.values(), ids=ASYNC_WAYS)
every_riding_way = pytest.mark.parametrize(
    "guarded",
    [way for name, way in ASYNC_WAYS.items() if not BREAKER[name].own_permit],
    ids=[name for name in ASYNC_WAYS if not BREAKER[name].own_permit],
)


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


def test_call_async_of_a_function_that_returns_no_awaitable_is_an_error_and_gives_its_slot_back(probing: Make) -> None:
    breaker = probing()
    with pytest.raises(TypeError, match=r"can be awaited, but .* returned 0"):
        run(breaker.call_async(int))  # type: ignore[arg-type]
    assert (breaker.state, breaker.snapshot().probes_in_flight) == (HALF_OPEN, 0)
    assert counts(breaker) == (0, 0, 1)


@pytest.mark.parametrize("kinds", [(Exception,), TypeError, lambda error: True], ids=["all", "its type", "predicate"])
def test_call_async_of_a_function_that_returns_no_awaitable_opens_no_circuit(kinds: Any, make: Make) -> None:
    events: list[Any] = []
    breaker = make(failure_threshold=1, failure_exceptions=kinds, listeners=[events.append])
    with pytest.raises(TypeError, match="can be awaited") as raised:
        run(breaker.call_async(int))  # type: ignore[arg-type]
    assert breaker.is_closed
    assert counts(breaker) == (0, 0, 1)
    assert [event.error for event in events] == [raised.value]


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
def test_rejected_coroutine_function_is_not_touched_and_nothing_is_left_unawaited(guarded: Any, make: Make) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(CircuitOpenError):
            guarded(breaker, lambda: function(7)).send(None)
        with pytest.raises(CircuitOpenError):
            guarded(breaker, function).send(None)
        collect()
    assert warned == []
    assert breaker.stats.rejected_count == 2


@every_way
@needs_reference_counts
def test_rejection_that_was_caught_is_gone_without_the_garbage_collector(guarded: Any, make: Make) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    coroutine = guarded(breaker, function)
    collect()
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


def test_fallback_gets_the_rejection_and_the_arguments_and_is_awaited(make: Make) -> None:
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


def test_fallback_is_called_when_another_guard_of_the_same_breaker_inside_would_be_rejected_too(make: Make) -> None:
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
def test_cancelled_probe_gives_its_slot_back(guarded: Any, library: str, probing: Make, clock: Clock) -> None:
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
    """Go on after any exception that is thrown in, as cleanup code would."""
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
        innermost = _blocks.stack.get()
        assert innermost is None or innermost.owner is None
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
        catch_up()  # a stream inside is not closed, but dropped
        assert counts(breaker) == (0, 0, 1)
        self.whole(breaker, state)

    @needs_closed_coroutines
    def test_dropped_is_ignored_once(
        self, guarded: Any, steps: int, breaker: CircuitBreaker, state: CircuitState
    ) -> None:
        coroutine = guarded(breaker, suspended)
        advance(coroutine, steps)
        del coroutine
        collect()
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
def test_coroutine_that_is_never_started_takes_no_slot(guarded: Any, probing: Make) -> None:
    breaker = probing()
    coroutine = guarded(breaker, suspended)
    assert breaker.snapshot().probes_in_flight == 0
    coroutine.close()
    assert counts(breaker) == (0, 0, 0)


# Inside a probe


# Inside a probe: calls of the same breaker ride on it


@every_riding_way
def test_call_inside_a_probe_needs_no_slot_and_leaves_the_verdict_to_it(guarded: Any, probing: Make) -> None:
    breaker = probing()

    async def outer() -> None:
        assert await guarded(breaker, suspended) == "done"
        assert breaker.state is HALF_OPEN
        assert counts(breaker) == (1, 0, 0)
        assert breaker.snapshot().probes_in_flight == 1

    finish(guarded(breaker, outer))
    assert counts(breaker) == (2, 0, 0)
    assert breaker.is_closed


@every_riding_way
def test_failure_inside_a_probe_opens_the_circuit_at_once_whatever_becomes_of_the_probe(
    guarded: Any, probing: Make
) -> None:
    breaker = probing()

    async def broken() -> None:
        raise Down

    async def outer() -> None:
        with pytest.raises(Down):
            await guarded(breaker, broken)
        assert breaker.is_open

    finish(guarded(breaker, outer))
    assert counts(breaker) == (1, 1, 0)
    assert breaker.is_open


@every_riding_way
def test_cancellation_inside_a_probe_says_nothing(guarded: Any, probing: Make) -> None:
    breaker = probing()

    async def outer() -> None:
        with suppress(asyncio.CancelledError):
            await guarded(breaker, suspended)

    coroutine = guarded(breaker, outer)
    advance(coroutine, 1)
    with suppress(StopIteration):
        coroutine.throw(asyncio.CancelledError())
    assert counts(breaker) == (1, 0, 1)
    assert breaker.is_closed


@every_way
def test_tasks_and_threads_made_inside_a_probe_ride_while_it_is_out(guarded: Any, probing: Make) -> None:
    breaker = probing()

    async def outer() -> None:
        assert await asyncio.gather(*(breaker.call_async(function, 7) for _ in range(10))) == [7] * 10
        assert await asyncio.to_thread(breaker.call, lambda: 8) == 8  # type: ignore[arg-type]
        assert contextvars.copy_context().run(breaker.call, lambda: 9) == 9
        assert breaker.state is HALF_OPEN

    run(guarded(breaker, outer))
    assert counts(breaker) == (13, 0, 0)
    assert breaker.is_closed


@every_way
def test_task_made_before_the_probe_does_not_ride(guarded: Any, probing: Make) -> None:
    breaker = probing()

    async def main() -> None:
        inside = asyncio.Event()

        async def other() -> None:
            await inside.wait()
            with pytest.raises(CircuitOpenError):
                await breaker.call_async(function, 7)

        async def outer() -> None:
            inside.set()
            await task

        task = asyncio.create_task(other())
        await guarded(breaker, outer)

    run(main())
    assert breaker.is_closed


@every_way
def test_task_that_outlives_the_probe_asks_for_a_permit_of_its_own(guarded: Any, probing: Make) -> None:
    breaker = probing(success_threshold=2)

    async def main() -> None:
        over = asyncio.Event()

        async def late() -> None:
            await over.wait()
            async with breaker:
                assert breaker.snapshot().probes_in_flight == 1
                with pytest.raises(CircuitOpenError):
                    breaker.permit()

        async def outer() -> asyncio.Task[None]:
            return asyncio.create_task(late())

        task = await guarded(breaker, outer)
        assert breaker.state is HALF_OPEN
        over.set()
        await task

    run(main())
    assert breaker.is_closed


@every_way
def test_permit_and_allow_request_inside_a_probe_ask_for_one_of_their_own(guarded: Any, probing: Make) -> None:
    breaker = probing()

    async def outer() -> None:
        assert not breaker.allow_request()
        with pytest.raises(CircuitOpenError):
            breaker.permit()

    finish(guarded(breaker, outer))
    assert breaker.is_closed


@every_way
def test_probe_of_another_breaker_gives_nobody_a_ride(guarded: Any, probing: Make) -> None:
    one, other = probing(name="one"), probing(name="other")
    held = other.permit()

    async def outer() -> None:
        with pytest.raises(CircuitOpenError, match="'other'"):
            await guarded(other, suspended)

    finish(guarded(one, outer))
    held.success()
    assert one.is_closed
    assert other.is_closed


@every_way
def test_call_that_was_admitted_before_the_circuit_opened_gives_nobody_a_ride(
    guarded: Any, make: Make, clock: Clock
) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=1)

    async def outer() -> None:
        breaker.record_failure()
        clock.advance(30)
        held = breaker.permit()
        with pytest.raises(CircuitOpenError):
            await guarded(breaker, suspended)
        held.ignore()

    finish(guarded(breaker, outer))
    assert breaker.state is HALF_OPEN
    assert counts(breaker) == (1, 1, 1)


@every_riding_way
def test_lost_probe_gives_no_rides_for_ever(guarded: Any, probing: Make, clock: Clock) -> None:
    breaker = probing(half_open_timeout_s=5)

    def lose() -> None:
        breaker.__enter__()
        finish(guarded(breaker, suspended))
        assert breaker.state is HALF_OPEN
        clock.advance(5)
        finish(guarded(breaker, suspended))

    contextvars.copy_context().run(lose)
    assert breaker.is_closed


@every_riding_way
def test_call_inside_an_overdue_probe_rides_where_no_slot_is_left(guarded: Any, probing: Make, clock: Clock) -> None:
    breaker = probing(half_open_timeout_s=5)

    async def outer() -> None:
        clock.advance(5)
        held = breaker.permit()
        assert await guarded(breaker, suspended) == "done"
        assert breaker.state is HALF_OPEN
        held.ignore()

    finish(guarded(breaker, outer))
    assert breaker.is_closed


# Many tasks


@every_way
def test_of_hundreds_of_tasks_one_gets_the_only_permit(guarded: Any, probing: Make) -> None:
    breaker = probing()
    inside = 0

    async def work() -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        await settle()
        inside -= 1

    async def main() -> list[Any]:
        return await asyncio.gather(*(guarded(breaker, work) for _ in range(300)), return_exceptions=True)

    ended = run(main())
    assert ended.count(None) == 1
    assert sum(type(error) is CircuitOpenError for error in ended) == 299
    assert counts(breaker) == (1, 0, 0)
    assert breaker.is_closed


@every_way
def test_permit_passes_on_from_each_cancelled_task_to_the_next(guarded: Any, probing: Make) -> None:
    breaker = probing()

    async def main() -> None:
        for _ in range(100):
            first = asyncio.create_task(guarded(breaker, hang))
            second = asyncio.create_task(guarded(breaker, hang))
            await settle()
            assert type(second.exception()) is CircuitOpenError
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first

    run(main())
    assert counts(breaker) == (0, 0, 100)
    succeed(breaker)
    assert breaker.is_closed


def test_event_loops_and_threads_share_one_breaker_and_the_totals_are_exact(make: Make) -> None:
    breaker = make(failure_threshold=None, error_rate_threshold=1.0)
    start = threading.Barrier(8)

    @breaker
    async def work(number: int) -> None:
        await asyncio.sleep(0)
        if number % 2:
            raise Down

    def loop() -> None:
        async def calls(first: int) -> None:
            for number in range(first, CALLS, 10):
                with suppress(Down):
                    await work(number)

        async def main() -> None:
            await asyncio.gather(*(calls(first) for first in range(10)))

        start.wait(PATIENCE_S)
        asyncio.run(main())

    def thread() -> None:
        start.wait(PATIENCE_S)
        for number in range(CALLS):
            with suppress(Down), breaker:
                if number % 2:
                    raise Down

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(body) for body in (loop, thread) * 4]:
            future.result()
    assert counts(breaker) == (4 * CALLS, 4 * CALLS, 0)
    assert breaker.is_closed


# Blocks that are left elsewhere


def test_block_left_in_another_task_settles_the_probe_that_a_block_holds(probing: Make) -> None:
    breaker = probing(half_open_max_calls=2)

    async def main() -> None:
        permit = breaker.permit()
        await asyncio.create_task(breaker.__aenter__())
        assert breaker.snapshot().probes_in_flight == 2
        await breaker.__aexit__(None, None, None)
        assert breaker.is_closed
        permit.ignore()

    run(main())
    assert counts(breaker) == (1, 0, 1)


@pytest.mark.parametrize("error", [None, Down(), asyncio.CancelledError()], ids=["well", "failed", "cancelled"])
def test_block_left_in_another_task_of_a_closed_circuit_counts_once(error: BaseException | None, make: Make) -> None:
    breaker = make()

    async def main() -> None:
        await asyncio.create_task(breaker.__aenter__())
        await breaker.__aexit__(type(error) if error else None, error, None)

    run(main())
    assert sum(counts(breaker)) == 1
    assert breaker.stats.total_latency_ms == 0


def test_block_left_in_a_task_that_was_made_inside_it_keeps_its_latency(make: Make, clock: Clock) -> None:
    breaker = make()

    async def main() -> None:
        await breaker.__aenter__()
        clock.advance(1)
        await asyncio.create_task(breaker.__aexit__(None, None, None))

    run(main())
    assert counts(breaker) == (1, 0, 0)
    assert breaker.stats.total_latency_ms == 1000


def test_probe_settled_elsewhere_is_not_settled_again_where_its_block_ends(probing: Make) -> None:
    breaker = probing(half_open_max_calls=2, success_threshold=5)

    async def main() -> None:
        async with breaker:
            other = asyncio.create_task(breaker.__aexit__(None, None, None), context=contextvars.Context())
            await other
            assert breaker.snapshot().probes_in_flight == 0
            held = breaker.permit()
        assert breaker.snapshot().probes_in_flight == 1
        held.ignore()

    run(main())
    assert counts(breaker) == (2, 0, 1)


def test_blocks_of_two_tasks_that_overlap_in_every_order_settle_their_own_probes(probing: Make, clock: Clock) -> None:
    breaker = probing(half_open_max_calls=3, success_threshold=9)

    async def main() -> None:
        gates = [asyncio.Event() for _ in range(3)]

        async def work(gate: asyncio.Event) -> None:
            async with breaker:
                await gate.wait()

        tasks = [asyncio.create_task(work(gate)) for gate in gates]
        await settle()
        for left, number in ((2, 1), (1, 2), (0, 0)):
            clock.advance(1)
            gates[number].set()
            await tasks[number]
            assert breaker.snapshot().probes_in_flight == left

    run(main())
    assert counts(breaker) == (3, 0, 0)
    assert breaker.stats.total_latency_ms == 6000


def test_permits_left_in_other_tasks_settle_exactly_their_own(probing: Make, clock: Clock) -> None:
    breaker = probing(half_open_max_calls=2, success_threshold=9)

    async def main() -> None:
        first = breaker.permit()
        clock.advance(1)
        second = breaker.permit()
        await asyncio.create_task(first.__aenter__())
        await asyncio.create_task(second.__aenter__())
        clock.advance(1)
        await asyncio.create_task(first.__aexit__(None, None, None))
        assert breaker.stats.total_latency_ms == 2000
        await second.__aexit__(None, None, None)
        assert breaker.stats.total_latency_ms == 3000
        with pytest.raises(RuntimeError, match="reported already"):
            first.success()

    run(main())
    assert counts(breaker) == (2, 0, 0)
    assert breaker.snapshot().probes_in_flight == 0


# What contexts remember


@pytest.mark.parametrize("state", CircuitState)
@every_way
@needs_reference_counts
def test_context_and_tasks_made_inside_keep_no_breaker_alive(
    guarded: Any, state: CircuitState, make: Make, clock: Clock
) -> None:
    async def work() -> asyncio.Task[None]:
        return asyncio.create_task(hang())

    async def main() -> None:
        breaker = make(failure_threshold=1)
        if state is not CLOSED:
            breaker.record_failure()
        if state is HALF_OPEN:
            clock.advance(30)
        task = None
        with suppress(CircuitOpenError):
            task = await guarded(breaker, work)
        await settle()
        alive = weakref.ref(breaker)
        del breaker
        assert alive() is None
        if task is not None:
            task.cancel()

    collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


@every_way
@needs_reference_counts
def test_failed_call_keeps_no_breaker_alive(guarded: Any, make: Make) -> None:
    async def broken() -> None:
        await Pause()
        raise Down

    breaker = make()
    coroutine = guarded(breaker, broken)
    collect()
    gc.disable()
    try:
        with pytest.raises(Down):
            finish(coroutine)
        alive = weakref.ref(breaker)
        del breaker, coroutine
        assert alive() is None
    finally:
        gc.enable()


def test_task_that_starts_the_next_one_inside_its_block_for_ever_adds_nothing_to_the_context(make: Make) -> None:
    breaker = make()
    depths = []

    async def link(left: int) -> None:
        async with breaker:
            frame = _blocks.stack.get()
            assert frame is not None
            depths.append(frame.depth)
            task = asyncio.create_task(link(left - 1)) if left else None
        if task is not None:
            await asyncio.sleep(0)
            tasks.append(task)

    async def main() -> None:
        await link(50)
        for task in tasks:
            await task

    tasks: list[asyncio.Task[None]] = []
    run(main())
    assert set(depths) == {1}
    assert counts(breaker) == (51, 0, 0)


def test_blocks_that_overlap_for_ever_push_no_open_block_out_of_the_context(make: Make, clock: Clock) -> None:
    whole, sliding = make("whole"), [make(name) for name in "abc"]

    async def main() -> None:
        async with whole:
            clock.advance(1)
            for breaker in sliding:
                await breaker.__aenter__()
            for _ in range(_blocks.OPEN_BLOCKS_REMEMBERED):
                for breaker in sliding:
                    await breaker.__aexit__(None, None, None)
                    await breaker.__aenter__()
            for breaker in sliding:
                await breaker.__aexit__(None, None, None)

    run(main())
    assert whole.stats.total_latency_ms == 1000


def test_call_async_passes_every_keyword_on(make: Make) -> None:
    async def take(**given: int) -> dict[str, int]:
        return given

    breaker = make()
    assert asyncio.run(breaker.call_async(take, func=1, self=2)) == {"func": 1, "self": 2}
    assert breaker.stats.failure_count == 0
