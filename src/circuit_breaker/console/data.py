"""What the page is given: a view of the store as JSON, which is made once for all who ask for it."""

from __future__ import annotations

import json
from collections.abc import Collection
from math import isfinite
from typing import Any

from .._shared.record import printable
from .history import Past
from .rows import Row
from .watcher import View


class Data:
    """Writes views as JSON."""

    def __init__(self, label: str, control: bool) -> None:
        self._label = label
        self._control = control
        self._written: tuple[View, bytes] | None = None

    def write(self, view: View, age_s: float, with_history: bool, keys: Collection[str]) -> bytes:
        """Return a view as JSON.

        Args:
            view: what was found when the store answered last.
            age_s: how old that is.
            with_history: add the samples of the last minute.
            keys: of the rows whose processes are wanted, too.
        """
        written = self._written
        if written is None or written[0] is not view:
            written = self._written = view, _json(self._reading(view))
        parts = [b'"reading":' + written[1], b'"age_s":' + _json(_finite(age_s))]
        if with_history:
            parts.append(b'"history":' + _json({key: _samples(past) for key, past in view.history.items()}))
        wanted = [row for row in view.rows if row.key in keys]
        parts.append(b'"members":' + _json({row.key: _members(view, row) for row in wanted}))
        return b"{" + b",".join(parts) + b"}"

    def _reading(self, view: View) -> dict[str, Any]:
        summary = view.headline()
        return {
            "store": self._label,
            "control": self._control,
            "at": view.at,
            "error": view.error,
            "headline": {"main": summary.main, "rest": summary.rest, "tone": summary.tone.value},
            "rows": [_row(view, row) for row in view.rows],
        }


def _row(view: View, row: Row) -> dict[str, Any]:
    circuit, order = row.circuit, view.history[row.key].order
    return {
        "key": row.key,
        "name": row.name,
        "kind": row.kind.name.lower(),
        "tone": row.tone.value,
        "word": row.word,
        "meaning": row.meaning(),
        "cause": row.cause(),
        "reason": row.reason,
        "by": row.by,
        "mode": circuit.mode.value,
        "since_s": _finite(circuit.since_s),
        "retry_s": row.retry_s,
        "probes": circuit.probes_out,
        "processes": sum(row.processes.values()),
        "members": row.members(),
        "sample": None if circuit.error is not None else _samples(view.history[row.key])[-1],
        "order": None if order is None else {"what": order.what, "by": order.by, "ago_s": view.at - order.at},
    }


def _samples(past: Past) -> list[list[float]]:
    return [[sample.at, sample.epoch, *sample.counts] for sample in past.samples]


def _members(view: View, row: Row) -> list[dict[str, Any]]:
    return [
        {
            "host": printable(member.host),
            "pid": member.pid,
            "state": row.own_state(member.circuits[row.circuit.name]),
            "by_itself": member.circuits[row.circuit.name] not in ("closed", "for_all"),
            "since_s": _finite(view.at - member.since),
            "seen_s": _finite(view.at - member.last_seen),
        }
        for member in view.members
        if row.circuit.name in member.circuits
    ]


def _finite(number: float | None) -> float | None:
    """Return a number that JSON has; whoever may write to the store may have written any."""
    return number if number is not None and isfinite(number) else None


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")
