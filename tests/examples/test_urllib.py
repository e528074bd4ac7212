"""What is special about the urllib example: its errors are files that somebody has to close, and its handlers."""

from __future__ import annotations

import ssl
import urllib.request
from typing import Any
from urllib.error import HTTPError

import pytest
from clients import HEALTHY, Urllib, breaker_of
from faulty_server import FaultyServer, answer

from circuit_breaker import RetryScheduled
from circuit_breaker.testing import FakeClock


@pytest.fixture
def client(server: FaultyServer, open_client: Any) -> Any:
    return open_client(Urllib, failure_threshold=10)


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[HTTPError]:
    """Every HTTPError that is made."""
    errors: list[HTTPError] = []
    make = HTTPError.__init__

    def note(error: HTTPError, *args: Any) -> None:
        make(error, *args)
        errors.append(error)

    monkeypatch.setattr(HTTPError, "__init__", note)
    return errors


def test_the_errors_that_are_retried_are_closed(client: Any, server: FaultyServer, errors: list[HTTPError]) -> None:
    server.will(answer(503), answer(429))
    assert client.send("GET", server.url) == HEALTHY
    assert [(error.code, error.closed) for error in errors] == [(503, True), (429, True)]


def test_the_last_error_is_left_to_the_caller_to_read(
    client: Any, server: FaultyServer, errors: list[HTTPError]
) -> None:
    server.usually = answer(503, b"try later")
    request = urllib.request.Request(server.url)
    with pytest.raises(HTTPError) as caught:
        client.example.send(client.opener, request, retries=client.retries)
    assert [error.closed for error in errors] == [True, True, True, False]
    with caught.value as error:
        assert error.read() == b"try later"


def test_errors_are_closed_if_the_wait_for_the_next_attempt_ends_badly(
    client: Any, server: FaultyServer, errors: list[HTTPError], told: list[RetryScheduled]
) -> None:
    def interrupt(event: RetryScheduled) -> None:
        raise KeyboardInterrupt

    server.will(answer(503))
    retries = client.example.per_host(client.example.replace(client.policy, listeners=[interrupt]))
    with pytest.raises(KeyboardInterrupt):
        client.example.send(client.opener, urllib.request.Request(server.url), retries=retries)
    assert [error.closed for error in errors] == [True]


def test_the_breaker_makes_no_error_that_nobody_closes(
    client: Any, server: FaultyServer, errors: list[HTTPError]
) -> None:
    server.will(answer(503))
    assert client.request("GET", server.url).status == 503
    assert [error.closed for error in errors] == [True]  # by the reader of the one that urllib raises
    assert breaker_of(client, server).stats.failure_count == 1


@pytest.mark.parametrize("given", [{}, {"timeout": None}])
def test_a_request_without_a_timeout_gets_one(given: dict[str, Any], client: Any, server: FaultyServer) -> None:
    request = urllib.request.Request(server.url)
    client.opener.open(request, **given).close()
    assert request.timeout == 10.0
    client.opener.open(request, timeout=3).close()
    assert request.timeout == 3


def test_the_handler_of_https_takes_a_context_of_tls(client: Any) -> None:
    context = ssl.create_default_context()
    handler = client.example.BreakerHTTPSHandler(client.breakers, context=context)
    assert handler._context is context


def test_a_redirect_to_another_host_asks_the_breaker_of_that_host(
    client: Any, server: FaultyServer, other: FaultyServer, clock: FakeClock
) -> None:
    server.will(answer(302, b"", Location=other.url))
    assert client.request("GET", server.url) == HEALTHY
    assert list(client.breakers) == [server.host, other.host]
