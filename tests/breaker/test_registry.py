"""One breaker for each key: made once, kept while it matters, forgotten when it is one of too many."""

from __future__ import annotations

import copy
import gc
import logging
import os
import pickle
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count, islice
from typing import Any

import pytest
from calls import fail, succeed
from clocks import Clock
from failures import Down
from forks import told_by_child
from garbage import collect
from needs import CPYTHON, needs_fork, needs_reference_counts
from patience import PATIENCE_S
from places import do_between

from circuit_breaker._breaker import cache as _cache
from circuit_breaker._breaker import registry as _registry
from circuit_breaker._breaker.breaker import CircuitBreaker
from circuit_breaker._breaker.config import CircuitBreakerConfig
from circuit_breaker._breaker.registry import LOOKED_AT, CircuitBreakerRegistry
from circuit_breaker._breaker.totals import CircuitStats
from circuit_breaker._common.words import CircuitMode, CircuitState

ROOMS = (_registry.__file__, _cache.__file__)
KEYS = int(os.environ.get("REGISTRY_KEYS", "6000"))  # 100,000 take ten seconds

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

ONE_FAILURE = CircuitBreakerConfig(failure_threshold=1)


class Stop(BaseException):
    """What no `except Exception` holds back."""


@pytest.fixture
def registry(clock: Clock) -> CircuitBreakerRegistry:
    return CircuitBreakerRegistry(ONE_FAILURE, max_size=3, clock=clock)


def known(registry: CircuitBreakerRegistry, key: Any) -> Callable[[], bool]:
    """Tell later, without holding it, whether the key still gives the breaker it gives now."""
    reference = weakref.ref(registry[key])
    return lambda: registry[key] is reference()


def filled(registry: CircuitBreakerRegistry) -> CircuitBreakerRegistry:
    for key in "abc":
        registry[key]
    return registry


# What a key gives


def test_a_key_gives_the_one_breaker_made_at_its_first_use(registry: CircuitBreakerRegistry) -> None:
    breaker = registry["a"]
    assert type(breaker) is CircuitBreaker
    assert registry["a"] is breaker
    assert registry["b"] is not breaker


def test_a_breaker_has_the_settings_of_its_registry(clock: Clock) -> None:
    seen: list[Any] = []
    registry = CircuitBreakerRegistry(ONE_FAILURE, mode=CircuitMode.SHADOW, listeners=iter([seen.append]), clock=clock)
    for key in ("a", "b"):
        assert registry[key].config is ONE_FAILURE
        assert registry[key].mode is CircuitMode.SHADOW
        registry[key].record_failure()
        assert registry[key].stats.last_failure_time is not None
        clock.advance(30)
        assert registry[key].snapshot().machine_state is HALF_OPEN
    assert {event.circuit_name for event in seen} == {"a", "b"}


def test_without_settings_the_defaults_are_taken() -> None:
    registry = CircuitBreakerRegistry()
    assert registry["a"].config == CircuitBreakerConfig()
    assert registry["a"].mode is CircuitMode.AUTO


def test_a_breaker_is_named_after_its_key() -> None:
    registry = CircuitBreakerRegistry()
    assert [registry[key].name for key in ("api", 7, ("eu", "db"))] == ["api", "7", "('eu', 'db')"]


def test_a_key_that_cannot_be_one_is_rejected(registry: CircuitBreakerRegistry) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        registry[["a"]]  # type: ignore[index]
    assert len(registry) == 0


def test_the_configuration_may_follow_from_the_key() -> None:
    asked: list[Any] = []

    def config(key: int) -> CircuitBreakerConfig:
        asked.append(key)
        return CircuitBreakerConfig(failure_threshold=key)

    registry = CircuitBreakerRegistry(config)
    assert registry[2].config.failure_threshold == 2
    assert registry[3].config.failure_threshold == 3
    assert registry[2].config.failure_threshold == 2
    assert asked == [2, 3]


def test_a_breaker_that_is_found_again_is_not_configured_again() -> None:
    asked: list[Any] = []
    registry = CircuitBreakerRegistry(lambda key: asked.append(key) or ONE_FAILURE, max_size=1)
    held = registry["a"]
    registry["b"]
    assert registry["a"] is held
    assert asked == ["a", "b"]


def test_a_configuration_that_raises_leaves_the_registry_as_it_was(clock: Clock) -> None:
    down = [True]

    def config(key: str) -> CircuitBreakerConfig:
        if down.pop():
            raise Down
        return ONE_FAILURE

    registry = CircuitBreakerRegistry(config, clock=clock)
    with pytest.raises(Down):
        registry["a"]
    assert "a" not in registry
    assert list(registry) == []
    down.append(False)
    assert registry["a"].config is ONE_FAILURE


@pytest.mark.parametrize("given", [None, {}, "config"])
def test_a_function_that_returns_no_configuration_is_an_error(given: Any) -> None:
    registry = CircuitBreakerRegistry(lambda key: given)
    with pytest.raises(TypeError, match="a CircuitBreakerConfig"):
        registry["a"]
    assert len(registry) == 0


def test_no_lock_is_held_while_a_configuration_is_asked_for() -> None:
    def config(key: str) -> CircuitBreakerConfig:
        if key == "outer":
            with ThreadPoolExecutor(1) as pool:
                pool.submit(lambda: registry["inner"]).result(PATIENCE_S)
        return ONE_FAILURE

    registry = CircuitBreakerRegistry(config)
    assert registry["outer"].name == "outer"
    assert list(registry) == ["inner", "outer"]


# Looking at it


def test_what_is_kept_can_be_counted_and_listed_and_asked_for(registry: CircuitBreakerRegistry) -> None:
    assert (len(registry), list(registry), "a" in registry) == (0, [], False)
    for key in "abc":
        registry[key]
    assert registry["a"] is registry["a"]
    assert (len(registry), list(registry)) == (3, ["b", "c", "a"])
    assert "a" in registry
    assert "d" not in registry
    assert "d" not in registry
    assert repr(registry) == "<CircuitBreakerRegistry of 3 breakers, max_size 3>"


def test_asking_whether_a_key_is_kept_is_not_a_use_of_it(registry: CircuitBreakerRegistry) -> None:
    for key in "abc":
        registry[key]
    assert "a" in registry
    assert list(registry) == ["a", "b", "c"]
    registry["d"]
    assert list(registry) == ["b", "c", "d"]


def test_get_gives_what_is_kept_and_neither_makes_nor_uses_it(registry: CircuitBreakerRegistry) -> None:
    assert registry.get("a") is None
    assert len(registry) == 0
    for key in "abc":
        registry[key]
    assert registry.get("a") is registry.values()[0]
    registry["d"]
    assert registry.get("a") is None


def test_get_does_not_give_what_is_forgotten_and_held(registry: CircuitBreakerRegistry) -> None:
    held = registry["a"]
    for key in "bcd":
        registry[key]
    assert registry.get("a") is None
    assert "a" not in registry
    assert registry["a"] is held
    assert registry.get("a") is held


def test_values_are_those_that_are_kept_the_least_recently_used_first(registry: CircuitBreakerRegistry) -> None:
    assert registry.values() == []
    for key in "abcad":
        registry[key]
    values = registry.values()
    assert [breaker.name for breaker in values] == ["c", "a", "d"] == list(registry)
    values.clear()
    assert len(registry) == 3


def test_the_keys_are_iterated_over_as_they_were(registry: CircuitBreakerRegistry) -> None:
    for key in "abc":
        registry[key]
    for seen, key in enumerate(registry):
        registry[f"new {key}"]
        assert seen < 3
    assert len(registry) == 3


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_registry_cannot_be_copied(registry: CircuitBreakerRegistry, copied: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copied(registry)


def test_the_collector_frees_a_registry_with_its_breakers_when_nobody_holds_it(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(ONE_FAILURE, max_size=1, clock=clock)
    registry["a"].record_failure()
    died = [weakref.ref(registry), weakref.ref(registry["a"]), weakref.ref(registry["b"])]
    del registry
    collect()
    assert [reference() for reference in died] == [None] * 3


def test_a_breaker_keeps_neither_its_registry_nor_the_others_in_it_alive(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(ONE_FAILURE, clock=clock)
    held, other = registry["held"], weakref.ref(registry["other"])
    died = weakref.ref(registry)
    del registry
    collect()
    assert (died(), other()) == (None, None)
    fail(held)
    assert held.state is OPEN


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"config": {}}, TypeError),
        ({"config": "fast"}, TypeError),
        ({"config": CircuitBreakerConfig}, TypeError),
        ({"max_size": 0}, ValueError),
        ({"max_size": -1}, ValueError),
        ({"max_size": True}, TypeError),
        ({"max_size": 2.5}, TypeError),
        ({"max_size": None}, TypeError),
        ({"mode": "auto"}, TypeError),
        ({"listeners": print}, TypeError),
        ({"listeners": [None]}, TypeError),
        ({"clock": 3}, TypeError),
        ({"clock": None}, TypeError),
    ],
)
def test_a_setting_that_is_wrong_is_rejected_by_its_name(settings: dict[str, Any], error: type[Exception]) -> None:
    (name,) = settings
    with pytest.raises(error, match=name):
        CircuitBreakerRegistry(**settings)


def test_a_coroutine_function_gives_no_configuration() -> None:
    async def config(key: str) -> CircuitBreakerConfig:
        return ONE_FAILURE

    with pytest.raises(TypeError, match="config"):
        CircuitBreakerRegistry(config)  # type: ignore[arg-type]


# Who goes


def test_the_least_recently_used_goes(registry: CircuitBreakerRegistry) -> None:
    for key in "abcabd":
        registry[key]
    assert list(registry) == ["a", "b", "d"]


def test_the_least_recently_used_of_those_without_failures_goes(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(max_size=3, clock=clock)
    for key in "abc":
        registry[key]
    fail(registry["a"])
    registry["b"], registry["c"]
    registry["d"]
    assert list(registry) == ["a", "c", "d"]


def test_a_failure_is_remembered_in_the_window_though_the_streak_is_over(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(CircuitBreakerConfig(error_rate_window=2), max_size=2, clock=clock)
    fail(registry["a"])
    succeed(registry["a"])
    registry["b"]
    registry["c"]
    assert list(registry) == ["a", "c"]
    succeed(registry["a"], 1)
    registry["c"]
    registry["d"]
    assert list(registry) == ["c", "d"]


def test_if_all_have_failures_the_least_recently_used_goes(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(max_size=3, clock=clock)
    for key in "abc":
        fail(registry[key])
    registry["a"]
    registry["d"]
    assert list(registry) == ["c", "a", "d"]


def test_a_few_with_failures_are_looked_past_and_no_more(clock: Clock) -> None:
    size = LOOKED_AT + 5
    registry = CircuitBreakerRegistry(max_size=size, clock=clock)
    for key in range(size - 1):
        fail(registry[key])
    registry["good"]
    registry["new"]
    assert 0 not in registry
    assert "good" in registry


@pytest.mark.parametrize(
    "steer",
    [
        lambda breaker, clock: breaker.record_failure(),
        lambda breaker, clock: (breaker.record_failure(), clock.advance(29.9)),
        lambda breaker, clock: (breaker.record_failure(), clock.advance(30), breaker.state),
        lambda breaker, clock: breaker.trip(float("inf")),
        lambda breaker, clock: setattr(breaker, "mode", CircuitMode.FORCED_OPEN),
        lambda breaker, clock: setattr(breaker, "mode", CircuitMode.FORCED_CLOSED),
        lambda breaker, clock: setattr(breaker, "mode", CircuitMode.SHADOW),
    ],
    ids=["open", "open still", "half-open", "tripped", "forced open", "forced closed", "in the shadow"],
)
def test_a_breaker_that_is_not_closed_or_is_steered_stays(
    registry: CircuitBreakerRegistry, clock: Clock, steer: Callable[[CircuitBreaker, Clock], object]
) -> None:
    steer(registry["a"], clock)
    is_known = known(registry, "a")
    for key in range(20):
        registry[key]
        assert "a" in registry
    assert len(registry) == 3
    assert is_known()


def test_an_open_breaker_whose_time_is_over_may_go_as_one_with_failures(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(max_size=3, clock=clock)
    fail(registry["open"], 5)
    fail(registry["failing"])
    registry["good"]
    clock.advance(29.9)
    registry["b"]
    assert list(registry) == ["failing", "b", "open"]
    clock.advance(0.1)
    registry["b"], registry["failing"]
    fail(registry["b"])
    registry["c"]
    assert list(registry) == ["failing", "b", "c"]


@pytest.mark.parametrize("mode", CircuitMode)
def test_a_breaker_in_the_mode_that_it_was_made_in_may_go(clock: Clock, mode: CircuitMode) -> None:
    registry = CircuitBreakerRegistry(max_size=3, mode=mode, clock=clock)
    for key in range(10):
        registry[key]
    assert list(registry) == [7, 8, 9]


def test_a_configuration_of_its_own_keeps_no_breaker(registry: CircuitBreakerRegistry) -> None:
    registry["a"].config = CircuitBreakerConfig(7)
    for key in "bcd":
        registry[key]
    collect()
    assert list(registry) == ["b", "c", "d"]
    assert registry["a"].config is ONE_FAILURE


def test_thousands_of_hosts_that_fail_an_hour_apart_do_not_make_the_registry_grow(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CircuitBreakerRegistry(max_size=10, clock=clock)
    for host in range(5_000):
        fail(registry[host], 5)
        assert registry[host].is_open
        assert len(registry) <= 10
        clock.advance(3_600)
    assert list(registry) == list(range(4_990, 5_000))
    assert not [record for record in caplog.records if "grows" in record.getMessage()]


def test_a_breaker_that_is_closed_again_may_go(registry: CircuitBreakerRegistry) -> None:
    registry["a"].record_failure()
    registry["a"].reset()
    for key in "bcd":
        registry[key]
    assert list(registry) == ["b", "c", "d"]


def test_a_breaker_that_somebody_holds_is_the_one_its_key_gives_again(registry: CircuitBreakerRegistry) -> None:
    held = registry["a"]
    succeed(held)
    for key in range(20):
        registry[key]
    assert "a" not in registry
    assert registry["a"] is held
    assert "a" in registry
    assert len(registry) == 3


def test_a_breaker_held_by_a_decorated_function_or_a_permit_is_held(registry: CircuitBreakerRegistry) -> None:
    func = registry["a"](lambda: 0)
    permit = registry["b"].permit()
    for key in range(20):
        registry[key]
    assert registry["a"] is func.circuit_breaker
    permit.failure()
    assert registry["b"].state is OPEN


def test_a_breaker_that_comes_back_makes_room_for_itself(registry: CircuitBreakerRegistry) -> None:
    held = [registry[key] for key in "abcd"]
    for _ in range(3):
        for breaker in held:
            assert registry[breaker.name] is breaker
    assert len(registry) == 3


def test_a_breaker_nobody_holds_is_made_anew_when_it_was_forgotten(registry: CircuitBreakerRegistry) -> None:
    succeed(registry["a"])
    for key in "bcd":
        registry[key]
    collect()
    assert registry["a"].stats == CircuitStats()


@pytest.mark.parametrize(
    ("steer", "is_steered"),
    [
        (lambda breaker: breaker.record_failure(), lambda breaker: breaker.state is OPEN),
        (lambda breaker: breaker.call(raise_down), lambda breaker: breaker.state is OPEN),
        (
            lambda breaker: setattr(breaker, "mode", CircuitMode.FORCED_CLOSED),
            lambda breaker: breaker.mode is CircuitMode.FORCED_CLOSED,
        ),
        (lambda breaker: breaker.trip(), lambda breaker: breaker.state is OPEN),
    ],
    ids=["record", "call", "mode", "trip"],
)
def test_a_breaker_that_opens_or_is_steered_while_it_is_forgotten_is_kept_again(
    registry: CircuitBreakerRegistry,
    steer: Callable[[CircuitBreaker], object],
    is_steered: Callable[[CircuitBreaker], bool],
) -> None:
    held = registry["a"]
    for key in "bcd":
        registry[key]
    assert "a" not in registry
    try:
        steer(held)
    except Down:
        pass
    assert "a" in registry
    assert len(registry) == 3
    del held
    collect()
    assert is_steered(registry["a"])


def test_a_breaker_that_is_reset_to_the_mode_of_its_registry_may_go(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(max_size=1, mode=CircuitMode.SHADOW, clock=clock)
    registry["a"].mode = CircuitMode.AUTO
    registry["a"].reset()
    assert registry["a"].mode is CircuitMode.SHADOW
    registry["b"]
    assert list(registry) == ["b"]


def test_a_breaker_that_was_removed_does_not_come_back_when_it_opens(registry: CircuitBreakerRegistry) -> None:
    held = registry["a"]
    registry.remove("a")
    held.record_failure()
    assert "a" not in registry
    second = registry["a"]
    held.mode = CircuitMode.FORCED_OPEN
    assert registry["a"] is second


def raise_down() -> None:
    raise Down


@pytest.mark.parametrize("seed", range(5))
def test_no_breaker_that_matters_is_ever_doubled(clock: Clock, seed: int) -> None:
    draw = random.Random(seed)
    registry = CircuitBreakerRegistry(ONE_FAILURE, max_size=3, clock=clock)
    seen: dict[int, weakref.ref[CircuitBreaker]] = {}
    matters: dict[int, bool] = {}
    held: dict[int, CircuitBreaker] = {}
    met = {"stayed": 0, "made anew": 0}

    def get(key: int) -> CircuitBreaker:
        breaker = registry[key]
        if matters.get(key) or key in held:
            assert breaker is seen[key]()
            met["stayed"] += 1
        elif key in seen and breaker is not seen[key]():
            met["made anew"] += 1
        seen[key] = weakref.ref(breaker)
        return breaker

    def judge(key: int, breaker: CircuitBreaker) -> None:
        snapshot = breaker.snapshot()
        matters[key] = snapshot.mode is not CircuitMode.AUTO or snapshot.machine_state is not CLOSED

    for _ in range(1000):
        key = draw.randrange(8)
        breaker = held[key] if key in held and draw.random() < 0.5 else get(key)
        action = draw.randrange(16)
        if action == 0:
            breaker.record_failure()
        elif action == 1:
            breaker.mode = draw.choice(list(CircuitMode))
        elif action == 2:
            breaker.config = draw.choice([ONE_FAILURE, CircuitBreakerConfig()])
        elif action in range(3, 10):
            breaker.reset()
            breaker.config = ONE_FAILURE
        elif action == 10:
            held[key] = breaker
        elif action in (11, 12):
            held.pop(key, None)
        elif action == 13:
            clock.advance(draw.choice([10, 30]))
            for other, reference in seen.items():  # an open one whose time is over may go
                found = reference()
                if found is not None:
                    judge(other, found)
        judge(key, breaker)
        del breaker
    assert met["stayed"] > 10
    assert met["made anew"] > 10 or not CPYTHON  # elsewhere, breakers stay until the garbage is collected


# Its configuration


def test_another_configuration_is_that_of_those_that_are_there_and_those_that_come(
    registry: CircuitBreakerRegistry,
) -> None:
    forgotten = registry["forgotten"]
    for key in "abc":
        registry[key]
    assert "forgotten" not in registry
    other = CircuitBreakerConfig(7)
    registry.config = other
    assert registry.config is other
    assert [breaker.config for breaker in registry.values()] == [other] * 3
    assert forgotten.config is other
    assert registry["new"].config is other


def test_another_configuration_may_follow_from_the_key(registry: CircuitBreakerRegistry) -> None:
    registry["a"]

    def config(key: str) -> CircuitBreakerConfig:
        return CircuitBreakerConfig(ord(key))

    registry.config = config
    assert registry.config is config
    assert registry["a"].config.failure_threshold == ord("a")
    assert registry["b"].config.failure_threshold == ord("b")


def test_a_configuration_that_raises_for_some_keys_is_set_for_all_others(registry: CircuitBreakerRegistry) -> None:
    error = Down()

    def config(key: str) -> CircuitBreakerConfig:
        if key == "b":
            raise error
        return other

    other = CircuitBreakerConfig(7)
    for key in "abc":
        registry[key]
    with pytest.raises(Down) as raised:
        registry.config = config
    assert raised.value is error
    assert [registry[key].config for key in "abc"] == [other, ONE_FAILURE, other]


@pytest.mark.parametrize("config", [{}, None, CircuitBreakerConfig])
def test_what_is_not_a_configuration_is_rejected_and_changes_nothing(
    registry: CircuitBreakerRegistry, config: Any
) -> None:
    registry["a"]
    with pytest.raises(TypeError, match="config"):
        registry.config = config
    assert registry.config is registry["a"].config is ONE_FAILURE


def test_a_configuration_that_is_set_while_a_breaker_is_made_is_that_of_the_breaker(
    registry: CircuitBreakerRegistry,
) -> None:
    def config(key: str) -> CircuitBreakerConfig:
        registry.config = other
        return ONE_FAILURE

    other = CircuitBreakerConfig(7)
    registry.config = config
    assert registry["a"].config is other


def test_a_configuration_that_is_set_while_another_is_set_is_that_of_all(registry: CircuitBreakerRegistry) -> None:
    def config(key: str) -> CircuitBreakerConfig:
        registry.config = other
        return ONE_FAILURE

    other = CircuitBreakerConfig(7)
    filled(registry)
    registry.config = config
    assert [breaker.config for breaker in registry.values()] == [other] * 3


def test_another_configuration_passes_over_what_nobody_holds(registry: CircuitBreakerRegistry) -> None:
    filled(registry)["d"]
    collect()
    asked: list[str] = []
    registry.config = lambda key: asked.append(key) or ONE_FAILURE
    assert sorted(asked) == ["b", "c", "d"]


def test_another_configuration_is_not_a_use_of_a_breaker(registry: CircuitBreakerRegistry) -> None:
    for key in "abc":
        registry[key]
    registry.config = CircuitBreakerConfig()
    assert list(registry) == ["a", "b", "c"]


# Too many


def test_the_registry_grows_if_none_can_go_and_warns_once(
    registry: CircuitBreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    for key in range(6):
        registry[key].record_failure()
    assert len(registry) == 6
    assert [registry[key].state for key in range(6)] == [OPEN] * 6
    (record,) = [record for record in caplog.records if "grows" in record.getMessage()]
    assert (record.name, record.levelno) == ("circuit_breaker", logging.WARNING)
    assert "max_size of 3" in record.getMessage()
    assert record.__dict__["max_size"] == 3


def test_a_registry_warns_when_it_grows_by_a_breaker_that_is_new(
    registry: CircuitBreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    for key in range(3):
        registry[key].record_failure()
    assert caplog.records[-1].getMessage().startswith("circuit '2'")
    registry["new"]
    assert "grows" in caplog.records[-1].getMessage()


def test_a_registry_warns_when_it_grows_by_a_breaker_that_it_takes_back(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CircuitBreakerRegistry(ONE_FAILURE, max_size=1, clock=clock)
    held = registry["held"]
    registry["other"].record_failure()
    held.record_failure()
    assert len(registry) == 2
    assert [record.getMessage() for record in caplog.records if "grows" in record.getMessage()]


def test_a_registry_that_does_not_grow_does_not_warn(
    registry: CircuitBreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    for key in range(10):
        registry[key]
    assert caplog.records == []


def test_a_registry_that_has_grown_shrinks_when_breakers_are_closed_again(registry: CircuitBreakerRegistry) -> None:
    for key in range(10):
        registry[key].record_failure()
    assert len(registry) == 10
    registry.reset_all()
    for key in range(10, 20):
        registry[key]
    assert len(registry) == 3
    assert 19 in registry


def lines_of(action: Callable[[], object]) -> int:
    """Return how many lines of our code an action runs through."""
    lines = 0

    def count_line() -> bool:
        nonlocal lines
        lines += 1
        return False

    do_between(1, action, int, count_line)
    return lines


@needs_reference_counts
@pytest.mark.parametrize("what", ["are closed", "have failures", "are open", "are held"])
def test_a_new_key_takes_the_same_number_of_steps_at_any_size(clock: Clock, what: str) -> None:
    steps: dict[int, list[int]] = {}
    for size in (100, 1_000):
        registry = CircuitBreakerRegistry(CircuitBreakerConfig(2), max_size=size, clock=clock)
        held: list[CircuitBreaker] = []
        for key in range(2 * size if what == "are held" else size):
            breaker = registry[key]
            if what == "are held":
                held.append(breaker)
            elif what != "are closed":
                breaker.record_failure()
                if what == "are open":
                    breaker.record_failure()
        steps[size] = [lines_of(lambda key=key: registry[f"new {key}"]) for key in range(5)]  # noqa: B023
    assert steps[100] == steps[1_000]
    assert 0 < max(steps[100]) < 2_000


def test_a_registry_that_has_grown_looks_at_no_more_breakers_than_before(registry: CircuitBreakerRegistry) -> None:
    for key in range(200):
        registry[key].record_failure()
    registry["new"].record_failure()
    registry[7].reset()
    for key in range(200, 220):
        registry[key].record_failure()
    assert 7 not in registry


@needs_reference_counts
def test_keys_whose_breakers_nobody_holds_are_let_go(registry: CircuitBreakerRegistry) -> None:
    class Key:
        """One that is seen to go."""

    keys: weakref.WeakSet[Key] = weakref.WeakSet()
    for _ in range(100):
        key = Key()
        keys.add(key)
        registry[key].record_success()
    assert 3 <= len(keys) <= 3 + 2


def test_a_streak_that_the_window_has_forgotten_still_counts(clock: Clock) -> None:
    config = CircuitBreakerConfig(error_rate_window=timedelta(seconds=30))
    registry = CircuitBreakerRegistry(config, max_size=2, clock=clock)
    registry["a"].record_failure()
    registry["b"].record_success()
    clock.advance(60)
    registry["c"].record_success()
    assert list(registry) == ["a", "c"]


def test_memory_stays_flat_however_many_keys_come() -> None:
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy does not trace memory", exc_type=ImportError)
    registry = CircuitBreakerRegistry()
    keys = (f"key {number}" for number in count())

    def use(times: int) -> int:
        for key in islice(keys, times):
            registry[key].record_success()
        collect()
        return tracemalloc.get_traced_memory()[0]

    use(3_000)
    tracemalloc.start()
    try:
        before = use(3_000)
        assert use(KEYS) - before < 200_000
    finally:
        tracemalloc.stop()
    assert len(registry) == 1_024
    assert len(CircuitBreaker.instances()) < 2_000


# Taking away, and resetting


def test_a_removed_key_gets_a_new_breaker_whoever_holds_the_old(registry: CircuitBreakerRegistry) -> None:
    held = registry["a"]
    held.record_failure()
    registry.remove("a")
    assert "a" not in registry
    assert registry["a"] is not held
    assert registry["a"].state is CLOSED
    assert held.state is OPEN


def test_a_key_can_be_removed_while_it_is_forgotten_and_held(registry: CircuitBreakerRegistry) -> None:
    held = registry["a"]
    for key in "bcd":
        registry[key]
    registry.remove("a")
    assert registry["a"] is not held


def test_a_key_that_is_not_known_cannot_be_removed(registry: CircuitBreakerRegistry) -> None:
    for key in "abcd":
        registry[key]
    collect()
    for key in ("a", "never"):
        with pytest.raises(KeyError, match=key):
            registry.remove(key)
    assert list(registry) == ["b", "c", "d"]


def test_all_that_are_kept_are_reset(registry: CircuitBreakerRegistry) -> None:
    registry["a"].record_failure()
    registry["b"].mode = CircuitMode.FORCED_OPEN
    registry["c"].record_success()
    registry.reset_all()
    for key in "abc":
        assert (registry[key].state, registry[key].mode) == (CLOSED, CircuitMode.AUTO)
        assert registry[key].stats == CircuitStats()


@pytest.mark.parametrize("mode", CircuitMode)
def test_all_are_reset_to_the_mode_of_the_registry(clock: Clock, mode: CircuitMode) -> None:
    registry = CircuitBreakerRegistry(ONE_FAILURE, mode=mode, clock=clock)
    as_made = registry["never used"].snapshot().to_dict() | {"name": ""}
    for key, other in enumerate(CircuitMode):
        registry[key].record_failure()
        registry[key].mode = other
        registry[key].record_failure()
    registry.reset_all()
    for key in range(4):
        assert registry[key].snapshot().to_dict() | {"name": ""} == as_made


def test_all_are_reset_though_a_listener_stops_the_program(clock: Clock) -> None:
    first = Stop("first")

    def stop(event: Any) -> None:
        if event.new_state is CLOSED:
            raise first if event.circuit_name == "a" else Stop

    registry = CircuitBreakerRegistry(ONE_FAILURE, listeners=[stop], max_size=3, clock=clock)
    breakers = [registry[key] for key in "abc"]
    for breaker in breakers:
        breaker.mode = CircuitMode.FORCED_OPEN
    with pytest.raises(Stop) as raised:
        registry.reset_all()
    assert raised.value is first
    assert [breaker.state for breaker in breakers] == [CLOSED] * 3


@needs_reference_counts
def test_what_stops_a_reset_of_all_is_freed_when_nobody_holds_it(clock: Clock) -> None:
    def stop(event: Any) -> None:
        if event.new_state is CLOSED:
            raise Stop

    registry = CircuitBreakerRegistry(listeners=[stop], clock=clock)
    registry["a"].mode = CircuitMode.FORCED_OPEN

    def reset() -> weakref.ref[Stop]:
        try:
            registry.reset_all()
        except Stop as error:
            return weakref.ref(error)
        pytest.fail("it was not stopped")

    collect()
    gc.disable()
    try:
        assert reset()() is None
    finally:
        gc.enable()


def test_a_listener_may_use_the_registry_while_it_is_reset(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(
        ONE_FAILURE, listeners=[lambda event: registry[f"of {event.circuit_name}"]], clock=clock
    )
    registry["a"].record_failure()
    registry.reset_all()
    assert list(registry) == ["a", "of a"]


# Threads and forks


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_that_all_make_the_breaker_of_a_new_key_get_one() -> None:
    meet = threading.Barrier(8)

    def config(key: str) -> CircuitBreakerConfig:
        meet.wait(PATIENCE_S)
        return ONE_FAILURE

    registry = CircuitBreakerRegistry(config)
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda _: registry["a"], range(8), timeout=PATIENCE_S))
    assert {id(breaker) for breaker in given} == {id(registry["a"])}
    assert len(registry) == 1


@pytest.mark.usefixtures("restless")
def test_threads_that_use_more_keys_than_there_is_room_for_lose_nothing() -> None:
    registry = CircuitBreakerRegistry(max_size=4)
    held = [registry[key] for key in range(8)]
    start = threading.Barrier(4)

    def use(seed: int) -> None:
        draw = random.Random(seed)
        start.wait(PATIENCE_S)
        for _ in range(300):
            key = draw.randrange(12)
            breaker = registry[key]
            assert breaker.name == str(key)
            assert key >= 8 or breaker is held[key]
            breaker.record_success()

    with ThreadPoolExecutor(4) as pool:
        for thread in [pool.submit(use, seed) for seed in range(4)]:
            thread.result(PATIENCE_S)
    drawn = [draw.randrange(12) for draw in map(random.Random, range(4)) for _ in range(300)]
    assert [breaker.stats.success_count for breaker in held] == [drawn.count(key) for key in range(8)]
    assert len(registry) <= 4


@needs_fork
def test_a_child_can_use_the_registry_whose_locks_another_thread_held(registry: CircuitBreakerRegistry) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with registry._lock, registry._cache._lock:
            inside.set()
            assert go_on.wait(PATIENCE_S)

    kept = registry["kept"]
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(hold)
        assert inside.wait(PATIENCE_S)
        told = told_by_child(lambda: (registry["kept"] is kept, registry["new"].name, list(registry)))
        go_on.set()
        other.result(PATIENCE_S)
    assert told == "(True, 'new', ['kept', 'new'])"
    assert "new" not in registry


def test_of_two_that_find_the_registry_grown_only_the_first_warns(caplog: pytest.LogCaptureFixture) -> None:
    registry = CircuitBreakerRegistry()
    lock = registry._lock

    class Overtaken:
        """The lock, with another thread that was here a moment before."""

        def __enter__(self) -> None:
            lock.__enter__()
            registry._warned = True

        def __exit__(self, *error: Any) -> None:
            lock.__exit__(*error)

    registry._lock = Overtaken()  # type: ignore[assignment]
    registry._warn_once()
    assert caplog.records == []


# What comes in between


def in_between(
    make: Callable[[], CircuitBreakerRegistry],
    outer: Callable[[CircuitBreakerRegistry], object],
    inner: Callable[[CircuitBreakerRegistry], object],
) -> Iterator[CircuitBreakerRegistry]:
    """Do inner at every line in turn of what outer does in registry and cache, where no lock is held."""
    for place in count(1):
        registry = make()
        owned = registry._cache._lock._is_owned  # type: ignore[attr-defined]
        if not do_between(
            place,
            lambda registry=registry: outer(registry),
            lambda registry=registry: inner(registry),
            lambda registry=registry, owned=owned: not owned() and not registry._lock._is_owned(),
            ROOMS,
        ):
            assert place > 10
            return
        yield registry


def test_a_key_that_is_asked_for_in_the_middle_of_itself_has_one_breaker() -> None:
    found: list[CircuitBreaker] = []

    def make() -> CircuitBreakerRegistry:
        found.clear()
        return filled(CircuitBreakerRegistry(ONE_FAILURE, max_size=3))

    def ask(registry: CircuitBreakerRegistry) -> None:
        found.append(registry["new"])

    def ask_and_forget(registry: CircuitBreakerRegistry) -> None:
        found.append(registry["new"])
        filled(registry)

    for inner in (ask, ask_and_forget):
        for registry in in_between(make, ask, inner):
            assert len(found) == 2
            assert {id(breaker) for breaker in found} == {id(registry["new"])}
            assert len(registry) == 3


def test_two_that_make_room_at_once_forget_no_more_than_are_too_many() -> None:
    def make() -> CircuitBreakerRegistry:
        registry = CircuitBreakerRegistry(ONE_FAILURE, max_size=2)
        registry["a"], registry["b"]
        return registry

    def use_and_make_room(registry: CircuitBreakerRegistry) -> None:
        registry["a"], registry["d"]

    for registry in in_between(make, lambda registry: registry["c"], use_and_make_room):
        assert len(registry) == 2


def test_a_breaker_that_opens_as_it_is_forgotten_is_kept(clock: Clock) -> None:
    held: list[CircuitBreaker] = []

    def make() -> CircuitBreakerRegistry:
        registry = CircuitBreakerRegistry(ONE_FAILURE, max_size=1, clock=clock)
        held.append(registry["a"])
        return registry

    for registry in in_between(make, lambda registry: registry["b"], lambda registry: held.pop().record_failure()):
        collect()
        assert registry["a"].is_open
        assert len(registry) <= 2
    held.clear()


def test_a_breaker_that_opens_just_after_it_was_forgotten_is_kept(clock: Clock) -> None:
    opens: list[CircuitBreaker] = []

    def now() -> float:
        if opens and "a" not in registry:
            opens.pop().record_failure()
        return clock()

    registry = CircuitBreakerRegistry(ONE_FAILURE, max_size=1, clock=now)
    opens.append(registry["a"])
    registry["b"]
    assert opens == []
    collect()
    assert registry["a"].is_open


def test_a_breaker_that_is_made_while_the_configuration_is_set_has_the_new_one(clock: Clock) -> None:
    def make() -> CircuitBreakerRegistry:
        return CircuitBreakerRegistry(ONE_FAILURE, clock=clock)

    def configure(registry: CircuitBreakerRegistry) -> None:
        registry.config = other

    other = CircuitBreakerConfig(7)
    for registry in in_between(make, lambda registry: registry["new"], configure):
        assert registry["new"].config is other
    for registry in in_between(lambda: filled(make()), configure, lambda registry: registry["new"]):
        assert {breaker.config for breaker in [registry["new"], *registry.values()]} == {other}


def test_of_two_configurations_that_are_set_at_once_all_breakers_get_the_one_that_stays(clock: Clock) -> None:
    first, second = CircuitBreakerConfig(7), CircuitBreakerConfig(8)
    for registry in in_between(
        lambda: filled(CircuitBreakerRegistry(ONE_FAILURE, clock=clock)),
        lambda registry: setattr(registry, "config", first),
        lambda registry: setattr(registry, "config", second),
    ):
        assert {breaker.config for breaker in registry.values()} == {registry.config}


def test_what_is_listed_while_others_are_used_is_complete(clock: Clock) -> None:
    listed: list[list[CircuitBreaker]] = []
    for registry in in_between(
        lambda: filled(CircuitBreakerRegistry(ONE_FAILURE, clock=clock)),
        lambda registry: listed.append(registry.values()),
        lambda registry: (registry["b"], registry["a"]),
    ):
        assert sorted(breaker.name for breaker in listed.pop()) == ["a", "b", "c"]
        assert list(registry) == ["c", "b", "a"]


def test_a_registry_that_is_full_waits_for_no_breaker(registry: CircuitBreakerRegistry) -> None:
    busy = registry["busy"]
    busy.record_failure()
    made = threading.Event()

    def fill() -> None:
        for key in range(10):
            registry[key]
        made.set()

    with busy._machine.lock:
        thread = threading.Thread(target=fill)
        thread.start()
        assert made.wait(PATIENCE_S)
    thread.join(PATIENCE_S)


def test_after_a_reset_of_all_breakers_of_another_mode_may_go_again(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(max_size=3, mode=CircuitMode.SHADOW, clock=clock)
    for key in range(3):
        registry[key].mode = CircuitMode.AUTO
    registry.reset_all()
    for key in range(10, 20):
        registry[key]
    assert list(registry) == [17, 18, 19]


def test_a_breaker_that_a_listener_removes_while_all_are_reset_stays_removed(clock: Clock) -> None:
    registry = CircuitBreakerRegistry(
        ONE_FAILURE, listeners=[lambda event: event.new_state is CLOSED and registry.remove("b")], clock=clock
    )
    registry["b"]
    registry["a"].record_failure()
    registry["b"]
    registry.reset_all()
    assert list(registry) == ["a"]


# Listeners that come and go


def test_a_listener_of_the_registry_hears_the_breakers_that_are_there_and_those_that_come() -> None:
    registry = CircuitBreakerRegistry()
    registry["a"].call(int)
    heard: list[Any] = []
    registry.add_listener(heard.append)
    registry["a"].call(int)
    registry["b"].call(int)
    assert [event.circuit_name for event in heard] == ["a", "b"]
    registry.remove_listener(heard.append)
    registry["a"].call(int)
    registry["c"].call(int)
    assert len(heard) == 2
    with pytest.raises(ValueError, match="one of the listeners"):
        registry.remove_listener(heard.append)


def test_a_listener_that_comes_while_a_breaker_is_made_hears_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    gone: list[Any] = []
    registry = CircuitBreakerRegistry(listeners=[gone.append])
    make = registry._make

    def make_slowly(key: Any) -> CircuitBreaker:
        breaker = make(key)
        registry.add_listener(heard.append)
        registry.remove_listener(gone.append)
        return breaker

    monkeypatch.setattr(registry, "_make", make_slowly)
    registry["a"].call(int)
    assert (len(heard), len(gone)) == (1, 0)


def test_a_listener_of_the_registry_hears_a_forgotten_breaker_that_is_still_held() -> None:
    registry = CircuitBreakerRegistry(max_size=1)
    held = registry["a"]
    assert registry["b"]
    heard: list[Any] = []
    registry.add_listener(heard.append)
    held.call(int)
    assert [event.circuit_name for event in heard] == ["a"]
