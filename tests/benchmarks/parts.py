"""Where the nanoseconds of a protected call go: the same call again and again, each time with one thing more.

`python tests/benchmarks/parts.py` prints the best of many rounds for each, and how much more that is than the line
before; the last line is the library itself. What a thing costs depends on what stands around it, so the differences are
right to a few nanoseconds only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "support"))

import measures
from cases import work
from measures import Measure
from run import take_turns

from circuit_breaker import CircuitBreaker
from circuit_breaker._common.lock import ReadRLock

ROUNDS = 400

clock = time.monotonic
lock = ReadRLock()


class Period:
    """What is counted."""

    __slots__ = ("last_success_at", "latency_s", "slow_s", "successes", "until")

    def __init__(self) -> None:
        self.successes = 0
        self.latency_s = 0.0
        self.last_success_at = 0.0
        self.until = self.slow_s = float("inf")


class Machine:
    """What is asked for the period."""

    __slots__ = ("fast",)

    def __init__(self) -> None:
        self.fast = Period()


machine = Machine()


def frame(*args: Any, **kwargs: Any) -> Any:
    return work(*args, **kwargs)


def handler(*args: Any, **kwargs: Any) -> Any:
    try:
        result = work(*args, **kwargs)
    except BaseException:
        raise
    return result


def clocks(*args: Any, **kwargs: Any) -> Any:
    clock()
    try:
        result = work(*args, **kwargs)
    except BaseException:
        raise
    clock()
    return result


def locked(*args: Any, **kwargs: Any) -> Any:
    clock()
    try:
        result = work(*args, **kwargs)
    except BaseException:
        raise
    clock()
    _ = lock.taken
    try:
        return result
    finally:
        lock.release()


def counted(*args: Any, **kwargs: Any) -> Any:
    started = clock()
    try:
        result = work(*args, **kwargs)
    except BaseException:
        raise
    now = clock()
    _ = lock.taken
    try:
        period = machine.fast
        period.successes += 1
        period.latency_s += now - started
        period.last_success_at = now
        return result
    finally:
        lock.release()


def judged(*args: Any, **kwargs: Any) -> Any:
    period = machine.fast
    if period is None:
        return None
    started = clock()
    try:
        result = work(*args, **kwargs)
    except BaseException:
        raise
    now = clock()
    _ = lock.taken
    try:
        if period is machine.fast and now < period.until and now - started < period.slow_s:
            period.successes += 1
            period.latency_s += now - started
            period.last_success_at = now
            return result
    finally:
        lock.release()
    return None


class Block:
    """A context manager that does nothing."""

    def __enter__(self) -> Block:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Timed(Block):
    """One that does what the decorator does."""

    def __enter__(self) -> Timed:
        self.started = clock()
        return self

    def __exit__(self, *_: object) -> None:
        now = clock()
        _ = lock.taken
        try:
            period = machine.fast
            if now < period.until and now - self.started < period.slow_s:
                period.successes += 1
                period.latency_s += now - self.started
                period.last_success_at = now
        finally:
            lock.release()


class Stack:
    """What one block remembers, and what is around it."""

    __slots__ = ("outer", "owner", "permission", "started")

    outer: Stack | None
    owner: object | None
    permission: object
    started: float


stack: ContextVar[Stack | None] = ContextVar("parts", default=None)
innermost, enter = stack.get, stack.set


class Remembered(Block):
    """One that keeps apart the blocks of threads and tasks that share it."""

    def __enter__(self) -> Remembered:
        outer = innermost()
        while outer is not None and outer.owner is None:
            outer = outer.outer
        entry = Stack()
        entry.outer = outer
        entry.owner = self
        entry.permission = machine.fast
        entry.started = clock()
        enter(entry)
        return self

    def __exit__(self, *_: object) -> None:
        now = clock()
        entry = innermost()
        if entry is None:
            return
        _ = lock.taken
        try:
            period = machine.fast
            if entry.permission is period and now < period.until and now - entry.started < period.slow_s:
                entry.owner = None
                period.successes += 1
                period.latency_s += now - entry.started
                period.last_success_at = now
        finally:
            lock.release()


def calls() -> dict[str, Measure]:
    ways: dict[str, Callable[..., Any]] = {
        "the function alone": work,
        "a frame that passes arguments on": frame,
        "a handler for its errors": handler,
        "two readings of the clock": clocks,
        "a lock": locked,
        "counting, in three fields": counted,
        "asking whether counting is all there is to do": judged,
        "this library": CircuitBreaker()(work),
    }
    return {name: measures.call(way) for name, way in ways.items()}


def blocks() -> dict[str, Measure]:
    guards: dict[str, object] = {
        "a block that does nothing": Block(),
        "clock, lock and counting": Timed(),
        "an entry of its own in the context": Remembered(),
        "this library": CircuitBreaker(),
    }
    text = "with guard:\n    work()"
    return {name: measures.statement(text, guard=guard, work=work) for name, guard in guards.items()}


def main() -> None:
    for title, ways in (("@circuit_breaker", calls()), ("with breaker", blocks())):
        print(f"| {title} | ns | more |\n| --- | --: | --: |")
        former = 0.0
        for name, sample in take_turns(ways, ROUNDS, 0.0005).items():
            best = min(sample)
            print(f"| {name} | {best:.0f} | {best - former:.0f} |")
            former = best
        print()


if __name__ == "__main__":
    main()
