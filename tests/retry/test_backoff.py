"""The arithmetic of delays: exact without jitter, even with it, and in bounds for any settings at all."""

from __future__ import annotations

import math
import random
import sys
from fractions import Fraction

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker._retry.backoff import Backoff
from circuit_breaker._retry.policy import RetryPolicy

HUGE = 10**400
FINITE = {"allow_nan": False, "allow_infinity": False}


def test_delays_without_jitter_are_exact_and_capped() -> None:
    policy = RetryPolicy(jitter=False)
    assert [policy.get_delay(n) for n in range(4)] == [0.1, 0.2, 0.4, 0.8]
    assert [policy.get_delay(n) for n in (8, 9, 10, 5_000, HUGE)] == [25.6, 30.0, 30.0, 30.0, 30.0]


@pytest.mark.parametrize("n", [0, 1, 1_024, 100_000, 2**64, HUGE])
def test_base_zero_gives_no_delay_and_multiplier_one_gives_the_base_for_any_n(n: int) -> None:
    assert RetryPolicy(backoff_base=0, jitter=False).get_delay(n) == 0.0
    assert RetryPolicy(backoff_base=0, backoff_max=math.inf).get_delay(n) == 0.0
    assert RetryPolicy(backoff_multiplier=1, jitter=False).get_delay(n) == 0.1
    assert RetryPolicy(backoff_max=0, jitter=False).get_delay(n) == 0.0


@pytest.mark.parametrize("jitter", [True, False, "full"])
def test_without_a_cap_a_delay_beyond_all_floats_is_finite(jitter: bool) -> None:
    for draw in (0.0, 0.5, 1.0):
        policy = RetryPolicy(backoff_max=math.inf, jitter=jitter, random=lambda draw=draw: draw)
        for n in (1_020, 1_024, 1_030, HUGE):
            assert 0.0 <= policy.get_delay(n) <= sys.float_info.max
    assert RetryPolicy(backoff_max=math.inf, jitter=False).get_delay(HUGE) == sys.float_info.max


@pytest.mark.parametrize(
    ("jitter", "n", "low", "high"),
    [
        (True, 0, 0.05, 0.15),
        (True, 8, 12.8, 30.0),
        (True, 9, 15.0, 30.0),
        ("full", 2, 0.0, 0.4),
        ("full", 20, 0.0, 30.0),
    ],
)
def test_jitter_spans_its_range_evenly_and_the_cap_cuts_the_range(
    jitter: bool, n: int, low: float, high: float
) -> None:
    def at(share: float) -> float:
        return RetryPolicy(jitter=jitter, random=lambda: share).get_delay(n)

    assert [at(0.0), at(0.5), at(1.0)] == pytest.approx([low, (low + high) / 2, high])


def test_capped_delays_do_not_pile_up_at_the_cap() -> None:
    draw = random.Random(5).random
    delays = [RetryPolicy(random=draw).get_delay(50) for _ in range(1_000)]
    assert min(delays) < 15.3
    assert 29.7 < max(delays) < 30.0
    assert len(set(delays)) == 1_000


@pytest.mark.parametrize(("share", "delay"), [(math.nan, 0.05), (-3.0, 0.05), (7.0, 0.15), (math.inf, 0.15), (1, 0.15)])
def test_draw_outside_its_range_is_taken_as_the_nearer_end(share: float, delay: float) -> None:
    assert RetryPolicy(random=lambda: share).get_delay(0) == pytest.approx(delay)


def test_default_draws_differ() -> None:
    assert len({RetryPolicy().get_delay(0) for _ in range(50)}) > 1


def test_no_delay_is_negative_nan_or_above_the_cap_over_a_million_settings() -> None:
    dice = random.Random(20_240_229)
    draw = dice.random
    for _ in range(1_000_000):
        share = draw()
        max_s = math.inf if share < 0.05 else 10 ** (40 * draw() - 10)
        jitter = "full" if share < 0.4 else share < 0.8
        delay_s = Backoff(10 ** (20 * share - 12), 1 + 4 * draw(), max_s, jitter, draw).delay(int(10 ** (9 * draw())))
        if not 0.0 <= delay_s <= max_s:
            raise AssertionError((share, delay_s, max_s))


@examples()
@given(
    base=st.floats(0, **FINITE) | st.sampled_from([0.0, 5e-324, sys.float_info.max]),
    multiplier=st.floats(1, **FINITE),
    max_s=st.floats(0),
    n=st.integers(0) | st.sampled_from([HUGE, 2**63]),
    jitter=st.sampled_from([True, False, "full"]),
    share=st.floats(0, 1),
)
def test_delay_is_finite_and_in_bounds_at_the_edges_of_floats(
    base: float, multiplier: float, max_s: float, n: int, jitter: bool, share: float
) -> None:
    policy = RetryPolicy(None, base, multiplier, max_s, jitter, random=lambda: share)
    assert 0.0 <= policy.get_delay(n) <= min(max_s, sys.float_info.max)


@examples()
@given(base=st.floats(1e-6, 1e6), multiplier=st.floats(1, 10), max_s=st.floats(0, 1e12), n=st.integers(0, 200))
def test_delay_without_jitter_is_the_formula(base: float, multiplier: float, max_s: float, n: int) -> None:
    formula = float(min(Fraction(base) * Fraction(multiplier) ** n, Fraction(max_s)))
    assert RetryPolicy(3, base, multiplier, max_s, False).get_delay(n) == pytest.approx(formula, rel=1e-12)


@pytest.mark.parametrize(("multiplier", "n"), [(10.0, 309), (1e200, 2), (1 + 2**-52, 2**63), (2.0, HUGE)])
def test_delay_whose_power_alone_is_beyond_all_floats_is_the_longest_however_small_the_base(
    multiplier: float, n: int
) -> None:
    assert RetryPolicy(None, 5e-324, multiplier, 30.0, False).get_delay(n) == 30.0
    assert RetryPolicy(None, 5e-324, multiplier, math.inf, False).get_delay(n) == sys.float_info.max


@pytest.mark.parametrize("bad", [True, 2.5, "3", None, math.nan])
def test_number_of_the_attempt_of_the_wrong_type_is_a_type_error(bad: object) -> None:
    with pytest.raises(TypeError, match="attempt must be an int >= 0"):
        RetryPolicy().get_delay(bad)


def test_negative_number_of_the_attempt_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="attempt must be an int >= 0, got -1"):
        RetryPolicy().get_delay(-1)
