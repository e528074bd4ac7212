"""The OpenAI example: the real SDK against a local server that speaks its protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("openai", reason="needs the extra recipes: pip install -e .[test,recipes]")

import openai
from example_files import example
from faulty_server import PATIENCE_S, FaultyServer, Reaction, answer, cut_in_body, garbage, never_answer, send

from circuit_breaker import CircuitBreakerRegistry, CircuitOpenError, CircuitState, RetryBudget, RetryScheduled
from circuit_breaker.testing import FakeClock

recipe = example("with_openai")


def whole(text: str) -> Reaction:
    message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "large", "choices": [message]}
    return answer(200, json.dumps(body).encode(), Content_Type="application/json")


def event(text: str) -> bytes:
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "large", "choices": [delta]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


START = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
BROKEN = b'data: {"error": {"message": "The server had an error", "type": "server_error"}}\n\n'


def streamed(*events: bytes, breaks_off: bool = False) -> Reaction:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    return send(START + chunks + (b"" if breaks_off else b"0\r\n\r\n"))


def error_answer(status: int, code: str = "", **headers: str) -> Reaction:
    body = {"error": {"message": "no", "type": "some", "param": None, "code": code}}
    return answer(status, json.dumps(body).encode(), Content_Type="application/json", **headers)


class Sync:
    def __init__(self, url: str, *settings: Any) -> None:
        client = openai.DefaultHttpxClient(trust_env=False)
        self.client = openai.OpenAI(api_key="none", base_url=url, http_client=client, timeout=PATIENCE_S)
        self.models = recipe.Models(self.client, *settings)

    def answer(self, model: str = "large") -> str:
        text: str = self.models.answer(model, "why?")
        return text

    def stream(self, limit: int = 99, model: str = "large") -> list[str]:
        tokens = self.models.stream(model, "why?")
        try:
            return [token for token, _ in zip(tokens, range(limit), strict=False)]
        finally:
            tokens.close()

    def close(self) -> None:
        self.client.close()


class Async:
    def __init__(self, url: str, *settings: Any) -> None:
        self.runner = asyncio.Runner()
        client = openai.DefaultAsyncHttpxClient(trust_env=False)
        self.client = openai.AsyncOpenAI(api_key="none", base_url=url, http_client=client, timeout=PATIENCE_S)
        self.models = recipe.AsyncModels(self.client, *settings)

    def answer(self, model: str = "large") -> str:
        text: str = self.runner.run(self.models.answer(model, "why?"))
        return text

    def stream(self, limit: int = 99, model: str = "large") -> list[str]:
        async def read() -> list[str]:
            tokens = self.models.stream(model, "why?")
            read = []
            try:
                async for token in tokens:
                    read.append(token)
                    if len(read) == limit:
                        break
            finally:
                await tokens.aclose()
            return read

        return self.runner.run(read())

    def close(self) -> None:
        self.runner.run(self.client.close())
        self.runner.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def told() -> list[RetryScheduled]:
    return []


@pytest.fixture
def breakers(clock: FakeClock) -> CircuitBreakerRegistry:
    return CircuitBreakerRegistry(
        replace(recipe.CONFIG, failure_threshold=2, success_threshold=1, half_open_max_calls=1, reset_timeout_s=10),
        clock=clock,
    )


@pytest.fixture(params=[Sync, Async])
def models(
    request: Any,
    server: FaultyServer,
    breakers: CircuitBreakerRegistry,
    clock: FakeClock,
    told: list[RetryScheduled],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Sync | Async]:
    make: Callable[..., Sync | Async] = request.param
    sleep = clock.sleep if make is Sync else clock.sleep_async
    monkeypatch.setattr(recipe, "RetryBudget", lambda: RetryBudget(min_per_second=0, clock=clock))
    policy = replace(
        recipe.POLICY, sleep=sleep, clock=clock, listeners=[told.append], jitter=False, max_elapsed_s=120.0
    )
    models = make(server.url, breakers, recipe.per_model(policy))
    yield models
    told.clear()
    models.close()


def make_half_open(breakers: CircuitBreakerRegistry, clock: FakeClock) -> None:
    breakers["large"].record_failure()
    breakers["large"].record_failure()
    clock.advance(10)
    assert breakers["large"].state is CircuitState.HALF_OPEN


# Whole answers


def test_a_question_is_answered(models: Sync | Async, server: FaultyServer) -> None:
    server.will(whole("because"))
    assert models.answer() == "because"
    assert json.loads(server.requests[0].body)["model"] == "large"


def test_a_retry_waits_for_as_long_as_the_model_asks_and_that_is_not_a_failure(
    models: Sync | Async, server: FaultyServer, breakers: CircuitBreakerRegistry, told: list[RetryScheduled]
) -> None:
    server.will(error_answer(429, retry_after="20"), whole("because"))
    assert models.answer() == "because"
    (event,) = told
    assert 20 <= event.delay_s <= 20.5
    assert (breakers["large"].stats.ignored_count, breakers["large"].stats.failure_count) == (1, 0)
    assert server.requests[0].body == server.requests[1].body


def test_a_quota_that_is_used_up_is_not_retried(models: Sync | Async, server: FaultyServer) -> None:
    server.will(error_answer(429, "insufficient_quota"))
    with pytest.raises(openai.RateLimitError):
        models.answer()
    assert len(server.requests) == 1


def test_an_open_circuit_and_its_retry_wait_for_as_long_as_the_model_asks(
    models: Sync | Async, server: FaultyServer, breakers: CircuitBreakerRegistry, told: list[RetryScheduled]
) -> None:
    server.will(error_answer(503), error_answer(529, retry_after="60"), whole("because"))
    assert models.answer() == "because"
    first, second = (event.delay_s for event in told)
    assert first == 0.5
    assert 60 <= second <= 61
    assert breakers["large"].stats.opened_count == 1


def test_a_retry_is_reported_with_its_model(
    models: Sync | Async, server: FaultyServer, told: list[RetryScheduled]
) -> None:
    server.will(error_answer(500), whole("because"))
    models.answer()
    server.will(error_answer(500), streamed(event("be"), DONE))
    models.stream()
    assert [event.function for event in told] == ["with_openai.answer(large)", "with_openai.stream(large)"]


def test_only_our_retries_are_made(models: Sync | Async, server: FaultyServer, told: list[RetryScheduled]) -> None:
    server.will(error_answer(503), whole("because"))
    assert models.answer() == "because"
    assert [event.delay_s for event in told] == [0.5]


def test_each_model_has_its_own_circuit(
    models: Sync | Async, server: FaultyServer, breakers: CircuitBreakerRegistry
) -> None:
    server.will(error_answer(503), error_answer(529), whole("because"))
    with pytest.raises(CircuitOpenError) as caught:
        models.answer("large")
    assert caught.value.retry_after_s == 10 - 1  # of which the second retry has waited one
    assert models.answer("small") == "because"
    assert [breakers[model].state for model in ("large", "small")] == [CircuitState.OPEN, CircuitState.CLOSED]


def test_an_overloaded_model_does_not_use_up_the_retries_of_another(models: Sync | Async, server: FaultyServer) -> None:
    models.models._breakers = CircuitBreakerRegistry(replace(recipe.CONFIG, failure_threshold=1000))
    server.usually = error_answer(503)
    attempts, before = 0, 0
    while attempts != 1:  # until there is no retry left in the budget
        with pytest.raises(openai.APIStatusError):
            models.answer("large")
        attempts, before = len(server.requests) - before, len(server.requests)
        assert before < 100
    server.will(error_answer(503), whole("because"))
    assert models.answer("small") == "because"


def test_by_default_a_question_is_not_retried_for_long() -> None:
    assert recipe.RETRIES("large").max_elapsed_s == 30


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_request_that_is_wrong_was_answered(
    status: int, models: Sync | Async, server: FaultyServer, breakers: CircuitBreakerRegistry
) -> None:
    server.will(error_answer(status))
    with pytest.raises(openai.APIStatusError):
        models.answer()
    assert (breakers["large"].stats.success_count, len(server.requests)) == (1, 1)


@pytest.mark.parametrize("failing", [cut_in_body, garbage], ids=["cut", "garbage"])
def test_a_broken_answer_is_a_failure_and_is_retried(
    failing: Reaction, models: Sync | Async, server: FaultyServer, breakers: CircuitBreakerRegistry
) -> None:
    server.will(failing, whole("because"))
    assert models.answer() == "because"
    assert breakers["large"].stats.failure_count == 1


def test_no_answer_is_a_failure_and_gives_the_slot_back(
    models: Sync | Async, server: FaultyServer, breakers: CircuitBreakerRegistry, clock: FakeClock
) -> None:
    make_half_open(breakers, clock)
    models.models._client = models.client.with_options(max_retries=0, timeout=openai.Timeout(PATIENCE_S, read=0.1))
    server.will(never_answer)
    with pytest.raises(CircuitOpenError):  # the first attempt has timed out, and opened the circuit again
        models.answer()
    assert breakers["large"].snapshot().probes_in_flight == 0
    assert breakers["large"].stats.failure_count == 3


# Streams


def test_a_stream_gives_its_tokens(
    models: Sync | Async, server: FaultyServer, breakers: CircuitBreakerRegistry
) -> None:
    server.will(streamed(event("be"), event("cause"), DONE))
    assert models.stream() == ["be", "cause"]
    assert breakers["large"].stats.success_count == 1


@pytest.mark.parametrize(
    "failing",
    [error_answer(503), streamed(breaks_off=True), streamed(BROKEN), garbage],
    ids=["503", "breaks off", "error event", "garbage"],
)
def test_a_stream_is_retried_until_its_first_token(
    failing: Reaction, models: Sync | Async, server: FaultyServer, breakers: CircuitBreakerRegistry
) -> None:
    server.will(failing, streamed(event("be"), event("cause"), DONE))
    assert models.stream() == ["be", "cause"]
    assert (breakers["large"].stats.failure_count, breakers["large"].stats.success_count) == (1, 1)


@pytest.mark.parametrize(
    "failing",
    [streamed(event("be"), breaks_off=True), streamed(event("be"), BROKEN)],
    ids=["breaks off", "error event"],
)
def test_a_stream_that_breaks_off_later_is_a_failure_that_the_caller_sees(
    failing: Reaction, models: Sync | Async, server: FaultyServer, breakers: CircuitBreakerRegistry
) -> None:
    server.will(failing)
    with pytest.raises((openai.APIError, recipe.TransportError)):
        models.stream()
    assert (breakers["large"].stats.failure_count, len(server.requests)) == (1, 1)


def test_a_stream_whose_reader_stops_after_a_token_is_a_success_and_gives_the_slot_back(
    models: Sync | Async, server: FaultyServer, breakers: CircuitBreakerRegistry, clock: FakeClock
) -> None:
    make_half_open(breakers, clock)
    server.will(streamed(event("be"), event("cause"), DONE))
    assert models.stream(limit=1) == ["be"]
    snapshot = breakers["large"].snapshot()
    assert (snapshot.probes_in_flight, snapshot.stats.success_count) == (0, 1)
