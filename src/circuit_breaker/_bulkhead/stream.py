"""A stream under a bulkhead: it holds a slot from its first item to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._common.pattern import Args, Kwargs
from .._common.streams import AsyncStream, Guard, Stream
from .admission import Admission
from .line import Caller


class StreamCaller(Caller, Guard):
    """The caller of one iteration, which is also its guard."""

    def __init__(self, bulkhead: Admission, patience_s: float | None) -> None:
        super().__init__()
        self._bulkhead = bulkhead
        self._patience_s = patience_s
        self.leave = bulkhead._line.abandoned.add

    def open(self, func: Callable[..., Stream], args: Args, kwargs: Kwargs) -> tuple[Stream, Any]:
        if not self._bulkhead._take(self, self._patience_s):
            raise self._bulkhead._rejection(self)
        return super().open(func, args, kwargs)

    async def open_async(self, func: Callable[..., AsyncStream], args: Args, kwargs: Kwargs) -> tuple[AsyncStream, Any]:
        if not await self._bulkhead._take_async(self, self._patience_s):
            raise self._bulkhead._rejection(self)
        return await super().open_async(func, args, kwargs)

    def end(self, error: BaseException | None) -> None:
        self._bulkhead._line.serve()
