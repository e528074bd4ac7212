"""What recording, reading and replaying cost, beside what they may cost.

`python tests/benchmarks/insight.py [--check]`

A million calls of a made log are written, read, replayed and reported. Times are of the processor, the best of a few
rounds; memory is that of a process of its own. `--check` fails if a figure is worse than its limit.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "insight"))

from call_by_call import replay_call_by_call  # noqa: E402
from traffic import make  # noqa: E402

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitMode  # noqa: E402
from circuit_breaker.insight import CallLog  # noqa: E402
from circuit_breaker.insight.calls import Log  # noqa: E402
from circuit_breaker.insight.reading.formats import OURS  # noqa: E402
from circuit_breaker.insight.reading.log import Choice, read_log  # noqa: E402
from circuit_breaker.insight.replay import replay  # noqa: E402
from circuit_breaker.insight.report.page import page  # noqa: E402
from circuit_breaker.insight.study import Question, study  # noqa: E402

CALLS = 1_000_000
OF_CALLS = CircuitBreakerConfig(error_rate_threshold=0.5, error_rate_window=50, minimum_calls=20)
OF_TIME = CircuitBreakerConfig(
    failure_threshold=None, error_rate_threshold=0.5, error_rate_window=timedelta(seconds=30), minimum_calls=20
)


class Figure(NamedTuple):
    """What was measured, and what it may be at most."""

    what: str
    value: float
    limit: float
    unit: str


def best(do: Callable[[], object], rounds: int) -> float:
    """Return the fewest seconds of the processor that this took."""
    taken = []
    for _ in range(rounds):
        gc.collect()
        before = time.process_time()
        do()
        taken.append(time.process_time() - before)
    return min(taken)


def work() -> None:
    """Do nothing."""


def read(path: str) -> Log:
    return read_log([path], OURS, Choice(), lambda what, part: None)


def bytes_at_rest(log: Log) -> float:
    """Return the bytes of all columns of a log, for each call."""
    parts = [log.calls] if len(log.circuits) > 1 else []
    parts += [circuit.calls for circuit in log.circuits]
    columns = [column for calls in parts for column in (calls.begin, calls.took, calls.outcome)]
    for circuit in log.circuits:
        columns += [circuit.ends, circuit.order, circuit.rank, circuit.successes, circuit.marks()]
    return sum(sys.getsizeof(column) for column in columns) / len(log.calls)


def peak_bytes(path: str) -> float:
    """Return the most bytes that a process takes for a whole report, for each call."""
    program = f"""
import re, sys
sys.path[:0] = {sys.path!r}
from insight import read, Question, study, page
def kilobytes(name):
    with open("/proc/self/status") as status:
        return int(re.search(name + r":\\s*(\\d+)", status.read())[1])
before = kilobytes("VmRSS")
page(study(read({path!r}), Question(), lambda what, part: None))
print(kilobytes("VmHWM") - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024 / CALLS


def listening() -> float:
    """Return the microseconds that recording adds to a call, beyond a listener that does nothing."""
    calls = 20_000
    with tempfile.TemporaryDirectory() as folder:
        log = CallLog(Path(folder) / "calls.jsonl")

        def nothing(event: object) -> None:
            pass

        listeners = {"nothing": nothing, "log": log}
        functions = {
            name: CircuitBreaker(name, mode=CircuitMode.SHADOW, listeners=[one])(work)
            for name, one in listeners.items()
        }
        taken = dict.fromkeys(functions, float("inf"))
        for _ in range(30):
            for name, function in functions.items():
                before = time.perf_counter()
                for _ in range(calls):
                    function()
                taken[name] = min(taken[name], (time.perf_counter() - before) / calls)
        log.close()
    return (taken["log"] - taken["nothing"]) * 1e6


def measured() -> list[Figure]:
    """Return all figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/calls.jsonl"
        Path(path).write_text("".join(make("30% outage", 1, CALLS).lines()))
        log = read(path)
        (circuit,) = log.circuits
        circuit.marks()
        return [
            Figure("recording, beyond a listener that does nothing", listening(), 2.0, "µs"),
            Figure("reading a million calls", best(lambda: read(path), 3), 2.0, "s"),
            Figure("replaying them call by call", best(lambda: replay_call_by_call(circuit, OF_CALLS), 3), 3.0, "s"),
            Figure("replaying them, a window of calls", best(lambda: replay(circuit, OF_CALLS), 5), 0.5, "s"),
            Figure("replaying them, a window of time", best(lambda: replay(circuit, OF_TIME), 5), 0.5, "s"),
            Figure(
                "the whole report, beside the reading",
                best(lambda: page(study(log, Question(), lambda what, part: None)), 2),
                10.0,
                "s",
            ),
            Figure("memory of a call at rest", bytes_at_rest(log), 100.0, "bytes"),
            Figure("memory of a call at the peak", peak_bytes(path), 300.0, "bytes"),
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if a figure is worse than its limit")
    given = parser.parse_args()
    figures = measured()
    for figure in figures:
        print(f"{figure.what:48} {figure.value:8.2f} {figure.unit:5} (at most {figure.limit:g})")
    return 1 if given.check and any(figure.value > figure.limit for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
