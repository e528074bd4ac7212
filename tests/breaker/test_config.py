"""The settings of a breaker: what each takes and rejects, and which settings cannot work together."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import reprlib
import weakref
from asyncio import CancelledError
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from clocks import Clock
from failures import raising
from lookalikes import Array, Float, Index, async_generator_function, coroutine_function, generator_function

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common.words import CircuitMode
from circuit_breaker._retry.policy import RetryPolicy

NO_NUMBERS: list[Any] = [True, False, "3", b"3", 1j, [1], (1,), object(), int, Array(), timedelta(seconds=1)]
NOT_FINITE: list[Any] = [math.nan, math.inf, -math.inf, Decimal("NaN"), Float(math.nan), 10**400]

COUNT = {
    "good": [1, 7, Index(7), 10**30],
    "bad types": [*NO_NUMBERS, 2.5, 2.0, math.nan, Decimal(2), Fraction(2), Float(2.0)],
    "bad values": [0, -1, Index(0)],
}
SHARE = {
    "good": [1, 1.0, 0.001, 0.5, Decimal("0.5"), Fraction(1, 2), Float(0.5), Index(1)],
    "bad types": NO_NUMBERS,
    "bad values": [*NOT_FINITE, 0, -0.5, 1.001, 50],
}
ABOVE_ZERO = {
    "good": [0.001, 1, 86_400, Decimal("0.5"), Fraction(1, 2), Float(0.5), Index(1)],
    "bad types": [value for value in NO_NUMBERS if not isinstance(value, timedelta)],
    "bad values": [*NOT_FINITE, 0, -0.0, -1, timedelta(0)],
}
NO_SECONDS = [value for value in NO_NUMBERS if not isinstance(value, timedelta)]
FUNCTION = {
    "good": [len, lambda value: value, [].append],
    "bad types": [
        1,
        "len",
        (len,),
        int,
        list[int],
        True,
        coroutine_function,
        generator_function,
        async_generator_function,
    ],
    "bad values": [],
}
FILTER = {
    "good": [
        ValueError,
        (ValueError, KeyError),
        ValueError | KeyError,
        (ValueError, (KeyError | OSError, (LookupError,))),
        (),
        Exception,
        BaseException,
        lambda error: True,
    ],
    "bad types": [
        None,
        True,
        "ValueError",
        ValueError(),
        [ValueError],
        {ValueError},
        frozenset({ValueError}),
        {ValueError: 1},
        (ValueError, "KeyError"),
        (ValueError, int),
        (ValueError, None),
        ValueError | None,
        int,
        int | ValueError,
        object,
        list[int],
        ExceptionGroup[ValueError],
        (ExceptionGroup[ValueError],),
        coroutine_function,
        generator_function,
        async_generator_function,
    ],
    "bad values": [
        KeyboardInterrupt,
        SystemExit,
        GeneratorExit,
        CancelledError,
        (ValueError, KeyboardInterrupt),
        ValueError | CancelledError,
        (ValueError, (SystemExit,)),
    ],
}
REQUIRED: dict[str, Any] = {"bad types": [None]}
OPTIONAL: dict[str, Any] = {"good": [None]}
INFINITE: dict[str, Any] = {"good": [math.inf], "not bad": [math.inf, 10**400]}

PARAMETERS: dict[str, tuple[dict[str, list[Any]], ...]] = {
    "failure_threshold": (COUNT,),
    "success_threshold": (COUNT, REQUIRED),
    "half_open_max_calls": (COUNT, REQUIRED),
    "reset_timeout_s": (
        {
            "good": [0, 30, 0.5, math.inf, Decimal(3), Fraction(1, 2), Float(0.5), Index(2), len, lambda opened: 2.0],
            "bad types": [value for value in NO_NUMBERS if value is not int and not isinstance(value, timedelta)],
            "bad values": [timedelta(seconds=-1), math.nan, -math.inf, -1, -0.001, 10**400],
        },
        {"bad types": [None, int, list[int], coroutine_function, generator_function, async_generator_function]},
    ),
    "error_rate_threshold": (SHARE, OPTIONAL),
    "error_rate_window": (
        {
            "good": [*COUNT["good"], timedelta(seconds=1), timedelta(microseconds=1), timedelta.max],
            "bad types": [value for value in COUNT["bad types"] if not isinstance(value, timedelta)],
            "bad values": [*COUNT["bad values"], timedelta(0), timedelta(seconds=-1)],
        },
        REQUIRED,
    ),
    "minimum_calls": (
        {"good": [1, 100, Index(7)], "bad types": COUNT["bad types"], "bad values": COUNT["bad values"]},
        OPTIONAL,
    ),
    "slow_call_duration_s": (ABOVE_ZERO, OPTIONAL),
    "slow_call_rate_threshold": (SHARE, OPTIONAL),
    "half_open_timeout_s": (
        {
            "good": [*ABOVE_ZERO["good"], math.inf],
            "bad types": NO_SECONDS,
            "bad values": [0, -1, -0.0, math.nan, -math.inf, 10**400],
        },
        REQUIRED,
    ),
    "failure_exceptions": (FILTER,),
    "ignored_exceptions": (FILTER,),
    "failure_result": (FUNCTION, OPTIONAL),
    "retry_after": (FUNCTION, OPTIONAL),
    "retry_after_max_s": (
        {"good": [0, *ABOVE_ZERO["good"]], "bad types": NO_SECONDS, "bad values": [*NOT_FINITE, -1, -0.001]},
        REQUIRED,
    ),
    "half_open_failure_threshold": (COUNT, REQUIRED),
    "failure_threshold_within_s": (ABOVE_ZERO, OPTIONAL),
    "trip_when": (FUNCTION, OPTIONAL),
}
BESIDE: dict[str, dict[str, Any]] = {"slow_call_rate_threshold": {"slow_call_duration_s": 1}}


def cases(kind: str) -> list[tuple[str, Any]]:
    return [(name, value) for name, tables in PARAMETERS.items() for table in tables for value in table.get(kind, [])]


def test_every_setting_is_in_the_table() -> None:
    assert set(PARAMETERS) == {field.name for field in dataclasses.fields(CircuitBreakerConfig)}


@pytest.mark.parametrize(("name", "value"), cases("good"))
def test_a_setting_takes_what_it_is_documented_to_take(name: str, value: Any) -> None:
    taken = getattr(CircuitBreakerConfig(**{name: value}, **BESIDE.get(name, {})), name)
    assert taken is value or taken == getattr(value, "value", value)
    assert type(taken) in {int, float, type(value)}, "what is like a number becomes one"


@pytest.mark.parametrize(("name", "value"), cases("bad types"))
def test_a_setting_of_the_wrong_type_is_a_type_error_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be an? .*, got .* \(\w+\)$"):
        CircuitBreakerConfig(**{name: value}, **BESIDE.get(name, {}))


@pytest.mark.parametrize(("name", "value"), cases("bad values"))
def test_a_setting_out_of_range_is_a_value_error_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be an? .*, got "):
        CircuitBreakerConfig(**{name: value}, **BESIDE.get(name, {}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"failure_threshold": 0}, "failure_threshold must be an int >= 1, or None, got 0"),
        ({"failure_threshold": 2.5}, "failure_threshold must be an int >= 1, or None, got 2.5 (float)"),
        ({"success_threshold": 0}, "success_threshold must be an int >= 1, got 0"),
        ({"error_rate_threshold": 50}, "error_rate_threshold must be a finite number > 0 and <= 1, or None, got 50"),
        ({"reset_timeout_s": -1}, "reset_timeout_s must be a number >= 0 or a timedelta, got -1"),
        (
            {"slow_call_duration_s": "2"},
            "slow_call_duration_s must be a finite number > 0 or a timedelta, or None, got '2' (str)",
        ),
        ({"trip_when": 5}, "trip_when must be a function, or None, got 5 (int)"),
        (
            {"error_rate_window": 2.5},
            "error_rate_window must be an int >= 1 (calls) or a timedelta > 0, got 2.5 (float)",
        ),
        (
            {"error_rate_window": timedelta(0)},
            "error_rate_window must be an int >= 1 (calls) or a timedelta > 0, got datetime.timedelta(0)",
        ),
        (
            {"failure_exceptions": [ValueError]},
            (
                "failure_exceptions must be an exception type, a tuple or union of them, or a predicate of one "
                "exception (a tuple is meant), got [<class 'ValueError'>] (list)"
            ),
        ),
        (
            {"failure_exceptions": (ValueError, len)},
            (
                "failure_exceptions must be an exception type, a tuple or union of them, or a predicate of one "
                "exception (to combine types and a predicate, write one predicate), "
                "got (<class 'ValueError'>, <built-in function len>) (tuple)"
            ),
        ),
    ],
)
def test_the_message_names_the_setting_what_it_got_and_what_it_takes(settings: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        CircuitBreakerConfig(**settings)
    assert str(raised.value) == message


def test_a_type_that_is_never_judged_is_named() -> None:
    with pytest.raises(ValueError, match="KeyboardInterrupt is never judged by its type"):
        CircuitBreakerConfig(ignored_exceptions=(ValueError, KeyboardInterrupt))


class Group(ExceptionGroup[Exception]):
    """One of the caller's own."""


@pytest.mark.parametrize("name", ["failure_exceptions", "ignored_exceptions", "retryable_exceptions"])
@pytest.mark.parametrize("kind", [ExceptionGroup, BaseExceptionGroup, Group], ids=lambda kind: kind.__name__)
def test_a_type_of_groups_is_rejected_for_their_leaves_are_judged(name: str, kind: Any) -> None:
    make: Any = RetryPolicy if name == "retryable_exceptions" else CircuitBreakerConfig
    for given in (kind, (ValueError, kind), ValueError | kind):
        with pytest.raises(ValueError, match=rf"^{name} must be .*; {kind.__name__} never matches") as raised:
            make(**{name: given})
        assert reprlib.repr(given) in str(raised.value)


# What can never work together


def test_more_minimum_calls_than_the_window_holds_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"^minimum_calls must be at most error_rate_window \(10 calls\), got 11$"):
        CircuitBreakerConfig(error_rate_window=10, minimum_calls=11)
    assert CircuitBreakerConfig(error_rate_window=10, minimum_calls=10).minimum_calls == 10


def test_a_window_of_time_takes_any_minimum_of_calls() -> None:
    assert CircuitBreakerConfig(error_rate_window=timedelta(seconds=1), minimum_calls=10**9).minimum_calls == 10**9


def test_a_rate_of_slow_calls_without_a_duration_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"^slow_call_rate_threshold=0.5 needs slow_call_duration_s, got None$"):
        CircuitBreakerConfig(slow_call_rate_threshold=0.5)


def test_a_duration_without_a_rate_only_counts_and_is_allowed() -> None:
    assert CircuitBreakerConfig(slow_call_duration_s=1).slow_call_rate_threshold is None


def test_a_breaker_that_nothing_could_open_is_rejected() -> None:
    with pytest.raises(ValueError, match="must not all be None: no rule could open the circuit"):
        CircuitBreakerConfig(failure_threshold=None)


@pytest.mark.parametrize(
    "rule",
    [{"error_rate_threshold": 0.5}, {"slow_call_rate_threshold": 0.5, "slow_call_duration_s": 1}],
)
def test_one_rule_is_enough(rule: dict[str, Any]) -> None:
    assert CircuitBreakerConfig(failure_threshold=None, **rule).failure_threshold is None


# The configuration as an object


def test_the_first_six_settings_are_positional_and_in_the_known_order() -> None:
    config = CircuitBreakerConfig(1, 2, 3.0, 4, 0.5, 6)
    assert (config.failure_threshold, config.success_threshold, config.reset_timeout_s) == (1, 2, 3.0)
    assert (config.half_open_max_calls, config.error_rate_threshold, config.error_rate_window) == (4, 0.5, 6)
    for seventh in (5, (), None):
        with pytest.raises(TypeError, match="positional"):
            CircuitBreakerConfig(1, 2, 3.0, 4, 0.5, 6, seventh)  # type: ignore[misc]


def test_the_defaults_are_the_documented_ones() -> None:
    assert dataclasses.asdict(CircuitBreakerConfig()) == {
        "failure_threshold": 5,
        "success_threshold": 3,
        "reset_timeout_s": 30.0,
        "half_open_max_calls": 3,
        "error_rate_threshold": None,
        "error_rate_window": 100,
        "minimum_calls": None,
        "slow_call_duration_s": None,
        "slow_call_rate_threshold": None,
        "half_open_timeout_s": 30.0,
        "failure_exceptions": (Exception,),
        "ignored_exceptions": (),
        "failure_result": None,
        "retry_after": None,
        "retry_after_max_s": 300.0,
        "half_open_failure_threshold": 1,
        "failure_threshold_within_s": None,
        "trip_when": None,
    }


@pytest.mark.parametrize(
    "name",
    [
        "reset_timeout_s",
        "slow_call_duration_s",
        "half_open_timeout_s",
        "retry_after_max_s",
        "failure_threshold_within_s",
    ],
)
def test_a_duration_may_be_a_timedelta(name: str) -> None:
    config = CircuitBreakerConfig(**{name: timedelta(minutes=1, milliseconds=500)})
    assert getattr(config, name) == 60.5
    assert type(getattr(config, name)) is float


def test_a_setting_cannot_be_changed_afterwards() -> None:
    config = CircuitBreakerConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.failure_threshold = 3  # type: ignore[misc]


def test_replacing_a_setting_checks_again() -> None:
    config = CircuitBreakerConfig(failure_exceptions=ValueError)
    assert dataclasses.replace(config, failure_threshold=2).failure_exceptions is ValueError
    with pytest.raises(ValueError, match="failure_threshold"):
        dataclasses.replace(config, failure_threshold=0)
    assert config.replace(failure_threshold=2) == dataclasses.replace(config, failure_threshold=2)
    with pytest.raises(ValueError, match="failure_threshold"):
        config.replace(failure_threshold=0)
    with pytest.raises(TypeError, match="threshold"):
        config.replace(threshold=1)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config))])
def test_a_configuration_survives_copying_and_pickling(duplicate: Callable[[Any], Any]) -> None:
    config = CircuitBreakerConfig(2, ignored_exceptions=(KeyError | OSError,))
    other = duplicate(config)
    assert other == config
    assert hash(other) == hash(config)
    assert CircuitBreaker("api", other).config is other
    assert weakref.ref(other)() is other


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config))])
def test_a_configuration_can_be_copied_whatever_errors_it_has_met(duplicate: Callable[[Any], Any]) -> None:
    class Local(Exception):
        """One that cannot be pickled."""

        def __reduce_ex__(self, protocol: object) -> Any:
            raise AssertionError

    config = CircuitBreakerConfig(2, ignored_exceptions=KeyError)
    for each in (config, duplicate(config)):
        breaker = CircuitBreaker("api", each)
        for error in (KeyError, Local):
            with pytest.raises(error):
                breaker.call(raising(error()))
        assert (breaker.stats.failure_count, breaker.stats.ignored_count) == (1, 1)
    assert duplicate(config) == config


# The other parameters of a breaker


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("name", None, "a str"),
        ("name", b"api", "a str"),
        ("name", 3, "a str"),
        ("config", {"failure_threshold": 3}, "a CircuitBreakerConfig"),
        ("config", CircuitBreakerConfig, "a CircuitBreakerConfig"),
        ("config", 5, "a CircuitBreakerConfig"),
        ("mode", "auto", "one of "),
        ("mode", None, "one of "),
        ("listeners", print, "an iterable of functions that take one event"),
        ("listeners", None, "an iterable of functions that take one event"),
        ("listeners", 3, "an iterable of functions that take one event"),
        ("clock", None, "a function that returns seconds"),
        ("clock", 3.0, "a function that returns seconds"),
        ("clock", Clock, "a function that returns seconds"),
        ("clock", coroutine_function, "a function that returns seconds"),
    ],
)
def test_a_parameter_of_a_breaker_of_the_wrong_type_is_a_type_error_that_names_it(
    name: str, value: Any, takes: str
) -> None:
    with pytest.raises(TypeError) as raised:
        CircuitBreaker(**{name: value})
    assert str(raised.value).startswith(f"{name} must be {takes}")
    assert f"({type(value).__name__})" in str(raised.value)


def test_a_breaker_takes_what_it_is_documented_to_take(clock: Clock) -> None:
    config = CircuitBreakerConfig()
    breaker = CircuitBreaker("", config, mode=CircuitMode.SHADOW, listeners=[print], clock=clock)
    assert (breaker.name, breaker.config, breaker.mode) == ("", config, CircuitMode.SHADOW)
    assert CircuitBreaker().name == "default"
    assert CircuitBreaker().config == CircuitBreakerConfig()
    assert CircuitBreaker(config=None).mode is CircuitMode.AUTO


@pytest.mark.parametrize(("name", "value"), [("config", None), ("config", {}), ("mode", "auto"), ("mode", None)])
def test_what_is_set_later_is_checked_as_well_and_nothing_changes(name: str, value: Any) -> None:
    breaker = CircuitBreaker()
    before = getattr(breaker, name)
    with pytest.raises(TypeError, match=f"^{name} must be "):
        setattr(breaker, name, value)
    assert getattr(breaker, name) is before
