"""FastAPI: a rejection becomes a 503 that says when to come back, and a page shows all circuits of the process."""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from circuit_breaker import BulkheadFullError, CircuitBreaker, CircuitBreakerConfig, CircuitOpenError

SHORTEST_S, LONGEST_S = 1, 3600  # seconds in `Retry-After`: at least (also if the time is not known), and at most


def is_failure(error: BaseException) -> bool:
    """Return whether a dependency failed. An HTTPException below 500 is an answer to pass on to the client."""
    return not (isinstance(error, HTTPException) and error.status_code < 500)


CONFIG = CircuitBreakerConfig(failure_exceptions=is_failure)


def install(app: FastAPI) -> None:
    """Let an app answer 503 when an endpoint raises the rejection of a circuit or a bulkhead."""
    app.add_exception_handler(CircuitOpenError, answer_rejection)
    app.add_exception_handler(BulkheadFullError, answer_rejection)


async def answer_rejection(request: Request, error: Exception) -> JSONResponse:
    """Answer 503 and when to come back. The names of circuits are for the log, not for clients."""
    retry_after_s = getattr(error, "retry_after_s", None) or 0.0
    seconds = math.ceil(min(max(retry_after_s, SHORTEST_S), LONGEST_S))
    return JSONResponse({"detail": "unavailable"}, status_code=503, headers={"Retry-After": str(seconds)})


async def circuits() -> dict[str, Any]:
    """Return all circuits of this process: an endpoint for operators, and not for a liveness probe."""
    snapshots = [breaker.snapshot().to_dict() for breaker in CircuitBreaker.instances()]
    return {"circuits": sorted(snapshots, key=lambda snapshot: str(snapshot["name"]))}
