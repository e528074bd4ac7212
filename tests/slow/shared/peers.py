"""Compare shared circuits over one Redis: `.venv/bin/python tests/slow/shared/peers.py`.

Needs a `redis-server` and the extras `test` and `bench`. Each library runs in processes of its own, with the same
settings as far as it has them: five failures open a circuit for a second, and one probe at once closes it.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

sys.path.append(str(Path(__file__).parents[2] / "support"))

import redis
from failures import Down
from redis_server import RedisServer

CALLS, PROCESSES, OPEN_S, PROBE_S, SETTLED_S = 3_000, 8, 1.0, 1.0, 3.0
FORK = multiprocessing.get_context("fork")

Call: TypeAlias = Callable[[Callable[[], object]], object]  # one through the breaker


def client(port: int) -> Any:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis(port=port, socket_timeout=0.25, socket_connect_timeout=0.25, retry=Retry(NoBackoff(), 0))


def ours(port: int) -> Call:
    from circuit_breaker import CircuitBreaker, CircuitBreakerConfig
    from circuit_breaker.stores import RedisStore

    config = CircuitBreakerConfig(reset_timeout_s=OPEN_S, half_open_max_calls=1, success_threshold=1)
    call: Call = CircuitBreaker("api", config, store=RedisStore(client(port))).call
    return call


def pybreaker(port: int) -> Call:
    import pybreaker

    storage = pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client(port), namespace="api")
    call: Call = pybreaker.CircuitBreaker(5, OPEN_S, state_storage=storage).call
    return call


def interlock(port: int) -> Call:
    import interlock
    from interlock.integrations.redis import RedisStorage

    config = interlock.Config(
        minimum_number_of_calls=5, permitted_calls_in_half_open=1, wait_duration_in_open=OPEN_S, window_size=10
    )
    call: Call = interlock.CircuitBreaker(name="api", config=config, storage=RedisStorage(client(port))).call
    return call


def outcome(call: Call, body: Callable[[], object]) -> str:
    """Make one call, and return what came of it."""
    try:
        call(body)
    except Down:
        return "failed"
    except Exception as error:
        return type(error).__name__
    return "ok"


def fail() -> None:
    raise Down


def successes(make: Callable[[int], Call], port: int, told: Any) -> None:
    """Tell the commands and microseconds of a successful call."""
    call, server = make(port), redis.Redis(port=port)
    call(int)
    before = server.info()["total_commands_processed"]
    began = time.perf_counter()
    for _ in range(CALLS):
        call(int)
    took_s = time.perf_counter() - began
    commands = server.info()["total_commands_processed"] - before - 1
    told.put((commands / CALLS, took_s / CALLS * 1e6))


def probe(make: Callable[[int], Call], port: int, barrier: Any, inside: Any, most: Any) -> None:
    """Fail until the circuit is open, and come back when its time is over, together with the others."""
    call = make(port)
    outcome(call, int)
    barrier.wait()
    for _ in range(6):
        outcome(call, fail)
    barrier.wait()
    time.sleep(OPEN_S + SETTLED_S)
    barrier.wait()

    def body() -> None:
        with inside.get_lock(), most.get_lock():
            inside.value += 1
            most.value = max(most.value, inside.value)
        time.sleep(PROBE_S)
        with inside.get_lock():
            inside.value -= 1

    ends_at = time.monotonic() + PROBE_S / 2
    while time.monotonic() < ends_at and outcome(call, body) != "ok":
        time.sleep(0.02)


def without_server(make: Callable[[int], Call], port: int, ready: Any, gone: Any, told: Any) -> None:
    """Tell what calls meet when the server has gone."""
    call = make(port)
    outcome(call, int)
    ready.set()
    gone.wait()
    began = time.perf_counter()
    found = [outcome(call, int) for _ in range(20)]
    took_s = (time.perf_counter() - began) / 20
    failing = [outcome(call, fail) for _ in range(20)]
    told.put(
        (
            sorted(set(found)),
            took_s * 1e3,
            "opens" if "ok" not in failing and failing[-1] != "failed" else "does not open",
        )
    )


def main() -> None:
    for name, make in (("this library", ours), ("pybreaker", pybreaker), ("interlock-cb", interlock)):
        told = FORK.Queue()
        with RedisServer() as server:
            process = FORK.Process(target=successes, args=(make, server.port, told))
            process.start()
            commands, micros = told.get()
            process.join()
        with RedisServer() as server:
            barrier, inside, most = FORK.Barrier(PROCESSES), FORK.Value("i", 0), FORK.Value("i", 0)
            arguments = (make, server.port, barrier, inside, most)
            processes = [FORK.Process(target=probe, args=arguments) for _ in range(PROCESSES)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
        with RedisServer() as server:
            ready, gone = FORK.Event(), FORK.Event()
            process = FORK.Process(target=without_server, args=(make, server.port, ready, gone, told))
            process.start()
            ready.wait()
            server.kill()
            gone.set()
            found, millis, opens = told.get()
            process.join()
        print(
            f"{name}: {commands:.3f} commands and {micros:.1f} us a success, at most {most.value} probes of "
            f"{PROCESSES} processes at once; without the server calls are {found} in {millis:.2f} ms, and it {opens}",
            flush=True,
        )


if __name__ == "__main__":
    main()
