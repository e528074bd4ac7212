"""A stream under a breaker: admitted at the first item, settled when the iteration is over."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from .._common.streams import AsyncStream, Guard, Stream
from . import open_blocks
from .admission import Admission
from .states import Asker, Permission, Probe


class StreamGuard(Guard):
    """Guards one iteration. Its latency is the time to the first item; later items can hang, but are never slow.

    A stream that is stopped by its consumer after an item is a success, and so is a probe that still gives items after
    `half_open_timeout_s`: it is settled then, for it may be endless.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._permission: Permission | None = None
        self._frame: open_blocks.Frame | None = None
        self._admitted = 0.0
        self._asked = 0.0
        self._latency_s: float | None = None
        self._has_given = False

    def open(self, func: Callable[..., Stream], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Stream, Any]:
        """Admit the iteration, and give its first item."""
        self._admit()
        self.resume()
        try:
            opened = super().open(func, args, kwargs)
        finally:
            self.pause()
        self.gave()
        return opened

    async def open_async(
        self, func: Callable[..., AsyncStream], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[AsyncStream, Any]:
        """Do the same as `open`."""
        self._admit()
        self.resume()
        try:
            opened = await super().open_async(func, args, kwargs)
        finally:
            self.pause()
        self.gave()
        return opened

    def _admit(self) -> None:
        permission = self._admission._admit(Asker.CALL)
        self._permission = permission
        self._admitted = self._admission._clock()
        # Only a probe, and a stream that may hang, needs to know when each item is asked for and given.
        self.watches_items = type(permission) is Probe or self._admission._machine.config._slow_s < inf

    def resume(self) -> None:
        """Enter the body: calls in it on the same breaker are part of this probe."""
        self._asked = self._admission._clock()
        if type(self._permission) is Probe:
            self._permission.since = self._asked
            self._frame = open_blocks.push(self._admission, self._permission, self._asked)

    def pause(self) -> None:
        """Leave the body; a probe that gives items is not overdue."""
        if self._frame is not None:
            open_blocks.end(self._frame)
            self._frame = None
        now = self._admission._clock()
        if self._latency_s is None:
            self._latency_s = now - self._asked
        if type(self._permission) is Probe:
            self._permission.since = now

    def gave(self) -> None:
        """Note that there was an item; a probe that gives one after `half_open_timeout_s` has succeeded."""
        self._has_given = True
        probe = self._permission
        if type(probe) is Probe and probe.since >= self._admitted + self._admission._machine.config._overdue_s:
            self._settle_success(probe, probe.since)

    def end(self, error: BaseException | None) -> None:
        """Settle, if that was not done before."""
        permission = self._permission
        if permission is None:
            return
        now = self._admission._clock()
        if error is None or (self._has_given and issubclass(type(error), GeneratorExit)):
            self._settle_success(permission, now)
            return
        self._permission = None
        waited_s = now - self._asked if self.watches_items or not self._has_given else 0.0
        self._admission._settle_error(permission, now, self._latency_s or 0.0, error, waited_s=waited_s)

    def _settle_success(self, permission: Permission, now: float) -> None:
        self._permission = None
        self.watches_items = False
        self._admission._settle_success(permission, now, self._latency_s or 0.0)
