"""Circuit breaker, retry and bulkhead for threads and tasks, on the standard library alone.

Where things are. A folder imports only from those above it, and the three patterns never import one another:

==================  ====================================================================================
``exceptions``      the base error, the two rejections, helpers for reports
``_common``         what the patterns share: states and outcomes, checks, judging, events, streams, forks
``_breaker``        the circuit breaker, and the registry with one breaker for each key
``_retry``          the retry policy, its delays and its budget
``_bulkhead``       the bulkhead and its queue
``_shared``         circuits that processes share: the record in the store, and the thread that reads it
``stores``          the stores for shared circuits: SQLite, Redis, memory
``testing``         a clock that is moved by hand, retries that do not sleep, a check for stores
``insight``         a log of calls, and settings that are derived from it
``console``         a page and a terminal view of shared circuits, and orders for them
``_terminal``       what the commands share: arguments, marks, colours
``_demo``           the demonstration
``__main__``        `python -m circuit_breaker`: the demonstration and all commands
==================  ====================================================================================
"""

import typing as _typing

if _typing.TYPE_CHECKING:
    from ._breaker.breaker import CircuitBreaker
    from ._breaker.config import CircuitBreakerConfig
    from ._breaker.decorator import circuit_breaker
    from ._breaker.permit import Permit
    from ._breaker.registry import CircuitBreakerRegistry
    from ._breaker.rules import WindowCounts
    from ._breaker.totals import CircuitSnapshot, CircuitStats
    from ._bulkhead.bulkhead import Bulkhead
    from ._bulkhead.decorator import bulkhead
    from ._bulkhead.snapshot import BulkheadSnapshot
    from ._common.events import BulkheadRejected, CallFinished, CallRejected, RetryGaveUp, RetryScheduled, StateChanged
    from ._common.retry_after import retry_after_hint
    from ._common.words import CircuitMode, CircuitState, Outcome
    from ._retry.budget import RetryBudget
    from ._retry.decorator import retry
    from ._retry.loop import Attempt
    from ._retry.policy import RetryPolicy
    from ._retry.totals import RetrySnapshot
    from .exceptions import (
        BulkheadFullError,
        CircuitOpenError,
        CodomyrmexError,
        ResilienceError,
        UsageError,
        create_error_context,
        format_exception_chain,
    )

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "Bulkhead",
    "BulkheadFullError",
    "BulkheadRejected",
    "BulkheadSnapshot",
    "CallFinished",
    "CallRejected",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerRegistry",
    "CircuitMode",
    "CircuitOpenError",
    "CircuitSnapshot",
    "CircuitState",
    "CircuitStats",
    "CodomyrmexError",
    "Outcome",
    "Permit",
    "ResilienceError",
    "RetryBudget",
    "RetryGaveUp",
    "RetryPolicy",
    "RetryScheduled",
    "RetrySnapshot",
    "StateChanged",
    "UsageError",
    "WindowCounts",
    "bulkhead",
    "circuit_breaker",
    "create_error_context",
    "format_exception_chain",
    "retry",
    "retry_after_hint",
]

# Where each public name is. A module is loaded when the first of its names is asked for, so that a program which only
# retries does not load the circuit breaker.
_MODULES = {
    "_breaker.breaker": ("CircuitBreaker",),
    "_breaker.config": ("CircuitBreakerConfig",),
    "_breaker.decorator": ("circuit_breaker",),
    "_breaker.permit": ("Permit",),
    "_breaker.registry": ("CircuitBreakerRegistry",),
    "_breaker.rules": ("WindowCounts",),
    "_breaker.totals": ("CircuitSnapshot", "CircuitStats"),
    "_bulkhead.bulkhead": ("Bulkhead",),
    "_bulkhead.decorator": ("bulkhead",),
    "_bulkhead.snapshot": ("BulkheadSnapshot",),
    "_common.events": (
        "BulkheadRejected",
        "CallFinished",
        "CallRejected",
        "RetryGaveUp",
        "RetryScheduled",
        "StateChanged",
    ),
    "_common.retry_after": ("retry_after_hint",),
    "_common.words": ("CircuitMode", "CircuitState", "Outcome"),
    "_retry.budget": ("RetryBudget",),
    "_retry.decorator": ("retry",),
    "_retry.loop": ("Attempt",),
    "_retry.policy": ("RetryPolicy",),
    "_retry.totals": ("RetrySnapshot",),
    "exceptions": (
        "BulkheadFullError",
        "CircuitOpenError",
        "CodomyrmexError",
        "ResilienceError",
        "UsageError",
        "create_error_context",
        "format_exception_chain",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


if not _typing.TYPE_CHECKING:

    def __getattr__(name):
        if name not in _HOMES and name != "exceptions":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        if name == "exceptions":  # type checkers see it imported above
            return import_module(f"{__name__}.exceptions")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "exceptions"})
