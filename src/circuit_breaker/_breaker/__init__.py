"""The circuit breaker: its rules and states, the lock around them, and every way of calling."""
