"""Asks the application as a WSGI server does, and watches that both keep to the rules of WSGI."""

from __future__ import annotations

import io
import json
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

TOKEN = "correct-horse-battery-staple"
HOST = "127.0.0.1:8765"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(application: Any, path: str = "/", method: str = "GET", body: bytes = b"", **environ: str) -> Answer:
    """Send one request; of the environment, None in the place of a value takes it out."""
    path, _, query = path.partition("?")
    given: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "HTTP_HOST": HOST,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        **environ,
    }
    setup_testing_defaults(given)
    told: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
        told.extend((int(status.split()[0]), headers))
        return lambda data: None

    parts = validator(application)({name: value for name, value in given.items() if value is not None}, start_response)
    text = b"".join(parts)
    parts.close()
    status, headers = told
    assert len({name for name, _ in headers}) == len(headers)
    return Answer(status, dict(headers), text)


def order(application: Any, key: str, what: str, **environ: Any) -> Answer:
    """Send an order as the page does."""
    return send(application, json.dumps({"key": key, "order": what}).encode(), **environ)


def send(application: Any, body: bytes, **environ: Any) -> Answer:
    """Send something as an order."""
    as_the_page_does = {
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_ORIGIN": f"http://{HOST}",
        "HTTP_X_CIRCUIT_BREAKER_TOKEN": TOKEN,
    }
    return ask(application, "/orders", "POST", body, **as_the_page_does | environ)
