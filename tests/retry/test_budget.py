"""The bucket of tokens: what goes in, what comes out, exactly, in any number of threads."""

from __future__ import annotations

import copy
import math
import os
import pickle
import random
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from forks import told_by_child
from garbage import collect

from circuit_breaker._common import fork as _fork
from circuit_breaker._retry.budget import RetryBudget
from circuit_breaker.testing import FakeClock


def bucket(ratio: float = 0.0, min_per_second: float = 0.0, burst: int = 10, *, full: bool = False) -> Any:
    clock = FakeClock(50.0)
    budget = RetryBudget(ratio, min_per_second, burst, clock=clock)
    if not full:
        assert all(budget.take() for _ in range(burst))
    return budget, clock


def test_new_budget_is_full_and_an_empty_one_gives_nothing() -> None:
    budget, _ = bucket(burst=3, full=True)
    assert [budget.take() for _ in range(5)] == [True, True, True, False, False]
    assert budget.tokens == 0.0


def test_ten_calls_of_a_tenth_bring_one_token_exactly() -> None:
    budget, _ = bucket(ratio=0.1)
    for _ in range(9):
        budget.deposit()
    assert not budget.take()
    budget.deposit()
    assert budget.tokens == 1.0
    assert budget.take()
    assert not budget.take()


def test_ten_tenths_of_a_second_bring_one_token_exactly() -> None:
    budget, clock = bucket(min_per_second=1.0)
    for _ in range(9):
        clock.advance(0.1)
        assert not budget.take()
    clock.advance(0.1)
    assert budget.take()
    assert not budget.take()


def test_moments_too_short_to_count_add_up() -> None:
    budget, clock = bucket(min_per_second=1e-3, burst=1)
    for _ in range(100):
        clock.advance(1e-7)
        assert not budget.take()
    assert budget.tokens == pytest.approx(1e-8)


@pytest.mark.parametrize("ratio", [0.3, 5.0, 1e308])
def test_bucket_never_holds_more_than_its_burst(ratio: float) -> None:
    budget, clock = bucket(ratio, 7.0, burst=2, full=True)
    for _ in range(20):
        budget.deposit()
        clock.advance(3.0)
    budget.give_back()
    assert budget.tokens == 2.0


def test_token_given_back_can_be_taken_again() -> None:
    budget, _ = bucket(burst=1)
    budget.give_back()
    assert [budget.take(), budget.take()] == [True, False]


def test_budget_of_no_burst_never_allows_a_retry() -> None:
    budget, clock = bucket(1.0, 1.0, burst=0)
    budget.deposit()
    clock.advance(100.0)
    assert not budget.take()


def test_clock_that_goes_backwards_takes_nothing_away() -> None:
    times = iter([10.0, 5.0, 5.0, 11.0])
    budget = RetryBudget(0, 1, 1, clock=lambda: next(times))
    assert [budget.take(), budget.take(), budget.take()] == [True, False, True]


def test_tokens_are_exact_when_many_threads_put_in_and_take_out() -> None:
    budget, _ = bucket(ratio=0.25, burst=1_000_000)
    threads, calls = 8, 1_000
    barrier = threading.Barrier(threads)

    def work() -> int:
        barrier.wait()
        taken = 0
        for _ in range(calls):
            budget.deposit()
            taken += budget.take()
        return taken

    with ThreadPoolExecutor(threads) as pool:
        taken = sum(future.result() for future in [pool.submit(work) for _ in range(threads)])
    assert taken + budget.tokens == threads * calls * 0.25


def test_random_walk_agrees_with_counting_in_whole_numbers() -> None:
    dice = random.Random(7)
    budget, clock = bucket(ratio=0.05, min_per_second=0.5, burst=4, full=True)
    hundredths = 400
    for _ in range(5_000):
        step = dice.choice(["deposit", "deposit", "take", "take", "give_back", "second"])
        if step == "deposit":
            budget.deposit()
            hundredths = min(hundredths + 5, 400)
        elif step == "take":
            assert budget.take() is (hundredths >= 100)
            hundredths -= 100 * (hundredths >= 100)
        elif step == "give_back":
            budget.give_back()
            hundredths = min(hundredths + 100, 400)
        else:
            clock.advance(0.5)
            assert budget.tokens >= 0
            hundredths = min(hundredths + 25, 400)
        assert budget.tokens == hundredths / 100


def test_call_from_a_signal_handler_in_the_middle_of_another_does_not_hang() -> None:
    budget, _ = bucket(ratio=1.0)
    with budget._lock:
        budget.deposit()
        assert budget.take()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forked_child_goes_on_with_the_tokens_though_another_thread_held_the_lock() -> None:
    budget, _ = bucket(burst=3)
    budget.give_back()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with budget._lock:
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20)
    assert told_by_child(lambda: [budget.take(), budget.take()]) == "[True, False]"
    done.set()
    thread.join()
    assert budget.tokens == 1.0


def test_child_has_a_lock_of_its_own() -> None:
    budget, _ = bucket(burst=1, full=True)
    lock = budget._lock
    budget._after_fork_in_child()
    assert budget._lock is not lock
    assert budget.tokens == 1.0


@pytest.mark.parametrize("copying", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copying_or_pickling_is_a_clear_type_error(copying: Any) -> None:
    with pytest.raises(TypeError, match="RetryBudget cannot be copied or pickled"):
        copying(RetryBudget())


def test_budget_can_be_referred_to_weakly_and_is_let_go() -> None:
    budget = RetryBudget()
    reference = weakref.ref(budget)
    assert budget in _fork.living(RetryBudget)
    del budget
    collect()
    assert reference() is None


@pytest.mark.parametrize("name", ["ratio", "min_per_second", "burst", "tokens"])
def test_settings_and_tokens_are_read_only(name: str) -> None:
    budget = RetryBudget(0.5, 2, 4)
    with pytest.raises(AttributeError):
        setattr(budget, name, 1)
    assert (budget.ratio, budget.min_per_second, budget.burst, budget.tokens) == (0.5, 2.0, 4, 4.0)


def test_repr_tells_what_is_left() -> None:
    budget, _ = bucket(burst=4, full=True)
    budget.take()
    assert repr(budget) == "<RetryBudget: 3 of 4 tokens left>"


@pytest.mark.parametrize("figure", [1e290, 1e308, sys.float_info.max])
def test_largest_figures_fill_the_bucket_and_overflow_nowhere(figure: float) -> None:
    budget, clock = bucket(figure, figure, 10**289, full=True)
    for add in (budget.deposit, lambda: clock.advance(1e300)):
        assert budget.take()
        add()
        assert budget.tokens == 1e289
    assert repr(budget) == f"<RetryBudget: 1e+289 of {10**289} tokens left>"


@pytest.mark.parametrize(
    ("setting", "bad", "error"),
    [
        *((name, bad, TypeError) for name in ("ratio", "min_per_second") for bad in (True, "3", None)),
        *((name, bad, ValueError) for name in ("ratio", "min_per_second") for bad in (-0.1, math.nan, math.inf)),
        *(("burst", bad, TypeError) for bad in (True, "3", 2.5, None, math.nan)),
        ("burst", -1, ValueError),
        ("burst", 10**400, ValueError),
        ("burst", 10**290 * 2, ValueError),
        ("clock", 3, TypeError),
    ],
)
def test_bad_setting_is_rejected_by_name(setting: str, bad: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{setting} must be"):
        RetryBudget(**{setting: bad})


def test_the_largest_burst_there_may_be_is_taken() -> None:
    most = int(1e290)
    assert RetryBudget(burst=most).burst == most
    with pytest.raises(ValueError, match="burst must be an int >= 0 and <= 1e"):
        RetryBudget(burst=most + 1)


@pytest.mark.parametrize("least", [1e289, sys.float_info.max])
def test_a_bucket_that_fills_as_fast_as_can_be_is_full_at_every_look(least: float) -> None:
    budget, clock = bucket(min_per_second=least, burst=3)
    for _ in range(5):
        clock.advance(1)
        assert budget.tokens == 3
        assert [budget.take() for _ in range(4)] == [True, True, True, False]
    assert budget.min_per_second == least


def test_a_clock_of_decimals_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"^clock must be"):
        RetryBudget(clock=lambda: Decimal(1))  # type: ignore[arg-type, return-value]
