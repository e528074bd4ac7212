"""How many examples a test that draws them looks at."""

from __future__ import annotations

from typing import Any

from hypothesis import settings


def examples(number: int = 100, **more: Any) -> settings:
    """Return settings for the same examples in every run, however long each takes on a busy machine."""
    return settings(max_examples=number, deadline=None, derandomize=True, database=None, **more)
