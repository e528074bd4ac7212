"""Every interleaving of what three members do to one record, with requests and answers that are lost.

Each member asks for a lease, probes, and says how its probe ended; each of its requests may be carried out, get lost,
or be carried out while the answer is lost, and is then made again. Time passes until a lease is over, and the store may
go back to what it was before. All states that can be reached are visited.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

import pytest

from circuit_breaker._shared import changes
from circuit_breaker._shared.changes import Verdict, verdict
from circuit_breaker._shared.record import Record, Rules, Step, epoch_of

LEASE_S, TICK_S = 10.0, 5.0
MEMBERS = range(3)


class Stage(StrEnum):
    """How far a member is with its probe."""

    IDLE = "it has not asked"
    ASKING = "it does not know whether it has a lease"
    PROBING = "its call is out"
    TELLING = "its call has ended, and it does not know whether that is known"
    DONE = "it has told, or will not probe"


class Member(NamedTuple):
    stage: Stage = Stage.IDLE
    known: Record | None = None  # what it follows
    lease_ends: float = 0.0  # as far as it knows


class World(NamedTuple):
    now: float
    record: Record | None
    members: tuple[Member, ...]
    backup: Record | None = None
    rolled_back: bool = False


class Arrives(StrEnum):
    """What becomes of a request."""

    WELL = "the answer arrives"
    ANSWER_LOST = "the answer is lost"
    LOST = "the request is lost"


class Model:
    """The worlds that can be reached, under rules of so many probes and successes."""

    def __init__(self, rules: Rules, ends: str, *, horizon_s: float = 20.0, rollback: bool = False) -> None:
        self.rules = rules
        self.ends = ends  # of the probes of the members: s, f
        self.horizon_s = horizon_s
        self.rollback = rollback
        opened = changes.opened(0, rules, "down", "x:0")(None, 0.0)
        assert opened is not None
        self.first = World(rules.open_s, opened, (Member(known=opened),) * 3)
        self.epoch = opened.epoch
        self.exchanged: dict[tuple[Member, int, Record | None, float, Arrives], tuple[Member, Record | None]] = {}

    def visit(self) -> Iterator[tuple[World, World]]:
        """Give every step from one world to another."""
        seen, ahead = {self.first}, [self.first]
        while ahead:
            world = ahead.pop()
            for after in self.after(world):
                yield world, after
                if after not in seen:
                    seen.add(after)
                    ahead.append(after)

    def after(self, world: World) -> Iterator[World]:
        if world.now < self.rules.open_s + self.horizon_s:
            yield world._replace(now=world.now + TICK_S)
        if self.rollback and not world.rolled_back:
            yield world._replace(backup=world.record)
            yield world._replace(record=world.backup, rolled_back=True)
        for number in MEMBERS:
            for arrives in Arrives:
                yield self.exchange(world, number, arrives)
            member = world.members[number]
            if member.stage is Stage.PROBING:
                yield self.put(world, number, member._replace(stage=Stage.TELLING))

    def put(self, world: World, number: int, member: Member, record: Record | None = None) -> World:
        members = (*world.members[:number], member, *world.members[number + 1 :])
        return World(world.now, world.record if record is None else record, members, world.backup, world.rolled_back)

    def exchange(self, world: World, number: int, arrives: Arrives) -> World:
        """Let a member do what it does next."""
        asked = world.members[number], number, world.record, world.now, arrives
        if asked not in self.exchanged:  # many worlds differ in the other members alone
            self.exchanged[asked] = self.after_exchange(*asked)
        member, record = self.exchanged[asked]
        return world if (member, record) == (asked[0], None) else self.put(world, number, member, record)

    def after_exchange(
        self, member: Member, number: int, record: Record | None, now: float, arrives: Arrives
    ) -> tuple[Member, Record | None]:
        """Return the member and what it has put into the store, if anything."""
        step = self.next_step(member, number, record, now)
        after = None if step is None or arrives is Arrives.LOST else step(record, now)
        if arrives is Arrives.WELL:
            return self.told(member, number, record if after is None else after, now), after
        if member.stage is Stage.IDLE and step is not None:
            return member._replace(stage=Stage.ASKING), after
        return member, after

    def next_step(self, member: Member, number: int, record: Record | None, now: float) -> Step | None:
        token, known = f"t{number}", member.known
        if verdict(known, record, False, now) is Verdict.RESTORE and known is not None:
            return changes.written_back(known)
        if member.stage in (Stage.IDLE, Stage.ASKING):
            return changes.leased(self.epoch, self.rules.open_s, token, LEASE_S)
        if member.stage is Stage.PROBING:
            return changes.renewed(self.epoch, [token], LEASE_S)
        if member.stage is Stage.TELLING and self.ends[number] == "s":
            return changes.succeeded(self.epoch, token, f"m:{number}")
        if member.stage is Stage.TELLING:
            return changes.failed(self.epoch, token, self.rules, "a probe failed", f"m:{number}")
        return None

    def told(self, member: Member, number: int, stands: Record | None, now: float) -> Member:
        """Return a member that knows which record stands."""
        stage, holds = member.stage, stands is not None and stands.holds(f"t{number}", now)
        if stage is Stage.TELLING or (stands is not None and stands.epoch != self.epoch):
            stage = Stage.DONE
        elif stage in (Stage.IDLE, Stage.ASKING):
            stage = Stage.PROBING if holds else Stage.IDLE
        known = None if stands is None else stands._replace(leases=(), successes=0, failures=0)
        lease_ends = now + LEASE_S if holds else member.lease_ends
        return Member(stage, known, lease_ends if stage is Stage.PROBING else 0.0)

    def probing(self, world: World) -> int:
        """Count the calls that are out under a lease, as far as their members know."""
        return sum(member.stage is Stage.PROBING and world.now < member.lease_ends for member in world.members)


RULES = {
    "one probe, one success": Rules(5.0, 1, 1, 1),
    "two probes, two successes": Rules(5.0, 2, 2, 1),
    "two failures": Rules(5.0, 2, 3, 2),
}


@pytest.fixture(params=RULES)
def rules(request: pytest.FixtureRequest) -> Rules:
    return RULES[request.param]


@pytest.mark.parametrize("ends", ["sss", "ssf", "fff"])
def test_no_interleaving_breaks_what_is_promised(rules: Rules, ends: str) -> None:
    model, steps = Model(rules, ends, horizon_s=10.0), 0
    for before, after in model.visit():
        steps += 1
        record, now = after.record, after.now
        assert record is not None
        assert record.probes_out(now) <= rules.probes
        assert model.probing(after) <= rules.probes
        assert epoch_of(before.record) <= record.epoch
        if record.epoch == model.epoch:
            told = sum(member.stage in (Stage.TELLING, Stage.DONE) for member in after.members)
            assert record.successes + record.failures <= told
        elif not record.open:
            assert ends.count("s") >= rules.success_threshold
        else:
            assert ends.count("f") >= rules.failure_threshold
    assert steps > 1_000


def test_a_store_that_goes_back_leaves_no_lasting_disagreement(rules: Rules) -> None:
    model = Model(rules, "sss", horizon_s=5.0, rollback=True)
    worlds = {after for _, after in model.visit() if after.rolled_back}
    for world in worlds:
        assert world.record is None or world.record.probes_out(world.now) <= rules.probes
        assert len({epoch_of(member.known) for member in settled(model, world).members}) == 1
    assert len(worlds) > 1_000


def settled(model: Model, world: World) -> World:
    """Return the world after two exchanges of each member, all of which arrive."""
    for _ in range(2):
        for number in MEMBERS:
            world = model.exchange(world, number, Arrives.WELL)
    return world


def test_the_model_finds_planted_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(RULES["one probe, one success"], "sss")
    monkeypatch.setattr(changes, "_with_lease", lambda record, now, token, lease_s: record)
    monkeypatch.setattr(Record, "holds", lambda *_: True)  # everybody believes that it has a lease
    assert any(model.probing(after) > 1 for _, after in model.visit())
    monkeypatch.undo()

    model = Model(RULES["two probes, two successes"], "sss")
    monkeypatch.setattr(changes, "_without", lambda record, token: record)  # a success counts as often as it is told
    assert any(
        after.record is not None
        and not after.record.open
        and sum(member.stage in (Stage.TELLING, Stage.DONE) for member in after.members) < 2
        for _, after in model.visit()
    )
