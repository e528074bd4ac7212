"""The store is away: each member goes on by itself, and finds back when the store does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from garbage import catch_up
from members import FlakyStore, Fleet, Member, Unreachable

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitState, StateChanged
from circuit_breaker._shared import changes
from circuit_breaker._shared.process import talker_of
from circuit_breaker._shared.protocol import Exchange, Found, MemberLine, Report
from circuit_breaker._shared.record import Edit
from circuit_breaker._shared.states import Answer
from circuit_breaker.stores import Board, MemoryStore, StoreFound, StoreLost
from circuit_breaker.testing import FakeClock

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def lose(fleet: Fleet, intervals: int = 4) -> None:
    """Let the store be away for all."""
    for member in fleet.members:
        member.store.lose_requests = True
    fleet.interval(intervals)


def find(fleet: Fleet) -> None:
    for member in fleet.members:
        member.store.lose_requests = False


def store_events(member: Member) -> list[Any]:
    return [event for event in member.events if isinstance(event, StoreLost | StoreFound)]


# Losing and finding


def test_it_is_away_after_three_intervals_without_an_exchange(fleet: Fleet) -> None:
    fleet.start()
    lose(fleet, 3)
    assert fleet.members[0].shared.link == "joined"
    fleet.exchange()
    assert {member.shared.link for member in fleet.members} == {"away"}
    find(fleet)
    fleet.exchange()
    assert {member.shared.link for member in fleet.members} == {"joined"}


def test_each_breaker_is_reported_once(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fleet.start()
    lose(fleet, 10)
    find(fleet)
    fleet.interval(3)
    for member in fleet.members:
        assert store_events(member) == [StoreLost("api", "Unreachable: the request is lost"), StoreFound("api")]
    levels = [record.levelname for record in caplog.records if "store" in record.message]
    assert levels == ["WARNING"] * 3 + ["INFO"] * 3  # one of each for each process


def test_a_store_that_was_never_there_is_reported_too(fleet: Fleet) -> None:
    lose(fleet, 0)
    for member in fleet.members:
        member.succeed()
    fleet.interval(4)
    assert {len(store_events(member)) for member in fleet.members} == {1}
    late = fleet.members[0].another(listeners=[fleet.members[0].events.append])
    assert late.call(int) == 0
    assert len(store_events(fleet.members[0])) == 2


def test_no_call_raises_what_a_store_raises(fleet: Fleet) -> None:
    lose(fleet, 0)
    for member in fleet.members:
        member.succeed(3)
        member.fail(3)
        assert member.is_rejected()
        member.breaker.reset()
        member.breaker.trip()
    fleet.interval(8)
    for member in fleet.members:
        member.breaker.snapshot()
        assert not member.is_rejected()


def test_while_it_is_away_each_member_opens_and_closes_by_itself(fleet: Fleet) -> None:
    fleet.start()
    lose(fleet)
    member = fleet.members[0]
    member.fail(3)
    assert member.state is OPEN
    fleet.clock.advance(5.0)
    member.succeed(2)
    assert [each.state for each in fleet.members] == [CLOSED] * 3


def test_an_open_period_keeps_its_end(fleet: Fleet) -> None:
    fleet.open()
    lose(fleet, 1)
    assert fleet.states() == {OPEN}
    lose(fleet, 4)
    assert fleet.states() == {HALF_OPEN}


def test_a_half_open_period_becomes_each_members_own(fleet: Fleet) -> None:
    fleet.half_open()
    lose(fleet)
    for member in fleet.members:
        permits = [member.breaker.permit() for _ in range(3)]
        assert member.is_rejected()
        for permit in permits:
            permit.success()
    assert fleet.states() == {CLOSED}


def test_a_probe_that_has_a_lease_counts_for_a_member_that_is_alone(fleet: Fleet) -> None:
    fleet.half_open()
    permit = fleet.members[0].breaker.permit()
    lose(fleet)
    permit.success()
    fleet.members[0].succeed()
    assert fleet.members[0].state is CLOSED


def test_a_call_that_is_never_made_while_it_is_away_leaves_its_slot_to_the_next(fleet: Fleet) -> None:
    fleet.open()

    def listener(event: object) -> None:
        if isinstance(event, StateChanged):
            raise KeyboardInterrupt

    own = fleet.members[0]
    lose(fleet)
    assert talker_of(own.store).away
    own.breaker.add_listener(listener)
    fleet.clock.advance(5.0)
    with pytest.raises(KeyboardInterrupt):
        own.breaker.call(int)
    own.breaker.remove_listener(listener)
    assert own.breaker.snapshot().probes_in_flight == 0
    assert own.breaker.call(int) == 0


def test_a_probe_that_fails_while_it_is_away_reopens_for_its_own_member_only(fleet: Fleet) -> None:
    fleet.half_open()
    lose(fleet)
    fleet.members[0].fail()
    assert [member.state for member in fleet.members] == [OPEN, HALF_OPEN, HALF_OPEN]
    assert fleet.members[0].shared.open_for == "process"


def test_until_it_is_known_to_be_away_nobody_probes(fleet: Fleet) -> None:
    fleet.half_open()
    lose(fleet, 0)
    assert all(member.is_rejected() for member in fleet.members)


# Coming back


def test_a_member_that_has_closed_alone_closes_for_all(fleet: Fleet) -> None:
    fleet.half_open()
    lose(fleet)
    fleet.members[0].succeed(2)
    assert [member.state for member in fleet.members] == [CLOSED, HALF_OPEN, HALF_OPEN]
    find(fleet)
    fleet.interval(2)
    assert fleet.states() == {CLOSED}
    assert fleet.record.state is CLOSED


def test_a_member_that_comes_back_follows_what_has_happened_meanwhile(fleet: Fleet) -> None:
    fleet.open()
    absent = fleet.members[0]
    absent.store.lose_requests = True
    fleet.interval(4)
    assert fleet.members[1].shared.link == "joined"
    fleet.clock.advance(5.0)
    fleet.members[1].succeed(2)
    fleet.interval(2)
    assert [member.state for member in fleet.members[1:]] == [CLOSED, CLOSED]
    assert absent.state is HALF_OPEN
    absent.store.lose_requests = False
    fleet.interval()
    assert absent.state is CLOSED


def test_a_member_that_opened_alone_is_still_open_by_itself_after_that(fleet: Fleet) -> None:
    fleet.start()
    lose(fleet)
    fleet.members[0].fail(3)
    find(fleet)
    fleet.interval(2)
    assert [member.state for member in fleet.members] == [OPEN, CLOSED, CLOSED]


def test_results_of_probes_that_could_not_be_sent_are_sent_later(fleet: Fleet) -> None:
    fleet.half_open()
    permits = [member.breaker.permit() for member in fleet.members[:2]]
    lose(fleet, 0)
    for permit in permits:
        permit.success()
    fleet.interval(2)
    find(fleet)
    fleet.interval(2)
    assert fleet.states() == {CLOSED}


def test_a_result_whose_answer_was_lost_counts_once(fleet: Fleet) -> None:
    fleet.half_open()
    member = fleet.members[0]
    permit = member.breaker.permit()
    member.store.lose_answers = True
    permit.success()
    fleet.interval(2)
    member.store.lose_answers = False
    fleet.interval(2)
    assert fleet.record.state is HALF_OPEN
    fleet.members[1].succeed()
    fleet.interval(2)
    assert fleet.states() == {CLOSED}


def test_a_reopening_whose_answer_was_lost_is_followed(fleet: Fleet) -> None:
    fleet.half_open()
    member = fleet.members[0]
    permit = member.breaker.permit()
    member.store.lose_answers = True
    permit.failure()
    fleet.exchange()
    member.store.lose_answers = False
    fleet.exchange()
    assert fleet.states() == {OPEN}
    assert member.shared.open_for == "all"


@pytest.mark.parametrize("lost", ["lose_requests", "lose_answers"])
def test_one_exchange_that_fails_in_an_outage_keeps_nobody_from_opening_for_all(fleet: Fleet, lost: str) -> None:
    fleet.start()
    for member in fleet.members[:2]:
        member.fail(3)
    setattr(fleet.members[0].store, lost, True)
    fleet.interval()
    setattr(fleet.members[0].store, lost, False)
    fleet.interval(3)
    assert fleet.states() == {OPEN}
    assert fleet.record.reason == "2 processes opened by themselves"


# A store that forgets


def test_members_of_an_open_circuit_write_back_what_the_store_has_lost(fleet: Fleet) -> None:
    fleet.open()
    epoch = fleet.record.epoch
    fleet.board.clear()
    fleet.interval()
    assert (fleet.record.epoch, fleet.states()) == (epoch, {OPEN})


def test_a_half_open_circuit_is_written_back_without_leases(fleet: Fleet) -> None:
    fleet.half_open()
    held = fleet.members[0].breaker.permit()
    fleet.board.clear()
    fleet.members[1].sync()
    assert fleet.record.probes_out == 0
    fleet.members[0].sync()
    assert fleet.record.probes_out == 1  # its probe is still out
    held.success()
    fleet.interval()
    fleet.members[1].succeed()
    fleet.interval(2)
    assert fleet.states() == {CLOSED}


def test_a_closed_circuit_takes_a_store_that_has_lost_everything(fleet: Fleet) -> None:
    fleet.half_open()
    fleet.members[0].succeed(2)
    fleet.interval(2)
    assert fleet.states() == {CLOSED}
    fleet.board.clear()
    fleet.interval(2)
    assert fleet.states() == {CLOSED}
    assert fleet.members[0].shared.epoch == 0
    for member in fleet.members[:2]:
        member.fail(3)
    fleet.interval(4)
    assert fleet.states() == {OPEN}


def test_a_member_that_is_open_by_itself_stays_so_when_the_store_forgets(fleet: Fleet) -> None:
    fleet.half_open()
    fleet.members[0].succeed(2)
    fleet.interval(2)
    fleet.members[0].fail(3)
    fleet.board.clear()
    fleet.interval()
    assert [member.state for member in fleet.members] == [OPEN, CLOSED, CLOSED]


def test_totals_that_are_lost_begin_anew(fleet: Fleet) -> None:
    fleet.start()
    for member in fleet.members:
        member.succeed(10)
    fleet.interval()
    fleet.board._totals.clear()
    for member in fleet.members[:2]:
        member.fail(3)
    fleet.interval(4)
    assert fleet.states() == {OPEN}


# Breakers that are dropped, or that nobody calls, while it is away


def test_a_breaker_that_is_dropped_while_it_is_away_is_done_with(fleet: Fleet) -> None:
    fleet.start()
    own = fleet.members.pop(0)
    talker = talker_of(own.store)
    own.store.lose_requests = True
    for _ in range(2):
        talker._exchange_now()
        fleet.clock.advance(3.0)
    talker._exchange_now()
    assert talker.away
    assert not talker._is_idle()
    del own.breaker
    catch_up()
    talker._exchange_now()
    assert talker._is_idle()
    assert talker.circuit("api") is None


def test_a_breaker_that_nobody_calls_while_it_is_away_costs_nothing_until_the_next_call(fleet: Fleet) -> None:
    fleet.start()
    own = fleet.members[0]
    talker = talker_of(own.store)
    own.store.lose_requests = True
    for _ in range(5):
        fleet.clock.advance(3.0)
        talker._exchange_now()
    assert talker.away
    assert talker._is_idle()
    own.store.lose_requests = False
    own.succeed()
    assert own.shared.link == "joined"


def test_what_a_dropped_breaker_wanted_is_tried_for_ten_intervals(fleet: Fleet) -> None:
    fleet.start()
    own = fleet.members[0]
    talker = talker_of(own.store)
    own.store.lose_requests = True
    own.another("other").reset()
    talker.do_all()
    catch_up()
    for _ in range(10):
        fleet.clock.advance(1.0)
        talker._exchange_now()
    assert talker.circuit("other") is not None
    fleet.clock.advance(1.0)
    talker._exchange_now()
    assert talker.circuit("other") is None


def test_the_result_of_a_probe_whose_breaker_has_gone_leaves_nothing_behind(fleet: Fleet) -> None:
    fleet.start()
    talker = talker_of(fleet.members[0].store)
    answer = Answer(1, "token", None, ignored=True)
    talker.request(partial(talker.send, "other", answer))
    talker.do_all()
    talker._exchange_now()
    assert talker.circuit("other") is None


# A record that cannot be read


def spoil(fleet: Fleet, text: str = "garbage") -> None:
    fleet.board._records["api"] = text


def test_an_unreadable_record_is_a_lost_store_for_that_circuit_only(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    other = fleet.members[0].another("other")
    other.call(int)
    fleet.start()
    spoil(fleet)
    fleet.interval(3)
    assert {member.shared.link for member in fleet.members} == {"away"}
    assert other.snapshot().shared.link == "joined"  # type: ignore[union-attr]
    assert [type(event) for event in store_events(fleet.members[0])] == [StoreLost]
    assert "the record cannot be read" in store_events(fleet.members[0])[0].reason
    assert fleet.board._records["api"] == "garbage"
    assert caplog.text.count("circuit 'api': the store has nothing that can be used") == 3


def test_with_an_unreadable_record_each_member_goes_on_by_itself(fleet: Fleet) -> None:
    fleet.half_open()
    spoil(fleet)
    fleet.interval()
    for member in fleet.members:
        member.succeed(2)
    assert fleet.states() == {CLOSED}
    fleet.members[0].fail(3)
    assert [member.state for member in fleet.members] == [OPEN, CLOSED, CLOSED]


def test_an_order_makes_an_unreadable_record_readable(fleet: Fleet) -> None:
    fleet.open()
    spoil(fleet)
    fleet.interval()
    fleet.admin.reset("api")
    fleet.interval(2)
    assert fleet.states() == {CLOSED}
    assert {member.shared.link for member in fleet.members} == {"joined"}
    assert store_events(fleet.members[0])[-1] == StoreFound("api")


def test_what_is_no_order_leaves_an_unreadable_record_as_it_is(fleet: Fleet) -> None:
    fleet.open()
    spoil(fleet, "garbage")
    fleet.members[0].breaker.reset()
    fleet.interval(2)
    assert fleet.board._records["api"] == "garbage"
    assert fleet.members[0].state is CLOSED


def test_a_process_that_ends_while_the_store_is_away_asks_nothing_of_it(fleet: Fleet) -> None:
    fleet.start()
    own = fleet.members[0]
    own.store.lose_requests = True
    fleet.interval(5)
    assert own.shared.link == "away"
    asked = dict(own.store.asked)
    talker_of(own.store).farewell()
    assert own.store.asked == asked


@pytest.mark.parametrize("total", [-1, 2**60])
def test_a_total_that_cannot_be_is_a_lost_store_for_that_circuit(fleet: Fleet, total: int) -> None:
    fleet.start()
    fleet.board._totals["api"]["0.successes"] = total
    fleet.interval()
    assert fleet.members[0].shared.link == "away"
    fleet.board._totals.clear()
    fleet.interval()
    assert fleet.members[0].shared.link == "joined"


def test_a_circuit_whose_totals_cannot_be_read_follows_its_record(fleet: Fleet) -> None:
    fleet.open()
    epoch = fleet.record.epoch
    assert epoch
    fleet.board._totals["api"][f"{epoch}.successes"] = -1
    fleet.interval()
    assert fleet.members[0].shared.link == "away"
    fleet.admin.update("api", Edit(changes.lengthened(epoch, 60.0)))
    fleet.interval()
    assert fleet.members[0].breaker.snapshot().retry_after_s == pytest.approx(59.0)


def test_a_circuit_of_which_the_store_can_say_its_record_alone_obeys_orders(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.start()
    own = fleet.members[0]
    exchange = own.store.exchange

    def without_totals(reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        answer = exchange(reports, member)
        return Exchange(answer.time, [Found(found.record, (), TypeError("no number")) for found in answer.found])

    with monkeypatch.context() as patched:
        patched.setattr(own.store, "exchange", without_totals)
        fleet.admin.force_open("api")
        fleet.interval(2)
        assert own.is_rejected()
        assert own.shared.link == "away"
    fleet.interval(2)
    assert own.shared.link == "joined"
    assert [type(event) for event in store_events(own)] == [StoreLost, StoreFound]


def test_a_hostile_record_gets_into_the_log_short_and_on_one_line(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.open()
    text = fleet.board._records["api"]
    epoch = str(fleet.record.epoch)
    spoil(fleet, text.replace("2 processes", "x\\nWARNING forged" * 500).replace(epoch, str(int(epoch) + 9)))
    fleet.interval(2)
    hostile = [record.getMessage() for record in caplog.records if "forged" in record.getMessage()]
    assert all("\n" not in line and len(line) < 500 for line in hostile)
    assert len(fleet.members[0].shared.reason) < 400


# Changes that a store refuses, though it can be read


def test_a_store_that_rejects_changes_for_long_is_lost_for_that_circuit(fleet: Fleet) -> None:
    fleet.half_open()
    for member in fleet.members:
        member.store.lose_changes = True
    for _ in range(6):
        assert fleet.members[0].is_rejected() or fleet.members[0].shared.link == "away"
        fleet.interval()
    assert fleet.members[0].shared.link == "away"
    fleet.members[0].succeed(2)
    assert fleet.members[0].state is CLOSED
    for member in fleet.members:
        member.store.lose_changes = False
    fleet.interval(2)
    assert fleet.states() == {CLOSED}
    assert fleet.members[0].shared.link == "joined"


def test_one_change_that_fails_loses_nothing(fleet: Fleet) -> None:
    fleet.half_open()
    member = fleet.members[0]
    member.store.lose_changes = True
    assert member.is_rejected()
    member.store.lose_changes = False
    fleet.interval()
    assert member.shared.link == "joined"
    assert not member.is_rejected()


def test_a_store_that_rejects_a_change_that_nobody_needs_any_more_is_found_again(fleet: Fleet) -> None:
    fleet.half_open()
    member = fleet.members[0]
    member.store.lose_changes = True
    for _ in range(5):
        member.is_rejected()
        fleet.interval()
    assert member.shared.link == "away"
    for each in fleet.members[1:]:
        each.succeed()
    for _ in range(13):
        fleet.interval()
        for each in fleet.members:
            each.is_rejected()
    assert member.shared.link == "joined"


# Pauses


def test_a_store_that_is_away_is_tried_less_and_less_often() -> None:
    clock = FakeClock()
    store = FlakyStore(Board(), clock=clock, manual=True)
    CircuitBreaker("api", CircuitBreakerConfig(), store=store)
    talker = talker_of(store)
    store.lose_requests = True
    pauses = []
    for _ in range(12):
        talker._exchange_now()
        pauses.append(talker._due - clock())
        clock.advance(1.0)
    assert pauses[:4] == pytest.approx([1.0] * 4, rel=0.06)
    assert pauses[4:8] == pytest.approx([2.0, 4.0, 8.0, 10.0], rel=0.06)
    assert pauses[8:] == pytest.approx([10.0] * 4, rel=0.06)
    store.lose_requests = False
    talker._exchange_now()
    assert talker._due - clock() == pytest.approx(1.0, rel=0.06)


def test_a_store_may_be_away_for_any_time() -> None:
    clock = FakeClock()
    store = FlakyStore(Board(), clock=clock, manual=True)
    CircuitBreaker("api", CircuitBreakerConfig(), store=store)
    talker = talker_of(store)
    store.lose_requests = True
    for _ in range(1_100):  # 2.0**1_024 is too large for a float
        clock.advance(10.0)
        talker._exchange_now()
    assert talker._due - clock() == pytest.approx(10.0, rel=0.06)


def test_sync_raises_what_the_store_raised(fleet: Fleet) -> None:
    fleet.members[0].store.lose_requests = True
    with pytest.raises(Unreachable):
        fleet.members[0].sync()


def test_stores_of_one_board_do_not_share_their_absence() -> None:
    board = Board()
    one, other = (MemoryStore(board, manual=True) for _ in range(2))
    assert talker_of(one) is not talker_of(other)
    assert talker_of(one) is talker_of(one)
