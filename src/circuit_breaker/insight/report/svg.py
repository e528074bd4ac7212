"""A few shapes of SVG as text, with few digits: the report is to stay small."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from xml.sax.saxutils import escape, quoteattr

WIDTH: Final = 1000.0
DOT: Final = 8.0


def digits(value: float) -> str:
    """Return a coordinate with one digit, if it needs that."""
    return f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, words: str, css: str = "", anchor: str = "") -> str:
    """Return words at a place; `anchor` is `middle` or `end`, else they begin there."""
    attributes = (f' class="{css}"' if css else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{digits(x)}" y="{digits(y)}"{attributes}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """Return a straight line."""
    return f'<path class="{css}" d="M{digits(x1)} {digits(y1)}L{digits(x2)} {digits(y2)}"/>'


def box(x: float, y: float, width: float, height: float, css: str) -> str:
    """Return a rectangle."""
    return boxes([(x, y, width, height)], css)


def boxes(places: Iterable[tuple[float, float, float, float]], css: str) -> str:
    """Return many rectangles, each given by its left upper corner, width and height, as one shape."""
    path = "".join(f"M{digits(x)} {digits(y)}h{digits(w)}v{digits(h)}h-{digits(w)}z" for x, y, w, h in places)
    return f'<path class="{css}" d="{path}"/>' if path else ""


def dot(x: float, y: float, words: str) -> str:
    """Return a numbered dot, as the outages have."""
    return f'<circle class="dot" cx="{digits(x)}" cy="{digits(y)}" r="{digits(DOT)}"/>' + text(
        x, y + 4, words, "num", "middle"
    )


def picture(height: float, title: str, parts: Iterable[str]) -> str:
    """Return a whole picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {digits(WIDTH)} {digits(height)}" role="img" '
        f"aria-label={quoteattr(title)}>{''.join(parts)}</svg>"
    )
