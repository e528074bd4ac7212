"""Two type checkers see the types that are promised, and refuse what is wrong. What they run over is in `typing/`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ACCEPTED = "tests/typing/accepted.py"
REFUSED = "tests/typing/refused.py"
MARK = re.compile(r"# refused(?: by (\w+))?$")

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")


def run(*command: str) -> str:
    """Return what a checker printed, whether it found errors or none; one that breaks down has another status."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode in (0, 1)
    return done.stdout


def errors_of_mypy(path: str, cache: Path) -> dict[int, str]:
    lines = run("mypy", "--strict", "--output=json", "--no-pretty", f"--cache-dir={cache}", path).splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return {error["line"]: f"{error['file']}: {error['message']}" for error in found if error["severity"] == "error"}


def errors_of_basedpyright(path: str, cache: Path) -> dict[int, str]:
    found = json.loads(run("basedpyright", "--outputjson", "--level=error", path))
    assert found["summary"]["filesAnalyzed"] == 1
    return {
        error["range"]["start"]["line"] + 1: f"{error['file']}: {error['message']}"
        for error in found["generalDiagnostics"]
        if error["severity"] == "error"
    }


CHECKERS = {"mypy": errors_of_mypy, "basedpyright": errors_of_basedpyright}
each_checker = pytest.mark.parametrize(
    "checker",
    [
        pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} does not build here"))
        for name in CHECKERS
    ],
)


def marked(path: str, checker: str) -> set[int]:
    return {
        number
        for number, line in enumerate((ROOT / path).read_text("utf-8").splitlines(), 1)
        if (mark := MARK.search(line)) and mark[1] in (None, checker)
    }


@each_checker
def test_what_is_right_is_accepted_with_the_types_promised(checker: str, tmp_path: Path) -> None:
    assert CHECKERS[checker](ACCEPTED, tmp_path) == {}


@each_checker
def test_what_is_wrong_is_rejected_on_the_very_lines(checker: str, tmp_path: Path) -> None:
    errors = CHECKERS[checker](REFUSED, tmp_path)
    expected = marked(REFUSED, checker)
    assert len(expected) > 20
    assert {line: text for line, text in errors.items() if line not in expected} == {}, "refused, but not marked"
    assert expected - errors.keys() == set(), "marked, but not refused"
