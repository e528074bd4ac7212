"""What a store may do to processes: hang, die, forget, lie, be locked, be full. Real processes, real stores."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failures import Down
from redis_server import RedisServer

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, CircuitState
from circuit_breaker.stores import RedisStore, SQLiteStore

CONTEXT = multiprocessing.get_context("fork")


class Process:
    """A process with a breaker, which does what it is told, one thing after another."""

    def __init__(
        self, make_store: Callable[[], Any], before: Callable[[], object] = int, reset_timeout_s: float = 1.0
    ) -> None:
        self._reset_timeout_s = reset_timeout_s
        self._pipe, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=self._serve, args=(other, make_store, before), daemon=True)
        self.process.start()

    def _serve(self, pipe: Any, make_store: Callable[[], Any], before: Callable[[], object]) -> None:
        before()
        self.store = make_store()
        config = CircuitBreakerConfig(failure_threshold=3, reset_timeout_s=self._reset_timeout_s, half_open_max_calls=1)
        self.breaker = CircuitBreaker("server", config, store=self.store)
        self.permits: list[Any] = []
        while True:
            name, *arguments = pipe.recv()
            if name == "end":
                break
            pipe.send(getattr(self, f"_{name}")(*arguments))

    def ask(self, name: str, *arguments: Any) -> Any:
        self._pipe.send((name, *arguments))
        return self._pipe.recv()

    def end(self) -> None:
        self._pipe.send(("end",))
        self.process.join(10)

    def kill(self) -> None:
        os.kill(self.process.pid or 0, signal.SIGKILL)
        self.process.join()

    # What it is told, in the process

    def _call_for(self, seconds: float, fails: bool) -> tuple[float, list[str], int]:
        """Call again and again; return the longest wait of a call, what it raised that it must not, and how often."""

        def body() -> None:
            if fails:
                raise Down

        longest, wrong, calls, ends_at = 0.0, [], 0, time.monotonic() + seconds
        while (began := time.monotonic()) < ends_at:
            try:
                self.breaker.call(body)
            except (Down, CircuitOpenError):
                pass
            except BaseException as error:
                wrong.append(repr(error))
            longest, calls = max(longest, time.monotonic() - began), calls + 1
            time.sleep(0.005)
        return longest, wrong, calls

    def _take(self) -> bool:
        try:
            self.permits.append(self.breaker.permit())
        except CircuitOpenError:
            return False
        return True

    def _open_for(self) -> str | None:
        shared = self.breaker.snapshot().shared
        return None if shared is None else shared.open_for

    def _state(self) -> tuple[str, str]:
        snapshot = self.breaker.snapshot()
        return snapshot.state.value, snapshot.shared.link if snapshot.shared else ""

    def _order(self, name: str) -> str:
        try:
            getattr(self.store, name)("server")
        except Exception as error:
            return repr(error)
        return ""


@dataclass(frozen=True)
class Finding:
    """What a fault did.

    Attributes:
        closed_s: the longest that a call waited while the circuit was closed, and `open_s` while it was open or probed.
        wrong: what calls raised that they must not.
        away: whether the process noticed.
        right_after_s: seconds after the end of the fault until an order reached both processes.
    """

    closed_s: float
    open_s: float
    wrong: list[str]
    away: bool
    right_after_s: float


Act = Callable[[Sequence[int]], object]  # on the processes with these ids


def nothing(pids: Sequence[int]) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Fault:
    """What happens to a store.

    Attributes:
        make_store: called in each process.
        begin, end: let it come and go, in a process that is not among them.
        noticed: whether the processes are on their own meanwhile.
        before: called in each process first.
    """

    name: str
    make_store: Callable[[], Any]
    begin: Act
    end: Act = nothing
    noticed: bool = True
    before: Callable[[], object] = int


def suffer(fault: Fault, lasts_s: float) -> Finding:
    """Let two processes share a circuit while a fault comes and goes."""
    one, _ = both = [Process(fault.make_store, fault.before) for _ in range(2)]
    pids = [process.process.pid or 0 for process in both]
    for process in both:
        process.ask("call_for", 2.0, False)
    fault.begin(pids)
    closed = one.ask("call_for", lasts_s / 2, False)
    opened = one.ask("call_for", lasts_s / 2, True)
    away = one.ask("state")[1] == "away"
    fault.end(pids)
    wrong = [*closed[1], *opened[1]]
    right_after_s, began, ordered = float("inf"), time.monotonic(), False
    while time.monotonic() < began + 40.0:
        ordered = ordered or one.ask("order", "reset") == ""
        for process in both:
            wrong += process.ask("call_for", 0.1, False)[1]
        if ordered and all(process.ask("state") == ("closed", "joined") for process in both):
            right_after_s = time.monotonic() - began
            break
    for process in both:
        process.end()
    return Finding(closed[0], opened[0], wrong, away, right_after_s)


# Faults of Redis


def redis_faults(server: RedisServer) -> list[Fault]:
    """Return what may happen to a server."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    def usual() -> RedisStore:
        return RedisStore(redis.Redis(port=server.port, socket_timeout=0.25, retry=Retry(NoBackoff(), 0)))

    def slow_client() -> RedisStore:
        return RedisStore(redis.Redis(port=server.port, socket_timeout=5.0))  # and ten attempts

    def never_ending_client() -> RedisStore:
        client = redis.Redis(port=server.port, socket_timeout=0.25)
        store = RedisStore(client)
        client.connection_pool.connection_kwargs["socket_timeout"] = None  # which nobody has seen
        return store

    def hang(pids: Sequence[int]) -> None:
        server.freeze()

    def go_on(pids: Sequence[int]) -> None:
        server.thaw()

    def kill(pids: Sequence[int]) -> None:
        server.kill()

    def start(pids: Sequence[int]) -> None:
        server.start()

    def flush(pids: Sequence[int]) -> None:
        redis.Redis(port=server.port).flushall()

    def spoil(pids: Sequence[int]) -> None:
        client = redis.Redis(port=server.port)
        for key in client.keys("*"):
            client.delete(key)
            client.set(key, "garbage" * 1_000)

    return [
        Fault("Redis hangs", usual, hang, go_on),
        Fault("Redis hangs, a client with a time-out of 5 s and ten attempts", slow_client, hang, go_on),
        Fault("Redis hangs, a client without a time-out", never_ending_client, hang, go_on),
        Fault("Redis is killed, and comes back empty", usual, kill, start),
        Fault("Redis is flushed", usual, flush, noticed=False),
        Fault("all keys become garbage", usual, spoil, flush),
    ]


# Faults of a file


def sqlite_faults(folder: Path) -> list[Fault]:
    """Return what may happen to a file; `folder` belongs to everybody."""
    path = folder / "circuits.db"
    locks: list[sqlite3.Connection] = []

    def usual() -> SQLiteStore:
        return SQLiteStore(path)

    def delete(pids: Sequence[int] = ()) -> None:
        for each in folder.glob("circuits.db*"):
            each.unlink()

    def replace(pids: Sequence[int]) -> None:
        delete()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE mine (x)")

    def lock(pids: Sequence[int]) -> None:
        locks.append(sqlite3.connect(path, isolation_level=None, timeout=5.0))
        locks[-1].execute("BEGIN IMMEDIATE")

    def unlock(pids: Sequence[int]) -> None:
        locks.pop().close()

    def spoil(pids: Sequence[int]) -> None:
        delete()
        path.write_bytes(os.urandom(20_000))

    def fill(pids: Sequence[int]) -> None:
        """Let no file of these processes grow, as on a disk that is full."""
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def empty(pids: Sequence[int]) -> None:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def protect(pids: Sequence[int]) -> None:
        delete()
        path.touch()
        path.chmod(0o444)
        folder.chmod(0o555)

    def free(pids: Sequence[int]) -> None:
        folder.chmod(0o777)
        path.chmod(0o666)

    return [
        Fault("the file is deleted", usual, delete, noticed=False),
        Fault("the file is replaced by another database", usual, replace, noticed=False),
        Fault("the file is locked", usual, lock, unlock),
        Fault("the file becomes garbage", usual, spoil, delete),
        Fault("the disk is full", usual, fill, empty),
        Fault("the file is replaced by one that is read-only", usual, protect, free, before=be_nobody),
    ]


def be_nobody() -> None:
    """Give up the rights of root, who may write everywhere."""
    if os.geteuid() == 0:
        os.setegid(65_534)
        os.seteuid(65_534)


# The holder of the only lease


def killed_holder(make_store: Callable[[], Any]) -> float:
    """Return the seconds until another process may probe, after the one that held the only lease was killed."""
    holder, other = both = [Process(make_store, reset_timeout_s=5.0) for _ in range(2)]
    for process in both:
        process.ask("call_for", 2.5, False)
    for process in both:
        process.ask("call_for", 0.1, True)
    while not all(process.ask("open_for") == "all" for process in both):
        time.sleep(0.05)
    while not holder.ask("take"):
        time.sleep(0.05)
    if holder.ask("state")[0] != CircuitState.HALF_OPEN.value or other.ask("take"):
        raise AssertionError("there was no probe, or a second one")
    holder.kill()
    began = time.monotonic()
    while not other.ask("take"):
        threading.Event().wait(0.02)
    waited_s = time.monotonic() - began
    other.end()
    return waited_s
