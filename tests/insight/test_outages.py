"""The finder of outages: on logs whose truth is known, and against trying everything on tiny ones."""

from __future__ import annotations

from array import array
from itertools import product
from math import inf, log
from random import Random

import pytest
from settings import invented, log_of, missed
from traffic import KINDS, make

from circuit_breaker.insight import outages
from circuit_breaker.insight.calls import FAILURE, SUCCESS, Calls
from circuit_breaker.insight.outages import NoBadCallError, NoOrdinaryTimesError, find, given, gone_wrong, slow_limit


def calls_of(outcomes: list[int], every: float = 1.0, took: float = 0.1) -> Calls:
    begin = array("d", (number * every for number in range(len(outcomes))))
    return Calls(begin, array("d", [took] * len(outcomes)), bytearray(outcomes))


def with_failures(number: int, *ranges: range) -> Calls:
    failing = {call for some in ranges for call in some}
    return calls_of([FAILURE if call in failing else SUCCESS for call in range(number)])


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_all_outages_are_found_and_none_is_invented(kind: str, seed: int) -> None:
    made = make(kind, seed, 10_000)
    _, found = find(log_of(made).calls)
    assert missed(made, found) == 0
    assert invented(made, found) == []


def test_an_outage_goes_from_its_first_bad_call_to_its_last() -> None:
    ordinary, (outage,) = find(with_failures(2000, range(1000, 1100), range(500, 501)))
    assert (outage.begin, outage.end, outage.settled) == (1000.0, 1099.0, 1099.1)
    assert (outage.first, outage.last, outage.calls, outage.failed, outage.slow) == (1000, 1100, 100, 100, 0)
    assert (outage.failing_share, outage.slow_share) == (1.0, 0.0)
    assert ordinary.share == pytest.approx(1.5 / 1901)


def test_two_outages_far_apart_are_two_though_calls_clump() -> None:
    bursts = [range(n, n + 8) for n in range(100, 20_000, 500)]
    _, found = find(with_failures(20_000, *bursts, range(9150, 9250), range(14_150, 14_250)))
    assert [(outage.first, outage.last) for outage in found] == [(9150, 9250), (14_150, 14_250)]


def test_outages_less_than_half_a_minute_apart_are_one() -> None:
    _, found = find(with_failures(3000, range(1000, 1050), range(1070, 1120)))
    assert [(outage.first, outage.last) for outage in found] == [(1000, 1120)]


def test_a_few_failures_in_a_row_are_no_outage() -> None:
    assert find(with_failures(3000, range(1000, 1004)))[1] == []


def test_many_failures_within_five_seconds_are_no_outage() -> None:
    calls = calls_of([FAILURE if 1000 <= call < 1040 else SUCCESS for call in range(3000)], every=0.1)
    assert find(calls)[1] == []


def test_calls_that_are_far_too_slow_are_an_outage() -> None:
    calls = with_failures(3000)
    for call in range(1000, 1100):
        calls.took[call] = 2.0
    ordinary, (outage,) = find(calls)
    assert ordinary.slow_s == pytest.approx(0.4)
    assert (outage.failed, outage.slow, outage.slow_share) == (0, 100, 1.0)
    assert find(calls, slow_s=3.0)[1] == []


def test_where_calls_take_no_time_none_is_too_slow() -> None:
    assert slow_limit(calls_of([SUCCESS] * 1000, took=0.0)) == inf
    assert slow_limit(calls_of([FAILURE] * 1000)) == inf


def test_slow_failures_go_wrong_once() -> None:
    calls = calls_of([SUCCESS, FAILURE, SUCCESS], took=2.0)
    calls.took[0] = 0.5
    assert gone_wrong(calls, 1.0) == b"\0\1\1"
    assert gone_wrong(calls, inf) == b"\0\1\0"


def test_if_more_than_half_goes_wrong_nothing_is_ordinary() -> None:
    calls = with_failures(1000, range(400))
    calls.outcome[400:520] = bytes([FAILURE]) * 120
    with pytest.raises(NoOrdinaryTimesError) as raised:
        find(calls)
    assert raised.value.share == 0.52


def test_unless_somebody_says_what_is_ordinary() -> None:
    ordinary, (outage,) = find(with_failures(1000, range(300, 900)), ordinary=0.01)
    assert ordinary.share == 0.01
    assert (outage.first, outage.last) == (300, 900)


def test_nothing_is_above_ordinary_times_in_which_a_third_fails() -> None:
    dice = Random(1)
    calls = calls_of([FAILURE if dice.random() < 0.35 else SUCCESS for _ in range(3000)])
    ordinary, found = find(calls)
    assert found == []
    assert 0.3 < ordinary.share < 0.4


def test_the_search_ends_even_if_it_does_not_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "ROUNDS", 1)
    _, (outage,) = find(with_failures(2000, range(1000, 1100)))
    assert (outage.first, outage.last) == (1000, 1100)


def test_outages_that_are_named_go_from_bad_call_to_bad_call() -> None:
    calls = with_failures(2000, range(1000, 1010), range(1500, 1501))
    ordinary, found = given(calls, [(1490.0, 1600.0), (900.0, 1005.5)])
    assert [(outage.begin, outage.end) for outage in found] == [(1000.0, 1005.0), (1500.0, 1500.0)]
    assert ordinary.share == pytest.approx(4.5 / 1994)


def test_an_outage_that_is_named_has_a_bad_call() -> None:
    with pytest.raises(NoBadCallError) as raised:
        given(with_failures(2000, range(1000, 1010)), [(900.0, 1100.0), (100.0, 200.0)])
    assert raised.value.number == 1


# The likeliest course, against the score of every possible one

SHARE = 0.05


def score(wrong: list[int], course: tuple[int, ...], clump: float) -> float:
    levels = [SHARE, *(level for level in outages.LEVELS if level > outages.TIMES_ORDINARY * SHARE)]
    up, step = (log(len(wrong)) + outages.UP_PRICE) * clump, outages.STEP_PRICE * clump
    total, former = 0.0, 0
    for bad, level in zip(wrong, course, strict=True):
        share = levels[level]
        total += log(share / SHARE) if bad else log((1 - share) / (1 - SHARE))
        if former != level and level:
            total -= step if former else up
        former = level
    return total


@pytest.mark.parametrize("seed", range(60))
def test_no_course_is_likelier_than_the_one_found(seed: int) -> None:
    dice = Random(seed)
    wrong = [int(dice.random() < (0.9 if 2 <= call < 6 else 0.2)) for call in range(8)]
    clump = dice.choice([0.1, 0.2, 0.4])
    best = max(score(wrong, course, clump) for course in product(range(3), repeat=len(wrong)))
    stretches = outages._likeliest(list(outages._runs(bytes(wrong))), len(wrong), SHARE, clump)
    inside = {call for parts in stretches for call in range(parts[0][0], parts[-1][1])}
    ranges = [(0,) if call not in inside else (1, 2) for call in range(len(wrong))]
    assert max(score(wrong, course, clump) for course in product(*ranges)) == pytest.approx(best)
