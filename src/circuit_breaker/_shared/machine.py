"""The state machine of a breaker that shares its circuit: it runs by itself, and follows what holds for all."""

from __future__ import annotations

from itertools import repeat
from math import inf

from .._breaker.config import CircuitBreakerConfig
from .._breaker.machine import Machine
from .._breaker.rules import WindowCounts
from .._breaker.states import Open, Period
from .._common.events import Listener
from .._common.words import CircuitMode, CircuitState
from .link import Link
from .states import OpenByItself

FOR_ALL = "in all processes: "


class SharedMachine(Machine):
    """A machine with a tie to the store.

    Attributes:
        link: that tie.
        own_mode: the mode of this process; `mode` is the one in force, which an order to all may have set.
        joined: this process takes part; until then, and after a long silence, no call is fast, so each meets the link.
    """

    __slots__ = ("joined", "link", "own_mode")

    link: Link

    def __init__(
        self,
        link: Link,
        config: CircuitBreakerConfig,
        mode: CircuitMode,
        now: float,
        listeners: tuple[Listener, ...],
    ) -> None:
        self.link = link
        self.own_mode = mode
        self.joined = False
        super().__init__(config, mode, now, listeners)

    def join(self, joined: bool) -> None:
        """Let calls be counted and rejected at once from now on, or let the next one meet the link."""
        for _ in repeat(None):
            period = self.period
            opened = period if isinstance(period, Open) and period.met is CircuitState.OPEN else None
            with self.lock:
                if self.period is period:
                    self.joined = joined
                    self.fast = None
                    if opened is not None:
                        opened.rejects_until = opened.ends_at if joined else -inf
                    break
        self.renew_fast()

    def opened(self, now: float, open_for_s: float, openings: int, counts: WindowCounts) -> Open:
        """Return the period that follows when this process opens the circuit."""
        return OpenByItself(self.link, now, open_for_s, openings, counts, self.mode is CircuitMode.SHADOW)

    def enter_for_all(self, former: Period, period: Period, reason: str, mode: CircuitMode) -> bool:
        """Follow the record into another period, unless another thread has left the former one meanwhile."""
        opened = period.state is CircuitState.OPEN and former.state is not CircuitState.OPEN
        return self._enter(former, period, FOR_ALL + reason, opened=int(opened), mode=mode)

    def period_of(self, mode: CircuitMode, now: float) -> Period:
        """Return the first period of a mode."""
        return self._first_period(mode, now)

    def set_mode(self, mode: CircuitMode, now: float) -> None:
        """Begin a fresh period under another mode of this process, and in AUTO ask the store where the circuit is."""
        if mode is self.own_mode:  # though an order to all may be in force: that is not this process's to end
            return
        self.own_mode = mode
        self.link.follow_anew()
        self.join(False)
        super().set_mode(mode, now)

    def reset(self, mode: CircuitMode, now: float) -> None:
        """Be as new, in this mode, and let the circuit be so for all members."""
        self.own_mode = mode
        super().reset(mode, now)
        self.link.reset_for_all()

    def after_fork_in_child(self) -> None:
        """Begin as another member."""
        super().after_fork_in_child()
        self.join(False)
        self.link.after_fork_in_child()
