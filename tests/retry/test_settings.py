"""The settings of a policy: checked, immutable, varied, and a delay function in place of the backoff."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import pickle
import signal
import sys
from datetime import timedelta
from typing import Any, cast

import pytest
from failures import Down, raising
from ways import POLICY

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, RetryBudget, RetryPolicy, circuit_breaker, retry
from circuit_breaker.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


def policy_on(clock: FakeClock, *args: Any, **settings: Any) -> RetryPolicy:
    return RetryPolicy(*args, **{"clock": clock, "sleep": clock.sleep, **settings})


def give_up(policy: RetryPolicy, name: str = "call", error: type[BaseException] = Down) -> None:
    with pytest.raises(error):
        POLICY[name].ready(policy, raising(error()))()


# A delay function


@pytest.mark.parametrize("name", POLICY)
def test_delay_function_takes_the_place_of_backoff_and_jitter_in_every_way(name: str, clock: FakeClock) -> None:
    asked: list[tuple[int, Any]] = []

    def delay(attempt: int, error: Any) -> float:
        asked.append((attempt, type(error)))
        return 7.0 - attempt

    give_up(policy_on(clock, 2, backoff_max=1.0, delay=delay), name)
    assert clock.sleeps == [7.0, 6.0]
    assert asked == [(0, Down), (1, Down)]


def test_delay_function_is_given_none_for_a_bad_value_and_a_bare_number(clock: FakeClock) -> None:
    asked: list[Any] = []

    def delay(attempt: int, error: Any) -> int:
        asked.append(error)
        return 1

    policy_on(clock, 1, delay=delay, retry_result=lambda value: value is None).call(lambda: None)
    list(policy_on(clock, 1, delay=delay).attempts())
    assert asked == [None, None]
    assert clock.sleeps == [1.0, 1.0]


def test_delay_function_may_give_a_timedelta_and_is_added_to_a_hint(clock: FakeClock) -> None:
    policy = policy_on(clock, 1, delay=lambda attempt, error: timedelta(minutes=1), retry_after=lambda _: 5)
    give_up(policy)
    assert clock.sleeps == [65.0]


def test_delay_function_is_asked_by_get_delay_without_an_error() -> None:
    policy = RetryPolicy(delay=lambda attempt, error: 10 * attempt if error is None else 0)
    assert [policy.get_delay(attempt) for attempt in range(3)] == [0.0, 10.0, 20.0]
    with pytest.raises(ValueError, match="attempt must be an int >= 0"):
        policy.get_delay(-1)
    clock = FakeClock()
    breaker = CircuitBreaker("api", CircuitBreakerConfig(1, 1, policy.get_delay), clock=clock)
    breaker.record_failure()
    assert breaker.snapshot().retry_after_s == 0.0


@pytest.mark.parametrize("answer", [-1, math.nan, math.inf, "3", None, True, timedelta(-1), ZeroDivisionError()])
def test_delay_that_cannot_be_used_is_logged_and_the_backoff_taken(
    answer: Any, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    def delay(attempt: int, error: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    policy = policy_on(clock, 1, 0.5, jitter=False, delay=delay)
    give_up(policy)
    assert policy.get_delay(1) == 1.0
    assert clock.sleeps == [0.5]
    problems = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(problems) == 2
    assert "raised or gave no seconds" in problems[0].getMessage()


@pytest.mark.parametrize("setting", ["delay", "retry_after"])
def test_ctrl_c_in_a_function_of_the_settings_passes(setting: str, clock: FakeClock) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        policy_on(clock, **{setting: interrupt}).call(raising(Down()))


class Recorder(list[Any]):
    """A function that is false until it is called."""

    def __call__(self, *args: Any) -> float:
        self.append(args)
        return 0.5


@pytest.mark.parametrize("name", ["call", "call_async"])
def test_a_function_that_is_false_is_used(name: str) -> None:
    sleep, random = Recorder(), Recorder()
    policy = RetryPolicy(1, 1e6, backoff_max=1e6, jitter="full", sleep=sleep, random=random)
    with pytest.raises(Down):
        POLICY[name](policy, raising(Down()))
    assert (sleep, random) == ([(5e5,)], [()])


def test_objects_that_are_false_are_used_by_the_decorators() -> None:
    class Policy(RetryPolicy):
        def __bool__(self) -> bool:
            return False

    class Config(CircuitBreakerConfig):
        def __bool__(self) -> bool:
            return False

    policy, config = Policy(7), Config(7)
    assert retry(policy=policy)(raising).retry_policy is policy
    assert circuit_breaker(config=config)(raising).circuit_breaker.config is config


class TimeLimit(Exception):
    """Like Celery's SoftTimeLimitExceeded, which a signal handler raises wherever the task is."""


@pytest.mark.parametrize("setting", ["delay", "retry_after"])
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGUSR1")
def test_time_limit_that_a_signal_handler_raises_in_them_is_not_swallowed(setting: str, clock: FakeClock) -> None:
    def handler(*_: Any) -> None:
        raise TimeLimit

    def slow(*_: Any) -> float:
        signal.raise_signal(signal.SIGUSR1)
        return 1.0

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(TimeLimit) as caught:
            policy_on(clock, **{setting: slow}).call(raising(Down()))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert type(caught.value.__context__) is Down


def test_an_unknown_setting_is_named_together_with_the_class() -> None:
    for give in (RetryPolicy, RetryPolicy().replace):
        with pytest.raises(TypeError, match=r"^RetryPolicy\(\) got an unexpected keyword argument 'attempts'"):
            give(attempts=3)  # type: ignore[call-arg, operator]


# Durations


def test_durations_may_be_timedeltas_and_read_back_as_seconds(clock: FakeClock) -> None:
    policy = policy_on(
        clock,
        backoff_base=timedelta(milliseconds=250),
        backoff_max=timedelta(minutes=1),
        max_elapsed_s=timedelta(hours=1),
        retry_after_max_s=timedelta(minutes=3),
        retry_after=lambda _: timedelta(minutes=2),
        jitter=False,
    )
    assert policy == policy_on(
        clock, backoff_base=0.25, backoff_max=60, max_elapsed_s=3600, retry_after_max_s=180,
        retry_after=policy.retry_after, jitter=False,
    )  # fmt: skip
    assert [type(vars(policy)[name]) for name in ("backoff_base", "backoff_max", "max_elapsed_s")] == [float] * 3
    give_up(policy.replace(max_retries=1))
    assert clock.sleeps == [120.25]


@pytest.mark.parametrize("setting", ["backoff_base", "backoff_max", "max_elapsed_s", "retry_after_max_s"])
def test_negative_timedelta_is_rejected(setting: str) -> None:
    with pytest.raises(ValueError, match=f"^{setting} must be"):
        RetryPolicy(**{setting: timedelta(seconds=-1)})


# Variations and copies


def through_pickle(policy: RetryPolicy) -> Any:
    return pickle.loads(pickle.dumps(policy))


def test_replace_gives_a_policy_that_differs_in_the_given_settings() -> None:
    policy = RetryPolicy(5, jitter="full", retry_after=None)
    assert policy.replace(max_retries=1) == RetryPolicy(1, jitter="full", retry_after=None)
    assert policy.replace() == policy
    assert policy.max_retries == 5
    with pytest.raises(ValueError, match="max_retries must be"):
        policy.replace(max_retries=-1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'retries'"):
        policy.replace(retries=1)


def test_policy_of_a_decorated_function_can_be_varied_and_applied_anew(clock: FakeClock) -> None:
    calls: list[int] = []

    @policy_on(clock, 3)
    def func() -> None:
        calls.append(1)
        raise Down

    once: Any = func.retry_policy.replace(max_retries=0)(func.__wrapped__)
    with pytest.raises(Down):
        once()
    assert len(calls) == 1


def test_replace_keeps_the_subclass() -> None:
    class Own(RetryPolicy):
        pass

    assert type(Own(2).replace(max_retries=1)) is Own


def test_policy_is_immutable() -> None:
    policy = RetryPolicy()
    for setting in dataclasses.fields(policy):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(policy, setting.name, None)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(policy, setting.name)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, through_pickle])
def test_copy_is_a_policy_of_its_own_that_draws_and_counts_for_itself(copied: Any, clock: FakeClock) -> None:
    policy = RetryPolicy(2, 1.0, retryable_exceptions=(OSError, Down), delay=None, max_elapsed_s=None)
    with pytest.raises(Down):
        policy.replace(sleep=clock.sleep).call(raising(Down()))
    twin = copied(policy)
    assert (twin, hash(twin)) == (policy, hash(policy))
    assert [twin.get_delay(3) for _ in range(10)] != [policy.get_delay(3) for _ in range(10)]
    assert twin.should_retry(Down())
    assert not twin.should_retry(ValueError())
    assert twin._totals is not policy._totals


def test_policy_with_functions_that_can_be_pickled_can_be_pickled() -> None:
    policy = RetryPolicy(delay=longer, retry_result=cast("Any", callable), random=half)
    twin = pickle.loads(pickle.dumps(policy))
    assert twin == policy
    assert twin.get_delay(2) == 2.0


def longer(attempt: int, error: BaseException | None) -> float:
    return float(attempt)


def half() -> float:
    return 0.5


async def later(attempt: int, error: BaseException | None) -> float:
    raise AssertionError


@pytest.mark.parametrize("bad", [3, "x", int, later])
def test_delay_that_is_not_a_function_is_rejected(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^delay must be a function"):
        RetryPolicy(delay=bad)


def test_budget_of_another_kind_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"^budget must be a RetryBudget"):
        RetryPolicy(budget=cast("Any", RetryBudget))
