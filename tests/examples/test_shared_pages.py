"""The code on the pages about shared circuits: stores, and the console in applications of three frameworks."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from example_files import HOW_TO, code_blocks

from circuit_breaker.stores import SQLiteStore

RECIPES = "needs the extra recipes: pip install -e .[test,recipes]"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SQLiteStore("circuits.db", timeout_s=5.0).force_open("api")


def block(page: str, word: str) -> str:
    """Return the one block of a page that has a word."""
    (found,) = (block for block in code_blocks(HOW_TO / f"{page}.md") if word in block)
    return found


def run(code: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(code, namespace)
    return namespace


def test_workers_of_one_machine() -> None:
    found = run(block("shared-circuits", "SQLiteStore(").replace("/run/shop/", ""))
    assert found["charge"](5) is None
    assert [circuit.name for circuit in found["store"].circuits()] == ["api", "payments"]


def test_a_fleet() -> None:
    pytest.importorskip("redis", reason="needs the extra test")
    found = run(block("shared-circuits", "RedisStore("))
    assert found["payments"].snapshot().shared.link == "new"


def test_the_console_in_flask() -> None:
    pytest.importorskip("flask", reason=RECIPES)
    client = run(block("console", "DispatcherMiddleware("))["app"].test_client()
    assert client.get("/circuits").headers["Location"] == "circuits/"
    assert b"<title>Circuits</title>" in client.get("/circuits/").data
    assert client.get("/circuits/circuits.json").json["reading"]["rows"][0]["name"] == "api"


def test_the_console_in_fastapi() -> None:
    pytest.importorskip("a2wsgi", reason=RECIPES)
    pytest.importorskip("fastapi", reason=RECIPES)
    pytest.importorskip("httpx2", reason=RECIPES)
    from fastapi.testclient import TestClient

    with TestClient(run(block("console", "app.mount("))["app"]) as client:
        assert "<title>Circuits</title>" in client.get("/circuits/").text
        assert client.get("/circuits/circuits.json").json()["reading"]["rows"][0]["name"] == "api"


def test_the_console_in_django(monkeypatch: pytest.MonkeyPatch) -> None:
    django = pytest.importorskip("django", reason=RECIPES)
    from django.conf import settings

    if not settings.configured:
        settings.configure(ROOT_URLCONF="urls_of_the_page", SECRET_KEY="x", ALLOWED_HOSTS=["testserver"])
        django.setup()
    from django.contrib.admin.views import decorators
    from django.test import Client

    monkeypatch.setattr(decorators, "staff_member_required", lambda view: view)  # who has logged in
    page = ModuleType("urls_of_the_page")
    exec(block("console", "urlpatterns").replace("request.user", "'ada'"), vars(page))
    monkeypatch.setitem(sys.modules, "urls_of_the_page", page)
    client = Client()
    assert b"<title>Circuits</title>" in client.get("/circuits/").content
    assert client.get("/circuits/page.js").headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert client.get("/circuits/circuits.json").json()["reading"]["rows"][0]["name"] == "api"
    refused = client.post("/circuits/orders", b"{}", content_type="application/json")
    assert (refused.status_code, refused.json()) == (403, {"error": "this console only shows circuits"})
