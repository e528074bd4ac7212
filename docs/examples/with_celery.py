"""Celery: a task that meets an open circuit waits in the queue, not in a worker, and comes back when it may pass."""

from __future__ import annotations

from random import uniform
from typing import Any

from celery import Task

from circuit_breaker import CircuitOpenError


class CircuitTask(Task):  # type: ignore[misc] # Celery has no types
    """A base for tasks: an open circuit is no failure of the task, which is queued again for later.

    The message is sent anew with the arguments it came with. They are serialized already, so they are the same.
    """

    max_waits = 100  # in place of max_retries, which is for failures of the task itself
    wait_s = 30.0  # when the circuit cannot tell: it is half-open, or forced open

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.run(*args, **kwargs)
        except CircuitOpenError as refusal:
            wait_s = refusal.retry_after_s or self.wait_s
            # Not all at once: the half-open circuit will admit a few.
            countdown = uniform(1.0, 1.5) * wait_s
            raise self.retry(exc=refusal, countdown=countdown, max_retries=self.max_waits) from refusal
