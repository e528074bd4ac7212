"""Settings of other libraries as ours, and what is compared: settings from one log, tried on a second one."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from datetime import timedelta
from math import inf
from typing import NamedTuple

from traffic import Made, make

from circuit_breaker import CircuitBreakerConfig
from circuit_breaker.insight.calls import FAILURE, IGNORED, SUCCESS, Calls, Circuit, Log
from circuit_breaker.insight.figures import Figures, Scene, Setting
from circuit_breaker.insight.made import make as make_outages
from circuit_breaker.insight.outages import Outage, find, gone_wrong, outage
from circuit_breaker.insight.recommend import Adviser

DEFAULTS = CircuitBreakerConfig()
# A window of 100 calls, all of which must be in it; ten probes, of which half may fail.
RESILIENCE4J = CircuitBreakerConfig(
    failure_threshold=None,
    error_rate_threshold=0.5,
    error_rate_window=100,
    minimum_calls=100,
    reset_timeout_s=60,
    half_open_max_calls=10,
    success_threshold=6,
    half_open_failure_threshold=5,
)
# A tenth of at least 100 calls in 30 seconds; one probe decides.
POLLY = CircuitBreakerConfig(
    failure_threshold=None,
    error_rate_threshold=0.1,
    error_rate_window=timedelta(seconds=30),
    minimum_calls=100,
    reset_timeout_s=5,
    half_open_max_calls=1,
    success_threshold=1,
)
OTHERS = {"our defaults": DEFAULTS, "resilience4j": RESILIENCE4J, "Polly": POLLY}

OUTCOMES = {"success": SUCCESS, "failure": FAILURE, "ignored": IGNORED}
NEAR_S = 30.0  # what is found so close to the truth is no invention


def log_of(made: Made) -> Log:
    """Return a log that was made as one that was read."""
    begin = array("d", [call.begin for call in made.calls])
    took = array("d", [call.took for call in made.calls])
    calls = Calls(begin, took, bytearray(OUTCOMES[call.outcome] for call in made.calls))
    return Log(made.kind, 0.0, calls, [Circuit(calls)])


def missed(made: Made, found: list[Outage]) -> int:
    """Return how many outages were there and not found."""
    return sum(not any(one.begin < true.end and one.end > true.begin for one in found) for true in made.truth)


def invented(made: Made, found: list[Outage]) -> list[Outage]:
    """Return the outages that were found and not there."""
    return [
        one
        for one in found
        if not any(one.begin < true.end + NEAR_S and one.end > true.begin - NEAR_S for true in made.truth)
    ]


def true_outages(made: Made, log: Log, slow_s: float) -> list[Outage]:
    """Return the true outages of a log, each from its first bad call to its last."""
    wrong = gone_wrong(log.calls, slow_s)
    ranges = [log.calls.between(true.begin, true.end) for true in made.truth]
    return [outage(log.calls, wrong, wrong.find(1, *at), wrong.rfind(1, *at) + 1) for at in ranges]


class Comparison(NamedTuple):
    """What came of one pair of logs."""

    missed: int
    invented: int
    figures: dict[str, Figures]


def compare(kind: str, calls: int, seeds: list[int], answer: float = 0.5) -> Comparison:
    """Derive settings from the log of the first seed, and try them and others on that of the second."""
    first, second = (make(kind, seed, calls) for seed in seeds)
    log, unseen = log_of(first), log_of(second)
    ordinary, found = find(log.calls)
    adviser = Adviser(Scene(log.circuits, found, [True] * len(found), None), make_outages(log, found), None)
    outages = true_outages(second, unseen, ordinary.slow_s)
    scene = Scene(unseen.circuits, outages, [one.failing_share >= answer for one in outages], None)
    settings = {"derived": adviser.advise(answer).config, **OTHERS}
    figures = {name: scene.figures(Setting(name, config)) for name, config in settings.items()}
    _, found_too = find(unseen.calls)
    return Comparison(
        missed(first, found) + missed(second, found_too),
        len(invented(first, found)) + len(invented(second, found_too)),
        figures,
    )


def each_pair(
    seeds: dict[str, dict[str, list[list[int]]]], most: dict[int, int]
) -> Iterator[tuple[str, int, list[int]]]:
    """Give kind, size and seeds of at most so many pairs of each size."""
    for kind, sizes in seeds.items():
        for size, pairs in sizes.items():
            for pair in pairs[: most.get(int(size), 0)]:
                yield kind, int(size), pair


NEVER = inf
