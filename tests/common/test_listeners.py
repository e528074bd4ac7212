"""Listeners that are added and removed while the object is in use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from patience import PATIENCE_S

from circuit_breaker._common.events import Listened, Listener, notify


class Source(Listened):
    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._lock = threading.Lock()
        self.in_between: Callable[[], None] | None = None

    def _replace_listeners(self, before: tuple[Listener, ...], after: tuple[Listener, ...]) -> bool:
        change, self.in_between = self.in_between, None
        if change is not None:
            change()
        with self._lock:
            if self._listeners is before:
                self._listeners = after
                return True
        return False

    def tell(self, event: object) -> None:
        notify(self._listeners, event)


@pytest.fixture
def source() -> Source:
    return Source()


def test_a_listener_is_notified_from_when_it_is_added_until_it_is_removed(source: Source) -> None:
    seen: list[object] = []
    source.tell(1)
    source.add_listener(seen.append)
    source.tell(2)
    source.remove_listener(seen.append)  # another bound method, and equal
    source.tell(3)
    assert seen == [2]


def test_of_two_that_are_equal_the_one_that_is_given_is_removed(source: Source) -> None:
    @dataclass
    class Counter:
        seen: int = 0

        def __call__(self, event: object) -> None:
            self.seen += 1

    first, second = Counter(), Counter()
    source.add_listener(first)
    source.add_listener(second)
    source.remove_listener(second)
    source.tell(1)
    assert (first.seen, second.seen) == (1, 0)


def test_listeners_are_notified_in_the_order_in_which_they_came(source: Source) -> None:
    seen: list[str] = []
    listeners = [lambda _, name=name: seen.append(name) for name in "abc"]
    for listener in listeners:
        source.add_listener(listener)
    source.remove_listener(listeners[1])
    source.add_listener(listeners[1])
    source.tell(1)
    assert seen == ["a", "c", "b"]


def test_one_that_is_added_twice_is_notified_twice_and_removed_one_at_a_time(source: Source) -> None:
    seen: list[object] = []
    for _ in range(2):
        source.add_listener(seen.append)
    source.tell(1)
    source.remove_listener(seen.append)
    source.tell(2)
    assert seen == [1, 1, 2]


def test_removing_what_is_not_there_says_so(source: Source) -> None:
    with pytest.raises(ValueError, match=r"one of the listeners of <.*Source.*>, got <built-in function print>"):
        source.remove_listener(print)


@pytest.mark.parametrize("wrong", [None, 3, int, "print"])
def test_what_is_not_a_function_is_not_a_listener(wrong: Any, source: Source) -> None:
    with pytest.raises(TypeError, match="listener must be a function of one event"):
        source.add_listener(wrong)


def test_an_async_listener_is_rejected(source: Source) -> None:
    async def listener(event: object) -> None: ...

    with pytest.raises(TypeError, match="no async def"):
        source.add_listener(listener)


def test_a_listener_may_remove_itself_and_add_another_without_changing_the_delivery_under_way(source: Source) -> None:
    seen: list[tuple[str, object]] = []

    def once(event: object) -> None:
        seen.append(("once", event))
        source.remove_listener(once)
        source.add_listener(lambda event: seen.append(("new", event)))

    source.add_listener(once)
    source.add_listener(lambda event: seen.append(("other", event)))
    source.tell(1)
    assert seen == [("once", 1), ("other", 1)]
    source.tell(2)
    assert seen[2:] == [("other", 2), ("new", 2)]


def test_a_change_in_the_middle_of_another_as_by_a_signal_handler_is_not_lost(source: Source) -> None:
    source.in_between = lambda: source.add_listener(repr)
    source.add_listener(len)
    assert source._listeners == (repr, len)
    source.in_between = lambda: source.remove_listener(repr)
    source.remove_listener(len)
    assert source._listeners == ()


def test_many_threads_lose_no_listener(source: Source) -> None:
    start = threading.Barrier(4)

    def change(name: int) -> None:
        start.wait(PATIENCE_S)
        for _ in range(200):
            source.add_listener(len)
            source.add_listener(repr)
            source.remove_listener(len)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(4)))
    assert source._listeners == (repr,) * 800
