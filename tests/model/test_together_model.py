"""Retry outside breaker outside bulkhead, in the order that the docs recommend, against the three oracles."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any
from unittest import mock

import pytest
from breaker_oracle import CLOSED, HALF_OPEN, OPEN, SUCCESS, Oracle, judge
from breaker_players import WALL, Ending, as_told
from bulkhead_oracle import BulkheadOracle
from examples import examples
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from retry_oracle import RetryOracle, seen
from tally import LONG, Tally, missing
from test_retry_model import outcome
from ways import POLICY

from circuit_breaker import (
    Bulkhead,
    BulkheadFullError,
    BulkheadRejected,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitMode,
    CircuitOpenError,
    RetryGaveUp,
    RetryPolicy,
    RetryScheduled,
    retry_after_hint,
)
from circuit_breaker.testing import FakeClock

MODEL = "together"
WAYS = {name: way for name, way in POLICY.items() if way.decorates}

retries = st.fixed_dictionaries(
    {
        "max_retries": st.sampled_from([3, 2, 6]),
        "backoff_base": st.sampled_from([1.0, 0.0]),
        "backoff_multiplier": st.sampled_from([2.0]),
        "backoff_max": st.sampled_from([30.0]),
        "jitter": st.sampled_from([False]),
        "retryable_exceptions": st.sampled_from(
            [None, (Exception,), (Exception, CircuitOpenError), (Exception, BulkheadFullError)]
        ),
        "max_elapsed_s": st.sampled_from([None, 25.0]),
        "retry_result": st.sampled_from([None]),
        "retry_after": st.sampled_from([retry_after_hint]),
        "retry_after_max_s": st.sampled_from([120.0]),
    }
)
breakers = st.builds(
    CircuitBreakerConfig,
    failure_threshold=st.integers(1, 4),
    success_threshold=st.integers(1, 2),
    reset_timeout_s=st.sampled_from([2.0, 10.0]),
    half_open_max_calls=st.integers(1, 2),
)
kinds = st.sampled_from(["down", "down", "down", "good", "gone", "cancelled", "full", "open", "unasked twice"])
steps = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), kinds), min_size=1, max_size=5)


def in_words(told: tuple[Any, ...]) -> tuple[Any, ...]:
    """Compare the rejections of these two by their text: the oracles make their own."""

    def word(part: Any) -> Any:
        if isinstance(part, CircuitOpenError) and part.circuit_name == "api":
            return "the circuit is open", part.retry_after_s
        return "the pool is full" if isinstance(part, BulkheadFullError) and part.bulkhead_name == "pool" else part

    return tuple(map(word, told))


class TogetherModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._undo = ExitStack()
        self._undo.enter_context(mock.patch.object(logging.getLogger("circuit_breaker"), "disabled", True))
        self._undo.enter_context(mock.patch("time.time", lambda: WALL + self.clock()))

    @initialize(given=retries, config=breakers, limit=st.integers(1, 2), listened=st.sampled_from([True, True, False]))
    def begin(self, given: dict[str, Any], config: CircuitBreakerConfig, limit: int, listened: bool) -> None:
        self.tally = Tally(MODEL)
        self.clock, self.given, self.listened = FakeClock(1000.0), given, listened
        self.heard: list[tuple[Any, int]] = []
        listeners = [self.hear] if listened else []
        policy = RetryPolicy(**given, listeners=listeners, sleep=self.clock.sleep, clock=self.clock)
        self.breaker = CircuitBreaker("api", config, listeners=listeners, clock=self.clock)
        self.pool = Bulkhead("pool", limit, listeners=listeners, clock=self.clock)

        def all_three(func: Any) -> Any:
            self.decorated = f"{func.__module__}.{func.__qualname__}"
            return policy(self.breaker(self.pool(func)))

        self.ways = {name: (way.ready(all_three, self.step), self.decorated) for name, way in WAYS.items()}
        self.now = [1000.0]
        self.circuit = Oracle(config, CircuitMode.AUTO, 1000.0, self.tally)
        self.slots = BulkheadOracle(limit, 0, 0.0, self.tally)
        self.due = self.circuit.events = self.slots.events = []  # one list, for the order among the three
        self.compare()

    def hear(self, event: Any) -> None:
        """Keep an event, and how often this call has slept by then. What a listener raises would be lost."""
        self.heard.append((event, len(self.clock.sleeps)))

    def told_by(self, event: Any, sleeps: int) -> tuple[Any, ...]:
        """Return an event as the oracles tell it."""
        self.tally.met(f"told: {type(event).__name__}")
        if isinstance(event, RetryScheduled | RetryGaveUp):
            if isinstance(event, RetryScheduled):
                assert event.attempt == sleeps
            assert event.function == self.function
            return seen(event)
        if isinstance(event, BulkheadRejected):
            assert event.bulkhead_name == "pool"
            return event.active_count, event.queued_count, event.waited_s
        return as_told(event)

    def step(self) -> Any:
        passes, end = self.rest.pop(0) if self.rest else (0.0, Ending("good"))
        self.clock.advance(passes)
        return end.give()

    def told(self) -> Any:
        """One attempt, as the oracles know it."""
        self.circuit.now = started = self.now[0]
        ticket = self.circuit.admit()
        if ticket is None:
            self.tally.met("the circuit refuses")
            raise CircuitOpenError("", "api", retry_after_s=self.circuit.retry_after_s())
        error: BaseException | None = None
        if self.slots.acquire():
            passes, end = self.rest.pop(0) if self.rest else (0.0, Ending("good"))
            self.now[0] += passes
            self.slots.release()
            error = end.error
        else:
            self.tally.met("the bulkhead refuses")
            error, end = BulkheadFullError("", "pool", self.slots.limit), Ending("good")
        self.circuit.now = self.now[0]
        latency_s = self.now[0] - started
        said = SUCCESS if error is None else judge(error, self.circuit.config, latency_s)
        self.circuit.settle(ticket, said, latency_s * 1000, error)
        if error is not None:
            raise error
        return end.value

    @rule(way=st.sampled_from(list(WAYS)), steps=steps)
    def call(self, way: str, steps: list[tuple[float, str]]) -> None:
        self.tally.met(f"way: {way}")
        endings = [(passes, Ending(kind)) for passes, kind in steps]
        self.rest = list(endings)
        self.clock.sleeps.clear()
        call, self.function = self.ways[way]
        came, left_over = outcome(call), self.rest
        self.rest = list(endings)
        oracle = RetryOracle(self.given, 0.0, self.now, None, self.tally, events=self.due)
        due = outcome(lambda: oracle.play(self.told, judged=False))
        assert left_over == self.rest
        assert in_words(came) == in_words(due)
        assert self.clock.sleeps == pytest.approx(oracle.sleeps)
        self.compare()

    @rule()
    def occupy(self) -> None:
        assert self.pool.acquire() is self.slots.acquire()
        self.compare()

    @rule()
    def free(self) -> None:
        if self.slots.inside:
            self.pool.release()
            self.slots.release()
        self.compare()

    @rule(seconds=st.sampled_from([1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.now[0] += seconds
        self.compare()

    def compare(self) -> None:
        self.tally.step()
        assert self.clock() == self.now[0]
        self.compare_events()
        self.circuit.now = self.slots.now = self.now[0]
        snapshot = self.breaker.snapshot()
        due = self.circuit.picture(lambda at: WALL + at)
        shown = {name: getattr(snapshot if hasattr(snapshot, name) else snapshot.stats, name) for name in due}
        assert shown == due
        counts = self.pool.snapshot()
        pool = {name: value for name, value in self.slots.picture().items() if name != "callers"}
        assert {name: getattr(counts, name) for name in pool} == pool
        self.compare_events()
        self.tally.met(f"state {self.circuit.period.state.value}")

    def compare_events(self) -> None:
        if self.listened:
            assert [in_words(self.told_by(*heard)) for heard in self.heard] == [*map(in_words, self.due)]
        self.heard.clear()
        self.due.clear()

    def teardown(self) -> None:
        self._undo.close()


WANTED = {
    *(f"state {state.value}" for state in (CLOSED, OPEN, HALF_OPEN)),
    *(f"way: {way}" for way in WAYS),
    "the circuit refuses",
    "the bulkhead refuses",
    "the streak trips",
    "a probe fails",
    "probes close it",
    "the backoff is slept",
    "a hint is honoured",
    "an error that is not retried",
    "a good value at last",
    "no retries left",
}

TestTogetherModel = TogetherModel.TestCase
TestTogetherModel.settings = examples(
    3_000 if LONG else 50,
    stateful_step_count=50 if LONG else 20,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_model_reaches_every_state_and_rule() -> None:
    assert missing(MODEL, WANTED if LONG else {"way: decorator"}) == set()
