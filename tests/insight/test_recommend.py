"""Settings derived from a log: each figure of the formula, and how settings are weighed."""

from __future__ import annotations

from math import inf

import pytest
from call_by_call import circuit
from settings import POLLY, RESILIENCE4J, compare, each_pair, log_of
from traffic import KINDS, SEEDS, make

from circuit_breaker import CircuitBreakerConfig
from circuit_breaker.insight import made
from circuit_breaker.insight.calls import FAILURE, IGNORED, SUCCESS, Circuit, Log
from circuit_breaker.insight.figures import Scene
from circuit_breaker.insight.outages import Outage, find
from circuit_breaker.insight.recommend import Adviser, Peak, peaks_of


def pace(number: int, *bad: int, slow: tuple[int, ...] = (), ignored: tuple[int, ...] = ()) -> Circuit:
    """Return a call a second; those of these numbers fail, take three seconds, or are ignored."""
    return circuit(
        *(
            (float(n), 3.0 if n in slow else 0.5, FAILURE if n in bad else IGNORED if n in ignored else SUCCESS)
            for n in range(number)
        )
    )


def scene(*circuits: Circuit, outages: tuple[Outage, ...] = ()) -> Scene:
    return Scene(circuits, outages, [True] * len(outages), None)


# The promise, on logs that nobody has looked at


@pytest.mark.parametrize(("kind", "size", "seeds"), list(each_pair(SEEDS, {10_000: 1})))
@pytest.mark.parametrize("answer", [0.5, 0.25])
def test_settings_from_one_log_raise_no_false_alarm_on_another(
    kind: str, size: int, seeds: list[int], answer: float
) -> None:
    found = compare(kind, size, seeds, answer)
    assert (found.missed, found.invented) == (0, 0)
    assert found.figures["derived"].false_alarms == []
    assert found.figures["derived"].opened_for == found.figures["derived"].worth


def test_all_kinds_have_frozen_seeds() -> None:
    assert SEEDS.keys() == KINDS.keys()


def test_the_settings_of_others_are_theirs() -> None:
    assert (RESILIENCE4J.error_rate_threshold, RESILIENCE4J.reset_timeout_s) == (0.5, 60)
    assert (POLLY.error_rate_threshold, POLLY.reset_timeout_s) == (0.1, 5)


# How close ordinary times come


def test_the_share_is_that_of_the_busiest_window() -> None:
    assert peaks_of(scene(pace(200, 100, 101, 110, 149)), 50, 50, None).ordinary == Peak(4 / 50, 2)
    assert peaks_of(scene(pace(200, 100, 101, 110, 150)), 50, 50, None).ordinary == Peak(3 / 50, 2)


def test_a_window_that_has_just_begun_counts_from_its_minimum_on() -> None:
    assert peaks_of(scene(pace(200, 5, 9)), 50, 10, None).ordinary.share == 2 / 10
    assert peaks_of(scene(pace(200, 5)), 50, 10, None).ordinary.share == 0.0


def test_any_minimum_of_calls_may_be_all_that_a_breaker_knows() -> None:
    assert peaks_of(scene(pace(200, 100, 101, 102)), 50, 10, None).ordinary.share == 3 / 10


def test_ignored_calls_are_in_no_window() -> None:
    assert peaks_of(scene(pace(200, 100, 108, ignored=(101, 102, 103, 104))), 50, 5, None).ordinary == Peak(2 / 5, 1)


def test_outages_are_looked_at_apart() -> None:
    outages = (Outage(100.0, 119.0, 119.5, 100, 120, 20, 0), Outage(300.0, 309.0, 309.5, 300, 310, 10, 0))
    circuits = pace(400, *range(100, 120), 121, 140, 141, *range(300, 310))
    found = peaks_of(scene(circuits, outages=outages), 50, 20, None)
    assert found.outages == [Peak(20 / 50, 20), Peak(10 / 50, 10)]
    assert found.ordinary == Peak(3 / 22, 2)


def test_the_worst_of_all_circuits_counts() -> None:
    found = peaks_of(scene(pace(200, 100), pace(200, 100, 101, 102)), 50, 50, None)
    assert found.ordinary == Peak(3 / 50, 3)


def test_slow_calls_raise_the_share_and_no_streak() -> None:
    circuits = pace(200, 100, slow=(110, 111, 112, 113), ignored=(112,))
    assert peaks_of(scene(circuits), 50, 50, 3.0).ordinary == Peak(3 / 50, 1)


# The formula


def advise(answer: float, *circuits: Circuit, slow_s: float | None = None) -> CircuitBreakerConfig:
    return Adviser(scene(*circuits), [], slow_s).advise(answer).config


def test_the_answer_is_the_threshold_and_chance_decides_the_streak() -> None:
    config = advise(0.5, pace(500))
    assert (config.error_rate_threshold, config.error_rate_window, config.minimum_calls) == (0.5, 50, 20)
    assert config.failure_threshold == 18
    assert (advise(0.25, pace(500)).failure_threshold, advise(0.1, pace(500)).failure_threshold) == (9, 6)


def test_the_window_is_the_first_that_ordinary_times_leave_room() -> None:
    bad = (100, 101, 102, 103, 104, 105, 106)  # seven of any twenty, forty, eighty
    assert advise(0.6, pace(500, *bad)).error_rate_window == 50
    assert advise(0.5, pace(500, *bad)).error_rate_window == 100
    assert advise(0.2, pace(500, *bad)).error_rate_window == 200


def test_if_no_window_does_the_threshold_is_higher_than_the_answer() -> None:
    advice = Adviser(scene(pace(500, *range(100, 110))), [], None).advise(0.1)
    assert advice.raised
    assert advice.peaks.ordinary.share == 10 / 80
    assert (advice.config.error_rate_threshold, advice.config.error_rate_window) == (0.19, 200)


def test_a_longer_streak_in_ordinary_times_raises_that_threshold() -> None:
    assert advise(0.5, pace(5000, *range(100, 115))).failure_threshold == 24


def test_where_ordinary_times_fill_a_window_with_failures_no_share_opens() -> None:
    config = advise(0.5, pace(5000, *range(100, 180)))
    assert (config.error_rate_threshold, config.failure_threshold) == (None, 121)
    config = advise(0.5, pace(5000, *range(100, 160)))
    assert (config.error_rate_threshold, config.failure_threshold) == (1.0, 91)


def test_slow_calls_get_a_rule_if_asked_for() -> None:
    config = advise(0.5, pace(500), slow_s=2.0)
    assert (config.slow_call_duration_s, config.slow_call_rate_threshold) == (2.0, 0.5)


def test_it_stays_open_longer_only_if_that_pays() -> None:
    """While everything fails, fewer probes are cheaper; where it flaps, good calls are rejected for longer."""
    down = Outage(100.0, 699.0, 699.5, 100, 700, 600, 0)
    long = Adviser(scene(pace(900, *range(100, 700)), outages=(down,)), [], None).advise(0.1)
    assert long.config.reset_timeout_s == 30
    short = Outage(100.0, 129.0, 129.5, 100, 130, 30, 0)
    assert (
        Adviser(scene(pace(900, *range(100, 130)), outages=(short,)), [], None).advise(0.5).config.reset_timeout_s == 5
    )


# Weighing


def test_a_loss_is_a_part_of_what_outages_cost_without_a_breaker() -> None:
    down = Outage(100.0, 199.0, 199.5, 100, 200, 100, 0)
    adviser = Adviser(scene(pace(300, *range(100, 200)), outages=(down,)), [], None)
    never = CircuitBreakerConfig(failure_threshold=1000)
    assert adviser.loss(never, 0.5) == 1.0
    assert adviser.loss(CircuitBreakerConfig(failure_threshold=10, reset_timeout_s=inf), 0.5) == (10 + 100) / 100
    assert Adviser(scene(pace(300)), [], None).loss(never, 0.5) == 0.0


def test_made_outages_are_weighed_too() -> None:
    log = log_of(make("steady", 1, 10_000))
    adviser = Adviser(Scene(log.circuits, [], [], None), made.make(log, []), None)
    assert 0 < adviser.loss(CircuitBreakerConfig(), 0.5) < 1


def test_peaks_of_any_configuration() -> None:
    adviser = Adviser(scene(pace(300, 100, 101)), [], None)
    assert adviser.peaks(CircuitBreakerConfig()).ordinary == Peak(2 / 100, 2)


# Made outages


def test_outages_are_made_at_ordinary_moments_of_the_log() -> None:
    log = log_of(make("full outage", 1, 10_000))
    _, found = find(log.calls)
    outages = made.make(log, found)
    assert len(outages) == made.MOMENTS * len(made.SHARES)
    for one in outages:
        assert one.outage.end - one.outage.begin == pytest.approx(120, abs=1)
        assert not any(true.begin < one.outage.end and one.outage.begin < true.end for true in found)


def test_a_made_outage_fails_its_share_and_no_call_outside() -> None:
    log = log_of(make("steady", 1, 10_000))
    first = [one for one in made.make(log, []) if one.outage == made.make(log, [])[0].outage]
    shares = []
    for one in first:
        calls = one.scene.circuits[0].calls
        inside = range(*calls.between(one.outage.begin, one.outage.end))
        shares.append(sum(calls.outcome[call] for call in inside) / len(inside))
        assert sum(calls.outcome) - sum(calls.outcome[call] for call in inside) < 10
    assert shares == pytest.approx(made.SHARES, abs=0.08)
    assert shares == sorted(shares)


def test_a_higher_share_opens_sooner() -> None:
    log = log_of(make("steady", 1, 10_000))
    config = CircuitBreakerConfig(error_rate_threshold=0.5, error_rate_window=50, minimum_calls=20)
    seconds = [one.opened_after(config) for one in made.make(log, [])[: len(made.SHARES)]]
    assert seconds[0] == inf
    assert 0 < seconds[-1] < 10


def test_a_log_that_is_nothing_but_outage_has_no_moment_for_another() -> None:
    log = log_of(make("steady", 1, 10_000))
    assert made.make(log, [Outage(0.0, log.length_s, log.length_s, 0, 1, 1, 0)]) == []


def test_calls_at_one_and_the_same_time_make_no_moment() -> None:
    calls = circuit(*((0.0, 0.1, SUCCESS) for _ in range(100)))
    assert made.make(Log("name", 0.0, calls.calls, [calls]), []) == []


def test_a_process_without_calls_at_that_time_is_left_out() -> None:
    all_calls, early = pace(5000), circuit((0.0, 0.1, SUCCESS))
    late = circuit(*((float(n), 0.5, SUCCESS) for n in range(4990, 5000)))
    outages = made.make(Log("name", 0.0, all_calls.calls, [all_calls, early, late]), [])
    assert {len(one.scene.circuits) for one in outages} == {2}
