"""The claims of the long run with small numbers, and that each way to look at one can find something."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import reduce
from typing import Any

import await_points
import exact_totals
import flat_memory
import forks_under_load
import interrupts
import pytest
from claim import Claim
from needs import needs_counted_memory, needs_fork, needs_timer
from ways import BULKHEAD, Way

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitBreakerRegistry, RetryBudget
from circuit_breaker._bulkhead.line import Line
from circuit_breaker.testing import FakeClock


def found_by(claim: Claim, part: int = 1) -> None:
    """Look at a part of the short form."""
    finding = claim.find(claim.short // part)
    assert finding.holds, finding.figure


def each(claims: list[Claim]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("claim", claims, ids=lambda claim: claim.text)


@each(forks_under_load.CLAIMS)
def test_forked_children_can_use_everything(claim: Claim) -> None:
    found_by(claim, claim.short // forks_under_load.EACH_ONCE)


@each(exact_totals.CLAIMS)
def test_totals_of_many_threads_are_exact(claim: Claim) -> None:
    found_by(claim, 5)


@needs_counted_memory
@each(flat_memory.CLAIMS)
def test_memory_does_not_grow_with_the_calls(claim: Claim) -> None:
    found_by(claim, 5)


@each(await_points.CLAIMS)
def test_task_cancelled_at_any_await_keeps_no_slot_and_no_probe(claim: Claim) -> None:
    found_by(claim)


@needs_timer
@each(interrupts.CLAIMS)
def test_interrupts_block_nothing_and_leave_no_lock_held(claim: Claim) -> None:
    found_by(claim)


# A look that could find nothing would hold of everything


@needs_counted_memory
def test_memory_check_finds_what_each_call_keeps() -> None:
    kept: list[object] = []
    breaker = CircuitBreaker()

    def keeping() -> flat_memory.Run:
        return flat_memory.repeated(lambda: breaker.call(kept.append, object()))

    assert not flat_memory.held_by(keeping, 50_000).holds


@needs_counted_memory
def test_memory_check_finds_reference_cycles() -> None:
    def circle() -> None:
        circle: list[object] = []
        circle.append(circle)

    assert not flat_memory.held_by(lambda: flat_memory.repeated(circle), 50_000).holds


@needs_counted_memory
def test_memory_check_finds_a_kept_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[BaseException] = []

    class Keeping(Bulkhead):
        def __exit__(self, kind: object, error: BaseException | None, trace: object, /) -> None:
            kept.extend([error] if error else [])
            super().__exit__(None, None, None)

    monkeypatch.setattr(flat_memory, "Bulkhead", Keeping)
    finding = flat_memory.frames_of_failures(1_000)
    assert not finding.holds
    assert "kept: bulkhead, with" in finding.figure


@needs_fork
def test_fork_check_finds_children_that_fail_or_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble() -> None:
        raise AssertionError("amiss")

    assert "AssertionError: amiss" in forks_under_load.forked(stumble)
    assert forks_under_load.forked(lambda: 3) == "3"
    monkeypatch.setattr(forks_under_load, "CHILD_PATIENCE_S", 0.1)
    assert forks_under_load.forked(signal.pause) == "hangs"


@needs_fork
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (CircuitBreaker, "_machine.lock"),
        (CircuitBreaker, "_delivering"),
        (Line, "lock"),
        (Line, "epoch"),
        (Line, "held_in_parent"),
        (RetryBudget, "_lock"),
        (CircuitBreakerRegistry, "_cache._lock"),
        (FakeClock, "_lock"),
    ],
)
def test_fork_check_finds_state_that_a_child_does_not_renew(
    kind: type[Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew = kind._after_fork_in_child

    def renew_all_others(survivor: Any) -> None:
        *path, last = name.split(".")
        owner = reduce(getattr, path, survivor)
        former = getattr(owner, last)
        renew(survivor)
        setattr(owner, last, former)

    monkeypatch.setattr(kind, "_after_fork_in_child", renew_all_others)
    monkeypatch.setattr(forks_under_load, "CHILD_PATIENCE_S", 1.0)
    monkeypatch.setattr(forks_under_load, "ENOUGH", 1)
    assert not forks_under_load.children(forks_under_load.EACH_ONCE).holds


@needs_timer
def test_interrupt_check_counts_lost_slots() -> None:
    finding = interrupts.of_a_bulkhead(replace(BULKHEAD["with"], is_whole=True), 2_000)
    assert not finding.holds
    assert finding.cell.endswith("%")


@needs_timer
def test_interrupt_check_finds_a_lock_left_held() -> None:
    def careless(bulkhead: Bulkhead, body: Callable[[], object]) -> Callable[[], object]:
        def call() -> None:
            bulkhead._line.lock.acquire()
            body()
            bulkhead._line.lock.release()

        return call

    assert not interrupts.of_a_bulkhead(Way("careless", careless, ("bulkhead",), is_whole=True), 100).holds


def test_cancellation_check_finds_a_kept_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    async def careless(bulkhead: Bulkhead, body: Callable[[], Awaitable[None]]) -> None:
        await bulkhead.acquire_async()
        await body()
        bulkhead.release()

    def guarded(bulkhead: Bulkhead, body: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        return lambda: careless(bulkhead, body)

    way = Way("careless", guarded, ("bulkhead",), is_async=True)
    monkeypatch.setattr(await_points, "PATIENCE_S", 0.1)
    finding = await_points.at_every_point(await_points.OfABulkhead, (way,), (1, 1))
    assert not finding.holds
    assert "careless cancelled as it waits" in finding.figure
