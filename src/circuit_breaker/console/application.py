"""The page as a WSGI application: what it answers to whom."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs, quote

from .._common.events import INFO, log, open_log
from .._common.words import CircuitMode
from .._shared import changes
from .._shared.record import Edit, Step, printable
from .._shared.store import whoami
from .data import Data
from .watcher import Watcher

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

SHORTEST_TOKEN: Final = 16
TOKEN: Final = re.compile(r"[A-Za-z0-9._~-]+")  # as it stands in a header, and behind the # of an address
LONGEST_BODY: Final = 1_024
MOST_WANTED: Final = 100  # rows whose processes are asked for at once; page.js has the same number

# Whatever a name or a reason says, nothing but these files of ours runs, and no other page frames or reads this one.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = (
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FILES: Final = ("page.html", "page.css", "page.js", "rows.js", "figures.js", "orders.js", "icon.svg")

ORDERS: Final[Mapping[str, Callable[[str], Step]]] = {
    "force_open": lambda by: changes.ordered(CircuitMode.FORCED_OPEN, by),
    "force_closed": lambda by: changes.ordered(CircuitMode.FORCED_CLOSED, by),
    "auto": lambda by: changes.ordered(CircuitMode.AUTO, by),
    "reset": changes.reset,
}


class Answer(NamedTuple):
    """What a request is answered."""

    status: str
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """Raised where a request cannot be served; its text is for whoever sent it."""

    def __init__(self, status: str, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class Application:
    """Serves the page, the readings that it asks for, and orders if there is a token."""

    def __init__(self, watcher: Watcher, control: str | None = None, label: str = "") -> None:
        open_log()
        self._watcher = watcher
        self._token = None if control is None else checked_token("control", control).encode("ascii")
        self._data = Data(label, control is not None)
        folder = resources.files("circuit_breaker.console") / "static"
        self._files = {f"/{name}": _file(name, (folder / name).read_bytes()) for name in FILES}
        self._files["/"] = self._files.pop("/page.html")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            answer = self._answer(environ)
        except Refused as refused:
            answer = Answer(refused.status, "application/json", _said(error=str(refused)), refused.headers)
        start_response(
            answer.status,
            [
                ("Content-Type", f"{answer.kind}; charset=utf-8"),
                ("Content-Length", str(len(answer.body))),
                *HEADERS,
                *answer.headers,
            ],
        )
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        path = environ.get("PATH_INFO", "")
        allowed = ("POST",) if path == "/orders" else ("GET", "HEAD")
        if path == "":
            return _redirected(environ)
        if path not in self._files and path not in ("/circuits.json", "/orders"):
            raise Refused("404 Not Found", "there is nothing here")
        if environ["REQUEST_METHOD"] not in allowed:
            raise Refused(
                "405 Method Not Allowed", f"this takes {' and '.join(allowed)}", ("Allow", ", ".join(allowed))
            )
        if path == "/circuits.json":
            return self._reading(environ)
        if path == "/orders":
            return self._order(environ)
        return self._files[path]

    # Reading

    def _reading(self, environ: WSGIEnvironment) -> Answer:
        try:
            asked = parse_qs(environ.get("QUERY_STRING", ""), max_num_fields=MOST_WANTED + 1)
        except ValueError:
            raise Refused("400 Bad Request", f"ask for at most {MOST_WANTED} circuits at once") from None
        view = self._watcher.look()
        age_s = self._watcher.clock() - view.read_at
        body = self._data.write(view, age_s, "history" in asked, frozenset(asked.get("key", ())))
        return Answer("200 OK", "application/json", body)

    # Orders

    def _order(self, environ: WSGIEnvironment) -> Answer:
        self._check_sender(environ)
        order, key = _read_order(environ)
        name = self._watcher.look().names.get(key)
        if name is None:
            raise Refused("404 Not Found", "there is no such circuit any more")
        by = f"console {whoami()}"
        user = environ.get("REMOTE_USER")
        if user:
            by = f"{printable(str(user))} at {by}"
        try:
            self._watcher.store.update(name, Edit(ORDERS[order](by), overwrite=True))
        except Exception as error:
            text = printable(f"{type(error).__name__}: {error}")
            log(INFO, "circuit %r: the order %s of %s failed: %s", name, order, by, text)
            raise Refused("502 Bad Gateway", f"the store did not take the order: {text}") from error
        log(INFO, "circuit %r: order %s of %s", name, order, by)
        self._watcher.expire()
        return Answer("200 OK", "application/json", _said(order=order))

    def _check_sender(self, environ: WSGIEnvironment) -> None:
        """Refuse an order that does not come from this very page, or without the token."""
        if self._token is None:
            raise Refused("403 Forbidden", "this console only shows circuits")
        origin, host = environ.get("HTTP_ORIGIN", ""), environ.get("HTTP_HOST", "")
        if not host or origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            raise Refused(
                "403 Forbidden",
                f"the order comes from {printable(origin) or 'nowhere'}, and this is {printable(host) or 'nowhere'}: "
                "a proxy in front of this console must pass the Host header on",
            )
        given = environ.get("HTTP_X_CIRCUIT_BREAKER_TOKEN", "")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token):
            raise Refused("403 Forbidden", "this is not the token of this console")


def application(store: object, control: str | None = None) -> WSGIApplication:
    """Return a WSGI application that shows the circuits of a store; mount it where your operators have logged in.

    It has no login of its own: whoever reaches it sees all circuits, and whoever also has the token may give orders. It
    reads the store when somebody looks, at most once a second in each process, and is no member of any circuit.
    Any number of threads may call it.

    Args:
        store: that of your breakers, or another one of the same place.
        control: the token that every order must bring, at least 16 letters, digits and `-._~`; None: no orders. An
            address that ends in `#token=` and the token lets the page give orders.

    Raises:
        TypeError: store is no store, or control no str.
        ValueError: control is too short, or has other characters.
    """
    return Application(Watcher(store), control)


def checked_token(name: str, token: Any) -> str:
    """Return the token, if it can be one."""
    takes = (
        f"{name} takes a token of at least {SHORTEST_TOKEN} letters, digits and -._~, as secrets.token_urlsafe() makes"
    )
    if not isinstance(token, str):
        raise TypeError(f"{takes}, or None, got {type(token).__name__}")
    if len(token) < SHORTEST_TOKEN or not TOKEN.fullmatch(token):
        raise ValueError(takes)  # without the value, which is a secret
    return str.__str__(token)


def _file(name: str, text: bytes) -> Answer:
    return Answer("200 OK", TYPES[name.rpartition(".")[2]], text)


def _said(**words: str) -> bytes:
    return json.dumps(words).encode("ascii")


def _redirected(environ: WSGIEnvironment) -> Answer:
    """Lead to the address that ends in a slash, which the page's own addresses are relative to."""
    folder = environ.get("SCRIPT_NAME", "").rpartition("/")[2].encode("latin-1", "replace")
    return Answer("308 Permanent Redirect", "text/plain", b"", (("Location", f"{quote(folder)}/"),))


def _read_order(environ: WSGIEnvironment) -> tuple[str, str]:
    """Return what is ordered, and for which key."""
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused("415 Unsupported Media Type", "an order is JSON")
    length = environ.get("CONTENT_LENGTH", "")
    if not re.fullmatch("[0-9]{1,20}", length):
        raise Refused("411 Length Required", "an order has a Content-Length")
    if int(length) > LONGEST_BODY:
        raise Refused("413 Content Too Large", f"an order has at most {LONGEST_BODY} bytes")
    body = environ["wsgi.input"].read(int(length))
    try:
        plain = json.loads(body)
        order, key = plain["order"], plain["key"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused("400 Bad Request", "an order names the key of a circuit, and what is ordered") from None
    if not isinstance(order, str) or order not in ORDERS or not isinstance(key, str):
        raise Refused("400 Bad Request", f"an order is one of {', '.join(ORDERS)}")
    return order, key
