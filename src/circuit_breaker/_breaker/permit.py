"""One admission that somebody holds in hand."""

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
    """The right to make one call, already admitted; it counts exactly once, wherever and whenever it is settled.

    `CircuitBreaker.permit()` gives it. Either say how the call ended, from any thread or task, or let a `with` or
    `async with` block say it: its exception is judged as that of a call, unless the block has said otherwise before.
    One that is never settled counts nothing, and in half-open takes a place until it is overdue.
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
        """Say that the call succeeded.

        Raises:
            UsageError: this permit has been settled before; nothing has changed.
        """
        self._settle(Outcome.SUCCESS, None)

    def failure(self, error: BaseException | None = None) -> None:
        """Say that the call failed, and with which error if there is one.

        Raises:
            UsageError: this permit has been settled before; nothing has changed.
            TypeError: `error` is no exception; nothing has changed.
        """
        self._settle(Outcome.FAILURE, None if error is None else checks.instance("error", error, BaseException))

    def ignore(self) -> None:
        """Give the permit back: the call says nothing about the dependency.

        Raises:
            UsageError: this permit has been settled before; nothing has changed.
        """
        self._settle(Outcome.IGNORED, None)

    def _settle(self, outcome: Outcome, error: BaseException | None) -> None:
        now = self._admission._clock()
        if not self._claim():
            raise UsageError(f"{self!r}: a permit is settled once")
        self._admission._settle(self._permission, outcome, now, now - self._started, error)

    def _claim(self) -> bool:
        with self._admission._machine.lock:
            claimed = not self._settled
            self._settled = True
        return claimed

    def __enter__(self) -> Permit:
        if self._settled or self._entered:
            raise UsageError(f"{self!r}: a permit is for one call, and this one has been used")
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
