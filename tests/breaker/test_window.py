"""What a window holds: exactly the last N results, or those of the last N seconds."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker import CircuitBreakerConfig, CircuitMode, Outcome, WindowCounts
from circuit_breaker._breaker import window as _window
from circuit_breaker._breaker.machine import Machine
from circuit_breaker._breaker.states import Closed
from circuit_breaker._breaker.states import closed as _states
from circuit_breaker._breaker.window import BUCKETS

LENGTH_S = 30.0
WIDTH_S = LENGTH_S / BUCKETS
ORIGIN = 1_000.0


class Answer(NamedTuple):
    at: float
    failed: bool
    slow: bool


def counted(answers: list[Answer]) -> tuple[int, int, int]:
    return len(answers), sum(answer.failed for answer in answers), sum(answer.slow for answer in answers)


class Watched:
    """A closed circuit that no rule opens, with a window; and the list of all answers beside it."""

    def __init__(self, size: int | timedelta, start: int = 0) -> None:
        config = CircuitBreakerConfig(error_rate_threshold=1.0, error_rate_window=size, slow_call_duration_s=1.0)
        self.machine = Machine(config, CircuitMode.FORCED_CLOSED, ORIGIN)
        period = self.machine.period
        assert isinstance(period, Closed)
        self.period = period
        self.answers: list[Answer] = []
        if start:  # answers from before the window began
            self.machine.configure(CircuitBreakerConfig(error_rate_window=1), ORIGIN)
            for _ in range(start):
                self.answer(ORIGIN, failed=True, slow=True)
            self.machine.configure(config, ORIGIN)
            self.answers.clear()

    def answer(self, at: float, failed: bool = False, slow: bool = False) -> None:
        self.answers.append(Answer(at, failed, slow))
        if failed or slow or at >= self.period.quiet_until:
            outcome = Outcome.FAILURE if failed else Outcome.SUCCESS
            self.machine.settle(self.period, outcome, at, 0.0, slow)
        else:  # as the breaker does where a call ends
            self.period.successes += 1
            self.period.streak = 0

    def counts(self, now: float) -> tuple[int, int, int]:
        counts = self.machine.read().window_counts(now)
        if not self.period.streak:
            assert self.period.has_failures(now) is (counts.failures > 0)
        return counts[:3]

    def marks(self) -> int:
        count, mark = 0, self.period.window.first if self.period.window is not None else None
        while mark is not None:
            count, mark = count + 1, mark.after
        return count


bits = st.tuples(st.booleans(), st.booleans())
thorough = examples(150)


# Calls


def test_good_results_need_no_mark_in_a_window_of_calls() -> None:
    assert Watched(10).period.quiet_until == math.inf


@thorough
@given(st.integers(1, 12), st.integers(0, 5), st.lists(bits, max_size=60))
def test_a_window_of_calls_holds_the_last_n(size: int, start: int, answers: list[tuple[bool, bool]]) -> None:
    told = Watched(size, start)
    for failed, slow in answers:
        told.answer(0.0, failed, slow)
        assert told.counts(0.0) == counted(told.answers[-size:])


@thorough
@given(st.integers(1, 12), st.lists(bits, max_size=60))
def test_a_window_of_calls_is_right_when_it_is_read_only_once(size: int, answers: list[tuple[bool, bool]]) -> None:
    told = Watched(size)
    for failed, slow in answers:
        told.answer(0.0, failed, slow)
    assert told.counts(0.0) == counted(told.answers[-size:])


@pytest.mark.parametrize("looked_at", [True, False], ids=["looked at", "never looked at"])
def test_a_window_of_calls_keeps_no_more_marks_than_it_is_long(looked_at: bool) -> None:
    told = Watched(10)
    for number in range(1, 1_001):
        told.answer(ORIGIN, failed=number % 3 > 0, slow=number % 2 == 0)
        if looked_at:
            assert told.counts(ORIGIN) == counted(told.answers[-10:])
        assert told.marks() <= 12
    for _ in range(10_000):
        told.answer(ORIGIN)
    told.answer(ORIGIN, failed=True, slow=True)
    assert told.counts(ORIGIN) == (10, 1, 1)
    assert told.marks() == 2


def test_a_rare_failure_that_trips_nothing_leaves_no_marks_behind() -> None:
    told = Watched(100)
    told.machine.configure(CircuitBreakerConfig(failure_threshold=5), ORIGIN)
    for number in range(20_000):
        told.answer(ORIGIN, failed=number % 10 == 0)
        assert told.marks() <= 102


def test_a_window_of_more_calls_than_any_list_can_hold_is_one_like_others() -> None:
    told = Watched(10**30)
    told.answer(ORIGIN)
    told.answer(ORIGIN, failed=True)
    told.answer(ORIGIN)
    assert told.counts(ORIGIN) == (3, 1, 0)


# Time, in quarters of a second: a window of 30 s has buckets of one


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
    told = Watched(timedelta(seconds=LENGTH_S), start)
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
def test_a_result_counts_for_29_thirtieths_of_the_window_and_never_longer_than_it(
    length_s: float, steps: list[tuple[float, tuple[bool, bool]]]
) -> None:
    told = Watched(timedelta(seconds=length_s))
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
    told = Watched(timedelta(seconds=LENGTH_S))
    told.answer(ORIGIN, failed=True)
    told.answer(ORIGIN + 0.75)
    assert told.counts(ORIGIN + 29.75) == (2, 1, 0)
    assert told.counts(ORIGIN + 30.0) == (0, 0, 0)


def test_totals_that_were_read_a_whole_window_ago_hold_nothing_and_never_less() -> None:
    told = Watched(timedelta(seconds=30))
    told.answer(ORIGIN, failed=True)
    reading = told.machine.read()
    for seconds in range(1, 60):
        told.answer(ORIGIN + seconds, failed=True)
    counts = reading.window_counts(ORIGIN)
    assert (counts.calls, counts.failures, counts.error_rate) == (0, 0, 0.0)


def test_what_comes_after_an_idle_time_stands_by_itself() -> None:
    told = Watched(timedelta(seconds=LENGTH_S))
    for _ in range(5):
        told.answer(ORIGIN, failed=True)
    told.answer(ORIGIN + 1e6)
    told.answer(ORIGIN + 1e6 + 0.25, slow=True)
    assert told.counts(ORIGIN + 1e6 + 0.25) == (2, 0, 1)


def test_a_clock_that_steps_back_empties_nothing() -> None:
    told = Watched(timedelta(seconds=LENGTH_S))
    told.answer(ORIGIN + 10, failed=True)
    told.answer(ORIGIN + 5, failed=True)
    assert told.counts(ORIGIN + 5) == (2, 2, 0)
    assert told.counts(ORIGIN + 10) == (2, 2, 0)


@pytest.mark.parametrize("length_s", [1e-6, 10.0, 36_000.0])
def test_a_window_of_time_keeps_no_more_than_a_mark_for_each_bucket(length_s: float) -> None:
    told = Watched(timedelta(seconds=length_s))
    for step in range(2_000):
        told.answer(ORIGIN + step * length_s / 100, failed=step % 3 == 0, slow=step % 5 == 0)
        assert told.marks() <= BUCKETS + 1


# What it costs, in lines of the room that are run


def lines_of(action: Callable[[], object]) -> int:
    """Count the lines of windows and states that the action runs."""
    lines = 0

    def watch(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in (_window.__file__, _states.__file__):
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
    told = Watched(timedelta(seconds=length_s))
    return lines_of(
        lambda: [told.answer(ORIGIN + n * length_s / 1_000, failed=n % 2 == 0) for n in range(3_000)] and None
    )


def test_a_window_of_ten_seconds_and_one_of_ten_hours_cost_the_same() -> None:
    assert one_length_of_answers(30.0) == one_length_of_answers(30.0 * 1_024)
    ten_seconds, ten_hours = one_length_of_answers(10.0), one_length_of_answers(36_000.0)
    assert abs(ten_seconds - ten_hours) < 0.02 * ten_hours


def test_a_success_costs_nothing_however_large_the_window_and_whatever_it_holds() -> None:
    told = Watched(1_000_000)
    for _ in range(1_000):
        told.answer(0.0, failed=True)
    assert lines_of(lambda: told.answer(0.0)) == 0
    timed = Watched(timedelta(seconds=36_000.0))
    for second in range(1_000):
        timed.answer(ORIGIN + second, failed=True)
    assert lines_of(lambda: timed.answer(ORIGIN + 1_000)) == 0


def test_a_success_that_begins_a_bucket_costs_a_few_lines_after_however_long() -> None:
    told = Watched(timedelta(seconds=LENGTH_S))
    for second in range(30):
        told.answer(ORIGIN + second, failed=True)
    assert lines_of(lambda: told.answer(ORIGIN + 1e9)) < 4 * BUCKETS
    assert lines_of(lambda: told.answer(ORIGIN + 2e9)) < 60


def test_within_a_bucket_a_success_costs_nothing_whichever_bucket_it_is() -> None:
    told = Watched(timedelta(seconds=LENGTH_S))
    for bucket in (0, 1, 2, 50):
        told.answer(ORIGIN + bucket)
        assert lines_of(partial(told.answer, ORIGIN + bucket + 0.75)) == 0
    assert lines_of(lambda: told.answer(ORIGIN + 51)) > 0


# Rates


def test_the_rates_are_shares_of_what_is_held() -> None:
    counts = WindowCounts(calls=8, failures=2, slow_calls=4)
    assert (counts.error_rate, counts.slow_call_rate) == (0.25, 0.5)


def test_the_rates_of_nothing_are_zero() -> None:
    assert (WindowCounts().error_rate, WindowCounts().slow_call_rate) == (0.0, 0.0)


def test_a_window_of_time_tells_whether_a_failure_is_in_it() -> None:
    told = Watched(timedelta(seconds=30))
    assert not told.period.has_failures(ORIGIN)
    told.answer(ORIGIN + 5.0, failed=True)
    told.answer(ORIGIN + 5.0)
    assert told.period.has_failures(ORIGIN + 34.0)
    assert not told.period.has_failures(ORIGIN + 36.0)
    assert told.counts(ORIGIN + 34.0)[1] == 1


@pytest.mark.parametrize("leap", [1e300, sys.float_info.max])
def test_a_window_of_time_forgets_over_a_leap_of_any_length(leap: float) -> None:
    told = Watched(timedelta(seconds=1))
    told.answer(ORIGIN, failed=True)
    told.answer(ORIGIN)
    assert told.counts(leap) == (0, 0, 0)
    assert not told.period.has_failures(leap)
    told.answer(leap, failed=True)
    assert told.counts(leap) == (1, 1, 0)


def test_a_reading_beside_a_change_of_the_size_does_not_spoil_the_new_window() -> None:
    watched = Watched(4)
    for failed in (False, False, False, True):
        watched.answer(ORIGIN, failed=failed)
    reading = watched.machine.read()
    watched.machine.configure(CircuitBreakerConfig(error_rate_threshold=1.0, error_rate_window=5), ORIGIN)
    reading.window_counts(ORIGIN)
    for failed in (True, *[False] * 16):
        watched.answer(ORIGIN, failed=failed)
    assert watched.machine.read().window_counts(ORIGIN).failures == 0
