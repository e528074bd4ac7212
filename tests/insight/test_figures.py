"""The figures of a setting, worked out by hand on small logs."""

from __future__ import annotations

from datetime import timedelta
from math import inf
from typing import Any

import pytest
from call_by_call import circuit

from circuit_breaker import CircuitBreakerConfig
from circuit_breaker.insight.calls import FAILURE, IGNORED, SUCCESS, Circuit
from circuit_breaker.insight.figures import Alarm, Figures, Scene, Setting, Spread
from circuit_breaker.insight.outages import Outage

DOWN = Outage(begin=10.0, end=29.0, settled=29.5, first=10, last=30, failed=20, slow=0)


def minute(*bad: int, took: float = 0.5) -> Circuit:
    """Return a call in each second of a minute; those of these numbers fail."""
    return circuit(*((float(second), took, FAILURE if second in bad else SUCCESS) for second in range(60)))


def figures(
    *circuits: Circuit,
    outages: tuple[Outage, ...] = (DOWN,),
    worth: bool = True,
    slow_s: float | None = None,
    **settings: Any,
) -> Figures:
    config = CircuitBreakerConfig(**{"failure_threshold": 3, "reset_timeout_s": 5, "success_threshold": 1, **settings})
    return Scene(circuits, outages, [worth] * len(outages), slow_s).figures(Setting("this", config))


def test_an_outage_it_opens_for() -> None:
    """It opens at 12.5, probes at 18, 24 and 30, and closes at 30.5."""
    found = figures(minute(*range(10, 30)))
    (fate,) = found.fates
    assert (fate.opened, fate.opened_after_s, fate.closed_after_s) == (True, [2.5], [1.5])
    assert (fate.circuits, fate.bad, fate.let_through) == (1, 20, 5)
    assert (found.worth, found.opened_for, found.mild, found.opened_for_mild) == (1, 1, 0, 0)
    assert (found.bad, found.let_through, found.good_rejected) == (20, 5, 0)
    assert found.opened_after_s == Spread(2.5, 2.5)
    assert found.closed_after_s == Spread(1.5, 1.5)
    assert found.waiting_saved_s == 7.5
    assert (found.false_alarms, found.late, found.passed) == ([], [], True)


def test_an_outage_it_misses() -> None:
    found = figures(minute(*range(10, 30)), failure_threshold=21)
    assert (found.opened_for, found.let_through, found.passed) == (0, 20, False)
    assert (found.opened_after_s, found.closed_after_s) == (None, None)


def test_a_mild_outage_is_counted_apart() -> None:
    found = figures(minute(*range(10, 30)), worth=False)
    assert (found.worth, found.mild, found.opened_for_mild, found.bad, found.let_through) == (0, 1, 1, 0, 0)
    assert found.passed


def test_good_calls_are_rejected_until_a_probe_succeeds() -> None:
    found = figures(minute(*range(10, 30)), reset_timeout_s=30)
    assert found.fates[0].closed_after_s == [14.5]
    assert found.good_rejected == 13


def test_what_opens_outside_of_outages_is_a_false_alarm() -> None:
    found = figures(minute(*range(10, 30), 50, 51, 52))
    assert found.false_alarms == [Alarm(52.5, "3 failures in a row (threshold 3)")]
    assert not found.passed


@pytest.mark.parametrize("window", [20, timedelta(seconds=20)])
def test_what_opens_after_an_outage_while_its_calls_are_in_the_window_is_late(window: Any) -> None:
    """Five of the last ten calls fail; the sixth failure, five seconds after them, is one of seventeen."""
    rate = {"failure_threshold": None, "error_rate_threshold": 0.3, "error_rate_window": window, "minimum_calls": 16}
    outage = Outage(10.0, 14.0, 14.5, 10, 15, 5, 0)
    found = figures(minute(*range(10, 15), 19), outages=(outage,), **rate)
    assert [alarm.at for alarm in found.late] == [19.5]
    assert (found.false_alarms, found.opened_for) == ([], 0)
    found = figures(minute(*range(10, 15), *range(40, 50)), outages=(outage,), **rate)
    assert (len(found.false_alarms), found.late) == (1, [])


def test_it_may_be_open_when_an_outage_begins() -> None:
    found = figures(minute(5, 6, 7, *range(10, 30)))
    assert found.fates[0].opened_after_s == [0.0]
    assert len(found.false_alarms) == 1


def test_it_may_open_after_the_last_bad_call_began() -> None:
    """Each call takes four seconds to fail, so the third failure comes when the outage is over."""
    outage = Outage(10.0, 12.0, 16.0, 10, 13, 3, 0)
    found = figures(minute(10, 11, 12, took=4.0), outages=(outage,))
    assert found.fates[0].opened_after_s == [6.0]
    assert found.fates[0].closed_after_s == [13.0]


def test_it_may_not_close_before_the_log_ends() -> None:
    found = figures(minute(*range(10, 30)), reset_timeout_s=inf)
    assert found.fates[0].closed_after_s == [inf]


def test_it_may_be_closed_when_the_outage_ends() -> None:
    found = figures(minute(10, 11, 12, 20, 29), outages=(DOWN,), reset_timeout_s=1)
    assert found.fates[0].closed_after_s == [0.0]


def test_figures_are_sums_and_times_the_median_and_the_worst_over_circuits() -> None:
    found = figures(minute(*range(10, 30)), minute(*range(12, 30)), minute(*range(20, 30)), minute())
    (fate,) = found.fates
    assert fate.circuits == 4
    assert sorted(fate.opened_after_s) == [2.5, 4.5, 12.5]
    assert found.opened_after_s == Spread(4.5, 12.5)
    assert fate.bad == 48
    assert fate.opened


def test_an_outage_counts_as_opened_for_if_half_of_the_circuits_that_saw_it_opened() -> None:
    assert not figures(minute(*range(10, 30)), minute(), minute()).fates[0].opened
    assert figures(minute(*range(10, 30)), minute()).fates[0].opened
    early = circuit(*((float(second), 0.5, SUCCESS) for second in range(5)))
    assert figures(minute(*range(10, 30)), early, early).fates[0].circuits == 1


def test_slow_calls_are_bad_where_they_are_to_count() -> None:
    calls = circuit(*((float(second), 3.0 if 10 <= second < 30 else 0.5, SUCCESS) for second in range(60)))
    settings = {"slow_call_duration_s": 2, "slow_call_rate_threshold": 0.1, "error_rate_window": 10, "minimum_calls": 5}
    without, counted = figures(calls, **settings), figures(calls, slow_s=2.0, **settings)
    assert (without.bad, counted.bad) == (0, 20)
    assert counted.good_rejected == 4
    assert without.good_rejected > 10


def test_ignored_calls_are_neither_good_nor_bad() -> None:
    calls = circuit(*((float(s), 0.5, FAILURE if 10 <= s < 30 else IGNORED if s > 29 else SUCCESS) for s in range(60)))
    found = figures(calls, reset_timeout_s=15)
    assert found.good_rejected == 0
    assert found.bad == 20


def test_callers_are_stuck_in_bad_calls_at_the_same_time() -> None:
    hanging = circuit(
        *((float(s), 10.0 if 10 <= s < 30 else 0.5, FAILURE if 10 <= s < 30 else SUCCESS) for s in range(60))
    )
    scene = Scene([hanging, hanging], [DOWN], [True], None)
    assert scene.stuck_without_a_breaker() == 20
    assert figures(hanging, failure_threshold=1, reset_timeout_s=30).stuck == 10
    assert figures(minute()).stuck == 0


def test_a_bad_call_costs_its_price_and_a_rejected_good_one_costs_one() -> None:
    scene = Scene([minute(*range(10, 30))], [DOWN], [True], None)
    config = CircuitBreakerConfig(failure_threshold=3, reset_timeout_s=30, success_threshold=1)
    assert scene.cost_without_a_breaker(2.0) == 40
    assert scene.cost(scene.replay(config), 2.0) == 3 * 2 + 13
