"""What an exception says about the service: the order of the questions, groups, rejections, and false `__class__`."""

from __future__ import annotations

import concurrent.futures
import sys
from asyncio import CancelledError
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from calls import succeed
from clocks import Clock
from failures import Down, raising
from ways import BREAKER, Way

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common import async_library
from circuit_breaker._common.async_library import cancellation_types
from circuit_breaker._common.judging import is_rejection, leaves
from circuit_breaker._common.words import Outcome
from circuit_breaker._retry.policy import RetryPolicy
from circuit_breaker.exceptions import BulkheadFullError, CircuitOpenError, ResilienceError, UsageError

WITHOUT_A_LOOP = [name for name, way in BREAKER.items() if not way.is_async]
SUCCESS, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED


class OurRefusal(CircuitOpenError):
    pass


class Cancelled(BaseException):
    """Stands for the one of trio."""


def judged(error: BaseException, *, hung: bool = False, **settings: Any) -> Outcome:
    config = CircuitBreakerConfig(**settings)
    return config._judge.judge(error, hung)


def never(error: BaseException) -> NoReturn:
    raise AssertionError(f"asked about {error!r}")


# One exception


@pytest.mark.parametrize(
    ("error", "settings", "outcome"),
    [
        (Down(), {}, FAILURE),
        (TimeoutError(), {}, FAILURE),
        (StopIteration(), {}, FAILURE),
        (ResilienceError("our base is no refusal"), {}, FAILURE),
        (KeyError(), {"failure_exceptions": KeyError}, FAILURE),
        (KeyError(), {"failure_exceptions": LookupError}, FAILURE),
        (KeyError(), {"failure_exceptions": (OSError, (ValueError | KeyError,))}, FAILURE),
        (KeyError(), {"failure_exceptions": OSError | KeyError}, FAILURE),
        (KeyError(), {"failure_exceptions": BaseException}, FAILURE),
        (KeyError(), {"failure_exceptions": OSError}, SUCCESS),
        (LookupError(), {"failure_exceptions": KeyError}, SUCCESS),
        (KeyError(), {"failure_exceptions": ()}, SUCCESS),
        (KeyError(), {"ignored_exceptions": KeyError}, IGNORED),
        (KeyError(), {"ignored_exceptions": (OSError, LookupError)}, IGNORED),
        (KeyError(), {"ignored_exceptions": OSError}, FAILURE),
        (KeyError(), {"failure_exceptions": KeyError, "ignored_exceptions": KeyError}, IGNORED),
        (KeyError("no"), {"failure_exceptions": lambda error: error.args == ("yes",)}, SUCCESS),
        (KeyError("yes"), {"failure_exceptions": lambda error: error.args == ("yes",)}, FAILURE),
        (KeyError("yes"), {"failure_exceptions": lambda error: error.args}, FAILURE),
        (KeyError(), {"failure_exceptions": lambda error: error.args}, SUCCESS),
        (KeyError(), {"ignored_exceptions": lambda error: True, "failure_exceptions": never}, IGNORED),
        (KeyError(), {"ignored_exceptions": lambda error: False}, FAILURE),
    ],
)
def test_an_exception_is_ignored_then_failure_then_success(error: Any, settings: Any, outcome: Outcome) -> None:
    assert judged(error, **settings) is outcome
    assert judged(error, hung=True, **settings) is outcome, "only a cancellation hangs"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError, BaseException])
@pytest.mark.parametrize("settings", [{}, {"failure_exceptions": BaseException}, {"failure_exceptions": never}])
def test_what_is_not_an_exception_is_ignored_before_anybody_is_asked(kind: Any, settings: Any) -> None:
    assert judged(kind(), ignored_exceptions=never, **settings) is IGNORED


class Believing(type):
    """A metaclass that takes every class for a subclass."""

    def __subclasscheck__(cls, other: type) -> bool:
        return True


class Anything(Exception, metaclass=Believing):
    """What everything is, if it is asked."""


def test_what_is_not_an_exception_is_ignored_whatever_a_listed_type_thinks_of_it() -> None:
    for settings in ({"failure_exceptions": BaseException}, {"failure_exceptions": Anything}):
        assert judged(KeyboardInterrupt(), **settings) is IGNORED
        assert judged(CircuitOpenError("no"), failure_exceptions=BaseException) is IGNORED
        assert judged(KeyError(), **settings) is FAILURE


# Refusals of this library


@pytest.mark.parametrize("refusal", [CircuitOpenError("no"), BulkheadFullError("no"), OurRefusal("no")], ids=repr)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"failure_exceptions": Exception},
        {"failure_exceptions": ResilienceError},
        {"failure_exceptions": lambda error: True},
        {"failure_exceptions": never, "ignored_exceptions": never},
    ],
)
def test_a_rejection_is_ignored_and_wider_types_and_predicates_are_not_asked(refusal: Any, settings: Any) -> None:
    assert is_rejection(refusal)
    assert judged(refusal, **settings) is IGNORED


def test_a_rejection_is_a_failure_if_its_own_type_is_listed() -> None:
    assert judged(CircuitOpenError("no"), failure_exceptions=CircuitOpenError) is FAILURE
    assert judged(OurRefusal("no"), failure_exceptions=(OSError, (CircuitOpenError,))) is FAILURE
    assert judged(OurRefusal("no"), failure_exceptions=OurRefusal | OSError) is FAILURE
    assert judged(BulkheadFullError("no"), failure_exceptions=(Exception, BulkheadFullError)) is FAILURE


def test_a_rejection_is_ignored_if_only_another_rejection_is_listed() -> None:
    assert judged(CircuitOpenError("no"), failure_exceptions=BulkheadFullError) is IGNORED
    assert judged(BulkheadFullError("no"), failure_exceptions=CircuitOpenError) is IGNORED
    assert judged(CircuitOpenError("no"), failure_exceptions=OurRefusal) is IGNORED


def test_a_listed_rejection_that_is_also_listed_as_ignored_is_ignored() -> None:
    settings: dict[str, Any] = {"failure_exceptions": CircuitOpenError, "ignored_exceptions": OurRefusal}
    assert judged(OurRefusal("no"), **settings) is IGNORED
    assert judged(CircuitOpenError("no"), **settings) is FAILURE


# Groups


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("several", errors)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (group(KeyError(), OSError()), FAILURE),
        (group(OSError(), KeyError()), FAILURE),
        (group(KeyError(), KeyError()), IGNORED),
        (group(KeyError(), ValueError()), SUCCESS),
        (group(ValueError(), ValueError()), SUCCESS),
        (group(KeyError(), KeyboardInterrupt()), IGNORED),
        (group(OSError(), KeyboardInterrupt()), FAILURE),
        (group(ValueError(), CancelledError()), SUCCESS),
        (group(CircuitOpenError("no"), CircuitOpenError("no")), IGNORED),
        (group(CircuitOpenError("no"), OSError()), FAILURE),
        (group(CircuitOpenError("no"), ValueError()), SUCCESS),
        (group(group(group(KeyError()), KeyError()), group(OSError())), FAILURE),
        (group(group(group(KeyError()), KeyError()), group(SystemExit())), IGNORED),
        (group(group(ValueError()), group(KeyError())), SUCCESS),
    ],
)
def test_a_group_is_what_its_leaves_are(error: BaseException, outcome: Outcome) -> None:
    assert judged(error, failure_exceptions=OSError, ignored_exceptions=KeyError) is outcome


def test_types_and_predicates_see_the_leaves_in_order_and_never_the_group() -> None:
    first, second, third, fourth = KeyError(1), OSError(2), ValueError(3), KeyError(4)
    seen: list[BaseException] = []

    def see(error: BaseException) -> bool:
        seen.append(error)
        return False

    error = group(first, group(second, group(third)), fourth)
    assert judged(error, failure_exceptions=see) is SUCCESS
    assert seen == [first, second, third, fourth]
    assert judged(error, failure_exceptions=LookupError) is FAILURE


def test_an_exception_that_is_not_a_group_is_its_own_leaf() -> None:
    error = Down()
    assert leaves(error) == [error]


def test_a_group_as_deep_as_can_be_is_judged() -> None:
    error: BaseException = OSError()
    for _ in range(10_000):
        error = group(error)
    assert judged(error, failure_exceptions=OSError) is FAILURE
    while isinstance(error, BaseExceptionGroup):  # to free it in one go would be too deep for the interpreter
        (error,) = error.exceptions


# Cancellations that hang


@pytest.mark.parametrize("kind", [CancelledError, Cancelled])
def test_a_cancelled_call_that_hung_is_a_failure(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", SimpleNamespace(Cancelled=Cancelled))  # type: ignore[misc]
    monkeypatch.setattr(async_library, "_found", (0, ()))
    assert issubclass(kind, cancellation_types())
    assert judged(kind(), hung=True) is FAILURE
    assert judged(kind(), hung=False) is IGNORED
    assert judged(group(kind(), KeyError()), hung=True, ignored_exceptions=KeyError) is FAILURE
    assert judged(kind(), hung=True, failure_exceptions=(), ignored_exceptions=Exception) is FAILURE


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_never_hangs(kind: Any) -> None:
    assert kind not in cancellation_types()
    assert judged(kind(), hung=True) is IGNORED


def test_without_an_event_loop_loaded_nothing_is_a_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "asyncio")
    monkeypatch.delitem(sys.modules, "trio", raising=False)
    monkeypatch.setattr(async_library, "_found", (0, ()))
    assert CancelledError not in cancellation_types()


# Predicates that raise, and exceptions that lie


@pytest.mark.parametrize("setting", ["failure_exceptions", "ignored_exceptions"])
@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_the_error_of_a_predicate_comes_out(setting: str, kind: type[BaseException]) -> None:
    def broken(error: BaseException) -> bool:
        raise kind

    with pytest.raises(kind):
        judged(Down(), **{setting: broken})


class Hostile(Exception):
    """Raises at everything that can be asked of it, and says that it is something else."""

    def _refuse(self, *_: object) -> NoReturn:
        raise ZeroDivisionError("nobody may ask this")

    __str__ = __repr__ = __eq__ = __ne__ = __hash__ = __bool__ = __len__ = __getattr__ = _refuse  # type: ignore[assignment]
    __class__ = property(_refuse)  # type: ignore[assignment]


class Liar(Exception):
    @property
    def __class__(self) -> Any:
        return KeyboardInterrupt

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


class HostileGroup(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> NoReturn:
        raise ZeroDivisionError("nobody may ask this")


@pytest.mark.parametrize(
    "strange", [Hostile, Liar, lambda: HostileGroup("several", [Hostile(), Liar()])], ids=["hostile", "liar", "group"]
)
@pytest.mark.parametrize(
    ("settings", "counted"),
    [
        ({}, "failure_count"),
        ({"ignored_exceptions": (Hostile, Liar)}, "ignored_count"),
        ({"failure_exceptions": KeyError}, "success_count"),
        ({"failure_exceptions": lambda error: True}, "failure_count"),
        ({"slow_call_duration_s": 1e-9, "retry_after": lambda error: None}, "failure_count"),
    ],
)
@pytest.mark.parametrize("way", WITHOUT_A_LOOP)  # asyncio itself gets lost over such an exception
def test_an_exception_is_judged_by_its_real_type_whatever_it_says(
    make: Callable[..., CircuitBreaker], way: str, strange: Callable[[], Exception], settings: Any, counted: str
) -> None:
    breaker = make(failure_threshold=1, **settings)
    error = strange()

    try:
        BREAKER[way](breaker, raising(error))
    except BaseException as raised:
        assert raised is error
    totals = (breaker.stats.success_count, breaker.stats.failure_count, breaker.stats.ignored_count)
    assert sum(totals) == getattr(breaker.stats, counted) == 1
    assert breaker.is_open is (counted == "failure_count")


def test_a_hostile_failure_that_opens_the_circuit_is_remembered_without_its_text(
    make: Callable[..., CircuitBreaker],
) -> None:
    breaker = make(failure_threshold=1)
    permit = breaker.permit()
    permit.failure(Hostile())
    with pytest.raises(CircuitOpenError) as raised:
        succeed(breaker)
    assert raised.value.last_failure == ("Hostile", "<str() raised>")


# Every way of calling


@pytest.mark.parametrize("setting", ["failure_exceptions", "ignored_exceptions"])
def test_a_predicate_that_raises_is_chained_to_the_error_and_the_call_is_ignored(
    make: Callable[..., CircuitBreaker], way: Way, setting: str
) -> None:
    def broken(error: BaseException) -> bool:
        raise ZeroDivisionError

    breaker = make(failure_threshold=1, **{setting: broken})
    original = Down()
    with pytest.raises(ZeroDivisionError) as raised:
        way(breaker, raising(original))
    assert raised.value.__context__ is original
    assert breaker.stats.ignored_count == 1
    assert breaker.is_closed


def test_a_group_out_of_a_call_is_judged_by_its_leaves(make: Callable[..., CircuitBreaker], way: Way) -> None:
    breaker = make(failure_threshold=1, ignored_exceptions=KeyError)
    with pytest.raises(BaseExceptionGroup):
        way(breaker, raising(group(KeyError(), KeyboardInterrupt())))
    assert (breaker.stats.ignored_count, breaker.stats.failure_count) == (1, 0)
    with pytest.raises(BaseExceptionGroup):
        way(breaker, raising(group(KeyError(), OSError())))
    assert breaker.is_open


@pytest.mark.parametrize(("seconds", "failures"), [(1.999, 0), (2.0, 1)])
def test_a_cancelled_call_hung_if_it_lasted_as_long_as_a_slow_one(
    make: Callable[..., CircuitBreaker], clock: Clock, seconds: float, failures: int
) -> None:
    breaker = make(slow_call_duration_s=2.0)

    def body() -> None:
        clock.advance(seconds)
        raise CancelledError

    with pytest.raises(CancelledError):
        breaker.call(body)
    assert breaker.stats.failure_count == failures


# Time-outs that are no Exception, and cancelled futures


class Timeout(BaseException):
    """As that of gevent."""


def test_a_timeout_that_is_not_an_exception_is_ignored_unless_it_is_listed() -> None:
    assert judged(Timeout(), hung=True) is IGNORED
    assert judged(Timeout(), hung=False, failure_exceptions=(Exception, Timeout)) is FAILURE
    assert judged(KeyError(), hung=False, failure_exceptions=(Exception, Timeout)) is FAILURE
    assert judged(KeyError(), hung=False, failure_exceptions=Timeout) is SUCCESS
    assert judged(KeyboardInterrupt(), hung=True, failure_exceptions=(Exception, Timeout)) is IGNORED


@pytest.mark.parametrize("name", ["ignored_exceptions", "retryable_exceptions"])
def test_such_a_timeout_is_listed_as_a_failure_only(name: str) -> None:
    make: Any = RetryPolicy if name == "retryable_exceptions" else CircuitBreakerConfig
    with pytest.raises(ValueError, match="Timeout is never judged by its type"):
        make(**{name: Timeout})


def test_twenty_timeouts_that_are_no_exception_open_the_circuit() -> None:
    breaker = CircuitBreaker(config=CircuitBreakerConfig(failure_exceptions=(Exception, Timeout)))

    def hang() -> None:
        raise Timeout

    for _ in range(5):
        with pytest.raises(Timeout):
            breaker.call(hang)
    assert breaker.is_open


class CancelledByAFleet(concurrent.futures.CancelledError):
    pass


@pytest.mark.parametrize("kind", [concurrent.futures.CancelledError, CancelledByAFleet])
def test_a_cancelled_future_is_a_cancellation(kind: type[Exception]) -> None:
    assert judged(kind(), hung=False) is IGNORED
    assert judged(kind(), hung=True) is FAILURE
    assert not RetryPolicy().should_retry(kind())
    with pytest.raises(ValueError, match="never judged by its type"):
        CircuitBreakerConfig(failure_exceptions=kind)


def test_a_wrong_use_of_this_library_says_nothing() -> None:
    assert judged(UsageError(), hung=True) is IGNORED
    assert judged(group(UsageError(), KeyError()), hung=False) is FAILURE
    assert not RetryPolicy(retryable_exceptions=Exception).should_retry(UsageError())
