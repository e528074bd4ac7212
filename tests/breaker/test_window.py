"""What a window holds: exactly the last N answers, or those of the last so much time, whatever came before."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_breaker._breaker import window as _window
from circuit_breaker._breaker.window import BUCKETS, CallWindow, Counts, TimeWindow


class Answer(NamedTuple):
    at: float
    failed: bool
    slow: bool


def counted(answers: list[Answer]) -> Counts:
    return Counts(len(answers), sum(answer.failed for answer in answers), sum(answer.slow for answer in answers))


class Told:
    """A window that is told what it asks to be told, as a circuit does; and the list of all answers beside it."""

    def __init__(self, window: CallWindow | TimeWindow, start: int = 0) -> None:
        self.window = window
        self.number = start
        self.answers: list[Answer] = []

    def answer(self, at: float, failed: bool = False, slow: bool = False) -> None:
        self.number += 1
        self.answers.append(Answer(at, failed, slow))
        if failed or slow or at >= self.window.until:
            self.window.add(at, self.number, failed, slow)

    def counts(self, now: float) -> Counts:
        has_failures = self.window.has_failures(now, self.number)
        counts = self.window.counts(now, self.number)
        assert has_failures is (counts.failures > 0)
        return counts


bits = st.tuples(st.booleans(), st.booleans())
thorough = settings(max_examples=150, deadline=None, derandomize=True)


# Calls


def test_a_window_of_calls_wants_to_be_told_of_bad_answers_alone() -> None:
    assert CallWindow(10, 0).until == math.inf


@thorough
@given(st.integers(1, 12), st.integers(0, 5), st.lists(bits, max_size=60))
def test_a_window_of_calls_holds_the_last_n(size: int, start: int, answers: list[tuple[bool, bool]]) -> None:
    told = Told(CallWindow(size, start), start)
    for failed, slow in answers:
        told.answer(0.0, failed, slow)
        assert told.counts(0.0) == counted(told.answers[-size:])


@thorough
@given(st.integers(1, 12), st.lists(bits, max_size=60))
def test_a_window_of_calls_is_right_when_it_is_read_only_once(size: int, answers: list[tuple[bool, bool]]) -> None:
    told = Told(CallWindow(size, 0))
    for failed, slow in answers:
        told.answer(0.0, failed, slow)
    assert told.counts(0.0) == counted(told.answers[-size:])


def test_a_window_of_calls_remembers_no_more_bad_answers_than_it_is_long_and_counts_those_in_it() -> None:
    window = CallWindow(10, 0)
    for number in range(1, 1_001):
        window.add(0.0, number, failed=True, slow=number % 2 == 0)
        assert len(window._failures) <= 10
        assert len(window._slow) <= 10
    assert window.counts(0.0, 1_000) == Counts(10, 10, 5)
    window.add(0.0, 10_000, failed=True, slow=True)
    assert window.counts(0.0, 10_000) == Counts(10, 1, 1)
    assert (len(window._failures), len(window._slow)) == (1, 1)


def test_a_window_of_more_calls_than_any_list_can_hold_is_one_like_others() -> None:
    window = CallWindow(10**30, 0)
    window.add(0.0, 2, failed=True, slow=False)
    assert window.counts(0.0, 3) == Counts(3, 1, 0)


# Time, in quarters of a second: a window of 30 s has buckets of one


LENGTH_S = 30.0
WIDTH_S = LENGTH_S / BUCKETS
ORIGIN = 1_000.0


def test_a_bucket_is_a_thirtieth_of_the_window() -> None:
    assert WIDTH_S == 1.0


def in_buckets(answers: list[Answer], now: float) -> list[Answer]:
    """Give those of the present bucket and of the 29 before."""
    present = math.floor((now - ORIGIN) / WIDTH_S)
    return [answer for answer in answers if math.floor((answer.at - ORIGIN) / WIDTH_S) > present - 30]


quarters = st.one_of(st.integers(0, 6), st.integers(0, 160), st.integers(100, 10_000)).map(lambda n: n / 4)


@thorough
@given(st.lists(st.tuples(quarters, bits), max_size=60), st.booleans(), st.integers(0, 3))
def test_a_window_of_time_holds_its_present_bucket_and_the_29_before(
    steps: list[tuple[float, tuple[bool, bool]]], read_often: bool, start: int
) -> None:
    told = Told(TimeWindow(LENGTH_S, start, ORIGIN), start)
    now = ORIGIN
    for wait_s, (failed, slow) in steps:
        now += wait_s
        told.answer(now, failed, slow)
        if read_often:
            assert told.counts(now) == counted(in_buckets(told.answers, now))
    for _ in range(40):
        assert told.counts(now) == counted(in_buckets(told.answers, now))
        now += 0.75


@thorough
@given(
    st.floats(1e-3, 1e9, allow_nan=False),
    st.lists(st.tuples(st.floats(0.0, 0.5), bits), max_size=40),
)
def test_an_answer_counts_for_29_thirtieths_of_the_window_and_never_longer_than_it(
    length_s: float, steps: list[tuple[float, tuple[bool, bool]]]
) -> None:
    told = Told(TimeWindow(length_s, 0, ORIGIN))
    now = ORIGIN
    for share, (failed, slow) in steps:
        now += share * length_s
        told.answer(now, failed, slow)
        held = told.counts(now)
        rounding_s = 1e-9 * now
        surely = counted([a for a in told.answers if now - a.at < length_s * 29 / 30 - rounding_s])
        perhaps = counted([a for a in told.answers if now - a.at < length_s + rounding_s])
        for least, count, most in zip(surely, held, perhaps, strict=True):
            assert least <= count <= most


def test_a_window_of_time_is_empty_after_it_was_idle_for_its_length() -> None:
    told = Told(TimeWindow(LENGTH_S, 0, ORIGIN))
    told.answer(ORIGIN, failed=True)
    told.answer(ORIGIN + 0.75)
    assert told.counts(ORIGIN + 29.75) == (2, 1, 0)
    assert told.counts(ORIGIN + 30.0) == (0, 0, 0)


def test_what_comes_after_an_idle_time_stands_alone() -> None:
    told = Told(TimeWindow(LENGTH_S, 0, ORIGIN))
    for _ in range(5):
        told.answer(ORIGIN, failed=True)
    told.answer(ORIGIN + 1e6)
    told.answer(ORIGIN + 1e6 + 0.25, slow=True)
    assert told.counts(ORIGIN + 1e6 + 0.25) == (2, 0, 1)


def test_a_clock_that_steps_back_empties_nothing() -> None:
    told = Told(TimeWindow(LENGTH_S, 0, ORIGIN))
    told.answer(ORIGIN + 10, failed=True)
    told.answer(ORIGIN + 5, failed=True)
    assert told.counts(ORIGIN + 5) == (2, 2, 0)
    assert told.counts(ORIGIN + 10) == (2, 2, 0)


@pytest.mark.parametrize("length_s", [1e-6, 10.0, 36_000.0])
def test_a_window_of_time_keeps_no_more_than_a_mark_for_each_bucket(length_s: float) -> None:
    told = Told(TimeWindow(length_s, 0, ORIGIN))
    for step in range(2_000):
        told.answer(ORIGIN + step * length_s / 100, failed=step % 3 == 0, slow=step % 5 == 0)
        assert len(told.window._marks) <= BUCKETS  # type: ignore[union-attr]


# What it costs, in lines of the room that are run


def lines_of(action: Callable[[], object]) -> int:
    """Count the lines of the window's room that the action runs."""
    lines = 0

    def watch(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != _window.__file__:
            return None
        lines += event == "line"
        return watch

    tracing = sys.gettrace()
    sys.settrace(watch)
    try:
        action()
    finally:
        sys.settrace(tracing)
    return lines


def one_length_of_answers(length_s: float) -> int:
    """Give the lines for 3,000 answers spread over three lengths of the window."""
    told = Told(TimeWindow(length_s, 0, ORIGIN))
    return lines_of(
        lambda: [told.answer(ORIGIN + n * length_s / 1_000, failed=n % 2 == 0) for n in range(3_000)] and None
    )


def test_a_window_of_ten_seconds_and_one_of_ten_hours_cost_the_same() -> None:
    assert one_length_of_answers(30.0) == one_length_of_answers(30.0 * 1_024)
    ten_seconds, ten_hours = one_length_of_answers(10.0), one_length_of_answers(36_000.0)
    assert abs(ten_seconds - ten_hours) < 0.02 * ten_hours


def test_a_success_costs_nothing_however_large_the_window_and_whatever_it_holds() -> None:
    told = Told(CallWindow(1_000_000, 0))
    for _ in range(1_000):
        told.answer(0.0, failed=True)
    assert lines_of(lambda: told.answer(0.0)) == 0
    timed = Told(TimeWindow(36_000.0, 0, ORIGIN))
    for second in range(1_000):
        timed.answer(ORIGIN + second, failed=True)
    assert lines_of(lambda: timed.answer(ORIGIN + 1_000)) == 0


def test_a_success_that_begins_a_bucket_costs_a_few_lines_after_however_long() -> None:
    told = Told(TimeWindow(LENGTH_S, 0, ORIGIN))
    for second in range(30):
        told.answer(ORIGIN + second, failed=True)
    assert lines_of(lambda: told.answer(ORIGIN + 1e9)) < 4 * BUCKETS
    assert lines_of(lambda: told.answer(ORIGIN + 2e9)) < 20


def test_within_a_bucket_a_success_costs_nothing_whichever_bucket_it_is() -> None:
    told = Told(TimeWindow(LENGTH_S, 0, ORIGIN))
    for bucket in (0, 1, 2, 50):
        told.answer(ORIGIN + bucket)
        assert lines_of(partial(told.answer, ORIGIN + bucket + 0.75)) == 0
    assert lines_of(lambda: told.answer(ORIGIN + 51)) > 0


# Rates


def test_the_rates_are_shares_of_what_is_held() -> None:
    assert (Counts(8, 2, 4).error_rate, Counts(8, 2, 4).slow_call_rate) == (0.25, 0.5)


def test_the_rates_of_nothing_are_zero() -> None:
    assert Counts() == (0, 0, 0)
    assert (Counts().error_rate, Counts().slow_call_rate) == (0.0, 0.0)


def test_a_window_of_time_tells_without_change_whether_a_failure_is_in_it() -> None:
    window = TimeWindow(30.0, 0, 0.0)
    assert not window.has_failures(0.0, 0)
    window.add(5.0, 1, True, False)
    assert window.has_failures(34.0, 1)
    assert not window.has_failures(36.0, 1)
    assert window.counts(34.0, 1).failures == 1


@pytest.mark.parametrize("leap", [1e300, sys.float_info.max])
def test_a_window_of_time_forgets_over_a_leap_of_any_length(leap: float) -> None:
    window = TimeWindow(1.0, 0, 0.0)
    window.add(0.0, 1, True, False)
    assert window.counts(leap, 1) == Counts(0)
    assert not window.has_failures(leap, 1)
    window.add(leap, 2, True, False)
    assert window.counts(leap, 2) == Counts(1, 1)
