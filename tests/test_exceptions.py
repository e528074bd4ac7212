"""The errors: what they say, what they carry, what they keep to themselves, and that they survive a journey."""

from __future__ import annotations

import copy
import json
import math
import pickle
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from calls import fail, succeed
from clocks import Clock
from failures import Down
from garbage import collect

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common.words import CircuitMode, CircuitState
from circuit_breaker.exceptions import (
    BulkheadFullError,
    CircuitOpenError,
    CodomyrmexError,
    ResilienceError,
    create_error_context,
    format_exception_chain,
)

Make = Callable[..., CircuitBreaker]

PASSWORD = "hunter2"


class OurError(CircuitOpenError):
    pass


def refusal(breaker: CircuitBreaker) -> CircuitOpenError:
    with pytest.raises(CircuitOpenError) as raised:
        succeed(breaker)
    return raised.value


# The base


def test_the_base_has_the_name_of_the_original_too() -> None:
    assert CodomyrmexError is ResilienceError
    assert issubclass(CircuitOpenError, ResilienceError)
    assert issubclass(BulkheadFullError, ResilienceError)
    assert issubclass(ResilienceError, Exception)


def test_the_base_keeps_message_context_and_code() -> None:
    context = {"host": "db"}
    error = ResilienceError("gone", context, "E42", port=5432)
    assert (error.message, error.error_code, error.args) == ("gone", "E42", ("gone",))
    assert error.context == {"host": "db", "port": 5432}
    assert context == {"host": "db"}, "the context of the caller is copied"
    assert ResilienceError("gone", context={"port": 1}, port=2).context == {"port": 2}


@pytest.mark.parametrize("kind", [ResilienceError, CircuitOpenError, BulkheadFullError, OurError])
def test_the_code_is_the_name_of_the_class_unless_one_is_given(kind: type[ResilienceError]) -> None:
    assert kind("m").error_code == kind.__name__
    assert kind("m", error_code="E1").error_code == "E1"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ResilienceError("gone"), "[ResilienceError] gone"),
        (ResilienceError("gone", error_code="E1", a=1, b="x"), "[E1] gone (Context: a=1, b=x)"),
        (
            CircuitOpenError("Circuit 'api' is open", "api", mode="auto", retry_after_s=12.345),
            "[CircuitOpenError] Circuit 'api' is open (Context: circuit_name=api, mode=auto, retry_after_s=12.3)",
        ),
        (
            BulkheadFullError("full", "db", 10, max_queue=3),
            "[BulkheadFullError] full (Context: bulkhead_name=db, max_concurrency=10, max_queue=3)",
        ),
        (OurError("m"), "[OurError] m"),
    ],
    ids=range(5),
)
def test_the_text_has_code_message_and_figures(error: ResilienceError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0"),
        (0.12345, "0.123"),
        (29.999, "30"),
        (99.4, "99.4"),
        (99.96, "100"),
        (299.6, "300"),
        (86_400.5, "86400"),
        (math.inf, "inf"),
    ],
)
def test_floats_are_rounded_in_the_text_and_whole_in_the_context(seconds: float, shown: str) -> None:
    error = ResilienceError("m", retry_after_s=seconds)
    assert str(error) == f"[ResilienceError] m (Context: retry_after_s={shown})"
    assert error.context["retry_after_s"] == seconds


def test_the_dict_is_the_callers_own_and_goes_to_json() -> None:
    error = CircuitOpenError("m", "api", retry_after_s=1.5)
    as_dict = error.to_dict()
    assert as_dict == {
        "error_type": "CircuitOpenError",
        "error_code": "CircuitOpenError",
        "message": "m",
        "context": {"circuit_name": "api", "retry_after_s": 1.5},
    }
    json.dumps(as_dict)
    as_dict["context"].clear()
    assert error.context["circuit_name"] == "api"


# Rejections


def test_a_rejection_of_a_circuit_made_by_hand_has_what_it_is_given() -> None:
    error = CircuitOpenError("m", "api", context={"tenant": 7}, retry_after_s=3.0, mode="auto")
    assert (error.circuit_name, error.retry_after_s, error.state, error.last_failure) == ("api", 3.0, None, None)
    assert error.context == {"circuit_name": "api", "tenant": 7, "retry_after_s": 3.0, "mode": "auto"}
    bare = CircuitOpenError("m")
    assert (bare.circuit_name, bare.retry_after_s, bare.context) == (None, None, {})


def test_a_rejection_of_a_bulkhead_made_by_hand_has_what_it_is_given() -> None:
    error = BulkheadFullError("m", "db", 4, context={"tenant": 7}, active_count=4)
    assert (error.bulkhead_name, error.max_concurrency) == ("db", 4)
    assert error.context == {"bulkhead_name": "db", "max_concurrency": 4, "tenant": 7, "active_count": 4}
    bare = BulkheadFullError("m")
    assert (bare.bulkhead_name, bare.max_concurrency, bare.context) == (None, None, {})


def test_a_rejection_says_which_circuit_why_and_when_to_come_back(make: Make, clock: Clock) -> None:
    breaker = make("db", failure_threshold=1)
    fail(breaker, error=Down("connection lost"))
    clock.advance(12.5)
    error = refusal(breaker)
    assert error.message == "Circuit 'db' is open"
    assert error.context == {"circuit_name": "db", "mode": "auto", "retry_after_s": 17.5}
    assert error.retry_after_s == 17.5
    assert error.state is CircuitState.OPEN
    assert error.last_failure == ("Down", "connection lost")
    assert error.last_failure.type == "Down"
    assert error.last_failure.text == "connection lost"


def test_the_message_has_the_state_and_no_figures(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=1)
    fail(breaker)
    messages = {refusal(breaker).message}
    clock.advance(1)
    messages.add(refusal(breaker).message)
    clock.advance(29)
    with breaker.permit():
        assert _refused(breaker).message == "Circuit 'api' is half-open"
    breaker.mode = CircuitMode.FORCED_OPEN
    messages.add(refusal(breaker).message)
    assert messages == {"Circuit 'api' is open"}


@pytest.mark.parametrize("name", ["a\nb", "a\r\nERROR forged", "a\u2028b"])
def test_a_name_with_a_line_break_stays_on_one_line(name: str) -> None:
    breaker = CircuitBreaker(name, mode=CircuitMode.FORCED_OPEN)
    assert len(str(refusal(breaker)).splitlines()) == 1
    assert refusal(breaker).circuit_name == name


def test_an_infinite_figure_is_none_in_the_dict_which_json_takes() -> None:
    breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=1, reset_timeout_s=math.inf))
    breaker.record_failure()
    error = refusal(breaker)
    assert json.loads(json.dumps(error.to_dict(), allow_nan=False))["context"]["retry_after_s"] is None


def _refused(breaker: CircuitBreaker) -> CircuitOpenError:
    with pytest.raises(CircuitOpenError) as raised:
        breaker.permit()
    return raised.value


def test_in_half_open_nobody_knows_when_to_come_back_and_the_failure_is_still_told(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=1)
    fail(breaker, error=Down("x"))
    clock.advance(30)
    with breaker.permit():
        error = _refused(breaker)
    assert (error.state, error.retry_after_s, error.last_failure) == (CircuitState.HALF_OPEN, None, ("Down", "x"))
    assert error.to_dict()["context"]["retry_after_s"] is None


def test_a_forced_circuit_tells_its_mode_and_no_time(make: Make) -> None:
    error = refusal(make(mode=CircuitMode.FORCED_OPEN))
    assert (error.state, error.retry_after_s, error.last_failure) == (CircuitState.OPEN, None, None)
    assert error.context["mode"] == "forced_open"


def test_the_last_failure_is_that_of_the_present_outage(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=2, success_threshold=1)
    fail(breaker, error=Down("first"))
    fail(breaker, error=OSError("second"))
    assert refusal(breaker).last_failure == ("OSError", "second")
    clock.advance(30)
    fail(breaker, error=KeyError("third"))
    assert refusal(breaker).last_failure == ("KeyError", "'third'")
    clock.advance(30)
    succeed(breaker)
    breaker.record_failure()
    breaker.record_failure()
    assert refusal(breaker).last_failure is None, "nothing was raised this time"


def test_the_text_of_the_last_failure_is_cut_at_200_characters(make: Make) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker, error=Down("x" * 10_000))
    assert refusal(breaker).last_failure == ("Down", "x" * 200)


def test_ctrl_c_while_the_last_failure_is_put_in_words_passes_and_the_circuit_is_open(make: Make) -> None:
    class Slow(Exception):
        def __str__(self) -> NoReturn:
            raise KeyboardInterrupt

    def body() -> NoReturn:
        raise Slow

    breaker = make(failure_threshold=1)
    with pytest.raises(KeyboardInterrupt):
        breaker.call(body)
    assert breaker.is_open
    assert refusal(breaker).last_failure is None


def test_neither_the_text_nor_the_dict_shows_the_last_failure(make: Make) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker, error=Down(f"postgres://admin:{PASSWORD}@db"))
    error = refusal(breaker)
    assert error.last_failure is not None
    assert PASSWORD in error.last_failure.text
    for shown in (str(error), repr(error), json.dumps(error.to_dict()), "".join(traceback.format_exception(error))):
        assert PASSWORD not in shown
        assert "Down" not in shown.replace("test_", "")
    assert PASSWORD not in str(error.context)


def test_the_last_failure_keeps_no_object_and_no_frame_alive(make: Make) -> None:
    import weakref

    class Heavy(Down):
        pass

    breaker = make(failure_threshold=1)
    error = Heavy("x")
    gone = weakref.ref(error)
    fail(breaker, error=error)
    kept = refusal(breaker)
    del error
    collect()
    assert gone() is None
    assert kept.last_failure == ("Heavy", "x")


LOOKS: dict[str, Callable[[CircuitOpenError], Any]] = {
    "args": lambda error: error.args,
    "repr": repr,
    "str": str,
    "dict": lambda error: error.to_dict(),
    "pickle": lambda error: vars(pickle.loads(pickle.dumps(error))),
    "copy": lambda error: (vars(copy.copy(error)), copy.copy(error).args),
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_rejection_of_a_breaker_is_whole_however_it_is_looked_at_first(make: Make, look: str) -> None:
    by_hand = CircuitOpenError("Circuit 'api' is open", "api", mode="forced_open", retry_after_s=None)
    by_hand.state = CircuitState.OPEN
    assert LOOKS[look](refusal(make(mode=CircuitMode.FORCED_OPEN))) == LOOKS[look](by_hand)


def test_a_rejection_of_a_breaker_takes_other_arguments_before_anybody_has_looked(make: Make) -> None:
    error = refusal(make(mode=CircuitMode.FORCED_OPEN))
    error.args = ("another",)
    assert error.args == ("another",)
    assert (error.message, error.circuit_name) == ("Circuit 'api' is open", "api")


# The journey


def example(make: Make) -> list[ResilienceError]:
    breaker = make("db", failure_threshold=1)
    fail(breaker, error=Down("x"))
    return [
        ResilienceError("m", {"a": 1}, "E1", b=2),
        ResilienceError("m"),
        refusal(breaker),
        OurError("m", "api", retry_after_s=3.0, state=CircuitState.OPEN, last_failure=("E", "t")),
        CircuitOpenError("m"),
        BulkheadFullError("m", "db", 3, active_count=3),
        BulkheadFullError("m"),
    ]


@pytest.mark.parametrize(
    "travel",
    [
        *(lambda error, n=n: pickle.loads(pickle.dumps(error, n)) for n in range(2, pickle.HIGHEST_PROTOCOL + 1)),
        copy.copy,
        copy.deepcopy,
    ],
    ids=[*(f"pickle {n}" for n in range(2, pickle.HIGHEST_PROTOCOL + 1)), "copy", "deepcopy"],
)
def test_an_error_arrives_unchanged(make: Make, travel: Callable[[Any], Any]) -> None:
    for error in example(make):
        error.add_note("seen at noon")
        arrived = travel(error)
        assert type(arrived) is type(error)
        assert arrived.args == error.args
        assert vars(arrived) == vars(error)
        assert str(arrived) == str(error)
        assert arrived.to_dict() == error.to_dict()
        assert type(getattr(arrived, "last_failure", None)) is type(getattr(error, "last_failure", None))


@pytest.mark.parametrize("look", [vars, dir])
def test_a_rejection_that_nobody_has_looked_at_has_all_its_attributes_to_show(make: Make, look: Any) -> None:
    breaker = make(failure_threshold=1)
    breaker.record_failure()
    with pytest.raises(CircuitOpenError) as refused:
        breaker.call(int)
    by_hand = CircuitOpenError("m", "api")
    assert set(look(refused.value)) >= vars(by_hand).keys() == set(vars(refused.value))


# The helpers


def test_a_context_leaves_out_what_is_none() -> None:
    assert create_error_context(a=1, b=None, c=0, d="", e=False) == {"a": 1, "c": 0, "d": "", "e": False}
    assert create_error_context() == {}


def chained(cause: BaseException | None, context: BaseException | None = None, suppressed: bool = False) -> Exception:
    error = ValueError("outer")
    error.__context__ = context
    if cause is not None:
        error.__cause__ = cause
    error.__suppress_context__ = suppressed or cause is not None
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("x"), "[ValueError] x"),
        (ResilienceError("m", a=1), "[ResilienceError] m (Context: a=1)"),
        (chained(KeyError("k")), "[ValueError] outer\n[KeyError] 'k'"),
        (chained(None, OSError("o")), "[ValueError] outer\n[OSError] o"),
        (chained(KeyError("k"), OSError("o")), "[ValueError] outer\n[KeyError] 'k'"),
        (chained(None, OSError("o"), suppressed=True), "[ValueError] outer"),
        (chained(chained(CircuitOpenError("m"))), "[ValueError] outer\n[ValueError] outer\n[CircuitOpenError] m"),
        (KeyboardInterrupt(), "[KeyboardInterrupt] "),
    ],
    ids=range(8),
)
def test_a_chain_is_a_line_for_each_newest_first_as_python_shows_it(error: BaseException, text: str) -> None:
    assert format_exception_chain(error) == text


def test_a_chain_that_is_a_circle_ends() -> None:
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    assert format_exception_chain(one) == "[ValueError] one\n[KeyError] 'other'"


def test_a_chain_with_an_error_that_cannot_be_shown_is_still_shown() -> None:
    class Mute(Exception):
        def __str__(self) -> NoReturn:
            raise ZeroDivisionError

        @property
        def __class__(self) -> NoReturn:
            raise ZeroDivisionError

    assert format_exception_chain(Mute()) == "[Mute] <exception str() failed>"
    mute = ResilienceError("m", value=Mute())
    assert format_exception_chain(mute) == "[ResilienceError] <exception str() failed>"


def test_ctrl_c_while_an_error_of_a_chain_is_shown_passes() -> None:
    class Slow(Exception):
        def __str__(self) -> NoReturn:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        format_exception_chain(Slow())


@pytest.mark.parametrize("name", ["__cause__", "__context__", "__suppress_context__"])
def test_a_chain_through_an_error_that_hides_what_comes_next_is_shown_as_it_is(name: str) -> None:
    def hide(error: BaseException) -> NoReturn:
        raise ZeroDivisionError

    hider = type("Hider", (Exception,), {name: property(hide)})("x")
    with pytest.raises(Exception, match="x"):
        try:
            raise KeyError("k")
        finally:
            raise hider
    assert format_exception_chain(hider) == "[Hider] x\n[KeyError] 'k'"
