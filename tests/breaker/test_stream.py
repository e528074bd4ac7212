"""Generators and async generators under a breaker: one call from the first item to the end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from calls import fail, succeed
from clocks import Clock
from coroutines import Pause
from failures import Down
from garbage import catch_up, collect
from needs import needs_reference_counts
from patience import PATIENCE_S

from circuit_breaker import circuit_breaker
from circuit_breaker._breaker import open_blocks as _blocks
from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common.events import CallFinished
from circuit_breaker._common.words import CircuitMode, CircuitState, Outcome
from circuit_breaker.exceptions import CircuitOpenError

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

Make = Callable[..., CircuitBreaker]
Body = Callable[..., Iterator[Any]]


class Stop(BaseException):
    """What no `except Exception` holds back."""


def counts(breaker: CircuitBreaker) -> tuple[int, int, int]:
    """Return how many successes, failures and ignored outcomes there were."""
    stats = breaker.snapshot().stats
    return stats.success_count, stats.failure_count, stats.ignored_count


def probes(breaker: CircuitBreaker) -> int:
    return breaker.snapshot().probes_in_flight


# Both kinds of stream, told with the same words


class Ended(Exception):
    """The stream is exhausted."""

    value: object = None


class Streams:
    """Generators: how to make them of a body, and how to drive them."""

    def of(self, body: Body) -> Callable[..., Any]:
        return body

    def send(self, stream: Any, value: Any = None) -> Any:
        try:
            return stream.send(value)
        except StopIteration as stop:
            raise Ended from stop

    def throw(self, stream: Any, error: BaseException) -> Any:
        try:
            return stream.throw(error)
        except StopIteration as stop:
            raise Ended from stop

    def close(self, stream: Any) -> None:
        stream.close()

    def items(self, stream: Any) -> list[Any]:
        """Ask for all that are left."""
        found = []
        with suppress(Ended):
            while True:
                found.append(self.send(stream))
        return found


class AsyncStreams(Streams):
    """Async generators, driven by hand."""

    def of(self, body: Body) -> Callable[..., Any]:
        async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            inner: Any = body(*args, **kwargs)
            step, said = inner.send, None
            while True:
                await Pause()
                try:
                    item = step(said)
                except StopIteration:
                    return
                try:
                    step, said = inner.send, (yield item)
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as error:
                    step, said = inner.throw, error

        return stream

    def send(self, stream: Any, value: Any = None) -> Any:
        return self._driven(stream.asend(value))

    def throw(self, stream: Any, error: BaseException) -> Any:
        return self._driven(stream.athrow(error))

    def close(self, stream: Any) -> None:
        self._driven(stream.aclose())

    def _driven(self, coroutine: Any) -> Any:
        try:
            while True:
                coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        except StopAsyncIteration as stop:
            raise Ended from stop


@pytest.fixture(params=[Streams, AsyncStreams], ids=["generator", "async generator"])
def kind(request: pytest.FixtureRequest) -> Streams:
    return request.param()


@pytest.fixture(params=[CLOSED, HALF_OPEN], ids=["closed", "half-open"])
def breaker(request: pytest.FixtureRequest, make: Make, probing: Make) -> CircuitBreaker:
    """Closed, or half-open with one permit; a success closes it, and a failure opens it."""
    return make(failure_threshold=1) if request.param is CLOSED else probing()


def three() -> Iterator[int]:
    yield from (1, 2, 3)


def whole(breaker: CircuitBreaker) -> None:
    """No permit is out, nothing is left in the context, and the breaker does what it should."""
    assert probes(breaker) == 0
    assert _blocks.stack.get() is None
    succeed(breaker)
    assert breaker.is_closed
    fail(breaker)
    assert breaker.is_open


# From the first item to the end


def test_nothing_is_asked_or_counted_before_the_first_item(kind: Streams, make: Make) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    stream = breaker(kind.of(three))()
    assert breaker.stats.rejected_count == 0
    with pytest.raises(CircuitOpenError):
        kind.send(stream)
    assert breaker.stats.rejected_count == 1
    assert kind.items(stream) == []


def test_stream_is_one_success_when_it_is_exhausted(kind: Streams, breaker: CircuitBreaker) -> None:
    stream = breaker(kind.of(three))()
    for item in (1, 2, 3):
        assert kind.send(stream) == item
        assert counts(breaker) == (0, 0, 0)
    with pytest.raises(Ended):
        kind.send(stream)
    assert counts(breaker) == (1, 0, 0)
    assert breaker.is_closed
    assert kind.items(stream) == []
    assert counts(breaker) == (1, 0, 0)


def test_empty_stream_is_a_success(kind: Streams, breaker: CircuitBreaker) -> None:
    def body() -> Iterator[int]:
        yield from ()

    assert kind.items(breaker(kind.of(body))()) == []
    assert counts(breaker) == (1, 0, 0)


def test_probe_takes_the_only_permit_from_the_first_item_to_the_last(kind: Streams, probing: Make) -> None:
    breaker = probing()
    stream = breaker(kind.of(three))()
    assert probes(breaker) == 0
    kind.send(stream)
    assert probes(breaker) == 1
    with pytest.raises(CircuitOpenError):
        breaker.call(int)
    other = breaker(kind.of(three))()
    with pytest.raises(CircuitOpenError):
        kind.send(other)
    kind.items(stream)
    assert breaker.is_closed


def test_two_iterations_of_one_function_are_two_calls(kind: Streams, probing: Make) -> None:
    breaker = probing(success_threshold=2, half_open_max_calls=2)
    function = breaker(kind.of(three))
    first, second = function(), function()
    assert [kind.send(stream) for stream in (first, second, second, first, first)] == [1, 1, 2, 2, 3]
    assert probes(breaker) == 2
    kind.items(second)
    assert probes(breaker) == 1
    kind.items(first)
    assert counts(breaker) == (2, 0, 0)
    assert breaker.is_closed


def echo() -> Iterator[Any]:
    said: Any = "first"
    while said != "stop":
        try:
            said = yield said
        except KeyError as error:
            said = error
    return "value"


def test_what_is_sent_and_thrown_passes_through(kind: Streams, breaker: CircuitBreaker) -> None:
    stream = breaker(kind.of(echo))()
    assert kind.send(stream) == "first"
    assert kind.send(stream, "second") == "second"
    error = KeyError()
    assert kind.throw(stream, error) is error
    with pytest.raises(Ended):
        kind.send(stream, "stop")
    assert counts(breaker) == (1, 0, 0)


def test_return_value_of_a_generator_is_kept(breaker: CircuitBreaker) -> None:
    def outer() -> Iterator[Any]:
        return (yield from breaker(echo)())

    stream: Any = outer()
    next(stream)
    with pytest.raises(StopIteration) as stop:
        stream.send("stop")
    assert stop.value.value == "value"


def test_error_thrown_in_that_comes_back_is_a_failure(kind: Streams, breaker: CircuitBreaker) -> None:
    stream = breaker(kind.of(three))()
    kind.send(stream)
    with pytest.raises(Down):
        kind.throw(stream, Down())
    assert counts(breaker) == (0, 1, 0)
    assert breaker.is_open


@pytest.mark.parametrize("items", range(3))
def test_error_after_any_number_of_items_is_a_failure(items: int, kind: Streams, breaker: CircuitBreaker) -> None:
    def body() -> Iterator[int]:
        yield from range(items)
        raise Down

    stream = breaker(kind.of(body))()
    for item in range(items):
        assert kind.send(stream) == item
    with pytest.raises(Down):
        kind.send(stream)
    assert counts(breaker) == (0, 1, 0)
    assert breaker.is_open
    assert kind.items(stream) == []


def test_ignored_error_gives_the_slot_back(kind: Streams, probing: Make) -> None:
    breaker = probing(ignored_exceptions=Down)

    def body() -> Iterator[int]:
        yield 1
        raise Down

    stream = breaker(kind.of(body))()
    kind.send(stream)
    with pytest.raises(Down):
        kind.send(stream)
    assert counts(breaker) == (0, 0, 1)
    assert probes(breaker) == 0
    assert breaker.state is HALF_OPEN


def test_predicate_that_raises_ignores_the_stream_and_reaches_the_caller(kind: Streams, probing: Make) -> None:
    def predicate(error: BaseException) -> bool:
        raise LookupError

    breaker = probing(failure_exceptions=predicate)
    stream = breaker(kind.of(three))()
    kind.send(stream)
    with pytest.raises(LookupError) as raised:
        kind.throw(stream, Down())
    assert isinstance(raised.value.__context__, Down)
    assert counts(breaker) == (0, 0, 1)
    assert probes(breaker) == 0


def test_stream_from_before_the_trip_counts_in_the_totals_only(kind: Streams, make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1)
    good, bad, dropped = (breaker(kind.of(three))() for _ in range(3))
    for stream in (good, bad, dropped):
        kind.send(stream)
    fail(breaker)
    assert kind.items(good) == [2, 3]
    assert breaker.is_open
    clock.advance(30)
    assert breaker.state is HALF_OPEN
    with pytest.raises(Down):
        kind.throw(bad, Down())
    kind.close(dropped)
    assert breaker.state is HALF_OPEN
    assert counts(breaker) == (2, 2, 0)


# The consumer stops early


def consume_some(kind: Streams, stream: Any) -> None:
    for item in (1, 2):
        assert kind.send(stream) == item


def test_stream_closed_after_an_item_is_a_success_and_its_body_closed(kind: Streams, breaker: CircuitBreaker) -> None:
    closed = []

    def body() -> Iterator[int]:
        try:
            yield from three()
        finally:
            closed.append(counts(breaker))

    stream = breaker(kind.of(body))()
    consume_some(kind, stream)
    kind.close(stream)
    assert closed == [(0, 0, 0)], "closed once, before it is settled"
    assert counts(breaker) == (1, 0, 0)
    kind.close(stream)
    assert counts(breaker) == (1, 0, 0)
    whole(breaker)


def test_stream_dropped_after_an_item_is_a_success(breaker: CircuitBreaker) -> None:
    for _ in breaker(three)():
        break
    catch_up()
    assert counts(breaker) == (1, 0, 0)
    whole(breaker)


def test_stream_that_the_garbage_collector_finds_in_a_circle_is_a_success(breaker: CircuitBreaker) -> None:
    gc.disable()
    try:
        stream = breaker(three)()
        next(stream)
        circle: list[Any] = [stream]
        circle.append(circle)
        del stream, circle
        assert counts(breaker) == (0, 0, 0)
        collect()
        assert counts(breaker) == (1, 0, 0)
    finally:
        gc.enable()
    whole(breaker)


@pytest.mark.parametrize("how", ["dropped", "circle", "loop ends"])
def test_async_stream_forgotten_after_an_item_is_a_success(how: str, breaker: CircuitBreaker) -> None:
    closed = []

    @breaker
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main() -> None:
        nonlocal kept
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        stream: Any = numbers()
        await anext(stream)
        if how == "circle":
            circle: list[Any] = [stream]
            circle.append(circle)
            del circle
        elif how == "loop ends":
            kept = stream
            return
        del stream
        collect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert counts(breaker) == (1, 0, 0)

    kept: Any = None
    complaints: list[Any] = []
    asyncio.run(main())
    assert complaints == []
    assert closed == [True]
    assert counts(breaker) == (1, 0, 0)
    whole(breaker)


def test_async_stream_forgotten_after_an_item_under_trio_is_a_success(breaker: CircuitBreaker) -> None:
    @breaker
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def main() -> None:
        stream: Any = numbers()
        await anext(stream)
        with pytest.warns(ResourceWarning, match="garbage collected before it had been exhausted"):
            del stream
            collect()
            await trio.testing.wait_all_tasks_blocked()

    trio.run(main)
    assert counts(breaker) == (1, 0, 0)
    whole(breaker)


def test_streams_that_their_consumers_leave_after_an_item_close_the_circuit(kind: Streams, probing: Make) -> None:
    breaker = probing(success_threshold=3)
    for _ in range(3):
        assert breaker.state is HALF_OPEN
        stream = breaker(kind.of(three))()
        kind.send(stream)
        kind.close(stream)
    assert breaker.is_closed


def test_a_thousand_streams_left_after_an_item_end_a_streak(kind: Streams, make: Make) -> None:
    breaker = make(failure_threshold=5)
    fail(breaker, 4)
    for _ in range(1_000):
        stream = breaker(kind.of(three))()
        kind.send(stream)
        kind.close(stream)
    assert breaker.stats.consecutive_failures == 0
    fail(breaker, 4)
    assert breaker.is_closed
    assert counts(breaker) == (1_000, 8, 0)


def test_stream_that_is_never_started_takes_nothing(kind: Streams, breaker: CircuitBreaker) -> None:
    stream = breaker(kind.of(three))()
    kind.close(stream)
    del stream
    assert counts(breaker) == (0, 0, 0)
    whole(breaker)


def test_body_that_fails_while_it_is_closed_is_a_failure(kind: Streams, breaker: CircuitBreaker) -> None:
    def body() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise Down

    stream = breaker(kind.of(body))()
    kind.send(stream)
    with pytest.raises(Down):
        kind.close(stream)
    assert counts(breaker) == (0, 1, 0)
    assert breaker.is_open


def test_stream_begun_in_one_thread_and_ended_in_another_settles_its_own_probe(
    kind: Streams, breaker: CircuitBreaker
) -> None:
    stream = breaker(kind.of(three))()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(kind.send, stream).result(PATIENCE_S) == 1
        assert kind.send(stream) == 2
        assert pool.submit(kind.items, stream).result(PATIENCE_S) == [3]
        assert pool.submit(_blocks.stack.get).result(PATIENCE_S) is None
    assert counts(breaker) == (1, 0, 0)
    whole(breaker)


# Latency


def waiting(clock: Clock, *waits_s: float) -> Body:
    def body() -> Iterator[int]:
        for number, wait_s in enumerate(waits_s):
            clock.advance(wait_s)
            yield number

    return body


def test_latency_is_the_time_to_the_first_item(kind: Streams, breaker: CircuitBreaker, clock: Clock) -> None:
    stream = breaker(kind.of(waiting(clock, 0.5, 10)))()
    clock.advance(100)
    kind.send(stream)
    clock.advance(100)
    kind.items(stream)
    assert breaker.stats.total_latency_ms == 500


def test_latency_of_a_failure_in_the_middle_is_that_of_the_first_item(
    kind: Streams, breaker: CircuitBreaker, clock: Clock
) -> None:
    stream = breaker(kind.of(waiting(clock, 0.5, 10)))()
    kind.send(stream)
    with pytest.raises(Down):
        kind.throw(stream, Down())
    assert breaker.stats.total_latency_ms == 500


@pytest.mark.parametrize(("waits_s", "slow"), [((2, 0), 1), ((1.99, 50), 0)], ids=["first item", "later item"])
def test_stream_is_slow_if_its_first_item_is(
    waits_s: tuple[float, ...], slow: int, kind: Streams, make: Make, clock: Clock
) -> None:
    breaker = make(slow_call_duration_s=2)
    kind.items(breaker(kind.of(waiting(clock, *waits_s)))())
    assert breaker.stats.slow_count == slow


def test_probe_with_a_slow_first_item_opens_the_circuit_again_at_its_end(
    kind: Streams, probing: Make, clock: Clock
) -> None:
    breaker = probing(slow_call_duration_s=2, slow_call_rate_threshold=1.0)
    stream = breaker(kind.of(waiting(clock, 2, 0)))()
    kind.send(stream)
    assert breaker.state is HALF_OPEN
    kind.items(stream)
    assert breaker.is_open


# Cancelled while it waits for an item


@pytest.mark.parametrize("library", ["asyncio", "trio"])
@pytest.mark.parametrize("item", [0, 1, 2])
@pytest.mark.parametrize(("lasts_s", "hung"), [(1.99, False), (2, True)], ids=["quickly", "after a hang"])
def test_stream_cancelled_while_it_waits_is_ignored_unless_it_hung(
    library: str, item: int, lasts_s: float, hung: bool, make: Make, clock: Clock
) -> None:
    breaker = make(failure_threshold=1, slow_call_duration_s=2)

    @breaker
    async def stream() -> AsyncIterator[int]:
        for number in range(item):
            yield number
        if library == "asyncio":
            await asyncio.get_running_loop().create_future()
        await trio.sleep_forever()

    async def consume() -> None:
        async for _ in stream():
            clock.advance(60)  # the time of the consumer is its own

    async def in_asyncio() -> None:
        task = asyncio.create_task(consume())
        for _ in range(5):
            await asyncio.sleep(0)
        clock.advance(lasts_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            await trio.testing.wait_all_tasks_blocked()
            clock.advance(lasts_s)
            nursery.cancel_scope.cancel()

    asyncio.run(in_asyncio()) if library == "asyncio" else trio.run(in_trio)
    assert counts(breaker) == ((0, 1, 0) if hung else (0, 0, 1))
    assert breaker.is_open is hung


def test_stream_whose_consumer_is_cancelled_between_items_is_a_success_however_long_it_took(
    make: Make, clock: Clock
) -> None:
    breaker = make(failure_threshold=1, slow_call_duration_s=2)

    @breaker
    async def stream() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def consume() -> None:
        async for _ in stream():
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        task = asyncio.create_task(consume())
        for _ in range(5):
            await asyncio.sleep(0)
        clock.advance(60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    collect()
    assert counts(breaker) == (1, 0, 0)
    assert breaker.is_closed


def test_cleanup_that_is_cancelled_quickly_is_ignored_however_long_the_consumer_took(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, slow_call_duration_s=2)

    @breaker
    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await Pause()

    async def main() -> None:
        running: Any = stream()
        await anext(running)
        clock.advance(60)
        await running.aclose()

    coroutine = main()
    coroutine.send(None)
    with pytest.raises(asyncio.CancelledError):
        coroutine.throw(asyncio.CancelledError())
    assert counts(breaker) == (0, 0, 1)


@pytest.mark.parametrize("steps", range(1, 8))
@pytest.mark.parametrize("ending", [asyncio.CancelledError, GeneratorExit, Down])
def test_stream_stopped_at_any_await_is_settled_once(
    steps: int, ending: type[BaseException], breaker: CircuitBreaker
) -> None:
    @breaker
    async def stream() -> AsyncIterator[int]:
        for number in range(3):
            await Pause()
            try:
                yield number
            finally:
                await Pause()

    async def consume() -> None:
        async for _ in stream():
            pass

    coroutine: Coroutine[Any, Any, None] = consume()
    for _ in range(steps):
        with suppress(StopIteration):
            coroutine.send(None)
    if steps == 7:
        assert counts(breaker) == (1, 0, 0)
        return
    assert counts(breaker) == (0, 0, 0)
    with pytest.raises(ending):
        coroutine.throw(ending())
    catch_up()
    left_after_an_item = ending is GeneratorExit and steps > 1
    assert counts(breaker) == ((0, 1, 0) if ending is Down else (1, 0, 0) if left_after_an_item else (0, 0, 1))
    assert probes(breaker) == 0
    assert _blocks.stack.get() is None


# Overdue


def test_each_item_renews_the_time_of_a_probe(kind: Streams, probing: Make, clock: Clock) -> None:
    breaker = probing(half_open_timeout_s=5)
    stream = breaker(kind.of(waiting(clock, 1, 3, 0.5)))()
    for now in (1, 4, 4.5):
        kind.send(stream)
        assert clock() == 1_030 + now
        assert probes(breaker) == 1
        with pytest.raises(CircuitOpenError):
            breaker.call(int)
    clock.advance(4)
    assert probes(breaker) == 1
    kind.items(stream)
    assert breaker.is_closed


def endless() -> Iterator[int]:
    while True:
        yield 1


@pytest.mark.parametrize("late_s", [5, 86_400])
def test_probe_that_gives_an_item_after_its_time_is_a_success_then_and_only_once(
    late_s: float, kind: Streams, probing: Make, clock: Clock
) -> None:
    breaker = probing(half_open_timeout_s=5)
    stream = breaker(kind.of(endless))()
    kind.send(stream)
    clock.advance(4.9)
    kind.send(stream)
    assert (breaker.state, counts(breaker)) == (HALF_OPEN, (0, 0, 0))
    clock.advance(late_s - 4.9)
    kind.send(stream)
    assert (breaker.state, counts(breaker), probes(breaker)) == (CLOSED, (1, 0, 0), 0)
    kind.send(stream)
    kind.close(stream)
    assert counts(breaker) == (1, 0, 0)
    whole(breaker)


def test_first_item_after_the_time_of_a_probe_is_a_success_with_its_latency(
    kind: Streams, probing: Make, clock: Clock
) -> None:
    breaker = probing(half_open_timeout_s=5)
    assert kind.send(breaker(kind.of(waiting(clock, 7)))()) == 0
    assert breaker.is_closed
    assert breaker.stats.total_latency_ms == 7_000


def test_slow_first_item_after_the_time_of_a_probe_opens_the_circuit_again(
    kind: Streams, probing: Make, clock: Clock
) -> None:
    breaker = probing(half_open_timeout_s=5, slow_call_duration_s=2, slow_call_rate_threshold=1.0)
    kind.send(breaker(kind.of(waiting(clock, 7)))())
    assert breaker.is_open


@pytest.mark.parametrize("ending", ["fails", "fails as it is closed", "is exhausted"])
def test_probe_that_gives_no_item_after_its_time_is_judged_by_its_end(
    ending: str, kind: Streams, probing: Make, clock: Clock
) -> None:
    def body() -> Iterator[int]:
        try:
            yield 1
        finally:
            clock.advance(5)
            if ending != "is exhausted":
                raise Down

    breaker = probing(half_open_timeout_s=5)
    stream = breaker(kind.of(body))()
    kind.send(stream)
    if ending == "is exhausted":
        assert kind.items(stream) == []
    else:
        with pytest.raises(Down):
            kind.send(stream) if ending == "fails" else kind.close(stream)
    assert counts(breaker) == ((1, 0, 0) if ending == "is exhausted" else (0, 1, 0))
    assert breaker.is_closed is (ending == "is exhausted")


def test_probe_cancelled_while_it_hangs_for_an_item_after_its_time_is_a_failure(probing: Make, clock: Clock) -> None:
    breaker = probing(half_open_timeout_s=5, slow_call_duration_s=2)

    @breaker
    async def stream() -> AsyncIterator[int]:
        yield 1
        await Pause()

    async def consume() -> None:
        async for _ in stream():
            pass

    coroutine = consume()
    coroutine.send(None)
    clock.advance(5)
    with pytest.raises(asyncio.CancelledError):
        coroutine.throw(asyncio.CancelledError())
    assert counts(breaker) == (0, 1, 0)
    assert breaker.is_open


def test_error_after_a_probe_has_succeeded_is_not_counted(kind: Streams, probing: Make, clock: Clock) -> None:
    breaker = probing(half_open_timeout_s=5)
    stream = breaker(kind.of(endless))()
    kind.send(stream)
    clock.advance(5)
    kind.send(stream)
    with pytest.raises(Down):
        kind.throw(stream, Down())
    assert counts(breaker) == (1, 0, 0)
    assert breaker.is_closed


def test_three_endless_streams_do_not_keep_the_circuit_half_open(kind: Streams, make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1)
    breaker.record_failure()
    clock.advance(30)
    streams = [breaker(kind.of(endless))() for _ in range(3)]
    for stream in streams:
        kind.send(stream)
    assert not breaker.allow_request()
    for _ in range(30):
        clock.advance(1)
        for stream in streams:
            kind.send(stream)
    assert breaker.is_closed
    succeed(breaker)


def test_endless_stream_in_a_closed_circuit_counts_at_its_end(kind: Streams, make: Make, clock: Clock) -> None:
    breaker = make(slow_call_duration_s=2)
    stream = breaker(kind.of(endless))()
    for _ in range(3):
        kind.send(stream)
        clock.advance(60)
    assert counts(breaker) == (0, 0, 0)
    kind.close(stream)
    assert counts(breaker) == (1, 0, 0)


def test_listener_that_stops_the_program_as_an_endless_probe_succeeds_closes_the_body(
    kind: Streams, make: Make, clock: Clock
) -> None:
    closed = []

    def body() -> Iterator[int]:
        try:
            yield from endless()
        finally:
            closed.append(True)

    def listener(event: object) -> None:
        if isinstance(event, CallFinished) and event.outcome is Outcome.SUCCESS:
            raise Stop

    breaker = make(failure_threshold=1, success_threshold=1, half_open_timeout_s=5, listeners=[listener])
    breaker.record_failure()
    clock.advance(30)
    stream = breaker(kind.of(body))()
    kind.send(stream)
    clock.advance(5)
    with pytest.raises(Stop):
        kind.send(stream)
    assert breaker.is_closed
    assert counts(breaker) == (1, 1, 0)
    del stream
    collect()
    assert closed == [True]


def test_probe_whose_consumer_is_silent_for_too_long_is_overdue_and_its_answer_still_counts(
    kind: Streams, probing: Make, clock: Clock
) -> None:
    breaker = probing(half_open_timeout_s=5, success_threshold=2)
    stream = breaker(kind.of(three))()
    kind.send(stream)
    clock.advance(5)
    assert probes(breaker) == 0
    with breaker.permit():
        assert kind.items(stream) == [2, 3]
        assert probes(breaker) == 1, "the permit of the stream is not given back twice"
    assert counts(breaker) == (2, 0, 0)
    assert breaker.is_closed


def test_probe_that_waits_too_long_for_an_item_is_overdue_from_when_it_was_asked_for(
    kind: Streams, probing: Make, clock: Clock
) -> None:
    breaker = probing(half_open_timeout_s=5)
    seen = []

    def body() -> Iterator[int]:
        yield 1
        for wait_s in (4, 1):
            clock.advance(wait_s)
            seen.append(probes(breaker))
        yield 2

    stream = breaker(kind.of(body))()
    kind.send(stream)
    clock.advance(4)
    kind.send(stream)
    assert seen == [1, 0]


# Inside a probe


def test_calls_in_the_body_of_a_probe_ride_and_those_of_its_consumer_do_not(kind: Streams, probing: Make) -> None:
    breaker = probing()

    def body() -> Iterator[int]:
        for item in range(3):
            succeed(breaker)
            with breaker:
                yield item
            succeed(breaker)

    stream = breaker(kind.of(body))()
    for item in range(3):
        assert kind.send(stream) == item
        assert breaker.state is HALF_OPEN
        assert not breaker.allow_request()
    kind.items(stream)
    assert counts(breaker) == (10, 0, 0)
    assert breaker.is_closed


def test_consumer_and_what_it_starts_between_items_need_slots_of_their_own(kind: Streams, probing: Make) -> None:
    breaker = probing()
    stream = breaker(kind.of(three))()
    while True:
        try:
            kind.send(stream)
        except Ended:
            break
        assert _blocks.stack.get() is None
        for call in (breaker.call, contextvars.copy_context().run):
            with pytest.raises(CircuitOpenError):
                call(breaker(lambda: 0))
    assert breaker.is_closed


def test_failure_in_the_body_opens_the_circuit_at_once_and_the_stream_goes_on(kind: Streams, probing: Make) -> None:
    breaker = probing()

    def body() -> Iterator[int]:
        yield 1
        fail(breaker)
        yield 2

    stream = breaker(kind.of(body))()
    assert kind.send(stream) == 1
    assert kind.send(stream) == 2
    assert breaker.is_open
    assert kind.items(stream) == []
    assert breaker.is_open
    assert counts(breaker) == (1, 1, 0)


def test_cleanup_of_a_probe_rides_too(kind: Streams, breaker: CircuitBreaker) -> None:
    def body() -> Iterator[int]:
        try:
            yield 1
        finally:
            succeed(breaker)

    stream = breaker(kind.of(body))()
    kind.send(stream)
    kind.close(stream)
    assert counts(breaker) == (2, 0, 0)
    assert breaker.stats.rejected_count == 0
    whole(breaker)


def test_stream_inside_a_stream_rides_on_it(kind: Streams, probing: Make) -> None:
    breaker = probing()
    inner = breaker(kind.of(three))

    def body() -> Iterator[int]:
        stream = inner()
        for _ in range(3):
            yield kind.send(stream)
        assert kind.items(stream) == []
        assert breaker.state is HALF_OPEN

    assert kind.items(breaker(kind.of(body))()) == [1, 2, 3]
    assert counts(breaker) == (2, 0, 0)
    assert breaker.is_closed


def test_stream_that_outlives_the_stream_it_rode_on_counts_in_the_totals_only(kind: Streams, probing: Make) -> None:
    breaker = probing(success_threshold=2)
    inner = breaker(kind.of(three))()

    def body() -> Iterator[int]:
        yield kind.send(inner)

    assert kind.items(breaker(kind.of(body))()) == [1]
    assert kind.items(inner) == [2, 3]
    assert counts(breaker) == (2, 0, 0)
    assert breaker.state is HALF_OPEN
    succeed(breaker)
    assert breaker.is_closed


def test_streams_that_take_turns_ride_each_on_its_own_probe(kind: Streams, probing: Make) -> None:
    breaker = probing(half_open_max_calls=2, success_threshold=2)

    def body(log: list[Any]) -> Iterator[int]:
        for item in range(4):
            frame = _blocks.stack.get()
            assert frame is not None
            log.append(frame.permission)
            succeed(breaker)
            yield item

    logs: list[list[Any]] = [[], []]
    first, second = (breaker(kind.of(body))(log) for log in logs)
    for stream in (first, second, second, first, first, second, first, second):
        kind.send(stream)
    assert [len(set(log)) for log in logs] == [1, 1]
    assert logs[0][0] is not logs[1][0]
    kind.close(first)
    assert probes(breaker) == 1
    assert breaker.state is HALF_OPEN
    kind.items(second)
    assert counts(breaker) == (10, 0, 0)
    assert breaker.is_closed


def test_streams_zipped_together_by_tasks_keep_their_permits_apart(probing: Make) -> None:
    breaker = probing(half_open_max_calls=20, success_threshold=20)

    @breaker
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            assert await breaker.call_async(asyncio.sleep, 0, number) == number
            yield number

    async def consume() -> list[int]:
        return [number async for number in numbers()]

    async def main() -> None:
        assert await asyncio.gather(*(consume() for _ in range(20))) == [[0, 1, 2]] * 20

    asyncio.run(main())
    assert counts(breaker) == (80, 0, 0)
    assert breaker.is_closed


def test_block_around_a_yield_is_seen_by_the_consumer_and_still_settled_once(probing: Make) -> None:
    breaker = probing(success_threshold=9, half_open_max_calls=2)

    def by_hand() -> Iterator[int]:
        with breaker:
            yield 1

    def copied() -> None:
        first, second = by_hand(), by_hand()
        next(first)
        next(second)
        assert list(first) == list(second) == []

    contextvars.copy_context().run(copied)
    assert counts(breaker) == (2, 0, 0)
    assert probes(breaker) == 0


# Refused, and what stands in


def test_rejected_stream_does_not_touch_the_body(kind: Streams, make: Make) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)

    def body() -> Iterator[int]:
        raise AssertionError
        yield

    called = []

    @breaker
    @kind.of
    def never() -> Iterator[int]:
        called.append(True)
        yield 1

    for stream in (breaker(kind.of(body))(), never()):
        with pytest.raises(CircuitOpenError, match="'api' is open"):
            kind.send(stream)
    assert called == []


@needs_reference_counts
def test_rejection_of_a_stream_is_freed_when_nobody_holds_it(kind: Streams, opened: CircuitBreaker) -> None:
    @opened
    @kind.of
    def stream() -> Iterator[int]:
        yield 1

    def refused() -> weakref.ref[CircuitOpenError]:
        try:
            kind.send(stream())
        except CircuitOpenError as error:
            return weakref.ref(error)
        pytest.fail("it was not refused")

    collect()
    gc.disable()
    try:
        assert refused()() is None
    finally:
        gc.enable()


def test_clock_that_raises_as_the_body_is_entered_is_the_error_of_a_stream_without_latency(kind: Streams) -> None:
    readings: list[float | Exception] = []

    def clock() -> float:
        now = readings.pop(0) if readings else 1_000.0
        if isinstance(now, Exception):
            raise now
        return now

    breaker = CircuitBreaker(clock=clock)

    @breaker
    @kind.of
    def stream() -> Iterator[int]:
        yield 1

    items = stream()
    readings += [1_000.0, Down(), 1_003.0]
    with pytest.raises(Down):
        kind.send(items)
    assert counts(breaker) == (0, 1, 0)
    assert breaker.stats.total_latency_ms == 0.0


def substitute(error: CircuitOpenError, *args: Any, **kwargs: Any) -> Iterator[Any]:
    said: Any = (error.circuit_name, args, kwargs)
    while said != "stop":
        try:
            said = yield said
        except KeyError as thrown:
            said = thrown
    return "value"


@pytest.fixture
def opened(make: Make) -> CircuitBreaker:
    breaker = make(failure_threshold=1)
    fail(breaker)
    return breaker


def test_fallback_stream_gets_everything_in_place_of_the_body(kind: Streams, opened: CircuitBreaker) -> None:
    stream = circuit_breaker(breaker=opened, fallback=kind.of(substitute))(kind.of(three))(1, key=2)
    assert kind.send(stream) == ("api", (1,), {"key": 2})
    assert kind.send(stream, "sent") == "sent"
    error = KeyError()
    assert kind.throw(stream, error) is error
    with pytest.raises(Ended):
        kind.send(stream, "stop")
    assert counts(opened) == (0, 1, 0)


def test_closed_fallback_stream_is_closed_at_once(kind: Streams, opened: CircuitBreaker) -> None:
    closed = []

    def fallback(error: CircuitOpenError) -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append(True)

    stream = circuit_breaker(breaker=opened, fallback=kind.of(fallback))(kind.of(three))()
    kind.send(stream)
    kind.close(stream)
    assert closed == [True]
    assert counts(opened) == (0, 1, 0)


def test_fallback_of_a_generator_may_give_any_iterable(opened: CircuitBreaker) -> None:
    stream = circuit_breaker(breaker=opened, fallback=lambda error: [7, 8])(three)()
    assert list(stream) == [7, 8]


def test_fallback_of_an_async_generator_may_give_any_async_iterable(opened: CircuitBreaker) -> None:
    class Sevens:
        left = 3

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return 7

    kind = AsyncStreams()
    stream = circuit_breaker(breaker=opened, fallback=lambda error: Sevens())(kind.of(three))()
    assert kind.items(stream) == [7, 7, 7]


def test_error_of_a_fallback_stream_reaches_the_consumer_and_is_not_counted(
    kind: Streams, opened: CircuitBreaker
) -> None:
    def fallback(error: CircuitOpenError) -> Iterator[int]:
        yield 1
        raise LookupError

    stream = circuit_breaker(breaker=opened, fallback=kind.of(fallback))(kind.of(three))()
    kind.send(stream)
    with pytest.raises(LookupError):
        kind.send(stream)
    assert counts(opened) == (0, 1, 0)


@pytest.mark.parametrize("items", [0, 1])
def test_fallback_is_not_called_for_an_error_out_of_the_stream(
    items: int, kind: Streams, breaker: CircuitBreaker
) -> None:
    refusal = CircuitOpenError("of another", "other")

    def body() -> Iterator[int]:
        yield from range(items)
        raise refusal

    stream = circuit_breaker(breaker=breaker, fallback=lambda error: [])(kind.of(body))()
    for _ in range(items):
        kind.send(stream)
    with pytest.raises(CircuitOpenError) as raised:
        kind.send(stream)
    assert raised.value is refusal
    assert counts(breaker) == (0, 0, 1)
    whole(breaker)


# Modes


def test_stream_that_shadow_admits_counts_in_the_totals_only(kind: Streams, make: Make) -> None:
    breaker = make(failure_threshold=1, mode=CircuitMode.SHADOW)
    breaker.record_failure()
    assert kind.items(breaker(kind.of(three))()) == [1, 2, 3]
    snapshot = breaker.snapshot()
    assert snapshot.machine_state is OPEN
    assert (snapshot.stats.success_count, snapshot.stats.shadow_rejected_count) == (1, 1)


def test_a_guarded_stream_leaves_the_event_loops_hooks_as_they_were(make: Make) -> None:
    async def consume() -> None:
        before = sys.get_asyncgen_hooks()
        stream: Any = make()(catching_async)()
        assert await anext(stream) == "first"
        assert sys.get_asyncgen_hooks() == before
        await stream.aclose()

    asyncio.run(consume())


# What is no Exception


def catching() -> Iterator[str]:
    try:
        yield "first"
    except KeyboardInterrupt:
        yield "caught"


async def catching_async() -> AsyncIterator[str]:
    for item in catching():
        try:
            yield item
        except KeyboardInterrupt:
            yield "caught"


def test_ctrl_c_that_is_thrown_in_reaches_the_body(make: Make) -> None:
    stream: Any = make()(catching)()
    assert next(stream) == "first"
    assert stream.throw(KeyboardInterrupt) == "caught"
    assert list(stream) == []


def test_ctrl_c_that_is_thrown_in_reaches_the_body_of_an_async_generator(make: Make) -> None:
    async def consume() -> list[str]:
        stream: Any = make()(catching_async)()
        return [await anext(stream), await stream.athrow(KeyboardInterrupt), *[item async for item in stream]]

    assert asyncio.run(consume()) == ["first", "caught"]


def test_ctrl_c_out_of_the_body_says_nothing_of_the_service(make: Make) -> None:
    breaker = make(failure_threshold=1)

    @breaker
    def interrupted() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(interrupted())
    assert breaker.is_closed
    assert (breaker.stats.success_count, breaker.stats.ignored_count) == (0, 1)


def test_ctrl_c_in_the_clock_closes_the_body_at_once() -> None:
    ended: list[str] = []
    due: list[type[BaseException]] = []

    def clock() -> float:
        if due:
            raise due.pop()
        return 0.0

    @CircuitBreaker(config=CircuitBreakerConfig(slow_call_duration_s=60), clock=clock)
    def items() -> Iterator[int]:
        try:
            yield 1
            due.append(KeyboardInterrupt)  # as its next item is taken
            yield 2
        finally:
            ended.append("body")

    stream = items()
    assert next(stream) == 1
    with pytest.raises(KeyboardInterrupt) as raised:
        next(stream)
    assert ended == ["body"]  # and not only when nobody holds the error any more, with its frames
    assert raised.type is KeyboardInterrupt


# What a fallback or a clock raises is no end of the stream


def run_out(*args: object) -> Any:
    return next(iter(()))


def run_out_async(*args: object) -> Any:
    raise StopAsyncIteration


async def first(items: AsyncIterator[int]) -> int:
    return await anext(items)


@pytest.mark.parametrize("raises", [run_out, run_out_async])
def test_a_fallback_that_raises_the_end_of_an_iteration_is_not_an_empty_stream(clock: Clock, raises: Any) -> None:
    breaker = CircuitBreaker(mode=CircuitMode.FORCED_OPEN, clock=clock)

    @circuit_breaker(breaker=breaker, fallback=raises)
    def items() -> Iterator[int]:
        yield 1

    @circuit_breaker(breaker=breaker, fallback=raises)
    async def items_async() -> AsyncIterator[int]:
        yield 1

    with pytest.raises((RuntimeError, StopAsyncIteration)) as raised:
        next(items())
    assert raised.type is (RuntimeError if raises is run_out else StopAsyncIteration)
    with pytest.raises(RuntimeError):
        asyncio.run(first(items_async()))


@pytest.mark.parametrize(("settings", "reads"), [({}, 5), ({"slow_call_duration_s": 60}, 9)])
def test_a_clock_that_runs_out_does_not_end_a_stream_quietly(settings: dict[str, Any], reads: int) -> None:
    def body() -> Iterator[int]:
        yield 1
        yield 2

    for reading in range(1, reads):
        left = iter([0.0] * reading)
        items = CircuitBreaker(config=CircuitBreakerConfig(**settings), clock=lambda left=left: next(left))(body)
        with pytest.raises(RuntimeError):
            list(items())
