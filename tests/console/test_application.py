"""The page as a WSGI application: what it answers, and whom it refuses."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import pytest
from asking import HOST, TOKEN, ask, order, send
from scenes import Scene

from circuit_breaker import CircuitMode
from circuit_breaker.console import application
from circuit_breaker.console.application import FILES, HEADERS, ORDERS, Application
from circuit_breaker.console.rows import key_of
from circuit_breaker.console.watcher import Watcher
from circuit_breaker.stores import MemoryStore

API = key_of("api")


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.count("api", 1)
    return scene


@pytest.fixture
def shows(scene: Scene) -> Application:
    """An application that only shows."""
    return Application(Watcher(scene.store, scene.clock), None, "sqlite:circuits.db")


@pytest.fixture
def steers(scene: Scene) -> Application:
    """One that takes orders."""
    return Application(Watcher(scene.store, scene.clock), TOKEN)


def read(app: Any, query: str = "") -> Any:
    return ask(app, f"/circuits.json?{query}").json


# The page


@pytest.mark.parametrize(
    ("path", "kind", "begins"),
    [
        ("/", "text/html", b"<!DOCTYPE html>"),
        ("/page.css", "text/css", b"/*"),
        ("/page.js", "text/javascript", b"//"),
        ("/icon.svg", "image/svg+xml", b"<svg"),
        ("/circuits.json", "application/json", b"{"),
    ],
)
def test_what_is_there(shows: Application, path: str, kind: str, begins: bytes) -> None:
    answer = ask(shows, path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
    assert answer.body.startswith(begins)
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    head = ask(shows, path, "HEAD")
    assert (head.status, head.headers["Content-Type"], head.body) == (200, answer.headers["Content-Type"], b"")


@pytest.mark.parametrize(
    ("path", "method"),
    [("/", "GET"), ("/page.js", "GET"), ("/circuits.json", "GET"), ("/none", "GET"), ("/orders", "POST"), ("", "GET")],
)
def test_every_answer_has_the_headers_that_protect_it(shows: Application, path: str, method: str) -> None:
    answer = ask(shows, path, method)
    assert dict(HEADERS).items() <= answer.headers.items()


def test_the_policy_lets_nothing_run_that_is_not_ours() -> None:
    policy = dict(HEADERS)["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_no_file_of_the_page_asks_for_anything_elsewhere(shows: Application) -> None:
    for name in FILES:
        text = shows._files["/" if name == "page.html" else f"/{name}"].body.decode()
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "style=" not in text
        assert "innerHTML" not in text


def test_the_address_without_a_slash_leads_to_the_one_with_it(shows: Application) -> None:
    answer = ask(shows, "", SCRIPT_NAME="/internal/circuits")
    assert (answer.status, answer.headers["Location"]) == (308, "circuits/")
    odd = ask(shows, "", SCRIPT_NAME="//evil.example/\u00e4 b")
    assert odd.headers["Location"] == "%E4%20b/"


@pytest.mark.parametrize(
    "path",
    [
        "/page.html",
        "/static/page.js",
        "/../application.py",
        "/..%2fapplication.py",
        "/%2e%2e/application.py",
        "/page.js/../application.py",
        "//page.js",
        "/page.js/",
        "/etc/passwd",
        "/\x00",
    ],
)
def test_nothing_else_is_there(shows: Application, path: str) -> None:
    answer = ask(shows, PATH_INFO=path)
    assert answer.status == 404
    assert answer.json == {"error": "there is nothing here"}


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/", "POST", "GET, HEAD"),
        ("/circuits.json", "DELETE", "GET, HEAD"),
        ("/orders", "GET", "POST"),
        ("/orders", "OPTIONS", "POST"),
    ],
)
def test_other_methods_are_refused(steers: Application, path: str, method: str, allowed: str) -> None:
    answer = ask(steers, path, method)
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


# Reading


def test_the_reading_tells_all_of_a_row(scene: Scene, shows: Application) -> None:
    scene.open("api", for_s=30.0, ago_s=10.0)
    scene.count("api", rejected=4)
    scene.members(["api"], api="for_all")
    answer = read(shows)
    assert answer["age_s"] == 0
    reading = answer["reading"]
    assert reading["headline"] == {"main": "api is open", "rest": "1 open", "tone": "bad"}
    assert (reading["store"], reading["control"], reading["error"]) == ("sqlite:circuits.db", False, None)
    (row,) = reading["rows"]
    assert row == {
        "key": API,
        "name": "api",
        "kind": "open",
        "tone": "bad",
        "word": "open",
        "meaning": "rejects every call",
        "cause": "5 failures in a row, by web-1:12",
        "reason": "5 failures in a row",
        "by": "web-1:12",
        "mode": "auto",
        "since_s": 10.0,
        "retry_s": 20.0,
        "probes": 0,
        "processes": 8,
        "members": "8 open",
        "sample": [scene.clock(), 7, 0, 0, 0, 4],
        "order": None,
    }


def test_the_age_of_a_reading_grows_while_the_store_is_away(scene: Scene, shows: Application) -> None:
    read(shows)
    scene.store.circuits = fail
    scene.clock.advance(12.5)
    answer = read(shows)
    assert answer["age_s"] == 12.5
    assert answer["reading"]["error"] == "Unreachable: gone"
    assert len(answer["reading"]["rows"]) == 1


class Unreachable(Exception):
    pass


def fail(*_: object) -> Any:
    raise Unreachable("gone")


def test_a_store_that_never_answered_has_no_age(scene: Scene, shows: Application) -> None:
    scene.store.circuits = fail
    assert read(shows)["age_s"] is None


def test_the_samples_of_the_last_minute_come_if_they_are_asked_for(scene: Scene, shows: Application) -> None:
    for _ in range(3):
        read(shows)
        scene.clock.advance(1.0)
        scene.count("api", 2)
    answer = read(shows, "history=1")
    assert [sample[2] for sample in answer["history"][API]] == [1, 3, 5, 7]
    assert "history" not in read(shows)


def test_the_processes_of_a_row_come_if_they_are_asked_for(scene: Scene, shows: Application) -> None:
    scene.member("web-1", 12, {"api": "closed", "mail": "open"}, age_s=60.0)
    scene.member("web-2\x1b", 34, {"api": "open"}, age_s=30.0)
    scene.count("mail")
    scene.clock.advance(2.0)
    assert read(shows)["members"] == {}
    first = {"host": "web-1", "pid": 12, "state": "closed", "by_itself": False, "since_s": 62.0, "seen_s": 2.0}
    second = {"host": "web-2\\x1b", "pid": 34, "state": "open by itself", "by_itself": True}
    assert read(shows, f"key={API}&key=none")["members"] == {API: [first, second | {"since_s": 32.0, "seen_s": 2.0}]}
    assert read(shows, f"key={API}&key={key_of('mail')}")["members"].keys() == {API, key_of("mail")}


def test_the_last_order_is_told(scene: Scene, shows: Application) -> None:
    scene.order("api", CircuitMode.FORCED_CLOSED, by="dana", ago_s=90.0)
    (row,) = read(shows)["reading"]["rows"]
    assert row["order"] == {"what": "forced closed", "by": "dana", "ago_s": 90.0}


def test_a_record_that_cannot_be_read_is_a_row(scene: Scene, shows: Application) -> None:
    scene.write("api", "garbage")
    (row,) = read(shows)["reading"]["rows"]
    assert (row["kind"], row["since_s"], row["sample"]) == ("unreadable", None, None)
    assert "cannot be read" in row["cause"]


@pytest.mark.parametrize(
    "name", ["</script><script>alert(1)</script>", "\ud800", "\x00", "a" * 10_000, "", "__proto__"]
)
def test_any_name_is_told_safely(scene: Scene, shows: Application, name: str) -> None:
    scene.count(name)
    answer = ask(shows, "/circuits.json")
    assert answer.body.isascii()
    names = {row["key"]: row["name"] for row in answer.json["reading"]["rows"]}
    assert names[key_of(name)].isprintable()


def test_numbers_that_json_does_not_have_are_left_out(scene: Scene, shows: Application) -> None:
    line = {"host": "h", "pid": 1, "age_s": math.nan, "lasts_s": math.inf, "circuits": {"closed": ["api"]}}
    scene.store.board._members["h"] = json.dumps(line), scene.clock()
    scene.open("api", for_s=math.inf)
    answer = read(shows, f"key={API}")
    assert answer["members"][API][0]["since_s"] is None
    assert answer["reading"]["rows"][0]["retry_s"] is None


def test_too_many_questions_are_refused(shows: Application) -> None:
    query = "&".join(f"key={number}" for number in range(1_000))
    assert ask(shows, f"/circuits.json?{query}").status == 400


def test_a_reading_is_written_once_for_all(shows: Application) -> None:
    read(shows)
    written = shows._data._written
    read(shows)
    assert shows._data._written is written


# Orders


@pytest.mark.parametrize(
    ("what", "word"),
    [("force_open", "forced open"), ("force_closed", "forced closed"), ("reset", "closed")],
)
def test_an_order_is_carried_out(scene: Scene, steers: Application, what: str, word: str) -> None:
    scene.open("api")
    answer = order(steers, API, what)
    assert (answer.status, answer.json) == (200, {"order": what})
    (row,) = read(steers)["reading"]["rows"]
    assert row["word"] == word
    assert row["by"].startswith("console ")


def test_automatic_ends_a_forced_mode(scene: Scene, steers: Application) -> None:
    scene.order("api", CircuitMode.FORCED_OPEN)
    assert order(steers, API, "auto").status == 200
    (row,) = read(steers)["reading"]["rows"]
    assert (row["word"], row["mode"], row["order"]["what"]) == ("closed", "auto", "automatic")


def test_an_order_names_who_has_logged_in(steers: Application) -> None:
    order(steers, API, "force_open", REMOTE_USER="dana\n")
    (row,) = read(steers)["reading"]["rows"]
    assert row["by"].startswith("dana\\n at console ")


def test_an_order_is_logged(steers: Application, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "circuit_breaker")
    order(steers, API, "force_open")
    (line,) = caplog.messages
    assert line.startswith("circuit 'api': order force_open of console ")


def test_an_unreadable_record_is_overwritten_by_an_order(scene: Scene, steers: Application) -> None:
    scene.write("api", "garbage")
    assert order(steers, API, "reset").status == 200
    assert read(steers)["reading"]["rows"][0]["word"] == "closed"


@pytest.mark.parametrize("name", ["\ud800", "", "x" * 10_000])
def test_an_order_reaches_a_circuit_of_any_name(scene: Scene, steers: Application, name: str) -> None:
    scene.count(name)
    assert order(steers, key_of(name), "force_open").status == 200
    assert {circuit.name for circuit in scene.store.circuits() if circuit.mode is not CircuitMode.AUTO} == {name}


def test_a_store_that_does_not_take_an_order_is_told(
    scene: Scene, steers: Application, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "circuit_breaker")
    scene.store.update = fail
    answer = order(steers, API, "force_open")
    assert (answer.status, answer.json) == (502, {"error": "the store did not take the order: Unreachable: gone"})
    assert "failed: Unreachable: gone" in caplog.text


def test_an_order_for_a_circuit_that_is_not_there_is_refused(scene: Scene, steers: Application) -> None:
    assert order(steers, key_of("none"), "force_open").status == 404
    assert [circuit.name for circuit in scene.store.circuits()] == ["api"]


# Who may not


def unchanged(scene: Scene) -> bool:
    return scene.store.board._records == {}


def test_without_control_there_are_no_orders(scene: Scene, shows: Application) -> None:
    assert order(shows, API, "force_open").status == 403
    assert unchanged(scene)


@pytest.mark.parametrize(
    "token",
    [None, "", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), f" {TOKEN}", "\u00e4" * 28, "\udcff", f"{TOKEN}\x00"],
)
def test_an_order_needs_the_token(scene: Scene, steers: Application, token: str | None) -> None:
    answer = order(steers, API, "force_open", HTTP_X_CIRCUIT_BREAKER_TOKEN=token)
    assert (answer.status, answer.json) == (403, {"error": "this is not the token of this console"})
    assert unchanged(scene)


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "http://evil.example",
        f"http://evil.{HOST}",
        f"http://{HOST}.evil.example",
        f"http://{HOST}@evil.example",
        f"http://evil.example#{HOST}",
        f"http://{HOST}/",
        f"ftp://{HOST}",
        "http://127.0.0.1",
        "http://127.0.0.1:8766",
        "http://[",
    ],
)
def test_an_order_from_another_site_is_refused_though_it_has_the_token(
    scene: Scene, steers: Application, origin: str | None
) -> None:
    answer = order(steers, API, "force_open", HTTP_ORIGIN=origin)
    assert answer.status == 403
    assert "a proxy in front of this console must pass the Host header on" in answer.json["error"]
    assert unchanged(scene)


def test_an_order_without_a_host_is_refused(scene: Scene, steers: Application) -> None:
    assert order(steers, API, "force_open", HTTP_HOST="", HTTP_ORIGIN="http://").status == 403
    assert unchanged(scene)


def test_the_origin_may_be_of_a_proxy_with_tls(steers: Application) -> None:
    where = {"HTTP_HOST": "Ops.example", "HTTP_ORIGIN": "https://ops.example"}
    assert order(steers, API, "force_open", **where).status == 200


@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_an_order_as_a_form_is_refused(scene: Scene, steers: Application, kind: str | None) -> None:
    assert order(steers, API, "force_open", CONTENT_TYPE=kind).status == 415
    assert unchanged(scene)


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (None, 411),
        ("", 411),
        ("+5", 411),
        ("\N{ARABIC-INDIC DIGIT FIVE}", 411),
        ("9" * 21, 411),
        ("1025", 413),
        ("1073741824", 413),
        ("9" * 20, 413),
    ],
)
def test_the_length_of_an_order_is_checked_before_it_is_read(
    scene: Scene, steers: Application, length: str | None, status: int
) -> None:
    assert order(steers, API, "force_open", CONTENT_LENGTH=length).status == status
    assert unchanged(scene)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 1_024,
        b"[]",
        b"null",
        b'"force_open"',
        b"{}",
        b'{"order": "force_open"}',
        b'{"key": "%s"}' % API.encode(),
        b'{"key": "%s", "order": "drop"}' % API.encode(),
        b'{"key": "%s", "order": ["reset"]}' % API.encode(),
        b'{"key": 7, "order": "reset"}',
        b'{"key": ["%s"], "order": "reset"}' % API.encode(),
    ],
)
def test_an_order_that_is_none_is_refused(scene: Scene, steers: Application, body: bytes) -> None:
    assert send(steers, body).status == 400
    assert unchanged(scene)


def test_an_order_may_be_short_of_what_was_announced(scene: Scene, steers: Application) -> None:
    assert send(steers, b'{"key":', CONTENT_LENGTH="900").status == 400
    assert unchanged(scene)


def test_the_orders_are_those_of_a_store() -> None:
    assert all(callable(getattr(MemoryStore, name)) for name in ORDERS)
    assert len(ORDERS) == 4


# The public function


def test_the_application_shows_any_store() -> None:
    store = MemoryStore()
    store.force_open("api")
    app = application(store)
    assert read(app)["reading"]["rows"][0]["word"] == "forced open"
    assert read(app)["reading"]["control"] is False
    assert read(application(store, control=TOKEN))["reading"]["control"] is True


@pytest.mark.parametrize(
    "token", ["", "short", "fifteen-letters", "with space in the token", "sixteen-letters-\n", "ä" * 20]
)
def test_a_poor_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match="control takes a token of at least 16 letters") as raised:
        application(MemoryStore(), control=token)
    assert token == "" or token not in str(raised.value)


def test_a_token_of_another_type_is_refused_and_not_shown() -> None:
    with pytest.raises(TypeError, match=r"control takes .* or None, got bytes$"):
        application(MemoryStore(), control=TOKEN.encode())


def test_no_store_is_refused() -> None:
    with pytest.raises(TypeError, match="store"):
        application(None)
