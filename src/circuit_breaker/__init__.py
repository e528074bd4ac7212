"""Circuit breaker, retry and bulkhead for threads, asyncio tasks or both, on the standard library alone.

Where things are. Each folder imports only from those above it, and the three patterns never from one another:

==================  ====================================================================================
``exceptions``      the base error, the two rejections, helpers for reports
``_common``         what the patterns share: states and outcomes, checks, judging, events, streams, forks
``_breaker``        the circuit breaker, and the registry of one for each key
``_retry``          the retry policy, its delays and its budget
``_bulkhead``       the bulkhead and the line of those who wait
``_decorators``     the three decorators
``testing``         a clock that stands still, retries that do not wait
``_demo``           what `python -m circuit_breaker` shows
==================  ====================================================================================
"""

from ._breaker.breaker import CircuitBreaker
from ._breaker.config import CircuitBreakerConfig
from ._breaker.permit import Permit
from ._breaker.registry import CircuitBreakerRegistry
from ._breaker.rules import WindowCounts
from ._breaker.totals import CircuitSnapshot, CircuitStats
from ._bulkhead.bulkhead import Bulkhead
from ._bulkhead.snapshot import BulkheadSnapshot
from ._common.events import BulkheadRejected, CallFinished, CallRejected, RetryGaveUp, RetryScheduled, StateChanged
from ._common.retry_after import retry_after_hint
from ._common.words import CircuitMode, CircuitState, Outcome
from ._decorators import bulkhead, circuit_breaker, retry
from ._retry.budget import RetryBudget
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
