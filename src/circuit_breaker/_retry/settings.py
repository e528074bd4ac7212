"""The settings of a retry policy, and what follows from them: how long to wait, and what is retried."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Final, Literal

from .._common import checks
from .._common.async_library import cancellation_types
from .._common.events import ERROR, Listener, log, open_log, raised_by_signal_handler
from .._common.judging import REJECTIONS, ExceptionFilter, Kinds, leaves
from .._common.retry_after import retry_after_hint
from .._common.seconds import OptionalSeconds, Seconds
from ..exceptions import UsageError
from .backoff import Backoff
from .budget import RetryBudget
from .totals import Totals

_JITTER: Final = 'True, False or "full"'


def _jitter(name: str, value: Any) -> bool | str:
    if isinstance(value, str):
        if value != "full":
            raise checks.wrong_value(name, value, _JITTER)
        return value
    if not isinstance(value, bool):
        raise checks.wrong_type(name, value, _JITTER)
    return value


def _sleep(name: str, value: Any) -> Callable[[float], object]:
    if not callable(value) or isinstance(value, type):
        raise checks.wrong_type(name, value, "a function of seconds, sync or async")
    sleep: Callable[[float], object] = value
    return sleep


@dataclass(frozen=True)
class Settings:
    """The settings of a `RetryPolicy`, whose docstring explains them. They are checked when made and never change."""

    # Made from the settings in each object, and no fields: neither compared nor pickled.
    _retryable: ClassVar[Kinds]
    _backoff: ClassVar[Backoff]
    _totals: ClassVar[Totals]

    max_retries: int | None = field(
        default=3, metadata=checks.by(checks.count, minimum=0, takes="an int >= 0 or None", optional=True)
    )
    backoff_base: Seconds = field(default=0.1, metadata=checks.by(checks.seconds, minimum=0))  # type: ignore[arg-type]
    backoff_multiplier: float = field(default=2.0, metadata=checks.by(checks.number, minimum=1))
    backoff_max: Seconds = field(default=30.0, metadata=checks.by(checks.seconds, minimum=0, infinite=True))  # type: ignore[arg-type]
    jitter: bool | Literal["full"] = field(default=True, metadata=checks.by(_jitter))
    retryable_exceptions: ExceptionFilter | None = None
    _: KW_ONLY
    max_elapsed_s: OptionalSeconds = field(default=None, metadata=checks.by(checks.seconds, above=0, optional=True))  # type: ignore[arg-type]
    retry_result: Callable[[Any], object] | None = field(
        default=None, metadata=checks.by(checks.function, optional=True)
    )
    retry_after: Callable[[Any], float | timedelta | None] | None = field(
        default=retry_after_hint, metadata=checks.by(checks.function, optional=True)
    )
    retry_after_max_s: Seconds = field(default=120.0, metadata=checks.by(checks.seconds, minimum=0))  # type: ignore[arg-type]
    budget: RetryBudget | None = field(
        default=None, metadata=checks.by(checks.instance, kind=RetryBudget, optional=True)
    )
    delay: Callable[[int, Any], float | timedelta] | None = field(
        default=None, metadata=checks.by(checks.function, optional=True)
    )
    listeners: Iterable[Listener] = field(default=(), metadata=checks.by(checks.functions))
    sleep: Callable[[float], object] | None = field(default=None, metadata=checks.by(_sleep, optional=True))
    clock: Callable[[], float] = field(
        default=time.monotonic, metadata=checks.by(checks.function, gives="a function that returns seconds")
    )
    random: Callable[[], float] | None = field(default=None, metadata=checks.by(checks.function, optional=True))

    def __post_init__(self) -> None:
        checks.check_fields(self)
        self._prepare()

    def _prepare(self) -> None:
        """Prepare what calls need, so that nothing is imported when a call fails."""
        retryable = Exception if self.retryable_exceptions is None else self.retryable_exceptions
        object.__setattr__(self, "_retryable", Kinds("retryable_exceptions", retryable))
        from random import random  # not at the top, for a faster import of the package

        draw = random if self.random is None else self.random
        backoff = Backoff(self.backoff_base, self.backoff_multiplier, self.backoff_max, self.jitter, draw)
        object.__setattr__(self, "_backoff", backoff)
        object.__setattr__(self, "_totals", Totals())
        open_log()

    def __getstate__(self) -> dict[str, Any]:
        made = ("_retryable", "_backoff", "_totals")
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._prepare()

    def get_delay(self, attempt: int) -> float:
        """Return the seconds to wait after a failed attempt, with a new random number for the jitter each time.

        They are finite and never negative. They are never above `backoff_max`, unless a `delay=` function returns more.
        That function is called with None for the error.

        Args:
            attempt: The number of the failed attempt, >= 0. The first is 0.

        Raises:
            TypeError, ValueError: `attempt` is not an int or is negative.
        """
        if type(attempt) is not int or attempt < 0:
            attempt = checks.count("attempt", attempt, 0)
        if self.delay is None:
            return self._backoff.delay(attempt)
        return self._delay_from(self.delay, attempt, None)

    def _delay_from(self, delay: Callable[[int, Any], object], attempt: int, error: BaseException | None) -> float:
        """Return the delay of the caller's function. If it cannot be used, log that and use the backoff."""
        try:
            return checks.seconds("the delay", delay(attempt, error), minimum=0)
        except Exception as problem:
            if raised_by_signal_handler(problem):
                raise
            log(ERROR, "delay %r raised or gave no seconds", delay, error=problem)
            return self._backoff.delay(attempt)

    def should_retry(self, exception: BaseException) -> bool:
        """Return whether this policy retries such an exception, as long as attempts are left.

        If `retryable_exceptions` is a function and raises, so does this.
        """
        if issubclass(type(exception), BaseExceptionGroup):
            return all(self._retries_leaf(leaf) for leaf in leaves(exception))
        return self._retries_leaf(exception)

    def _retries_leaf(self, error: BaseException) -> bool:
        kind, retryable = type(error), self._retryable
        if not issubclass(kind, Exception) or issubclass(kind, UsageError) or issubclass(kind, cancellation_types()):
            return False
        if issubclass(kind, REJECTIONS) and not issubclass(kind, retryable.rejections):
            return False
        return retryable.hold(error)


Settings.__init__.__qualname__ = "RetryPolicy"  # the class that users know, for messages about unknown settings
