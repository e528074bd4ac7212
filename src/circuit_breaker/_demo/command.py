"""The demonstration: see in ten seconds what the library does, on a real server that fails and recovers."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from math import nan

from circuit_breaker._demo import screen, threads
from circuit_breaker._demo.plan import FEWEST_PROCESSES, LONGEST_S, MOST_PROCESSES, SHORTEST_S, Plan
from circuit_breaker._demo.server import Server
from circuit_breaker._demo.story import Ending, Story
from circuit_breaker._terminal import INTERRUPTED, PROGRAM, Arguments

DESCRIPTION = """\
A web server on this machine is healthy, fails, hangs and recovers, while eight
threads call it through retry, circuit breaker and bulkhead. The timeline shows
what they do, the summary what it was good for.
"""
EPILOG = """\
exit status:
  0    the circuit opened when the server failed, and closed when it recovered
  1    it did not, or whoever read the timeline has left
  2    there is something wrong with the arguments
  3    the timeline could not be written
  130  ended by Ctrl-C, with the summary so far

Colours are for terminals, and not used when NO_COLOR is set.

Other commands, each with a --help of its own:
  console   see the circuits that your processes share, in a browser
  watch     see them in a terminal
  replay    which settings suit your calls: from a log of them
  simulate  what a breaker does to a service under load: from a model
"""


def main(arguments: Sequence[str]) -> int:
    """Show it, and return the exit status."""
    options = _arguments().parse_args(arguments)
    return _tell(Plan(options.seconds), options)


def _arguments() -> Arguments:
    parser = Arguments(PROGRAM, DESCRIPTION, EPILOG)
    parser.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="N", help="how long it takes, about (default: 10)"
    )
    callers = parser.add_mutually_exclusive_group()
    callers.add_argument(
        "--async", action="store_true", dest="on_a_loop", help="eight tasks of one event loop instead of threads"
    )
    callers.add_argument(
        "--processes",
        type=_processes,
        metavar="N",
        help="N processes that share one circuit over an SQLite file, instead of threads",
    )
    parser.add_argument(
        "--plain", action="store_true", help="a line for each quarter of a second, as when the output is no terminal"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = nan
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"takes a number from {SHORTEST_S} to {LONGEST_S}, got {text!r}")
    return seconds


def _processes(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and FEWEST_PROCESSES <= int(text) <= MOST_PROCESSES):
        raise argparse.ArgumentTypeError(
            f"takes a whole number from {FEWEST_PROCESSES} to {MOST_PROCESSES}, got {text!r}"
        )
    return int(text)


def _tell(plan: Plan, options: argparse.Namespace) -> int:
    shown = screen.screen(sys.stdout, options.plain, os.environ)
    run: Callable[[Story], Ending] = threads.run
    if options.on_a_loop:
        from circuit_breaker._demo import tasks

        run = tasks.run
    elif options.processes:
        from circuit_breaker._demo import processes

        run = partial(processes.run, number=options.processes)
    with Server() as server:
        story = Story(plan, server, shown.show)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, story.interrupt)
        shown.say(screen.code(plan, options.on_a_loop, options.processes))
        shown.start(plan)
        ending = run(story)
    shown.say(["", "Interrupted; so far:", ""] if story.interrupted else [""])
    shown.say(screen.summary(ending, shown.paint))
    if story.interrupted:
        return INTERRUPTED
    return 0 if ending.as_told else 1
