"""What has been seen of a circuit: its samples, and the figures of the last minute."""

from __future__ import annotations

from typing import Any

import pytest
from scenes import Scene

from circuit_breaker import CircuitMode
from circuit_breaker.console.history import COLUMNS, Counts, Sample, columns, later, minute
from circuit_breaker.console.rows import Order, key_of, rows_of


class Seen:
    """A scene that is looked at once a second."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.history: Any = {}

    def look(self, seconds: float = 1.0) -> None:
        self.scene.clock.advance(seconds)
        rows = rows_of(self.scene.store.circuits(), [])
        self.history = later(self.history, rows, self.scene.clock())

    @property
    def past(self) -> Any:
        return self.history[key_of("api")]

    @property
    def samples(self) -> tuple[Sample, ...]:
        samples: tuple[Sample, ...] = self.past.samples
        return samples


@pytest.fixture
def seen() -> Seen:
    return Seen()


def at(*times: float, **kinds: list[float]) -> list[Sample]:
    """Return samples of one epoch, whose totals are those of the lists."""
    counts = [Counts(**dict(zip(kinds, numbers, strict=True))) for numbers in zip(*kinds.values(), strict=True)]
    return [Sample(time, 1, count) for time, count in zip(times, counts, strict=True)]


def test_the_first_sample_counts_nothing(seen: Seen) -> None:
    seen.scene.count("api", 100, 5, 7, 9)
    seen.look()
    assert minute(seen.samples) == Counts()


def test_what_comes_between_samples_is_counted(seen: Seen) -> None:
    seen.scene.count("api", 100)
    seen.look()
    for _ in range(3):
        seen.scene.count("api", 10, 3, 2, 1)
        seen.look()
    assert minute(seen.samples) == Counts(30, 9, 6, 3)
    assert minute(seen.samples).calls == 39


def test_only_the_last_minute_counts(seen: Seen) -> None:
    seen.scene.count("api")
    for _ in range(200):
        seen.look()
        seen.scene.count("api", 2)
    assert minute(seen.samples).successes == 120
    assert 60 <= len(seen.samples) <= 62


def test_an_idle_circuit_keeps_two_samples(seen: Seen) -> None:
    seen.scene.count("api")
    for _ in range(50):
        seen.look()
    assert len(seen.samples) == 2
    seen.scene.count("api", 1)
    seen.look()
    assert len(seen.samples) == 3
    assert columns(seen.samples)[-1].successes == pytest.approx(1)


def test_a_new_epoch_begins_at_nought(seen: Seen) -> None:
    seen.scene.count("api", 100, 5)
    seen.look()
    seen.scene.open("api")
    seen.scene.count("api", rejected=4)
    seen.look()
    assert minute(seen.samples) == Counts(rejected=4)


def test_totals_that_shrink_count_nothing() -> None:
    assert minute(at(0, 1, successes=[10, 4], failures=[1, 3])) == Counts(0, 2)


def test_a_clock_that_is_set_back_begins_anew(seen: Seen) -> None:
    seen.scene.count("api")
    for _ in range(3):
        seen.look()
        seen.scene.count("api", 1)
    history = seen.history
    rows = rows_of(seen.scene.store.circuits(), [])
    (past,) = later(history, rows, 5.0).values()
    assert [sample.at for sample in past.samples] == [5.0]


def test_an_unreadable_record_adds_no_sample(seen: Seen) -> None:
    seen.scene.count("api", 1)
    seen.look()
    before = seen.samples
    seen.scene.write("api", "garbage")
    seen.look()
    assert seen.samples == before


def test_a_circuit_that_is_gone_is_forgotten(seen: Seen) -> None:
    seen.scene.count("api")
    seen.look()
    seen.scene.store.board.clear()
    seen.look()
    assert seen.history == {}


def test_a_long_gap_is_spread_over_the_columns() -> None:
    found = columns(at(0, 60, successes=[0, 60]))
    assert [column.successes for column in found] == pytest.approx([2.0] * COLUMNS)
    half = columns(at(0, 30, 60, successes=[0, 0, 30]))
    assert [column.successes for column in half] == pytest.approx([0.0] * 15 + [2.0] * 15)


def test_what_began_before_the_minute_counts_for_its_part() -> None:
    assert minute(at(0, 120, successes=[0, 240])).successes == 120


def test_there_are_columns_of_nothing() -> None:
    assert columns([]) == [Counts()] * COLUMNS
    assert minute([]) == Counts()


# The last order


def test_the_last_order_is_remembered(seen: Seen) -> None:
    seen.scene.order("api", CircuitMode.FORCED_CLOSED, by="dana")
    ordered_at = seen.scene.clock()
    seen.look()
    assert seen.past.order == Order("forced closed", "dana", ordered_at)
    seen.scene.store.reset("api")
    seen.look()
    seen.scene.open("api")
    seen.look()
    assert seen.past.order.what == "reset"
