"""The replay: it leaves out what the machine cannot care about, and nothing else."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from call_by_call import circuit, joined, replay_call_by_call, replay_with_a_breaker
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker import CircuitBreakerConfig, CircuitState, RetryPolicy
from circuit_breaker.insight.calls import FAILURE, IGNORED, SUCCESS, Circuit
from circuit_breaker.insight.replay import replay

OPEN, CLOSED, HALF_OPEN = CircuitState.OPEN, CircuitState.CLOSED, CircuitState.HALF_OPEN


def bare(course: Any) -> list[tuple[float, str]]:
    return [(change.at, change.new_state.value) for change in course.changes]


# Few distinct times, all of them exact in binary, so that ties and calls of no duration are common.
TIMES = st.integers(0, 400).map(lambda number: number / 8)
DURATIONS = st.one_of(st.just(0), st.integers(0, 12), st.integers(0, 200)).map(lambda number: number / 8)
OUTCOMES = st.sampled_from([SUCCESS, SUCCESS, SUCCESS, FAILURE, FAILURE, IGNORED])
CIRCUITS = st.lists(st.tuples(TIMES, DURATIONS, OUTCOMES), max_size=120).map(lambda calls: circuit(*calls))


def growing(openings: int) -> float:
    return min(2.0**openings, 8.0)


@st.composite
def configs(draw: st.DrawFn) -> CircuitBreakerConfig:
    window = draw(st.sampled_from([3, 5, 10, timedelta(seconds=3), timedelta(seconds=15)]))
    slow_s = draw(st.sampled_from([None, 0.5, 2.0]))
    return CircuitBreakerConfig(
        failure_threshold=draw(st.sampled_from([1, 2, 3, 7])),
        success_threshold=draw(st.integers(1, 3)),
        half_open_max_calls=draw(st.integers(1, 3)),
        reset_timeout_s=draw(st.sampled_from([0.0, 0.5, 2.0, 5.0, growing, RetryPolicy(backoff_base=1).get_delay])),
        error_rate_threshold=draw(st.sampled_from([None, 0.3, 0.5])),
        error_rate_window=window,
        minimum_calls=draw(st.sampled_from([1, 2, 3])),
        slow_call_duration_s=slow_s,
        slow_call_rate_threshold=None if slow_s is None else draw(st.sampled_from([None, 0.3])),
        half_open_failure_threshold=draw(st.integers(1, 2)),
        failure_threshold_within_s=draw(st.sampled_from([None, 0.5, 3.0])),
        half_open_timeout_s=draw(st.sampled_from([0.5, 4.0, 30.0])),
    )


@examples()
@given(CIRCUITS, configs())
def test_leaving_out_changes_nothing(made: Circuit, config: CircuitBreakerConfig) -> None:
    assert joined(replay(made, config)) == replay_call_by_call(made, config)


@examples()
@given(CIRCUITS, configs())
def test_a_real_breaker_does_the_same(made: Circuit, config: CircuitBreakerConfig) -> None:
    assert joined(replay(made, config)) == replay_with_a_breaker(made, config)


def steady(number: int, *bad: int, every: float = 1.0, took: float = 0.5) -> Circuit:
    """Return calls at a steady pace, of which those of these numbers fail."""
    return circuit(*((n * every, took, FAILURE if n in bad else SUCCESS) for n in range(number)))


def test_nothing_happens_without_calls() -> None:
    assert replay(circuit(), CircuitBreakerConfig()) == ([], [])


def test_it_opens_at_the_end_of_the_last_failure_and_rejects_until_the_time_is_over() -> None:
    course = replay(steady(40, 3, 4, 5), CircuitBreakerConfig(failure_threshold=3, reset_timeout_s=10))
    assert course.changes == [
        (5.5, CLOSED, OPEN, "3 failures in a row (threshold 3)"),
        (16.0, OPEN, HALF_OPEN, "open for 10.5 s"),
        (18.5, HALF_OPEN, CLOSED, "3 probes succeeded"),
    ]
    assert course.rejected == [(6, 16)]


def test_an_open_circuit_stays_open_if_nobody_calls_any_more() -> None:
    course = replay(steady(10, 3, 4, 5), CircuitBreakerConfig(failure_threshold=3, reset_timeout_s=60))
    assert bare(course) == [(5.5, "open")]
    assert course.rejected == [(6, 10)]


def test_callers_are_rejected_while_all_probes_are_out() -> None:
    calls = [(n / 4, 0.1, FAILURE) for n in range(3)] + [(2 + n / 4, 2.0, SUCCESS) for n in range(20)]
    config = CircuitBreakerConfig(failure_threshold=3, reset_timeout_s=1, half_open_max_calls=1, success_threshold=1)
    course = replay(circuit(*calls), config)
    assert bare(course) == [(0.6, "open"), (2.0, "half_open"), (4.0, "closed")]
    assert course.rejected == [(4, 11)]


def test_an_overdue_probe_frees_its_slot() -> None:
    calls = [(0.0, 0.0, FAILURE), (2.0, 100.0, SUCCESS), *((3.0 + n, 0.5, SUCCESS) for n in range(9))]
    config = CircuitBreakerConfig(
        failure_threshold=1, reset_timeout_s=1, half_open_max_calls=1, success_threshold=1, half_open_timeout_s=5
    )
    course = replay(circuit(*calls), config)
    assert bare(course) == [(0.0, "open"), (2.0, "half_open"), (7.5, "closed")]
    assert course.rejected == [(2, 6)]


def test_late_results_count_for_nothing() -> None:
    """A hundred calls hang, and fail one by one after the circuit has closed again."""
    calls = [(0.0, 50.0 + n / 10, FAILURE) for n in range(100)]
    calls += [(1.0 + n / 10, 0.1, FAILURE) for n in range(5)] + [(10.0 + n, 0.1, SUCCESS) for n in range(60)]
    course = replay(circuit(*calls), CircuitBreakerConfig(reset_timeout_s=5))
    assert [state for _, state in bare(course)] == ["open", "half_open", "closed"]


def test_slow_calls_open_it_if_the_setting_says_so() -> None:
    calls = circuit(*((float(n), 3.0 if n >= 10 else 0.1, SUCCESS) for n in range(30)))
    config = CircuitBreakerConfig(
        slow_call_duration_s=3, slow_call_rate_threshold=0.5, error_rate_window=10, minimum_calls=5
    )
    assert replay(calls, config).changes[0] == (17.0, CLOSED, OPEN, "5 of 10 calls were slow (threshold 0.5)")
    assert replay(calls, CircuitBreakerConfig()).changes == []


def test_a_rule_of_the_users_own_is_asked() -> None:
    config = CircuitBreakerConfig(failure_threshold=None, trip_when=lambda counts: counts.failures >= 2 and "enough")
    assert replay(steady(20, 3, 9), config).changes[0] == (9.5, CLOSED, OPEN, "enough")


def test_ignored_calls_neither_count_nor_end_a_streak() -> None:
    calls = circuit(*((float(n), 0.1, IGNORED if n % 2 else FAILURE) for n in range(10)))
    assert bare(replay(calls, CircuitBreakerConfig(failure_threshold=5)))[0] == (8.1, "open")


def test_a_function_says_how_long_it_stays_open() -> None:
    asked: list[int] = []

    def wait(openings: int) -> float:
        asked.append(openings)
        return 2.0 + openings

    course = replay(steady(20, *range(20)), CircuitBreakerConfig(failure_threshold=1, reset_timeout_s=wait))
    assert bare(course)[:5] == [(0.5, "open"), (3.0, "half_open"), (3.5, "open"), (7.0, "half_open"), (7.5, "open")]
    assert asked[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize("answer", [-1.0, "soon", None])
def test_a_function_that_gives_no_seconds_gives_thirty(answer: Any) -> None:
    config = CircuitBreakerConfig(failure_threshold=1, reset_timeout_s=lambda openings: answer)
    assert bare(replay(steady(40, 0), config))[:2] == [(0.5, "open"), (31.0, "half_open")]


def test_jitter_is_the_same_in_every_replay_and_leaves_the_dice_unchanged() -> None:
    config = CircuitBreakerConfig(failure_threshold=1, reset_timeout_s=RetryPolicy(backoff_base=5).get_delay)
    calls = steady(500, *range(500))
    random.seed(5)
    before = random.getstate()
    assert replay(calls, config) == replay(calls, config)
    assert random.getstate() == before


def test_a_window_of_time_knows_every_stretch_of_it() -> None:
    """Failures that are further apart than the window never come together, however many there are."""
    config = CircuitBreakerConfig(
        failure_threshold=None, error_rate_threshold=0.1, error_rate_window=timedelta(seconds=30), minimum_calls=20
    )
    assert replay(steady(1000, *range(0, 1000, 50)), config).changes == []
    assert bare(replay(steady(1000, 500, 501, 502), config))[0] == (502.5, "open")
