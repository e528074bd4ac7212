"""One call and its attempts: whether another follows, when, and if not, why not.

All that is decided about a failed attempt is decided by a `Plan`, whoever makes the attempts: the loops of a policy, or
a loop of the caller's own over `Attempts`.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Awaitable
from enum import Enum, auto
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._common import checks
from .._common.async_library import running_loop, running_trio
from .._common.events import ERROR, RetryScheduled, log, notify
from .._common.judging import leaves
from ..exceptions import CircuitOpenError

if TYPE_CHECKING:
    from .policy import RetryPolicy

__all__ = ["Attempt", "Attempts"]

_T = TypeVar("_T")

# What may be retried at all. A BaseExceptionGroup may: what counts are its leaves.
REPEATABLE: Final = (Exception, BaseExceptionGroup)

# While something is in it, no policy of this process sleeps. A list, for putting in and taking out are one step each.
instant: list[None] = []

_LONGEST_SLEEP_S: Final = 1e9  # systems refuse to sleep for centuries
_OUR_NOTE: Final = "RetryPolicy gave up after "
_NOTHING: Final = object()


class Plan:
    """What was tried in one call, and when to try again; made at its first failure. It keeps no error and no value.

    Attributes:
        failed: how many attempts have failed, and so the number of the next one.
        delay_s: how long to sleep before it.
    """

    __slots__ = ("_policy", "_started", "delay_s", "failed")

    def __init__(self, policy: RetryPolicy, started: float) -> None:
        self._policy = policy
        self._started = float(started)
        self.failed = 0
        self.delay_s = 0.0

    def retries(self, error: BaseException) -> bool:
        """Tell whether another attempt follows on this error; if not, the error is noted why it is the last."""
        self.failed += 1
        if self._policy.should_retry(error):
            obstacle = self._schedule(error)
        elif self.failed == 1:  # nothing was tried again, so there is nothing to tell
            return False
        else:
            obstacle = f"{type(error).__name__} is not retried"
        if obstacle is not None:
            times = f"{self.failed} attempt{'s' if self.failed > 1 else ''}"
            _note(error, f"{_OUR_NOTE}{times} in {self._elapsed_s():.2f} s: {obstacle}")
        return obstacle is None

    def repeats(self, value: Any) -> bool:
        """Tell whether another attempt follows on this value."""
        bad = self._policy.retry_result
        return bad is not None and bool(bad(value)) and self.goes_on()

    def goes_on(self) -> bool:
        """Tell whether another attempt follows on one that failed for a reason unknown."""
        self.failed += 1
        return self._schedule(None) is None

    def sleep(self) -> None:
        """Wait until the next attempt is due."""
        try:
            if not self._skips():
                slept = (self._policy.sleep or _sleep)(self.delay_s)
                if inspect.isawaitable(slept):
                    raise _awaitable_in_sync_use(self._policy.sleep, slept)
        except BaseException:
            self._give_token_back()
            raise

    async def sleep_async(self) -> None:
        """Wait until the next attempt is due."""
        try:
            if self._skips():
                await checkpoint()
            else:
                slept = (self._policy.sleep or _sleep_of_the_loop)(self.delay_s)
                if inspect.isawaitable(slept):
                    await slept
        except BaseException:
            self._give_token_back()
            raise

    def _skips(self) -> bool:
        skips = bool(instant)
        if skips:
            self._started -= self.delay_s  # counts as slept: deadlines end the attempts where they would
        return skips

    def _schedule(self, error: BaseException | None) -> str | None:
        """Settle when the next attempt is due and return None, or say why there is none."""
        policy = self._policy
        if policy.max_retries is not None and self.failed > policy.max_retries:
            return "no retries left"
        wish_s = 0.0 if error is None else max(self._wish_s(leaf) for leaf in leaves(error))
        if wish_s > policy.retry_after_max_s:
            return f"the server asked for {wish_s:g} s, longer than the {policy.retry_after_max_s:g} s allowed"
        self.delay_s = max(policy.get_delay(self.failed - 1), wish_s)
        elapsed_s = self._elapsed_s()
        if policy.max_elapsed_s is not None and elapsed_s + self.delay_s > policy.max_elapsed_s:
            return f"the next would come past the deadline of {policy.max_elapsed_s:g} s"
        if policy.budget is not None and not policy.budget.take():
            return "the retry budget is empty"
        if policy.listeners:
            try:
                notify(policy.listeners, RetryScheduled(self.failed - 1, self.delay_s, error, elapsed_s))
            except BaseException:
                self._give_token_back()
                raise
        return None

    def _wish_s(self, error: BaseException) -> float:
        """Return for how long the other side asks to be left alone; what cannot be read is logged, and no wish."""
        ask = _until_a_probe if issubclass(type(error), CircuitOpenError) else self._policy.retry_after
        try:
            wish_s = None if ask is None else ask(error)
            return 0.0 if wish_s is None else checks.number("the wish", wish_s, minimum=0, infinite=True)
        except Exception as problem:
            log(ERROR, "retry_after %r raised or gave no seconds", ask, error=problem)
            return 0.0

    def _elapsed_s(self) -> float:
        return float(self._policy.clock()) - self._started

    def _give_token_back(self) -> None:
        if self._policy.budget is not None:
            self._policy.budget.give_back()


def _until_a_probe(error: Any) -> float | None:
    return error.retry_after_s  # type: ignore[no-any-return]


def _note(error: BaseException, note: str) -> None:
    """Put our note on the error, in place of an earlier one; an error that takes no notes goes without.

    One assignment, for one error may be raised in many threads at once, and however they meet it has one note of ours.
    It passes by what a class, such as a frozen dataclass, says about assignments.
    """
    try:
        notes: list[object] = getattr(error, "__notes__", [])
        if type(notes) is list:
            others = [other for other in notes if not str(other).startswith(_OUR_NOTE)]
            BaseException.__setattr__(error, "__notes__", [*others, note])
    except Exception:  # noqa: S110 - the error matters, the note does not
        pass


# Sleeping


def _sleep(seconds: float) -> None:
    time.sleep(min(seconds, _LONGEST_SLEEP_S))


def _sleep_of_the_loop(seconds: float) -> Awaitable[None]:
    library = running_trio() or (running_loop() and sys.modules["asyncio"])
    if library is None:
        raise RuntimeError("to wait for a retry takes asyncio, trio, or a sleep= of your own")
    return library.sleep(min(seconds, _LONGEST_SLEEP_S))  # type: ignore[no-any-return]


async def checkpoint() -> None:
    """Let other tasks run, and a cancellation arrive, if this is asyncio or trio."""
    if running_trio() is not None or running_loop() is not None:
        await _sleep_of_the_loop(0)


def _awaitable_in_sync_use(sleep: object, slept: object) -> TypeError:
    if inspect.iscoroutine(slept):
        slept.close()
    return TypeError(f"sleep must not be async in sync use, but {sleep!r} returned {slept!r}")


# A loop of the caller's own


def _no_end(stop: Exception) -> RuntimeError:
    """Say what Python says of a generator that lets such an exception out: a loop would take it for its end."""
    return RuntimeError(f"clock, sleep or retry_result raised {type(stop).__name__}")


class Attempt(int):
    """The number of an attempt, the first is 0; and as `with attempt:` the attempt itself.

    What is raised in the block and will be retried is swallowed, and the loop goes on after its sleep. A block left in
    any other way, `break` and `return` included, ends the loop. The last error leaves the block, with a note.

    It belongs to its loop and to one thread or task; a copy of it is a plain int.
    """

    _attempts: Attempts

    def __new__(cls, number: int, attempts: Attempts) -> Attempt:
        attempt = super().__new__(cls, number)
        attempt._attempts = attempts
        return attempt

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)

    def result(self, value: _T) -> _T:
        """Submit the value of this attempt to `retry_result` and return it; good, it ends the loop.

        A bad one ends it, too, if there are no more attempts: keep the value, for the loop raises nothing. It is judged
        when the loop goes on, so a `return` of it leaves the loop in any case.

        Raises:
            RuntimeError: the attempt is over.
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


class _Is(Enum):
    """What the loop knows of its latest attempt."""

    BARE = auto()  # only given out: the block was not entered
    INSIDE = auto()
    LEFT = auto()  # without an error
    RETRIED = auto()  # with an error, and the next one is scheduled
    OVER = auto()  # there is no next one


class Attempts:
    """The attempts of one call, for `for` and `async for`; each step but the first sleeps before it gives the next.

    Made by `RetryPolicy.attempts()`; one loop in one thread or task goes over it once.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._plan: Plan | None = None
        self._latest = _Is.BARE
        self._value: Any = _NOTHING

    def __iter__(self) -> Attempts:
        return self

    def __next__(self) -> Attempt:
        try:
            plan = self._next_plan()
            if plan is not None and plan.failed:
                plan.sleep()
        except StopIteration as stop:
            raise _no_end(stop) from stop
        if plan is None:
            raise StopIteration
        return self._give(plan)

    def __aiter__(self) -> Attempts:
        return self

    async def __anext__(self) -> Attempt:
        try:
            plan = self._next_plan()
            if plan is not None and plan.failed:
                await plan.sleep_async()
        except StopAsyncIteration as stop:
            raise _no_end(stop) from stop
        if plan is None:
            raise StopAsyncIteration
        return self._give(plan)

    def _next_plan(self) -> Plan | None:
        """Return the plan if another attempt follows; whatever is raised from here to `_give` ends the loop."""
        latest, self._latest = self._latest, _Is.OVER
        value, self._value = self._value, _NOTHING
        plan = self._plan
        if plan is None:
            follows = latest is _Is.BARE
            self._plan = plan = Plan(self._policy, self._policy.clock())
            if self._policy.budget is not None:
                self._policy.budget.deposit()
        elif latest in (_Is.OVER, _Is.RETRIED):
            follows = latest is _Is.RETRIED
        elif value is not _NOTHING:
            follows = plan.repeats(value)
        else:
            follows = latest is not _Is.LEFT and plan.goes_on()
        return plan if follows else None

    def _give(self, plan: Plan) -> Attempt:
        self._latest = _Is.BARE
        return Attempt(plan.failed, self)

    def _enter(self, attempt: Attempt) -> None:
        self._check(attempt, _Is.BARE)
        self._latest = _Is.INSIDE

    def _leave(self, attempt: Attempt, error: BaseException | None) -> bool:
        plan = self._plan
        if plan is None or plan.failed != attempt or self._latest is not _Is.INSIDE:
            return False  # the loop has gone on inside the block, which has no say any more
        self._latest = _Is.LEFT if error is None else _Is.OVER
        if error is not None and issubclass(type(error), REPEATABLE) and plan.retries(error):
            self._latest = _Is.RETRIED
        return self._latest is _Is.RETRIED

    def _submit(self, attempt: Attempt, value: Any) -> None:
        self._check(attempt, _Is.BARE, _Is.INSIDE, _Is.LEFT)
        self._value = value

    def _check(self, attempt: Attempt, *expected: _Is) -> None:
        if self._plan is None or self._plan.failed != attempt or self._latest not in expected:
            raise RuntimeError(f"attempt {int(attempt)} is over: each is for one `with` block in its turn of the loop")
