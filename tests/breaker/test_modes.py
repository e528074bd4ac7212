"""An operator steers: forced open, forced closed, in the shadow, and back to new."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from calls import fail, succeed
from clocks import Clock
from examples import examples
from failures import Down
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE_S
from ways import Way

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._breaker.permit import Permit
from circuit_breaker._breaker.totals import CircuitStats
from circuit_breaker._common.events import CallFinished, CallRejected, StateChanged
from circuit_breaker._common.words import CircuitMode, CircuitState
from circuit_breaker.exceptions import CircuitOpenError

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
AUTO, SHADOW = CircuitMode.AUTO, CircuitMode.SHADOW
FORCED_OPEN, FORCED_CLOSED = CircuitMode.FORCED_OPEN, CircuitMode.FORCED_CLOSED

Make = Callable[..., CircuitBreaker]


def raise_down() -> None:
    raise Down


def opened(make: Make, **more: Any) -> CircuitBreaker:
    breaker = make(**{"failure_threshold": 1, "success_threshold": 1, **more})
    breaker.record_failure()
    assert breaker.snapshot().machine_state is OPEN
    return breaker


def half_opened(make: Make, clock: Clock, **more: Any) -> CircuitBreaker:
    breaker = opened(make, **more)
    clock.advance(30)
    assert breaker.snapshot().machine_state is HALF_OPEN
    return breaker


def states(breaker: CircuitBreaker) -> tuple[CircuitState, CircuitState]:
    snapshot = breaker.snapshot()
    assert snapshot.state is breaker.state
    assert breaker.is_open is (breaker.state is OPEN)
    assert breaker.is_closed is (breaker.state is CLOSED)
    assert snapshot.mode is breaker.mode
    return breaker.state, snapshot.machine_state


# Forced open


def test_forced_open_rejects_everybody_and_touches_nothing(make: Make, way: Way) -> None:
    breaker = make(mode=FORCED_OPEN)
    called: list[bool] = []
    with pytest.raises(CircuitOpenError) as raised:
        way(breaker, lambda: called.append(True))
    assert called == []
    assert raised.value.retry_after_s is None
    assert raised.value.state is OPEN
    assert raised.value.last_failure is None
    assert raised.value.context == {"circuit_name": "api", "mode": "forced_open", "retry_after_s": None}
    assert not breaker.allow_request()
    assert breaker.stats.rejected_count == 2


def test_forced_open_lasts(make: Make, clock: Clock) -> None:
    breaker = make(mode=FORCED_OPEN, reset_timeout_s=0)
    clock.advance(1e12)
    assert states(breaker) == (OPEN, OPEN)
    assert not breaker.allow_request()
    assert breaker.snapshot().retry_after_s is None


def test_forced_open_counts_what_is_recorded_and_stays(make: Make) -> None:
    breaker = make(mode=FORCED_OPEN)
    breaker.record_success(1)
    breaker.record_failure(2)
    breaker.record_ignored()
    assert states(breaker) == (OPEN, OPEN)
    stats = breaker.stats
    assert (stats.success_count, stats.failure_count, stats.ignored_count, stats.total_latency_ms) == (1, 1, 1, 3.0)
    assert stats.opened_count == 0


# Forced closed


def test_forced_closed_admits_and_counts_and_never_trips(make: Make, clock: Clock, way: Way) -> None:
    breaker = make(
        mode=FORCED_CLOSED,
        failure_threshold=1,
        error_rate_threshold=0.1,
        minimum_calls=1,
        slow_call_duration_s=1,
        slow_call_rate_threshold=0.1,
    )
    for _ in range(3):
        with pytest.raises(Down):
            way(breaker, raise_down)
        way(breaker, lambda: clock.advance(1))
    assert states(breaker) == (CLOSED, CLOSED)
    snapshot = breaker.snapshot()
    assert (snapshot.stats.failure_count, snapshot.stats.success_count, snapshot.stats.slow_count) == (3, 3, 3)
    assert (snapshot.window_failures, snapshot.window_slow, snapshot.retry_after_s) == (3, 3, 0.0)
    assert snapshot.stats.opened_count == 0


def test_what_failed_while_forced_closed_does_not_count_against_the_circuit_later(make: Make) -> None:
    breaker = make(mode=FORCED_CLOSED, failure_threshold=3)
    fail(breaker, 5)
    breaker.mode = AUTO
    fail(breaker, 2)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


# In the shadow


def test_in_the_shadow_a_caller_meets_a_closed_circuit(make: Make, clock: Clock, way: Way) -> None:
    breaker = opened(make, mode=SHADOW)
    assert states(breaker) == (CLOSED, OPEN)
    assert breaker.allow_request()
    assert way(breaker, lambda: "answer") == "answer"
    assert breaker.stats.shadow_rejected_count == 2
    assert breaker.stats.rejected_count == 0
    clock.advance(30)
    assert states(breaker) == (CLOSED, HALF_OPEN)
    assert way(breaker, lambda: "answer") == "answer"
    assert states(breaker) == (CLOSED, CLOSED)
    assert breaker.stats.shadow_rejected_count == 2


def test_in_the_shadow_what_would_have_been_rejected_counts_in_the_totals_only(
    make: Make, clock: Clock, way: Way
) -> None:
    breaker = opened(make, mode=SHADOW)
    way(breaker, lambda: clock.advance(1))
    with pytest.raises(Down):
        way(breaker, raise_down)
    assert states(breaker) == (CLOSED, OPEN)
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (1, 2)
    assert breaker.snapshot().window_calls == 1  # as it was when the circuit opened
    clock.advance(29)
    assert states(breaker) == (CLOSED, HALF_OPEN)


def test_in_the_shadow_a_call_past_the_last_probe_settles_nothing(make: Make, clock: Clock) -> None:
    breaker = half_opened(make, clock, mode=SHADOW, half_open_max_calls=1)
    probe, shadow = breaker.permit(), breaker.permit()
    shadow.failure()
    assert states(breaker) == (CLOSED, HALF_OPEN)
    assert breaker.snapshot().probes_in_flight == 1
    probe.success()
    assert states(breaker) == (CLOSED, CLOSED)


def test_in_the_shadow_what_began_while_open_settles_nothing_in_half_open(make: Make, clock: Clock) -> None:
    breaker = opened(make, mode=SHADOW)
    good, bad = breaker.permit(), breaker.permit()
    clock.advance(30)
    bad.failure()
    good.success()
    assert states(breaker) == (CLOSED, HALF_OPEN)


@dataclass
class Twins:
    """Play the same calls to a breaker in AUTO and to one in SHADOW. A rejected call is not made."""

    config: CircuitBreakerConfig
    clock: Clock = field(default_factory=Clock)
    permits: list[tuple[Permit | None, Permit]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.told: list[Any] = []
        self.twin = CircuitBreaker("twin", self.config, clock=self.clock)
        self.shadow = CircuitBreaker("shadow", self.config, clock=self.clock, mode=SHADOW, listeners=[self.told.append])

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def look(self) -> None:
        assert self.shadow.state is CLOSED
        assert self.twin.state is self.shadow.snapshot().machine_state

    def call(self, outcome: str, seconds: float) -> None:
        began = self.clock.now
        for breaker in (self.twin, self.shadow):
            self.clock.now = began
            try:
                breaker.call(self.body, outcome, seconds)
            except CircuitOpenError:
                assert breaker is self.twin
            except (Down, KeyError):
                pass
        self.clock.now = began + seconds

    def block(self, outcome: str, seconds: float) -> None:
        began = self.clock.now
        for breaker in (self.twin, self.shadow):
            self.clock.now = began
            try:
                with breaker:
                    self.body(outcome, seconds)
            except CircuitOpenError:
                assert breaker is self.twin
            except (Down, KeyError):
                pass
        self.clock.now = began + seconds

    def body(self, outcome: str, seconds: float) -> None:
        self.clock.advance(seconds)
        if outcome == "failure":
            raise Down
        if outcome == "ignored":
            raise KeyError

    def allow(self, outcome: str) -> None:
        for breaker in (self.twin, self.shadow):
            allowed = breaker.allow_request()
            assert allowed or breaker is self.twin
            if allowed:
                getattr(breaker, f"record_{outcome}")()

    def take(self) -> None:
        try:
            mine: Permit | None = self.twin.permit()
        except CircuitOpenError:
            mine = None
        self.permits.append((mine, self.shadow.permit()))

    def settle(self, which: int, outcome: str) -> None:
        if self.permits:
            verb = "ignore" if outcome == "ignored" else outcome
            for permit in self.permits.pop(which % len(self.permits)):
                if permit is not None:
                    getattr(permit, verb)()

    def compare(self) -> None:
        twin, shadow = self.twin.snapshot(), self.shadow.snapshot()
        assert shadow.state is CLOSED
        assert shadow.machine_state is twin.machine_state
        assert shadow.stats.opened_count == twin.stats.opened_count
        assert shadow.stats.shadow_rejected_count == twin.stats.rejected_count
        assert shadow.stats.rejected_count == twin.stats.shadow_rejected_count == 0
        assert (shadow.window_calls, shadow.window_failures) == (twin.window_calls, twin.window_failures)
        assert shadow.probes_in_flight == twin.probes_in_flight
        assert not any(isinstance(event, CallRejected) for event in self.told)


outcomes = st.sampled_from(["success", "failure", "failure", "ignored"])
durations = st.sampled_from([0, 0, 1, 3])
steps = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 4, 5, 10, 20])),
    st.tuples(st.just("look")),
    st.tuples(st.sampled_from(["call", "block"]), outcomes, durations),
    st.tuples(st.just("allow"), outcomes),
    st.tuples(st.just("take")),
    st.tuples(st.just("settle"), st.integers(0, 9), outcomes),
)
configs = st.builds(
    CircuitBreakerConfig,
    failure_threshold=st.sampled_from([1, 2, None]),
    success_threshold=st.sampled_from([1, 2]),
    reset_timeout_s=st.sampled_from([0, 5, 10]),
    half_open_max_calls=st.sampled_from([1, 2]),
    half_open_timeout_s=st.sampled_from([4, 30]),
    error_rate_threshold=st.just(0.5),
    error_rate_window=st.sampled_from([3, 100]),
    minimum_calls=st.just(2),
    ignored_exceptions=st.just(KeyError),
)


@given(configs, st.lists(steps, max_size=50))
@examples(150)
def test_in_the_shadow_the_machine_is_that_of_an_enforcing_twin(
    config: CircuitBreakerConfig, trace: list[tuple[Any, ...]]
) -> None:
    twins = Twins(config)
    for verb, *args in trace:
        getattr(twins, verb)(*args)
        twins.compare()


def test_the_twins_meet_rejections_openings_and_probes(make: Make) -> None:
    """The trace above is worth something: here is one that goes all the way round."""
    twins = Twins(CircuitBreakerConfig(failure_threshold=2, success_threshold=1, half_open_max_calls=1))
    twins.call("failure", 0)
    twins.take()
    twins.block("failure", 1)
    for _ in range(3):
        twins.call("success", 0)
        twins.allow("failure")
        twins.take()
    twins.wait(30)
    twins.take()
    twins.allow("failure")
    for _ in range(4):
        twins.settle(0, "failure")
        twins.compare()
    assert twins.twin.state is HALF_OPEN
    twins.settle(0, "success")
    twins.compare()
    assert twins.twin.state is CLOSED
    assert twins.twin.stats.rejected_count == 10


# Setting a mode


@pytest.mark.parametrize("mode", list(CircuitMode))
@pytest.mark.parametrize("former", list(CircuitMode))
def test_another_mode_keeps_the_totals_and_starts_a_fresh_closed_period(
    make: Make, former: CircuitMode, mode: CircuitMode
) -> None:
    breaker = make(mode=former, failure_threshold=2, error_rate_window=10)
    breaker.record_success(5)
    breaker.record_failure()
    before = breaker.stats.copy()
    breaker.mode = mode
    assert breaker.mode is mode
    after = breaker.snapshot()
    assert (after.stats.success_count, after.stats.failure_count) == (1, 1)
    assert after.stats.total_latency_ms == before.total_latency_ms == 5.0
    assert states(breaker) == ((OPEN, OPEN) if mode is FORCED_OPEN else (CLOSED, CLOSED))
    if mode is not former:
        assert after.window_calls == 0
        breaker.record_failure()
        assert breaker.snapshot().machine_state is (OPEN if mode is FORCED_OPEN else CLOSED)
    else:
        assert after.stats == before


@pytest.mark.parametrize("mode", [FORCED_CLOSED, SHADOW])
def test_another_mode_closes_a_circuit_that_is_open(make: Make, mode: CircuitMode) -> None:
    breaker = opened(make)
    breaker.mode = mode
    assert states(breaker) == (CLOSED, CLOSED)
    breaker.mode = AUTO
    assert states(breaker) == (CLOSED, CLOSED)
    succeed(breaker)


def test_the_same_mode_changes_nothing(make: Make, clock: Clock) -> None:
    told: list[Any] = []
    breaker = half_opened(make, clock, success_threshold=2, listeners=[told.append])
    out = breaker.permit()
    succeed(breaker)
    del told[:]
    before = breaker.snapshot()
    breaker.mode = AUTO
    assert breaker.snapshot() == before
    assert told == []
    out.success()
    assert breaker.state is CLOSED


def test_the_same_mode_keeps_the_end_of_an_open_period_and_the_streak(make: Make, clock: Clock) -> None:
    breaker = make(failure_threshold=2, reset_timeout_s=lambda openings: 10.0 * (openings + 1))
    fail(breaker)
    breaker.mode = AUTO
    fail(breaker)
    assert breaker.state is OPEN
    clock.advance(5)
    breaker.mode = AUTO
    assert breaker.snapshot().retry_after_s == 5.0
    clock.advance(5)
    fail(breaker)
    assert breaker.snapshot().retry_after_s == 20.0


def test_another_mode_forgets_how_often_in_a_row_it_opened(make: Make, clock: Clock) -> None:
    asked: list[int] = []
    breaker = make(failure_threshold=1, reset_timeout_s=lambda openings: asked.append(openings) or 10.0)
    for mode in (AUTO, SHADOW):
        breaker.mode = mode
        breaker.record_failure()
        clock.advance(10)
        breaker.record_failure()
    assert asked == [0, 1, 0, 1]


@pytest.mark.parametrize("mode", ["auto", None, 1, CLOSED])
def test_what_is_not_a_mode_is_rejected_and_changes_nothing(make: Make, mode: Any) -> None:
    breaker = opened(make)
    with pytest.raises(TypeError, match="mode must be one of CircuitMode"):
        breaker.mode = mode
    assert (breaker.mode, breaker.state) == (AUTO, OPEN)
    with pytest.raises(TypeError, match="mode"):
        CircuitBreaker(mode=mode)


# With calls in flight


@pytest.mark.parametrize("mode", [FORCED_OPEN, FORCED_CLOSED, SHADOW])
@pytest.mark.parametrize("bad", [True, False])
def test_a_call_in_flight_when_the_mode_is_set_counts_in_the_totals_only(
    make: Make, way: Way, mode: CircuitMode, bad: bool
) -> None:
    told: list[Any] = []
    breaker = make(failure_threshold=1, listeners=[told.append])

    def body() -> None:
        breaker.mode = mode
        del told[:]
        if bad:
            raise Down

    if bad:
        with pytest.raises(Down):
            way(breaker, body)
    else:
        way(breaker, body)
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (not bad, bad)
    assert breaker.snapshot().window_calls == 0
    assert states(breaker) == ((OPEN, OPEN) if mode is FORCED_OPEN else (CLOSED, CLOSED))
    assert [type(event) for event in told] == [CallFinished]


@pytest.mark.parametrize("mode", list(CircuitMode))
def test_a_probe_in_flight_when_the_mode_is_set_gives_back_nothing_later(
    make: Make, clock: Clock, mode: CircuitMode
) -> None:
    breaker = half_opened(make, clock, half_open_max_calls=1)
    probe = breaker.permit()
    breaker.mode = FORCED_OPEN if mode is AUTO else FORCED_CLOSED
    breaker.mode = AUTO
    breaker.record_failure()
    clock.advance(30)
    assert breaker.state is HALF_OPEN
    breaker.permit()
    probe.success()
    assert breaker.snapshot().probes_in_flight == 1
    assert breaker.state is HALF_OPEN
    assert not breaker.allow_request()


def test_a_call_in_flight_in_another_thread_when_the_mode_is_set(make: Make) -> None:
    breaker = make(failure_threshold=1)
    inside, go_on = threading.Event(), threading.Event()

    def body() -> None:
        inside.set()
        assert go_on.wait(PATIENCE_S)
        raise Down

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(breaker.call, body)
        assert inside.wait(PATIENCE_S)
        breaker.mode = FORCED_OPEN
        with pytest.raises(CircuitOpenError):
            breaker.call(int)
        breaker.mode = AUTO
        go_on.set()
        assert type(running.exception(PATIENCE_S)) is Down
    assert breaker.state is CLOSED
    assert (breaker.stats.failure_count, breaker.stats.rejected_count) == (1, 1)


def test_functions_still_asked_when_the_mode_is_set_decide_nothing(make: Make) -> None:
    def ask(openings: int) -> float:
        breaker.mode = FORCED_OPEN
        breaker.mode = AUTO
        breaker.record_failure()  # opens a period of its own
        return 1000.0

    answers = [ask, lambda openings: 7.0]
    breaker = make(failure_threshold=1, reset_timeout_s=lambda openings: answers.pop(0)(openings))
    breaker.record_failure()
    assert breaker.snapshot().retry_after_s == 7.0


# What is reported


@pytest.mark.parametrize(
    ("mode", "change"), [(FORCED_OPEN, None), (FORCED_CLOSED, (OPEN, CLOSED)), (SHADOW, (OPEN, CLOSED))]
)
def test_a_mode_tells_of_the_change_it_makes_to_the_machine(
    make: Make, mode: CircuitMode, change: tuple[CircuitState, CircuitState] | None
) -> None:
    told: list[Any] = []
    breaker = opened(make, listeners=[told.append])
    del told[:]
    breaker.mode = mode
    assert told == ([] if change is None else [StateChanged("api", *change, f"mode {mode.value}")])


def test_the_machine_in_the_shadow_tells_of_its_changes(make: Make, clock: Clock) -> None:
    told: list[Any] = []
    breaker = opened(make, mode=SHADOW, listeners=[told.append])
    clock.advance(30)
    succeed(breaker)
    assert [(event.old_state, event.new_state) for event in told if isinstance(event, StateChanged)] == [
        (CLOSED, OPEN),
        (OPEN, HALF_OPEN),
        (HALF_OPEN, CLOSED),
    ]


def test_a_mode_at_construction_is_not_a_change(make: Make) -> None:
    told: list[Any] = []
    breaker = make(mode=FORCED_OPEN, listeners=[told.append])
    assert breaker.state is OPEN
    assert told == []


# Back to new


@pytest.mark.parametrize("mode", list(CircuitMode))
@pytest.mark.parametrize("later", list(CircuitMode))
def test_a_reset_breaker_is_as_when_it_was_made(make: Make, mode: CircuitMode, later: CircuitMode) -> None:
    breaker = make(mode=mode, failure_threshold=2, slow_call_duration_s=1)
    breaker.mode = later
    breaker.record_success(2000)
    breaker.record_failure(1000)
    breaker.record_failure()
    breaker.record_ignored()
    breaker.allow_request()
    breaker.reset()
    assert breaker.snapshot() == make(mode=mode).snapshot()
    assert breaker.stats == CircuitStats()


def test_a_reset_breaker_counts_from_zero(make: Make) -> None:
    breaker = make(failure_threshold=2)
    breaker.record_failure()
    breaker.reset()
    breaker.record_failure()
    assert breaker.state is CLOSED
    assert breaker.stats.consecutive_failures == 1
    breaker.record_failure()
    assert breaker.state is OPEN


def test_a_reset_tells_of_its_change_and_of_none_if_there_is_none(make: Make, clock: Clock) -> None:
    told: list[Any] = []
    breaker = half_opened(make, clock, listeners=[told.append])
    del told[:]
    breaker.reset()
    breaker.reset()
    assert told == [StateChanged("api", HALF_OPEN, CLOSED, "reset")]


def test_a_call_in_flight_when_the_breaker_is_reset_counts_in_the_totals_only(make: Make, way: Way) -> None:
    breaker = make(failure_threshold=1)

    def body() -> None:
        breaker.reset()
        raise Down

    with pytest.raises(Down):
        way(breaker, body)
    assert breaker.state is CLOSED
    assert (breaker.stats.failure_count, breaker.stats.consecutive_failures) == (1, 0)


def test_a_reset_forgets_how_often_in_a_row_it_opened_and_why(make: Make, clock: Clock) -> None:
    asked: list[int] = []
    breaker = make(failure_threshold=1, reset_timeout_s=lambda openings: asked.append(openings) or 10.0)
    fail(breaker)
    clock.advance(10)
    fail(breaker)
    breaker.reset()
    breaker.record_failure()
    assert asked == [0, 1, 0]
    with pytest.raises(CircuitOpenError) as raised:
        breaker.call(int)
    assert raised.value.last_failure is None
