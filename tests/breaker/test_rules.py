"""The rules that open a circuit: the very call at which each trips, worked out from plain lists."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from clocks import Clock
from examples import examples
from failures import Down
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from places import do_between
from trip_rules import Answer, TripRules, rates
from ways import Way

from circuit_breaker._breaker import breaker as _breaker
from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig

PACKAGE = str(Path(_breaker.__file__).parents[1])
SLOW_S = 2.0


# A sequence is a text: a letter is a result, a digit is how many seconds pass.
#   s success, f failure, S slow success, F slow failure, i ignored


def play(breaker: CircuitBreaker, clock: Clock, letter: str, way: str) -> None:
    if letter.isdigit():
        clock.advance(int(letter))
        return
    slow = letter.isupper()
    if way == "record" and letter == "i":
        breaker.record_ignored()
        return
    if way == "record":
        record = breaker.record_failure if letter in "fF" else breaker.record_success
        record(SLOW_S * 1_000 if slow else 0.0)
        return

    def body() -> None:
        if slow:
            clock.advance(SLOW_S)
        if letter in "fF":
            raise Down
        if letter == "i":
            raise KeyboardInterrupt

    run: Callable[[], Any] = breaker(body) if way == "decorator" else lambda: breaker.call(body)
    try:
        run()
    except (Down, KeyboardInterrupt):
        pass


def breaker_and_rules(clock: Clock, config: dict[str, Any]) -> tuple[CircuitBreaker, TripRules]:
    breaker = CircuitBreaker("api", CircuitBreakerConfig(slow_call_duration_s=SLOW_S, **config), clock=clock)
    return breaker, TripRules(breaker.config, clock())


def tripping_place(word: str, way: str, config: dict[str, Any], look: bool) -> int | None:
    """Return the place, from 1, of the letter that opens a fresh breaker; the plain lists must say so too."""
    clock = Clock()
    breaker, rules = breaker_and_rules(clock, config)
    for place, letter in enumerate(word, 1):
        play(breaker, clock, letter, way)
        trips = False
        if letter in "sfSF":
            rules.answers.append(Answer(clock(), letter in "fF", letter.isupper()))
            trips = rules.tripped(clock(), rules.answers) is not None
        assert breaker.is_open is trips, f"at {place} of {word}"
        if trips:
            return place
        if look:
            held, window = breaker.snapshot(), rules.window(clock())
            assert (held.window_calls, held.window_failures, held.window_slow) == rates(window)
    return None


RATE: dict[str, Any] = {"failure_threshold": None, "error_rate_threshold": 0.5}
LAST_4 = RATE | {"error_rate_window": 4}
LAST_30_S = RATE | {"error_rate_window": timedelta(seconds=30)}
SLOW_RATE: dict[str, Any] = {"failure_threshold": None, "slow_call_rate_threshold": 0.5, "error_rate_window": 4}

TABLE: list[tuple[dict[str, Any], str, int | None]] = [
    # the streak
    ({"failure_threshold": 1}, "f", 1),
    ({"failure_threshold": 3}, "fff", 3),
    ({"failure_threshold": 3}, "ffsff", None),
    ({"failure_threshold": 3}, "ffsfff", 6),
    ({"failure_threshold": 3}, "ffSfff", 6),
    ({"failure_threshold": 3}, "fifif", 5),
    ({"failure_threshold": 3}, "f9f9f", 5),
    ({"failure_threshold": 3}, "FFF", 3),
    ({}, "ffff", None),
    ({}, "fffff", 5),
    ({}, "s" * 300 + "fffff", 305),
    # the failure rate over calls
    (LAST_4, "fff", None),
    (LAST_4, "ffff", 4),
    (LAST_4, "ssff", 4),
    (LAST_4, "ffss", None),  # half are failures, but a success adds none
    (LAST_4, "ffssf", 5),
    (LAST_4, "ffsssf", None),
    (LAST_4, "sfssf", 5),
    (LAST_4, "sifsif", 6),
    (LAST_4, "sf9sf", 5),
    (LAST_4 | {"minimum_calls": 1}, "f", 1),
    (LAST_4 | {"minimum_calls": 2}, "sf", 2),
    (LAST_4 | {"minimum_calls": 3}, "ffsf", 4),
    (RATE | {"error_rate_window": 10, "minimum_calls": 3}, "ssff", 4),
    (RATE | {"error_rate_window": 10, "minimum_calls": 3}, "ssssfff", None),
    (RATE | {"error_rate_window": 10, "minimum_calls": 3}, "ssssffff", 8),
    (RATE, "f" * 99, None),
    (RATE, "f" * 100, 100),
    (RATE, "s" * 1_000 + "f" * 49, None),
    (RATE, "s" * 1_000 + "f" * 50, 1_050),
    (RATE | {"error_rate_window": 3, "error_rate_threshold": 1}, "ffsfff", 6),
    (RATE | {"error_rate_window": 3, "error_rate_threshold": 1 / 3}, "ssf", 3),
    (RATE | {"error_rate_window": 3, "error_rate_threshold": 0.34}, "ssfssf", None),
    # the failure rate over time, in buckets of one second
    (LAST_30_S, "f" * 19, None),
    (LAST_30_S, "f" * 20, 20),
    (LAST_30_S, "s" * 10 + "f" * 10, 20),
    (LAST_30_S, "s" * 11 + "f" * 10, None),
    (LAST_30_S, "s" * 11 + "f" * 11, 22),
    (LAST_30_S, "f" * 10 + "9992" + "f" * 10, 24),
    (LAST_30_S, "f" * 10 + "9993" + "f" * 10, None),
    (LAST_30_S, "f" * 10 + "9" * 50 + "f" * 19, None),
    (LAST_30_S, "f" * 10 + "9" * 50 + "f" * 20, 80),
    (LAST_30_S | {"minimum_calls": 3}, "ff9993f", None),
    (LAST_30_S | {"minimum_calls": 3}, "ff9992f", 7),
    (LAST_30_S | {"minimum_calls": 3}, "ssss9993fff", 11),
    (LAST_30_S | {"minimum_calls": 3}, "ssss9992fff", None),
    # the rate of slow calls
    (SLOW_RATE, "SSS", None),
    (SLOW_RATE, "SSSS", 4),
    (SLOW_RATE, "SSss", None),
    (SLOW_RATE, "SSssS", 5),
    (SLOW_RATE, "ssFF", 4),
    (SLOW_RATE, "SSff", None),  # failures that are quick add no slow call
    (SLOW_RATE, "ffff", None),
    (SLOW_RATE | {"minimum_calls": 1}, "S", 1),
    # together
    (LAST_4 | {"failure_threshold": 3}, "fff", 3),
    (LAST_4 | {"failure_threshold": 3}, "sfsf", 4),
    (SLOW_RATE | {"failure_threshold": 3}, "SSfS", 4),
    (SLOW_RATE | {"failure_threshold": 3}, "SSfff", 5),
    (SLOW_RATE | {"error_rate_threshold": 0.75}, "fffs", None),
    (SLOW_RATE | {"error_rate_threshold": 0.75}, "ffsf", 4),
    (SLOW_RATE | {"error_rate_threshold": 0.75}, "fssFSs", 5),
    (SLOW_RATE | {"error_rate_threshold": 0.75}, "fssFsS", 6),
]


@pytest.mark.parametrize("way", ["record", "call", "decorator"])
@pytest.mark.parametrize(("config", "word", "place"), TABLE)
def test_a_rule_trips_at_the_very_call(config: dict[str, Any], word: str, place: int | None, way: str) -> None:
    assert tripping_place(word, way, config, look=False) == place


shares = st.sampled_from([0.01, 0.25, 1 / 3, 0.5, 2 / 3, 0.9, 1.0])
windows = st.integers(1, 12) | st.sampled_from([timedelta(seconds=15), timedelta(seconds=30), timedelta(seconds=240)])


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    window = draw(windows)
    config: dict[str, Any] = {
        "failure_threshold": draw(st.none() | st.integers(1, 8)),
        "error_rate_threshold": draw(st.none() | shares),
        "slow_call_rate_threshold": draw(st.none() | shares),
        "error_rate_window": window,
        "minimum_calls": draw(st.none() | st.integers(1, window if isinstance(window, int) else 12)),
    }
    if config["error_rate_threshold"] is config["slow_call_rate_threshold"] is None:
        config["failure_threshold"] = draw(st.integers(1, 8))
    return config


words = st.text(st.sampled_from("sssffSFi139"), max_size=60)


@examples(400, suppress_health_check=[HealthCheck.too_slow])
@given(configs(), words, st.sampled_from(["record", "call", "decorator"]), st.booleans())
def test_any_rules_trip_where_the_plain_lists_say(config: dict[str, Any], word: str, way: str, look: bool) -> None:
    tripping_place(word, way, config, look)


def lines_of_a_success(breaker: CircuitBreaker, times: int = 1) -> int:
    """Count the lines of the package that are run."""
    lines = 0

    def watch(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        lines += event == "line"
        return watch

    guarded = breaker(lambda: 0)
    tracing = sys.gettrace()
    sys.settrace(watch)
    try:
        for _ in range(times):
            guarded()
    finally:
        sys.settrace(tracing)
    return lines


@pytest.mark.parametrize("window", [100, 100_000, timedelta(seconds=10), timedelta(hours=10)], ids=str)
def test_a_success_costs_the_same_whatever_the_window_is_and_holds(make: Any, window: int | timedelta) -> None:
    breaker = make(failure_threshold=10**9, error_rate_threshold=1.0, error_rate_window=window)
    bare = lines_of_a_success(make())
    assert lines_of_a_success(breaker) == bare
    for _ in range(2_000):
        breaker.record_failure()
        breaker.record_success()
    assert lines_of_a_success(breaker) == bare


def test_of_the_successes_in_a_bucket_of_time_the_first_alone_costs_more(make: Any, clock: Clock) -> None:
    breaker = make(error_rate_threshold=1.0, error_rate_window=timedelta(seconds=30))
    bare = lines_of_a_success(breaker)
    for _ in range(3):
        clock.advance(1)
        assert lines_of_a_success(breaker) > bare
        assert lines_of_a_success(breaker) == bare


def test_successes_spread_over_ten_seconds_and_over_ten_hours_cost_the_same(make: Any, clock: Clock) -> None:
    costs = []
    for length_s in (10.0, 36_000.0):
        breaker = make(error_rate_threshold=1.0, error_rate_window=timedelta(seconds=length_s))
        costs.append(0)
        for _ in range(300):
            clock.advance(length_s / 100)
            costs[-1] += lines_of_a_success(breaker)
    assert abs(costs[0] - costs[1]) < 0.02 * costs[1]


@pytest.mark.parametrize(
    ("config", "word", "reason"),
    [
        ({"failure_threshold": 3}, "sfff", "3 failures in a row (threshold 3)"),
        (LAST_4, "ssff", "2 of 4 calls failed (threshold 0.5)"),
        (SLOW_RATE | {"slow_call_rate_threshold": 2 / 3}, "sSSS", "3 of 4 calls were slow (threshold 0.667)"),
    ],
)
def test_the_reason_says_which_rule_and_the_figures(config: dict[str, Any], word: str, reason: str) -> None:
    clock = Clock()
    events: list[Any] = []
    breaker, _ = breaker_and_rules(clock, config)
    listened = CircuitBreaker("api", breaker.config, listeners=[events.append], clock=clock)
    for letter in word:
        play(listened, clock, letter, "record")
    assert [event.reason for event in events if hasattr(event, "reason")] == [reason]


def test_a_call_that_lasts_exactly_the_duration_is_slow_and_a_shorter_one_is_not(make: Any, clock: Clock) -> None:
    breaker = make(failure_threshold=None, slow_call_rate_threshold=1, slow_call_duration_s=2, error_rate_window=2)
    for lasts_s in (2.0, 1.75, 2.0, 2.0):
        assert breaker.is_closed
        breaker.call(clock.advance, lasts_s)
    assert breaker.is_open
    assert breaker.stats.slow_count == 3


def test_without_the_rate_slow_calls_are_counted_and_trip_nothing(make: Any, clock: Clock) -> None:
    breaker = make(slow_call_duration_s=2, error_rate_window=3)
    for _ in range(10):
        breaker.call(clock.advance, 2.0)
    assert breaker.is_closed
    assert (breaker.stats.slow_count, breaker.snapshot().window_slow, breaker.snapshot().slow_call_rate) == (10, 3, 1.0)


def test_the_window_is_new_after_the_circuit_has_closed_again(make: Any, clock: Clock) -> None:
    breaker = make(**LAST_4, minimum_calls=2, success_threshold=1, reset_timeout_s=5)
    for letter in "sf":
        play(breaker, clock, letter, "call")
    clock.advance(5)
    play(breaker, clock, "s", "call")
    assert breaker.is_closed
    assert breaker.snapshot().window_calls == 0
    play(breaker, clock, "f", "call")
    assert breaker.is_closed
    play(breaker, clock, "f", "call")
    assert breaker.is_open


def test_a_recorded_latency_of_exactly_the_duration_is_slow(make: Any) -> None:
    breaker = make(slow_call_duration_s=0.3)
    breaker.record_success(300)
    breaker.record_success(299.9)
    assert breaker.stats.slow_count == 1


def test_a_result_at_the_end_of_a_bucket_is_of_the_next(make: Any, clock: Clock, way: Way) -> None:
    breaker = make(error_rate_threshold=1, error_rate_window=timedelta(seconds=30))
    clock.advance(1)
    way(breaker, int)
    clock.advance(0.5)
    breaker.record_failure()
    clock.advance(29)
    assert breaker.snapshot().window_calls == 2


# More rules


def test_failures_that_are_too_far_apart_are_no_streak(make: Any, clock: Clock, way: Way) -> None:
    breaker = make(failure_threshold=3, failure_threshold_within_s=10)
    for seconds in (0, 6, 6, 6):  # any three of them take 12 s
        clock.advance(seconds)
        with pytest.raises(Down):
            way(breaker, down)
    assert breaker.is_closed
    assert breaker.stats.consecutive_failures == 4
    for seconds in (5, 5):  # now three take 10 s
        assert breaker.is_closed
        clock.advance(seconds)
        with pytest.raises(Down):
            way(breaker, down)
    assert breaker.is_open
    assert breaker.stats.opened_count == 1


def test_a_streak_within_its_time_trips_at_its_end_exactly(make: Any, clock: Clock) -> None:
    breaker = make(failure_threshold=2, failure_threshold_within_s=10)
    breaker.record_failure()
    clock.advance(10)
    breaker.record_failure()
    assert breaker.is_open


def test_a_success_begins_an_expiring_streak_anew(make: Any, clock: Clock) -> None:
    breaker = make(failure_threshold=2, failure_threshold_within_s=10)
    for _ in range(5):
        breaker.record_failure()
        breaker.record_success()
        clock.advance(1)
    assert breaker.is_closed


def test_a_failure_counted_by_hand_expires_too(make: Any, clock: Clock) -> None:
    breaker = make(failure_threshold=2, failure_threshold_within_s=10)
    clock.advance(11)
    breaker.stats.record_failure(1.0)
    clock.advance(10)
    breaker.record_failure()
    assert breaker.is_open


@pytest.mark.parametrize(("threshold", "opens"), [(2, True), (3, False), (4, False)])
def test_a_reconfigured_streak_keeps_its_times(make: Any, clock: Clock, threshold: int, opens: bool) -> None:
    breaker = make(failure_threshold=3, failure_threshold_within_s=30)
    for seconds in (0, 20, 20):
        clock.advance(seconds)
        breaker.record_failure()
    clock.advance(20)
    breaker.config = CircuitBreakerConfig(failure_threshold=threshold, failure_threshold_within_s=30)
    breaker.record_failure()
    assert breaker.is_open is opens


@pytest.mark.parametrize(("seconds", "opens"), [(10, True), (11, False)])
def test_failures_from_before_a_limit_count_as_the_last_of_them(
    make: Any, clock: Clock, seconds: int, opens: bool
) -> None:
    breaker = make(failure_threshold=4)
    for _ in range(3):
        breaker.record_failure()
        clock.advance(1)
    clock.advance(seconds - 1)
    breaker.config = CircuitBreakerConfig(failure_threshold=4, failure_threshold_within_s=10)
    breaker.record_failure()
    assert breaker.is_open is opens


def test_a_late_failure_is_not_the_last_of_those_from_before_a_limit(make: Any, clock: Clock) -> None:
    breaker = make(failure_threshold=5)
    late = breaker.permit()
    breaker.reset()
    for _ in range(4):
        breaker.record_failure()
    clock.advance(1_000)
    late.failure()
    breaker.config = CircuitBreakerConfig(failure_threshold=5, failure_threshold_within_s=10)
    breaker.record_failure()
    assert breaker.is_closed


def test_two_may_reconfigure_an_expiring_streak_at_once(make: Any) -> None:
    expiring = CircuitBreakerConfig(failure_threshold=4, failure_threshold_within_s=10)
    lasting = CircuitBreakerConfig(failure_threshold=4)
    for place in count(1):
        breaker = make(failure_threshold=3, failure_threshold_within_s=10)
        breaker.record_failure()
        breaker.record_failure()

        def replace(config: CircuitBreakerConfig, breaker: Any = breaker) -> None:
            breaker.config = config

        if not do_between(
            place,
            lambda replace=replace: replace(expiring),  # type: ignore[misc]
            lambda replace=replace: replace(lasting),  # type: ignore[misc]
            lambda lock=breaker._machine.lock: not lock._is_owned(),  # type: ignore[misc]
        ):
            break
        assert breaker.config in (expiring, lasting)
        breaker.record_failure()
        breaker.record_failure()
        assert breaker.is_open
    assert place > 20


def test_an_expiring_streak_is_reconfigured_without_a_fault(make: Any, clock: Clock) -> None:
    breaker = make(failure_threshold=5, failure_threshold_within_s=10)
    for _ in range(3):
        breaker.record_failure()
    breaker.config = CircuitBreakerConfig(failure_threshold=3, failure_threshold_within_s=10)
    breaker.record_failure()
    assert breaker.is_open


def test_a_rule_of_your_own_opens_after_n_failures_however_many_calls_succeed(
    make: Any, clock: Clock, way: Way
) -> None:
    ten_in_a_minute = {
        "failure_threshold": None,
        "error_rate_window": timedelta(minutes=1),
        "trip_when": lambda counts: counts.failures >= 10,
    }
    breaker = make(**ten_in_a_minute)
    for _ in range(10):
        assert breaker.is_closed
        way(breaker, int)
        with pytest.raises(Down):
            way(breaker, down)
        clock.advance(5)
    assert breaker.is_open


@pytest.mark.parametrize(("answer", "reason"), [("enough", "enough"), (True, "trip_when"), (1, "trip_when")])
def test_what_a_rule_of_your_own_says_is_the_reason(make: Any, answer: Any, reason: str) -> None:
    changes: list[Any] = []
    breaker = make(trip_when=lambda counts: answer, listeners=[changes.append])
    breaker.record_failure()
    assert reason in changes[0].reason


@pytest.mark.parametrize("answer", [False, None, 0, ""])
def test_a_rule_of_your_own_that_says_no_opens_nothing(make: Any, answer: Any) -> None:
    breaker = make(failure_threshold=None, trip_when=lambda counts: answer)
    for _ in range(20):
        breaker.record_failure()
    assert breaker.is_closed


def test_a_rule_of_your_own_is_asked_after_failures_and_slow_calls_only(make: Any) -> None:
    asked: list[Any] = []
    breaker = make(failure_threshold=None, slow_call_duration_s=1, trip_when=asked.append)
    breaker.record_success()
    breaker.record_ignored()
    assert asked == []
    breaker.record_failure()
    breaker.record_success(1000)
    assert asked == [(2, 1, 0, 1), (3, 1, 1, 0)]
    assert (asked[1].calls, asked[1].slow_call_rate) == (3, 1 / 3)


def test_a_rule_of_your_own_that_raises_is_logged_and_the_call_raises_its_own_error(
    make: Any, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = make(failure_threshold=None, trip_when=lambda counts: counts.nonsense)
    with pytest.raises(Down):
        way(breaker, down)
    assert breaker.is_closed
    assert "trip_when" in caplog.text


def test_what_a_signal_handler_raises_in_a_rule_of_your_own_passes_on(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(signal, "getsignal", lambda number: handler)
    breaker = make(failure_threshold=None, trip_when=handler)
    with pytest.raises(InterruptedError):
        breaker.record_failure()
    assert breaker.stats.failure_count == 1


def test_a_rule_of_your_own_runs_outside_the_lock_and_may_use_the_breaker(make: Any) -> None:
    seen: list[Any] = []
    breaker = make(
        failure_threshold=None,
        trip_when=lambda counts: seen.append((breaker._machine.lock._is_owned(), breaker.snapshot().window_failures)),
    )
    breaker.record_failure()
    assert seen == [(False, 1)]


def test_a_rule_of_your_own_opens_only_the_period_it_was_asked_about(make: Any) -> None:
    def ask(counts: Any) -> bool:
        breaker.reset()
        return True

    breaker = make(failure_threshold=None, trip_when=ask)
    breaker.record_failure()
    assert breaker.is_closed
    assert breaker.stats.opened_count == 0


def test_half_open_bears_as_many_failures_as_its_setting_says(make: Any, clock: Clock, way: Way) -> None:
    breaker = make(failure_threshold=1, half_open_failure_threshold=3, success_threshold=2, half_open_max_calls=1)
    breaker.record_failure()
    clock.advance(30)
    for _ in range(2):
        with pytest.raises(Down):
            way(breaker, down)
        assert breaker.state.value == "half_open"
    way(breaker, int)
    with pytest.raises(Down):
        way(breaker, down)
    assert breaker.is_open
    assert breaker.stats.opened_count == 2


def down() -> Any:
    raise Down
