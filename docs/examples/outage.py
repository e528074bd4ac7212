"""Draw a timeline of one outage, `docs/pictures/outage.svg`, from what the listeners of a breaker report.

Eight callers a second ask a service that is down from second 12 to second 45. Time is that of a fake clock, so the
picture is the same on every run.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from circuit_breaker import (
    CallFinished,
    CallRejected,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    CircuitState,
    Outcome,
    StateChanged,
)
from circuit_breaker.testing import FakeClock

SECONDS, DOWN_FROM, DOWN_TO, CALLS_A_SECOND = 60, 12, 45, 8
PICTURE = Path(__file__).parent.parent / "pictures" / "outage.svg"


@dataclass
class Figures:
    """What the listeners heard: how calls ended in each second, and when the circuit changed."""

    calls: dict[str, Counter[int]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})
    changes: list[tuple[float, CircuitState]] = field(default_factory=lambda: [(0.0, CircuitState.CLOSED)])


KINDS = {"answered": "#1b7f73", "failed": "#c8421f", "rejected": "#9aa0a6"}
STATES = {
    CircuitState.CLOSED: ("closed", "#1b7f73"),
    CircuitState.OPEN: ("open", "#c8421f"),
    CircuitState.HALF_OPEN: ("half-open", "#e9b949"),
}


def happen() -> Figures:
    """Let the outage happen, and return what the listeners got."""
    clock, figures = FakeClock(), Figures()

    def listen(event: object) -> None:
        second = int(clock())
        if isinstance(event, StateChanged):
            figures.changes.append((clock(), event.new_state))
        elif isinstance(event, CallRejected):
            figures.calls["rejected"][second] += 1
        elif isinstance(event, CallFinished):
            figures.calls["failed" if event.outcome is Outcome.FAILURE else "answered"][second] += 1

    config = CircuitBreakerConfig(failure_threshold=3, success_threshold=2, reset_timeout_s=10)
    breaker = CircuitBreaker("payments", config, listeners=[listen], clock=clock)

    @breaker
    def charge() -> None:
        if DOWN_FROM <= clock() < DOWN_TO:
            raise ConnectionError

    for _ in range(SECONDS * CALLS_A_SECOND):
        try:
            charge()
        except (ConnectionError, CircuitOpenError):
            pass
        clock.advance(1 / CALLS_A_SECOND)
    return figures


LEFT, SCALE, BAR, FLOOR = 70, 10.5, 7, 142  # in the units of the picture
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #24292f }
.faint { fill: #57606a } line { stroke: #8b949e; stroke-width: 1 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .faint { fill: #9aa4af } }
.on { fill: #ffffff; font-weight: 600 }"""


def x(second: float) -> float:
    """Return where a second is."""
    return LEFT + second * SCALE


def rectangle(second: float, until: float, top: float, height: float, colour: str, title: str) -> str:
    """Return a rectangle that spans some time."""
    width = max((until - second) * SCALE, 4)
    return (
        f'<rect x="{x(second):.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}">'
        f"<title>{title}</title></rect>"
    )


def text(left: float, top: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Return a few words."""
    return f'<text x="{left:.1f}" y="{top:.1f}" class="{kind}" text-anchor="{anchor}">{words}</text>'


def draw(figures: Figures) -> str:
    """Return the picture."""
    parts = [
        text(LEFT - 8, top, words, anchor="end") for top, words in ((27, "service"), (57, "circuit"), (118, "calls"))
    ]
    for begin, end, words, colour in (
        (0, DOWN_FROM, "up", "#1b7f73"),
        (DOWN_FROM, DOWN_TO, "down", "#c8421f"),
        (DOWN_TO, SECONDS, "up", "#1b7f73"),
    ):
        parts.append(rectangle(begin, end, 12, 22, colour, f"{words} from second {begin} to {end}"))
        parts.append(text(x(begin) + 8, 27, words, "on"))
    ends = [when for when, _ in figures.changes[1:]] + [float(SECONDS)]
    periods = [(*change, end) for change, end in zip(figures.changes, ends, strict=True)]
    for begin, state, end in sorted(periods, key=lambda period: period[1] is CircuitState.HALF_OPEN):
        words, colour = STATES[state]
        parts.append(rectangle(begin, end, 42, 22, colour, f"{words} from second {begin:g} to {end:g}"))
        if end - begin > 2:
            parts.append(text(x(begin) + 8, 57, words, "on"))
    for second in range(SECONDS):
        top = float(FLOOR)
        for kind, colour in KINDS.items():
            count = figures.calls[kind][second]
            if count:
                top -= count * BAR
                parts.append(rectangle(second + 0.1, second + 0.9, top, count * BAR - 1, colour, f"{count} {kind}"))
    parts.append(f'<line x1="{LEFT}" y1="{FLOOR + 1}" x2="{x(SECONDS):.1f}" y2="{FLOOR + 1}"/>')
    parts += [text(x(second), FLOOR + 17, f"{second} s", "faint", "middle") for second in range(0, SECONDS + 1, 10)]
    left = float(LEFT)
    for words, colour in [*KINDS.items(), ("half-open", STATES[CircuitState.HALF_OPEN][1])]:
        parts.append(f'<rect x="{left:.1f}" y="{FLOOR + 33}" width="11" height="11" fill="{colour}"/>')
        parts.append(text(left + 17, FLOOR + 43, words))
        left += 100
    size = f"{x(SECONDS) + 20:.0f} {FLOOR + 56}"
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img">\n'
        f"<title>One outage, second by second</title>\n<style>\n{STYLE}\n</style>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(happen()), "utf-8")
