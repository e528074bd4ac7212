"""One check for each kind of parameter: what it takes, what it rejects, and that the message helps."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from lookalikes import Array, Float, Index, async_generator_function, coroutine_function, generator_function

from circuit_breaker._common import checks as _checks
from circuit_breaker._common.words import CircuitMode

HUGE = 10**5_000


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError

    def __float__(self) -> float:
        return -1.0


NO_NUMBERS: list[Any] = [None, True, False, "3", b"3", 1j, [1], (1,), object(), int, Array()]
NO_INTS: list[Any] = [*NO_NUMBERS, 2.5, 2.0, math.nan, math.inf, Decimal(2), Fraction(4, 2), Float(2.0)]


@pytest.mark.parametrize("value", [3, Index(3)])
def test_a_count_is_an_int_or_has_an_index(value: Any) -> None:
    taken = _checks.count("n", value, 1)
    assert taken == 3
    assert type(taken) is int


def test_a_count_may_be_the_least_there_is() -> None:
    assert _checks.count("n", 1, 1) == 1


@pytest.mark.parametrize("value", NO_INTS, ids=repr)
def test_a_count_that_is_not_an_int_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^n must be an int >= 1, got "):
        _checks.count("n", value, 1)


@pytest.mark.parametrize("value", [0, -1, Index(0), -HUGE], ids=["zero", "negative", "index", "huge"])
def test_a_count_that_is_too_small_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^n must be an int >= 1, got "):
        _checks.count("n", value, 1)


def test_a_count_has_no_upper_bound() -> None:
    assert _checks.count("n", HUGE, 0) == HUGE


@pytest.mark.parametrize("value", [0.5, Decimal("0.5"), Fraction(1, 2), Float(0.5)], ids=repr)
def test_a_number_is_whatever_has_a_float(value: Any) -> None:
    taken = _checks.number("x", value)
    assert taken == 0.5
    assert type(taken) is float


@pytest.mark.parametrize("value", [3, Index(3)])
def test_a_number_is_whatever_has_an_index(value: Any) -> None:
    taken = _checks.number("x", value)
    assert taken == 3.0
    assert type(taken) is float


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_not_a_number_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^x must be a finite number, got "):
        _checks.number("x", value)


class FloatString(str):
    __slots__ = ()

    def __float__(self) -> float:
        return 3.0


def test_a_string_is_not_a_number_even_if_it_claims_to_be() -> None:
    with pytest.raises(TypeError):
        _checks.number("x", FloatString("3"))
    with pytest.raises(TypeError):
        _checks.latency("x", FloatString("3"))


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, Decimal("NaN"), Decimal("sNaN"), Float(math.nan), HUGE],
    ids=["nan", "inf", "-inf", "Decimal nan", "Decimal snan", "Float nan", "huge"],
)
def test_a_number_that_is_not_finite_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x must be a finite number, got "):
        _checks.number("x", value)


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "takes"),
    [
        ({"above": 0}, [0.001, 5.0], [0, -0.0, -1], "a finite number > 0"),
        ({"minimum": 0}, [0, 0.5], [-0.001, -1], "a finite number >= 0"),
        ({"above": 0, "maximum": 1}, [0.001, 1], [0, 1.001, 50], "a finite number > 0 and <= 1"),
        ({"minimum": 0, "infinite": True}, [0, math.inf], [-math.inf, math.nan], "a number >= 0"),
        ({"above": 0, "infinite": True}, [math.inf], [0], "a number > 0"),
    ],
)
def test_a_number_keeps_its_bounds(bounds: dict[str, Any], good: list[Any], bad: list[Any], takes: str) -> None:
    for value in good:
        assert _checks.number("x", value, **bounds) == value
    for value in bad:
        with pytest.raises(ValueError) as raised:
            _checks.number("x", value, **bounds)
        assert str(raised.value) == f"x must be {takes}, got {value!r}"


def test_a_type_error_says_what_it_got_and_of_which_type() -> None:
    with pytest.raises(TypeError) as raised:
        _checks.number("timeout_s", "3", minimum=0)
    assert str(raised.value) == "timeout_s must be a finite number >= 0, got '3' (str)"


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(TypeError) as raised:
        _checks.number("x", "3" * 10_000)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("value", [HUGE, [HUGE]], ids=["int", "list"])
def test_a_value_that_python_rejects_to_print_is_still_described(value: Any) -> None:
    # From 3.14 on, reprlib knows how to describe such an int.
    got = r"(more digits than can be shown|\[?<int instance with roughly 5001 digits)"
    with pytest.raises((TypeError, ValueError), match=f"^x must be a finite number, got {got}"):
        _checks.number("x", value)


def test_a_value_whose_repr_raises_is_still_described() -> None:
    with pytest.raises(ValueError, match=r"^x must be a finite number >= 0, got <Unprintable instance"):
        _checks.number("x", Unprintable(), minimum=0)


@pytest.mark.parametrize("value", [90, 90.0, timedelta(minutes=1.5), Float(90.0)])
def test_seconds_are_a_number_or_a_timedelta(value: Any) -> None:
    taken = _checks.seconds("t", value, minimum=0)
    assert taken == 90.0
    assert type(taken) is float


@pytest.mark.parametrize("value", [*NO_NUMBERS, timedelta], ids=repr)
def test_what_is_neither_seconds_nor_a_timedelta_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^t must be a finite number >= 0 or a timedelta, got "):
        _checks.seconds("t", value, minimum=0)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, timedelta(0), timedelta(seconds=-1)])
def test_seconds_keep_their_bounds(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^t must be a finite number > 0 or a timedelta, got "):
        _checks.seconds("t", value, above=0)


def test_seconds_may_be_infinite_where_that_is_allowed() -> None:
    assert _checks.seconds("t", math.inf, infinite=True) == math.inf


def _even(name: str, value: Any) -> int:
    if value % 2:
        raise _checks.wrong_value(name, value, "even")
    return int(value)


@dataclass(frozen=True)
class Settings:
    limit: int | None = field(default=5, metadata=_checks.by(_checks.count, minimum=1, optional=True))
    pause_s: float = field(default=1.0, metadata=_checks.by(_checks.seconds, minimum=0))
    remark: object = "anything"
    wait_s: float | None = field(default=None, metadata=_checks.by(_checks.seconds, above=0, optional=True))
    share: float | None = field(default=None, metadata=_checks.by(_checks.number, maximum=1, optional=True))
    ask: object = field(default=None, metadata=_checks.by(_checks.function, optional=True))
    kind: object = field(default=None, metadata=_checks.by(_checks.instance, kind=int, optional=True))
    number: int | None = field(default=None, metadata=_checks.by(_even, optional=True))
    spelled: int | None = field(
        default=None, metadata=_checks.by(_checks.count, minimum=0, takes="an int >= 0 or None", optional=True)
    )

    def __post_init__(self) -> None:
        _checks.check_fields(self)


def test_a_field_is_checked_as_it_declares_and_takes_the_plain_value() -> None:
    settings = Settings(Index(3), timedelta(seconds=2))  # type: ignore[arg-type]
    assert (settings.limit, settings.pause_s, settings.remark) == (3, 2.0, "anything")
    assert (type(settings.limit), type(settings.pause_s)) == (int, float)
    with pytest.raises(ValueError, match=r"^limit must be an int >= 1, or None, got 0"):
        Settings(0)
    with pytest.raises(TypeError, match=r"^pause_s must be "):
        Settings(pause_s="soon")  # type: ignore[arg-type]


def test_none_is_taken_by_an_optional_field_only() -> None:
    assert Settings(None).limit is None
    assert Settings(number=2).number == 2
    with pytest.raises(TypeError, match=r"^pause_s must be "):
        Settings(pause_s=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("limit", 0, "an int >= 1, or None"),
        ("limit", "5", "an int >= 1, or None"),
        ("wait_s", 0, "a finite number > 0 or a timedelta, or None"),
        ("share", 2, "a finite number <= 1, or None"),
        ("ask", 5, "a function, or None"),
        ("kind", "5", "a int, or None"),
        ("number", 5, "even"),
        ("spelled", -1, "an int >= 0 or None"),
        ("pause_s", -1, "a finite number >= 0 or a timedelta"),
    ],
)
def test_the_message_of_a_field_says_all_that_it_takes(name: str, value: Any, takes: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        Settings(**{name: value})
    assert str(raised.value).startswith(f"{name} must be {takes}, got {value!r}")


def test_a_flag_is_true_or_false() -> None:
    assert _checks.flag("f", True) is True
    assert _checks.flag("f", False) is False
    for value in (0, 1, None, "yes", []):
        with pytest.raises(TypeError, match=r"^f must be True or False, got "):
            _checks.flag("f", value)


def test_a_text_is_a_str() -> None:
    assert _checks.text("name", "api") == "api"
    for value in (None, b"api", 3, ["api"]):
        with pytest.raises(TypeError, match=r"^name must be a str, got "):
            _checks.text("name", value)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.5, 3, Index(3), Float(2.5), Decimal("2.5"), Fraction(5, 2)], ids=repr)
def test_a_latency_is_a_number(value: Any) -> None:
    taken = _checks.latency("ms", value)
    assert taken == float(value)
    assert type(taken) is float


@pytest.mark.parametrize(
    "value",
    [-1, -0.001, math.nan, math.inf, -math.inf, Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity"), HUGE, -HUGE],
    ids=range(10),
)
def test_a_latency_that_cannot_be_is_zero(value: Any) -> None:
    assert _checks.latency("ms", value) == 0.0


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_a_latency_that_is_not_a_number_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^ms must be a number of milliseconds, got "):
        _checks.latency("ms", value)


def test_an_instance_is_of_its_kind() -> None:
    assert _checks.instance("error", error := ValueError(), BaseException) is error
    with pytest.raises(TypeError, match=r"^error must be a BaseException, got 'text' \(str\)$"):
        _checks.instance("error", "text", BaseException)
    with pytest.raises(TypeError):
        _checks.instance("error", ValueError, BaseException)


def test_a_member_is_of_its_enumeration() -> None:
    assert _checks.member("mode", CircuitMode.SHADOW, CircuitMode) is CircuitMode.SHADOW
    for value in ("shadow", None, CircuitMode):
        with pytest.raises(TypeError, match=r"^mode must be one of .*CircuitMode.SHADOW, got "):
            _checks.member("mode", value, CircuitMode)


class AsyncCallable:
    async def __call__(self, _: object) -> None: ...


class PlainCallable:
    def __call__(self, _: object) -> None: ...


@pytest.mark.parametrize("value", [len, print, lambda x: x, [].append, PlainCallable(), functools.partial(max, 1)])
def test_a_function_is_whatever_can_be_called(value: Any) -> None:
    assert _checks.function("f", value) is value


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        "len",
        int,
        ValueError,
        list[int],
        coroutine_function,
        generator_function,
        async_generator_function,
        functools.partial(coroutine_function, 1),
        AsyncCallable(),
        AsyncCallable().__call__,
    ],
    ids=repr,
)
def test_what_gives_no_result_when_called_is_not_a_function(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^f must be a function"):
        _checks.function("f", value)


def test_functions_become_a_tuple() -> None:
    assert _checks.functions("listeners", [len, print]) == (len, print)
    assert _checks.functions("listeners", iter((len,))) == (len,)
    assert _checks.functions("listeners", ()) == ()


@pytest.mark.parametrize("value", [None, 3, print, "print", b"print", PlainCallable()], ids=repr)
def test_what_holds_no_functions_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^listeners must be an iterable of functions that take one event"):
        _checks.functions("listeners", value)


@pytest.mark.parametrize("bad", [None, "print", coroutine_function, int])
def test_a_wrong_one_among_functions_is_named_by_its_place(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^listeners\[1\] must be a function of one event"):
        _checks.functions("listeners", [print, bad])


def test_a_lone_function_must_be_put_into_a_tuple() -> None:
    with pytest.raises(TypeError, match=r"a tuple, even of one"):
        _checks.functions("listeners", print)


@pytest.mark.parametrize("check", [_checks.wrong_type, _checks.wrong_value])
def test_a_complaint_names_parameter_value_and_what_is_taken(check: Callable[..., Exception]) -> None:
    message = str(check("backoff", 7, "a sandwich"))
    assert message.startswith("backoff must be a sandwich, got 7")


@pytest.mark.parametrize("reading", [1.5, 3])
def test_a_reading_of_a_clock_is_a_float_or_an_int(reading: float) -> None:
    assert _checks.reading(lambda: reading) is reading


@pytest.mark.parametrize("reading", [Decimal(1), Fraction(1), "1", None], ids=repr)
def test_a_clock_that_gives_what_does_not_go_with_floats_is_a_type_error(reading: Any) -> None:
    with pytest.raises(TypeError, match=r"^clock must be a function that returns seconds as a float, not .*, got <"):
        _checks.reading(lambda: reading)
