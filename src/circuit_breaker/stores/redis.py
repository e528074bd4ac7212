"""A store in Redis or Valkey, a single server or a cluster: one circuit for the processes of many machines."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Hashable, Iterable, Sequence
from datetime import timedelta
from math import inf
from typing import Any, Final
from urllib.parse import quote

from .._common import checks
from .._shared.protocol import Change, Exchange, Found, Member, MemberLine, Report, SharedCircuit, totals_of
from .._shared.record import LONGEST_TEXT, Unreadable, is_order
from .._shared.store import BaseStore
from ._client import UNDECODED, Batch, checked, client_for

__all__ = ["RedisStore"]

DAY_S: Final = 86_400
HOUR_S: Final = 3_600.0
LONGEST_KEY: Final = 80
KEPT_OF_A_LONG_KEY: Final = 40
SCANNED_AT_ONCE: Final = 200  # entries of a list that an exchange looks at, to see which are too old
ATTEMPTS: Final = 100  # at a compare-and-swap; one fails if somebody else has written meanwhile


class RedisStore(BaseStore):
    """Keeps circuits in Redis, for all processes that use the same server and prefix.

    Only plain commands are used, each on one key, so it works with a cluster, and with what speaks as Redis does. Keys
    expire a day after their last use. Whoever may write them may open and close circuits.

    Args:
        client: of redis-py or valkey-py, for a server, a sentinel or a cluster; it must have a `socket_timeout`.
        prefix: what all keys begin with.
        interval_s, timeout_s: as for `BaseStore`.

    Raises:
        TypeError: client is no such client, or an asynchronous one; prefix is no str.
        ValueError: client has no `socket_timeout`: without one, a server that hangs is noticed late.
    """

    def __init__(
        self,
        client: Any,
        prefix: str = "circuits:",
        *,
        interval_s: float | timedelta = 1.0,
        timeout_s: float | timedelta = 0.25,
    ) -> None:
        super().__init__(interval_s=interval_s, timeout_s=timeout_s)
        self._client = checked(client)
        self._prefix = checks.text("prefix", prefix)
        self._names = f"{prefix}names"  # each key of a circuit, when it was used last, and its name
        self._members = f"{prefix}members"  # each process, when it was seen last, and its line
        self._renewed: dict[str, float] = {}  # when a circuit was noted as used, within the last two hours
        self._forgot_at = -inf
        self._scans = (_Scan(self._names, DAY_S), _Scan(self._members, HOUR_S))
        self._ahead_s: float | None = None  # of the server's clock, before the monotonic one

    def __repr__(self) -> str:
        return f"RedisStore({self._client!r}, {self._prefix!r})"

    def _same(self) -> Hashable:
        pool = getattr(self._client, "connection_pool", None)
        settings = getattr(pool, "connection_kwargs", {})
        if "host" not in settings and "path" not in settings:  # such as of a sentinel, which may know many masters
            return "redis", id(self._client), self._prefix
        where = tuple(str(settings.get(name)) for name in ("host", "port", "path", "db"))
        return "redis", where, self._prefix

    # The four methods

    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        """Add, read and note who is there: one round trip (a cluster: one to each node), one more the first time."""
        batch = self._batch()
        batch.add("TIME")
        if member is not None and member.text is None:
            batch.add("HDEL", self._members, member.key)
        elif member is not None:
            batch.add("HSET", self._members, member.key, f"{self._now():.3f} {member.text}")
            batch.add("EXPIRE", self._members, DAY_S)
        parts = [self._add(batch, report) for report in reports]
        scans = self._scans if reports or member is not None else ()  # who only reads deletes nothing
        scanned = [(scan, len(batch) - 1) for scan in scans if scan.add(batch)]
        answers = batch.run()
        now = self._read_clock(_sound(answers[0]))
        for scan, place in scanned:
            scan.take(answers[place], now)
        return Exchange(now, [self._found(report, answers[part]) for report, part in zip(reports, parts, strict=True)])

    def update(self, name: str, change: Change) -> None:
        """Change a record, if nobody else has written it meanwhile; else try again."""
        key = self._key("record", name)
        noting = self._batch()
        self._renew(noting, name)
        noting.run()
        with client_for(self._client, key).pipeline(transaction=True) as pipe:
            for _ in range(ATTEMPTS):
                pipe.watch(key)
                after = change(_watched(pipe, key), _seconds(pipe.time()))
                if after is None:
                    return
                if is_order(change):
                    self._client.delete(self._key("totals", name))  # they may be garbage, and are of before
                pipe.multi()
                pipe.set(key, after, ex=DAY_S)
                try:
                    pipe.execute()
                except Exception as error:
                    if type(error).__name__ != "WatchError":
                        raise
                else:
                    return
        raise TimeoutError(f"others have changed the record {ATTEMPTS} times meanwhile")

    def circuits(self) -> Sequence[SharedCircuit]:
        """Return all circuits that have been used within a day."""
        now = self._read_clock(self._client.time())
        names = sorted(_names(self._entries(self._names, now, DAY_S)))
        texts = self._each("GETRANGE", [(self._key("record", name), 0, LONGEST_TEXT) for name in names])
        fields = [_totals_of(text) for text in texts]
        keys = [self._key("totals", name) for name in names]
        totals = self._each("HMGET", [(key, *each) for key, each in zip(keys, fields, strict=True)])
        return [_circuit(*each, now) for each in zip(names, texts, fields, totals, strict=True)]

    def members(self) -> Sequence[Member]:
        """Return all processes that have been seen not long ago."""
        now = self._read_clock(self._client.time())
        lines = [(line, seen) for _, seen, line in self._entries(self._members, now, DAY_S)]
        return [member for line, seen in lines if (member := Member.read(line, seen, now)) is not None]

    # An exchange

    def _add(self, batch: Batch, report: Report) -> slice:
        """Add what a report says and asks; return where its answers will be."""
        start, totals = len(batch), self._key("totals", report.name)
        if report.forget:
            batch.add("HDEL", totals, *report.forget)
        for field, number in report.add.items():
            batch.add("HINCRBY", totals, field, number)
        batch.add("GETRANGE", self._key("record", report.name), 0, LONGEST_TEXT)
        batch.add("HMGET", totals, *report.read)
        part = slice(start, len(batch))
        self._renew(batch, report.name)
        return part

    def _renew(self, batch: Batch, name: str) -> None:
        """Note once an hour that a circuit is in use."""
        now = time.monotonic()
        if now - self._forgot_at >= HOUR_S:
            self._forgot_at = now
            self._renewed = {each: at for each, at in self._renewed.copy().items() if now - at < HOUR_S}
        if now - self._renewed.get(name, -HOUR_S) >= HOUR_S:
            self._renewed[name] = now
            batch.add("HSET", self._names, _short(name), f"{self._now():.3f} {json.dumps(name)}")
            for key in (self._names, self._key("record", name), self._key("totals", name)):
                batch.add("EXPIRE", key, DAY_S)

    def _found(self, report: Report, answers: list[Any]) -> Found:
        *_, text, totals = answers
        error = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if error is not None:
            return Found(None if isinstance(text, Exception) else _text(text), (), error)
        added = answers[1 if report.forget else 0]
        if (report.add and added == next(iter(report.add.values()))) or not (text or any(totals)):
            self._renewed.pop(report.name, None)  # perhaps the server has lost it, or what is new does not expire yet
        try:
            return Found(_text(text), [_number(total) for total in totals])
        except Unreadable as unreadable:
            return Found(_text(text), (), unreadable)

    def _entries(self, key: str, now: float, lasts_s: float) -> list[tuple[str, float, str]]:
        """Return field, time and text of what is in one of the two lists, and not older than this."""
        entries: list[tuple[str, float, str]] = []
        for field, value in self._client.execute_command("HGETALL", key, **UNDECODED).items():
            at, text = _entry(value)
            if abs(now - at) <= lasts_s:
                entries.append((_field(field), at, text))
        return entries

    def _each(self, command: str, arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for each in arguments:
            pipe.execute_command(command, *each, **UNDECODED)
        return list(pipe.execute(raise_on_error=False)) if len(pipe) else []

    # The server

    def _key(self, kind: str, name: str) -> str:
        return f"{self._prefix}{kind}:{_short(name)}"

    def _batch(self) -> Batch:
        if self._ahead_s is None:
            self._read_clock(self._client.time())
        return Batch(self._client)

    def _read_clock(self, answer: Any) -> float:
        now = _seconds(answer)
        self._ahead_s = now - time.monotonic()
        return now

    def _now(self) -> float:
        return time.monotonic() + (self._ahead_s or 0.0)


class _Scan:
    """Looks through a list, a few entries with each exchange, and deletes those that are too old with the next one.

    After a whole list it rests for an hour.
    """

    def __init__(self, key: str, lasts_s: float) -> None:
        self._key = key
        self._lasts_s = lasts_s
        self._begins_at = -inf
        self._cursor = 0
        self._old: list[Any] = []

    def add(self, batch: Batch) -> bool:
        """Add what is to be done now; tell whether the last command of the batch needs `take`."""
        old, self._old = self._old, []
        if old:
            batch.add("HDEL", self._key, *old)
        due = time.monotonic() >= self._begins_at
        if due:
            batch.add("HSCAN", self._key, self._cursor, "COUNT", SCANNED_AT_ONCE)
        return due

    def take(self, answer: Any, now: float) -> None:
        """Take in what stands there."""
        cursor: int = 0
        entries: dict[Any, Any] = {}
        if not isinstance(answer, Exception):
            cursor, entries = answer
        self._old = [field for field, value in entries.items() if not abs(now - _entry(value)[0]) <= self._lasts_s]
        self._cursor = cursor
        if not cursor:
            self._begins_at = time.monotonic() + HOUR_S


def _short(name: str) -> str:
    """Return a short ASCII text for a name; no two names have the same."""
    key = quote(name.encode("utf-8", "surrogatepass"), safe="/:@,+=")
    if len(key) <= LONGEST_KEY:
        return key
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{key[:KEPT_OF_A_LONG_KEY]}%-{digest[:32]}"  # a quoted text never has this mark in it


# Reading answers, in which anything may stand


def _sound(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _watched(pipe: Any, key: str) -> str | None:
    """Return the text of a record, or what the server says if it is none."""
    try:
        return _text(pipe.execute_command("GETRANGE", key, 0, LONGEST_TEXT, **UNDECODED))
    except Exception as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return str(error)


def _seconds(answer: Any) -> float:
    seconds, microseconds = _sound(answer)
    return int(seconds) + int(microseconds) / 1e6


def _text(answer: Any) -> str | None:
    text: str | None = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    return text or None


def _number(answer: Any) -> int | None:
    text = _text(answer)
    if text is None:
        return None
    if len(text) > 20 or not text.removeprefix("-").isdecimal():
        raise Unreadable(f"a total is {text:.20}")
    return int(text)


def _field(answer: Any) -> str:
    return _text(answer) or ""


def _entry(value: Any) -> tuple[float, str]:
    """Return the time and the text of an entry of a list; what nobody of us wrote is infinitely old."""
    seen, _, text = (_text(value) or "").partition(" ")
    try:
        return float(seen), text
    except ValueError:
        return -inf, text


def _names(entries: Iterable[tuple[str, float, str]]) -> Iterable[str]:
    for field, _, text in entries:
        try:
            name = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(name, str) and _short(name) == field:
            yield name


def _totals_of(text: Any) -> list[str]:
    try:
        return totals_of(_text(_sound(text)))
    except Exception:
        return totals_of(None)


def _circuit(name: str, text: Any, fields: Sequence[str], totals: Any, now: float) -> SharedCircuit:
    try:
        numbers = [_number(total) for total in _sound(totals)]
        return SharedCircuit.read(name, _text(_sound(text)), dict(zip(fields, numbers, strict=True)), now)
    except Exception as error:
        return SharedCircuit(name, None, retry_after_s=None, error=str(error))
