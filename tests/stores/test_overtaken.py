"""What another thread, an interrupt or the garbage collector does in the middle of what is about a shared circuit."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from garbage import GARBAGE_IS_SEEN, collect
from members import Fleet, Member, Unreachable
from moments import interrupt_at
from needs import needs_moments
from overtaken import Overtaken

from circuit_breaker import CircuitBreaker, CircuitMode, CircuitOpenError, CircuitState, Permit, StateChanged
from circuit_breaker._breaker.states import Asker, Probe
from circuit_breaker._shared import process
from circuit_breaker._shared.link import Grown, machine_of
from circuit_breaker._shared.machine import SharedMachine
from circuit_breaker._shared.protocol import MemberLine, Report
from circuit_breaker._shared.record import Record, read
from circuit_breaker._shared.states import HalfOpenForAll, Leased
from circuit_breaker.stores import MemoryStore

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def overtake(machine: SharedMachine, other: Callable[[], object], taking: int = 1) -> None:
    """Let something happen before the machine's lock is taken for the n-th time from now on."""
    machine.lock = Overtaken(machine.lock, other, taking)  # type: ignore[assignment]


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet()
    fleet.half_open()
    return fleet


@pytest.fixture
def own(fleet: Fleet) -> Member:
    return fleet.members[0]


@pytest.fixture
def machine(own: Member) -> SharedMachine:
    return machine_of(own.breaker)


@pytest.fixture
def period(machine: SharedMachine) -> HalfOpenForAll:
    assert isinstance(machine.period, HalfOpenForAll)
    return machine.period


def lease(number: int, since: float = 0.0) -> Leased:
    return Leased(f"token {number}", since)


# Leases and probes


def test_two_leases_that_come_at_once_are_both_kept(machine: SharedMachine, period: HalfOpenForAll) -> None:
    overtake(machine, lambda: period.add_lease(machine, lease(1)))
    period.add_lease(machine, lease(2))
    assert period.leases == (lease(1), lease(2))


def test_a_lease_that_comes_as_others_go_back_is_kept(machine: SharedMachine, period: HalfOpenForAll) -> None:
    period.add_lease(machine, lease(1))
    overtake(machine, lambda: period.add_lease(machine, lease(2, since=9.0)))
    assert period.take_leases(machine, 5.0) == (lease(1),)
    assert period.leases == (lease(2, since=9.0),)


def test_one_lease_is_given_to_one_of_two_that_come_at_once(
    fleet: Fleet, machine: SharedMachine, period: HalfOpenForAll
) -> None:
    period.add_lease(machine, lease(1))
    now, first, second = fleet.clock(), Probe(Asker.CALL, 0.0), Probe(Asker.CALL, 0.0)
    overtake(machine, lambda: period.admit(machine, first, (), now))
    assert period.admit(machine, second, (), now) is None
    assert (first.token, second.token) == ("token 1", "")


def test_a_period_that_is_over_admits_nobody(fleet: Fleet, machine: SharedMachine, period: HalfOpenForAll) -> None:
    period.add_lease(machine, lease(1))
    overtake(machine, lambda: machine.reset(CircuitMode.AUTO, fleet.clock()))
    assert period.admit(machine, Probe(Asker.CALL, 0.0), (), fleet.clock()) is None


def test_a_failed_probe_is_sent_though_an_order_came_before_it_could_open(fleet: Fleet, own: Member) -> None:
    machine = machine_of(own.breaker)
    permit = own.breaker.permit()
    probed = fleet.record.epoch

    def order() -> None:
        fleet.admin.force_open("api")
        own.sync()

    overtake(machine, order, taking=3)  # once the permit is used up, and its result counted, to open for that
    permit.failure(ValueError("down"))
    own.sync()
    assert fleet.record.epoch > probed
    assert (own.breaker.mode, fleet.record.mode) == (CircuitMode.FORCED_OPEN,) * 2


# Asking for a lease

SHARED = str(Path(process.__file__).parent)
ASK_LASTS_S = 3.25  # three intervals, and what a caller waits


@needs_moments
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one lands where a generator is closed
def test_an_interrupt_of_an_ask_keeps_nobody_from_asking_later() -> None:
    for moment in count(1):
        fleet = Fleet(half_open_max_calls=2, success_threshold=1)
        fleet.half_open()
        own = fleet.members[0]
        if not interrupt_at(moment, own.is_rejected, SHARED):
            break
        fleet.clock.advance(ASK_LASTS_S + 0.1)
        own.is_rejected()
        own.sync()
        assert own.state is CLOSED, moment
    assert moment > 50


def test_an_ask_that_was_lost_lets_the_next_call_ask_once_it_has_lasted_too_long(own: Member, fleet: Fleet) -> None:
    own.breaker._machine.link.talker.ask = lambda *_: None  # type: ignore[attr-defined] # an interrupt lands before it
    assert own.is_rejected()
    del own.breaker._machine.link.talker.ask  # type: ignore[attr-defined]
    fleet.clock.advance(ASK_LASTS_S)
    assert own.is_rejected()
    assert fleet.record.probes_out == 0
    fleet.clock.advance(0.1)
    assert not own.is_rejected()


def test_an_ask_that_comes_after_it_counts_as_lost_takes_no_lease(own: Member, fleet: Fleet) -> None:
    talker = machine_of(own.breaker).link.talker
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(talker, "ask", lambda work, waited_s: talker.request(work))  # the thread hangs meanwhile
        assert own.is_rejected()
        fleet.clock.advance(ASK_LASTS_S + 0.1)
        assert own.is_rejected()
    own.sync()
    assert fleet.record.probes_out == 1


def test_an_ask_that_ends_after_it_counts_as_lost_leaves_the_next_one_under_way(
    own: Member, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = machine_of(own.breaker).link
    begun: list[object] = []

    def meanwhile(*_: object) -> None:
        fleet.clock.advance(0.1)
        assert own.is_rejected()
        begun.append(link._asked)
        raise Unreachable

    monkeypatch.setattr(link.talker, "ask", lambda work, waited_s: link.talker.request(work))  # it waits for the thread
    monkeypatch.setattr(own.store, "update", meanwhile)
    assert own.is_rejected()
    fleet.clock.advance(ASK_LASTS_S)
    first = link.talker._work.get()
    with pytest.raises(Unreachable):
        first()
    assert begun == [link._asked]
    assert link._asked is not None


def test_of_two_callers_that_come_at_once_one_asks(own: Member, machine: SharedMachine) -> None:
    asked: list[object] = []
    talker = machine.link.talker
    talker.ask = lambda *_: asked.append(1)  # type: ignore[method-assign,assignment,return-value]
    overtake(machine, own.is_rejected)
    assert own.is_rejected()
    assert asked == [1]


# Following


def test_a_member_that_opens_by_itself_as_it_follows_follows_all_the_same() -> None:
    fleet = Fleet()
    fleet.start()
    for member in fleet.members[1:]:
        member.fail(3)
    for _ in range(3):
        for member in fleet.members[1:]:
            member.sync()
        fleet.clock.advance(1.0)
    own = fleet.members[0]
    machine = machine_of(own.breaker)
    overtake(machine, lambda: own.fail(3))
    machine.link.follow(read(fleet.board._records["api"]), fleet.clock(), False)
    assert (own.state, own.shared.open_for) == (OPEN, "all")
    changes = [event for event in own.events if isinstance(event, StateChanged)]
    assert [(change.old_state, change.new_state) for change in changes] == [(CLOSED, OPEN)]


def test_a_circuit_that_opens_as_its_member_falls_silent_lets_the_next_call_ask() -> None:
    fleet = Fleet()
    fleet.start()
    own = fleet.members[0]
    machine = machine_of(own.breaker)
    overtake(machine, own.breaker.trip)
    machine.join(False)
    assert own.state is OPEN
    asked = own.store.asked["exchange"]
    assert own.is_rejected()
    assert own.store.asked["exchange"] == asked + 1


# The store in memory


def test_a_record_that_another_changes_meanwhile_is_changed_after_that() -> None:
    store, told = MemoryStore(), list[str | None]()

    def change(text: str | None, now: float) -> str:
        told.append(text)
        return f"{text} and mine"

    overtake_board(store, lambda: store.update("api", lambda text, now: "another's"))
    store.update("api", change)
    assert told == [None, "another's"]
    assert store.board._records == {"api": "another's and mine"}


def test_a_record_of_another_circuit_that_is_changed_meanwhile_is_kept() -> None:
    store, told = MemoryStore(), list[str | None]()
    overtake_board(store, lambda: store.update("other", lambda text, now: "another's"))
    store.update("api", lambda text, now: told.append(text) or "mine")
    assert told == [None]
    assert store.board._records == {"other": "another's", "api": "mine"}


def test_totals_and_members_that_come_at_once_are_all_kept() -> None:
    store = MemoryStore()
    overtake_board(store, lambda: store.exchange([Report("api", {"a": 1}, ())], MemberLine("other", "line")))
    answer = store.exchange([Report("api", {"a": 2}, ["a"])], MemberLine("mine", "line"))
    assert answer.found[0].totals == [3]
    assert store.board._members.keys() == {"other", "mine"}


def overtake_board(store: MemoryStore, other: Callable[[], object]) -> None:
    store.board._lock = Overtaken(store.board._lock, other)  # type: ignore[assignment]


# Breakers that are garbage


class Owner:
    """An object that does something with its breaker when it is finalized together with it."""

    breaker: CircuitBreaker
    permit: Permit

    def __init__(self, do: Callable[[Owner], object], done: list[object]) -> None:
        self.do, self.done = do, done

    def hear(self, event: object) -> None: ...

    def __del__(self) -> None:
        try:
            self.done.append(self.do(self))
        except CircuitOpenError:
            self.done.append("rejected")


@pytest.mark.parametrize(
    ("do", "result", "state"),
    [
        (lambda owner: owner.breaker.call(int), 0 if GARBAGE_IS_SEEN else "rejected", HALF_OPEN),
        (lambda owner: owner.breaker.trip(60.0), None, HALF_OPEN),
        (lambda owner: owner.breaker.reset(), None, CLOSED if GARBAGE_IS_SEEN else HALF_OPEN),
        (lambda owner: owner.breaker.snapshot().state, HALF_OPEN, HALF_OPEN),
    ],
    ids=["call", "trip", "reset", "snapshot"],
)
def test_a_destructor_may_use_a_breaker_that_is_garbage_itself(
    fleet: Fleet, own: Member, do: Callable[[Owner], object], result: object, state: CircuitState
) -> None:
    done: list[object] = []
    own.breaker = make_garbage(own, Owner(do, done))
    gone = weakref.ref(own.breaker)
    del own.breaker
    for _ in range(1 + GARBAGE_IS_SEEN):  # what was seen is freed the next time
        collect()
    assert (done, gone()) == ([result], None)
    fleet.interval(2)
    assert fleet.record.state is state


def test_a_destructor_may_keep_an_open_breaker_open_that_is_garbage_itself() -> None:
    fleet = Fleet()
    fleet.open()
    done: list[object] = []
    own = fleet.members[0]
    owner = Owner(lambda owner: owner.breaker.trip(60.0), done)
    owner.breaker = own.breaker = own.another(listeners=[owner.hear])
    own.sync()
    assert own.state is OPEN
    del own.breaker, owner
    collect()
    fleet.members.remove(own)
    fleet.exchange()
    assert done == [None]
    assert (fleet.record.retry_after_s or 0.0) <= 5.0


def test_a_destructor_may_end_a_probe_of_a_breaker_that_is_garbage_itself(fleet: Fleet, own: Member) -> None:
    done: list[object] = []
    owner = Owner(lambda owner: owner.permit.success(), done)
    make_garbage(own, owner)
    owner.permit = owner.breaker.permit()
    del owner
    collect()
    assert done == [None]
    fleet.interval(2)
    out = 0 if GARBAGE_IS_SEEN else 1  # until the lease runs out
    assert (fleet.record.state, fleet.record.probes_out) == (HALF_OPEN, out)


def make_garbage(member: Member, owner: Owner) -> CircuitBreaker:
    """Return a breaker of this member, which has joined, and which its listener refers to."""
    breaker = member.another(listeners=[owner.hear])
    owner.breaker = breaker
    member.sync()
    assert breaker.state is HALF_OPEN
    return breaker


def test_the_link_of_a_breaker_that_has_gone_says_nothing(own: Member) -> None:
    breaker = own.another()
    link = machine_of(breaker).link
    breaker.record_failure()
    del breaker
    collect()
    assert link.breaker is None
    assert (link.collect(), link.trouble()) == (Grown(), 0)
    assert link.follow(Record(9, True, 0.0, "", ""), 0.0, False) is None
