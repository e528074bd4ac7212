"""The benchmarks run, and say so when something is too slow; how fast anything is, is not asked here."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tracemalloc", reason="PyPy does not trace memory", exc_type=ImportError)

FOLDER = Path(__file__).parent
OURS = ("by_hand", "by_hand_cases", "case", "cases", "floors", "measures", "peers", "run")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module run.py, as if started in its folder; it is forgotten afterwards."""
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("run")
    for name in OURS:
        sys.modules.pop(name, None)


def planted(run: Any, costs: float, **settings: Any) -> Any:
    """A case without any clock: the floor costs 10, this library so much, a peer 30."""
    ways = {"floor": 10, "this library": costs, "pybreaker": 30}
    subjects = {name: lambda number, cost=cost: cost * number for name, cost in ways.items()}
    return run.Case("planted", lambda: subjects, slice_s=0, **settings)


def test_the_cases_are_measured_and_printed() -> None:
    words = ["breaker", "retry", "bulkhead", "import"]  # without what takes seconds: a million calls under tracemalloc
    command = [sys.executable, FOLDER / "run.py", "--rounds", "1", "--no-peers", *words]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [line.split("|") for line in shown.splitlines() if line.startswith("|")]
    assert {"floor", "this library"} < {row[2].strip() for row in rows}
    assert len({len(row) for row in rows}) == 1
    assert "figures are within their targets" in shown


@pytest.mark.parametrize(
    ("option", "costs", "status"),
    [("--check", 24, 0), ("--check", 26, 1), ("--tight", 12, 0), ("--tight", 13, 1), ("--quick", 100, 0)],
)
def test_the_status_tells_whether_a_target_is_missed(run: Any, option: str, costs: float, status: int) -> None:
    assert run.main([option, "--rounds", "2"], [planted(run, costs, target=1.25)]) == status


def test_a_miss_is_named_with_its_figure(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run.main(["--tight"], [planted(run, 20, target=1.25)])
    shown = capsys.readouterr().out
    assert "0 of 1 figures are within their targets. Not within:" in shown
    assert "planted: this library: 2, target 1.25" in shown


def test_a_disturbed_measurement_is_made_up_for(run: Any) -> None:
    costs = iter([90] * 100)
    subjects = {"floor": lambda number: 10 * number, "this library": lambda number: next(costs, 10) * number}
    assert run.main(["--check"], [run.Case("planted", lambda: subjects, 1.25, slice_s=0)]) == 0


def test_a_faster_peer_is_a_miss(run: Any) -> None:
    assert run.main(["--tight"], [planted(run, 29, beats_peers=True)]) == 0
    assert run.main(["--tight"], [planted(run, 31, beats_peers=True)]) == 1


def test_a_wide_spread_is_a_miss(run: Any) -> None:
    subjects = {"floor": lambda number: 10, "this library, a": lambda number: 10, "this library, b": lambda number: 11}
    assert run.main(["--tight"], [run.Case("planted", lambda: subjects, spread=1.05, slice_s=0)]) == 1
    assert run.main(["--tight"], [run.Case("planted", lambda: subjects, spread=1.15, slice_s=0)]) == 0


def test_only_the_table_of_this_python_is_replaced(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"before\n{run.BEGIN}\nold\n{run.END}\nafter\n", "utf-8")
    monkeypatch.setattr(run, "DOCUMENT", document)
    for version, costs in (("3.13.0", 11), ("3.9.1", 12), ("3.13.1", 13)):
        monkeypatch.setattr(run.platform, "python_version_tuple", lambda version=version: tuple(version.split(".")))
        run.main(["--markdown"], [planted(run, costs, target=1.25)])
    written = document.read_text("utf-8")
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert [line for line in written.splitlines() if line.startswith("#")] == ["### Python 3.9", "### Python 3.13"]
    assert [ratio in written for ratio in ("1.10", "1.20", "1.30")] == [False, True, True]
    assert [line[:4] for line in written.splitlines() if "figures" in line] == ["1 of", "0 of"]


def test_the_head_of_the_page_shows_the_newest_python(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"{run.HEADLINES_BEGIN}{run.HEADLINES_END}\nmiddle\n{run.BEGIN}{run.END}", "utf-8")
    monkeypatch.setattr(run, "DOCUMENT", document)
    for version, costs in (("3.13.0", 11), ("3.9.1", 12)):
        monkeypatch.setattr(run.platform, "python_version_tuple", lambda version=version: tuple(version.split(".")))
        run.main(["--markdown"], [planted(run, costs, headline="a call"), planted(run, 5)])
    first, middle, _ = document.read_text("utf-8").partition("middle")
    assert middle
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in first.splitlines() if line.startswith("|")]
    assert cells[2:] == [["a call", "11 ns", "the least that does it: 10 ns", "1.10", "pybreaker: 30 ns"]]
