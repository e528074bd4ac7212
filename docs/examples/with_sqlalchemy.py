"""SQLAlchemy: transactions through a breaker; a database that is locked or gone is a failure, and little else is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, RetryPolicy

T = TypeVar("T")

# SQLSTATE of a serialization failure and of a deadlock, and the number that MySQL has for a deadlock
CONFLICTS = ("40001", "40P01", 1213)


def is_conflict(error: BaseException) -> bool:
    """Return whether the database gave up this transaction in favour of another. It is healthy, and may be asked again.

    The drivers raise an OperationalError for it, as they do when the database is gone; only its code tells.
    """
    original = getattr(error, "orig", None)
    codes = [getattr(original, name, None) for name in ("sqlstate", "pgcode")]
    return any(code in CONFLICTS for code in (*codes, *getattr(original, "args", ())[:1]))


def is_failure(error: BaseException) -> bool:
    """Return whether the database could not do it: it is locked, gone, or its disk is full.

    The drivers raise an OperationalError then. That of SQLite for a table that does not exist has a code that says so.
    """
    if not isinstance(error, DBAPIError) or is_conflict(error):
        return False
    if error.connection_invalidated:  # SQLAlchemy has seen that the connection is gone
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    return isinstance(error, OperationalError) and (code is None or code & 0xFF != sqlite3.SQLITE_ERROR)


def is_retryable(error: BaseException) -> bool:
    """Return whether the transaction may succeed when it is run again."""
    return is_failure(error) or is_conflict(error)


CONFIG = CircuitBreakerConfig(
    failure_exceptions=is_failure,  # anything else is an answer: a constraint, a missing table, a conflict
    ignored_exceptions=PoolTimeoutError,  # all connections of our own pool are in use
)
RETRIES = RetryPolicy(max_retries=3, max_elapsed_s=5.0, retryable_exceptions=is_retryable)


class DatabaseCircuitOpenError(CircuitOpenError, SQLAlchemyError):
    """The circuit of the database is open. Handlers of SQLAlchemyError catch it, too."""


class Database:
    """Runs pieces of work, each in a transaction of its own, through a breaker, with retries around it."""

    def __init__(self, engine: Engine, breaker: CircuitBreaker, retries: RetryPolicy = RETRIES) -> None:
        self._engine = engine
        self._breaker = breaker
        self._retries = retries

    def run(self, work: Callable[[Session], T]) -> T:
        """Run `work(session)` and commit. If the database could not do it, roll back all of it and run it again.

        So the work should use its session and nothing else, and return plain values.
        """

        @wraps(work)  # log lines and events name the work
        def transaction() -> T:
            with Session(self._engine) as session, session.begin():
                return work(session)

        try:
            return self._retries(self._breaker(transaction))()
        except CircuitOpenError as rejection:
            error = DatabaseCircuitOpenError(rejection.message)
            vars(error).update(vars(rejection))
            raise error from None
