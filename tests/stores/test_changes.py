"""Every change that the record of a shared circuit can make, one compare-and-swap at a time."""

from __future__ import annotations

from math import inf

import pytest

from circuit_breaker import CircuitMode
from circuit_breaker._shared import changes
from circuit_breaker._shared.changes import Verdict, verdict
from circuit_breaker._shared.record import Edit, Record, Rules, Step, read

RULES = Rules(open_s=5.0, probes=2, success_threshold=2, failure_threshold=1)
LEASE_S = 10.0
FORCED_OPEN, FORCED_CLOSED, AUTO = CircuitMode.FORCED_OPEN, CircuitMode.FORCED_CLOSED, CircuitMode.AUTO
ORDERS = [changes.reset("ops:1"), *(changes.ordered(mode, "ops:1") for mode in (FORCED_OPEN, FORCED_CLOSED, AUTO))]


class Desk:
    """A record and a clock."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.now = 100.0

    def do(self, step: Step) -> bool:
        edit = Edit(step)
        after = edit(self.text, self.now)
        assert edit.changed is (after is not None)
        self.text = self.text if after is None else after
        assert read(self.text) == edit.record
        return edit.changed

    @property
    def record(self) -> Record:
        record = read(self.text)
        assert record is not None
        return record

    def lease(self, token: str, waited_s: float = 5.0) -> bool:
        self.do(changes.leased(self.record.epoch, waited_s, token, LEASE_S))
        return self.record.holds(token, self.now)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def half_open(desk: Desk) -> Desk:
    assert desk.do(changes.opened(0, RULES, "down", "a:1"))
    desk.now += 5.0
    return desk


def test_a_circuit_without_a_record_opens_once(desk: Desk) -> None:
    assert desk.do(changes.opened(0, RULES, "down", "a:1"))
    assert not desk.do(changes.opened(0, RULES, "down", "b:2"))
    assert (desk.record.open, desk.record.reason, desk.record.by) == (True, "down", "a:1")
    assert desk.record.remaining_s(desk.now) == 5.0


def test_evidence_of_an_earlier_epoch_opens_nothing(half_open: Desk) -> None:
    before = half_open.record.epoch
    half_open.do(changes.reset("ops:1"))
    assert not half_open.do(changes.opened(before, RULES, "late", "a:1"))
    assert not half_open.do(changes.opened(0, RULES, "late", "a:1"))
    assert half_open.do(changes.opened(half_open.record.epoch, RULES, "down again", "a:1"))


def test_a_forced_circuit_is_opened_by_no_evidence(desk: Desk) -> None:
    desk.do(changes.ordered(FORCED_CLOSED, "ops:1"))
    assert not desk.do(changes.opened(desk.record.epoch, RULES, "down", "a:1"))


def test_leases_are_as_many_as_the_rules_of_whoever_opened(half_open: Desk) -> None:
    assert [half_open.lease(token) for token in "abc"] == [True, True, False]
    assert half_open.record.probes_out(half_open.now) == 2


def test_the_same_token_takes_one_slot(half_open: Desk) -> None:
    assert [half_open.lease("a"), half_open.lease("a"), half_open.lease("b")] == [True, True, True]


def test_a_lease_of_another_epoch_is_rejected(half_open: Desk) -> None:
    earlier = half_open.record.epoch
    half_open.do(changes.failed(earlier, "x", RULES, "a probe failed", "a:1"))
    assert not half_open.do(changes.leased(earlier, 5.0, "a", LEASE_S))


def test_a_member_that_has_not_heard_of_a_longer_time_gets_no_lease(half_open: Desk) -> None:
    assert half_open.do(changes.lengthened(half_open.record.epoch, 3.0))
    assert not half_open.lease("a", waited_s=5.0)
    assert half_open.record.remaining_s(half_open.now) == 3.0
    assert half_open.lease("a", waited_s=8.0)


def test_a_shorter_hint_lengthens_nothing(desk: Desk) -> None:
    desk.do(changes.opened(0, RULES, "down", "a:1"))
    assert not desk.do(changes.lengthened(desk.record.epoch, 5.0))


def test_a_lease_that_nobody_renews_runs_out(half_open: Desk) -> None:
    assert [half_open.lease(token) for token in "ab"] == [True, True]
    half_open.now += LEASE_S
    assert half_open.record.probes_out(half_open.now) == 0
    assert half_open.lease("c")


def test_a_renewed_lease_stays(half_open: Desk) -> None:
    half_open.lease("a")
    half_open.now += 6.0
    assert half_open.do(changes.renewed(half_open.record.epoch, ["a"], LEASE_S))
    half_open.now += 6.0
    assert half_open.record.holds("a", half_open.now)


def test_renewing_brings_a_lost_lease_back_where_a_slot_is_free(half_open: Desk) -> None:
    epoch = half_open.record.epoch
    half_open.lease("a")
    assert half_open.do(changes.renewed(epoch, ["b", "c"], LEASE_S))
    assert [half_open.record.holds(token, half_open.now) for token in "abc"] == [True, True, False]
    assert not half_open.do(changes.renewed(epoch, ["c"], LEASE_S))
    assert not half_open.do(changes.renewed(epoch + 1, ["a"], LEASE_S))


def test_a_lease_given_back_frees_its_slot_and_counts_nothing(half_open: Desk) -> None:
    assert [half_open.lease(token) for token in "ab"] == [True, True]
    assert half_open.do(changes.given_back(half_open.record.epoch, "a"))
    assert not half_open.do(changes.given_back(half_open.record.epoch, "a"))
    assert half_open.lease("c")
    assert half_open.record.successes == 0


def test_enough_successes_close_the_circuit(half_open: Desk) -> None:
    epoch = half_open.record.epoch
    assert [half_open.lease(token) for token in "ab"] == [True, True]
    assert half_open.do(changes.succeeded(epoch, "a", "a:1"))
    assert (half_open.record.open, half_open.record.successes) == (True, 1)
    assert half_open.do(changes.succeeded(epoch, "b", "b:2"))
    assert not half_open.record.open
    assert half_open.record.epoch > epoch
    assert half_open.record.reason == "2 probes succeeded"


def test_a_success_counts_once(half_open: Desk) -> None:
    half_open.lease("a")
    epoch = half_open.record.epoch
    assert [half_open.do(changes.succeeded(epoch, "a", "a:1")) for _ in range(3)] == [True, False, False]
    assert half_open.record.open


def test_a_success_without_a_lease_counts_nothing(half_open: Desk) -> None:
    assert not half_open.do(changes.succeeded(half_open.record.epoch, "nobody", "a:1"))


def test_an_overdue_success_still_counts(half_open: Desk) -> None:
    half_open.lease("a")
    half_open.now += 2 * LEASE_S
    half_open.lease("b")
    assert half_open.do(changes.succeeded(half_open.record.epoch, "a", "a:1"))
    assert half_open.record.holds("b", half_open.now)


def test_the_first_failure_reopens_with_the_rules_of_its_member(half_open: Desk) -> None:
    epoch = half_open.record.epoch
    half_open.lease("a")
    assert half_open.do(changes.failed(epoch, "a", RULES._replace(open_s=10.0), "a probe failed", "b:2"))
    record = half_open.record
    assert (record.open, record.openings, record.leases, record.by) == (True, 1, (), "b:2")
    assert record.epoch > epoch
    assert record.remaining_s(half_open.now) == 10.0
    assert not half_open.do(changes.failed(epoch, "a", RULES, "a probe failed", "b:2"))


def test_where_several_failures_are_needed_each_counts_once(desk: Desk) -> None:
    desk.do(changes.opened(0, RULES._replace(failure_threshold=2), "down", "a:1"))
    epoch = desk.record.epoch
    assert [desk.lease(token) for token in "ab"] == [True, True]
    fail = changes.failed(epoch, "a", RULES, "a probe failed", "a:1")
    assert [desk.do(fail), desk.do(fail)] == [True, False]
    assert (desk.record.epoch, desk.record.failures) == (epoch, 1)
    assert desk.do(changes.failed(epoch, "b", RULES, "a probe failed", "a:1"))
    assert desk.record.epoch > epoch


def test_what_is_closed_takes_no_part_in_probing(half_open: Desk) -> None:
    half_open.do(changes.reset("ops:1"))
    epoch = half_open.record.epoch
    for step in (
        changes.leased(epoch, inf, "a", LEASE_S),
        changes.renewed(epoch, ["a"], LEASE_S),
        changes.given_back(epoch, "a"),
        changes.succeeded(epoch, "a", "a:1"),
        changes.failed(epoch, "a", RULES, "a probe failed", "a:1"),
        changes.lengthened(epoch, 5.0),
        changes.closed_in_absence(epoch, "probes", "a:1"),
    ):
        assert not half_open.do(step)


def test_dead_probes_do_not_fill_the_record(half_open: Desk) -> None:
    for number in range(200):
        assert half_open.lease(f"dead{number}")
        half_open.now += LEASE_S
    assert len(half_open.record.leases) == changes.UNANSWERED_KEPT + 1


def test_probes_of_all_processes_are_bounded_by_what_a_record_holds(desk: Desk) -> None:
    desk.do(changes.opened(0, RULES._replace(probes=10**9), "down", "a:1"))
    assert desk.record.rules.probes == changes.MOST_PROBES


def test_a_member_that_closed_alone_closes_a_circuit_whose_time_is_over(desk: Desk) -> None:
    desk.do(changes.opened(0, RULES, "down", "a:1"))
    epoch = desk.record.epoch
    assert not desk.do(changes.closed_in_absence(epoch, "probes", "b:2"))
    desk.now += 5.0
    assert desk.do(changes.closed_in_absence(epoch, "probes", "b:2"))
    assert not desk.record.open


@pytest.mark.parametrize(("mode", "is_open", "remaining_s"), [(FORCED_OPEN, True, inf), (FORCED_CLOSED, False, 0.0)])
def test_an_order_holds_until_the_next(half_open: Desk, mode: CircuitMode, is_open: bool, remaining_s: float) -> None:
    assert [half_open.do(changes.ordered(mode, "ops:1")) for _ in range(2)] == [True, False]
    assert (half_open.record.open, half_open.record.mode) == (is_open, mode)
    assert half_open.record.remaining_s(half_open.now) == remaining_s
    assert not half_open.lease("a", waited_s=inf)
    assert half_open.do(changes.ordered(AUTO, "ops:1"))
    assert (half_open.record.open, half_open.record.mode) == (False, AUTO)


def test_auto_changes_nothing_where_nothing_is_forced(half_open: Desk) -> None:
    assert not half_open.do(changes.ordered(AUTO, "ops:1"))
    assert half_open.record.open


@pytest.mark.parametrize(
    ("age_s", "asked_s", "resets"),
    [(5.0, 0.0, True), (5.0, 4.9, True), (5.0, 5.0, False), (0.0, 9.0, False), (0.0, 0.0, True), (-60.0, 9.0, True)],
)
def test_a_reset_that_comes_late_leaves_a_record_alone_that_is_younger(
    half_open: Desk, age_s: float, asked_s: float, resets: bool
) -> None:
    half_open.now = half_open.record.since + age_s  # less than nothing: the clock was set back
    assert half_open.do(changes.reset("a:1", asked_s)) is resets


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_overwrites_what_cannot_be_read(desk: Desk, order: Step) -> None:
    edit = Edit(order, overwrite=True)
    written = edit("garbage", desk.now)
    assert read(written) == edit.record
    assert edit.changed


def test_every_epoch_is_later_than_all_before(desk: Desk) -> None:
    epochs = [0]
    for _ in range(3):
        desk.do(changes.opened(epochs[-1], RULES, "down", "a:1"))
        epochs.append(desk.record.epoch)
        desk.now -= 50.0  # a clock that is set back
        desk.do(changes.reset("ops:1"))
        epochs.append(desk.record.epoch)
    assert epochs == sorted(set(epochs))


def test_an_epoch_after_the_record_was_lost_is_later_too(half_open: Desk) -> None:
    lost = half_open.record.epoch
    half_open.text = None
    half_open.now += 0.001
    half_open.do(changes.opened(0, RULES, "down", "a:1"))
    assert half_open.record.epoch > lost


# Time


def test_an_open_time_is_never_longer_than_it_was_meant(desk: Desk) -> None:
    desk.do(changes.opened(0, RULES, "down", "a:1"))
    desk.now -= 3600.0
    assert desk.record.remaining_s(desk.now) == 5.0
    desk.now += 7200.0
    assert desk.record.remaining_s(desk.now) == 0.0


def test_a_lease_further_off_than_it_can_be_is_over(half_open: Desk) -> None:
    assert half_open.lease("a")
    half_open.now -= LEASE_S / 20
    assert half_open.record.holds("a", half_open.now)
    half_open.now -= LEASE_S
    assert not half_open.record.holds("a", half_open.now)


def test_a_hint_is_counted_from_now_if_the_clock_was_set_back(desk: Desk) -> None:
    desk.do(changes.opened(0, RULES, "down", "a:1"))
    desk.now -= 3600.0
    assert desk.do(changes.lengthened(desk.record.epoch, 20.0))
    assert desk.record.remaining_s(desk.now) == 20.0


# What a member does about a record that it reads


def _record(epoch: int, is_open: bool, since: float = 100.0) -> Record:
    return Record(epoch, is_open, since, "r", "a:1", rules=RULES)


@pytest.mark.parametrize(
    ("known", "found", "closed_alone", "expected"),
    [
        (None, None, False, Verdict.SAME),
        (None, _record(3, True), False, Verdict.FOLLOW),
        (None, _record(3, False), False, Verdict.FOLLOW),
        (_record(3, True), _record(3, True), False, Verdict.SAME),
        (_record(3, True), _record(4, False), False, Verdict.FOLLOW),
        (_record(3, True), _record(4, True), False, Verdict.FOLLOW),
        (_record(3, True), None, False, Verdict.RESTORE),
        (_record(3, True), _record(2, False), False, Verdict.RESTORE),
        (_record(3, True), _record(2, True), False, Verdict.RESTORE),
        (_record(3, False), None, False, Verdict.FOLLOW),
        (_record(3, False), _record(2, True), False, Verdict.FOLLOW),
        (_record(3, True), _record(3, True), True, Verdict.SAME),
        (_record(3, True, since=95.0), _record(3, True, since=95.0), True, Verdict.CLOSE),
        (_record(3, True), _record(3, True, since=99.0), False, Verdict.FOLLOW),
        (_record(3, True), _record(3, False), False, Verdict.FOLLOW),
        (_record(3, True), None, True, Verdict.FOLLOW),
        (_record(3, True), _record(4, True, since=95.0), True, Verdict.FOLLOW),
    ],
)
def test_what_a_member_does(known: Record | None, found: Record | None, closed_alone: bool, expected: Verdict) -> None:
    assert verdict(known, found, closed_alone, now=100.0) is expected


def test_what_is_restored_has_no_leases(half_open: Desk) -> None:
    half_open.lease("a")
    known = half_open.record
    half_open.text = None
    assert half_open.do(changes.written_back(known))
    assert half_open.record == known._replace(leases=())
    assert not half_open.do(changes.written_back(known))


def test_what_is_newer_is_not_overwritten(half_open: Desk) -> None:
    known = half_open.record
    half_open.do(changes.reset("ops:1"))
    assert not half_open.do(changes.written_back(known))
