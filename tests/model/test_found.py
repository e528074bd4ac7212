"""What the models have found, each as short as it can be told."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any
from unittest import mock

import pytest
from clocks import Clock

from circuit_breaker import Bulkhead, CircuitBreaker, CircuitBreakerConfig, CircuitMode, CircuitState


def test_late_success_sets_the_time_of_the_last_success(clock: Clock) -> None:
    breaker = CircuitBreaker("api", CircuitBreakerConfig(failure_threshold=1), clock=clock)
    late = breaker.permit()
    breaker.record_failure()
    breaker.reset()
    breaker.record_success()
    with mock.patch("time.time", return_value=0.0):
        clock.now = 2000.0
        late.success()
        assert breaker.stats.last_success_time == 0.0
        breaker.mode = CircuitMode.FORCED_OPEN
        assert breaker.stats.last_success_time == 0.0


def test_call_inside_a_probe_uses_it_though_shadow_admitted_a_call_between_them(clock: Clock) -> None:
    config = CircuitBreakerConfig(failure_threshold=1, half_open_max_calls=1, reset_timeout_s=10.0)
    breaker = CircuitBreaker("api", config, mode=CircuitMode.SHADOW, clock=clock)
    breaker.record_failure()
    clock.now += 10.0
    with breaker, breaker.permit():
        assert breaker.stats.shadow_rejected_count == 1
        breaker.call(int)
        assert breaker.stats.shadow_rejected_count == 1
        with pytest.raises(ValueError, match="x"):
            breaker.call(int, "x")
    assert breaker.snapshot().machine_state is CircuitState.OPEN


def test_call_inside_a_probe_uses_it_though_an_older_permit_lies_between_them(clock: Clock) -> None:
    config = CircuitBreakerConfig(failure_threshold=1, half_open_max_calls=1, reset_timeout_s=10.0)
    breaker = CircuitBreaker("api", config, clock=clock)
    breaker.record_failure()
    clock.now += 10.0
    earlier = breaker.permit()
    breaker.record_failure()
    clock.now += 10.0
    with breaker, earlier:
        breaker.call(int)
        assert breaker.snapshot().probes_in_flight == 1


def test_stream_that_began_without_a_slow_duration_cannot_hang_after_its_first_item(clock: Clock) -> None:
    breaker = CircuitBreaker("api", clock=clock)

    @breaker
    def stream() -> Iterator[int]:
        yield 1
        raise asyncio.CancelledError

    items = stream()
    assert next(items) == 1
    clock.advance(1000.0)
    breaker.config = CircuitBreakerConfig(slow_call_duration_s=2.0)
    with pytest.raises(asyncio.CancelledError):
        next(items)
    assert (breaker.stats.failure_count, breaker.stats.ignored_count) == (0, 1)


def test_waiter_is_in_the_line_or_has_a_slot_at_every_moment() -> None:
    """The orders of the threads found one that served a waiter which slept again before it could see that it was."""
    bulkhead = Bulkhead("pool", 1, 1)
    assert bulkhead.acquire()
    line = bulkhead._line
    waiter = threading.Thread(target=bulkhead.acquire)
    waiter.start()
    while line.first is None:
        pass
    caller = line.first
    lost: list[int] = []

    def look(frame: FrameType, event: str, argument: object) -> Any:
        if line.first is not caller and caller.holds is None:
            lost.append(frame.f_lineno)
        return look

    former = sys.gettrace()
    sys.settrace(look)
    try:
        bulkhead.release()
    finally:
        sys.settrace(former)
    waiter.join()
    assert caller.holds is not None
    assert lost == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_release_without_acquire_adds_no_slot(asynchronous: bool) -> None:
    bulkhead = Bulkhead("pool", 1)
    if asynchronous:

        async def stray() -> None:
            bulkhead.release()

        asyncio.run(bulkhead.call_async(stray))
    else:
        bulkhead.call(bulkhead.release)
    assert bulkhead.active_count == 0
    assert bulkhead.available_slots == 1
    with bulkhead:
        assert not bulkhead.acquire()
