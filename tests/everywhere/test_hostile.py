"""Objects of the caller that misbehave in every way: nothing is lost, and each error reaches its own caller."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from clocks import Clock
from coroutines import drive
from failures import raising
from needs import needs_exceptions_without_attributes
from ways import BREAKER, BREAKER_BY_HAND, BULKHEAD, POLICY, Body, Way

from circuit_breaker import (
    Bulkhead,
    BulkheadFullError,
    CallFinished,
    CallRejected,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    CircuitMode,
    CircuitOpenError,
    CircuitState,
    RetryBudget,
    RetryPolicy,
    bulkhead,
    circuit_breaker,
    format_exception_chain,
    retry,
    retry_after_hint,
)
from circuit_breaker.testing import FakeClock


class Hostility(Exception):
    """What hostile objects raise when they are touched."""


class NeedsArguments(Exception):
    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(code, text)


class Mute(Exception):
    def __str__(self) -> str:
        raise Hostility

    __repr__ = __str__


class Mumbling(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]

    __repr__ = __str__


class Incomparable(Exception):
    def __eq__(self, other: object) -> bool:
        raise Hostility

    def __hash__(self) -> int:
        raise Hostility


class Masked(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> type:  # type: ignore[override]
        raise Hostility


class Disguised(Exception):
    __class__ = KeyboardInterrupt  # type: ignore[assignment]


class Closed(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise Hostility

    def __setattr__(self, name: str, value: object) -> None:
        raise Hostility


class Falsy(Exception):
    def __bool__(self) -> bool:
        raise Hostility

    def __len__(self) -> int:
        raise Hostility


class Wishing(Exception):
    @property
    def retry_after_s(self) -> float:
        raise Hostility

    @property
    def response(self) -> object:
        raise Hostility


class Hiding(ExceptionGroup[Exception]):
    """A group that hides what is in it."""

    @property
    def exceptions(self) -> Any:
        raise Hostility

    def __str__(self) -> str:
        raise Hostility

    def __iter__(self) -> Any:
        raise Hostility


class Unequal(Exception):
    """Equal to everything, and then to nothing."""

    def __eq__(self, other: object) -> bool:
        return other is not self

    __hash__ = None  # type: ignore[assignment]


class Long(Exception):
    def __str__(self) -> str:
        return "x" * 10_000_000


class Exiting(Exception):
    """Even its text wants out."""

    def __str__(self) -> str:
        sys.exit(3)


MAKERS: dict[str, Callable[[], Exception]] = {
    "needs arguments": lambda: NeedsArguments(1, text="x"),
    "mute": Mute,
    "mumbling": Mumbling,
    "incomparable": Incomparable,
    "masked": Masked,
    "disguised": Disguised,
    "closed": Closed,
    "falsy": Falsy,
    "wishing": Wishing,
    "long": Long,
    "unequal": Unequal,
    "group": lambda: ExceptionGroup("both", [Mute(), Incomparable(), Masked(), Wishing()]),
    "hiding group": lambda: Hiding("both", [Mute(), Incomparable()]),
    "deep group": lambda: ExceptionGroup("both", [ExceptionGroup("inner", [Closed(), Falsy()]), Disguised()]),
}


@pytest.fixture(
    params=[
        pytest.param(name, marks=needs_exceptions_without_attributes if name == "closed" else ()) for name in MAKERS
    ]
)
def hostile(request: pytest.FixtureRequest) -> Exception:
    return MAKERS[request.param]()


@pytest.fixture(params=BREAKER)
def way(request: pytest.FixtureRequest) -> Callable[[CircuitBreaker, Body], Any]:
    """Each way of making one call, without an event loop: asyncio's looks at what its tasks raise, and stumbles."""
    return lambda breaker, body: BREAKER[request.param].ready(breaker, body)()


def caught(function: Callable[[], Any]) -> BaseException | None:
    """Return what is raised; pytest would look at it too closely."""
    try:
        function()
    except BaseException as error:
        return error
    return None


class Vague:
    """A value that is neither true nor false."""

    def __bool__(self) -> bool:
        raise Hostility


class TestExceptions:
    def test_count_once_and_come_out_as_they_are(self, way: Way, hostile: Exception, clock: Clock) -> None:
        config = CircuitBreakerConfig(failure_threshold=1, retry_after=retry_after_hint)
        events: list[Any] = []
        breaker = CircuitBreaker("api", config, listeners=[events.append], clock=clock)
        assert caught(lambda: way(breaker, raising(hostile))) is hostile
        assert breaker.stats.failure_count == 1
        assert breaker.state is CircuitState.OPEN
        finished = [event for event in events if type(event) is CallFinished]
        assert [event.error is hostile for event in finished] == [True]
        json.dumps(breaker.snapshot().to_dict())

    def test_leave_a_rejection_that_can_be_shown(self, hostile: Exception, clock: Clock) -> None:
        breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=1), clock=clock)
        caught(lambda: breaker.call(raising(hostile)))
        refusal = caught(lambda: breaker.call(int))
        assert type(refusal) is CircuitOpenError
        assert refusal.last_failure is not None
        name, text = refusal.last_failure
        assert name == type(hostile).__name__
        assert type(text) is str
        assert len(text) <= 200
        assert "api" in format_exception_chain(refusal)

    def test_settle_a_probe(self, way: Way, hostile: Exception, clock: Clock) -> None:
        config = CircuitBreakerConfig(failure_threshold=1, half_open_max_calls=1, reset_timeout_s=10.0)
        breaker = CircuitBreaker("api", config, clock=clock)
        breaker.record_failure()
        clock.advance(10.0)
        assert caught(lambda: way(breaker, raising(hostile))) is hostile
        assert breaker.state is CircuitState.OPEN
        assert breaker.stats.opened_count == 2

    def test_are_ignored_by_type(self, way: Way, hostile: Exception, clock: Clock) -> None:
        breaker = CircuitBreaker("api", CircuitBreakerConfig(ignored_exceptions=(Exception,)), clock=clock)
        assert caught(lambda: way(breaker, raising(hostile))) is hostile
        assert breaker.stats.ignored_count == 1

    def test_can_be_given_to_a_permit(self, hostile: Exception, clock: Clock) -> None:
        breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=1), clock=clock)
        breaker.permit().failure(hostile)
        assert breaker.state is CircuitState.OPEN

    def test_come_out_of_a_fallback_as_they_are(self, hostile: Exception, clock: Clock) -> None:
        breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=1), clock=clock)
        breaker.record_failure()

        def fallback(error: CircuitOpenError, *args: Any) -> Any:
            raise hostile

        guard = circuit_breaker(breaker=breaker, fallback=fallback)
        ways = [way for way in BREAKER.values() if way.decorates]
        for way in ways:
            assert caught(way.ready(guard, int)) is hostile, way.name
        assert (breaker.stats.failure_count, breaker.stats.rejected_count) == (1, len(ways))

    def test_are_retried_and_come_out_as_they_are(self, hostile: Exception) -> None:
        clock = FakeClock()
        events: list[Any] = []
        policy = RetryPolicy(2, jitter=False, sleep=clock.sleep, clock=clock, listeners=[events.append])
        assert caught(lambda: policy.call(raising(hostile))) is hostile
        assert clock.sleeps == [0.1, 0.2]
        assert [event.error is hostile for event in events] == [True, True, True]  # two retries, and giving up

    def test_are_retried_in_loops_of_ones_own(self, hostile: Exception) -> None:
        clock = FakeClock()
        policy = RetryPolicy(1, sleep=clock.sleep, clock=clock)

        def loop() -> None:
            for attempt in policy.attempts():
                with attempt:
                    raise hostile

        assert caught(loop) is hostile
        assert len(clock.sleeps) == 1

    @pytest.mark.parametrize("name", BULKHEAD)
    def test_give_a_slot_back_in_every_way(self, name: str, hostile: Exception) -> None:
        pool = Bulkhead("pool", 1)
        assert caught(BULKHEAD[name].ready(pool, raising(hostile))) is hostile
        assert pool.active_count == 0

    @pytest.mark.parametrize("name", POLICY)
    def test_are_retried_in_every_way(self, name: str, hostile: Exception) -> None:
        events: list[Any] = []
        policy = RetryPolicy(2, 0.0, sleep=lambda seconds: None, listeners=[events.append])
        assert caught(POLICY[name].ready(policy, raising(hostile))) is hostile
        assert [event.error is hostile for event in events] == [True, True, True]  # two retries, and giving up

    def test_give_a_slot_back(self, hostile: Exception) -> None:
        pool = Bulkhead("pool", 1)
        assert caught(lambda: pool.call(raising(hostile))) is hostile
        assert caught(lambda: pool(raising(hostile))()) is hostile
        with pool:
            assert pool.active_count == 1
        assert pool.active_count == 0

    def test_whose_text_wants_out_come_out_as_they_are_for_as_long_as_nobody_asks_for_it(
        self, way: Way, clock: Clock
    ) -> None:
        breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=2), clock=clock)
        error = Exiting()
        assert caught(lambda: way(breaker, raising(error))) is error
        assert breaker.stats.failure_count == 1
        assert breaker.is_closed

    def test_whose_text_wants_out_open_the_circuit_and_then_exit(self, way: Way, clock: Clock) -> None:
        breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=1), clock=clock)
        error = Exiting()
        problem = caught(lambda: way(breaker, raising(error)))
        assert type(problem) is SystemExit
        assert problem.__context__ is error
        assert breaker.stats.failure_count == 1
        assert breaker.is_open

    @pytest.mark.parametrize("name", BULKHEAD)
    def test_whose_text_wants_out_give_a_slot_back(self, name: str) -> None:
        pool = Bulkhead("pool", 1)
        error = Exiting()
        assert caught(BULKHEAD[name].ready(pool, raising(error))) is error
        assert pool.active_count == 0

    @pytest.mark.parametrize("name", POLICY)
    def test_whose_text_wants_out_are_retried(self, name: str) -> None:
        clock = FakeClock()
        error = Exiting()
        assert caught(POLICY[name].ready(RetryPolicy(2, sleep=clock.sleep, clock=clock), raising(error))) is error
        assert len(clock.sleeps) == 2


@pytest.fixture(params=[StopIteration, StopAsyncIteration])
def stop(request: pytest.FixtureRequest) -> Exception:
    return request.param("value")


def made_of(stop: Exception, name: str, problem: BaseException | None) -> bool:
    """Tell whether this came of a stop: a RuntimeError where a function of that kind cannot raise it, else itself."""
    cannot = ("generator", "async") if type(stop) is StopIteration else ("async generator",)
    if any(word in name for word in cannot):
        return type(problem) is RuntimeError and problem.__cause__ is stop
    return problem is stop


class TestStopIteration:
    @pytest.mark.parametrize("name", [*BREAKER, *BREAKER_BY_HAND])
    def test_is_a_failure_like_any_other_and_comes_out_as_python_lets_it(
        self, name: str, stop: Exception, clock: Clock
    ) -> None:
        breaker = CircuitBreaker("api", CircuitBreakerConfig(1, half_open_max_calls=1), clock=clock)
        call = (BREAKER | BREAKER_BY_HAND)[name].ready(breaker, raising(stop))
        for failures in (1, 2):
            assert made_of(stop, name, caught(call))
            assert breaker.stats.failure_count == breaker.stats.opened_count == failures
            assert breaker.is_open
            clock.advance(30.0)

    def test_out_of_a_generator_that_has_given_an_item_is_what_python_makes_of_it(self, clock: Clock) -> None:
        breaker = CircuitBreaker("api", clock=clock)

        @breaker
        def stream() -> Iterator[int]:
            yield 1
            raise StopIteration

        assert type(caught(lambda: list(stream()))) is RuntimeError
        assert breaker.stats.failure_count == 1

    @pytest.mark.parametrize("name", POLICY)
    def test_is_retried(self, name: str, stop: Exception) -> None:
        clock = FakeClock()
        policy = RetryPolicy(2, sleep=clock.sleep, clock=clock)
        assert made_of(stop, name, caught(POLICY[name].ready(policy, raising(stop))))
        assert len(clock.sleeps) == 2

    @pytest.mark.parametrize("name", BULKHEAD)
    def test_gives_a_slot_back(self, name: str, stop: Exception) -> None:
        pool = Bulkhead("pool", 1)
        assert made_of(stop, name, caught(BULKHEAD[name].ready(pool, raising(stop))))
        assert pool.active_count == 0


class Nameless:
    """A callable without the attributes that functions have."""

    def __call__(self, value: int = 1) -> int:
        return value

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class TestFunctions:
    @pytest.mark.parametrize("decorator", [circuit_breaker, bulkhead, retry])
    @pytest.mark.parametrize("function", [Nameless(), functools.partial(int, "1"), len, "".join])
    def test_without_a_name_are_decorated(self, decorator: Any, function: Any) -> None:
        decorated = decorator(function)
        assert callable(decorated)
        for name in ("circuit_breaker", "bulkhead"):
            if hasattr(decorated, name):
                assert type(getattr(decorated, name).name) is str

    def test_without_a_name_are_called(self, clock: Clock) -> None:
        breaker, pool, policy = CircuitBreaker("api", clock=clock), Bulkhead("pool"), RetryPolicy()
        for pattern in (breaker, pool, policy):
            assert pattern.call(Nameless(), 3) == 3  # type: ignore[attr-defined]
            assert pattern(Nameless())(4) == 4  # type: ignore[operator]

    def test_without_a_name_of_every_kind_are_called(self, clock: Clock) -> None:
        async def coroutine(value: int) -> int:
            return value

        def stream(value: int) -> Iterator[int]:
            yield value

        async def async_stream(value: int) -> AsyncIterator[int]:
            yield value

        async def listed(items: AsyncIterator[int]) -> list[int]:
            return [item async for item in items]

        patterns: list[Any] = [CircuitBreaker("api", clock=clock), Bulkhead("pool"), RetryPolicy()]
        for pattern in patterns:
            assert drive(pattern(functools.partial(coroutine, 5))()) == 5
            assert drive(pattern.call_async(functools.partial(coroutine, 6))) == 6
            assert list(pattern(functools.partial(stream, 7))()) == [7]
            assert drive(listed(pattern(functools.partial(async_stream, 8))())) == [8]


WITH_A_VALUE = [name for name, way in BREAKER.items() if way.returns]
RETRIED_BY_VALUE = [name for name, way in POLICY.items() if way.returns]


class TestPredicates:
    @pytest.mark.parametrize(("answer", "failed"), [([], 0), ([0], 1), ("no", 1), (None, 0), (0.0, 0), (1j, 1)])
    def test_may_answer_with_anything_that_is_true_or_false(
        self, answer: object, failed: int, way: Way, clock: Clock
    ) -> None:
        breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_exceptions=lambda e: answer), clock=clock)
        caught(lambda: way(breaker, raising(ValueError())))
        assert (breaker.stats.failure_count, breaker.stats.success_count) == (failed, 1 - failed)

    @pytest.mark.parametrize("name", WITH_A_VALUE)
    @pytest.mark.parametrize(("answer", "failed"), [([], 0), ([0], 1), ("no", 1), (None, 0), (0.0, 0), (1j, 1)])
    def test_of_values_may_answer_with_anything_that_is_true_or_false(
        self, answer: object, failed: int, name: str, clock: Clock
    ) -> None:
        breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_result=lambda v: answer), clock=clock)
        assert BREAKER[name].ready(breaker, int)() == 0
        assert (breaker.stats.failure_count, breaker.stats.success_count) == (failed, 1 - failed)

    @pytest.mark.parametrize("setting", ["failure_exceptions", "ignored_exceptions"])
    def test_that_are_vague_reach_the_caller_and_settle_the_call(self, setting: str, way: Way, clock: Clock) -> None:
        config = CircuitBreakerConfig(**{setting: lambda error: Vague()})
        breaker = CircuitBreaker("api", config, clock=clock)
        error = ValueError()
        problem = caught(lambda: way(breaker, raising(error)))
        assert type(problem) is Hostility
        assert problem.__context__ is error
        assert breaker.stats.ignored_count == 1

    @pytest.mark.parametrize("name", WITH_A_VALUE)
    def test_of_values_that_are_vague_reach_the_caller_and_settle_the_call(self, name: str, clock: Clock) -> None:
        config = CircuitBreakerConfig(failure_result=lambda value: Vague())
        breaker = CircuitBreaker("api", config, clock=clock)
        assert type(caught(BREAKER[name].ready(breaker, int))) is Hostility
        assert breaker.stats.ignored_count == 1

    @pytest.mark.parametrize("name", WITH_A_VALUE)
    def test_of_values_that_are_vague_settle_a_probe(self, name: str, clock: Clock) -> None:
        config = CircuitBreakerConfig(1, 1, 10.0, 1, failure_result=lambda value: Vague())
        breaker = CircuitBreaker("api", config, clock=clock)
        breaker.record_failure()
        clock.advance(10.0)
        assert breaker.state is CircuitState.HALF_OPEN
        call = BREAKER[name].ready(breaker, int)
        assert [type(caught(call)) for _ in range(3)] == [Hostility] * 3
        assert breaker.snapshot().probes_in_flight == 0
        assert breaker.stats.ignored_count == 3

    @pytest.mark.parametrize("name", POLICY)
    @pytest.mark.parametrize("answer", [[], [0], "no", None, 0.0, 1j])
    def test_of_retries_may_answer_with_anything_that_is_true_or_false(self, answer: object, name: str) -> None:
        clock = FakeClock()
        policy = RetryPolicy(1, retryable_exceptions=lambda e: answer, sleep=clock.sleep, clock=clock)  # type: ignore[arg-type,return-value]
        error = ValueError()
        assert caught(POLICY[name].ready(policy, raising(error))) is error
        assert len(clock.sleeps) == (1 if answer else 0)

    @pytest.mark.parametrize("name", RETRIED_BY_VALUE)
    @pytest.mark.parametrize("answer", [[], [0], "no", None, 0.0, 1j])
    def test_of_retried_values_may_answer_with_anything_that_is_true_or_false(self, answer: object, name: str) -> None:
        clock = FakeClock()
        policy = RetryPolicy(1, retry_result=lambda v: answer, sleep=clock.sleep, clock=clock)
        assert POLICY[name].ready(policy, int)() == 0
        assert len(clock.sleeps) == (1 if answer else 0)

    @pytest.mark.parametrize("name", POLICY)
    def test_of_retries_that_are_vague_reach_the_caller(self, name: str) -> None:
        error = ValueError()
        problem = caught(POLICY[name].ready(RetryPolicy(retryable_exceptions=lambda e: Vague()), raising(error)))
        assert type(problem) is Hostility
        assert problem.__context__ is error

    @pytest.mark.parametrize("name", RETRIED_BY_VALUE)
    def test_of_retried_values_that_are_vague_reach_the_caller(self, name: str) -> None:
        policy = RetryPolicy(retry_result=lambda v: Vague())
        assert type(caught(POLICY[name].ready(policy, int))) is Hostility

    @pytest.mark.parametrize("wish", ["soon", -1.0, float("nan"), True, object(), Vague(), 10**400])
    def test_of_time_that_give_nonsense_are_no_hint(self, wish: object, clock: Clock) -> None:
        config = CircuitBreakerConfig(failure_threshold=1, retry_after=lambda e: wish, reset_timeout_s=10.0)  # type: ignore[arg-type,return-value]
        breaker = CircuitBreaker("api", config, clock=clock)
        caught(lambda: breaker.call(raising(ValueError())))
        assert breaker.snapshot().retry_after_s == 10.0
        told = FakeClock()
        policy = RetryPolicy(1, 1.0, jitter=False, retry_after=lambda e: wish, sleep=told.sleep, clock=told)  # type: ignore[arg-type,return-value]
        caught(lambda: policy.call(raising(ValueError())))
        assert told.sleeps == [1.0]


def leaving(event: object) -> None:
    sys.exit(7)


class TestListeners:
    def test_that_exit_do_so_once_the_call_is_settled(self, way: Way, clock: Clock) -> None:
        breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=1), listeners=[leaving], clock=clock)
        error = ValueError()
        problem = caught(lambda: way(breaker, raising(error)))
        assert type(problem) is SystemExit
        assert error in list(_chain(problem))
        assert breaker.stats.failure_count == 1
        assert breaker._machine.period.state is CircuitState.OPEN

    def test_that_exit_at_a_success_do_so_once_it_is_counted(self, way: Way, clock: Clock) -> None:
        breaker = CircuitBreaker("api", listeners=[leaving], clock=clock)
        assert type(caught(lambda: way(breaker, int))) is SystemExit
        assert breaker.stats.success_count == 1

    def test_that_exit_during_admission_cost_no_permit(self, way: Way, clock: Clock) -> None:
        config = CircuitBreakerConfig(failure_threshold=1, half_open_max_calls=1, reset_timeout_s=10.0)
        exits = [leaving]
        breaker = CircuitBreaker("api", config, listeners=[lambda event: exits and exits.pop()(event)], clock=clock)
        caught(breaker.record_failure)
        exits.append(leaving)
        clock.advance(10.0)
        assert type(caught(lambda: way(breaker, int))) is SystemExit
        assert breaker.snapshot().probes_in_flight == 0
        assert way(breaker, int) == 0

    def test_that_exit_at_a_rejection_do_so_in_its_place_and_leave_the_circuit_as_it_was(
        self, way: Way, clock: Clock
    ) -> None:
        config = CircuitBreakerConfig(failure_threshold=1, success_threshold=1, reset_timeout_s=10.0)
        heard: list[Any] = []

        def listen(event: object) -> None:
            if isinstance(event, CallRejected):
                heard.append(event)
                sys.exit(7)

        breaker = CircuitBreaker("api", config, listeners=[listen], clock=clock)
        breaker.record_failure()
        called: list[int] = []
        assert type(caught(lambda: way(breaker, lambda: called.append(1)))) is SystemExit
        assert (len(heard), called, breaker.stats.rejected_count) == (1, [], 1)
        clock.advance(10.0)
        assert way(breaker, int) == 0
        assert breaker.is_closed

    def test_that_exit_at_a_record_or_a_permit_do_so_once_it_is_counted(self, clock: Clock) -> None:
        breaker = CircuitBreaker("api", listeners=[leaving], clock=clock)
        settled: list[Callable[[], object]] = [
            breaker.record_success,
            breaker.record_failure,
            breaker.record_ignored,
            breaker.permit().success,
            breaker.permit().failure,
            breaker.permit().ignore,
        ]
        assert [type(caught(settle)) for settle in settled] == [SystemExit] * 6
        stats = breaker.stats
        assert (stats.success_count, stats.failure_count, stats.ignored_count) == (2, 2, 2)

    @pytest.mark.parametrize("name", BULKHEAD)
    def test_that_exit_at_a_rejection_of_a_bulkhead_lose_no_slot(self, name: str) -> None:
        pool = Bulkhead("pool", 1, listeners=[leaving])
        called: list[int] = []
        with pool:
            assert type(caught(BULKHEAD[name].ready(pool, lambda: called.append(1)))) is SystemExit
            assert (called, pool.active_count, pool.snapshot().rejected_count) == ([], 1, 1)
        assert pool.active_count == 0
        assert pool.call(int) == 0

    @pytest.mark.parametrize("name", POLICY)
    def test_that_exit_before_a_retry_give_the_token_back(self, name: str) -> None:
        clock = FakeClock()
        budget = RetryBudget(0.0, 0.0, 2, clock=clock)
        policy = RetryPolicy(budget=budget, listeners=[leaving], sleep=clock.sleep, clock=clock)
        error = ValueError()
        problem = caught(POLICY[name].ready(policy, raising(error)))
        assert type(problem) is SystemExit
        assert problem.__context__ is error
        assert budget.tokens == 2
        assert clock.sleeps == []

    def test_that_raise_hostile_exceptions_harm_nobody(self, way: Way, hostile: Exception, clock: Clock) -> None:
        def listen(event: object) -> None:
            raise hostile

        breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=1), listeners=[listen], clock=clock)
        assert way(breaker, int) == 0
        assert breaker.stats.success_count == 1


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__context__


class HostileKey:
    def __init__(self, hash_: bool = False, equal: bool = False, text: bool = False) -> None:
        self.hash, self.equal, self.text = hash_, equal, text

    def __hash__(self) -> int:
        if self.hash:
            raise Hostility
        return 1

    def __eq__(self, other: object) -> bool:
        if self.equal or getattr(other, "equal", False):
            raise Hostility
        return self is other

    def __str__(self) -> str:
        if self.text:
            raise Hostility
        return "key"

    __repr__ = __str__


class TestKeys:
    @pytest.mark.parametrize("kind", ["hash_", "equal", "text"])
    def test_that_raise_do_so_to_the_caller_and_harm_no_other_key(self, kind: str) -> None:
        registry = CircuitBreakerRegistry(max_size=2)
        other = HostileKey()
        kept = registry[other]
        hostile = HostileKey(**{kind: True})
        assert type(caught(lambda: registry[hostile])) is Hostility
        if kind != "text":
            assert type(caught(lambda: hostile in registry)) is Hostility
            assert type(caught(lambda: registry.remove(hostile))) is Hostility
        assert registry[other] is kept
        assert len(registry) == 1
        assert len([registry["b"], registry["c"], registry["d"]]) == 3
        assert len(registry) == 2

    def test_that_cannot_be_hashed_are_a_type_error(self) -> None:
        registry = CircuitBreakerRegistry()
        assert type(caught(lambda: registry[[]])) is TypeError  # type: ignore[index]
        assert len(registry) == 0

    def test_that_ask_the_registry_while_they_are_compared(self) -> None:
        registry = CircuitBreakerRegistry(max_size=2)

        class Asking:
            def __hash__(self) -> int:
                return 5

            def __eq__(self, other: object) -> bool:
                _ = registry["x"]
                return self is other

        keys = [Asking(), Asking(), Asking()]
        breakers = [registry[key] for key in keys]
        assert len({id(breaker) for breaker in breakers}) == 3
        assert registry[keys[2]] is breakers[2]

    def test_that_are_no_number_are_found_by_identity(self) -> None:
        registry = CircuitBreakerRegistry()
        key = float("nan")
        assert registry[key] is registry[key]


class Jumping:
    """A clock that returns the values that it is given."""

    def __init__(self, *readings: Any) -> None:
        self.readings = list(readings)

    def __call__(self) -> Any:
        reading = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if isinstance(reading, BaseException):
            raise reading
        return reading


class TestClocks:
    def test_that_go_backwards_lose_no_outcome(self, way: Way) -> None:
        clock = Clock()
        breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=2), clock=clock)

        def body() -> int:
            clock.now -= 500.0
            return 3

        def failing() -> None:
            body()
            raise ValueError

        assert way(breaker, body) == 3
        for _ in range(2):
            assert type(caught(lambda: way(breaker, failing))) is ValueError
        assert (breaker.stats.success_count, breaker.stats.failure_count) == (1, 2)
        assert breaker.state is CircuitState.OPEN
        clock.advance(30.0)
        assert breaker.state is CircuitState.HALF_OPEN

    def test_that_go_backwards_keep_no_probe_for_ever(self) -> None:
        clock = Clock()
        config = CircuitBreakerConfig(failure_threshold=1, half_open_max_calls=1, reset_timeout_s=10.0)
        breaker = CircuitBreaker("api", config, clock=clock)
        breaker.record_failure()
        clock.advance(10.0)
        lost = breaker.permit()
        clock.now -= 5.0
        assert breaker.snapshot().probes_in_flight == 1
        clock.advance(35.0)
        assert breaker.permit() is not lost

    def test_that_give_ints_are_read(self) -> None:
        clock = Jumping(1000)
        config = CircuitBreakerConfig(failure_threshold=1, reset_timeout_s=10.0)
        breaker = CircuitBreaker("api", config, clock=clock)
        assert breaker.call(int) == 0
        caught(lambda: breaker.call(raising(ValueError())))
        json.dumps(breaker.snapshot().to_dict())
        clock.readings = [1010]
        assert breaker.state is CircuitState.HALF_OPEN
        pool = Bulkhead("pool", clock=clock)
        assert pool.call(int) == 0

    def test_that_raise_do_so_to_the_caller_and_block_nothing(self, way: Way) -> None:
        clock = Jumping(1000.0)
        config = CircuitBreakerConfig(failure_threshold=1, half_open_max_calls=1, success_threshold=1)
        breaker = CircuitBreaker("api", config, clock=clock)
        breaker.record_failure()
        for position in range(6):
            clock.readings = [1100.0 + 100 * position] * position + [Hostility(), 1100.0 + 100 * position]
            caught(lambda: way(breaker, raising(ValueError())))
        clock.readings = [9000.0]
        assert way(breaker, int) == 0
        assert breaker.is_closed

    def test_of_policies_that_raise_do_so_to_the_caller(self) -> None:
        for position in range(4):
            clock = Jumping(*[1.0] * position, Hostility(), 1.0)
            policy = RetryPolicy(1, sleep=lambda s: None, clock=clock)
            assert type(caught(lambda policy=policy: policy.call(raising(ValueError())))) in (Hostility, ValueError)

    def test_of_bulkheads_that_raise_lose_no_slot(self) -> None:
        clock = Jumping(1.0)
        pool = Bulkhead("pool", 1, clock=clock)
        for position in range(4):
            clock.readings = [1.0] * position + [Hostility(), 1.0]
            caught(lambda: pool.call(int))
            clock.readings = [1.0]
            assert pool.active_count == 0
        assert pool.call(int) == 0

    def test_of_policies_that_go_backwards_end_no_attempts_early(self) -> None:
        told = FakeClock(1000.0)
        clock = Jumping(*[1000.0 - n for n in range(100)])
        policy = RetryPolicy(2, max_elapsed_s=5.0, sleep=told.sleep, clock=clock)
        assert type(caught(lambda: policy.call(raising(ValueError())))) is ValueError
        assert len(told.sleeps) == 2

    def test_of_budgets_that_go_backwards_bring_and_take_nothing(self) -> None:
        clock = Clock()
        budget = RetryBudget(0.0, 1.0, 2, clock=clock)
        assert budget.take()
        clock.now -= 100.0
        assert budget.tokens == 1.0
        assert budget.take()
        assert not budget.take()


class Name(str):
    """A name with a mind of its own."""

    __slots__ = ()

    def __repr__(self) -> str:
        raise Hostility

    def __str__(self) -> str:
        raise Hostility

    def __format__(self, spec: str) -> str:
        raise Hostility

    def __eq__(self, other: object) -> bool:
        raise Hostility

    __hash__ = None  # type: ignore[assignment]


class TestNames:
    def test_of_breakers_are_shown(self, clock: Clock) -> None:
        events: list[Any] = []
        breaker = CircuitBreaker(Name("api"), mode=CircuitMode.FORCED_OPEN, listeners=[events.append], clock=clock)
        refusal = caught(lambda: breaker.call(int))
        assert type(refusal) is CircuitOpenError
        assert "api" in str(refusal)
        assert "api" in repr(breaker)
        assert json.dumps(breaker.snapshot().to_dict())
        assert [event.circuit_name for event in events] == ["api"]

    def test_of_bulkheads_are_shown(self) -> None:
        pool = Bulkhead(Name("pool"), 0)
        refusal = caught(lambda: pool.call(int))
        assert type(refusal) is BulkheadFullError
        assert "pool" in str(refusal)
        assert "pool" in repr(pool)

    def test_of_decorators_are_shown(self) -> None:
        @circuit_breaker(Name("api"))
        @bulkhead(Name("pool"))
        def function() -> int:
            return 1

        assert function() == 1
        assert "api" in repr(function.circuit_breaker)
