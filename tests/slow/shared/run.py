"""Show what shared circuits are worth: `.venv/bin/python tests/slow/shared/run.py [--long] [words of a claim]`.

One line for each claim, with its figure; the exit status is 1 if one does not hold. Needs the extra `test`, and a
`redis-server`: without one, what needs it is left out. The short form takes eight minutes, the long one an hour.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).parents[2] / "support"))

import cost
import faults
import load
import sick
from forks import told_by_child
from outage import Outcome, Plan, play
from redis_server import BINARY, RedisServer

from circuit_breaker import CircuitBreaker
from circuit_breaker.stores import RedisStore, SQLiteStore

FAULT_S = 10.0  # how long each fault lasts
RIGHT_AFTER_S = 15.0  # the longest pause of a store that is away is 10 s, and two intervals follow
LEASE_S = 10.0
BUSY_S = 0.15  # by which a busy machine may be late


class Claim(NamedTuple):
    """Something that must hold, and a function that tells whether it does, and the figure."""

    text: str
    find: Callable[[], tuple[bool, str]]


class Place(NamedTuple):
    """Where processes meet, and what is asked of them there."""

    text: str
    make_store: Callable[[], Any]
    processes: int
    goal: int


# The server is down


def alone() -> None:
    """Return no store."""


def outages(places: list[Place]) -> Iterator[Claim]:
    """Give what is claimed for a server that is down for 16 s, at 20 calls each second of each process."""
    for place in places:
        plan = Plan(place.processes, 20.0)

        def find(place: Place = place, plan: Plan = plan) -> tuple[bool, str]:
            shared, each = play(plan, place.make_store), play(plan, alone)
            holds = (
                shared.reached <= place.goal
                and shared.all_open_s <= 2.0 + 1.0  # until each has called, and two intervals
                and shared.probes <= plan.half_open_max_calls
                and shared.all_closed_s <= 1.5 * plan.reset_timeout_s
            )
            return holds, f"{told(shared)}; each for itself: {told(each)}"

        yield Claim(f"{place.processes} processes over {place.text}, 20 calls/s each, down for 16 s", find)


def told(outcome: Outcome) -> str:
    """Return an outcome in words."""
    return (
        f"{outcome.reached} calls reached the server, all open after {outcome.all_open_s:.1f} s, at most "
        f"{outcome.probes} probes at once, all closed {outcome.all_closed_s:.1f} s after it came back"
    )


def rare_callers(place: Place) -> Iterator[Claim]:
    """Give what is claimed where each process calls rarely."""
    for per_s in (1.0, 1 / 3):
        plan = Plan(20, per_s, down_s=40.0)

        def find(plan: Plan = plan) -> tuple[bool, str]:
            shared, each = play(plan, place.make_store), play(plan, alone)
            holds = shared.reached_before < each.reached_before / 3
            return (
                holds,
                f"{shared.reached_before} failing calls until all were open; {each.reached_before} each for itself",
            )

        yield Claim(f"20 processes over {place.text}, {per_s:.2g} calls/s each", find)


# One is sick


def sick_ones(seconds: float) -> Iterator[Claim]:
    """Give what is claimed of fleets with one process whose calls all fail."""
    for processes in (3, 10):
        for per_s in (0.3, 1.0, 20.0, 200.0):

            def find(processes: int = processes, per_s: float = per_s) -> tuple[bool, str]:
                found = sick.watch(processes, per_s, seconds)
                return found.rejected == 0, f"{found.rejected} of {found.calls:,} calls of healthy processes rejected"

            yield Claim(
                f"one sick process of {processes}, {per_s:g} calls/s each, {seconds:.0f} s of virtual time", find
            )


# What it costs


def costs() -> Iterator[Claim]:
    """Give what is claimed of calls and memory."""

    def calls() -> tuple[bool, str]:
        found = cost.ratios()
        return max(found.values()) <= 1.03, ", ".join(f"{kind} {ratio:.3f} x" for kind, ratio in found.items())

    def memory() -> tuple[bool, str]:
        each = cost.bytes_each()
        return each <= 1_024, f"{each:.0f} bytes"

    yield Claim("a call with a store, in units of one without", calls)
    yield Claim("what a store adds to a breaker", memory)


# The store fails


def bad_stores(found: list[faults.Fault]) -> Iterator[Claim]:
    """Give what is claimed of processes whose store fails."""
    for fault in found:

        def find(fault: faults.Fault = fault) -> tuple[bool, str]:
            seen = faults.suffer(fault, FAULT_S)
            holds = (
                not seen.wrong
                and max(seen.closed_s, seen.open_s) <= 0.25 + BUSY_S
                and (seen.away or not fault.noticed)
                and seen.right_after_s <= RIGHT_AFTER_S
            )
            return holds, (
                f"no call waited over {1000 * seen.closed_s:.0f} ms while closed, {1000 * seen.open_s:.0f} ms while "
                f"open; {len(seen.wrong)} wrong errors; on its own: {'yes' if seen.away else 'no'}; "
                f"right again after {seen.right_after_s:.1f} s"
            )

        yield Claim(fault.name, find)


def killed(place: Place) -> Claim:
    """Give what is claimed if a process dies that holds the only probe."""

    def find() -> tuple[bool, str]:
        waited_s = faults.killed_holder(place.make_store)
        return waited_s <= LEASE_S + 2.0, f"another one could probe after {waited_s:.1f} s"

    return Claim(f"kill -9 of the process with the only probe, over {place.text}", find)


def forks(store: SQLiteStore, children: int) -> Claim:
    """Give what is claimed of processes that are forked in the middle of exchanges."""

    def find() -> tuple[bool, str]:
        breaker = CircuitBreaker("forked", store=store)

        def tell() -> str:
            for _ in range(10):
                breaker.call(int)
            store.sync()
            return breaker.state.value

        bad = 0
        for _ in range(children):
            breaker.call(int)
            bad += told_by_child(tell) != repr("closed")
        store.sync()
        found = {circuit.name: circuit.successes for circuit in store.circuits()}["forked"]
        return (
            bad == 0 and found == 11 * children,
            f"{bad} children that hang, {found} of {11 * children} calls counted",
        )

    return Claim(f"{children} forks in the middle of exchanges", find)


# A large fleet


def large(server: RedisServer) -> Iterator[Claim]:
    """Give what is claimed of Redis."""

    def fleet() -> tuple[bool, str]:
        found = load.measure(server)
        return found.core <= 0.2, f"{found.commands_per_s:,.0f} commands/s, {found.core:.0%} of a core of Redis"

    def exchange() -> tuple[bool, str]:
        one, twenty = load.seconds_of(server, 1), load.seconds_of(server, 20)
        return twenty <= 0.02, f"{1000 * one:.2f} ms for one circuit, {1000 * twenty:.2f} ms for 20"

    yield Claim("1,000 processes with 20 circuits each", fleet)
    yield Claim("an exchange with Redis", exchange)


def claims(long: bool, stack: ExitStack) -> Iterator[Claim]:
    """Give all that is claimed."""
    yield from costs()
    yield from sick_ones(3_600.0 if long else 120.0)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    folder.chmod(0o777)
    number = count()

    def in_file() -> Callable[[], Any]:
        path = folder / f"{next(number)}.db"
        return lambda: SQLiteStore(path)

    sqlite = Place("one SQLite file", in_file(), 8, 60)
    places = [sqlite]
    if BINARY is not None:
        import redis

        server = stack.enter_context(RedisServer())
        places.append(Place("Redis", lambda: RedisStore(redis.Redis(port=server.port, socket_timeout=0.25)), 20, 120))
    yield from outages(places)
    if long:
        yield from rare_callers(places[-1])
    yield from map(killed, [place._replace(make_store=in_file()) if place is sqlite else place for place in places])
    yield forks(SQLiteStore(folder / "forks.db", interval_s=0.002, timeout_s=5.0), 1_000 if long else 300)
    yield from bad_stores(faults.sqlite_faults(folder))
    if BINARY is not None:
        yield from bad_stores(faults.redis_faults(server))
        yield from large(server)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long form")
    parser.add_argument("words", nargs="*", help="only claims with all of these words")
    given = parser.parse_args()

    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}", flush=True)
    if BINARY is None:
        print("there is no redis-server: what needs it is left out", flush=True)
    found = bad = 0
    begun = time.perf_counter()
    with ExitStack() as stack:
        for claim in claims(given.long, stack):
            if not all(word in claim.text for word in given.words):
                continue
            started = time.perf_counter()
            holds, figure = claim.find()
            found, bad = found + 1, bad + (not holds)
            seconds = time.perf_counter() - started
            print(f"{'ok ' if holds else 'BAD'} {claim.text}: {figure} ({seconds:.0f} s)", flush=True)
    print(f"\n{found} claims, {bad} do not hold ({time.perf_counter() - begun:.0f} s)")
    return 1 if bad or not found else 0


if __name__ == "__main__":
    sys.exit(main())
