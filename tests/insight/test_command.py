"""The commands as people run them: arguments, output, exit status, and whatever can go wrong between."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from logs.write import FOLDER
from patience import PATIENCE_S
from traffic import make

from circuit_breaker.__main__ import main
from circuit_breaker.insight import command, options
from circuit_breaker.insight.model import Kind
from circuit_breaker.insight.progress import Progress

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a log with two outages that the defaults open for."""
    path = tmp_path_factory.mktemp("logs") / "payments.jsonl"
    path.write_text("".join(make("full outage", 1, 10_000).lines()))
    return str(path)


def replay(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["replay", *arguments])
    out, err = capsys.readouterr()
    assert err == ""
    return status, out


def refused(*arguments: str, capsys: pytest.CaptureFixture[str], name: str = "replay") -> str:
    with pytest.raises(SystemExit) as left:
        main([name, *arguments])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err.startswith(f"python -m circuit_breaker {name}: ")
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err.removeprefix(f"python -m circuit_breaker {name}: ").removesuffix("\n")


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    python = options.pop("python", [sys.executable, "-X", "dev", "-W", "error"])
    return subprocess.Popen(
        [*python, "-m", "circuit_breaker", *arguments],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"} | options,
    )


# What is printed


def test_the_report_is_printed_and_the_status_is_that_of_the_settings_in_use(
    log: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = replay(log, capsys=capsys)
    assert status == 0
    assert out.startswith("payments.jsonl · 10,000 calls in 84 min")
    assert "Keep the defaults" in out
    status, out = replay(log, "--failure-threshold", "1000", capsys=capsys)
    assert status == 1
    assert "With your settings" in out


def test_the_recommendation_alone_ends_in_code_to_paste(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = replay(log, "--recommend", capsys=capsys)
    lines = out.splitlines()
    assert lines[0].startswith("Keep the defaults: ")
    assert lines[-2:] == ["", "CircuitBreakerConfig()"]


def test_the_recommendation_says_what_makes_it_doubtful(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = replay(log, "--recommend", capsys=capsys)
    assert [line for line in out.splitlines()[2:-2] if not line.startswith("! ")] == []
    assert "! The log is 84 min long" in out


def test_the_page_is_written_too(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.html"
    _, out = replay(log, "--html", str(path), capsys=capsys)
    assert "Keep the defaults" in out
    ET.fromstring(path.read_text("utf-8").partition("\n")[2])
    message = refused(log, "--html", str(tmp_path / "nowhere" / "x.html"), capsys=capsys)
    assert message.startswith("cannot write ")


def test_the_data_are_json_and_nothing_else(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = replay(log, "--json", capsys=capsys)
    assert json.loads(out)["settings"][0]["name"] == "the defaults"


def test_two_reports_of_one_log_are_the_same_to_the_byte(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(log, "--json", capsys=capsys) == replay(log, "--json", capsys=capsys)


def test_a_simulation_needs_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--rate", "5", "--capacity", "10", "--outage", "5", "--runs", "1", "--kind", "partial:50%"]
    assert main(["simulate", *small, "--failure-threshold", "3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"no breaker +your settings +the defaults +values for 50%", out)
    assert main(["simulate", *small, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 1


# Arguments


def test_a_seed_may_be_any_whole_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--runs", "1", "--rate", "1", "--seed", "9" * 401, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == int("9" * 401)


@pytest.mark.parametrize("name", ["replay", "simulate"])
def test_help_fits_a_terminal_and_tells_every_status(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("exit status", "130", "--failure-threshold X"))
    assert all(len(line) <= 80 for line in out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: LOG"),
        (
            ["x", "--refuse-from", "50"],
            "argument --refuse-from: takes a share above 0 and below 1, such as 50% or 0.5, got '50'",
        ),
        (["x", "--refuse-from", "100%"], "argument --refuse-from: takes a share above 0 and below 1"),
        (["x", "--refuse-from", "a%"], "argument --refuse-from: takes a share above 0 and below 1"),
        (["x", "--slow", "0"], "argument --slow: takes a number of seconds above 0, got '0'"),
        (["x", "--slow", "inf"], "argument --slow: takes a number of seconds above 0, got 'inf'"),
        (["x", "--processes", "0"], "argument --processes: takes a whole number from 1 to 1,000,000,000, got '0'"),
        (["x", "--processes", "3000000000"], "takes a whole number from 1 to 1,000,000,000, got '3000000000'"),
        (["x", "--processes", "9" * 401], "argument --processes: takes a whole number"),
        (["x", "--max-calls", "1e6"], "argument --max-calls: takes a whole number from 1 to 1,000,000,000, got '1e6'"),
        (["x", "--max-calls", "9" * 401], "argument --max-calls: takes a whole number"),
        (["x", "--max-calls", "9" * 5000], "argument --max-calls: takes a whole number"),
        (
            ["x", "--ordinary", "1e-300"],
            "argument --ordinary: takes a share of at least 1e-9 and below 1, such as 1% or 0.01, got '1e-300'",
        ),
        (["x", "--ordinary", "1e-310"], "argument --ordinary: takes a share of at least 1e-9"),
        (["x", "--ordinary", "100%"], "argument --ordinary: takes a share of at least 1e-9 and below 1"),
        (["x", "--from", "soon"], "argument --from: takes a time such as 2025-11-28T10:20:00Z, got 'soon'"),
        (["x", "--outage", "2025-01-01"], "argument --outage: takes FROM/TO, such as"),
        (["x", "--outage", "2025-01-02/2025-01-01"], "argument --outage: takes FROM/TO, such as"),
        (
            ["x", "--time", "at:days"],
            "argument --time: takes COLUMN or COLUMN:UNIT with UNIT one of iso, clf, s, ms, us, ns, got 'at:days'",
        ),
        (
            ["x", "--duration", "took:iso"],
            "argument --duration: takes COLUMN or COLUMN:UNIT with UNIT one of s, ms, us, ns",
        ),
        (["x", "--duration", ":s"], "argument --duration: takes COLUMN or COLUMN:UNIT"),
        (["x", "--failed", "status"], "argument --failed: takes COLUMN OP VALUE"),
        (["x", "--pattern", "("], "argument --pattern: takes a regular expression, got '('"),
        (["x", "--pattern", "x"], "argument --pattern: takes a regular expression with a group for each column"),
        (["x", "--csv", "--pattern", "(?P<t>x)"], "argument --pattern: not allowed with argument --csv"),
        (
            ["x", "--config", "os"],
            "argument --config: takes MODULE:NAME of a CircuitBreakerConfig or a CircuitBreaker, got 'os'",
        ),
        (["x", "--config", "os:nothing"], "argument --config: takes MODULE:NAME"),
        (["x", "--config", "no_such_module:x"], "cannot be imported: ModuleNotFoundError"),
        (["x", "--config", "os:path"], "and 'os:path' is a module"),
        (
            ["x", "--failure-threshold", "many"],
            "--failure-threshold: takes a number, a share such as 50%, a time such as 30s, or none; got 'many'",
        ),
        (["x", "--failure-threshold", "0"], "failure_threshold must be an int >= 1, or None, got 0"),
        (["x", "--failure-threshold", "2.5"], "failure_threshold must be an int >= 1, or None, got 2.5 (float)"),
        (["x", "--failure-threshold", "none"], "must not all be None"),
        (
            ["x", "--error-rate-threshold", "50"],
            "argument --error-rate-threshold: takes a share such as 50% or 0.5, or none; got '50'",
        ),
        (["x", "--error-rate-threshold", "0"], "argument --error-rate-threshold: takes a share such as 50%"),
        (["x", "--slow-call-rate-threshold", "a half"], "argument --slow-call-rate-threshold: takes a share such as"),
        (["x", "--error-rate-window", "99999999999999s"], "argument --error-rate-window: takes a number"),
        (["x", "--html"], "argument --html: expected one argument"),
        (["x", "--recom"], "unrecognized arguments: --recom"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(*arguments, capsys=capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--kind", "bad"],
            "argument --kind: takes one of full, hang, partial:50%, slow, flapping, gradual, surge:2, got 'bad'",
        ),
        (["--kind", "partial"], "argument --kind: takes one of"),
        (["--kind", "full:5"], "argument --kind: takes one of"),
        (["--kind", "partial:2"], "argument --kind: takes a share above 0 and below 1"),
        (["--kind", "surge:0"], "argument --kind: takes a number above 0 after surge:"),
        (["--rate", "0"], "argument --rate: takes a number above 0, got '0'"),
        (["--retries", "-1"], "argument --retries: takes a whole number from 0 to 1,000,000,000, got '-1'"),
        (["--retries", "9" * 401], "argument --retries: takes a whole number from 0 to 1,000,000,000"),
        (["--seed", "1.5"], "argument --seed: takes a whole number from 0 on, got '1.5'"),
        (["--seed", "9" * 5000], "argument --seed: takes a whole number from 0 on"),
        (["--success-threshold", "0"], "success_threshold must be an int >= 1, got 0"),
    ],
)
def test_wrong_arguments_of_a_simulation(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(*arguments, capsys=capsys, name="simulate")


def test_settings_may_be_those_of_a_breaker_or_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_settings.py").write_text(
        "from circuit_breaker import *\n"
        "class Shop:\n"
        "    CONFIG = CircuitBreakerConfig(failure_threshold=7)\n"
        "BREAKER = CircuitBreaker(config=Shop.CONFIG)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert options.existing("my_settings:Shop.CONFIG").failure_threshold == 7
    assert options.existing("my_settings:BREAKER").failure_threshold == 7
    parser = command._replay_arguments()
    given = parser.parse_args(["x", "--config", "my_settings:BREAKER", "--reset-timeout-s", "9"])
    config = options.given_config(given)
    assert config is not None
    assert (config.failure_threshold, config.reset_timeout_s) == (7, 9)


def test_shares_times_and_troubles() -> None:
    assert (options.share("50%"), options.share("0.25")) == (0.5, 0.25)
    assert (options.ordinary_share("1e-9"), options.ordinary_share("99%")) == (1e-9, 0.99)
    assert [options.share_setting(text) for text in ("none", "100%", "0.5")] == [None, 1.0, 0.5]
    assert options.stretch("2025-11-24T00:00:00Z/2025-11-24T00:01:00Z") == (1763942400.0, 1763942460.0)
    assert options.trouble("partial:50%") == (Kind.PARTIAL, 0.5)
    assert options.trouble("surge:2") == (Kind.SURGE, 2.0)
    assert options.trouble("hang") == (Kind.HANG, 0.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("none", None), ("NONE", None), ("5", 5), ("-5", -5), ("2.5", 2.5), ("50%", 0.5), ("inf", float("inf"))],
)
def test_values_of_settings(text: str, value: Any) -> None:
    assert options.setting(text) == value


def test_a_window_may_be_a_time(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = replay(log, "--error-rate-window", "30s", "--error-rate-threshold", "50%", "--json", capsys=capsys)
    assert json.loads(out)["settings"][0]["config"]["error_rate_window"] == {"seconds": 30.0}


def test_nothing_given_is_no_setting() -> None:
    assert options.given_config(command._replay_arguments().parse_args(["x"])) is None


def test_a_part_of_the_log_may_be_chosen(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    times = ["--from", "2025-11-24T00:10:00Z", "--to", "2025-11-24T01:10:00+00:00"]
    _, out = replay(log, *times, "--json", capsys=capsys)
    assert json.loads(out)["log"]["length_s"] < 3600


# Bad logs


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no call in log: a replay needs at least 50, better a week of them"),
        (b'{"t": 1, "ms": 1, "outcome": "success"}\n', "1 call in log: a replay needs at least 50"),
        (bytes(range(256)) * 100, "cannot read "),
        (
            b'{"t": 1, "ms": 1, "outcome": "failure"}\n' * 100,
            "100% of the calls failed, so nothing tells an outage from",
        ),
        (gzip.compress(b"x" * 1000)[:-4], "the compressed file is cut short"),
        (b"t,ms,t\n1,1,1\n", "cannot read 2 of 2 lines"),
    ],
)
def test_a_bad_log_gets_a_short_message_and_the_status_is_2(
    data: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_bytes(data)
    assert message in refused(str(tmp_path / "log"), capsys=capsys)


def test_hostile_names_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "<b>&amp;.jsonl"
    path.write_text("".join(make("steady", 1, 10_000).lines(circuit="<script>", by="\"'&")))
    replay(str(path), "--html", str(tmp_path / "x.html"), capsys=capsys)
    html = (tmp_path / "x.html").read_text()
    ET.fromstring(html.partition("\n")[2])
    assert "<b>&amp;" not in html
    assert "&lt;b&gt;&amp;amp;.jsonl" in html


@pytest.mark.parametrize(
    ("name", "shown"), [(b"a\x01b\x1b.jsonl", r"a\x01b\x1b.jsonl"), (b"a\xff.jsonl", r"a\udcff.jsonl")]
)
def test_a_file_name_that_cannot_be_shown_is_escaped(
    name: bytes, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / os.fsdecode(name)
    try:
        path.write_text("".join([*make("steady", 1, 1000).lines(), "no json\n"]))
    except OSError:
        pytest.skip("this file system takes no such name")
    _, out = replay(str(path), "--html", str(tmp_path / "x.html"), capsys=capsys)
    html = (tmp_path / "x.html").read_text("utf-8")
    ET.fromstring(html.partition("\n")[2])
    for report in (html, out):
        assert report.count(shown) >= 2  # its title, and the place of the line that is no JSON
        assert report.isprintable() or {c for c in report if not c.isprintable()} == {"\n"}


def test_an_ordinary_share_may_be_as_small_as_its_message_says(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(log, "--ordinary", "1e-9", capsys=capsys)[0] == 0


# The documentation tells commands that work


def commands(page: str) -> list[str]:
    """Return the commands of a page, one line each."""
    text = (PAGES / page).read_text("utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if "circuit_breaker" in line]


READING = commands("reading-logs.md") if (PAGES / "reading-logs.md").exists() else []


def test_there_are_commands_for_all_formats() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.suffix != ".py" and path.is_file()} == {
        name for line in READING for name in re.findall(r"replay (\S+)", line)
    }


@pytest.mark.parametrize("line", READING)
def test_a_log_in_another_format_is_read_as_its_page_says(line: str) -> None:
    shell = line.replace("python -m", f"{sys.executable} -m") + " --json"
    done = subprocess.run(["bash", "-c", shell], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert (found["log"]["calls"], len(found["outages"])) == (1_000, 1)
    assert 0.6 < found["outages"][0]["bad_share"] < 0.9


# Where it runs


def test_it_runs_without_a_warning(log: str) -> None:
    with start("replay", log) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert "Keep the defaults" in out


def test_ctrl_c_ends_it_with_status_130_and_no_traceback(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Without warnings, since the interrupt may land where a file is open and nobody has it yet.
    with start("replay", str(pipe), python=[sys.executable, "-W", "ignore"]) as process:
        with pipe.open("w"):  # it has opened the log once this has
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize(
    "arguments", [["replay", "LOG"], ["replay", "LOG", "--json"], ["simulate", "--runs", "1", "--rate", "2"]]
)
def test_output_that_cannot_be_written_is_one_line_and_status_3(log: str, arguments: list[str]) -> None:
    given = [log if one == "LOG" else one for one in arguments]
    with Path("/dev/full").open("w") as full, start(*given, stdout=full) as process:
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (3, "python -m circuit_breaker: cannot write: No space left on device\n")


def test_a_reader_who_leaves_ends_it_quietly(log: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with start("replay", log, stdout=writer) as process:
        os.close(writer)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (1, "")


def test_an_encoding_without_blocks_gets_other_marks(log: str) -> None:
    environ = os.environ | {"PYTHONIOENCODING": "ascii"}
    with start("replay", log, env=environ, encoding="ascii") as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert "\\u2192" in out
    assert re.search(r"^the defaults +-+#+", out, re.MULTILINE)


def test_a_terminal_gets_colours_and_its_width(log: str) -> None:
    termios = pytest.importorskip("termios")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 90))
    environ = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS"}}
    with start("replay", log, stdout=theirs, stderr=theirs, env=environ | {"TERM": "xterm"}) as process:
        os.close(theirs)
        data = b"".join(iter(lambda: read(ours), b""))
        os.close(ours)
    text = data.decode()
    assert process.returncode == 0
    assert "\x1b[1mKeep the defaults" in text
    assert all(len(re.sub(r"\x1b\[[0-9;]*[mK]|\r", "", line)) <= 90 for line in text.splitlines())


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # how Linux says that nobody is at the other end
        return b""


# Progress


class Terminal:
    """A terminal that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> None:
        self.written += text

    def flush(self) -> None:
        pass


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def tick(seconds: float) -> None:
        now[0] += seconds

    return tick


def test_a_bar_comes_after_a_second_and_goes_away(tick: Callable[[float], None]) -> None:
    terminal = Terminal()
    progress = Progress(terminal, True)  # type: ignore[arg-type]
    progress("reading", 0.1)
    progress.clear()
    assert terminal.written == ""
    tick(1.0)
    progress("reading", 0.5)
    progress("reading", 0.6)
    assert terminal.written == f"\rreading [{'#' * 15}{'.' * 15}]  50%\x1b[K"
    tick(0.2)
    progress("sorting", None)
    assert terminal.written.endswith("\rsorting\x1b[K")
    progress.clear()
    progress.clear()
    assert terminal.written.endswith("\rsorting\x1b[K\r\x1b[K")


def test_where_nobody_looks_there_is_no_bar(tick: Callable[[float], None]) -> None:
    terminal = Terminal()
    progress = Progress(terminal, False)  # type: ignore[arg-type]
    tick(9.0)
    progress("reading", 0.5)
    progress.clear()
    assert terminal.written == ""
