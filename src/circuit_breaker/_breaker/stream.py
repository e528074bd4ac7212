"""A stream under a breaker: admitted at the first item, settled when the iteration is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._common.streams import AsyncStream, Guard, Stream
from ..exceptions import CircuitOpenError
from . import open_blocks
from .admission import Core
from .states import Permission, Probe


class StreamGuard(Guard):
    """Its latency is the time to the first item; what it waits for after that can only hang, not be slow."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._permission: Permission | None = None
        self._frame: open_blocks.Frame | None = None
        self._asked = 0.0
        self._latency_s: float | None = None

    def open(self, func: Callable[..., Stream], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Stream, Any]:
        """Admit the iteration, and give its first item."""
        self._admit()
        self.resume()
        try:
            return super().open(func, args, kwargs)
        finally:
            self.pause()

    async def open_async(
        self, func: Callable[..., AsyncStream], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[AsyncStream, Any]:
        """Do the same as `open`."""
        self._admit()
        self.resume()
        try:
            return await super().open_async(func, args, kwargs)
        finally:
            self.pause()

    def resume(self) -> None:
        """Enter the body: calls in it on the same breaker ride on this probe."""
        if self._permission is None:
            return
        self._asked = self._core._clock()
        if type(self._permission) is Probe:
            self._permission.since = self._asked
            self._frame = open_blocks.push(self._core, self._permission, self._asked)

    def pause(self) -> None:
        """Leave the body; a probe that gives items is not overdue."""
        if self._permission is None:
            return
        if self._frame is not None:
            open_blocks.end(self._frame)
            self._frame = None
        now = self._core._clock()
        if type(self._permission) is Probe:
            self._permission.since = now
        if self._latency_s is None:
            self._latency_s = now - self._asked

    def end(self, error: BaseException | None) -> None:
        """Settle, if it was admitted."""
        permission, self._permission = self._permission, None
        if permission is None:
            return
        now = self._core._clock()
        latency_s = 0.0 if self._latency_s is None else self._latency_s
        if error is None:
            self._core._settle_success(permission, now, latency_s)
        else:
            self._core._settle_error(permission, now, latency_s, error, waited_s=now - self._asked)

    def _admit(self) -> None:
        admitted = self._core._admit()
        if isinstance(admitted, CircuitOpenError):
            try:
                raise admitted
            finally:
                del admitted  # an exception that is kept in a frame of its own traceback is a circle
        self._permission = admitted
