"""Celery: a task that meets an open circuit goes back into the queue, and comes back when the circuit may admit it."""

from __future__ import annotations

from random import uniform
from typing import Any

from celery import Task
from celery.exceptions import Retry

from circuit_breaker import BulkheadFullError, CircuitOpenError


class CircuitTask(Task):  # type: ignore[misc] # Celery has no types
    """A base for tasks. If a circuit or a bulkhead rejects a call, the task does not fail: it waits in the queue.

    The waits are counted apart from the retries of the task, so `max_retries` and `autoretry_for` work as ever.
    """

    dont_autoretry_for = (CircuitOpenError, BulkheadFullError)
    max_waits = 100  # then the task fails, with the rejection
    wait_s = 30.0  # if it is not known when the circuit will admit calls again: it is half-open, or forced open
    longest_wait_s = 900.0  # ask again after so long at the latest; keep Redis' `visibility_timeout` twice as long

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.run(*args, **kwargs)
        except (CircuitOpenError, BulkheadFullError) as rejection:
            headers = self.request.headers or {}
            waits = headers.get("circuit_waits", 0)
            if self.request.called_directly or waits >= self.max_waits:
                raise
            # Not all tasks at once: the half-open circuit admits only a few calls.
            countdown = uniform(1.0, 1.5) * self._seconds(rejection)
            again = self.signature_from_request(countdown=countdown, headers={**headers, "circuit_waits": waits + 1})
            if not self.request.is_eager:
                again.apply_async()
            raise Retry(exc=rejection, when=countdown, is_eager=self.request.is_eager, sig=again) from rejection

    def _seconds(self, rejection: Exception) -> float:
        seconds = getattr(rejection, "retry_after_s", None) or self.wait_s
        return min(seconds, self.longest_wait_s)
