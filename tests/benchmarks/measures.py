"""How one thing is measured; what is compared with what is not known here."""

from __future__ import annotations

import asyncio
import compileall
import gc
import subprocess
import sys
import threading
import timeit
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

Function: TypeAlias = Callable[..., Any]
# Does the thing so many times, and returns what that took: nanoseconds, or bytes.
Measure: TypeAlias = Callable[[int], float]

NS = 1_000_000_000
THREADS = 8
TASKS = 1_000
OBJECTS = 10_000
PACKAGES = Path(__file__).parent.parent.parent / "src"


def statement(text: str, **names: object) -> Measure:
    """Time a statement in which these names are known."""
    timer = timeit.Timer(text, globals=names)
    return lambda number: timer.timeit(number) * NS


def call(func: Callable[[], object]) -> Measure:
    """Time `func()`."""
    return statement("func()", func=func)


def awaited(func: Callable[[], Awaitable[object]]) -> Measure:
    """Time `await func()` in a running loop."""

    async def repeated(number: int) -> float:
        start = perf_counter()
        for _ in repeat(None, number):
            await func()
        return perf_counter() - start

    return _in_a_loop(repeated)


def async_block(guard: Any, func: Callable[[], Awaitable[object]]) -> Measure:
    """Time `async with guard: await func()` in a running loop."""

    async def repeated(number: int) -> float:
        start = perf_counter()
        for _ in repeat(None, number):
            async with guard:
                await func()
        return perf_counter() - start

    return _in_a_loop(repeated)


def tasks(make: Callable[[], Callable[[], Awaitable[object]]]) -> Measure:
    """Time what `make()` gives in a thousand tasks of a fresh loop at a time, making the tasks included."""

    async def a_thousand() -> float:
        func = make()
        start = perf_counter()
        await asyncio.gather(*(func() for _ in range(TASKS)))
        return perf_counter() - start

    async def repeated(number: int) -> float:
        times = max(1, round(number / TASKS))
        return sum([await a_thousand() for _ in range(times)]) / (times * TASKS) * number

    return _in_a_loop(repeated)


def threads(func: Callable[[], object]) -> Measure:
    """Time `func()` by the wall while eight threads call it at the same time."""

    def measure(number: int) -> float:
        share = max(1, number // THREADS)
        gate = threading.Barrier(THREADS + 1)

        def work() -> None:
            gate.wait()
            for _ in repeat(None, share):
                func()

        workers = [threading.Thread(target=work) for _ in range(THREADS)]
        for worker in workers:
            worker.start()
        gate.wait()
        start = perf_counter()
        for worker in workers:
            worker.join()
        return (perf_counter() - start) * NS / (share * THREADS) * number

    return measure


def importing(statement: str, paths: Iterable[object] = (PACKAGES,)) -> Measure:
    """Time an import in a fresh interpreter without `site`, from compiled bytecode, by the processor's time."""
    code = (
        f"import sys, time; sys.path[:0] = {[str(path) for path in paths]!r}; start = time.process_time_ns()\n"
        f"{statement}\n"
        "print(time.process_time_ns() - start)"
    )
    compileall.compile_dir(PACKAGES / "circuit_breaker", quiet=2)

    def measure(number: int) -> float:
        ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
        return float(ran.stdout)

    return measure


def memory_of_one(make: Callable[[], object]) -> Measure:
    """Return the bytes that one of ten thousand made by `make()` takes."""

    def measure(number: int) -> float:
        made: list[object] = [None] * OBJECTS
        make()  # what the first one alone needs
        with _traced() as taken:
            for index in range(OBJECTS):
                made[index] = make()
            return taken() / OBJECTS

    return measure


def memory_of_calls(small: Callable[[], Function], large: Callable[[], Function], calls: int) -> Measure:
    """Return the bytes that what `large()` makes takes after so many calls, less what `small()` takes after one."""

    def taken_by(make: Callable[[], Function], calls: int) -> int:
        with _traced() as taken:
            func = make()
            for _ in repeat(None, calls):
                func()
            return taken()

    def measure(number: int) -> float:
        taken_by(small, 1)  # what the first one alone needs
        return taken_by(large, calls) - taken_by(small, 1)

    return measure


def _in_a_loop(repeated: Callable[[int], Any]) -> Measure:
    def measure(number: int) -> float:
        with _no_garbage_collection():
            return float(asyncio.run(repeated(number))) * NS

    return measure


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _traced() -> Iterator[Callable[[], int]]:
    """Give a function that returns how many bytes more are in use now than at the beginning."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    def taken() -> int:
        gc.collect()
        now, _ = tracemalloc.get_traced_memory()
        return now - before

    try:
        yield taken
    finally:
        tracemalloc.stop()
