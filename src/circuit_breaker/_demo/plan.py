"""What happens when, and the settings of the three patterns, all scaled to how long it may take."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

CALLERS: Final = 8
MAX_RETRIES: Final = 2
BACKOFF_BASE_S: Final = 0.05
MAX_CONCURRENT: Final = 4
MAX_QUEUE: Final = 2
PAUSE_S: Final = 0.05
QUARTER_S: Final = 0.25
INTERVAL_S: Final = 0.1  # how often processes exchange what they know; the default of a store is 1 s
STORE_TIMEOUT_S: Final = 1.0
FEWEST_PROCESSES: Final = 2
MOST_PROCESSES: Final = 64
SHORTEST_S: Final = 3
LONGEST_S: Final = 3600


class Phase(Enum):
    """The states of the server."""

    HEALTHY = "healthy"
    FAILS = "fails"
    HANGS = "hangs"
    RECOVERED = "recovered"


# The part of the time at which each phase ends.
ENDS: Final = {Phase.HEALTHY: 0.2, Phase.FAILS: 0.45, Phase.HANGS: 0.7, Phase.RECOVERED: 1.0}


@dataclass(frozen=True)
class Plan:
    """What happens within the given number of seconds."""

    seconds: float

    @property
    def quarters(self) -> int:
        """How many quarters of a second it takes."""
        return round(self.seconds / QUARTER_S)

    @property
    def timeout_s(self) -> float:
        """How long a caller waits for the server; not so short that a busy machine looks like a failing server."""
        return max(0.4, self.seconds * 0.05)

    @property
    def reset_timeout_s(self) -> float:
        """How long the circuit stays open before it probes."""
        return max(0.2, self.seconds * 0.05)

    def end(self, phase: Phase) -> int:
        """Return the quarter of a second with which a phase ends."""
        return round(self.quarters * ENDS[phase])

    def phase(self, quarter: int) -> Phase:
        """Return how the server is in a quarter of a second, the first of which is 0."""
        return next((phase for phase in Phase if quarter < self.end(phase)), Phase.RECOVERED)
