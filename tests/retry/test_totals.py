"""What a policy counts: nothing of a first success, and everything after a first failure, exactly."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from coroutines import run
from failures import Down, raising
from forks import told_by_child
from needs import needs_fork
from patience import PATIENCE_S
from ways import POLICY, POLICY_BY_HAND

from circuit_breaker import RetryBudget, RetryPolicy, RetrySnapshot
from circuit_breaker._common import fork as _fork
from circuit_breaker._retry.totals import Totals
from circuit_breaker.testing import FakeClock, instant_retries, no_retries

NOTHING = RetrySnapshot(0, 0, 0, 0, 0.0)


def policy_on(clock: FakeClock, *args: Any, **settings: Any) -> RetryPolicy:
    return RetryPolicy(*args, **{"jitter": False, "clock": clock, "sleep": clock.sleep, **settings})


def failing(times: int, error: type[BaseException] = Down) -> Any:
    """Return a function that fails so often before it succeeds."""
    left = [None] * times

    def body() -> str:
        if left:
            left.pop()
            raise error
        return "done"

    return body


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


def test_snapshot_is_frozen_and_ready_for_json(clock: FakeClock) -> None:
    policy = policy_on(clock, 1, 0.5)
    policy.call(failing(1))
    snapshot = policy.snapshot()
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.retry_count = 5  # type: ignore[misc]
    assert json.loads(json.dumps(snapshot.to_dict())) == {
        "failed_first_count": 1,
        "retry_count": 1,
        "recovered_count": 1,
        "gave_up_count": 0,
        "total_sleep_s": 0.5,
    }


@pytest.mark.parametrize("name", [*POLICY, *POLICY_BY_HAND])
def test_success_at_once_is_not_counted(name: str, clock: FakeClock) -> None:
    policy = policy_on(clock)
    {**POLICY, **POLICY_BY_HAND}[name].ready(policy, failing(0))()
    assert policy.snapshot() == NOTHING


@pytest.mark.parametrize("name", POLICY)
def test_call_that_recovers_is_counted_with_its_retries_and_sleeps(name: str, clock: FakeClock) -> None:
    policy = policy_on(clock)
    for _ in range(2):
        POLICY[name].ready(policy, failing(2))()
    assert policy.snapshot() == RetrySnapshot(2, 4, 2, 0, pytest.approx(0.6))


@pytest.mark.parametrize("name", POLICY)
def test_call_that_gives_up_is_counted(name: str, clock: FakeClock) -> None:
    policy = policy_on(clock, 1)
    with pytest.raises(Down):
        POLICY[name].ready(policy, raising(Down()))()
    assert policy.snapshot() == RetrySnapshot(1, 1, 0, 1, 0.1)
    with no_retries(), pytest.raises(Down):
        POLICY[name].ready(policy, raising(Down()))()
    assert policy.snapshot() == RetrySnapshot(2, 1, 0, 2, 0.1)


@pytest.mark.parametrize("name", POLICY)
def test_error_that_is_not_retried_is_counted_only_after_others_were(name: str, clock: FakeClock) -> None:
    policy = policy_on(clock, retryable_exceptions=OSError)
    with pytest.raises(Down):
        POLICY[name].ready(policy, raising(Down()))()
    assert policy.snapshot() == NOTHING
    errors = iter([OSError(), Down()])

    def body() -> None:
        raise next(errors)

    with pytest.raises(Down):
        POLICY[name].ready(policy, body)()
    assert policy.snapshot() == RetrySnapshot(1, 1, 0, 1, 0.1)


@pytest.mark.parametrize("name", [name for name, way in POLICY.items() if way.returns])
def test_bad_values_count_as_failures(name: str, clock: FakeClock) -> None:
    policy = policy_on(clock, 2, retry_result=lambda value: value == "bad")
    values = iter(["bad", "good", "bad", "bad", "bad", "good"])
    results = [POLICY[name].ready(policy, lambda: next(values))() for _ in range(3)]
    assert results == ["good", "bad", "good"]
    assert policy.snapshot() == RetrySnapshot(2, 3, 1, 1, pytest.approx(0.4))


@pytest.mark.parametrize("name", ["generator", "async generator", "empty generator"])
def test_stream_that_begins_after_a_retry_has_recovered_though_its_policy_judges_values(
    name: str, clock: FakeClock
) -> None:
    policy = policy_on(clock, retry_result=lambda value: value is None)
    POLICY[name].ready(policy, failing(1))()
    assert policy.snapshot() == RetrySnapshot(1, 1, 1, 0, 0.1)


@pytest.mark.parametrize("name", POLICY_BY_HAND)
def test_bare_numbers_count_failures_and_giving_up_but_no_success(name: str, clock: FakeClock) -> None:
    policy = policy_on(clock, 2)
    POLICY_BY_HAND[name].ready(policy, failing(1))()
    assert policy.snapshot() == RetrySnapshot(1, 1, 0, 0, 0.1)
    with pytest.raises(Down):
        POLICY_BY_HAND[name].ready(policy, raising(Down()))()
    assert policy.snapshot() == RetrySnapshot(2, 3, 0, 1, pytest.approx(0.4))


def test_value_submitted_after_the_block_is_judged_before_the_call_counts_as_recovered(clock: FakeClock) -> None:
    policy = policy_on(clock, 3, retry_result=lambda value: value < 2)
    for attempt in policy.attempts():
        with attempt:
            pass
        attempt.result(attempt)
    assert policy.snapshot() == RetrySnapshot(1, 2, 1, 0, pytest.approx(0.3))


def test_block_without_a_value_has_recovered_when_the_loop_ends(clock: FakeClock) -> None:
    policy = policy_on(clock, 3, retry_result=lambda value: value < 2)
    for attempt in policy.attempts():
        with attempt:
            if attempt < 1:
                raise Down
    assert policy.snapshot() == RetrySnapshot(1, 1, 1, 0, 0.1)


def test_return_out_of_the_block_is_a_success_of_a_policy_that_judges_no_values(clock: FakeClock) -> None:
    def fetch(policy: RetryPolicy) -> int:
        for attempt in policy.attempts():
            with attempt:
                if attempt < 1:
                    raise Down
                return attempt.result(int(attempt))
        raise AssertionError

    policy = policy_on(clock)
    assert fetch(policy) == 1
    assert policy.snapshot() == RetrySnapshot(1, 1, 1, 0, 0.1)
    judging = policy_on(clock, retry_result=lambda value: value > 1)
    assert fetch(judging) == 1
    assert judging.snapshot() == RetrySnapshot(1, 1, 0, 0, 0.1)  # left before its end was known


def test_call_that_is_cancelled_in_a_sleep_has_neither_recovered_nor_given_up() -> None:
    async def main() -> RetrySnapshot:
        policy = RetryPolicy(None, 3_600.0, backoff_max=3_600.0)

        async def fail() -> None:
            raise Down

        task = asyncio.create_task(policy.call_async(fail))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return policy.snapshot()

    assert run(main()) == RetrySnapshot(1, 0, 0, 0, 0.0)


def test_sleeps_left_out_in_tests_are_among_the_sleeps(clock: FakeClock) -> None:
    policy = policy_on(clock, 1, 2.0)
    with instant_retries():
        policy.call(failing(1))
    assert policy.snapshot() == RetrySnapshot(1, 1, 1, 0, 2.0)
    assert clock.sleeps == []


def test_counts_are_exact_when_many_threads_share_a_policy() -> None:
    policy = RetryPolicy(2, 0.5, jitter=False, sleep=lambda _: None)
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait(PATIENCE_S)
        for turn in range(200):
            failures = (number + turn) % 4
            if failures == 3:
                with pytest.raises(Down):
                    policy.call(failing(failures))
            else:
                policy.call(failing(failures))

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, number) for number in range(8)]:
            future.result()
    # Of 1,600 calls 400 fail once, 400 twice, 400 three times.
    assert policy.snapshot() == RetrySnapshot(1_200, 2_000, 800, 400, pytest.approx(1_200 * 0.5 + 800 * 1.0))


def test_policies_count_each_for_itself(clock: FakeClock) -> None:
    policy, twin = policy_on(clock), policy_on(clock)
    policy.call(failing(1))
    changed = policy.replace(max_retries=1)
    assert (twin.snapshot(), changed.snapshot()) == (NOTHING, NOTHING)
    assert policy == twin


def test_call_from_a_signal_handler_while_the_lock_is_held_does_not_hang() -> None:
    totals = Totals()
    with totals._lock:
        totals.failed_first()
        assert totals.snapshot().failed_first_count == 1


@needs_fork
def test_forked_child_goes_on_counting_though_another_thread_held_the_lock() -> None:
    policy = RetryPolicy(1, 0.0, sleep=lambda _: None, budget=RetryBudget())
    policy.call(failing(1))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with policy._totals._lock:
            held.set()
            done.wait(PATIENCE_S)

    def tell() -> tuple[int, bool]:
        policy.call(failing(1))
        return policy.snapshot().recovered_count, os.getpid() != parent

    parent = os.getpid()
    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE_S)
    told = told_by_child(tell)
    done.set()
    thread.join()
    assert told == "(2, True)"


def test_child_has_a_lock_of_its_own() -> None:
    totals = Totals()
    assert totals in _fork.living(Totals)
    lock = totals._lock
    totals._after_fork_in_child()
    assert totals._lock is not lock
