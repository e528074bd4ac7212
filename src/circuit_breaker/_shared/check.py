"""What a store promises, as a check that runs against any: see `circuit_breaker.testing.check_store`."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Thread
from typing import Any, Final

from .._common.words import CircuitState
from .process import checked
from .protocol import Change, Found, MemberLine, Report, Store, member_text
from .store import whoami

THREADS: Final = 8
TIMES: Final = 25
NAMES: Final = ("", "api", "api ", "API", "a" * 10_000, "a" * 9_999 + "b", "ä/:%{x}\n\x00", "\ud800", "None", "*")
TOTALS: Final = ("1.successes", "1.failures", "7.3.opened")


class Broken(Exception):
    """Raised by a change, to see what the store does then."""


def check(make: Callable[[], Any]) -> None:
    """Check the store that `make` gives; see `testing.check_store`."""
    store, other = checked(make(), optional=False), checked(make(), optional=False)
    for part in (_knows_nothing, _adds, _tells_names_apart, _changes, _lists):
        part(store, other)
    _adds_exactly(make)
    _changes_exactly(make)


def _promised(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _ask(store: Store, name: str, **add: int) -> Found:
    totals = {total: add[f"n{number}"] for number, total in enumerate(TOTALS) if f"n{number}" in add}
    exchange = store.exchange([Report(name, totals, TOTALS)], None)
    (found,) = exchange.found
    _promised(found.error is None, f"exchange() gave an error for the circuit {name!r}: {found.error!r}")
    return found


def _write(text: str | None, told: list[Any]) -> Change:
    def change(before: str | None, now: float) -> str | None:
        told[:] = [before, now]
        return text

    return change


def _knows_nothing(store: Store, other: Store) -> None:
    began = store.exchange([], None)
    _promised(list(began.found) == [], "exchange() of no reports must find nothing")
    _promised(isinstance(began.time, float), f"Exchange.time must be seconds as a float, got {began.time!r}")
    found = _ask(store, "new")
    _promised(
        found.record is None, f"a circuit that nobody has written must have the record None, got {found.record!r}"
    )
    _promised(list(found.totals) == [None] * 3, f"totals that nobody has added to must be None, got {found.totals!r}")
    told: list[Any] = []
    store.update("new", _write(None, told))
    _promised(told[0] is None, f"update() must call change with None where there is no record, got {told[0]!r}")
    _promised(_ask(store, "new").record is None, "update() must write nothing if change returns None")
    times = [began.time, told[1], other.exchange([], None).time]
    _promised(times == sorted(times), f"the store's time must not go back, nor differ for two users, got {times}")


def _adds(store: Store, other: Store) -> None:
    found = _ask(store, "sums", n0=3, n2=1)
    _promised(
        list(found.totals) == [3, None, 1], f"totals must be read after what was added with them, got {found.totals}"
    )
    _promised(list(_ask(other, "sums", n0=4).totals) == [7, None, 1], "what one user adds must be read by another")
    (after,) = store.exchange([Report("sums", {TOTALS[1]: 2}, TOTALS, TOTALS[:1])], None).found
    _promised(list(after.totals) == [None, 2, 1], f"totals to forget must be gone, and only those, got {after.totals}")


def _tells_names_apart(store: Store, other: Store) -> None:
    exchange = store.exchange([Report(name, {TOTALS[0]: n + 1}, TOTALS[:1]) for n, name in enumerate(NAMES)], None)
    counted = [found.totals[0] if found.error is None else found.error for found in exchange.found]
    _promised(counted == list(range(1, len(NAMES) + 1)), f"every str is a name of its own, in order, got {counted}")
    for number, name in enumerate(NAMES):
        store.update(name, _write(f"text {number}", []))
    read = [_ask(other, name).record for name in NAMES]
    _promised(
        read == [f"text {number}" for number in range(len(NAMES))], f"each name has a record of its own, got {read}"
    )


def _changes(store: Store, other: Store) -> None:
    told: list[Any] = []
    store.update("cas", _write("one", []))
    other.update("cas", _write("two" * 10_000, told))
    _promised(told[0] == "one", f"update() must call change with the record that stands, got {told[0]!r}")
    _promised(_ask(store, "cas").record == "two" * 10_000, "what update() writes must be read as it was written")

    def broken(before: str | None, now: float) -> str | None:
        raise Broken

    try:
        store.update("cas", broken)
    except Broken:
        pass
    else:
        raise AssertionError("what change raises must come out of update()")
    _promised(_ask(other, "cas").record == "two" * 10_000, "update() must write nothing if change raises")
    _promised(
        list(_ask(other, "cas", n0=1).totals) == [1, None, None], "a change that raised must leave the store usable"
    )


def _lists(store: Store, other: Store) -> None:
    order: Any = getattr(store, "force_open", None)
    if order is not None:
        order("ordered")
        states = {circuit.name: circuit.state for circuit in other.circuits()}
        _promised(
            states.get("ordered") is CircuitState.OPEN, f"circuits() must list what an order opened, got {states}"
        )
    missing = {*NAMES, "sums", "cas"} - {circuit.name for circuit in store.circuits()}
    _promised(not missing, f"circuits() must list every circuit, and misses {missing}")
    line = MemberLine("check-1", member_text({"sums": "closed"}, 5.0, 60.0))
    now = store.exchange([], line).time
    found = [member for member in other.members() if "sums" in member.circuits]
    _promised(len(found) == 1, f"members() must list who has written a line, got {found}")
    _promised(f"{found[0].host}:{found[0].pid}" == whoami(), f"members() must tell what the line says, got {found[0]}")
    _promised(
        abs(found[0].last_seen - now) < 1.0, f"Member.last_seen must be when the line was written, got {found[0]}"
    )
    store.exchange([], MemberLine("check-1", None))
    left = [member for member in other.members() if "sums" in member.circuits]
    _promised(left == [], "members() must not list who has left")


def _at_once(work: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _promised(not errors, f"{len(errors)} of {THREADS} threads at once raised, the first {errors[:1]!r}")


def _adds_exactly(make: Callable[[], Any]) -> None:
    def work() -> None:
        store = checked(make(), optional=False)
        for _ in range(TIMES):
            _ask(store, "crowd", n0=1)

    _at_once(work)
    total = _ask(checked(make(), optional=False), "crowd").totals[0]
    _promised(total == THREADS * TIMES, f"{THREADS * TIMES} times 1, added by threads at once, made {total}")


def _changes_exactly(make: Callable[[], Any]) -> None:
    def grow(before: str | None, now: float) -> str:
        time.sleep(0)  # let another thread come in between, if it can
        return f"{before or ''}x"

    def work() -> None:
        store = checked(make(), optional=False)
        for _ in range(TIMES):
            store.update("swap", grow)

    _at_once(work)
    text = _ask(checked(make(), optional=False), "swap").record or ""
    _promised(len(text) == THREADS * TIMES, f"{THREADS * TIMES} changes, made by threads at once, left {len(text)}")
