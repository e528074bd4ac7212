"""Retry-after hints in the errors of real clients, and in objects that misbehave."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from email.utils import formatdate
from fractions import Fraction
from http.client import HTTPConnection, HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf, nan
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import MagicMock
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit

import aiohttp
import httpx
import pytest
import requests
from clocks import Clock

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._common.retry_after import retry_after_hint
from circuit_breaker.exceptions import CircuitOpenError

NOW = 2_000_000_000.0  # Wed, 18 May 2033 03:33:20 GMT
YEAR_9999 = 253_402_300_799 - NOW

HEADERS: dict[str, tuple[str | None, float | None]] = {
    "seconds": ("2", 2.0),
    "no seconds": ("0", 0.0),
    "a part of a second": ("1.5", 1.5),
    "spaces around": ("  7\t", 7.0),
    "a date": ("Wed, 18 May 2033 03:34:50 GMT", 90.0),
    "a date of another zone": ("Wed, 18 May 2033 05:34:50 +0200", 90.0),
    "a date of no zone": ("Wed, 18 May 2033 03:34:50", 90.0),
    "a date of an unknown zone": ("Wed, 18 May 2033 03:34:50 -0000", 90.0),
    "a date of the old kind": ("Wednesday, 18-May-33 03:34:50 GMT", 90.0),
    "a date as asctime writes it": ("Wed May 18 03:34:50 2033", 90.0),
    "a date that has passed": ("Wed, 18 May 2033 03:33:19 GMT", 0.0),
    "the year 9999": ("Fri, 31 Dec 9999 23:59:59 GMT", YEAR_9999),
    "a year too far": ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    "garbage": ("soon", None),
    "a negative number": ("-2", None),
    "a sign": ("+2", None),
    "an exponent": ("1e3", None),
    "two numbers": ("2, 3", None),
    "a number with its unit": ("2s", None),
    "no number": ("nan", None),
    "no finite number": ("inf", None),
    "too many digits": ("9" * 400, None),
    "half a date": ("Wed, 18 May", None),
    "a date that is none": ("Wed, 32 May 2033 03:34:50 GMT", None),
    "nothing in it": ("", None),
    "no header": (None, None),
}


@pytest.fixture
def at_noon(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], float | None]:
    """Ask for the hint at a known moment."""

    def hint(error: BaseException) -> float | None:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: NOW)
            return retry_after_hint(error)

    return hint


# Real clients


class Unavailable(BaseHTTPRequestHandler):
    """Answers 503, with the header that the path asks for."""

    def do_GET(self) -> None:
        self.send_response(503)
        if self.path != "/":
            self.send_header("Retry-After", unquote(self.path[1:]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(NOW, usegmt=True)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Unavailable) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def with_httpx(url: str) -> None:
    with httpx.Client(trust_env=False) as client:
        client.get(url).raise_for_status()


def with_requests(url: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.get(url).raise_for_status()


def with_aiohttp(url: str) -> None:
    async def get() -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url):
            pass

    asyncio.run(get())


def with_urllib(url: str) -> None:
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url)


CLIENTS: dict[Callable[[str], None], type[Exception]] = {
    with_httpx: httpx.HTTPStatusError,
    with_requests: requests.HTTPError,
    with_aiohttp: aiohttp.ClientResponseError,
    with_urllib: HTTPError,
}
SENT = ["seconds", "a date", "garbage", "a negative number", "the year 9999", "no header"]


@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_the_hint_is_read_from_what_a_client_raises(
    server: str,
    client: Callable[[str], None],
    sent: str,
    at_noon: Callable[[BaseException], float | None],
) -> None:
    header, expected = HEADERS[sent]
    with pytest.raises(CLIENTS[client]) as raised:
        client(server + quote(header or ""))
    assert at_noon(raised.value) == expected
    if isinstance(raised.value, HTTPError):
        raised.value.close()


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_circuit_that_a_client_opens_stays_open_for_as_long_as_the_server_asks(
    server: str, clock: Clock, client: Callable[[str], None]
) -> None:
    config = CircuitBreakerConfig(
        failure_threshold=1, reset_timeout_s=1, retry_after=retry_after_hint, retry_after_max_s=60
    )
    for header, expected_s in (("2", 2.0), ("Fri, 31 Dec 9999 23:59:59 GMT", 60.0), ("-2", 1.0)):
        breaker = CircuitBreaker(config=config, clock=clock)
        with pytest.raises(CLIENTS[client]) as raised:
            breaker.call(client, server + quote(header))
        if isinstance(raised.value, HTTPError):
            raised.value.close()
        assert breaker.snapshot().retry_after_s == expected_s
        with pytest.raises(CircuitOpenError) as refused:
            breaker.call(client, server)
        assert refused.value.retry_after_s == expected_s


def test_a_client_that_reached_nobody_gives_no_hint() -> None:
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.TransportError) as raised:
        client.get("http://127.0.0.1:1/")
    assert retry_after_hint(raised.value) is None


def test_an_urllib_error_without_a_body_gives_its_hint() -> None:
    headers = HTTPMessage()
    headers["retry-after"] = "2"
    with HTTPError("http://api", 503, "down", headers, None) as error:
        assert retry_after_hint(error) == 2.0


# A response that is returned, which a retry policy may ask about


async def aiohttp_response(url: str) -> float | None:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return retry_after_hint(response)


def urllib_response(url: str) -> float | None:
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url)
    except HTTPError as response:  # which is both an error and a response
        with response:
            return retry_after_hint(response)
    raise AssertionError(f"{url} answered with a success")


def http_client_response(url: str) -> float | None:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc)
    connection.request("GET", parts.path)
    with connection.getresponse() as response:
        hint = retry_after_hint(response)
    connection.close()
    return hint


def requests_response(url: str) -> float | None:
    with requests.Session() as session:
        session.trust_env = False
        response = session.get(url)
    assert not response  # a response of requests is false if its status is bad
    return retry_after_hint(response)


def httpx_response(url: str) -> float | None:
    with httpx.Client(trust_env=False) as client:
        return retry_after_hint(client.get(url))


@pytest.mark.parametrize(
    "hint_of_response",
    [
        httpx_response,
        requests_response,
        lambda url: asyncio.run(aiohttp_response(url)),
        urllib_response,
        http_client_response,
    ],
    ids=["httpx", "requests", "aiohttp", "urllib", "http.client"],
)
def test_the_hint_is_read_from_a_response_that_a_client_returns(
    server: str, hint_of_response: Callable[[str], float | None]
) -> None:
    assert hint_of_response(server + "7") == 7.0
    assert hint_of_response(server) is None


# botocore


def boto_response(**headers: str) -> dict[str, Any]:
    """Return what a client of boto3 returns, and what a `ClientError` has as its response."""
    return {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503, "HTTPHeaders": headers}}


def test_the_headers_in_a_response_dictionary_of_botocore_are_read() -> None:
    response = boto_response(**{"retry-after": "3", "content-length": "0"})
    assert retry_after_hint(Refused(response=response)) == 3.0
    assert retry_after_hint(response) == 3.0
    assert retry_after_hint(boto_response(**{"x-amz-retry-after": "1500"})) == 1.5


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"ResponseMetadata": None},
        {"ResponseMetadata": {}},
        {"ResponseMetadata": {"HTTPHeaders": None}},
        {"ResponseMetadata": {"HTTPHeaders": "retry-after: 3"}},
        {"ResponseMetadata": ["HTTPHeaders"]},
    ],
    ids=repr,
)
def test_a_response_dictionary_without_headers_has_no_hint(response: dict[str, Any]) -> None:
    assert retry_after_hint(Refused(response=response)) is None
    assert retry_after_hint(response) is None
    assert retry_after_hint(Refused(response=response, headers={"Retry-After": "2"})) == 2.0


# The header, wherever it is


class Refused(Exception):
    """Has the attributes it is given."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def on_itself(headers: Any) -> Refused:
    return Refused(headers=headers)


def on_its_response(headers: Any) -> Refused:
    return Refused(response=SimpleNamespace(headers=headers))


@pytest.mark.parametrize("place", [on_itself, on_its_response])
@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER", b"Retry-After"])
@pytest.mark.parametrize(("header", "expected"), HEADERS.values(), ids=HEADERS)
def test_a_header_is_read_as_seconds_or_as_a_date(
    place: Callable[[Any], Refused],
    name: str | bytes,
    header: str | None,
    expected: float | None,
    at_noon: Callable[[BaseException], float | None],
) -> None:
    headers = {"Server": "test"} if header is None else {name: header}
    assert at_noon(place(headers)) == expected


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of this process cannot be set")
def test_a_date_of_no_zone_is_that_of_greenwich_wherever_it_is_read(
    monkeypatch: pytest.MonkeyPatch, at_noon: Callable[[BaseException], float | None]
) -> None:
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "JST-9")
            time.tzset()
            for zone in ("", " GMT", " -0000"):
                assert at_noon(on_itself({"Retry-After": f"Wed, 18 May 2033 03:34:50{zone}"})) == 90.0
    finally:
        time.tzset()


@pytest.mark.parametrize(
    ("value", "expected"), [(b"7", 7.0), (7, 7.0), (7.5, 7.5), (-7, None), (True, None), (b"\xff", None), ([], None)]
)
def test_a_header_that_is_not_a_text_is_read_if_it_can_be(value: Any, expected: float | None) -> None:
    assert retry_after_hint(on_itself({"Retry-After": value})) == expected


def test_the_first_of_two_headers_of_one_name_is_read() -> None:
    headers = HTTPMessage()
    headers["Retry-After"] = "2"
    headers["retry-after"] = "3"
    assert retry_after_hint(on_itself(headers)) == 2.0


def test_names_that_are_no_text_are_passed_over() -> None:
    assert retry_after_hint(on_itself({None: "1", 3: "1", ("retry-after",): "1", "retry-after": "2"})) == 2.0


@pytest.mark.parametrize("name", ["retry-after-ms", "Retry-After-Ms", "x-ms-retry-after-ms", "x-amz-retry-after"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1500", 1.5),
        (" 300 ", 0.3),
        ("0", 0.0),
        ("12.5", 0.0125),
        (b"20", 0.02),
        (20, 0.02),
        ("-20", None),
        ("soon", None),
        ("9" * 400, None),
        ("Wed, 18 May 2033 03:34:50 GMT", None),
    ],
)
def test_a_header_in_milliseconds_is_read_as_such(name: str, value: Any, expected: float | None) -> None:
    assert retry_after_hint(on_its_response({name: value})) == expected


def test_milliseconds_come_before_seconds_which_are_rounded() -> None:
    assert retry_after_hint(on_itself({"retry-after": "2", "retry-after-ms": "1200"})) == 1.2
    assert retry_after_hint(on_itself({"retry-after": "2", "retry-after-ms": "soon"})) == 2.0


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("Wed, 18 May 2033 03:34:20 GMT", 30.0),  # a server whose clock is 50 s ahead of ours
        ("Wed, 18 May 2033 03:34:50 GMT", 0.0),
        ("Wed, 18 May 2033 04:00:00 GMT", 0.0),
        ("Tue, 17 May 2033 03:34:50 GMT", 86_400.0),
        ("yesterday", 90.0),
        ("", 90.0),
    ],
)
@pytest.mark.parametrize("name", ["Date", "date"])
def test_a_date_is_compared_with_the_clock_of_the_server_that_sent_it(
    name: str, sent: str, expected: float, at_noon: Callable[[BaseException], float | None]
) -> None:
    headers = {name: sent, "Retry-After": "Wed, 18 May 2033 03:34:50 GMT"}
    assert at_noon(on_its_response(headers)) == expected


def test_the_date_of_the_server_does_not_matter_to_a_number_of_seconds() -> None:
    assert retry_after_hint(on_itself({"Date": "Wed, 18 May 2033 03:34:50 GMT", "Retry-After": "2"})) == 2.0


def test_the_header_of_the_response_comes_before_that_of_the_error() -> None:
    response = SimpleNamespace(headers={"Retry-After": "1"})
    assert retry_after_hint(Refused(response=response, headers={"Retry-After": "2"})) == 1.0
    assert retry_after_hint(Refused(response=SimpleNamespace(headers={}), headers={"Retry-After": "2"})) == 2.0
    assert retry_after_hint(Refused(response=None, headers={"Retry-After": "2"})) == 2.0


@pytest.mark.parametrize(
    "response",
    [
        SimpleNamespace(headers={"Retry-After": "soon"}),
        SimpleNamespace(headers={"Retry-After": object()}),
        SimpleNamespace(headers=3),
    ],
    ids=repr,
)
def test_a_response_whose_header_cannot_be_read_leaves_it_to_the_error(response: Any) -> None:
    assert retry_after_hint(Refused(response=response, headers={"Retry-After": "2"})) == 2.0


# An attribute

NO_TIMES = [-1, nan, inf, -inf, 10**400]
NO_TIMES += [Decimal(text) for text in ("-1", "NaN", "sNaN", "Infinity", "1e400")] + [
    Fraction(-1, 2),
    Fraction(10**400),
]


@pytest.mark.parametrize("name", ["retry_after_s", "retry_after"])
@pytest.mark.parametrize("value", [0, 2, 2.5, 1e9, Decimal("2.5"), Decimal(0), Fraction(5, 2)])
def test_an_attribute_that_is_a_number_comes_first(name: str, value: float) -> None:
    hint = retry_after_hint(Refused(**{name: value}, headers={"Retry-After": "9"}))
    assert hint == value
    assert type(hint) is float


@pytest.mark.parametrize("name", ["retry_after_s", "retry_after"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [(timedelta(seconds=2.5), 2.5), (timedelta(0), 0.0), (timedelta(days=1), 86_400.0), (timedelta(seconds=-1), 9.0)],
)
def test_an_attribute_may_be_a_timedelta(name: str, value: timedelta, expected: float) -> None:
    assert retry_after_hint(Refused(**{name: value}, headers={"Retry-After": "9"})) == expected


def test_an_attribute_of_a_returned_value_is_read_too() -> None:
    assert retry_after_hint(SimpleNamespace(retry_after=2)) == 2.0
    assert retry_after_hint(SimpleNamespace(response=SimpleNamespace(headers={"Retry-After": "2"}))) == 2.0


def test_ctrl_c_while_a_number_is_read_passes() -> None:
    class Slow:
        def __ge__(self, other: object) -> bool:
            return True

        def __float__(self) -> float:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retry_after_hint(Refused(retry_after_s=Slow()))


@pytest.mark.parametrize("name", ["retry_after_s", "retry_after"])
@pytest.mark.parametrize("value", [*NO_TIMES, True, False, "2", None, [2], 1j, MagicMock(), timedelta(-1)])
def test_an_attribute_that_is_not_a_time_leaves_it_to_the_header(name: str, value: Any) -> None:
    assert retry_after_hint(Refused(**{name: value}, headers={"Retry-After": "9"})) == 9.0
    assert retry_after_hint(Refused(**{name: value})) is None


def test_the_seconds_come_before_the_attribute_of_the_other_name() -> None:
    assert retry_after_hint(Refused(retry_after_s=1, retry_after=2)) == 1.0
    assert retry_after_hint(Refused(retry_after_s=None, retry_after=2)) == 2.0


def test_an_attribute_that_raises_whatever_it_is_asked_leaves_it_to_the_other() -> None:
    class Sour:
        def __getattr__(self, name: str) -> object:
            raise ValueError(name)

    error = Exception()
    error.retry_after_s, error.retry_after = Sour(), 3  # type: ignore[attr-defined]
    assert retry_after_hint(error) == 3.0


def test_a_rejection_of_a_circuit_is_a_hint() -> None:
    assert retry_after_hint(CircuitOpenError("open", "api", retry_after_s=3.5)) == 3.5
    assert retry_after_hint(CircuitOpenError("open", "api", retry_after_s=None)) is None
    assert retry_after_hint(CircuitOpenError("open", "api", retry_after_s=inf)) is None


# What is no hint


class Hostile(Exception):
    """Raises at every use."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)


class Unanswerable(Exception):
    """Raises when it is asked for its response, as properties of some clients do; the rest is there."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": "2"}

    @property
    def response(self) -> Any:
        raise RuntimeError("there is none")


class Waiting(Exception):
    """Answers questions about its call when that is over, as an unfinished call of gRPC does."""

    def trailing_metadata(self) -> Any:
        raise AssertionError("it would wait for ever")

    code = details = headers_received = initial_metadata = result = trailing_metadata


class HostileHeaders(Mapping[str, str]):
    """Raises at every use."""

    def __getitem__(self, key: str) -> str:
        raise OSError(key)

    def __iter__(self) -> Iterator[str]:
        raise OSError

    def __len__(self) -> int:
        raise OSError


class Unspeakable:
    """Has no text."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    "error",
    [
        Exception(),
        KeyboardInterrupt(),
        ExceptionGroup("two", [ValueError(), OSError()]),
        Hostile(),
        Refused(retry_after=10**400),
        Refused(response={"headers": {"Retry-After": "2"}}),
        *(
            place(headers)
            for place in (on_itself, on_its_response)
            for headers in (None, 3, "Retry-After: 2", [("Retry-After", "2")], HostileHeaders(), MagicMock())
        ),
        on_itself({"Retry-After": Unspeakable()}),
        Waiting(),
        Refused(response=MagicMock(), retry_after=MagicMock()),
    ],
    ids=repr,
)
def test_what_gives_no_hint_is_none_and_raises_nothing(error: BaseException) -> None:
    assert retry_after_hint(error) is None


@pytest.mark.parametrize("value", [None, 5, "Retry-After: 5", b"", [], {}, {"Retry-After": "5"}, object(), MagicMock()])
def test_a_value_that_is_not_a_response_has_no_hint(value: object) -> None:
    assert retry_after_hint(value) is None


def test_a_response_that_raises_when_it_is_asked_leaves_it_to_the_error() -> None:
    assert retry_after_hint(Unanswerable()) == 2.0


def test_nobody_is_called_and_no_coroutine_is_made() -> None:
    class Call:
        """A call of an async client that is not over: what it could tell has to be awaited."""

        async def headers(self) -> dict[str, str]:
            raise AssertionError

        retry_after = response = headers

    assert retry_after_hint(Call()) is None


def test_a_response_that_lies_about_its_class_or_cannot_say_has_no_hint() -> None:
    class Unbound:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("this proxy is not bound")

    class Liar:
        __class__ = dict  # type: ignore[assignment]

    for response in (Unbound(), Liar()):
        assert retry_after_hint(SimpleNamespace(response=response)) is None
        assert retry_after_hint(response) is None


def test_a_ctrl_c_while_the_hint_is_read_passes() -> None:
    class Interrupted(Exception):
        @property
        def response(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retry_after_hint(Interrupted())


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no such signal")
@pytest.mark.parametrize("place", ["response", "headers", "retry_after"])
def test_a_time_limit_that_a_signal_handler_raises_while_the_hint_is_read_passes(place: str) -> None:
    class TimeLimit(Exception):
        """Like Celery's SoftTimeLimitExceeded."""

    class Interrupted(Exception):
        def __getattribute__(self, name: str) -> Any:
            if name == place:
                signal.raise_signal(signal.SIGALRM)
            return None

    def handler(number: int, frame: object) -> None:
        raise TimeLimit

    former = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(TimeLimit):
            retry_after_hint(Interrupted())
    finally:
        signal.signal(signal.SIGALRM, former)
