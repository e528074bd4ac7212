"""The replay: it leaves out what the machine cannot care about, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from call_by_call import circuit, joined, replay_call_by_call, replay_with_a_breaker
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


@given(CIRCUITS, configs())
def test_leaving_out_changes_nothing(made: Circuit, config: CircuitBreakerConfig) -> None:
    assert joined(replay(made, config)) == replay_call_by_call(made, config)


@given(CIRCUITS, configs())
def test_a_real_breaker_does_the_same(made: Circuit, config: CircuitBreakerConfig) -> None:
    assert joined(replay(made, config)) == replay_with_a_breaker(made, config)
