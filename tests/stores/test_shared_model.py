"""Members of one circuit under everything that may come in between: at random, and in every order.

Breakers, links and talkers are the real ones; only threads are left out. A store may lose requests and answers, forget
everything, or go back to what it was before. Whatever comes, no call raises what is the store's, no more probes have a
lease than the rules allow, nothing is counted twice, and once all is well again the members agree and close.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from failures import Down
from members import Fleet, Member, Unreachable

from circuit_breaker import CircuitMode, CircuitOpenError, CircuitState

MEMBERS = 3
LIMIT = 2
SETTINGS: dict[str, Any] = {"half_open_max_calls": LIMIT, "half_open_timeout_s": 15.0}


class World:
    """A fleet, its probes that are out, and what its members have really counted."""

    def __init__(self, **settings: Any) -> None:
        self.fleet = Fleet(MEMBERS, **{**SETTINGS, **settings})
        self.permits: list[Any] = []
        self.answered = 0
        self.backup: dict[str, str] = {}
        self.trusted = True  # the store has forgotten nothing, and nobody has been alone or silent

    # What may happen

    def call(self, number: int, fails: bool) -> None:
        def body() -> None:
            if fails:
                raise Down

        try:
            self.fleet.members[number].breaker.call(body)
        except (CircuitOpenError, Down):
            pass

    def take(self, number: int) -> None:
        try:
            self.permits.append(self.fleet.members[number].breaker.permit())
        except CircuitOpenError:
            pass

    def end(self, choice: int, how: str) -> None:
        if self.permits:
            getattr(self.permits.pop(choice % len(self.permits)), how)()

    def sync(self, number: int, lost: str = "") -> None:
        member = self.fleet.members[number]
        if lost:
            setattr(member.store, lost, True)
        try:
            member.sync()
        except Unreachable:
            pass
        finally:
            member.store.lose_requests = member.store.lose_answers = False

    def save(self) -> None:
        self.backup = dict(self.fleet.board._records)

    def roll_back(self) -> None:
        self.trusted = False
        self.fleet.board._records.clear()
        self.fleet.board._records.update(self.backup)

    def lapse(self) -> None:
        """Let leases run out: nobody exchanges for longer than they last."""
        self.trusted = False
        self.fleet.clock.advance(12.0)

    def clear(self) -> None:
        self.trusted = False
        self.fleet.board.clear()

    # What must hold

    def check(self) -> None:
        circuits = self.fleet.admin.circuits()
        if any(member.shared.link == "away" for member in self.fleet.members):
            self.trusted = False
        for circuit in circuits:
            assert circuit.error is None
            assert circuit.probes_out <= LIMIT
        if self.trusted:
            assert self.probing() <= LIMIT

    def probing(self) -> int:
        """Count the probes that are out, have a lease, and belong to the present epoch."""
        epoch = self.fleet.record.epoch if self.fleet.admin.circuits() else 0
        config, now = self.fleet.members[0].breaker.config, self.fleet.clock()
        out = [permit._permission for permit in self.permits]
        leased = [probe for probe in out if getattr(probe, "token", "") and not probe.is_overdue(config, now)]
        return sum(probe.issuer.epoch == epoch for probe in leased)

    def heal(self) -> None:
        """Let everything go well: within two open times all members are closed, and agree."""
        for permit in self.permits:
            permit.success()
        self.fleet.interval(2)
        for _ in range(25):
            for member in self.fleet.members:
                member.is_rejected()
            self.fleet.interval()
        assert self.fleet.states() == {CircuitState.CLOSED}
        assert {member.shared.link for member in self.fleet.members} == {"joined"}
        assert len({member.shared.epoch for member in self.fleet.members}) == 1


def walk(seed: int, steps: int) -> None:
    draw = random.Random(seed)
    world = World(success_threshold=draw.choice([1, 2, 4]), half_open_failure_threshold=draw.choice([1, 1, 2]))
    if seed % 2:
        world.fleet.start()
    else:
        world.fleet.half_open()
    down = 0.9  # how likely a call fails; the dependency comes and goes

    def weather() -> None:
        nonlocal down
        down = draw.choice([0.02, 0.5, 1.0])

    def end() -> None:
        how = "ignore" if draw.random() < 0.2 else "failure" if draw.random() < down else "success"
        world.end(draw.randrange(99), how)

    deeds: list[tuple[float, Callable[[], object]]] = [
        (14, lambda: world.call(draw.randrange(MEMBERS), draw.random() < down)),
        (6, lambda: world.take(draw.randrange(MEMBERS))),
        (6, end),
        (24, lambda: world.sync(draw.randrange(MEMBERS), draw.choice(["", "", "", "lose_requests", "lose_answers"]))),
        (12, lambda: world.fleet.clock.advance(draw.choice([0.05, 0.3, 1.0, 1.0, 2.5, 2.5]))),
        (3, weather),
        (0.5, world.lapse),
        (0.5, world.save),
        (0.3, world.roll_back),
        (0.3, world.clear),
        (0.5, lambda: draw.choice(world.fleet.members).breaker.trip()),
        (0.2, lambda: world.fleet.admin.reset("api")),
    ]
    weights = [weight for weight, _ in deeds]
    for _ in range(steps):
        draw.choices([deed for _, deed in deeds], weights)[0]()
        world.check()
    world.heal()


@pytest.mark.parametrize("seed", range(60))
def test_a_walk_at_random_breaks_no_promise(seed: int) -> None:
    walk(seed, 150)


# Every order of a few exchanges


def half_open_with_two_probes() -> World:
    world = World()
    world.fleet.half_open()
    world.take(0)
    world.take(1)
    return world


def orders(length: int) -> Iterator[tuple[tuple[int, str], ...]]:
    exchanges = list(product(range(MEMBERS), ["", "lose_requests", "lose_answers"]))
    return product(exchanges, repeat=length)


def play(how: tuple[str, str], order: tuple[tuple[int, str], ...]) -> None:
    world = half_open_with_two_probes()
    for (number, lost), end in zip(order, (*how, "", "", "")[: len(order)], strict=True):
        if end:
            world.end(0, end)
        world.sync(number, lost)
        world.check()
        world.fleet.clock.advance(0.3)
    world.heal()


@pytest.mark.parametrize("how", [("success", "success"), ("success", "failure"), ("failure", "success")], ids="-".join)
def test_every_order_of_exchanges_leads_to_one_end(how: tuple[str, str], length: int = 2) -> None:
    for order in orders(length):
        play(how, order)


def test_what_members_have_counted_is_in_the_totals_once() -> None:
    for seed in range(20):
        draw = random.Random(seed)
        world = World(failure_threshold=None, error_rate_threshold=1.0)
        world.fleet.start()
        lost, made = 0, MEMBERS
        for _ in range(60):
            number = draw.randrange(MEMBERS)
            member: Member = world.fleet.members[number]
            fails = [draw.random() < 0.4 for _ in range(draw.randrange(4))]
            for fail in fails:
                world.call(number, fail)
            made += len(fails)
            how = draw.choice(["", "", "lose_requests", "lose_answers"])
            world.sync(number, how)
            lost += len(fails) if how == "lose_requests" else 0
            world.fleet.clock.advance(0.2)
            assert member.breaker.mode is CircuitMode.AUTO
        record = world.fleet.record
        assert record.successes + record.failures == made - lost
