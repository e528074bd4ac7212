"""Circuit breaker, retry and bulkhead."""

__version__ = "0.1.0"
