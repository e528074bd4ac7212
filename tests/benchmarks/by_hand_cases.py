"""What users of the original call all day, beside what somebody writes by hand for it."""

from __future__ import annotations

from typing import Any

import by_hand
import measures
from case import BY_HAND, US, Case, Subjects, ways
from failures import Down
from measures import Measure

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitBreakerConfig, CircuitBreakerRegistry, RetryPolicy

NEVER = 1_000_000_000  # as a threshold
ITEMS = 1_000
DECORATED = "decorated"


def work() -> None:
    pass


class Client:
    """What has a method that is guarded."""

    def work(self) -> None:
        pass


def breaker() -> CircuitBreaker:
    return CircuitBreaker(config=CircuitBreakerConfig(failure_threshold=NEVER))


def open_breakers() -> dict[str, object]:
    """Return both breakers, open for as long as the measurement lasts."""
    ours, theirs = CircuitBreaker(config=CircuitBreakerConfig(reset_timeout_s=3600.0)), by_hand.Breaker()
    for _ in range(by_hand.THRESHOLD):
        ours.record_failure(1.0)
        theirs.record_failure(1.0)
    return {BY_HAND: theirs, US: ours}


def breakers() -> dict[str, object]:
    return {BY_HAND: by_hand.Breaker(NEVER), US: breaker()}


def of(statement: str, subjects: dict[str, object]) -> Subjects:
    """Measure the statement, in which each subject in turn is called `it`."""
    return ways(lambda subject: measures.statement(statement, it=subject), subjects)


def admit_and_record() -> Subjects:
    return of("it.allow_request(); it.record_success(1.0)", breakers())


def record_failure() -> Subjects:
    return of("it.record_failure(1.0)", breakers())


def rejecting() -> Subjects:
    return of("it.allow_request()", open_breakers())


def state() -> Subjects:
    return of("it.state", breakers())


def success_count() -> Subjects:
    return {
        BY_HAND: measures.statement("it.success_count", it=by_hand.Breaker()),
        US: measures.statement("it.stats.success_count", it=breaker()),
    }


def error_rate() -> Subjects:
    return {
        BY_HAND: measures.statement("it.error_rate", it=by_hand.Breaker()),
        US: measures.statement("it.stats.error_rate", it=breaker()),
    }


def slots() -> dict[str, object]:
    return {BY_HAND: by_hand.Slots(), US: Bulkhead(max_concurrent=by_hand.SLOTS)}


def slot() -> Subjects:
    return of("it.acquire(); it.release()", slots())


def active_count() -> Subjects:
    return of("it.active_count", slots())


def delay() -> Subjects:
    return {
        BY_HAND: measures.statement("get_delay(2)", get_delay=by_hand.get_delay),
        US: measures.statement("it.get_delay(2)", it=RetryPolicy()),
    }


def retryable() -> Subjects:
    error = Down()
    return {
        BY_HAND: measures.statement("should_retry(error)", should_retry=by_hand.should_retry, error=error),
        US: measures.statement("it.should_retry(error)", it=RetryPolicy(), error=error),
    }


def first_turn() -> Subjects:
    text = "for turn in it():\n    break"
    return {
        BY_HAND: measures.statement(text, it=by_hand.attempts),
        US: measures.statement(text, it=RetryPolicy().attempts),
    }


def call_function() -> Subjects:
    return {
        DECORATED: measures.call(breaker()(work)),
        US: measures.statement("it.call(work)", it=breaker(), work=work),
    }


def call_method() -> Subjects:
    return {
        DECORATED: measures.call(breaker()(work)),
        US: measures.statement("it.call(client.work)", it=breaker(), client=Client()),
    }


def registry() -> Subjects:
    ours, theirs = CircuitBreakerRegistry(), by_hand.Registry()
    return of("it['payments']", {BY_HAND: theirs, US: ours})


def stream() -> Subjects:
    def items() -> object:
        for _ in range(ITEMS):
            yield None

    def each(make: object) -> Measure:
        return measures.statement("for _ in make(): pass", make=make)

    bare, guarded = each(items), each(breaker()(items))
    return {US: lambda number: (guarded(number) - bare(number)) / ITEMS}


def threads_of_call() -> Subjects:
    ours, decorated = breaker(), breaker()(work)
    return {DECORATED: measures.threads(decorated), US: measures.threads(lambda: ours.call(work))}


def threads_of_block() -> Subjects:
    ours = breaker()

    def block() -> None:
        with ours:
            work()

    return {DECORATED: measures.threads(ours(work)), US: measures.threads(block)}


def threads_of_records() -> Subjects:
    def both(it: Any) -> Measure:
        def func() -> None:
            it.allow_request()
            it.record_success(1.0)

        return measures.threads(func)

    return ways(both, breakers())


CASES = (
    Case(
        "allow_request(); record_success(1.0)",
        admit_and_record,
        1.5,
        BY_HAND,
        headline="`allow_request()` and `record_success()`",
    ),
    Case("record_failure(1.0)", record_failure, 2.5, BY_HAND),
    Case("allow_request() while open", rejecting, 2.0, BY_HAND),
    Case("state", state, 2.5, BY_HAND),
    Case("stats.success_count", success_count, 4.0, BY_HAND),
    Case("stats.error_rate", error_rate, 4.0, BY_HAND),
    Case("acquire(); release()", slot, 1.5, BY_HAND),
    Case("active_count", active_count, 3.0, BY_HAND),
    Case("get_delay(2)", delay, 3.0, BY_HAND),
    Case("should_retry(error)", retryable, 10.0, BY_HAND),
    Case("first turn of attempts()", first_turn, 10.0, BY_HAND),
    Case("call(function)", call_function, 2.0, DECORATED),
    Case("call(obj.method)", call_method, 2.5, DECORATED),
    Case("registry[key]", registry, 2.5, BY_HAND),
    Case("an item of a guarded stream, over a bare one", stream, 150, None),
    Case("call(function), 8 threads at once", threads_of_call, 2.0, DECORATED, slice_s=0.01, rounds=0.1),
    Case("with breaker, 8 threads at once", threads_of_block, 2.4, DECORATED, slice_s=0.01, rounds=0.1),
    Case(
        "allow_request(); record_success(1.0), 8 threads at once",
        threads_of_records,
        1.5,
        BY_HAND,
        slice_s=0.01,
        rounds=0.1,
    ),
)
