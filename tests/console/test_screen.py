"""Circuits in a terminal, and as lines where there is none."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from scenes import Scene

from circuit_breaker import CircuitMode
from circuit_breaker._terminal import ASCII, BLOCKS, no_colours
from circuit_breaker.console import screen
from circuit_breaker.console.table import Table, cut, duration, padded
from circuit_breaker.console.watcher import Watcher

LABEL = "sqlite:circuits.db"


class Out(io.StringIO):
    """Something to write to."""

    encoding = "utf-8"  # type: ignore[assignment]

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def fileno(self) -> int:
        return 1

    def told(self) -> str:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    for name in ("api", "mail", "search"):
        scene.count(name)
    return scene


@pytest.fixture
def watcher(scene: Scene) -> Watcher:
    return Watcher(scene.store, scene.clock)


@pytest.fixture
def size(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    def size(columns: int, lines: int) -> None:
        monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, lines)))

    size(120, 24)
    return size


def bare(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


def untimed(text: str) -> list[str]:
    """Return lines without the time of day that each begins with."""
    lines = text.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in lines)
    return [line[10:] for line in lines]


# Lines


def test_without_a_terminal_there_are_lines(scene: Scene, watcher: Watcher) -> None:
    out = Out()
    shown = screen.screen(out, False, {})
    scene.open("api")
    scene.members(["api", "mail"], api="for_all")
    shown.show(watcher.look(), LABEL)
    assert untimed(out.told()) == [
        "open           api: rejects every call; 5 failures in a row, by web-1:12; 8 open",
        "closed         mail: admits every call; 8 closed",
        "closed         search: admits every call",
    ]


def test_later_only_what_has_changed_is_written(scene: Scene, watcher: Watcher) -> None:
    out = Out()
    shown = screen.screen(out, False, {})
    shown.show(watcher.look(), LABEL)
    out.told()
    scene.clock.advance(1.0)
    shown.show(watcher.look(), LABEL)
    assert out.told() == ""
    scene.order("mail", CircuitMode.FORCED_OPEN, by="dana")
    scene.count("new")
    scene.clock.advance(1.0)
    shown.show(watcher.look(), LABEL)
    assert untimed(out.told()) == [
        "forced open    mail: rejects every call, until another order; ordered by dana",
        "closed         new: admits every call",
    ]


def test_a_store_that_is_away_is_a_line(scene: Scene, watcher: Watcher) -> None:
    out = Out()
    shown = screen.screen(out, False, {})
    view = watcher.look()
    for error in (None, "gone", "gone", None):
        shown.show(view._replace(error=error), LABEL)
    *_, away, back = untimed(out.told())
    assert (away, back) == (f"{LABEL} cannot be read: gone", f"{LABEL} can be read again")


def test_all_are_shown_once(scene: Scene, watcher: Watcher) -> None:
    out = Out()
    screen.screen(out, False, {}).show_once(watcher.look(), LABEL)
    assert [line[:19] for line in out.told().splitlines()] == [
        "closed         api:",
        "closed         mail",
        "closed         sear",
    ]
    screen.screen(out, False, {}).show_once(watcher.look()._replace(error="gone"), LABEL)
    assert out.told().splitlines()[0] == f"{LABEL} cannot be read: gone"


def test_what_the_encoding_does_not_have_is_escaped(scene: Scene, watcher: Watcher) -> None:
    out = Out()
    out.encoding = "ascii"
    scene.count("\u20ac")
    screen.screen(out, False, {}).show_once(watcher.look(), LABEL)
    assert "\\u20ac: admits every call" in out.told()


@pytest.mark.parametrize(
    ("terminal", "plain", "environ", "kind"),
    [
        (True, False, {}, screen.Picture),
        (True, True, {}, screen.Lines),
        (True, False, {"TERM": "dumb"}, screen.Lines),
        (False, False, {}, screen.Lines),
    ],
)
def test_what_the_output_is_decides_how_it_is_shown(
    terminal: bool, plain: bool, environ: dict[str, str], kind: type
) -> None:
    assert type(screen.screen(Out(terminal), plain, environ)) is kind


# The picture


def test_the_picture_is_drawn_over_itself(scene: Scene, watcher: Watcher, size: Any) -> None:
    out = Out(terminal=True)
    shown = screen.screen(out, False, {"NO_COLOR": "1"})
    shown.show(watcher.look(), LABEL)
    first = out.told()
    assert first.startswith("\x1b[2J\x1b[H")
    lines = bare(first).splitlines()
    assert re.fullmatch(rf"{LABEL}  \d\d:\d\d:\d\d", lines[0])
    assert lines[1] == "All 3 circuits are closed"
    assert [line.split()[:2] for line in lines[5:]] == [["closed", "api"], ["closed", "mail"], ["closed", "search"]]
    shown.show(watcher.look(), LABEL)
    again = out.told()
    assert again.startswith("\x1b[H")
    assert again.count("\x1b[K") == len(lines)
    assert again.endswith("\x1b[J\n")


def test_the_picture_says_that_the_store_is_away(watcher: Watcher, size: Any) -> None:
    out = Out(terminal=True)
    screen.screen(out, False, {}).show(watcher.look()._replace(error="gone"), LABEL)
    assert f"\x1b[31m{LABEL} cannot be read: gone\x1b[0m" in out.told()


def test_the_picture_is_no_higher_than_the_terminal(scene: Scene, watcher: Watcher, size: Any) -> None:
    for number in range(100):
        scene.count(f"circuit {number:03}")
    out = Out(terminal=True)
    shown = screen.screen(out, False, {})
    for height in (1, 2, 5, 6, 7, 10, 40):
        size(100, height)
        shown.show(watcher.look(), LABEL)
        assert len(bare(out.told()).splitlines()) <= max(1, height - 1)
    shown.show_once(watcher.look(), LABEL)
    assert len(bare(out.told()).splitlines()) == 5 + 103


def test_what_does_not_fit_is_counted(scene: Scene, watcher: Watcher) -> None:
    scene.open("api")
    lines = Table(80, BLOCKS, no_colours).lines(watcher.look(), LABEL, 8)
    assert lines[-1] == "... and 2 more"
    assert len(Table(80, BLOCKS, no_colours).lines(watcher.look(), LABEL, 9)) == 9


def test_a_table_of_all_there_is(scene: Scene, watcher: Watcher) -> None:
    for _ in range(60):
        watcher.look()
        scene.clock.advance(1.0)
        scene.count("api", 9, 1, 2)
        scene.count("mail", 200)
    scene.count("mail", 0, 1)
    scene.open("api", for_s=30.0)
    scene.count("api", rejected=50)
    scene.half_open("search", probes=2)
    scene.members(["api", "mail", "search"], api="for_all", search="for_all")
    lines = Table(160, BLOCKS, no_colours).lines(watcher.look(), LABEL, None)
    low, full, gap = "\u2583" * 29, "\u2588" * 30, " " * 20
    assert lines == [
        LABEL,
        "api is open",
        "1 open, 1 half-open, 1 closed",
        "",
        (
            f"state          circuit{gap}                 probes        since  failed  rejected    calls   slow"
            "  last minute                     processes"
        ),
        (
            f"open           api    {gap}                in 30 s          0 s     10%        50      590    20%"
            f"  {low}\u2588  8 open"
        ),
        "               rejects every call; 5 failures in a row, by web-1:12",
        (
            f"half-open      search {gap}                  2 out         31 s                                  "
            f"{gap}              8 half-open"
        ),
        "               admits probes, rejects all other calls; failure rate 62% of 40 calls, by web-1:12",
        (
            f"closed         mail   {gap}                                         <1%             12,001     0%"
            f"  {full}  8 closed"
        ),
    ]


def test_the_bars_are_coloured_by_what_went_wrong(scene: Scene, watcher: Watcher) -> None:
    scene.store.board.clear()
    scene.count("api")
    watcher.look()
    for kind in ("successes", "failures", "rejected"):
        scene.clock.advance(2.0)
        scene.count("api", **{kind: 5})
        watcher.look()
    table = Table(150, ASCII, lambda text, colour: f"<{colour} {text}>" if text.strip() else text)
    assert "<green @><red @><yellow @>" in table.lines(watcher.look(), LABEL, None)[5]


@pytest.mark.parametrize("width", range(1, 200))
def test_no_line_is_wider_than_the_terminal(scene: Scene, watcher: Watcher, width: int) -> None:
    scene.open("a circuit with quite a long name indeed, that fits nowhere")
    scene.count("\u6f22\u5b57" * 40, 3)
    scene.count("e\u0301" * 60)
    scene.members(["api"])
    for line in Table(width, BLOCKS, no_colours).lines(watcher.look(), LABEL, None):
        assert len(padded(line, 0)) <= 1  # it can be measured
        assert cut(line, max(width, 27)) == line


# Small things


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7260, "2 h 1 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d"),
        (90000, "1 d 1 h"),
        (1000000000.0, "11574 d 1 h"),
    ],
)
def test_a_time_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab~"),
        ("", 0, ""),
        ("\u6f22\u5b57", 4, "\u6f22\u5b57"),
        ("\u6f22\u5b57", 3, "\u6f22~"),
        ("e\u0301e\u0301e", 3, "e\u0301e\u0301e"),
    ],
)
def test_a_text_is_cut_by_what_it_takes_on_the_screen(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown


def test_a_text_is_padded_by_what_it_takes_on_the_screen() -> None:
    assert padded("\u6f22", 4) == "\u6f22  "
    assert padded("abcdef", 4) == "abc~"
