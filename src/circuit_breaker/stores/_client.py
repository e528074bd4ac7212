"""What `RedisStore` needs of a client of redis-py or valkey-py; nothing of either is imported."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from contextlib import suppress
from copy import copy
from typing import Any, Final, NamedTuple, cast

from .._common import checks

UNDECODED: Final = {"NEVER_DECODE": True}  # as bytes, also from a client that decodes: garbage must not raise there

SENT_TO_NO_OWNER: Final = ("MovedError", "SlotNotCoveredError")  # errors that show that no node has done the work


class Command(NamedTuple):
    """A command, and the key that says which node of a cluster gets it; None: any node."""

    key: str | None
    words: Sequence[Any]


class Batch:
    """Commands that are sent together. None is sent twice: if a reply is lost, the server may have done the work."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._commands: list[Command] = []

    def __len__(self) -> int:
        return len(self._commands)

    def add(self, name: str, key: str | None = None, *rest: Any) -> None:
        """Add a command of one key."""
        self._commands.append(Command(key, (name, *(() if key is None else (key,)), *rest)))

    def run(self) -> list[Any]:
        """Send all commands, and return the answers; an answer may be an exception.

        Raises:
            Exception: nothing can be learnt, such as when no server answers.
        """
        if not is_cluster(self._client):
            return _sent(self._client, self._commands)
        answers: list[Any] = [None] * len(self)
        self._run_on_nodes(range(len(self)), answers)
        away = [place for place, answer in enumerate(answers) if _shows_another_cluster(answer)]
        if away:
            with suppress(Exception):  # then the next batch meets the same
                self._client.nodes_manager.initialize()
            not_done = [place for place in away if type(answers[place]).__name__ in SENT_TO_NO_OWNER]
            self._run_on_nodes(not_done, answers)
        return answers

    def _run_on_nodes(self, places: Iterable[int], answers: list[Any]) -> None:
        by_node: dict[str, list[int]] = {}
        for place in places:
            try:
                name = node_of(self._client, self._commands[place].key).name
            except Exception as error:
                answers[place] = error
            else:
                by_node.setdefault(name, []).append(place)
        for mine in by_node.values():
            commands = [self._commands[place] for place in mine]
            try:
                found = _sent(client_for(self._client, commands[0].key), commands)
            except Exception as error:
                found = [error] * len(mine)
            for place, answer in zip(mine, found, strict=True):
                answers[place] = answer


def _sent(client: Any, commands: Iterable[Command]) -> list[Any]:
    pipe = client.pipeline(transaction=False)
    pipe.connection_pool = _WithoutRetries(pipe.connection_pool)
    for command in commands:
        pipe.execute_command(*command.words, **UNDECODED)
    answers: list[Any] = pipe.execute(raise_on_error=False)
    return answers


class _WithoutRetries:
    """Lends the connections of a pool to one pipeline; while a connection is lent, it tries nothing again.

    The pool and its client, which others may use, keep the retries that their owner has given them.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._retry: Any = None

    def get_connection(self, *arguments: Any) -> Any:
        connection = self._pool.get_connection(*arguments)
        self._retry = connection.retry
        connection.retry = copy(self._retry)
        connection.retry._retries = 0
        return connection

    def release(self, connection: Any) -> None:
        connection.retry = self._retry
        self._pool.release(connection)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


# Clusters


def is_cluster(client: Any) -> bool:
    """Tell whether a client is that of a cluster."""
    return hasattr(client, "get_node_from_key")


def node_of(client: Any, key: str | None) -> Any:
    """Return the node of a cluster that has this key; None: any node."""
    return client.get_default_node() if key is None else client.get_node_from_key(key)


def client_for(client: Any, key: str | None) -> Any:
    """Return a client of the server that has this key; of a cluster it is the one to watch it at."""
    if not is_cluster(client):
        return client
    connect = getattr(client, "get_redis_connection", None) or client.get_valkey_connection
    return connect(node_of(client, key))


def _shows_another_cluster(answer: Any) -> bool:
    """Tell whether an answer shows that the cluster is not as the client knows it."""
    return isinstance(answer, Exception) and type(answer).__name__ != "ResponseError"


# Checking the client


def checked(client: Any) -> Any:
    """Return the client, if it is one that `RedisStore` can use."""
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
    """Return the timeout of a client's connections; one that cannot be seen counts as there."""
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
