"""Compare this library with what its work costs at least, and with its peers.

Each way of doing a thing is measured in turn for a moment, round by round, so that whatever else the machine does meets
all of them alike. Shown are the best and the median of all rounds; the ratio is that of the two bests. What else runs
on the machine only ever adds time, so the best comes closest to what the thing itself costs: over 20 runs of 100 rounds
on two busy processors this ratio had a standard deviation of 0.01 to 0.02, the median of the ratios of the single
rounds one of 0.3 to 0.6, and the ratio of the two medians one of 0.4 to 0.9. Where a target is missed and something
depends on it, more rounds are added to those there are.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[1] / "support"))

import peers
from case import BY_HAND, FLOOR, US, Case
from cases import CASES
from measures import NS, Measure

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEADLINES_BEGIN, HEADLINES_END = "<!-- headlines: begin -->", "<!-- headlines: end -->"
HEADING = "### Python "

ROUNDS = 400
QUICK_ROUNDS = 60
ATTEMPTS = 5
YARDSTICKS = {FLOOR: "the least that does it", BY_HAND: "written by hand"}
TOLERANCE = 2.0  # what `--check` allows, as a multiple of the target


class Row(NamedTuple):
    """What came out for one way of doing the thing."""

    name: str
    best: float
    median: float
    ratio: float | None


class Verdict(NamedTuple):
    """What was asked of this library, and what came out."""

    name: str
    figure: float
    target: float

    def fails(self, tolerance: float) -> bool:
        return self.figure > self.target * tolerance


@dataclass(frozen=True)
class Result:
    """What came out for a case."""

    case: Case
    rows: list[Row]

    def verdicts(self) -> Iterator[Verdict]:
        case = self.case
        ours = [row for row in self.rows if row.name.startswith(US)]
        figures = {row.name: row.best if case.yardstick is None else row.ratio for row in ours}
        for name, figure in figures.items():
            if case.target is not None and figure is not None:
                yield Verdict(f"{case.name}: {name}", figure, case.target)
        if case.spread is not None:
            ratios = [figure for figure in figures.values() if figure is not None]
            yield Verdict(f"{case.name}: dearest of ours to cheapest", max(ratios) / min(ratios), case.spread)
        others = [row.ratio for row in self.rows if row.name in peers.MODULES and row.ratio is not None]
        if case.beats_peers and others:
            slowest = max(row.ratio for row in ours if row.ratio is not None)
            yield Verdict(f"{case.name}: ours to the fastest peer", slowest / min(others), 1.0)


def measure(case: Case, rounds: int, with_peers: bool, tolerance: float | None) -> Result:
    """Measure all ways of a case in turn, round by round; with a tolerance, for longer where a target is missed."""
    ways = {
        name: way
        for name, way in case.subjects().items()
        if with_peers or name.partition(",")[0] not in peers.MODULES or name == case.yardstick
    }
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 if tolerance is None else ATTEMPTS):
        for name, more in take_turns(ways, max(1, ceil(rounds * case.rounds)), case.slice_s).items():
            samples[name] += more
        result = _result(case, samples)
        if not any(verdict.fails(tolerance or 1.0) for verdict in result.verdicts()):
            break
    return result


def take_turns(ways: dict[str, Measure], rounds: int, slice_s: float) -> dict[str, list[float]]:
    """Measure each in turn, so many times, the order turned round every time; return what one time took."""
    numbers = {name: _number(way, slice_s) for name, way in ways.items()}
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in list(ways) if turn % 2 else reversed(ways):
            samples[name].append(ways[name](numbers[name]) / numbers[name])
    return samples


def _number(way: Measure, slice_s: float) -> int:
    """Return how often the thing is done in so much time, the best of a few."""
    number = 1
    while slice_s and (taken := min(way(number) for _ in range(3))) < slice_s * NS:
        number = max(2 * number, int(number * slice_s * NS / taken / 2))
    return number


def _result(case: Case, samples: dict[str, list[float]]) -> Result:
    yardstick = min(samples[case.yardstick]) if case.yardstick in samples else None
    return Result(
        case,
        [
            Row(name, min(sample), statistics.median(sample), yardstick and min(sample) / yardstick)
            for name, sample in samples.items()
        ],
    )


def table(results: Iterable[Result]) -> list[str]:
    """Return what came out for every way, as a table in Markdown."""
    lines = [["case", "", "best", "median", "ratio", "target"]]
    for result in results:
        case = result.case
        for index, row in enumerate(result.rows):
            lines.append(
                [
                    "" if index else case.name,
                    row.name,
                    f"{row.best:,.0f} {case.unit}",
                    f"{row.median:,.0f} {case.unit}",
                    "" if row.ratio is None else f"{row.ratio:.2f}",
                    _target(case) if row.name.startswith(US) else "",
                ]
            )
    return _aligned(lines, 2)


def headlines(results: Iterable[Result]) -> list[str]:
    """Return what readers want first: this library beside the yardstick, and the fastest peer."""
    lines = [["", US, "compared with", "ratio", "fastest peer"]]
    for result in results:
        case = result.case
        ours = next(row for row in result.rows if row.name.startswith(US))
        by_name = {row.name: row for row in result.rows}
        rivals = sorted((row.best, row.name) for name, row in by_name.items() if name in peers.MODULES)
        if case.headline is None or case.yardstick not in by_name:
            continue
        yardstick = by_name[case.yardstick]
        lines.append(
            [
                case.headline,
                _time(ours.best),
                f"{YARDSTICKS.get(yardstick.name, yardstick.name)}: {_time(yardstick.best)}",
                f"{ours.best / yardstick.best:.2f}",
                f"{rivals[0][1]}: {_time(rivals[0][0])}" if rivals else "",
            ]
        )
    return _aligned(lines, 1)


def _time(ns: float) -> str:
    return f"{ns / 1_000_000:,.1f} ms" if ns >= 1_000_000 else f"{ns:,.0f} ns"


def _aligned(lines: list[list[str]], left: int) -> list[str]:
    """Return a table in Markdown; its first columns are aligned to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    padded = [
        [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return [f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:])]


def _target(case: Case) -> str:
    if case.target is None:
        return ""
    return f"<= {case.target:.2f}" if case.yardstick else f"<= {case.target:,.0f} {case.unit}"


def within_targets(results: Iterable[Result], tolerance: float = 1.0) -> str:
    """Return how many figures meet their targets, or so many times their targets."""
    verdicts = [verdict for result in results for verdict in result.verdicts()]
    met = sum(not verdict.fails(tolerance) for verdict in verdicts)
    limit = "their targets" if tolerance == 1.0 else f"{tolerance:g} times their targets"
    return f"{met} of {len(verdicts)} figures are within {limit}."


def conditions() -> str:
    """Return what was measured where."""
    found = peers.versions()
    missing = sorted(peers.MODULES.keys() - found.keys())
    parts = [
        f"{platform.python_implementation()} {platform.python_version()}",
        f"{platform.system()} {platform.machine()}",
        f"{os.cpu_count()} processors",
        *(f"{name} {number}" for name, number in found.items()),
        *(f"without {name}, which is not installed" for name in missing),
    ]
    return f"{', '.join(parts)}."


def written_into(text: str, section: list[str], first: list[str]) -> str:
    """Return the document with the section of this Python replaced, the others kept; its head is of the newest."""
    head, _, rest = text.partition(BEGIN)
    measured, _, tail = rest.partition(END)
    sections = {part.partition("\n")[0]: part.rstrip() for part in measured.split(HEADING)[1:]}
    version = ".".join(platform.python_version_tuple()[:2])
    sections[version] = "\n".join([version, "", *section])
    newest_last = sorted(sections, key=lambda name: [int(part) for part in name.split(".")])
    body = "\n\n".join(HEADING + sections[name] for name in newest_last)
    if version == newest_last[-1] and HEADLINES_BEGIN in head:
        before, _, rest = head.partition(HEADLINES_BEGIN)
        after = rest.partition(HEADLINES_END)[2]
        head = "\n".join([before + HEADLINES_BEGIN, "", *first, "", HEADLINES_END + after])
    return f"{head}{BEGIN}\n\n{body}\n\n{END}{tail}"


def main(arguments: list[str] | None = None, cases: Iterable[Case] = CASES) -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="measure only what has one of these words in its name")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds")
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out, but where one is the yardstick")
    parser.add_argument("--markdown", action="store_true", help=f"write the table into docs/{DOCUMENT.name}")
    parser.add_argument("--check", action="store_true", help="fail where a target is missed by far; implies both above")
    parser.add_argument("--tight", action="store_true", help="fail where a target is missed at all")
    options = parser.parse_args(arguments)
    rounds = QUICK_ROUNDS if options.quick or options.check else options.rounds
    tolerance = 1.0 if options.tight else TOLERANCE if options.check else None
    print(conditions(), end="\n\n")
    results = [
        measure(case, rounds, not (options.no_peers or options.check), tolerance)
        for case in cases
        if not options.cases or any(word in case.name for word in options.cases)
    ]
    lines = table(results)
    print(*lines, sep="\n")
    if options.markdown:
        section = [conditions(), within_targets(results), "", *lines]
        page = written_into(DOCUMENT.read_text("utf-8"), section, headlines(results))
        DOCUMENT.write_text(page, "utf-8")
    verdicts = [verdict for result in results for verdict in result.verdicts()]
    missed = [verdict for verdict in verdicts if verdict.fails(tolerance or 1.0)]
    print(f"\n{within_targets(results, tolerance or 1.0)}{' Not within:' if missed else ''}")
    for verdict in missed:
        print(f"  {verdict.name}: {verdict.figure:,.3g}, target {verdict.target:,.3g}")
    return 1 if missed and tolerance is not None else 0


if __name__ == "__main__":
    sys.exit(main())
