"""A copy of all figures of a bulkhead."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["BulkheadSnapshot"]


@dataclass(frozen=True)
class BulkheadSnapshot:
    """A consistent copy of all figures of a bulkhead at one moment.

    Attributes:
        name: The name of the bulkhead.
        max_concurrent: How many calls may run at once.
        max_queue: How many callers may wait.
        active_count: Calls that are running now.
        queued_count: Callers that are waiting now.
        accepted_count: Callers that got a slot since the bulkhead was made.
        rejected_count: Callers that were rejected since it was made, including those whose waiting time was over.
        timed_out_count: The callers among them whose waiting time was over.
        peak_active_count: The most calls that ran at once.
        total_wait_s: Seconds that callers waited, added up. Callers that are still waiting are not included.
    """

    name: str
    max_concurrent: int
    max_queue: int
    active_count: int
    queued_count: int
    accepted_count: int
    rejected_count: int
    timed_out_count: int
    peak_active_count: int
    total_wait_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return the same as a dict for JSON."""
        return asdict(self)
