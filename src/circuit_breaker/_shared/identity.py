"""Who this process is to a store: the same member as long as it lives, whichever breakers it makes and drops."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from typing import Any, Final

from .._common import fork


class _Process:
    """Stands for this process; a forked child is another one."""

    def __init__(self) -> None:
        self._after_fork_in_child()
        fork.survive(self)

    def _after_fork_in_child(self) -> None:
        self.token = new_token()


def new_token() -> str:
    """Return a name that nobody else has."""
    return os.urandom(6).hex()


_process: Final = _Process()  # made before all talkers, and so renewed before them in a child


def member_of(store: Any) -> str:
    """Return the name of this process as a member of what this store keeps: short, ASCII, and nobody else's."""
    same: Callable[[], Hashable] = getattr(store, "_same", lambda: id(store))
    return f"{_process.token}.{hash(same()) % 2**64:x}"
