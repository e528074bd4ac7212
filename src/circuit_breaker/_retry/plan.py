"""What is decided about a failed attempt: whether another follows, when, and if not, why not.

A `Plan` makes every decision, for the calls of a policy and for loops over `attempts()`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from .._common import checks
from .._common.async_library import running_library
from .._common.events import ERROR, INFO, WARNING, RetryGaveUp, RetryScheduled, log, notify, raised_by_signal_handler
from .._common.judging import leaves
from .._common.pattern import WrongKindError, qualified_name
from ..exceptions import CircuitOpenError
from . import waiting
from .settings import Settings

# What may be retried at all. A BaseExceptionGroup may: what counts are its leaves.
REPEATABLE: Final = (Exception, BaseExceptionGroup)

_LOOP: Final = "attempts()"  # what the log calls a loop of the caller's own
_OUR_NOTE: Final = "RetryPolicy gave up after "
NO_VALUE: Final = object()

_CONTEXT: Final[Any] = BaseException.__context__  # a subclass may override the attribute


class Plan:
    """One call that has failed, and what comes next. Made at the first failure, so a success at once needs none.

    Attributes:
        failed: how many attempts have failed, and so the number of the next one.
        pending_error: what the last attempt raised, if no `except` block handles it now. It becomes the context of
            the exception that ends the sleep.
    """

    __slots__ = ("_delay_s", "_func", "_has_succeeded", "_settings", "_started", "failed", "pending_error")

    def __init__(self, settings: Settings, func: Callable[..., Any] | None, started: float) -> None:
        self._settings = settings
        self._func = func
        self._started = float(started)
        self._delay_s = 0.0
        self._has_succeeded = False
        self.failed = 0
        self.pending_error: BaseException | None = None

    # Whether another attempt follows

    def retries(self, error: BaseException) -> bool:
        """Return whether another attempt follows on this error; if not, a note on it says why."""
        self.failed += 1
        if self._settings.should_retry(error):
            return self._schedule(error, error)
        if self.failed > 1:  # else nothing was tried again, and there is nothing to report
            self._give_up(error, f"{type(error).__name__} is not retried")
        return False

    def repeats(self, value: Any) -> bool:
        """Return whether another attempt follows on this value; if not, it is the result of the call."""
        is_bad = self._settings.retry_result
        if is_bad is None or not is_bad(value):
            self.succeed()
            return False
        self.failed += 1
        return self._schedule(None, value)

    def goes_on(self) -> bool:
        """Return whether another attempt follows in a loop without `with` blocks."""
        self.failed += 1
        return self._schedule(None, NO_VALUE)

    def succeed(self) -> None:
        """Count the success of the last attempt, if it was not the first; a loop may say so twice."""
        if self.failed and not self._has_succeeded:
            self._has_succeeded = True
            self._settings._totals.recovered()

    def _schedule(self, error: BaseException | None, answer: Any) -> bool:
        """Settle when the next attempt is due and report it, or give up; `answer` may hold a retry-after hint."""
        settings = self._settings
        if self.failed == 1:
            settings._totals.failed_first()
        reason = self._reason_to_stop(error, answer)
        if reason is not None:
            self._give_up(error, reason)
            return False
        try:
            self._report_retry(error, answer)
        except BaseException:
            self._give_token_back()
            raise
        return True

    def _reason_to_stop(self, error: BaseException | None, answer: Any) -> str | None:
        """Set the delay, and take a token for the next attempt; or return why there is none."""
        settings = self._settings
        override = waiting.override()
        most = settings.max_retries if override is None else override.most_retries(settings.max_retries)
        if most is not None and self.failed > most:
            return "no retries left" if most == settings.max_retries else f"a test allows no more than {most} retries"
        hint_s = self._hint_s(answer)
        if hint_s > settings.retry_after_max_s:
            return f"the server asked for {hint_s:g} s, longer than the {settings.retry_after_max_s:g} s allowed"
        self._delay_s = hint_s + self._usual_delay_s(error)
        if settings.max_elapsed_s is not None and self._elapsed_s() + self._delay_s > settings.max_elapsed_s:
            return f"the next would come past the deadline of {settings.max_elapsed_s:g} s"
        if settings.budget is not None and not settings.budget.take():
            return "the retry budget is empty"
        return None

    def _usual_delay_s(self, error: BaseException | None) -> float:
        settings, attempt = self._settings, self.failed - 1
        if settings.delay is None:
            return settings.get_delay(attempt)
        return settings._delay_from(settings.delay, attempt, error)

    def _hint_s(self, answer: Any) -> float:
        """Return the retry-after hint in seconds, 0.0 if there is none; of a group the longest."""
        if answer is NO_VALUE:
            return 0.0
        answers = leaves(answer) if issubclass(type(answer), BaseException) else [answer]
        return max(self._hint_of(one) for one in answers)

    def _hint_of(self, answer: Any) -> float:
        ask = _until_a_probe if issubclass(type(answer), CircuitOpenError) else self._settings.retry_after
        if ask is None:
            return 0.0
        try:
            hint = ask(answer)
            return 0.0 if hint is None else checks.seconds("the hint", hint, minimum=0, infinite=True)
        except Exception as problem:
            if raised_by_signal_handler(problem):
                raise
            log(ERROR, "retry_after %r raised or gave no seconds", ask, error=problem)
            return 0.0

    def _elapsed_s(self) -> float:
        return float(self._settings.clock()) - self._started

    # Reporting

    def _function(self) -> str | None:
        if self._func is None:
            return None
        try:
            return qualified_name(self._func)
        except Exception:  # of a remote proxy, say, that has lost its connection: the error of the call matters
            return type(self._func).__qualname__

    def _report_retry(self, error: BaseException | None, answer: Any) -> None:
        listeners = self._settings.listeners
        function = self._function()
        failure = _describe(error, answer)
        log(
            INFO,
            "retry %d of %r in %.2f s, after %s",
            self.failed,
            function or _LOOP,
            self._delay_s,
            failure,
            function=function,
            attempt=self.failed - 1,
            delay_s=self._delay_s,
            failure=failure,
        )
        if listeners:
            attempt, elapsed_s = self.failed - 1, self._elapsed_s()
            notify(listeners, RetryScheduled(attempt, self._delay_s, error, elapsed_s, function))

    def _give_up(self, error: BaseException | None, reason: str) -> None:
        listeners = self._settings.listeners
        attempts, elapsed_s, function = self.failed, self._elapsed_s(), self._function()
        tried = f"{attempts} attempt{'s' if attempts > 1 else ''} in {elapsed_s:.2f} s: {reason}"
        self._settings._totals.gave_up()
        if error is not None:
            _note(error, f"{_OUR_NOTE}{tried}")
        if attempts > 1:
            log(
                WARNING,
                "retry of %r gave up after %s",
                function or _LOOP,
                tried,
                function=function,
                attempts=attempts,
                elapsed_s=elapsed_s,
                reason=reason,
            )
        if listeners:
            notify(listeners, RetryGaveUp(attempts, elapsed_s, reason, error, function))

    # Sleeping

    def sleep(self) -> None:
        """Wait until the next attempt is due, on this thread."""
        sleep = self._settings.sleep
        try:
            if not self._is_skipped():
                self._warn_if_it_blocks_a_loop()
                slept = (waiting.sleep if sleep is None else sleep)(self._delay_s)
                if inspect.isawaitable(slept):
                    raise _awaitable_in_sync_use(sleep, slept)
            self._settings._totals.slept(self._delay_s)
        except BaseException as stop:
            self._abandon(stop)
            raise
        finally:
            self.pending_error = None

    async def sleep_async(self) -> None:
        """Wait until the next attempt is due, in this task."""
        sleep = self._settings.sleep
        try:
            if self._is_skipped():
                await waiting.checkpoint()
            else:
                slept = (waiting.sleep_async if sleep is None else sleep)(self._delay_s)
                if inspect.isawaitable(slept):
                    await slept
            self._settings._totals.slept(self._delay_s)
        except BaseException as stop:
            self._abandon(stop)
            raise
        finally:
            self.pending_error = None

    def _is_skipped(self) -> bool:
        """Return whether a test skips this sleep. For the deadline it counts as slept."""
        if waiting.override() is None:
            return False
        self._started -= self._delay_s
        return True

    def _warn_if_it_blocks_a_loop(self) -> None:
        if not self._delay_s or running_library() is None:
            return
        if self._settings._totals.is_first_to_block_a_loop():
            function = self._function()
            log(
                WARNING,
                "retry of %r sleeps %.2f s on a thread that runs an event loop, whose tasks all wait for it: "
                "retry an async function instead, or call this one in a thread of its own",
                function or _LOOP,
                self._delay_s,
                function=function,
                delay_s=self._delay_s,
            )

    def _abandon(self, stop: BaseException) -> None:
        """Give up the attempt that was waited for; what ended the wait keeps the last error as its context."""
        self._give_token_back()
        error = self.pending_error
        if error is None:
            return
        chain = {id(None)}  # of the error, and what was being handled when it was raised, and so on
        link: BaseException | None = error
        while id(link) not in chain:
            chain.add(id(link))
            link = _CONTEXT.__get__(link)
        if id(stop) not in chain and id(_CONTEXT.__get__(stop)) in chain:  # else it has a context of its own
            _CONTEXT.__set__(stop, error)

    def _give_token_back(self) -> None:
        if self._settings.budget is not None:
            self._settings.budget.give_back()


def _until_a_probe(error: Any) -> float | None:
    return error.retry_after_s  # type: ignore[no-any-return]


def _describe(error: BaseException | None, answer: Any) -> str:
    """Return what failed, in words that hold no data of the call."""
    if error is not None:
        return type(error).__name__
    return "an attempt" if answer is NO_VALUE else "a bad value"


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
    except Exception as problem:  # the error matters, the note does not
        if raised_by_signal_handler(problem):
            raise


def _awaitable_in_sync_use(sleep: object, slept: object) -> WrongKindError:
    if inspect.iscoroutine(slept):
        slept.close()
    return WrongKindError(f"sleep must not be async in sync use, but {sleep!r} returned {slept!r}")
