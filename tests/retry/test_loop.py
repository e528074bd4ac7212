"""A loop of one's own: `with attempt`, the bare number, both mixed, sync and async."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import traceback
import weakref
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest
from needs import needs_reference_counts

from circuit_breaker._common.events import RetryGaveUp, RetryScheduled
from circuit_breaker._retry.budget import RetryBudget
from circuit_breaker._retry.loop import Attempt
from circuit_breaker._retry.policy import RetryPolicy
from circuit_breaker.testing import FakeClock


def policy_on(clock: FakeClock, *args: Any, **settings: Any) -> RetryPolicy:
    return RetryPolicy(*args, **{"jitter": False, "clock": clock, "sleep": clock.sleep, **settings})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


# With the block


def test_block_swallows_what_is_retried_and_a_success_ends_the_loop(clock: FakeClock) -> None:
    seen: list[int] = []
    for attempt in policy_on(clock).attempts():
        with attempt as number:
            assert number is attempt
            seen.append(number)
            if number < 2:
                raise OSError
    assert seen == [0, 1, 2]
    assert clock.sleeps == [0.1, 0.2]


def test_block_left_when_the_next_attempt_has_begun_has_no_say(clock: FakeClock) -> None:
    attempts = policy_on(clock, 5).attempts()
    first = next(attempts).__enter__()
    second = next(attempts).__enter__()
    assert first.__exit__(OSError, OSError(), None) is False
    assert second.__exit__(OSError, OSError(), None) is True
    assert next(attempts) == 2
    assert clock.sleeps == [0.1, 0.2]


def test_block_left_that_was_not_entered_has_no_say(clock: FakeClock) -> None:
    attempts = policy_on(clock, 5).attempts()
    assert next(attempts).__exit__(OSError, OSError(), None) is False
    assert next(attempts) == 1


def test_last_error_itself_leaves_the_block_with_its_traceback_and_a_note(clock: FakeClock) -> None:
    def dig(error: OSError) -> None:
        raise error

    errors = [OSError("first"), OSError("last")]
    with pytest.raises(OSError) as caught:
        for attempt in policy_on(clock, 1).attempts():
            with attempt:
                dig(errors[attempt])
    assert caught.value is errors[1]
    assert [frame.name for frame in traceback.extract_tb(caught.tb)][-1] == "dig"
    assert errors[1].__notes__ == ["RetryPolicy gave up after 2 attempts in 0.10 s: no retries left"]
    assert errors[1].__context__ is None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, SystemExit])
@pytest.mark.parametrize("turn", [0, 1])
def test_error_that_is_not_retried_leaves_the_block_at_once(
    error: type[BaseException], turn: int, clock: FakeClock
) -> None:
    attempts = policy_on(clock, retryable_exceptions=OSError).attempts()
    with pytest.raises(error) as caught:
        for attempt in attempts:
            with attempt:
                raise OSError if attempt < turn else error
    assert len(clock.sleeps) == turn
    assert hasattr(caught.value, "__notes__") is (error is ValueError and turn == 1)
    assert list(attempts) == []


def test_loop_goes_on_by_no_attempt_after_the_last_error_was_caught_outside(clock: FakeClock) -> None:
    seen: list[int] = []
    for attempt in policy_on(clock, 1).attempts():
        seen.append(attempt)
        try:
            with attempt:
                raise OSError
        except OSError:
            continue
    assert seen == [0, 1]


def test_break_and_return_leave_block_and_loop(clock: FakeClock) -> None:
    for attempt in policy_on(clock).attempts():
        with attempt:
            break

    def fetch() -> str:
        for attempt in policy_on(clock).attempts():
            with attempt:
                if attempt < 1:
                    raise OSError
                return "done"
        raise AssertionError

    assert fetch() == "done"
    assert clock.sleeps == [0.1]


def test_continue_in_the_block_is_a_success(clock: FakeClock) -> None:
    seen: list[int] = []
    for attempt in policy_on(clock).attempts():
        with attempt:
            seen.append(attempt)
            continue
    assert seen == [0]


def test_deadline_hint_and_budget_hold_for_the_block(clock: FakeClock) -> None:
    class Busy(Exception):
        retry_after = 5

    budget = RetryBudget(0.5, 0, 2, clock=clock)
    policy = policy_on(clock, None, max_elapsed_s=12.0, budget=budget)
    with pytest.raises(Busy) as caught:
        for attempt in policy.attempts():
            with attempt:
                raise Busy
    assert clock.sleeps == [5.1, 5.2]
    assert caught.value.__notes__[0].endswith("the next would come past the deadline of 12 s")
    with pytest.raises(OSError) as caught:
        for attempt in policy.attempts():
            with attempt:
                raise OSError
    assert caught.value.__notes__[0].endswith("the retry budget is empty")


def test_loop_broken_off_after_a_swallowed_error_has_taken_the_token_of_the_retry(clock: FakeClock) -> None:
    told: list[Any] = []
    budget = RetryBudget(0, 0, 2, clock=clock)
    for attempt in policy_on(clock, budget=budget, listeners=[told.append]).attempts():
        with attempt:
            raise OSError
        break
    assert (budget.tokens, len(told), clock.sleeps) == (1, 1, [])


def test_listeners_hear_of_each_retry(clock: FakeClock) -> None:
    told: list[Any] = []
    error = OSError()
    for attempt in policy_on(clock, 3, 0.5, listeners=[told.append]).attempts():
        with attempt:
            if attempt < 2:
                raise error
    assert told == [RetryScheduled(0, 0.5, error, 0.0), RetryScheduled(1, 1.0, error, 0.5)]


class Failure(Exception):
    """An exception that can be referred to weakly."""


@needs_reference_counts
def test_loop_keeps_only_the_last_error_during_a_sleep_and_none_after_it() -> None:
    kept: list[weakref.ref[Failure]] = []

    def alive() -> list[bool]:
        return [reference() is not None for reference in kept]

    def fail() -> None:
        error = Failure()
        kept.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    def sleep(seconds: float) -> None:
        assert alive() == [False] * (len(kept) - 1) + [True]

    for attempt in RetryPolicy(sleep=sleep).attempts():
        with attempt:
            assert alive() == [False] * attempt
            if attempt < 2:
                fail()
    assert alive() == [False, False]


@needs_reference_counts
def test_async_loop_keeps_only_the_last_error_during_a_sleep_and_none_after_it() -> None:
    kept: list[weakref.ref[Failure]] = []

    def alive() -> list[bool]:
        return [reference() is not None for reference in kept]

    def fail() -> None:
        error = Failure()
        kept.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    async def sleep(seconds: float) -> None:
        assert alive() == [False] * (len(kept) - 1) + [True]

    async def main() -> None:
        async for attempt in RetryPolicy(sleep=sleep).attempts():
            with attempt:
                assert alive() == [False] * attempt
                if attempt < 2:
                    fail()
        assert alive() == [False, False]

    asyncio.run(main())


# Submitting values


def test_bad_value_is_tried_again_and_a_good_one_ends_the_loop(clock: FakeClock) -> None:
    values = iter([503, 503, 200, None])
    for attempt in policy_on(clock, retry_result=lambda status: status == 503).attempts():
        with attempt:
            value = attempt.result(next(values))
    assert value == 200
    assert clock.sleeps == [0.1, 0.2]


def test_value_that_stays_bad_ends_the_loop_in_peace(clock: FakeClock) -> None:
    seen: list[int] = []
    for attempt in policy_on(clock, 2, retry_result=lambda _: True).attempts():
        with attempt:
            seen.append(attempt.result(attempt))
    assert seen == [0, 1, 2]


def test_bad_value_that_is_returned_takes_no_token_and_tells_nobody(clock: FakeClock) -> None:
    told: list[Any] = []
    budget = RetryBudget(0, 0, 1)
    policy = policy_on(clock, retry_result=lambda _: True, budget=budget, listeners=[told.append])

    def fetch() -> Any:
        for attempt in policy.attempts():
            with attempt:
                return attempt.result("bad")
        raise AssertionError

    assert fetch() == "bad"
    assert (budget.tokens, told) == (1, [])


def test_error_after_a_value_counts_more_than_the_value(clock: FakeClock) -> None:
    seen: list[int] = []
    for attempt in policy_on(clock, retry_result=lambda _: False).attempts():
        with attempt:
            seen.append(attempt)
            attempt.result("good")
            if attempt < 1:
                raise OSError
    assert seen == [0, 1]


def test_without_a_predicate_every_value_ends_the_loop(clock: FakeClock) -> None:
    seen: list[int] = []
    for attempt in policy_on(clock).attempts():
        seen.append(attempt.result(attempt))
    assert seen == [0]


def test_value_may_be_submitted_after_the_block_or_without_one(clock: FakeClock) -> None:
    policy = policy_on(clock, retry_result=lambda number: number < 2)
    after: list[int] = []
    for attempt in policy.attempts():
        with attempt:
            pass
        after.append(attempt.result(attempt))
    bare = [attempt.result(attempt) for attempt in policy.attempts()]
    assert after == bare == [0, 1, 2]


def test_predicate_that_raises_ends_the_loop(clock: FakeClock) -> None:
    attempts = policy_on(clock, retry_result=lambda value: value / 0).attempts()
    with pytest.raises(ZeroDivisionError):
        for attempt in attempts:
            with attempt:
                attempt.result(1)
    assert list(attempts) == []


# The bare number


def test_bare_numbers_are_those_of_the_original_with_a_sleep_before_each_but_the_first(clock: FakeClock) -> None:
    seen: list[Any] = []
    for attempt in policy_on(clock).attempts():
        seen.append((attempt, list(clock.sleeps)))
    assert seen == [(0, []), (1, [0.1]), (2, [0.1, 0.2]), (3, [0.1, 0.2, 0.4])]


def test_bare_loop_with_the_callers_own_try_works_as_the_original(clock: FakeClock) -> None:
    policy = policy_on(clock)
    for attempt in policy.attempts():
        try:
            if attempt < 2:
                raise OSError
            break
        except Exception as error:
            if not policy.should_retry(error):
                raise
    assert attempt == 2
    assert clock.sleeps == [0.1, 0.2]


def test_no_retries_is_one_attempt_and_no_limit_goes_on(clock: FakeClock) -> None:
    assert list(policy_on(clock, 0).attempts()) == [0]
    endless = policy_on(clock, None).attempts()
    assert [next(endless) for _ in range(100)] == list(range(100))


def test_deadline_ends_the_bare_loop(clock: FakeClock) -> None:
    assert list(policy_on(clock, None, 1.0, max_elapsed_s=3.0).attempts()) == [0, 1, 2]
    assert clock.sleeps == [1.0, 2.0]


def test_empty_budget_ends_the_bare_loop_and_each_loop_puts_its_ratio_in(clock: FakeClock) -> None:
    budget = RetryBudget(0.5, 0, 2, clock=clock)
    policy = policy_on(clock, budget=budget)
    assert list(policy.attempts()) == [0, 1, 2]
    assert list(policy.attempts()) == [0]
    assert list(policy.attempts()) == [0, 1]
    policy.attempts()
    assert budget.tokens == 0.0


def test_listeners_hear_of_bare_retries_without_an_error(clock: FakeClock) -> None:
    told: list[Any] = []
    list(policy_on(clock, 1, 0.5, listeners=[told.append]).attempts())
    assert told == [RetryScheduled(0, 0.5, None, 0.0), RetryGaveUp(2, 0.5, "no retries left", None)]


def test_interrupted_sleep_ends_the_loop_and_gives_the_token_back(clock: FakeClock) -> None:
    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    budget = RetryBudget(0, 0, 1)
    attempts = policy_on(clock, sleep=sleep, budget=budget).attempts()
    assert next(attempts) == 0
    with pytest.raises(KeyboardInterrupt):
        next(attempts)
    assert budget.tokens == 1
    assert list(attempts) == []


def test_attempt_is_an_int_in_every_way(clock: FakeClock) -> None:
    first, second = policy_on(clock, 1).attempts()
    assert isinstance(second, int)
    assert (first == 0, second + 1, f"{second:02}", [10, 20][second]) == (True, 2, "01", 20)
    assert (repr(second), str(second), json.dumps(second), {1: "one"}[second]) == ("1", "1", "1", "one")
    for twin in (copy.copy(second), copy.deepcopy(second), pickle.loads(pickle.dumps(second))):
        assert (twin, type(twin)) == (1, int)
    assert type(second) is Attempt


# Mixed and misused


def test_bare_turns_and_blocks_may_alternate(clock: FakeClock) -> None:
    seen: list[int] = []
    for attempt in policy_on(clock, 5).attempts():
        seen.append(attempt)
        if attempt % 2:
            with attempt:
                if attempt < 5:
                    raise OSError
    assert seen == [0, 1, 2, 3, 4, 5]
    assert len(clock.sleeps) == 5


def test_block_entered_twice_or_after_its_turn_is_rejected(clock: FakeClock) -> None:
    attempts = policy_on(clock).attempts()
    first = next(attempts)
    with first:
        with pytest.raises(RuntimeError, match="attempt 0 is over"):
            first.__enter__()
        raise OSError
    for use in (first.__enter__, lambda: first.result(1)):
        with pytest.raises(RuntimeError, match="attempt 0 is over"):
            use()
    second = next(attempts)
    with pytest.raises(RuntimeError, match="attempt 0 is over"):
        first.__enter__()
    with second:
        pass
    with pytest.raises(RuntimeError, match="attempt 1 is over"), second:
        raise AssertionError
    assert list(attempts) == []


def test_block_whose_loop_went_on_inside_it_has_no_say(clock: FakeClock) -> None:
    attempts = policy_on(clock).attempts()
    with pytest.raises(OSError) as caught:
        with next(attempts):
            assert next(attempts) == 1
            raise OSError
    assert not hasattr(caught.value, "__notes__")
    assert list(attempts) == [2, 3]


def test_each_loop_has_attempts_of_its_own(clock: FakeClock) -> None:
    policy = policy_on(clock, 1)
    pairs = list(zip(policy.attempts(), policy.attempts(), strict=True))
    assert pairs == [(0, 0), (1, 1)]
    assert isinstance(policy.attempts(), Iterator)
    assert isinstance(policy.attempts(), AsyncIterator)


# Async


def test_async_for_sleeps_async_and_works_the_same(clock: FakeClock) -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        async for attempt in policy_on(clock, sleep=clock.sleep_async).attempts():
            with attempt:
                seen.append(attempt)
                await asyncio.sleep(0)
                if attempt < 2:
                    raise OSError
        return seen

    assert asyncio.run(main()) == [0, 1, 2]
    assert clock.sleeps == [0.1, 0.2]


def test_bare_async_for_yields_every_number(clock: FakeClock) -> None:
    async def main() -> list[int]:
        return [attempt async for attempt in policy_on(clock, sleep=clock.sleep_async).attempts()]

    assert asyncio.run(main()) == [0, 1, 2, 3]
    assert clock.sleeps == [0.1, 0.2, 0.4]


def test_async_for_cancelled_in_a_sleep_ends_at_once_and_gives_the_token_back() -> None:
    async def main() -> None:
        budget = RetryBudget(0, 0, 1)
        attempts = RetryPolicy(None, 3_600.0, backoff_max=3_600.0, budget=budget).attempts()

        async def work() -> None:
            async for attempt in attempts:
                with attempt:
                    raise OSError

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        assert budget.tokens == 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert budget.tokens == 1
        assert [attempt async for attempt in attempts] == []

    asyncio.run(main())


def test_task_cancelled_in_the_block_is_not_retried(clock: FakeClock) -> None:
    async def main() -> None:
        async def work() -> None:
            async for attempt in policy_on(clock, sleep=clock.sleep_async).attempts():
                with attempt:
                    await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert clock.sleeps == []


# What a clock or a sleep raises is no end of the loop


def run_out() -> Any:
    return next(iter(()))


async def run_out_async(seconds: float) -> None:
    raise StopAsyncIteration


def test_a_sleep_that_raises_the_end_of_an_iteration_does_not_end_the_loop_quietly(clock: FakeClock) -> None:
    with pytest.raises(RuntimeError, match="sleep, random or retry_result raised StopIteration") as raised:
        for attempt in policy_on(clock, sleep=lambda seconds: run_out()).attempts():
            with attempt:
                raise OSError
    assert type(raised.value.__cause__) is StopIteration


def test_a_clock_that_has_run_out_does_not_end_the_loop_before_it_began(clock: FakeClock) -> None:
    with pytest.raises(RuntimeError, match=r"clock, .* raised StopIteration"):
        next(RetryPolicy(clock=run_out).attempts())


def test_a_predicate_that_raises_the_end_of_an_iteration_does_not_end_the_loop(clock: FakeClock) -> None:
    attempts = policy_on(clock, retry_result=lambda value: run_out()).attempts()
    next(attempts).result(1)
    with pytest.raises(RuntimeError, match="retry_result raised StopIteration"):
        next(attempts)


@pytest.mark.parametrize("sleep", [run_out_async, lambda seconds: run_out()])
def test_an_async_sleep_that_raises_the_end_of_an_iteration_does_not_end_the_loop(clock: FakeClock, sleep: Any) -> None:
    async def main() -> None:
        async for attempt in policy_on(clock, sleep=sleep).attempts():
            with attempt:
                raise OSError

    with pytest.raises(RuntimeError, match=r"raised Stop(Async)?Iteration") as raised:
        asyncio.run(main())
    assert type(raised.value.__cause__) in (StopIteration, StopAsyncIteration)


async def first(items: AsyncIterator[int]) -> int:
    return await anext(items)


def test_a_stream_whose_retry_cannot_sleep_is_not_taken_for_an_empty_one(clock: FakeClock) -> None:
    @policy_on(clock, sleep=lambda seconds: run_out())
    def items() -> Iterator[int]:
        raise OSError
        yield

    @policy_on(clock, sleep=run_out_async)
    async def items_async() -> AsyncIterator[int]:
        raise OSError
        yield

    with pytest.raises(RuntimeError):
        next(items())
    with pytest.raises(RuntimeError):
        asyncio.run(first(items_async()))


def test_a_clock_of_decimals_takes_nothing_from_the_error(clock: FakeClock) -> None:
    policy = RetryPolicy(1, max_elapsed_s=5.0, sleep=clock.sleep, clock=lambda: Decimal(1))  # type: ignore[arg-type, return-value]
    with pytest.raises(OSError, match="down"):
        policy.call(open, "/nowhere/down")
    assert len(clock.sleeps) == 1
