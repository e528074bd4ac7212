"""Plant small faults in the package, one at a time, and see which the tests overlook.

`python tests/mutation/run.py [--quick] [module ...]`, where a module is `_window` or `_demo.screen`; all if none is
named. Needs the extras `test` and `mutation`. Faults that no test can tell are explained in `explained.txt`; any other
that is left makes the exit status 1.

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
ROOT = HERE.parent.parent
PACKAGE = Path("src/circuit_breaker")
EXPLAINED = HERE / "explained.txt"
SHARE_OF_QUICK = 12
STALLED_S = 5.0
STATUS_FAILED, STATUS_INTERRUPTED, STATUS_USAGE = 1, 2, 4

KILLED, TIMED_OUT, SURVIVED = "killed", "timed out", "survived"


class BadRun(Exception):
    """What says nothing about a mutant: the tests, or this program, are at fault."""


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
        command += [f"--deselect=tests/{name}" for name in suites.ABOUT_THE_SOURCE]
        command += [f"tests/{name}.py" for name in tests]
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
                raise BadRun(f"the tests {' '.join(tests)} fail without any fault:\n{told[-3000:]}")
            self._base_s[tuple(tests)] = time.monotonic() - started
        return self._base_s[tuple(tests)]

    def check(self) -> None:
        """See that what is planted here is what the tests meet."""
        with self.planted("__init__", "raise RuntimeError"):
            status, told = self.ask(["test_checks"])
        if status not in (STATUS_INTERRUPTED, STATUS_USAGE) or "RuntimeError" not in told:
            raise BadRun(f"the tests do not run the code in {self.folder}:\n{told[-3000:]}")

    def planted(self, module: str, source: str) -> Planted:
        return Planted(self.folder / path_of(module), source)

    def meet(self, mutant: Mutant, source: str, tests: list[str]) -> Result:
        """Return what tests, which are seen to pass without it, make of a mutant."""
        limit_s = max(10.0, 5 * self.base_s(tests))
        with self.planted(mutant.module, source):
            status, told = self.ask(tests, limit_s)
        if status is None:
            return Result(TIMED_OUT, " ".join(tests))
        if status in (STATUS_FAILED, STATUS_INTERRUPTED) or (status == STATUS_USAGE and "conftest" in told):
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
    lines = [line for line in told.splitlines() if line.startswith(("FAILED", "ERROR", "E  "))]
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
    return {mutant: why for mutant, _, why in split}


def digest(paths: Iterable[Path]) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:16]


class Found:
    """What is known of the mutants of earlier runs, and of this one; in a file that grows by a line for each."""

    def __init__(self, path: Path, fresh: bool) -> None:
        self._path = path
        self._lock = Lock()
        self._tests = digest(path for path in (ROOT / "tests").rglob("*.py") if HERE not in path.parents)
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        if path.exists() and not fresh:
            for line in path.read_text("utf-8").splitlines():
                entry = json.loads(line)
                self._known[entry["mutant"], entry["source"]] = entry
        elif fresh:
            path.unlink(missing_ok=True)

    def get(self, mutant: Mutant, source: str, stage: int) -> Result | None:
        """Return what became of a mutant by a stage: killed it stays, not so for new tests if it survived."""
        entry = self._known.get((str(mutant), source))
        if entry is None:
            return None
        if entry["outcome"] == SURVIVED and (entry["stage"] < stage or entry["tests"] != self._tests):
            return None
        return Result(entry["outcome"], entry["by"])

    def put(self, mutant: Mutant, source: str, stage: int, result: Result) -> None:
        entry = {"mutant": str(mutant), "source": source, "tests": self._tests, "stage": stage} | result._asdict()
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


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

    wanted: dict[Mutant, tuple[str, str]] = {}
    for module in given.modules or modules():
        path = ROOT / path_of(module)
        found = mutants(module, path.read_text("utf-8"))
        chosen = list(found)[:: SHARE_OF_QUICK if given.quick else 1]
        wanted |= {mutant: (found[mutant], digest([path])) for mutant in chosen}
    if given.list:
        print(*wanted, sep="\n")
        return 0

    explained = explanations()
    given.scratch.mkdir(parents=True, exist_ok=True)
    known = Found(given.scratch / "found.jsonl", given.fresh)
    copies = [Copy(given.scratch / f"copy{number}") for number in range(given.workers)]
    for each in copies:
        each.check()
    started = time.monotonic()
    results: dict[Mutant, Result] = {}
    troubles: list[str] = []
    met = 0
    for stage, tests_of in enumerate((suites.own, suites.others)):
        queue: SimpleQueue[Mutant] = SimpleQueue()
        for mutant, (_, source_digest) in wanted.items():
            if stage and (results.get(mutant) != Result(SURVIVED, "") or str(mutant) in explained):
                continue
            result = known.get(mutant, source_digest, stage)
            if result is not None:
                results[mutant] = result
            elif tests_of(mutant.module):
                queue.put(mutant)
        met += queue.qsize()
        print(
            f"{len(wanted)} faults, {queue.qsize()} of them meet {('their own', 'all other')[stage]} tests", flush=True
        )

        def work(copy: Copy, stage: int = stage, tests_of: Any = tests_of, queue: Any = queue) -> None:
            for mutant in waiting(queue):
                source, source_digest = wanted[mutant]
                try:
                    results[mutant] = copy.meet(mutant, source, tests_of(mutant.module))
                except BadRun as error:
                    troubles.append(str(mutant))
                    print(f"TROUBLE  {mutant}: {error}", flush=True)
                    continue
                known.put(mutant, source_digest, stage, results[mutant])
                if stage and results[mutant].outcome == SURVIVED:
                    print(f"left  {mutant}", flush=True)

        with ThreadPoolExecutor(given.workers) as pool:
            list(pool.map(work, copies))

    unexplained = report(results, explained)
    whole = set() if given.quick else set(given.modules or modules())
    faults = outdated(results, explained, whole)
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{met} meetings in {(time.monotonic() - started) / 60:.1f} minutes; {len(troubles)} troubles")
    return 1 if unexplained or faults or troubles else 0


def waiting(queue: SimpleQueue[Mutant]) -> Iterator[Mutant]:
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return


def outdated(results: dict[Mutant, Result], explained: dict[str, str], whole: set[str]) -> list[str]:
    """Return what is wrong with the explanations of modules all of whose mutants are here."""
    found = {str(mutant): result for mutant, result in results.items()}
    told = [f"explained, but killed: {name} ({found[name].by})" for name in explained
            if name in found and found[name].outcome != SURVIVED]  # fmt: skip
    told += [f"explained, but no such fault: {name}" for name in explained
             if name not in found and name.partition(":")[0].partition("#")[0] in whole]  # fmt: skip
    return told


def report(results: dict[Mutant, Result], explained: dict[str, str]) -> int:
    """Print a line for each module, and each fault that is left; return how many are."""
    rows: dict[str, Counter[str]] = {}
    unexplained = []
    for mutant, result in results.items():
        kind = result.outcome
        if kind == SURVIVED:
            kind = "explained" if str(mutant) in explained else "left"
            if kind == "left":
                unexplained.append(mutant)
        rows.setdefault(mutant.module, Counter())[kind] += 1
    total: Counter[str] = sum(rows.values(), Counter())
    print(f"\n{'module':16} {'faults':>7} {'killed':>7} {'timed out':>10} {'explained':>10} {'left':>5} {'score':>7}")
    for module, row in [*rows.items(), ("all", total)]:
        told = row.total() - row["explained"]
        score = (told - row["left"]) / told if told else 1.0
        print(
            f"{module:16} {row.total():7} {row[KILLED]:7} {row[TIMED_OUT]:10} {row['explained']:10} {row['left']:5}"
            f" {score:7.1%}"
        )
    print(*(f"left  {mutant}" for mutant in unexplained), sep="\n")
    return len(unexplained)


if __name__ == "__main__":
    sys.exit(main())
