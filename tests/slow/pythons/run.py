"""Run the suite on the newest Pythons: `sudo python tests/slow/pythons/run.py [interpreter ...]`.

Debian's unstable release has `python3.14`, `python3.15` and `pypy3`. They are run if none is named, and so is every
free-threaded `python3.14t` or the like that is found in it or on this machine. `debootstrap` puts the release into a
folder, which later runs use again and bring up to date. Any other interpreter that Debian has may be named, and so may
the path of one of this machine, which needs neither root nor that folder.

Each gets a fresh environment with the extra `test` and a copy of the repository; its output goes to a file. At the end
stands a table. The exit status is 1 unless all tests passed on each. Everything that runs in the folder has mounts and
process numbers of its own, so nothing is left of it, however it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
LEAVE_BEHIND = shutil.ignore_patterns(".git", ".venv", "*_cache", ".hypothesis", "__pycache__", ".coverage*", "site")

PYTHONS = ("python3.14", "python3.15", "pypy3")
SUITE = "-X dev -m pytest -q -o faulthandler_timeout=300"  # tells where it hangs, if it does
FREE = re.compile(r"python3\.\d+t")

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
KEPT = re.compile(r"(?i).*_proxy|PIP_(EXTRA_)?INDEX_URL")  # of the environment: how to reach packages

# Processes, mounts and all go when the one who asked for them does.
ALONE = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
ENTER = """
mount -t proc proc "$0/proc"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$0/dev/pts"
mount --bind "$0/dev/pts/ptmx" "$0/dev/ptmx"
mount -t tmpfs tmpfs "$0/dev/shm"
exec chroot "$0" "$@"
"""

ABOUT = """
import json, platform, sysconfig
name = {"CPython": "Python"}.get(platform.python_implementation(), platform.python_implementation())
free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
print(json.dumps([f"{name} {platform.python_version()}{', free-threaded' * free}", free]))
"""


class TimeIsUp(Exception):
    pass


class Machine:
    """Where commands run: on this machine as they are, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Where the environments, copies and output go; `inside()` tells what the commands call it."""

    def inside(self, path: Path) -> str:
        return str(path)

    def command(self, words: Sequence[str]) -> list[str]:
        return [*words]

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def run(self, words: Sequence[str], log: Path, limit_s: float, **environment: str) -> int:
        """Run it, add its output to the log, and return its status."""
        with log.open("ab") as output:
            try:
                return subprocess.run(
                    self.command(words),
                    env=self.environment() | environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=limit_s,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise TimeIsUp from None


class Debian(Machine):
    """A folder with Debian's newest release, in which commands run as if it were the whole machine."""

    def __init__(self, root: Path, mirror: str) -> None:
        super().__init__(root / "srv")
        self.root = root
        self.folders = [root / "usr/local/bin", root / "usr/bin"]
        self.mirror = mirror

    def inside(self, path: Path) -> str:
        return f"/{path.relative_to(self.root)}"

    def command(self, words: Sequence[str]) -> list[str]:
        return [*ALONE, "sh", "-ec", ENTER, str(self.root), *words]

    def environment(self) -> dict[str, str]:
        own = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "LANG": "C.UTF-8"}
        kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
        return (
            own
            | kept
            | {"DEBIAN_FRONTEND": "noninteractive", "PIP_ROOT_USER_ACTION": "ignore", "PIP_CERT": str(CERTIFICATES)}
        )

    def make(self, limit_s: float) -> None:
        """Make the folder unless it is there."""
        if self.root.exists():
            return
        begun = self.root.with_name(f"{self.root.name}.begun")
        shutil.rmtree(begun, ignore_errors=True)
        release = ["--variant=minbase", "--include=ca-certificates", "sid", str(begun), self.mirror]
        subprocess.run([*ALONE, "debootstrap", *release], timeout=limit_s, check=True)
        begun.rename(self.root)

    def install(self, names: Sequence[str], limit_s: float) -> None:
        """Install interpreters, or newer versions of them; names that Debian does not know are left out."""
        # What this machine trusts, and whom it asks, holds in there too.
        for path in (CERTIFICATES, Path("/etc/resolv.conf")):
            if path.exists():
                shutil.copyfile(path, self.root / path.relative_to("/"))
        log = self.folder / "apt.log"
        log.unlink(missing_ok=True)
        apt = ["apt-get", "-qq", "-o", "Acquire::Check-Valid-Until=false"]  # a frozen mirror is as good
        if self.run([*apt, "update"], log, limit_s):
            sys.exit(f"apt-get update failed; see {log}")
        for name in names:
            if self.run(["apt-cache", "show", f"{name}-venv"], log, limit_s) == 0 and self.run(
                [*apt, "install", "-y", "--no-install-recommends", name, f"{name}-venv"], log, limit_s
            ):
                sys.exit(f"apt-get install {name} failed; see {log}")

    def has(self, name: str) -> bool:
        return any((folder / name).exists() for folder in self.folders)


class Result(NamedTuple):
    python: str
    counts: dict[str, int]
    minutes: float
    wrong: str


class Failed(Exception):
    """Why an interpreter has no green run."""


def run_on(machine: Machine, python: str, extras: str, words: Sequence[str], limit_s: float) -> Result:
    """Run pytest, or a script with its arguments, on a copy of the repository with this interpreter."""
    scratch = machine.folder / Path(python).name
    shutil.rmtree(scratch, ignore_errors=True)
    repository, environment, log = scratch / "repository", scratch / "environment", scratch / "log"
    shutil.copytree(ROOT, repository, ignore=LEAVE_BEHIND)
    print(f"{python}: the output goes to {log}", flush=True)
    begun = time.monotonic()

    def step(wrong: str, *command: str, **variables: str) -> None:
        there = ["env", "-C", machine.inside(repository), *command]
        if machine.run(there, log, limit_s - (time.monotonic() - begun), **variables):
            raise Failed(wrong)

    title, wrong = python, ""
    try:
        step("there is none", python, "-c", ABOUT)
        title, no_gil = json.loads(log.read_text())
        # A dependency that is not ready for it would bring the GIL back, and warn.
        variables = {"PYTHON_GIL": "0"} if no_gil else {}
        own = machine.inside(environment / "bin" / "python")
        step("it makes no environment", python, "-m", "venv", machine.inside(environment))
        step("the extras are not to be had", own, "-m", "pip", "install", "-q", f".[{extras}]")
        step("not green", own, *words, **variables)
    except Failed as failed:
        wrong = str(failed)
    except TimeIsUp:
        wrong = f"not ready after {limit_s / 60:.0f} minutes"
    lines = log.read_text(errors="replace").splitlines()
    if wrong or "pytest" not in words:
        print("\n".join(lines[-60:]), flush=True)
    counts = {word: int(count) for count, word in re.findall(r"(\d+) ([a-z]+)", lines[-1] if lines else "")}
    return Result(title, counts, (time.monotonic() - begun) / 60, wrong)


def free_threaded(folders: Iterable[Path]) -> set[str]:
    return {
        path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if FREE.fullmatch(path.name)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interpreters", nargs="*", help="names, or paths of this machine's; all if none is given")
    parser.add_argument("--root", type=Path, default="/var/tmp/circuit-breaker-pythons", help="the folder with Debian")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian", help="where Debian's packages are")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long one interpreter may take")
    parser.add_argument("--instead", metavar="COMMAND", default=SUITE, help="what to run instead of the suite")
    parser.add_argument("--extras", default="test", help="what to install for it")
    given = parser.parse_args()

    own_folders = [Path(folder) for folder in os.get_exec_path()]
    names = given.interpreters or [*PYTHONS, *sorted(free_threaded(own_folders))]
    limit_s = given.minutes * 60
    os.nice(10)

    runs: list[tuple[Machine, str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        here = Machine(Path(scratch))
        debian = Debian(given.root.absolute(), given.mirror)
        if not all("/" in name for name in names):
            if os.geteuid() != 0:
                parser.error("only root can make the folder with Debian; the path of an interpreter needs no root")
            debian.make(limit_s)
            debian.install([name for name in names if "/" not in name], limit_s)
            if not given.interpreters:
                names += sorted(free_threaded(debian.folders) - {*names})
        for name in names:
            found = None if debian.has(name) else shutil.which(name)
            runs.append((here, found) if found else (debian, name))
        results = [run_on(*run, given.extras, shlex.split(given.instead), limit_s) for run in runs]

    print("\n| Python | passed | skipped | failed | minutes | |\n| --- | --- | --- | --- | --- | --- |")
    for python, counts, minutes, wrong in results:
        failed = counts.get("failed", 0) + counts.get("errors", 0) + counts.get("error", 0)
        print(
            f"| {python} | {counts.get('passed', 0):,} | {counts.get('skipped', 0)} | {failed} |"
            f" {minutes:.0f} | {wrong or 'green'} |"
        )
    return 1 if any(result.wrong for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
