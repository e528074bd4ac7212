"""`attempts()`: a loop of the caller's own, which asks the plan whether it goes on."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from types import TracebackType
from typing import Any, Final, TypeVar

from ..exceptions import UsageError
from .plan import NO_VALUE, REPEATABLE, Plan
from .settings import Settings

__all__ = ["Attempt", "Attempts"]

_T = TypeVar("_T")


class _Turn(Enum):
    """Where the loop is."""

    NOT_BEGUN = auto()
    GIVEN = auto()
    """The attempt is given out, its block not entered."""
    INSIDE = auto()
    LEFT = auto()
    """The block was left without an error."""
    FAILED = auto()
    """The block was left by an error, and another attempt follows."""
    OVER = auto()


# Names of the module are found in half the time.
_NOT_BEGUN: Final = _Turn.NOT_BEGUN
_GIVEN: Final = _Turn.GIVEN
_OVER: Final = _Turn.OVER


class Attempt(int):
    """One attempt of a loop over `RetryPolicy.attempts()`: an int, the first is 0, and a `with` block.

    If the block raises an error that will be retried, the error is swallowed and the loop continues after a sleep. The
    last error is raised, with a note. If the block ends in any other way, such as `break` or `return`, the loop ends,
    unless `result()` was given a value that is retried.

    It belongs to one loop in one thread or task. A copy of it is a plain int.
    """

    _attempts: Attempts

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)

    def result(self, value: _T) -> _T:
        """Give the value of this attempt to `retry_result`, and return the value.

        If `retry_result` accepts it, the loop ends. If not, another attempt follows; when no attempt is left, the loop
        ends without an error, so keep the value. The value is checked at the next turn of the loop: if you `return`
        inside the loop, it is not checked.

        Raises:
            UsageError: This attempt is over.
        """
        self._attempts._submit(self, value)
        return value

    def __enter__(self) -> Attempt:
        self._attempts._enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool:
        return self._attempts._leave(self, error)


class Attempts:
    """The attempts of one call, for `for` and `async for`; each step but the first sleeps before it gives the next.

    Made by `RetryPolicy.attempts()`; one loop in one thread or task goes over it once.
    """

    __slots__ = ("__weakref__", "_func", "_plan", "_settings", "_started", "_turn", "_value")

    def __init__(self, settings: Settings, func: Callable[..., Any] | None = None) -> None:
        self._settings = settings
        self._func = func  # its items are not judged by `retry_result`
        self._plan: Plan | None = None  # made when an attempt has failed
        self._turn = _NOT_BEGUN
        self._value: Any = NO_VALUE

    def __iter__(self) -> Attempts:
        return self

    def __next__(self) -> Attempt:
        try:
            attempt = self._next_attempt()
            if attempt is not None and self._plan is not None:
                self._plan.sleep()
        except StopIteration as stop:
            raise _no_end(stop) from stop
        if attempt is None:
            raise StopIteration
        self._turn = _GIVEN
        return attempt

    def __aiter__(self) -> Attempts:
        return self

    async def __anext__(self) -> Attempt:
        try:
            attempt = self._next_attempt()
            if attempt is not None and self._plan is not None:
                await self._plan.sleep_async()
        except StopAsyncIteration as stop:
            raise _no_end(stop) from stop
        if attempt is None:
            raise StopAsyncIteration
        self._turn = _GIVEN
        return attempt

    def _next_attempt(self) -> Attempt | None:
        """Return the next attempt, which the caller sleeps for if it is not the first. None: no attempt is left."""
        turn, self._turn = self._turn, _OVER  # an error before the attempt is given out ends the loop
        if turn is _NOT_BEGUN:
            settings = self._settings
            self._started = settings.clock()
            if settings.budget is not None:
                settings.budget.deposit()
            attempt = Attempt(0)
        else:
            value, self._value = self._value, NO_VALUE
            if not self._goes_on(turn, value):
                return None
            attempt = Attempt(self._plan_of_call().failed)
        attempt._attempts = self
        return attempt

    def _goes_on(self, turn: _Turn, value: Any) -> bool:
        """Return whether another attempt follows on the one that ended so."""
        if turn is _Turn.FAILED or turn is _OVER:
            return turn is _Turn.FAILED
        plan = self._plan_of_call()
        if value is not NO_VALUE:
            return plan.repeats(value)
        if turn is _Turn.LEFT:
            plan.succeed()
            return False
        return plan.goes_on()

    def _plan_of_call(self) -> Plan:
        if self._plan is None:
            self._plan = Plan(self._settings, self._func, self._started)
        return self._plan

    def _judges_values(self) -> bool:
        """Return whether a block that ended without an error may still have failed, because of its value."""
        return self._func is None and self._settings.retry_result is not None

    def _enter(self, attempt: Attempt) -> None:
        self._check(attempt, _GIVEN)
        self._turn = _Turn.INSIDE

    def _leave(self, attempt: Attempt, error: BaseException | None) -> bool:
        """Return whether the error of the block is swallowed, because another attempt follows."""
        if self._turn is not _Turn.INSIDE or not self._is_latest(attempt):
            return False  # the loop has gone on inside the block, which has no say any more
        if error is None:
            self._turn = _Turn.LEFT
            if self._plan is not None and not self._judges_values():
                self._plan.succeed()
            return False
        self._turn = _OVER
        if not issubclass(type(error), REPEATABLE):
            return False
        plan = self._plan_of_call()
        if not plan.retries(error):
            return False
        plan.pending_error = error
        self._turn = _Turn.FAILED
        return True

    def _submit(self, attempt: Attempt, value: Any) -> None:
        self._check(attempt, _GIVEN, _Turn.INSIDE, _Turn.LEFT)
        self._value = value

    def _check(self, attempt: Attempt, *expected: _Turn) -> None:
        if self._turn not in expected or not self._is_latest(attempt):
            raise UsageError(f"attempt {int(attempt)} is over: use each for one `with` block, in its turn of the loop")

    def _is_latest(self, attempt: Attempt) -> bool:
        return attempt == (0 if self._plan is None else self._plan.failed)


def _no_end(stop: Exception) -> RuntimeError:
    """Say what Python says of a generator that lets such an exception out: a loop would take it for its end."""
    return RuntimeError(f"clock, sleep, random or retry_result raised {type(stop).__name__}")
