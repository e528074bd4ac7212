"""Make the pictures of the console that stand in the documentation, and some to look at.

`.venv/bin/python tests/slow/console/pictures.py [FOLDER]` needs `chromium` and playwright. Without a folder it makes
those of the documentation; with one it makes pages of 3 and of 300 circuits, light, dark and narrow, there.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path += [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "console")]

from asking import TOKEN  # noqa: E402
from browser import launched  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from scenes import Scene  # noqa: E402

from circuit_breaker import CircuitMode  # noqa: E402
from circuit_breaker.console.application import Application  # noqa: E402
from circuit_breaker.console.server import Server  # noqa: E402
from circuit_breaker.console.watcher import Watcher  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
WIDE, NARROW = (1280, 620), (390, 844)


class Looking(Scene):
    """A scene whose console has looked at it all the time."""

    def __init__(self) -> None:
        super().__init__()
        ticks = count(0.0, 2.0)  # every look reads the store
        self.watcher = Watcher(self.store, lambda: next(ticks))

    def look(self) -> None:
        self.watcher.look()


def few() -> Looking:
    """Return one circuit that is open, one that is half-open and four that are closed, after a busy minute."""
    scene, draw = Looking(), random.Random(3)
    calm = ["catalogue", "mail", "recommendations"]
    names = ["payments", "search", *calm, "shipping"]
    for second in range(60):
        scene.clock.advance(1.0)
        for name in calm:
            scene.count(name, draw.randint(20, 40), draw.random() < 0.05)
        scene.count("shipping", draw.randint(10, 20), draw.randint(0, 2))
        down = second >= 44
        scene.count("payments", 0 if down else draw.randint(25, 35), 5 * (second == 44), rejected=30 * (second > 45))
        probing = second > 30
        scene.count("search", 0 if probing else draw.randint(8, 12), 4 * (25 < second <= 30), rejected=10 * probing)
        if second == 45:
            scene.open("payments", for_s=30.0, by="web-1:112")
        if second == 31:
            scene.half_open("search", probes=2, by="web-2:210")
        scene.look()
    scene.half_open("search", probes=2, ago_s=31.0, by="web-2:210")
    scene.members(names, payments="for_all", search="for_all")
    scene.member(
        "web-3", 310, {**dict.fromkeys(names, "closed"), "payments": "for_all", "search": "for_all", "shipping": "open"}
    )
    return scene


def many() -> Looking:
    """Return 300 circuits, of which some need attention."""
    scene, draw = Looking(), random.Random(4)
    names = [f"tenant-{number:03}.api.example" for number in range(300)]
    for _ in range(60):
        scene.clock.advance(1.0)
        for name in names:
            scene.count(name, draw.randint(0, 9), draw.random() < 0.02)
        scene.look()
    for name in names[::60]:
        scene.open(name, by="web-1:112")
    scene.half_open(names[7])
    scene.order(names[8], CircuitMode.FORCED_CLOSED)
    scene.write(names[9], "garbage")
    scene.members(names)
    return scene


def take(scene: Looking, path: Path, size: tuple[int, int], scheme: str, act: Callable[[object], None] = id) -> None:
    """Save a picture of the page, on which something may be done before."""
    server = Server("127.0.0.1", 0, Application(scene.watcher, TOKEN, "redis://cache.example"))
    threading.Thread(target=server.run, daemon=True).start()
    with sync_playwright() as driver:
        browser = launched(driver)
        page = browser.new_page(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, device_scale_factor=1
        )
        page.goto(f"{server.url}#token={TOKEN}")
        page.locator("#circuits > tbody").first.wait_for()
        act(page)
        page.screenshot(path=path)
        browser.close()
    server.shutdown()


def asked(page: object) -> None:
    """Ask for an order, and leave it unconfirmed."""
    button = page.get_by_role("button", name="payments", exact=True)  # type: ignore[attr-defined]
    button.click()
    page.get_by_role("button", name="Reset", exact=True).wait_for()  # type: ignore[attr-defined]


def main() -> None:
    if len(sys.argv) == 1:
        take(few(), PICTURES / "console-light.png", WIDE, "light")
        take(few(), PICTURES / "console-dark.png", (1280, 760), "dark", asked)
        return
    folder = Path(sys.argv[1])
    for name, scene in (("3", few()), ("300", many())):
        for scheme in ("light", "dark"):
            take(scene, folder / f"{name}-{scheme}.png", WIDE, scheme)
            take(scene, folder / f"{name}-{scheme}-narrow.png", NARROW, scheme)


if __name__ == "__main__":
    main()
