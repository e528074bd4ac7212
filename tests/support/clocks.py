"""A clock that stands still."""

from __future__ import annotations


class Clock:
    """A clock that is moved by hand. It may go back, which `FakeClock` may not."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
