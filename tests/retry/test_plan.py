"""What is reported of a failed attempt: to listeners, to the log, and by the note, in every way of calling."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from coroutines import drive
from ways import POLICY, POLICY_BY_HAND

from circuit_breaker import RetryBudget, RetryGaveUp, RetryPolicy, RetryScheduled, UsageError, retry
from circuit_breaker.testing import FakeClock

EVERY = {**POLICY, **POLICY_BY_HAND}


class Script:
    """A function that raises what is an exception in its script, and returns the rest."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)

    def __call__(self) -> Any:
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, type) and issubclass(step, BaseException):
            raise step
        return step


def policy_on(clock: FakeClock, *args: Any, **settings: Any) -> RetryPolicy:
    return RetryPolicy(*args, **{"jitter": False, "clock": clock, "sleep": clock.sleep, **settings})


def caught(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as raised:
        call()
    return raised.value


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "circuit_breaker")
    return caplog


# Listeners


@pytest.mark.parametrize("name", EVERY)
def test_listeners_are_notified_of_each_retry_and_of_giving_up(name: str, clock: FakeClock, told: list[Any]) -> None:
    policy = policy_on(clock, 2, 1.0, listeners=[told.append])
    error = caught(EVERY[name].ready(policy, Script(OSError)))
    known = None if EVERY[name].by_hand else error
    *retries, gave_up = told
    assert [type(event) for event in retries] == [RetryScheduled] * 2
    assert [(event.attempt, event.delay_s, event.elapsed_s) for event in retries] == [(0, 1.0, 0.0), (1, 2.0, 1.0)]
    assert [type(event.error) for event in retries] == [type(known)] * 2
    assert type(gave_up) is RetryGaveUp
    assert (gave_up.attempts, gave_up.elapsed_s, gave_up.reason) == (3, 3.0, "no retries left")
    assert gave_up.error is known
    assert {event.function for event in told} == {gave_up.function}
    assert (gave_up.function is None) is ("attempts" in name)


def test_bare_loop_that_runs_out_gives_up_without_an_error(clock: FakeClock, told: list[Any]) -> None:
    list(policy_on(clock, 1, 1.0, listeners=[told.append]).attempts())
    assert told == [RetryScheduled(0, 1.0, None, 0.0), RetryGaveUp(2, 1.0, "no retries left", None)]


@pytest.mark.parametrize("name", [name for name, way in POLICY.items() if way.returns])
def test_value_that_stays_bad_is_given_up_without_an_error(name: str, clock: FakeClock, told: list[Any]) -> None:
    policy = policy_on(clock, 1, retry_result=lambda value: value == 503, listeners=[told.append])
    assert POLICY[name].ready(policy, Script(503))() == 503
    assert [type(event) for event in told] == [RetryScheduled, RetryGaveUp]
    assert [event.error for event in told] == [None, None]
    assert told[1].reason == "no retries left"


@pytest.mark.parametrize("name", POLICY)
def test_error_that_is_not_retried_is_given_up_only_after_others_were(
    name: str, clock: FakeClock, told: list[Any]
) -> None:
    policy = policy_on(clock, retryable_exceptions=OSError, listeners=[told.append])
    caught(POLICY[name].ready(policy, Script(ValueError)))
    assert told == []
    error = caught(POLICY[name].ready(policy, Script(OSError, ValueError)))
    assert [type(event) for event in told] == [RetryScheduled, RetryGaveUp]
    assert (told[1].attempts, told[1].reason, told[1].error) == (2, "ValueError is not retried", error)


@pytest.mark.parametrize("name", POLICY)
def test_success_in_the_end_is_no_giving_up(name: str, clock: FakeClock, told: list[Any]) -> None:
    POLICY[name].ready(policy_on(clock, listeners=[told.append]), Script(OSError, "done"))()
    assert [type(event) for event in told] == [RetryScheduled]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_retries": 0}, "no retries left"),
        ({"max_elapsed_s": 0.05}, "the next would come past the deadline of 0.05 s"),
        ({"budget": RetryBudget(0, 0, 0)}, "the retry budget is empty"),
        ({"retry_after": lambda _: 121}, "the server asked for 121 s, longer than the 120 s allowed"),
    ],
)
def test_reason_is_the_same_in_event_and_note(settings: Any, reason: str, clock: FakeClock, told: list[Any]) -> None:
    error = caught(lambda: policy_on(clock, **settings, listeners=[told.append]).call(Script(OSError)))
    assert [(event.attempts, event.reason) for event in told] == [(1, reason)]
    assert error.__notes__ == [f"RetryPolicy gave up after 1 attempt in 0.00 s: {reason}"]


def test_listener_that_exits_on_giving_up_wins_and_is_chained_to_the_error(clock: FakeClock) -> None:
    def leave(event: Any) -> None:
        if isinstance(event, RetryGaveUp):
            raise SystemExit

    error = caught(lambda: policy_on(clock, 1, listeners=[leave]).call(Script(OSError)))
    assert type(error) is SystemExit
    assert type(error.__context__) is OSError


# The name of the function


def fetch() -> None:
    raise OSError


async def fetch_async() -> None:
    raise OSError


class Client:
    def fetch(self) -> None:
        raise OSError

    def __call__(self) -> None:
        raise OSError


class LostProxy:
    """Like an object on a server to which the connection is lost."""

    lost = False

    def __call__(self) -> None:
        self.lost = True
        raise OSError

    def __getattr__(self, name: str) -> Any:
        raise EOFError if self.lost else AttributeError


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (fetch, "fetch"),
        (Client().fetch, "Client.fetch"),
        (Client(), "Client"),
        (partial(partial(fetch)), "fetch"),
    ],
)
def test_event_names_the_function(func: Any, name: str, clock: FakeClock, told: list[Any]) -> None:
    policy = policy_on(clock, 1, listeners=[told.append])
    caught(lambda: policy.call(func))
    caught(policy(func))
    assert [event.function for event in told] == [f"{__name__}.{name}"] * 4


def test_event_names_the_function_under_a_fallback_and_of_call_async(clock: FakeClock, told: list[Any]) -> None:
    policy = policy_on(clock, 1, listeners=[told.append])
    caught(lambda: drive(policy.call_async(fetch_async)))
    caught(lambda: drive(retry(policy=policy, fallback=print, fallback_on=KeyError)(fetch_async)()))
    caught(retry(policy=policy, fallback=print, fallback_on=KeyError)(fetch))
    names = [f"{__name__}.fetch_async"] * 4 + [f"{__name__}.fetch"] * 2
    assert [event.function for event in told] == names


def test_function_that_cannot_tell_its_name_has_that_of_its_class(clock: FakeClock, told: list[Any]) -> None:
    error = caught(lambda: policy_on(clock, 1, listeners=[told.append]).call(LostProxy()))
    assert type(error) is OSError
    assert [event.function for event in told] == ["LostProxy"] * 2


# The log


def test_each_retry_is_an_info_and_giving_up_a_warning(clock: FakeClock, lines: pytest.LogCaptureFixture) -> None:
    caught(lambda: policy_on(clock, 2).call(fetch))
    assert [(record.levelname, record.getMessage()) for record in lines.records] == [
        ("INFO", f"retry 1 of '{__name__}.fetch' in 0.10 s, after OSError"),
        ("INFO", f"retry 2 of '{__name__}.fetch' in 0.20 s, after OSError"),
        ("WARNING", f"retry of '{__name__}.fetch' gave up after 3 attempts in 0.30 s: no retries left"),
    ]
    first, _, last = (vars(record) for record in lines.records)
    assert {key: first[key] for key in ("function", "attempt", "delay_s", "failure")} == {
        "function": f"{__name__}.fetch",
        "attempt": 0,
        "delay_s": 0.1,
        "failure": "OSError",
    }
    assert {key: last[key] for key in ("function", "attempts", "elapsed_s", "reason")} == {
        "function": f"{__name__}.fetch",
        "attempts": 3,
        "elapsed_s": pytest.approx(0.3),
        "reason": "no retries left",
    }


def test_bad_values_and_bare_numbers_are_logged_as_such(clock: FakeClock, lines: pytest.LogCaptureFixture) -> None:
    policy_on(clock, 1, retry_result=lambda _: True).call(int)
    list(policy_on(clock, 1).attempts())
    assert [record.getMessage() for record in lines.records] == [
        "retry 1 of 'builtins.int' in 0.10 s, after a bad value",
        "retry of 'builtins.int' gave up after 2 attempts in 0.10 s: no retries left",
        "retry 1 of 'attempts()' in 0.10 s, after an attempt",
        "retry of 'attempts()' gave up after 2 attempts in 0.10 s: no retries left",
    ]


def test_giving_up_after_one_attempt_is_not_logged(clock: FakeClock, lines: pytest.LogCaptureFixture) -> None:
    caught(lambda: policy_on(clock, 0).call(fetch))
    assert lines.records == []


def test_line_break_in_a_name_does_not_reach_the_log(clock: FakeClock, lines: pytest.LogCaptureFixture) -> None:
    def func() -> None:
        raise OSError

    func.__qualname__ = "func\nERROR all is lost"
    caught(lambda: policy_on(clock, 1).call(func))
    assert [record.getMessage().count("\n") for record in lines.records] == [0, 0]
    assert r"func\nERROR" in lines.text


def test_log_line_is_written_before_a_listener_is_called(clock: FakeClock, lines: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    caught(lambda: policy_on(clock, 1, listeners=[lambda _: seen.append(len(lines.records))]).call(fetch))
    assert seen == [1, 2]


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_ctrl_c_in_a_log_handler_gives_the_token_back_and_is_chained(
    level: int, clock: FakeClock, lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(record: logging.LogRecord) -> bool:
        if record.levelno == level:
            raise KeyboardInterrupt
        return True

    budget = RetryBudget(0, 0, 2)
    logger = logging.getLogger("circuit_breaker")
    monkeypatch.setattr(logger, "filters", [interrupt])
    error = caught(lambda: policy_on(clock, 1, budget=budget).call(fetch))
    assert type(error) is KeyboardInterrupt
    assert type(error.__context__) is OSError
    assert budget.tokens == (2 if level == logging.INFO else 1)


# What is never retried


@pytest.mark.parametrize("name", POLICY)
def test_wrong_use_of_the_library_is_never_retried(name: str, clock: FakeClock) -> None:
    class Settled(UsageError):
        pass

    policy = policy_on(clock, retryable_exceptions=(UsageError, Exception))
    assert type(caught(POLICY[name].ready(policy, Script(Settled)))) is Settled
    assert not policy.should_retry(ExceptionGroup("", [Settled(), OSError()]))
    assert not RetryPolicy(retryable_exceptions=lambda _: True).should_retry(Settled())
    assert clock.sleeps == []
