"""The policy in async use: under asyncio, under trio, with a sleep of one's own, and cancelled in the middle."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from coroutines import drive, run
from trio.testing import MockClock

from circuit_breaker._common import async_library as _running
from circuit_breaker._common.events import RetryScheduled
from circuit_breaker._retry.budget import RetryBudget
from circuit_breaker._retry.policy import RetryPolicy
from circuit_breaker.exceptions import UsageError
from circuit_breaker.testing import FakeClock


class Flaky:
    """An async function that goes through a script: it raises what is an exception, and returns the rest."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.calls: list[Any] = []

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        step = self.script[min(len(self.calls), len(self.script)) - 1]
        if isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
            raise step
        return step


FLAKY = f"{__name__}.Flaky"


def policy_on(clock: FakeClock, *args: Any, **settings: Any) -> RetryPolicy:
    return RetryPolicy(*args, **{"jitter": False, "clock": clock, "sleep": clock.sleep_async, **settings})


def full_budget() -> RetryBudget:
    return RetryBudget(0, 0, 1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


# Retrying


def test_coroutine_function_that_recovers_is_called_with_the_same_arguments_until_it_does(clock: FakeClock) -> None:
    func = Flaky(OSError, ValueError, "done")
    assert run(policy_on(clock).call_async(func, 1, two=2)) == "done"
    assert func.calls == [((1,), {"two": 2})] * 3
    assert clock.sleeps == [0.1, 0.2]


def test_call_that_succeeds_at_once_never_waits(clock: FakeClock) -> None:
    assert drive(policy_on(clock).call_async(Flaky("done"))) == "done"
    assert drive(policy_on(clock, retry_result=lambda value: not value).call_async(Flaky("done"))) == "done"
    assert clock.sleeps == []


def test_when_attempts_run_out_the_last_error_itself_is_raised_with_a_note(clock: FakeClock) -> None:
    last = OSError("last")
    with pytest.raises(OSError) as caught:
        run(policy_on(clock, 1).call_async(Flaky(OSError("first"), last)))
    assert caught.value is last
    assert last.__notes__ == ["RetryPolicy gave up after 2 attempts in 0.10 s: no retries left"]
    assert last.__context__ is None


def test_error_that_is_not_retried_is_raised_at_once(clock: FakeClock) -> None:
    func = Flaky(OSError, ValueError)
    with pytest.raises(ValueError):
        run(policy_on(clock, retryable_exceptions=OSError).call_async(func))
    with pytest.raises(ValueError):
        run(policy_on(clock, retryable_exceptions=OSError).call_async(func))
    assert len(func.calls) == 3


def test_bad_value_is_tried_again_and_returned_if_it_stays_so(clock: FakeClock) -> None:
    policy = policy_on(clock, 2, retry_result=lambda status: status == 503)
    assert run(policy.call_async(Flaky(503, 200))) == 200
    assert run(policy.call_async(Flaky(503))) == 503
    assert run(policy_on(clock, 0, retry_result=lambda status: status == 503).call_async(Flaky(503))) == 503
    assert clock.sleeps == [0.1, 0.1, 0.2]


def test_each_call_puts_its_ratio_in_and_each_retry_takes_a_token(clock: FakeClock) -> None:
    budget = RetryBudget(0.5, 0, 2, clock=clock)
    policy = policy_on(clock, budget=budget)
    with pytest.raises(OSError) as caught:
        run(policy.call_async(Flaky(OSError)))
    assert "the retry budget is empty" in caught.value.__notes__[0]
    assert len(clock.sleeps) == 2
    run(policy.call_async(Flaky("done")))
    assert budget.tokens == 0.5


def test_listeners_hear_of_each_retry(clock: FakeClock) -> None:
    told: list[Any] = []
    error = OSError()
    run(policy_on(clock, 3, 0.5, listeners=[told.append]).call_async(Flaky(error, error, "done")))
    assert told == [RetryScheduled(0, 0.5, error, 0.0, FLAKY), RetryScheduled(1, 1.0, error, 0.5, FLAKY)]


# Sleeping


def test_under_asyncio_its_sleep_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps: list[float] = []

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleep)
            await RetryPolicy(jitter=False).call_async(Flaky(OSError, OSError, "done"))

    run(main())
    assert sleeps == [0.1, 0.2]


def test_under_asyncio_other_tasks_run_during_a_sleep() -> None:
    async def main() -> None:
        retried = asyncio.create_task(RetryPolicy(backoff_base=0.0).call_async(Flaky(OSError, "done")))
        await asyncio.sleep(0)
        assert not retried.done()
        assert await retried == "done"

    run(main())


def test_under_trio_its_sleep_is_used() -> None:
    async def main() -> float:
        started = trio.current_time()
        await RetryPolicy(jitter=False).call_async(Flaky(OSError, OSError, "done"))
        return trio.current_time() - started

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["sleep", "sleep_async"])
@pytest.mark.parametrize("start", [run, lambda main: trio.run(lambda: main)], ids=["asyncio", "trio"])
def test_sleep_of_ones_own_may_be_async_or_not(name: str, start: Callable[..., Any], clock: FakeClock) -> None:
    policy = policy_on(clock, sleep=getattr(clock, name))
    assert start(policy.call_async(Flaky(OSError, OSError, "done"))) == "done"
    assert clock.sleeps == [0.1, 0.2]


def test_where_no_known_loop_runs_waiting_takes_a_sleep_of_ones_own(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drive(policy_on(clock).call_async(Flaky(OSError, "done"))) == "done"
    budget = full_budget()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="under asyncio and trio: give the policy a sleep="):
            drive(RetryPolicy(budget=budget).call_async(Flaky(OSError, "done")))
        for library in ("asyncio", "trio"):
            monkeypatch.delitem(sys.modules, library, raising=False)
    assert budget.tokens == 1


# Cancelling


def test_task_cancelled_in_a_sleep_ends_at_once_and_gives_its_token_back() -> None:
    async def main() -> None:
        budget = full_budget()
        func = Flaky(OSError)
        policy = RetryPolicy(None, 3_600.0, backoff_max=3_600.0, budget=budget)
        task = asyncio.create_task(policy.call_async(func))
        await asyncio.sleep(0)
        assert budget.tokens == 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert budget.tokens == 1
        assert len(func.calls) == 1

    run(main())


def test_task_cancelled_in_an_attempt_is_not_retried(clock: FakeClock) -> None:
    async def main() -> None:
        calls: list[int] = []

        async def hang() -> None:
            calls.append(1)
            await asyncio.Event().wait()

        task = asyncio.create_task(policy_on(clock, retryable_exceptions=lambda error: True).call_async(hang))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert calls == [1]
        assert not hasattr(caught.value, "__notes__")

    run(main())


def test_trio_scope_cancelled_in_a_sleep_ends_at_once_and_gives_its_token_back() -> None:
    budget = full_budget()
    func = Flaky(OSError)

    async def main() -> None:
        with trio.move_on_after(5) as scope:
            await RetryPolicy(None, 3_600.0, backoff_max=3_600.0, jitter=False, budget=budget).call_async(func)
        assert scope.cancelled_caught
        assert trio.current_time() - started == pytest.approx(5)

    clock = MockClock(autojump_threshold=0)
    started = clock.current_time()
    trio.run(main, clock=clock)
    assert budget.tokens == 1
    assert len(func.calls) == 1


def test_timeout_around_the_retries_passes() -> None:
    async def main() -> None:
        async with asyncio.timeout(0):
            await RetryPolicy(None, 3_600.0, backoff_max=3_600.0).call_async(Flaky(OSError))

    with pytest.raises(TimeoutError):
        run(main())


# Kinds of functions


def test_function_that_returns_something_to_await_is_retried_by_call_async(clock: FakeClock) -> None:
    async def main() -> None:
        futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
        futures[0].set_exception(OSError())
        futures[1].set_result("done")
        waiting = iter(futures)
        assert await policy_on(clock).call_async(lambda: next(waiting)) == "done"

    run(main())


def test_function_that_raises_before_there_is_anything_to_await_is_retried(clock: FakeClock) -> None:
    flaky = Flaky("done")
    failures = iter([OSError()])

    def func() -> Awaitable[Any]:
        for error in failures:
            raise error
        return flaky()

    assert run(policy_on(clock).call_async(func)) == "done"
    assert clock.sleeps == [0.1]


def test_result_that_cannot_be_awaited_is_a_type_error_and_not_retried(clock: FakeClock) -> None:
    calls: list[int] = []

    def func() -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError
        return 5

    for count in (1, 3):
        with pytest.raises(TypeError, match="returned 5") as caught:
            run(policy_on(clock).call_async(func))
        assert len(calls) == count
        assert isinstance(caught.value, UsageError)
        calls[:] = calls[:1]


def test_call_async_rejects_what_it_cannot_call() -> None:
    with pytest.raises(TypeError, match="pass the function itself"):
        run(RetryPolicy().call_async(Flaky()()))
    with pytest.raises(TypeError, match="func must be a function"):
        run(RetryPolicy().call_async(3))


def test_decorated_coroutine_function_stays_one(clock: FakeClock) -> None:
    policy = policy_on(clock)
    flaky = Flaky(OSError, 7)

    class Client:
        @policy
        async def method(self, number: int) -> int:
            return await flaky(number)

    assert inspect.iscoroutinefunction(Client.method)
    assert run(Client().method(3)) == 7
    assert flaky.calls == [((3,), {})] * 2
    assert Client.method.retry_policy is policy


# Streams


def test_async_generator_is_retried_until_its_first_item_and_then_its_errors_pass(clock: FakeClock) -> None:
    begun: list[int] = []

    @policy_on(clock)
    async def numbers(start: int) -> AsyncIterator[int]:
        begun.append(start)
        if len(begun) < 3:
            raise OSError("before")
        yield start
        raise OSError("after")

    async def main() -> None:
        items: list[int] = []
        with pytest.raises(OSError, match="after"):
            async for item in numbers(5):
                items.append(item)
        assert items == [5]

    assert inspect.isasyncgenfunction(numbers)
    run(main())
    assert begun == [5, 5, 5]
    assert clock.sleeps == [0.1, 0.2]


def test_async_generator_that_never_begins_raises_its_error_with_a_note(clock: FakeClock) -> None:
    @policy_on(clock, 1)
    async def numbers() -> AsyncIterator[int]:
        raise OSError
        yield 1

    with pytest.raises(OSError) as caught:
        run(anext(numbers()))
    assert len(caught.value.__notes__) == 1


def test_empty_async_generator_is_a_success(clock: FakeClock) -> None:
    begun: list[int] = []

    @policy_on(clock)
    async def nothing() -> AsyncIterator[int]:
        begun.append(1)
        if len(begun) < 2:
            raise OSError
        return
        yield 1

    async def main() -> list[int]:
        return [item async for item in nothing()]

    assert run(main()) == []
    assert len(begun) == 2


def test_async_generator_passes_everything_between_consumer_and_body(clock: FakeClock) -> None:
    heard: list[Any] = []

    @policy_on(clock)
    async def talk() -> Any:
        try:
            heard.append((yield 1))
            try:
                yield 2
            except ValueError as error:
                heard.append(error)
            yield 3
        finally:
            heard.append("closed")

    async def main() -> None:
        stream = talk()
        error = ValueError()
        assert [await anext(stream), await stream.asend("hello"), await stream.athrow(error)] == [1, 2, 3]
        await stream.aclose()
        assert heard == ["hello", error, "closed"]

    run(main())


def test_task_cancelled_before_the_first_item_is_not_retried(clock: FakeClock) -> None:
    begun: list[int] = []

    @policy_on(clock)
    async def hang() -> AsyncIterator[int]:
        begun.append(1)
        await asyncio.Event().wait()
        yield 1

    async def main() -> None:
        task = asyncio.ensure_future(anext(hang()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert begun == [1]


# Sharing


def test_policy_used_by_a_thousand_tasks_keeps_no_state_between_calls() -> None:
    policy = RetryPolicy(4, 0.0)
    before = dict(vars(policy))

    async def work(number: int) -> None:
        failures = number % 6
        func = Flaky(*[OSError] * failures, number)
        if failures <= 4:
            assert await policy.call_async(func) == number
        else:
            with pytest.raises(OSError) as caught:
                await policy.call_async(func)
            assert "after 5 attempts" in caught.value.__notes__[0]
        assert len(func.calls) == min(failures + 1, 5)

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(1_000)))

    run(main())
    assert vars(policy) == before


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_a_library_that_another_thread_is_just_importing_does_not_run_here(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert (_running.running_trio(), _running.running_loop()) == (None, None)
