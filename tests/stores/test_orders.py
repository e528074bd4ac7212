"""Orders of operators, to all members and to one process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from garbage import catch_up
from members import Fleet, Member, Unreachable

from circuit_breaker import CircuitMode, CircuitState, StateChanged
from circuit_breaker._shared.process import talker_of
from circuit_breaker.stores import MemoryStore

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
AUTO, SHADOW = CircuitMode.AUTO, CircuitMode.SHADOW
FORCED_OPEN, FORCED_CLOSED = CircuitMode.FORCED_OPEN, CircuitMode.FORCED_CLOSED


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet()
    fleet.start()
    return fleet


def test_force_open_rejects_all_calls_until_auto(fleet: Fleet) -> None:
    fleet.admin.force_open("api")
    fleet.interval(2)
    assert all(member.is_rejected() for member in fleet.members)
    assert {member.breaker.mode for member in fleet.members} == {FORCED_OPEN}
    fleet.clock.advance(1_000.0)
    assert fleet.states() == {OPEN}
    assert fleet.record.retry_after_s is None
    fleet.admin.auto("api")
    fleet.interval(2)
    assert not any(member.is_rejected() for member in fleet.members)
    assert {member.breaker.mode for member in fleet.members} == {AUTO}


def test_force_closed_admits_all_calls_whatever_they_do(fleet: Fleet) -> None:
    fleet.admin.force_closed("api")
    fleet.interval(2)
    for _ in range(5):
        for member in fleet.members:
            member.fail(5)
        fleet.interval()
    assert fleet.states() == {CLOSED}
    assert fleet.record.mode is FORCED_CLOSED
    fleet.admin.auto("api")
    fleet.interval(2)
    fleet.members[0].fail(3)
    assert fleet.members[0].state is OPEN


def test_force_closed_closes_an_open_circuit() -> None:
    fleet = Fleet()
    fleet.open()
    fleet.admin.force_closed("api")
    fleet.interval(2)
    assert fleet.states() == {CLOSED}


def test_reset_closes_an_open_circuit() -> None:
    fleet = Fleet()
    fleet.open()
    fleet.admin.reset("api")
    fleet.interval(2)
    assert fleet.states() == {CLOSED}
    assert (fleet.record.mode, fleet.record.reason) == (AUTO, "reset")


def test_auto_leaves_an_open_circuit_open() -> None:
    fleet = Fleet()
    fleet.open()
    epoch = fleet.record.epoch
    fleet.admin.auto("api")
    fleet.interval()
    assert (fleet.record.epoch, fleet.states()) == (epoch, {OPEN})


def test_an_order_is_reported_as_a_change_for_all(fleet: Fleet) -> None:
    fleet.admin.force_open("api")
    fleet.exchange()
    (change,) = [event for event in fleet.members[0].events if isinstance(event, StateChanged)]
    assert change.reason == "in all processes: mode forced_open"
    assert fleet.members[0].shared.by == fleet.record.by
    assert fleet.members[0].shared.open_for == "all"


def test_an_order_comes_before_any_member(fleet: Fleet) -> None:
    fleet.admin.force_open("new")
    assert {circuit.name: circuit.state for circuit in fleet.admin.circuits()}["new"] is OPEN
    breaker = fleet.members[0].another("new")
    assert not breaker.allow_request()


def test_a_circuit_opens_by_no_evidence_while_an_order_holds(fleet: Fleet) -> None:
    fleet.admin.force_closed("api")
    for member in fleet.members:
        member.fail(3)  # before it hears of the order
    fleet.interval(5)
    assert fleet.record.mode is FORCED_CLOSED
    assert fleet.states() == {CLOSED}


def test_an_order_raises_what_the_store_raises(fleet: Fleet) -> None:
    store = fleet.members[0].store
    store.lose_requests = True
    for order in (store.force_open, store.force_closed, store.auto, store.reset):
        with pytest.raises(Unreachable):
            order("api")


def test_orders_to_a_half_open_circuit_end_its_probes() -> None:
    fleet = Fleet()
    fleet.half_open()
    permit = fleet.members[0].breaker.permit()
    fleet.admin.force_open("api")
    fleet.exchange()
    permit.success()
    fleet.interval(2)
    assert fleet.states() == {OPEN}
    assert fleet.record.mode is FORCED_OPEN


# The mode of one process


def test_the_own_mode_wins_over_an_order_in_its_process_only(fleet: Fleet) -> None:
    own = fleet.members[0]
    own.breaker.mode = FORCED_CLOSED
    fleet.admin.force_open("api")
    fleet.interval(2)
    assert [member.is_rejected() for member in fleet.members] == [False, True, True]
    assert own.breaker.mode is FORCED_CLOSED
    own.breaker.mode = AUTO
    assert own.is_rejected()
    assert own.breaker.mode is FORCED_OPEN


def test_a_process_with_a_mode_of_its_own_says_nothing(fleet: Fleet) -> None:
    shadow = fleet.members[0]
    shadow.breaker.mode = SHADOW
    shadow.fail(9)
    fleet.members[1].fail(3)
    fleet.interval(5)
    assert (fleet.record.epoch, fleet.record.failures) == (0, 3)
    assert shadow.state is CLOSED


def test_a_forced_mode_of_one_process_extends_nothing(fleet: Fleet) -> None:
    fleet.members[0].breaker.mode = FORCED_OPEN
    for member in fleet.members[1:]:
        member.fail(3)
    fleet.interval(3)
    assert (fleet.record.retry_after_s or 0) + (fleet.record.since_s or 0) <= 5.0


def test_a_process_that_is_forced_open_while_an_order_says_so_too_stays_so(fleet: Fleet) -> None:
    fleet.admin.force_open("api")
    fleet.exchange()
    fleet.members[0].breaker.mode = FORCED_OPEN
    fleet.admin.auto("api")
    fleet.interval(2)
    assert [member.is_rejected() for member in fleet.members] == [True, False, False]


def test_a_process_that_leaves_its_own_mode_joins_at_its_next_call() -> None:
    fleet = Fleet()
    fleet.members[2].breaker.mode = FORCED_CLOSED
    fleet.start()
    for member in fleet.members[:2]:
        member.fail(3)
    fleet.interval(3)
    own = fleet.members[2]
    assert own.state is CLOSED
    own.breaker.mode = AUTO
    assert own.is_rejected()


@pytest.mark.parametrize("order", ["force_open", "force_closed"])
def test_a_process_without_a_mode_of_its_own_cannot_leave_an_order(fleet: Fleet, order: str) -> None:
    getattr(fleet.admin, order)("api")
    fleet.exchange()
    own = fleet.members[0].breaker
    ordered = own.mode
    own.mode = AUTO
    assert own.mode is ordered is not AUTO
    fleet.interval(3)
    assert own.mode is ordered


def test_a_process_that_had_its_own_mode_for_a_moment_obeys_the_order_again(fleet: Fleet) -> None:
    fleet.admin.force_closed("api")
    fleet.exchange()
    own = fleet.members[0]
    own.breaker.mode = FORCED_OPEN
    own.breaker.mode = AUTO
    own.fail(9)
    fleet.interval(2)
    assert (own.breaker.mode, own.state) == (FORCED_CLOSED, CLOSED)


def test_a_process_that_had_its_own_mode_for_a_moment_closes_no_circuit() -> None:
    fleet = Fleet()
    fleet.half_open()
    own = fleet.members[0]
    own.breaker.mode = FORCED_CLOSED
    own.breaker.mode = AUTO
    fleet.exchange()
    assert fleet.record.state is HALF_OPEN
    assert own.state is HALF_OPEN


def test_a_breaker_made_in_a_mode_keeps_it(fleet: Fleet) -> None:
    breaker = fleet.members[0].another(mode=FORCED_OPEN)
    assert not breaker.allow_request()
    fleet.interval(2)
    assert breaker.mode is FORCED_OPEN


# reset() of one breaker


def test_reset_of_a_breaker_resets_all_members() -> None:
    fleet = Fleet()
    fleet.open()
    fleet.members[0].breaker.reset()
    assert fleet.members[0].state is CLOSED
    assert fleet.members[0].breaker.stats.failure_count == 0
    assert fleet.members[1].state is OPEN
    fleet.interval(2)
    assert fleet.states() == {CLOSED}
    assert fleet.members[1].breaker.stats.failure_count == 3


def test_reset_of_a_breaker_that_has_never_called_resets_too() -> None:
    fleet = Fleet()
    fleet.open()
    fleet.join().breaker.reset()
    fleet.interval(2)
    assert fleet.states() == {CLOSED}


def lose_one_change(member: Member, deed: Callable[[], object], how: str = "lose_changes") -> None:
    """Let a member do something that changes the record, and the store fail meanwhile."""
    deed()
    setattr(member.store, how, True)
    talker_of(member.store).do_all()
    setattr(member.store, how, False)
    member.clock.advance(0.01)


def test_reset_of_a_breaker_is_tried_again_if_it_fails() -> None:
    fleet = Fleet()
    fleet.open()
    lose_one_change(fleet.members[0], fleet.members[0].breaker.reset)
    assert fleet.record.state is OPEN
    fleet.interval(2)
    assert fleet.states() == {CLOSED}
    assert fleet.record.reason == "reset"


def test_reset_of_a_breaker_whose_answer_was_lost_resets_once() -> None:
    fleet = Fleet()
    fleet.open()
    lose_one_change(fleet.members[0], fleet.members[0].breaker.reset, "lose_answers")
    epoch = fleet.record.epoch
    fleet.interval(2)
    assert (fleet.record.reason, fleet.record.epoch) == ("reset", epoch)


def test_reset_of_a_breaker_that_comes_late_leaves_a_later_order_alone() -> None:
    fleet = Fleet()
    fleet.open()
    lose_one_change(fleet.members[0], fleet.members[0].breaker.reset)
    fleet.clock.advance(0.5)
    fleet.admin.force_open("api")
    fleet.clock.advance(0.5)
    fleet.interval(2)
    assert fleet.record.mode is FORCED_OPEN
    assert fleet.states() == {OPEN}


def test_reset_of_a_breaker_that_has_gone_is_tried_again_if_it_fails(fleet: Fleet) -> None:
    member = fleet.members[0]
    fleet.admin.force_open("other")
    fleet.clock.advance(0.01)
    lose_one_change(member, lambda: member.another("other").reset())
    catch_up()
    assert fleet.admin.circuits()[1].state is OPEN
    member.sync()
    assert fleet.admin.circuits()[1].state is CLOSED


def test_of_many_changes_that_cannot_be_made_the_last_are_kept(fleet: Fleet) -> None:
    fleet.members[0].fail(3)
    fleet.members[1].fail(3)
    fleet.interval(3)
    own = fleet.members[0]
    for seconds in range(100):
        lose_one_change(own, lambda seconds=seconds: own.breaker.trip(open_for_s=100.0 + seconds))
    before = own.store.asked["update"]
    own.sync()
    assert own.store.asked["update"] - before == 10
    assert (fleet.record.retry_after_s or 0.0) > 190.0


def test_an_order_needs_no_breaker() -> None:
    store = MemoryStore()
    store.force_open("api")
    assert store.circuits()[0].state is OPEN
    assert store.members() == []
