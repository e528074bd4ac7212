"""The pictures that explain a setting: its distance from ordinary times, and how soon it opens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, log10
from typing import Final

from ..made import SHARES
from ..study import Findings
from . import svg, wording

LEFT: Final = 176.0
RIGHT: Final = 860.0
RULER: Final = 76.0
OUTAGES: Final = 9  # numbered in the picture of the room

FASTEST_S: Final = 0.1
SLOWEST_S: Final = 300.0
NEVER: Final = 28.0  # where the line is of what never opens
GROUND: Final = 214.0
DASHES: Final = ("", "6 4", "2 3", "9 3 2 3", "1 4")


def room(findings: Findings) -> str:
    """Return how far ordinary times and outages are from the thresholds of the settings to use."""
    config, peaks = findings.picked.config, findings.peaks
    most_bad = sorted(enumerate(findings.outages, 1), key=lambda one: -one[1].failed)[:OUTAGES]
    outages = sorted((number, peaks.outages[number - 1]) for number, _ in most_bad)
    parts: list[str] = []
    y = 40.0
    if config.error_rate_threshold is not None and isinstance(config.error_rate_window, int):
        ruler = _Ruler(y, 1.0, powers=False)
        parts += ruler.draw("failing share", f"of the last {config.error_rate_window:,} calls")
        most = f"{wording.share(peaks.ordinary.share)} of any {config._required_calls:,} calls"
        parts += ruler.ordinary(peaks.ordinary.share, f"ordinary times: at most {most}")
        parts += ruler.threshold(
            config.error_rate_threshold, f"opens at {wording.exact_share(config.error_rate_threshold)}"
        )
        parts += ruler.outages([(number, peak.share) for number, peak in outages])
        y += RULER
    if config.failure_threshold is not None:
        streaks = [(number, float(peak.streak)) for number, peak in outages]
        longest = max([config.failure_threshold, peaks.ordinary.streak, *(streak for _, streak in streaks)])
        ruler = _Ruler(y, float(longest), powers=True)
        parts += ruler.draw("failures in a row", "scale by powers of ten")
        parts += ruler.ordinary(float(peaks.ordinary.streak), f"ordinary times: at most {peaks.ordinary.streak:,}")
        parts += ruler.threshold(float(config.failure_threshold), f"opens at {config.failure_threshold:,}")
        parts += ruler.outages(streaks)
        y += RULER
    return svg.picture(y - 28, "Room between ordinary times and the thresholds", parts)


class _Ruler:
    """A scale from 0 to the highest figure of a rule."""

    def __init__(self, y: float, highest: float, *, powers: bool) -> None:
        self._y = y
        self._highest = highest
        self._powers = powers
        self._ordinary = 0.0

    def _x(self, value: float) -> float:
        part = log10(1 + value) / log10(1 + self._highest) if self._powers else value / self._highest
        return LEFT + (RIGHT - LEFT) * part

    def draw(self, name: str, scale: str) -> Iterator[str]:
        """Draw the scale itself."""
        yield svg.text(LEFT - 10, self._y + 4, name, "b", "end")
        yield svg.text(LEFT - 10, self._y + 19, scale, "f", "end")
        yield svg.box(LEFT, self._y - 6, RIGHT - LEFT, 12, "scale")

    def ordinary(self, value: float, words: str) -> Iterator[str]:
        """Draw how high it came in ordinary times."""
        self._ordinary = value
        yield svg.box(LEFT, self._y - 6, max(1.0, self._x(value) - LEFT), 12, "calm")
        yield svg.text(LEFT, self._y + 21, words, "f")

    def threshold(self, value: float, words: str) -> Iterator[str]:
        """Draw from where on it opens."""
        x = self._x(value)
        yield svg.line(x, self._y - 14, x, self._y + 10, "pick")
        yield svg.text(x, self._y - 19, words, "p", "start" if x < LEFT + 60 else "middle")
        if self._ordinary:
            yield svg.text(RIGHT + 14, self._y + 4, f"{value / self._ordinary:.1f} times ordinary", "f")

    def outages(self, values: Sequence[tuple[int, float]]) -> Iterator[str]:
        """Draw how high it came in outages; dots that would hide each other stand side by side."""
        last = LEFT - 2 * svg.DOT
        places: list[tuple[float, int]] = []
        for number, value in sorted(values, key=lambda one: (one[1], one[0])):
            last = max(self._x(value), last + 2 * svg.DOT + 1)
            places.append((last, number))
        excess = max(0.0, last - RIGHT)
        for x, number in places:
            yield svg.dot(x - excess if x > RIGHT - len(places) * 2 * svg.DOT else x, self._y, str(number))


def soon(findings: Findings) -> str:
    """Return how many seconds each setting takes to open, by the share of calls that fail."""
    top, right = 28.0, 770.0
    answer = findings.question.refuse_from

    def across(share: float) -> float:
        return 76.0 + (right - 76.0) * (share - SHARES[0]) / (SHARES[-1] - SHARES[0])

    def down(seconds: float) -> float:
        if seconds == inf:
            return NEVER
        part = log10(min(max(seconds, FASTEST_S), SLOWEST_S) / FASTEST_S) / log10(SLOWEST_S / FASTEST_S)
        return GROUND - (GROUND - NEVER - 22) * part

    edge = min(max(across(answer), across(SHARES[0])), right)
    parts = [svg.box(across(SHARES[0]), top - 8, edge - across(SHARES[0]), GROUND - top + 8, "shade")]
    for seconds, words in ((inf, "never"), (60.0, "1 min"), (10.0, "10 s"), (1.0, "1 s"), (FASTEST_S, "0.1 s")):
        parts += [
            svg.line(76, down(seconds), right, down(seconds), "grid"),
            svg.text(68, down(seconds) + 4, words, "f", "end"),
        ]
    for share in (0.10, 0.25, 0.50, 0.75, 1.0):
        parts.append(svg.text(across(share), GROUND + 17, wording.share(share), "f", "middle"))
    parts.append(svg.text((76 + right) / 2, GROUND + 34, "share of calls that fail", "f", "middle"))
    if edge - across(SHARES[0]) > 130:
        parts.append(svg.text(edge - 8, GROUND - 8, "should stay closed", "f", "end"))
    if right - edge > 90:
        parts.append(svg.text(edge + 8, GROUND - 8, "should open", "f"))
    ordered = sorted(findings.rows, key=lambda row: row is findings.picked)
    places = _side_by_side([down(row.opens_after_s[-1]) for row in ordered], 15.0)
    for row, y in zip(ordered, places, strict=True):
        number = findings.rows.index(row)
        css, dash = ("picked", "") if row is findings.picked else ("other", DASHES[number % len(DASHES)])
        points = "L".join(
            f"{svg.digits(across(share))} {svg.digits(down(seconds))}"
            for share, seconds in zip(SHARES, row.opens_after_s, strict=True)
        )
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<path class="{css}"{dashes} d="M{points}"/>')
        parts.append(svg.line(right + 2, down(row.opens_after_s[-1]), right + 16, y, "lead"))
        parts.append(svg.text(right + 20, y + 4, row.name, "p" if row is findings.picked else "f"))
    return svg.picture(GROUND + 42, "Seconds until it opens, by the share of calls that fail", parts)


def _side_by_side(places: Sequence[float], apart: float) -> list[float]:
    """Return the places of labels, moved down until none hides another, then up to stay in the picture."""
    moved = [0.0] * len(places)
    last = -inf
    for index in sorted(range(len(places)), key=places.__getitem__):
        last = moved[index] = max(places[index], last + apart)
    excess = max(0.0, last - GROUND)
    return [y - excess if y > GROUND - apart * len(places) else y for y in moved]
