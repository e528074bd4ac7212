"""What a breaker does to a service in trouble: runs of a model with and without one, side by side."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import Any, Final, NamedTuple

from .._breaker.config import CircuitBreakerConfig
from .._terminal import Paint
from .model import BEFORE_S, Call, Fate, Kind, Run, Service
from .report import data, wording

STARTING_VALUES: Final = CircuitBreakerConfig(
    failure_threshold=18, error_rate_threshold=0.5, error_rate_window=50, minimum_calls=20, reset_timeout_s=5
)
AS_WELL: Final = 0.98  # of the share before the outage, for a time to be well again
FOR_S: Final = 5  # seconds that this must last
MUCH: Final = 0.03  # of the calls of the outage, for a difference to be worth a sentence
WITHOUT: Final = "no breaker"


class Measures(NamedTuple):
    """What came out of one run.

    Attributes:
        before: the share of calls that went well before the outage; `during` and `after` likewise.
        load: tries a second that were sent during the outage, as a part of what the server can serve.
        starved: calls that got no caller.
        recovery_s: seconds from the end of the outage until calls went as well as before; infinite if they never did.
    """

    before: float
    during: float
    after: float
    load: float
    starved: float
    recovery_s: float


@dataclass(frozen=True)
class Column:
    """A setting, and what came out of its runs; `config` is None where there is no breaker."""

    name: str
    config: CircuitBreakerConfig | None
    runs: list[Measures]

    def middle(self) -> Measures:
        """Return the median of the runs, each figure for itself."""
        return Measures(*(median(values) for values in zip(*self.runs, strict=True)))


def simulate(
    service: Service,
    configs: Sequence[tuple[str, CircuitBreakerConfig | None]],
    seed: int,
    runs: int,
    progress: Callable[[str, float | None], object],
) -> list[Column]:
    """Return what comes out with each of these settings."""
    columns: list[Column] = []
    for number, (name, config) in enumerate(configs):
        measured: list[Measures] = []
        for run in range(runs):
            progress("simulating", (number * runs + run) / (len(configs) * runs))
            one = Run(service, config, f"{seed} {run}")
            one.run()
            measured.append(measure(service, one))
        columns.append(Column(name, config, measured))
    return columns


def measure(service: Service, run: Run) -> Measures:
    """Return the figures of a run that is over."""
    begin, end = BEFORE_S, BEFORE_S + service.outage_s
    sent = bisect_left(run.tries_at, end) - bisect_left(run.tries_at, begin)
    before = _well(run.calls, 0.0, begin)
    # The last calls may not have had the time to end.
    last = service.end_s - service.timeout_s * (service.retries + 2)
    return Measures(
        before,
        _well(run.calls, begin, end),
        _well(run.calls, end, last),
        sent / (service.capacity * service.outage_s),
        sum(call.fate is Fate.STARVED for call in run.calls),
        _recovery(run.calls, end, last, AS_WELL * before),
    )


def _arrived(call: Call) -> float:
    return call.arrived


def _well(calls: Sequence[Call], begin: float, end: float) -> float:
    """Return the share of calls that went well, of those that arrived in this time; of none, 1."""
    some = calls[bisect_left(calls, begin, key=_arrived) : bisect_left(calls, end, key=_arrived)]
    return sum(call.fate is Fate.WELL for call in some) / len(some) if some else 1.0


def _recovery(calls: Sequence[Call], end: float, last: float, share: float) -> float:
    second = 0
    while end + second + FOR_S <= last:
        if _well(calls, end + second, end + second + FOR_S) >= share:
            return float(second)
        second += 1
    return inf


# What is printed

ROWS: Final = (
    ("went well before", "before"),
    ("went well during", "during"),
    ("went well after", "after"),
    ("load offered / capacity", "load"),
    ("callers starved", "starved"),
    ("well again after", "recovery_s"),
)


def lines(service: Service, columns: Sequence[Column], paint: Paint) -> Iterator[str]:
    """Give the figures of all settings side by side, each as its median and range over the runs."""
    yield _about(service)
    yield ""
    cells = [[_cell(column, field) for _, field in ROWS] for column in columns]
    widths = [max(len(column.name), *map(len, some)) for column, some in zip(columns, cells, strict=True)]
    label = max(len(head) for head, _ in ROWS)
    yield " " * label + "".join(f"  {column.name:>{width}}" for column, width in zip(columns, widths, strict=True))
    for row, (head, _) in enumerate(ROWS):
        yield f"{head:{label}}" + "".join(f"  {some[row]:>{width}}" for some, width in zip(cells, widths, strict=True))
    yield ""
    for column in columns[1:]:
        yield f"{column.name}: {'' if column.config is None else wording.in_short(column.config)}"
    yield ""
    for sentence in conclusions(columns):
        yield paint(sentence, "bold")
    yield "These are figures of a model. They show what can follow from what, not what your service will do."


def _about(service: Service) -> str:
    kind, measure = service.trouble
    what = {
        Kind.FULL: "every try fails at once",
        Kind.HANG: "no try is answered",
        Kind.PARTIAL: f"{wording.exact_share(measure)} of the tries fail",
        Kind.SLOW: "the server is 20 times slower",
        Kind.FLAPPING: "every try fails for 10 s, none for 10 s, and so on",
        Kind.GRADUAL: "more and more tries fail",
        Kind.SURGE: f"{measure:g} times as many calls arrive",
    }[kind]
    return (
        f"{service.rate:g} calls/s of {wording.number(service.callers, 'caller')} with "
        f"{wording.number(service.retries, 'retry', 'retries')}, a server for {service.capacity:g} tries/s; "
        f"for {wording.seconds(service.outage_s)} {what}."
    )


def _cell(column: Column, field: str) -> str:
    values = sorted(getattr(run, field) for run in column.runs)
    low, middle, high = (_shown(field, value) for value in (values[0], median(values), values[-1]))
    return middle if low == high else f"{middle} ({low} to {high})"


def _shown(field: str, value: float) -> str:
    if field == "recovery_s":
        return "at once" if not value else wording.seconds(value) if value < inf else "not in this run"
    if field == "load":
        return f"{value:.2f}"
    return f"{value:,.0f}" if field == "starved" else f"{value:.1%}"


def conclusions(columns: Sequence[Column]) -> Iterator[str]:
    """Say where a breaker helps and where it does harm."""
    without = columns[0].middle()
    for column in columns[1:]:
        figures = column.middle()
        gained = figures.during - without.during
        if gained <= -MUCH:
            yield (
                f"During the outage, {column.name} do harm: {figures.during:.0%} of the calls go well, "
                f"{without.during:.0%} without a breaker."
            )
        elif gained >= MUCH:
            yield (
                f"During the outage, {figures.during:.0%} of the calls go well with {column.name}, "
                f"{without.during:.0%} without a breaker."
            )
        if figures.recovery_s < without.recovery_s:
            soon, late = (_shown("recovery_s", found.recovery_s) for found in (figures, without))
            yield f"Calls go well again with {column.name}: {soon} after it; without a breaker: {late}."


def as_data(service: Service, columns: Sequence[Column], seed: int) -> dict[str, Any]:
    """Return the same as what `json.dumps` takes; an infinite time is None."""
    return {
        "seed": seed,
        "service": {
            **vars(service),
            "trouble": {"kind": service.trouble.kind.value, "measure": service.trouble.measure},
        },
        "settings": [
            {
                "name": column.name,
                "config": None if column.config is None else data.config(column.config),
                "runs": [{**run._asdict(), "recovery_s": data.finite(run.recovery_s)} for run in column.runs],
            }
            for column in columns
        ],
        "conclusions": list(conclusions(columns)),
    }
