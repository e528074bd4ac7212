"""Plant small faults in the package, one at a time, and see which the tests overlook.

`python tests/slow/mutation/run.py [--quick] [module ...]`, where a module is `_breaker.window` or `_demo.screen`; all
if none is named. Needs the extras `test` and `mutation`. Faults that no test can tell are explained in
`explained.txt`; any other that is left makes the exit status 1.

Each worker has a copy, so the working tree is not touched. A fault is first met by the tests of its module, then,
unless it is explained, by all others of behaviour. What has been found out is kept in the scratch folder: an
interrupted run goes on, a later one asks only about what was left and about modules that have changed.
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
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, NamedTuple

import suites
from mutants import Mutant, mutants

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PACKAGE = Path("src/circuit_breaker")
EXPLAINED = HERE / "explained.txt"
SHARE_OF_QUICK = 12
STALLED_S = 5.0
STATUS_FAILED, STATUS_INTERRUPTED, STATUS_INTERNAL, STATUS_USAGE = 1, 2, 3, 4

STAGES = ("the tests that find most", "the others of their modules", "all others")
ALL_OTHERS = 2

KILLED, TIMED_OUT, SURVIVED = "killed", "timed out", "survived"


class BadRun(Exception):
    """What says nothing about a mutant: the tests could not be run."""


class Result(NamedTuple):
    outcome: str
    by: str


class Copy:
    """A copy of the repository that a worker may spoil, and the tests run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
        for name in listed.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self._base_s: dict[tuple[str, ...], float] = {}

    def ask(self, tests: list[str], timeout_s: float = math.inf, compiled: bool = False) -> tuple[int | None, str]:
        """Run tests until the first that fails; return the exit status, None of a time-out, and what they print."""
        environ = dict(os.environ, PYTHONPATH=str(self.folder / "src"), STORM_SHOTS="30")
        environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # for speed
        if not compiled:
            environ["PYTHONDONTWRITEBYTECODE"] = "1"
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
        command += [f"--deselect={path_of_test(name)}" for name in suites.LEFT_OUT]
        command += [path_of_test(name) for name in tests]
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = subprocess.Popen(
                command,
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

    def base_s(self, tests: list[str]) -> float:
        """Return how long tests take when all is well; that it is, is seen first."""
        if tuple(tests) not in self._base_s:
            started = time.monotonic()
            status, told = self.ask(tests, compiled=True)
            if status != 0:
                raise SystemExit(f"the tests {' '.join(tests)} fail without any fault:\n{told[-3000:]}")
            self._base_s[tuple(tests)] = time.monotonic() - started
        return self._base_s[tuple(tests)]

    def check(self) -> None:
        """See that what is planted here is what the tests meet."""
        with self.planted("__init__", "raise RuntimeError"):
            status, told = self.ask(["test_checks"])
        if status not in (STATUS_INTERRUPTED, STATUS_USAGE) or "RuntimeError" not in told:
            raise SystemExit(f"the tests do not run the code in {self.folder}:\n{told[-3000:]}")

    def planted(self, module: str, source: str) -> Planted:
        return Planted(self.folder / path_of(module), source)

    def meet(self, mutant: Mutant, source: str, tests: list[str]) -> Result:
        """Return what tests, which are seen to pass without it, make of a mutant."""
        limit_s = max(10.0, 5 * self.base_s(tests))
        with self.planted(mutant.module, source):
            status, told = self.ask(tests, limit_s)
        if status is None:
            return Result(TIMED_OUT, " ".join(tests))
        # What ends pytest itself is the mutant's doing if it shows, since all is well without.
        loading = (status == STATUS_USAGE and "conftest" in told) or (
            status == STATUS_INTERNAL and str(PACKAGE) in told
        )
        if status in (STATUS_FAILED, STATUS_INTERRUPTED) or loading:
            return Result(KILLED, first_failure(told))
        if status != 0:
            raise BadRun(f"exit status {status}:\n{told[-3000:]}")
        return Result(SURVIVED, "")


class Planted:
    """A file with other contents for a while."""

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source

    def __enter__(self) -> None:
        self._before = self._path.read_bytes()
        self._path.write_text(self._source, "utf-8")
        for compiled in (self._path.parent / "__pycache__").glob(f"{self._path.stem}.*.pyc"):
            compiled.unlink()

    def __exit__(self, *_: object) -> None:
        self._path.write_bytes(self._before)


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


def first_failure(told: str) -> str:
    lines = [line for line in told.splitlines() if line.startswith(("FAILED", "ERROR", "E  ", "INTERNALERROR"))]
    return lines[0] if lines else ""


def path_of_test(name: str) -> str:
    """Return where a test is, of `test_file` or `test_file.py::test_name`; no two files share a name."""
    file, colons, test = name.partition("::")
    (path,) = (ROOT / "tests").rglob(file.removesuffix(".py") + ".py")
    return f"{path.relative_to(ROOT)}{colons}{test}"


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
    return {mutant: why for mutant, _, why in split}


def digest(paths: Iterable[Path]) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:16]


class Found:
    """What is known of the mutants of earlier runs, and of this one; in a file that grows by a line for each."""

    def __init__(self, path: Path, fresh: bool) -> None:
        self._path = path
        self._lock = Lock()
        self._tests = digest(path for path in (ROOT / "tests").rglob("*.py") if HERE not in path.parents)
        self._sources: dict[str, str] = {}
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        if path.exists() and not fresh:
            for line in path.read_text("utf-8").splitlines():
                entry = json.loads(line)
                self._known[entry["mutant"], entry["source"]] = entry
        elif fresh:
            path.unlink(missing_ok=True)

    def get(self, mutant: Mutant, stage: int) -> Result | None:
        """Return what became of a mutant by a stage: killed it stays, not so for new tests if it survived."""
        entry = self._known.get((str(mutant), self._source_of(mutant)))
        if entry is None:
            return None
        if entry["outcome"] == SURVIVED and (entry["stage"] < stage or entry["tests"] != self._tests):
            return None
        return Result(entry["outcome"], entry["by"])

    def put(self, mutant: Mutant, stage: int, result: Result) -> None:
        entry = {"mutant": str(mutant), "source": self._source_of(mutant), "tests": self._tests, "stage": stage}
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry | result._asdict()) + "\n")

    def _source_of(self, mutant: Mutant) -> str:
        if mutant.module not in self._sources:
            self._sources[mutant.module] = digest([ROOT / path_of(mutant.module)])
        return self._sources[mutant.module]


class Hunt:
    """All chosen mutants, and what became of them so far."""

    def __init__(self, copies: list[Copy], wanted: dict[Mutant, str], known: Found, explained: dict[str, str]) -> None:
        self.results: dict[Mutant, Result] = {}
        self.met = 0
        self.troubles = 0
        self._copies = copies
        self._wanted = wanted
        self._known = known
        self._explained = explained

    def send(self, stage: int) -> None:
        """Send each mutant that is left to the tests of a stage; those that are explained meet only their own."""

        def tests_of(module: str) -> list[str]:
            return suites.stages(module)[stage]

        queue: SimpleQueue[Mutant] = SimpleQueue()
        for mutant in self._wanted:
            if stage and self.results.get(mutant) != Result(SURVIVED, ""):
                continue
            if stage == ALL_OTHERS and str(mutant) in self._explained:
                continue
            result = self._known.get(mutant, stage)
            if result is not None:
                self.results[mutant] = result
            elif tests_of(mutant.module):
                queue.put(mutant)
        self.met += queue.qsize()
        print(f"{queue.qsize()} faults meet {STAGES[stage]}", flush=True)

        def work(copy: Copy) -> None:
            for mutant in waiting(queue):
                try:
                    result = copy.meet(mutant, self._wanted[mutant], tests_of(mutant.module))
                except SystemExit:
                    list(waiting(queue))  # so that the others stop, too
                    raise
                except BadRun as error:
                    self.troubles += 1
                    print(f"TROUBLE  {mutant}: {error}", flush=True)
                    continue
                self.results[mutant] = result
                self._known.put(mutant, stage, result)
                if stage and result.outcome == SURVIVED and str(mutant) not in self._explained:
                    print(f"survived {STAGES[stage]}  {mutant}", flush=True)

        with ThreadPoolExecutor(len(self._copies)) as pool:
            list(pool.map(work, self._copies))

    def left(self) -> list[Mutant]:
        survived = [mutant for mutant, result in self.results.items() if result.outcome == SURVIVED]
        return [mutant for mutant in survived if str(mutant) not in self._explained]

    def outdated(self, whole: set[str]) -> list[str]:
        """Return what is wrong with the explanations; `whole` are the modules all of whose mutants are here."""
        found = {str(mutant): result for mutant, result in self.results.items()}
        wrong = []
        for name in self._explained:
            if name in found and found[name].outcome != SURVIVED:
                wrong.append(f"explained, but {found[name].outcome}  {name}  {found[name].by}")
            elif name not in found and name.partition(":")[0].partition("#")[0] in whole:
                wrong.append(f"explained, but no such fault  {name}")
        return wrong

    def table(self) -> list[str]:
        """Return a line for each module, in Markdown."""
        rows: dict[str, Counter[str]] = {}
        for mutant, result in self.results.items():
            explained = result.outcome == SURVIVED and str(mutant) in self._explained
            rows.setdefault(mutant.module, Counter())["explained" if explained else result.outcome] += 1
        lines = ["| module | faults | killed | timed out | explained | left | score |", "|---" * 7 + "|"]
        for module, row in [*rows.items(), ("**all**", sum(rows.values(), Counter()))]:
            to_kill = row.total() - row["explained"]
            score = f"{1 - row[SURVIVED] / to_kill:.1%}" if to_kill else ""
            figures = (row.total(), row[KILLED], row[TIMED_OUT], row["explained"], row[SURVIVED], score)
            lines.append(f"| {module} | {' | '.join(map(str, figures))} |")
        return lines


def waiting(queue: SimpleQueue[Mutant]) -> Iterator[Mutant]:
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"one fault in {SHARE_OF_QUICK}")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs have found out")
    parser.add_argument("--list", action="store_true", help="only print the faults")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir(), "circuit-breaker-mutation"))
    parser.add_argument("modules", nargs="*", metavar="module")
    given = parser.parse_args()
    unknown = set(given.modules) - set(modules())
    if unknown:
        parser.error(f"no such module: {', '.join(sorted(unknown))}")

    wanted: dict[Mutant, str] = {}
    for module in given.modules or modules():
        found = mutants(module, (ROOT / path_of(module)).read_text("utf-8"))
        wanted |= {mutant: found[mutant] for mutant in list(found)[:: SHARE_OF_QUICK if given.quick else 1]}
    if given.list:
        print(*wanted, sep="\n")
        return 0

    # Where Ctrl-C is ignored, as in the background of a shell, tests that send it to themselves would hang.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    given.scratch.mkdir(parents=True, exist_ok=True)
    copies = [Copy(given.scratch / f"copy{number}") for number in range(given.workers)]
    for copy in copies:
        copy.check()
    hunt = Hunt(copies, wanted, Found(given.scratch / "found.jsonl", given.fresh), explanations())
    for stage in range(len(STAGES)):
        hunt.send(stage)

    left = hunt.left()
    outdated = hunt.outdated(set() if given.quick else set(given.modules or modules()))
    print("", *hunt.table(), "", *(f"left  {mutant}" for mutant in left), *outdated, sep="\n")
    print(f"{hunt.met} meetings in {(time.monotonic() - started) / 60:.0f} minutes, {hunt.troubles} of them in trouble")
    return 1 if left or outdated or hunt.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
