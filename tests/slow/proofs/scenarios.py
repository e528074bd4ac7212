"""Small concurrent programs over the library, each with what must hold whatever the order of its steps.

Every scenario can be made with its lock replaced by one that does nothing; then some order must break the promise.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import circuit_breaker._bulkhead.admission
from circuit_breaker import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    CircuitMode,
    CircuitOpenError,
    CircuitState,
    RetryBudget,
    StateChanged,
    UsageError,
)
from circuit_breaker._bulkhead.gates import ThreadGate

PROBING: dict[str, Any] = {"failure_threshold": 1, "reset_timeout_s": 10.0}
CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class NoLock:
    """A lock that lets everybody in."""

    taken = True

    def release(self) -> None:
        pass

    def __enter__(self) -> NoLock:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class ReadLock:
    """A `ReadRLock` made of the lock of the explorer, which does not see a subclass of the real one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.release = self._lock.release

    @property
    def taken(self) -> bool:
        return self._lock.acquire()

    def __enter__(self) -> bool:
        return self.taken

    def __exit__(self, *error: object) -> None:
        self.release()


def take_its_locks() -> None:
    """Let modules that have imported a lock by its name make the explorer's, which it puts into `threading`."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("circuit_breaker.") and hasattr(module, "RLock"):
            module.RLock = threading.RLock
        if name.startswith("circuit_breaker.") and hasattr(module, "ReadRLock"):
            module.ReadRLock = ReadLock


class Circuit:
    """A breaker, and what its threads saw."""

    def __init__(self, broken: bool, *, listened: bool = False, age_s: float = 10.0, **settings: Any) -> None:
        take_its_locks()
        self.now = 1000.0
        self.changes: list[StateChanged] = []
        self.seen: list[Any] = []
        self.breaker = CircuitBreaker(
            "api",
            CircuitBreakerConfig(**settings),
            listeners=[self._listen] if listened else [],
            clock=lambda: self.now,
        )
        self.age_s = age_s
        self.decorated = self.breaker(lambda: 0)
        self.breaker._machine.lock = NoLock() if broken else self.breaker._machine.lock  # type: ignore[assignment]

    def _listen(self, event: Any) -> None:
        if isinstance(event, StateChanged):
            self.changes.append(event)

    def trip(self) -> Circuit:
        """Open it, and let its time pass."""
        self.breaker.record_failure()
        self.now += self.age_s
        return self

    def probe(self, count: int = 1) -> Circuit:
        self.trip()
        self.permits = [self.breaker.permit() for _ in range(count)]
        return self

    @property
    def machine_state(self) -> CircuitState:
        return self.breaker.snapshot().machine_state

    def in_order(self) -> bool:
        """Whether the changes that were told are one chain from CLOSED to the present state."""
        state = self.machine_state  # this look may be a change, too
        states = [CLOSED, *(change.new_state for change in self.changes)]
        olds = [change.old_state for change in self.changes]
        return olds == states[:-1] and states[-1] is state


@dataclass(frozen=True)
class Scenario:
    name: str
    make: Callable[[bool], Any]
    workers: tuple[Callable[[Any], None], ...]
    holds: Callable[[Any], bool]
    clock: str = "real"


def call(c: Circuit) -> None:
    c.breaker.call(int)


def decorated(c: Circuit) -> None:
    c.decorated()


def block(c: Circuit) -> None:
    with c.breaker:
        pass


def succeed(c: Circuit) -> None:
    c.breaker.record_success()


def fail(c: Circuit) -> None:
    c.breaker.record_failure()


def ask(c: Circuit) -> None:
    try:
        c.seen.append(c.breaker.permit())
    except CircuitOpenError:
        c.seen.append(None)


def allow(c: Circuit) -> None:
    c.seen.append(c.breaker.allow_request())


def look(c: Circuit) -> None:
    c.seen.append(c.breaker.state)


def reset(c: Circuit) -> None:
    c.breaker.reset()


def trip(c: Circuit) -> None:
    with suppress(UsageError):  # a forced mode is set already
        c.breaker.trip()


def answer(number: int, verdict: str) -> Callable[[Circuit], None]:
    def worker(c: Circuit) -> None:
        try:
            getattr(c.permits[number], verdict)()
        except RuntimeError:
            c.seen.append("settled before")

    return worker


def set_mode(mode: CircuitMode) -> Callable[[Circuit], None]:
    def worker(c: Circuit) -> None:
        c.breaker.mode = mode

    return worker


def configure(**settings: Any) -> Callable[[Circuit], None]:
    def worker(c: Circuit) -> None:
        c.breaker.config = CircuitBreakerConfig(**settings)

    return worker


def closed_with_permit(broken: bool, **settings: Any) -> Circuit:
    circuit = Circuit(broken, **settings)
    circuit.permits = [circuit.breaker.permit()]
    return circuit


def totals(c: Circuit) -> tuple[int, int, int]:
    stats = c.breaker.stats
    return stats.success_count, stats.failure_count, stats.opened_count


def one_admitted(c: Circuit) -> bool:
    asked = [seen for seen in c.seen if not isinstance(seen, CircuitState)]
    admitted = sum(bool(seen) for seen in asked)
    refused = len(asked) - admitted
    return (
        admitted == 1
        and c.breaker.stats.rejected_count == refused
        and c.breaker.snapshot().probes_in_flight == 1
        and c.machine_state is HALF_OPEN
    )


def opens_at_the_next(c: Circuit) -> bool:
    c.breaker.record_failure()
    return c.machine_state is OPEN


def window(c: Circuit) -> tuple[int, int]:
    snapshot = c.breaker.snapshot()
    return snapshot.window_calls, snapshot.window_failures


def decorated_if_admitted(c: Circuit) -> None:
    try:
        c.decorated()
    except CircuitOpenError:
        pass


def overdue(broken: bool) -> Circuit:
    settings: dict[str, Any] = {"success_threshold": 2, "half_open_max_calls": 1, "half_open_timeout_s": 5.0}
    circuit = Circuit(broken, **PROBING, **settings).probe()
    circuit.now += 5.0
    return circuit


def failed_once(broken: bool) -> Circuit:
    circuit = Circuit(broken, failure_threshold=5)
    circuit.breaker.record_failure()
    return circuit


BREAKER = (
    Scenario(
        "two calls in closed are counted",
        lambda broken: Circuit(broken),
        (call, call),
        lambda c: totals(c) == (2, 0, 0),
    ),
    Scenario(
        "three decorated calls in closed are counted",
        lambda broken: Circuit(broken),
        (decorated, decorated, decorated),
        lambda c: totals(c) == (3, 0, 0),
    ),
    Scenario(
        "call, block and failure in closed are counted, in the window too",
        lambda broken: Circuit(broken),
        (decorated, block, fail),
        lambda c: totals(c) == (2, 1, 0) and window(c) == (3, 1),
    ),
    Scenario(
        "two ask for the only probe",
        lambda broken: Circuit(broken, half_open_max_calls=1, **PROBING).trip(),
        (ask, ask),
        one_admitted,
    ),
    Scenario(
        "three ask for the only probe in different ways",
        lambda broken: Circuit(broken, half_open_max_calls=1, **PROBING).trip(),
        (ask, allow, look),
        one_admitted,
    ),
    Scenario(
        "two failures trip once",
        lambda broken: Circuit(broken, failure_threshold=1),
        (fail, fail),
        lambda c: totals(c) == (0, 2, 1) and c.machine_state is OPEN,
    ),
    Scenario(
        "a success is counted beside the failure that trips",
        lambda broken: Circuit(broken, failure_threshold=1),
        (decorated_if_admitted, fail),
        lambda c: sum(totals(c)[:2]) + c.breaker.stats.rejected_count == 2 and totals(c)[1:] == (1, 1),
    ),
    Scenario(
        "an answer from closed is late once it has tripped",
        lambda broken: closed_with_permit(broken, failure_threshold=1),
        (answer(0, "success"), fail),
        lambda c: totals(c) == (1, 1, 1) and c.machine_state is OPEN,
    ),
    Scenario(
        "two probes succeed and close it once",
        lambda broken: Circuit(broken, listened=True, success_threshold=2, **PROBING).probe(2),
        (answer(0, "success"), answer(1, "success")),
        lambda c: totals(c) == (2, 1, 1) and c.machine_state is CLOSED and c.in_order(),
    ),
    Scenario(
        "one probe closes it, one opens it",
        lambda broken: Circuit(broken, listened=True, success_threshold=1, **PROBING).probe(2),
        (answer(0, "success"), answer(1, "failure")),
        lambda c: (
            (totals(c), c.machine_state, [change.new_state for change in c.changes[2:]])
            in [((1, 2, 1), CLOSED, [CLOSED]), ((1, 2, 2), OPEN, [OPEN])]
        ),
    ),
    Scenario(
        "two probes fail and open it once",
        lambda broken: Circuit(broken, **PROBING).probe(2),
        (answer(0, "failure"), answer(1, "failure")),
        lambda c: totals(c) == (0, 3, 2) and c.machine_state is OPEN,
    ),
    Scenario(
        "a permit is settled by one of two",
        lambda broken: Circuit(broken, **PROBING).probe(),
        (answer(0, "success"), answer(0, "ignore")),
        lambda c: (
            c.seen == ["settled before"]
            and totals(c)[0] + c.breaker.stats.ignored_count == 1
            and c.breaker.snapshot().probes_in_flight == 0
        ),
    ),
    Scenario(
        "a lost probe is overdue and two ask for its permit",
        lambda broken: overdue(broken),
        (ask, ask),
        one_admitted,
    ),
    Scenario(
        "an overdue probe answers while two ask for its permit",
        lambda broken: overdue(broken),
        (answer(0, "success"), ask, ask),
        lambda c: one_admitted(c) and totals(c) == (1, 1, 1),
    ),
    Scenario(
        "an answer against reset",
        lambda broken: closed_with_permit(broken, failure_threshold=1),
        (answer(0, "failure"), reset),
        lambda c: (
            totals(c) in [(0, 0, 0), (0, 1, 0)]
            and c.machine_state is CLOSED
            and c.breaker.snapshot().window_failures == 0
        ),
    ),
    Scenario(
        "an answer against a forced mode",
        lambda broken: closed_with_permit(broken, failure_threshold=1),
        (answer(0, "failure"), set_mode(CircuitMode.FORCED_CLOSED)),
        lambda c: totals(c)[:2] == (0, 1) and c.machine_state is CLOSED and c.breaker.mode is CircuitMode.FORCED_CLOSED,
    ),
    Scenario(
        "two failures against a lower threshold",
        lambda broken: Circuit(broken, failure_threshold=5),
        (fail, fail, configure(failure_threshold=2)),
        lambda c: totals(c)[:2] == (0, 2) and c.breaker.stats.consecutive_failures == 2 and opens_at_the_next(c),
    ),
    Scenario(
        "a failure against another window",
        lambda broken: failed_once(broken),
        (fail, configure(error_rate_window=7)),
        lambda c: totals(c) == (0, 2, 0) and window(c) in [(0, 0), (1, 1)] and c.breaker.config.error_rate_window == 7,
    ),
    Scenario(
        "another configuration against reset",
        lambda broken: Circuit(broken, failure_threshold=5),
        (reset, configure(failure_threshold=1)),
        lambda c: opens_at_the_next(c),
    ),
    Scenario(
        "another configuration against a probe that closes it",
        lambda broken: Circuit(broken, success_threshold=1, **PROBING).probe(),
        (answer(0, "success"), configure(failure_threshold=2, success_threshold=1)),
        lambda c: c.machine_state is CLOSED and not opens_at_the_next(c) and opens_at_the_next(c),
    ),
    Scenario(
        "a trip against a forced mode",
        lambda broken: Circuit(broken),
        (trip, set_mode(CircuitMode.FORCED_OPEN)),
        lambda c: c.breaker.mode is CircuitMode.FORCED_OPEN and c.breaker.snapshot().retry_after_s is None,
    ),
    Scenario(
        "changes are told in order, each once",
        lambda broken: Circuit(broken, listened=True, failure_threshold=1, reset_timeout_s=0.0),
        (fail, look),
        lambda c: c.in_order(),
    ),
    Scenario(
        "changes by three are told in order, each once",
        lambda broken: Circuit(broken, listened=True, failure_threshold=1),
        (fail, set_mode(CircuitMode.FORCED_OPEN), reset),
        lambda c: c.in_order(),
    ),
)


class Registry:
    def __init__(self, broken: bool, max_size: int) -> None:
        take_its_locks()
        self.registry = CircuitBreakerRegistry(max_size=max_size, clock=lambda: 1000.0)
        cache = self.registry._cache
        cache._lock = NoLock() if broken else cache._lock  # type: ignore[assignment]
        self.got: list[CircuitBreaker] = []
        self.held: CircuitBreaker | None = None

    def hold(self) -> Registry:
        self.held = self.registry["a"]
        return self


def get(key: str) -> Callable[[Registry], None]:
    def worker(r: Registry) -> None:
        r.got.append(r.registry[key])

    return worker


REGISTRY = (
    Scenario(
        "two look one key up",
        lambda broken: Registry(broken, 4),
        (get("a"), get("a")),
        lambda r: r.got[0] is r.got[1] is r.registry["a"] and len(r.registry) == 1,
    ),
    Scenario(
        "a key that is held is evicted and looked up",
        lambda broken: Registry(broken, 1).hold(),
        (get("b"), get("a")),
        lambda r: r.registry["a"] is r.held and len(r.registry) == 1 and r.held in r.got,
    ),
    Scenario(
        "three keys in two places",
        lambda broken: Registry(broken, 2),
        (get("a"), get("b"), get("c")),
        lambda r: len(r.registry) == 2 and all(r.registry[b.name] is b for b in r.got),
    ),
)


class Signal:
    """What a gate uses its lock for, said with a semaphore: frontrun takes a lock taken twice for a deadlock."""

    def __init__(self) -> None:
        self._signals = threading.Semaphore(0)

    def release(self) -> None:
        self._signals.release()

    def acquire(self, blocking: bool, timeout_s: float) -> bool:
        return self._signals.acquire(blocking, None if timeout_s < 0 else timeout_s)


class SignalGate(ThreadGate):
    def __init__(self, timeout_s: float | None) -> None:
        super().__init__(timeout_s)
        self._bolt = Signal()  # type: ignore[assignment]


class Pool:
    """A bulkhead, and how many were inside at most."""

    def __init__(self, broken: bool, limit: int, queue: int, timeout_s: float = 0.0, taken: int = 0) -> None:
        take_its_locks()
        circuit_breaker._bulkhead.admission.ThreadGate = SignalGate  # type: ignore[misc, attr-defined]
        self.bulkhead = Bulkhead("pool", limit, queue, timeout_s, clock=lambda: 1000.0)
        for _ in range(taken):
            self.bulkhead.acquire()
        self.bulkhead._line.lock = NoLock() if broken else self.bulkhead._line.lock  # type: ignore[assignment]
        self.mine = threading.Lock()
        self.inside = self.most = 0
        self.got: list[bool] = []

    def work(self) -> None:
        with self.mine:
            self.inside += 1
            self.most = max(self.most, self.inside)
        with self.mine:
            self.inside -= 1

    def figures(self) -> tuple[int, int, int, int]:
        seen = self.bulkhead.snapshot()
        return seen.active_count, seen.queued_count, seen.accepted_count, seen.rejected_count


def work(p: Pool) -> None:
    try:
        p.bulkhead.call(p.work)
    except BulkheadFullError:
        pass


def work_in_block(p: Pool) -> None:
    try:
        with p.bulkhead:
            p.work()
    except BulkheadFullError:
        pass


def acquire(p: Pool) -> None:
    p.got.append(p.bulkhead.acquire())


def release(p: Pool) -> None:
    p.bulkhead.release()


def release_in_the_last_moment(p: Pool) -> None:
    time.sleep(5.0)
    p.bulkhead.release()


def resize(limit: int) -> Callable[[Pool], None]:
    def worker(p: Pool) -> None:
        p.bulkhead.resize(limit)

    return worker


BULKHEAD = (
    Scenario(
        "two want the only slot",
        lambda broken: Pool(broken, 1, 0),
        (work, work_in_block),
        lambda p: p.most <= 1 and p.figures()[:2] == (0, 0) and sum(p.figures()[2:]) == 2,
    ),
    Scenario(
        "two want the only slot, and one waits",
        lambda broken: Pool(broken, 1, 1),
        (work, work),
        lambda p: p.most == 1 and p.figures() == (0, 0, 2, 0),
    ),
    Scenario(
        "three want the only slot, and two wait",
        lambda broken: Pool(broken, 1, 2),
        (work, work, work),
        lambda p: p.most == 1 and p.figures() == (0, 0, 3, 0),
    ),
    Scenario(
        "a slot comes back while two ask",
        lambda broken: Pool(broken, 1, 0, taken=1),
        (release, acquire, acquire),
        lambda p: sum(p.got) == p.figures()[0] <= 1 and sum(p.figures()[2:]) == 3,
    ),
    Scenario(
        "a slot comes back as the time of the waiter ends",
        lambda broken: Pool(broken, 1, 1, 5.0, taken=1),
        (release_in_the_last_moment, acquire),
        lambda p: p.figures()[:2] == (sum(p.got), 0),
        clock="explored",
    ),
    Scenario(
        "a bulkhead grows while one waits",
        lambda broken: Pool(broken, 1, 1, taken=1),
        (acquire, resize(2)),
        lambda p: p.got == [True] and p.figures() == (2, 0, 2, 0),
    ),
    Scenario(
        "a bulkhead shrinks while two come and go",
        lambda broken: Pool(broken, 2, 0),
        (work, work, resize(1)),
        lambda p: p.figures()[:2] == (0, 0) and sum(p.figures()[2:]) == 2 and p.bulkhead.available_slots == 1,
    ),
)


class Tokens:
    def __init__(self, broken: bool, burst: int, spent: int = 0) -> None:
        self.budget = RetryBudget(0.5, 0.0, burst, clock=lambda: 1000.0)
        for _ in range(spent):
            self.budget.take()
        self.budget._lock = NoLock() if broken else self.budget._lock  # type: ignore[assignment]
        self.got: list[bool] = []


def take(t: Tokens) -> None:
    t.got.append(t.budget.take())


def deposit(t: Tokens) -> None:
    t.budget.deposit()


BUDGET = (
    Scenario(
        "two take the only token",
        lambda broken: Tokens(broken, 1),
        (take, take),
        lambda t: sorted(t.got) == [False, True] and t.budget.tokens == 0.0,
    ),
    Scenario(
        "two calls pay in while a retry takes",
        lambda broken: Tokens(broken, 3, spent=2),
        (deposit, deposit, take),
        lambda t: t.got == [True] and t.budget.tokens == 1.0,
    ),
)

SCENARIOS = {"breaker": BREAKER, "registry": REGISTRY, "bulkhead": BULKHEAD, "budget": BUDGET}
