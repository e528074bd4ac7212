"""What a registry keeps by key: in order of use, one value for each key, also while other threads use it."""

from __future__ import annotations

import itertools
import random
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeAlias

import pytest
from failures import Down, raising
from garbage import collect
from needs import needs_timer
from overtaken import Overtaken
from patience import PATIENCE_S
from places import do_between
from storms import storm

from circuit_breaker._breaker import cache as _cache
from circuit_breaker._breaker.cache import Cache, Entry

SOURCE = _cache.__file__


class Value:
    """What is kept in these tests."""

    def __init__(self, key: Hashable) -> None:
        self.key = key


class Clashing(str):
    """A key with the hash of all others of its kind."""

    __slots__ = ()
    __eq__ = str.__eq__

    def __hash__(self) -> int:
        return 1


@pytest.fixture(params=[str, Clashing], ids=["each hash is another", "all hashes are the same"])
def key(request: pytest.FixtureRequest) -> type[str]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def cache() -> Cache[Value]:
    return Cache()


def keys(cache: Cache[Value]) -> list[Hashable]:
    return [entry.key for entry, _ in cache.in_order()]


def forget(cache: Cache[Value], key: Hashable) -> None:
    entry = cache.find(key)
    if entry is not None:
        value = entry.kept
        if value is not None:
            cache.exchange(entry, value, None)


def no_value(key: Hashable) -> Value:
    raise AssertionError(f"{key} has a value")


def whole(cache: Cache[Value]) -> None:
    """The list and the buckets say the same, in both directions."""
    listed: list[Entry[Value]] = []
    entry = cache._oldest
    while entry is not None:
        assert entry not in listed
        assert entry.older is (listed[-1] if listed else None)
        listed.append(entry)
        entry = entry.newer
    assert cache._newest is (listed[-1] if listed else None)
    assert cache.count == len(listed)
    assert listed == sorted(listed, key=lambda entry: entry.used)
    assert listed == [entry for entry, _ in cache.in_order()]
    known = cache.entries()
    assert set(listed) == {entry for entry in known if entry.kept is not None}
    assert len({entry.key for entry in known}) == len(known)
    assert not any(entry.removed for entry in known)
    for entry in known:
        assert cache.find(entry.key) is entry
        assert entry.kept is None or entry.kept is entry.reference()
    assert all(cache._buckets.values())


# Keeping and forgetting


def test_key_leads_to_the_value_that_was_made_at_its_first_use(key: type[str], cache: Cache[Value]) -> None:
    values = {name: cache.bring(key(name), Value)[1] for name in "abc"}
    for name, value in values.items():
        assert cache.use(key(name)) is value
        assert cache.bring(key(name), no_value)[1] is value
    whole(cache)


def test_key_that_is_not_known_leads_to_nothing(key: type[str], cache: Cache[Value]) -> None:
    cache.bring(key("a"), Value)
    assert cache.use(key("b")) is None
    assert cache.find(key("b")) is None
    assert not cache.remove(key("b"))
    assert keys(cache) == ["a"]


def test_values_are_in_the_order_of_their_last_use(key: type[str], cache: Cache[Value]) -> None:
    for name in "abcd":
        cache.bring(key(name), Value)
    for name in "baadd":
        cache.use(key(name))
    assert keys(cache) == ["c", "b", "a", "d"]
    assert [entry.key for entry in itertools.islice(cache.least_used(), 4)] == ["c", "b", "a", "d"]
    whole(cache)


def test_value_that_is_forgotten_while_somebody_holds_it_is_the_one_its_key_leads_to(
    key: type[str], cache: Cache[Value]
) -> None:
    held = cache.bring(key("held"), Value)[1]
    cache.bring(key("other"), Value)
    forget(cache, key("held"))
    assert cache.use(key("held")) is None
    assert keys(cache) == ["other"]
    whole(cache)
    assert cache.bring(key("held"), no_value)[1] is held
    assert keys(cache) == ["other", "held"]
    whole(cache)


def test_value_that_nobody_holds_is_gone_once_it_is_forgotten(key: type[str], cache: Cache[Value]) -> None:
    first = weakref.ref(cache.bring(key("a"), Value)[1])
    forget(cache, key("a"))
    collect()
    assert first() is None
    assert not cache.remove(key("a"))
    assert cache.bring(key("a"), Value)[1].key == "a"
    whole(cache)


def test_value_is_not_made_if_making_it_raises(key: type[str], cache: Cache[Value]) -> None:
    with pytest.raises(Down):
        cache.bring(key("a"), lambda _: raising(Down())())
    assert cache.entries() == []


def test_removed_key_leads_to_a_new_value_whoever_holds_the_old(key: type[str], cache: Cache[Value]) -> None:
    kept, forgotten = (cache.bring(key(name), Value)[1] for name in ("kept", "forgotten"))
    forget(cache, key("forgotten"))
    assert cache.remove(key("kept"))
    assert cache.remove(key("forgotten"))
    assert cache.entries() == []
    whole(cache)
    assert cache.bring(key("kept"), Value)[1] is not kept
    assert cache.bring(key("forgotten"), Value)[1] is not forgotten


def test_value_is_forgotten_only_while_more_are_kept_than_there_should_be(cache: Cache[Value]) -> None:
    entry, value = cache.bring("a", Value)
    cache.bring("b", Value)
    assert not cache.exchange(entry, value, None, above=2)
    assert keys(cache) == ["a", "b"]
    assert cache.exchange(entry, value, None, above=1)
    assert keys(cache) == ["b"]
    whole(cache)


def test_removed_value_is_never_kept_again(cache: Cache[Value]) -> None:
    entry, value = cache.bring("a", Value)
    cache.remove("a")
    assert not cache.exchange(entry, None, value)
    assert cache.count == 0


def test_what_nobody_holds_any_more_does_not_pile_up(key: type[str], cache: Cache[Value]) -> None:
    for number in range(100):
        cache.bring(key(number), Value)
        forget(cache, key(number))
        collect()
        assert len(cache.entries()) + len(cache._dead) <= 4
    whole(cache)


def test_what_many_held_is_cleared_by_two_with_each_new_key(cache: Cache[Value]) -> None:
    held = [cache.bring(number, Value)[1] for number in range(100)]
    for number in range(100):
        forget(cache, number)
    held.clear()
    collect()
    for number in range(50):
        assert len(cache.entries()) == 100 - number
        cache.bring(f"new {number}", Value)
    cache.bring("one more", Value)
    assert len(cache._buckets) == cache.count == 51


def test_values_that_are_held_and_take_turns_do_not_pile_up(cache: Cache[Value]) -> None:
    held = [cache.bring(number, Value)[1] for number in range(3)]
    for number in itertools.islice(itertools.cycle(range(3)), 300):
        forget(cache, number)
        assert cache.bring(number, no_value)[1] is held[number]
    assert len(cache.entries()) == 3
    assert not cache._dead


def test_reference_of_a_removed_value_is_cleared_away(cache: Cache[Value]) -> None:
    for _ in range(10):
        cache.bring("a", Value)
        cache.remove("a")
        collect()
        assert len(cache._dead) <= 2
    whole(cache)


class Slow:
    """A key that does something while it is compared."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], object] = int

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        self.meanwhile()
        return isinstance(other, Slow)


def test_no_lock_is_held_while_keys_are_compared(cache: Cache[Value]) -> None:
    def use_it_elsewhere() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(cache.bring, "other", Value).result(PATIENCE_S)
            done.append(True)

    done: list[bool] = []
    key = Slow()
    value = cache.bring(key, Value)[1]
    key.meanwhile = use_it_elsewhere
    assert cache.bring(Slow(), no_value)[1] is value
    assert cache.use(Slow()) is value
    assert cache.remove(Slow())
    assert len(done) == 3


def test_comparison_that_raises_reaches_the_caller_and_changes_nothing(cache: Cache[Value]) -> None:
    key = Slow()
    cache.bring(key, Value)
    key.meanwhile = raising(Down())
    for action in (cache.use, cache.find, cache.remove, lambda key: cache.bring(key, Value)):
        with pytest.raises(Down):
            action(Slow())
    assert keys(cache) == [key]


def test_key_that_is_brought_while_its_value_is_made_has_the_one_that_came_first(cache: Cache[Value]) -> None:
    first: list[Value] = []

    def make(key: Hashable) -> Value:
        first.append(cache.bring(key, Value)[1])
        return Value(key)

    assert cache.bring("a", make)[1] is first[0]
    whole(cache)


def test_key_that_is_removed_while_it_is_compared_cannot_be_removed_twice(cache: Cache[Value]) -> None:
    key = Slow()
    held = cache.bring(key, Value)[1]
    key.meanwhile = lambda: cache.remove(key)
    assert not cache.remove(Slow())
    assert cache.bring(key, Value)[1] is not held
    key.meanwhile = int
    assert cache.remove(Slow())
    assert cache.entries() == []


def test_what_is_gone_is_cleared_though_another_key_of_its_hash_comes_meanwhile(cache: Cache[Value]) -> None:
    replace = cache._replace

    def overtaken(*args: Any) -> bool:
        cache._replace = replace  # type: ignore[method-assign]
        cache.bring(Clashing("overtaking"), Value)
        return replace(*args)

    cache.bring(Clashing("kept"), Value)
    cache.bring(Clashing("gone"), Value)
    forget(cache, Clashing("gone"))
    collect()
    cache._replace = overtaken  # type: ignore[method-assign]
    cache._clear()
    assert sorted(map(str, keys(cache))) == ["kept", "overtaking"]
    assert len(cache.entries()) == 2
    whole(cache)


def test_walk_over_the_least_used_waits_until_an_entry_that_is_moved_is_in_its_place(cache: Cache[Value]) -> None:
    moved, other = (cache.bring(key, Value)[0] for key in "ab")
    cache._oldest, other.older, moved.newer = other, None, None  # in the middle of a use of "a"

    def end_the_move() -> None:
        other.newer, moved.older, cache._newest = moved, other, moved

    cache._lock = Overtaken(cache._lock, end_the_move)  # type: ignore[assignment]
    assert [entry.key for entry in itertools.islice(cache.least_used(), 2)] == ["b", "a"]


def test_walk_over_the_least_used_goes_on_from_the_start_when_it_loses_the_way(cache: Cache[Value]) -> None:
    for name in "abc":
        cache.bring(name, Value)
    walk = cache.least_used()
    assert next(walk).key == "a"
    cache.use("b")
    assert [next(walk).key, next(walk).key] == ["b", "a"]


def test_walk_over_nothing_ends(cache: Cache[Value]) -> None:
    assert list(cache.least_used()) == []


# Whatever comes in between


class Scene:
    """A cache with values that are kept, forgotten and held, or gone, and what was found in it."""

    def __init__(self, key: type[str]) -> None:
        self.key = key
        self.cache: Cache[Value] = Cache()
        self.found: dict[str, list[Value]] = {"held": [self.cache.bring(key("held"), Value)[1]]}
        self.removed: set[str] = set()
        for name in ("gone", "gone too", "a", "b"):
            self.cache.bring(key(name), Value)
        for name in ("held", "gone", "gone too"):
            forget(self.cache, key(name))

    def bring(self, name: str) -> None:
        self.found.setdefault(name, []).append(self.cache.bring(self.key(name), Value)[1])

    def use(self, name: str) -> None:
        value = self.cache.use(self.key(name))
        if value is not None:
            self.found.setdefault(name, []).append(value)

    def forget(self, name: str) -> None:
        forget(self.cache, self.key(name))

    def remove(self, name: str) -> None:
        if self.cache.remove(self.key(name)):
            self.removed.add(name)

    def look(self) -> None:
        order = keys(self.cache)
        assert len(set(order)) == len(order)
        assert "b" in order

    def check(self) -> None:
        whole(self.cache)
        assert "b" in keys(self.cache)
        for name, found in self.found.items():
            if name not in self.removed:
                assert len(set(found)) == 1
                assert self.cache.bring(self.key(name), no_value)[1] is found[0]
        whole(self.cache)


Action: TypeAlias = Callable[[Scene], object]

ACTIONS: dict[str, Action] = {
    "bring a new one": lambda scene: scene.bring("new"),
    "bring one that is gone": lambda scene: scene.bring("gone"),
    "bring one that is held": lambda scene: scene.bring("held"),
    "bring one that is kept": lambda scene: scene.bring("a"),
    "use one": lambda scene: scene.use("a"),
    "use the newest": lambda scene: scene.use("b"),
    "forget one": lambda scene: scene.forget("a"),
    "forget one that comes": lambda scene: scene.forget("new"),
    "remove one": lambda scene: scene.remove("a"),
    "remove one that is held": lambda scene: scene.remove("held"),
    "remove one that comes": lambda scene: scene.remove("new"),
    "look": lambda scene: scene.look(),
}


def bring_and_forget(scene: Scene) -> None:
    for name in ("new", "gone", "a"):
        scene.bring(name)
        scene.forget(name)


@pytest.mark.parametrize("outer", ACTIONS)
def test_interruptions_leave_one_value_for_each_key_and_the_order_intact(key: type[str], outer: str) -> None:
    places = 0
    for name, inner in (ACTIONS | {"bring and forget some": bring_and_forget}).items():
        for place in itertools.count(1):
            scene = Scene(key)
            owned = scene.cache._lock._is_owned  # type: ignore[attr-defined]
            if not do_between(
                place,
                lambda scene=scene: ACTIONS[outer](scene),
                lambda scene=scene, inner=inner: inner(scene),
                lambda owned=owned: not owned(),
                SOURCE,
            ):
                break
            places += 1
            try:
                scene.check()
            except AssertionError as error:
                error.add_note(f"{name} at {place}")
                raise
    assert places > 10


class Stop(BaseException):
    """Ends a locked section in the middle."""


@pytest.mark.parametrize("action", ACTIONS)
def test_a_child_whose_parent_was_in_the_middle_of_a_locked_section_has_a_whole_cache(
    key: type[str], action: str
) -> None:
    for place in itertools.count(1):
        scene = Scene(key)
        owned = scene.cache._lock._is_owned  # type: ignore[attr-defined]
        with suppress(Stop):
            do_between(place, lambda scene=scene: ACTIONS[action](scene), raising(Stop()), owned, SOURCE)
            break
        scene.cache.after_fork_in_child()
        whole(scene.cache)
        scene.bring("b")
        scene.bring("new")
        whole(scene.cache)
    assert place > 1 or action in {"use the newest", "look", "forget one that comes", "remove one that comes"}


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_threads_that_do_everything_at_once_find_one_value_for_each_key_they_hold(
    key: type[str], cache: Cache[Value]
) -> None:
    start = threading.Barrier(4)
    held = {name: cache.bring(key(name), Value)[1] for name in "abcd"}

    def use(seed: int) -> None:
        draw = random.Random(seed)
        start.wait(PATIENCE_S)
        for _ in range(400):
            name = draw.choice("abcdefgh")
            action = draw.randrange(6)
            if action == 0:
                forget(cache, key(name))
            elif action == 1 and name not in held:
                cache.remove(key(name))
            elif action == 2:
                cache.in_order()
            else:
                value = cache.use(key(name)) or cache.bring(key(name), Value)[1]
                assert value is held.get(name, value)

    with ThreadPoolExecutor(4) as pool:
        for thread in [pool.submit(use, seed) for seed in range(4)]:
            thread.result(PATIENCE_S)
    whole(cache)
    assert {name: cache.bring(key(name), no_value)[1] for name in held} == held


@needs_timer
def test_interrupts_leave_the_cache_whole(key: type[str], cache: Cache[Value]) -> None:
    held = cache.bring(key("held"), Value)[1]
    names = itertools.cycle("abcdef")

    def use() -> None:
        for _ in range(20):
            name = next(names)
            cache.bring(key(name), Value)
            cache.use(key("held")) or cache.bring(key("held"), no_value)
            forget(cache, key("held"))
            cache.remove(key(next(names)))

    def check() -> None:
        whole(cache)
        assert not cache._lock._is_owned()  # type: ignore[attr-defined]

    assert storm(use, 500, check) == 500
    assert cache.bring(key("held"), no_value)[1] is held
