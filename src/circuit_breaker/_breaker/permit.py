"""A permit: one admission whose result is reported later."""

from __future__ import annotations

from types import TracebackType

from .._common import checks
from .._common.pattern import OnlyOne
from .._common.words import Outcome
from ..exceptions import UsageError
from . import open_blocks
from .admission import Admission
from .states import Permission, Probe

__all__ = ["Permit"]


class Permit(OnlyOne):
    """The right to make one call, and the place to report its result, once, from any thread or task.

    `CircuitBreaker.permit()` returns it. Report the result with `success()`, `failure()` or `ignore()`, or use the
    permit as a `with` or `async with` block: then the end of the block reports it as that of a call, unless the block
    has already reported one itself.

    A permit that is never settled counts nothing. In half-open it takes a probe slot until it is overdue.
    """

    __slots__ = ("__weakref__", "_admission", "_entered", "_frame", "_permission", "_settled", "_started")

    def __init__(self, admission: Admission, permission: Permission, started: float) -> None:
        self._admission = admission
        self._permission = permission
        self._started = started
        self._settled = False
        self._entered = False
        self._frame: open_blocks.Frame | None = None

    def __repr__(self) -> str:
        return f"<Permit of circuit {self._admission.name!r}: {'settled' if self._settled else 'out'}>"

    def success(self) -> None:
        """Report that the call succeeded.

        Raises:
            UsageError: A result was reported before. Nothing has changed.
        """
        self._settle(Outcome.SUCCESS, None)

    def failure(self, error: BaseException | None = None) -> None:
        """Report that the call failed. This may open the circuit.

        Args:
            error: The exception, for listeners, `last_failure` and the retry-after hint. None: there is none.

        Raises:
            UsageError: A result was reported before. Nothing has changed.
            TypeError: `error` is not an exception. Nothing has changed.
        """
        self._settle(Outcome.FAILURE, None if error is None else checks.instance("error", error, BaseException))

    def ignore(self) -> None:
        """Report that the call says nothing about the service, or was not made.

        Raises:
            UsageError: A result was reported before. Nothing has changed.
        """
        self._settle(Outcome.IGNORED, None)

    def _settle(self, outcome: Outcome, error: BaseException | None) -> None:
        now = self._admission._clock()
        if not self._claim():
            raise UsageError(f"{self!r}: its result has been reported already, and a permit takes one result")
        self._admission._settle(self._permission, outcome, now, now - self._started, error)

    def _claim(self) -> bool:
        with self._admission._machine.lock:
            claimed = not self._settled
            self._settled = True
        return claimed

    def __enter__(self) -> Permit:
        if self._settled or self._entered:
            raise UsageError(f"{self!r}: it has been used already, and a permit is for one call: ask for another one")
        self._entered = True
        if type(self._permission) is Probe:
            self._frame = open_blocks.push(self._admission, self._permission, self._started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._frame is not None:
            open_blocks.end(self._frame)
        now = self._admission._clock()
        if self._claim():
            if error is None:
                self._admission._settle_success(self._permission, now, now - self._started)
            else:
                self._admission._settle_error(self._permission, now, now - self._started, error)

    async def __aenter__(self) -> Permit:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.__exit__(kind, error, trace)
