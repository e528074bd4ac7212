"""What a store costs a call, and what a shared breaker takes in memory."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from failures import Down

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig
from circuit_breaker._shared.process import talker_of
from circuit_breaker.stores import MemoryStore

Body = Callable[[], Any]


def fail() -> None:
    raise Down


def nothing() -> None:
    return None


def _failing(guarded: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        try:
            guarded()
        except Exception:
            pass

    return call


def kinds(breaker: CircuitBreaker) -> dict[str, Callable[[], object]]:
    """Return what is measured: a success, a failure that opens nothing, and a rejection."""
    return {"success": breaker(nothing), "failure": _failing(breaker(fail))}


def _fastest(call: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - began


def ratios(rounds: int = 400, times: int = 500) -> dict[str, float]:
    """Return what each kind of call costs with a store, in units of what it costs without; the two take turns."""
    config = CircuitBreakerConfig(failure_threshold=10**9)
    store = MemoryStore()
    found: dict[str, float] = {}
    for kind in ("success", "failure", "rejection"):
        plain, shared = CircuitBreaker("plain", config), CircuitBreaker("shared", config, store=store)
        shared.call(nothing)
        if kind == "rejection":
            plain.trip(open_for_s=1e6)
            shared.trip(open_for_s=1e6)
        calls = [_failing(b(nothing)) if kind == "rejection" else kinds(b)[kind] for b in (plain, shared)]
        best = [float("inf")] * 2
        for number in range(rounds):
            for which in (number % 2, 1 - number % 2):
                best[which] = min(best[which], _fastest(calls[which], times))
        found[kind] = best[1] / best[0]
    return found


def bytes_each(count: int = 1_000, *, called: bool = True) -> float:
    """Return the memory that a store adds to one breaker, the store itself left out."""
    sizes = []
    for store in (None, MemoryStore(manual=True)):
        if store is not None:
            CircuitBreaker("first", store=store).call(nothing)
        gc.collect()
        tracemalloc.start()
        breakers = [CircuitBreaker(f"api{number}", store=store) for number in range(count)]
        if called:
            if store is None:
                for breaker in breakers:
                    breaker.call(nothing)
            else:
                store.sync()
                for breaker in breakers:
                    breaker.call(nothing)
                store.board.clear()
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        del breakers
        if store is not None:
            assert talker_of(store) is not None
    return (sizes[1] - sizes[0]) / count
