"""A fallback answers the rejection of its own call, and the errors in `fallback_on`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from clocks import Clock
from failures import Down

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, circuit_breaker

Decorate = Callable[..., Any]


def plain(decorate: Any, body: Callable[[], Any]) -> Callable[[], Any]:
    return decorate(lambda: body())  # type: ignore[no-any-return]


def coroutine(decorate: Any, body: Callable[[], Any]) -> Callable[[], Any]:
    @decorate
    async def function() -> Any:
        return body()

    return lambda: asyncio.run(function())


def generator(decorate: Any, body: Callable[[], Any]) -> Callable[[], Any]:
    @decorate
    def function() -> Iterator[Any]:
        yield body()

    return lambda: next(iter(list(function())))


def async_generator(decorate: Any, body: Callable[[], Any]) -> Callable[[], Any]:
    @decorate
    async def function() -> AsyncIterator[Any]:
        yield body()

    async def collected() -> Any:
        (item,) = [item async for item in function()]
        return item

    return lambda: asyncio.run(collected())


KINDS = {
    "function": (plain, lambda error: ("instead", error)),
    "coroutine": (coroutine, lambda error: ("instead", error)),
    "generator": (generator, lambda error: [("instead", error)]),
    "async generator": (async_generator, lambda error: _stream(("instead", error))),
}
every_kind = pytest.mark.parametrize(("made", "fallback"), KINDS.values(), ids=KINDS)


async def _stream(item: Any) -> AsyncIterator[Any]:
    yield item


def down() -> Any:
    raise Down("down")


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=2), clock=clock)


@every_kind
def test_an_error_that_is_listed_is_counted_and_then_gets_the_fallback(
    made: Any, fallback: Any, breaker: CircuitBreaker
) -> None:
    seen: list[int] = []

    def answer(error: BaseException) -> Any:
        seen.append(breaker.stats.failure_count)
        return fallback(error)

    call = made(circuit_breaker(breaker=breaker, fallback=answer, fallback_on=Down), down)
    instead, error = call()
    assert (instead, type(error)) == ("instead", Down)
    assert seen == [1], "counted before the fallback is asked"
    call()
    assert breaker.is_open
    instead, error = call()
    assert isinstance(error, CircuitOpenError)


@every_kind
@pytest.mark.parametrize("listed", [None, ValueError, (ValueError, KeyError), lambda error: False])
def test_an_error_that_is_not_listed_is_raised(made: Any, fallback: Any, listed: Any, breaker: CircuitBreaker) -> None:
    call = made(circuit_breaker(breaker=breaker, fallback=fallback, fallback_on=listed), down)
    with pytest.raises(Down):
        call()


@every_kind
def test_a_predicate_says_which_errors_get_the_fallback(made: Any, fallback: Any, breaker: CircuitBreaker) -> None:
    decorate = circuit_breaker(breaker=breaker, fallback=fallback, fallback_on=lambda error: "down" in str(error))
    assert made(decorate, down)()[0] == "instead"


@every_kind
def test_what_is_not_an_exception_is_never_answered(made: Any, fallback: Any, breaker: CircuitBreaker) -> None:
    def leave() -> Any:
        raise SystemExit

    call = made(circuit_breaker(breaker=breaker, fallback=fallback, fallback_on=Exception), leave)
    with pytest.raises(SystemExit):
        call()


@every_kind
def test_a_rejection_that_comes_out_of_the_function_gets_no_fallback(
    made: Any, fallback: Any, breaker: CircuitBreaker
) -> None:
    other = CircuitBreaker("other")
    other.trip()
    call = made(circuit_breaker(breaker=breaker, fallback=fallback), lambda: other.call(int))
    with pytest.raises(CircuitOpenError) as raised:
        call()
    assert raised.value.circuit_name == "other"


@every_kind
def test_an_error_of_the_fallback_comes_with_what_it_was_asked_about(made: Any, fallback: Any) -> None:
    def broken(error: BaseException) -> Any:
        raise KeyError("fallback")

    breaker = CircuitBreaker()
    breaker.trip()
    with pytest.raises(KeyError) as raised:
        made(circuit_breaker(breaker=breaker, fallback=broken), down)()
    assert isinstance(raised.value.__context__, CircuitOpenError)


@every_kind
def test_a_group_gets_the_fallback_if_all_errors_in_it_are_listed(
    made: Any, fallback: Any, breaker: CircuitBreaker
) -> None:
    def both(*errors: Exception) -> Callable[[], Any]:
        def body() -> Any:
            raise ExceptionGroup("both", errors)

        return body

    decorate = circuit_breaker(breaker=breaker, fallback=fallback, fallback_on=(Down, KeyError))
    assert made(decorate, both(Down(), KeyError()))()[0] == "instead"
    with pytest.raises(ExceptionGroup):
        made(decorate, both(Down(), ValueError()))()


def test_the_errors_of_a_stream_after_its_first_item_pass(breaker: CircuitBreaker) -> None:
    @circuit_breaker(breaker=breaker, fallback=lambda error: [0], fallback_on=Down)
    def numbers() -> Iterator[int]:
        yield 1
        raise Down

    stream = numbers()
    assert next(stream) == 1
    with pytest.raises(Down):
        next(stream)


def test_what_is_sent_reaches_the_stream_under_a_fallback(breaker: CircuitBreaker) -> None:
    @circuit_breaker(breaker=breaker, fallback=lambda error: [0])
    def echo() -> Iterator[Any]:
        said = None
        while True:
            said = yield said

    stream: Any = echo()
    next(stream)
    assert stream.send("hello") == "hello"
    stream.close()
    assert breaker.stats.success_count == 1
