"""A store in an SQLite file: one circuit for the processes of one machine, with nothing but the standard library."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Generator, Hashable, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from .._common import checks, fork
from .._shared.protocol import Change, Exchange, Found, Member, MemberLine, Report, SharedCircuit, totals_of
from .._shared.record import LONGEST_TEXT, Unreadable, is_order
from .._shared.store import BaseStore

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteStore"]

DAY_S: Final = 86_400.0
HOUR_S: Final = 3_600.0

OPENING: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "CREATE TABLE IF NOT EXISTS circuit (name BLOB PRIMARY KEY, record TEXT, used REAL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS total (name BLOB, field TEXT, number INTEGER, PRIMARY KEY (name, field)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS member (key TEXT PRIMARY KEY, line TEXT, seen REAL) WITHOUT ROWID",
)
TABLES: Final = {"circuit", "total", "member"}


class SQLiteStore(BaseStore):
    """Keeps circuits in a file, for all processes of this machine that open the same one.

    The file is made when it is needed first. It holds nothing that must last: if it is deleted, the processes write it
    anew. It must not lie on a network file system. Two stores of one file in one process are one member.

    Args:
        path: of the file; its directory must exist, and be writable.
        interval_s, timeout_s: as for `BaseStore`; for as long as `timeout_s` another process may hold the file.

    Raises:
        TypeError: path is no path.
        ValueError: path is that of a database in memory, which no other process can open.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, interval_s: float | timedelta = 1.0, timeout_s: float | timedelta = 0.25
    ) -> None:
        super().__init__(interval_s=interval_s, timeout_s=timeout_s)
        self._path = _checked(path)
        self._idle: list[_Connection] = []  # at most one for each thread that was here at once
        self._renewed: dict[str, float] = {}  # when a circuit was noted as used, within the last two hours
        self._pruned_at = -DAY_S
        fork.survive(self)

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self._path)!r})"

    def _same(self) -> Hashable:
        return "sqlite", os.path.realpath(self._path)

    # The four methods

    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        """Add, read and note who is there, in one transaction."""
        if not reports and member is None:
            self._is_made()
            return Exchange(time.time(), [])
        with self._transaction() as cursor:
            now = time.time()
            execute = cursor.execute
            self._renew(cursor, now, reports)
            if member is not None and member.text is None:
                execute("DELETE FROM member WHERE key = ?", (member.key,))
            elif member is not None:
                execute("INSERT OR REPLACE INTO member VALUES (?, ?, ?)", (member.key, member.text, now))
            found = [_exchange(cursor, report) for report in reports]
        return Exchange(now, found)

    def update(self, name: str, change: Change) -> None:
        """Change a record in one transaction."""
        with self._transaction() as cursor:
            key, now = _key(name), time.time()
            after = change(_record(cursor, key), now)
            if after is not None and is_order(change):
                cursor.execute("DELETE FROM total WHERE name = ?", (key,))  # they may be garbage, and are of before
            if after is not None:
                cursor.execute(
                    "INSERT INTO circuit VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET record = excluded.record,"
                    " used = excluded.used",
                    (key, after, now),
                )

    def circuits(self) -> Sequence[SharedCircuit]:
        """Return all circuits that are in the file; none if there is no file."""
        if not self._is_made():
            return []
        with self._transaction() as cursor:
            now = time.time()
            rows: list[Any] = cursor.execute("SELECT name FROM circuit ORDER BY name").fetchall()
            names = [name for (key,) in rows if (name := _name(key)) is not None]
            return [_circuit(cursor, name, now) for name in names]

    def members(self) -> Sequence[Member]:
        """Return all processes that have been here not long ago."""
        if not self._is_made():
            return []
        with self._transaction() as cursor:
            now = time.time()
            rows: list[Any] = cursor.execute("SELECT line, seen FROM member ORDER BY key").fetchall()
        lines = [(line, seen) for line, seen in rows if isinstance(line, str) and isinstance(seen, float)]
        return [member for line, seen in lines if (member := Member.read(line, seen, now)) is not None]

    # Keeping the file small

    def _renew(self, cursor: sqlite3.Cursor, now: float, reports: Sequence[Report]) -> None:
        """Note once an hour what is in use, and delete what has not been used for a day."""
        due = [report.name for report in reports if abs(now - self._renewed.get(report.name, -DAY_S)) > HOUR_S]
        for name in due:
            self._renewed[name] = now
            cursor.execute(
                "INSERT INTO circuit VALUES (?, NULL, ?) ON CONFLICT (name) DO UPDATE SET used = excluded.used",
                (_key(name), now),
            )
        if abs(now - self._pruned_at) > HOUR_S:
            self._pruned_at = now
            self._renewed = {name: at for name, at in self._renewed.copy().items() if abs(now - at) <= HOUR_S}
            range_s = (now - DAY_S, now + DAY_S)
            cursor.execute("DELETE FROM circuit WHERE used NOT BETWEEN ? AND ?", range_s)
            cursor.execute("DELETE FROM total WHERE name NOT IN (SELECT name FROM circuit)")
            cursor.execute("DELETE FROM member WHERE seen NOT BETWEEN ? AND ?", range_s)

    # Connections

    def _is_made(self) -> bool:
        """Tell whether the file and its tables are there; who only reads makes neither.

        Raises:
            OSError: there is no such folder.
            ValueError: the file is of another program.
        """
        import sqlite3

        file = _file_at(self._path)
        if file is None:
            self._path.parent.stat()
            return False
        if any(kept.file == file for kept in self._idle.copy()):
            return True
        looking = _Connection(sqlite3.connect(self._path, timeout=self.timeout_s), self._path, file)
        try:
            with closing(looking.connection.cursor()) as cursor:
                rows: list[Any] = cursor.execute("SELECT name FROM sqlite_master").fetchall()
        finally:
            looking.end()
        names = {name for (name,) in rows}
        if not (names >= TABLES or names < TABLES):  # fewer are there while a process makes them
            raise ValueError(
                f"{self._path} is a database of another program: give the path that your processes give to SQLiteStore"
            )
        return names >= TABLES

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Cursor]:
        """Give a cursor that may write while nobody else may; commit, or take all back."""
        kept = self._connection()
        try:
            # One cursor, which is closed: on PyPy each that is left to the garbage collector keeps its statement open.
            with closing(kept.connection.cursor()) as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                cursor.execute("COMMIT")
        except BaseException:
            kept.end()  # which takes all back
            raise
        self._idle.append(kept)

    def _connection(self) -> _Connection:
        try:
            kept = self._idle.pop()
        except IndexError:
            return self._new_connection()
        if kept.file == _file_at(self._path):
            return kept
        kept.end()
        return self._new_connection()

    def _new_connection(self) -> _Connection:
        import sqlite3

        _make(self._path)
        file = _file_at(self._path)
        connection = sqlite3.connect(self._path, timeout=self.timeout_s, isolation_level=None, check_same_thread=False)
        connection.text_factory = _text
        kept = _Connection(connection, self._path, file)
        try:
            with closing(connection.cursor()) as cursor:
                for statement in OPENING:
                    cursor.execute(statement)
            if file != _file_at(self._path):
                raise OSError(f"{self._path} was replaced while it was opened")
        except BaseException:
            kept.end()
            raise
        self._renewed.clear()
        return kept

    def _close_idle(self) -> None:
        """Close what a child must not inherit, and what nobody uses any more."""
        idle, self._idle = self._idle, []
        for kept in idle:
            kept.end()

    def _after_fork_in_child(self) -> None:
        for kept in self._idle:  # of a thread that has come back to it in the moment of the fork
            kept.finalizer.detach()
            _keep_for_ever(kept.connection)
        self._idle = []


class _Connection:
    """A connection, and which file it is to; it is closed at the latest when nobody has this any more."""

    def __init__(self, connection: sqlite3.Connection, path: Path, file: tuple[int, int] | None) -> None:
        self.connection = connection
        self.file = file
        self._path = path
        # It holds the connection, which in a circle of garbage could otherwise be finalized before it is closed.
        self.finalizer = weakref.finalize(self, _end, connection, path, file)
        self.finalizer.atexit = False  # the last counts may still have to go out

    def end(self) -> None:
        """Close the connection now."""
        self.finalizer.detach()  # to call it does nothing at the end of the process
        _end(self.connection, self._path, self.file)


def _end(connection: sqlite3.Connection, path: Path, file: tuple[int, int] | None) -> None:
    """Close a connection, unless another file lies in the place of its own."""
    if file == _file_at(path):
        connection.close()
    else:
        _keep_for_ever(connection)


def _close_all_idle() -> None:
    """Close connections before a fork too: SQLite would believe in the child that it still has their locks."""
    for store in fork.living(SQLiteStore):
        store._close_idle()


atexit.register(_close_all_idle)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_all_idle)

_kept: list[sqlite3.Connection] = []


def _keep_for_ever(connection: sqlite3.Connection) -> None:
    """Never close a connection: SQLite would delete the log of whatever file now lies there, by its name."""
    import ctypes

    _kept.append(connection)
    with suppress(AttributeError):  # PyPy has no such function, and closes nothing when it ends
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _checked(path: Any) -> Path:
    takes = "the path of a file"
    try:
        plain = cast("object", os.fspath(path))
    except TypeError as error:
        raise checks.wrong_type("path", path, takes) from error
    if not isinstance(plain, str):
        raise checks.wrong_type("path", path, f"{takes} as a str")
    if plain in ("", ":memory:"):
        raise checks.wrong_value("path", path, f"{takes} (MemoryStore keeps the circuits of one process)")
    if "://" in plain or plain.startswith("sqlite:"):
        raise checks.wrong_value("path", path, f"{takes}, and nothing before it (for Redis, use RedisStore)")
    return Path(plain).absolute()


def _make(path: Path) -> None:
    """Make an empty file if there is none, which whoever the process allows may write; SQLite allows fewer.

    A file that is there is never opened here: whoever closes a descriptor of a file drops all locks that this process
    has on it, also those of SQLite. So a new one is closed before it gets its name.

    Raises:
        OSError: the file cannot be made, or is none that this process may read and write.
    """
    import sqlite3

    if not path.exists():
        target = path.resolve()
        new = target.with_name(f"{target.name}-{os.urandom(8).hex()}")
        os.close(os.open(new, os.O_CREAT | os.O_WRONLY, 0o666))
        with suppress(OSError):  # somebody else was quicker, or this file system has no links
            os.link(new, target)
        new.unlink()
        sqlite3.connect(path).close()  # makes what is still not there
    if not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        raise OSError(f"{path} is no file that this process may read and write")


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _name(key: Any) -> str | None:
    """Return the name that a key stands for, or None: nobody of us wrote it."""
    try:
        return key.decode("utf-8", "surrogatepass") if isinstance(key, bytes) else None
    except UnicodeDecodeError:
        return None


def _exchange(cursor: sqlite3.Cursor, report: Report) -> Found:
    key = _key(report.name)
    cursor.executemany("DELETE FROM total WHERE name = ? AND field = ?", [(key, field) for field in report.forget])
    cursor.executemany(
        "INSERT INTO total VALUES (?, ?, ?) ON CONFLICT (name, field) DO UPDATE SET number = number + excluded.number"
        " WHERE typeof(number) = 'integer'",  # of garbage, SQLite would make a number
        [(key, field, number) for field, number in report.add.items()],
    )
    record = _record(cursor, key)
    try:
        return Found(record, _totals(cursor, key, report.read))
    except Unreadable as error:
        return Found(record, (), error)


def _record(cursor: sqlite3.Cursor, key: bytes) -> str | None:
    """Return the text of a record, whatever stands there."""
    rows: list[Any] = cursor.execute(
        "SELECT CAST(substr(record, 1, ?) AS TEXT) FROM circuit WHERE name = ?", (LONGEST_TEXT + 1, key)
    ).fetchall()
    return rows[0][0] if rows else None


def _totals(cursor: sqlite3.Cursor, key: bytes, fields: Sequence[str]) -> list[int | None]:
    rows: list[Any] = cursor.execute("SELECT field, number FROM total WHERE name = ?", (key,)).fetchall()
    found = dict(rows)
    totals = [found.get(field) for field in fields]
    if not all(total is None or isinstance(total, int) for total in totals):
        raise Unreadable("a total is no number")
    return totals


def _circuit(cursor: sqlite3.Cursor, name: str, now: float) -> SharedCircuit:
    key = _key(name)
    record = _record(cursor, key)
    try:
        fields = totals_of(record)
        totals = dict(zip(fields, _totals(cursor, key, fields), strict=True))
        return SharedCircuit.read(name, record, totals, now)
    except Unreadable as error:
        return SharedCircuit(name, None, retry_after_s=None, error=str(error))


def _text(stored: bytes) -> str:
    """Return a text of the file; others may have written bytes that are no UTF-8."""
    return stored.decode("utf-8", "replace")
