"""The store's thread, with stores that block where a test wants it: who waits, for how long, and who never does."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from failures import Down
from garbage import collect
from moments import interrupt_at
from needs import needs_moments, needs_timer
from overtaken import Overtaken
from patience import PATIENCE_S
from places import do_between
from waiters import is_free

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, CircuitState, Permit, StateChanged
from circuit_breaker._shared import process, worker
from circuit_breaker._shared import talker as talker_module
from circuit_breaker._shared.process import talker_of
from circuit_breaker._shared.protocol import Change, Exchange, MemberLine, Report
from circuit_breaker._shared.worker import Worker
from circuit_breaker.stores import Board, MemoryStore, StoreLost

CONFIG = CircuitBreakerConfig(failure_threshold=2, reset_timeout_s=0.0, half_open_max_calls=3, success_threshold=2)
LONG_S = 600.0  # nobody may wait as long as that
STORES = "from circuit_breaker.stores import MemoryStore, SQLiteStore"


class BlockingStore(MemoryStore):
    """A store that stops at what it is told to stop at, until it is released."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.stopping: str = ""
        self.stopped = threading.Event()
        self.released = threading.Event()
        self.exchanges = 0
        self.inside: Callable[[], object] = int  # called in the middle of every exchange

    def stop_at(self, method: str) -> None:
        self.stopped.clear()
        self.released.clear()
        self.stopping = method

    def release(self) -> None:
        self.stopping = ""
        self.released.set()

    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        self._pass("exchange")
        self.exchanges += 1
        self.inside()
        return super().exchange(reports, member)

    def update(self, name: str, change: Change) -> None:
        self._pass("update")
        super().update(name, change)

    def _pass(self, method: str) -> None:
        if self.stopping == method:
            self.stopped.set()
            assert self.released.wait(PATIENCE_S)


@pytest.fixture
def make() -> Iterator[Callable[..., BlockingStore]]:
    made: list[BlockingStore] = []

    def make(*args: Any, **settings: Any) -> BlockingStore:
        made.append(BlockingStore(*args, **settings))
        return made[-1]

    yield make
    for store in made:
        store.inside = int
        store.release()
        thread = talker_of(store)._thread
        if thread is not None:
            talker_of(store).stop()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def until(holds: Callable[[], object]) -> None:
    """Let other threads run until something holds."""
    ends_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends_at, "it has not come"
        time.sleep(0.001)


def half_open(store: MemoryStore) -> None:
    """Let the circuit be open for all, its time over, before anybody looks."""
    with_probes = MemoryStore(store.board, manual=True)
    others = [MemoryStore(store.board, clock=lambda: 1e6 + now[0], manual=True) for _ in range(2)]
    now = [0.0]
    breakers = [CircuitBreaker("api", CONFIG, clock=lambda: now[0], store=other) for other in others]
    for breaker in breakers:
        breaker.record_failure()
        breaker.call(int)
    for other in others * 2:
        other.sync()
        now[0] += 1.0
    for breaker in breakers:
        breaker.record_failure()
        breaker.record_failure()
    for other in others * 3:
        other.sync()
        now[0] += 1.0
    assert with_probes.circuits()[0].state is not CircuitState.CLOSED


def fail() -> None:
    raise Down


class NoThread(threading.Thread):
    """A thread that cannot be started."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


# Who starts the thread, and when it ends


def test_the_thread_starts_with_the_first_call_and_not_before(make: Callable[..., BlockingStore]) -> None:
    store = make()
    breaker = CircuitBreaker("api", CONFIG, store=store)
    assert breaker.state is CircuitState.CLOSED
    assert breaker.snapshot().shared is not None
    assert repr(breaker)
    assert talker_of(store)._thread is None
    assert breaker.call(int) == 0
    assert talker_of(store)._thread is not None
    assert store.exchanges == 1


def test_one_thread_serves_all_breakers_of_a_store(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=LONG_S)
    breakers = [CircuitBreaker(name, store=store) for name in ("a", "b", "a")]
    threads = set()
    for breaker in breakers:
        breaker.call(int)
        threads.add(talker_of(store)._thread)
    assert len(threads) == 1


def test_threads_that_make_the_first_breakers_of_a_store_get_one_thread(make: Callable[..., BlockingStore]) -> None:
    inside = (process.__file__, weakref.__file__)
    for place in count(1):
        store = make()
        got: list[object] = []
        ask = partial(lambda store, got: got.append(talker_of(store)), store, got)
        if not do_between(place, ask, ask, lambda: is_free(process._lock), inside):
            break
        assert got[0] is got[1]
    assert place > 5


def test_a_thread_that_is_overtaken_takes_the_talker_of_the_other(
    make: Callable[..., BlockingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, new = make(), process.Talker
    others = []

    def overtaken(store: BlockingStore) -> object:
        monkeypatch.undo()
        others.append(talker_of(store))
        return new(store)

    monkeypatch.setattr(process, "Talker", overtaken)
    assert [talker_of(store)] == others


def test_the_thread_ends_with_the_last_breaker(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=0.01)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    breaker.call(int)
    thread, dropped = talker_of(store)._thread, weakref.ref(breaker)
    assert thread is not None
    del breaker
    collect()
    assert dropped() is None
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_store_lives_as_long_as_a_breaker_has_it() -> None:
    store = MemoryStore(interval_s=0.01)
    kept = weakref.ref(store)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    breaker.call(int)
    del store
    collect()
    assert kept() is not None
    del breaker
    until(lambda: collect() or kept() is None)


def test_the_thread_ends_after_a_silence_and_the_next_call_starts_another(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=0.005)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    breaker.call(int)
    thread = talker_of(store)._thread
    assert thread is not None
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    exchanges = store.exchanges
    assert breaker.call(int) == 0
    assert store.exchanges > exchanges


def test_where_no_thread_can_be_started_breakers_work_by_themselves(
    make: Callable[..., BlockingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    breaker = CircuitBreaker("api", CONFIG, store=store)
    with monkeypatch.context() as patched:
        patched.setattr(worker, "Thread", NoThread)
        assert [breaker.call(int) for _ in range(3)] == [0, 0, 0]
        with pytest.raises(RuntimeError, match="can't start new thread"):
            store.sync()
    assert store.exchanges == 0
    breaker.call(int)
    assert store.exchanges >= 1


def test_where_no_thread_can_be_started_little_work_waits(
    make: Callable[..., BlockingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(interval_s=LONG_S)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    with monkeypatch.context() as patched:
        patched.setattr(worker, "Thread", NoThread)
        assert {breaker.call(int) for _ in range(1_000)} == {0}
        for _ in range(10):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                store.sync()
    assert talker_of(store)._work.qsize() == worker.MOST_WAITING
    store.force_open("api")
    with pytest.raises(CircuitOpenError):
        breaker.call(int)


def test_however_much_work_waits_for_a_thread_more_is_done(make: Callable[..., BlockingStore]) -> None:
    doing, done, go_on = Doing(LONG_S, manual=False), list[int](), threading.Event()
    doing.request(partial(go_on.wait, PATIENCE_S))
    numbers = range(2 * worker.MOST_WAITING)
    for number in numbers:
        assert doing.request(partial(done.append, number))
    go_on.set()
    doing.ask(int)
    assert done == list(numbers)


def test_what_a_store_raises_ends_no_thread(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=0.01)
    breaker = CircuitBreaker("api", CONFIG, store=store)

    def raising() -> None:
        raise SystemExit

    store.inside = raising
    assert breaker.call(int) == 0
    until(lambda: store.exchanges >= 3)
    store.inside = int
    until(lambda: breaker.snapshot().shared.link == "joined" and not breaker.call(int))  # type: ignore[union-attr]


# Who waits


def test_a_first_call_learns_where_the_circuit_is(make: Callable[..., BlockingStore]) -> None:
    store = make(timeout_s=LONG_S)
    MemoryStore(store.board).force_open("api")
    with pytest.raises(CircuitOpenError):
        CircuitBreaker("api", CONFIG, store=store).call(int)


def test_a_first_call_waits_for_a_store_that_hangs_no_longer_than_it_may(make: Callable[..., BlockingStore]) -> None:
    store = make(timeout_s=0.05)
    store.stop_at("exchange")
    breaker = CircuitBreaker("api", CONFIG, store=store)
    began = time.monotonic()
    assert breaker.call(int) == 0
    assert 0.05 <= time.monotonic() - began < PATIENCE_S / 2
    assert breaker._machine.fast is not None  # the second one does not even look


def test_calls_of_a_closed_and_of_an_open_circuit_never_touch_the_store(
    make: Callable[..., BlockingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(interval_s=LONG_S)
    breaker = CircuitBreaker("api", CONFIG.replace(reset_timeout_s=LONG_S), store=store)
    breaker.call(int)
    talker = talker_of(store)
    touched: list[str] = []
    for name in ("request", "ask", "join", "notice"):
        monkeypatch.setattr(talker, name, lambda *_, name=name: touched.append(name))
    breaker.call(int)
    with pytest.raises(Down):
        breaker.call(fail)
    assert touched == []
    with pytest.raises(Down):
        breaker.call(fail)
    assert touched == ["request"]  # it has opened, and the thread is told: nobody waits
    for _ in range(3):
        with pytest.raises(CircuitOpenError):
            breaker.call(int)
    assert breaker.state is CircuitState.OPEN
    assert touched == ["request"]


def test_a_call_that_needs_a_lease_waits_for_it(make: Callable[..., BlockingStore]) -> None:
    store = make(timeout_s=LONG_S, interval_s=LONG_S)
    half_open(store)
    assert CircuitBreaker("api", CONFIG, store=store).call(int) == 0


def test_one_that_cannot_have_it_in_time_is_rejected_and_meanwhile_all_others_at_once(
    make: Callable[..., BlockingStore],
) -> None:
    store = make(timeout_s=0.05, interval_s=LONG_S)
    half_open(store)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    store.stop_at("update")
    with pytest.raises(CircuitOpenError):
        breaker.call(int)
    assert store.stopped.is_set()
    waits: list[Any] = []
    talker_of(store).wait = waits.append  # type: ignore[method-assign]
    for _ in range(5):
        with pytest.raises(CircuitOpenError):
            breaker.call(int)
    assert waits == []


def test_a_lease_that_comes_too_late_for_its_caller_serves_the_next(make: Callable[..., BlockingStore]) -> None:
    store = make(timeout_s=0.05, interval_s=LONG_S)
    half_open(store)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    store.stop_at("update")
    with pytest.raises(CircuitOpenError):
        breaker.call(int)
    store.release()
    until(lambda: getattr(breaker._machine.period, "leases", ()))
    store.stop_at("update")  # the next one needs nothing of the store
    assert breaker.call(int) == 0


def test_a_call_on_the_stores_own_thread_never_waits(make: Callable[..., BlockingStore]) -> None:
    store = make(timeout_s=LONG_S, interval_s=0.01)
    half_open(store)
    found: list[object] = []

    def destructor() -> None:
        store.inside = int
        for name in ("api", "other"):
            breaker = CircuitBreaker(name, CONFIG, store=store)
            try:
                found.append(breaker.call(int))
            except CircuitOpenError:
                found.append("rejected")
        try:
            breaker = CircuitBreaker("api", CONFIG, store=store)
            breaker._machine.link.talker.sync()
        except RuntimeError as error:
            found.append(str(error))

    store.inside = destructor
    breaker = CircuitBreaker("first", CONFIG, store=store)
    assert breaker.call(int) == 0
    until(lambda: len(found) == 3)
    assert found == [0, 0, "neither the store's own thread nor one that forks can wait for the store"]


def test_a_call_on_the_stores_own_thread_that_needs_a_lease_is_rejected(make: Callable[..., BlockingStore]) -> None:
    store = make(timeout_s=LONG_S, interval_s=0.01)
    half_open(store)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    permit = breaker.permit()
    found: list[object] = []

    def destructor() -> None:
        store.inside = int
        try:
            found.append(breaker.call(int))
        except CircuitOpenError:
            found.append("rejected")

    store.inside = destructor
    until(lambda: found)
    assert found == ["rejected"]
    permit.ignore()


def test_a_store_that_hangs_is_noticed_by_whoever_asks(make: Callable[..., BlockingStore]) -> None:
    lost: list[object] = []
    store = make(timeout_s=0.01, interval_s=0.02)
    half_open(store)
    breaker = CircuitBreaker("api", CONFIG, store=store, listeners=[lost.append])
    permits: list[Permit] = []

    def permitted() -> bool:
        try:
            permits.append(breaker.permit())
        except CircuitOpenError:  # the lease comes too late for this one
            return False
        return True

    until(permitted)
    store.stop_at("exchange")
    assert store.stopped.wait(PATIENCE_S)
    permits[0].ignore()

    def admitted() -> bool:
        try:
            return breaker.call(int) == 0
        except CircuitOpenError:
            return False

    until(admitted)
    assert breaker.snapshot().shared.link == "away"  # type: ignore[union-attr]
    until(lambda: [event for event in lost if isinstance(event, StoreLost)])
    (event,) = [event for event in lost if isinstance(event, StoreLost)]
    assert event.reason == "no answer for more than 0.06 s"


def test_a_store_that_hangs_is_seen_by_whoever_looks(make: Callable[..., BlockingStore]) -> None:
    store = make(timeout_s=0.01, interval_s=0.02)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    assert breaker.call(int) == 0
    store.stop_at("exchange")
    assert store.stopped.wait(PATIENCE_S)
    until(lambda: breaker.snapshot().shared.link == "away")  # type: ignore[union-attr]
    store.release()
    until(lambda: breaker.snapshot().shared.link == "joined")  # type: ignore[union-attr]


@needs_timer
def test_ctrl_c_ends_the_waiting(make: Callable[..., BlockingStore]) -> None:
    store = make(timeout_s=LONG_S)
    store.stop_at("exchange")
    breaker = CircuitBreaker("api", CONFIG, store=store)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            breaker.call(int)
    finally:
        signal.signal(signal.SIGALRM, before)
    store.release()
    assert breaker.call(int) == 0


# Many at once


def test_a_hundred_threads_of_ten_processes_get_exactly_the_leases_there_are(
    make: Callable[..., BlockingStore],
) -> None:
    board = Board()
    stores = [make(board, timeout_s=LONG_S, interval_s=LONG_S) for _ in range(10)]
    half_open(stores[0])
    breakers = [CircuitBreaker("api", CONFIG, store=store) for store in stores]
    barrier = threading.Barrier(100)
    permits: list[Any] = []

    def ask(breaker: CircuitBreaker) -> None:
        barrier.wait(PATIENCE_S)
        try:
            permits.append(breaker.permit())
        except CircuitOpenError:
            pass

    threads = [threading.Thread(target=ask, args=(breaker,)) for breaker in breakers * 10]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(permits) == 3
    assert stores[0].circuits()[0].probes_out == 3


def test_a_slow_listener_delays_no_exchange(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=0.01)
    called, go_on = threading.Event(), threading.Event()

    def slow(event: object) -> None:
        if isinstance(event, StateChanged):
            called.set()
            assert go_on.wait(PATIENCE_S)

    breaker = CircuitBreaker("api", CONFIG, store=store, listeners=[slow])
    breaker.call(int)
    MemoryStore(store.board).force_open("api")
    assert called.wait(PATIENCE_S)
    exchanges = store.exchanges
    with pytest.raises(CircuitOpenError):
        breaker.call(int)
    until(lambda: store.exchanges > exchanges + 3)
    go_on.set()


def test_the_state_follows_an_order_without_any_call(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=0.01)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    breaker.call(int)
    store.force_open("api")
    until(lambda: breaker.state is CircuitState.OPEN)
    store.reset("api")
    until(lambda: breaker.state is CircuitState.CLOSED)


def test_sync_exchanges_now(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=LONG_S)
    MemoryStore(store.board).force_open("api")
    breaker = CircuitBreaker("api", CONFIG, store=store)
    store.sync()
    assert breaker.state is CircuitState.OPEN
    MemoryStore(store.board).reset("api")
    store.sync()
    assert breaker.state is CircuitState.CLOSED
    assert breaker.call(int) == 0


def test_sync_raises_what_the_store_raises(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=LONG_S)
    breaker = CircuitBreaker("api", CONFIG, store=store)

    def raising() -> None:
        raise OSError("no route")

    store.inside = raising
    with pytest.raises(OSError, match="no route"):
        store.sync()
    assert breaker.call(int) == 0


def ends(function: Callable[[], object]) -> bool:
    """Tell whether a function ends, on a thread of its own."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return not thread.is_alive()


def test_sync_ends_where_there_is_no_breaker(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=LONG_S)
    assert ends(store.sync)
    assert store.exchanges == 1


def test_sync_ends_if_an_exchange_begins_while_it_is_asked_for(
    make: Callable[..., BlockingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(interval_s=LONG_S, timeout_s=PATIENCE_S)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    assert breaker.call(int) == 0
    talker = talker_of(store)
    insist = talker.insist

    def insist_late(work: worker.Work, reply: worker.Reply) -> BaseException | None:
        monkeypatch.undo()
        talker.ask(talker._exchange_now)
        return insist(work, reply)

    monkeypatch.setattr(talker, "insist", insist_late)
    assert ends(store.sync)
    assert store.exchanges == 3


def forking(talker: Worker) -> None:
    """Do what is done before a fork."""
    thread = talker.pause()
    if thread is not None:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def start_syncing(store: BlockingStore) -> threading.Thread:
    """Sync on another thread, and return once the work has been handed over."""
    work = talker_of(store)._work
    handed = threading.Event()

    class Handing:
        def put(self, each: worker.Work) -> None:
            work.put(each)
            handed.set()

        def __getattr__(self, name: str) -> Any:
            return getattr(work, name)

    talker_of(store)._work = Handing()  # type: ignore[assignment]
    syncing = threading.Thread(target=store.sync, daemon=True)
    syncing.start()
    assert handed.wait(PATIENCE_S)
    return syncing


def test_sync_that_comes_while_another_thread_forks_waits_for_that(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=LONG_S)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    assert breaker.call(int) == 0
    talker = talker_of(store)
    forking(talker)
    syncing = start_syncing(store)
    assert talker._thread is None
    talker.resume()
    syncing.join(PATIENCE_S)
    assert not syncing.is_alive()
    assert store.exchanges == 2


def test_sync_whose_work_comes_too_late_for_the_thread_that_a_fork_ends_starts_another(
    make: Callable[..., BlockingStore],
) -> None:
    store = make(interval_s=LONG_S)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    assert breaker.call(int) == 0
    talker = talker_of(store)
    store.stop_at("exchange")
    talker.request(talker._exchange_now)
    assert store.stopped.wait(PATIENCE_S)
    thread = talker.pause()  # ends it after this exchange
    talker._pauser = None  # the one that syncs has not seen that
    syncing = start_syncing(store)
    store.release()
    syncing.join(PATIENCE_S)
    assert not syncing.is_alive()
    assert thread is not None
    assert not thread.is_alive()


def test_whoever_waits_for_an_exchange_gets_it_before_a_fork(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=LONG_S, timeout_s=LONG_S)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    assert breaker.call(int) == 0
    talker, pausing = talker_of(store), threading.Event()
    talker.request(partial(pausing.wait, PATIENCE_S))
    reply: worker.Reply = queue.SimpleQueue()
    talker.request(partial(talker._await, reply))
    thread = talker.pause()
    pausing.set()
    assert reply.get(timeout=PATIENCE_S) is None
    assert thread is not None


def test_sync_on_a_thread_that_forks_is_an_error(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=LONG_S)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    assert breaker.call(int) == 0
    forking(talker_of(store))
    with pytest.raises(RuntimeError, match="nor one that forks"):
        store.sync()
    talker_of(store).resume()


def test_a_first_call_beside_a_fork_leaves_it_to_the_next_to_learn(
    make: Callable[..., BlockingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(interval_s=LONG_S)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    talker = talker_of(store)

    def wait(*_: object) -> None:
        monkeypatch.undo()
        forking(talker)
        talker.resume()

    monkeypatch.setattr(talker, "wait", wait)
    assert breaker.call(int) == 0
    store.force_open("api")
    with pytest.raises(CircuitOpenError):
        breaker.call(int)


# The end of the process


def in_a_process(script: str, path: Path) -> None:
    lines = (
        f"import sys; path = sys.argv[1]\nfrom circuit_breaker import *\nfrom circuit_breaker.stores import *\n{script}"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", lines, path], check=True, timeout=PATIENCE_S, env=environment)


def test_at_the_end_the_last_counts_and_leases_go_out(tmp_path: Path) -> None:
    path = tmp_path / "circuits.db"
    in_a_process(
        "breaker = CircuitBreaker('api', store=SQLiteStore(path, interval_s=60))\n"
        "for _ in range(7): breaker.call(int)\n",
        path,
    )
    from circuit_breaker.stores import SQLiteStore

    store = SQLiteStore(path)
    assert store.circuits()[0].successes == 7
    assert store.members() == []


def test_at_the_end_a_store_that_hangs_keeps_nobody_for_long(tmp_path: Path) -> None:
    began = time.monotonic()
    in_a_process(
        "import threading\n"
        "class Hanging(MemoryStore):\n"
        "    def exchange(self, *args):\n"
        "        threading.Event().wait()\n"
        "CircuitBreaker('api', store=Hanging(timeout_s=0.01)).call(int)\n",
        tmp_path,
    )
    assert time.monotonic() - began < PATIENCE_S / 2


def test_whoever_syncs_is_answered_though_another_exchange_comes_between() -> None:
    store = MemoryStore(manual=True)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    assert breaker.call(int) == 0
    talker = talker_of(store)
    talker.request(talker._exchange_now)
    syncing = threading.Thread(target=store.sync, daemon=True)
    syncing.start()
    syncing.join(PATIENCE_S)
    assert not syncing.is_alive()


def test_at_the_end_a_store_that_nobody_has_used_does_nothing(tmp_path: Path) -> None:
    in_a_process("breaker = CircuitBreaker('api', store=SQLiteStore(path))\n", tmp_path / "circuits.db")
    assert list(tmp_path.iterdir()) == []


# A store that is away, and threads that cannot be started


def test_a_first_call_waits_for_no_store_that_is_away(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=0.01, timeout_s=LONG_S)
    known = CircuitBreaker("known", CONFIG, store=store)

    def raising() -> None:
        raise OSError

    store.inside = raising
    assert known.call(int) == 0
    until(lambda: talker_of(store).away)
    store.stop_at("exchange")
    assert store.stopped.wait(PATIENCE_S)
    began = time.monotonic()
    assert CircuitBreaker("new", CONFIG, store=store).call(int) == 0
    assert time.monotonic() - began < PATIENCE_S / 2


def test_a_store_that_hangs_is_noticed_by_a_first_call(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=0.01, timeout_s=LONG_S)
    known = CircuitBreaker("known", CONFIG, store=store)
    assert known.call(int) == 0
    store.stop_at("exchange")
    assert store.stopped.wait(PATIENCE_S)
    until(talker_of(store).hangs)
    began = time.monotonic()
    assert CircuitBreaker("new", CONFIG, store=store).call(int) == 0
    assert time.monotonic() - began < PATIENCE_S / 2
    assert talker_of(store).away


def test_a_first_call_that_needs_a_lease_too_waits_no_longer_than_it_may(
    make: Callable[..., BlockingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class Recording(queue.SimpleQueue):  # type: ignore[type-arg]
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if threading.current_thread() is threading.main_thread():
                waits.append(timeout or 0.0)
            return super().get(block, timeout)

    store = make(interval_s=LONG_S, timeout_s=0.05)
    half_open(store)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    store.sync()
    assert breaker.state is CircuitState.HALF_OPEN
    breaker._machine.join(False)  # type: ignore[attr-defined] # as after a silence
    store.stop_at("exchange")
    monkeypatch.setattr(talker_module, "SimpleQueue", Recording)
    monkeypatch.setattr(worker, "SimpleQueue", Recording)
    with pytest.raises(CircuitOpenError):
        breaker.call(int)
    assert waits == [0.05, 0.0]


def test_a_call_that_needs_a_lease_is_rejected_where_no_thread_can_be_started(
    make: Callable[..., BlockingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(timeout_s=LONG_S)
    half_open(store)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    store.sync()
    talker = talker_of(store)
    thread = talker.pause()
    assert thread is not None
    thread.join(PATIENCE_S)
    talker.resume()
    with monkeypatch.context() as patched:
        patched.setattr(worker, "Thread", NoThread)
        with pytest.raises(CircuitOpenError):
            breaker.call(int)


def test_where_no_thread_can_be_started_listeners_hear_of_it_from_whoever_looks_next(
    make: Callable[..., BlockingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []
    tried = threading.Event()

    class NoListenersThread(threading.Thread):
        def start(self) -> None:
            tried.set()
            raise RuntimeError("can't start new thread")

    store = make(interval_s=LONG_S)
    breaker = CircuitBreaker("api", CONFIG, store=store, listeners=[events.append])
    store.sync()
    monkeypatch.setattr(talker_module, "Thread", NoListenersThread)
    store.force_open("api")
    store.sync()
    assert tried.wait(PATIENCE_S)
    assert events == []
    assert breaker.state is CircuitState.OPEN
    assert [type(event) for event in events] == [StateChanged]


def test_a_lease_is_not_asked_for_once_the_circuit_has_closed(make: Callable[..., BlockingStore]) -> None:
    store = make(interval_s=LONG_S, timeout_s=LONG_S)
    half_open(store)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    store.sync()
    talker, results = talker_of(store), list[object]()
    assert breaker.state is CircuitState.HALF_OPEN
    store.stop_at("exchange")
    talker.request(talker._exchange_now)
    assert store.stopped.wait(PATIENCE_S)
    caller = threading.Thread(target=lambda: results.append(breaker.call(int)), daemon=True)
    caller.start()
    until(lambda: talker._work.qsize() == 1)
    MemoryStore(store.board, manual=True).reset("api")
    records = dict(store.board._records)
    store.release()
    caller.join(PATIENCE_S)
    assert results == [0]
    assert store.board._records == records


# Work that comes in the moment when the thread ends


class Doing(Worker):
    """A worker that ends whenever there is no work."""

    def _wait_s(self) -> float:
        return 0.0

    def _tick(self) -> None: ...

    def _is_idle(self) -> bool:
        return True


def ending(worker: Worker, other: Callable[[], object]) -> threading.Thread:
    """Let the worker do one thing, and something happen in the moment before its thread ends."""
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        worker._lock = Overtaken(lock, other)  # type: ignore[assignment]

    lock = worker._lock
    assert worker.request(work)
    until(lambda: threads)
    threads[0].join(PATIENCE_S)
    assert not threads[0].is_alive()
    assert worker._thread is None
    return threads[0]


def test_work_that_comes_as_the_thread_ends_is_done_by_it() -> None:
    doing, done = Doing(LONG_S, manual=False), list[threading.Thread]()
    thread = ending(doing, lambda: doing.request(lambda: done.append(threading.current_thread())))
    assert done == [thread]


def test_work_that_comes_as_the_thread_ends_waits_while_there_may_be_none() -> None:
    doing, done = Doing(LONG_S, manual=False), list[str]()

    def other() -> None:
        doing._pauser = threading.get_ident()
        doing._work.put(lambda: done.append("work"))

    ending(doing, other)
    assert done == []
    doing.resume()
    doing.ask(lambda: done.append("more"))
    assert done == ["work", "more"]


# A thread that is interrupted as it starts another one


@needs_moments
def test_an_interrupt_of_the_start_keeps_no_work_from_being_done() -> None:
    inside = (worker.__file__, threading.__file__)
    for moment in count(1):
        doing, done = Doing(LONG_S, manual=False), list[str]()
        if not interrupt_at(moment, partial(doing.request, int), inside):
            break
        assert ends(partial(doing.ask, partial(done.append, "work"))), moment
        assert done == ["work"]
    assert moment > 10


class Interrupted(threading.Thread):
    """A thread whose start is interrupted, the first time."""

    made: list[Interrupted]

    def start(self) -> None:
        self.made.append(self)
        if len(self.made) == 1:
            raise KeyboardInterrupt
        super().start()


class InterruptedLate(Interrupted):
    """One that has begun by then, but gets no further until it is let go."""

    go_on: threading.Event

    def start(self) -> None:
        threading.Thread.start(self)
        super().start()

    def run(self) -> None:
        assert self.go_on.wait(PATIENCE_S)
        super().run()


def test_a_thread_that_comes_after_another_has_taken_its_place_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    doing, done = Doing(LONG_S, manual=False), list[threading.Thread]()
    Interrupted.made = []
    monkeypatch.setattr(worker, "Thread", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        doing.request(lambda: done.append(threading.current_thread()))
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    assert doing.request(work)
    assert begun.wait(PATIENCE_S)
    first, second = Interrupted.made
    assert doing.request(lambda: done.append(threading.current_thread()))
    threading.Thread.start(first)
    first.join(PATIENCE_S)
    assert (first.is_alive(), done) == (False, [second])
    go_on.set()
    second.join(PATIENCE_S)
    assert done == [second] * 2


def test_a_thread_that_has_started_in_spite_of_an_interrupt_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    doing, done = Doing(LONG_S, manual=False), list[threading.Thread]()
    InterruptedLate.made, InterruptedLate.go_on = [], threading.Event()
    monkeypatch.setattr(worker, "Thread", InterruptedLate)
    for _ in range(2):
        try:
            assert doing.request(lambda: done.append(threading.current_thread()))
        except KeyboardInterrupt:
            pass
    (first,) = InterruptedLate.made
    InterruptedLate.go_on.set()
    first.join(PATIENCE_S)
    assert done == [first] * 2


def test_a_thread_that_is_on_its_way_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    doing, done = Doing(LONG_S, manual=False), list[str]()
    InterruptedLate.made, InterruptedLate.go_on = [], threading.Event()
    monkeypatch.setattr(worker, "Thread", InterruptedLate)
    with pytest.raises(KeyboardInterrupt):
        doing.request(partial(done.append, "work"))
    assert doing.stop(partial(done.append, "last")) is InterruptedLate.made[0]
    InterruptedLate.go_on.set()
    InterruptedLate.made[0].join(PATIENCE_S)
    assert done == ["work", "last"]
    assert doing.stop() is None


def test_a_thread_that_comes_while_there_may_be_none_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    doing, done = Doing(LONG_S, manual=False), list[str]()
    InterruptedLate.made, InterruptedLate.go_on = [], threading.Event()
    monkeypatch.setattr(worker, "Thread", InterruptedLate)
    with pytest.raises(KeyboardInterrupt):
        doing.request(partial(done.append, "work"))
    thread = doing.pause()
    assert thread is not None
    InterruptedLate.go_on.set()
    thread.join(PATIENCE_S)
    assert done == []
    monkeypatch.undo()
    doing.resume()
    doing.ask(partial(done.append, "more"))
    assert done == ["work", "more"]


def test_a_thread_that_has_ended_leaves_its_successor_alone() -> None:
    doing, successor = Doing(LONG_S, manual=False), threading.Thread()
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        doing._thread = successor

    assert doing.request(work)
    until(lambda: threads)
    threads[0].join(PATIENCE_S)
    assert doing._thread is successor
