"""The SQLAlchemy example against a real SQLite database that is really locked."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="needs the extra recipes: pip install -e .[test,recipes]")

import sqlalchemy
from example_files import example
from sqlalchemy.orm import Session

from circuit_breaker import CircuitBreaker, CircuitOpenError, CircuitState
from circuit_breaker.testing import FakeClock

recipe = example("with_sqlalchemy")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def engine(path: Path) -> Iterator[Any]:
    engine = sqlalchemy.create_engine(
        f"sqlite:///{path}", connect_args={"timeout": 0.01}, pool_size=1, max_overflow=0, pool_timeout=0.01
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (number INTEGER PRIMARY KEY)")
    yield engine
    assert engine.pool.checkedout() == 0
    engine.dispose()


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    config = replace(recipe.CONFIG, failure_threshold=2, success_threshold=1, half_open_max_calls=1, reset_timeout_s=10)
    return CircuitBreaker("shop", config, clock=clock)


@pytest.fixture
def database(engine: Any, breaker: CircuitBreaker, clock: FakeClock) -> Any:
    return recipe.Database(engine, breaker, replace(recipe.RETRIES, max_retries=0, sleep=clock.sleep, clock=clock))


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield other
    finally:
        if other.in_transaction:
            other.execute("ROLLBACK")
        other.close()


def order(number: int) -> Any:
    def work(session: Session) -> int:
        session.execute(sqlalchemy.text("INSERT INTO orders VALUES (:number)"), {"number": number})
        return number

    return work


def count(session: Session) -> Any:
    return session.scalar(sqlalchemy.text("SELECT count(*) FROM orders"))


def test_work_is_committed(database: Any) -> None:
    assert database.run(order(1)) == 1
    assert database.run(count) == 1


def test_a_locked_database_is_a_failure_and_opens_the_circuit(
    database: Any, breaker: CircuitBreaker, path: Path
) -> None:
    with locked(path):
        for _ in range(2):
            with pytest.raises(sqlalchemy.exc.OperationalError, match="locked"):
                database.run(order(1))
    assert breaker.state is CircuitState.OPEN


def test_a_retry_is_reported_under_the_name_of_the_work(
    engine: Any, breaker: CircuitBreaker, clock: FakeClock, path: Path
) -> None:
    told: list[Any] = []
    policy = replace(recipe.RETRIES, max_retries=1, sleep=clock.sleep, clock=clock, listeners=[told.append])
    with locked(path), pytest.raises(sqlalchemy.exc.OperationalError):
        recipe.Database(engine, breaker, policy).run(order(1))
    assert [event.function for event in told] == [f"{__name__}.order.<locals>.work"] * 2


def test_an_open_circuit_is_an_error_of_sqlalchemy_too_and_does_not_touch_the_database(
    database: Any, breaker: CircuitBreaker, engine: Any
) -> None:
    breaker.record_failure()
    breaker.record_failure()
    engine.dispose()
    with pytest.raises(sqlalchemy.exc.SQLAlchemyError) as caught:
        database.run(order(1))
    assert isinstance(caught.value, CircuitOpenError)
    assert (caught.value.circuit_name, caught.value.retry_after_s) == ("shop", 10)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert engine.pool.checkedin() == 0


def test_no_permit_and_no_connection_is_lost(
    database: Any, breaker: CircuitBreaker, path: Path, clock: FakeClock
) -> None:
    breaker.record_failure()
    breaker.record_failure()
    clock.advance(10)
    with locked(path), pytest.raises(sqlalchemy.exc.OperationalError):
        database.run(order(1))
    assert (breaker.state, breaker.snapshot().probes_in_flight) == (CircuitState.OPEN, 0)
    clock.advance(10)
    assert database.run(order(1)) == 1
    assert breaker.state is CircuitState.CLOSED


def test_work_is_run_again_from_its_beginning(
    engine: Any, breaker: CircuitBreaker, path: Path, clock: FakeClock
) -> None:
    with locked(path) as other:

        def unlock(seconds: float) -> None:
            other.execute("ROLLBACK")

        database = recipe.Database(engine, breaker, replace(recipe.RETRIES, sleep=unlock, clock=clock))
        assert database.run(order(1)) == 1
    assert database.run(count) == 1
    assert breaker.stats.failure_count == 1


def test_a_broken_constraint_and_a_missing_table_are_answers(database: Any, breaker: CircuitBreaker) -> None:
    database.run(order(1))
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        database.run(order(1))
    with pytest.raises(sqlalchemy.exc.OperationalError, match="no such table"):
        database.run(lambda session: session.execute(sqlalchemy.text("SELECT * FROM missing")))
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (3, 0)


class DriverError(Exception):
    """What a driver raises; psycopg has `sqlstate`, psycopg2 `pgcode`, PyMySQL and mysqlclient a number."""

    def __init__(self, *args: object, **attributes: object) -> None:
        super().__init__(*args)
        vars(self).update(attributes)


def operational_error(original: DriverError, **options: Any) -> sqlalchemy.exc.OperationalError:
    return sqlalchemy.exc.OperationalError("UPDATE orders", {}, original, **options)


CONFLICTS = {
    "psycopg, serialization": DriverError("could not serialize access", sqlstate="40001"),
    "psycopg, deadlock": DriverError("deadlock detected", sqlstate="40P01"),
    "psycopg2, deadlock": DriverError("deadlock detected", pgcode="40P01"),
    "MySQL, deadlock": DriverError(1213, "Deadlock found when trying to get lock"),
    "pyodbc, deadlock": DriverError("40001", "chosen as the deadlock victim"),
}
FAILURES = {
    "psycopg, shutdown": DriverError("terminating connection", sqlstate="57P01"),
    "psycopg, no connection": DriverError("connection refused", sqlstate=None),
    "psycopg, statement timeout": DriverError("canceling statement", sqlstate="57014"),
    "psycopg2, no connection": DriverError("could not connect", pgcode=None),
    "MySQL, gone": DriverError(2006, "MySQL server has gone away"),
    "no arguments": DriverError(),
    "arguments of another kind": DriverError({"C": "57P01"}),
}


def failing(times: int, error: Exception) -> Any:
    """Return work that fails so often."""
    errors = [error] * times

    def work(session: Session) -> str:
        if errors:
            raise errors.pop()
        return "done"

    return work


@pytest.mark.parametrize("original", CONFLICTS.values(), ids=CONFLICTS)
def test_a_conflict_of_two_transactions_is_run_again_and_is_not_a_failure(
    original: DriverError, engine: Any, breaker: CircuitBreaker, clock: FakeClock
) -> None:
    database = recipe.Database(engine, breaker, replace(recipe.RETRIES, sleep=clock.sleep, clock=clock))
    assert database.run(failing(3, operational_error(original))) == "done"
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (4, 0)


@pytest.mark.parametrize("original", FAILURES.values(), ids=FAILURES)
def test_a_database_that_cannot_is_a_failure(
    original: DriverError, engine: Any, breaker: CircuitBreaker, clock: FakeClock
) -> None:
    database = recipe.Database(engine, breaker, replace(recipe.RETRIES, sleep=clock.sleep, clock=clock))
    assert database.run(failing(1, operational_error(original))) == "done"
    assert (breaker.stats.success_count, breaker.stats.failure_count) == (1, 1)


def test_a_connection_that_is_gone_is_a_failure_whatever_the_driver_calls_it(
    database: Any, breaker: CircuitBreaker
) -> None:
    error = sqlalchemy.exc.InterfaceError(
        "SELECT 1", {}, DriverError("connection already closed"), connection_invalidated=True
    )
    with pytest.raises(sqlalchemy.exc.InterfaceError):
        database.run(failing(1, error))
    assert breaker.stats.failure_count == 1


def test_connections_that_are_all_in_use_say_nothing_about_the_database(
    database: Any, breaker: CircuitBreaker, engine: Any
) -> None:
    with engine.connect(), pytest.raises(sqlalchemy.exc.TimeoutError):
        database.run(count)
    assert breaker.stats.ignored_count == 1
