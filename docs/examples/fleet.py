"""Simulate 200 clients that need more than their server can give: without retries, with them, and with a budget.

Time is that of a fake clock, so a minute takes seconds and comes out the same each time. The calls go through real
policies. `python docs/examples/fleet.py` prints the table of `docs/how-to/load.md` and draws `docs/pictures/fleet.svg`.

The server serves a thousand requests a second and rejects the rest. To reject one costs it a part of what it costs to
serve one, because it must accept the connection and read the request first.
"""

from __future__ import annotations

import heapq
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from random import Random
from typing import Any

from circuit_breaker import RetryBudget, RetryPolicy
from circuit_breaker.testing import FakeClock

CLIENTS, CAPACITY = 200, 1000  # the capacity in requests a second
EASE, OVERLOAD = 0.8, 1.2  # what the calls alone need, as a share of the capacity
SECONDS, FROM, TO = 30, 5, 20  # the overload lasts from one second to the other
COST_OF_REJECTION = 0.15
BACKLOG_S = 0.1  # work the server can be behind, or ahead
PICTURE = Path(__file__).parent.parent / "pictures" / "fleet.svg"

Budget = Callable[[FakeClock], RetryBudget | None]
FLEETS: dict[str, tuple[int, Budget]] = {
    "no retries": (0, lambda clock: None),
    "3 retries": (3, lambda clock: None),
    "3 retries and RetryBudget()": (3, lambda clock: RetryBudget(clock=clock)),
    "3 retries and RetryBudget(0.1, 0)": (3, lambda clock: RetryBudget(0.1, 0, clock=clock)),
}


class Rejected(Exception):
    """The server has too much to do."""


@dataclass
class Server:
    """Does so much work a second, and no more; counts the requests it sees."""

    capacity: float
    clock: FakeClock
    seen: Counter[int] = field(default_factory=Counter)
    spare: float = 0.0
    since: float = 0.0

    async def request(self) -> None:
        """Serve a request, or reject it."""
        now, backlog = self.clock(), self.capacity * BACKLOG_S
        self.spare = min(self.spare + (now - self.since) * self.capacity, backlog)
        self.since = now
        self.seen[int(now)] += 1
        if self.spare < 1:
            self.spare = max(self.spare - COST_OF_REJECTION, -backlog)
            raise Rejected
        self.spare -= 1


@dataclass
class Figures:
    """What was counted, by the second in which a request was seen or a call begun."""

    calls: Counter[int] = field(default_factory=Counter)
    succeeded: Counter[int] = field(default_factory=Counter)
    seen: Counter[int] = field(default_factory=Counter)

    def requests_per_call(self, begin: int = FROM, end: int = TO) -> float:
        """Return the load factor: how many requests the server sees for each call that clients make."""
        return total(self.seen, begin, end) / total(self.calls, begin, end)

    def success(self, begin: int = FROM, end: int = TO) -> float:
        """Return the share of calls that succeed, at the first attempt or a later one."""
        return total(self.succeeded, begin, end) / total(self.calls, begin, end)


def total(counts: Counter[int], begin: int, end: int) -> int:
    """Return the sum over some seconds."""
    return sum(counts[second] for second in range(begin, end))


@types.coroutine
def sleep(seconds: float) -> Generator[float]:
    """Hand the seconds to the loop of `happen`; this is the `sleep=` of its policies."""
    yield seconds


def happen(retries: int, budget: Budget, clients: int = CLIENTS, capacity: float = CAPACITY) -> Figures:
    """Let a fleet meet the overload; each client has a policy and a budget of its own."""
    clock, chance, figures = FakeClock(), Random(1), Figures()
    server = Server(capacity, clock, figures.seen)
    policies = [
        RetryPolicy(retries, sleep=sleep, clock=clock, random=chance.random, budget=budget(clock))
        for _ in range(clients)
    ]

    async def call(policy: RetryPolicy, second: int) -> None:
        figures.calls[second] += 1
        try:
            await policy.call_async(server.request)
            figures.succeeded[second] += 1
        except Rejected:
            pass

    # What is due: when, a number that makes it unique, and the call; or None, a new one by some client.
    due: list[tuple[float, int, Coroutine[Any, Any, None] | None]] = [(0.0, 0, None)]
    number = 0
    while due:
        when, _, running = heapq.heappop(due)
        clock.advance(max(when - clock(), 0.0))
        number += 1
        if running is None:
            running = call(chance.choice(policies), int(when))
            share = OVERLOAD if FROM <= when < TO else EASE
            following = when + chance.expovariate(share * capacity)
            if following < SECONDS:
                heapq.heappush(due, (following, -number, None))
        try:
            heapq.heappush(due, (when + running.send(None), number, running))
        except StopIteration:
            pass
    return figures


def table(fleets: dict[str, Figures]) -> str:
    """Return the figures of the overload, and of the ten seconds after it, as a table."""
    lines = [
        "| Clients with | Requests per call | Calls that succeed | In the 10 s after |",
        "| --- | --- | --- | --- |",
    ]
    for name, figures in fleets.items():
        after = figures.success(TO, TO + 10)
        lines.append(f"| {name} | {figures.requests_per_call():.2f} | {figures.success():.0%} | {after:.0%} |")
    return "\n".join(lines)


WIDTH, LEFT, HEIGHT, GAP = 660, 50, 150, 34  # in the units of the picture
COLOURS = ("#8b949e", "#c8421f", "#2f6fb0", "#1b7f73")
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #24292f } .faint { fill: #57606a }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round } line { stroke: #8b949e; stroke-width: 1 }
.limit { stroke-dasharray: 5 4 } .overload { fill: #8b949e; opacity: 0.15 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .faint { fill: #9aa4af } }"""


def x(second: float) -> float:
    """Return where a second is."""
    return LEFT + second * (WIDTH - LEFT - 20) / SECONDS


def panel(title: str, top: int, highest: float, marks: dict[float, str], lines: list[list[float]]) -> list[str]:
    """Return one line for each fleet, over the seconds."""

    def y(value: float) -> float:
        return top + HEIGHT * (1 - value / highest)

    parts = [f'<text x="{LEFT}" y="{top - 10}">{title}</text>']
    parts.append(
        f'<rect class="overload" x="{x(FROM):.1f}" y="{top}" width="{x(TO) - x(FROM):.1f}" height="{HEIGHT}"/>'
    )
    for value, words in marks.items():
        kind = "limit" if value == 1 else ""
        parts.append(
            f'<line class="{kind}" x1="{LEFT}" y1="{y(value):.1f}" x2="{x(SECONDS):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text class="faint" x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{words}</text>')
    for colour, line in zip(COLOURS, lines, strict=True):
        points = " ".join(f"{x(second + 0.5):.1f},{y(value):.1f}" for second, value in enumerate(line))
        parts.append(f'<polyline stroke="{colour}" points="{points}"/>')
    return parts


def draw(fleets: dict[str, Figures]) -> str:
    """Return the picture."""
    seconds = range(SECONDS)
    seen = [[figures.seen[second] / CAPACITY for second in seconds] for figures in fleets.values()]
    success = [[figures.success(second, second + 1) for second in seconds] for figures in fleets.values()]
    second_top = 30 + HEIGHT + GAP + 20
    parts = panel("Requests that the server sees, as a multiple of what it can serve", 30, 5, MULTIPLES, seen)
    parts += panel("Calls that succeed", second_top, 1, {0: "0", 0.5: "50 %", 1: "100 %"}, success)
    floor = second_top + HEIGHT
    for second in range(0, SECONDS + 1, 5):
        parts.append(f'<text class="faint" x="{x(second):.1f}" y="{floor + 18}" text-anchor="middle">{second} s</text>')
    left = LEFT
    for name, colour in zip(fleets, COLOURS, strict=True):
        parts.append(f'<rect x="{left}" y="{floor + 33}" width="11" height="11" fill="{colour}"/>')
        parts.append(f'<text x="{left + 17}" y="{floor + 43}">{escape(name)}</text>')
        left += 32 + 6 * len(name)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {floor + 56}" role="img">\n'
        f"<title>200 clients and an overloaded server, with and without a retry budget</title>\n"
        f"<style>\n{STYLE}\n</style>\n{body}\n</svg>\n"
    )


MULTIPLES: dict[float, str] = {value: str(value) for value in range(6)}

if __name__ == "__main__":
    fleets = {name: happen(*fleet) for name, fleet in FLEETS.items()}
    print(table(fleets))
    PICTURE.write_text(draw(fleets), "utf-8")
