"""What the findings come to, in sentences: what to do, why, what to be careful about, what nobody can know."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Final, NamedTuple

from ..figures import Spread
from ..study import DEFAULTS, Findings, Row
from . import wording
from .wording import number

DAY_S = 86_400.0
MANY_REJECTED = 0.01
MUCH_SLOW = 0.1
FALSE_ALARMS_SHOWN = 5


class Figure(NamedTuple):
    """A figure to remember, and what it is."""

    value: str
    label: str


def headline(findings: Findings) -> str:
    """Return what to do, in one or two sentences."""
    config = findings.picked.config
    rules = f"pen when {wording.rules(config)}. Probe after {wording.pause(config)}."
    if findings.kept is None:
        return f"O{rules}"
    what = "the defaults" if findings.kept.name == DEFAULTS else "what you have"
    return f"Keep {what}: o{rules}"


def reason(findings: Findings) -> str:
    """Return why, in one sentence or two."""
    answer = wording.exact_share(findings.question.refuse_from)
    current, advised = findings.current, findings.advised
    if findings.kept is not None and findings.kept is not current:
        return f"With your settings {_shortcoming(current, findings.kept)}. The defaults do better."
    if findings.kept is not None:
        return f"Nothing derived from this log does noticeably better for the answer {answer}."
    whose = "the defaults" if current.name == DEFAULTS else "your settings"
    return f"With {whose} {_shortcoming(current, advised)}."


def _shortcoming(row: Row, better: Row) -> str:
    """Return what is wrong with a setting, beside a better one."""
    figures, others = row.figures, better.figures
    rejected, let_through = figures.good_rejected, figures.let_through
    found: list[str] = []
    if figures.opened_for < figures.worth:
        missed = number(figures.worth - figures.opened_for, "outage")
        found.append(f"{missed} worth opening for would have been missed")
    if figures.false_alarms:
        found.append(f"there would have been {number(len(figures.false_alarms), 'false alarm')}")
    if figures.opened_for_mild > others.opened_for_mild:
        found.append(f"the circuit would have opened for {number(figures.opened_for_mild, 'outage')} too mild for it")
    if rejected > others.good_rejected:
        found.append(f"{number(rejected, 'good call')} would have been rejected instead of {others.good_rejected:,}")
    if let_through > others.let_through:
        calls = number(let_through, "failing call")
        found.append(f"{calls} would have been let through instead of {others.let_through:,}")
    if not found:
        return f"outages like those that were made to try it cost {row.loss - better.loss:.0%} more than they need to"
    if let_through < others.let_through:
        calls = number(let_through, "failing call")
        found[-1] += f", but only {calls} would have been let through instead of {others.let_through:,}"
    return ", and ".join(found)


def six(findings: Findings) -> list[Figure]:
    """Return the six figures to remember of the settings to use."""
    figures = findings.picked.figures
    answer = wording.exact_share(findings.question.refuse_from)
    opened, bad = figures.opened_after_s, figures.bad
    made = findings.picked.opens_after_s
    if opened is not None:
        soon = Figure(wording.seconds(opened.median), f"until it opened (worst {wording.seconds(opened.worst)})")
    elif made:
        soon = Figure(wording.seconds(made[-1]), "until it opens when every call fails (tried with made outages)")
    else:
        soon = Figure("-", "until it opens: nobody knows")
    spared = (bad - figures.let_through) / bad if bad else None
    return [
        Figure(f"{figures.opened_for} of {figures.worth}", f"outages opened for, where {answer} or more fail"),
        soon,
        Figure("-" if spared is None else wording.share(spared), f"of their {number(bad, 'failing call')} spared"),
        Figure(f"{figures.good_rejected:,}", "good calls rejected"),
        Figure(f"{len(figures.false_alarms):,}", "false alarms"),
        Figure(
            f"{findings.stuck_before:,} → {figures.stuck:,}", "callers at once inside failing calls, before and after"
        ),
    ]


def about(findings: Findings, title: str) -> str:
    """Return what was read, in one line."""
    log = findings.log
    begin, end = (wording.moment(log.start + at, "%Y-%m-%d %H:%M") for at in (0.0, log.length_s))
    outages = number(len(findings.outages), "outage") if findings.outages else "no outage"
    return (
        f"{title} · {number(len(log.calls), 'call')} in {wording.seconds(log.length_s)} ({begin} to {end} UTC) · "
        f"ordinarily {wording.share(findings.ordinary.share)} go wrong · {outages} found"
    )


def heads(findings: Findings) -> list[str]:
    """Return the heads of the columns of the table of settings."""
    answer = wording.exact_share(findings.question.refuse_from)
    bad = f" (of {findings.current.figures.bad:,})" if findings.current.figures.bad else ""
    return [
        f"outages of {answer} opened for",
        "milder ones opened for",
        "opened after",
        "at worst",
        "closed after end",
        "at worst",
        f"failing let through{bad}",
        "good calls rejected",
        "waiting saved",
        "callers stuck at once",
        "false alarms",
    ]


def cells(row: Row) -> list[str]:
    """Return the figures of a setting, in the order of the heads."""
    figures = row.figures
    late = f" (and {len(figures.late):,} late)" if figures.late else ""
    return [
        f"{figures.opened_for} of {figures.worth}",
        f"{figures.opened_for_mild} of {figures.mild}",
        *_spread(figures.opened_after_s),
        *_spread(figures.closed_after_s),
        f"{figures.let_through:,}",
        f"{figures.good_rejected:,}",
        wording.seconds(figures.waiting_saved_s),
        f"{figures.stuck:,}",
        f"{len(figures.false_alarms):,}{late}",
    ]


def _spread(spread: Spread | None) -> list[str]:
    return ["-", "-"] if spread is None else [wording.seconds(value) for value in spread]


def warnings(findings: Findings) -> list[str]:
    """Return what a reader must know before any figure."""
    log, question = findings.log, findings.question
    answer = wording.exact_share(question.refuse_from)
    found: list[str] = []
    if log.rejected:
        part = log.rejected / (log.rejected + len(log.calls))
        of_all = f" ({wording.share(part)} of all)" if part > MANY_REJECTED else ""
        found.append(
            f"A breaker rejected {number(log.rejected, 'call')}{of_all} while this log was recorded, and nobody knows "
            f"how these would have ended. {number(len(log.holes), 'stretch', 'stretches')} around them, a minute to "
            f"each side, left out of every figure. Record with CircuitMode.SHADOW."
        )
    found += log.notes
    if not findings.outages:
        found.append(
            "This log has no outage. Ordinary times say which settings raise no false alarm; how soon they open was "
            "tried with outages that were made. What your outages look like is not known."
        )
    elif not any(findings.worth):
        found.append(
            f"No outage in this log is worth opening for: in none of them did {answer} or more of the calls fail."
        )
    advice = findings.picked.advice
    if advice is not None and advice.raised:
        found.append(
            f"The threshold is higher than your answer of {answer}: in ordinary times, up to "
            f"{wording.share(advice.peaks.ordinary.share)} of so few calls failed."
        )
    slow = [str(index) for index, one in enumerate(findings.outages, 1) if one.slow_share >= MUCH_SLOW]
    if slow and question.slow_s is None:
        found.append(
            f"Calls were slow without failing in outage {', '.join(slow)}. Only the rule for slow calls sees that: "
            f"try --slow {findings.ordinary.slow_s:.2g}."
        )
    if len(log.circuits) > 1:
        found.append(
            f"{len(log.circuits):,} processes, each with a circuit of its own. Figures are sums; times are the median, "
            f"and the worst, over circuits."
        )
    days = log.length_s / DAY_S
    if days < 7 and not findings.picked.figures.false_alarms:
        found.append(
            f"The log is {wording.seconds(log.length_s)} long. It has no false alarm, but that only shows that "
            f"there are fewer than {_rate(3 / days)}. Record for a week to know more."
        )
    return found


def _rate(a_day: float) -> str:
    return f"{a_day:,.0f} a day" if a_day >= 1 else f"{a_day * 7:.0f} a week"


def times(row: Row, index: int) -> tuple[str, str]:
    """Return when the circuits opened, and when they were closed again, in words."""
    fate = row.figures.fates[index]
    if not fate.opened_after_s:
        return "stays closed", ""
    opened, closed = sorted(fate.opened_after_s), sorted(fate.closed_after_s)
    middle = (len(opened) - 1) // 2
    of = "" if fate.circuits == 1 else f", {len(opened)} of {fate.circuits}"
    after = closed[middle]
    later = f"+{wording.seconds(after)}" if after < inf else "not in this log"
    return wording.seconds(opened[middle]) + of, later if after else "by then"


def false_alarms(findings: Findings) -> Iterator[str]:
    """Give when and by which rule the first false alarms of each setting came."""
    for row in findings.rows:
        alarms = row.figures.false_alarms
        for alarm in alarms[:FALSE_ALARMS_SHOWN]:
            yield f"{row.name}, {wording.moment(findings.log.start + alarm.at)}: {alarm.reason}"
        if len(alarms) > FALSE_ALARMS_SHOWN:
            yield f"{row.name}: {len(alarms) - FALSE_ALARMS_SHOWN:,} more"


UNKNOWN: Final = """
Callers that are rejected behave differently: they retry, give up, or take a fallback. No log has that; \
`python -m circuit_breaker simulate` shows what may follow.
A rejected call is still an error for its caller, unless there is a fallback. What a breaker saves is waiting, and \
load on a dependency that is failing, so that it may recover sooner than in this log.
If your callers retry, fewer calls fail than tries: of tries that fail with a share b, and R retries, b to the power \
R + 1. Then answer with a higher share.
What counts as a failure is what counted when the log was written. Retry-after hints are not in it.
A call that hangs counts when it ends: before the first timeout no rule about failures can act.
""".strip().splitlines()
