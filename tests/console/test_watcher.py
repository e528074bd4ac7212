"""Reading a store for everybody who looks."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from forks import told_by_child
from needs import needs_fork
from patience import PATIENCE_S
from scenes import Scene

from circuit_breaker.console.watcher import LONGEST_READING_S, NOT_READ_YET, Watcher
from circuit_breaker.stores import MemoryStore


class Store(MemoryStore):
    """A store that says how often it was read, and does what it is told meanwhile."""

    reads = 0
    meanwhile: Callable[[], Any] = staticmethod(lambda: None)

    def circuits(self) -> Any:
        self.reads += 1
        self.meanwhile()
        return super().circuits()


class Away(Exception):
    pass


def fail() -> None:
    raise Away("not\nthere")


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.store = Store(scene.store.board, clock=scene.clock, manual=True)
    return scene


@pytest.fixture
def watcher(scene: Scene) -> Watcher:
    scene.count("api", 1)
    return Watcher(scene.store, scene.clock)


def test_a_store_is_read_once_a_second_however_many_look(scene: Scene, watcher: Watcher) -> None:
    views = {id(watcher.look()) for _ in range(100)}
    assert (len(views), scene.store.reads) == (1, 1)
    scene.clock.advance(0.9)
    watcher.look()
    assert scene.store.reads == 1
    scene.clock.advance(0.2)
    assert watcher.look().at == scene.clock()
    assert scene.store.reads == 2


def test_what_has_changed_is_seen_at_once_if_it_is_told(scene: Scene, watcher: Watcher) -> None:
    watcher.look()
    scene.open("api")
    watcher.expire()
    (row,) = watcher.look().rows
    assert row.word == "open"


def test_a_store_that_fails_leaves_what_is_known(scene: Scene, watcher: Watcher) -> None:
    known = watcher.look()
    scene.clock.advance(5.0)
    scene.store.meanwhile = fail
    view = watcher.look()
    assert view.error == "Away: not\\nthere"
    assert (view.rows, view.at, view.read_at) == (known.rows, known.at, known.read_at)
    assert view.headline().main == "1 circuit is closed"
    scene.clock.advance(1.0)
    scene.store.meanwhile = int
    assert watcher.look().error is None


def test_a_store_that_never_answered_leaves_nothing(scene: Scene, watcher: Watcher) -> None:
    scene.store.meanwhile = fail
    view = watcher.look()
    assert (view.error, view.rows) == ("Away: not\\nthere", ())
    assert view.headline().main == "Nothing has been read yet"


def test_nobody_waits_for_a_reading_that_another_makes(scene: Scene, watcher: Watcher) -> None:
    seen: list[Any] = []
    scene.store.meanwhile = lambda: seen.append(watcher.look())
    watcher.look()
    assert [view.error for view in seen] == [NOT_READ_YET]
    assert scene.store.reads == 1


def test_a_reading_that_hangs_is_given_up_by_the_next(scene: Scene, watcher: Watcher) -> None:
    seen: list[Any] = []

    def hang() -> None:
        scene.store.meanwhile = int
        scene.clock.advance(LONGEST_READING_S)
        seen.append(watcher.look())

    scene.store.meanwhile = hang
    watcher.look()
    assert seen[0].error is None
    assert scene.store.reads == 2


def test_an_interrupt_lets_others_read_on(scene: Scene, watcher: Watcher) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    scene.store.meanwhile = interrupt
    with pytest.raises(KeyboardInterrupt):
        watcher.look()
    scene.store.meanwhile = int
    scene.clock.advance(1.0)
    assert watcher.look().error is None


def test_many_threads_look_at_once(scene: Scene, watcher: Watcher) -> None:
    seen: list[Any] = []
    threads = [Thread(target=lambda: seen.append(watcher.look())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(seen) == 20
    assert scene.store.reads == 1


def test_looking_makes_no_member_and_changes_nothing(scene: Scene, watcher: Watcher) -> None:
    scene.write("odd", "garbage")
    board = scene.store.board
    before = dict(board._records), {name: dict(totals) for name, totals in board._totals.items()}
    watcher.look()
    assert scene.store.members() == []
    assert (dict(board._records), {name: dict(totals) for name, totals in board._totals.items()}) == before


@needs_fork
def test_a_child_reads_for_itself_even_if_the_parent_was_reading(scene: Scene, watcher: Watcher) -> None:
    watcher._lock.acquire()
    assert told_by_child(lambda: (watcher.look().error, scene.store.reads)) == "(None, 1)"


@pytest.mark.parametrize("store", ["sqlite:circuits.db", None])
def test_something_else_is_no_store(store: object) -> None:
    with pytest.raises(TypeError, match=r'store must be a store such as SQLiteStore\("circuits.db"\), got'):
        Watcher(store)
