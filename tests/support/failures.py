"""What fails in these tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


class Down(Exception):
    """The other side is down. It may carry a retry-after hint."""

    retry_after_s: float | None = None


def raising(error: BaseException) -> Callable[[], NoReturn]:
    """Return a function that raises the error."""

    def body() -> NoReturn:
        raise error

    return body
