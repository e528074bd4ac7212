"""What a bulkhead was at one moment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["BulkheadSnapshot"]


@dataclass(frozen=True)
class BulkheadSnapshot:
    """What a bulkhead was at one moment; the counts are totals since construction.

    Attributes:
        rejected_count: callers refused, those that timed out in the line included.
        timed_out_count: callers refused after their time in the line.
        total_wait_s: seconds spent in the line by everybody who has left it.
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
        """Return the same as a dict that `json.dumps` takes."""
        return asdict(self)
