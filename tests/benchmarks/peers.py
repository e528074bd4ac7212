"""The other libraries, as far as they are installed: each with the same threshold, no logging, and its own defaults.

Each function returns, by the name of its distribution, what the peers have to offer for one use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Any, TypeVar

from floors import CoroutineFunction, Function

MODULES = {
    "aiobreaker": "aiobreaker",
    "backoff": "backoff",
    "circuitbreaker": "circuitbreaker",
    "interlock-cb": "interlock",
    "pybreaker": "pybreaker",
    "pyresilience": "pyresilience",
    "stamina": "stamina",
    "tenacity": "tenacity",
}
THRESHOLD = 5
NEVER = 1_000_000_000  # as a threshold
OPEN_S = 3600.0  # open for longer than any measurement lasts
SECONDS = timedelta(seconds=1)

_T = TypeVar("_T")


def versions() -> dict[str, str]:
    """Return the versions of those that are installed."""
    found: dict[str, str] = {}
    for name in MODULES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def places() -> list[str]:
    """Return the folders that they are imported from."""
    return sorted({str(distribution(name).locate_file("")) for name in versions()})


def breakers(func: Function, threshold: int = THRESHOLD) -> dict[str, Function]:
    """Return func under the breaker of each peer, which stays closed below so many failures in a row.

    interlock-cb has no such rule: by default it opens at half of at least ten calls, which is as many failures.
    """
    enough = {"minimum_number_of_calls": threshold} if threshold > THRESHOLD else {}
    return _of_the_installed(
        {
            "aiobreaker": lambda it: it.CircuitBreaker(threshold, OPEN_S * SECONDS)(func),
            "circuitbreaker": lambda it: it.CircuitBreaker(threshold, OPEN_S)(func),
            "interlock-cb": lambda it: _interlock(it, wait_duration_in_open=OPEN_S, **enough)(func),
            "pybreaker": lambda it: it.CircuitBreaker(threshold, OPEN_S)(func),
            "pyresilience": lambda it: _pyresilience(it, failure_threshold=threshold, recovery_timeout=OPEN_S)(func),
        }
    )


def async_breakers(func: CoroutineFunction) -> dict[str, CoroutineFunction]:
    """Return the coroutine function under the breaker of each peer; pybreaker's needs tornado."""
    found = breakers(func)
    found.pop("pybreaker", None)
    return found


def windows_of_calls(func: Function, calls: int) -> dict[str, Function]:
    """Return func under each breaker that looks at a rate among the last so many calls."""
    return _of_the_installed(
        {
            "interlock-cb": lambda it: _interlock(it, window_size=calls)(func),
            "pyresilience": lambda it: _pyresilience(it, sliding_window_size=calls)(func),
        }
    )


def windows_of_time(func: Function, seconds: int) -> dict[str, Function]:
    """Return func under each breaker that looks at a rate in the last so many seconds."""
    return _of_the_installed(
        {
            "interlock-cb": lambda it: _interlock(it, window_type=it.WindowType.TIME_BASED, window_size=seconds)(func),
        }
    )


def blocks() -> dict[str, AbstractContextManager[object]]:
    """Return a guard to enter by `with`; circuitbreaker's never rejects."""
    return _of_the_installed({"circuitbreaker": lambda it: it.CircuitBreaker(THRESHOLD), "interlock-cb": _interlock})


def new_blocks() -> dict[str, Callable[[], AbstractContextManager[object]]]:
    """Return what makes a guard for one `with`."""
    return _of_the_installed({"pybreaker": lambda it: it.CircuitBreaker(THRESHOLD).calling})


def async_blocks() -> dict[str, AbstractAsyncContextManager[object]]:
    """Return a guard to enter by `async with`."""
    return _of_the_installed({"interlock-cb": _interlock})


def retries(func: Function) -> dict[str, Function]:
    """Return func under four attempts with exponential backoff, for any Exception."""
    return _of_the_installed(
        {
            "backoff": lambda it: it.on_exception(it.expo, Exception, max_tries=4, logger=None)(func),
            "pyresilience": lambda it: it.resilient(retry=it.RetryConfig(max_attempts=4))(func),
            "stamina": lambda it: it.retry(on=Exception, attempts=4)(func),
            "tenacity": lambda it: it.retry(stop=it.stop_after_attempt(4), wait=it.wait_exponential())(func),
        }
    )


def bulkheads(func: Function, slots: int) -> dict[str, Function]:
    """Return func under so many slots and no line."""
    return _of_the_installed(
        {
            "interlock-cb": lambda it: it.Pipeline(it.BulkheadStrategy(slots))(func),
            "pyresilience": lambda it: it.resilient(bulkhead=it.BulkheadConfig(slots))(func),
        }
    )


def async_bulkheads(func: CoroutineFunction, slots: int) -> dict[str, CoroutineFunction]:
    """Return the coroutine function under so many slots, for which callers wait."""
    return _of_the_installed(
        {
            "interlock-cb": lambda it: it.Pipeline(it.BulkheadStrategy(slots, max_wait=OPEN_S))(func),
            "pyresilience": lambda it: it.resilient(bulkhead=it.BulkheadConfig(slots, OPEN_S))(func),
        }
    )


def makers() -> dict[str, Callable[[], object]]:
    """Return what makes one breaker, of a shared configuration where there is such a thing."""

    def interlock(it: Any) -> Callable[[], object]:
        return partial(it.CircuitBreaker, name="peer", config=it.Config())

    return _of_the_installed(
        {
            "aiobreaker": lambda it: it.CircuitBreaker,
            "circuitbreaker": lambda it: partial(it.CircuitBreaker, name="peer"),
            "interlock-cb": interlock,
            "pybreaker": lambda it: it.CircuitBreaker,
            "pyresilience": lambda it: partial(it.CircuitBreaker, it.CircuitBreakerConfig()),
        }
    )


def _interlock(it: Any, **settings: Any) -> Any:
    return it.CircuitBreaker(name="peer", config=it.Config(**settings))


def _pyresilience(it: Any, **settings: Any) -> Any:
    return it.resilient(circuit_breaker=it.CircuitBreakerConfig(**settings))


def _of_the_installed(offers: dict[str, Callable[[Any], _T]]) -> dict[str, _T]:
    installed = versions()
    return {name: offer(importlib.import_module(MODULES[name])) for name, offer in offers.items() if name in installed}
