"""A task is cancelled at every single point where it waits, one run for each, until a run meets no more of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from itertools import count
from typing import Any, TypeAlias

from claim import Claim, Finding, quiet
from failures import Down
from needs import CPYTHON
from patience import PATIENCE_S
from ways import BREAKER, BULKHEAD, POLICY, Way, Work

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitBreakerConfig, CircuitState, RetryBudget, RetryPolicy

MOMENTS = ("waits", "goes on")
TOKENS = 9
CALL = BREAKER["call_async"]


class Watched(Coroutine[Any, Any, None]):
    """A coroutine whose task is cancelled at one of the points where it waits: while it does, or just as it goes on.

    The second is the moment in which a slot is handed over: what it waits for has come, and so has the cancellation.
    Who waits for its next turn alone has no such moment, since nothing comes: these points are met in the first alone.
    """

    def __init__(self, inner: Coroutine[Any, Any, None], point: int, moment: str) -> None:
        self.inner = inner
        self.point = point
        self.moment = moment
        self.met = 0

    def _meet(self, waited: Any) -> Any:
        if self.moment == "goes on" and waited is None:
            return waited
        self.met += 1
        task = asyncio.current_task()
        if self.met == self.point and task is not None:
            if self.moment == "goes on":
                waited.add_done_callback(lambda _: task.cancel())  # comes before the one that wakes the task
            else:
                task.cancel()
        return waited

    def send(self, value: Any) -> Any:
        return self._meet(self.inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._meet(self.inner.throw(*error))

    def close(self) -> None:
        self.inner.close()

    def __await__(self) -> Any:
        raise NotImplementedError("it is for a task")


async def settled() -> None:
    """Let everybody go on until nobody can: streams that were dropped are closed in tasks of their own."""
    for _ in range(20):
        await asyncio.sleep(0)


async def work() -> None:
    """Wait in each of the two ways there are: for a turn, and for a future."""
    await asyncio.sleep(0)
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: future.done() or future.set_result(None))
    await future


async def _stream_read_slowly(guard: Any, work: Work) -> None:
    @guard
    async def items() -> AsyncIterator[None]:
        for _ in range(2):
            yield await work()

    async for _ in items():
        await asyncio.sleep(0)


SLOW_READER = Way(
    "async generator whose reader waits",
    lambda guard, work: partial(_stream_read_slowly, guard, work),
    (),
    is_async=True,
    decorates=True,
)


def _asynchronous(ways: dict[str, Way]) -> tuple[Way, ...]:
    """Return those that are awaited, and judge by themselves."""
    slow_reader = (SLOW_READER,) if CPYTHON else ()  # elsewhere a stream is closed some time after it was dropped
    return (*(way for way in ways.values() if way.is_async), *slow_reader)


# What is called through: each gives the task's coroutine, what others do meanwhile, and what must hold afterwards


class OfABreaker:
    def __init__(self, state: CircuitState, way: Way) -> None:
        self.state = state
        self.breaker = CircuitBreaker(config=CircuitBreakerConfig(1, 1, 0.0, 1, half_open_timeout_s=PATIENCE_S))
        if state is CircuitState.HALF_OPEN:
            self.breaker.record_failure()
        assert self.breaker.state is state
        self.breaker.stats.reset()
        self.way = way
        self.task = way.awaited(self.breaker, work)

    async def meanwhile(self) -> None: ...

    def check(self, cancelled: bool) -> None:
        seen = self.breaker.snapshot()
        counted = (seen.stats.success_count, seen.stats.failure_count, seen.stats.ignored_count)
        # A stream that has given an item is a success, whoever stops reading.
        succeeded = not cancelled or (self.way is SLOW_READER and counted[0] == 1)
        assert counted == ((1, 0, 0) if succeeded else (0, 0, 1)), counted
        assert seen.probes_in_flight == 0
        assert seen.state is (CircuitState.CLOSED if succeeded else self.state)
        self.breaker.call(int)
        assert self.breaker.is_closed


class OfABulkhead:
    """The one slot is taken: the task waits in the line, another one behind it, until the slot is handed over."""

    def __init__(self, way: Way) -> None:
        self.bulkhead = Bulkhead(max_concurrent=1, max_queue=2, timeout_s=PATIENCE_S)
        assert self.bulkhead.acquire()
        self.task = way.awaited(self.bulkhead, work)

    async def meanwhile(self) -> None:
        behind = asyncio.create_task(self.bulkhead.call_async(work))
        await settled()
        assert self.bulkhead.active_count == 1
        self.bulkhead.release()
        await behind

    def check(self, cancelled: bool) -> None:
        seen = self.bulkhead.snapshot()
        assert (seen.active_count, seen.queued_count, seen.rejected_count) == (0, 0, 0)
        assert seen.peak_active_count == 1
        assert self.bulkhead.acquire()


class OfAPolicy:
    """Two attempts fail, each is followed by a sleep of asyncio, and every retry takes a token."""

    def __init__(self, way: Way) -> None:
        self.budget = RetryBudget(0.0, 0.0, TOKENS)
        self.policy = RetryPolicy(2, 1e-9, budget=self.budget)
        self.attempts = 0
        self.task = way.awaited(self.policy, self.body)

    async def body(self) -> None:
        self.attempts += 1
        await work()
        if self.attempts <= 2:
            raise Down

    async def meanwhile(self) -> None: ...

    def check(self, cancelled: bool) -> None:
        retries = min(max(0, self.attempts - 1), 2)  # what comes after them is a second item
        assert self.budget.tokens == TOKENS - retries, f"{self.budget.tokens} tokens after {retries} retries"


class OfAllThree:
    """Retries outside, the half-open breaker in them, the bulkhead innermost, whose one slot is taken."""

    def __init__(self, way: Way) -> None:
        self.policy = OfAPolicy(CALL)
        self.breaker = OfABreaker(CircuitState.HALF_OPEN, CALL)
        self.bulkhead = OfABulkhead(CALL)
        for each in (self.policy, self.breaker, self.bulkhead):
            each.task.close()
        self.breaker.way = way
        self.task = way.awaited(
            lambda body: self.policy.policy(self.breaker.breaker(self.bulkhead.bulkhead(body))), work
        )
        self.meanwhile = self.bulkhead.meanwhile

    def check(self, cancelled: bool) -> None:
        self.policy.check(cancelled)
        self.breaker.check(cancelled)
        self.bulkhead.check(cancelled)


Scene: TypeAlias = Callable[[Way], Any]


async def cancelled_at(scene: Scene, way: Way, point: int, moment: str) -> bool:
    """Run it once, cancelled at this point if there is one, and check what is left; tell whether there was."""
    made = scene(way)
    watched = Watched(made.task, point, moment)
    task = asyncio.create_task(watched)
    await asyncio.sleep(0)
    await asyncio.wait_for(made.meanwhile(), PATIENCE_S)
    await asyncio.wait([task], timeout=PATIENCE_S)
    cancelled = task.cancelled()
    assert cancelled is (watched.met >= point), "it goes on though it was cancelled, or hangs"
    if not cancelled:
        task.result()
    await settled()
    made.check(cancelled)
    return cancelled


def at_every_point(scene: Scene, ways: tuple[Way, ...], fewest: tuple[int, int]) -> Finding:
    """Ways are tried one by one, at every point of each moment; each way has so many of them at the fewest."""
    points = dict.fromkeys(MOMENTS, 0)

    async def main() -> str:
        for way in ways:
            for moment, enough in zip(MOMENTS, fewest, strict=True):
                for point in count(1):
                    try:
                        if not await cancelled_at(scene, way, point, moment):
                            break
                    except Exception as error:
                        return f"; {way.name} cancelled as it {moment} for the {point}. time: {error!r}"
                    points[moment] += 1
                if point <= enough:
                    return f"; {way.name} {moment} at only {point - 1} points"
        return ""

    with quiet():
        amiss = asyncio.run(main())
    waits, goes_on = points.values()
    made = f"{waits + goes_on} cancellations at {waits} points in {len(ways)} ways, {goes_on} of them as it goes on"
    return Finding(not amiss, made + amiss)


def _claim(text: str, scene: Scene, ways: tuple[Way, ...], fewest: tuple[int, int]) -> Claim:
    return Claim(f"cancelled at every await: {text}", lambda _: at_every_point(scene, ways, fewest), 1, 1)


CLAIMS = [
    _claim("closed breaker", partial(OfABreaker, CircuitState.CLOSED), _asynchronous(BREAKER), (2, 1)),
    _claim("half-open breaker", partial(OfABreaker, CircuitState.HALF_OPEN), _asynchronous(BREAKER), (2, 1)),
    _claim("full bulkhead, handed over", OfABulkhead, _asynchronous(BULKHEAD), (3, 2)),
    _claim("retry with a budget", OfAPolicy, _asynchronous(POLICY), (8, 5)),
    _claim("all three", OfAllThree, tuple(way for way in _asynchronous(POLICY) if way.decorates), (3, 2)),
]
