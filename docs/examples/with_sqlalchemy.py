"""SQLAlchemy: transactions through a breaker; a database that is locked or gone is a failure, and little else is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, RetryPolicy

T = TypeVar("T")


def is_failure(error: BaseException) -> bool:
    """Tell whether the database could not: locked, gone, disk full. For these, drivers raise an OperationalError.

    SQLite raises it for a table that does not exist as well, with a code that says so.
    """
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return isinstance(error, OperationalError) and (code is None or code & 0xFF != sqlite3.SQLITE_ERROR)


CONFIG = CircuitBreakerConfig(
    failure_exceptions=is_failure,  # what else is raised is an answer: a constraint, a missing table
    ignored_exceptions=PoolTimeoutError,  # our own connections are all in use
)
RETRIES = RetryPolicy(retryable_exceptions=is_failure, max_elapsed_s=10)


class DatabaseCircuitOpenError(CircuitOpenError, SQLAlchemyError):
    """The circuit of the database is open; whoever handles SQLAlchemyError handles this, too."""


class Database:
    """Runs pieces of work, each in a transaction of its own, through a breaker and retries around it."""

    def __init__(self, engine: Engine, breaker: CircuitBreaker, retries: RetryPolicy = RETRIES) -> None:
        self._engine = engine
        self._breaker = breaker
        self._retries = retries

    def run(self, work: Callable[[Session], T]) -> T:
        """Run `work(session)` and commit; if the database could not, all of it is rolled back and run once more.

        So the work should do nothing but talk to its session, and return plain values.
        """

        def transaction() -> T:
            with Session(self._engine) as session, session.begin():
                return work(session)

        try:
            return self._retries.call(self._breaker.call, transaction)
        except CircuitOpenError as refusal:
            error = DatabaseCircuitOpenError(refusal.message)
            vars(error).update(vars(refusal))
            raise error from None
