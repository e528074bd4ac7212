"""What is claimed, and what was found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from typing import NamedTuple

from patience import PATIENCE_S

from circuit_breaker import Bulkhead, CircuitBreaker, RetryBudget


class Finding(NamedTuple):
    """What one look at a claim gave.

    Attributes:
        holds: whether the claim does.
        figure: what was counted or measured, in words.
        cell: the same for the table of rates; "": it is not in it.
    """

    holds: bool
    figure: str
    cell: str = ""


@dataclass(frozen=True)
class Claim:
    """Something that must hold, and how to find out with a size of one's choice.

    Attributes:
        text: what is claimed.
        find: looks at it; its argument is the size.
        short, long: the sizes of the two forms.
    """

    text: str
    find: Callable[[int], Finding]
    short: int
    long: int


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing be logged: whoever listens to the log may keep what is told, or hold a lock of its own."""
    logger = getLogger("circuit_breaker")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def usable_by_another_thread(*objects: CircuitBreaker | Bulkhead | RetryBudget) -> bool:
    """Tell whether no lock of these is held."""

    def use() -> None:
        for each in objects:
            each.tokens if isinstance(each, RetryBudget) else each.snapshot()
        done.set()

    done = threading.Event()
    threading.Thread(target=use, daemon=True).start()
    return done.wait(PATIENCE_S)
