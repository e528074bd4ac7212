"""Ways to take a lock and give it back: how often an interrupt leaves each of them held, and what each costs.

`python tests/slow/pythons/locks.py [interrupts]` prints a table for the Python that runs it. The locked section is two
assignments, as in the library. Each way is interrupted at random moments: alone, against a second thread that wants the
same lock, and with the lock held already further out, as when a destructor comes back to it.

kept: the lock was still held after the interrupt.
freed: the lock that was held further out was given back by the inner section.
torn: only one of the two assignments was done.
inside: the signal's handler ran while the lock was held; destructors run at the same points.
"""

from __future__ import annotations

import argparse
import faulthandler
import platform
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "support"))

from storms import storm

RLock: Any = type(threading.RLock())

Found = dict[str, int]
LIMIT_S = 600


class CalledIn(RLock):  # type: ignore[misc]
    """What one would write first."""

    def __enter__(self) -> Any:
        return self.acquire()


class CalledAndUndone(RLock):  # type: ignore[misc]
    def __enter__(self) -> Any:
        try:
            return self.acquire()
        except BaseException:
            if self._is_owned():
                self.release()
            raise


class ReadIn(RLock):  # type: ignore[misc]
    """The interpreter looks for signals after a call, but not after it has read an attribute."""

    taken = property(RLock.acquire)

    def __enter__(self) -> Any:
        return self.taken


class IteratedIn(RLock):  # type: ignore[misc]
    """Nor does it after a step of an iterator."""

    def __init__(self) -> None:
        self._steps = iter(super().acquire, None)

    def __enter__(self) -> Any:
        for _ in self._steps:
            break


class Section:
    """Two counts that only change together, under a lock."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.first = self.second = 0

    def with_lock(self) -> None:
        with self.lock:
            self.first += 1
            self.second += 1

    def acquire_then_try(self) -> None:
        self.lock.acquire()
        try:
            self.first += 1
            self.second += 1
        finally:
            self.lock.release()

    def try_then_acquire(self) -> None:
        try:
            self.lock.acquire()
            self.first += 1
            self.second += 1
        finally:
            try:
                self.lock.release()
            except RuntimeError:
                pass  # the interrupt ended the wait for it

    def read_then_try(self) -> None:
        _ = self.lock.taken
        try:
            self.first += 1
            self.second += 1
        finally:
            self.lock.release()


WAYS: dict[str, tuple[Callable[[], Any], Callable[[Section], None]]] = {
    "with RLock": (threading.RLock, Section.with_lock),
    "acquire; try; finally release": (threading.RLock, Section.acquire_then_try),
    "try: acquire; finally release, swallow": (threading.RLock, Section.try_then_acquire),
    "with: __enter__ calls acquire": (CalledIn, Section.with_lock),
    "with: __enter__ calls acquire, undoes it": (CalledAndUndone, Section.with_lock),
    "with: __enter__ reads a property": (ReadIn, Section.with_lock),
    "read a property; try; finally release": (ReadIn, Section.read_then_try),
    "with: __enter__ steps an iterator": (IteratedIn, Section.with_lock),
}


def alone(lock: Any, enter: Callable[[Section], None], shots: int) -> Found:
    section = Section(lock)
    found = {"kept": 0, "torn": 0, "inside": 0}

    def in_handler() -> None:
        found["inside"] += lock._is_owned()

    def after() -> None:
        found["kept"] += lock._is_owned()
        while lock._is_owned():
            lock.release()
        found["torn"] += section.first != section.second
        section.first = section.second

    storm(lambda: enter(section), shots, after, in_handler)
    return found


def against_another(lock: Any, enter: Callable[[Section], None], shots: int) -> Found:
    section = Section(lock)
    found = {"kept": 0, "torn": 0}
    stop = threading.Event()

    def other() -> None:
        while not stop.is_set():
            lock.acquire()
            for _ in range(100):
                section.first += 1
                section.second += 1
            lock.release()

    def after() -> None:
        found["kept"] += lock._is_owned()
        while lock._is_owned():
            lock.release()
        lock.acquire()
        found["torn"] += section.first != section.second
        section.first = section.second
        lock.release()

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    try:
        storm(lambda: enter(section), shots, after)
    finally:
        stop.set()
        thread.join()
    return found


def held_further_out(lock: Any, enter: Callable[[Section], None], shots: int) -> Found:
    section = Section(lock)
    found = {"kept": 0, "freed": 0}

    def after() -> None:
        if lock._is_owned():
            lock.release()
            found["kept"] += lock._is_owned()
        else:
            found["freed"] += 1
        while lock._is_owned():
            lock.release()
        lock.acquire()

    lock.acquire()
    storm(lambda: enter(section), shots, after)
    lock.release()
    return found


def nanoseconds(repeats: int = 200_000) -> dict[str, float]:
    """The best of seven rounds for one section of each way, without what the loop and the call cost."""

    def timed(enter: Callable[[Any], Any], section: Any) -> float:
        begun = time.perf_counter()
        for _ in range(repeats):
            enter(section)
        return (time.perf_counter() - begun) / repeats * 1e9

    def bare(section: Section) -> None:
        section.first += 1
        section.second += 1

    sections = {name: (enter, Section(new_lock())) for name, (new_lock, enter) in WAYS.items()}
    sections["bare"] = (bare, Section(None))
    best = dict.fromkeys(sections, float("inf"))
    for _ in range(7):
        for name, (enter, section) in sections.items():
            best[name] = min(best[name], timed(enter, section))
    return {name: best[name] - best["bare"] for name in WAYS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interrupts", nargs="?", type=int, default=20_000)
    shots = parser.parse_args().interrupts

    print(f"{platform.python_implementation()} {platform.python_version()}: {shots:,} interrupts each", flush=True)
    cost = nanoseconds()
    for name, (new_lock, enter) in WAYS.items():
        cells = [f"{cost[name]:5.0f} ns"]
        for storming in (alone, against_another, held_further_out):
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            found = storming(new_lock(), enter, shots)
            faulthandler.cancel_dump_traceback_later()
            cells.append(", ".join(f"{count} {what}" for what, count in found.items()))
        print(f"{name:42}", " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
