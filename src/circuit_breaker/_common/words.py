"""The words of the library: the states of a circuit, its modes, and the outcomes of a call."""

from __future__ import annotations

from enum import Enum

__all__ = ["CircuitMode", "CircuitState", "Outcome"]


class CircuitState(Enum):
    """What a circuit does with calls: admit all (CLOSED), reject all (OPEN), or admit a few probes (HALF_OPEN)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitMode(Enum):
    """Who decides whether calls are admitted.

    - `AUTO`: the circuit itself, by its rules.
    - `FORCED_OPEN`: an operator. Every call is rejected.
    - `FORCED_CLOSED`: an operator. Every call is admitted and counted, and the circuit never opens.
    - `SHADOW`: nobody. The circuit changes its state as in `AUTO`, but no call is rejected. Use it to try settings out.
    """

    AUTO = "auto"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"
    SHADOW = "shadow"


class Outcome(Enum):
    """What a finished call says about the service: success, failure, or nothing (ignored)."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"


def probes_succeeded(number: int) -> str:
    """Return why a circuit closes, for the log and for people."""
    return "1 probe succeeded" if number == 1 else f"{number} probes succeeded"
