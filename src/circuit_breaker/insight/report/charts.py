"""The pictures of a report: the whole log, and the outages close up with what each setting would have done."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Final

from ..._common.words import CircuitState
from ..outages import gone_wrong
from ..study import Findings, Row
from . import pictures, svg, verdict, wording
from .pictures import Bins, CloseUp

LEFT: Final = 46.0
BARS: Final = 318  # in the picture of the whole log

NAMES: Final = 176.0  # where the names of settings end
BANDS_END: Final = 790.0
TIMES: Final = (804.0, 904.0)
CLOSE_BARS: Final = 120
SHORTEST: Final = 2.0  # the narrowest stretch of a state that is drawn
ROW: Final = 25.0
BAND: Final = 14.0
HEIGHTS: Final = {CircuitState.CLOSED: 3.0, CircuitState.HALF_OPEN: 8.0, CircuitState.OPEN: BAND}
STATE_CLASSES: Final = {CircuitState.CLOSED: "closed", CircuitState.HALF_OPEN: "probing", CircuitState.OPEN: "open"}


class Charts:
    """Draws the pictures of findings."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        slow_s = findings.question.slow_s
        self._bad = gone_wrong(findings.log.calls, inf if slow_s is None else slow_s)

    def whole_log(self) -> str:
        """Return the calls of the whole log, with its outages numbered."""
        findings = self._findings
        log, top, bottom = findings.log, 30.0, 112.0
        shown = pictures.bins(log.calls, self._bad, 0.0, log.length_s or 1.0, BARS)
        scale = (svg.WIDTH - LEFT) / (shown.end - shown.begin)
        most = shown.most / shown.width_s
        parts = [
            svg.text(LEFT - 6, top + 10, _rate(most), "f", "end"),
            svg.text(LEFT - 6, bottom, "0", "f", "end"),
            *_bars(shown, LEFT, scale, top, bottom),
            svg.line(LEFT, bottom, svg.WIDTH, bottom, "axis"),
        ]
        for begin, end in log.holes:
            x = LEFT + max(0.0, begin) * scale
            parts.append(
                svg.box(x, top, max(2.0, (min(end, shown.end) - max(0.0, begin)) * scale), bottom - top, "hole")
            )
        last = -inf
        for number, outage in enumerate(findings.outages, 1):
            x, width = LEFT + outage.begin * scale, max(2.0, (outage.end - outage.begin) * scale)
            parts.append(svg.box(x, top - 6, width, bottom - top + 6, "out"))
            if x + width / 2 - last > 2 * svg.DOT:
                last = x + width / 2
                parts.append(svg.dot(min(last, svg.WIDTH - svg.DOT), top - 16, str(number)))
        parts += _axis(log.start, shown.begin, shown.end, LEFT, svg.WIDTH, bottom + 16, 9)
        return svg.picture(bottom + 22, "Calls over the whole log", parts)

    def close_up(self, shown: CloseUp) -> str:
        """Return one outage, and below it the states of the circuits with each setting."""
        findings = self._findings
        calls = findings.log.calls
        top, bottom = 4.0, 62.0
        counted = pictures.bins(calls, self._bad, shown.begin, shown.end, CLOSE_BARS)
        scale = (BANDS_END - NAMES - 10) / (shown.end - shown.begin)
        left = NAMES + 10
        height = bottom + 16 + ROW * len(findings.rows)
        x = left + (shown.outage.begin - shown.begin) * scale
        width = max(2.0, (shown.outage.end - shown.outage.begin) * scale)
        parts = [
            svg.box(x, top, width, height - top - 8, "out"),
            *_bars(counted, left, scale, top, bottom),
            *_caption(findings, shown),
            svg.text(TIMES[0], bottom, "opened after", "f"),
            svg.text(TIMES[1], bottom, "closed after end", "f"),
        ]
        for index, row in enumerate(findings.rows):
            y = bottom + 22 + ROW * index
            css = "p" if row is findings.picked else ""
            parts.append(svg.text(NAMES, y + 4, row.name, css, "end"))
            parts += self._band(row, shown, left, scale, y)
            opened, closed = verdict.times(row, shown.number - 1)
            parts += [svg.text(TIMES[0], y + 4, opened, css or "f"), svg.text(TIMES[1], y + 4, closed, css or "f")]
        parts += _axis(findings.log.start, shown.begin, shown.end, left, BANDS_END, height + 8, 7)
        return svg.picture(height + 14, f"Outage {shown.number} close up", parts)

    def _band(self, row: Row, shown: CloseUp, left: float, scale: float, middle: float) -> Iterator[str]:
        """Draw the states of the circuits, one below the other: the busier the state, the higher the bar."""
        circuits = pictures.stretches(row.figures.courses, shown.begin, shown.end, SHORTEST / scale)
        part = 1 / len(circuits)
        for state, full in HEIGHTS.items():
            height = max(1.0, full * part * (1.0 if len(circuits) == 1 else 0.9))
            yield svg.boxes(
                (
                    (
                        left + (stretch.begin - shown.begin) * scale,
                        middle + BAND * ((index + 0.5) * part - 0.5) - height / 2,
                        (stretch.end - stretch.begin) * scale,
                        height,
                    )
                    for index, circuit in enumerate(circuits)
                    for stretch in circuit
                    if stretch.state is state
                ),
                f"s-{STATE_CLASSES[state]}",
            )


def _bars(shown: Bins, left: float, scale: float, top: float, bottom: float) -> Iterator[str]:
    """Draw bad calls from the ground up, and good ones on them."""
    tall = (bottom - top) / shown.most
    width = shown.width_s * scale
    places = [left + width * index for index in range(len(shown.good))]
    yield svg.boxes(
        (
            (x, bottom - (good + bad) * tall, width, good * tall)
            for x, good, bad in zip(places, shown.good, shown.bad, strict=True)
            if good
        ),
        "good",
    )
    yield svg.boxes(
        ((x, bottom - bad * tall, width, bad * tall) for x, bad in zip(places, shown.bad, strict=True) if bad), "bad"
    )


def _axis(start: float, begin: float, end: float, left: float, right: float, y: float, most: int) -> Iterator[str]:
    times, form = pictures.ticks(start + begin, start + end, most)
    scale = (right - left) / (end - begin)
    for at in times:
        x = left + (at - start - begin) * scale
        yield svg.line(x, y - 16, x, y - 12, "axis")
        yield svg.text(min(x, right - 16), y, wording.moment(at, form), "f", "middle")


def _caption(findings: Findings, shown: CloseUp) -> Iterator[str]:
    outage = shown.outage
    slow = findings.share(outage) < outage.slow_share
    what = f"{wording.share(outage.slow_share)} slow, {wording.share(outage.failing_share)} fail" if slow else None
    yield svg.text(NAMES, 18, what or f"{wording.share(findings.share(outage))} fail", "b", "end")
    yield svg.text(NAMES, 34, f"for {wording.seconds(outage.end - outage.begin)}, {outage.calls:,} calls", "f", "end")
    if not findings.worth[shown.number - 1]:
        answer = wording.exact_share(findings.question.refuse_from)
        yield svg.text(NAMES, 50, f"milder than your {answer}", "f", "end")
    yield svg.dot(svg.DOT + 1, 14, str(shown.number))


def _rate(a_second: float) -> str:
    if a_second >= 0.95:
        return f"{a_second:,.0f}/s"
    return f"{a_second * 60:.0f}/min" if a_second * 60 >= 0.95 else f"{a_second * 3600:.1g}/h"
