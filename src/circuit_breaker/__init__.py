"""Circuit breaker, retry and bulkhead for threads, asyncio tasks or both, on the standard library alone.

Where things are, each room importing only from those above it:

======================================  ================================================================
``exceptions``                          the base error, the two refusals, helpers for reports
``_models``, ``_events``                states, modes, outcomes, totals, snapshots; what listeners are told
``_config``, ``_outcomes``              the settings of a breaker; what an exception says
``_window``, ``_periods``, ``_machine``  the state machine, without locks and without waiting
``_core``, ``_permit``, ``_guards``     the lock around it; one admission in hand; streams
``_breaker``                            every way of calling
``_bulkhead``, ``_line``                slots, and those who wait for them
``_backoff``, ``_budget``, ``_attempts``, ``_retry``  delays, tokens, plans, policies
``_decorators``, ``_registry``          the three decorators; one breaker for each key
``testing``                             a clock that stands still, retries that do not wait
``_checks``, ``_fork``, ``_running``, ``_streams``, ``_wrap``, ``_typing``  what they share
======================================  ================================================================
"""

from ._attempts import Attempt
from ._breaker import CircuitBreaker
from ._budget import RetryBudget
from ._bulkhead import Bulkhead
from ._config import CircuitBreakerConfig
from ._decorators import bulkhead, circuit_breaker, retry
from ._events import BulkheadRejected, CallFinished, CallRejected, RetryScheduled, StateChanged
from ._hints import retry_after_hint
from ._models import BulkheadSnapshot, CircuitMode, CircuitSnapshot, CircuitState, CircuitStats, Outcome
from ._permit import Permit
from ._registry import CircuitBreakerRegistry
from ._retry import RetryPolicy
from .exceptions import (
    BulkheadFullError,
    CircuitOpenError,
    CodomyrmexError,
    ResilienceError,
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
    "RetryPolicy",
    "RetryScheduled",
    "StateChanged",
    "bulkhead",
    "circuit_breaker",
    "create_error_context",
    "format_exception_chain",
    "retry",
    "retry_after_hint",
]
