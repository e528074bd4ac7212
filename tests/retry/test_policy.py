"""The policy in sync use: what is retried and for how long, what is raised in the end, and what it leaves behind."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import inspect
import logging
import math
import pickle
import signal
import sys
import threading
import time
import traceback
import weakref
from collections import UserList
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
from garbage import collect
from needs import CPYTHON, needs_reference_counts
from ways import POLICY

from circuit_breaker._common.events import RetryScheduled
from circuit_breaker._retry.budget import RetryBudget
from circuit_breaker._retry.policy import RetryPolicy
from circuit_breaker.exceptions import BulkheadFullError, CircuitOpenError
from circuit_breaker.testing import FakeClock


class Flaky:
    """A function that goes through a script: it raises what is an exception, and returns the rest."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.calls: list[Any] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        step = self.script[min(len(self.calls), len(self.script)) - 1]
        if isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
            raise step
        return step


class Hinted(Exception):
    def __init__(self, retry_after: Any) -> None:
        self.retry_after = retry_after


def policy_on(clock: FakeClock, *args: Any, **settings: Any) -> RetryPolicy:
    return RetryPolicy(*args, **{"jitter": False, "clock": clock, "sleep": clock.sleep, **settings})


def notes_of(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def empty_budget() -> RetryBudget:
    return RetryBudget(0, 0, 0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


# Retrying


def test_function_that_recovers_is_called_with_the_same_arguments_until_it_does(clock: FakeClock) -> None:
    func = Flaky(OSError, ValueError, "done")
    assert policy_on(clock).call(func, 1, two=2) == "done"
    assert func.calls == [((1,), {"two": 2})] * 3
    assert clock.sleeps == [0.1, 0.2]


def test_function_that_succeeds_at_once_is_called_once_with_one_look_at_the_clock() -> None:
    looks: list[float] = []

    def clock() -> float:
        looks.append(1.0)
        return 1.0

    policy = RetryPolicy(max_elapsed_s=1.0, listeners=[print], clock=clock, sleep=looks.append)
    assert policy.call(Flaky("done")) == "done"
    assert looks == [1.0]


def test_when_attempts_run_out_the_last_error_itself_is_raised_with_its_whole_traceback(clock: FakeClock) -> None:
    first, last = OSError("first"), OSError("last")

    def dig(error: OSError) -> None:
        raise error

    errors = iter([first, last])
    with pytest.raises(OSError) as caught:
        policy_on(clock, 1).call(lambda: dig(next(errors)))
    assert caught.value is last
    assert [frame.name for frame in traceback.extract_tb(caught.tb)][-2:] == ["<lambda>", "dig"]
    assert notes_of(last) == ["RetryPolicy gave up after 2 attempts in 0.10 s: no retries left"]
    assert notes_of(first) == []
    assert last.__context__ is None


def test_no_retries_means_one_attempt(clock: FakeClock) -> None:
    func = Flaky(OSError)
    with pytest.raises(OSError) as caught:
        policy_on(clock, 0).call(func)
    assert len(func.calls) == 1
    assert clock.sleeps == []
    assert notes_of(caught.value) == ["RetryPolicy gave up after 1 attempt in 0.00 s: no retries left"]


def test_without_a_limit_it_retries_until_it_succeeds(clock: FakeClock) -> None:
    func = Flaky(*[OSError] * 500, "done")
    assert policy_on(clock, None).call(func) == "done"
    assert len(func.calls) == 501
    assert set(clock.sleeps[20:]) == {30.0}


@needs_reference_counts
def test_only_the_last_error_is_kept_during_a_sleep_and_none_after_it() -> None:
    kept: list[weakref.ref[BaseException]] = []

    def alive() -> list[bool]:
        return [reference() is not None for reference in kept]

    def fail_twice() -> None:
        assert alive() == [False] * len(kept)
        if len(kept) < 2:
            error = Hinted(None)
            kept.append(weakref.ref(error))
            try:
                raise error
            finally:
                del error

    def sleep(seconds: float) -> None:
        assert alive() == [False] * (len(kept) - 1) + [True]

    gc.disable()
    try:
        RetryPolicy(sleep=sleep).call(fail_twice)
    finally:
        gc.enable()
    assert alive() == [False, False]


def test_default_sleep_is_that_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps: list[float] = []
    monkeypatch.setattr(time, "sleep", sleeps.append)
    RetryPolicy(jitter=False).call(Flaky(OSError, "done"))
    RetryPolicy(None, sys.float_info.max, backoff_max=math.inf, jitter=False).call(Flaky(OSError, "done"))
    assert sleeps == [0.1, 1e9]


# What is retried


@pytest.mark.parametrize(
    ("retryable", "error", "expected"),
    [
        (None, OSError(), True),
        (None, StopIteration(), True),
        (None, CircuitOpenError("open"), False),
        (None, BulkheadFullError("full"), False),
        (None, KeyboardInterrupt(), False),
        (None, GeneratorExit(), False),
        (None, asyncio.CancelledError(), False),
        ((), OSError(), False),
        (OSError, ConnectionError(), True),
        (OSError, ValueError(), False),
        ((OSError, (ValueError,)), ValueError(), True),
        (OSError | ValueError, ValueError(), True),
        (Exception, CircuitOpenError("open"), False),
        (BaseException, KeyboardInterrupt(), False),
        (CircuitOpenError, CircuitOpenError("open"), True),
        (CircuitOpenError, BulkheadFullError("full"), False),
        ((OSError, BulkheadFullError), BulkheadFullError("full"), True),
        (lambda error: True, BulkheadFullError("full"), False),
        (lambda error: True, KeyboardInterrupt(), False),
        (lambda error: error.args == ("yes",), OSError("yes"), True),
        (lambda error: error.args == ("yes",), OSError("no"), False),
        (lambda error: 1, OSError(), True),
        (OSError, ExceptionGroup("", [OSError(), ConnectionError()]), True),
        (OSError, ExceptionGroup("", [OSError(), ExceptionGroup("", [ValueError()])]), False),
        (None, ExceptionGroup("", [OSError(), CircuitOpenError("open")]), False),
        (None, BaseExceptionGroup("", [OSError(), KeyboardInterrupt()]), False),
        (lambda error: not isinstance(error, ExceptionGroup), ExceptionGroup("", [OSError()]), True),
    ],
)
def test_should_retry_judges_by_kind_and_groups_leaf_by_leaf(
    retryable: Any, error: BaseException, expected: bool, clock: FakeClock
) -> None:
    policy = policy_on(clock, 1, retryable_exceptions=retryable)
    assert policy.should_retry(error) is expected
    func = Flaky(error)
    with pytest.raises(type(error)):
        policy.call(func)
    assert len(func.calls) == (2 if expected else 1)
    if not expected:
        assert notes_of(error) == []


def test_base_exception_group_of_exceptions_alone_is_retried(clock: FakeClock) -> None:
    class Group(BaseExceptionGroup[Any]):
        pass

    assert policy_on(clock).call(Flaky(Group("", [OSError()]), "done")) == "done"


def test_error_that_is_not_retried_after_others_were_is_raised_with_a_note(clock: FakeClock) -> None:
    with pytest.raises(ValueError) as caught:
        policy_on(clock, retryable_exceptions=OSError).call(Flaky(OSError, ValueError))
    assert notes_of(caught.value) == ["RetryPolicy gave up after 2 attempts in 0.10 s: ValueError is not retried"]


def test_predicate_that_raises_reaches_the_caller_chained(clock: FakeClock) -> None:
    def broken(error: BaseException) -> bool:
        raise ZeroDivisionError

    func = Flaky(OSError)
    with pytest.raises(ZeroDivisionError) as caught:
        policy_on(clock, retryable_exceptions=broken).call(func)
    assert type(caught.value.__context__) is OSError
    assert len(func.calls) == 1


def test_subclass_may_decide_for_itself(clock: FakeClock) -> None:
    class Own(RetryPolicy):
        def get_delay(self, attempt: int) -> float:
            return 7.0 + attempt

        def should_retry(self, exception: BaseException) -> bool:
            return exception.args == ("again",)

    policy = Own(sleep=clock.sleep)
    with pytest.raises(OSError, match="enough"):
        policy.call(Flaky(OSError("again"), OSError("again"), OSError("enough")))
    assert clock.sleeps == [7.0, 8.0]


# Values


def test_bad_value_is_tried_again_and_a_good_one_returned(clock: FakeClock) -> None:
    func = Flaky(503, OSError, 503, 200)
    assert policy_on(clock, retry_result=lambda status: status == 503).call(func) == 200
    assert clock.sleeps == [0.1, 0.2, 0.4]


def test_good_value_at_once_does_not_sleep(clock: FakeClock) -> None:
    assert policy_on(clock, retry_result=lambda status: status == 503).call(Flaky(200)) == 200
    assert clock.sleeps == []


def test_value_that_stays_bad_is_returned(clock: FakeClock) -> None:
    func = Flaky(503)
    assert policy_on(clock, 2, retry_result=lambda status: status == 503).call(func) == 503
    assert len(func.calls) == 3


@pytest.mark.parametrize("settings", [{"max_retries": 0}, {"budget": empty_budget()}, {"max_elapsed_s": 0.05}])
def test_bad_value_without_another_attempt_is_returned_at_once(settings: Any, clock: FakeClock) -> None:
    assert policy_on(clock, retry_result=lambda _: True, **settings).call(Flaky(503)) == 503
    assert clock.sleeps == []


def test_predicate_on_the_value_that_raises_reaches_the_caller(clock: FakeClock) -> None:
    func = Flaky(503)
    with pytest.raises(ZeroDivisionError):
        policy_on(clock, retry_result=lambda status: status / 0).call(func)
    assert len(func.calls) == 1


# The deadline


@pytest.mark.parametrize("jitter", [True, False, "full"])
@pytest.mark.parametrize("max_elapsed_s", [0.05, 1.0, 5.0, 100.0])
def test_no_sleep_crosses_the_deadline(jitter: bool, max_elapsed_s: float, clock: FakeClock) -> None:
    started = clock()
    policy = policy_on(clock, None, jitter=jitter, max_elapsed_s=max_elapsed_s, random=Random(1).random)
    begun: list[float] = []

    def work() -> None:
        begun.append(clock() - started)
        clock.advance(0.001)
        raise OSError

    with pytest.raises(OSError) as caught:
        policy.call(work)
    assert notes_of(caught.value)[0].endswith(f"the next would come past the deadline of {max_elapsed_s:g} s")
    assert len(begun) > 1 or max_elapsed_s < 0.1
    assert begun[-1] <= max_elapsed_s


def test_sleep_that_ends_at_the_deadline_is_made(clock: FakeClock) -> None:
    func = Flaky(OSError)
    with pytest.raises(OSError):
        policy_on(clock, None, 1.0, max_elapsed_s=3.0).call(func)
    assert clock.sleeps == [1.0, 2.0]
    assert len(func.calls) == 3


def test_deadline_counts_from_the_start_of_the_first_attempt(clock: FakeClock) -> None:
    def slow() -> None:
        clock.advance(10.0)
        raise OSError

    with pytest.raises(OSError) as caught:
        policy_on(clock, max_elapsed_s=10.0).call(slow)
    assert clock.sleeps == []
    assert notes_of(caught.value) == [
        "RetryPolicy gave up after 1 attempt in 10.00 s: the next would come past the deadline of 10 s"
    ]


# The server's hint


@pytest.mark.parametrize(
    ("hint_s", "delay_s"), [(5, 5.1), (0.01, 0.11), (120.0, 120.1), (None, 0.1), (0, 0.1), ("soon", 0.1), (-5, 0.1)]
)
def test_hint_is_honoured_in_full_and_the_usual_delay_added(hint_s: Any, delay_s: float, clock: FakeClock) -> None:
    policy_on(clock).call(Flaky(Hinted(hint_s), "done"))
    assert clock.sleeps == [pytest.approx(delay_s)]


def test_hint_is_not_cut_by_the_longest_delay(clock: FakeClock) -> None:
    policy_on(clock, backoff_max=1.0).call(Flaky(Hinted(60), "done"))
    assert clock.sleeps == [60.1]


def test_clients_that_are_given_the_same_hint_do_not_return_together(clock: FakeClock) -> None:
    policy = policy_on(clock, jitter=True, random=Random(3).random)
    for _ in range(100):
        policy.call(Flaky(Hinted(30), "done"))
    assert len(set(clock.sleeps)) == 100
    assert min(clock.sleeps) >= 30.05
    assert max(clock.sleeps) <= 30.15


def test_deadline_holds_for_hint_and_delay_together(clock: FakeClock) -> None:
    policy_on(clock, max_elapsed_s=5.1).call(Flaky(Hinted(5), "done"))
    with pytest.raises(Hinted):
        policy_on(clock, max_elapsed_s=5.05).call(Flaky(Hinted(5)))
    assert clock.sleeps == [5.1]


def test_hint_in_a_bad_value_is_honoured_as_one_in_an_error(clock: FakeClock) -> None:
    class Response:
        def __init__(self, status: int, **headers: str) -> None:
            self.status = status
            self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    policy = policy_on(clock, retry_result=lambda response: response.status == 503, retry_after_max_s=60)
    good = Response(200)
    assert policy.call(Flaky(Response(503, retry_after="7"), Response(503), good)) is good
    assert clock.sleeps == [7.1, 0.2]
    late = Response(503, retry_after="61")
    assert policy.call(Flaky(late)) is late
    assert len(clock.sleeps) == 2


def test_hint_function_of_the_callers_own_is_asked_about_a_bad_value(clock: FakeClock) -> None:
    policy = policy_on(clock, retry_result=lambda value: value < 0, retry_after=lambda value: -value)
    assert policy.call(Flaky(-5, 1)) == 1
    assert clock.sleeps == [5.1]


def test_hint_that_is_too_long_ends_the_attempts(clock: FakeClock) -> None:
    with pytest.raises(Hinted) as caught:
        policy_on(clock).call(Flaky(Hinted(121)))
    assert clock.sleeps == []
    assert notes_of(caught.value) == [
        "RetryPolicy gave up after 1 attempt in 0.00 s: the server asked for 121 s, longer than the 120 s allowed"
    ]


def test_hint_beyond_the_deadline_ends_the_attempts(clock: FakeClock) -> None:
    with pytest.raises(Hinted):
        policy_on(clock, max_elapsed_s=10.0).call(Flaky(Hinted(11)))
    assert clock.sleeps == []


def test_of_a_group_the_longest_hint_counts(clock: FakeClock) -> None:
    group = ExceptionGroup("", [Hinted(3), ExceptionGroup("", [Hinted(8), OSError()])])
    policy_on(clock).call(Flaky(group, "done"))
    assert clock.sleeps == [8.1]


def test_hint_in_a_group_that_is_not_an_exception_counts_too(clock: FakeClock) -> None:
    class Group(BaseExceptionGroup[Any]):
        pass

    policy_on(clock).call(Flaky(Group("", [Hinted(3)]), "done"))
    assert clock.sleeps == [3.1]


def test_without_a_hint_function_only_that_of_a_circuit_counts(clock: FakeClock) -> None:
    policy = policy_on(clock, retry_after=None, retryable_exceptions=(Hinted, CircuitOpenError))
    policy.call(Flaky(Hinted(5), CircuitOpenError("open", retry_after_s=4.0), "done"))
    assert clock.sleeps == [0.1, 4.2]


def test_hint_function_of_the_callers_own_is_asked_about_each_leaf(clock: FakeClock) -> None:
    asked: list[BaseException] = []

    def read(error: BaseException) -> float:
        asked.append(error)
        return math.inf if isinstance(error, ValueError) else 2.0

    leaf, late = OSError(), ValueError()
    with pytest.raises(ValueError):
        policy_on(clock, retry_after=read).call(Flaky(ExceptionGroup("", [leaf]), late))
    assert asked == [leaf, late]
    assert clock.sleeps == [2.1]


@pytest.mark.parametrize("hint_s", ["3", math.nan, -1.0, True, [], ZeroDivisionError])
def test_hint_function_that_raises_or_gives_no_seconds_is_logged_and_no_hint(
    hint_s: Any, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    def read(error: BaseException) -> Any:
        if hint_s is ZeroDivisionError:
            raise hint_s
        return hint_s

    assert policy_on(clock, retry_after=read).call(Flaky(OSError, "done")) == "done"
    assert clock.sleeps == [0.1]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "read" in caplog.text


@pytest.mark.parametrize(("retry_after_s", "sleeps"), [(40.0, [40.1]), (0.0, [0.1]), (None, [0.1])])
def test_open_circuit_that_is_listed_is_not_retried_before_its_time(
    retry_after_s: float | None, sleeps: list[float], clock: FakeClock
) -> None:
    func = Flaky(CircuitOpenError("open", "api", retry_after_s=retry_after_s), "done")
    assert policy_on(clock, retryable_exceptions=CircuitOpenError).call(func) == "done"
    assert clock.sleeps == sleeps


@pytest.mark.parametrize("retry_after_s", [121.0, math.inf])
def test_circuit_that_stays_open_for_too_long_ends_the_attempts(retry_after_s: float, clock: FakeClock) -> None:
    func = Flaky(CircuitOpenError("open", "api", retry_after_s=retry_after_s))
    with pytest.raises(CircuitOpenError):
        policy_on(clock, retryable_exceptions=CircuitOpenError).call(func)
    assert clock.sleeps == []


# The budget


def test_each_retry_takes_a_token_and_an_empty_budget_raises_now(clock: FakeClock) -> None:
    budget = RetryBudget(0, 0, 3, clock=clock)
    policies = [policy_on(clock, 2, budget=budget) for _ in range(2)]
    with pytest.raises(OSError) as caught:
        policies[0].call(Flaky(OSError))
    assert notes_of(caught.value)[0].endswith("no retries left")
    assert budget.tokens == 1
    with pytest.raises(OSError) as caught:
        policies[1].call(Flaky(OSError))
    assert notes_of(caught.value) == ["RetryPolicy gave up after 2 attempts in 0.10 s: the retry budget is empty"]
    assert len(clock.sleeps) == 3


def test_each_call_puts_its_ratio_in_once_whatever_comes_of_it(clock: FakeClock) -> None:
    budget = RetryBudget(0.5, 0, 10, clock=clock)
    for _ in range(10):
        budget.take()
    policy = policy_on(clock, budget=budget)
    policy.call(Flaky("done"))
    assert budget.tokens == 0.5
    with pytest.raises(OSError):
        policy.call(Flaky(OSError))
    assert budget.tokens == 0.0
    with pytest.raises(KeyboardInterrupt):
        policy.call(Flaky(KeyboardInterrupt))
    assert budget.tokens == 0.5


@pytest.mark.parametrize("settings", [{"max_retries": 0}, {"max_elapsed_s": 0.01}, {"retryable_exceptions": ()}])
def test_error_that_is_not_retried_for_another_reason_takes_no_token(settings: Any, clock: FakeClock) -> None:
    budget = RetryBudget(0, 0, 1)
    with pytest.raises(OSError):
        policy_on(clock, budget=budget, **settings).call(Flaky(OSError))
    assert budget.tokens == 1


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, OSError])
def test_sleep_that_is_interrupted_gives_its_token_back_and_the_error_passes(interrupt: type[BaseException]) -> None:
    budget = RetryBudget(0, 0, 1)
    func = Flaky(ValueError)
    with pytest.raises(interrupt):
        RetryPolicy(budget=budget, sleep=Flaky(interrupt)).call(func)
    assert budget.tokens == 1
    assert len(func.calls) == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers")
def test_ctrl_c_ends_a_sleep_at_once() -> None:
    asleep: list[float] = []
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        policy = RetryPolicy(None, 3_600.0, backoff_max=3_600.0, listeners=[lambda event: asleep.append(event.delay_s)])
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt):
            policy.call(Flaky(OSError))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(asleep) == 1


# The note


def test_one_object_raised_ten_thousand_times_carries_one_note_of_ours_the_latest(clock: FakeClock) -> None:
    error = OSError("down")
    error.add_note("theirs")
    policy = policy_on(clock, 1)
    for _ in range(10_000):
        with pytest.raises(OSError):
            policy.call(Flaky(error))
    with pytest.raises(OSError):
        policy_on(clock, 2).call(Flaky(error))
    assert error.__notes__ == ["theirs", "RetryPolicy gave up after 3 attempts in 0.30 s: no retries left"]


def test_one_object_raised_in_many_threads_at_once_carries_one_note_of_ours() -> None:
    error = OSError("down")
    policy = RetryPolicy(0)
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        for _ in range(200):
            with pytest.raises(OSError):
                policy.call(Flaky(error))

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work) for _ in range(8)]:
            future.result()
    assert len(error.__notes__) == 1


def test_policy_inside_a_policy_leaves_the_note_of_the_outer(clock: FakeClock) -> None:
    inner = policy_on(clock, 2)
    with pytest.raises(OSError) as caught:
        policy_on(clock, 1).call(inner.call, Flaky(OSError))
    assert notes_of(caught.value) == ["RetryPolicy gave up after 2 attempts in 0.70 s: no retries left"]


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int = 3


class Slotted(Exception):
    __slots__ = ("code",)


def test_error_that_rejects_assignments_or_has_slots_still_takes_a_note(clock: FakeClock) -> None:
    for error in (Frozen(), Slotted()):
        with pytest.raises(type(error)) as caught:
            policy_on(clock, 0).call(Flaky(error))
        assert len(notes_of(caught.value)) == 1


class Closed(Exception):
    __notes__ = property(lambda self: [])  # type: ignore[assignment]


class Trap(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise ZeroDivisionError(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise ZeroDivisionError(name)


class Odd(Exception):
    __notes__ = "not a list"  # type: ignore[assignment]


class Mute:
    def __str__(self) -> str:
        raise ZeroDivisionError


class Listed(Exception):
    def __init__(self) -> None:
        self.__notes__ = [Mute()]  # type: ignore[list-item]


class Derived(Exception):
    def __init__(self) -> None:
        self.__notes__ = UserList(["theirs"])  # type: ignore[assignment]


NEEDS_CPYTHON = pytest.mark.skipif(not CPYTHON, reason="PyPy cannot even raise it")


@pytest.mark.parametrize("kind", [Closed, pytest.param(Trap, marks=NEEDS_CPYTHON), Odd, Listed, Derived])
def test_error_that_takes_no_note_is_raised_as_it_is(kind: type[Exception], clock: FakeClock) -> None:
    error = kind()
    func = Flaky(error)
    try:
        policy_on(clock, 1).call(func)
    except Exception as caught:
        assert caught is error
    assert len(func.calls) == 2


def test_first_try_under_a_budget_gives_its_value_or_raises_what_is_not_retried(clock: FakeClock) -> None:
    policy = policy_on(clock, 3, budget=RetryBudget(), retryable_exceptions=OSError)
    assert policy.call(Flaky("done")) == "done"
    func = Flaky(ValueError, "done")
    with pytest.raises(ValueError):
        policy.call(func)
    assert len(func.calls) == 1
    assert clock.sleeps == []


def test_hint_of_half_a_second_is_honoured(clock: FakeClock) -> None:
    with pytest.raises(Hinted):
        policy_on(clock, 1, 0.25).call(Flaky(Hinted(0.5)))
    assert clock.sleeps == [0.75]


def test_hint_that_cannot_be_read_is_logged_with_its_error(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    problem = ZeroDivisionError()

    def ask(error: BaseException) -> float:
        raise problem

    with pytest.raises(OSError):
        policy_on(clock, 1, retry_after=ask).call(Flaky(OSError))
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[1] is problem


def test_ctrl_c_while_a_hint_is_read_passes(clock: FakeClock) -> None:
    def ask(error: BaseException) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        policy_on(clock, 1, retry_after=ask).call(Flaky(OSError))


def test_ctrl_c_while_a_note_is_put_on_an_error_passes(clock: FakeClock) -> None:
    class Noted:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    error = OSError()
    error.__notes__ = [Noted()]  # type: ignore[list-item]
    with pytest.raises(KeyboardInterrupt):
        policy_on(clock, 1).call(Flaky(error))


class TimeLimit(Exception):
    """Like Celery's SoftTimeLimitExceeded, which a signal handler raises wherever the task is."""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGUSR1")
def test_time_limit_that_a_signal_handler_raises_while_a_note_is_put_on_an_error_passes(clock: FakeClock) -> None:
    class Noted:
        def __str__(self) -> str:
            signal.raise_signal(signal.SIGUSR1)
            return "theirs"

    def handler(*_: Any) -> None:
        raise TimeLimit

    error = OSError()
    error.__notes__ = [Noted()]  # type: ignore[list-item]
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(TimeLimit):
            policy_on(clock, 1).call(Flaky(error))
    finally:
        signal.signal(signal.SIGUSR1, before)


# Listeners


def test_listeners_hear_of_each_retry_before_its_sleep(clock: FakeClock) -> None:
    told: list[Any] = []
    first = OSError("first")

    def work() -> int:
        clock.advance(1.0)
        if len(told) < 1:
            raise first
        return len(told)

    listeners = [lambda event: told.append((event, clock()))]
    policy = policy_on(clock, 3, 0.5, retry_result=lambda count: count < 2, listeners=listeners)
    assert policy.call(work) == 2
    name = f"{__name__}.test_listeners_hear_of_each_retry_before_its_sleep.<locals>.work"
    assert told == [
        (RetryScheduled(0, 0.5, first, 1.0, name), 1_001.0),
        (RetryScheduled(1, 1.0, None, 2.5, name), 1_002.5),
    ]


def test_listener_that_raises_changes_nothing(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []
    policy = policy_on(clock, 2, listeners=[Flaky(ZeroDivisionError), told.append])
    with pytest.raises(OSError) as caught:
        policy.call(Flaky(OSError))
    assert clock.sleeps == [0.1, 0.2]
    assert [type(event).__name__ for event in told] == ["RetryScheduled", "RetryScheduled", "RetryGaveUp"]
    assert caught.value.__context__ is None
    assert [record.levelno for record in caplog.records if record.levelno != logging.WARNING] == [logging.ERROR] * 3


def test_listener_that_exits_ends_the_call_chained_and_the_token_is_given_back(clock: FakeClock) -> None:
    budget = RetryBudget(0, 0, 1)
    with pytest.raises(SystemExit) as caught:
        policy_on(clock, budget=budget, listeners=[Flaky(SystemExit)]).call(Flaky(OSError))
    assert type(caught.value.__context__) is OSError
    assert clock.sleeps == []
    assert budget.tokens == 1


# Sleeping


def test_async_sleep_in_sync_use_is_a_type_error_and_nothing_is_left_unawaited() -> None:
    budget = RetryBudget(0, 0, 1)
    with pytest.raises(TypeError, match="sleep must not be async in sync use"):
        RetryPolicy(sleep=asyncio.sleep, budget=budget).call(Flaky(OSError))
    collect()
    assert budget.tokens == 1


def test_sleep_that_gives_something_to_await_in_sync_use_is_a_type_error() -> None:
    class Later:
        def __await__(self) -> Iterator[None]:
            return iter(())

    with pytest.raises(TypeError, match="sleep must not be async in sync use"):
        RetryPolicy(sleep=lambda _: Later()).call(Flaky(OSError))


# Kinds of functions


def test_call_rejects_what_it_cannot_call() -> None:
    async def coroutine() -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="use call_async"):
        RetryPolicy().call(coroutine)
    with pytest.raises(TypeError, match="pass the function itself"):
        RetryPolicy().call(coroutine())
    with pytest.raises(TypeError, match="func must be a function"):
        RetryPolicy().call(3)


RETURNING = {name: way for name, way in POLICY.items() if way.returns and not way.is_async and "attempts" not in name}


@pytest.mark.parametrize("settings", [{}, {"budget": RetryBudget()}, {"retry_result": lambda value: value is None}])
@pytest.mark.parametrize("earlier", [(), (7, 7), (OSError,)], ids=["at first", "after values", "after an error"])
@pytest.mark.parametrize("name", RETURNING)
def test_plain_function_that_returns_a_coroutine_is_rejected_and_the_coroutine_closed(
    name: str, earlier: tuple[Any, ...], settings: Any, clock: FakeClock
) -> None:
    made: list[Any] = []

    async def work() -> None:
        raise AssertionError

    def body() -> Any:
        if rest:
            step = rest.pop(0)
            if step is OSError:
                raise step
            return step
        made.append(work())
        return made[-1]

    rest = list(earlier)
    call = RETURNING[name].ready(policy_on(clock, **settings), body)
    for value in earlier:
        if value is not OSError:
            assert call() == value
    with pytest.raises(TypeError, match="which must be awaited"):
        call()
    (coroutine,) = made  # not retried
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_call_rejects_an_iteration_but_takes_a_function_that_only_returns_one(clock: FakeClock) -> None:
    def items() -> Iterator[int]:
        yield 1

    async def async_items() -> Any:
        yield 1

    for func in (items, async_items):
        with pytest.raises(TypeError, match=r"cannot guard the iteration .* use a decorator"):
            policy_on(clock).call(func)
    assert list(policy_on(clock).call(lambda: items())) == [1]
    assert clock.sleeps == []


def test_decorated_function_keeps_its_face_and_carries_its_policy(clock: FakeClock) -> None:
    policy = policy_on(clock)
    results = iter([OSError(), 7])

    @policy
    def number(plus: int) -> int:
        """Give a number."""
        result = next(results)
        if isinstance(result, OSError):
            raise result
        return result + plus

    assert number(1) == 8
    assert (number.__name__, number.__doc__, number.retry_policy) == ("number", "Give a number.", policy)
    assert str(inspect.signature(number)) == "(plus: 'int') -> 'int'"


def test_methods_of_every_kind_are_retried(clock: FakeClock) -> None:
    policy = policy_on(clock)
    calls: list[Any] = []

    def fail_first(who: Any) -> Any:
        calls.append(who)
        if len(calls) % 2:
            raise OSError
        return who

    class Client:
        @policy
        def method(self) -> Any:
            return fail_first(self)

        @policy
        @staticmethod
        def outside_static() -> Any:
            return fail_first("static")

        @staticmethod
        @policy
        def inside_static() -> Any:
            return fail_first("static")

        @policy
        @classmethod
        def outside_class(cls) -> Any:
            return fail_first(cls)

        @classmethod
        @policy
        def inside_class(cls) -> Any:
            return fail_first(cls)

    client = Client()
    assert client.method() is client
    assert (client.outside_static(), Client.inside_static()) == ("static", "static")
    assert (client.outside_class(), Client.inside_class()) == (Client, Client)
    assert len(calls) == 10
    assert Client.method.retry_policy is policy


# Streams


def test_generator_is_retried_until_its_first_item_and_then_its_errors_pass(clock: FakeClock) -> None:
    begun: list[int] = []

    @policy_on(clock)
    def numbers(start: int) -> Iterator[int]:
        begun.append(start)
        if len(begun) < 3:
            raise OSError("before")
        yield start
        raise OSError("after")

    stream = numbers(5)
    assert begun == []
    assert next(stream) == 5
    with pytest.raises(OSError, match="after") as caught:
        next(stream)
    assert begun == [5, 5, 5]
    assert clock.sleeps == [0.1, 0.2]
    assert notes_of(caught.value) == []


def test_generator_that_never_begins_raises_its_error_with_a_note(clock: FakeClock) -> None:
    @policy_on(clock, 1)
    def numbers() -> Iterator[int]:
        raise OSError
        yield 1

    with pytest.raises(OSError) as caught:
        next(numbers())
    assert len(notes_of(caught.value)) == 1


def test_empty_generator_is_a_success_and_gives_its_value(clock: FakeClock) -> None:
    begun: list[int] = []

    @policy_on(clock, retry_result=lambda _: True)
    def nothing() -> Any:
        begun.append(1)
        if len(begun) < 2:
            raise OSError
        return "value"
        yield

    def outer() -> Any:
        return (yield from nothing())

    with pytest.raises(StopIteration) as stop:
        next(outer())
    assert stop.value.value == "value"
    assert len(begun) == 2


def test_generator_passes_everything_between_consumer_and_body(clock: FakeClock) -> None:
    heard: list[Any] = []

    @policy_on(clock)
    def talk() -> Any:
        try:
            heard.append((yield 1))
            try:
                yield 2
            except ValueError as error:
                heard.append(error)
            yield 3
        finally:
            heard.append("closed")

    stream = talk()
    error = ValueError()
    assert (next(stream), stream.send("hello"), stream.throw(error)) == (1, 2, 3)
    stream.close()
    assert heard == ["hello", error, "closed"]
    assert inspect.isgeneratorfunction(talk)


# Sharing


def test_policy_used_by_sixteen_threads_keeps_no_state_between_calls() -> None:
    policy = RetryPolicy(4, 0.0, sleep=lambda _: None)
    before = dict(vars(policy))
    barrier = threading.Barrier(16)

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(50):
            failures = (number + turn) % 6
            func = Flaky(*[OSError] * failures, number)
            if failures <= 4:
                assert policy.call(func) == number
                assert len(func.calls) == failures + 1
            else:
                with pytest.raises(OSError) as caught:
                    policy.call(func)
                assert "after 5 attempts" in notes_of(caught.value)[0]

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(work, number) for number in range(16)]:
            future.result()
    assert vars(policy) == before


def test_policy_is_immutable_compared_by_value_and_replaceable() -> None:
    policy = RetryPolicy(5)
    with pytest.raises(AttributeError):
        policy.max_retries = 3
    assert policy == RetryPolicy(max_retries=5)
    assert hash(policy) == hash(RetryPolicy(max_retries=5))
    assert dataclasses.replace(policy, jitter="full") == RetryPolicy(5, jitter="full")
    assert weakref.ref(policy)() is policy


def test_policy_survives_copying_and_pickling_if_its_parts_do() -> None:
    policy = RetryPolicy(2, jitter="full", retryable_exceptions=(OSError, CircuitOpenError), max_elapsed_s=3)
    for twin in (copy.copy(policy), copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert twin == policy
        assert twin.should_retry(CircuitOpenError("open"))
        assert not twin.should_retry(ValueError())
    with pytest.raises(TypeError, match="RetryBudget cannot be copied or pickled"):
        pickle.dumps(RetryPolicy(budget=RetryBudget()))


# Settings


def test_settings_can_be_read_back_in_plain_form() -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    budget = RetryBudget()
    policy = RetryPolicy(Three(), 1, Three(), math.inf, "full", OSError, budget=budget, listeners=[print])
    assert (policy.max_retries, policy.backoff_base, policy.backoff_multiplier) == (3, 1.0, 3.0)
    assert (policy.backoff_max, policy.jitter, policy.retryable_exceptions) == (math.inf, "full", OSError)
    assert (policy.budget, policy.listeners) == (budget, (print,))


NUMBERS = {
    "backoff_base": (-0.1, math.nan, math.inf),
    "backoff_multiplier": (0.99, -1, math.nan, math.inf),
    "backoff_max": (-0.1, math.nan),
    "max_elapsed_s": (0, -0.1, math.nan, math.inf),
    "retry_after_max_s": (-0.1, math.nan, math.inf),
}


async def not_plain(*args: Any) -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("setting", "bad", "error"),
    [
        *((name, bad, ValueError) for name, values in NUMBERS.items() for bad in values),
        *((name, bad, TypeError) for name in NUMBERS for bad in (True, "3", [], 1j)),
        *((name, None, TypeError) for name in NUMBERS if name != "max_elapsed_s"),
        *(("max_retries", bad, TypeError) for bad in (True, "3", 2.5, math.nan, [])),
        ("max_retries", -1, ValueError),
        *(("jitter", bad, TypeError) for bad in (None, 1, 0.5)),
        *(("jitter", bad, ValueError) for bad in ("half", "")),
        *(("retryable_exceptions", bad, TypeError) for bad in ([OSError], {OSError}, "OSError", 3, int, (OSError, 3))),
        *(("retryable_exceptions", bad, TypeError) for bad in (not_plain, OSError(), (OSError, lambda error: True))),
        *(("retryable_exceptions", bad, ValueError) for bad in (KeyboardInterrupt, (OSError, asyncio.CancelledError))),
        *(
            (name, bad, TypeError)
            for name in ("retry_result", "retry_after", "random")
            for bad in (3, "x", not_plain, int)
        ),
        *(("clock", bad, TypeError) for bad in (None, 3, not_plain, int)),
        *(("sleep", bad, TypeError) for bad in (3, "x", int)),
        *(("budget", bad, TypeError) for bad in (3, True, RetryBudget, 0.2)),
        *(("listeners", bad, TypeError) for bad in (print, None, 3, "x", [3], [not_plain])),
    ],
)
def test_bad_setting_is_rejected_by_name(setting: str, bad: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{setting}.* must be"):
        RetryPolicy(**{setting: bad})


def test_list_of_types_gets_the_advice_to_use_a_tuple() -> None:
    with pytest.raises(TypeError, match="a tuple is meant"):
        RetryPolicy(retryable_exceptions=[OSError])


def test_a_server_may_be_heeded_for_less_than_a_second_or_not_at_all() -> None:
    assert [RetryPolicy(retry_after_max_s=most).retry_after_max_s for most in (0, 0.5)] == [0.0, 0.5]
