"""The aids for tests: a clock that is moved by hand, and retries that do not sleep."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import trio
from ways import POLICY

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, RetryPolicy
from circuit_breaker._common import fork as _fork
from circuit_breaker._retry import waiting
from circuit_breaker.testing import FakeClock, instant_retries, no_retries


def fail() -> None:
    raise ValueError


async def fail_async() -> None:
    raise ValueError


def never(seconds: float) -> None:
    raise AssertionError(f"slept for {seconds} s")


# The clock


def test_clock_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock()
    assert [clock(), clock()] == [0.0, 0.0]
    clock.advance(2)
    clock.advance(0.5)
    assert clock() == 2.5
    assert clock.sleeps == []
    assert repr(clock) == "<FakeClock at 2.5 s>"


def test_time_passes_in_timedeltas_too() -> None:
    clock = FakeClock()
    clock.advance(timedelta(minutes=1))
    clock.sleep(timedelta(seconds=1))
    asyncio.run(clock.sleep_async(timedelta(seconds=2)))
    assert (clock(), clock.sleeps) == (63.0, [1.0, 2.0])


def test_sleep_advances_and_is_remembered() -> None:
    clock = FakeClock(-10)
    clock.sleep(3)
    clock.sleep(0.0)
    assert clock() == -7.0
    assert clock.sleeps == [3.0, 0.0]


@pytest.mark.parametrize("run", [asyncio.run, lambda main: trio.run(lambda: main)], ids=["asyncio", "trio"])
def test_async_sleep_advances_and_is_remembered(run: Any) -> None:
    clock = FakeClock()
    run(clock.sleep_async(3))
    assert (clock(), clock.sleeps) == (3.0, [3.0])


def test_async_sleep_works_where_no_loop_runs() -> None:
    clock = FakeClock()
    with pytest.raises(StopIteration):
        clock.sleep_async(3).send(None)
    assert clock() == 3.0


def test_async_sleep_lets_others_run_and_can_be_cancelled() -> None:
    async def main() -> None:
        task = asyncio.create_task(FakeClock().sleep_async(1))
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_clock_is_exact_when_many_threads_advance_it() -> None:
    clock = FakeClock()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(800):
            pool.submit(clock.sleep, 1)
    assert clock() == 800.0
    assert clock.sleeps == [1.0] * 800


@pytest.mark.parametrize("use", [FakeClock().advance, FakeClock().sleep])
@pytest.mark.parametrize(
    ("bad", "error"),
    [(-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), (True, TypeError), ("3", TypeError)],
)
def test_time_that_cannot_pass_is_rejected(use: Any, bad: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^seconds must be a finite number >= 0"):
        use(bad)


@pytest.mark.parametrize("use", [FakeClock.advance, FakeClock.sleep])
def test_time_beyond_all_floats_is_rejected_and_nothing_has_passed(use: Any) -> None:
    clock = FakeClock(1e308)
    with pytest.raises(ValueError, match=r"^seconds must leave the clock finite, got 1e\+308 at 1e\+308 s"):
        use(clock, 1e308)
    assert (clock(), clock.sleeps) == (1e308, [])


@pytest.mark.parametrize(("bad", "error"), [(math.nan, ValueError), (None, TypeError), ("3", TypeError)])
def test_start_that_is_not_a_number_is_rejected(bad: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^start must be a finite number"):
        FakeClock(bad)


# Instant retries


def test_inside_no_policy_sleeps_and_outside_it_does() -> None:
    clock = FakeClock()
    policy = RetryPolicy(2, jitter=False, sleep=clock.sleep)
    with instant_retries(), pytest.raises(ValueError):
        policy.call(fail)
    assert clock.sleeps == []
    with pytest.raises(ValueError):
        policy.call(fail)
    assert clock.sleeps == [0.1, 0.2]


def test_inside_time_sleep_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", never)
    with instant_retries():
        assert list(RetryPolicy().attempts()) == [0, 1, 2, 3]


@pytest.mark.parametrize("run", [asyncio.run, lambda main: trio.run(lambda: main)], ids=["asyncio", "trio"])
def test_inside_async_policies_do_not_sleep_but_let_others_run(run: Any) -> None:
    policy = RetryPolicy(3, 1_000.0, backoff_max=1_000.0)
    with instant_retries(), pytest.raises(ValueError):
        run(policy.call_async(fail_async))


def test_inside_endless_retries_wait_for_the_task_that_helps_them() -> None:
    async def main() -> str:
        ready: list[str] = []

        async def first() -> str:
            return ready[0]

        waiting = asyncio.create_task(RetryPolicy(None, 1_000.0).call_async(first))
        await asyncio.sleep(0)
        ready.append("done")
        return await waiting

    with instant_retries():
        assert asyncio.run(main()) == "done"


def test_it_holds_for_threads_started_inside() -> None:
    policy = RetryPolicy(2, sleep=never)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            policy.call(fail)
        except BaseException as error:
            raised.append(error)

    with instant_retries():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert [type(error) for error in raised] == [ValueError]


def test_nested_and_left_by_an_error_it_ends_with_the_outermost() -> None:
    clock = FakeClock()
    policy = RetryPolicy(1, jitter=False, sleep=clock.sleep)
    with pytest.raises(KeyError), instant_retries():
        with pytest.raises(KeyError), instant_retries():
            raise KeyError
        with pytest.raises(ValueError):
            policy.call(fail)
        raise KeyError
    assert clock.sleeps == []
    with pytest.raises(ValueError):
        policy.call(fail)
    assert clock.sleeps == [0.1]


# Limits


def test_a_limit_holds_for_every_policy_that_has_none_or_a_higher_one_of_its_own() -> None:
    policies = [RetryPolicy(most, sleep=never) for most in (0, 2, 5, None)]
    with instant_retries(max_retries=3):
        assert [len(list(policy.attempts())) for policy in policies] == [1, 3, 4, 4]
    with no_retries():
        assert [list(policy.attempts()) for policy in policies] == [[0]] * 4


@pytest.mark.parametrize("name", POLICY)
def test_no_retries_means_one_attempt_in_every_way(name: str) -> None:
    calls: list[int] = []

    def body() -> None:
        calls.append(1)
        raise ValueError

    with no_retries(), pytest.raises(ValueError) as caught:
        POLICY[name].ready(RetryPolicy(sleep=never), body)()
    assert calls == [1]
    assert caught.value.__notes__ == [
        "RetryPolicy gave up after 1 attempt in 0.00 s: a test allows no more than 0 retries"
    ]


def test_bad_value_is_returned_at_once_without_retries() -> None:
    with no_retries():
        assert RetryPolicy(sleep=never, retry_result=lambda _: True).call(int) == 0


def test_the_innermost_holds() -> None:
    policy = RetryPolicy(2, sleep=never)
    with no_retries():
        with instant_retries():
            assert len(list(policy.attempts())) == 3
            with instant_retries(max_retries=1):
                assert len(list(policy.attempts())) == 2
            assert len(list(policy.attempts())) == 3
        assert len(list(policy.attempts())) == 1


def test_one_that_was_entered_first_may_be_left_first() -> None:
    policy = RetryPolicy(2, sleep=never)
    first, second = no_retries(), instant_retries()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert len(list(policy.attempts())) == 3
    second.__exit__(None, None, None)
    assert waiting.overrides == []


def test_one_object_may_be_entered_again_inside_itself() -> None:
    policy = RetryPolicy(2, sleep=never)
    none = no_retries()
    with none:
        with none:
            pass
        assert len(list(policy.attempts())) == 1
    assert waiting.overrides == []


@pytest.mark.parametrize(("bad", "error"), [(-1, ValueError), (True, TypeError), (2.5, TypeError), ("3", TypeError)])
def test_limit_that_is_not_a_number_of_retries_is_rejected(bad: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_retries must be an int >= 0"):
        instant_retries(max_retries=bad)


def test_retries_without_a_limit_that_wait_for_an_open_circuit_end_after_a_thousand() -> None:
    breaker = CircuitBreaker("api", CircuitBreakerConfig(1, reset_timeout_s=3_600))
    breaker.record_failure()
    policy = RetryPolicy(None, retryable_exceptions=CircuitOpenError, retry_after_max_s=1e6)
    with instant_retries(), pytest.raises(CircuitOpenError) as caught:
        policy.call(breaker.call, int)
    assert caught.value.__notes__[0].endswith("a test allows no more than 1000 retries")
    assert breaker.stats.rejected_count == 1_001
    with instant_retries(max_retries=2_000), pytest.raises(CircuitOpenError):
        policy.call(breaker.call, int)
    assert breaker.stats.rejected_count == 3_002


def test_breaker_and_policy_on_one_fake_clock_wait_for_the_circuit_without_waiting() -> None:
    clock = FakeClock()
    breaker = CircuitBreaker("api", CircuitBreakerConfig(1, reset_timeout_s=3_600), clock=clock)
    breaker.record_failure()
    policy = RetryPolicy(
        None, retryable_exceptions=CircuitOpenError, retry_after_max_s=1e6, clock=clock, sleep=clock.sleep
    )
    assert policy.call(breaker.call, int) == 0
    assert breaker.stats.rejected_count == 1


# As decorators


def test_it_decorates_a_test() -> None:
    @instant_retries()
    def inside() -> list[int]:
        return list(RetryPolicy(sleep=never).attempts())

    assert inside() == [0, 1, 2, 3]
    assert inside.__name__ == "inside"
    assert waiting.overrides == []


@pytest.mark.parametrize("decorator", [instant_retries(), no_retries(), instant_retries(max_retries=0)])
@pytest.mark.parametrize("start", [asyncio.run, lambda main: trio.run(lambda: main)], ids=["asyncio", "trio"])
def test_it_decorates_an_async_test_until_that_is_over(decorator: Any, start: Any) -> None:
    policy = RetryPolicy(2, 1_000.0, backoff_max=1_000.0)

    @decorator
    async def inside(times: int) -> str:
        assert waiting.overrides != []
        for _ in range(times):
            with pytest.raises(ValueError):
                await policy.call_async(fail_async)
        return "done"

    assert inspect.iscoroutinefunction(inside)
    coroutine = inside(2)
    assert waiting.overrides == []
    assert start(coroutine) == "done"
    assert waiting.overrides == []


def test_decorated_calls_may_overlap() -> None:
    async def main() -> None:
        entered = [asyncio.Event(), asyncio.Event()]
        leave = [asyncio.Event(), asyncio.Event()]

        @no_retries()
        async def inside(number: int) -> int:
            entered[number].set()
            await leave[number].wait()
            return len(list(RetryPolicy(sleep=never).attempts()))

        tasks = [asyncio.create_task(inside(number)) for number in range(2)]
        for event in entered:
            await event.wait()
        for number in range(2):
            leave[number].set()
            assert await tasks[number] == 1

    asyncio.run(main())
    assert waiting.overrides == []


def test_it_decorates_methods() -> None:
    class TestIt:
        @no_retries()
        def test(self) -> list[int]:
            return list(RetryPolicy(sleep=never).attempts())

    assert TestIt().test() == [0]


def items() -> Any:
    yield 1


async def async_items() -> Any:
    yield 1


@pytest.mark.parametrize("given", [items, async_items, FakeClock])
def test_what_it_could_not_hold_for_is_rejected(given: Any) -> None:
    with pytest.raises(TypeError, match="func must be a function or a coroutine function"):
        no_retries()(given)


def test_plain_function_that_returns_a_coroutine_is_rejected_when_called() -> None:
    with pytest.raises(TypeError, match="which must be awaited"):
        no_retries()(lambda: fail_async())()


# Deadlines


def test_deadline_ends_the_attempts_where_it_would_in_earnest() -> None:
    told: list[Any] = []
    clock = FakeClock()
    policy = RetryPolicy(
        None, 1.0, jitter=False, max_elapsed_s=8.0, clock=clock, sleep=clock.sleep, listeners=[told.append]
    )
    with pytest.raises(ValueError) as in_earnest:
        policy.call(fail)
    earnest, told[:] = [(event.delay_s, event.elapsed_s) for event in told[:-1]], []
    with instant_retries(), pytest.raises(ValueError) as instantly:
        policy.call(fail)
    assert [(event.delay_s, event.elapsed_s) for event in told[:-1]] == earnest == [(1.0, 0.0), (2.0, 1.0), (4.0, 3.0)]
    assert instantly.value.__notes__ == in_earnest.value.__notes__


def test_a_clock_works_in_a_child_that_was_forked_while_another_thread_had_its_lock() -> None:
    clock = FakeClock()
    assert clock in _fork.living(FakeClock)
    lock = clock._lock
    clock._after_fork_in_child()
    clock.advance(1)
    assert clock._lock is not lock
    assert clock() == 1
