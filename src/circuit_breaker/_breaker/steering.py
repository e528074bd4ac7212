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
        """The state that a caller meets now. Reading it makes an open circuit half-open if its time is over."""
        return self._look().met

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open, so that every call is rejected."""
        return self._look().met is CircuitState.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether the circuit is closed, so that every call is admitted."""
        return self._look().met is CircuitState.CLOSED

    @property
    def stats(self) -> CircuitStats:
        """The totals as a live object: reading an attribute gives its present value. Its attributes cannot be set."""
        return self._stats or self._live_stats()

    def _live_stats(self) -> LiveStats:
        stats = LiveStats(self._machine, self._clock)
        with self._machine.lock:
            if self._stats is None:
                self._stats = stats
            return self._stats

    def snapshot(self) -> CircuitSnapshot:
        """Return a consistent copy of everything this breaker shows: state, mode, totals and window."""
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
        """The configuration. It can be set at any time and takes effect at once.

        The failures in a row are kept, and an open circuit stays open for as long as it was going to. The window starts
        empty if its kind or size has changed.
        """
        return self._machine.config

    @config.setter
    def config(self, config: CircuitBreakerConfig) -> None:
        checks.instance("config", config, CircuitBreakerConfig)
        self._machine.configure(config, self._clock())
        self._publish()

    @property
    def mode(self) -> CircuitMode:
        """Who decides whether calls are admitted, see `CircuitMode`. It can be set at any time.

        Another mode keeps the totals and starts with a closed circuit and an empty window. Setting the same mode again
        changes nothing.
        """
        return self._machine.mode

    @mode.setter
    def mode(self, mode: CircuitMode) -> None:
        checks.member("mode", mode, CircuitMode)
        self._machine.set_mode(mode, self._clock())
        self._keep()
        self._publish()

    def reset(self) -> None:
        """Make the breaker as it was when it was made: closed, in its first mode, all totals zero.

        Configuration and listeners stay as they are. If its first mode is FORCED_OPEN, it is open. Calls that are
        running now count in the new totals when they finish, and change nothing else.
        """
        self._machine.reset(self._made_in, self._clock())
        self._publish()

    def trip(self, open_for_s: float | timedelta | None = None) -> None:
        """Open the circuit now, as a rule would. If it is open already, its time starts again.

        Args:
            open_for_s: Seconds until it admits a probe, >= 0, or a `timedelta`. inf: until `reset()`. None:
                `reset_timeout_s` says how long.

        Raises:
            UsageError: The mode is FORCED_OPEN or FORCED_CLOSED, in which the circuit does not change.
            TypeError, ValueError: `open_for_s` has the wrong type or is out of range.
        """
        wait_s = None if open_for_s is None else checks.seconds("open_for_s", open_for_s, minimum=0, infinite=True)
        now = self._clock()
        opened = self._machine.trip(now, "by hand")
        if opened is None:
            raise UsageError(f"{self!r}: trip() has no effect in this mode; set mode to AUTO or SHADOW first")
        self._keep()
        try:
            open_for_s = self._open_for_s(opened) if wait_s is None else wait_s
            opened.end_after(self._machine, now - opened.at + open_for_s, opened.last_failure)
        finally:
            self._publish()
