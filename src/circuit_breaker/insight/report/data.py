"""Findings as plain data, for programs: what `--json` prints."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from math import inf
from typing import Any

from ..._breaker.config import CircuitBreakerConfig
from ..figures import Spread
from ..made import SHARES
from ..outages import Outage
from ..study import Findings, Row
from . import verdict, wording


def data(findings: Findings) -> dict[str, Any]:
    """Return the findings as what `json.dumps` takes; times are seconds, moments are wall-clock seconds."""
    log = findings.log
    return {
        "log": {
            "title": log.title,
            "begin": log.start,
            "length_s": log.length_s,
            "calls": len(log.calls),
            "circuits": len(log.circuits),
            "rejected": log.rejected,
        },
        "verdict": {
            "keep": findings.kept is not None,
            "setting": findings.picked.name,
            "headline": verdict.headline(findings),
            "reason": verdict.reason(findings),
            "code": "\n".join(wording.code(findings.picked.config)),
        },
        "warnings": verdict.warnings(findings),
        "refuse_from": findings.question.refuse_from,
        "ordinary": {
            "bad_share": findings.ordinary.share,
            "clump": findings.ordinary.clump,
            "slow_s": finite(findings.ordinary.slow_s),
        },
        "outages": [
            _outage(findings, number, outage, worth)
            for number, (outage, worth) in enumerate(zip(findings.outages, findings.worth, strict=True), 1)
        ],
        "stuck_without_a_breaker": findings.stuck_before,
        "settings": [_row(findings, row) for row in findings.rows],
    }


def _outage(findings: Findings, number: int, outage: Outage, worth: bool) -> dict[str, Any]:
    return {
        "number": number,
        "begin": findings.log.start + outage.begin,
        "end": findings.log.start + outage.end,
        "calls": outage.calls,
        "failed": outage.failed,
        "slow": outage.slow,
        "bad_share": findings.share(outage),
        "worth_opening_for": worth,
    }


def _row(findings: Findings, row: Row) -> dict[str, Any]:
    figures, start = row.figures, findings.log.start
    return {
        "name": row.name,
        "config": config(row.config),
        "in_words": wording.in_short(row.config),
        "outages_worth": figures.worth,
        "opened_for": figures.opened_for,
        "outages_mild": figures.mild,
        "opened_for_mild": figures.opened_for_mild,
        "opened_after_s": _spread(figures.opened_after_s),
        "closed_after_s": _spread(figures.closed_after_s),
        "failing_calls": figures.bad,
        "failing_calls_let_through": figures.let_through,
        "good_calls_rejected": figures.good_rejected,
        "waiting_saved_s": figures.waiting_saved_s,
        "stuck": figures.stuck,
        "false_alarms": [{"at": start + alarm.at, "reason": alarm.reason} for alarm in figures.false_alarms],
        "late_openings": [{"at": start + alarm.at, "reason": alarm.reason} for alarm in figures.late],
        "loss": row.loss,
        "opens_after_s": {
            wording.exact_share(share): finite(seconds)
            for share, seconds in zip(SHARES, row.opens_after_s, strict=False)
        },
    }


def config(given: CircuitBreakerConfig) -> dict[str, Any]:
    """Return the numbers of a configuration; a time is its seconds, a function its name."""
    return {
        field.name: _plain(getattr(given, field.name))
        for field in fields(given)
        if field.name not in {"failure_exceptions", "ignored_exceptions", "failure_result", "retry_after"}
    }


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return {"seconds": value.total_seconds()}
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return finite(value) if isinstance(value, float) else value


def _spread(spread: Spread | None) -> dict[str, Any] | None:
    return None if spread is None else {"median": finite(spread.median), "worst": finite(spread.worst)}


def finite(value: float) -> float | None:
    """Return None for an infinite time, which JSON does not have."""
    return None if value == inf else value
