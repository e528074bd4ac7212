"""`retry(fallback=)`: what is given when the last attempt has failed."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from coroutines import drive
from failures import Down, raising
from ways import POLICY, Way

from circuit_breaker import (
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    RetryGaveUp,
    RetryPolicy,
    RetrySnapshot,
    UsageError,
    circuit_breaker,
    retry,
)
from circuit_breaker.testing import FakeClock, no_retries

DECORATING: dict[str, Way] = {name: way for name, way in POLICY.items() if way.decorates}
STREAMS = {"generator", "async generator", "empty generator"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


def policy_on(clock: FakeClock, *args: Any, **settings: Any) -> RetryPolicy:
    return RetryPolicy(*args, **{"jitter": False, "clock": clock, "sleep": clock.sleep, **settings})


def guarded_with(policy: RetryPolicy, fallback: Any, **settings: Any) -> Callable[[Any], Any]:
    return retry(policy=policy, fallback=fallback, **settings)


def fallback_for(name: str, answer: Any) -> Any:
    """Return a fallback of the kind that goes with this way; it gives the answer, or two items of which it is one."""
    if name == "generator":
        return lambda error, *args: iter([answer, "the end"])
    if name == "async generator":

        async def items(error: BaseException, *args: Any) -> AsyncIterator[Any]:
            yield answer
            yield "the end"

        return items
    if name == "empty generator":

        def nothing(error: BaseException, *args: Any) -> Any:
            yield from ()
            return answer

        return nothing
    return lambda error, *args: answer


@pytest.mark.parametrize("name", DECORATING)
def test_fallback_answers_when_attempts_have_run_out_and_been_counted(name: str, clock: FakeClock) -> None:
    told: list[Any] = []
    policy = policy_on(clock, 2, listeners=[told.append])
    answered = DECORATING[name].ready(guarded_with(policy, fallback_for(name, "cached")), raising(Down()))()
    assert answered == "cached"
    assert clock.sleeps == [0.1, 0.2]
    assert type(told[-1]) is RetryGaveUp
    assert policy.snapshot() == RetrySnapshot(1, 2, 0, 1, pytest.approx(0.3))


@pytest.mark.parametrize("name", DECORATING)
def test_fallback_is_not_asked_when_an_attempt_succeeds(name: str, clock: FakeClock) -> None:
    def never(*args: Any) -> Any:
        raise AssertionError

    outcomes = iter([Down(), "done"])

    def body() -> Any:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert DECORATING[name].ready(guarded_with(policy_on(clock), never), body)() == "done"


@pytest.mark.parametrize("name", DECORATING)
def test_only_the_errors_of_fallback_on_are_answered(name: str, clock: FakeClock) -> None:
    guard = guarded_with(policy_on(clock, 0), fallback_for(name, "cached"), fallback_on=(OSError, KeyError))
    assert DECORATING[name].ready(guard, raising(KeyError()))() == "cached"
    group = ExceptionGroup("", [OSError(), KeyError()])
    assert DECORATING[name].ready(guard, raising(group))() == "cached"
    mixed = ExceptionGroup("", [OSError(), Down()])
    for error in (Down(), mixed):
        with pytest.raises(type(error)):
            DECORATING[name].ready(guard, raising(error))()


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt,
        SystemExit,
        GeneratorExit,
        asyncio.CancelledError,
        concurrent.futures.CancelledError,
        UsageError,
    ],
)
@pytest.mark.parametrize("name", sorted(set(DECORATING) - STREAMS))
def test_what_is_not_a_failure_of_the_call_passes(name: str, error: type[BaseException], clock: FakeClock) -> None:
    guard = guarded_with(policy_on(clock), fallback_for(name, "cached"))
    with pytest.raises(error):
        DECORATING[name].ready(guard, raising(error()))()


def test_error_that_is_not_retried_gets_the_fallback_at_once(clock: FakeClock) -> None:
    guard = guarded_with(policy_on(clock, retryable_exceptions=OSError), lambda error: type(error).__name__)
    assert guard(raising(Down()))() == "Down"
    assert clock.sleeps == []


def test_fallback_is_given_the_last_error_with_its_note_and_the_arguments(clock: FakeClock) -> None:
    last = Down()
    seen: list[Any] = []

    def fallback(*args: Any, **kwargs: Any) -> str:
        seen.append((args, kwargs))
        return "cached"

    @retry(policy=policy_on(clock, 1), fallback=fallback)
    def fetch(number: int, *, key: str) -> str:
        raise last

    assert fetch(3, key="k") == "cached"
    assert seen == [((last, 3), {"key": "k"})]
    assert last.__notes__ == ["RetryPolicy gave up after 2 attempts in 0.10 s: no retries left"]


def test_async_fallback_of_a_coroutine_function_is_awaited(clock: FakeClock) -> None:
    async def fallback(error: BaseException) -> str:
        return "cached"

    @retry(policy=policy_on(clock, 1), fallback=fallback)
    async def fetch() -> str:
        raise Down

    assert drive(fetch()) == "cached"


def test_async_fallback_of_a_plain_function_is_rejected(clock: FakeClock) -> None:
    async def fallback(error: BaseException) -> str:
        raise AssertionError

    with pytest.raises(TypeError, match="fallback must be a plain function"):
        retry(fallback=fallback)(raising(Down()))


def test_fallback_on_without_a_fallback_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"fallback_on= .* needs fallback="):
        retry(fallback_on=OSError)


def test_value_that_stays_bad_is_returned_and_no_error_to_answer(clock: FakeClock) -> None:
    policy = policy_on(clock, 1, retry_result=lambda value: value == 503)
    assert guarded_with(policy, lambda error: "cached")(lambda: 503)() == 503


def test_stream_is_answered_until_its_first_item_only(clock: FakeClock) -> None:
    def cached(error: BaseException) -> Iterator[str]:
        yield "cached"

    @retry(policy=policy_on(clock, 1), fallback=cached)
    def items() -> Iterator[str]:
        yield "first"
        raise Down

    stream = items()
    assert next(stream) == "first"
    with pytest.raises(Down):
        next(stream)


def test_async_stream_may_be_answered_by_an_async_generator(clock: FakeClock) -> None:
    async def cached(error: BaseException) -> AsyncIterator[str]:
        yield "cached"

    @retry(policy=policy_on(clock, 1), fallback=cached)
    async def items() -> AsyncIterator[str]:
        raise Down
        yield

    async def main() -> list[str]:
        return [item async for item in items()]

    assert drive(main()) == ["cached"]


def test_rejection_of_an_inner_breaker_is_answered_too(clock: FakeClock) -> None:
    breaker = CircuitBreaker("api", CircuitBreakerConfig(1), clock=clock)

    @retry(policy=policy_on(clock), fallback=lambda error: type(error))
    @circuit_breaker(breaker=breaker)
    def fetch() -> Any:
        raise Down

    assert fetch() is CircuitOpenError


def test_settings_and_policy_go_with_a_fallback(clock: FakeClock) -> None:
    @retry(0, fallback=lambda error: "cached", fallback_on=Down)
    def fetch() -> str:
        raise Down

    assert fetch() == "cached"
    assert fetch.retry_policy.max_retries == 0
    with no_retries():
        assert fetch() == "cached"


def test_error_of_the_fallback_reaches_the_caller_chained(clock: FakeClock) -> None:
    def broken(error: BaseException) -> Any:
        raise KeyError

    with pytest.raises(KeyError) as caught:
        guarded_with(policy_on(clock, 0), broken)(raising(Down()))()
    assert type(caught.value.__context__) is Down
