"""FastAPI: a refusal is a 503 that says when to come back, and one page shows all circuits."""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from circuit_breaker import BulkheadFullError, CircuitBreaker, CircuitBreakerConfig, CircuitOpenError

SOON_S, LATE_S = 1, 3600  # when a circuit cannot tell, and the most that is said


def is_failure(error: BaseException) -> bool:
    """Tell whether a dependency failed; an HTTPException below 500 is something to tell the client."""
    return not (isinstance(error, HTTPException) and error.status_code < 500)


CONFIG = CircuitBreakerConfig(failure_exceptions=is_failure)


def install(app: FastAPI) -> None:
    """Let an app answer refusals, wherever in a request they come from, and show its circuits."""
    app.add_exception_handler(CircuitOpenError, refused)
    app.add_exception_handler(BulkheadFullError, refused)
    app.add_api_route("/health/circuits", circuits)


async def refused(request: Request, error: Exception) -> JSONResponse:
    """Answer 503 and when to come back; names of circuits are for the log, not for clients."""
    wait_s = getattr(error, "retry_after_s", None)
    seconds = SOON_S if wait_s is None else math.ceil(min(max(wait_s, SOON_S), LATE_S))
    return JSONResponse({"detail": "unavailable"}, status_code=503, headers={"Retry-After": str(seconds)})


async def circuits() -> dict[str, Any]:
    """Return what this process knows of all its circuits; for operators, not for a liveness probe."""
    snapshots = [breaker.snapshot().to_dict() for breaker in CircuitBreaker.instances()]
    return {"circuits": sorted(snapshots, key=lambda snapshot: str(snapshot["name"]))}
