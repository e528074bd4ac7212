"""Policies that share a budget make calls of every kind; an oracle must know each sleep, event, token and result."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from math import inf
from typing import Any
from unittest import mock

import pytest
from breaker_players import MAKERS, VALUES, Ending, Gone
from examples import examples
from failures import Down
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from retry_oracle import BudgetOracle, RetryOracle, seen
from tally import LONG, Tally, missing
from ways import POLICY, POLICY_BY_HAND

from circuit_breaker import (
    BulkheadFullError,
    CircuitOpenError,
    RetryBudget,
    RetryPolicy,
    retry_after_hint,
)
from circuit_breaker.testing import FakeClock

MODEL = "retry"
WAYS = POLICY | POLICY_BY_HAND


def is_down(error: BaseException) -> object:
    return [error] if isinstance(error, Down) else []


class BadWithHint:
    retry_after_s = 3.0


def is_bad(value: object) -> object:
    return value == "bad" or isinstance(value, BadWithHint)


def broken(error: object) -> float:
    raise ValueError("no idea")


policies = st.fixed_dictionaries(
    {
        "max_retries": st.sampled_from([0, 1, 2, 3, None]),
        "backoff_base": st.sampled_from([0.0, 1.0, 0.25]),
        "backoff_multiplier": st.sampled_from([1.0, 2.0, 10.0]),
        "backoff_max": st.sampled_from([30.0, 2.0, 0.0, inf]),
        "jitter": st.sampled_from([False, True, "full"]),
        "retryable_exceptions": st.sampled_from(
            [None, (), (Down,), Down | Gone, is_down, (Exception, BulkheadFullError), (CircuitOpenError,)]
        ),
        "max_elapsed_s": st.sampled_from([None, None, 2.0, 20.0]),
        "retry_result": st.sampled_from([None, is_bad]),
        "retry_after": st.sampled_from([retry_after_hint, None, broken]),
        "retry_after_max_s": st.sampled_from([120.0, 30.0]),
    }
)
kinds = st.sampled_from(
    ["down", "down", "gone", "bad", "bad", "bad, wait 3", "wait 5", "open for 7", "two hints", *MAKERS, *VALUES]
)
shares = st.sampled_from([0.0, 0.5, 1.0])
steps = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 1.0, 5.0]), kinds), min_size=1, max_size=5)


def ending(kind: str) -> Ending:
    made = Ending(kind)
    if kind == "wait 5":
        made.error = Down("wait")
        made.error.retry_after_s = 5.0
    elif kind == "bad, wait 3":
        made.value = BadWithHint()
    elif kind == "open for 7":
        made.error = CircuitOpenError("open", "other", retry_after_s=7.0)
    elif kind == "two hints":
        three, four = Down(), Gone()
        three.retry_after_s = 3.0
        four.retry_after = 4  # type: ignore[attr-defined]
        made.error = ExceptionGroup("both", [three, four])
    return made


class RetryModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._undo = ExitStack()
        self._undo.enter_context(mock.patch.object(logging.getLogger("circuit_breaker"), "disabled", True))

    @initialize(ratio=st.sampled_from([0.2, 0.0, 1.0]), rate=st.sampled_from([0.0, 0.1, 1.0]), burst=st.integers(0, 3))
    def begin(self, ratio: float, rate: float, burst: int) -> None:
        self.tally = Tally(MODEL)
        self.clock, self.told = FakeClock(1000.0), [1000.0]
        self.budget = RetryBudget(ratio, rate, burst, clock=self.clock)
        self.budget_oracle = BudgetOracle(ratio, rate, burst)

    @rule(
        given=policies,
        budgeted=st.booleans(),
        share=st.sampled_from([0.0, 0.5, 1.0]),
        way=st.sampled_from(list(WAYS)),
        steps=steps,
    )
    def call(
        self, given: dict[str, Any], budgeted: bool, share: float, way: str, steps: list[tuple[float, str]]
    ) -> None:
        self.tally.step()
        self.tally.met(f"way: {way}")
        endings = [(passes, ending(kind)) for passes, kind in steps]
        events: list[Any] = []
        policy = RetryPolicy(
            **given,
            budget=self.budget if budgeted else None,
            listeners=[events.append],
            sleep=self.clock.sleep,
            clock=self.clock,
            random=lambda: share,
        )
        rest = list(endings)

        def body() -> Any:
            passes, end = rest.pop(0) if rest else (0.0, Ending("good"))
            self.clock.advance(passes)
            return end.give()

        self.clock.sleeps.clear()
        came = outcome(WAYS[way].ready(policy, body))
        left_over = list(rest)

        oracle = RetryOracle(given, share, self.told, self.budget_oracle if budgeted else None, self.tally)
        rest[:] = endings

        def told_body() -> Any:
            passes, end = rest.pop(0) if rest else (0.0, Ending("good"))
            self.told[0] += passes
            return end.give()

        due = outcome(lambda: oracle.play(told_body, judged=WAYS[way].returns, blind=WAYS[way].by_hand))
        assert (came, left_over) == (due, rest)
        assert self.clock.sleeps == pytest.approx(oracle.sleeps)
        assert [figures(seen(event)) for event in events] == [figures(event) for event in oracle.events]
        snapshot, due_snapshot = policy.snapshot(), oracle.snapshot()
        assert snapshot.total_sleep_s == pytest.approx(due_snapshot.total_sleep_s)
        assert replace(snapshot, total_sleep_s=0.0) == replace(due_snapshot, total_sleep_s=0.0)
        if came[0] == "raised":
            notes = [note for note in getattr(came[1], "__notes__", ()) if "attempt" in note]
            assert len(notes) == oracle.noted
        self.compare()

    @rule(seconds=st.sampled_from([1.0, 5.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.told[0] += seconds
        self.compare()

    def compare(self) -> None:
        assert self.clock() == pytest.approx(self.told[0])
        assert self.budget.tokens == pytest.approx(float(self.budget_oracle.tokens(self.told[0])))

    def teardown(self) -> None:
        self._undo.close()


def figures(event: tuple[Any, ...]) -> list[Any]:
    """Return an event such that times compare as nearly equal."""
    return [pytest.approx(part) if isinstance(part, float) else part for part in event]


def outcome(function: Any) -> tuple[str, Any]:
    try:
        return "returned", function()
    except BaseException as error:
        return "raised", error


WANTED = {
    "a good value at once",
    "a good value at last",
    "an error that is not retried",
    "the backoff is slept",
    "a hint is honoured",
    "the hint is too long",
    "no retries left",
    "past the deadline",
    "the budget is empty",
    "no retries left, and the value stays bad",
    *(f"way: {way}" for way in WAYS),
}

TestRetryModel = RetryModel.TestCase
TestRetryModel.settings = examples(
    4_000 if LONG else 60,
    stateful_step_count=30 if LONG else 15,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_model_reaches_every_state_and_rule() -> None:
    assert missing(MODEL, WANTED if LONG else {"way: call"}) == set()
