"""What the comparison in the documentation says about other libraries, each claim shown by running them.

`pip install -e ".[bench]" hyx purgatory`, then `python tests/benchmarks/claims.py`: a line for each claim and library,
with what was seen. Libraries that are not installed are left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import inspect
import logging
import pkgutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, TypeAlias

sys.path.append(str(Path(__file__).parents[1] / "support"))

from failures import Down

OPEN_S = 0.2
PROBERS = 8

Function: TypeAlias = Callable[..., Any]
Guard: TypeAlias = Callable[[Function], Function]


def work() -> str:
    return "done"


def fail() -> None:
    raise Down


async def fail_async() -> None:
    raise Down


# The breakers: how each guards a function, to open after so many failures in a row


def _interlock(it: Any, threshold: int) -> Guard:
    # It knows no streak: half of at least so many calls, which is the same when all of them fail.
    config = it.Config(minimum_number_of_calls=threshold, wait_duration_in_open=OPEN_S, permitted_calls_in_half_open=1)
    guard: Guard = it.CircuitBreaker(name="peer", config=config)
    return guard


def _ours(it: Any, threshold: int) -> Guard:
    guard: Guard = it.CircuitBreaker("peer", it.CircuitBreakerConfig(threshold, 1, OPEN_S, 1))
    return guard


def _purgatory(it: Any, threshold: int) -> Guard:
    guard: Guard = it.SyncCircuitBreakerFactory(threshold, OPEN_S)("peer")
    return guard


def _purgatory_async(it: Any, threshold: int) -> Guard:
    guard: Guard = it.AsyncCircuitBreakerFactory(threshold, OPEN_S)("peer")
    return guard


SYNC: dict[str, tuple[str, Callable[[Any, int], Guard]]] = {
    "aiobreaker": ("aiobreaker", lambda it, n: it.CircuitBreaker(n, timedelta(seconds=OPEN_S))),
    "circuitbreaker": ("circuitbreaker", lambda it, n: it.CircuitBreaker(n, OPEN_S)),
    "circuit-breaker-stdlib": ("circuit_breaker", _ours),
    "interlock-cb": ("interlock", _interlock),
    "purgatory": ("purgatory", _purgatory),
    "pybreaker": ("pybreaker", lambda it, n: it.CircuitBreaker(n, OPEN_S)),
    "pyresilience": (
        "pyresilience",
        lambda it, n: it.resilient(circuit_breaker=it.CircuitBreakerConfig(n, OPEN_S, success_threshold=1)),
    ),
}
ASYNC: dict[str, tuple[str, Callable[[Any, int], Guard]]] = {
    **SYNC,
    "hyx": (
        "hyx.circuitbreaker",
        lambda it, n: it.consecutive_breaker(failure_threshold=n, recovery_time_secs=OPEN_S, recovery_threshold=1),
    ),
    "purgatory": ("purgatory", _purgatory_async),
}
RETRIES = ("backoff", "stamina", "tenacity", "hyx", "pyresilience", "circuit-breaker-stdlib")
DISTRIBUTIONS = tuple(sorted({*SYNC, *ASYNC, *RETRIES}))


def installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def guards(offers: dict[str, tuple[str, Callable[[Any, int], Guard]]], threshold: int) -> Iterator[tuple[str, Guard]]:
    for name, (module, make) in sorted(offers.items()):
        if installed(name):
            yield name, make(importlib.import_module(module), threshold)


def outcome(func: Function, *args: Any) -> str:
    """Return the name of what func raises, or 'value'."""
    try:
        func(*args)
    except BaseException as error:
        return type(error).__name__
    return "value"


def refuses(func: Function) -> bool:
    """Tell whether a guarded func is not even called."""
    return outcome(func) not in ("value", "Down", "CancelledError", "KeyboardInterrupt")


# What is seen when it is done to a breaker; and what is seen by looking: each library, and what it is like


def needs_beside_python() -> Iterator[tuple[str, str]]:
    for name in DISTRIBUTIONS:
        if installed(name):
            needed = [line for line in requires(name) or [] if "extra ==" not in line]
            yield name, f"{version(name)} needs {', '.join(needed) or 'nothing'}"


def the_call_that_opens_it_raises(guard: Guard) -> str:
    guarded = guard(fail)
    return f"{outcome(guarded)}, {outcome(guarded)}, then {outcome(guarded)}"


def a_coroutine_function_is_guarded(guard: Guard) -> str:
    async def calls() -> str:
        seen = []
        guarded = guard(fail_async)
        for _ in range(3):
            try:
                await guarded()
            except Exception as error:
                seen.append(type(error).__name__)
        return ", ".join(seen)

    return asyncio.run(calls())


def one_object_serves_functions_and_coroutine_functions(guard: Guard) -> str:
    outcome(guard(fail))
    outcome(guard(fail))

    async def call() -> None:
        await guard(fail_async)()

    return f"opened by a function; an async def of the same guard then: {outcome(lambda: asyncio.run(call()))}"


def probes_let_through_at_once(guard: Guard) -> str:
    calls, go = [], threading.Event()
    broken = [True]

    def body() -> None:
        if broken[0]:
            raise Down
        calls.append(1)
        go.wait(10)

    guarded = guard(body)
    outcome(guarded)
    broken[0] = False
    time.sleep(OPEN_S * 1.5)
    threads = [threading.Thread(target=outcome, args=(guarded,)) for _ in range(PROBERS)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    seen = len(calls)
    go.set()
    for thread in threads:
        thread.join()
    return f"{seen} of {PROBERS} callers"


def calls_of_four_threads_at_once(guard: Guard) -> str:
    inside, most = [0], [0]

    def body() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        inside[0] -= 1

    guarded = guard(body)
    threads = [threading.Thread(target=guarded) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return f"{most[0]} inside"


def a_success_of_a_call_from_before_the_trip(guard: Guard) -> str:
    begun, go = threading.Event(), threading.Event()

    def body(slow: bool) -> None:
        if not slow:
            raise Down
        begun.set()
        go.wait(10)

    guarded = guard(body)
    thread = threading.Thread(target=outcome, args=(guarded, True))
    thread.start()
    begun.wait(10)
    outcome(guarded, False)
    go.set()
    thread.join()
    again = outcome(guarded, False)
    return "closes it" if again == "Down" else f"leaves it open ({again})"


def a_cancelled_task_is_a_failure(guard: Guard) -> str:
    async def cancelled() -> bool:
        async def hang() -> None:
            await asyncio.Event().wait()

        guarded = guard(hang)
        task = asyncio.ensure_future(guarded())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        second = asyncio.ensure_future(guarded())
        await asyncio.wait([second], timeout=0.05)
        refused = second.done()
        second.cancel()
        await asyncio.wait([second])
        return refused

    return "yes" if asyncio.run(cancelled()) else "no"


def ctrl_c_is_a_failure(guard: Guard) -> str:
    def interrupted() -> None:
        raise KeyboardInterrupt

    guarded = guard(interrupted)
    outcome(guarded)
    return "yes" if refuses(guarded) else "no"


def a_generator_that_fails_half_way_is_a_failure(guard: Guard) -> str:
    def stream() -> Iterator[int]:
        yield 1
        raise Down

    guarded = guard(stream)
    seen = [outcome(lambda: list(guarded())) for _ in range(3)]
    return f"{'no' if seen[2] == 'Down' else 'yes'} ({', '.join(seen)})"


def state_in_redis() -> Iterator[tuple[str, str]]:
    for name, place in {
        "aiobreaker": "aiobreaker.storage.redis",
        "interlock-cb": "interlock.integrations.redis",
        "purgatory": "purgatory.AsyncRedisUnitOfWork",
        "pybreaker": "pybreaker.CircuitRedisStorage",
    }.items():
        if installed(name):
            yield name, _found(place)


def _found(place: str) -> str:
    module, _, attribute = place.rpartition(".")
    try:
        found = hasattr(importlib.import_module(module), attribute) or bool(importlib.util.find_spec(place))
    except (ImportError, AttributeError):
        found = False
    return f"{'there is' if found else 'there is no'} {place}"


def what_else_it_has() -> Iterator[tuple[str, str]]:
    words = ("timeout", "retry", "bulkhead", "fallback", "ratelimiter", "ratelimit", "cache", "hedge")
    for name, module in (("pyresilience", "pyresilience"), ("interlock-cb", "interlock"), ("hyx", "hyx")):
        if installed(name):
            found = importlib.import_module(module)
            names = " ".join(name for name in dir(found) if not name.startswith("_")).lower()
            if name == "hyx":
                names = " ".join(part.name for part in pkgutil.iter_modules(found.__path__))
            yield name, ", ".join(word for word in words if word in names)


def integrations_that_come_with_it() -> Iterator[tuple[str, str]]:
    for name, module in (("interlock-cb", "interlock.integrations"), ("pyresilience", "pyresilience.contrib")):
        if installed(name):
            parts = pkgutil.iter_modules(importlib.import_module(module).__path__)
            yield name, ", ".join(part.name for part in parts if not part.name.startswith("_"))


def settings() -> Iterator[tuple[str, str]]:
    for name, place in {
        "aiobreaker": "aiobreaker.CircuitBreaker",
        "circuit-breaker-stdlib": "circuit_breaker.CircuitBreakerConfig",
        "circuitbreaker": "circuitbreaker.CircuitBreaker",
        "hyx": "hyx.circuitbreaker.consecutive_breaker",
        "interlock-cb": "interlock.Config",
        "purgatory": "purgatory.SyncCircuitBreakerFactory",
        "pybreaker": "pybreaker.CircuitBreaker",
        "pyresilience": "pyresilience.CircuitBreakerConfig",
        "backoff": "backoff.on_exception",
        "stamina": "stamina.retry",
        "tenacity": "tenacity.Retrying",
    }.items():
        if installed(name):
            module, _, kind = place.rpartition(".")
            yield name, ", ".join(inspect.signature(getattr(importlib.import_module(module), kind)).parameters)


def a_retry_that_gives_up_raises() -> Iterator[tuple[str, str]]:
    ways: dict[str, Callable[[Any], Function]] = {
        "backoff": lambda it: it.on_exception(it.constant, Down, max_tries=2, interval=0, jitter=None)(fail),
        "stamina": lambda it: it.retry(on=Down, attempts=2, wait_initial=0, wait_jitter=0)(fail),
        "tenacity": lambda it: it.retry(stop=it.stop_after_attempt(2))(fail),
        "pyresilience": lambda it: it.resilient(retry=it.RetryConfig(max_attempts=2, delay=0.001))(fail),
        "circuit-breaker-stdlib": lambda it: it.retry(1, 0)(fail),
    }
    for name, way in ways.items():
        if installed(name):
            module = "circuit_breaker" if name == "circuit-breaker-stdlib" else name
            yield name, outcome(way(importlib.import_module(module)))


def a_retry_waits_under_trio() -> Iterator[tuple[str, str]]:
    ways: dict[str, Callable[[Any], Function]] = {
        "backoff": lambda it: it.on_exception(it.constant, Down, max_tries=2, interval=0.001, jitter=None)(fail_async),
        "stamina": lambda it: it.retry(on=Down, attempts=2, wait_initial=0.001)(fail_async),
        "tenacity": lambda it: it.retry(stop=it.stop_after_attempt(2), wait=it.wait_fixed(0.001), reraise=True)(
            fail_async
        ),
        "circuit-breaker-stdlib": lambda it: it.retry(1, 0.001)(fail_async),
    }
    import trio

    for name, way in ways.items():
        if installed(name):
            module = "circuit_breaker" if name == "circuit-breaker-stdlib" else name
            seen = outcome(trio.run, way(importlib.import_module(module)))
            yield name, "yes" if seen == "Down" else f"no ({seen})"


# What is done to each breaker: which ones, after how many failures they open, and what is seen.
TRIALS = (
    (SYNC, 2, the_call_that_opens_it_raises),
    (ASYNC, 2, a_coroutine_function_is_guarded),
    (SYNC, 2, one_object_serves_functions_and_coroutine_functions),
    (SYNC, 1, probes_let_through_at_once),
    (SYNC, 5, calls_of_four_threads_at_once),
    (SYNC, 1, a_success_of_a_call_from_before_the_trip),
    (ASYNC, 1, a_cancelled_task_is_a_failure),
    (SYNC, 1, ctrl_c_is_a_failure),
    (SYNC, 2, a_generator_that_fails_half_way_is_a_failure),
)
LOOKS = (
    needs_beside_python,
    settings,
    state_in_redis,
    what_else_it_has,
    integrations_that_come_with_it,
    a_retry_that_gives_up_raises,
    a_retry_waits_under_trio,
)


def main() -> None:
    logging.disable()
    for offers, threshold, trial in TRIALS:
        show(trial, ((name, trial(guard)) for name, guard in guards(offers, threshold)))
    for look in LOOKS:
        show(look, look())


def show(claim: Function, seen: Iterable[tuple[str, str]]) -> None:
    print(f"\n{claim.__name__.replace('_', ' ')}")
    for name, evidence in seen:
        print(f"  {name:<24}{evidence}")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
