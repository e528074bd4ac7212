"""What a shared circuit does, with several members that exchange when they are told to."""

from __future__ import annotations

import logging
from math import inf
from typing import Any

import pytest
from failures import Down
from garbage import catch_up
from members import FlakyStore, Fleet, Member

from circuit_breaker import (
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitMode,
    CircuitOpenError,
    CircuitState,
    StateChanged,
)
from circuit_breaker._shared import changes
from circuit_breaker._shared.process import talker_of
from circuit_breaker._shared.record import Edit
from circuit_breaker.stores import MemoryStore

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


# Opening


def test_a_member_opens_by_itself_at_once(fleet: Fleet) -> None:
    fleet.start()
    fleet.members[0].fail(3)
    assert [member.state for member in fleet.members] == [OPEN, CLOSED, CLOSED]
    assert fleet.members[0].is_rejected()
    assert fleet.members[0].shared.open_for == "process"


def test_one_member_alone_never_opens_for_the_others(fleet: Fleet) -> None:
    fleet.start()
    for _ in range(60):
        member = fleet.members[0]
        if member.state is not OPEN:
            with pytest.raises(Down):
                member.breaker.call(_fail)
        fleet.interval()
    assert [member.state for member in fleet.members[1:]] == [CLOSED, CLOSED]
    assert fleet.record.epoch == 0


def _fail() -> None:
    raise Down


def test_two_that_open_by_themselves_open_for_all(fleet: Fleet) -> None:
    fleet.start()
    for member in fleet.members[:2]:
        member.fail(3)
    fleet.interval(3)
    assert fleet.states() == {OPEN}
    assert fleet.record.reason == "2 processes opened by themselves"
    assert {member.shared.open_for for member in fleet.members} == {"all"}
    assert all(member.is_rejected() for member in fleet.members)


def test_a_circuit_that_opens_for_all_stays_open_for_what_is_left_of_the_own_time(fleet: Fleet) -> None:
    fleet.start()
    for member in fleet.members[:2]:
        member.fail(3)
    opened = fleet.clock()
    fleet.interval(3)
    assert fleet.record.retry_after_s == pytest.approx(opened + 5.0 - fleet.clock())


def test_failures_that_are_too_few_for_each_open_for_all_together(fleet: Fleet) -> None:
    fleet.start()
    for member in fleet.members:
        member.fail()
    fleet.interval(3)
    assert fleet.states() == {OPEN}
    assert fleet.record.reason == "3 failures in a row in 3 processes (threshold 3)"
    assert (fleet.record.retry_after_s or 0) + (fleet.record.since_s or 0) == pytest.approx(5.0)


def test_a_member_that_joins_later_learns_with_its_first_call_that_the_circuit_is_open(fleet: Fleet) -> None:
    fleet.open()
    late = fleet.join()
    assert late.state is CLOSED  # reading starts nothing
    assert late.is_rejected()
    assert late.state is OPEN


def test_going_from_the_own_open_state_to_that_of_all_is_not_a_change(fleet: Fleet) -> None:
    fleet.open()
    opened = [event for event in fleet.members[0].events if isinstance(event, StateChanged)]
    assert [(event.old_state, event.new_state) for event in opened] == [(CLOSED, OPEN)]
    assert fleet.members[0].breaker.stats.opened_count == 1
    assert fleet.members[0].breaker.stats.last_failure_time is not None


def test_a_change_that_the_record_made_says_so(fleet: Fleet) -> None:
    fleet.open()
    (opened,) = [event for event in fleet.members[2].events if isinstance(event, StateChanged)]
    assert opened.reason == "in all processes: 2 processes opened by themselves"
    assert fleet.members[2].breaker.stats.opened_count == 1


def test_the_text_of_a_failure_stays_in_its_process(fleet: Fleet) -> None:
    fleet.start()

    def secret() -> None:
        raise Down("password=1234")

    for member in fleet.members[:2]:
        for _ in range(3):
            with pytest.raises(Down):
                member.breaker.call(secret)
    fleet.interval(3)
    assert "1234" not in repr(fleet.board.__dict__)
    with pytest.raises(CircuitOpenError) as raised:
        fleet.members[0].breaker.call(int)
    assert raised.value.last_failure == ("Down", "password=1234")
    with pytest.raises(CircuitOpenError) as raised:
        fleet.members[2].breaker.call(int)
    assert raised.value.last_failure is None


def test_a_rate_opens_for_all() -> None:
    fleet = Fleet(failure_threshold=None, error_rate_threshold=0.5, error_rate_window=12, minimum_calls=12)
    fleet.start()
    for _ in range(2):
        for member in fleet.members:
            member.fail()
            member.succeed()
        fleet.interval()
    fleet.interval(2)
    assert fleet.states() == {OPEN}
    assert "calls failed (threshold 0.5)" in fleet.record.reason


def test_failures_of_two_breakers_of_one_process_are_those_of_one_member(fleet: Fleet) -> None:
    fleet.start()
    second = fleet.members[0].another()
    for breaker in (fleet.members[0].breaker, second):
        for _ in range(3):
            with pytest.raises(Down):
                breaker.call(_fail)
    fleet.interval(10)
    assert fleet.record.epoch == 0


def test_a_process_that_makes_its_breaker_anew_each_time_is_one_member(fleet: Fleet) -> None:
    fleet.start()
    sick = fleet.members[0]
    for _ in range(4):
        del sick.breaker
        catch_up()
        fleet.interval(2)
        sick.breaker = sick.another()
        sick.fail(3)
        fleet.interval(3)
    assert fleet.record.epoch == 0
    assert len({(member.host, member.pid) for member in fleet.admin.members()}) == 1
    assert len(fleet.admin.members()) == 3


def test_two_breakers_of_one_process_follow_together(fleet: Fleet) -> None:
    second = fleet.members[0].another()
    second.call(int)
    fleet.open()
    assert second.state is OPEN


# Probing


def test_no_more_probes_than_the_limit_are_out_over_all_members(fleet: Fleet) -> None:
    fleet.half_open()
    permits = []
    for member in fleet.members * 2:
        try:
            permits.append(member.breaker.permit())
        except CircuitOpenError:
            pass
    assert len(permits) == 3
    assert fleet.record.probes_out == 3


def test_enough_successes_of_different_members_close_for_all(fleet: Fleet) -> None:
    fleet.half_open()
    assert [member.is_rejected() for member in fleet.members[:2]] == [False, False]
    fleet.interval(2)
    assert fleet.states() == {CLOSED}
    assert fleet.record.reason == "2 probes succeeded"
    closed = [event for event in fleet.members[2].events if isinstance(event, StateChanged)][-1]
    assert closed.reason == "in all processes: 2 probes succeeded"


def test_the_first_failure_reopens_for_all(fleet: Fleet) -> None:
    fleet.half_open()
    epoch = fleet.record.epoch
    fleet.members[0].fail()
    assert fleet.members[0].state is OPEN
    fleet.interval(2)
    assert fleet.states() == {OPEN}
    assert fleet.record.epoch > epoch
    assert fleet.record.reason == "a probe failed"
    assert fleet.record.retry_after_s == pytest.approx(5.0, abs=2.1)


def test_the_reopened_circuit_is_probed_after_its_new_time(fleet: Fleet) -> None:
    fleet.half_open()
    fleet.members[0].fail()
    fleet.interval(2)
    fleet.clock.advance(5.0)
    assert not fleet.members[1].is_rejected()


def test_a_member_whose_probe_failed_lets_the_others_ask_first(fleet: Fleet) -> None:
    fleet.half_open()
    fleet.members[0].fail()
    fleet.interval(2)
    fleet.clock.advance(3.0)
    assert fleet.states() == {HALF_OPEN}
    assert [member.is_rejected() for member in fleet.members[:2]] == [True, False]
    fleet.clock.advance(2.0)
    assert not fleet.members[0].is_rejected()


def test_an_ignored_probe_gives_its_lease_back(fleet: Fleet) -> None:
    fleet.half_open()
    permit = fleet.members[0].breaker.permit()
    assert fleet.record.probes_out == 1
    permit.ignore()
    fleet.exchange()
    assert fleet.record.probes_out == 0
    assert fleet.record.state is HALF_OPEN


def test_a_slow_probe_reopens_for_all() -> None:
    fleet = Fleet(slow_call_duration_s=1.0, slow_call_rate_threshold=0.5)
    fleet.half_open()
    fleet.members[0].breaker.call(fleet.clock.advance, 2.0)
    fleet.interval(2)
    assert fleet.record.reason == "a probe was slow"


def test_a_slow_call_inside_a_probe_leaves_the_verdict_to_that_probe() -> None:
    fleet = Fleet(slow_call_duration_s=1.0, slow_call_rate_threshold=0.5, ignored_exceptions=KeyError)
    fleet.half_open()
    breaker = fleet.members[0].breaker
    with pytest.raises(KeyError), breaker:
        breaker.call(fleet.clock.advance, 2.0)
        raise KeyError
    fleet.interval(2)
    assert fleet.record.state is HALF_OPEN


def test_a_call_inside_a_probe_needs_no_lease() -> None:
    fleet = Fleet(half_open_max_calls=1)
    fleet.half_open()
    breaker = fleet.members[0].breaker
    assert breaker.call(lambda: breaker.call(lambda: breaker.call(lambda: "inside"))) == "inside"
    fleet.exchange()
    assert fleet.admin.circuits()[0].probes_out == 0


def test_the_failure_of_a_call_inside_a_probe_reopens_for_all(fleet: Fleet) -> None:
    fleet.half_open()
    breaker = fleet.members[0].breaker
    with breaker, pytest.raises(Down):
        breaker.call(_fail)
    fleet.interval(2)
    assert fleet.record.reason == "a probe failed"
    assert fleet.states() == {OPEN}


def test_a_call_takes_over_the_lease_of_allow_request() -> None:
    fleet = Fleet(half_open_max_calls=1)
    fleet.half_open()
    breaker = fleet.members[0].breaker
    assert breaker.allow_request()
    assert breaker.call(int) == 0
    fleet.exchange()
    assert fleet.record.probes_out == 0


def test_a_record_by_hand_answers_for_the_lease_of_allow_request(fleet: Fleet) -> None:
    fleet.half_open()
    for member in fleet.members[:2]:
        assert member.breaker.allow_request()
        member.breaker.record_success()
    fleet.interval(2)
    assert fleet.states() == {CLOSED}


def test_a_permit_takes_a_lease_of_its_own() -> None:
    fleet = Fleet(half_open_max_calls=1)
    fleet.half_open()
    assert fleet.members[0].breaker.allow_request()
    with pytest.raises(CircuitOpenError) as raised:
        fleet.members[0].breaker.permit()
    assert raised.value.retry_after_s is None


def test_after_a_no_a_member_asks_again_later_and_later(fleet: Fleet) -> None:
    fleet.half_open()
    held = [fleet.members[0].breaker.permit() for _ in range(3)]
    member = fleet.members[1]
    asked = []
    for _ in range(40):
        before = member.store.asked["update"]
        assert member.is_rejected()
        asked.append(member.store.asked["update"] - before)
        fleet.clock.advance(0.1)
    times = [number for number, ask in enumerate(asked) if ask]
    assert times == [0, 1, 3, 7, 15, 25, 35]
    assert len(held) == 3


def test_the_end_of_an_own_probe_lets_a_member_ask_at_once(fleet: Fleet) -> None:
    fleet.half_open()
    held = [fleet.members[0].breaker.permit() for _ in range(3)]
    assert fleet.members[0].is_rejected()
    held[0].ignore()
    fleet.exchange()
    assert not fleet.members[0].is_rejected()


def test_a_lease_of_a_dead_process_runs_out() -> None:
    fleet = Fleet(half_open_max_calls=1, half_open_timeout_s=inf)
    fleet.half_open()
    dead = fleet.members.pop(0)
    permit = dead.breaker.permit()
    for _ in range(9):
        fleet.interval()
        assert fleet.members[0].is_rejected()
    fleet.interval(2)
    assert not fleet.members[0].is_rejected()
    assert permit is not None


def test_a_lease_is_renewed_while_its_probe_is_not_overdue() -> None:
    fleet = Fleet(half_open_max_calls=1, half_open_timeout_s=30.0)
    fleet.half_open()
    permit = fleet.members[0].breaker.permit()
    for _ in range(29):
        fleet.interval()
        assert fleet.members[1].is_rejected()
    fleet.interval(12)
    assert not fleet.members[1].is_rejected()
    permit.success()


def test_the_result_of_an_overdue_probe_counts_once() -> None:
    fleet = Fleet(half_open_max_calls=1, half_open_timeout_s=3.0)
    fleet.half_open()
    permit = fleet.members[0].breaker.permit()
    fleet.interval(14)
    other = fleet.members[1].breaker.permit()
    permit.success()
    fleet.interval()
    assert fleet.record.state is HALF_OPEN
    other.success()
    fleet.interval(2)
    assert fleet.states() == {CLOSED}


def test_a_result_counts_in_its_epoch_only(fleet: Fleet) -> None:
    fleet.half_open()
    late = fleet.members[0].breaker.permit()
    fleet.members[1].fail()
    fleet.interval(2)
    late.failure()
    fleet.clock.advance(5.0)
    epoch = fleet.record.epoch
    fleet.interval(2)
    assert fleet.record.epoch == epoch


def test_an_unused_lease_goes_back_after_an_interval(fleet: Fleet) -> None:
    leave_a_lease_unused(fleet)
    fleet.exchange()
    assert fleet.record.probes_out == 1
    fleet.clock.advance(1.0)
    fleet.exchange()
    assert fleet.record.probes_out == 0


def test_an_unused_lease_serves_the_next_call(fleet: Fleet) -> None:
    breaker = leave_a_lease_unused(fleet)
    asked = dict(fleet.members[0].store.asked)
    assert breaker.call(int) == 0
    assert fleet.members[0].store.asked == asked
    fleet.exchange()
    assert (fleet.record.state, fleet.record.probes_out) == (HALF_OPEN, 0)


def test_at_the_end_of_a_process_its_leases_go_back(fleet: Fleet) -> None:
    leave_a_lease_unused(fleet)
    talker_of(fleet.members[0].store).farewell()
    assert fleet.record.probes_out == 0


def leave_a_lease_unused(fleet: Fleet) -> CircuitBreaker:
    """Let a call of the first member get a lease, and never be made: a listener raises before."""
    fleet.open()

    def listener(event: object) -> None:
        if isinstance(event, StateChanged) and event.new_state is HALF_OPEN:
            raise KeyboardInterrupt

    breaker = fleet.members[0].another(listeners=[listener])
    assert not breaker.allow_request()
    fleet.clock.advance(5.0)
    with pytest.raises(KeyboardInterrupt):
        breaker.call(int)
    assert fleet.record.probes_out == 1
    return breaker


def test_a_failed_probe_is_sent_only_once_it_is_known_for_how_long_the_circuit_opens() -> None:
    fleet = Fleet(reset_timeout_s=lambda openings: ask(openings))
    seen: list[CircuitState | None] = []

    def ask(openings: int) -> float:
        if openings:
            own.sync()
            seen.append(fleet.record.state)
        return 5.0 + openings

    own = fleet.members[0]
    fleet.half_open()
    own.fail()
    own.sync()
    assert seen[0] is HALF_OPEN
    assert fleet.record.retry_after_s == 6.0


# The rules of whoever opened


def test_the_rules_of_the_member_that_opened_hold_for_all() -> None:
    fleet = Fleet(half_open_max_calls=1, success_threshold=1)
    fleet.members[2] = fleet.join(half_open_max_calls=5, success_threshold=9)
    del fleet.members[3]
    fleet.half_open()
    other = fleet.members[2]
    permit = other.breaker.permit()
    assert other.is_rejected()
    permit.success()
    fleet.interval(2)
    assert fleet.states() == {CLOSED}


def test_a_servers_hint_holds_for_all() -> None:
    fleet = Fleet(retry_after=lambda error: 60.0)
    fleet.open()
    assert fleet.record.retry_after_s == pytest.approx(57.0)
    fleet.clock.advance(30.0)
    assert fleet.states() == {OPEN}


def test_a_longer_hint_of_another_member_extends_the_time_of_all() -> None:
    fleet = Fleet()
    fleet.members[1] = wishing = Member(fleet, retry_after=lambda error: 60.0)
    fleet.start()
    fleet.members[0].fail(3)
    wishing.fail(3)
    fleet.interval(4)
    assert fleet.record.retry_after_s == pytest.approx(56.0)
    fleet.clock.advance(30.0)
    assert fleet.states() == {OPEN}


def test_trip_by_hand_extends_the_time_of_all(fleet: Fleet) -> None:
    fleet.open()
    fleet.members[0].breaker.trip(open_for_s=100.0)
    fleet.interval(2)
    assert fleet.record.retry_after_s == pytest.approx(98.0)
    fleet.clock.advance(50.0)
    assert fleet.states() == {OPEN}


def test_a_time_that_could_not_be_extended_at_once_is_extended_later_to_the_same_end(fleet: Fleet) -> None:
    fleet.open()
    own = fleet.members[0]
    own.store.lose_changes = True
    own.breaker.trip(open_for_s=100.0)
    fleet.interval(2)
    assert (fleet.record.retry_after_s or 0.0) < 5.0
    own.store.lose_changes = False
    fleet.interval(2)
    assert fleet.record.retry_after_s == pytest.approx(96.0)


def test_a_longer_hint_of_another_member_that_could_not_be_sent_at_once_is_sent_later() -> None:
    fleet = Fleet()
    fleet.members[1] = wishing = Member(fleet, retry_after=lambda error: 60.0)
    fleet.start()
    fleet.members[0].fail(3)
    wishing.fail(3)
    wishing.store.lose_changes = True
    fleet.interval(4)
    assert (fleet.record.retry_after_s or 0.0) < 5.0
    wishing.store.lose_changes = False
    fleet.interval()
    assert fleet.record.retry_after_s == pytest.approx(55.0)


def test_a_time_that_could_not_be_extended_is_not_in_a_later_epoch(fleet: Fleet) -> None:
    fleet.open()
    own = fleet.members[0]
    own.store.lose_changes = True
    own.breaker.trip(open_for_s=100.0)
    own.sync()
    fleet.admin.reset("api")
    fleet.exchange()
    asked = own.store.asked["update"]
    fleet.interval(2)
    assert own.store.asked["update"] == asked
    assert fleet.states() == {CLOSED}


def lengthen(fleet: Fleet, remaining_s: float) -> None:
    fleet.admin.update("api", Edit(changes.lengthened(fleet.record.epoch, remaining_s)))


def test_a_hint_that_comes_after_the_time_is_over_opens_all_again(fleet: Fleet) -> None:
    fleet.half_open()
    lengthen(fleet, 20.0)
    fleet.exchange()
    assert fleet.states() == {OPEN}
    fleet.clock.advance(20.0)
    assert not fleet.members[0].is_rejected()


def test_a_hint_that_was_waited_out_before_it_was_known_keeps_nobody_from_probing(fleet: Fleet) -> None:
    fleet.half_open()
    lengthen(fleet, 20.0)
    fleet.clock.advance(20.0)
    assert fleet.members[0].is_rejected()
    fleet.interval()
    assert not fleet.members[0].is_rejected()


def test_a_function_of_the_openings_says_how_long_all_stay_open() -> None:
    asked: list[int] = []

    def wait_s(openings: int) -> float:
        asked.append(openings)
        return 5.0 * (openings + 1)

    fleet = Fleet(reset_timeout_s=wait_s)
    fleet.start()
    for member in fleet.members:
        member.fail()
    fleet.interval(3)
    assert asked == [0]
    fleet.clock.advance(5.0)
    fleet.members[0].fail()
    fleet.exchange()
    assert asked == [0, 1]
    assert fleet.record.retry_after_s == 10.0


def test_a_function_that_raises_on_the_stores_thread_is_logged_and_30_s_taken(caplog: pytest.LogCaptureFixture) -> None:
    def wait_s(openings: int) -> float:
        raise ValueError("no idea")

    fleet = Fleet(reset_timeout_s=wait_s)
    fleet.start()
    for member in fleet.members:
        member.fail()
    fleet.interval(3)
    assert "reset_timeout_s raised or gave no seconds" in caplog.text
    assert (fleet.record.retry_after_s or 0) + (fleet.record.since_s or 0) == pytest.approx(30.0)


def test_where_several_failures_reopen_those_of_all_members_add_up() -> None:
    fleet = Fleet(half_open_failure_threshold=2)
    fleet.half_open()
    epoch = fleet.record.epoch
    fleet.members[0].fail()
    fleet.exchange()
    assert (fleet.record.epoch, fleet.record.state) == (epoch, HALF_OPEN)
    fleet.members[1].fail()
    fleet.exchange()
    assert fleet.record.epoch > epoch


# What is counted


def test_results_of_closed_periods_are_added_once(fleet: Fleet) -> None:
    fleet.start()
    for member in fleet.members:
        member.succeed(5)
        member.fail()
        member.succeed()
    fleet.interval(3)
    assert (fleet.record.successes, fleet.record.failures) == (3 + 18, 3)


def test_late_results_are_not_added(fleet: Fleet) -> None:
    fleet.start()
    permit = fleet.members[0].breaker.permit()
    fleet.members[0].fail(3)
    permit.success()
    fleet.interval()
    assert (fleet.record.successes, fleet.record.failures) == (3, 3)


def test_rejections_are_added_beside_them(fleet: Fleet) -> None:
    fleet.open()
    for _ in range(4):
        assert fleet.members[0].is_rejected()
    fleet.exchange()
    assert fleet.record.rejected == 4


def test_probes_are_not_among_the_answers(fleet: Fleet) -> None:
    fleet.half_open()
    for member in fleet.members:
        member.is_rejected()
    fleet.interval(2)
    assert fleet.record.state is CLOSED
    assert fleet.record.successes == 0


def test_what_a_lost_exchange_carried_is_not_sent_again(fleet: Fleet) -> None:
    fleet.start()
    flaky = fleet.members[0].store
    for lost in ("lose_requests", "lose_answers"):
        fleet.members[0].succeed(10)
        setattr(flaky, lost, True)
        fleet.exchange()
        setattr(flaky, lost, False)
        fleet.interval(2)
    assert fleet.record.successes == 3 + 10


def test_a_breaker_without_calls_for_ten_intervals_costs_nothing_until_the_next(fleet: Fleet) -> None:
    fleet.start()
    talker, store = talker_of(fleet.members[0].store), fleet.members[0].store
    for _ in range(12):
        talker._exchange_now()
        fleet.clock.advance(1.0)
    talker._exchange_now()
    assert store.reports == []
    fleet.members[1].fail(3)
    fleet.members[2].fail(3)
    for _ in range(3):
        fleet.members[1].sync()
        fleet.members[2].sync()
        fleet.clock.advance(1.0)
    assert fleet.members[0].state is CLOSED
    assert fleet.members[0].is_rejected()  # the call after the silence is a first one


def test_a_silent_member_learns_that_an_open_circuit_has_closed() -> None:
    fleet = Fleet(reset_timeout_s=300.0)
    silent = fleet.members[2]
    fleet.open()
    talker = talker_of(silent.store)
    for _ in range(12):
        talker._exchange_now()
        fleet.clock.advance(1.0)
    fleet.admin.reset("api")
    assert silent.state is OPEN
    assert not silent.is_rejected()


def test_a_process_that_falls_silent_and_comes_back_is_still_one_witness(fleet: Fleet) -> None:
    fleet.start()
    sick = fleet.members[0]
    sick.fail(3)
    talker = talker_of(sick.store)
    for _ in range(3):
        for _ in range(15):
            talker._exchange_now()
            fleet.clock.advance(1.0)
        assert sick.store.reports == []
        with pytest.raises(Down):
            sick.breaker.call(_fail)
    assert fleet.record.epoch == 0


# Before an interval is over


def look(fleet: Fleet, seconds: float) -> list[int]:
    """Let this much time pass, and each member look at its breakers; return how many exchanges that led to."""
    before = [member.store.asked["exchange"] for member in fleet.members]
    fleet.clock.advance(seconds)
    for member in fleet.members:
        talker_of(member.store)._tick()
    return [member.store.asked["exchange"] - asked for member, asked in zip(fleet.members, before, strict=True)]


@pytest.fixture
def watched(fleet: Fleet) -> Fleet:
    fleet.start()
    fleet.exchange()
    return fleet


def test_a_look_at_breakers_that_are_healthy_asks_nothing_of_the_store(watched: Fleet) -> None:
    for member in watched.members:
        member.succeed(3)
    assert look(watched, 0.1) == [0, 0, 0]


def test_a_member_whose_calls_fail_does_not_wait_until_the_interval_is_over(watched: Fleet) -> None:
    watched.members[0].fail()
    assert look(watched, 0.1) == [1, 0, 0]
    assert watched.record.failures == 1


def test_one_whose_calls_fail_now_and_then_does(watched: Fleet) -> None:
    watched.members[0].fail()
    watched.members[0].succeed()
    watched.members[0].fail()
    assert look(watched, 0.1) == [0, 0, 0]


def test_after_two_intervals_without_another_failure_the_hurry_is_over(watched: Fleet) -> None:
    watched.members[0].fail()
    looks = [look(watched, 0.1)[0] for _ in range(40)]
    assert looks[:20] == [1] * 20
    assert 1 <= sum(looks[20:]) <= 3  # those of two intervals, which vary a little


def test_members_in_trouble_follow_an_opening_at_once(watched: Fleet) -> None:
    watched.members[0].fail()
    look(watched, 0.1)
    watched.admin.force_open("api")
    look(watched, 0.1)
    assert [member.state for member in watched.members] == [OPEN, CLOSED, CLOSED]


def test_there_is_no_hurry_once_the_circuit_is_open_for_all(watched: Fleet) -> None:
    watched.members[0].fail()
    watched.admin.force_open("api")
    look(watched, 0.1)
    assert look(watched, 0.1) == [0, 0, 0]


def test_a_process_with_a_mode_of_its_own_is_in_no_hurry(watched: Fleet) -> None:
    watched.members[0].breaker.mode = CircuitMode.SHADOW
    watched.members[0].fail()
    assert look(watched, 0.1) == [0, 0, 0]


def test_a_hurried_exchange_that_fails_is_one_that_failed(watched: Fleet) -> None:
    watched.members[0].fail()
    watched.members[0].store.lose_requests = True
    for _ in range(45):
        look(watched, 0.1)
    assert watched.members[0].shared.link == "away"


# Dropping, naming, seeing


def test_a_dropped_breaker_takes_no_part_any_more(fleet: Fleet) -> None:
    fleet.start()
    del fleet.members[0].breaker
    catch_up()
    fleet.interval(2)
    assert fleet.members[0].store.reports == []


def test_circuits_of_other_names_are_other_circuits(fleet: Fleet) -> None:
    other = fleet.members[0].another("other")
    fleet.open()
    assert other.call(int) == 0
    assert {circuit.name for circuit in fleet.admin.circuits()} == {"api", "other"}


def test_a_snapshot_says_what_holds_for_all(fleet: Fleet) -> None:
    member = fleet.members[0]
    assert member.shared.link == "new"
    assert (member.shared.open_for, member.shared.epoch, member.shared.since_s) == (None, 0, None)
    fleet.open()
    shared = member.shared
    assert (shared.link, shared.open_for, shared.epoch) == ("joined", "all", fleet.record.epoch)
    assert shared.since_s == pytest.approx(fleet.record.since_s)
    assert (shared.reason, shared.by) == (fleet.record.reason, fleet.record.by)
    assert shared.heard_s == pytest.approx(1.0)
    assert member.breaker.snapshot().to_dict()["shared"]["open_for"] == "all"
    fleet.clock.advance(4.0)
    held = [fleet.members[1].breaker.permit(), fleet.members[2].breaker.permit()]
    fleet.exchange()
    assert (member.shared.probes_out, len(held)) == (2, 2)


def test_a_breaker_without_a_store_has_nothing_shared() -> None:
    assert CircuitBreaker().snapshot().shared is None


def test_members_tell_who_they_are_and_what_their_circuits_do(fleet: Fleet) -> None:
    fleet.start()
    fleet.members[0].fail(3)
    fleet.exchange()
    states = sorted(member.circuits["api"] for member in fleet.admin.members())
    assert states == ["closed", "closed", "open"]
    fleet.clock.advance(5.0)
    assert fleet.members[0].state is HALF_OPEN
    fleet.members[1].breaker.mode = CircuitMode.SHADOW
    fleet.exchange()
    assert sorted(member.circuits["api"] for member in fleet.admin.members()) == ["closed", "half_open", "shadow"]


def test_members_that_are_silent_are_forgotten(fleet: Fleet) -> None:
    fleet.start()
    fleet.clock.advance(10.5)
    fleet.members[0].sync()
    assert len(fleet.admin.members()) == 1


def test_a_member_that_goes_on_is_listed_though_nothing_changes(fleet: Fleet) -> None:
    fleet.start()
    for _ in range(30):
        for member in fleet.members:
            member.succeed()
        fleet.interval()
        assert len(fleet.admin.members()) == 3


# Logging


def test_nothing_is_logged_while_all_is_healthy(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fleet.start()
    fleet.interval(3)
    assert caplog.text == ""


def test_a_slow_listener_of_one_member_keeps_no_other(fleet: Fleet) -> None:
    fleet.open()
    assert [type(event).__name__ for event in fleet.members[2].events[:2]] == ["CallFinished", "StateChanged"]


# What is refused


@pytest.mark.parametrize("store", [object(), "circuits.db", MemoryStore, 7, {}], ids=repr)
def test_what_is_not_a_store_is_rejected(store: Any) -> None:
    with pytest.raises(TypeError, match=r"store must be a store such as SQLiteStore\(.*, or None, got"):
        CircuitBreaker("api", store=store)


@pytest.mark.parametrize("name", ["interval_s", "timeout_s"])
@pytest.mark.parametrize("value", [0, -1.0, inf, "1", True, None])
def test_settings_that_cannot_be_are_rejected(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        MemoryStore(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("board", {}), ("clock", 7), ("manual", 1)])
def test_settings_of_a_memory_store_are_checked(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        MemoryStore(**{name: value})


@pytest.mark.parametrize("order", ["force_open", "force_closed", "auto", "reset"])
def test_an_order_for_what_is_not_a_name_is_rejected(order: str) -> None:
    with pytest.raises(TypeError, match="name must be a str"):
        getattr(MemoryStore(), order)(7)


def test_a_fake_store_may_have_just_the_four_methods() -> None:
    class Four:
        def __init__(self) -> None:
            inner = FlakyStore()
            self.exchange, self.update = inner.exchange, inner.update
            self.circuits, self.members = inner.circuits, inner.members

    assert CircuitBreaker("api", CircuitBreakerConfig(), store=Four()).call(int) == 0
