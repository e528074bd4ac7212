"""What is written to the log, how loudly, and that a broken log breaks nothing else."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from calls import fail, succeed
from clocks import Clock
from failures import Down
from patience import PATIENCE_S
from ways import Way

from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._breaker.registry import CircuitBreakerRegistry
from circuit_breaker._bulkhead.bulkhead import Bulkhead
from circuit_breaker._common import events as _events
from circuit_breaker._common.words import CircuitMode, CircuitState
from circuit_breaker._retry.policy import RetryPolicy
from circuit_breaker.exceptions import CircuitOpenError

CLOSED, OPEN = CircuitState.CLOSED, CircuitState.OPEN

Make = Callable[..., CircuitBreaker]

LOGGER = logging.getLogger("circuit_breaker")


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "circuit_breaker")


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, str]]:
    return caplog.record_tuples


# What is written


def test_each_change_is_a_line_and_opening_is_a_warning(
    make: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = make(failure_threshold=2, success_threshold=1)
    fail(breaker, 2)
    clock.advance(30)
    fail(breaker)
    clock.advance(30)
    succeed(breaker)
    breaker.mode = CircuitMode.FORCED_OPEN
    breaker.reset()
    assert lines(caplog) == [
        (
            "circuit_breaker",
            logging.WARNING,
            "circuit 'api': closed -> open: 2 failures in a row (threshold 2)",
        ),
        ("circuit_breaker", logging.INFO, "circuit 'api': open -> half_open: open for 30 s"),
        ("circuit_breaker", logging.WARNING, "circuit 'api': half_open -> open: a probe failed"),
        ("circuit_breaker", logging.INFO, "circuit 'api': open -> half_open: open for 30 s"),
        ("circuit_breaker", logging.INFO, "circuit 'api': half_open -> closed: 1 probe succeeded"),
        ("circuit_breaker", logging.WARNING, "circuit 'api': closed -> open: mode forced_open"),
        ("circuit_breaker", logging.INFO, "circuit 'api': open -> closed: reset"),
    ]


@pytest.mark.parametrize(
    ("settings", "figures"),
    [
        ({"failure_threshold": 4}, "4 failures in a row (threshold 4)"),
        ({"error_rate_threshold": 0.75, "minimum_calls": 4}, "3 of 4 calls failed (threshold 0.75)"),
        ({"slow_call_duration_s": 1, "slow_call_rate_threshold": 0.5, "minimum_calls": 3}, "3 of 3 calls were slow"),
    ],
)
def test_opening_is_written_with_the_rule_and_its_figures(
    make: Make, clock: Clock, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], figures: str
) -> None:
    breaker = make(**settings)
    if "error_rate_threshold" in settings:
        succeed(breaker)

    def body() -> None:
        clock.advance(1)
        raise Down

    while breaker.state is CLOSED:
        with pytest.raises(Down):
            breaker.call(body)
    (line,) = lines(caplog)
    assert figures in line[2]


def test_a_line_has_its_figures_as_fields_and_a_message_that_groups(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    make(failure_threshold=1).record_failure()
    make("db", failure_threshold=1).record_failure()
    first, second = caplog.records
    assert first.msg == second.msg
    fields = {"circuit_name", "old_state", "new_state", "reason"}
    assert {name: first.__dict__[name] for name in fields} == {
        "circuit_name": "api",
        "old_state": "closed",
        "new_state": "open",
        "reason": "1 failure in a row (threshold 1)",
    }
    assert second.__dict__["circuit_name"] == "db"


def test_the_machine_in_the_shadow_is_logged_too(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    make(failure_threshold=1, mode=CircuitMode.SHADOW).record_failure()
    assert [line[1] for line in lines(caplog)] == [logging.WARNING]


def test_calls_and_rejections_are_not_logged(make: Make, caplog: pytest.LogCaptureFixture, way: Way) -> None:
    breaker = make(failure_threshold=2)
    way(breaker, int)
    fail(breaker, 2)
    caplog.clear()
    with pytest.raises(CircuitOpenError):
        way(breaker, int)
    assert not breaker.allow_request()
    breaker.record_failure()
    breaker.reset()
    assert [line[2] for line in lines(caplog)] == ["circuit 'api': open -> closed: reset"]


@pytest.mark.parametrize("name", ["reset_timeout_s", "retry_after"])
@pytest.mark.parametrize("given", ["soon", -1, float("nan"), Down()])
def test_a_function_of_the_configuration_that_gives_no_seconds_is_logged(
    make: Make, caplog: pytest.LogCaptureFixture, name: str, given: Any
) -> None:
    def function(argument: object) -> Any:
        if isinstance(given, Exception):
            raise given
        return given

    breaker = make(failure_threshold=1, **{name: function})
    fail(breaker)
    assert breaker.snapshot().retry_after_s == 30
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "'api'" in record.getMessage()
    assert name in record.getMessage()
    assert record.exc_info is not None
    if isinstance(given, Exception):
        assert record.exc_info[1] is given


def test_lines_come_in_the_order_of_the_changes(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def reset(event: Any) -> None:
        if getattr(event, "new_state", None) is OPEN:
            breaker.reset()

    breaker = make(failure_threshold=1, listeners=[reset])
    breaker.record_failure()
    breaker.record_failure()
    assert [record.__dict__["new_state"] for record in caplog.records] == ["open", "closed"] * 2


# An application that has not configured logging, or has switched it off

QUIET = """
from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._breaker.registry import CircuitBreakerRegistry

def broken(*_):
    raise ValueError

config = CircuitBreakerConfig(failure_threshold=1, reset_timeout_s=broken, retry_after=broken)
registry = CircuitBreakerRegistry(config, max_size=1, listeners=[broken])
for key in range(3):
    try:
        registry[key].call(broken)
    except ValueError:
        assert registry[key].is_open
registry.reset_all()
"""


def test_an_application_that_has_not_configured_logging_prints_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_one_that_has_prints_the_line() -> None:
    code = f"import logging\nlogging.basicConfig()\n{QUIET}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "WARNING:circuit_breaker:circuit '0': closed -> open: 1 failure in a row (threshold 1)" in done.stderr


def test_the_logger_is_left_to_the_application() -> None:
    assert [type(handler) for handler in LOGGER.handlers] == [logging.NullHandler]
    assert LOGGER.propagate
    assert LOGGER.filters == []


def test_a_level_of_the_application_is_kept(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "circuit_breaker")
    breaker = make(failure_threshold=1)
    breaker.record_failure()
    breaker.reset()
    assert [line[1] for line in lines(caplog)] == [logging.WARNING]


def test_the_logger_is_fetched_before_any_call(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, way: Way
) -> None:
    def broken(event: object) -> None:
        raise ValueError

    breaker = make(failure_threshold=1, success_threshold=1, reset_timeout_s=broken, listeners=[broken])
    registry = CircuitBreakerRegistry(CircuitBreakerConfig(failure_threshold=1), max_size=1, clock=clock)

    fetched: list[str | None] = []
    fetch = logging.getLogger
    with monkeypatch.context() as patch:
        patch.setattr(logging, "getLogger", lambda name=None: fetched.append(name) or fetch(name))
        way(breaker, int)
        fail(breaker)
        clock.advance(30)
        way(breaker, int)
        for key in range(2):
            registry[key].record_failure()
    assert {line[1] for line in lines(caplog)} == {logging.INFO, logging.WARNING, logging.ERROR}
    assert set(fetched) <= {"asyncio"}


@pytest.mark.parametrize("make_object", [CircuitBreaker, Bulkhead, RetryPolicy, CircuitBreakerRegistry])
def test_the_logger_is_fetched_when_an_object_is_made(
    make_object: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    another = logging.getLogger("another")
    with monkeypatch.context() as patch:
        patch.setattr(_events, "_logger", None)
        patch.setattr(logging, "getLogger", lambda name: fetched.append(name) or another)
        make_object()
    assert fetched == ["circuit_breaker"]


# A log that is broken


class Broken(logging.Handler):
    """Raises at every record."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("disk full")


def refuse(record: logging.LogRecord) -> bool:
    raise ValueError("broken filter")


@pytest.fixture(params=["handler", "filter"])
def broken_log(request: pytest.FixtureRequest) -> Iterator[None]:
    handler = Broken()
    if request.param == "handler":
        LOGGER.addHandler(handler)
    else:
        LOGGER.addFilter(refuse)
    yield
    LOGGER.removeHandler(handler)
    LOGGER.removeFilter(refuse)


@pytest.mark.usefixtures("broken_log")
def test_a_broken_log_changes_no_outcome(make: Make, clock: Clock, way: Way) -> None:
    told: list[Any] = []

    def broken(event: Any) -> None:
        raise ValueError

    def down() -> None:
        raise Down

    breaker = make(
        failure_threshold=1, success_threshold=1, listeners=[broken, told.append], reset_timeout_s=lambda n: 1 / n
    )
    with pytest.raises(Down):
        way(breaker, down)
    assert breaker.state is OPEN
    with pytest.raises(CircuitOpenError):
        way(breaker, int)
    clock.advance(30)
    assert way(breaker, lambda: "answer") == "answer"
    assert breaker.state is CLOSED
    assert [type(event).__name__ for event in told] == [
        "StateChanged",
        "CallFinished",
        "CallRejected",
        "StateChanged",
        "StateChanged",
        "CallFinished",
    ]


@pytest.mark.usefixtures("broken_log")
def test_a_broken_log_keeps_no_registry_from_growing(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(CircuitBreakerConfig(failure_threshold=1), max_size=1, clock=clock)
    for key in range(3):
        registry[key].record_failure()
    assert len(registry) == 3


class Handling(logging.Handler):
    """Does something at every record."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self._action = action

    def emit(self, record: logging.LogRecord) -> None:
        self._action()


@pytest.fixture
def at_each_line() -> Iterator[Callable[[Callable[[], object]], None]]:
    added: list[logging.Handler] = []

    def add(action: Callable[[], object]) -> None:
        added.append(Handling(action))
        LOGGER.addHandler(added[-1])

    yield add
    for handler in added:
        LOGGER.removeHandler(handler)


def test_no_lock_is_held_while_a_line_is_written(make: Make, at_each_line: Callable[..., None]) -> None:
    breaker = make(failure_threshold=1)
    seen: list[CircuitState] = []

    def look_from_elsewhere() -> None:
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(lambda: breaker.snapshot().state).result(PATIENCE_S))

    at_each_line(look_from_elsewhere)
    breaker.record_failure()
    breaker.reset()
    assert seen == [OPEN, CLOSED]


def test_a_handler_may_use_the_breaker_it_writes_of(
    make: Make, at_each_line: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    breaker = make(failure_threshold=1)
    at_each_line(breaker.reset)
    breaker.record_failure()
    assert breaker.state is CLOSED
    assert sorted(record.__dict__["new_state"] for record in caplog.records) == ["closed", "open"]


def test_a_handler_that_stops_the_program_does_so_once_all_is_settled_and_reported(
    make: Make, at_each_line: Callable[..., None]
) -> None:
    told: list[Any] = []
    breaker = make(failure_threshold=1, listeners=[told.append])

    def stop() -> None:
        raise SystemExit(3)

    at_each_line(stop)
    with pytest.raises(SystemExit):
        breaker.record_failure()
    assert breaker.state is OPEN
    assert [type(event).__name__ for event in told] == ["StateChanged", "CallFinished"]
