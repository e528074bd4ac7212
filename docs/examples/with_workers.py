"""FastAPI with several workers that share one circuit: `uvicorn with_workers:app --workers 4`."""

from __future__ import annotations

import os
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from fastapi import FastAPI, HTTPException
from with_fastapi import install

from circuit_breaker import circuit_breaker
from circuit_breaker.stores import SQLiteStore

RATES = os.environ.get("RATES_URL", "https://rates.example/")
store = SQLiteStore(os.environ.get("CIRCUITS", "/var/tmp/circuits.db"))

app = FastAPI()
install(app)  # an open circuit is a 503 that says when to come back


@circuit_breaker("rates", reset_timeout_s=10, store=store)
def ask_for_rate(currency: str) -> str:
    """Ask the service that may fail; the time-out is what makes a hanging one a failure."""
    with urlopen(RATES + currency, timeout=5) as answer:
        return str(answer.read().decode())


@app.get("/rates/{currency}")
def rate(currency: str) -> dict[str, Any]:
    """Answer 502 if the service fails, and 503 without asking it once the circuit is open for all workers."""
    try:
        return {"rate": ask_for_rate(currency), "worker": os.getpid()}
    except URLError as error:
        raise HTTPException(502) from error
