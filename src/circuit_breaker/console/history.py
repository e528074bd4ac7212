"""What a watched circuit has done lately: samples of its totals, and the figures of the last minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

from .._shared.protocol import SharedCircuit
from .rows import Order, Row

MINUTE_S: Final = 60.0
COLUMNS: Final = 30  # of a sparkline


class Counts(NamedTuple):
    """Calls that ended, by how; `slow` are among the first two."""

    successes: float = 0
    failures: float = 0
    slow: float = 0
    rejected: float = 0

    @property
    def calls(self) -> float:
        """All calls that were made."""
        return self.successes + self.failures

    def plus(self, other: Counts, share: float = 1.0) -> Counts:
        """Return the sum with a share of others."""
        return Counts(*(mine + share * yours for mine, yours in zip(self, other, strict=True)))


class Sample(NamedTuple):
    """The totals of one epoch at a time of the store's clock; they begin at 0 with each epoch."""

    at: float
    epoch: int
    counts: Counts

    def since(self, before: Sample) -> Counts:
        """Return what has been counted since an earlier sample; what an ended epoch counted last is unknown."""
        if self.epoch != before.epoch:
            return self.counts
        return Counts(*(max(0, now - then) for now, then in zip(self.counts, before.counts, strict=True)))


class Past(NamedTuple):
    """What has been seen of one circuit: samples of the last minute, and one before them; and its last order."""

    samples: tuple[Sample, ...] = ()
    order: Order | None = None


History: TypeAlias = Mapping[str, Past]


def later(history: History, rows: Sequence[Row], now: float) -> History:
    """Return the history with what is seen now, of the circuits that are there; `now` is the store's time."""
    return {row.key: _later(history.get(row.key, Past()), row, now) for row in rows}


def _later(past: Past, row: Row, now: float) -> Past:
    what, since_s = row.order, row.circuit.since_s
    order = past.order if what is None or since_s is None else Order(what, row.by, now - since_s)
    if row.circuit.error is not None:
        return Past(past.samples, order)
    samples = [sample for sample in past.samples if sample.at < now]  # others are of a clock that was set back
    sample = _sample(row.circuit, now)
    if len(samples) > 1 and _idle(samples[-2], samples[-1], sample):
        samples.pop()
    recent = [each.at >= now - MINUTE_S for each in samples]
    begin = max(0, recent.index(True) - 1) if True in recent else max(0, len(samples) - 1)
    return Past((*samples[begin:], sample), order)


def _sample(circuit: SharedCircuit, now: float) -> Sample:
    counts = Counts(circuit.successes, circuit.failures, circuit.slow, circuit.rejected)
    return Sample(now, circuit.epoch, counts)


def _idle(*samples: Sample) -> bool:
    return len({(sample.epoch, sample.counts) for sample in samples}) == 1


def columns(samples: Sequence[Sample]) -> list[Counts]:
    """Return the last minute in columns, the newest last; what a long gap counted is spread over it."""
    found = [Counts()] * COLUMNS
    if not samples:
        return found
    width_s, begin = MINUTE_S / COLUMNS, samples[-1].at - MINUTE_S
    for before, sample in pairwise(samples):
        lasts_s = sample.at - before.at
        counted = sample.since(before)
        first = int(max(0.0, before.at - begin) / width_s)
        for column in range(first, COLUMNS):
            starts_at = begin + column * width_s
            if starts_at >= sample.at:
                break
            overlap_s = max(0.0, min(sample.at, starts_at + width_s) - max(before.at, starts_at))
            found[column] = found[column].plus(counted, overlap_s / lasts_s)
    return found


def minute(samples: Sequence[Sample]) -> Counts:
    """Return what was counted within the last minute."""
    total = Counts()
    for column in columns(samples):
        total = total.plus(column)
    return Counts(*map(round, total))
