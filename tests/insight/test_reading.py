"""Reading logs: what lines say, what is done about those that say nothing, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from logs import write as other_logs

from circuit_breaker.insight.calls import FAILURE, IGNORED, SUCCESS, Log
from circuit_breaker.insight.reading import columns as columns_room
from circuit_breaker.insight.reading import files
from circuit_breaker.insight.reading.conditions import Condition
from circuit_breaker.insight.reading.formats import CLF, EITHER, ISO, OURS, Column, Format, call
from circuit_breaker.insight.reading.log import Choice, read_log
from circuit_breaker.insight.reading.problems import LineError, LogError

ALL = Choice()


def line(number: float, outcome: str = "success", **fields: Any) -> str:
    """Return a line as `CallLog` writes it."""
    return json.dumps({"t": 1000.0 + number, "ms": 12.5, "outcome": outcome, "circuit": "a", "by": "h:1"} | fields)


LINES = [line(number) for number in range(100)]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Log]:
    """Read lines, or bytes, as a file."""

    def read(lines: list[str] | bytes, form: Format = OURS, choice: Choice = ALL, name: str = "log") -> Log:
        path = tmp_path / name
        path.write_bytes(lines if isinstance(lines, bytes) else "".join(f"{one}\n" for one in lines).encode())
        return read_log([str(path)], form, choice, lambda what, part: None)

    return read


def refusal(read: Callable[..., Log], *arguments: Any, **more: Any) -> str:
    with pytest.raises(LogError) as raised:
        read(*arguments, **more)
    return str(raised.value)


# Our own lines


def test_lines_of_ours_are_read(read: Callable[..., Log]) -> None:
    log = read([*LINES[:98], line(98, "failure", ms=2000), line(99, "ignored")])
    assert (log.title, log.start, log.length_s, log.notes, log.rejected) == ("log", 1000.0, 99.0, [], 0)
    assert list(log.calls.begin[:3]) == [0.0, 1.0, 2.0]
    assert (log.calls.took[0], log.calls.took[98]) == (0.0125, 2.0)
    assert list(log.calls.outcome[97:]) == [SUCCESS, FAILURE, IGNORED]
    assert len(log.circuits) == 1


def test_lines_read_at_once_and_one_by_one_give_the_same(
    read: Callable[..., Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line(n, ("success", "failure", "ignored")[n % 3], ms=n / 7, by=f"h:{n % 4}") for n in range(2000)]
    at_once = read(lines)
    monkeypatch.setattr(columns_room.Columns, "add_many_of_ours", lambda self, lines: False)
    one_by_one = read(lines)
    assert at_once.calls.took == one_by_one.calls.took
    assert at_once.calls.begin == one_by_one.calls.begin
    assert at_once.calls.outcome == one_by_one.calls.outcome
    assert len(at_once.circuits) == len(one_by_one.circuits) == 4


def test_unsorted_lines_are_sorted(read: Callable[..., Log]) -> None:
    log = read(LINES[50:] + LINES[:50])
    assert list(log.calls.begin) == [float(number) for number in range(100)]


def test_what_may_be_missing_may_be_missing(read: Callable[..., Log]) -> None:
    log = read([json.dumps({"t": number, "ms": 1, "outcome": "success"}) for number in range(60)])
    assert len(log.circuits) == 1


def test_a_duration_that_cannot_be_is_found_among_usual_lines(read: Callable[..., Log]) -> None:
    log = read([*(line(number) for number in range(200)), line(200, ms=1e300)])
    assert len(log.calls) == 200
    assert "log:201: ms is not a duration" in log.notes[0]


@pytest.mark.parametrize(
    ("unreadable", "why"),
    [
        ("no json", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"a": ' * 100_000, "not JSON"),
        ('{"ms": 1, "outcome": "success"}', "no t"),
        ('{"t": 1, "outcome": "success"}', "no ms"),
        ('{"t": 1, "ms": 1}', "no outcome"),
        ('{"t": 1, "ms": 1, "outcome": 5}', "outcome is none of success, failure, ignored, refused"),
        ('{"t": 1, "ms": 1, "outcome": "ok"}', "outcome is none of success, failure, ignored, refused"),
        ('{"t": "x", "ms": 1, "outcome": "success"}', "t is not a number"),
        ('{"t": true, "ms": 1, "outcome": "success"}', "t is not a number"),
        ('{"t": NaN, "ms": 1, "outcome": "success"}', "t is not a time since 1970"),
        ('{"t": 1e999, "ms": 1, "outcome": "success"}', "t is not a time since 1970"),
        (
            '{"t": 1763942400000, "ms": 1, "outcome": "success"}',
            "t is not a time since 1970; if it is in milliseconds, give --time t:ms",
        ),
        ('{"t": 1, "ms": -1, "outcome": "success"}', "ms is not a duration"),
        ('{"t": 1, "ms": NaN, "outcome": "success"}', "ms is not a duration"),
        ('{"t": 1, "ms": Infinity, "outcome": "success"}', "ms is not a duration"),
        ('{"t": 1, "ms": "x", "outcome": "success"}', "ms is not a number"),
        ('{"t": 1, "ms": false, "outcome": "success"}', "ms is not a number"),
        ('{"t": 1, "ms": 1' + "0" * 400 + ', "outcome": "success"}', "ms is no"),
        ("\0\1\2\xff", "not JSON"),
    ],
)
def test_a_line_that_cannot_be_read_is_counted_and_shown(read: Callable[..., Log], unreadable: str, why: str) -> None:
    log = read([*LINES[:40], unreadable, *LINES[40:]])
    assert len(log.calls) == 100
    (note,) = log.notes
    assert note.startswith("1 of 101 lines could not be read:\n")
    assert f"log:41: {why}" in note
    assert len(note) < 400


def test_of_many_such_lines_the_first_three_are_shown(read: Callable[..., Log]) -> None:
    lines = [line(number) for number in range(1000)]
    log = read([*lines, *("no json",) * 5])
    assert log.notes[0].count("not JSON") == 3


def test_more_than_one_in_a_hundred_is_too_many(read: Callable[..., Log]) -> None:
    message = refusal(read, [*LINES, "first", "second"])
    assert message.startswith("cannot read 2 of 102 lines (at most 1 in 100 is passed over):\n")
    assert "log:101: not JSON: 'first'" in message


def test_lines_that_are_not_json_lead_to_the_options_for_other_logs(read: Callable[..., Log]) -> None:
    message = refusal(read, ["GET / 200"] * 100)
    assert message.endswith(
        "\nCallLog did not write these lines: say what they hold with --pattern, --csv, --time, ..."
    )
    named = Format(duration=Column("took", "s"))
    assert "CallLog" not in refusal(read, ["GET / 200"] * 100, named)


def test_a_missing_column_leads_to_the_option_that_names_it(read: Callable[..., Log]) -> None:
    stamped = Format(pattern=re.compile(r"^(?P<t>\d+)"), failed=Condition("t<0"))
    assert "log:1: no ms, which --duration may name otherwise: '1'" in refusal(read, ["1"] * 100, stamped)
    timed = Format(pattern=re.compile(r"^(?P<ms>\d+)"), failed=Condition("ms<0"))
    assert "log:1: no t, which --time may name otherwise: '1'" in refusal(read, ["1"] * 100, timed)


def test_the_time_of_an_access_log_leads_to_its_unit(read: Callable[..., Log]) -> None:
    form = Format(pattern=re.compile(r"\[(?P<at>.*)\]"), time=Column("at", EITHER), failed=Condition("at=0"))
    message = refusal(read, ["[28/Nov/2025:14:05:09 +0100]"] * 100, form)
    assert "log:1: at is not a time (number of seconds or ISO 8601); give --time at:clf: " in message


def test_a_pattern_that_matches_nothing_is_named(read: Callable[..., Log]) -> None:
    message = refusal(read, ["GET / 200"] * 100, Format(pattern=re.compile("(?P<t>POST)")))
    assert message.endswith(" 100 of 100 lines are not calls by --pattern")
    assert "by --only" in refusal(read, LINES, Format(only=(Condition("circuit=b"),)))


def test_empty_lines_are_passed_over(read: Callable[..., Log]) -> None:
    log = read(["", *LINES, " "])
    assert log.notes == ["2 of 102 lines tell about no call and were passed over."]


def test_two_objects_in_one_line_are_no_call_each(read: Callable[..., Log]) -> None:
    log = read([*LINES, f"{line(1)},{line(2)}"])
    assert len(log.calls) == 100


# Which calls


def test_a_log_of_several_circuits_needs_a_choice(read: Callable[..., Log]) -> None:
    lines = LINES + [line(number, circuit="b") for number in range(60)]
    assert refusal(read, lines) == ("the log has calls of 2 circuits: choose one with --circuit: 'a' (100), 'b' (60)")
    assert len(read(lines, choice=Choice(circuit="b")).calls) == 60
    assert refusal(read, lines, choice=Choice(circuit="c")) == "the log has no circuit 'c'; it has 'a', 'b'"


def test_a_log_without_names_has_no_circuit_to_choose(read: Callable[..., Log]) -> None:
    lines = [json.dumps({"t": number, "ms": 1, "outcome": "success"}) for number in range(60)]
    assert refusal(read, lines, choice=Choice(circuit="c")).endswith("it has no names of circuits")


def test_each_process_has_a_circuit(read: Callable[..., Log]) -> None:
    log = read([line(number, by=f"h:{number % 3}") for number in range(100)])
    assert [len(circuit.calls) for circuit in log.circuits] == [34, 33, 33]
    assert list(log.circuits[1].calls.begin[:2]) == [1.0, 4.0]


def test_calls_are_dealt_to_processes_where_the_log_does_not_say(read: Callable[..., Log]) -> None:
    log = read(
        [json.dumps({"t": number, "ms": 1, "outcome": "success"}) for number in range(4000)], choice=Choice(processes=4)
    )
    sizes = [len(circuit.calls) for circuit in log.circuits]
    assert len(sizes) == 4
    assert all(800 < size < 1200 for size in sizes)
    message = refusal(read, [line(number, by=f"h:{number % 3}") for number in range(100)], choice=Choice(processes=4))
    assert message == "the log says in 'by' which process made which call: --processes is for logs that do not"


def test_a_part_of_the_time_may_be_left_out(read: Callable[..., Log]) -> None:
    log = read(LINES, choice=Choice(begin=1010.0, end=1089.0))
    assert (log.start, log.length_s, len(log.calls)) == (1010.0, 79.0, 80)


def test_of_too_many_calls_the_newest_are_kept(read: Callable[..., Log]) -> None:
    log = read([line(number) for number in range(3000)][::-1], choice=Choice(max_calls=60))
    assert (log.start, len(log.calls)) == (3940.0, 60)
    assert log.notes == ["The 2,940 oldest calls were left out: more than --max-calls."]


@pytest.mark.parametrize(("number", "what"), [(0, "no call in log"), (1, "1 call in log"), (49, "49 calls in log")])
def test_too_few_calls_are_rejected(read: Callable[..., Log], number: int, what: str) -> None:
    assert refusal(read, LINES[:number]) == f"{what}: a replay needs at least 50, better a week of them"


def test_a_month_without_a_call_is_rejected(read: Callable[..., Log]) -> None:
    message = refusal(read, [line(-1000), *[line(n + 1e9) for n in range(100)]])
    assert message.startswith("no call for 11,574 days, from 1970-01-01T00:00:00Z to 2001-09-09T02:03:20Z: if a clock")
    message = refusal(read, [line(-9e10 - 1000), *[line(n + 1e9) for n in range(100)]])
    assert "-90000000000 s since 1970" in message


# Holes


def test_stretches_with_rejected_calls_are_left_out(read: Callable[..., Log]) -> None:
    lines = [line(number) for number in range(1000)]
    for number in (300, 310, 700):
        lines[number] = json.dumps({"t": 1000.0 + number, "outcome": "refused", "circuit": "a", "by": "h:1"})
    log = read(lines)
    assert log.rejected == 3
    assert log.holes == [(240.0, 370.0), (640.0, 760.0)]
    assert len(log.calls) == 1000 - 131 - 121


def test_a_log_of_nothing_but_rejections_is_rejected(read: Callable[..., Log]) -> None:
    message = refusal(read, [line(number, "refused") for number in range(100)])
    assert message.startswith("no call in log once the stretches with rejected calls are left out")


# Files


def test_a_compressed_file_is_known_by_its_bytes(read: Callable[..., Log]) -> None:
    text = "\n".join(LINES).encode()
    assert len(read(gzip.compress(text), name="log.gz").calls) == 100
    assert refusal(read, gzip.compress(text)[:-9]).endswith("log: the compressed file is cut short")
    damaged = bytearray(gzip.compress(text))
    damaged[20:60] = bytes(40)
    assert "cannot read " in refusal(read, bytes(damaged))


def test_a_file_that_is_not_there_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"cannot read .*nowhere: No such file or directory"):
        read_log([str(tmp_path / "nowhere")], OURS, ALL, lambda what, part: None)
    with pytest.raises(LogError, match="Is a directory"):
        read_log([str(tmp_path)], OURS, ALL, lambda what, part: None)


def test_what_is_written_while_the_file_is_read_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("a\nb\nc\nd")
    blocks = files.blocks(str(path))
    assert next(blocks).lines == [b"a", b"b", b"c"]
    with path.open("a") as file:
        file.write("d\ne\n")
    assert [block.lines for block in blocks] == [[b"d"]]


def test_a_file_without_lines_is_not_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    path = tmp_path / "log"
    path.write_bytes(bytes(5000))
    with pytest.raises(LogError, match="a line of more than 16 MiB, so this is no log"):
        list(files.blocks(str(path)))


def test_the_standard_input_is_a_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as file:
        file.write("\n".join(LINES))
    with os.fdopen(reader, "rb", buffering=0) as file:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file))
        log = read_log(["-"], OURS, ALL, lambda what, part: None)
        assert not file.closed
    assert (log.title, len(log.calls)) == ("the standard input", 100)


def test_several_files_are_one_log(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"log.{number}").write_text("\n".join(LINES[number::3]))
    paths = [str(tmp_path / f"log.{number}") for number in range(3)]
    told: list[tuple[str, float | None]] = []
    log = read_log(paths, OURS, ALL, lambda what, part: told.append((what, part)))
    assert (log.title, len(log.calls)) == ("log.0 and 2 more", 100)
    assert told[0][0] == f"reading {paths[0]}"


# Other formats


def row(form: Format, **fields: Any) -> Any:
    return call(fields, form)


@pytest.mark.parametrize(
    ("unit", "value", "seconds"),
    [
        ("s", 1763942400.5, 1763942400.5),
        ("s", "1763942400.5", 1763942400.5),
        ("ms", 1763942400500, 1763942400.5),
        ("us", "1763942400500000", 1763942400.5),
        ("ns", 1763942400500000000, 1763942400.5),
        (ISO, "2025-11-24T00:00:00.500Z", 1763942400.5),
        (ISO, "2025-11-24 00:00:00,500", 1763942400.5),
        (ISO, "2025-11-24T01:00:00.5+01:00", 1763942400.5),
        (EITHER, "2025-11-24T00:00:00.500Z", 1763942400.5),
        (EITHER, 1763942400.5, 1763942400.5),
        (CLF, "24/Nov/2025:00:00:00 +0000", 1763942400.0),
        (CLF, "[23/Nov/2025:19:30:00 -0430]", 1763942400.0),
    ],
)
def test_times_are_read_in_many_forms(unit: str, value: Any, seconds: float) -> None:
    assert row(Format(time=Column("at", unit)), at=value, ms=1, outcome="success").begin == seconds


@pytest.mark.parametrize(
    ("unit", "value"),
    [(ISO, "soon"), (CLF, "24/Foo/2025:00:00:00 +0000"), (CLF, "24 Nov 2025"), (CLF, "99/Nov/2025:00:00:00 +0000")],
)
def test_what_is_not_a_time_is_rejected(unit: str, value: str) -> None:
    with pytest.raises(LineError, match="at is not a time"):
        row(Format(time=Column("at", unit)), at=value, ms=1, outcome="success")


def test_the_time_may_be_that_of_the_end() -> None:
    form = Format(at_end=True, duration=Column("took", "s"), failed=Condition("status>=500"))
    assert row(form, t=100.0, took=2.5, status=200) == (97.5, 2.5, SUCCESS, None, None)


def test_conditions_say_how_a_call_ended() -> None:
    form = Format(failed=Condition("status>=500"), ignored=Condition("status=504"), only=(Condition("kind=call"),))
    assert row(form, t=1, ms=1, status=503, kind="call").outcome == FAILURE
    assert row(form, t=1, ms=1, status="504", kind="call").outcome == IGNORED
    assert row(form, t=1, ms=1, status=404, kind="call").outcome == SUCCESS
    assert row(form, t=1, ms=1, status=404, kind="other") is None


def test_names_may_be_numbers() -> None:
    assert row(OURS, t=1, ms=1, outcome="success", circuit=5, by=True)[3:] == ("5", "true")


def test_a_table_names_its_columns(read: Callable[..., Log]) -> None:
    form = Format(csv=True, failed=Condition("status>=500"))
    rows = [f"{number},{number % 7},{500 if number == 7 else 200}" for number in range(60)]
    log = read(["t,ms,status", *rows], form)
    assert list(log.calls.outcome[6:9]) == [SUCCESS, FAILURE, SUCCESS]
    assert len(read([one.replace(",", "\t") for one in ["t,ms,status", *rows]], form).calls) == 60
    text = "\ufeff" + "\r\n".join(['"t";"ms";"status"', *(one.replace(",", ";") for one in rows), ""])
    assert len(read(text.encode(), form).calls) == 60


def test_rows_that_do_not_fit_are_counted(read: Callable[..., Log]) -> None:
    form = Format(csv=True, failed=Condition("status>=500"))
    rows = [f"{number},1,200" for number in range(300)]
    log = read(["t,ms,status", *rows, "1,2", "", '"' + "x" * 200_000], form)
    assert len(log.calls) == 300
    assert "log:302: 2 columns, the first line has 3: '1,2'" in log.notes[0]
    assert "field larger than field limit" in log.notes[0]
    assert log.notes[1] == "1 of 303 lines tell about no call and were passed over."


@pytest.mark.parametrize(
    ("head", "form", "message"),
    [
        ("t,ms,t", Format(csv=True), "has two columns of the name 't': its first line must name each once"),
        (
            "t,ms",
            Format(csv=True),
            "has no column 'outcome': say which calls failed, as --failed 'status>=500'; it has t, ms",
        ),
        ("t,ms", Format(csv=True, failed=Condition("code=1")), "has no column 'code'; it has t, ms"),
        ("", Format(csv=True), "has no column 't'; it has none"),
    ],
)
def test_the_columns_of_a_table_are_checked(read: Callable[..., Log], head: str, form: Format, message: str) -> None:
    assert refusal(read, [head] if head else [], form).endswith(message)


@pytest.mark.parametrize("name", other_logs.FORMATS)
def test_the_logs_of_other_programs_are_what_their_script_writes(name: str) -> None:
    (data,) = [data for path, data in other_logs.files() if path.name == name]
    written = (other_logs.FOLDER / name).read_bytes()
    if name.endswith(".gz"):
        data, written = gzip.decompress(data), gzip.decompress(written)
    assert written == data


# Conditions

ROW = {"status": 503, "text": "404", "kind": "time out", "http": {"code": 500}, "a.b": 1, "none": None, "yes": True}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("status>=500", True),
        ("status > 503", False),
        ("status<504", True),
        ("status<=502", False),
        ("status=503.0", True),
        ("status!=503", False),
        ("text=404", True),
        ("text>403", True),
        ("kind='time out'", True),
        ('kind="time out"', True),
        ("kind!=other", True),
        ("kind>=500", False),
        ("kind=500", False),
        ("status='503'", True),
        ("http.code=500", True),
        ("http.other=500", False),
        ("status.code=500", False),
        ("a.b=1", True),
        ("none=null", True),
        ("absent=null", True),
        ("absent!=null", False),
        ("yes=true", True),
        ("yes=1", False),
        ('"none"=null', True),
        ("status=1 or status=503", True),
        ("status=1 or text=1 or kind=x", False),
    ],
)
def test_a_condition(text: str, holds: bool) -> None:
    assert Condition(text).holds(ROW) is holds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "status",
        "status>",
        "status>=500 and x=1",
        "status>=500 or",
        "a=b c=d",
        "__import__('os')",
        "a==1",
        "a=1 orb=2",
    ],
)
def test_what_is_no_condition_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="takes COLUMN OP VALUE"):
        Condition(text)


def test_a_condition_knows_its_columns() -> None:
    assert Condition('a=1 or "b c"=2').columns == ["a", "b c"]
