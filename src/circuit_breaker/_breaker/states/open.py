"""OPEN: every call is rejected until the time is over."""

from __future__ import annotations

from math import inf

from ..._common.words import CircuitState
from ..rules import WindowCounts
from ..totals import Tally
from ..window import Seen
from .period import LastFailure, Machine, Period


class Open(Period):
    """Every call is rejected until the time is over; with SHADOW none is.

    Attributes:
        at: when the circuit opened.
        led_by: what the window held then.
    """

    __slots__ = ("at", "ends_at", "last_failure", "led_by", "met", "openings", "rejects_until")

    state = CircuitState.OPEN

    def __init__(self, at: float, open_for_s: float, openings: int, led_by: WindowCounts, shadow: bool) -> None:
        super().__init__()
        self.at = at
        self.openings = openings
        self.led_by = led_by
        self.last_failure: LastFailure | None = None
        self.met = CircuitState.CLOSED if shadow else CircuitState.OPEN
        self.ends_at = at + open_for_s
        self.rejects_until = -inf if shadow else self.ends_at

    def anew(self, machine: Machine, ends_at: float) -> Open:
        """Return the period that follows when the circuit is opened by hand: the same, but for its end.

        It is another object, so that what is still asked about the end of this one decides nothing there.
        """
        anew: Open = machine.opened(self.at, ends_at - self.at, self.openings, self.led_by)
        anew.last_failure = self.last_failure
        return anew

    def end_after(self, machine: Machine, open_for_s: float, last_failure: LastFailure | None) -> None:
        """Set the end, counted from the beginning, and note which failure opened the circuit."""
        ends_at = self.at + open_for_s
        rejects_until = ends_at if self.met is CircuitState.OPEN else -inf
        with machine.lock:
            self.ends_at = ends_at
            self.rejects_until = rejects_until
            self.last_failure = last_failure

    def window_counts(self, counted: Tally, streak: int, seen: Seen | None, now: float) -> WindowCounts:
        """Return what the window held when the circuit opened."""
        return self.led_by

    def following(self, machine: Machine, now: float) -> tuple[Period, str]:
        """Return the half-open period."""
        return machine.half_open(self), f"open for {now - self.at:.3g} s"

    def rejected_for_s(self, now: float) -> float | None:
        """Return the seconds until the time is over."""
        left_s = self.ends_at - now
        return left_s if left_s > 0.0 else 0.0


class ForcedOpen(Open):
    """Every call is rejected until an operator says otherwise."""

    __slots__ = ()

    def __init__(self, now: float) -> None:
        super().__init__(now, inf, 0, WindowCounts(), False)

    def rejected_for_s(self, now: float) -> float | None:
        """Return None: not known."""
        return None
