"""Tell outages from ordinary times: find where more calls went wrong than chance explains.

A call went wrong if it failed or was far too slow. The finder first learns which share goes wrong in ordinary times,
and how much such calls clump together. Then it looks for the most likely course of the dependency through a few levels,
from ordinary to all but dead, where every step up has its price (the Viterbi algorithm).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf, log
from statistics import median
from typing import Final, NamedTuple

from .calls import SUCCESS, Calls

LEVELS: Final = (0.03, 0.10, 0.30, 0.95)
LEAST_SHARE: Final = LEVELS[0]
TIMES_ORDINARY: Final = 3.0  # an outage has at least three times the ordinary share
LEAST_CALLS: Final = 5
SHORTEST_S: Final = 5.0
NEIGHBOURS_S: Final = 30.0  # stretches closer together are one
UP_PRICE: Final = 6.0
STEP_PRICE: Final = 3.0
TIMES_SLOWEST: Final = 4.0  # too slow is four times the 99th percentile
SAMPLE: Final = 100_000
ROUNDS: Final = 10
BLOCKS: Final = 24
FIRST_CLUMP: Final = 4.0


class NoOrdinaryTimesError(ValueError):
    """More than half of all calls went wrong, so nothing tells an outage from ordinary times."""

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self.share = share


class NoBadCallError(ValueError):
    """Nothing went wrong in an outage that was named."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True)
class Ordinary:
    """What ordinary times are like.

    Attributes:
        share: the share of calls that goes wrong.
        clump: how much more their numbers vary than chance alone would make them; at least 1.
        slow_s: a call that took so long went wrong, too.
    """

    share: float
    clump: float
    slow_s: float


@dataclass(frozen=True)
class Outage:
    """A stretch of time in which far more calls went wrong than usual.

    Attributes:
        begin: when the first call that went wrong began; `end`: when the last one did.
        settled: when the last of their results came.
        first: the number of the first call that went wrong; `last`: the number after the last one.
        failed: how many of the calls failed; `slow`: how many others were too slow.
    """

    begin: float
    end: float
    settled: float
    first: int
    last: int
    failed: int
    slow: int

    @property
    def calls(self) -> int:
        """How many calls were made, good ones included."""
        return self.last - self.first

    @property
    def failing_share(self) -> float:
        """The share of calls that failed."""
        return self.failed / self.calls

    @property
    def slow_share(self) -> float:
        """The share of calls that did not fail and were too slow."""
        return self.slow / self.calls


class Run(NamedTuple):
    """Calls that went wrong one after another, and how many went well before them."""

    good_before: int
    first: int
    last: int


def slow_limit(calls: Calls) -> float:
    """Return from how many seconds on a call is too slow: four times what one in a hundred takes in ordinary times."""
    step = ceil(len(calls) / SAMPLE)
    took = [took for took, code in zip(calls.took[::step], calls.outcome[::step], strict=True) if code == SUCCESS]
    size = max(200, len(took) // 400)
    slowest = [sorted(block)[int(len(block) * 0.99)] for block in _blocks(took, size)]
    # The median over blocks, for an outage in which calls are slow is part of the log as well.
    return TIMES_SLOWEST * median(slowest) if slowest and median(slowest) > 0 else inf


def gone_wrong(calls: Calls, slow_s: float) -> bytes:
    """Return 1 for each call that failed or was too slow, and 0 for each other one."""
    failures = calls.failures()
    if slow_s == inf or max(calls.took, default=0.0) < slow_s:
        return failures
    wrong = bytearray(failures)
    for call, took in enumerate(calls.took):
        if took >= slow_s and calls.outcome[call] == SUCCESS:
            wrong[call] = 1
    return bytes(wrong)


def find(calls: Calls, slow_s: float | None = None, ordinary: float | None = None) -> tuple[Ordinary, list[Outage]]:
    """Return what ordinary times are like, and the outages in the order of time.

    Args:
        calls: at least one.
        slow_s: seconds from which a call is too slow; None: four times the 99th percentile of ordinary times.
        ordinary: the share of calls that goes wrong in ordinary times; None: it is found out.

    Raises:
        NoOrdinaryTimesError: more than half of all calls went wrong, and `ordinary` is None.
    """
    slow_s = slow_limit(calls) if slow_s is None else slow_s
    wrong = gone_wrong(calls, slow_s)
    if ordinary is None and sum(wrong) * 2 > len(wrong):
        raise NoOrdinaryTimesError(sum(wrong) / len(wrong))
    runs = list(_runs(wrong))
    share = _better_half(wrong) if ordinary is None else ordinary
    clump = FIRST_CLUMP * _spread(wrong, share)
    found: list[tuple[int, int]] = []
    for _ in range(ROUNDS):
        found = _stretches(calls, wrong, runs, share, clump)
        outside = b"".join(_outside(wrong, found))
        former = share, clump
        clump = max(_spread(outside, share), _cluster(outside, share))
        if ordinary is None:
            share = _share(sum(outside), len(outside))
        if all(abs(now - before) <= 0.05 * before for now, before in zip((share, clump), former, strict=True)):
            break
    return Ordinary(share, clump, slow_s), [outage(calls, wrong, first, last) for first, last in found]


def given(
    calls: Calls, times: Sequence[tuple[float, float]], slow_s: float | None = None
) -> tuple[Ordinary, list[Outage]]:
    """Return what ordinary times are like outside of these times, and the outages in them.

    Raises:
        NoBadCallError: nothing went wrong in one of them.
    """
    slow_s = slow_limit(calls) if slow_s is None else slow_s
    wrong = gone_wrong(calls, slow_s)
    ranges: list[tuple[int, int]] = []
    for number, (begin, end) in enumerate(times):
        first, last = calls.between(begin, end)
        first, last = wrong.find(1, first, last), wrong.rfind(1, first, last) + 1
        if not last:
            raise NoBadCallError(number)
        ranges.append((first, last))
    ranges.sort()
    outside = b"".join(_outside(wrong, ranges))
    share = _share(sum(outside), len(outside))
    clump = max(_spread(outside, share), _cluster(outside, share))
    return Ordinary(share, clump, slow_s), [outage(calls, wrong, first, last) for first, last in ranges]


def outage(calls: Calls, wrong: bytes, first: int, last: int) -> Outage:
    """Return the outage that these calls are, from number `first` up to `last`, that one left out."""
    failed = calls.failures().count(1, first, last)
    settled = max(calls.begin[call] + calls.took[call] for call in range(first, last) if wrong[call])
    slow = wrong.count(1, first, last) - failed
    return Outage(calls.begin[first], calls.begin[last - 1], settled, first, last, failed, slow)


def _share(wrong: int, calls: int) -> float:
    """Return the share of calls that go wrong, never 0: that none has does not say that none will."""
    return (wrong + 0.5) / (calls + 1)


def _blocks(of: Sequence[float], size: int) -> Iterator[Sequence[float]]:
    """Give blocks of this size, the last one perhaps twice as long, or all if there are fewer."""
    whole = max(1, len(of) // size) if of else 0
    for block in range(whole):
        yield of[block * size : (block + 1) * size if block < whole - 1 else len(of)]


def _outside(wrong: bytes, outages: list[tuple[int, int]]) -> Iterator[bytes]:
    """Give the parts of the log between outages."""
    end = 0
    for first, last in outages:
        yield wrong[end:first]
        end = last
    yield wrong[end:]


def _better_half(wrong: bytes) -> float:
    """Return the share of calls that goes wrong in the better half of the log."""
    blocks = sorted(_blocks(wrong, max(50, len(wrong) // BLOCKS)), key=lambda block: sum(block) / len(block))
    better = blocks[: ceil(len(blocks) / 2)]
    return _share(int(sum(sum(block) for block in better)), sum(map(len, better)))


def _spread(wrong: bytes, share: float) -> float:
    """Return how far the numbers in blocks of calls lie below the usual one, against what chance would do.

    Only those below are looked at: in an outage they are above.
    """
    size = max(ceil(2 / share), min(ceil(8 / share), len(wrong) // BLOCKS))
    below = [distance for block in _blocks(wrong, size) if (distance := share * len(block) - sum(block)) > 0]
    chance = share * (1 - share) * size
    return max(1.0, sum(distance * distance for distance in below) / len(below) / chance) if below else 1.0


def _cluster(wrong: bytes, share: float) -> float:
    """Return how many calls go wrong together: the size of clusters, weighted by their size."""
    apart = ceil(0.1 / share)
    sizes = [group.count(1) for group in re.split(b"\x00{%d,}" % apart, wrong)]
    return sum(size * size for size in sizes) / max(1, sum(sizes))


def _runs(wrong: bytes) -> Iterator[Run]:
    end = 0
    for match in re.finditer(b"\x01+", wrong):
        yield Run(match.start() - end, match.start(), match.end())
        end = match.end()


def _stretches(calls: Calls, wrong: bytes, runs: list[Run], share: float, clump: float) -> list[tuple[int, int]]:
    """Return the outages as ranges of call numbers."""
    begin = calls.begin
    least = max(LEAST_SHARE, TIMES_ORDINARY * share)

    def holds(first: int, last: int) -> bool:
        return wrong.count(1, first, last) >= least * (last - first)

    joined: list[tuple[int, int]] = []
    for parts in _likeliest(runs, len(wrong), share, clump):
        goes_on = False
        for first, last in parts:
            # Where calls clump, leaving ordinary times costs so much that ordinary times between two outages may come
            # as a part of one stretch.
            if not holds(first, last):
                goes_on = False
                continue
            near = joined and (goes_on or begin[first] - begin[joined[-1][1] - 1] < NEIGHBOURS_S)
            if near and holds(joined[-1][0], last):
                joined[-1] = joined[-1][0], last
            else:
                joined.append((first, last))
            goes_on = True
    return [
        (first, last)
        for first, last in joined
        if holds(first, last)
        and wrong.count(1, first, last) >= LEAST_CALLS
        and begin[last - 1] - begin[first] >= SHORTEST_S
    ]


def _likeliest(runs: list[Run], calls: int, share: float, clump: float) -> list[list[tuple[int, int]]]:
    """Return where the likeliest course through the levels is above the ordinary one.

    Each stretch is a list of its parts, one for each level, as ranges of call numbers.
    """
    levels = [level for level in LEVELS if level > TIMES_ORDINARY * share]
    good = [0.0] + [log((1 - level) / (1 - share)) for level in levels]
    bad = [0.0] + [log(level / share) for level in levels]
    up, step = (log(calls) + UP_PRICE) * clump, STEP_PRICE * clump
    scores = [0.0] + [-inf] * len(levels)
    steps: list[tuple[list[int], list[int]]] = []  # for each run and level: the levels before, and at, its good calls
    for run in runs:
        scores, before_good = _change(scores, up, step)
        scores = [score + run.good_before * gain for score, gain in zip(scores, good, strict=True)]
        scores, before_bad = _change(scores, up, step)
        scores = [score + (run.last - run.first) * gain for score, gain in zip(scores, bad, strict=True)]
        steps.append((before_good, before_bad))
    found: list[list[tuple[int, int]]] = []
    level = max(range(len(scores)), key=scores.__getitem__)
    goes_on = same_level = False  # with the run after this one
    for run, (before_good, before_bad) in zip(reversed(runs), reversed(steps), strict=True):
        if level and not goes_on:
            found.append([])
        if level:
            last = found[-1].pop()[1] if same_level else run.last
            found[-1].append((run.first, last))
        at_good = before_bad[level]
        former = before_good[at_good]
        goes_on = level > 0 and at_good > 0 and former > 0
        same_level = goes_on and former == level
        level = former
    return [parts[::-1] for parts in found[::-1]]


def _change(scores: list[float], up: float, step: float) -> tuple[list[float], list[int]]:
    """Return the best score of each level if it may change here, and from which level it comes.

    Back to ordinary is free, `up` is the price of leaving it, `step` that of going from one other level to another.
    """
    best = max(range(len(scores)), key=scores.__getitem__)
    highest = max(range(1, len(scores)), key=scores.__getitem__, default=0)
    changed, sources = [scores[best]], [best]
    for level in range(1, len(scores)):
        choices = ((scores[level], level), (scores[highest] - step, highest), (scores[0] - up, 0))
        score, source = max(choices, key=lambda choice: choice[0])
        changed.append(score)
        sources.append(source)
    return changed, sources
