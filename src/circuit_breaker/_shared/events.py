"""The events about the store."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StoreFound", "StoreLost"]


@dataclass(frozen=True)
class StoreLost:
    """A breaker cannot learn anything from its store now, and goes on by itself."""

    circuit_name: str
    reason: str


@dataclass(frozen=True)
class StoreFound:
    """The store of a breaker answers again, and the circuit is shared from now on."""

    circuit_name: str
