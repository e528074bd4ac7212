"""Compare settings that are derived from one log with those of others, on a second log of the same traffic.

`python tests/slow/insight/compare.py [--write]`

Ten kinds of made traffic, with seeds that were frozen before anything was tuned: six pairs of logs with ten thousand
calls each, three with a hundred thousand, one with a million. From the first log of a pair settings are derived; they,
our defaults, and the defaults of resilience4j and Polly are then tried on the second. It takes about two minutes and
fails if an outage was missed or invented, or if derived settings raised a false alarm. `--write` puts the table into
the documentation.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests" / "insight"))

from settings import Comparison, compare, each_pair  # noqa: E402
from traffic import SEEDS  # noqa: E402

PAGE = ROOT / "docs" / "how-to" / "thresholds.md"
BEGIN, END = "<!-- compared: begin -->", "<!-- compared: end -->"
HEADS = (
    "settings",
    "outages opened for",
    "opened after",
    "milder ones opened for",
    "failing calls let through",
    "good calls rejected",
    "false alarms",
)
ALL = {10_000: 6, 100_000: 3, 1_000_000: 1}


def table(found: dict[str, list[Comparison]]) -> list[str]:
    """Return the sums over all logs of a kind, a row for each setting."""
    lines = [
        f"| traffic | {' | '.join(HEADS)} |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, comparisons in found.items():
        for name in comparisons[0].figures:
            figures = [one.figures[name] for one in comparisons]
            seconds = [at for one in figures for fate in one.fates if fate.worth for at in fate.opened_after_s]
            bad = sum(one.bad for one in figures)
            let_through = f"{sum(one.let_through for one in figures) / bad:.0%}" if bad else "-"
            cells = [
                kind if name == "derived" else "",
                name,
                _of(sum(one.opened_for for one in figures), sum(one.worth for one in figures)),
                f"{median(seconds):.1f} s" if seconds else "-",
                _of(sum(one.opened_for_mild for one in figures), sum(one.mild for one in figures)),
                let_through,
                f"{sum(one.good_rejected for one in figures):,}",
                f"{sum(len(one.false_alarms) for one in figures):,}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    given = parser.parse_args()
    found: dict[str, list[Comparison]] = defaultdict(list)
    for kind, size, seeds in each_pair(SEEDS, ALL):
        found[kind].append(compare(kind, size, seeds))
        print(f"\r{kind}: {len(found[kind])} of {sum(ALL.values())} pairs\x1b[K", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    lines = table(found)
    print("\n".join(lines))
    missed = sum(one.missed for comparisons in found.values() for one in comparisons)
    invented = sum(one.invented for comparisons in found.values() for one in comparisons)
    alarms = sum(len(one.figures["derived"].false_alarms) for comparisons in found.values() for one in comparisons)
    print(f"\noutages missed: {missed}, invented: {invented}; false alarms of derived settings: {alarms}")
    if given.write:
        before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]), "utf-8")
    return 1 if missed or invented or alarms else 0


if __name__ == "__main__":
    sys.exit(main())
