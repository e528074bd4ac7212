"""Opens the store that a command line names."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from ..stores import RedisStore, SQLiteStore, Store

TIMEOUT_S: Final = 1.0
TAKES: Final = "sqlite:PATH or redis://HOST"
REDIS: Final = ("redis", "rediss", "unix")


class Source(NamedTuple):
    """A store, and how to call it without the password that its address may have."""

    store: Store
    label: str


def opened(text: str, prefix: str | None = None) -> Source:
    """Return the store that a text names.

    Args:
        text: `sqlite:PATH`, or an address that redis-py takes.
        prefix: that of the keys in Redis; None: that of `RedisStore`.

    Raises:
        ValueError: it names no store, or one that is not there; the text says what to do.
    """
    scheme, colon, rest = text.partition(":")
    if scheme == "sqlite" and colon:
        return _sqlite(rest, prefix)
    if scheme in REDIS and rest.startswith("//"):
        return _redis(text, prefix)
    file = "" if "://" in text else f"; for a file, write sqlite:{text}"
    raise ValueError(f"{text!r} is no store: it takes {TAKES}{file}")


def _sqlite(path: str, prefix: str | None) -> Source:
    if prefix is not None:
        raise ValueError("--prefix is for Redis; a file has none")
    if not Path(path).is_file():
        raise ValueError(
            f"there is no file {path!r}: give the path that your processes give to SQLiteStore; the first call of a "
            "breaker makes it"
        )
    return Source(SQLiteStore(path, timeout_s=TIMEOUT_S), f"sqlite:{path}")


def _redis(url: str, prefix: str | None) -> Source:
    try:
        redis: Any = import_module("redis")
    except ModuleNotFoundError:
        raise ValueError("redis://... needs redis-py: pip install redis") from None
    try:
        client = redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    except ValueError as error:
        raise ValueError(f"the address of Redis cannot be used: {error}") from None
    store = RedisStore(client) if prefix is None else RedisStore(client, prefix)
    return Source(store, _without_password(url))


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
