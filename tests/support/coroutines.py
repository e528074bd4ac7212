"""Running coroutines with an event loop, and without one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from patience import PATIENCE_S


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run it in a new event loop of asyncio, for as long as we are patient."""
    return asyncio.run(asyncio.wait_for(main, PATIENCE_S))


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


class Pause:
    """Suspends the coroutine that awaits it once, and returns what is sent to it."""

    def __await__(self) -> Generator[None, Any, Any]:
        return (yield)
