"""What a record is as a text, and what is made of texts that are none of ours."""

from __future__ import annotations

import json
from math import inf, nan
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker import CircuitMode
from circuit_breaker._shared.protocol import Member, member_text
from circuit_breaker._shared.record import (
    LONGEST_REASON,
    LONGEST_TEXT,
    Lease,
    Record,
    Rules,
    Unreadable,
    printable,
    read,
)

PLAIN: dict[str, Any] = json.loads(
    Record(7, True, 100.5, "down", "a:1", rules=Rules(5.0, 3, 2, 1), leases=(Lease("ab12", 110.0, 10.0),)).text()
)

records = st.builds(
    Record,
    epoch=st.integers(1, 2**53 - 1),
    open=st.booleans(),
    since=st.floats(allow_nan=False, allow_infinity=False),
    reason=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=50),
    by=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=50),
    mode=st.sampled_from([CircuitMode.AUTO, CircuitMode.FORCED_CLOSED]),
    openings=st.integers(0, 99),
    successes=st.integers(0, 99),
    failures=st.integers(0, 99),
    rules=st.builds(Rules, st.floats(0, 1e6) | st.just(inf), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    leases=st.lists(st.builds(Lease, st.text("0123abcd", min_size=1), st.floats(0, 1e9), st.floats(0, 99))).map(tuple),
)


@given(records)
@examples()
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    assert read(record.text()) == record


def test_no_text_is_no_record() -> None:
    assert read(None) is None


def test_an_open_time_beyond_all_bounds_is_endless() -> None:
    record = read(Record(1, True, 0.0, "r", "b", rules=Rules(1e300, 1, 1, 1)).text())
    assert record is not None
    assert record.rules.open_s == inf


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "\x00\xff",
        "null",
        "7",
        "[]",
        '"text"',
        "{}",
        "[" * 60_000,
        '{"v":' + "9" * 60_000 + "}",
        "NaN",
        json.dumps(PLAIN) + " " * LONGEST_TEXT,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_record_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize(
    "changed",
    [
        {"v": 2},
        {"v": None},
        {"epoch": 0},
        {"epoch": -1},
        {"epoch": True},
        {"epoch": 7.0},
        {"epoch": 2**53},
        {"open": 1},
        {"since": "100"},
        {"since": nan},
        {"since": inf},
        {"since": True},
        {"reason": None},
        {"by": 7},
        {"mode": "shadow"},
        {"mode": "maybe"},
        {"openings": -1},
        {"rules": [5.0, 3, 2]},
        {"rules": [-1.0, 3, 2, 1]},
        {"rules": [5.0, 0, 2, 1]},
        {"rules": None},
        {"successes": 1.5},
        {"failures": "1"},
        {"leases": [["a", 1.0]]},
        {"leases": [["a", None, 1.0]]},
        {"leases": [["a", 1.0, -1.0]]},
        {"leases": 3},
    ],
    ids=str,
)
def test_a_field_that_cannot_be_is_unreadable(changed: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        read(json.dumps(PLAIN | changed))


@pytest.mark.parametrize("missing", PLAIN)
def test_a_missing_field_is_unreadable(missing: str) -> None:
    with pytest.raises(Unreadable):
        read(json.dumps({name: value for name, value in PLAIN.items() if name != missing}))


def test_a_field_of_a_later_version_of_this_library_is_passed_over() -> None:
    assert read(json.dumps(PLAIN | {"new": 1})) == read(json.dumps(PLAIN))


def test_texts_of_others_are_short_and_on_one_line() -> None:
    record = read(json.dumps(PLAIN | {"reason": "a\nWARNING forged\x1b[2J" + "x" * 60_000, "by": "\ud800\u202e"}))
    assert record is not None
    assert record.reason.startswith("a\\nWARNING forged\\x1b[2Jxxx")
    assert len(record.reason) < LONGEST_REASON + 10
    assert record.by == "\\ud800\\u202e"


def test_the_message_about_an_unreadable_record_is_printable() -> None:
    with pytest.raises(Unreadable) as raised:
        read(json.dumps(PLAIN | {"v": "\n" * 1_000}))
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 2 * LONGEST_REASON


def test_a_plain_text_stays_as_it_is() -> None:
    assert printable("5 failures in a row (threshold 5)") == "5 failures in a row (threshold 5)"


@pytest.mark.parametrize("name", ["circuit", "\N{SNOWMAN}" * 10, "\N{PILE OF POO}" * 20])
def test_a_process_with_more_circuits_than_a_line_holds_is_listed_with_some_of_them(name: str) -> None:
    circuits = {f"{name} {number}": "closed" for number in range(10_000)}
    line = member_text(circuits, 1.0, 60.0)
    assert len(line) < LONGEST_TEXT
    member = Member.read(line, 5.0, 5.0)
    assert member is not None
    assert 100 < len(member.circuits) < 10_000
    assert member.circuits.items() <= circuits.items()
