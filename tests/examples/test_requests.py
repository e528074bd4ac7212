"""What is special about the requests example: streams, and the pool of an adapter."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("requests", reason="needs the extra test")

import requests
import urllib3
from clients import Requests, breaker_of, make_half_open, seen
from faulty_server import PATIENCE_S, FaultyServer, answer, cut_in_body

from circuit_breaker import CircuitState
from circuit_breaker.testing import FakeClock


@pytest.fixture
def client(server: FaultyServer, open_client: Any) -> Any:
    return open_client(Requests)


def test_a_stream_is_judged_by_its_status(client: Any, server: FaultyServer, clock: FakeClock) -> None:
    breaker = breaker_of(client, server)
    make_half_open(breaker, clock)
    with client.session.get(server.url, stream=True) as response:
        assert breaker.state is CircuitState.CLOSED
        assert response.content == b"healthy"


def test_a_stream_that_is_retried_gives_its_connection_back_before_the_wait(client: Any, server: FaultyServer) -> None:
    server.will(answer(503, b"failing" * 10_000))
    with client.example.send(client.session, "GET", server.url, retries=client.retries, stream=True) as response:
        assert response.content == b"healthy"
    assert (len(server.requests), server.connections) == (2, 1)


def test_a_stream_with_a_bad_status_keeps_its_body(client: Any, server: FaultyServer) -> None:
    server.will(answer(404, b"no such order"))
    with pytest.raises(requests.HTTPError) as caught:
        client.example.send(client.session, "GET", server.url, stream=True)
    assert caught.value.response.text == "no such order"


@pytest.mark.parametrize("given", [{}, {"timeout": None}])
def test_a_request_without_a_timeout_gets_one(
    given: dict[str, Any], client: Any, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = []
    send = requests.adapters.HTTPAdapter.send

    def note_timeout(adapter: Any, request: Any, stream: bool, timeout: Any, *args: Any, **options: Any) -> Any:
        timeouts.append(timeout)
        return send(adapter, request, stream, PATIENCE_S, *args, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", note_timeout)
    client.session.get(server.url, **given)
    client.session.get(server.url, timeout=3)
    assert timeouts == [(5.0, 10.0), 3]


def test_the_retries_of_urllib3_that_are_used_up_are_a_failure(client: Any, server: FaultyServer) -> None:
    retries = urllib3.Retry(total=1, status_forcelist=[503], backoff_factor=0)
    client.session.mount("http://", client.example.BreakerAdapter(client.breakers, max_retries=retries))
    server.will(answer(503), answer(503))
    assert seen(client.session.get, server.url) == "RetryError"
    assert breaker_of(client, server).stats.failure_count == 1


def test_a_mistake_of_our_own_says_nothing_about_the_server(client: Any, server: FaultyServer) -> None:
    assert seen(client.session.get, server.url, headers={"Name": "a line\nbreak"}) == "InvalidHeader"
    stats = breaker_of(client, server).stats
    assert (stats.success_count, stats.failure_count) == (0, 0)


def test_an_error_about_the_body_says_which_request_it_was(client: Any, server: FaultyServer) -> None:
    server.will(cut_in_body)
    with pytest.raises(requests.exceptions.ChunkedEncodingError) as caught:
        client.session.get(server.url)
    assert caught.value.request.url == server.url
