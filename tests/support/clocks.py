"""A clock that stands still."""

from __future__ import annotations


class Clock:
    """Seconds that pass when they are told to, and may be set back, which `FakeClock` refuses."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
