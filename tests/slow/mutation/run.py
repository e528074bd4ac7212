"""Plant small faults in the package, one at a time, and see which of them the tests overlook.

`python tests/slow/mutation/run.py [--quick] [module ...]`, where a module is `_breaker.window` or `_demo.screen`; all
if none is named. Needs the extras `test` and `mutation`. Faults that no test can tell are explained in
`explained.txt`; any other that is left makes the exit status 1.

Each worker has a copy, so the working tree is not touched. What has been found out is kept in the scratch folder: an
interrupted run goes on, and a later one asks only about what was left and about modules that have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from faults import Fault, faults

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PACKAGE = Path("src/circuit_breaker")
EXPLAINED = HERE / "explained.txt"
SHARE_OF_QUICK = 12
STALLED_S = 5.0

PUBLIC = ("stores", "insight", "console")  # sub-packages that nothing else imports
TESTED_IN = {"_shared": "stores"}  # folders of tests with another name than the code has

KILLED, TIMED_OUT, SURVIVED = "killed", "timed out", "survived"

BEHAVIOUR = [
    *("tests/breaker", "tests/bulkhead", "tests/retry", "tests/common", "tests/everywhere", "tests/model"),
    *("tests/test_decorators.py", "tests/test_exceptions.py", "tests/test_testing.py"),
    *("tests/promises/test_public_names.py", "tests/promises/test_drop_in_faults.py"),
    "tests/promises/test_package.py",
]
LEFT_OUT = (  # slow
    "bulkhead/test_bulkhead_async.py::test_four_loops_and_four_threads_share_a_breaker_and_three_slots_and_the_totals_are_exact",
    "retry/test_backoff.py::test_no_delay_is_negative_nan_or_above_the_cap_over_a_million_settings",
    "retry/test_budget.py::test_tokens_are_exact_when_many_threads_put_in_and_take_out",
    "retry/test_policy.py::test_one_object_raised_ten_thousand_times_carries_one_note_of_ours_the_latest",
    "retry/test_policy.py::test_one_object_raised_in_many_threads_at_once_carries_one_note_of_ours",
    "breaker/test_registry.py::test_memory_stays_flat_however_many_keys_come",
)


def steps(module: str) -> list[list[str]]:
    """Return which tests a fault meets, step by step: those of its room, of its folder, and all others of behaviour."""
    if module in ("__main__", "_terminal") or module.startswith("_demo"):
        return [["tests/test_demo.py"], ["tests/test_main.py"]]
    *folders, room = module.split(".")
    folder = TESTED_IN.get(folders[0], folders[0].removeprefix("_")) if folders else ""
    tests = ROOT / "tests" / folder
    own = [str(path.relative_to(ROOT)) for path in sorted(tests.glob(f"test_{room.removeprefix('_')}*.py"))]
    of_all = folder not in PUBLIC
    return [step for step in (own, [f"tests/{folder}"] if folder else [], BEHAVIOUR if of_all else []) if step]


class Result(NamedTuple):
    outcome: str
    by: str = ""


class Copy:
    """A copy of the repository that a worker may spoil, and the tests run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        command = ["git", "ls-files", "-co", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(lambda name: (ROOT / name).is_file(), listed.splitlines()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
        self.base_s = cache(self._base_s)
        self.base_s("tests/common/test_checks.py")
        with self.planted("__init__", "raise RuntimeError"):
            if self.ask(["tests/common/test_checks.py"], 60.0)[0] == 0:
                raise SystemExit(f"the tests do not run the code in {folder}")

    def ask(self, tests: Iterable[str], timeout_s: float = math.inf) -> tuple[int | None, str]:
        """Run tests until the first that fails; return the exit status, None of a time-out, and what they print."""
        environ = dict(os.environ, PYTHONPATH=str(self.folder / "src"), STORM_SHOTS="30")
        environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # for speed
        if timeout_s < math.inf:  # a fault may be there, which must not be compiled for later
            environ["PYTHONDONTWRITEBYTECODE"] = "1"
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
        command += [f"--deselect=tests/{name}" for name in LEFT_OUT]
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = subprocess.Popen(
                [*command, *tests],
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = patiently(process, timeout_s)
            finally:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
            output.seek(0)
            return status, output.read()

    def _base_s(self, *tests: str) -> float:
        """Return how long tests take when all is well; that it is, is seen first."""
        started = time.monotonic()
        status, said = self.ask(tests)
        if status != 0:
            raise SystemExit(f"the tests {' '.join(tests)} fail without any fault:\n{said[-3000:]}")
        return time.monotonic() - started

    @contextmanager
    def planted(self, module: str, source: str) -> Iterator[None]:
        path = self.folder / path_of(module)
        before = path.read_bytes()
        path.write_text(source, "utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()
        try:
            yield
        finally:
            path.write_bytes(before)

    def meet(self, fault: Fault, source: str, explained: bool) -> Result:
        """Return what becomes of a fault; one that is explained meets only the tests of its room and folder."""
        for tests in steps(fault.module):
            if explained and tests is BEHAVIOUR:
                break
            limit_s = max(10.0, 5 * self.base_s(*tests))
            with self.planted(fault.module, source):
                status, said = self.ask(tests, limit_s)
            if status is None:
                return Result(TIMED_OUT, " ".join(tests))
            if status != 0:
                return Result(KILLED, first_failure(said))
        return Result(SURVIVED)


def patiently(process: subprocess.Popen[Any], timeout_s: float) -> int | None:
    """Return the exit status; None once it takes too long, or nothing moves any more: most hangs wait for a lock."""
    started = moved = time.monotonic()
    used = 0
    while True:
        try:
            return process.wait(0.2)
        except subprocess.TimeoutExpired:
            now, before, used = time.monotonic(), used, ticks_of(process.pid)
            moved = now if used != before or not used else moved
            if now - started > timeout_s or now - moved > STALLED_S:
                return None


def ticks_of(session: int) -> int:
    """Return how long the processes of a session have used a processor; 0 where there is no /proc."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            ticks += sum(int(field) for field in fields[11:15])
    return ticks


def first_failure(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR", "E  ", "INTERNALERROR"))]
    return lines[0] if lines else ""


def path_of(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def modules() -> list[str]:
    package = ROOT / PACKAGE
    return [".".join(path.relative_to(package).with_suffix("").parts) for path in sorted(package.rglob("*.py"))]


def explanations() -> dict[str, str]:
    lines = (line for line in EXPLAINED.read_text("utf-8").splitlines() if line and not line.startswith("#"))
    split = [line.partition("  ## ") for line in lines]
    if not all(why for _, _, why in split):
        raise SystemExit(f"{EXPLAINED}: every line has `  ## ` and a reason")
    return {fault: why for fault, _, why in split}


def digest(paths: Iterable[Path]) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:16]


class Found:
    """What is known of the faults of earlier runs, and of this one; in a file that grows by a line for each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests = digest(path for path in (ROOT / "tests").rglob("*.py") if HERE not in path.parents)
        self._source = cache(lambda module: digest([ROOT / path_of(module)]))
        self._known: dict[tuple[str, str], Result] = {}
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            fault, *under, outcome, by = json.loads(line)
            self._known[fault, *under] = Result(outcome, by)

    def _under(self, fault: Fault, outcome: str) -> tuple[str, str, str]:
        """A fault that was found stays so as long as the code is the same, one that survived for these tests alone."""
        return str(fault), self._source(fault.module), self._tests if outcome == SURVIVED else ""

    def get(self, fault: Fault) -> Result | None:
        return self._known.get(self._under(fault, KILLED)) or self._known.get(self._under(fault, SURVIVED))

    def put(self, fault: Fault, result: Result) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([*self._under(fault, result.outcome), *result]) + "\n")


def outdated(results: dict[str, Result], explained: Iterable[str], whole: set[str]) -> list[str]:
    """Return what is wrong with the explanations; `whole` are the modules all of whose faults are here."""
    wrong = []
    for fault in explained:
        module = fault.partition(":")[0].partition("#")[0]
        if fault in results and results[fault].outcome != SURVIVED:
            wrong.append(f"explained, but {results[fault].outcome}  {fault}  {results[fault].by}")
        elif fault not in results and (module in whole or module not in modules()):
            wrong.append(f"explained, but no such fault  {fault}")
    return wrong


def table(results: dict[Fault, Result], explained: Iterable[str]) -> list[str]:
    """Return a line for each module, in Markdown."""
    rows: dict[str, Counter[str]] = {}
    for fault, result in results.items():
        is_explained = result.outcome == SURVIVED and str(fault) in explained
        rows.setdefault(fault.module, Counter())["explained" if is_explained else result.outcome] += 1
    lines = ["| module | faults | killed | timed out | explained | left | score |", "|---" * 7 + "|"]
    for module, row in [*rows.items(), ("**all**", sum(rows.values(), Counter()))]:
        to_kill = row.total() - row["explained"]
        score = f"{1 - row[SURVIVED] / to_kill:.1%}" if to_kill else ""
        figures = (row.total(), row[KILLED], row[TIMED_OUT], row["explained"], row[SURVIVED], score)
        lines.append(f"| {module} | {' | '.join(map(str, figures))} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"one fault in {SHARE_OF_QUICK}")
    parser.add_argument("--list", action="store_true", help="only print the faults")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir(), "circuit-breaker-mutation"))
    parser.add_argument("modules", nargs="*", metavar="module")
    given = parser.parse_args()
    if unknown := set(given.modules) - set(modules()):
        parser.error(f"no such module: {', '.join(sorted(unknown))}")

    sources: dict[Fault, str] = {}
    for module in given.modules or modules():
        made = faults(module, (ROOT / path_of(module)).read_text("utf-8"))
        sources |= {fault: made[fault] for fault in list(made)[:: SHARE_OF_QUICK if given.quick else 1]}
    if given.list:
        print(*sources, sep="\n")
        return 0

    # Where Ctrl-C is ignored, as in the background of a shell, tests that send it to themselves would hang.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    given.scratch.mkdir(parents=True, exist_ok=True)
    explained, found = explanations(), Found(given.scratch / "found.jsonl")
    results = {fault: result for fault in sources if (result := found.get(fault))}
    waiting = [fault for fault in reversed(sources) if fault not in results]
    print(f"{len(waiting)} of {len(sources)} faults are to be planted", flush=True)

    def work(number: int) -> None:
        copy = Copy(given.scratch / f"copy{number}")
        try:
            while waiting:
                fault = waiting.pop()
                results[fault] = result = copy.meet(fault, sources[fault], str(fault) in explained)
                found.put(fault, result)
                if result.outcome == SURVIVED and str(fault) not in explained:
                    print(f"survived  {fault}", flush=True)
        except BaseException:
            waiting.clear()  # so that the others stop, too
            raise

    with ThreadPoolExecutor(given.workers) as pool:
        list(pool.map(work, range(given.workers)))

    left = [fault for fault in sources if results[fault].outcome == SURVIVED and str(fault) not in explained]
    whole = set() if given.quick else set(given.modules or modules())
    wrong = outdated({str(fault): results[fault] for fault in sources}, explained, whole)
    ordered = {fault: results[fault] for fault in sources}
    print("", *table(ordered, explained), "", *(f"left  {fault}" for fault in left), *wrong, sep="\n")
    print(f"{(time.monotonic() - started) / 60:.0f} minutes")
    return 1 if left or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
