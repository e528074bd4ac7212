"""Evidence: what several members have to see before a circuit opens for all, and what one alone can never open."""

from __future__ import annotations

import random
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from circuit_breaker import CircuitBreakerConfig
from circuit_breaker._shared.evidence import Answers, Evidence
from circuit_breaker._shared.record import LARGEST_EPOCH, Unreadable

EPOCH = 7
NUMBERS = count()


class Fleet:
    """The totals of one epoch, a clock, and members that report into them."""

    def __init__(self, members: int = 3, **settings: Any) -> None:
        self.config = CircuitBreakerConfig(**settings)
        self.now = 100.0
        self.totals: dict[str, int] = {}
        self.members = [Member(self) for _ in range(members)]

    def interval(self, *ends: str) -> list[str]:
        """Let each member make the calls of its text (s: success, f: failure, w: slow success), then report in turn."""
        for member, calls in zip(self.members, ends or ("",) * len(self.members), strict=True):
            member.call(calls)
        reasons = [member.exchange() for member in self.members]
        self.now += 1.0
        return [reason for reason in reasons if reason is not None]


class Member:
    """A process, with a machine of one rule: so many failures in a row."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.who = f"member{next(NUMBERS)}"
        self.begin()
        self.new = Answers()
        self.streak = 0
        self.opened = False

    def begin(self) -> None:
        """Have a breaker that is new; another one may have been dropped."""
        self.evidence = Evidence(EPOCH, 1.0, self.who)

    def call(self, ends: str) -> None:
        for end in ends:
            if not self.opened:
                self.new = self.new.plus(Answers(int(end in "sw"), int(end == "f"), int(end == "w")))
            self.streak = self.streak + 1 if end == "f" else 0
            self.opened |= self.streak >= (self.fleet.config.failure_threshold or 10**9)

    def exchange(self, *, lost: str = "") -> str | None:
        """Report, and look; lost: the request, or the answer."""
        added = self.evidence.report(self.fleet.now, self.new, 0, self.streak, self.opened)
        self.new = Answers()
        if lost == "request":
            return None
        totals = self.fleet.totals
        for name in self.evidence.void():
            totals.pop(name, None)
        for name, number in added.items():
            totals[name] = totals.get(name, 0) + number
        if lost == "answer":
            return None
        self.evidence.seen(self.fleet.now, [totals.get(name) for name in self.evidence.names()])
        return self.evidence.judge(self.fleet.now, self.fleet.config)


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet(failure_threshold=5)
    assert [fleet.interval("s", "s", "s"), fleet.interval()] == [[], []]  # the second tells all of the last success
    return fleet


# No success for two intervals


def test_two_that_opened_by_themselves_open_for_all(fleet: Fleet) -> None:
    assert fleet.interval("fffff", "fffff", "") == []
    assert fleet.interval() == ["2 processes opened by themselves"] * 2


def test_failures_of_several_add_up(fleet: Fleet) -> None:
    assert fleet.interval("ff", "f", "f") == []
    assert fleet.interval("", "f", "") == ["5 failures in a row in 3 processes (threshold 5)"] * 2
    assert fleet.interval() == ["5 failures in a row in 3 processes (threshold 5)"] * 3


def test_too_few_failures_open_nothing(fleet: Fleet) -> None:
    assert fleet.interval("ff", "f", "f") == []
    assert [fleet.interval() for _ in range(5)] == [[]] * 5


def test_one_process_alone_opens_nothing_for_all(fleet: Fleet) -> None:
    assert fleet.interval("f" * 50, "", "") == []
    assert [fleet.interval("f", "", "") for _ in range(20)] == [[]] * 20


def test_one_process_among_healthy_ones_that_fail_now_and_then_opens_nothing(fleet: Fleet) -> None:
    for _ in range(3):
        assert fleet.interval("f" * 2, "s", "s") == []
    for _ in range(3):
        assert fleet.interval("", "s", "s") == []
    assert fleet.interval("f", "sf", "s") == []  # a probe; and then nobody calls but the process that cannot
    assert [fleet.interval("", "", "") for _ in range(4)] == [[]] * 4
    assert fleet.interval("f", "", "") == []


def test_a_success_within_two_intervals_holds_back_the_verdict(fleet: Fleet) -> None:
    fleet.interval("fffff", "fffff", "s")
    assert [fleet.interval("", "", "s") for _ in range(5)] == [[]] * 5
    assert [fleet.interval() for _ in range(2)] == [[], []]
    assert fleet.interval() == ["2 processes opened by themselves"] * 2


def test_a_success_that_is_reported_late_forgets_no_failure(fleet: Fleet) -> None:
    fleet.members[2].call("s")  # before all failures, and reported after them
    for member, ends in zip(fleet.members[:2], ("fff", "ff"), strict=True):
        member.call(ends)
        member.exchange()
    fleet.members[2].exchange()
    fleet.now += 1.0
    assert [fleet.interval() for _ in range(2)] == [[], []]
    assert fleet.interval() == ["5 failures in a row in 2 processes (threshold 5)"] * 2


def test_failures_from_before_a_success_of_another_do_not_count(fleet: Fleet) -> None:
    fleet.interval("ffff", "", "")
    for _ in range(3):
        fleet.interval("", "s", "s")
    fleet.interval("", "f", "")
    assert [fleet.interval() for _ in range(5)] == [[]] * 5


def test_a_member_without_failures_of_its_own_judges_nothing(fleet: Fleet) -> None:
    fleet.interval("fffff", "fffff", "")
    fleet.interval()
    assert [member.evidence.judge(fleet.now + 9.0, fleet.config) is None for member in fleet.members] == [
        False,
        False,
        True,
    ]


def test_each_finding_is_reported_once(fleet: Fleet) -> None:
    fleet.interval("fff", "", "")
    for _ in range(5):
        fleet.interval()
    assert fleet.members[0].evidence.told == (3, 1, 0)


@pytest.mark.parametrize(("lost", "failures"), [("request", 0), ("answer", 3)])
def test_of_a_report_whose_fate_is_unknown_only_what_did_not_arrive_is_told_again(
    fleet: Fleet, lost: str, failures: int
) -> None:
    own = fleet.members[0]
    own.call("fff")
    assert own.exchange(lost=lost) is None
    assert fleet.interval() == []
    assert fleet.interval() == []
    assert own.evidence.told == (3, 1, 0)
    assert fleet.totals.get(f"{EPOCH}.failures", 0) == failures  # answers are never sent twice


def test_one_report_that_is_lost_keeps_no_outage_from_opening_the_circuit(fleet: Fleet) -> None:
    for member in fleet.members[:2]:
        member.call("fffff")
    fleet.members[0].exchange(lost="request")
    fleet.members[1].exchange()
    fleet.now += 1.0
    assert [fleet.interval() for _ in range(2)][-1] == ["2 processes opened by themselves"] * 2


def test_what_the_store_has_lost_is_told_again(fleet: Fleet) -> None:
    fleet.interval("fffff", "fffff", "")
    fleet.totals.clear()
    fleet.now += 1.0
    assert [fleet.interval() for _ in range(4)][-1] == ["2 processes opened by themselves"] * 2


def test_what_a_store_has_again_after_a_rollback_is_not_told_twice(fleet: Fleet) -> None:
    fleet.interval("fff", "", "")
    saved = dict(fleet.totals)
    fleet.interval("", "s", "s")
    fleet.interval()
    fleet.totals.clear()
    fleet.totals.update(saved)
    for _ in range(4):
        fleet.interval("f", "", "")
    assert fleet.members[0].evidence.told == (4, 1, 1)  # the others are older than the success of another


def test_what_arrives_in_part_is_not_told_twice(fleet: Fleet) -> None:
    own = fleet.members[0]
    added = own.evidence.report(fleet.now, Answers(0, 3, 0), 0, 3, False)
    assert tuple(list(added)[-3:]) == own.evidence.names()[-4:-1]
    assert own.who in list(added)[-3]  # before those that it is to keep from being added to twice


def test_a_process_whose_breakers_are_made_anew_is_one_witness(fleet: Fleet) -> None:
    own = fleet.members[0]
    for _ in range(4):
        own.begin()
        own.streak, own.opened = 0, False
        for _ in range(3):
            assert fleet.interval("ff", "", "") == []
    assert own.evidence.told == (6, 1, 1)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_lost_each_failure_is_told_once(seed: int) -> None:
    draw = random.Random(seed)
    fleet = Fleet(3, failure_threshold=5)
    for _ in range(80):
        member = draw.choice(fleet.members)
        if draw.random() < 0.1:
            member.begin()
        if draw.random() < 0.03:
            fleet.totals.clear()
            fleet.totals[f"{EPOCH}.successes"] = draw.randrange(10**6)  # of others, who report at once
        member.call(draw.choice(["", "f", "ff", "fff", "s"] if not member.opened else [""]))
        member.exchange(lost=draw.choice(["", "", "request", "answer"]))
        fleet.now += draw.choice([0.1, 1.0])
        beside = f"{EPOCH}.{fleet.totals.get(f'{EPOCH}.successes', 0)}"
        told = [fleet.totals.get(f"{beside}.{kind}", 0) for kind in ("members", "opened")]
        assert told[0] <= 3
        assert told[1] <= sum(each.opened for each in fleet.members)
    for _ in range(6):
        fleet.interval()
    mine = [each.evidence._mine for each in fleet.members]
    assert fleet.members[0].evidence.told == tuple(map(sum, zip(*mine, strict=True)))


def test_what_is_void_is_deleted(fleet: Fleet) -> None:
    for _ in range(20):
        fleet.interval("f", "s", "s")
    assert len(fleet.totals) <= 4 + 3


def test_without_the_rule_of_failures_in_a_row_they_open_nothing() -> None:
    fleet = Fleet(failure_threshold=None, error_rate_threshold=0.5)
    fleet.interval("s", "s", "s")
    assert [fleet.interval("ff", "ff", "ff") for _ in range(5)] == [[]] * 5


def test_a_circuit_that_has_never_succeeded_opens_too() -> None:
    fleet = Fleet(failure_threshold=5)
    assert fleet.interval("ff", "ff", "ff") == []
    assert fleet.interval("f", "f", "f") == []
    assert fleet.interval()[-1] == "9 failures in a row in 3 processes (threshold 5)"


def crowd(members: int) -> Fleet:
    fleet = Fleet(members, failure_threshold=5)
    for _ in range(2):
        assert fleet.interval(*["s" if fleet.now < 101 else ""] * members) == []
    return fleet


def exchange_after(fleet: Fleet, seconds: float) -> list[str]:
    """Let all exchange again, before the interval is over."""
    fleet.now += seconds - 1.0
    return fleet.interval()


def test_of_many_members_less_than_half_an_interval_is_enough() -> None:
    fleet = crowd(5)
    assert fleet.interval("s", "", "", "", "") == []
    assert fleet.interval() == []  # all know of that success
    for member in fleet.members:
        member.call("f")
    fleet.now -= 0.7
    assert fleet.interval() == ["5 failures in a row in 5 processes (threshold 5)"]  # of the last, who reads all five


def test_of_a_few_it_is_not() -> None:
    fleet = crowd(4)
    assert fleet.interval("s", "", "", "") == []
    assert fleet.interval() == []
    for member in fleet.members:
        member.call("ff")
    fleet.now -= 0.7
    assert fleet.interval() == []
    assert exchange_after(fleet, 0.3) == []
    assert [exchange_after(fleet, 0.3) for _ in range(4)][-1] != []


# Rates


def rates(**settings: Any) -> Fleet:
    window = {"error_rate_window": timedelta(seconds=10), "minimum_calls": 20, "failure_threshold": None}
    fleet = Fleet(**{**window, "error_rate_threshold": 0.5, **settings})
    fleet.interval("s", "s", "s")
    return fleet


def test_a_rate_that_all_see_opens_for_all() -> None:
    fleet = rates()
    assert fleet.interval("sfsf", "sfsf", "sfsf") == []
    assert fleet.interval("sfsf", "sfsf", "sfsf") == ["12 of 24 calls failed (threshold 0.5)"]


def test_a_rate_of_one_process_opens_nothing() -> None:
    fleet = rates()
    assert [fleet.interval("f" * 20, "ss", "ss") for _ in range(20)] == [[]] * 20


def test_a_rate_of_others_is_judged_by_one_that_sees_it_too() -> None:
    fleet = rates()
    fleet.interval("s" * 9 + "f", "f" * 20, "f" * 20)
    fleet.interval()
    judged = [member.evidence.judge(fleet.now, fleet.config) is not None for member in fleet.members]
    assert judged == [False, True, True]


def test_too_few_calls_open_nothing() -> None:
    fleet = rates(minimum_calls=100)
    assert [fleet.interval("f", "f", "f") for _ in range(10)] == [[]] * 10


def test_a_rate_is_that_of_the_window() -> None:
    fleet = rates(minimum_calls=10)
    for _ in range(12):
        assert fleet.interval("s" * 9, "s" * 9, "s" * 9) == []
    assert [reasons for _ in range(7) if (reasons := fleet.interval("f" * 9, "f" * 9, "f" * 9))] != []


def test_a_window_of_calls_spans_the_newest_reports_that_hold_them() -> None:
    fleet = rates(error_rate_window=60, minimum_calls=None)
    for _ in range(10):
        assert fleet.interval("s" * 10, "s" * 10, "s" * 10) == []
    found = [fleet.interval("f" * 10, "f" * 10, "f" * 10) for _ in range(2)]
    assert [reason for reasons in found for reason in reasons][-1] == "60 of 60 calls failed (threshold 0.5)"


def test_slow_calls_have_a_rate_too() -> None:
    fleet = rates(error_rate_threshold=None, slow_call_rate_threshold=0.5, slow_call_duration_s=1.0)
    assert fleet.interval("swsw", "swsw", "swsw") == []
    assert fleet.interval("swsw", "swsw", "swsw") == ["12 of 24 calls were slow (threshold 0.5)"]


def test_the_marks_of_a_window_are_few() -> None:
    fleet = rates(error_rate_window=timedelta(hours=1), minimum_calls=10**6)
    for _ in range(5_000):
        fleet.interval("s", "s", "f")
    assert len(fleet.members[0].evidence._marks) <= 31
    fleet = rates(error_rate_window=10_000)
    for _ in range(5_000):
        fleet.interval("s", "s", "f")
    assert len(fleet.members[0].evidence._marks) <= 32


def test_totals_that_the_store_has_lost_begin_the_window_anew() -> None:
    fleet = rates()
    for _ in range(3):
        fleet.interval("s" * 9, "s" * 9, "s" * 9)
    fleet.totals.clear()
    assert fleet.interval("fsf", "fsf", "fsf") == []
    assert fleet.interval("f" * 9, "f" * 9, "f" * 9) != []


# What nobody wrote who is one of us


@pytest.mark.parametrize("value", [-1, LARGEST_EPOCH + 1])
def test_a_total_that_cannot_be_is_unreadable(value: int) -> None:
    evidence = Evidence(EPOCH, 1.0, "me")
    evidence.report(100.0, Answers(), 0, 0, False)
    with pytest.raises(Unreadable):
        evidence.seen(100.0, [value, 0, 0, 0])


# A sick process among healthy ones, for an hour


@pytest.mark.parametrize("members", [3, 10])
@pytest.mark.parametrize("per_s", [0.3, 1, 20, 200])
@pytest.mark.parametrize(
    "settings",
    [
        {"failure_threshold": 5},
        {"failure_threshold": 5, "error_rate_threshold": 0.5, "error_rate_window": timedelta(seconds=30)},
        {"failure_threshold": 5, "error_rate_threshold": 0.5, "error_rate_window": 100},
    ],
    ids=["streak", "rate of time", "rate of calls"],
)
def test_one_sick_process_opens_nothing_for_the_healthy(members: int, per_s: float, settings: dict[str, Any]) -> None:
    draw = random.Random(f"{members} {per_s} {sorted(settings)}")
    fleet = Fleet(members, **settings)
    for second in range(900):
        sick = fleet.members[0]
        if second % 600 == 0:
            sick.opened, sick.streak = False, 0  # it comes back, and falls ill again
        probing = not sick.opened or second % 30 == 0
        calls = [min(_poisson(draw, per_s), 60) for _ in range(members)]
        healthy = ["".join("f" if draw.random() < 0.01 else "s" for _ in range(number)) for number in calls[1:]]
        assert fleet.interval("f" * calls[0] if probing else "", *healthy) == []


def _poisson(draw: random.Random, mean: float) -> int:
    number, at = 0, draw.expovariate(mean)
    while at < 1.0:
        number, at = number + 1, at + draw.expovariate(mean)
    return number
