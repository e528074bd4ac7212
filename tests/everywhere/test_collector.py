"""The garbage collector runs destructors anywhere, which must not hang; what is dropped is freed without it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable

import pytest
from garbage import collect
from needs import needs_reference_counts
from patience import PATIENCE_S

from circuit_breaker import (
    Bulkhead,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    RetryBudget,
    RetryPolicy,
    bulkhead,
    circuit_breaker,
    retry,
)
from circuit_breaker.testing import FakeClock

# Objects in a circle, whose destructors take a lock that another thread holds while it uses the library. If the
# collector ran in a locked section of ours, both threads would wait for each other.
STORY = """
import gc, sys, threading, time
from circuit_breaker import *
from circuit_breaker.testing import FakeClock

gc.set_threshold(5)
lock = threading.RLock()
until = time.monotonic() + {seconds}

class Circular:
    def __init__(self):
        self.itself = self
    def __del__(self):
        with lock:
            pass

breaker = CircuitBreaker("api", CircuitBreakerConfig(2, 1, 0.0005, half_open_max_calls=1))
registry = CircuitBreakerRegistry(max_size=5)
budget = RetryBudget()
policy = RetryPolicy(1, 0.0)
clock = FakeClock()
bulkhead = Bulkhead(max_concurrent=2)

def fail():
    raise ValueError

def use():
    {use}

def holding():
    while time.monotonic() < until:
        with lock:
            use()

def littering():
    while time.monotonic() < until:
        Circular()
        use()

threads = [threading.Thread(target=target, daemon=True) for target in (holding, littering)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join({patience})
print(["done", "hangs"][any(thread.is_alive() for thread in threads)], flush=True)
import os
os._exit(0)
"""
USES = {
    "failures, probes and changes": "try: breaker.call(fail)\n    except (ValueError, CircuitOpenError): pass",
    "successes": "breaker.record_success(1.0)",
    "reading": "breaker.state; breaker.stats.success_count; breaker.snapshot(); breaker.allow_request()",
    "a registry": "registry[str(time.monotonic())].record_failure()",
    "a bulkhead": "bulkhead.acquire() and bulkhead.release(); bulkhead.snapshot()",
    "a budget": "budget.deposit(); budget.take()",
    "steering": (
        "breaker.config = breaker.config.replace(failure_threshold=3); breaker.trip(); breaker.reset()\n"
        "    breaker.add_listener(id); breaker.remove_listener(id)"
    ),
    "a fake clock": "clock.sleep(1)",
    "retries": "try: policy.call(fail)\n    except ValueError: policy.snapshot()",
}


@pytest.mark.skipif(not hasattr(gc, "set_threshold"), reason="PyPy does not let its collector run at every step")
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_destructor_that_waits_for_a_lock_of_the_caller_hangs_nothing(use: str) -> None:
    story = STORY.format(use=use, seconds=0.4, patience=PATIENCE_S)
    done = subprocess.run([sys.executable, "-c", story], capture_output=True, text=True, timeout=4 * PATIENCE_S)
    assert (done.stdout, done.stderr) == ("done\n", "")


# What nobody has any more is freed at once


def used_bulkhead() -> Bulkhead:
    """Return one that has served a waiter, and that another has left."""
    pool = Bulkhead(max_concurrent=1, max_queue=1)

    async def use() -> None:
        await pool.acquire_async()
        waiter = asyncio.create_task(pool.acquire_async())
        await asyncio.sleep(0)
        pool.release()
        assert await waiter
        waiter = asyncio.create_task(pool.acquire_async())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])

    asyncio.run(use())
    return pool


@needs_reference_counts
@pytest.mark.parametrize(
    "make",
    [
        CircuitBreaker,
        CircuitBreakerConfig,
        CircuitBreakerRegistry,
        Bulkhead,
        used_bulkhead,
        RetryPolicy,
        RetryBudget,
        FakeClock,
        lambda: CircuitBreaker().permit(),
        lambda: CircuitBreaker().snapshot(),
        lambda: Bulkhead().snapshot(),
        lambda: circuit_breaker()(lambda: None),
        lambda: bulkhead()(lambda: None),
        lambda: retry()(lambda: None),
    ],
)
def test_an_object_that_is_dropped_is_freed_without_the_collector(make: Callable[[], object]) -> None:
    collect()
    gc.disable()
    try:
        dropped = weakref.ref(make())
    finally:
        gc.enable()
    assert dropped() is None
