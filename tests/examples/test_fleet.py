"""The simulation of an overloaded server: what it shows, and that the documentation shows it."""

from __future__ import annotations

from typing import Any

import pytest
from example_files import EXAMPLES, example

fleet = example("fleet")


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return {name: fleet.happen(*settings) for name, settings in fleet.FLEETS.items()}


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """A quarter of the clients, and a server to match."""
    return {name: fleet.happen(*settings, clients=50, capacity=250) for name, settings in fleet.FLEETS.items()}


@pytest.mark.parametrize("size", ["told", "small"])
def test_retries_without_a_budget_do_harm_and_with_one_they_do_little(size: str, request: Any) -> None:
    none, three, budget, tight = request.getfixturevalue(size).values()
    assert none.requests_per_call() == 1
    assert three.requests_per_call() > 2.5
    assert three.success() < 0.6 * none.success()
    assert budget.requests_per_call() < 1.6
    assert tight.requests_per_call() < 1.3
    assert none.success() - 0.1 < budget.success() < tight.success() < none.success()


def test_retries_are_those_that_the_budgets_allow(small: dict[str, Any]) -> None:
    tight = small["3 retries and RetryBudget(0.1, 0)"]
    calls, seen = tight.calls.total(), tight.seen.total()
    assert 0 < seen - calls <= 0.1 * calls + 50 * 10


def test_in_peace_retries_help_and_a_budget_is_not_in_the_way(small: dict[str, Any]) -> None:
    none, *retrying = [told.success(0, fleet.FROM) for told in small.values()]
    assert 0.99 < none < 1
    assert retrying == [1, 1, 1]


def test_it_comes_out_the_same_each_time(small: dict[str, Any]) -> None:
    again = fleet.happen(*fleet.FLEETS["3 retries"], clients=50, capacity=250)
    assert again == small["3 retries"]


def test_the_documentation_shows_what_comes_out(told: dict[str, Any]) -> None:
    assert fleet.table(told) in (EXAMPLES.parent / "how-to" / "load.md").read_text("utf-8")
    assert fleet.draw(told) == (EXAMPLES.parent / "pictures" / "fleet.svg").read_text("utf-8")
