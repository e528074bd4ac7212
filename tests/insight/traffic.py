"""Traffic with a known truth: ten kinds of it, each a random process that a seed and a number of calls decide.

Two seeds of one kind and size are two logs of the same process: the same rates, habits and kinds of outage, at other
moments and with other luck. `seeds.json` holds the seeds that the promises are tested with; they were chosen before
anything was tuned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from random import Random
from typing import NamedTuple

SEEDS: dict[str, dict[str, list[list[int]]]] = json.loads((Path(__file__).parent / "seeds.json").read_text("utf-8"))

NOON = 1_763_942_400.0  # a Monday in November 2025
DAY_S = 86_400.0


class Truth(NamedTuple):
    """When the dependency really was failing or slow, in seconds from the start of the log."""

    begin: float
    end: float


class Call(NamedTuple):
    """One call: when it began and how long it took, in seconds, and how it ended."""

    begin: float
    took: float
    outcome: str
    error: str | None = None


@dataclass
class Made:
    """A log that was made, and what there is to find in it."""

    kind: str
    calls: list[Call]
    truth: list[Truth]
    length_s: float

    def lines(self, *, circuit: str = "payments", by: str | None = "web-1:4711") -> Iterator[str]:
        """Give the log as the lines of a file, in the order in which the calls ended."""
        for call in sorted(self.calls, key=lambda call: call.begin + call.took):
            line = {"t": round(NOON + call.begin, 6), "ms": round(call.took * 1000, 3), "outcome": call.outcome}
            line |= {"circuit": circuit}
            line |= {} if by is None else {"by": by}
            line |= {} if call.error is None else {"error": call.error}
            yield json.dumps(line) + "\n"


class Process:
    """The dice of one log, and what all kinds have in common."""

    def __init__(self, kind: str, seed: int, calls: int) -> None:
        self.dice = Random(f"{kind} {seed}")
        self.calls = calls
        self.rate = 2.0 * (calls / 10_000) ** 0.38  # calls a second: 2 for ten thousand, 11.5 for a million
        self.length_s = calls / self.rate

    def arrivals(self, rate: Callable[[float], float] | None = None) -> Iterator[float]:
        """Give the beginnings of calls at random; the rate may change with the time."""
        now = 0.0
        for _ in range(self.calls):
            now += self.dice.expovariate(self.rate if rate is None else rate(now))
            yield now

    def usual(self) -> float:
        """Return how long a call takes when all is well."""
        return min(self.dice.lognormvariate(-3.5, 0.6), 3.0)

    def places(self, number: int, shortest_s: float, longest_s: float) -> list[Truth]:
        """Return that many times at which something is wrong, each in its own part of the log."""
        part = self.length_s * 0.9 / number
        found = []
        for index in range(number):
            lasts = self.dice.uniform(shortest_s, min(longest_s, part / 2))
            begin = self.length_s * 0.05 + part * index + self.dice.uniform(0.05, 0.95) * (part - lasts)
            found.append(Truth(begin, begin + lasts))
        return found

    def ordinary(self, begin: float, share: float) -> Call:
        """Return a call in ordinary times, of which this share fails."""
        if self.dice.random() >= share:
            return Call(begin, self.usual(), "success")
        if self.dice.random() < 0.5:
            return Call(begin, self.dice.uniform(0.001, 0.1), "failure", "ConnectionError")
        return Call(begin, 3.0, "failure", "TimeoutError")


def within(times: list[Truth], moment: float) -> Truth | None:
    return next((time for time in times if time.begin <= moment < time.end), None)


def steady(process: Process) -> tuple[list[Call], list[Truth]]:
    """One call in a hundred fails, and nothing ever happens."""
    return [process.ordinary(begin, 0.01) for begin in process.arrivals()], []


def full(process: Process) -> tuple[list[Call], list[Truth]]:
    """Twice everything fails: once at once, once after three seconds each."""
    truth = process.places(2, 60, 300)

    def call(begin: float) -> Call:
        outage = within(truth, begin)
        if outage is None:
            return process.ordinary(begin, 0.005)
        if outage is truth[0]:
            return Call(begin, process.dice.uniform(0.001, 0.01), "failure", "ConnectionError")
        return Call(begin, 3.0, "failure", "TimeoutError")

    return [call(begin) for begin in process.arrivals()], truth


def thirty(process: Process) -> tuple[list[Call], list[Truth]]:
    """Thirty per cent fail for some minutes."""
    truth = process.places(2, 240, 600)
    return [process.ordinary(begin, 0.30 if within(truth, begin) else 0.005) for begin in process.arrivals()], truth


def flapping(process: Process) -> tuple[list[Call], list[Truth]]:
    """Down and up again, every quarter of a minute or so."""
    truth = process.places(2, 200, 400)
    down: list[Truth] = []
    for episode in truth:
        now = episode.begin
        while now < episode.end:
            end = now + process.dice.uniform(12, 25)
            down.append(Truth(now, end))
            now = end + process.dice.uniform(8, 18)
    truth = [Truth(one.begin, max(d.end for d in down if one.begin <= d.begin < one.end)) for one in truth]

    def call(begin: float) -> Call:
        if within(down, begin):
            return Call(begin, process.dice.uniform(0.001, 0.1), "failure", "ConnectionError")
        return process.ordinary(begin, 0.005)

    return [call(begin) for begin in process.arrivals()], truth


def slow_first(process: Process) -> tuple[list[Call], list[Truth]]:
    """Thirty times slower for a while, then it hangs until every call times out."""
    truth = process.places(2, 180, 400)

    def call(begin: float) -> Call:
        outage = within(truth, begin)
        if outage is None:
            return process.ordinary(begin, 0.005)
        if begin < outage.begin + (outage.end - outage.begin) * 0.4:
            return Call(begin, min(30 * process.usual(), 4.9), "success")
        return Call(begin, 5.0, "failure", "TimeoutError")

    return [call(begin) for begin in process.arrivals()], truth


def day(process: Process) -> tuple[list[Call], list[Truth]]:
    """A day with a quiet night at both ends; half of the calls fail at noon, all of them in the evening."""
    process.length_s = DAY_S
    average = process.calls / DAY_S
    noon = DAY_S * 0.5 + process.dice.uniform(-3600, 3600)
    evening = DAY_S * 0.85 + process.dice.uniform(-1800, 1800)
    truth = [Truth(noon, noon + 600), Truth(evening, evening + 900)]

    def rate(now: float) -> float:
        return average * max(0.03, 1.0 - cos(2 * pi * now / DAY_S)) if now < DAY_S else average

    def call(begin: float) -> Call:
        outage = within(truth, begin)
        share = 0.004 if outage is None else 0.5 if outage is truth[0] else 1.0
        return process.ordinary(begin, share)

    return [call(begin) for begin in process.arrivals(rate)], truth


def deploys(process: Process) -> tuple[list[Call], list[Truth]]:
    """Six times three calls in a row fail, since a server was restarted; that is no outage."""
    times = [time.begin for time in process.places(6, 60, 60)]
    calls: list[Call] = []
    failing = 0
    for begin in process.arrivals():
        if times and begin >= times[0]:
            times.pop(0)
            failing = 3
        if failing:
            failing -= 1
            calls.append(Call(begin, process.dice.uniform(0.001, 0.01), "failure", "ConnectionError"))
        else:
            calls.append(process.ordinary(begin, 0.003))
    return calls, []


def bursty(process: Process) -> tuple[list[Call], list[Truth]]:
    """A call that fails is tried three times more, and mostly fails again; once everything does."""
    truth = process.places(1, 90, 240)
    calls: list[Call] = []
    for begin in process.arrivals():
        if len(calls) >= process.calls:
            break
        down = within(truth, begin) is not None
        call = process.ordinary(begin, 1.0 if down else 0.006)
        calls.append(call)
        now = begin
        for pause in (0.1, 0.2, 0.4):
            if call.outcome == "success":
                break
            now += call.took + pause * process.dice.uniform(0.5, 1.0)
            call = process.ordinary(now, 1.0 if within(truth, now) else 0.7)
            calls.append(call)
    return sorted(calls), truth


def storms(process: Process) -> tuple[list[Call], list[Truth]]:
    """Storms of calls, of which most are told 429: too many requests."""
    truth = process.places(4, 30, 90)

    def call(begin: float) -> Call:
        if within(truth, begin) and process.dice.random() < 0.7:
            return Call(begin, process.dice.uniform(0.002, 0.008), "failure", "TooManyRequests")
        return process.ordinary(begin, 0.004)

    def rate(now: float) -> float:
        return process.rate * (3.0 if within(truth, now) else 1.0)

    return [call(begin) for begin in process.arrivals(rate)], truth


def replica(process: Process) -> tuple[list[Call], list[Truth]]:
    """One of three replicas is down: a third of the calls fails at once."""
    truth = process.places(2, 300, 900)

    def call(begin: float) -> Call:
        if within(truth, begin) and process.dice.randrange(3) == 0:
            return Call(begin, process.dice.uniform(0.001, 0.005), "failure", "ConnectionError")
        return process.ordinary(begin, 0.006)

    return [call(begin) for begin in process.arrivals()], truth


KINDS: dict[str, Callable[[Process], tuple[list[Call], list[Truth]]]] = {
    "steady": steady,
    "full outage": full,
    "30% outage": thirty,
    "flapping": flapping,
    "slow before it fails": slow_first,
    "day with quiet nights": day,
    "deploys": deploys,
    "bursty retries": bursty,
    "429 storms": storms,
    "one of three replicas": replica,
}


def make(kind: str, seed: int, calls: int) -> Made:
    """Return the log of this kind, seed and size."""
    process = Process(kind, seed, calls)
    made, truth = KINDS[kind](process)
    last = max(call.begin for call in made)
    return Made(kind, made, [time for time in truth if time.begin < last], max(process.length_s, last))
