"""A store in Redis or Valkey, a single server or a cluster: one circuit for the processes of many machines."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Hashable, Iterable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final, cast
from urllib.parse import quote

from .._common import checks
from .._shared.protocol import COUNTED, Change, Exchange, Found, Member, MemberLine, Report, SharedCircuit
from .._shared.record import LONGEST_TEXT, Unreadable, epoch_of, read
from .._shared.store import BaseStore

__all__ = ["RedisStore"]

DAY_S: Final = 86_400
HOUR_S: Final = 3_600.0
LONGEST_KEY: Final = 80
KEPT_OF_A_LONG_KEY: Final = 40
UNDECODED: Final = {"NEVER_DECODE": True}  # as bytes, also from a client that decodes: garbage must not raise there
ATTEMPTS: Final = 100  # at a compare-and-swap; it fails only if somebody else's succeeds


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
        self._client = _checked(client)
        self._prefix = checks.text("prefix", prefix)
        self._names = f"{prefix}names"  # each key of a circuit, when it was used last, and its name
        self._members = f"{prefix}members"  # each process, when it was seen last, and its line
        self._renewed: dict[str, float] = {}  # when a circuit was noted as used
        self._pruned_at = -HOUR_S
        self._ahead_s: float | None = None  # of the server's clock, before the monotonic one

    def __repr__(self) -> str:
        return f"RedisStore({self._client!r}, {self._prefix!r})"

    def _same(self) -> Hashable:
        pool = getattr(self._client, "connection_pool", None)
        settings = getattr(pool, "connection_kwargs", {})
        where = tuple(str(settings[name]) for name in ("host", "port", "path", "db") if name in settings)
        return ("redis", where or id(self._client), self._prefix)

    # The four methods

    def exchange(self, reports: Sequence[Report], member: MemberLine | None) -> Exchange:
        """Add, read and note who is there, in one round trip."""
        pipe = self._pipeline()
        pipe.execute_command("TIME")
        if member is not None and member.text is None:
            pipe.hdel(self._members, member.key)
        elif member is not None:
            pipe.hset(self._members, member.key, f"{self._now():.3f} {member.text}")
            pipe.expire(self._members, DAY_S)
        sizes = [len(pipe)]
        for report in reports:
            self._add(pipe, report)
            sizes.append(len(pipe))
        answers: list[Any] = pipe.execute(raise_on_error=False)
        now = self._read_clock(_sound(answers[0]))
        parts = [answers[start:end] for start, end in pairwise(sizes)]
        found = [self._found(report, part) for report, part in zip(reports, parts, strict=True)]
        self._prune()
        return Exchange(now, found)

    def update(self, name: str, change: Change) -> None:
        """Change a record, if nobody else has written it meanwhile; else try again."""
        key = self._key("record", name)
        noting = self._pipeline()
        self._renew(noting, name)
        noting.execute(raise_on_error=False)
        with self._client_for(key).pipeline(transaction=True) as pipe:
            for _ in range(ATTEMPTS):
                pipe.watch(key)
                text = _text(pipe.execute_command("GETRANGE", key, 0, LONGEST_TEXT, **UNDECODED))
                after = change(text, _seconds(pipe.time()))
                if after is None:
                    return
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
        fields = [[f"{_epoch(text)}.{kind}" for kind in COUNTED] for text in texts]
        keys = [self._key("totals", name) for name in names]
        totals = self._each("HMGET", [(key, *each) for key, each in zip(keys, fields, strict=True)])
        return [_circuit(*each, now) for each in zip(names, texts, fields, totals, strict=True)]

    def members(self) -> Sequence[Member]:
        """Return all processes that have been seen not long ago."""
        now = self._read_clock(self._client.time())
        lines = [(line, seen) for _, seen, line in self._entries(self._members, now, DAY_S)]
        return [member for line, seen in lines if (member := Member.read(line, seen, now)) is not None]

    # An exchange

    def _add(self, pipe: Any, report: Report) -> None:
        totals = self._key("totals", report.name)
        if report.forget:
            pipe.hdel(totals, *report.forget)
        for field, number in report.add.items():
            pipe.hincrby(totals, field, number)
        self._renew(pipe, report.name)
        pipe.execute_command("GETRANGE", self._key("record", report.name), 0, LONGEST_TEXT, **UNDECODED)
        pipe.execute_command("HMGET", totals, *report.read, **UNDECODED)

    def _renew(self, pipe: Any, name: str) -> None:
        """Note once an hour that a circuit is in use."""
        now = time.monotonic()
        if now - self._renewed.get(name, -HOUR_S) >= HOUR_S:
            self._renewed[name] = now
            pipe.hset(self._names, _short(name), f"{self._now():.3f} {json.dumps(name)}")
            for key in (self._names, self._key("record", name), self._key("totals", name)):
                pipe.expire(key, DAY_S)

    def _found(self, report: Report, answers: list[Any]) -> Found:
        error = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if error is not None:
            return Found(None, (), error)
        *_, text, totals = answers
        added = answers[1 if report.forget else 0]
        if (report.add and added == next(iter(report.add.values()))) or not (text or any(totals)):
            self._renewed.pop(report.name, None)  # perhaps the server has lost it, or what is new does not expire yet
        try:
            return Found(_text(text), [_number(total) for total in totals])
        except Unreadable as unreadable:
            return Found(None, (), unreadable)

    def _prune(self) -> None:
        """Delete, once an hour, who has gone and what has not been used for a day."""
        if time.monotonic() - self._pruned_at < HOUR_S:
            return
        self._pruned_at = time.monotonic()
        now = self._now()
        for key, lasts_s in ((self._names, DAY_S), (self._members, HOUR_S)):
            kept = {field for field, _, _ in self._entries(key, now, lasts_s)}
            gone = [field for field in self._client.hkeys(key) if _field(field) not in kept]
            if gone:
                self._client.hdel(key, *gone)

    def _entries(self, key: str, now: float, lasts_s: float) -> list[tuple[str, float, str]]:
        """Return field, time and text of what is in one of the two lists, and not older than this."""
        entries: list[tuple[str, float, str]] = []
        for field, value in self._client.execute_command("HGETALL", key, **UNDECODED).items():
            seen, _, text = (_text(value) or "").partition(" ")
            try:
                at = float(seen)
            except ValueError:
                continue  # nobody of us wrote that
            if abs(now - at) <= lasts_s:
                entries.append((_field(field), at, text))
        return entries

    def _each(self, command: str, arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
        pipe = self._pipeline()
        for each in arguments:
            pipe.execute_command(command, *each, **UNDECODED)
        return list(pipe.execute(raise_on_error=False)) if len(pipe) else []

    # The server

    def _key(self, kind: str, name: str) -> str:
        return f"{self._prefix}{kind}:{_short(name)}"

    def _pipeline(self) -> Any:
        if self._ahead_s is None:
            self._read_clock(self._client.time())
        return self._client.pipeline(transaction=False)

    def _client_for(self, key: str) -> Any:
        """Return a client of the server that has this key; of a cluster it is the one to watch it at."""
        client = self._client
        if not hasattr(client, "get_node_from_key"):
            return client
        connect = getattr(client, "get_redis_connection", None) or client.get_valkey_connection
        return connect(client.get_node_from_key(key))

    def _read_clock(self, answer: Any) -> float:
        now = _seconds(answer)
        self._ahead_s = now - time.monotonic()
        return now

    def _now(self) -> float:
        return time.monotonic() + (self._ahead_s or 0.0)


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


def _names(entries: Iterable[tuple[str, float, str]]) -> Iterable[str]:
    for field, _, text in entries:
        try:
            name = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(name, str) and _short(name) == field:
            yield name


def _epoch(text: Any) -> int:
    try:
        return epoch_of(read(_text(_sound(text))))
    except Exception:
        return 0


def _circuit(name: str, text: Any, fields: Sequence[str], totals: Any, now: float) -> SharedCircuit:
    try:
        numbers = [_number(total) or 0 for total in _sound(totals)]
        return SharedCircuit.read(name, _text(_sound(text)), dict(zip(fields, numbers, strict=True)), now)
    except Exception as error:
        return SharedCircuit(name, None, retry_after_s=None, error=str(error))


# Checking the client


def _checked(client: Any) -> Any:
    takes = "a client of redis-py or valkey-py, such as redis.Redis(socket_timeout=0.25)"
    kind = cast("type[object]", type(client))
    if issubclass(kind, type) or not callable(getattr(client, "pipeline", None)):
        raise checks.wrong_type("client", client, takes)
    if inspect.iscoroutinefunction(getattr(kind, "execute_command", None)):
        raise checks.wrong_type("client", client, f"{takes}, not an asynchronous one")
    if _socket_timeout(client) is None:
        raise checks.wrong_value(
            "client", client, "a client with a socket_timeout, such as redis.Redis(socket_timeout=0.25)"
        )
    return client


def _socket_timeout(client: Any) -> Any:
    """Return the time-out of a client's connections; one that cannot be seen counts as there."""
    try:
        if hasattr(client, "get_default_node"):
            node = client.get_default_node()
            client = getattr(node, "redis_connection", None) or node.valkey_connection
        pool = client.connection_pool
        settings = pool.connection_kwargs
        if "socket_timeout" in settings:
            return settings["socket_timeout"]
        return pool.connection_class(**settings).socket_timeout  # which connects to nothing yet
    except Exception:
        return ...
