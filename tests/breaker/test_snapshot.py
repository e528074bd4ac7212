"""What there is to see of a breaker: snapshots, the live totals and their dates, and the list of all breakers."""

from __future__ import annotations

import copy
import json
import pickle
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, asdict
from math import inf, nan
from typing import Any

import pytest
from calls import fail, succeed
from clocks import Clock
from garbage import collect
from patience import PATIENCE_S
from ways import Way

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._breaker.totals import CircuitSnapshot, CircuitStats
from circuit_breaker._common.words import CircuitMode, CircuitState

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

Make = Callable[..., CircuitBreaker]


class Wall:
    """A wall clock that can be set."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr(time, "time", wall)
    return wall


# Snapshots


def test_a_new_breaker_has_an_empty_snapshot(make: Make) -> None:
    assert make().snapshot() == CircuitSnapshot(
        name="api",
        state=CLOSED,
        machine_state=CLOSED,
        mode=CircuitMode.AUTO,
        stats=CircuitStats(),
        window_calls=0,
        window_failures=0,
        window_slow=0,
        error_rate=0.0,
        slow_call_rate=0.0,
        retry_after_s=0.0,
        probes_in_flight=0,
    )


def test_a_snapshot_holds_the_totals_and_the_window(make: Make, clock: Clock, wall: Wall) -> None:
    breaker = make(slow_call_duration_s=1, error_rate_window=4, ignored_exceptions=KeyError)
    for latency_s in (0.5, 2, 0.25, 0):
        breaker.call(clock.advance, latency_s)
    fail(breaker)
    fail(breaker, error=KeyError())
    wall.now += 3
    clock.advance(3)
    snapshot = breaker.snapshot()
    assert snapshot.stats == CircuitStats(
        4, 1, 1, wall.now - 3, wall.now - 3, 2750.0, ignored_count=1, rejected_count=0, slow_count=1
    )
    assert (snapshot.window_calls, snapshot.window_failures, snapshot.window_slow) == (4, 1, 1)
    assert (snapshot.error_rate, snapshot.slow_call_rate) == (0.25, 0.25)


def test_an_open_circuit_shows_the_time_to_wait_and_the_rejections(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    assert not breaker.allow_request()
    clock.advance(12)
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.machine_state, snapshot.retry_after_s) == (OPEN, OPEN, 18.0)
    assert (snapshot.stats.opened_count, snapshot.stats.rejected_count) == (1, 1)
    assert (snapshot.window_calls, snapshot.window_failures, snapshot.error_rate) == (1, 1, 1.0)


def test_the_window_is_that_of_the_opening_until_the_circuit_closes(make: Make, clock: Clock) -> None:
    breaker = make(error_rate_threshold=0.5, error_rate_window=4, success_threshold=1)
    succeed(breaker, 2)
    fail(breaker, 2)
    for seconds in (0, 10, 20, 30):
        clock.advance(seconds)
        snapshot = breaker.snapshot()
        assert (snapshot.window_calls, snapshot.window_failures, snapshot.error_rate) == (4, 2, 0.5)
    assert snapshot.state is HALF_OPEN
    fail(breaker)
    assert breaker.snapshot().window_failures == 2
    clock.advance(30)
    succeed(breaker)
    assert breaker.snapshot().window_calls == 0


def test_a_snapshot_is_a_look_that_begins_half_open(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    clock.advance(30)
    assert "open," in repr(breaker)
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.machine_state, snapshot.retry_after_s) == (HALF_OPEN, HALF_OPEN, 0.0)
    assert "half_open," in repr(breaker)


def test_probes_are_shown_while_they_are_out_and_not_overdue(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, half_open_timeout_s=10)
    fail(breaker)
    clock.advance(30)
    first, _lost = breaker.permit(), breaker.permit()
    assert breaker.snapshot().probes_in_flight == 2
    first.ignore()
    assert breaker.snapshot().probes_in_flight == 1
    clock.advance(10)
    assert breaker.snapshot().probes_in_flight == 0


def test_a_snapshot_is_frozen_and_does_not_follow(make: Make) -> None:
    breaker = make()
    before = breaker.snapshot()
    succeed(breaker)
    assert before.stats.success_count == 0
    assert type(before.stats) is CircuitStats
    with pytest.raises(FrozenInstanceError):
        before.state = OPEN  # type: ignore[misc]


def test_two_snapshots_of_one_moment_are_equal(make: Make, wall: Wall) -> None:
    breaker = make()
    succeed(breaker)
    fail(breaker)
    first = breaker.snapshot()
    wall.now += 0.001
    assert breaker.snapshot() == first


@pytest.mark.parametrize(
    ("mode", "retry_after_s"),
    [
        (CircuitMode.AUTO, 30.0),
        (CircuitMode.SHADOW, 0.0),
        (CircuitMode.FORCED_CLOSED, 0.0),
        (CircuitMode.FORCED_OPEN, None),
    ],
)
def test_the_time_to_wait_in_each_mode(make: Make, mode: CircuitMode, retry_after_s: float | None) -> None:
    breaker = make(mode=mode, failure_threshold=1)
    breaker.record_failure()
    assert breaker.snapshot().retry_after_s == retry_after_s


def test_a_snapshot_is_json_ready_in_every_state(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1)
    succeed(breaker)
    for _ in range(2):
        plain = breaker.snapshot().to_dict()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
        breaker.record_failure()
    clock.advance(30)
    plain = breaker.snapshot().to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain == {
        "name": "api",
        "state": "half_open",
        "machine_state": "half_open",
        "mode": "auto",
        "stats": asdict(breaker.snapshot().stats),
        "window_calls": 2,
        "window_failures": 1,
        "window_slow": 0,
        "error_rate": 0.5,
        "slow_call_rate": 0.0,
        "retry_after_s": 0.0,
        "probes_in_flight": 0,
        "shared": None,
        "dropped_changes": 0,
    }


def test_an_infinite_time_is_none_in_json(make: Make) -> None:
    breaker = make(failure_threshold=1, reset_timeout_s=inf)
    fail(breaker)
    assert breaker.snapshot().retry_after_s == inf
    assert breaker.snapshot().to_dict()["retry_after_s"] is None


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("see", [lambda breaker: breaker.snapshot().stats, lambda breaker: breaker.stats.copy()])
def test_what_is_seen_while_threads_count_fits_together(
    make: Make, see: Callable[[CircuitBreaker], CircuitStats]
) -> None:
    breaker = make(failure_threshold=None, error_rate_threshold=1.0, error_rate_window=50, slow_call_duration_s=0.001)
    start = threading.Barrier(4)

    def count() -> None:
        start.wait(PATIENCE_S)
        for _ in range(100):
            breaker.record_failure(1.0)
            breaker.record_success(1.0)

    with ThreadPoolExecutor(3) as pool:
        threads = [pool.submit(count) for _ in range(3)]
        start.wait(PATIENCE_S)
        busy = True
        while busy:
            busy = not all(thread.done() for thread in threads)
            stats = see(breaker)
            assert stats.success_count + stats.failure_count == stats.slow_count == stats.total_latency_ms
        for thread in threads:
            thread.result(PATIENCE_S)
    snapshot = breaker.snapshot()
    assert (snapshot.stats.success_count, snapshot.stats.failure_count, snapshot.window_calls) == (300, 300, 50)


# The live totals


def test_the_totals_are_one_object_that_follows(make: Make) -> None:
    breaker = make()
    stats = breaker.stats
    assert isinstance(stats, CircuitStats)
    assert stats.success_count == 0
    succeed(breaker, 2)
    fail(breaker)
    assert breaker.stats is stats
    assert (stats.success_count, stats.failure_count, stats.consecutive_failures) == (2, 1, 1)
    breaker.reset()
    breaker.mode = CircuitMode.FORCED_OPEN
    assert not breaker.allow_request()
    assert breaker.stats is stats
    assert (stats.success_count, stats.rejected_count) == (0, 1)


def test_every_total_and_rate_can_be_read(make: Make, clock: Clock, wall: Wall, way: Way) -> None:
    breaker = make(slow_call_duration_s=2)
    way(breaker, lambda: clock.advance(2))
    way(breaker, lambda: clock.advance(1))
    breaker.record_failure(600)
    expected = CircuitStats(2, 1, 1, wall.now, wall.now, 3600.0, slow_count=1)
    assert breaker.stats.error_rate == expected.error_rate == pytest.approx(1 / 3)
    assert breaker.stats.avg_latency_ms == expected.avg_latency_ms == 1200.0
    for name, value in asdict(expected).items():
        assert getattr(breaker.stats, name) == value, name


def test_the_totals_equal_plain_totals_of_the_same_figures(make: Make) -> None:
    breaker, other = make(), make()
    breaker.record_ignored()
    plain = CircuitStats(ignored_count=1)
    assert breaker.stats == plain
    assert plain == breaker.stats
    assert breaker.stats != other.stats
    other.record_ignored()
    assert breaker.stats == other.stats
    assert breaker.stats != CircuitStats()
    assert CircuitStats() != breaker.stats
    assert breaker.stats != "totals"
    assert (breaker.stats == "totals") is False


def test_the_totals_equal_themselves_whenever_they_are_read() -> None:
    breaker = CircuitBreaker()
    breaker.record_success()
    breaker.record_failure()
    for _ in range(100):
        assert breaker.stats == breaker.stats


def test_the_totals_look_like_plain_totals(make: Make) -> None:
    breaker = make()
    breaker.record_ignored()
    assert repr(breaker.stats) == repr(CircuitStats(ignored_count=1))
    assert asdict(breaker.stats) == asdict(CircuitStats(ignored_count=1))


def test_the_totals_cannot_be_a_key_but_can_be_held_weakly(make: Make) -> None:
    stats = make().stats
    with pytest.raises(TypeError, match="unhashable"):
        hash(stats)
    assert weakref.ref(stats)() is stats


@pytest.mark.parametrize(
    "copied",
    [
        lambda stats: stats.copy(),
        copy.copy,
        copy.deepcopy,
        *(lambda stats, n=n: pickle.loads(pickle.dumps(stats, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)),
    ],
)
def test_a_copy_of_the_totals_is_plain_and_does_not_follow(make: Make, copied: Callable[[Any], Any]) -> None:
    breaker = make()
    succeed(breaker, 3)
    fail(breaker)
    taken = copied(breaker.stats)
    assert type(taken) is CircuitStats
    assert taken == breaker.stats
    succeed(breaker)
    assert (taken.success_count, breaker.stats.success_count) == (3, 4)


def test_rates_are_of_one_moment(make: Make, clock: Clock) -> None:
    """A thread that counts between two reads must not make a rate above 1."""

    class Busy(Clock):
        counting = False

        def __call__(self) -> float:
            if self.counting:
                self.counting = False
                busy.record_failure(100)
                self.counting = True
            return self.now

    busy_clock = Busy()
    busy = CircuitBreaker(
        "busy", CircuitBreakerConfig(failure_threshold=None, error_rate_threshold=1), clock=busy_clock
    )
    busy.record_failure(100)
    busy_clock.counting = True
    assert busy.stats.error_rate == 1.0
    assert busy.stats.avg_latency_ms == 100.0


def test_what_is_recorded_on_the_totals_is_seen_there_and_moves_nothing(make: Make, clock: Clock, wall: Wall) -> None:
    breaker = make(failure_threshold=2)
    succeed(breaker)
    clock.advance(5)
    wall.now += 5
    for _ in range(3):
        breaker.stats.record_failure(latency_ms=2.0)
    assert breaker.stats == CircuitStats(1, 3, 3, wall.now, wall.now - 5, 6.0)
    assert breaker.state is CLOSED
    assert breaker.snapshot().window_calls == 1
    breaker.stats.record_success(1.0)
    assert breaker.stats == CircuitStats(2, 3, 0, wall.now, wall.now, 7.0)


def test_the_streak_of_the_totals_is_the_one_that_opens(make: Make) -> None:
    breaker = make(failure_threshold=3)
    fail(breaker)
    breaker.stats.record_failure(0.0)
    assert breaker.stats.consecutive_failures == 2
    fail(breaker)
    assert breaker.state is OPEN


def test_a_success_on_the_totals_ends_the_streak(make: Make) -> None:
    breaker = make(failure_threshold=2)
    fail(breaker)
    breaker.stats.record_success(0.0)
    fail(breaker)
    assert (breaker.state, breaker.stats.consecutive_failures) == (CLOSED, 1)


@pytest.mark.parametrize("until", [OPEN, HALF_OPEN])
def test_what_is_recorded_on_the_totals_of_a_circuit_that_is_not_closed_moves_nothing(
    make: Make, clock: Clock, until: CircuitState
) -> None:
    breaker = make(failure_threshold=1, success_threshold=1)
    fail(breaker)
    clock.advance(30 if until is HALF_OPEN else 0)
    assert breaker.state is until
    breaker.stats.record_success(0.0)
    breaker.stats.record_failure(0.0)
    assert breaker.state is until
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (1, 2)


def test_resetting_the_totals_leaves_the_circuit_and_its_window(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=3, error_rate_threshold=0.5, minimum_calls=4)
    succeed(breaker)
    fail(breaker, 2)
    breaker.stats.reset()
    assert breaker.stats == CircuitStats()
    assert breaker.snapshot().window_calls == 3
    succeed(breaker, 1)
    assert breaker.stats.success_count == 1
    breaker.mode = CircuitMode.FORCED_CLOSED
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (1, 0)


def test_resetting_the_totals_begins_the_streak_anew(make: Make) -> None:
    breaker = make(failure_threshold=3)
    fail(breaker, 2)
    breaker.stats.reset()
    fail(breaker, 2)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


def test_resetting_the_totals_of_an_open_circuit_leaves_it_open(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=1, success_threshold=2)
    fail(breaker)
    breaker.stats.reset()
    assert (breaker.state, breaker.snapshot().retry_after_s, breaker.stats) == (OPEN, 30.0, CircuitStats())
    clock.advance(30)
    succeed(breaker)
    breaker.stats.reset()
    assert breaker.state is HALF_OPEN
    succeed(breaker)
    assert breaker.state is CLOSED
    assert breaker.stats.success_count == 1


def test_a_call_that_is_out_when_the_totals_are_reset_counts_after_it(make: Make, way: Way) -> None:
    breaker = make()
    way(breaker, lambda: breaker.stats.reset())
    assert breaker.stats.success_count == 1


# Dates


def test_dates_are_reported_by_the_clock_of_the_breaker_back_from_now(make: Make, clock: Clock, wall: Wall) -> None:
    breaker = make()
    succeed(breaker)
    clock.advance(60)
    fail(breaker)
    clock.advance(5)
    assert breaker.stats.last_success_time == wall.now - 65
    assert breaker.stats.last_failure_time == wall.now - 5


def test_dates_are_those_of_the_real_clocks() -> None:
    breaker = CircuitBreaker()
    before = time.time()
    breaker.record_success()
    breaker.record_failure()
    after = time.time()
    for at in (breaker.stats.last_success_time, breaker.stats.last_failure_time):
        assert at is not None
        assert before - 1 <= at <= after + 1


def test_a_date_that_was_shown_stays_though_the_wall_clock_jumps(make: Make, clock: Clock, wall: Wall) -> None:
    breaker = make()
    fail(breaker)
    shown = breaker.stats.last_failure_time
    wall.now += 3600
    assert breaker.stats.last_failure_time == breaker.snapshot().stats.last_failure_time == shown
    clock.advance(1)
    fail(breaker)
    assert breaker.stats.last_failure_time == wall.now


def test_a_failure_after_a_jump_of_the_wall_clock_is_dated_by_it(make: Make, clock: Clock, wall: Wall) -> None:
    breaker = make()
    succeed(breaker)
    wall.now -= 3600
    clock.advance(1)
    fail(breaker)
    assert breaker.snapshot().stats.last_failure_time == wall.now


def test_a_reset_forgets_the_dates(make: Make) -> None:
    breaker = make()
    succeed(breaker)
    fail(breaker)
    breaker.reset()
    assert (breaker.stats.last_success_time, breaker.stats.last_failure_time) == (None, None)


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_jump_of_the_wall_clock_changes_nothing_but_dates(make: Make, clock: Clock, wall: Wall, jump: float) -> None:
    breaker = make(failure_threshold=1, success_threshold=1)

    def body() -> None:
        wall.now += jump
        clock.advance(1)

    breaker.call(body)
    assert breaker.stats.total_latency_ms == 1000.0
    fail(breaker)
    wall.now += jump
    assert breaker.snapshot().retry_after_s == 30.0
    clock.advance(29)
    wall.now += jump
    assert breaker.state is OPEN
    clock.advance(1)
    assert breaker.state is HALF_OPEN
    succeed(breaker)
    assert breaker.state is CLOSED


def test_dates_cost_nothing_until_they_are_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = make()

    def never() -> float:
        raise AssertionError

    monkeypatch.setattr(time, "time", never)
    monkeypatch.setattr("logging.LogRecord.__init__", lambda *_, **__: None)
    succeed(breaker)
    fail(breaker)
    breaker.record_ignored()


# Plain totals


def test_plain_totals_take_the_figures_in_order() -> None:
    stats = CircuitStats(1, 2, 3, 4.0, 5.0, 6.0)
    assert (stats.success_count, stats.failure_count, stats.consecutive_failures) == (1, 2, 3)
    assert (stats.last_failure_time, stats.last_success_time, stats.total_latency_ms) == (4.0, 5.0, 6.0)
    named = CircuitStats(ignored_count=1, rejected_count=2, slow_count=3, opened_count=4, shadow_rejected_count=5)
    assert list(asdict(named).values()) == [0, 0, 0, None, None, 0.0, 1, 2, 3, 4, 5]
    with pytest.raises(TypeError):
        CircuitStats(1, 2, 3, 4.0, 5.0, 6.0, 7)  # type: ignore[misc]


def test_plain_totals_of_nothing_have_rates_of_zero() -> None:
    assert (CircuitStats().error_rate, CircuitStats().avg_latency_ms) == (0.0, 0.0)


def test_plain_totals_count_what_is_recorded(wall: Wall) -> None:
    stats = CircuitStats()
    stats.record_failure(1.0)
    stats.record_failure(2.0)
    assert stats == CircuitStats(0, 2, 2, wall.now, None, 3.0)
    wall.now += 1
    stats.record_success(6.0)
    assert stats == CircuitStats(1, 2, 0, wall.now - 1, wall.now, 9.0)
    assert (stats.error_rate, stats.avg_latency_ms) == (pytest.approx(2 / 3), 3.0)
    stats.slow_count = stats.opened_count = 9
    stats.reset()
    assert stats == CircuitStats()


# All breakers


def test_the_list_of_breakers_holds_those_that_are_alive(make: Make) -> None:
    breaker = make("here")
    gone = make("gone")
    reference = weakref.ref(gone)
    assert {breaker, gone} <= set(CircuitBreaker.instances())
    del gone
    collect()
    assert reference() is None
    assert "gone" not in [each.name for each in CircuitBreaker.instances()]
    assert breaker in CircuitBreaker.instances()


def test_the_list_of_breakers_of_a_subclass_holds_its_own() -> None:
    class Special(CircuitBreaker):
        pass

    ordinary, special = CircuitBreaker(), Special()
    assert Special.instances() == [special]
    assert {ordinary, special} <= set(CircuitBreaker.instances())


def test_the_list_of_breakers_holds_each_though_some_are_equal() -> None:
    class Named(CircuitBreaker):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Named) and other.name == self.name

        __hash__ = None  # type: ignore[assignment]

    kept = [Named("same"), Named("same")]
    assert len(Named.instances()) == len(kept)


def test_the_list_of_breakers_is_the_callers_own(make: Make) -> None:
    breaker = make()
    CircuitBreaker.instances().clear()
    assert breaker in CircuitBreaker.instances()


def test_totals_beyond_all_floats_are_json_ready_too(make: Make) -> None:
    breaker = make()
    breaker.record_success(1e308)
    breaker.record_success(1e308)
    told = breaker.snapshot().to_dict()
    assert told["stats"]["total_latency_ms"] is None
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("latency_ms", [nan, inf, -1.0])
def test_totals_recorded_by_hand_with_no_latency_stay_fit_for_json(make: Make, latency_ms: float) -> None:
    breaker = make()
    breaker.stats.record_success(latency_ms)
    breaker.stats.record_failure(latency_ms)
    figures = json.loads(json.dumps(breaker.snapshot().to_dict(), allow_nan=False))
    assert figures["stats"]["total_latency_ms"] == 0.0
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (1, 1)
