"""The words of the library: the states of a circuit, its modes, and the outcomes of a call."""

from __future__ import annotations

from enum import Enum

__all__ = ["CircuitMode", "CircuitState", "Outcome"]


class CircuitState(Enum):
    """What a circuit does with a call: admit it, reject it, or admit a few as probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitMode(Enum):
    """Who decides: the rules (`AUTO`), the operator (`FORCED_*`), or the rules without consequences (`SHADOW`)."""

    AUTO = "auto"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"
    SHADOW = "shadow"


class Outcome(Enum):
    """What a call says about the dependency; an ignored one says nothing."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"
