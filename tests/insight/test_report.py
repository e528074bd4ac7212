"""The report in its three forms: the same findings, every text escaped, small, and the same every time."""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import replace
from datetime import timedelta
from functools import cache
from itertools import pairwise
from math import inf
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from settings import log_of
from traffic import KINDS, make

from circuit_breaker import CircuitBreakerConfig, CircuitState, RetryPolicy
from circuit_breaker._terminal import ASCII, BLOCKS, no_colours
from circuit_breaker.insight import study as study_room
from circuit_breaker.insight.calls import FAILURE, SUCCESS, Calls, Circuit, Log
from circuit_breaker.insight.figures import Alarm
from circuit_breaker.insight.outages import Outage
from circuit_breaker.insight.reading.problems import LogError
from circuit_breaker.insight.replay import Change, Course
from circuit_breaker.insight.report import pictures, svg, verdict, wording
from circuit_breaker.insight.report.charts import Charts
from circuit_breaker.insight.report.data import data
from circuit_breaker.insight.report.page import page
from circuit_breaker.insight.report.terminal import text
from circuit_breaker.insight.study import Findings, Question, study

HOSTILE = "<script>alert('&\"')</script>"
SMALL = 200_000
NOTHING_ELSE = Question()


@cache
def log_of_kind(kind: str) -> Log:
    return replace(log_of(make(kind, 1, 10_000)), start=1_763_942_400.0)


@cache
def studied(kind: str, question: Question) -> Findings:
    return study(log_of_kind(kind), question, lambda what, part: None)


def findings(kind: str = "full outage", question: Question = NOTHING_ELSE, **changes: Any) -> Findings:
    """Return what is found in a made log, with changes to it that do not matter to the search."""
    found = studied(kind, question)
    return replace(found, log=replace(found.log, **changes)) if changes else found


def pace(number: int, bad: range, took: float = 0.5) -> Log:
    begin = array("d", map(float, range(number)))
    calls = Calls(
        begin, array("d", [took] * number), bytearray(FAILURE if n in bad else SUCCESS for n in range(number))
    )
    return Log("log", 0.0, calls, [Circuit(calls)])


def elements(found: Findings) -> ET.Element:
    html = page(found)
    assert html.startswith("<!DOCTYPE html>\n")
    return ET.fromstring(html.split("\n", 1)[1])


def words(root: ET.Element) -> str:
    return " ".join(" ".join(root.itertext()).split())


def lines(found: Findings, width: int = 100) -> list[str]:
    return list(text(found, width, BLOCKS, no_colours))


# What is found


def test_what_is_kept_is_as_good_as_what_is_derived() -> None:
    found = findings()
    assert found.kept is found.rows[0]
    assert found.picked is found.kept
    assert verdict.headline(found) == "Keep the defaults: open when 5 calls in a row failed. Probe after 30 s."
    assert verdict.reason(found) == "Nothing derived from this log does noticeably better for the answer 50%."


def test_settings_of_ones_own_come_first_and_may_be_kept() -> None:
    found = findings(question=Question(yours=CircuitBreakerConfig(failure_threshold=6)))
    assert [row.name for row in found.rows][:2] == ["your settings", "the defaults"]
    assert verdict.headline(found).startswith("Keep what you have: open when 6 calls in a row failed.")


def test_the_defaults_may_be_better_than_ones_own() -> None:
    found = findings(question=Question(yours=CircuitBreakerConfig(failure_threshold=10_000)))
    assert found.kept is found.rows[1]
    assert verdict.reason(found) == (
        "With your settings 2 outages worth opening for would have been missed, and 902 failing calls would have "
        "been let through instead of 43. The defaults do better."
    )
    assert not found.current.figures.passed


def test_settings_equal_to_the_defaults_are_the_defaults() -> None:
    found = findings(question=Question(yours=CircuitBreakerConfig()))
    assert [row.name for row in found.rows] == [
        "the defaults",
        "refuse from 10%",
        "refuse from 25%",
        "refuse from 50%",
    ]


def test_another_answer_is_a_row_of_its_own() -> None:
    found = findings(question=Question(refuse_from=0.4))
    assert [row.name for row in found.rows][-2:] == ["refuse from 40%", "refuse from 50%"]
    assert found.advised.name == "refuse from 40%"


def test_false_alarms_are_a_reason_to_change() -> None:
    found = findings("deploys", Question(yours=CircuitBreakerConfig(failure_threshold=2)))
    assert "false alarms" in verdict.reason(found)
    assert len(list(verdict.false_alarms(found))) == 6
    assert list(verdict.false_alarms(found))[-1].startswith("your settings: ")
    assert next(verdict.false_alarms(found)) == (
        "your settings, 2025-11-24 00:09:00: 2 failures in a row (threshold 2)"
    )


def test_opening_for_a_mild_outage_is_a_reason_to_change() -> None:
    found = findings("30% outage", Question(yours=CircuitBreakerConfig(failure_threshold=2)))
    assert "would have opened for 2 outages too mild for it" in verdict.reason(found)
    assert verdict.headline(found).startswith("Open when 50% of the last 50 calls failed, or 18 in a row.")


def test_made_outages_may_be_the_only_reason_to_change() -> None:
    found = findings("steady", Question(yours=CircuitBreakerConfig(failure_threshold=900)))
    assert re.search(r"cost \d+% more than they need to", verdict.reason(found))


def test_outages_may_be_named() -> None:
    found = findings(question=Question(outages=((1_763_942_400.0, 1_763_943_000.0),)))
    assert len(found.outages) == 1
    with pytest.raises(LogError, match="no call failed in the outage number 2 of those given"):
        findings(question=Question(outages=((1_763_942_400.0, 1_763_943_000.0), (1.0, 2.0))))


def test_where_everything_fails_somebody_must_say_what_is_ordinary() -> None:
    log = pace(1000, range(600))
    with pytest.raises(LogError, match=r"^60% of the calls failed, .* as --ordinary 1%$"):
        study(log, Question(), lambda what, part: None)
    assert len(study(log, Question(ordinary=0.01), lambda what, part: None).outages) == 1


# Warnings


def test_a_short_log_says_little_about_false_alarms() -> None:
    assert verdict.warnings(findings())[-1] == (
        "The log is 84 min long. It has no false alarm, but that only shows that there are fewer than 51 a day. "
        "Record for a week to know more."
    )
    week = replace(pace(5000, range(0)))
    week.calls.begin[:] = array("d", (n * 100.0 for n in range(5000)))
    found = study(Log("log", 0.0, week.calls, [Circuit(week.calls)]), Question(), lambda what, part: None)
    assert "fewer than 4 a week" in verdict.warnings(found)[-1]
    week.calls.begin[:] = array("d", (n * 150.0 for n in range(5000)))
    found = study(Log("log", 0.0, week.calls, [Circuit(week.calls)]), NOTHING_ELSE, lambda what, part: None)
    assert not any("for a week to know more" in warning for warning in verdict.warnings(found))


def test_what_a_breaker_rejected_is_said_first() -> None:
    found = findings(holes=[(1000.0, 1200.0)], rejected=500)
    first = verdict.warnings(found)[0]
    assert first.startswith("A breaker rejected 500 calls (4.8% of all) while this log was recorded")
    assert "1 stretch around them" in first
    assert "A breaker rejected 1 call while" in verdict.warnings(findings(holes=[(1.0, 2.0)], rejected=1))[0]
    assert 'class="hole"' in page(found)


def test_what_could_not_be_read_is_said() -> None:
    found = findings(notes=["3 of 400 lines could not be read:\nlog:1: not JSON: 'x'"])
    assert found.log.notes[0] in verdict.warnings(found)
    assert "! 3 of 400 lines could not be read:" in lines(found)
    assert "  log:1: not JSON: 'x'" in lines(found)


def test_a_log_without_outages_leaves_something_unknown() -> None:
    found = findings("steady")
    assert verdict.warnings(found)[0].startswith("This log has no outage.")
    assert verdict.six(found)[:3] == [
        ("0 of 0", "outages opened for, where 50% or more fail"),
        ("1.6 s", "until it opens when every call fails (tried with made outages)"),
        ("-", "of their 0 failing calls spared"),
    ]
    assert "close up" not in page(found)


def test_a_log_of_mild_outages_says_so() -> None:
    assert "No outage in this log is worth opening for" in verdict.warnings(findings("30% outage"))[0]


def test_a_threshold_above_the_answer_is_explained() -> None:
    found = findings("bursty retries", Question(refuse_from=0.1))
    assert any(
        warning.startswith("The threshold is higher than your answer of 10%") for warning in verdict.warnings(found)
    )


def test_slow_calls_are_pointed_out_unless_they_count() -> None:
    found = findings("slow before it fails")
    assert "slow without failing in outage 1, 2. Only the rule for slow calls" in " ".join(verdict.warnings(found))
    counted = findings("slow before it fails", Question(slow_s=0.5))
    assert "without failing" not in " ".join(verdict.warnings(counted))
    assert counted.advised.config.slow_call_duration_s == 0.5
    assert counted.advised.figures.opened_after_s is not None
    assert counted.advised.figures.opened_after_s.median < 30 < found.advised.figures.opened_after_s.median  # type: ignore[union-attr]


def test_without_room_for_a_made_outage_little_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_room, "make", lambda log, outages: [])
    found = study(pace(70, range(20, 50)), NOTHING_ELSE, lambda what, part: None)
    assert found.made == (0, 0.0)
    assert found.rows[0].opens_after_s == []
    assert "How soon it opens" not in page(found)
    assert data(found)["settings"][0]["opens_after_s"] == {}
    calm = study(pace(70, range(0)), NOTHING_ELSE, lambda what, part: None)
    assert verdict.six(calm)[1] == ("-", "until it opens: nobody knows")


# The page


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_xml_small_and_the_same_every_time(kind: str) -> None:
    found = findings(kind)
    html = page(found)
    assert html == page(study(log_of_kind(kind), NOTHING_ELSE, lambda what, part: None))
    assert len(html.encode()) < SMALL
    root = elements(found)
    assert verdict.headline(found) in words(root)
    assert not re.search(r"<script|<link|<img|url\(|@import|href=|src=", html)
    assert all(
        re.fullmatch(r"xmlns|http://www\.w3\.org/\S+", where) for where in re.findall(r"http\S+?(?=[\"'> ])", html)
    )


def test_every_text_is_escaped() -> None:
    found = findings(title=HOSTILE, notes=[f"1 of 2 lines could not be read:\n{HOSTILE}"])
    assert HOSTILE not in page(found)
    assert HOSTILE in words(elements(found))


def test_a_long_title_is_cut() -> None:
    assert f"{'x' * 80}... ·" in page(findings(title="x" * 5000))


def test_it_has_its_parts_in_their_order() -> None:
    root = elements(findings("429 storms"))
    heads = [one.text for one in root.iter("{http://www.w3.org/1999/xhtml}h2")]
    assert heads == [
        "The log",
        "The outages close up",
        "Room between ordinary times and the thresholds",
        "How soon it opens",
        "All figures",
        "What a replay cannot know",
    ]
    assert len(list(root.iter("{http://www.w3.org/1999/xhtml}figure"))) == 1 + 4 + 2
    assert words(root).index("CircuitBreakerConfig(") < words(root).index("The log is")


def test_of_many_outages_those_with_the_most_bad_calls_are_shown() -> None:
    found = findings("deploys")
    many = [Outage(200.0 * n, 200.0 * n + 60, 200.0 * n + 61, 100 * n, 100 * n + 50, n, 0) for n in range(1, 21)]
    question = Question(outages=[(1_763_942_400.0 + one.begin, 1_763_942_400.0 + one.end) for one in many])
    log = log_of(make("steady", 1, 10_000))
    for one in many:
        for call in range(*log.calls.between(one.begin, one.end)):
            log.calls.outcome[call] = FAILURE
    busy = study(replace(log, start=1_763_942_400.0, circuits=[Circuit(log.calls)]), question, lambda what, part: None)
    assert "Shown are 4 of 20, those with the most bad calls." in page(busy)
    assert len(page(busy).encode()) < SMALL
    assert found.outages == []


def test_outages_that_are_close_to_each_other_share_a_number_in_the_whole_log() -> None:
    log = pace(40_000, range(0))
    for begin in (20_000, 20_100):
        log.calls.outcome[begin : begin + 50] = bytes([FAILURE]) * 50
    question = Question(outages=((20_000.0, 20_050.0), (20_100.0, 20_150.0)))
    found = study(replace(log, circuits=[Circuit(log.calls)]), question, lambda what, part: None)
    assert Charts(found).whole_log().count('class="dot"') == 1


@pytest.mark.parametrize(("answer", "closed", "opened"), [(0.05, 0, 1), (0.5, 1, 1), (0.98, 1, 0)])
def test_the_curve_says_where_it_should_open(answer: float, closed: int, opened: int) -> None:
    html = page(findings(question=Question(refuse_from=answer)))
    assert (html.count("should stay closed"), html.count("should open")) == (closed, opened)


def test_false_alarms_are_listed() -> None:
    found = findings("deploys", Question(yours=CircuitBreakerConfig(failure_threshold=2)))
    assert "2 failures in a row (threshold 2)" in words(elements(found))
    assert any(line.startswith("false alarm: your settings, ") for line in lines(found))


def test_late_openings_are_counted_beside_false_alarms() -> None:
    found = findings()
    row = found.rows[0]
    late = replace(row, figures=replace(row.figures, late=[*row.figures.false_alarms, Alarm(1.0, "x")]))
    assert verdict.cells(late)[-1] == "0 (and 1 late)"


def test_a_circuit_flapping_all_the_time_makes_no_large_page() -> None:
    log = pace(20_000, range(5000, 15_000, 2))
    found = study(
        log,
        Question(yours=CircuitBreakerConfig(failure_threshold=1, reset_timeout_s=0, success_threshold=1)),
        lambda what, part: None,
    )
    assert len(page(found).encode()) < SMALL


def test_many_circuits_are_shown_below_each_other() -> None:
    log = log_of(make("full outage", 1, 10_000))
    parts = [Circuit(Calls(log.calls.begin[n::9], log.calls.took[n::9], log.calls.outcome[n::9])) for n in range(9)]
    found = study(replace(log, circuits=parts), Question(), lambda what, part: None)
    assert len(page(found).encode()) < SMALL
    assert "9 processes, each with a circuit of its own." in " ".join(verdict.warnings(found))
    assert "9 of 9" in page(found)
    assert len(pictures.stretches(found.rows[0].figures.courses, 0.0, 100.0, 0.0)) == 5


@pytest.mark.parametrize(
    "config",
    [
        CircuitBreakerConfig(failure_threshold=None, error_rate_threshold=0.5, error_rate_window=timedelta(seconds=30)),
        CircuitBreakerConfig(failure_threshold=None, error_rate_threshold=0.5),
        CircuitBreakerConfig(failure_threshold=6),
    ],
)
def test_the_room_is_that_of_the_rules_there_are(config: CircuitBreakerConfig) -> None:
    found = findings(question=Question(yours=config))
    kept = replace(found, kept=found.rows[0])
    html = page(kept)
    assert ("failures in a row" in html) is (config.failure_threshold is not None)
    assert ("failing share" in html) is (config.error_rate_window == 100 and config.error_rate_threshold is not None)


# The terminal


@pytest.mark.parametrize("width", [60, 79, 100, 300])
@pytest.mark.parametrize("kind", ["429 storms", "deploys"])
def test_no_line_is_wider_than_the_terminal(kind: str, width: int) -> None:
    shown = lines(findings(kind, Question(yours=CircuitBreakerConfig(failure_threshold=2))), width)
    assert max(map(len, shown)) <= max(min(width, 120), 76)
    assert sum("from 10%" in line for line in shown) >= 2


def test_colours_and_marks_are_those_that_are_given() -> None:
    found = findings("429 storms")
    shown = list(text(found, 100, ASCII, lambda words, colour: f"<{colour}>{words}</>"))
    assert "\n".join(shown).replace("→", "").replace("·", "").isascii()
    assert any("<red>#" in line for line in shown)
    assert shown[-1] == "<green>-</> closed  <red>#</> open  <yellow>=</> probing"


def test_without_outages_there_is_no_band() -> None:
    assert "closed" not in lines(findings("steady"))[-1]


# As data


def test_the_data_are_those_of_the_page() -> None:
    found = findings()
    plain = json.loads(json.dumps(data(found)))
    assert plain["verdict"]["headline"] == verdict.headline(found)
    assert plain["verdict"]["keep"] is True
    assert plain["outages"][0]["worth_opening_for"] is True
    assert plain["settings"][0]["good_calls_rejected"] == found.rows[0].figures.good_rejected
    assert plain["settings"][0]["opens_after_s"]["10%"] is None
    assert plain["settings"][0]["config"]["failure_threshold"] == 5


def test_data_of_a_configuration_are_plain() -> None:
    config = CircuitBreakerConfig(
        error_rate_window=timedelta(seconds=30), reset_timeout_s=RetryPolicy().get_delay, half_open_timeout_s=inf
    )
    from circuit_breaker.insight.report.data import config as plain

    found = plain(config)
    assert found["error_rate_window"] == {"seconds": 30.0}
    assert found["reset_timeout_s"] == "get_delay"
    assert found["half_open_timeout_s"] is None
    assert "failure_exceptions" not in found


# Pictures


def test_bins_hold_every_call_once() -> None:
    log = log_of(make("full outage", 1, 10_000))
    found = pictures.bins(log.calls, log.calls.failures(), 0.0, log.length_s, 318)
    assert sum(found.good) + sum(found.bad) == 10_000
    assert sum(found.bad) == log.calls.failures().count(1)
    assert found.end == pytest.approx(log.length_s)


def changes(*times: float) -> Course:
    order = [CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN]
    return Course([Change(at, order[n % 3], order[(n + 1) % 3], "") for n, at in enumerate(times)], [])


def test_states_are_stretches_none_too_short_to_be_seen() -> None:
    course = changes(10.0, 20.0, 20.1, 30.0, 90.0)
    (found,) = pictures.stretches([course], 0.0, 50.0, 1.0)
    assert [(one.state.value, one.begin, one.end) for one in found] == [
        ("closed", 0.0, 10.0),
        ("open", 10.0, 20.0),
        ("closed", 20.0, 30.0),
        ("open", 30.0, 50.0),
    ]
    (found,) = pictures.stretches([course], 15.0, 18.0, 0.1)
    assert [(one.state.value, one.begin, one.end) for one in found] == [("open", 15.0, 18.0)]


@pytest.mark.parametrize(
    ("length", "step", "form"),
    [
        (5, 1, "%H:%M:%S"),
        (50, 10, "%H:%M:%S"),
        (3600, 600, "%H:%M"),
        (86_400, 10_800, "%H:%M"),
        (864_000, 172_800, "%d %b"),
        (7_000_000, 864_000, "%d %b"),
    ],
)
def test_ticks_are_at_round_times(length: float, step: float, form: str) -> None:
    times, shown = pictures.ticks(1_763_942_401.0, 1_763_942_401.0 + length, 9)
    assert shown == form
    assert 1 <= len(times) <= 10
    assert {second - first for first, second in pairwise(times)} <= {step}


def test_a_row_of_dots_has_no_dot_on_another() -> None:
    assert svg.digits(-0.04) in {"0", "-0"}
    assert svg.boxes([], "x") == ""


# Words


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        (0.0, "0%"),
        (0.00123, "0.12%"),
        (0.005, "0.5%"),
        (0.05, "5%"),
        (0.0999, "10%"),
        (0.5, "50%"),
        (1.0, "100%"),
        (0.00001, "0.001%"),
    ],
)
def test_shares_in_words(part: float, shown: str) -> None:
    assert wording.share(part) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0 s"),
        (0.25, "0.25 s"),
        (5.24, "5.2 s"),
        (12.3, "12 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7140, "119 min"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
        (80_000, "22 h"),
        (604_800, "7 days"),
        (inf, "never"),
    ],
)
def test_times_in_words(value: float, shown: str) -> None:
    assert wording.seconds(value) == shown


def busy(counts: Any) -> bool:
    return False


@pytest.mark.parametrize(
    ("settings", "long", "short"),
    [
        ({}, "5 calls in a row failed", "5 in a row, 30 s open"),
        (
            {"error_rate_threshold": 0.5, "error_rate_window": 50, "failure_threshold": 18, "reset_timeout_s": 5},
            "50% of the last 50 calls failed, or 18 in a row",
            "50% of the last 50 or 18 in a row, 5 s open",
        ),
        (
            {"error_rate_threshold": 0.1, "error_rate_window": timedelta(seconds=30), "failure_threshold": None},
            "10% of the last 30 s failed",
            "10% of the last 30 s, 30 s open",
        ),
        (
            {
                "error_rate_threshold": 0.5,
                "slow_call_duration_s": 2,
                "slow_call_rate_threshold": 0.5,
                "failure_threshold": None,
            },
            "50% of the last 100 calls failed, or as many took 2 s or longer",
            "50% of the last 100 or as many took 2 s or longer, 30 s open",
        ),
        (
            {"slow_call_duration_s": 2, "slow_call_rate_threshold": 0.4, "failure_threshold": None},
            "40% of the last 100 calls took 2 s or longer",
            "40% of the last 100 took 2 s or longer, 30 s open",
        ),
        (
            {"trip_when": busy, "reset_timeout_s": RetryPolicy().get_delay},
            "5 calls in a row failed, or busy() says so",
            "5 in a row or busy() says so, as long as a function says open",
        ),
    ],
)
def test_settings_in_words(settings: dict[str, Any], long: str, short: str) -> None:
    config = CircuitBreakerConfig(**settings)
    assert wording.rules(config) == long
    assert wording.in_short(config) == short


def test_settings_as_code_are_what_differs_from_the_defaults() -> None:
    assert wording.code(CircuitBreakerConfig()) == ["CircuitBreakerConfig()"]
    config = CircuitBreakerConfig(
        failure_threshold=None,
        error_rate_threshold=0.25,
        error_rate_window=timedelta(minutes=1),
        reset_timeout_s=inf,
        trip_when=busy,
    )
    assert wording.code(config) == [
        "CircuitBreakerConfig(",
        "    failure_threshold=None,",
        '    reset_timeout_s=float("inf"),',
        "    error_rate_threshold=0.25,",
        "    error_rate_window=timedelta(seconds=60),",
        "    trip_when=busy,",
        ")",
    ]


def test_code_can_be_pasted() -> None:
    for row in findings("bursty retries").rows:
        names: dict[str, Any] = {"CircuitBreakerConfig": CircuitBreakerConfig}
        assert eval("\n".join(wording.code(row.config)), names) == row.config
