"""`python -m circuit_breaker replay` and `... simulate`: what they are asked, and what they print."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from .._breaker.config import CircuitBreakerConfig
from .._terminal import PROGRAM, Arguments, encoding_of, marks_for, paint_for, takes_escapes, write
from . import options
from . import simulate as model
from .model import Service
from .options import checked
from .progress import Progress
from .reading.formats import OURS, Format
from .reading.log import Choice, read_log
from .reading.problems import LogError
from .report import verdict, wording
from .report.data import data
from .report.page import page
from .report.terminal import text
from .study import DEFAULTS, YOURS, Question, study

REPLAY: Final = f"{PROGRAM} replay"
ABOUT_REPLAY: Final = """\
Read a log of calls, find its outages, and show what a circuit breaker would
have done: with your settings, with the defaults, and with settings that are
derived from the log. Record a log with circuit_breaker.insight.CallLog, or
read one that you have.
"""
AFTER_REPLAY: Final = """\
One question decides: from which failing share on would you rather reject every
call than let them through? --refuse-from is your answer. If callers retry, a
share b of failing tries is only b**(R+1) of failing calls with R retries, so
with retries the answer should be higher.

A condition is COLUMN OP VALUE with OP one of = != < <= > >=, several joined by
"or", such as 'status>=500 or error=Timeout'.

exit status:
  0    your settings opened for every outage worth it, and raised no false alarm
  1    they missed one, or raised one
  2    there is something wrong with the arguments or the log
  3    the output could not be written
  130  ended by Ctrl-C
"""
SIMULATE: Final = f"{PROGRAM} simulate"
ABOUT_SIMULATE: Final = """\
Model callers and a server that has an outage, and compare what happens without
a circuit breaker with what happens with one. It needs no log.
"""
AFTER_SIMULATE: Final = """\
A run has a minute before the outage and two after it. The figures are those of
a model: medians over the runs, with their range.

exit status:
  0    the runs are done
  2    there is something wrong with the arguments
  3    the output could not be written
  130  ended by Ctrl-C
"""
COLUMNS: Final = 100  # where the output is no terminal


def replay(arguments: Sequence[str]) -> int:
    """Replay a log, and return the exit status."""
    parser = _replay_arguments()
    given = parser.parse_args(arguments)
    progress = Progress(sys.stderr, takes_escapes(sys.stderr, os.environ))
    try:
        question = Question(given.refuse_from, options.given_config(given), given.slow, given.ordinary, given.outage)
        findings = study(read_log(given.log, _format(given), _choice(given), progress), question, progress)
        if given.html is not None:
            progress("writing the page", None)
            _write(given.html, page(findings))
    except (ValueError, LogError) as error:
        progress.clear()
        parser.error(str(error))
    finally:
        progress.clear()
    if given.json:
        _print([json.dumps(data(findings), indent=2, ensure_ascii=False)])
    elif given.recommend:
        doubts = [f"! {warning}" for warning in verdict.warnings(findings)]
        code = wording.code(findings.picked.config)
        _print([verdict.headline(findings), verdict.reason(findings), *doubts, "", *code])
    else:
        _print(text(findings, _width(), marks_for(encoding_of(sys.stdout)), paint_for(sys.stdout, os.environ)))
    return 0 if findings.current.figures.passed else 1


def simulate(arguments: Sequence[str]) -> int:
    """Run the model, and return the exit status."""
    parser = _simulate_arguments()
    given = parser.parse_args(arguments)
    progress = Progress(sys.stderr, takes_escapes(sys.stderr, os.environ))
    try:
        service = _service(given)
        yours = options.given_config(given)
    except ValueError as error:
        parser.error(str(error))
    configs = [
        (model.WITHOUT, None),
        *([] if yours is None else [(YOURS, yours)]),
        (DEFAULTS, CircuitBreakerConfig()),
        ("values for 50%", model.STARTING_VALUES),
    ]
    try:
        columns = model.simulate(service, configs, given.seed, given.runs, progress)
    finally:
        progress.clear()
    if given.json:
        _print([json.dumps(model.as_data(service, columns, given.seed), indent=2)])
    else:
        _print(model.lines(service, columns, paint_for(sys.stdout, os.environ)))
    return 0


def _print(lines: Iterable[str]) -> None:
    """Write lines; what the encoding does not have is written as an escape."""
    encoding = encoding_of(sys.stdout)
    write(sys.stdout, "".join(f"{line}\n" for line in lines).encode(encoding, "backslashreplace").decode(encoding))


def _width() -> int:
    return shutil.get_terminal_size().columns - 1 if sys.stdout is not None and sys.stdout.isatty() else COLUMNS


def _write(path: str, words: str) -> None:
    try:
        Path(path).write_text(words, "utf-8")
    except OSError as error:
        raise LogError(f"cannot write {path}: {error.strerror}") from error


def _replay_arguments() -> Arguments:
    parser = Arguments(REPLAY, ABOUT_REPLAY, AFTER_REPLAY)
    parser.add_argument("log", nargs="+", metavar="LOG", help="files of calls, also as .gz; - is the standard input")
    parser.add_argument(
        "--refuse-from",
        type=checked(options.share),
        default=0.5,
        metavar="SHARE",
        help="the share of failing calls at which to reject every call (default: 50%%)",
    )
    parser.add_argument("--recommend", action="store_true", help="print only the settings to use")
    parser.add_argument("--html", metavar="FILE", help="also write the report as a page")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    calls = parser.add_argument_group("which calls count")
    calls.add_argument("--circuit", metavar="NAME", help="the circuit, if a log has several")
    calls.add_argument(
        "--slow", type=checked(options.seconds), metavar="S", help="a call that takes S seconds is as bad as a failure"
    )
    calls.add_argument(
        "--ordinary",
        type=checked(options.ordinary_share),
        metavar="SHARE",
        help="the share that fails in ordinary times, if the log does not show it",
    )
    calls.add_argument(
        "--outage",
        type=checked(options.stretch),
        action="append",
        default=[],
        metavar="FROM/TO",
        help="a time at which there was an outage; replaces the search, may be repeated",
    )
    calls.add_argument(
        "--from", dest="begin", type=checked(options.moment), metavar="TIME", help="leave out calls that began before"
    )
    calls.add_argument(
        "--to", dest="end", type=checked(options.moment), metavar="TIME", help="leave out calls that began after"
    )
    calls.add_argument(
        "--processes",
        type=checked(options.count),
        metavar="N",
        help="how many processes made the calls, if the log does not say which call is whose",
    )
    calls.add_argument(
        "--max-calls",
        type=checked(options.count),
        default=10_000_000,
        metavar="N",
        help="of more calls take the newest N (default: 10 million)",
    )
    other = parser.add_argument_group(
        "logs that CallLog did not write", "Without --csv or --pattern each line is a JSON object."
    )
    kind = other.add_mutually_exclusive_group()
    kind.add_argument("--csv", action="store_true", help="a table whose first line names the columns")
    kind.add_argument(
        "--pattern",
        type=checked(options.pattern),
        metavar="REGEX",
        help="the lines that tell about calls, with a group (?P<name>...) for each column",
    )
    other.add_argument(
        "--time",
        type=checked(partial(options.column, of_time=True)),
        metavar="COLUMN[:UNIT]",
        help="when a call began: iso, clf (as nginx writes it), s, ms, us, ns since 1970",
    )
    other.add_argument(
        "--duration",
        type=checked(partial(options.column, of_time=False)),
        metavar="COLUMN[:UNIT]",
        help="how long it took: s (default), ms, us, ns",
    )
    other.add_argument(
        "--stamp",
        choices=("begin", "end"),
        default="begin",
        help="what the time is of; access logs write the end (default: begin)",
    )
    other.add_argument(
        "--failed",
        type=checked(options.condition),
        metavar="CONDITION",
        help="which calls failed, such as 'status>=500'",
    )
    other.add_argument(
        "--ignored",
        type=checked(options.condition),
        metavar="CONDITION",
        help="which calls say nothing about the service",
    )
    other.add_argument(
        "--only",
        type=checked(options.condition),
        action="append",
        default=[],
        metavar="CONDITION",
        help="which lines are calls; may be repeated",
    )
    other.add_argument("--by", default="by", metavar="COLUMN", help="which process made the call (default: by)")
    options.add_settings(parser, "What is in use now; the defaults of the library if nothing is given.")
    return parser


def _format(given: argparse.Namespace) -> Format:
    form = Format(
        csv=given.csv,
        pattern=given.pattern,
        time=given.time or OURS.time,
        duration=given.duration or OURS.duration,
        at_end=given.stamp == "end",
        failed=given.failed,
        ignored=given.ignored,
        only=tuple(given.only),
        by=given.by,
    )
    return OURS if form == OURS else form


def _choice(given: argparse.Namespace) -> Choice:
    times: dict[str, Any] = {
        name: getattr(given, name) for name in ("begin", "end") if getattr(given, name) is not None
    }
    return Choice(given.circuit, given.processes, max_calls=given.max_calls, **times)


def _simulate_arguments() -> Arguments:
    plain = Service()
    parser = Arguments(SIMULATE, ABOUT_SIMULATE, AFTER_SIMULATE)
    add = parser.add_argument
    above = checked(partial(options.number, above=0, takes="a number above 0"))
    whole = checked(partial(options.number, minimum=0, whole=True, takes="a whole number from 0 on"))
    add("--rate", type=above, default=plain.rate, metavar="N", help="calls a second that arrive (default: %(default)g)")
    add(
        "--capacity",
        type=above,
        default=plain.capacity,
        metavar="N",
        help="tries a second that the server can serve (default: %(default)g)",
    )
    add(
        "--service",
        type=checked(options.seconds),
        default=plain.service_s,
        metavar="S",
        help="how long it serves one, on average (default: %(default)g)",
    )
    add(
        "--timeout",
        type=checked(options.seconds),
        default=plain.timeout_s,
        metavar="S",
        help="how long a caller waits for an answer (default: %(default)g)",
    )
    add(
        "--callers",
        type=checked(options.count),
        default=plain.callers,
        metavar="N",
        help="the most calls at a time (default: %(default)d)",
    )
    add(
        "--processes",
        type=checked(options.count),
        default=plain.processes,
        metavar="N",
        help="processes, each with a breaker (default: %(default)d)",
    )
    add(
        "--retries",
        type=checked(partial(options.count, minimum=0)),
        default=plain.retries,
        metavar="N",
        help="tries after the first (default: %(default)d)",
    )
    add(
        "--failing",
        type=checked(options.share),
        default=plain.failing,
        metavar="SHARE",
        help="share of tries that fails in ordinary times (default: 0.1%%)",
    )
    add(
        "--outage",
        type=checked(options.seconds),
        default=plain.outage_s,
        metavar="S",
        help="how long the outage lasts (default: %(default)g)",
    )
    add(
        "--kind",
        type=checked(options.trouble),
        default=plain.trouble,
        metavar="KIND",
        help="full, hang, partial:50%%, slow, flapping, gradual or surge:2 (default: full)",
    )
    add("--seed", type=whole, default=1, metavar="N", help="another number gives other random numbers (default: 1)")
    add(
        "--runs",
        type=checked(options.count),
        default=5,
        metavar="N",
        help="how many runs, each with other random numbers (default: 5)",
    )
    add("--json", action="store_true", help="print the figures as JSON")
    options.add_settings(parser, "Shown beside the others if given.")
    return parser


def _service(given: argparse.Namespace) -> Service:
    return Service(
        rate=given.rate,
        capacity=given.capacity,
        service_s=given.service,
        timeout_s=given.timeout,
        callers=given.callers,
        processes=given.processes,
        retries=given.retries,
        failing=given.failing,
        outage_s=given.outage,
        trouble=given.kind,
    )
