"""Show that it holds under load: `PYTHONPATH=src python tests/slow/endurance/run.py [--long] [words of a claim]`.

One line for each claim, with its figure; the exit status is 1 if one does not hold. Needs nothing but Python. The short
form takes some seconds, the long one (1,000 forks, 5,000,000 calls of 64 threads, 10,000,000 calls in each state,
20,000 interrupts of each way of calling) a quarter of an hour on one core. At the end stands a table for the Python
that runs this: how many of the interrupts cost a slot, or the permit of a probe, which comes back when it is overdue.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "support"))

import await_points
import exact_totals
import flat_memory
import forks_under_load
import interrupts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long form")
    parser.add_argument("words", nargs="*", help="only claims with all of these words")
    given = parser.parse_args()

    python = platform.python_version()
    print(f"Python {python}, {platform.system()} {platform.machine()}", flush=True)
    found = bad = 0
    cells: dict[str, str] = {}
    begun = time.perf_counter()
    for room in (forks_under_load, exact_totals, flat_memory, await_points, interrupts):
        for claim in room.CLAIMS:
            if not all(word in claim.text for word in given.words):
                continue
            started = time.perf_counter()
            finding = claim.find(claim.long if given.long else claim.short)
            found += 1
            bad += not finding.holds
            if finding.cell:
                cells[claim.text.removeprefix("interrupts: ")] = finding.cell
            seconds = time.perf_counter() - started
            print(f"{'ok ' if finding.holds else 'BAD'} {claim.text}: {finding.figure} ({seconds:.1f} s)", flush=True)
    if cells:
        print(f"\n| interrupts that cost it | {python} |\n| --- | --- |")
        print("\n".join(f"| {text} | {cell} |" for text, cell in cells.items()))
    print(f"\n{found} claims, {bad} do not hold ({time.perf_counter() - begun:.0f} s)")
    return 1 if bad or not found else 0


if __name__ == "__main__":
    sys.exit(main())
