"""Make the pictures of a report that stand in the documentation.

`python tests/slow/insight/pictures.py` needs `chromium`. The log is made, and the same every time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from math import cos, pi
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests" / "insight"))

from traffic import DAY_S, Call, Made, Process, Truth, within  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
WIDTH = 1120
# The part of the page that each picture shows, from its top, in pixels.
PARTS = {"replay-verdict": (0, 670), "replay-outages": (670, 705)}


def log() -> Made:
    """Return a day of payments: calls that hang, calls of which three in ten fail, and a service that flaps."""
    process = Process("pictures", 7, 600_000)
    average = process.calls / DAY_S
    truth = [Truth(37_300, 37_425), Truth(54_400, 54_880), Truth(74_500, 74_700)]

    def rate(now: float) -> float:
        return average * max(0.06, 1 - cos(2 * pi * (now + 3600) / DAY_S))

    def call(begin: float) -> Call:
        outage = within(truth, begin)
        if outage is truth[0]:
            return Call(begin, 5.0, "failure", "TimeoutError")
        flaps = outage is truth[2] and int(begin / 18) % 2
        return process.ordinary(begin, 0.95 if flaps else 0.3 if outage is truth[1] else 0.006)

    calls = [call(begin) for begin in process.arrivals(rate) if begin < DAY_S]
    return Made("pictures", calls, truth, DAY_S)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, page = Path(folder) / "payments.jsonl", Path(folder) / "report.html"
        path.write_text("".join(log().lines()))
        subprocess.run(
            [sys.executable, "-m", "circuit_breaker", "replay", str(path), "--html", str(page)],
            check=False,
            stdout=subprocess.DEVNULL,
        )
        text = page.read_text("utf-8")
        for name, (top, height) in PARTS.items():
            page.write_text(text.replace("<main>", f'<main style="margin-top:-{top}px">'), "utf-8")
            subprocess.run(
                [
                    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                    *(f"--window-size={WIDTH},{height}", f"--screenshot={PICTURES / name}.png", page.as_uri()),
                ],
                check=True,
                stderr=subprocess.DEVNULL,
            )


if __name__ == "__main__":
    main()
