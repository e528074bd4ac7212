"""Circuits in an SQLite file, and everything that may happen to a file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from failures import Down
from garbage import collect
from patience import PATIENCE_S

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, CircuitState
from circuit_breaker._shared.process import talker_of
from circuit_breaker._shared.protocol import MemberLine, Report, member_text
from circuit_breaker.stores import SQLiteStore, sqlite

CONFIG = CircuitBreakerConfig(failure_threshold=2, reset_timeout_s=60.0)
LONG_S = 600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "circuits.db"


@pytest.fixture
def make(path: Path) -> Iterator[Callable[..., SQLiteStore]]:
    made: list[SQLiteStore] = []

    def make(where: Any = path, **settings: Any) -> SQLiteStore:
        made.append(SQLiteStore(where, **{"timeout_s": 0.05, "interval_s": LONG_S, **settings}))
        return made[-1]

    yield make
    for store in made:
        thread = talker_of(store).stop()
        if thread is not None:
            thread.join(PATIENCE_S)


def add(store: SQLiteStore, number: int = 1) -> int | None:
    (found,) = store.exchange([Report("api", {"0.successes": number}, ["0.successes"])], None).found
    if found.error is not None:
        raise found.error
    return found.totals[0]


# What is refused


@pytest.mark.parametrize("path", [7, None, b"circuits.db", ["circuits.db"]], ids=repr)
def test_what_is_not_a_path_is_rejected(path: Any) -> None:
    with pytest.raises(TypeError, match="path must be the path of a file"):
        SQLiteStore(path)


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_a_database_in_memory_is_rejected(path: str) -> None:
    with pytest.raises(ValueError, match="MemoryStore"):
        SQLiteStore(path)


@pytest.mark.parametrize("path", ["sqlite:circuits.db", "sqlite:///circuits.db", "redis://localhost"])
def test_an_address_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match=r"nothing before it .*RedisStore"):
        SQLiteStore(path)


def test_two_stores_of_one_file_are_one_member(make: Callable[..., SQLiteStore], path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    assert talker_of(make()) is talker_of(make(str(path))) is talker_of(make(link))
    assert talker_of(make()) is not talker_of(make(path.with_name("other.db")))


def test_two_stores_of_one_file_with_other_settings_are_rejected(make: Callable[..., SQLiteStore], path: Path) -> None:
    first = make()
    breaker = CircuitBreaker("api", store=first)
    with pytest.raises(ValueError, match=r"interval_s must be the same for all stores .* got 2.0 beside 600.0"):
        CircuitBreaker("api", store=SQLiteStore(path, interval_s=2.0, timeout_s=0.05))
    assert breaker.call(int) == 0


def test_its_repr_says_which_file(path: Path) -> None:
    assert repr(SQLiteStore(path)) == f"SQLiteStore({str(path)!r})"


# The file


def test_making_a_store_touches_no_file(path: Path) -> None:
    SQLiteStore(path)
    assert not path.exists()


def look(store: SQLiteStore) -> tuple[int, int, int]:
    """Read all there is."""
    return len(store.exchange([], None).found), len(store.circuits()), len(store.members())


def test_reading_makes_no_file(make: Callable[..., SQLiteStore], path: Path) -> None:
    assert look(make()) == (0, 0, 0)
    assert not path.exists()


def test_reading_makes_no_tables(make: Callable[..., SQLiteStore], path: Path) -> None:
    path.touch()
    assert look(make()) == (0, 0, 0)
    assert path.read_bytes() == b""


def test_reading_where_another_process_is_just_making_tables_finds_nothing(
    make: Callable[..., SQLiteStore], path: Path
) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sqlite.OPENING[2])
    assert look(make()) == (0, 0, 0)


def test_reading_in_a_folder_that_is_not_there_is_an_error(make: Callable[..., SQLiteStore], path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        look(make(path.with_name("nowhere") / "circuits.db"))


@pytest.mark.parametrize("read", [lambda store: store.exchange([], None), SQLiteStore.circuits, SQLiteStore.members])
def test_reading_the_file_of_another_program_changes_nothing_and_says_so(
    make: Callable[..., SQLiteStore], path: Path, read: Callable[[SQLiteStore], object]
) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE voltage (circuit)")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"circuits\.db is a database of another program: give the path that"):
        read(make())
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["circuits.db"]


def test_reading_deletes_nothing(make: Callable[..., SQLiteStore], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make()
    store.reset("old")
    monkeypatch.setattr(sqlite.time, "time", lambda: 1e10)
    assert look(make()) == (0, 1, 0)


def test_a_relative_path_is_that_of_the_moment_it_was_given(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(path.parent)
    store = SQLiteStore("circuits.db")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    add(store)
    assert path.exists()


@pytest.mark.parametrize("gone", ["main file", "all files"])
def test_a_file_that_was_deleted_is_made_anew(make: Callable[..., SQLiteStore], path: Path, gone: str) -> None:
    first, second = make(), make()
    assert [add(first), add(second)] == [1, 2]
    for each in path.parent.glob("circuits.db*" if gone == "all files" else "circuits.db"):
        each.unlink()
    assert [add(first), add(second), add(first)] == [1, 2, 3]


def test_a_file_that_was_replaced_is_opened_anew(make: Callable[..., SQLiteStore], path: Path) -> None:
    first, other = make(), make(path.with_name("other.db"))
    assert [add(first), add(other, 10)] == [1, 10]
    other._close_idle()  # closed, so that all of it is in one file
    for each in path.parent.glob("circuits.db-*"):
        each.unlink()
    path.with_name("other.db").replace(path)
    assert [add(first), add(make())] == [11, 12]


def test_a_connection_to_a_replaced_file_leaves_the_log_of_the_new_one(
    make: Callable[..., SQLiteStore], path: Path
) -> None:
    old = make()
    add(old)
    for each in path.parent.glob("circuits.db*"):
        each.unlink()
    new = make()
    add(new)
    log = path.with_name("circuits.db-wal")
    before = log.stat().st_ino
    assert add(old) == 2
    assert log.stat().st_ino == before


def test_a_store_that_nobody_has_any_more_closes_its_connections(path: Path) -> None:
    store = SQLiteStore(path)
    add(store)
    connection = store._idle[0].connection
    del store
    collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_a_store_in_a_circle_of_garbage_closes_its_connections(path: Path) -> None:
    store: Any = SQLiteStore(path)
    add(store)
    store.circle = store, store._idle[0].connection
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")  # from 3.13 on, of each that is finalized before it is closed
        del store
        collect()
    assert warned == []


def test_a_store_that_nobody_has_any_more_leaves_the_log_of_a_new_file(
    make: Callable[..., SQLiteStore], path: Path
) -> None:
    old = SQLiteStore(path)
    add(old)
    for each in path.parent.glob("circuits.db*"):
        each.unlink()
    add(make())
    log = path.with_name("circuits.db-wal")
    before = log.stat().st_ino
    del old
    collect()
    assert log.stat().st_ino == before


@pytest.mark.parametrize("use", ["store.reset('api')", "CircuitBreaker('api', store=store).call(int)"])
def test_at_the_end_of_a_process_all_connections_are_closed(path: Path, use: str) -> None:
    script = (
        "import sys; from circuit_breaker import CircuitBreaker; from circuit_breaker.stores import SQLiteStore\n"
        f"store = SQLiteStore(sys.argv[1]); {use}"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-X", "dev", "-c", script, path]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S, env=environment)
    assert ran.stderr == ""
    assert [each.name for each in path.parent.iterdir()] == ["circuits.db"]


def in_another_process(path: Path, use: str) -> None:
    """Use a store of the same file in a process that ends after it."""
    script = f"import sys; from circuit_breaker.stores import SQLiteStore; store = SQLiteStore(sys.argv[1]); {use}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=PATIENCE_S, env=environment)


@pytest.mark.parametrize("connections", [1, 2])
def test_another_process_that_ends_leaves_the_log_to_this_one(
    make: Callable[..., SQLiteStore], path: Path, connections: int
) -> None:
    store, *others = [make() for _ in range(connections)]
    add(store)
    for other in others:
        other.circuits()  # whoever closes any descriptor of a file drops all locks that this process has on it
    log = path.with_name("circuits.db-wal")
    before = log.stat().st_ino
    in_another_process(path, "store.circuits()")
    assert log.stat().st_ino == before
    store.force_open("api")
    in_another_process(path, "assert [circuit.mode.value for circuit in store.circuits()] == ['forced_open']")


def test_a_file_is_never_open_outside_of_sqlite(
    make: Callable[..., SQLiteStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, was_there = os.close, []

    def watched(descriptor: int) -> None:
        was_there.append(path.exists())
        close(descriptor)

    monkeypatch.setattr(sqlite.os, "close", watched)
    assert [add(make()), add(make())] == [1, 2]
    assert was_there == [False]


@pytest.mark.parametrize("linked", [True, False])
def test_who_may_write_a_new_file_is_what_the_process_allows(
    make: Callable[..., SQLiteStore], path: Path, linked: bool
) -> None:
    if linked:
        path.symlink_to(path.with_name("elsewhere.db"))
    before = os.umask(0o002)
    try:
        add(make())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o664


def test_a_file_system_without_links_will_do(
    make: Callable[..., SQLiteStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: str) -> None:
        raise PermissionError

    monkeypatch.setattr(sqlite.os, "link", link)
    assert [add(make()), add(make())] == [1, 2]
    assert all(each.name.startswith("circuits.db") and len(each.name) <= 15 for each in path.parent.iterdir())


def test_a_file_that_is_replaced_while_it_is_opened_is_an_error(
    make: Callable[..., SQLiteStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    files = iter([(1, 1), (1, 2), (1, 2)])
    monkeypatch.setattr(sqlite, "_file_at", lambda path: next(files))
    with pytest.raises(OSError, match="was replaced while it was opened"):
        add(store)
    monkeypatch.undo()
    assert add(store) == 1


def test_a_connection_that_came_back_in_the_moment_of_a_fork_is_not_used_in_the_child(
    make: Callable[..., SQLiteStore],
) -> None:
    store = make()
    add(store)
    assert len(store._idle) == 1
    store._after_fork_in_child()
    assert store._idle == []
    assert add(store) == 2


# Whatever is wrong with it: an error for the talker, never for a call


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1_000)


def folder(path: Path) -> None:
    path.mkdir()


def locked(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE x (y)").execute("BEGIN EXCLUSIVE")
    return connection


def strange_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE circuit (something_else)")


def no_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("gone"))


WRONG = [garbage, folder, locked, strange_tables, no_folder]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_with_a_file_that_cannot_be_used_each_breaker_goes_on_by_itself(
    make: Callable[..., SQLiteStore], path: Path, wrong: Callable[[Path], object]
) -> None:
    held = wrong(path)
    store = make()
    with pytest.raises(Exception):  # noqa: B017 - whatever SQLite or the system says
        add(store)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    assert breaker.call(int) == 0
    for _ in range(2):
        with pytest.raises(Down):
            breaker.call(_fail)
    with pytest.raises(CircuitOpenError):
        breaker.call(int)
    with pytest.raises(Exception):  # noqa: B017
        store.reset("api")
    if isinstance(held, sqlite3.Connection):
        held.close()  # as long lasts the lock


def _fail() -> None:
    raise Down


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written_is_an_error(make: Callable[..., SQLiteStore], path: Path) -> None:
    add(make())
    path.chmod(0o400)
    with pytest.raises(OSError):
        add(make())


def test_a_read_only_database_is_an_error(make: Callable[..., SQLiteStore], path: Path) -> None:
    store = make()
    add(store)
    store._idle[0].connection.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        add(store)
    assert add(store) == 2


def test_a_full_disk_is_an_error_and_nothing_is_half_written(make: Callable[..., SQLiteStore], path: Path) -> None:
    store = make()
    add(store)
    pages = store._idle[0].connection.execute("PRAGMA page_count").fetchone()[0]
    store._idle[0].connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.exchange([Report("api", {f"0.x{n}": 1 for n in range(10_000)}, ["0.successes"])], None)
    (found,) = store.exchange([Report("api", {}, ["0.successes", "0.x1"])], None).found
    assert found.totals == [1, None]


def test_a_file_that_is_locked_for_long_is_an_error_and_then_is_not(
    make: Callable[..., SQLiteStore], path: Path
) -> None:
    store = make()
    add(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        add(store)
    other.close()
    assert add(store) == 2


def test_what_change_raises_is_taken_back(make: Callable[..., SQLiteStore]) -> None:
    store = make()
    add(store)

    def change(text: str | None, now: float) -> str:
        raise Down

    with pytest.raises(Down):
        store.update("api", change)
    assert add(store) == 2


# What others have written into it


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE circuit SET record = 'garbage' WHERE name = x'617069'",
        "UPDATE circuit SET record = x'00ff' WHERE name = x'617069'",
        "UPDATE circuit SET record = CAST(x'7bff7d' AS TEXT) WHERE name = x'617069'",
        "UPDATE circuit SET record = 7 WHERE name = x'617069'",
        "UPDATE circuit SET record = zeroblob(100000) WHERE name = x'617069'",
        "UPDATE circuit SET record = printf('%.*c', 70000, 'x') WHERE name = x'617069'",
        "INSERT OR REPLACE INTO total VALUES (x'617069', '0.successes', 'many')",
        "INSERT OR REPLACE INTO total VALUES (x'617069', '0.successes', 1.5)",
        "INSERT OR REPLACE INTO total VALUES (x'617069', '0.successes', -1)",
        "INSERT OR REPLACE INTO total VALUES (x'617069', '0.successes', 9223372036854775807)",
    ],
)
def test_garbage_of_one_circuit_is_a_lost_store_for_that_one_only(
    make: Callable[..., SQLiteStore], path: Path, statement: str
) -> None:
    store = make()
    breaker, other = CircuitBreaker("api", CONFIG, store=store), CircuitBreaker("other", CONFIG, store=store)
    store.sync()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    store.sync()
    assert breaker.snapshot().shared.link == "away"  # type: ignore[union-attr]
    assert other.snapshot().shared.link == "joined"  # type: ignore[union-attr]
    circuits = {circuit.name: circuit for circuit in store.circuits()}
    assert circuits["other"].state is CircuitState.CLOSED
    assert 0 < len(circuits["api"].error or "") < 200
    store.force_open("api")
    store.sync()
    with pytest.raises(CircuitOpenError):
        breaker.call(int)
    store.reset("api")
    store.sync()
    assert breaker.call(int) == 0
    assert breaker.snapshot().shared.link == "joined"  # type: ignore[union-attr]
    assert {circuit.error for circuit in store.circuits()} == {None}


def test_a_total_that_is_garbage_is_not_added_to(make: Callable[..., SQLiteStore], path: Path) -> None:
    store = make()
    add(store)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE total SET number = 'many'")
    with pytest.raises(ValueError, match="a total is no number"):
        add(store)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT number FROM total").fetchall() == [("many",)]


def test_a_record_is_read_although_its_totals_cannot_be(make: Callable[..., SQLiteStore], path: Path) -> None:
    store = make()
    add(store)
    store.update("api", lambda record, now: "the record")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE total SET number = 'many'")
    (found,) = store.exchange([Report("api", {}, ["0.successes"])], None).found
    assert (found.record, str(found.error)) == ("the record", "a total is no number")


@pytest.mark.parametrize("field", ["'9.foreign'", "CAST(x'ff' AS TEXT)", "x'ff'"])
def test_totals_that_nobody_asks_for_may_be_anything(make: Callable[..., SQLiteStore], path: Path, field: str) -> None:
    store = make()
    add(store)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"INSERT INTO total VALUES (x'617069', {field}, 'garbage')")
    assert add(store) == 2
    assert [(circuit.successes, circuit.error) for circuit in store.circuits()] == [(2, None)]


@pytest.mark.parametrize("name", [b"\xff", "a text", 7, 3_000_000_000_000, 1.5], ids=repr)
def test_rows_that_are_no_circuits_are_passed_over(make: Callable[..., SQLiteStore], path: Path, name: object) -> None:
    store = make()
    add(store)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO circuit VALUES (?, NULL, 2e9)", (name,))
    assert [circuit.name for circuit in store.circuits()] == ["api"]


def test_members_that_are_garbage_are_passed_over(make: Callable[..., SQLiteStore], path: Path) -> None:
    store = make()
    store.exchange([], MemberLine("good", member_text({"api": "closed"}, 1.0, 60.0)))
    with closing(sqlite3.connect(path)) as connection, connection:
        for number, line in enumerate([7, None, b"\xff", "garbage", "[]", '{"host": 7}', "[" * 50_000]):
            connection.execute("INSERT INTO member VALUES (?, ?, ?)", (f"bad{number}", line, 1e9))
        connection.execute("INSERT INTO member VALUES ('worse', '{}', 'yesterday')")
    (member,) = store.members()
    assert dict(member.circuits) == {"api": "closed"}


# What is not used any more


def test_what_has_not_been_used_for_a_day_is_deleted(
    make: Callable[..., SQLiteStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e9]
    monkeypatch.setattr(sqlite.time, "time", lambda: now[0])
    store = make()
    for name in ("old", "kept"):
        store.exchange([Report(name, {"x": 1}, [])], MemberLine(name, member_text({}, 0.0, 1e9)))
    for _ in range(25):
        now[0] += 3_601.0
        store.exchange([Report("kept", {}, [])], MemberLine("kept", member_text({}, 0.0, 1e9)))
    assert [circuit.name for circuit in store.circuits()] == ["kept"]
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("SELECT count(*) FROM total").fetchone() == (1,)
        assert connection.execute("SELECT key FROM member").fetchall() == [("kept",)]


def test_a_store_forgets_circuits_that_are_not_used_any_more(
    make: Callable[..., SQLiteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e9]
    monkeypatch.setattr(sqlite.time, "time", lambda: now[0])
    store = make()
    store.exchange([Report(f"tenant-{number}", {}, []) for number in range(100)], None)
    now[0] += 3_601
    store.exchange([Report("api", {}, [])], None)
    assert list(store._renewed) == ["api"]


def test_an_order_is_a_use(make: Callable[..., SQLiteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1e9]
    monkeypatch.setattr(sqlite.time, "time", lambda: now[0])
    store = make()
    store.reset("api")
    now[0] += 86_400 - 300
    store.force_open("api")
    now[0] += 600
    make().exchange([Report("other", {}, [])], None)
    assert [(circuit.name, circuit.state) for circuit in store.circuits()] == [
        ("api", CircuitState.OPEN),
        ("other", CircuitState.CLOSED),
    ]


def test_a_clock_that_is_set_back_keeps_no_circuit_for_ever(
    make: Callable[..., SQLiteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e9]
    monkeypatch.setattr(sqlite.time, "time", lambda: now[0])
    store = make()
    store.exchange([Report("old", {}, [])], None)
    now[0] -= 1e6
    store.exchange([Report("new", {}, [])], None)
    assert [circuit.name for circuit in store.circuits()] == ["new"]


def test_many_threads_may_use_one_store(make: Callable[..., SQLiteStore]) -> None:
    store = make(timeout_s=PATIENCE_S)

    def work() -> None:
        for _ in range(20):
            add(store)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert add(store, 0) == 160
