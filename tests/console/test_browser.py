"""The page in a real browser: what an operator sees, does, and is kept from."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from asking import TOKEN
from browser import Process, launched, playwright_or_skip
from patience import PATIENCE_S
from scenes import Scene

from circuit_breaker import CircuitMode
from circuit_breaker.console import server as server_room
from circuit_breaker.console import watcher as watcher_room
from circuit_breaker.console.application import MOST_WANTED, Application
from circuit_breaker.console.server import Server
from circuit_breaker.console.watcher import Watcher
from circuit_breaker.stores import SQLiteStore

playwright = playwright_or_skip()
expect = playwright.expect
expect.set_options(timeout=1000 * PATIENCE_S)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = launched(driver)
        yield browser
        browser.close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Serve the console for a store, and return its address."""
    monkeypatch.setattr(server_room, "BLOCKED_S", 0.01)
    running: list[tuple[Server, threading.Thread]] = []

    def serve(store: object, token: str | None = None, **settings: Any) -> str:
        server = Server("127.0.0.1", 0, Application(Watcher(store, **settings), token, "the store of this test"))
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        return server.url

    yield serve
    for server, thread in running:
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()


@pytest.fixture
def look(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; at its end nothing was asked of another place, and nothing was wrong with it."""
    contexts, wrong = [], []

    def look(address: str, **settings: Any) -> Any:
        here = address.partition("#")[0]
        contexts.append(chromium.new_context(**settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: None if asked.url.startswith(here) else wrong.append(asked.url))
        page.goto(address)
        expect(page.locator("#circuits > tbody").first).to_be_visible()
        return page

    look.wrong = wrong  # type: ignore[attr-defined]
    yield look
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.count("calm", successes=90, failures=2)
    scene.open("payments", for_s=30.0, ago_s=10.0)
    scene.half_open("search", probes=2)
    scene.write("odd", "garbage")
    scene.members(["calm", "payments", "search"], payments="for_all")
    return scene


def names(page: Any) -> list[str]:
    """Return the names of the circuits that are seen, from the top."""
    return [name for name in page.locator("button.name").all_inner_texts() if name]


def row(page: Any, name: str) -> Any:
    return page.locator("#circuits > tbody", has=page.get_by_role("button", name=name, exact=True))


def in_columns(page: Any, name: str) -> dict[str, str]:
    """Return the row of a circuit as one reads it."""
    cells = row(page, name).locator("td[data-label]").all()
    return {cell.get_attribute("data-label"): cell.inner_text().strip() for cell in cells}


# What one sees


def test_the_page_fills_and_what_needs_attention_comes_first(
    scene: Scene, serve: Callable[..., str], look: Callable[..., Any]
) -> None:
    page = look(serve(scene.store))
    assert names(page) == ["payments", "search", "odd", "calm"]
    expect(page.locator("#main")).to_have_text("payments is open")
    expect(page).to_have_title("payments is open \N{EN DASH} circuits")
    expect(page.locator("#store")).to_have_text("the store of this test")
    assert in_columns(page, "payments")["State"] == "open"
    assert in_columns(page, "search")["Probes"] == "2 out"
    assert in_columns(page, "odd")["State"] == "unreadable"
    assert in_columns(page, "calm")["Processes"] == "8 closed"
    expect(row(page, "payments").locator(".why")).to_have_text("rejects every call · 5 failures in a row, by web-1:12")


def test_the_time_until_it_probes_counts_down(
    scene: Scene, serve: Callable[..., str], look: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_room, "INTERVAL_S", 3_600.0)  # no second reading
    page = look(serve(scene.store))
    probes = row(page, "payments").locator("td[data-label=Probes]")
    first = int(re.fullmatch(r"in (\d+) s", probes.inner_text())[1])  # type: ignore[index]
    assert first <= 20
    expect(probes).to_have_text(re.compile(rf"in ({'|'.join(map(str, range(first)))}) s"))


def test_details_tell_who_decided_and_what_each_process_says(
    scene: Scene, serve: Callable[..., str], look: Callable[..., Any]
) -> None:
    scene.order("calm", CircuitMode.FORCED_OPEN, by="console ops-1:4711")
    page = look(serve(scene.store))
    page.get_by_role("button", name="calm", exact=True).click()
    facts = row(page, "calm").locator("dl")
    expect(facts).to_contain_text("rejects every call, until another order")
    expect(facts).to_contain_text(re.compile("Last order.*forced open, by console ops-1:4711", re.S))
    processes = row(page, "calm").locator(".members tbody tr")
    expect(processes).to_have_count(8)
    expect(processes.first).to_contain_text("web-1")
    expect(processes.first).to_contain_text("110")


def test_the_details_of_any_number_of_circuits_may_be_open(serve: Callable[..., str], look: Callable[..., Any]) -> None:
    scene = Scene()
    names = [f"tenant-{number}" for number in range(MOST_WANTED + 5)]
    for name in names:
        scene.count(name)
    scene.member("web-1", 110, dict.fromkeys(names, "closed"))
    page = look(serve(scene.store))
    page.evaluate("for (const button of document.querySelectorAll('button.name')) button.click()")
    expect(page.locator(".members tbody tr")).to_have_count(len(names))
    expect(page.locator(".members:visible")).to_have_count(len(names))
    expect(page.get_by_role("alert")).to_have_count(0)


def test_calls_of_the_last_minute_are_drawn(scene: Scene, serve: Callable[..., str], look: Callable[..., Any]) -> None:
    ticks = count(0.0, 1.0)  # every look reads the store
    page = look(serve(scene.store, clock=lambda: next(ticks)))
    expect(row(page, "calm").locator(".calls")).to_have_text("no calls")
    scene.clock.advance(5.0)
    scene.count("calm", successes=30, failures=10, rejected=7)
    expect(row(page, "calm").locator(".calls")).to_have_text("40 calls")
    assert in_columns(page, "calm")["Failed"] == "25%"
    assert in_columns(page, "calm")["Rejected"] == "7"
    for kind in ("succeeded", "failed", "rejected"):
        assert row(page, "calm").locator(f"path.{kind}").get_attribute("d")


def test_a_store_that_is_away_is_told_and_the_last_reading_stays(
    scene: Scene, serve: Callable[..., str], look: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = look(serve(scene.store))
    expect(page.get_by_role("alert")).to_have_count(0)

    def fail(*_: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(scene.store, "circuits", fail)
    expect(page.get_by_role("alert")).to_contain_text("The store cannot be read: ConnectionError: refused.")
    assert names(page) == ["payments", "search", "odd", "calm"]
    monkeypatch.undo()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_name_or_reason_that_is_markup_is_text(serve: Callable[..., str], look: Callable[..., Any]) -> None:
    scene = Scene()
    script, image = "<script>alert(1)</script>", "<img src=x onerror=alert(2)>"
    scene.open(script, reason=image, by="<b>me</b>")
    page = look(serve(scene.store, TOKEN) + f"#token={TOKEN}")
    assert names(page) == [script]
    expect(page.locator("#main")).to_have_text(f"{script} is open")
    page.get_by_role("button", name=script, exact=True).click()
    expect(page.locator("dl")).to_contain_text(image)
    expect(page.locator("dl")).to_contain_text("<b>me</b>")
    page.get_by_role("button", name="Reset", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text(f"Reset {script}?")
    assert page.locator("img, b, body script").count() == 0


def test_the_policy_keeps_a_script_from_running(
    scene: Scene, serve: Callable[..., str], look: Callable[..., Any]
) -> None:
    page = look(serve(scene.store))
    ran = page.evaluate(
        """() => {
            const script = document.createElement("script");
            try { script.text = "window.ran = true"; } catch { return "refused"; }
            document.body.append(script);
            return String(window.ran);
        }"""
    )
    assert ran in ("refused", "undefined")
    assert look.wrong != []  # type: ignore[attr-defined]
    look.wrong.clear()  # type: ignore[attr-defined]


# Real processes


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "circuits.db")


@pytest.fixture
def processes(path: str) -> Iterator[tuple[Process, Process]]:
    both = Process(path), Process(path)
    assert [process.tell("?") for process in both] == ["answered"] * 2
    yield both
    for process in both:
        process.end()


def test_the_page_follows_processes_and_they_obey_it(
    path: str, processes: tuple[Process, Process], serve: Callable[..., str], look: Callable[..., Any]
) -> None:
    one, other = processes
    page = look(serve(SQLiteStore(path, timeout_s=5.0), TOKEN) + f"#token={TOKEN}")
    state = row(page, "payments").locator("td[data-label=State]")
    expect(state).to_have_text("closed")
    one.tell("down")
    expect(row(page, "payments").locator(".why")).to_have_text("admits calls, but 1 of 2 processes rejects")
    expect(row(page, "payments").locator("td[data-label=Processes]")).to_contain_text("1 open by itself")
    other.tell("down")
    expect(state).to_have_text("open")
    assert [process.tell("?") for process in processes] == ["rejected"] * 2

    page.get_by_role("button", name="payments", exact=True).click()
    page.get_by_role("button", name="Force closed", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Force payments closed?")
    expect(dialog).to_contain_text("All 2 processes will admit every call")
    page.get_by_role("button", name="Force payments closed", exact=True).click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#said")).to_have_text("payments: force closed was ordered.")
    expect(state).to_have_text("forced closed")
    for process in processes:
        while process.tell("?") == "rejected":
            page.wait_for_timeout(50)
        assert process.tell("?") == "failed"


# Who may do what


@pytest.mark.parametrize(("control", "given"), [(None, f"#token={TOKEN}"), (TOKEN, ""), (TOKEN, "#token=")])
def test_without_control_and_the_token_there_is_no_order_to_give(
    control: str | None, given: str, scene: Scene, serve: Callable[..., str], look: Callable[..., Any]
) -> None:
    page = look(serve(scene.store, control) + given)
    page.get_by_role("button", name="payments", exact=True).click()
    expect(row(page, "payments").locator(".members tbody tr")).to_have_count(8)
    assert page.locator("[data-order]").count() == 0


def test_the_token_is_taken_out_of_the_address(
    scene: Scene, serve: Callable[..., str], look: Callable[..., Any]
) -> None:
    address = serve(scene.store, TOKEN)
    page = look(f"{address}#token={TOKEN}")
    assert page.url == address
    page.reload()  # it is kept for this tab
    page.get_by_role("button", name="payments", exact=True).click()
    expect(page.locator("[data-order]")).to_have_count(4)


def test_a_wrong_token_changes_nothing_and_is_told(
    scene: Scene, serve: Callable[..., str], look: Callable[..., Any]
) -> None:
    page = look(serve(scene.store, TOKEN) + f"#token={TOKEN}x")
    page.get_by_role("button", name="payments", exact=True).click()
    page.get_by_role("button", name="Reset", exact=True).click()
    page.get_by_role("button", name="Reset payments", exact=True).click()
    expect(page.locator("#refusal")).to_have_text("Nothing was changed: this is not the token of this console.")
    assert {circuit.name: circuit.reason for circuit in scene.store.circuits()}["payments"] == "5 failures in a row"
    assert [text for text in look.wrong if "403" not in text] == []  # type: ignore[attr-defined]
    look.wrong.clear()  # type: ignore[attr-defined]


# Everybody


def test_it_is_used_with_the_keyboard_alone(scene: Scene, serve: Callable[..., str], look: Callable[..., Any]) -> None:
    page = look(serve(scene.store, TOKEN) + f"#token={TOKEN}")
    page.keyboard.press("/")
    expect(page.get_by_label("Filter by name")).to_be_focused()
    page.keyboard.type("PAY")
    expect(page.locator("#shown")).to_have_text("1 of 4")
    page.keyboard.press("Tab")
    name = page.get_by_role("button", name="payments", exact=True)
    expect(name).to_be_focused()
    page.keyboard.press("Enter")
    expect(name).to_have_attribute("aria-expanded", "true")
    force_open = page.get_by_role("button", name="Force open", exact=True)
    expect(force_open).to_be_visible()
    page.keyboard.press("Tab")
    expect(force_open).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Force payments open?")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(force_open).to_be_focused()


def test_a_screen_reader_finds_a_table_with_headers(
    scene: Scene, serve: Callable[..., str], look: Callable[..., Any]
) -> None:
    page = look(serve(scene.store))
    table = page.get_by_role("table", name="Circuits, those first that need attention")
    expect(table.get_by_role("columnheader")).to_have_count(9)
    expect(table.get_by_role("rowheader")).to_have_count(4)
    expect(table.get_by_role("row")).to_have_count(5)
    expect(page.get_by_role("button", name="payments", exact=True)).to_have_accessible_description(
        "rejects every call · 5 failures in a row, by web-1:12"
    )
    page.set_viewport_size({"width": 380, "height": 800})  # where it is drawn as cards
    expect(table.get_by_role("columnheader")).to_have_count(9)
    expect(table.get_by_role("rowheader")).to_have_count(4)


CONTRAST = """() => {
    const channels = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (text) => {
        const [red, green, blue] = channels(text).map((value) => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const behind = (node) => {
        for (; node; node = node.parentElement) {
            const [red, green, blue, alpha = 1] = channels(getComputedStyle(node).backgroundColor);
            if (alpha > 0) return `rgb(${red}, ${green}, ${blue})`;
        }
        return getComputedStyle(document.body).backgroundColor;
    };
    const poor = [];
    for (const node of document.body.querySelectorAll("*")) {
        const said = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (!said || !node.checkVisibility()) continue;
        const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) poor.push(`${node.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
def test_every_text_can_be_read_and_nothing_sticks_out(
    scheme: str, width: int, scene: Scene, serve: Callable[..., str], look: Callable[..., Any]
) -> None:
    scene.order("forced", CircuitMode.FORCED_CLOSED)
    scene.open("a" * 300, reason="b" * 300, by="c" * 300)
    scene.members(["divided"], divided="open")
    scene.count("divided", 1)
    page = look(
        serve(scene.store, TOKEN) + f"#token={TOKEN}", color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    for name in ("payments", "divided"):
        page.get_by_role("button", name=name, exact=True).click()
    expect(row(page, "divided").locator(".members tbody tr").first).to_be_visible()
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_hundreds_of_circuits_are_filtered_and_keep_their_place(
    serve: Callable[..., str], look: Callable[..., Any]
) -> None:
    scene = Scene()
    for number in range(300):
        scene.count(f"service {number:03}", 1)
    ticks = count(0.0, 1.0)
    page = look(serve(scene.store, clock=lambda: next(ticks)))
    expect(page.locator("#main")).to_have_text("All 300 circuits are closed")
    page.get_by_label("Filter by name").fill("service 29")
    expect(page.locator("#shown")).to_have_text("10 of 300")
    wanted = page.get_by_role("button", name="service 299")
    wanted.focus()
    scene.open("service 299")
    expect(page.locator("#main")).to_have_text("service 299 is open")
    expect(wanted).to_be_focused()
    assert names(page)[0] == "service 299"
    assert page.evaluate("performance.getEntriesByType('longtask').every((task) => task.duration < 1000)")
