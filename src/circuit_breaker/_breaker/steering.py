"""What operators see of a breaker, and how they steer it."""

from __future__ import annotations

import time
from datetime import timedelta

from .._common import checks
from .._common.words import CircuitMode, CircuitState
from ..exceptions import UsageError
from .admission import Admission
from .config import CircuitBreakerConfig
from .states import in_flight
from .totals import CircuitSnapshot, CircuitStats, LiveStats


class Steering(Admission):
    """A machine that can be read, configured, forced, opened by hand and listened to."""

    # Reading

    @property
    def state(self) -> CircuitState:
        """What a caller meets now; an open circuit whose time is over is half-open from this look on."""
        return self._look().met

    @property
    def is_open(self) -> bool:
        """Whether callers are rejected until some time is over."""
        return self._look().met is CircuitState.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether every caller is admitted."""
        return self._look().met is CircuitState.CLOSED

    @property
    def stats(self) -> CircuitStats:
        """The totals, as one live object."""
        return self._stats or self._live_stats()

    def _live_stats(self) -> LiveStats:
        stats = LiveStats(self._machine, self._clock)
        with self._machine.lock:
            if self._stats is None:
                self._stats = stats
            return self._stats

    def snapshot(self) -> CircuitSnapshot:
        """Return a consistent copy of everything there is to see."""
        live = self._stats or self._live_stats()
        wall, now = time.time(), self._clock()
        machine = self._machine
        machine.look(now)
        reading = machine.read()
        period, counts = reading.period, reading.window_counts(now)
        admits_all = period.met is CircuitState.CLOSED
        snapshot = CircuitSnapshot(
            name=self.name,
            state=period.met,
            machine_state=period.state,
            mode=reading.mode,
            stats=live._dated(reading.stats(), wall, now),
            window_calls=counts.calls,
            window_failures=counts.failures,
            window_slow=counts.slow_calls,
            error_rate=counts.error_rate,
            slow_call_rate=counts.slow_call_rate,
            retry_after_s=0.0 if admits_all else period.retry_after_s(machine, reading.book, now),
            probes_in_flight=len(in_flight(reading.book, machine.config, now)),
            shared=None if machine.link is None else machine.link.snapshot(period),
            dropped_changes=machine.dropped,
        )
        self._publish()
        return snapshot

    # Steering

    @property
    def config(self) -> CircuitBreakerConfig:
        """The configuration; another one takes effect at once.

        The window begins anew if its kind or size changed, the streak stays, and an open period keeps its end.
        """
        return self._machine.config

    @config.setter
    def config(self, config: CircuitBreakerConfig) -> None:
        checks.instance("config", config, CircuitBreakerConfig)
        self._machine.configure(config, self._clock())
        self._publish()

    @property
    def mode(self) -> CircuitMode:
        """Who decides; setting another mode keeps the totals and starts afresh, setting the same changes nothing."""
        return self._machine.mode

    @mode.setter
    def mode(self, mode: CircuitMode) -> None:
        checks.member("mode", mode, CircuitMode)
        self._machine.set_mode(mode, self._clock())
        self._keep()
        self._publish()

    def reset(self) -> None:
        """Be as new: in the mode it was made with, closed (unless that is FORCED_OPEN), all totals zero.

        Results of calls that are out count in the totals alone.
        """
        self._machine.reset(self._made_in, self._clock())
        self._publish()

    def trip(self, open_for_s: float | timedelta | None = None) -> None:
        """Open the circuit now, as if a rule had; a circuit that is open stays open from now on.

        Args:
            open_for_s: seconds until it probes, >= 0 (inf: until `reset()`), or a `timedelta`; None: as long as
                `reset_timeout_s` says.

        Raises:
            UsageError: the mode is FORCED_OPEN or FORCED_CLOSED, in which nothing opens or closes the circuit.
            TypeError, ValueError: `open_for_s` is no such number.
        """
        wait_s = None if open_for_s is None else checks.seconds("open_for_s", open_for_s, minimum=0, infinite=True)
        if self._machine.mode in (CircuitMode.FORCED_OPEN, CircuitMode.FORCED_CLOSED):
            raise UsageError(f"{self!r}: trip() has no effect in this mode; set mode to AUTO or SHADOW first")
        now = self._clock()
        opened = self._machine.trip(now, "by hand")
        self._keep()
        try:
            open_for_s = self._open_for_s(opened) if wait_s is None else wait_s
            opened.end_after(self._machine, now - opened.at + open_for_s, opened.last_failure)
        finally:
            self._publish()
