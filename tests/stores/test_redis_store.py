"""Circuits in a real Redis, with redis-py and valkey-py, and everything that may happen to a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from garbage import collect
from patience import PATIENCE_S
from redis_server import RedisServer, needs_redis_server

pytest.importorskip("redis", reason="needs the extra redis: pip install -e .[redis]")

import redis

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitOpenError, CircuitState
from circuit_breaker._shared import changes
from circuit_breaker._shared.process import talker_of
from circuit_breaker._shared.protocol import MemberLine, Report, member_text
from circuit_breaker._shared.record import Edit, Rules
from circuit_breaker.stores import RedisStore
from circuit_breaker.stores import redis as redis_store
from circuit_breaker.testing import check_store

try:
    import valkey
except ImportError:
    valkey = None

CONFIG = CircuitBreakerConfig(failure_threshold=2, reset_timeout_s=60.0)
LONG_S = 600.0


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> Iterator[RedisServer]:
    """The one server of these tests, empty."""
    running.client(redis.Redis).flushall()
    yield running
    running.client(redis.Redis).flushall()
    collect()  # the talkers of this test, which stores of the next one would have, too


@pytest.fixture
def make(server: RedisServer) -> Iterator[Callable[..., RedisStore]]:
    made: list[RedisStore] = []

    def make(client: Any = None, **settings: Any) -> RedisStore:
        client = server.client(redis.Redis) if client is None else client
        made.append(RedisStore(client, **{"timeout_s": 1.0, "interval_s": LONG_S, **settings}))
        return made[-1]

    yield make
    for store in made:
        thread = talker_of(store).stop()
        if thread is not None:
            thread.join(PATIENCE_S)


def add(store: RedisStore, number: int = 1) -> int | None:
    (found,) = store.exchange([Report("api", {"0.successes": number}, ["0.successes"])], None).found
    if found.error is not None:
        raise found.error
    return found.totals[0]


CLIENTS: dict[str, Callable[[RedisServer], Any]] = {
    "redis-py": lambda server: server.client(redis.Redis, socket_timeout=5.0),
    "redis-py, decoding": lambda server: server.client(redis.Redis, decode_responses=True, socket_timeout=5.0),
    "redis-py, RESP2": lambda server: server.client(redis.Redis, protocol=2, socket_timeout=5.0),
    "redis-py, RESP3": lambda server: server.client(redis.Redis, protocol=3, socket_timeout=5.0),
    "redis-py, from a URL": lambda server: redis.Redis.from_url(
        f"redis://127.0.0.1:{server.port}/3", socket_timeout=5.0
    ),
    "valkey-py": lambda server: server.client(valkey.Valkey, socket_timeout=5.0),
    "valkey-py, decoding": lambda server: server.client(valkey.Valkey, decode_responses=True, socket_timeout=5.0),
}


@needs_redis_server
@pytest.mark.parametrize("client", CLIENTS)
def test_it_keeps_what_a_store_promises(server: RedisServer, client: str) -> None:
    if valkey is None and "valkey" in client:
        pytest.skip("needs valkey-py")
    clients = [CLIENTS[client](server) for _ in range(2)]
    check_store(lambda: RedisStore(clients[0]))
    check_store(lambda: RedisStore(clients[1], "elsewhere:"))


# What is refused


@pytest.mark.parametrize("client", [None, 7, "redis://localhost", redis.Redis, object()], ids=repr)
def test_what_is_no_client_is_rejected(client: Any) -> None:
    with pytest.raises(TypeError, match=r"client must be a client of redis-py or valkey-py, such as redis.Redis\("):
        RedisStore(client)


def test_an_asynchronous_client_is_rejected() -> None:
    from redis.asyncio import Redis

    with pytest.raises(TypeError, match="not an asynchronous one"):
        RedisStore(Redis(socket_timeout=1.0))


def with_connections(socket_timeout: float | None) -> Any:
    """Return a client whose connections have a time-out by default, of which its settings say nothing."""

    class Connection(redis.Connection):
        def __init__(self, **settings: Any) -> None:
            super().__init__(socket_timeout=socket_timeout, **settings)

    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=Connection))


NO_TIMEOUT: dict[str, Callable[[], Any]] = {
    "redis-py": lambda: redis.Redis(socket_timeout=None),
    "its pool": lambda: redis.Redis(connection_pool=redis.ConnectionPool(socket_timeout=None)),
    "valkey-py": lambda: valkey.Valkey(),
    "its connections": lambda: with_connections(socket_timeout=None),
    "a URL": lambda: redis.Redis.from_url("redis://localhost", socket_timeout=None),
}


@pytest.mark.parametrize("client", NO_TIMEOUT)
def test_a_client_without_a_timeout_is_rejected(client: str) -> None:
    if valkey is None and "valkey" in client:
        pytest.skip("needs valkey-py")
    with pytest.raises(ValueError, match=r"a client with a socket_timeout, such as redis.Redis\(socket_timeout=0.25\)"):
        RedisStore(NO_TIMEOUT[client]())


def test_a_client_whose_connections_have_a_timeout_by_default_is_taken() -> None:
    assert "Redis" in repr(RedisStore(with_connections(socket_timeout=3.0)))


def test_a_client_whose_timeout_cannot_be_seen_is_taken() -> None:
    class Pipelining:
        def pipeline(self) -> None: ...

    assert "Pipelining" in repr(RedisStore(Pipelining()))


def test_a_prefix_that_is_not_a_text_is_rejected() -> None:
    with pytest.raises(TypeError, match="prefix must be a str"):
        RedisStore(redis.Redis(), b"circuits:")  # type: ignore[arg-type]


def test_two_stores_of_one_server_and_prefix_are_one_member() -> None:
    stores = [RedisStore(redis.Redis(port=1234)), RedisStore(redis.Redis(port=1234, socket_timeout=2.0))]
    others = [RedisStore(redis.Redis(port=1235)), RedisStore(redis.Redis(port=1234), "other:")]
    talkers = [talker_of(store) for store in [*stores, *others]]
    assert talkers[0] is talkers[1]
    assert len(set(talkers)) == 3


def test_stores_of_two_masters_are_two_members() -> None:
    from redis.sentinel import Sentinel

    sentinel = Sentinel([("127.0.0.1", 1)], socket_timeout=0.25, db=0)
    stores = [RedisStore(sentinel.master_for(name)) for name in ("us", "eu")]
    assert talker_of(stores[0]) is not talker_of(stores[1])
    assert talker_of(stores[0]) is talker_of(RedisStore(stores[0]._client))


# Keys


@needs_redis_server
def test_keys_are_short_and_ascii_and_expire_after_a_day(server: RedisServer, make: Callable[..., RedisStore]) -> None:
    store = make()
    for name in ("api", "ä" * 10_000, "{tag}*?[\n", ""):
        store.force_open(name)
        report = Report(name, {"0.successes": 1}, ["0.successes"])
        store.exchange([report], MemberLine("me", member_text({}, 0.0, 60.0)))
        store.exchange([report], None)
    client = server.client(redis.Redis)
    keys = client.keys("*")
    assert len(keys) == 2 * 4 + 2
    assert all(len(key) <= 100 and key.isascii() and b"{" not in key for key in keys)
    assert all(86_000 < client.ttl(key) <= 86_400 for key in keys)


@needs_redis_server
def test_a_key_that_was_lost_expires_again(server: RedisServer, make: Callable[..., RedisStore]) -> None:
    store, client = make(), server.client(redis.Redis)
    assert [add(store), add(store)] == [1, 2]
    client.flushall()
    add(store)
    assert client.ttl("circuits:totals:api") == -1
    add(store)
    assert client.ttl("circuits:totals:api") > 86_000
    assert [circuit.name for circuit in store.circuits()] == ["api"]


@needs_redis_server
def test_what_has_gone_is_deleted_within_the_hour(
    server: RedisServer, make: Callable[..., RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, now = server.client(redis.Redis), [1e6]
    store = make()
    client.hset("circuits:names", "old", f'{1e9:.3f} "old"')
    client.hset("circuits:members", "old", f"{1e9:.3f} {{}}")
    client.hset("circuits:members", "bad", "nothing of ours")
    client.hset("circuits:members", b"\xff\xfe", "nan {}")
    monkeypatch.setattr(redis_store.time, "monotonic", lambda: now[0])
    store.exchange([], MemberLine("me", member_text({}, 0.0, 60.0)))
    add(store)
    assert client.hkeys("circuits:names") == [b"api"]
    assert client.hkeys("circuits:members") == [b"me"]
    client.hset("circuits:members", "old", f"{1e9:.3f} {{}}")
    now[0] += 3_599.0
    for _ in range(2):
        add(store)
    assert len(client.hkeys("circuits:members")) == 2
    now[0] += 1.0
    store.exchange([], None)
    store.exchange([], None)
    assert len(client.hkeys("circuits:members")) == 2  # who only reads deletes nothing
    for _ in range(2):
        add(store)
    assert client.hkeys("circuits:members") == [b"me"]


@needs_redis_server
def test_a_store_forgets_circuits_that_are_not_used_any_more(
    make: Callable[..., RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, now = make(), [1e6]
    monkeypatch.setattr(redis_store.time, "monotonic", lambda: now[0])
    for _ in range(2):
        store.exchange([Report(f"tenant-{number}", {"x": 1}, ["x"]) for number in range(100)], None)
    assert len(store._renewed) == 100
    now[0] += 3_600.0
    for _ in range(2):
        store.exchange([Report("api", {"x": 1}, ["x"])], None)
    assert list(store._renewed) == ["api"]


@needs_redis_server
def test_an_exchange_looks_at_a_few_entries_of_a_long_list(
    server: RedisServer, make: Callable[..., RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = server.client(redis.Redis, socket_timeout=PATIENCE_S)
    client.hset("circuits:names", mapping={f"old{number}": f'{1e9:.3f} "old"' for number in range(10_000)})
    store, lengths = make(server.client(redis.Redis, socket_timeout=PATIENCE_S)), [10_000]
    monkeypatch.setattr(redis_store, "SCANNED_AT_ONCE", 1_000)
    while lengths[-1] > 1:
        add(store)
        lengths.append(client.hlen("circuits:names"))
        assert lengths[-2] - lengths[-1] < 2_000
    assert 10 <= len(lengths) <= 30


@needs_redis_server
@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda client: client.hset("circuits:members", b"\xff\xfe", "x"),
        lambda client: client.rpush("circuits:members", "x"),
        lambda client: client.rpush("circuits:names", "x"),
    ],
)
def test_a_first_call_learns_of_an_open_circuit_whatever_is_in_the_lists(
    server: RedisServer, make: Callable[..., RedisStore], spoil: Callable[[Any], object], decode: bool
) -> None:
    store, client = make(server.client(redis.Redis, decode_responses=decode)), server.client(redis.Redis)
    make().force_open("api")
    client.delete("circuits:names")
    spoil(client)
    breaker = CircuitBreaker("api", CONFIG, store=store)
    with pytest.raises(CircuitOpenError):
        breaker.call(int)


@needs_redis_server
def test_one_round_trip_is_all_that_an_exchange_takes(server: RedisServer, make: Callable[..., RedisStore]) -> None:
    store, client = make(), server.client(redis.Redis)
    reports = [Report(f"api{number}", {"0.successes": 1}, ["0.successes"]) for number in range(20)]
    store.exchange(reports, None)
    store.exchange(reports, None)
    before = client.info("stats")["total_reads_processed"]
    store.exchange(reports, None)
    assert client.info("stats")["total_reads_processed"] - before <= 2  # one is this look itself


def lose_a_reply(monkeypatch: pytest.MonkeyPatch, kind: Any, command: str) -> list[str]:
    """Let the next reply to a command be lost; the server has done the work. What is returned holds it then."""
    parse, lost = kind.parse_response, []

    def parse_response(self: Any, connection: Any, name: str, **options: Any) -> Any:
        answer = parse(self, connection, name, **options)
        if name != command or lost:
            return answer
        lost.append(name)
        connection.disconnect()
        raise (redis if kind is redis.Redis else valkey).TimeoutError("the reply was lost")

    monkeypatch.setattr(kind, "parse_response", parse_response)
    return lost


def retrying_client(kind: str, server: RedisServer) -> Any:
    if kind == "redis-py":
        return server.client(redis.Redis)  # which tries everything again by default
    retry = pytest.importorskip("valkey.retry").Retry(valkey.backoff.NoBackoff(), 3)
    return server.client(valkey.Valkey, retry=retry, retry_on_timeout=True)


@needs_redis_server
@pytest.mark.parametrize("kind", ["redis-py", "valkey-py"])
def test_counts_whose_reply_is_lost_are_not_sent_again(
    server: RedisServer, make: Callable[..., RedisStore], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(retrying_client(kind, server))
    assert add(store) == 1
    lost = lose_a_reply(monkeypatch, type(store._client), "HINCRBY")
    with pytest.raises(Exception, match="the reply was lost"):
        add(store, 10)
    assert (add(store, 0), lost) == (11, ["HINCRBY"])


@needs_redis_server
def test_who_traces_a_pipeline_still_sees_where_it_goes(
    server: RedisServer, make: Callable[..., RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, ports = redis.client.Pipeline.execute, []

    def traced(self: Any, *arguments: Any, **options: Any) -> Any:
        ports.append(self.connection_pool.connection_kwargs["port"])
        return execute(self, *arguments, **options)

    monkeypatch.setattr(redis.client.Pipeline, "execute", traced)
    assert (add(make()), ports) == (1, [server.port])


@needs_redis_server
@pytest.mark.parametrize("kind", ["redis-py", "valkey-py"])
def test_the_client_goes_on_to_retry_what_its_owner_sends(
    server: RedisServer, make: Callable[..., RedisStore], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = retrying_client(kind, server)
    add(make(client))
    lose_a_reply(monkeypatch, type(client), "INCRBY")
    assert client.incr("mine") == 2


@needs_redis_server
def test_a_circuit_whose_server_was_flushed_is_listed_again(
    server: RedisServer, make: Callable[..., RedisStore]
) -> None:
    store, report = make(), Report("api", {}, ["0.successes"])
    for _ in range(3):
        store.exchange([report], None)
    server.client(redis.Redis).flushall()
    for _ in range(2):
        store.exchange([report], None)
    assert [circuit.name for circuit in store.circuits()] == ["api"]


# What others have written


@needs_redis_server
@pytest.mark.parametrize(
    "spoil",
    [
        lambda client: client.set("circuits:totals:api", "no hash"),
        lambda client: client.hset("circuits:totals:api", "0.successes", "many"),
    ],
)
def test_a_record_is_read_although_its_totals_cannot_be(
    server: RedisServer, make: Callable[..., RedisStore], spoil: Callable[[Any], object]
) -> None:
    store = make(server.client(redis.Redis))
    client = server.client(redis.Redis)
    client.delete("circuits:record:api", "circuits:totals:api")
    store.update("api", lambda record, now: "the record")
    spoil(client)
    (found,) = store.exchange([Report("api", {}, ["0.successes"])], None).found
    assert found.record == "the record"
    assert found.error is not None


@needs_redis_server
@pytest.mark.parametrize(
    "spoil",
    [
        lambda client: client.set("circuits:record:api", "garbage"),
        lambda client: client.set("circuits:record:api", b"\xff\x00\xfe"),
        lambda client: client.set("circuits:record:api", "x" * 1_000_000),
        lambda client: client.lpush("circuits:record:api", "a list"),
        lambda client: client.set("circuits:totals:api", "no hash"),
        lambda client: client.hset("circuits:totals:api", "0.successes", "many"),
        lambda client: client.hset("circuits:totals:api", "0.successes", b"\xff"),
        lambda client: client.hset("circuits:totals:api", "0.successes", "9" * 60),
        lambda client: client.hset("circuits:totals:api", "0.failures", "-1"),
        lambda client: client.hset("circuits:totals:api", "0.failures", "9223372036854775807"),
    ],
)
@pytest.mark.parametrize("decode", [False, True])
def test_garbage_of_one_circuit_is_a_lost_store_for_that_one_only(
    server: RedisServer, make: Callable[..., RedisStore], spoil: Callable[[Any], object], decode: bool
) -> None:
    store = make(server.client(redis.Redis, decode_responses=decode))
    breaker, other = CircuitBreaker("api", CONFIG, store=store), CircuitBreaker("other", CONFIG, store=store)
    client = server.client(redis.Redis)
    client.delete("circuits:record:api", "circuits:totals:api")
    spoil(client)
    store.sync()
    assert breaker.call(int) == 0
    assert breaker.snapshot().shared.link == "away"  # type: ignore[union-attr]
    assert other.snapshot().shared.link == "joined"  # type: ignore[union-attr]
    circuits = {circuit.name: circuit for circuit in store.circuits()}
    assert circuits["other"].state is CircuitState.CLOSED
    assert 0 < len(circuits["api"].error or "") < 400
    store.force_open("api")
    store.sync()
    with pytest.raises(CircuitOpenError):
        breaker.call(int)
    store.reset("api")
    store.sync()
    assert breaker.call(int) == 0
    assert breaker.snapshot().shared.link == "joined"  # type: ignore[union-attr]
    assert {circuit.error for circuit in store.circuits()} == {None}


@needs_redis_server
def test_lists_of_garbage_are_passed_over(server: RedisServer, make: Callable[..., RedisStore]) -> None:
    store, client = make(), server.client(redis.Redis)
    add(store)
    store.exchange([], MemberLine("me", member_text({"api": "closed"}, 0.0, 60.0)))
    seen = f"{client.time()[0]:.3f}"
    for number, value in enumerate(["", "x", f"{seen} garbage", f"{seen} 7", f'{seen} "api"', f"{seen} {'[' * 9_999}"]):
        client.hset("circuits:names", f"bad{number}", value)
        client.hset("circuits:members", f"bad{number}", value)
    client.hset("circuits:names", b"\xff\xfe", b"\xff")
    assert [circuit.name for circuit in store.circuits()] == ["api"]
    assert [dict(member.circuits) for member in store.members()] == [{"api": "closed"}]


@needs_redis_server
def test_lists_of_another_type_are_an_error_of_looks_only(server: RedisServer, make: Callable[..., RedisStore]) -> None:
    store, client = make(), server.client(redis.Redis)
    client.set("circuits:names", "no hash")
    with pytest.raises(redis.ResponseError):
        store.circuits()


# Compare-and-swap


@needs_redis_server
def test_a_hundred_clients_at_once_get_exactly_the_leases_there_are(server: RedisServer) -> None:
    def store() -> RedisStore:
        return RedisStore(server.client(redis.Redis, socket_timeout=PATIENCE_S))

    store().update("api", Edit(changes.opened(0, Rules(0.0, 3, 1, 1), "down", "x:1")))
    epoch = store().circuits()[0].epoch
    barrier, granted, errors = threading.Barrier(100), [], []

    def ask(number: int) -> None:
        mine, edit = store(), Edit(changes.leased(epoch, 0.0, f"t{number}", 60.0))
        barrier.wait(PATIENCE_S)
        try:
            mine.update("api", edit)
        except Exception as error:
            errors.append(error)
        if edit.record is not None and edit.record.holds(f"t{number}", edit.now):
            granted.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_S)
    assert (len(granted), errors) == (3, [])


@needs_redis_server
def test_a_record_that_others_change_all_the_time_is_given_up_on(
    server: RedisServer, make: Callable[..., RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "ATTEMPTS", 3)
    other = server.client(redis.Redis)

    def change(text: str | None, now: float) -> str:
        other.set("circuits:record:api", f"{now}")
        return "mine"

    with pytest.raises(TimeoutError, match="changed the record 3 times"):
        make().update("api", change)


@needs_redis_server
def test_what_the_server_rejects_at_a_change_comes_out(make: Callable[..., RedisStore]) -> None:
    with RedisServer() as own:
        store = make(own.client(redis.Redis))
        own.client(redis.Redis).execute_command("ACL", "SETUSER", "default", "-getrange")
        with pytest.raises(redis.ResponseError, match="permissions"):
            store.reset("api")


@needs_redis_server
def test_only_an_order_overwrites_a_record_of_another_type(
    server: RedisServer, make: Callable[..., RedisStore]
) -> None:
    store, client = make(), server.client(redis.Redis)
    client.lpush("circuits:record:api", "a list")
    with pytest.raises(ValueError, match="the record cannot be read"):
        store.update("api", Edit(changes.reset("x:1")))
    assert client.type("circuits:record:api") == b"list"


@needs_redis_server
def test_a_server_that_is_full_rejects_a_change(make: Callable[..., RedisStore]) -> None:
    with RedisServer("--maxmemory", "1", "--maxmemory-policy", "noeviction") as full:
        with pytest.raises(redis.RedisError, match=r"(?i)memory|abort"):
            make(full.client(redis.Redis)).reset("api")


# A server that goes and comes back


@needs_redis_server
def test_a_server_that_is_killed_and_started_again_empty(make: Callable[..., RedisStore]) -> None:
    with RedisServer() as own:
        store = make(own.client(redis.Redis))
        breaker = CircuitBreaker("api", CONFIG, store=store)
        store.force_open("api")
        with pytest.raises(CircuitOpenError):
            breaker.call(int)
        own.kill()
        with pytest.raises(redis.ConnectionError):
            store.sync()
        with pytest.raises(CircuitOpenError):
            breaker.call(int)
        own.start()
        store.sync()
        with pytest.raises(CircuitOpenError):
            breaker.call(int)
        assert store.circuits()[0].state is CircuitState.OPEN  # written back


@needs_redis_server
def test_a_server_that_hangs_keeps_calls_no_longer_than_they_may_wait(make: Callable[..., RedisStore]) -> None:
    with RedisServer() as own:
        store = make(own.client(redis.Redis, socket_timeout=0.05, retry=None), timeout_s=0.05)
        own.freeze()
        breaker = CircuitBreaker("api", CONFIG, store=store)
        assert [breaker.call(int) for _ in range(3)] == [0, 0, 0]
        own.thaw()
        for _ in range(100):
            try:
                store.sync()
            except redis.TimeoutError:  # the machine is busy
                continue
            break
        assert breaker.snapshot().shared.link == "joined"  # type: ignore[union-attr]


# A cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[RedisServer]]:
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    nodes = [RedisServer(*options, bus=True) for _ in range(3)]
    with nodes[0] as one, nodes[1], nodes[2]:
        for number, node in enumerate(nodes):
            client = node.client(redis.Redis, socket_timeout=5.0)
            first, last = 5_500 * number, min(5_500 * (number + 1), 16_384) - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", one.port, one.bus_port)
        for node in nodes:
            client = node.client(redis.Redis, socket_timeout=5.0)
            for _ in range(2_000):
                if "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")):
                    break
                threading.Event().wait(0.01)
        yield nodes


CLUSTER_CLIENTS = ["redis-py", "redis-py, decoding", "valkey-py"]


def cluster_client(kind: str, nodes: list[RedisServer]) -> Any:
    where = {"host": "127.0.0.1", "port": nodes[0].port, "socket_timeout": 5.0}
    if kind == "valkey-py":
        cluster = pytest.importorskip("valkey.cluster")
        return cluster.ValkeyCluster(**where)
    return redis.RedisCluster(**where, decode_responses="decoding" in kind)


@needs_redis_server
@pytest.mark.parametrize("kind", CLUSTER_CLIENTS)
def test_it_works_with_a_cluster(cluster: list[RedisServer], kind: str) -> None:
    client = cluster_client(kind, cluster)
    for node in cluster:
        node.client(redis.Redis).flushall()
    check_store(lambda: RedisStore(client))
    slots = {client.keyslot(f"circuits:record:{name}") for name in ("api", "sums", "cas", "swap")}
    assert len(slots) > 1


@needs_redis_server
@pytest.mark.parametrize("kind", CLUSTER_CLIENTS)
def test_counts_whose_reply_is_lost_are_not_sent_again_to_a_cluster(
    cluster: list[RedisServer], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore(cluster_client(kind, cluster), prefix=f"lost, {kind}:")
    assert add(store) == 1
    lost = lose_a_reply(monkeypatch, valkey.Valkey if kind == "valkey-py" else redis.Redis, "HINCRBY")
    with pytest.raises(Exception, match="the reply was lost"):
        add(store, 10)
    assert (add(store, 0), lost) == (11, ["HINCRBY"])


@needs_redis_server
@pytest.mark.parametrize("kind", CLUSTER_CLIENTS)
def test_a_key_that_has_moved_to_another_node_of_a_cluster_is_found(cluster: list[RedisServer], kind: str) -> None:
    client = cluster_client(kind, cluster)
    store = RedisStore(client, prefix=f"moved, {kind}:")
    key = store._key("totals", "api")
    slot, owner = client.keyslot(key), client.get_node_from_key(key)
    add(RedisStore(client, prefix="other:"))
    nodes = [node.client(redis.Redis, socket_timeout=5.0) for node in cluster]
    others = [node for node in nodes if node.get_connection_kwargs()["port"] != owner.port]
    for node in [*others, *(node for node in nodes if node not in others)]:
        node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", others[0].execute_command("CLUSTER", "MYID"))
    assert [add(store), add(store)] == [1, 2]
    assert client.get_node_from_key(key).port == others[0].get_connection_kwargs()["port"]


@needs_redis_server
@pytest.mark.parametrize("kind", CLUSTER_CLIENTS)
def test_a_cluster_whose_slots_are_not_known_is_asked_for_them(cluster: list[RedisServer], kind: str) -> None:
    client = cluster_client(kind, cluster)
    store = RedisStore(client, prefix=f"slots, {kind}:")
    assert add(store) == 1
    client.nodes_manager.slots_cache.clear()
    assert add(store) == 2


@needs_redis_server
def test_a_node_of_a_cluster_that_is_away_costs_its_own_circuits_alone(
    cluster: list[RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = cluster_client("redis-py", cluster)
    store = RedisStore(client, prefix="away:")
    names = [f"api{number}" for number in range(20)]
    away = next(node for node in client.get_nodes() if node != client.get_default_node())
    reports = [Report(name, {"0.successes": 1}, ["0.successes"]) for name in names]
    connect = client.get_redis_connection

    def get_redis_connection(node: Any) -> Any:
        if node.port == away.port:
            raise redis.ConnectionError("this node is away")
        return connect(node)

    def keys(name: str) -> set[int]:
        return {client.get_node_from_key(store._key(kind, name)).port for kind in ("totals", "record")}

    store.exchange([], None)
    monkeypatch.setattr(client, "get_redis_connection", get_redis_connection)
    monkeypatch.setattr(client.nodes_manager, "initialize", None)  # it cannot be asked who took over, either
    found = store.exchange(reports, None).found
    assert [each.error is not None for each in found] == [away.port in keys(name) for name in names]
    assert 0 < sum(each.error is None for each in found) < 20


@needs_redis_server
def test_a_cluster_client_without_a_timeout_is_rejected(cluster: list[RedisServer]) -> None:
    client = redis.RedisCluster(host="127.0.0.1", port=cluster[0].port, socket_timeout=None)
    with pytest.raises(ValueError, match="a client with a socket_timeout"):
        RedisStore(client)


@needs_redis_server
def test_circuits_on_all_nodes_of_a_cluster_are_shared(cluster: list[RedisServer]) -> None:
    for node in cluster:
        node.client(redis.Redis).flushall()
    names = [f"api{number}" for number in range(10)]
    store = RedisStore(cluster_client("redis-py", cluster), interval_s=LONG_S, timeout_s=5.0)
    breakers = [CircuitBreaker(name, CONFIG, store=store) for name in names]
    assert [breaker.call(int) for breaker in breakers] == [0] * 10
    for name in names:
        store.force_open(name)
    store.sync()
    assert {breaker.state for breaker in breakers} == {CircuitState.OPEN}
    assert json.dumps(sorted(circuit.name for circuit in store.circuits())) == json.dumps(sorted(names))
    thread = talker_of(store).stop()
    assert thread is not None
    thread.join(PATIENCE_S)
