"""Every change that a record can make.

Each is a function of the record that stands and of the store's time. It returns the record to write, or None to leave
things as they are, and does nothing else, so a store may call it as often as it likes. Each is about one epoch: in
another one it does nothing. And a token counts once, so a change whose answer was lost may be asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from math import inf
from typing import Final

from .._common.words import CircuitMode, probes_succeeded
from .record import AUTO, LARGEST_EPOCH, Lease, Record, Rules, Step, cut, epoch_of

MOST_PROBES: Final = 500  # over all processes: each takes some room in the record
UNANSWERED_KEPT: Final = 50

# Opening and closing


def next_epoch(record: Record | None, now: float) -> int:
    """Return a number above all before: the clock keeps it so even if the store has lost the record."""
    return min(max(epoch_of(record) + 1, int(now * 1_000)), LARGEST_EPOCH)


def opened(epoch: int, rules: Rules, reason: str, by: str, openings: int = 0) -> Step:
    """Open a circuit that is closed, on evidence of this epoch."""

    def step(record: Record | None, now: float) -> Record | None:
        if epoch_of(record) != epoch or (record is not None and (record.open or record.mode is not AUTO)):
            return None
        return _open(record, now, rules, reason, by, openings)

    return step


def closed_in_absence(epoch: int, reason: str, by: str) -> Step:
    """Close a circuit whose time is over, for a member whose own probes succeeded while it could not say so."""

    def step(record: Record, now: float) -> Record | None:
        return None if record.remaining_s(now) > 0 else _closed(record, now, reason, by)

    return _while_open(epoch, step)


def lengthened(epoch: int, remaining_s: float) -> Step:
    """Let a circuit stay open for longer than it would: a server has told another member so."""

    def step(record: Record, now: float) -> Record | None:
        if record.remaining_s(now) >= remaining_s:
            return None
        open_s = max(0.0, now - record.since) + remaining_s
        return record._replace(rules=record.rules._replace(open_s=open_s))

    return _while_open(epoch, step)


def written_back(known: Record) -> Step:
    """Restore the record of an open circuit that the store has lost."""

    def step(record: Record | None, now: float) -> Record | None:
        return known._replace(leases=()) if epoch_of(record) < known.epoch else None

    return step


# Probing


def leased(epoch: int, waited_s: float, token: str, lease_s: float) -> Step:
    """Take a lease, for a member that has waited out this epoch's open time as it knew it."""

    def step(record: Record, now: float) -> Record | None:
        if record.rules.open_s > waited_s:
            return None
        return _with_lease(record, now, token, lease_s)

    return _while_open(epoch, step)


def renewed(epoch: int, tokens: Iterable[str], lease_s: float) -> Step:
    """Keep the leases of probes that are still out; one that has been lost comes back if there is a free slot."""
    kept = tuple(tokens)

    def step(record: Record, now: float) -> Record | None:
        after = record
        for token in kept:
            after = _with_lease(after, now, token, lease_s) or after  # all slots may be taken meanwhile
        return None if after is record else after

    return _while_open(epoch, step)


def given_back(epoch: int, token: str) -> Step:
    """Return a lease that says nothing: it was not used, or the call was ignored."""

    def step(record: Record, now: float) -> Record | None:
        return _without(record, token) if _known(record, token) else None

    return _while_open(epoch, step)


def succeeded(epoch: int, token: str, by: str) -> Step:
    """Count the success of a probe; enough of them close the circuit."""

    def step(record: Record, now: float) -> Record | None:
        if not _known(record, token):
            return None
        successes = record.successes + 1
        if successes >= record.rules.success_threshold:
            return _closed(record, now, probes_succeeded(successes), by)
        return _without(record, token)._replace(successes=successes)

    return _while_open(epoch, step)


def failed(epoch: int, token: str, rules: Rules, reason: str, by: str) -> Step:
    """Count the failure of a probe; enough of them (the first, by default) reopen the circuit."""

    def step(record: Record, now: float) -> Record | None:
        failures, enough = record.failures + 1, record.rules.failure_threshold
        if enough > 1 and not _known(record, token):
            return None  # it may have been counted; where one failure is enough, the new epoch tells
        if failures >= enough:
            return _open(record, now, rules, reason, by, record.openings + 1)
        return _without(record, token)._replace(failures=failures)

    return _while_open(epoch, step)


def _while_open(epoch: int, step: Callable[[Record, float], Record | None]) -> Step:
    """Let a step be taken in this epoch alone, and only while the circuit is open or half-open by itself."""

    def guarded(record: Record | None, now: float) -> Record | None:
        if record is None or record.epoch != epoch or not record.open or record.mode is not AUTO:
            return None
        return step(record, now)

    return guarded


# Orders


def ordered(mode: CircuitMode, by: str) -> Step:
    """Begin a mode for all members: FORCED_OPEN, FORCED_CLOSED, or AUTO, which begins closed."""
    reason = f"mode {mode.value}"

    def step(record: Record | None, now: float) -> Record | None:
        if mode is (AUTO if record is None else record.mode):
            return None
        return _ordered(record, now, mode, reason, by)

    return step


def reset(by: str, asked_s: float = 0.0) -> Step:
    """Begin afresh: closed, AUTO. A record that began later than `asked_s` seconds ago stays as it is."""

    def step(record: Record | None, now: float) -> Record | None:
        if record is not None and asked_s > 0 and 0 <= now - record.since <= asked_s:
            return None
        return _ordered(record, now, AUTO, "reset", by)

    return step


def _ordered(record: Record | None, now: float, mode: CircuitMode, reason: str, by: str) -> Record:
    is_open = mode is CircuitMode.FORCED_OPEN
    rules = Rules(inf if is_open else 0.0, 1, 1, 1)
    return Record(next_epoch(record, now), is_open, now, reason, by, mode, rules=rules)


def _open(record: Record | None, now: float, rules: Rules, reason: str, by: str, openings: int) -> Record:
    rules = rules._replace(probes=min(rules.probes, MOST_PROBES))
    return Record(next_epoch(record, now), True, now, cut(reason), cut(by), AUTO, openings, rules)


def _closed(record: Record, now: float, reason: str, by: str) -> Record:
    return Record(next_epoch(record, now), False, now, cut(reason), cut(by))


def _known(record: Record, token: str) -> bool:
    return any(lease.token == token for lease in record.leases)


def _without(record: Record, token: str) -> Record:
    return record._replace(leases=tuple(lease for lease in record.leases if lease.token != token))


def _with_lease(record: Record, now: float, token: str, lease_s: float) -> Record | None:
    others = _without(record, token).leases
    live = tuple(lease for lease in others if lease.live(now))
    if len(live) >= record.rules.probes:
        return None
    overdue = tuple(lease for lease in others if not lease.live(now))[-UNANSWERED_KEPT:]
    return record._replace(leases=(*overdue, *live, Lease(token, now + lease_s, lease_s)))


# What a member does about a record that it reads


class Verdict(Enum):
    """What follows from a record for a member that knew another one, or the same."""

    SAME = "stay"
    FOLLOW = "enter the state that the record says"
    RESTORE = "the store has lost what this member knows: write it back"
    CLOSE = "probes of this member have succeeded while it could not say so: close the circuit for all"


def verdict(known: Record | None, found: Record | None, closed_alone: bool, now: float) -> Verdict:
    """Tell what a member does about the record that it found.

    Args:
        known: the record that it follows.
        found: the one that it reads.
        closed_alone: it followed an open circuit, and has closed by probes of its own while the store was away.
        now: the store's time.
    """
    if _same(found, known):
        over = closed_alone and found is not None and found.open and found.remaining_s(now) <= 0
        return Verdict.CLOSE if over else Verdict.SAME
    if known is not None and known.open and not closed_alone and epoch_of(found) < known.epoch:
        return Verdict.RESTORE
    return Verdict.FOLLOW


def _same(one: Record | None, other: Record | None) -> bool:
    """Tell whether two records are of one epoch; a store that lost its data may have used a number again."""
    if one is None or other is None:
        return one is other
    return (one.epoch, one.open, one.since, one.mode) == (other.epoch, other.open, other.since, other.mode)
