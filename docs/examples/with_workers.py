"""FastAPI with several workers that share one circuit: `uvicorn with_workers:app --workers 4`."""

from __future__ import annotations

import os
from http.client import HTTPException as BrokenAnswer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

from fastapi import FastAPI, HTTPException
from with_fastapi import install

from circuit_breaker import CircuitBreakerConfig, circuit_breaker
from circuit_breaker.stores import SQLiteStore

RATES = os.environ.get("RATES_URL", "https://rates.example/")
TIMEOUT_S = 5.0  # makes a service that hangs a failure

# The same file in every worker, in a folder that only they can write to.
store = SQLiteStore(os.environ.get("CIRCUITS", "/run/shop/circuits.db"))

app = FastAPI()
install(app)  # an open circuit is a 503 that says when to come back


def is_failure(error: BaseException) -> bool:
    """Return whether the service failed. A status below 500, such as a 404, is an answer of a healthy one.

    URLError, TimeoutError and ConnectionError are OSErrors.
    """
    if isinstance(error, HTTPError):
        return error.code >= 500
    return isinstance(error, (OSError, BrokenAnswer))


CONFIG = CircuitBreakerConfig(failure_exceptions=is_failure, reset_timeout_s=10)


@circuit_breaker("rates", config=CONFIG, store=store)
def ask_for_rate(currency: str) -> str:
    """Ask the service that may fail."""
    with urlopen(RATES + quote(currency, safe=""), timeout=TIMEOUT_S) as answer:
        return str(answer.read().decode("utf-8", "replace"))


@app.get("/rates/{currency}")
def rate(currency: str) -> dict[str, Any]:
    """Answer 502 if the service fails, and 503 without asking it once the circuit is open for all workers."""
    try:
        return {"rate": ask_for_rate(currency), "worker": os.getpid()}
    except HTTPError as error:
        error.close()
        raise HTTPException(404 if error.code == 404 else 502) from error
    except (OSError, BrokenAnswer) as error:
        raise HTTPException(502) from error
