"""What is said of a circuit, and which come first."""

from __future__ import annotations

from math import inf

import pytest
from scenes import Scene

from circuit_breaker import CircuitMode
from circuit_breaker.console.rows import Headline, Kind, Row, Tone, headline, key_of, rows_of


@pytest.fixture
def scene() -> Scene:
    return Scene()


def rows(scene: Scene) -> list[Row]:
    return rows_of(scene.store.circuits(), scene.store.members())


def row(scene: Scene) -> Row:
    (found,) = rows(scene)
    return found


def test_a_closed_circuit_admits_calls(scene: Scene) -> None:
    scene.count("api", 1)
    scene.members(["api"])
    found = row(scene)
    assert (found.kind, found.word, found.tone) == (Kind.CLOSED, "closed", Tone.GOOD)
    assert found.meaning() == "admits every call"
    assert (found.cause(), found.retry_s, found.order) == ("", None, None)
    assert found.members() == "8 closed"


def test_an_open_circuit_rejects_until_it_probes(scene: Scene) -> None:
    scene.open("api", for_s=30.0, ago_s=12.0)
    scene.members(["api"], api="for_all")
    found = row(scene)
    assert (found.kind, found.word, found.tone) == (Kind.OPEN, "open", Tone.BAD)
    assert found.meaning() == "rejects every call"
    assert found.cause() == "5 failures in a row, by web-1:12"
    assert found.retry_s == pytest.approx(18.0)
    assert found.members() == "8 open"


def test_a_circuit_that_never_probes_says_so(scene: Scene) -> None:
    scene.open("api", for_s=inf)
    found = row(scene)
    assert found.meaning() == "rejects every call, until somebody resets it"
    assert found.retry_s is None


def test_a_half_open_circuit_admits_probes(scene: Scene) -> None:
    scene.half_open("api", probes=2)
    scene.members(["api"], hosts=1, processes=2, api="for_all")
    found = row(scene)
    assert (found.kind, found.word, found.tone) == (Kind.HALF_OPEN, "half-open", Tone.WARN)
    assert found.meaning() == "admits probes, rejects all other calls"
    assert found.circuit.probes_out == 2
    assert found.members() == "2 half-open"


@pytest.mark.parametrize(
    ("mode", "kind", "tone", "meaning"),
    [
        (CircuitMode.FORCED_OPEN, Kind.FORCED_OPEN, Tone.BAD, "rejects every call, until another order"),
        (
            CircuitMode.FORCED_CLOSED,
            Kind.FORCED_CLOSED,
            Tone.WARN,
            "admits every call, whatever fails, until another order",
        ),
    ],
)
def test_a_forced_circuit_says_who_ordered_it(
    scene: Scene, mode: CircuitMode, kind: Kind, tone: Tone, meaning: str
) -> None:
    scene.order("api", mode, by="dana at console ops-1:7")
    scene.members(["api"])
    found = row(scene)
    assert (found.kind, found.word, found.tone, found.meaning()) == (kind, kind.value, tone, meaning)
    assert found.cause() == "ordered by dana at console ops-1:7"
    assert found.order == kind.value
    assert found.retry_s is None
    assert found.members() == f"8 {kind.value}"


def test_an_order_of_nobody_shows_its_reason(scene: Scene) -> None:
    scene.order("api", CircuitMode.FORCED_OPEN, by="")
    assert row(scene).cause() == "mode forced_open"


def test_the_end_of_a_forced_mode_is_an_order_too(scene: Scene) -> None:
    scene.order("api", CircuitMode.FORCED_OPEN)
    scene.order("api", CircuitMode.AUTO)
    assert (row(scene).kind, row(scene).order) == (Kind.CLOSED, "automatic")
    scene.store.reset("api")
    assert row(scene).order == "reset"


def test_a_record_that_cannot_be_read_is_a_row_that_says_so(scene: Scene) -> None:
    scene.write("api", "garbage")
    scene.members(["api"], hosts=1, processes=1)
    found = row(scene)
    assert (found.kind, found.word, found.tone) == (Kind.UNREADABLE, "unreadable", Tone.WARN)
    assert found.meaning() == "each process decides by itself"
    assert "the record cannot be read" in found.cause()
    assert found.order is None


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("open", "open by itself"),
        ("half_open", "half-open by itself"),
        ("forced_open", "forced open in the process"),
    ],
)
def test_a_closed_circuit_that_one_process_rejects_needs_a_look(scene: Scene, state: str, words: str) -> None:
    scene.count("api")
    scene.members(["api"], hosts=1, processes=7)
    scene.member("web-9", 1, {"api": state})
    found = row(scene)
    assert (found.kind, found.word, found.tone) == (Kind.DIVIDED, "closed", Tone.WARN)
    assert found.meaning() == "admits calls, but 1 of 8 processes rejects"
    assert found.members() == f"7 closed, 1 {words}"


def test_several_processes_reject(scene: Scene) -> None:
    scene.count("api")
    scene.members(["api"], hosts=1, processes=2, api="open")
    found = row(scene)
    assert found.meaning() == "admits calls, but 2 of 2 processes reject"
    assert found.members() == "2 open by themselves"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("forced_closed", "forced closed in the process"),
        ("shadow", "in shadow mode in the process"),
        ("of a later version", "of a later version"),
    ],
)
def test_what_a_process_says_is_put_into_words(scene: Scene, state: str, words: str) -> None:
    scene.count("api")
    scene.member("web-1", 1, {"api": state})
    assert row(scene).members() == f"1 {words}"
    assert row(scene).kind is Kind.CLOSED


def test_without_processes_nothing_is_said_of_them(scene: Scene) -> None:
    scene.count("api")
    assert row(scene).members() == ""


def test_a_process_that_has_no_such_circuit_does_not_count(scene: Scene) -> None:
    scene.count("api")
    scene.member("web-1", 1, {"other": "open"})
    assert row(scene).kind is Kind.CLOSED


def crowded(scene: Scene) -> Scene:
    for name in ("b", "a"):
        scene.count(f"{name} closed")
        scene.open(f"{name} open")
    scene.order("forced closed", CircuitMode.FORCED_CLOSED)
    scene.order("forced open", CircuitMode.FORCED_OPEN)
    scene.half_open("half-open")
    scene.write("unreadable", "x")
    scene.count("divided")
    scene.member("web-1", 1, {"divided": "open"})
    return scene


def test_those_that_need_attention_come_first_and_then_by_name(scene: Scene) -> None:
    names = [found.name for found in rows(crowded(scene))]
    first = ["a open", "b open", "forced open", "half-open", "unreadable", "divided", "forced closed"]
    assert names == [*first, "a closed", "b closed"]


def test_names_and_reasons_are_made_printable(scene: Scene) -> None:
    scene.open("evil\x1b[2J\u202e", reason="a\nb\x00", by="\x07")
    found = row(scene)
    assert found.name == "evil\\x1b[2J\\u202e"
    assert (found.reason, found.by) == ("a\\nb\\x00", "\\x07")


def test_any_names_have_keys_of_their_own() -> None:
    names = ["", "a", "a ", "A", "\ud800", "\udc80", "x" * 10_000, "x" * 9_999 + "y", "<script>"]
    keys = {key_of(name) for name in names}
    assert len(keys) == len(names)
    assert all(key.isalnum() and key.isascii() and len(key) == 20 for key in keys)


# The headline


def test_the_headline_of_calm() -> None:
    scene = Scene()
    scene.count("api")
    assert headline(rows(scene), True) == Headline("1 circuit is closed", "", Tone.GOOD)
    scene.count("mail")
    assert headline(rows(scene), True) == Headline("All 2 circuits are closed", "", Tone.GOOD)


def test_the_headline_names_those_that_reject(scene: Scene) -> None:
    scene.count("mail")
    scene.open("api")
    assert headline(rows(scene), True) == Headline("api is open", "1 open, 1 closed", Tone.BAD)
    scene.order("bank", CircuitMode.FORCED_OPEN)
    expected = Headline("api and bank are open", "1 open, 1 forced open, 1 closed", Tone.BAD)
    assert headline(rows(scene), True) == expected


def test_the_headline_counts_many(scene: Scene) -> None:
    found = headline(rows(crowded(scene)), True)
    assert found.main == "3 of 9 circuits are open"
    assert found.rest == (
        "2 open, 1 forced open, 1 half-open, 1 unreadable, 1 open in some processes, 1 forced closed, 2 closed"
    )


def test_the_headline_of_what_only_needs_a_look(scene: Scene) -> None:
    scene.half_open("api")
    scene.count("mail")
    assert headline(rows(scene), True) == Headline("1 circuit needs a look", "1 half-open, 1 closed", Tone.WARN)
    scene.half_open("mail")
    assert headline(rows(scene), True) == Headline("2 circuits need a look", "2 half-open", Tone.WARN)


def test_the_headline_before_there_is_anything() -> None:
    assert headline([], False) == Headline("Nothing has been read yet", "", Tone.WARN)
    assert headline([], True).main == "No circuits yet"
