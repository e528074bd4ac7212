"""How a policy sleeps, and how tests skip its sleeps."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Final

from .._common.async_library import running_library
from ..exceptions import UsageError

_LONGEST_SLEEP_S: Final = 1e9  # systems cannot sleep for centuries
_RETRIES_WITHOUT_LIMIT: Final = 1_000


class Override:
    """What `circuit_breaker.testing` sets for every policy: no sleeps, and a limit on retries.

    A policy without a limit of its own is given one. The time that is not slept passes for nobody else, for an open
    circuit as little as for another thread, so that it might go on for ever.
    """

    def __init__(self, max_retries: int | None) -> None:
        self._max_retries = max_retries

    def most_retries(self, own: int | None) -> int:
        """Return how often a policy may retry whose own limit is given."""
        return min((limit for limit in (own, self._max_retries) if limit is not None), default=_RETRIES_WITHOUT_LIMIT)


# The overrides in force in this process, the latest last. Adding, removing and reading are one step each.
overrides: list[Override] = []


def override() -> Override | None:
    """Return the latest override in force, if there is one."""
    latest = overrides[-1:]
    return latest[0] if latest else None


def sleep(seconds: float) -> None:
    """Wait on this thread."""
    time.sleep(min(seconds, _LONGEST_SLEEP_S))


def sleep_async(seconds: float) -> Awaitable[None]:
    """Wait in this task, by the library that runs it.

    Raises:
        UsageError: it is neither asyncio nor trio.
    """
    library = running_library()
    if library is None:
        raise UsageError("a retry can sleep under asyncio and trio: give the policy a sleep= for any other event loop")
    return library.sleep(min(seconds, _LONGEST_SLEEP_S))  # type: ignore[no-any-return]


async def checkpoint() -> None:
    """Let other tasks run, and let a cancellation take effect, if this is asyncio or trio."""
    if running_library() is not None:
        await sleep_async(0)
