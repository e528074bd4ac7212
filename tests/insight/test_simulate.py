"""The model: every call ends somehow, nothing is lost without an outage, and what is known from elsewhere comes out."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from math import inf

import pytest

from circuit_breaker import CircuitBreakerConfig
from circuit_breaker._terminal import no_colours
from circuit_breaker.insight import simulate
from circuit_breaker.insight.model import AFTER_S, BEFORE_S, Call, Fate, Kind, Run, Service, Trouble
from circuit_breaker.insight.simulate import STARTING_VALUES, Column, Measures, measure

# A service in small: a run takes a tenth of a second.
SMALL = Service(rate=20, capacity=40, outage_s=30)
DEFAULTS = CircuitBreakerConfig()
PARTIAL = Trouble(Kind.PARTIAL, 0.5)
TROUBLES = [
    *(Trouble(kind) for kind in Kind if kind not in (Kind.PARTIAL, Kind.SURGE)),
    PARTIAL,
    Trouble(Kind.SURGE, 4.0),
]


def run(service: Service, config: CircuitBreakerConfig | None = None, seed: str = "1") -> Run:
    one = Run(service, config, seed)
    one.run()
    return one


def measured(service: Service, config: CircuitBreakerConfig | None = None, seed: str = "1") -> Measures:
    return measure(service, run(service, config, seed))


@pytest.mark.parametrize("config", [None, DEFAULTS])
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.kind.value)
def test_every_call_ends_once_and_every_caller_is_free_again(
    trouble: Trouble, config: CircuitBreakerConfig | None
) -> None:
    service = replace(SMALL, trouble=trouble, processes=2)
    one = run(service, config)
    fates = Counter(call.fate for call in one.calls)
    assert sum(fates.values()) == len(one.calls)
    assert fates[Fate.UNFINISHED] == service.callers - one._free_callers + len(one._waiting)
    assert 0 <= one._free_workers <= service.workers
    assert len(one._line) <= service.line
    assert len(one.tries_at) >= fates[Fate.WELL]
    assert one.tries_at == sorted(one.tries_at)
    assert config is not None or not fates[Fate.REJECTED]


def test_without_an_outage_nothing_is_lost_and_no_breaker_opens() -> None:
    service = replace(SMALL, trouble=Trouble(Kind.SURGE, 1.0), failing=1e-9)
    for config in (None, DEFAULTS, STARTING_VALUES):
        one = run(service, config)
        assert {call.fate for call in one.calls} <= {Fate.WELL, Fate.UNFINISHED}
        assert measure(service, one)._replace(load=0) == Measures(1, 1, 1, 0, 0, 0)


def test_the_same_seed_is_the_same_run_and_another_is_not() -> None:
    def times(one: Run) -> list[tuple[float, Fate]]:
        return [(call.arrived, call.fate) for call in one.calls]

    assert times(run(SMALL, DEFAULTS)) == times(run(SMALL, DEFAULTS))
    assert times(run(SMALL, DEFAULTS)) != times(run(SMALL, DEFAULTS, "2"))


def test_arrivals_are_the_same_with_and_without_a_breaker() -> None:
    without, with_one = run(SMALL), run(SMALL, DEFAULTS)
    assert [call.arrived for call in without.calls] == [call.arrived for call in with_one.calls]


def test_with_retries_a_breaker_makes_a_partial_outage_worse() -> None:
    """Half of the tries fail: with three retries one call in sixteen does, unless a breaker opens."""
    service = replace(SMALL, trouble=PARTIAL, retries=3)
    assert measured(service).during == pytest.approx(1 - 0.5**4, abs=0.03)
    assert measured(service, DEFAULTS).during < 0.15


def test_in_an_overload_a_breaker_lets_the_server_recover() -> None:
    """Callers give up before the server comes to them, and try again: without a breaker that does not end."""
    service = Service(rate=60, capacity=100, retries=3, callers=1000, outage_s=30, trouble=Trouble(Kind.SLOW))
    assert measured(service).recovery_s == inf
    assert measured(service, DEFAULTS).recovery_s < 30


def test_the_load_is_what_is_sent_during_the_outage() -> None:
    service = replace(SMALL, retries=2)
    assert measured(service).load == pytest.approx(20 * 3 / 40, rel=0.1)
    assert measured(service, DEFAULTS).load < 0.05


def test_callers_starve_where_all_are_busy() -> None:
    service = replace(SMALL, callers=5, retries=0, trouble=Trouble(Kind.HANG))
    without, with_one = measured(service), measured(service, DEFAULTS)
    assert without.starved > 200
    assert with_one.starved < without.starved / 4


def test_the_seconds_until_all_is_healthy_again_are_counted_from_the_end() -> None:
    service = replace(SMALL, outage_s=10.0)
    end = BEFORE_S + 10.0

    def calls(well_from: float) -> list[Call]:
        made = [Call(tenth / 10, 0) for tenth in range(int((end + AFTER_S) * 10))]
        for call in made:
            call.fate = Fate.WELL if call.arrived < BEFORE_S or call.arrived >= well_from else Fate.FAILED
        return made

    one = Run(service, None, "1")
    for well_from, expected in ((end, 0.0), (end + 7.0, 7.0), (inf, inf)):
        one.calls = calls(well_from)
        assert measure(service, one).recovery_s == expected
    one.calls = []
    assert measure(service, one) == Measures(1, 1, 1, 0, 0, 0)


def test_retries_wait_and_rejections_are_not_tried_again() -> None:
    service = replace(SMALL, retries=2)
    one = run(service, CircuitBreakerConfig(failure_threshold=1, reset_timeout_s=1000))
    rejected = [call for call in one.calls if call.fate is Fate.REJECTED]
    assert len(rejected) > 1000
    assert all(call.retries <= 1 for call in rejected)


# What is shown


def columns(*measures: Measures) -> list[Column]:
    configs = [None, DEFAULTS, STARTING_VALUES]
    return [Column(f"column {n}", configs[n], [one]) for n, one in enumerate(measures)]


CALM = Measures(1, 0.5, 1, 1, 0, 0)


def test_conclusions_say_where_a_breaker_helps_and_where_it_does_harm() -> None:
    helps, harms, same = CALM._replace(during=0.6), CALM._replace(during=0.1), CALM._replace(during=0.51)
    assert list(simulate.conclusions(columns(CALM, helps, harms))) == [
        "During the outage, 60% of the calls go well with column 1, 50% without a breaker.",
        "During the outage, column 2 do harm: 10% of the calls go well, 50% without a breaker.",
    ]
    assert list(simulate.conclusions(columns(CALM, same))) == []


def test_conclusions_say_whether_a_breaker_lets_a_server_recover() -> None:
    never, soon = CALM._replace(recovery_s=inf), CALM._replace(recovery_s=4)
    assert list(simulate.conclusions(columns(never, soon, CALM))) == [
        "Calls go well again with column 1: 4 s after it; without a breaker: not in this run.",
        "Calls go well again with column 2: at once after it; without a breaker: not in this run.",
    ]


def test_figures_are_shown_with_their_range() -> None:
    runs = [CALM, CALM._replace(during=0.4, load=1.5, starved=2000, recovery_s=3), CALM._replace(during=0.6)]
    found = [Column("no breaker", None, runs), Column("the defaults", DEFAULTS, [CALM])]
    shown = list(simulate.lines(SMALL, found, no_colours))
    assert shown[0] == (
        "20 calls/s of 100 callers with 2 retries, a server for 40 tries/s; for 30 s every try fails at once."
    )
    cells = {line[:23].rstrip(): line[23:].split("  ") for line in shown}
    assert [cell.strip() for cell in cells["went well during"] if cell] == ["50.0% (40.0% to 60.0%)", "50.0%"]
    assert [cell.strip() for cell in cells["load offered / capacity"] if cell] == ["1.00 (1.00 to 1.50)", "1.00"]
    assert [cell.strip() for cell in cells["callers starved"] if cell] == ["0 (0 to 2,000)", "0"]
    assert [cell.strip() for cell in cells["well again after"] if cell] == ["at once (at once to 3 s)", "at once"]
    assert "the defaults: 5 in a row, 30 s open" in shown
    assert shown[-1].startswith("These are figures of a model.")


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.kind.value)
def test_every_trouble_has_its_words(trouble: Trouble) -> None:
    first = next(simulate.lines(replace(SMALL, trouble=trouble), columns(CALM), no_colours))
    assert first.endswith(".")


def test_several_runs_are_made_and_progress_is_reported() -> None:
    told: list[float | None] = []
    service = replace(SMALL, rate=2, outage_s=5)
    found = simulate.simulate(
        service, [("no breaker", None), ("the defaults", DEFAULTS)], 1, 2, lambda what, part: told.append(part)
    )
    assert told == [0.0, 0.25, 0.5, 0.75]
    assert [len(column.runs) for column in found] == [2, 2]
    plain = json.loads(json.dumps(simulate.as_data(service, found, 1)))
    assert plain["service"]["trouble"] == {"kind": "full", "measure": 0.0}
    assert plain["settings"][0]["config"] is None
    assert plain["settings"][1]["config"]["failure_threshold"] == 5
    assert len(plain["settings"][0]["runs"]) == 2


def test_an_infinite_time_is_none_in_data() -> None:
    plain = simulate.as_data(SMALL, columns(CALM._replace(recovery_s=inf)), 1)
    assert plain["settings"][0]["runs"][0]["recovery_s"] is None
